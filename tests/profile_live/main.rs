//! Profiling a live server as SGLang's page shows it: each curl line of README, the steps that
//! were captured asserted, the traces validated.

mod more;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pacer::profile::validate::{Report, validate};
use serde_json::{Value, json};

/// `pacer serve` with a tiny model of dummy weights.
struct Server {
    child: Child,
    address: String,
    root: PathBuf,
}

const TINY: &str = r#"{"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 128,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 512}"#;

impl Server {
    fn start(name: &str) -> Server {
        Self::with(name, &[])
    }

    fn with(name: &str, more: &[&str]) -> Server {
        let root = std::env::temp_dir().join(format!("pacer-live-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&root);
        std::fs::create_dir_all(&root).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_pacer"))
            .args(["serve", "--port", "0", "--load-format", "dummy", "--threads", "1"])
            .args(["--json-model-override-args", TINY, "--max-total-tokens", "4096"])
            .args(["--context-length", "512"])
            .args(more)
            .env("PACER_PROFILER_DIR", &root)
            .env_remove("PACER_API_KEY")
            .env_remove("PACER_ADMIN_API_KEY")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = loop {
            let line = lines.next().expect("the server ends").unwrap();
            if let Some(url) = line.strip_prefix("ready: http://") {
                break url.trim_end_matches('/').to_owned();
            }
            assert!(!line.starts_with("error"), "{line}");
        };
        std::thread::spawn(move || lines.for_each(drop));
        Server { child, address, root }
    }

    /// Asks as `curl -X POST` does; `None` sends no body at all.
    fn ask(&self, path: &str, body: Option<Value>) -> TcpStream {
        let body = body.map(|b| b.to_string()).unwrap_or_default();
        let mut socket = TcpStream::connect(&self.address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/octet-stream\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.address,
            body.len()
        );
        socket.write_all(head.as_bytes()).unwrap();
        socket
    }

    fn post(&self, path: &str, body: Option<Value>) -> (u16, Value) {
        let mut socket = self.ask(path, body);
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap_or(Value::Null))
    }

    /// A request of one prefill step and `tokens` − 1 decode steps.
    fn generate(&self, tokens: usize) {
        let params = json!({"max_new_tokens": tokens, "temperature": 0, "ignore_eos": true});
        let body = json!({"input_ids": [1, 2, 3, 4, 5], "sampling_params": params});
        let (status, answer) = self.post("/generate", Some(body));
        assert_eq!(status, 200, "{answer}");
    }

    /// The last capture, once it is written.
    fn last(&self) -> Value {
        let begun = Instant::now();
        loop {
            let (_, status) = self.post("/profile_status", None);
            if status["state"] == "idle" {
                return status["last"].clone();
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "{status}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.root);
    }
}

fn trace(path: &Path) -> Value {
    let file = std::fs::File::open(path).unwrap();
    let mut text = String::new();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn reports(answer: &Value) -> Vec<(String, Report)> {
    let files = answer["files"].as_array().unwrap_or_else(|| panic!("{answer}"));
    let report = |file: &Value| {
        let path = file.as_str().unwrap();
        let report = validate(&trace(Path::new(path))).unwrap_or_else(|e| panic!("{path}: {e}"));
        (path.rsplit('/').next().unwrap().to_owned(), report)
    };
    files.iter().map(report).collect()
}

#[test]
fn the_examples_of_the_page() {
    let server = Server::start("page");
    // curl -X POST …/start_profile -d '{"start_step": 3, "num_steps": 10, "activities": […]}'
    let body = json!({"output_dir": server.root.join("a"), "start_step": 3, "num_steps": 10,
        "activities": ["CPU", "GPU"], "profile_id": "first"});
    let (status, answer) = server.post("/start_profile", Some(body.clone()));
    assert_eq!((status, &answer["steps"]), (200, &json!({"first": 3, "last": 12})), "{answer}");
    let (status, answer) = server.post("/start_profile", Some(body));
    assert_eq!((status, &answer["state"]), (409, &json!("armed")), "{answer}");
    // One prefill and eleven decode steps: traffic stops exactly at step 12.
    server.generate(12);
    let last = server.last();
    let found = reports(&last);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].0, "first-TP-0.trace.json.gz");
    assert_eq!(found[0].1.steps, (3..=12).collect::<Vec<_>>());
    assert!(found[0].1.names.iter().all(|n| n == "step[DECODE bs=1]"));
    let summary = last["details"][0]["summary"].as_str().unwrap();
    let summary: Value = serde_json::from_str(&std::fs::read_to_string(summary).unwrap()).unwrap();
    assert_eq!(summary["steps"], json!((3..=12).collect::<Vec<u64>>()));

    // curl -X POST …/start_profile, no body; curl -X POST …/end_profile
    let (status, answer) = server.post("/start_profile", None);
    assert_eq!((status, &answer["state"]), (200, &json!("recording")), "{answer}");
    server.generate(4);
    let (status, answer) = server.post("/end_profile", None);
    assert_eq!(status, 200, "{answer}");
    let found = reports(&answer);
    assert_eq!(found[0].1.steps, [13, 14, 15, 16]);
    assert_eq!(found[0].1.names[0], "step[EXTEND bs=1 toks=5]");
    assert!(found[0].1.arrows >= 1, "{:?}", found[0].1);
    assert_eq!(server.post("/stop_profile", None).0, 409);

    // By stage, merged, with a prefix; numbers as strings, as SGLang's client sends them.
    let body = json!({"num_steps": "2", "profile_by_stage": true, "merge_profiles": true,
        "profile_prefix": "pre", "profile_id": "stages"});
    assert_eq!(server.post("/start_profile", Some(body)).0, 200);
    server.generate(3);
    assert_eq!(server.post("/profile_status", None).1["state"], "recording");
    server.generate(3);
    let last = server.last();
    let found = reports(&last);
    let names: Vec<(&str, &[u64])> =
        found.iter().map(|f| (f.0.as_str(), f.1.steps.as_slice())).collect();
    let (decode, extend) = ("pre-stages-TP-0-DECODE", "pre-stages-TP-0-EXTEND");
    assert!(names.contains(&(&format!("{decode}.trace.json.gz"), &[18, 19])), "{names:?}");
    assert!(names.contains(&(&format!("{extend}.trace.json.gz"), &[17, 20])), "{names:?}");
    let merged = trace(Path::new(last["merged"].as_str().unwrap()));
    let report = validate(&merged).unwrap();
    assert_eq!(report.steps, [17, 18, 19, 20]);
    assert!(merged["traceEvents"][0]["pid"].as_str().unwrap().starts_with("[TP00] "));

    // What already happened, without a start.
    let (status, answer) = server.post("/dump_profile", Some(json!({"last_s": 60})));
    assert_eq!(status, 200, "{answer}");
    assert_eq!(reports(&answer)[0].1.steps, (1..=22).collect::<Vec<_>>());
}

#[test]
fn streamed_requests_have_a_way_to_their_first_token() {
    let server = Server::start("ttft");
    assert_eq!(server.post("/start_profile", None).0, 200);
    let params = json!({"max_new_tokens": 4, "ignore_eos": true});
    let body = json!({"input_ids": [1, 2, 3], "stream": true, "sampling_params": params});
    for _ in 0..3 {
        assert_eq!(server.post("/generate", Some(body.clone())).0, 200);
    }
    let (_, answer) = server.post("/stop_profile", None);
    let report = &reports(&answer)[0].1;
    assert_eq!(report.arrows, 6, "a request's arrows: to its step, and back");
    let summary = std::fs::read_to_string(answer["details"][0]["summary"].as_str().unwrap());
    let summary: Value = serde_json::from_str(&summary.unwrap()).unwrap();
    let ttft = &summary["time_to_first_token"];
    assert_eq!(ttft["requests"], 3, "{ttft}");
    let (mean, parts) = (ttft["mean_s"].as_f64().unwrap(), &ttft["parts_s"]);
    let sum: f64 = parts.as_object().unwrap().values().map(|v| v.as_f64().unwrap()).sum();
    assert!(mean > 0.0 && (sum - mean).abs() < 1e-9, "{ttft}");
    assert!(parts["unexplained"].as_f64().unwrap().abs() < 0.01 * mean, "{ttft}");
}

/// Reliability R20: none of these leaves the root, all are refused with 400, and nothing appears.
#[test]
fn paths_that_lead_out_are_refused() {
    let server = Server::start("paths");
    let outside = server.root.with_extension("outside");
    std::fs::create_dir_all(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, server.root.join("link")).unwrap();
    let root = server.root.to_str().unwrap().to_owned();
    let long = "x".repeat(300);
    let deep = "a/".repeat(40);
    let escapes: Vec<String> = [
        "..",
        "../x",
        "a/../..",
        "a/../../x",
        "./..",
        ".",
        "./a",
        "a/./b",
        "/",
        "/etc",
        "/tmp/..",
        "/proc/self/cwd",
        "/proc/self/fd/1",
        "/dev/null",
        "/dev/full",
        "/root",
        "~",
        "~/x",
        "~root",
        "%2e%2e",
        "%2e%2e%2fx",
        "..%2f",
        "a%00",
        "a\0b",
        "\0",
        "",
        " ../x",
        "..\\x",
        "\\\\host\\share",
        "//host/share",
        "///etc",
        "C:\\x",
        "file:///etc",
        "a\nb",
        "a\rb",
        "a\tb",
        "a*",
        "a?b",
        "a|b",
        "a;b",
        "$HOME",
        "`id`",
        "$(id)",
        "a&b",
        "<a>",
        "\"a\"",
        "'a'",
        "link",
        "link/x",
        "a//b",
        "\u{202e}a",
        "\u{0}",
        "..a/../..",
    ]
    .into_iter()
    .map(String::from)
    .chain([
        long.clone(),
        deep,
        format!("{root}/../x"),
        format!("{root}x"),
        format!("{root}/link"),
        format!("{root}/.."),
        format!("{root}//x"),
        format!("{root}/a/../../x"),
    ])
    .collect();
    assert!(escapes.len() >= 60, "{}", escapes.len());
    for path in &escapes {
        let (status, answer) = server.post("/start_profile", Some(json!({"output_dir": path})));
        assert_eq!(status, 400, "{path:?}: {answer}");
        assert_eq!(server.post("/dump_profile", Some(json!({"output_dir": path}))).0, 400);
    }
    for name in ["..", ".", "", "../x", "a/b", "/etc", "a\0", "~", "%2e", "a b", "a\nb", "é", &long]
    {
        for field in ["profile_prefix", "profile_id"] {
            let (status, answer) = server.post("/start_profile", Some(json!({field: name})));
            assert_eq!(status, 400, "{field} {name:?}: {answer}");
        }
    }
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    std::fs::remove_dir_all(&outside).unwrap();
    // An absolute folder under the root is what SGLang's client sends.
    let inside = json!({"output_dir": format!("{root}/1700000000.25/")});
    assert_eq!(server.post("/start_profile", Some(inside)).0, 200);
    server.generate(2);
    let (status, answer) = server.post("/stop_profile", None);
    assert_eq!(status, 200, "{answer}");
    let file = PathBuf::from(answer["files"][0].as_str().unwrap());
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
}
