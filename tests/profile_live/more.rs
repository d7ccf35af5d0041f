//! What a live profiler stands, and what it tells beyond the page: disconnects and signals,
//! stacks, steps that run again, the time to the first token.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use pacer::profile::validate::validate;
use serde_json::{Value, json};

use super::{Server, TINY, reports, trace};

/// `pacer` with these arguments: what it printed.
fn pacer(words: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_pacer")).args(words).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Files below the root that end in `end`.
fn files(server: &Server, end: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(&server.root).unwrap().map(|e| e.unwrap().path());
    entries.filter(|p| p.to_str().unwrap().ends_with(end)).collect()
}

/// A client that goes away after it has asked for the end, and a server that is told to end while
/// it records: files are whole or absent, nothing is left behind, and both go on or end.
#[test]
fn r25_disconnect_during_stop_and_a_signal_during_a_capture() {
    let mut server = Server::start("r25");
    for round in 0..3 {
        let id = format!("gone{round}");
        assert_eq!(server.post("/start_profile", Some(json!({"profile_id": id}))).0, 200);
        server.generate(3);
        drop(server.ask("/stop_profile", None));
        let last = server.last();
        let found = reports(&last);
        assert_eq!((found.len(), found[0].1.steps.len()), (1, 3));
        assert_eq!(last["profile_id"], id);
    }
    assert!(files(&server, ".tmp").is_empty());
    assert_eq!(server.post("/start_profile", Some(json!({"profile_id": "term"}))).0, 200);
    server.generate(3);
    // SAFETY: the process is a child that has not been waited for.
    assert_eq!(unsafe { libc::kill(server.child.id() as i32, libc::SIGTERM) }, 0);
    let begun = Instant::now();
    let ended = loop {
        if let Some(status) = server.child.try_wait().unwrap() {
            break status;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "it does not end");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(ended.success(), "{ended}");
    assert!(files(&server, ".tmp").is_empty());
    for file in files(&server, ".trace.json.gz") {
        validate(&trace(&file)).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    }
    assert_eq!(files(&server, "term-TP-0.trace.json.gz").len(), 1);
}

#[test]
fn ops_say_from_where_they_were_launched_if_asked() {
    let server = Server::start("stack");
    let ops = |body: Value| -> Vec<Value> {
        assert_eq!(server.post("/start_profile", Some(body)).0, 200);
        server.generate(3);
        let (_, answer) = server.post("/stop_profile", None);
        let trace = trace(Path::new(answer["files"][0].as_str().unwrap()));
        validate(&trace).unwrap();
        let events = trace["traceEvents"].as_array().unwrap().iter();
        events.filter(|e| e["cat"] == "cpu_op").cloned().collect()
    };
    let with = ops(json!({"with_stack": true}));
    assert!(with.len() > 30, "{}", with.len());
    let frames = |op: &Value| -> Vec<String> {
        let list = op["args"]["stack"].as_array().cloned().unwrap_or_default();
        list.iter().map(|f| f.as_str().unwrap().to_owned()).collect()
    };
    for op in &with {
        // The second of two ops that run as one has no time and no launch of its own.
        if op["dur"].as_f64() == Some(0.0) {
            continue;
        }
        let frames = frames(op);
        // `step (src/device/cpu/executor.rs:120)`, or a path of modules in a stripped build.
        let any = |a: &str, b: &str| frames.iter().any(|f| f.contains(a) || f.contains(b));
        assert!(any("cpu::executor", "cpu/executor.rs"), "{op}");
        assert!(any("engine::step", "engine/step.rs"), "{op}");
        assert!(!any("profile::stack", "profile/stack.rs"), "{op}");
    }
    // Products come from another place than norms do.
    let of = |name: &str| {
        let op = with.iter().find(|e| e["name"].as_str().unwrap().starts_with(name)).unwrap();
        frames(op).join("\n")
    };
    assert_ne!(of("linear"), of("attention"));
    let without = ops(json!({}));
    assert!(without.iter().all(|op| op["args"]["stack"].is_null()), "{}", without[0]);
}

/// A step is saved when it is slow or asked for, holds no token, and runs again.
#[test]
fn a_step_is_saved_and_replayed() {
    let server = Server::with("steps", &["--slow-step-ms", "0.000001"]);
    server.generate(4);
    let begun = Instant::now();
    let slow = loop {
        let found = files(&server, ".step.json");
        if let Some(file) = found.first() {
            break file.clone();
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "no step was saved");
        std::thread::sleep(Duration::from_millis(20));
    };
    let name = slow.file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with("slow-") && name.contains("-TP-0-STEP-"), "{name}");
    let (status, answer) = server.post("/dump_step", Some(json!({"step": 1, "profile_id": "s"})));
    assert_eq!(status, 200, "{answer}");
    assert_eq!((&answer["stage"], &answer["tokens"]), (&json!("EXTEND"), &json!(5)), "{answer}");
    assert_eq!(server.post("/dump_step", Some(json!({"step": 99}))).0, 404);
    assert_eq!(server.post("/dump_step", Some(json!({"step": "x"}))).0, 400);
    assert_eq!(server.post("/dump_step", Some(json!({"last_s": -1}))).0, 400);
    assert_eq!(server.post("/dump_step", Some(json!({"output_dir": "../x"}))).0, 400);
    let file = answer["files"][0].as_str().unwrap();
    assert!(file.ends_with("s-TP-0-STEP-1.step.json"), "{file}");
    let saved: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    assert_eq!(saved["sequences"], json!([{"past": 0, "new": 5, "logits": 1}]));
    assert!(saved["ops"].as_array().unwrap().len() > 5, "{saved}");
    let (_, answer) = server.post("/dump_step", Some(json!({"step": "3", "profile_id": "d"})));
    let decode = answer["files"][0].as_str().unwrap();
    let common = ["bench-one-batch", "--load-format", "dummy", "--threads", "1", "--repeat", "2"];
    let model = ["--json-model-override-args", TINY, "--result-filename", "", "--replay", decode];
    let words: Vec<&str> = common.into_iter().chain(model).collect();
    let text = pacer(&words);
    assert!(text.starts_with("step 3 (DECODE): 1 sequences, 1 new tokens, 6 cached"), "{text}");
    assert!(text.contains("replayed on cpu: ") && text.contains("2 passes"), "{text}");
    assert!(text.contains("linear model.layers.*.mlp.down_proj"), "{text}");
    let row: Value = serde_json::from_str(&pacer(&[&words[..], &["--json"]].concat())).unwrap();
    let ops = row["ops"].as_array().unwrap();
    let both = |op: &&Value| op["recorded_s"].is_f64() && op["replayed_s"].is_f64();
    assert_eq!(ops.iter().filter(both).count(), ops.len(), "{row}");
    assert_eq!(row["replayed_samples_s"].as_array().unwrap().len(), 2);
}

/// What a client of one machine waits for its first token is explained to the nanosecond.
#[test]
fn the_time_to_the_first_token_is_taken_apart_end_to_end() {
    let server = Server::start("parts");
    let url = format!("http://{}", server.address);
    let random = "--num-prompts 6 --random-input-len 40 --random-range-ratio 1";
    let turns = "--dataset-name generated-shared-prefix --gsp-num-groups 1 --gsp-num-turns 3 \
                 --gsp-prompts-per-group 2 --gsp-system-prompt-len 8 --gsp-question-len 8";
    for words in [
        format!("--backend sglang {random} --random-output-len 8"),
        format!("--backend vllm {random} --random-output-len 1"),
        format!("--backend sglang {turns} --gsp-output-len 4"),
    ] {
        let words = format!(
            "bench-serving --base-url {url} {words} --max-concurrency 2 --json --disable-tqdm"
        );
        let mut words: Vec<&str> = words.split_whitespace().collect();
        words.extend(["--output-file", ""]);
        let row = pacer(&words);
        let row: Value = serde_json::from_str(&row).unwrap();
        let ttft = &row["ttft_parts"];
        assert_eq!((&ttft["requests"], &ttft["clock"]), (&json!(6), &json!("shared")), "{row}");
        let mean = ttft["mean_ttft_s"].as_f64().unwrap();
        assert!((mean * 1e3 - row["mean_ttft_ms"].as_f64().unwrap()).abs() < 1e-6, "{row}");
        let part = |p: &Value| p["mean_s"].as_f64().unwrap();
        let parts = ttft["parts"].as_array().unwrap();
        let residual = ttft["residual_mean_s"].as_f64().unwrap();
        let sum: f64 = parts.iter().map(part).sum::<f64>() + residual;
        assert!((sum - mean).abs() < 1e-9, "{ttft}");
        assert!(residual <= 0.01 * mean, "{ttft}");
        for name in ["send", "parse", "wait for a step", "prefill steps", "sample", "detokenise"] {
            let found = parts.iter().find(|p| p["part"] == name).unwrap();
            assert!(part(found) > 0.0, "{name}: {ttft}");
        }
        assert!(ttft["mean_prefill_steps"].as_f64().unwrap() >= 1.0, "{ttft}");
    }
}

/// A run that is shorter than its profile leaves nothing recording behind.
#[test]
fn bench_serving_closes_a_profile_that_its_run_was_too_short_for() {
    let server = Server::start("short");
    let url = format!("http://{}", server.address);
    let more = ["--profile", "--profile-steps", "100000", "--json", "--disable-tqdm"];
    let words = [
        "bench-serving",
        "--base-url",
        &url,
        "--num-prompts",
        "2",
        "--random-input-len",
        "8",
        "--random-output-len",
        "4",
        "--output-file",
        "",
    ];
    let row: Value = serde_json::from_str(&pacer(&[&words[..], &more].concat())).unwrap();
    assert_eq!(row["completed"], 2, "{row}");
    let (_, status) = server.post("/profile_status", None);
    assert_eq!(status["state"], "idle", "{status}");
    assert_eq!(reports(&status["last"]).len(), 1, "{status}");
}

/// `bench-offline-throughput --profile` records a run of its own: named files, asked stages and
/// steps, valid traces, and no figure of the run changes its keys.
#[test]
fn offline_throughput_records_stages_of_a_run_of_its_own() {
    let root = std::env::temp_dir().join(format!("pacer-offline-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&root);
    let common = [
        "bench-offline-throughput",
        "--load-format",
        "dummy",
        "--threads",
        "1",
        "--num-prompts",
        "3",
        "--dataset-name",
        "random",
        "--random-input-len",
        "12",
        "--random-output-len",
        "6",
        "--random-range-ratio",
        "1",
        "--max-total-tokens",
        "256",
        "--context-length",
        "64",
        "--json-model-override-args",
        TINY,
        "--skip-warmup",
        "--result-filename",
        "",
    ];
    let profile = [
        "--profile",
        "--profile-steps",
        "2",
        "--profile-by-stage",
        "--profile-prefix",
        "off",
        "--profile-output-dir",
        "sub",
    ];
    let output = Command::new(env!("CARGO_BIN_EXE_pacer"))
        .args(common)
        .args(profile)
        .env("PACER_PROFILER_DIR", &root)
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    let named: Vec<PathBuf> =
        printed.lines().filter_map(|l| l.strip_prefix("profile: ")).map(PathBuf::from).collect();
    assert_eq!(named.len(), 2, "{printed}");
    for file in &named {
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(file.starts_with(root.join("sub")) && name.starts_with("off-"), "{name}");
        let report = validate(&trace(file)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let stage = if name.contains("-EXTEND.") { "EXTEND" } else { "DECODE" };
        assert!(name.contains(&format!("-TP-0-{stage}.trace.json.gz")), "{name}");
        assert!(!report.steps.is_empty() && report.steps.len() <= 2, "{name}: {report:?}");
        let of = report.names.iter().all(|n| n.contains("DECODE") == (stage == "DECODE"));
        assert!(of, "{:?}", report.names);
    }
    assert!(printed.contains("DECODE: 2 steps"), "{printed}");
    // Flags of a profile without one are a mistake.
    let output =
        Command::new(env!("CARGO_BIN_EXE_pacer")).args(common).args(&profile[1..]).output();
    assert_eq!(output.unwrap().status.code(), Some(2));
    std::fs::remove_dir_all(&root).unwrap();
}
