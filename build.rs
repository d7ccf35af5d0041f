//! Build steps that need nothing but a C compiler driver: the commit for result rows, a check that
//! the checked-in GPU code fits its sources, and on Linux a link against libc alone.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    commit();
    kernels_are_fresh();
    pack_kernels();
    cubins();
    if std::env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|env| env == "gnu")
        && std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux")
    {
        link_statically();
    }
}

/// `PACER_COMMIT`: the checkout's short commit, with `-dirty` if files differ from it.
fn commit() {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).output().ok().filter(|o| o.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let hash = git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    let dirty = git(&["status", "--porcelain", "--untracked-files=no"]);
    let mark = if dirty.is_some_and(|d| !d.is_empty()) { "-dirty" } else { "" };
    println!("cargo:rustc-env=PACER_COMMIT={hash}{mark}");
    println!("cargo:rerun-if-changed=src");
    // A commit moves HEAD's log; a switch of branches writes HEAD.
    for file in ["HEAD", "logs/HEAD"] {
        let path = git(&["rev-parse", "--git-path", file]);
        if let Some(path) = path.filter(|p| Path::new(p).exists()) {
            println!("cargo:rerun-if-changed={path}");
        }
    }
}

/// Refuses to build with PTX, registry or bindings that were made from other sources than those in
/// `cuda/`.
fn kernels_are_fresh() {
    for path in ["cuda", "gen/ptx", "gen/registry", "gen/bindings", "gen/stamp.txt"] {
        println!("cargo:rerun-if-changed={path}");
    }
    let stale = pacer_gen::stamp::stale(Path::new(env!("CARGO_MANIFEST_DIR")));
    if !stale.is_empty() {
        let list = stale.join("\n  ");
        panic!("stale GPU code; make it with `cargo run -p pacer-gen` (gen/README.md):\n  {list}");
    }
}

/// Writes each `gen/ptx/NAME.ptx` as zlib data to `OUT_DIR/NAME.ptx.z`, which the registry includes:
/// PTX shrinks to a tenth.
fn pack_kernels() {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    for module in pacer_gen::table::modules() {
        let name = module.name();
        let path = format!("gen/ptx/{name}.ptx");
        let text = std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
        let mut packer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        let packed = packer.write_all(&text).and_then(|()| packer.finish());
        let packed = packed.unwrap_or_else(|e| panic!("{path}: {e}"));
        std::fs::write(out.join(format!("{name}.ptx.z")), packed).expect("OUT_DIR can be written");
    }
}

/// With `PACER_CUBINS=sm_80,sm_90a`, assembles the checked-in PTX for these cards, so that no
/// driver has to. Needs a CUDA toolkit (gen/README.md); without the variable the list is empty.
fn cubins() {
    println!("cargo:rerun-if-env-changed=PACER_CUBINS");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let cards = std::env::var("PACER_CUBINS").unwrap_or_default();
    let mut list = String::from("&[\n");
    for card in cards.split(',').map(str::trim).filter(|card| !card.is_empty()) {
        let tools = pacer_gen::toolkit::Toolkit::find().unwrap_or_else(|| {
            panic!("PACER_CUBINS={cards}: no CUDA toolkit found (gen/README.md)")
        });
        for module in pacer_gen::table::modules() {
            // Hopper's own modules run on nothing else; portable ones need no `a`.
            if (module.target == pacer_gen::table::Target::Sm90a) != card.ends_with('a') {
                continue;
            }
            let name = module.name();
            let ptx = PathBuf::from(format!("gen/ptx/{name}.ptx"));
            let path = out.join(format!("{name}.{card}.cubin"));
            pacer_gen::compile::cubin(&tools, &ptx, card, &path)
                .unwrap_or_else(|e| panic!("{name} for {card}: {e}"));
            list += &format!("    ({name:?}, {card:?}, include_bytes!({path:?})),\n");
        }
    }
    std::fs::write(out.join("cubins.rs"), list + "]\n").expect("OUT_DIR can be written");
}

/// Puts a linker script named `libgcc_s.so` first on the search path, so that the unwinder comes
/// from its static archives and the binary needs only libc.so.6 (`src/maths.rs` does the same for
/// libm). Skipped, with the ordinary library as the result, where the archives are missing.
fn link_statically() {
    let Some(out) = std::env::var_os("OUT_DIR").map(PathBuf::from) else { return };
    let dir = out.join("static-link");
    if std::fs::create_dir_all(&dir).is_err() {
        return;
    }
    let unwinder = archive("libgcc_eh.a").zip(archive("libgcc.a"));
    let script = |name: &str, archives: &[PathBuf]| {
        let list: Vec<String> = archives.iter().map(|a| a.display().to_string()).collect();
        std::fs::write(dir.join(name), format!("INPUT({})\n", list.join(" "))).is_ok()
    };
    if let Some((eh, base)) = unwinder {
        script("libgcc_s.so", &[eh, base]);
    }
    println!("cargo:rustc-link-search=native={}", dir.display());
}

/// The path of a static archive for the target, if its linker, a C compiler's driver, has one.
fn archive(name: &str) -> Option<PathBuf> {
    let named = std::env::var("RUSTC_LINKER").or_else(|_| std::env::var("CC"));
    let cc = named.unwrap_or_else(|_| "cc".to_owned());
    let output = Command::new(cc).arg(format!("-print-file-name={name}")).output().ok()?;
    let path = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    (path.is_absolute() && Path::new(&path).exists()).then_some(path)
}
