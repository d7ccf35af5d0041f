//! Stamps the commit into the binary, so that every result row can name the code it measured.

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=src");
    println!("cargo:rerun-if-changed=Cargo.toml");
    // A commit moves HEAD's log; a switch of branches writes HEAD.
    for file in ["HEAD", "logs/HEAD"] {
        let path = git(&["rev-parse", "--git-path", file]);
        if let Some(path) = path.filter(|p| std::path::Path::new(p).exists()) {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    let commit = git(&["rev-parse", "--short=12", "HEAD"]).map(|hash| {
        let clean =
            git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|s| s.is_empty());
        if clean { hash } else { format!("{hash}-dirty") }
    });
    println!("cargo:rustc-env=PACER_COMMIT={}", commit.as_deref().unwrap_or("unknown"));
}

/// What a git command prints, or nothing where there is no git or no repository (a source archive).
fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_string())
}
