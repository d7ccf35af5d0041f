//! Sends one batch as one request and reads its stream.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::stream::BatchReader;
use crate::bench::load::body::Body;
use crate::bench::load::head::{self, Parsed};
use crate::bench::load::plain;
use crate::bench::load::record::Failure;
use crate::bench::load::sse::Events;
use crate::bench::load::target::Target;
use crate::error::{Error, Kind, Result};
use crate::measure::interrupt::Interrupt;

/// How often a wish to stop is looked for while nothing comes.
const LOOK: Duration = Duration::from_millis(200);

/// Posts `body` to `path` and reads the answers of `batch` requests, at most for `patience`.
///
/// # Errors
/// `Io`: no connection, an error answer, a broken stream, time out; `Interrupted`.
pub fn batch(
    target: &Target,
    path: &str,
    body: &Value,
    batch: usize,
    patience: Duration,
    interrupt: &Interrupt,
) -> Result<BatchReader> {
    let failed = |e: io::Error| Error::new(Kind::Io, format!("http://{}{path}: {e}", target.host));
    let request = target.request("POST", path, body.to_string().as_bytes());
    let mut stream = plain::connect(target, Duration::from_secs(10)).map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    stream.set_read_timeout(Some(LOOK)).map_err(failed)?;
    let begun = Instant::now();
    stream.write_all(&request).map_err(failed)?;
    let mut answer = Answer {
        head: Vec::new(),
        status: 0,
        body: None,
        events: Events::default(),
        error: Vec::new(),
        reader: BatchReader::new(batch),
    };
    let mut buffer = vec![0; 256 << 10];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => {
                answer.closed()?;
                return answer.finish();
            }
            Ok(n) => {
                let at = begun.elapsed().as_nanos() as u64;
                if answer.receive(&buffer[..n], at)? {
                    return answer.finish();
                }
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(failed(e)),
        }
        if interrupt.asked() {
            return Err(interrupt.error("the batch that ran is not reported"));
        }
        if begun.elapsed() > patience {
            let seconds = patience.as_secs();
            return Err(broken(format!("no end within {seconds} s (--request-timeout)")));
        }
    }
}

struct Answer {
    head: Vec<u8>,
    status: u16,
    body: Option<Body>,
    events: Events,
    error: Vec<u8>,
    reader: BatchReader,
}

fn broken(what: String) -> Error {
    Error::new(Kind::Io, format!("the batch's answer: {what}"))
}

impl Answer {
    /// True when the answer is complete.
    fn receive(&mut self, bytes: &[u8], at: u64) -> Result<bool> {
        if self.body.is_some() {
            return self.content(bytes, at);
        }
        self.head.extend_from_slice(bytes);
        match head::parse(&self.head) {
            Parsed::Incomplete => Ok(false),
            Parsed::Bad(what) => Err(broken(what)),
            Parsed::Head(head, used) => {
                self.status = head.status;
                self.body = Some(Body::new(head.framing));
                let rest = self.head.split_off(used);
                self.content(&rest, at)
            }
        }
    }

    fn content(&mut self, bytes: &[u8], at: u64) -> Result<bool> {
        let Some(body) = &mut self.body else { return Ok(false) };
        let mut rest = bytes;
        while !rest.is_empty() && !body.done() {
            let piece = body.next(rest).map_err(broken)?;
            rest = &rest[piece.used..];
            if self.status != 200 {
                self.error.extend_from_slice(&piece.data[..piece.data.len().min(1024)]);
                continue;
            }
            let reader = &mut self.reader;
            let read = self.events.push(piece.data, &mut |event| reader.event(event, at));
            read.map_err(|f: Failure| broken(f.detail))?;
        }
        Ok(body.done() || self.reader.done)
    }

    fn closed(&mut self) -> Result<()> {
        match &mut self.body {
            Some(body) => body.closed().map_err(broken),
            None => Err(broken("closed before an answer".into())),
        }
    }

    fn finish(self) -> Result<BatchReader> {
        if self.status != 200 {
            let text = head::sample(&self.error);
            return Err(broken(format!("status {}: {text}", self.status)));
        }
        Ok(self.reader)
    }
}
