//! The loop: sockets, signals, the engine's reports and the workers' results, all on one thread.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token, Waker};
use slab::Slab;

use super::conn::{Busy, Conn, Late};
use super::context::{Context, ModelFacts};
use super::lifecycle::Drain;
use super::options::Options;
use super::pool::{Pool, Ticket};
use super::stats::Stats;
use super::timers::{Slice, Timers};
use super::{listener, pool};
use crate::engine::Engine;
use crate::engine::service::{self, Report, ServiceOptions, State};
use crate::error::{Error, Kind, Result};
use crate::http::Refused;
use crate::measure::files;
use crate::measure::machine::thread_times;
use crate::profile::profiler::Source;
use crate::profile::recorder::{Event, Recorder};

const LISTENER: Token = Token(usize::MAX);
const WAKER: Token = Token(usize::MAX - 1);
const SIGNALS: Token = Token(usize::MAX - 2);

/// Turns of one connection before the others have theirs.
const TURNS: usize = 16;
/// Events of one turn of the loop.
const EVENTS: usize = 128;
/// Without a free file descriptor, accepting is tried again after this.
const RETRY: Duration = Duration::from_millis(100);

/// Files that are no connections.
const OWN_FILES: usize = 64;

/// Records of the engine and of the loop that the flight recorder keeps, 32 bytes each.
const ENGINE_RECORDS: usize = 1 << 18;
const LOOP_RECORDS: usize = 1 << 15;

/// Something that whoever runs the server may want to tell a person.
#[derive(Debug, Clone, PartialEq)]
pub enum Notice {
    /// The model is loaded; requests are taken.
    Ready,
    /// A signal came.
    Draining,
    /// The engine reported an error and goes on.
    Trouble(Error),
    /// A request was answered: `POST /generate 200 12.3 ms 127.0.0.1:40000`.
    Request(String),
}

/// Ends a server from another thread, as SIGTERM would.
#[derive(Clone)]
pub struct Stopper {
    asked: Arc<AtomicBool>,
    waker: Arc<Waker>,
}

impl Stopper {
    pub fn stop(&self) {
        self.asked.store(true, Ordering::SeqCst);
        // A poll that cannot be woken will see the flag at its next turn.
        let _ = self.waker.wake();
    }
}

/// A flush that the engine has not answered.
pub(super) struct Flush {
    pub ticket: Ticket,
    pub until: Instant,
    /// Asked again at this time, after the engine was not idle.
    pub again: Option<Instant>,
}

/// A bound server.
pub struct Server {
    pub(super) poll: Poll,
    pub(super) listener: Option<TcpListener>,
    pub(super) signals: Option<mio::net::UnixStream>,
    stop: Stopper,
    pub(super) context: Arc<Context>,
    pub(super) pool: Pool,
    pub(super) conns: Slab<Conn>,
    serial: u64,
    /// Which connection a request in the engine belongs to.
    pub(super) owners: HashMap<u64, usize>,
    pub(super) next_id: u64,
    pub(super) flushes: HashMap<u64, Flush>,
    timers: Timers,
    pub(super) stats: Stats,
    /// Connections that have more to do than one turn.
    again: VecDeque<usize>,
    /// Connections with news that have not been told yet.
    pub(super) touched: VecDeque<usize>,
    /// What is left of a report.
    pub(super) reading: Option<Report>,
    /// The engine or the workers may have more than this turn has taken.
    pub(super) more: bool,
    accept_at: Option<Instant>,
    buffer: Vec<u8>,
    pub(super) date: (u64, String),
    pub(super) drain: Option<Drain>,
    pub(super) ready: bool,
    pub(super) notices: Vec<Notice>,
    /// What the loop does, for timelines.
    pub(super) recorder: Recorder,
    /// Kept free, to be able to say no when all file descriptors are used up.
    pub(super) reserve: Option<std::fs::File>,
}

/// Binds, serves until a signal, and returns how it went.
///
/// # Errors
/// The address is taken, the model cannot be loaded, or the engine failed for good.
pub fn run(
    options: Options,
    service: ServiceOptions,
    build: impl FnOnce() -> Result<Engine> + Send + 'static,
    notice: &mut dyn FnMut(&Server, Notice),
) -> Result<()> {
    let mut server = Server::bind(options, service, build)?;
    server.stop_on_signals()?;
    server.serve(notice)
}

