//! The program itself: how it starts, what it says when it cannot, and how signals end it
//! (reliability R28, R46).

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use super::harness::{PATIENCE, post};

fn pacer(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pacer"));
    command.arg("serve").args(arguments).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// A server that is ready, where it listens, and what more it says.
fn start(arguments: &[&str]) -> (Child, String, BufReader<ChildStderr>) {
    let mut child = pacer(arguments).spawn().expect("started");
    let mut said = BufReader::new(child.stderr.take().expect("piped"));
    match address(&mut said) {
        Some(address) => (child, address, said),
        None => panic!("it ended before it was ready: {:?}", child.wait()),
    }
}

/// What follows `ready: http://`, or nothing if the program ends before it says so.
fn address(said: &mut BufReader<ChildStderr>) -> Option<String> {
    let mut line = String::new();
    while said.read_line(&mut line).expect("text") > 0 {
        if let Some(address) = line.trim().strip_prefix("ready: http://") {
            return Some(address.trim_end_matches('/').to_owned());
        }
        line.clear();
    }
    None
}

fn signal(child: &Child) {
    let sent = Command::new("kill").arg(child.id().to_string()).status().expect("kill");
    assert!(sent.success());
}

fn code(child: &mut Child) -> i32 {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("a child") {
            return status.code().expect("a code");
        }
        assert!(begun.elapsed() < PATIENCE, "it does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_signal_ends_it_well_and_a_second_one_at_once() {
    let null = ["--device", "null", "--port", "0", "--max-total-tokens", "8192"];
    let (mut child, _, _) = start(&null);
    signal(&child);
    assert_eq!(code(&mut child), 0);
    let (mut child, address, _) =
        start(&["--port", "0", "--max-total-tokens", "8192", "--threads", "1"]);
    let params = json!({"max_new_tokens": 7000, "ignore_eos": true});
    let body = json!({"input_ids": [1], "stream": true, "sampling_params": params});
    let mut client = TcpStream::connect(&address).expect("connected");
    client.write_all(post("/generate", &body.to_string()).as_bytes()).expect("sent");
    let mut first = [0; 200];
    client.read_exact(&mut first).expect("the stream begins");
    signal(&child);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(child.try_wait().expect("a child"), None, "the request may finish");
    signal(&child);
    assert_eq!(code(&mut child), 130);
}

#[test]
fn what_cannot_start_says_why() {
    let (mut child, address, _) = start(&["--device", "null", "--port", "0"]);
    let port = address.rsplit(':').next().expect("a port");
    for (arguments, expected, says) in [
        (vec!["--device", "null", "--port", port], 1, "another server"),
        (vec!["--port", "0", "--model-path", "/no/such/model"], 1, "/no/such/model"),
        (vec!["--port", "70000"], 2, "--port"),
        (vec!["--api-key", ""], 2, "--api-key"),
        (vec!["--no-such-flag"], 2, "--no-such-flag"),
    ] {
        let output = pacer(&arguments).output().expect("ran");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(expected), "{arguments:?}: {text}");
        assert!(text.contains(says), "{arguments:?}: {text}");
    }
    signal(&child);
    assert_eq!(code(&mut child), 0);
}

/// Address space that the program itself needs, without much of a model, KiB.
const LITTLE: &str = "260000";

#[test]
fn too_little_memory_is_said_and_ends_it() {
    let limited = |arguments: &[&str]| {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -v $0 && exec \"$@\"", LITTLE, env!("CARGO_BIN_EXE_pacer")]);
        command.arg("serve").args(arguments).stdin(Stdio::null()).output().expect("ran")
    };
    let threads = ["--port", "0", "--device", "cpu", "--threads", "1"];
    for more in [
        ["--max-total-tokens", "1000000"],
        ["--json-model-override-args", r#"{"vocab_size": 2000000}"#],
        ["--json-model-override-args", r#"{"intermediate_size": 400000}"#],
    ] {
        let output = limited(&[&threads[..], &more].concat());
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{more:?}: {text}");
        let last = text.lines().last().unwrap_or_default();
        assert!(last.starts_with("error: ") && last.contains("memory"), "{more:?}: {text}");
        assert!(!text.contains("ready: "), "{more:?}: {text}");
    }
}

/// Reliability R17: whatever a request holds, it makes one line of the log, without a control
/// character, and an id that could forge another is not taken over.
#[test]
fn a_request_is_one_line_of_the_log() {
    let flags = ["--device", "null", "--port", "0", "--log-requests"];
    let (mut child, address, mut said) = start(&flags);
    let get = |target: &str, more: &str| {
        format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n")
    };
    let forged = "a\r\n\u{1b}[2JGET /forged 200 0.1 ms 127.0.0.1:1";
    let body = json!({"model": forged, "prompt": forged, "max_tokens": 1, "user": forged});
    let with_id = |id: &str| {
        let whole = post("/v1/completions", &json!({"prompt": [1], "max_tokens": 1}).to_string());
        whole.replace("\r\n\r\n", &format!("\r\nX-Request-Id: {id}\r\n\r\n"))
    };
    let requests = [
        get("/health", ""),
        get("/%0d%0aGET%20/forged", ""),
        get("/\u{1b}[2J", ""),
        get("/health", "X-A: \u{1b}[2J\r\n"),
        get("/health?a=%1b", ""),
        post("/v1/completions", &body.to_string()),
        with_id("mine-1"),
        with_id(&"x".repeat(129)),
        with_id("a b"),
    ];
    let mut answers = Vec::new();
    for request in &requests {
        let mut client = TcpStream::connect(&address).expect("connected");
        let once = request.replacen("localhost\r\n", "localhost\r\nConnection: close\r\n", 1);
        client.set_read_timeout(Some(PATIENCE)).expect("a socket");
        client.write_all(once.as_bytes()).expect("sent");
        let mut answer = String::new();
        let _ = client.read_to_string(&mut answer);
        assert!(answer.starts_with("HTTP/1.1 "), "{request}: {answer}");
        answers.push(answer);
    }
    assert!(answers[6].contains("mine-1"), "{}", answers[6]);
    assert!(!answers[7].contains("xxx") && !answers[8].contains("a b"), "{}", answers[8]);
    signal(&child);
    assert_eq!(code(&mut child), 0);
    let mut log = String::new();
    said.read_to_string(&mut log).expect("text");
    let lines: Vec<&str> = log.lines().filter(|l| l.contains(" ms 127.0.0.1:")).collect();
    assert_eq!(lines.len(), requests.len(), "{log}");
    let plain = |l: &&str| !l.contains(char::is_control) && !l.contains("GET /forged ");
    assert!(lines.iter().all(plain), "{log}");
}
