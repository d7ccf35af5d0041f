//! The bench commands as users call them, against the mock server: rows, lines, exit codes.

mod data;
#[path = "../support/mock/mod.rs"]
mod mock;
mod validity;

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

/// Runs `words`, sends SIGINT as soon as `ready`, waits for the end.
#[cfg(unix)]
fn interrupted(words: &str, ready: impl Fn() -> bool) -> Output {
    let piped = std::process::Stdio::piped;
    let child = pacer(words).stdout(piped()).stderr(piped()).spawn().unwrap();
    while !ready() {
        std::thread::sleep(Duration::from_millis(20));
    }
    // SAFETY: a signal to our own child, which has not been waited for.
    unsafe { libc::kill(child.id() as i32, libc::SIGINT) };
    child.wait_with_output().unwrap()
}

#[cfg(unix)]
#[test]
fn an_interrupted_sweep_keeps_its_rows() {
    let mock = Mock::start(Timing { first: Duration::from_millis(100), ..Timing::default() });
    let file = File::new("sweep.jsonl");
    let words = format!(
        "bench-one-batch-server --base-url {} --input-len 5 --output-len 4 --repeat 1000 \
         --skip-warmup --result-filename {}",
        mock.url(""),
        file.0.display()
    );
    let out = interrupted(&words, || mock.seen.lock().unwrap().requests.len() >= 4);
    assert_eq!(out.status.code(), Some(130), "{}", text(&out));
    let rows = file.rows();
    assert!((3..1000).contains(&rows.len()), "{} rows", rows.len());
    assert!(rows.iter().all(|r| r["total_output_tokens"] == 4));
}

#[cfg(unix)]
#[test]
fn an_interrupted_offline_run_reports_what_ended() {
    let file = File::new("offline.jsonl");
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/llama");
    let words = format!(
        "bench-offline-throughput --model-path {model} --device cpu --num-prompts 200000 \
         --random-input-len 8 --random-output-len 8 --random-range-ratio 1 --skip-warmup \
         --result-filename {}",
        file.0.display()
    );
    let begun = std::time::Instant::now();
    // The file is made before anything runs.
    let out = interrupted(&words, || begun.elapsed().as_secs() >= 3 && file.0.exists());
    assert_eq!(out.status.code(), Some(130), "{}", text(&out));
    let rows = file.rows();
    assert!(rows.len() == 1 && rows[0]["interrupted"] == true, "{rows:?}");
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
    let out = interrupted(&words, || mock.seen.lock().unwrap().requests.len() >= 6);
    assert_eq!(out.status.code(), Some(130), "{}", text(&out));
    let row = &file.rows()[0];
    assert_eq!(row["interrupted"], true);
    assert!(row["completed"].as_u64().unwrap() >= 2 && row["unsent"].as_u64().unwrap() > 400);
}

/// What no request keeps, though it is alone, is kept at no rate: that is said at once.
#[test]
fn an_impossible_objective_is_not_searched_for() {
    let mock = Mock::start(Timing::default());
    let file = File::new("impossible.jsonl");
    let out = serving(&mock, "", "--find-max-rate --slo ttft:1", &file);
    assert_eq!(out.status.code(), Some(1), "{}", text(&out));
    assert!(text(&out).contains("kept by no request, though sent one at a time"), "{}", text(&out));
    assert!(file.rows()[0]["max_rate"].is_null());
    assert_eq!(mock.seen.lock().unwrap().requests.len(), 4 + 1, "and a warm-up");
    let out = serving(&mock, "s500", "--find-max-rate --slo ttft:1 --warmup-requests 0", &file);
    assert!(text(&out).contains("no request succeeded: oops"), "{}", text(&out));
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
fn more_of_sglangs_flags() {
    let mock = Mock::start(Timing::default());
    let file = File::new("more.jsonl");
    let flags = "--dataset-name generated-shared-prefix --gsp-num-groups 2 \
                 --gsp-prompts-per-group 2 --gsp-system-prompt-len 6 --gsp-question-len 2 \
                 --gsp-output-len 3 --gsp-send-routing-key --fake-prefill --return-logprob \
                 --token-ids-logprob 1 2 --print-requests --plot-throughput --rust-client \
                 --rust-worker-threads 2 --warmup-requests 0";
    let out = serving(&mock, "", flags, &file);
    let printed = text(&out);
    assert_eq!(out.status.code(), Some(0), "{printed}");
    assert!(printed.contains("request 3: 8 token ids -> 3 tokens: \"tok tok tok \""), "{printed}");
    assert!(printed.contains("output throughput (tok/s), by seconds"), "{printed}");
    assert_eq!(
        (&file.rows()[0]["completed"], &file.rows()[0]["client_threads"]),
        (&4.into(), &2.into())
    );
    let body = mock.seen.lock().unwrap().bodies[0].clone();
    for part in ["\"bootstrap_host\":\"2.2.2.2\"", "\"token_ids_logprob\":[1,2]"] {
        assert!(body.contains(part), "{part} in {body}");
    }
}

#[test]
fn one_batch_with_a_data_set_and_every_way_to_keep_results() {
    let mock = Mock::start(Timing::default());
    let (file, list) = (File::new("batch.jsonl"), File::new("batch.json"));
    let summary = File::new("summary.md");
    let words = format!(
        "bench-one-batch-server --base-url {} --model-path None --output-len 3 --skip-warmup \
         --dataset-name generated-shared-prefix --gsp-system-prompt-len 5 --gsp-question-len 2 \
         --server-args-for-metrics tp=1 --show-report --result-filename {} \
         --pydantic-result-filename {}",
        mock.url(""),
        file.0.display(),
        list.0.display()
    );
    let out = pacer(&words).env("GITHUB_STEP_SUMMARY", &summary.0).output().unwrap();
    assert_eq!(out.status.code(), Some(0), "{}", text(&out));
    let row = &file.rows()[0];
    assert_eq!((&row["input_len"], &row["server_args"][0]), (&7.into(), &"tp=1".into()));
    let all: Value = serde_json::from_slice(&std::fs::read(&list.0).unwrap()).unwrap();
    assert_eq!(&all[0], row);
    let table = std::fs::read_to_string(&summary.0).unwrap();
    assert!(table.contains("| batch size |") && text(&out).contains("| batch size |"), "{table}");
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

/// Real runs against servers of known speed; generous, since other work may run beside them.
#[test]
fn compare_tells_a_slower_server_from_the_same_one() {
    let server = |ms| Mock::start(Timing { gap: Duration::from_millis(ms), ..Timing::default() });
    let (quick, slow) = (server(20), server(30));
    let side = |mock: &Mock| {
        format!(
            "bench-serving --base-url {} --num-prompts 4 --random-input-len 5 \
             --random-output-len 9 --random-range-ratio 1 --max-concurrency 4 --output-file= \
             --disable-tqdm",
            mock.url("")
        )
    };
    let compare = |a: &Mock, b: &Mock| {
        let out = Command::new(env!("CARGO_BIN_EXE_pacer"))
            .args(["compare", "--rounds", "3", "--metric", "median_tpot_ms", "--fail-over", "10"])
            .args(["--a", &side(a), "--b", &side(b)])
            .output();
        let out = out.unwrap();
        (out.status.code(), text(&out))
    };
    let (code, said) = compare(&quick, &quick);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = compare(&quick, &slow);
    assert_eq!(code, Some(3), "{said}");
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