fn system(what: &str, e: &io::Error) -> Error {
    Error::new(Kind::Io, format!("{what}: {e}"))
}

impl Server {
    /// Listens, and lets `build` load the model on the engine's thread meanwhile.
    ///
    /// # Errors
    /// The address is taken, or the system refuses a thread.
    pub fn bind(
        mut options: Options,
        service: ServiceOptions,
        build: impl FnOnce() -> Result<Engine> + Send + 'static,
    ) -> Result<Server> {
        let limit = usize::try_from(files::lift_limit(1 << 20).unwrap_or(1024));
        let most = limit.unwrap_or(usize::MAX).saturating_sub(OWN_FILES);
        options.max_connections = options.max_connections.min(most).max(1);
        // Without the room the loop would wait for it while clients wait for the loop.
        files::make_room((options.max_connections + OWN_FILES) as u64 - 1);
        let (mut socket, bound) = listener::bind(&options.host, options.port)?;
        let poll = Poll::new().map_err(|e| system("epoll", &e))?;
        let waker = Waker::new(poll.registry(), WAKER).map_err(|e| system("epoll", &e))?;
        let waker = Arc::new(waker);
        let register = poll.registry().register(&mut socket, LISTENER, Interest::READABLE);
        register.map_err(|e| system("epoll", &e))?;
        let model = Arc::new(std::sync::OnceLock::new());
        let (facts, settings) = (Arc::clone(&model), options.clone());
        let build = move || {
            let mut engine = build()?;
            if let Some(profiler) = &settings.profiler {
                engine.recorder = profiler.recorder(Source::Engine, ENGINE_RECORDS);
                engine.aside = profiler.recorder(Source::Other, LOOP_RECORDS);
                profiler.describe(Arc::new(engine.described()), settings.ceiling.clone());
            }
            // Nobody else sets it.
            let _ = facts.set(ModelFacts::of(&engine, &settings));
            Ok(engine)
        };
        let wake = |waker: &Arc<Waker>| {
            let waker = Arc::clone(waker);
            move || _ = waker.wake()
        };
        let engine = service::start(build, service, wake(&waker))?;
        let workers = options.workers;
        let context = Context { options, bound, started: Instant::now(), engine, model };
        let context = Arc::new(context);
        let pool = Pool::new(&context, workers, Arc::new(wake(&waker)))?;
        let recorder = context.options.profiler.as_ref();
        let recorder = recorder.map(|p| p.recorder(Source::Other, LOOP_RECORDS));
        let recorder = recorder.unwrap_or_else(Recorder::off);
        let stop = Stopper { asked: Arc::default(), waker: Arc::clone(&waker) };
        Ok(Server {
            poll,
            listener: Some(socket),
            signals: None,
            stop,
            context,
            pool,
            conns: Slab::new(),
            serial: 0,
            owners: HashMap::new(),
            next_id: 1,
            flushes: HashMap::new(),
            timers: Timers::default(),
            stats: Stats::new(),
            again: VecDeque::new(),
            touched: VecDeque::new(),
            reading: None,
            more: false,
            accept_at: None,
            buffer: vec![0; 64 << 10],
            date: (0, String::new()),
            drain: None,
            ready: false,
            notices: Vec::new(),
            recorder,
            reserve: std::fs::File::open("/dev/null").ok(),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.context.bound
    }

    pub fn context(&self) -> &Context {
        &self.context
    }

    pub fn stopper(&self) -> Stopper {
        self.stop.clone()
    }

    /// Lets SIGTERM and SIGINT end it.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn stop_on_signals(&mut self) -> Result<()> {
        let fail = |e: io::Error| system("signal handler", &e);
        let (reader, writer) = UnixStream::pair().map_err(fail)?;
        for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
            let writer = writer.try_clone().map_err(fail)?;
            signal_hook::low_level::pipe::register(signal, writer).map_err(fail)?;
        }
        reader.set_nonblocking(true).map_err(fail)?;
        let mut reader = mio::net::UnixStream::from_std(reader);
        let registry = self.poll.registry();
        registry.register(&mut reader, SIGNALS, Interest::READABLE).map_err(fail)?;
        self.signals = Some(reader);
        Ok(())
    }

