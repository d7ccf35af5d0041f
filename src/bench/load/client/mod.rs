//! The load client: one thread, one poll, thousands of requests. Requests go out by an absolute
//! schedule; what is late is recorded as late, and nothing that happens to one request delays the
//! clock of another. [`turns`]: requests that need the answer to another;
//! [`ends`]: how requests end.

mod ends;
mod turns;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io::{self, Read};
use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use super::conn::{Conn, Sent};
use super::exchange::{Exchange, State};
use super::protocol::Api;
use super::record::Record;
use super::timer::Timer;
use crate::error::{Error, Kind, Result};
use crate::measure::interrupt::Interrupt;
use crate::measure::machine;
use crate::profile::clock;

pub use turns::Follow;

/// A request to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Index in the data set.
    pub index: usize,
    /// Arrival, nanoseconds after the start; `None`: as soon as there is a place.
    pub scheduled: Option<u64>,
    /// Head and body.
    pub bytes: Vec<u8>,
    /// Requests of the same conversation that follow.
    pub rest: usize,
}

/// How to send.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    pub address: SocketAddr,
    pub api: Api,
    /// Most requests in flight; `None`: no limit.
    pub concurrency: Option<usize>,
    /// From sending to the last event.
    pub timeout: Duration,
    pub keep_text: bool,
}

/// What the client has to say of itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    /// In the order in which requests ended.
    pub records: Vec<Record>,
    /// Jobs never sent, after an interruption.
    pub unsent: usize,
    /// From the start to the end of the last request, nanoseconds.
    pub wall_ns: u64,
    /// Processor time of the client's thread, and time it was runnable but not running.
    pub cpu_ns: Option<u64>,
    pub starved_ns: Option<u64>,
    pub connections: usize,
    /// Requests sent again because the server had closed an idle connection.
    pub resent: usize,
    pub interrupted: bool,
}

const TIMER: Token = Token(usize::MAX);
/// Reads of one connection before others have their turn.
const READS_A_TURN: usize = 16;
/// Requests sent before answers have their turn.
const SENDS_A_TURN: usize = 32;
/// After `[DONE]` a server has so long to end the body; then the connection is not used again.
const LINGER_NS: u64 = 1_000_000_000;
/// The user's wish to stop is looked for at least so often.
const LOOK: Duration = Duration::from_millis(50);

/// Sends `jobs` (in order of their schedule), and what follows each, and returns when all have
/// ended. `ended` counts them meanwhile.
///
/// # Errors
/// The operating system has no poll or timer for us. Failures of requests are in their records.
pub fn run(
    jobs: &[Job],
    options: &Options,
    follow: Option<&dyn Follow>,
    interrupt: &Interrupt,
    ended: &AtomicUsize,
) -> Result<Outcome> {
    let system = |e: io::Error| Error::new(Kind::Io, format!("the load client's poll: {e}"));
    let poll = Poll::new().map_err(system)?;
    let timer = Timer::new(poll.registry(), TIMER).map_err(system)?;
    let usage = machine::thread_times();
    let origin_ns = clock::now_ns();
    let mut client = Client {
        jobs,
        follow,
        made: Vec::new(),
        turns: VecDeque::new(),
        options,
        poll,
        timer,
        start: Instant::now(),
        origin_ns,
        conns: Vec::new(),
        vacant: Vec::new(),
        idle: Vec::new(),
        again: Vec::new(),
        deadlines: BinaryHeap::new(),
        freed: VecDeque::new(),
        next: 0,
        active: 0,
        serial: 0,
        buffer: vec![0; 256 << 10],
        outcome: Outcome::default(),
        ended,
    };
    client.turn(interrupt).map_err(system)?;
    let mut outcome = client.outcome;
    outcome.wall_ns = outcome.records.iter().map(|r| r.end).max().unwrap_or(0);
    if let (Some(a), Some(b)) = (usage, machine::thread_times()) {
        outcome.cpu_ns = Some(b.cpu_ns.saturating_sub(a.cpu_ns));
        outcome.starved_ns = Some(b.waited_ns.saturating_sub(a.waited_ns));
    }
    Ok(outcome)
}

