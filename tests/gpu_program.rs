//! The program on a card that is missing, too old, too small or that fails: what it says, how it
//! ends, and that a server does not go on as if well (reliability R30, R31). The card is the
//! stand-in libcuda.

#[path = "libcuda/support.rs"]
#[allow(dead_code)]
mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/llama");
/// Long enough for any loaded machine.
const PATIENCE: Duration = Duration::from_secs(120);

fn pacer(command: &str, variables: &[(&str, &str)]) -> Command {
    let mut pacer = Command::new(env!("CARGO_BIN_EXE_pacer"));
    pacer.args([command, "--device", "cuda", "--model-path", MODEL, "--disable-cuda-graph"]);
    pacer.args(["--max-total-tokens", "1024", "--chunked-prefill-size", "64"]);
    pacer.args(["--max-running-requests", "4"]);
    pacer.env("LD_LIBRARY_PATH", support::folder()).env("PACER_LIBCUDA_CHECKS", "fast");
    pacer.envs(variables.iter().copied());
    pacer
}

fn generate(variables: &[(&str, &str)]) -> Output {
    let mut pacer = pacer("generate", variables);
    pacer.args(["--prompt", "the", "--max-new-tokens", "3", "--temperature", "0"]);
    pacer.output().expect("the program runs")
}

/// It ends with 1 and says each of `words`.
fn fails(variables: &[(&str, &str)], words: &[&str]) {
    let output = generate(variables);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{variables:?}: {said}");
    for word in words {
        assert!(said.contains(word), "{variables:?}: no {word:?} in: {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn each_fault_has_its_words_and_its_exit_code() {
    let sound = generate(&[]);
    assert!(sound.status.success(), "{}", String::from_utf8_lossy(&sound.stderr));
    fails(&[("PACER_LIBCUDA_CAPABILITY", "7.5")], &["compute capability 7.5", "8.0 (Ampere)"]);
    fails(&[("PACER_LIBCUDA_VERSION", "11080")], &["CUDA 11.8", "12.0 or later"]);
    fails(&[("PACER_LIBCUDA_DEVICES", "0")], &["nvidia-smi"]);
    fails(&[("PACER_LIBCUDA_MEMORY_MIB", "1")], &["MiB", "--mem-fraction-static"]);
    // Out of memory at the launch of a step; refused; an illegal address.
    fails(&[("PACER_LIBCUDA_FAULTS", "launch=9:2")], &["CUDA_ERROR_OUT_OF_MEMORY"]);
    fails(&[("PACER_LIBCUDA_FAULTS", "launch=9:701")], &["planted"]);
    fails(&[("PACER_LIBCUDA_FAULTS", "launch=9:700")], &["restart the process"]);
}

/// A running server, killed when dropped.
struct Server {
    child: Child,
    address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has mostly ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn serve(variables: &[(&str, &str)]) -> Server {
    let mut pacer = pacer("serve", variables);
    let pacer = pacer.args(["--port", "0"]).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = pacer.spawn().expect("started");
    let mut said = BufReader::new(child.stderr.take().expect("piped"));
    let mut text = String::new();
    let address = loop {
        let mut line = String::new();
        assert!(said.read_line(&mut line).expect("text") > 0, "it ended: {text}");
        if let Some(address) = line.trim().strip_prefix("ready: http://") {
            break address.trim_end_matches('/').to_owned();
        }
        text.push_str(&line);
    };
    // What more it says must not fill the pipe.
    std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
    Server { child, address }
}

impl Server {
    /// The status of an answer; `None` if nobody listens any more.
    fn ask(&self, head: &str, body: &str) -> Option<u16> {
        let mut socket = TcpStream::connect(&self.address).ok()?;
        socket.set_read_timeout(Some(PATIENCE)).ok()?;
        let (host, length) = (&self.address, body.len());
        let request = format!(
            "{head} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
        socket.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).ok()?;
        answer.get(9..12)?.parse().ok()
    }

    fn generate(&self) -> Option<u16> {
        let params = r#""sampling_params": {"max_new_tokens": 3, "temperature": 0}"#;
        self.ask("POST /generate", &format!(r#"{{"input_ids": [5, 6], {params}}}"#))
    }
}

#[test]
fn a_refused_launch_costs_one_request() {
    for code in ["2", "701"] {
        let server = serve(&[("PACER_LIBCUDA_FAULTS", &format!("launch=9:{code}"))]);
        let first = server.generate().expect("an answer");
        assert!(first >= 500, "code {code}: {first}");
        assert_eq!(server.generate(), Some(200), "code {code}: the next request");
        assert_eq!(server.ask("GET /health", ""), Some(200), "code {code}");
    }
}

#[test]
fn a_lost_card_is_not_served_on() {
    let mut server = serve(&[("PACER_LIBCUDA_FAULTS", "launch=9:700")]);
    let first = server.generate().expect("an answer");
    assert!(first >= 500, "{first}");
    // It may still answer, if it says that it is not well, or end with a failure.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        assert_ne!(server.ask("GET /health", ""), Some(200), "as if well");
        assert_ne!(server.generate(), Some(200), "as if well");
        if let Some(status) = server.child.try_wait().expect("a child") {
            assert_eq!(status.code(), Some(1));
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
