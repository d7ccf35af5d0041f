//! The bench commands as users call them, against the mock server: rows, lines, exit codes.

#[path = "support/mock/mod.rs"]
mod mock;

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;

use mock::{Mock, Timing};

fn pacer(words: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pacer"));
    command.args(words.split_whitespace()).env_remove("OPENAI_API_KEY").env_remove("API_KEY");
    command
}

fn text(output: &Output) -> String {
    let all = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&all).into_owned()
}

struct File(PathBuf);

impl File {
    fn new(name: &str) -> File {
        File(std::env::temp_dir().join(format!("pacer-{}-{name}", std::process::id())))
    }

    fn rows(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.0).unwrap_or_default();
        text.lines().map(|l| serde_json::from_str(l).expect("a row is strict JSON")).collect()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn serving(mock: &Mock, behaviour: &str, more: &str, file: &File) -> Output {
    let url = mock.url(behaviour);
    let path = file.0.display();
    let words = format!(
        "bench-serving --base-url {url} --num-prompts 6 --random-input-len 5 --random-output-len 4 \
         --random-range-ratio 1 --output-file {path} --disable-tqdm {more}"
    );
    pacer(&words).output().unwrap()
}

#[test]
fn a_row_and_sglangs_block() {
    let mock = Mock::start(Timing::default());
    let file = File::new("serving.jsonl");
    let out = serving(&mock, "", "--max-concurrency 2 --goodput ttft:5000 --flush-cache", &file);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out));
    let printed = text(&out);
    for line in
        ["Serving Benchmark Result", "Successful requests:", "Median TTFT (ms):", "validity:"]
    {
        assert!(printed.contains(line), "{line} in {printed}");
    }
    let rows = file.rows();
    assert_eq!(rows.len(), 1);
    let row = &rows[0];
    assert_eq!((&row["completed"], &row["total_output_tokens"]), (&6.into(), &24.into()));
    assert_eq!(
        (&row["total_input_tokens"], &row["max_concurrent_requests"]),
        (&30.into(), &2.into())
    );
    assert_eq!((&row["request_rate"], &row["slo_attainment"]), (&"inf".into(), &1.0.into()));
    for key in [
        "mean_ttft_ms",
        "p95_itl_ms",
        "std_tpot_ms",
        "p99_e2e_latency_ms",
        "concurrency",
        "p99_ttft_from_schedule_ms",
        "median_e2e_latency_from_schedule_ms",
        "max_output_tokens_per_s",
    ] {
        assert!(row[key].is_number(), "{key}");
    }
    assert!(row["client"]["cpu_share"].is_number() && row["client"]["lateness_max_ms"].is_number());
    assert!(!row.to_string().contains("secret"), "server_info is not stored whole");
    assert_eq!(mock.seen.lock().unwrap().flushes, 1);
}

#[test]
fn failures_have_a_row_too_and_exit_1() {
    let mock = Mock::start(Timing::default());
    let file = File::new("failed.jsonl");
    let out = serving(&mock, "s500", "--warmup-requests 0", &file);
    assert_eq!(out.status.code(), Some(1), "{}", text(&out));
    let row = &file.rows()[0];
    assert_eq!((&row["completed"], &row["failed_by_reason"]["status_500"]), (&0.into(), &6.into()));
    assert!(row["median_ttft_ms"].is_null());
    let out = serving(&mock, "s500", "", &file);
    assert!(
        text(&out).contains("no warm-up request succeeded: status_500: oops"),
        "{}",
        text(&out)
    );
}

#[test]
fn strict_exits_4() {
    let mock = Mock::start(Timing::default());
    let file = File::new("strict.jsonl");
    let out = serving(&mock, "early", "--strict", &file);
    assert_eq!(out.status.code(), Some(4), "{}", text(&out));
    assert!(text(&out).contains("achieved_output"), "{}", text(&out));
    assert_eq!(file.rows().len(), 1, "the row is kept");
}

#[cfg(unix)]
#[test]
fn an_interruption_writes_what_there_is_and_exits_130() {
    let mock = Mock::start(Timing { first: Duration::from_millis(300), ..Timing::default() });
    let file = File::new("stopped.jsonl");
    let words = format!(
        "bench-serving --base-url {} --num-prompts 500 --random-input-len 5 --random-output-len 4 \
         --max-concurrency 2 --output-file {} --disable-tqdm",
        mock.url(""),
        file.0.display()
    );
    let child = pacer(&words).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let seen = || mock.seen.lock().unwrap().requests.len();
    while seen() < 6 {
        std::thread::sleep(Duration::from_millis(20));
    }
    // SAFETY: a signal to our own child, which has not been waited for.
    unsafe { libc::kill(child.id() as i32, libc::SIGINT) };
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(130), "{}", text(&out));
    let row = &file.rows()[0];
    assert_eq!(row["interrupted"], true);
    assert!(row["completed"].as_u64().unwrap() >= 2 && row["unsent"].as_u64().unwrap() > 400);
}