struct Client<'a> {
    jobs: &'a [Job],
    follow: Option<&'a dyn Follow>,
    /// Jobs made of answers; they are numbered on from `jobs`.
    made: Vec<Job>,
    /// Of these, those to send, and since when.
    turns: VecDeque<(usize, u64)>,
    options: &'a Options,
    poll: Poll,
    timer: Timer,
    start: Instant,
    /// The same instant in nanoseconds of the monotonic clock.
    origin_ns: u64,
    conns: Vec<Option<Conn>>,
    /// Empty places in `conns`.
    vacant: Vec<usize>,
    /// Connections without a request; the last used is used first.
    idle: Vec<usize>,
    /// Connections that may have more to read.
    again: Vec<usize>,
    /// Time, place, and the serial number that the place must still have.
    deadlines: BinaryHeap<Reverse<(u64, usize, u64)>>,
    /// When places in flight became free, oldest first.
    freed: VecDeque<u64>,
    /// The next job.
    next: usize,
    active: usize,
    serial: u64,
    buffer: Vec<u8>,
    outcome: Outcome,
    ended: &'a AtomicUsize,
}

impl Client<'_> {
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn turn(&mut self, interrupt: &Interrupt) -> io::Result<()> {
        let mut events = Events::with_capacity(256);
        while self.next < self.jobs.len() || self.active > 0 {
            if interrupt.asked() {
                self.stop();
                break;
            }
            let more = self.send_due();
            self.expire();
            let again = std::mem::take(&mut self.again);
            again.into_iter().for_each(|place| self.readable(place, true));
            self.wait(&mut events, more)?;
            for event in &events {
                // A request that is due does not wait for a crowd of answers.
                if self.is_due() {
                    self.send_due();
                }
                match event.token() {
                    TIMER => self.timer.fired(),
                    Token(place) => self.ready(place, event),
                }
            }
        }
        Ok(())
    }

    /// Waits for events: until the next arrival or deadline, or not at all if `busy`.
    fn wait(&mut self, events: &mut Events, busy: bool) -> io::Result<()> {
        let now = self.now();
        let due = self.due();
        self.timer.arm(due, now)?;
        let deadline = self.deadlines.peek().map(|Reverse((at, ..))| *at);
        let wakes = if Timer::WAKES_POLL { None } else { due };
        let nanos = [deadline, wakes].into_iter().flatten().map(|at| at.saturating_sub(now)).min();
        let wait = nanos.map_or(LOOK, |n| Duration::from_nanos(n).min(LOOK));
        let busy = busy || !self.again.is_empty() || !self.turns.is_empty();
        let wait = if busy { Duration::ZERO } else { wait };
        match self.poll.poll(events, Some(wait)) {
            Err(e) if e.kind() != io::ErrorKind::Interrupted => Err(e),
            _ => Ok(()),
        }
    }

    /// The next job, if there is a place for it.
    fn next_job(&self) -> Option<&Job> {
        let open = self.options.concurrency.is_none_or(|most| self.active < most);
        self.jobs.get(self.next).filter(|_| open)
    }

    /// When the next job is to be sent, if it has a time and there is a place for it.
    fn due(&self) -> Option<u64> {
        self.next_job()?.scheduled
    }

    fn is_due(&self) -> bool {
        let next = self.next_job();
        !self.turns.is_empty()
            || next.is_some_and(|job| job.scheduled.is_none_or(|at| at <= self.now()))
    }

    /// Sends what is due; true if more is due than this turn's share.
    fn send_due(&mut self) -> bool {
        self.send_turns();
        for _ in 0..SENDS_A_TURN {
            let Some(job) = self.jobs.get(self.next) else { return false };
            let most = self.options.concurrency.unwrap_or(usize::MAX);
            if self.active >= most || job.scheduled.is_some_and(|at| at > self.now()) {
                return false;
            }
            // The first `most` jobs find places that were free from the start.
            let free = if self.next < most { 0 } else { self.freed.pop_front().unwrap_or(0) };
            let scheduled = job.scheduled.unwrap_or(free);
            let record = Record {
                index: job.index,
                scheduled,
                ready: scheduled.max(free),
                ..Record::default()
            };
            self.next += 1;
            self.active += 1;
            self.send(self.next - 1, record, false);
        }
        true
    }

    /// Sends job `job` on an idle connection, or (always if `fresh`) on a new one.
    fn send(&mut self, job: usize, mut record: Record, fresh: bool) {
        let now = self.now();
        if record.sent == 0 {
            record.sent = now;
        }
        record.origin_ns = self.origin_ns;
        let idle = if fresh { None } else { self.idle.pop() };
        let place = match idle {
            Some(place) => place,
            None => match self.connect() {
                Ok(place) => {
                    record.connected = true;
                    place
                }
                Err(e) => return self.count(record, Some(ends::failed_connect(&e))),
            },
        };
        self.serial += 1;
        let deadline = record.sent.saturating_add(self.options.timeout.as_nanos() as u64);
        let length = self.job(job).bytes.len();
        self.deadlines.push(Reverse((deadline, place, self.serial)));
        let Some(conn) = self.conns[place].as_mut() else { return };
        conn.serial = self.serial;
        conn.job = job;
        conn.length = length;
        conn.reused = idle.is_some();
        conn.exchange = Some(Exchange::new(self.options.api, self.options.keep_text, record));
        conn.written = 0;
        self.write(place);
    }

    fn connect(&mut self) -> io::Result<usize> {
        let place = self.vacant.pop().unwrap_or(self.conns.len());
        let conn = Conn::open(self.poll.registry(), self.options.address, Token(place));
        let conn = match conn {
            Ok(conn) => conn,
            Err(e) => {
                if place < self.conns.len() {
                    self.vacant.push(place);
                }
                return Err(e);
            }
        };
        self.outcome.connections += 1;
        if place == self.conns.len() {
            self.conns.push(Some(conn));
        } else {
            self.conns[place] = Some(conn);
        }
        Ok(place)
    }

    fn ready(&mut self, place: usize, event: &mio::event::Event) {
        if event.is_writable() || event.is_error() {
            self.write(place);
        }
        if event.is_readable() || event.is_read_closed() {
            self.readable(place, event.is_read_closed());
        }
    }

    fn write(&mut self, place: usize) {
        let Some(conn) = self.conns.get_mut(place).and_then(Option::as_mut) else { return };
        if conn.exchange.is_none() {
            return;
        }
        let job = self.jobs.get(conn.job);
        let Some(job) = job.or_else(|| self.made.get(conn.job - self.jobs.len())) else { return };
        match conn.write(&job.bytes) {
            Ok(Sent::All | Sent::Some) => {}
            Err(e) if conn.connected => self.broken(place, &e),
            Err(e) => self.close(place, Some(ends::failed_connect(&e))),
        }
    }

    /// Reads what is there. A short read has emptied the socket, and what comes later is a new
    /// event; unless the end of the stream was part of this one (`to_the_end`).
    fn readable(&mut self, place: usize, to_the_end: bool) {
        let mut buffer = std::mem::take(&mut self.buffer);
        for turn in 0.. {
            let Some(conn) = self.conns.get_mut(place).and_then(Option::as_mut) else { break };
            if !conn.connected {
                break;
            }
            if turn == READS_A_TURN {
                self.again.push(place);
                break;
            }
            match conn.stream.read(&mut buffer) {
                Ok(0) => {
                    self.closed(place);
                    break;
                }
                Ok(n) => {
                    let at = self.now();
                    self.received(place, &buffer[..n], at);
                    if n < buffer.len() && !to_the_end {
                        break;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    self.broken(place, &e);
                    break;
                }
            }
        }
        self.buffer = buffer;
    }

    fn received(&mut self, place: usize, bytes: &[u8], at: u64) {
        let Some(conn) = self.conns.get_mut(place).and_then(Option::as_mut) else { return };
        let Some(exchange) = conn.exchange.as_mut() else {
            // Bytes that nobody asked for.
            return self.close(place, None);
        };
        let state = exchange.receive(bytes, at);
        match state {
            Ok(State::Receiving) => {}
            Ok(State::Answered) => self.answered(place, at),
            Ok(State::Ended { keep_alive }) => {
                // An answer to half a request: the rest must not go before the next one.
                let all_sent = conn.written == conn.length;
                let finished = conn.take_record();
                self.settle(finished, None);
                if keep_alive && all_sent {
                    self.rest(place);
                } else {
                    self.close(place, None);
                }
            }
            Err(failure) => self.close(place, Some(failure)),
        }
    }

    /// `[DONE]`: the request is over; the connection waits for the end of the body.
    fn answered(&mut self, place: usize, at: u64) {
        let Some(conn) = self.conns[place].as_mut() else { return };
        if conn.lingers {
            return;
        }
        conn.lingers = true;
        let record = conn.exchange.as_mut().map(|e| std::mem::take(&mut e.record));
        self.serial += 1;
        conn.serial = self.serial;
        self.deadlines.push(Reverse((at + LINGER_NS, place, self.serial)));
        self.settle(record, None);
    }

    /// Back among the idle.
    fn rest(&mut self, place: usize) {
        let Some(conn) = self.conns[place].as_mut() else { return };
        conn.exchange = None;
        conn.lingers = false;
        conn.serial = 0;
        self.idle.push(place);
    }
}
