//! Runs a test of this binary again in a process that finds the stand-in as libcuda.so.1.

use std::path::PathBuf;
use std::process::{Command, Output};

/// A folder that holds the stand-in under libcuda's name.
pub fn folder() -> PathBuf {
    let exe = std::env::current_exe().expect("this test's path");
    let beside = exe.parent().expect("a folder").join("libpacer_libcuda.so");
    assert!(beside.is_file(), "{} was not built with the tests", beside.display());
    let folder = std::env::temp_dir().join(format!("pacer-libcuda-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    // Several tests of a process may come here at once.
    let link = folder.join("libcuda.so.1");
    let _ = std::os::unix::fs::symlink(&beside, &link);
    assert!(link.exists(), "{}", link.display());
    folder
}

/// Runs the ignored test `name` with the stand-in and the variables given.
pub fn run(name: &str, variables: &[(&str, &str)]) -> Output {
    let exe = std::env::current_exe().expect("this test's path");
    let mut command = Command::new(exe);
    command.args(["--ignored", "--exact", name, "--nocapture", "--test-threads=1"]);
    command.env("LD_LIBRARY_PATH", folder()).envs(variables.iter().copied());
    command.output().expect("the test runs")
}

/// As [`run`]; the test must have run and passed.
pub fn pass(name: &str, variables: &[(&str, &str)]) {
    let output = run(name, variables);
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {text}\n{errors}");
    assert!(text.contains("1 passed"), "{name} did not run: {text}");
}
