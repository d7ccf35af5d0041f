//! The kernel generator: from `cuda/*.cu` and a table of variants to checked-in PTX, a registry
//! and Rust bindings (see `gen/README.md`).
//!
//! `build.rs` uses [`stamp`] to refuse stale PTX and [`compile`] for cubins; the `pacer-gen`
//! program regenerates and checks.

pub mod compile;
pub mod ptxas;
pub mod registry;
pub mod stamp;
pub mod table;
pub mod toolkit;

/// What a step of generation says when it cannot go on.
pub type Result<T> = std::result::Result<T, String>;

/// Reads a text file; the error names it.
pub fn read(path: &std::path::Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
}

/// Writes a file, making its folder; the error names it.
pub fn write(path: &std::path::Path, text: &str) -> Result<()> {
    let at = |e: std::io::Error| format!("{}: {e}", path.display());
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(at)?;
    }
    std::fs::write(path, text).map_err(at)
}
