//! One connection's input: bytes go in as they come, requests come out one after another.
//!
//! ```text
//! head ─▶ Event::Head ─▶ accept() ─▶ body ─▶ Event::Body ─▶ answered() ─▶ head …
//!   └───────── any error ─▶ Event::Refused, then nothing more
//! ```

use super::chunked::{self, Decoder};
use super::framing::Framing;
use super::head::Head;
use super::limits::Limits;
use super::refused::Refused;
use super::scan::{Scan, Scanned};

/// What the bytes so far amount to.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// A head; [`Connection::accept`] lets its body in.
    Head(Box<Head>),
    /// The client waits for `100 Continue` before it sends the body.
    Continue,
    /// The whole body of the accepted request.
    Body(Vec<u8>),
    /// The bytes are no request: answer this and close.
    Refused(Refused),
}

#[derive(Debug)]
enum State {
    Head(Box<Scan>),
    /// A head was given out and waits for [`Connection::accept`].
    Deciding(Framing, bool),
    /// Tell the client to go on.
    Continue(Framing),
    Length(usize),
    Chunked(Box<Decoder>),
    /// A request was given out and is being answered.
    Answering,
    Closed,
}

/// What a connection is waiting for, which decides its deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// For a request to begin.
    Idle,
    Head,
    Body,
    /// For its own answer.
    Answer,
    Closed,
}

/// The reading half of a connection.
#[derive(Debug)]
pub struct Connection {
    limits: Limits,
    state: State,
    input: Vec<u8>,
    /// Bytes of `input` that are used up.
    used: usize,
    /// Bytes of `input` that the scan has seen.
    scanned: usize,
    body: Vec<u8>,
}

impl Connection {
    pub fn new(limits: Limits) -> Self {
        Connection {
            limits,
            state: State::Head(Box::new(Scan::head(limits))),
            input: Vec::new(),
            used: 0,
            scanned: 0,
            body: Vec::new(),
        }
    }

    /// Takes bytes from the network.
    pub fn receive(&mut self, bytes: &[u8]) {
        if !matches!(self.state, State::Closed) {
            self.input.extend_from_slice(bytes);
        }
    }

    /// There is room for more bytes; without it, the network should not be read.
    pub fn wants_input(&self) -> bool {
        let ahead = self.input.len() - self.used;
        match self.state {
            State::Closed => false,
            State::Answering | State::Deciding(..) => ahead < self.limits.ahead,
            _ => true,
        }
    }

    pub fn waiting(&self) -> Waiting {
        match &self.state {
            State::Head(scan) if scan.is_fresh() => Waiting::Idle,
            State::Head(_) => Waiting::Head,
            State::Continue(_) | State::Length(_) | State::Chunked(_) => Waiting::Body,
            State::Deciding(..) | State::Answering => Waiting::Answer,
            State::Closed => Waiting::Closed,
        }
    }

    /// Body bytes that have arrived of the request being read.
    pub fn body_bytes(&self) -> usize {
        self.body.len()
    }

    /// Lets in the body of the head that was given out last, up to `max` bytes.
    pub fn accept(&mut self) {
        if let State::Deciding(framing, expects) = self.state {
            self.state = match (framing, expects) {
                (Framing::Length(0), _) => State::Length(0),
                (framing, true) => State::Continue(framing),
                (framing, false) => self.body_state(framing),
            };
        }
    }

    fn body_state(&self, framing: Framing) -> State {
        match framing {
            // poll() refused a length over the limit, so it fits.
            Framing::Length(n) => State::Length(usize::try_from(n).unwrap_or(usize::MAX)),
            Framing::Chunked => State::Chunked(Box::new(Decoder::new(self.limits.body))),
        }
    }

    /// The request has been answered; the next one may be read.
    pub fn answered(&mut self) {
        if matches!(self.state, State::Answering) {
            self.state = State::Head(Box::new(Scan::head(self.limits)));
        }
    }

    /// Reads nothing more.
    pub fn close(&mut self) {
        self.state = State::Closed;
        self.input = Vec::new();
        self.body = Vec::new();
        (self.used, self.scanned) = (0, 0);
    }

    /// The next event, if the bytes so far hold one.
    pub fn poll(&mut self) -> Option<Event> {
        let event = match self.advance() {
            Ok(event) => event,
            Err(refused) => {
                self.close();
                Some(Event::Refused(refused))
            }
        };
        self.compact();
        event
    }

