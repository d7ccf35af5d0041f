//! One client's socket: bytes in and out, and what it is waiting for.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;

use super::generate::Generation;
use super::options::{BODY_RATE, Deadlines, HIGH_WATER, LINGER};
use super::routes::Route;
use super::timing::Timing;
use crate::http::connection::Waiting;
use crate::http::{Connection, Exchange, Head, Limits};
use crate::profile::clock;

/// Bytes taken from a socket in one go.
const READ: usize = 64 << 10;

/// What the server does for a connection.
pub enum Busy {
    /// Nothing.
    Free,
    /// A head was let in, its body is to come.
    Body(&'static Route, Box<Head>),
    /// A worker, or the engine's answer to a flush, is waited for.
    Working,
    /// The engine is generating.
    Generating(Box<Generation>),
}

/// A connection.
pub struct Conn {
    pub socket: TcpStream,
    pub peer: SocketAddr,
    /// Tells this connection from an earlier one with the same key.
    pub serial: u64,
    pub input: Connection,
    pub out: Vec<u8>,
    written: usize,
    pub busy: Busy,
    /// Of the request being answered.
    pub exchange: Exchange,
    /// When the request being answered was complete.
    pub received: Instant,
    /// Its stamps as far as the socket knows them.
    pub timing: Timing,
    /// Its route, for counts, and its first line, for the log.
    pub route: &'static str,
    pub line: String,
    readable: bool,
    writable: bool,
    /// The client has sent all that it will.
    pub ended: bool,
    /// Close as soon as everything is written.
    pub closing: bool,
    /// Unread bytes are to be taken first, because the request was cut short.
    pub rude: bool,
    /// The writing side is shut; waiting for the client to see it.
    lingering: Option<Instant>,
    /// When what is being waited for began.
    since: Instant,
    was: Waiting,
    /// When the client last took something, or something first waited for it.
    progress: Instant,
    /// Nothing waited for the client after the last write.
    drained: bool,
    pub deadline: Option<Instant>,
}

/// Why a connection's deadline passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Late {
    /// Nothing was asked: close without a word.
    Idle,
    /// Head or body did not come in time: 408.
    Request,
    /// The client does not read, or has seen its last answer.
    Gone,
}

impl Conn {
    pub fn new(socket: TcpStream, peer: SocketAddr, serial: u64, limits: Limits) -> Self {
        let now = Instant::now();
        Conn {
            socket,
            peer,
            serial,
            input: Connection::new(limits),
            out: Vec::new(),
            written: 0,
            busy: Busy::Free,
            exchange: Exchange::broken(),
            received: now,
            timing: Timing { accepted_ns: clock::now_ns(), ..Timing::default() },
            route: "other",
            line: String::new(),
            readable: true,
            writable: true,
            ended: false,
            closing: false,
            rude: false,
            lingering: None,
            since: now,
            was: Waiting::Idle,
            progress: now,
            drained: true,
            deadline: None,
        }
    }

    /// Notes what the poll said.
    pub fn ready(&mut self, event: &mio::event::Event) {
        self.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        self.writable |= event.is_writable();
    }

    /// A client that has gone, or will send no more, while its answer is being made: with
    /// requests of its own still unread nobody can tell, so that counts as gone, too.
    pub fn gone(&self, event: &mio::event::Event) -> bool {
        event.is_error() || event.is_write_closed() || event.is_read_closed()
    }

    /// Bytes that wait for the client.
    pub fn unsent(&self) -> usize {
        self.out.len() - self.written
    }

    pub fn has_room(&self) -> bool {
        self.unsent() < HIGH_WATER
    }

    /// Reads what is there, once: how many bytes; `None` if nothing was.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let wanted = self.lingering.is_some() || self.input.wants_input();
        if !self.readable || self.ended || !wanted {
            return Ok(None);
        }
        let most = buffer.len().min(READ);
        match self.socket.read(&mut buffer[..most]) {
            Ok(0) => {
                self.ended = true;
                Ok(Some(0))
            }
            Ok(n) => {
                if self.timing.first_byte_ns == 0 {
                    self.timing.first_byte_ns = clock::now_ns();
                }
                if self.lingering.is_none() {
                    self.input.receive(&buffer[..n]);
                }
                Ok(Some(n))
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                self.readable = false;
                Ok(None)
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(Some(0)),
            Err(e) => Err(e),
        }
    }

    /// Writes as much as the socket takes.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn write(&mut self, now: Instant) -> io::Result<()> {
        if self.drained {
            self.progress = now;
        }
        while self.writable && self.written < self.out.len() {
            match self.socket.write(&self.out[self.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    self.written += n;
                    self.progress = now;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        if self.written == self.out.len() {
            self.out = Vec::new();
            self.written = 0;
        } else if self.written > HIGH_WATER {
            self.out.drain(..self.written);
            self.written = 0;
        }
        self.drained = self.unsent() == 0;
        Ok(())
    }

    /// Everything is written and the connection is to be closed: true if it can be now. After a
    /// request that was cut short the client's unread bytes are taken first, or the reset that
    /// they cause would overtake the answer.
    pub fn finished(&mut self, now: Instant) -> bool {
        if self.unsent() > 0 || !self.closing {
            return false;
        }
        if self.ended || !self.rude {
            return true;
        }
        if self.lingering.is_none() {
            if self.socket.shutdown(std::net::Shutdown::Write).is_err() {
                return true;
            }
            self.lingering = Some(now + LINGER);
        }
        false
    }

    /// When this connection has waited long enough, as things are now.
    pub fn due(&mut self, deadlines: &Deadlines, now: Instant) -> Option<Instant> {
        if let Some(end) = self.lingering {
            return Some(end);
        }
        let waiting = self.input.waiting();
        if waiting != self.was {
            self.was = waiting;
            self.since = now;
        }
        let write = (self.unsent() > 0).then(|| self.progress + deadlines.write);
        let read = match waiting {
            Waiting::Idle => Some(self.since + deadlines.idle),
            Waiting::Head => Some(self.since + deadlines.head),
            Waiting::Body => {
                let earned = self.input.body_bytes() as u64 / BODY_RATE;
                Some(self.since + deadlines.body + Duration::from_secs(earned))
            }
            Waiting::Answer | Waiting::Closed => None,
        };
        match (write, read) {
            (Some(write), Some(read)) if self.unsent() == 0 => Some(write.min(read)),
            (Some(write), _) => Some(write),
            (None, read) => read,
        }
    }

    /// A request was answered: what is waited for now begins now.
    pub fn rests(&mut self) {
        self.timing = Timing::default();
        self.was = Waiting::Idle;
        self.since = Instant::now();
    }

    /// What passed, when a deadline has.
    pub fn late(&self) -> Late {
        match self.input.waiting() {
            _ if self.lingering.is_some() || self.unsent() > 0 => Late::Gone,
            Waiting::Head | Waiting::Body => Late::Request,
            Waiting::Idle => Late::Idle,
            Waiting::Answer | Waiting::Closed => Late::Gone,
        }
    }
}
