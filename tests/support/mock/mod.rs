//! A server with known delays and chosen faults, for tests of the load client: one thread, one
//! poll. It keeps what really happened, as seen at its socket.
//!
//! The first part of the path chooses a behaviour: `/silent/generate` accepts and never answers.
#![allow(dead_code)]

mod answer;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use answer::{Action, Answer};

/// How tokens come.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    pub first: Duration,
    pub gap: Duration,
    /// Tokens of each chunk.
    pub tokens_a_chunk: usize,
}

impl Default for Timing {
    fn default() -> Self {
        let gap = Duration::from_millis(4);
        Timing { first: Duration::from_millis(20), gap, tokens_a_chunk: 1 }
    }
}

/// One request as the server's socket saw it.
#[derive(Debug, Clone, Default)]
pub struct Truth {
    pub received: Option<Instant>,
    /// When each chunk was written, and its tokens.
    pub chunks: Vec<(Instant, usize)>,
    pub done: Option<Instant>,
}

/// What the server counted.
#[derive(Debug, Default)]
pub struct Seen {
    pub requests: Vec<Truth>,
    pub prompt_tokens: usize,
    pub output_tokens: usize,
    pub flushes: usize,
    pub connections: usize,
    pub peak: usize,
    pub profile_calls: Vec<String>,
    pub bodies: Vec<String>,
    /// Requests before the last `/mark`: `/truth` tells of those after it.
    pub mark: usize,
}

/// A running mock.
pub struct Mock {
    pub address: SocketAddr,
    pub seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Mock {
    pub fn start(timing: Timing) -> Mock {
        Mock::start_at("127.0.0.1:0".parse().unwrap(), timing)
    }

    pub fn start_at(address: SocketAddr, timing: Timing) -> Mock {
        let listener = listen(address).expect("a port");
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let (s, q) = (seen.clone(), stop.clone());
        let thread = std::thread::spawn(move || Loop::new(listener, timing, s, q).run());
        Mock { address, seen, stop, thread: Some(thread) }
    }

    /// The base URL of a behaviour; `""` for the good one.
    pub fn url(&self, behaviour: &str) -> String {
        let path = if behaviour.is_empty() { String::new() } else { format!("/{behaviour}") };
        format!("http://{}{path}", self.address)
    }

    /// Blocks until the thread ends (never, unless stopped).
    pub fn join(mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// With room for a thousand connections that come at once: one that finds none tries again a
/// second later.
fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(address),
        socket2::Type::STREAM,
        Some(socket2::Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    Ok(TcpListener::from_std(socket.into()))
}

struct Client {
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
    /// Requests of this connection being answered.
    answers: usize,
    close_after: bool,
    endless: bool,
}

struct Loop {
    poll: Poll,
    listener: TcpListener,
    timing: Timing,
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    clients: Vec<Option<Client>>,
    due: BinaryHeap<Reverse<(Instant, usize, usize)>>,
    answers: Vec<Option<(usize, Answer)>>,
    running: usize,
}

const LISTENER: Token = Token(usize::MAX);

impl Loop {
    fn new(
        mut listener: TcpListener,
        timing: Timing,
        seen: Arc<Mutex<Seen>>,
        stop: Arc<AtomicBool>,
    ) -> Loop {
        let poll = Poll::new().unwrap();
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE).unwrap();
        Loop {
            poll,
            listener,
            timing,
            seen,
            stop,
            clients: Vec::new(),
            due: BinaryHeap::new(),
            answers: Vec::new(),
            running: 0,
        }
    }

    fn run(mut self) {
        let mut events = Events::with_capacity(1024);
        while !self.stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            let next = self.due.peek().map(|Reverse((at, ..))| at.saturating_duration_since(now));
            let wait = next.unwrap_or(Duration::from_millis(20)).min(Duration::from_millis(20));
            let _ = self.poll.poll(&mut events, Some(wait));
            let ready: Vec<(Token, bool)> =
                events.iter().map(|e| (e.token(), e.is_readable() || e.is_read_closed())).collect();
            for (token, readable) in ready {
                match token {
                    LISTENER => self.accept(),
                    Token(place) => {
                        if readable {
                            self.read(place);
                        }
                        self.flush(place);
                    }
                }
            }
            self.fire();
        }
    }

    fn accept(&mut self) {
        while let Ok((mut stream, _)) = self.listener.accept() {
            let _ = stream.set_nodelay(true);
            let place = self.clients.len();
            let both = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut stream, Token(place), both).unwrap();
            self.clients.push(Some(Client {
                stream,
                input: Vec::new(),
                output: Vec::new(),
                answers: 0,
                close_after: false,
                endless: false,
            }));
            self.seen.lock().unwrap().connections += 1;
        }
    }