    fn advance(&mut self) -> Result<Option<Event>, Refused> {
        match &mut self.state {
            State::Head(_) => self.read_head(),
            State::Continue(framing) => {
                let framing = *framing;
                self.state = self.body_state(framing);
                Ok(Some(Event::Continue))
            }
            State::Length(total) => {
                let total = *total;
                let rest = &self.input[self.used..];
                let take = rest.len().min(total - self.body.len().min(total));
                self.body.extend_from_slice(&rest[..take]);
                self.used += take;
                Ok(if self.body.len() == total { Some(self.whole_body()) } else { None })
            }
            State::Chunked(decoder) => {
                let (taken, done) = decoder.decode(&self.input[self.used..], &mut self.body)?;
                self.used += taken;
                Ok(if done { Some(self.whole_body()) } else { None })
            }
            State::Deciding(..) | State::Answering | State::Closed => Ok(None),
        }
    }

    fn whole_body(&mut self) -> Event {
        self.state = State::Answering;
        Event::Body(std::mem::take(&mut self.body))
    }

    fn read_head(&mut self) -> Result<Option<Event>, Refused> {
        let State::Head(scan) = &mut self.state else { return Ok(None) };
        self.scanned = self.scanned.max(self.used);
        while let Some(&byte) = self.input.get(self.scanned) {
            self.scanned += 1;
            match scan.push(byte)? {
                Scanned::More => {}
                Scanned::Skipped => self.used = self.scanned,
                Scanned::End => {
                    let head = Head::parse(&self.input[self.used..self.scanned], &self.limits)?;
                    self.used = self.scanned;
                    if matches!(head.framing, Framing::Length(n) if n > self.limits.body as u64) {
                        return Err(chunked::too_large(self.limits.body));
                    }
                    self.state = State::Deciding(head.framing, head.expects_continue);
                    return Ok(Some(Event::Head(Box::new(head))));
                }
            }
        }
        Ok(None)
    }

    /// Drops used bytes, and gives memory back when all are used.
    fn compact(&mut self) {
        if self.used == self.input.len() {
            self.input = Vec::new();
            (self.used, self.scanned) = (0, 0);
        } else if self.used > 16 << 10 {
            self.input.drain(..self.used);
            self.scanned = self.scanned.saturating_sub(self.used);
            self.used = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    const LIMITS: Limits = Limits { line: 64, head: 128, fields: 4, body: 8, ahead: 10 };

    #[test]
    fn reads_ahead_of_an_answer_up_to_the_limit() {
        let mut c = Connection::new(LIMITS);
        assert!(c.wants_input());
        c.receive(&[GET, b"123456789"].concat());
        assert!(matches!(c.poll(), Some(Event::Head(_))));
        assert!(c.wants_input(), "9 of 10 bytes wait behind the head");
        c.receive(b"0");
        assert!(!c.wants_input());
        c.close();
        assert_eq!((c.wants_input(), c.input.capacity()), (false, 0));
    }

    #[test]
    fn what_it_waits_for() {
        let mut c = Connection::new(LIMITS);
        assert_eq!(c.waiting(), Waiting::Idle);
        c.receive(b"\r\n");
        assert_eq!((c.poll(), c.waiting()), (None, Waiting::Idle), "an empty line begins nothing");
        c.receive(b"G");
        assert_eq!((c.poll(), c.waiting()), (None, Waiting::Head));
        c.receive(b"ET / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n1234");
        let head = c.poll();
        assert!(matches!(&head, Some(Event::Head(h)) if h.field("content-length") == Some("8")));
        assert_eq!(c.waiting(), Waiting::Answer);
        c.accept();
        assert_eq!((c.poll(), c.waiting(), c.body_bytes()), (None, Waiting::Body, 4));
        c.close();
        assert_eq!((c.waiting(), c.body_bytes()), (Waiting::Closed, 0));
        assert_eq!((c.input.capacity(), c.poll()), (0, None), "nothing is kept for the dead");
    }

    #[test]
    fn requests_far_behind_each_other_come_in_order_and_memory_goes_back() {
        let mut c = Connection::new(Limits::default());
        let count = 2000;
        let all: String =
            (0..count).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
        // The last one is not whole, so the input is never empty.
        c.receive(&all.as_bytes()[..all.len() - 1]);
        for n in 0..count - 1 {
            let Some(Event::Head(head)) = c.poll() else { panic!("request {n} is missing") };
            assert_eq!(head.path, format!("/{n}"));
            c.accept();
            assert_eq!(c.poll(), Some(Event::Body(Vec::new())));
            c.answered();
        }
        assert_eq!((c.poll(), c.waiting()), (None, Waiting::Head));
        assert!(c.input.len() < 17 << 10, "{} bytes are kept", c.input.len());
        c.receive(b"\n");
        assert!(matches!(c.poll(), Some(Event::Head(_))));
        assert_eq!(c.input.capacity(), 0);
    }
}
