//! Layer-wise NVTX ranges as a tool hears them that is attached the way Nsight Systems is.

use std::path::{Path, PathBuf};
use std::process::Command;

fn build(folder: &Path) -> PathBuf {
    let library = folder.join("libtool.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nvtx/tool.c");
    let cc = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    let built = Command::new(cc)
        .args(["-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(source)
        .status()
        .unwrap();
    assert!(built.success());
    library
}

const TINY: &str = r#"{"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 128,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 512}"#;

/// The lines that a tool hears while three tokens are generated.
fn ranges(folder: &Path, device: &str, more: &[&str]) -> (Vec<String>, String) {
    let log = folder.join(format!("{device}.log"));
    let output = Command::new(env!("CARGO_BIN_EXE_pacer"))
        .args(["generate", "--load-format", "dummy", "--device", device, "--threads", "1"])
        .args(["--json-model-override-args", TINY, "--input-ids", "1,2,3,4,5"])
        .args(["--max-new-tokens", "3", "--context-length", "64", "--max-total-tokens", "64"])
        .args(["--json", "--ignore-eos"])
        .args(more)
        .env("NVTX_INJECTION64_PATH", folder.join("libtool.so"))
        .env("NVTX_LOG", &log)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{errors}");
    let heard = std::fs::read_to_string(log).unwrap_or_default();
    (heard.lines().map(String::from).collect(), errors)
}

#[test]
fn layers_steps_and_the_scheduler_are_ranges() {
    let folder = std::env::temp_dir().join(format!("pacer-nvtx-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    build(&folder);
    let marker = "--enable-layerwise-nvtx-marker";
    let (heard, _) = ranges(&folder, "cpu", &[marker, "--max-running-requests", "1"]);
    assert!(!heard.iter().any(|l| l == "UNDERFLOW"), "{heard:?}");
    let count = |line: &str| heard.iter().filter(|l| *l == line).count();
    assert_eq!(count("step[EXTEND bs=1 toks=5]"), 1, "{heard:#?}");
    assert_eq!(count("step[DECODE bs=1]"), 2);
    // Inside a step: layers, inside them ops with the shapes of inputs, parameters, outputs.
    assert_eq!(count("  model.layers.1"), 3);
    let down = "    model.layers.1.mlp.down_proj [linear [5, 128] x [64, 128] -> [5, 64]]";
    assert_eq!(count(down), 1, "{heard:#?}");
    assert_eq!(count(&down.replace("5, ", "1, ")), 2);
    assert!(count("scheduler.plan") >= 3 && count("  sample") == 3);
    assert_eq!(count("  scheduler.commit"), 3);
    // Replayed graphs say what they hide; kernel by kernel they hide nothing.
    let one = "--max-running-requests";
    let (heard, _) = ranges(&folder, "emulated", &[marker, one, "1"]);
    let replay = |l: &&String| l.starts_with("  graph replay [hides ");
    let replays: Vec<&String> = heard.iter().filter(replay).collect();
    assert_eq!(replays.len(), 2, "{heard:#?}");
    assert!(replays[0].ends_with("kernels of layers 0 to 1]"), "{replays:?}");
    let (heard, _) = ranges(&folder, "emulated", &[marker, one, "1", "--disable-cuda-graph"]);
    assert_eq!(heard.iter().filter(replay).count(), 0);
    assert_eq!(heard.iter().filter(|l| *l == "  model.layers.1").count(), 3, "{heard:#?}");
    // A batch of two is one step with the shapes of both.
    let two = ["--input-ids", "6,7,8", "--max-running-requests", "2"];
    let (heard, _) = ranges(&folder, "cpu", &[&[marker][..], &two].concat());
    let count = |line: &str| heard.iter().filter(|l| *l == line).count();
    assert_eq!(count("step[EXTEND bs=2 toks=8]"), 1, "{heard:#?}");
    assert_eq!(count("step[DECODE bs=2]"), 2, "{heard:#?}");
    assert_eq!(count(&down.replace("5, ", "8, ")), 1, "{heard:#?}");
    assert_eq!(count(&down.replace("5, ", "2, ")), 2, "{heard:#?}");
    // Without the flag nothing is said.
    std::fs::remove_file(folder.join("cpu.log")).unwrap();
    assert!(ranges(&folder, "cpu", &[]).0.is_empty());
    // Without a tool, or with one that is none, tokens come all the same.
    std::fs::write(folder.join("libtool.so"), "no library").unwrap();
    assert!(ranges(&folder, "cpu", &[marker]).0.is_empty());
    std::fs::remove_file(folder.join("libtool.so")).unwrap();
    assert!(ranges(&folder, "cpu", &[marker]).0.is_empty());
    std::fs::remove_dir_all(folder).unwrap();
}
