//! `pacer kernels emulate` as people run it: reports, findings and refusals.

use std::process::{Command, Output};

use serde_json::Value;

const KERNELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/emulator/tests/kernels/");

fn emulate(words: &[&str]) -> Output {
    let run =
        Command::new(env!("CARGO_BIN_EXE_pacer")).args(["kernels", "emulate"]).args(words).output();
    run.expect("the program that cargo built")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Two rows of 256 bf16.
fn rmsnorm(path: &str, extra: &[&str]) -> Output {
    let mut words = vec![
        path,
        "--grid",
        "2",
        "--block",
        "256",
        "--registers",
        "32",
        "--args",
        "buf:1024:random=bf16",
        "buf:512:random=bf16",
        "buf:1024",
        "i32:256",
        "f32:1e-5",
    ];
    words.extend(extra);
    emulate(&words)
}

#[test]
fn a_kernel_that_keeps_the_rules() {
    let path = format!("{KERNELS}rmsnorm.ptx");
    let run = rmsnorm(&path, &["--schedules", "3", "--lines"]);
    let said = text(&run.stdout);
    assert!(run.status.success(), "{said}{}", text(&run.stderr));
    assert!(said.contains("3 schedules: no rule broken"), "{said}");
    for card in ["H100 SXM", "H100 PCIe", "H200", "A100", "L4", "RTX 4090"] {
        let line = said.lines().find(|l| l.contains(card)).expect("each card has its line");
        assert!(line.starts_with("projected "), "{line}");
    }
    assert!(said.contains("rmsnorm.cu:"), "source lines where the PTX has them: {said}");
}

#[test]
fn the_same_as_json() {
    let path = format!("{KERNELS}rmsnorm.ptx");
    let run = rmsnorm(&path, &["--json", "--card", "h100-sxm", "l4"]);
    let report: Value = serde_json::from_slice(&run.stdout).expect("one JSON object");
    let counters = &report["counters"];
    assert_eq!((&report["ok"], &report["kernel"]), (&true.into(), &"rmsnorm".into()));
    // Two rows of 512 bytes read, the weights once; two rows written.
    assert_eq!(counters["global"]["distinct_read_bytes"], 1024 + 512);
    assert_eq!(counters["global"]["distinct_written_bytes"], 1024);
    assert_eq!(counters["registers"], 32);
    assert!(counters["global"]["sectors"].as_u64() >= counters["global"]["sectors_least"].as_u64());
    let projected = counters["projected"].as_array().expect("a list");
    assert_eq!(projected.len(), 2);
    for p in projected {
        assert!(p["projected_seconds"].as_f64().is_some_and(|s| s > 0.0) && p["bound"].is_string());
    }
}

#[test]
fn a_broken_rule_is_exit_1_and_says_what_and_where() {
    let path = format!("{KERNELS}rmsnorm.ptx");
    let good = std::fs::read_to_string(&path).expect("checked in");
    let file = std::env::temp_dir().join(format!("pacer-cli-{}.ptx", std::process::id()));
    std::fs::write(&file, good.replace("bar.sync \t0;", "")).expect("a writable folder");
    let name = file.to_str().expect("a path of text");
    let (run, json) = (rmsnorm(name, &[]), rmsnorm(name, &["--json"]));
    let _ = std::fs::remove_file(&file);
    let said = text(&run.stderr);
    assert_eq!(run.status.code(), Some(1), "{said}");
    assert!(
        said.contains("kernel rmsnorm") && said.contains("thread (") && said.contains("PTX line"),
        "{said}"
    );
    assert_eq!(json.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&json.stdout).expect("one JSON object");
    assert_eq!(report["ok"], false);
    assert!(report["rule"].is_string() && report["finding"].is_string());
}

#[test]
fn a_kernel_that_never_ends_stops_with_a_report() {
    let file = std::env::temp_dir().join(format!("pacer-cli-loop-{}.ptx", std::process::id()));
    let ptx =
        ".version 9.0\n.target sm_90\n.address_size 64\n.visible .entry k()\n{\nL: bra L;\n}\n";
    std::fs::write(&file, ptx).expect("a writable folder");
    let run = emulate(&[file.to_str().expect("text"), "--budget", "100000"]);
    let _ = std::fs::remove_file(&file);
    assert_eq!(run.status.code(), Some(1));
    assert!(text(&run.stderr).contains("budget in kernel k"), "{}", text(&run.stderr));
}

#[test]
fn results_can_be_written_to_a_file() {
    let out = std::env::temp_dir().join(format!("pacer-cli-out-{}.bin", std::process::id()));
    let file = out.with_extension("ptx");
    let ptx = ".version 9.0\n.target sm_90\n.address_size 64\n.visible .entry k(.param .u64 p)\n{\n\
               .reg .b64 %rd<4>; .reg .b32 %r<4>;\nld.param.u64 %rd0, [p]; mov.u32 %r0, %tid.x;\n\
               mul.wide.u32 %rd1, %r0, 4; add.u64 %rd1, %rd1, %rd0; st.global.u32 [%rd1], %r0;\n}\n";
    std::fs::write(&file, ptx).expect("a writable folder");
    let dump = format!("0={}", out.display());
    let run = emulate(&[file.to_str().expect("text"), "--args", "buf:128", "--dump", &dump]);
    let data = std::fs::read(&out);
    let _ = (std::fs::remove_file(&file), std::fs::remove_file(&out));
    assert!(run.status.success(), "{}", text(&run.stderr));
    let want: Vec<u8> = (0..32u32).flat_map(u32::to_le_bytes).collect();
    assert_eq!(data.expect("the file"), want);
}

#[test]
fn usage_errors_are_exit_2_and_name_the_flag() {
    let path = format!("{KERNELS}rmsnorm.ptx");
    let cases: [(&[&str], &str); 7] = [
        (&[&path], "--args: 0 given"),
        (&[&path, "--kernel", "x"], "no kernel x"),
        (&[&path, "--grid", "0"], "--grid 0"),
        (
            &[&path, "--grid", "1,1,1,1", "--args", "i32:1", "i32:1", "i32:1", "i32:1", "i32:1"],
            "bytes; parameter",
        ),
        (&[&path, "--card", "tpu"], "--card tpu"),
        (&[&path, "--dump", "x"], "--dump x"),
        (&[&path, "--nosuch"], "unknown flag --nosuch"),
    ];
    for (words, wanted) in cases {
        let run = emulate(words);
        let said = text(&run.stderr);
        assert_eq!(run.status.code(), Some(2), "{words:?}: {said}");
        assert!(said.contains(wanted), "{words:?}: {said}");
    }
    let run = Command::new(env!("CARGO_BIN_EXE_pacer")).args(["kernels", "emulat"]).output();
    let run = run.expect("the program that cargo built");
    assert_eq!(run.status.code(), Some(2));
    assert!(text(&run.stderr).contains("did you mean emulate"), "{}", text(&run.stderr));
}

fn pacer(words: &[&str]) -> Output {
    let run = Command::new(env!("CARGO_BIN_EXE_pacer")).args(words).output();
    run.expect("the program that cargo built")
}

#[test]
fn kernels_are_timed_beside_the_ceilings_of_the_same_run() {
    let words = ["kernels", "bench", "--device", "emulated", "--small", "--repeat", "2", "--json"];
    let run = pacer(&[&words[..], &["--kernel", "attention"]].concat());
    let said = text(&run.stdout);
    assert!(run.status.success(), "{said}{}", text(&run.stderr));
    let rows: Vec<Value> =
        said.lines().map(|l| serde_json::from_str(l).expect("one object a line")).collect();
    assert_eq!(rows[0]["subject"], "ceilings");
    assert!(rows[0]["read_gb_per_s"].as_f64().is_some_and(|r| r > 0.0), "{}", rows[0]);
    // Decode, and prefill by mma.sync and by wgmma.
    assert_eq!(rows.len(), 4, "{said}");
    for row in &rows[1..] {
        assert_eq!(row["projected"], true);
        assert!(row["cold_us"].as_f64().is_some_and(|t| t > 0.0), "{row}");
        assert_eq!(row["cold_samples_us"].as_array().map(Vec::len), Some(2));
    }
    assert!(rows[3]["kernel"].as_str().is_some_and(|k| k.contains("wgmma")), "{}", rows[3]);
    let none = pacer(&[&words[..], &["--kernel", "nosuch"]].concat());
    assert_eq!(none.status.code(), Some(2));
    assert!(text(&none.stderr).contains("no subject has this in its name"));
}

#[test]
fn golden_models_need_folders_that_are_golden_models() {
    assert_eq!(pacer(&["kernels", "golden"]).status.code(), Some(2));
    let run = pacer(&["kernels", "golden", KERNELS]);
    assert_eq!(run.status.code(), Some(1));
    assert!(text(&run.stdout).contains("golden.json"), "{}", text(&run.stdout));
}

const LLAMA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/llama");

#[test]
fn the_kernels_of_a_model_are_listed_by_rows_and_card() {
    let said = text(&pacer(&["kernels", "list", "--model-path", LLAMA]).stdout);
    let card = |name: &str| said.lines().skip_while(|l| !l.starts_with(name)).nth(1);
    assert!(card("A100").is_some_and(|l| l.contains("from 1 sm80_bf16_gemm_16x")), "{said}");
    assert!(said.contains("from 1 sm90a_bf16_gemm_16x"), "{said}");
    assert!(said.contains("sm80_bf16_attention_decode_"), "{said}");
    let run = pacer(&["kernels", "list", "--model-path", LLAMA, "--json", "--kernel", "attention"]);
    let rows: Vec<Value> =
        text(&run.stdout).lines().map(|l| serde_json::from_str(l).expect("an object")).collect();
    assert_eq!(rows.len(), 3, "one kind of attention on three cards");
    assert_eq!(rows[0]["kernels"][0]["from_rows"], 1);
    let none = pacer(&["kernels", "list", "--model-path", "/nonexistent"]);
    assert_eq!(none.status.code(), Some(1), "{}", text(&none.stderr));
}

/// What bounds each op of a step on the PTX machine's card: told as projected, in text and in rows.
#[test]
fn one_batch_on_the_machine_says_what_each_op_is_projected_to_take() {
    let file = std::env::temp_dir().join(format!("pacer-ops-{}.jsonl", std::process::id()));
    let path = file.to_str().expect("a plain path");
    let words = "bench-one-batch --device emulated --batch-size 2 --input-len 5 --output-len 3 \
                 --repeat 1 --warmup 0 --cuda-graph-max-bs 2 --model-path";
    let words: Vec<&str> =
        words.split_whitespace().chain([LLAMA, "--result-filename", path]).collect();
    let run = pacer(&words);
    let said = text(&run.stdout);
    assert!(run.status.success(), "{said}{}", text(&run.stderr));
    let row: Value =
        serde_json::from_str(&std::fs::read_to_string(&file).expect("a row")).expect("JSON");
    std::fs::remove_file(&file).expect("the row's file");
    assert!(said.contains("the times above are the PTX machine's own"), "{said}");
    for phase in ["prefill", "decode"] {
        assert!(said.contains(&format!("{phase}, one pass by op: projected ")), "{said}");
        let table = &row[format!("{phase}_ops")];
        assert_eq!(table["gpu"]["projected"], true, "{table}");
        assert_eq!(table["gpu"]["times"], "projected by the emulator");
        assert!(table["gpu"]["elapsed_s"].as_f64().is_some_and(|s| s > 0.0));
        let ops = table["slowest"].as_array().expect("a list");
        let named = |name: &str| ops.iter().find(|o| o["op"] == name).expect(name);
        let gated = named("linear + gated_act");
        // Gate and up of three layers' MLPs, once a prefill, twice in two decode steps.
        let steps = if phase == "prefill" { 1 } else { 2 };
        assert_eq!(gated["count"], 3 * steps, "{gated}");
        assert!(gated["bytes"].as_u64() > Some(0) && gated["flops"].as_u64() > Some(0), "{gated}");
        assert!(gated["share_of_ceiling"].as_f64().is_some_and(|s| s > 0.0 && s < 1.0), "{gated}");
        assert!(gated["ceiling"] == "memory" || gated["ceiling"] == "tensor", "{gated}");
        assert_eq!(named("sampling")["count"], steps);
        named("attention");
    }
    let kernels = row["kernels"].as_array().expect("the kernels that were chosen");
    let says = |what: &str| kernels.iter().any(|k| k.as_str().is_some_and(|k| k.contains(what)));
    assert!(says("gemm_16x") && says("attention_decode"), "{kernels:?}");
}
