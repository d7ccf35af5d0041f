//! Rust twins of the structs in `cuda/abi.h`.

use std::path::Path;

use pacer_gen::Result;

/// Runs bindgen. The header includes nothing, so the output depends on bindgen alone.
#[cfg(feature = "bindings")]
pub fn make(root: &Path) -> Result<Option<String>> {
    let header = root.join("cuda/abi.h");
    let bindings = bindgen::Builder::default()
        .header(header.to_string_lossy())
        .clang_args(["-x", "c", "-std=c11", "--target=x86_64-unknown-linux-gnu"])
        .raw_line("// Made by pacer-gen from cuda/abi.h; do not edit.")
        .disable_header_comment()
        .generate_comments(false)
        .layout_tests(true)
        .derive_default(true)
        .derive_partialeq(true)
        .formatter(bindgen::Formatter::Prettyplease)
        .use_core()
        .generate()
        .map_err(|e| format!("cuda/abi.h: {e}"))?;
    Ok(Some(bindings.to_string()))
}

/// Without bindgen the checked-in bindings stay.
#[cfg(not(feature = "bindings"))]
pub fn make(_root: &Path) -> Result<Option<String>> {
    Ok(None)
}