    fn read(&mut self, place: usize) {
        let Some(client) = self.clients[place].as_mut() else { return };
        let mut buffer = [0; 64 << 10];
        loop {
            match client.stream.read(&mut buffer) {
                Ok(0) => {
                    self.clients[place] = None;
                    return;
                }
                Ok(n) => client.input.extend_from_slice(&buffer[..n]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(_) => {
                    self.clients[place] = None;
                    return;
                }
            }
        }
        let received = Instant::now();
        while let Some(client) = self.clients[place].as_mut() {
            let Some((path, body)) = answer::request(&mut client.input) else { break };
            self.begin(place, &path, &body, received);
        }
    }

    fn begin(&mut self, place: usize, path: &str, body: &str, received: Instant) {
        let (behaviour, route) = answer::split(path);
        let mut seen = self.seen.lock().unwrap();
        if let Some(text) = answer::plain(route, body, &mut seen) {
            drop(seen);
            return self.write(place, text.as_bytes());
        }
        seen.requests.push(Truth { received: Some(received), ..Truth::default() });
        if seen.bodies.len() < 64 {
            seen.bodies.push(body.to_string());
        }
        let index = seen.requests.len() - 1;
        let answer = Answer::new(behaviour, route, body, self.timing, index);
        seen.prompt_tokens += answer.prompt_tokens;
        seen.output_tokens += if behaviour == "overcounts" { 7 } else { 0 };
        self.running += 1;
        seen.peak = seen.peak.max(self.running);
        drop(seen);
        let at = received + answer.first_wait();
        self.answers.push(Some((place, answer)));
        self.due.push(Reverse((at, self.answers.len() - 1, place)));
        if let Some(client) = self.clients[place].as_mut() {
            client.answers += 1;
        }
    }

    fn fire(&mut self) {
        let now = Instant::now();
        while let Some(&Reverse((at, number, place))) = self.due.peek() {
            if at > now {
                break;
            }
            self.due.pop();
            let Some((_, mut answer)) = self.answers[number].take() else { continue };
            let action = answer.next();
            match action {
                Action::Write { bytes, tokens, wait } => {
                    let written = Instant::now();
                    self.write(place, &bytes);
                    self.note(answer.index, written, tokens);
                    self.answers[number] = Some((place, answer));
                    // From the schedule, not from now: delays do not add up.
                    self.due.push(Reverse((at + wait, number, place)));
                }
                Action::Last { bytes, close } => {
                    self.running -= 1;
                    self.seen.lock().unwrap().requests[answer.index].done = Some(Instant::now());
                    if let Some(client) = self.clients[place].as_mut() {
                        client.close_after |= close;
                    }
                    self.write(place, &bytes);
                }
                Action::Endless => {
                    if let Some(client) = self.clients[place].as_mut() {
                        // A chunk of 1 GiB, all of it one line.
                        client.output.extend_from_slice(b"40000000\r\n");
                        client.endless = true;
                    }
                    self.flush(place);
                }
                Action::Nothing => {}
            }
        }
    }

    fn note(&mut self, index: usize, at: Instant, tokens: usize) {
        let mut seen = self.seen.lock().unwrap();
        if tokens > 0 {
            seen.requests[index].chunks.push((at, tokens));
            seen.output_tokens += tokens;
        }
    }

    fn write(&mut self, place: usize, bytes: &[u8]) {
        if let Some(client) = self.clients[place].as_mut() {
            client.output.extend_from_slice(bytes);
        }
        self.flush(place);
    }

    fn flush(&mut self, place: usize) {
        let Some(client) = self.clients.get_mut(place).and_then(Option::as_mut) else { return };
        loop {
            if client.endless && client.output.is_empty() {
                client.output = vec![b'x'; 1 << 20];
            }
            if client.output.is_empty() {
                break;
            }
            match client.stream.write(&client.output) {
                Ok(n) => {
                    client.output.drain(..n);
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.clients[place] = None;
                    return;
                }
            }
        }
        if client.close_after {
            self.clients[place] = None;
        }
    }
}