#[test]
fn every_api_and_its_profile() {
    let mock = Mock::start(Timing::default());
    let file = File::new("apis.jsonl");
    let text_file = File::new("prompts.txt");
    std::fs::write(&text_file.0, "one two\nthree\n").unwrap();
    for backend in ["pacer", "vllm", "openai-chat"] {
        let data = format!(
            "--backend {backend} --dataset-name text --dataset-path {} --sharegpt-output-len 4 \
             --profile --profile-activities CPU --profile-steps 3",
            text_file.0.display()
        );
        let out = serving(&mock, "", &data, &file);
        assert_eq!(out.status.code(), Some(0), "{backend}: {}", text(&out));
    }
    assert!(file.rows().iter().all(|r| r["total_output_tokens"] == 24));
    let calls = mock.seen.lock().unwrap().profile_calls.clone();
    assert_eq!(calls.len(), 3, "a profile of given steps stops by itself: {calls:?}");
    let random_chat = serving(&mock, "", "--backend openai-chat", &file);
    assert_eq!(random_chat.status.code(), Some(2));
    assert!(text(&random_chat).contains("--tokenizer"), "{}", text(&random_chat));
}

#[test]
fn a_report_of_what_was_written() {
    let mock = Mock::start(Timing::default());
    let (file, page) = (File::new("report.jsonl"), File::new("report.html"));
    for rate in ["40", "80"] {
        let out = serving(&mock, "", &format!("--request-rate {rate} --tag r{rate}"), &file);
        assert_eq!(out.status.code(), Some(0), "{}", text(&out));
    }
    let words = format!("report {} --output {}", file.0.display(), page.0.display());
    assert_eq!(pacer(&words).output().unwrap().status.code(), Some(0));
    let html = std::fs::read_to_string(&page.0).unwrap();
    for part in ["Time to first token", "Output throughput over time", "<svg", "r80", "validity"] {
        assert!(html.contains(part), "{part}");
    }
    assert!(!html.contains("<script"));
}

#[test]
fn compare_finds_a_planted_slowdown_and_exits_3() {
    let (a, b) = (File::new("a.jsonl"), File::new("b.jsonl"));
    let rows = |file: &File, factor: f64| {
        let samples: Vec<f64> = (0..9).map(|i| factor * (1.0 + 0.001 * f64::from(i % 5))).collect();
        let row = serde_json::json!({
            "batch_size": 1, "input_len": 8, "output_len": 1, "prefill_latency": factor,
            "prefill_samples_s": samples,
        });
        std::fs::write(&file.0, format!("{row}\n")).unwrap();
    };
    rows(&a, 1.0);
    rows(&b, 1.02);
    let compare = |x: &File, y: &File| {
        let (x, y) = (x.0.display(), y.0.display());
        pacer(&format!("compare {x} {y} --fail-over 1")).output().unwrap()
    };
    let worse = compare(&a, &b);
    assert_eq!(worse.status.code(), Some(3), "{}", text(&worse));
    assert!(text(&worse).contains("B is worse by 2.0"), "{}", text(&worse));
    assert_eq!(compare(&a, &a).status.code(), Some(0));
    assert_eq!(compare(&b, &a).status.code(), Some(0), "better is no regression");
    assert_eq!(pacer("compare one.jsonl").output().unwrap().status.code(), Some(2));
}

#[test]
fn commands_take_turns() {
    let log = File::new("order.txt");
    let path = log.0.display().to_string();
    let side =
        |name: &str| format!("printf {name} >> {path}; echo '{{\"kind\":\"timed\",\"wall_s\":2}}'");
    let out = Command::new(env!("CARGO_BIN_EXE_pacer"))
        .args(["compare", "--rounds", "2", "--a", &side("A"), "--b", &side("B")])
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(0), "{}", text(&out));
    assert_eq!(std::fs::read_to_string(&log.0).unwrap(), "ABBABAAB");
    assert!(text(&out).contains("no difference found"), "{}", text(&out));
}
