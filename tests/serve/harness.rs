//! A server in this process, and a client that shows every byte.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use pacer::device::Device;
use pacer::device::faulty::{Faults, FaultyDevice};
use pacer::device::null::NullDevice;
use pacer::engine::Engine;
use pacer::engine::model::Model;
use pacer::engine::options::{EngineOptions, ModelOptions};
use pacer::engine::service::ServiceOptions;
use pacer::error::Result;
use pacer::server::event_loop::Stopper;
use pacer::server::{Options, Server};

/// Long enough for any loaded machine; a test that waits that long has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/qwen2");

/// What a test's server is like.
pub struct Setup {
    pub options: Options,
    pub engine: EngineOptions,
    /// How long a step of the device that computes nothing takes.
    pub step: Duration,
    /// Another device in its place.
    pub device: Option<Box<dyn Device>>,
    pub faults: Faults,
}

impl Default for Setup {
    fn default() -> Self {
        let options = Options { port: 0, ..Options::default() };
        let engine =
            EngineOptions { total_tokens: Some(4096), logit_rows: Some(64), ..Default::default() };
        let (step, faults) = (Duration::ZERO, Faults::default());
        Setup { options, engine, step, device: None, faults }
    }
}

/// A running server; dropped, it ends at once.
pub struct Running {
    pub address: SocketAddr,
    pub faults: Faults,
    pub stopper: Stopper,
    thread: Option<JoinHandle<Result<()>>>,
}

pub fn start(setup: Setup) -> Running {
    let Setup { mut options, engine, step, device, faults } = setup;
    options.served_name.get_or_insert("tiny".into());
    let service = ServiceOptions {
        max_choices: engine.max_queued,
        max_tokens: engine.max_queued_tokens,
        ..ServiceOptions::default()
    };
    let planned = faults.clone();
    let build = move || {
        let model = Model::open(&ModelOptions { path: Some(MODEL.into()), ..Default::default() })?;
        let inner = device.unwrap_or_else(|| Box::new(NullDevice { step_time: step }));
        let device = FaultyDevice { inner, faults: planned };
        Engine::new(model, &device, &engine, &mut |_, _| {})
    };
    let server = Server::bind(options, service, build).expect("a server");
    let (address, stopper) = (server.address(), server.stopper());
    let thread = std::thread::spawn(move || server.serve(&mut |_, _| {}));
    let running = Running { address, faults, stopper, thread: Some(thread) };
    wait_for("the model", || running.get("/health").status == 200);
    running
}

pub fn default() -> Running {
    start(Setup::default())
}

pub fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "{what} did not come about");
        std::thread::sleep(Duration::from_millis(2));
    }
}

impl Running {
    pub fn connect(&self) -> Client {
        let socket = TcpStream::connect(self.address).expect("a connection");
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
        Client { socket, ahead: Vec::new() }
    }

    pub fn get(&self, path: &str) -> Answer {
        self.connect().ask(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.connect().ask(&post(path, &body.to_string()))
    }

    /// A number from `/status.json`.
    pub fn figure(&self, name: &str) -> f64 {
        self.get("/status.json").json()[name].as_f64().unwrap_or(f64::NAN)
    }

    /// How the server ended.
    pub fn ended(mut self) -> Result<()> {
        let thread = self.thread.take().expect("not ended before");
        wait_for("the end", || thread.is_finished());
        thread.join().expect("no panic")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stopper.stop();
    }
}

pub fn post(path: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// One connection.
pub struct Client {
    pub socket: TcpStream,
    ahead: Vec<u8>,
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("UTF-8")
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    /// Events of a stream without the last one, which must be `[DONE]`.
    pub fn events(&self) -> Vec<Value> {
        let text = self.text();
        let mut events: Vec<&str> = text.split("\n\n").filter(|e| !e.is_empty()).collect();
        assert_eq!(events.pop(), Some("data: [DONE]"), "{text}");
        let json = |e: &&str| {
            assert_eq!(e.lines().count(), 1, "one event is one line: {e}");
            serde_json::from_str(e.strip_prefix("data: ").expect("data")).expect("JSON")
        };
        events.iter().map(json).collect()
    }
}

impl Client {
    pub fn send(&mut self, text: &str) {
        self.socket.write_all(text.as_bytes()).expect("sent");
    }

    pub fn ask(&mut self, text: &str) -> Answer {
        self.send(text);
        self.answer().expect("an answer")
    }

    /// At least one more byte; false at the end.
    fn more(&mut self) -> bool {
        let mut buffer = [0; 4096];
        match self.socket.read(&mut buffer) {
            Ok(n) => {
                self.ahead.extend_from_slice(&buffer[..n]);
                n > 0
            }
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => false,
            Err(e) => panic!("{e}"),
        }
    }

    fn line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.ahead.windows(2).position(|w| w == b"\r\n") {
                let line: Vec<u8> = self.ahead.drain(..at + 2).take(at).collect();
                return Some(String::from_utf8(line).expect("UTF-8"));
            }
            if !self.more() {
                return None;
            }
        }
    }

    fn take(&mut self, n: usize) -> Vec<u8> {
        while self.ahead.len() < n {
            assert!(self.more(), "the connection ended inside an answer");
        }
        self.ahead.drain(..n).collect()
    }

    /// The head of the next answer; `None` if the server closed.
    pub fn head(&mut self) -> Option<Answer> {
        let first = self.line()?;
        let status = first.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
        let mut fields = Vec::new();
        loop {
            let line = self.line().expect("a whole head");
            if line.is_empty() {
                return Some(Answer { status, fields, body: Vec::new() });
            }
            let (name, value) = line.split_once(':').expect("a field");
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    /// The next answer; `None` if the server closed.
    pub fn answer(&mut self) -> Option<Answer> {
        let mut answer = self.head()?;
        if answer.field("transfer-encoding") == Some("chunked") {
            while let Some(chunk) = self.chunk() {
                answer.body.extend(chunk);
            }
        } else if answer.status != 100 {
            let length = answer.field("content-length").and_then(|l| l.parse().ok());
            answer.body = self.take(length.expect("a length"));
        }
        Some(answer)
    }

    /// The next chunk of a chunked answer; `None` after the last.
    pub fn chunk(&mut self) -> Option<Vec<u8>> {
        let line = self.line().expect("a chunk");
        let size = usize::from_str_radix(&line, 16).expect("a size");
        let data = self.take(size);
        assert_eq!(self.take(2), b"\r\n");
        (size > 0).then_some(data)
    }

    /// Everything up to the end of the connection.
    pub fn rest(&mut self) -> String {
        while self.more() {}
        String::from_utf8(std::mem::take(&mut self.ahead)).expect("UTF-8")
    }

    /// The server closes without another byte.
    pub fn closed(&mut self) -> bool {
        self.ahead.is_empty() && !self.more()
    }
}