    /// Serves until stopped.
    ///
    /// # Errors
    /// The model cannot be loaded, the engine failed for good, or a second signal came.
    pub fn serve(mut self, notice: &mut dyn FnMut(&Server, Notice)) -> Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            if let Err(e) = self.poll.poll(&mut events, self.timeout())
                && e.kind() != io::ErrorKind::Interrupted
            {
                return Err(system("epoll", &e));
            }
            let (began, before) = (Instant::now(), thread_times());
            self.tick(began);
            let slice = Slice::begin();
            for event in &events {
                match event.token() {
                    LISTENER => self.accept(began),
                    WAKER => {}
                    SIGNALS => self.signalled(began)?,
                    Token(key) => self.socket(key, event, &slice),
                }
            }
            if self.stop.asked.swap(false, Ordering::SeqCst) {
                self.begin_drain(began, None);
            }
            self.more = false;
            self.take_reports();
            self.take_results();
            self.overdue(began);
            self.drive_again();
            self.stats.busy(began.elapsed(), before, thread_times());
            for said in std::mem::take(&mut self.notices) {
                notice(&self, said);
            }
            if let Some(end) = self.over(Instant::now()) {
                return end;
            }
        }
    }

    /// How long the poll may sleep.
    fn timeout(&self) -> Option<Duration> {
        if !self.again.is_empty() || !self.touched.is_empty() || self.more {
            return Some(Duration::ZERO);
        }
        let flush = self.flushes.values().filter_map(|f| f.again).min();
        let drain = self.drain.as_ref().and_then(Drain::next);
        let next =
            [self.timers.next(), self.accept_at, flush, drain].into_iter().flatten().min()?;
        // One more millisecond, because the poll rounds down.
        Some(next.saturating_duration_since(Instant::now()) + Duration::from_millis(1))
    }

    /// The date in answers is made once a second.
    fn tick(&mut self, now: Instant) {
        let second = now.saturating_duration_since(self.context.started).as_secs() + 1;
        if self.date.0 != second {
            self.date = (second, httpdate::fmt_http_date(SystemTime::now()));
        }
        if !self.ready && self.context.engine.health().state() == State::Ready {
            self.ready = true;
            self.notices.push(Notice::Ready);
        }
    }

    fn accept(&mut self, now: Instant) {
        self.accept_at = None;
        let slice = Slice::begin();
        while !slice.over() {
            let Some(listener) = &self.listener else { return };
            match listener.accept() {
                Ok((socket, peer)) => self.welcome(socket, peer),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if matches!(e.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
                    self.out_of_files();
                    self.accept_at = Some(now + RETRY);
                    return;
                }
                // The client gave up while it waited, or something passing.
                Err(_) => {}
            }
        }
        self.accept_at = Some(now);
    }

    fn welcome(&mut self, mut socket: mio::net::TcpStream, peer: SocketAddr) {
        self.stats.connections_total += 1;
        if self.conns.len() >= self.context.options.max_connections {
            self.stats.connections_refused += 1;
            listener::turn_away(&socket);
            return;
        }
        // Without it answers of few bytes wait for the client's acknowledgement.
        let _ = socket.set_nodelay(true);
        let entry = self.conns.vacant_entry();
        let key = entry.key();
        let both = Interest::READABLE | Interest::WRITABLE;
        if self.poll.registry().register(&mut socket, Token(key), both).is_err() {
            return;
        }
        self.serial += 1;
        let now = self.recorder.now();
        self.recorder.since(Event::Accept, self.serial as u32, 0, now);
        entry.insert(Conn::new(socket, peer, self.serial, self.context.options.limits));
        self.drive(key);
    }

    /// Drives a connection that has news: now, or in a later turn if this one has had its time.
    fn socket(&mut self, key: usize, event: &mio::event::Event, slice: &Slice) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.ready(event);
        let waits = matches!(conn.busy, Busy::Working | Busy::Generating(_));
        if waits && conn.gone(event) {
            self.drop_conn(key);
        } else if slice.over() {
            self.again.push_back(key);
        } else {
            self.drive(key);
        }
    }

    /// Does for a connection whatever can be done now.
    pub(super) fn drive(&mut self, key: usize) {
        for _ in 0..TURNS {
            match self.turn(key) {
                Some(true) => {}
                Some(false) => {
                    self.set_deadline(key);
                    return;
                }
                None => {
                    self.drop_conn(key);
                    return;
                }
            }
        }
        self.set_deadline(key);
        self.again.push_back(key);
    }

    /// Drives those that were left with more to do, each once.
    fn drive_again(&mut self) {
        let slice = Slice::begin();
        for _ in 0..self.again.len() {
            let Some(key) = self.again.pop_front() else { return };
            self.drive(key);
            if slice.over() {
                return;
            }
        }
    }

    /// One thing; false if there is nothing to do, `None` if the connection is over.
    fn turn(&mut self, key: usize) -> Option<bool> {
        let now = Instant::now();
        let conn = self.conns.get_mut(key)?;
        let (unsent, start) = (conn.unsent(), self.recorder.now());
        conn.write(now).ok()?;
        if unsent > 0 {
            let bytes = unsent.saturating_sub(conn.unsent()) as u64;
            self.recorder.since(Event::Write, conn.serial as u32, bytes, start);
        }
        if let Busy::Generating(generation) = &mut conn.busy
            && conn.out.is_empty()
        {
            generation.timing.written();
        }
        if conn.finished(now) {
            return None;
        }
        if self.progress(key) {
            return Some(true);
        }
        let conn = self.conns.get_mut(key)?;
        if conn.has_room()
            && let Some(event) = conn.input.poll()
        {
            self.heard(key, event);
            return Some(true);
        }
        let conn = self.conns.get_mut(key)?;
        let start = self.recorder.now();
        let read = conn.read(&mut self.buffer).ok()?;
        if let Some(bytes) = read.filter(|n| *n > 0) {
            self.recorder.since(Event::Read, conn.serial as u32, bytes as u64, start);
        }
        if conn.ended && (conn.unsent() == 0 || !matches!(conn.busy, Busy::Free)) {
            return None;
        }
        Some(read.is_some() && !conn.ended)
    }

    fn set_deadline(&mut self, key: usize) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let due = conn.due(&self.context.options.deadlines, Instant::now());
        self.timers.set(key, conn.deadline, due);
        conn.deadline = due;
    }

    /// Closes a connection; what the engine does for it ends.
    pub(super) fn drop_conn(&mut self, key: usize) {
        let Some(conn) = self.conns.try_remove(key) else { return };
        self.timers.set(key, conn.deadline, None);
        if let Busy::Generating(generation) = conn.busy {
            self.stats.aborted += generation.open as u64;
            self.forget(generation.ids());
        }
    }

    /// Ends requests in the engine that nobody waits for any more.
    pub(super) fn forget(&mut self, ids: impl Iterator<Item = u64>) {
        for id in ids {
            if self.owners.remove(&id).is_some() {
                self.context.engine.cancel(id);
            }
        }
    }

    /// Everything whose time has come.
    fn overdue(&mut self, now: Instant) {
        if self.accept_at.is_some_and(|at| at <= now) {
            self.accept(now);
        }
        self.retry_flushes(now);
        let slice = Slice::begin();
        while !slice.over()
            && let Some(key) = self.timers.expired(now)
        {
            let Some(conn) = self.conns.get_mut(key) else { return };
            match conn.late() {
                Late::Request => {
                    self.stats.connections_late += 1;
                    conn.input.close();
                    self.refuse_broken(key, &Refused::new(408, "the request came too slowly"));
                    self.drive(key);
                }
                late => {
                    self.stats.connections_late += u64::from(late == Late::Gone);
                    self.drop_conn(key);
                }
            }
        }
        self.cut_off(now);
    }

    pub(super) fn ticket(&self, key: usize) -> Option<pool::Ticket> {
        self.conns.get(key).map(|conn| (key, conn.serial))
    }
}
