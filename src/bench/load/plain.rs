//! Single requests beside the load: is the server ready, what is it, flush, counters.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::body::Body;
use super::head::{self, Parsed};
use super::target::Target;
use crate::error::{Error, Kind, Result};

/// No answer of these is longer.
const MAX_ANSWER: usize = 64 << 20;

/// Status and body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn ok(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body as JSON, if it is.
    pub fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }

    /// The beginning of the body, for messages.
    pub fn sample(&self) -> String {
        head::sample(&self.body)
    }
}

/// Sends one request on a connection of its own.
///
/// # Errors
/// `Io`: no connection, no HTTP, or no end within `timeout`.
pub fn call(
    target: &Target,
    method: &str,
    path: &str,
    body: &[u8],
    timeout: Duration,
) -> Result<Answer> {
    let request = target.request(method, path, body);
    exchange(target, &request, timeout).map_err(|e| {
        Error::new(Kind::Io, format!("{method} http://{}{}{path}: {e}", target.host, target.prefix))
    })
}

/// `GET` of a path whose answer is JSON with a good status; `None` for anything else.
pub fn get_json(target: &Target, path: &str) -> Option<Value> {
    let answer = call(target, "GET", path, b"", Duration::from_secs(10)).ok()?;
    if answer.ok() { answer.json() } else { None }
}

/// The first address that takes a connection.
pub fn connect(target: &Target, timeout: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in &target.addresses {
        match TcpStream::connect_timeout(address, timeout) {
            Ok(stream) => return Ok(stream),
            Err(e) => last = e,
        }
    }
    Err(last)
}

fn exchange(target: &Target, request: &[u8], timeout: Duration) -> io::Result<Answer> {
    let until = Instant::now() + timeout;
    let mut stream = connect(target, timeout)?;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(timeout))?;
    stream.write_all(request)?;
    let mut bytes = Vec::new();
    let (head, used) = loop {
        match head::parse(&bytes) {
            Parsed::Head(head, used) => break (head, used),
            Parsed::Bad(what) => return Err(io::Error::new(io::ErrorKind::InvalidData, what)),
            Parsed::Incomplete => {
                if fill(&mut stream, &mut bytes, until)? == 0 {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
                }
            }
        }
    };
    let mut body = Body::new(head.framing);
    let (mut content, mut rest) = (Vec::new(), bytes.split_off(used));
    loop {
        let mut left = rest.as_slice();
        while !left.is_empty() && !body.done() {
            let piece = body.next(left).map_err(invalid)?;
            content.extend_from_slice(piece.data);
            left = &left[piece.used..];
        }
        if body.done() {
            return Ok(Answer { status: head.status, body: content });
        }
        if content.len() > MAX_ANSWER {
            return Err(invalid(format!("an answer of more than {MAX_ANSWER} bytes")));
        }
        rest.clear();
        if fill(&mut stream, &mut rest, until)? == 0 {
            body.closed().map_err(invalid)?;
        }
    }
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Reads once, appending; bytes read, 0 at the end.
fn fill(stream: &mut TcpStream, bytes: &mut Vec<u8>, until: Instant) -> io::Result<usize> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::Error::from(io::ErrorKind::TimedOut));
    }
    stream.set_read_timeout(Some(left))?;
    let mut buffer = [0; 16 << 10];
    loop {
        match stream.read(&mut buffer) {
            Ok(n) => {
                bytes.extend_from_slice(&buffer[..n]);
                return Ok(n);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::Error::from(io::ErrorKind::TimedOut));
            }
            Err(e) => return Err(e),
        }
    }
}
