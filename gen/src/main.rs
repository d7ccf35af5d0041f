//! `pacer-gen`: makes `gen/ptx`, `gen/registry`, `gen/bindings` and the stamp, or checks them.

mod bindings;
mod run;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "\
usage: pacer-gen [--check] [--all] [--lines DIR]
  (nothing)    make what is stale
  --all        make everything
  --check      make everything aside and fail if anything checked in differs
  --lines DIR  PTX with source lines, for debugging, into DIR
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let root = root.canonicalize().unwrap_or(root);
    let result = match args[..] {
        [] => run::generate(&root, false),
        ["--all"] => run::generate(&root, true),
        ["--check"] => run::check(&root),
        ["--lines", folder] => run::lines(&root, &PathBuf::from(folder)),
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("pacer-gen: {e}");
            ExitCode::FAILURE
        }
    }
}
