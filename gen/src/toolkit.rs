//! Finding a CUDA toolkit, and running its programs.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::Result;

/// The nvcc whose output is checked in. Another version gives other bytes.
pub const NVCC_VERSION: &str = "V13.0.88";

/// A folder with `bin/nvcc` and `bin/ptxas`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toolkit {
    pub bin: PathBuf,
}

impl Toolkit {
    /// The first of `PACER_NVCC` (the program), `PACER_CUDA_TOOLKIT` (a pip target folder or what
    /// is in it), `CUDA_HOME`, `CUDA_PATH` and `PATH`.
    pub fn find() -> Option<Toolkit> {
        let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
        let nvcc = variable("PACER_NVCC").and_then(|p| p.parent().map(Path::to_path_buf));
        let pip = variable("PACER_CUDA_TOOLKIT");
        let inner = pip.as_ref().map(|p| p.join("nvidia/cu13/bin"));
        let homes = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(variable);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut folders = nvcc
            .into_iter()
            .chain(inner)
            .chain(pip.map(|p| p.join("bin")))
            .chain(homes.map(|p| p.join("bin")))
            .chain(std::env::split_paths(&path));
        folders.find(|f| f.join("nvcc").is_file()).map(|bin| Toolkit { bin })
    }

    /// As [`Toolkit::find`], of the version whose output is checked in.
    ///
    /// # Errors
    /// None found, or another version; says how to get the right one.
    pub fn pinned() -> Result<Toolkit> {
        let hint =
            "gen/toolkit.sh DIR installs the pinned packages; then set PACER_CUDA_TOOLKIT=DIR";
        let found = Self::find().ok_or_else(|| format!("no nvcc found: {hint}"))?;
        let version = found.run("nvcc", &["--version".as_ref()])?;
        let text = String::from_utf8_lossy(&version.stdout).into_owned();
        if text.contains(NVCC_VERSION) {
            return Ok(found);
        }
        let line = text.lines().find(|l| l.contains("release")).unwrap_or("an unknown version");
        Err(format!("{}/nvcc is {line}, not {NVCC_VERSION}: {hint}", found.bin.display()))
    }

    /// Runs one of the toolkit's programs to its end.
    ///
    /// # Errors
    /// It cannot be started, or fails; with what it said.
    pub fn run(&self, program: &str, args: &[&std::ffi::OsStr]) -> Result<Output> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::iter::once(self.bin.clone()).chain(std::env::split_paths(&path));
        let path = std::env::join_paths(folders).map_err(|e| format!("PATH: {e}"))?;
        let output = Command::new(self.bin.join(program))
            .args(args)
            .env("PATH", path)
            .output()
            .map_err(|e| format!("{}: {e}", self.bin.join(program).display()))?;
        if output.status.success() {
            return Ok(output);
        }
        let said = [&output.stdout[..], &output.stderr[..]].concat();
        Err(format!("{program} failed: {}", String::from_utf8_lossy(&said).trim()))
    }
}
