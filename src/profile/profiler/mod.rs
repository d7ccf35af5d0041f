//! The profiler of a process: rings of all threads, one capture at a time, files.
//!
//! Threads that serve only ever write to their rings and, twice a step, ask the state machine
//! under a lock that nobody holds while doing anything else. Files are made by a thread of their
//! own, which lives as long as the capture.

mod dump;
mod output;
mod pace;
mod pulse;
mod slow;
mod spool;
pub mod steps;
mod writer;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use self::pulse::Pulse;
use super::clock;
use super::control::{Captured, Control, Phase, Status, Stop};
use super::describe::{Ceiling, Describe};
use super::folder::Folder;
use super::gpu::Session;
use super::paths::{Roots, check_name};
use super::record::Stage;
use super::recorder::{Recorder, StepHook, Wants};
use super::request::ProfileRequest;
use super::ring::Ring;
use super::trace::names::Ranks;
use crate::error::{Error, Kind, Result};

/// Whose ring it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The thread that runs steps.
    Engine,
    /// A device's records, by launch time of the engine.
    Device,
    /// Event loop, tokenisers, clients.
    Other,
}

/// What stays the same for the life of the profiler.
#[derive(Debug, Clone)]
pub struct Options {
    /// Folders that traces may be written below; the first is the default.
    pub roots: Vec<PathBuf>,
    /// Most bytes of a trace on disk.
    pub cap_bytes: u64,
    pub ranks: Ranks,
    /// What the process is called in traces: `serve`, `bench-one-batch`.
    pub label: String,
    /// Whether a capture may replace files of the same name.
    pub replace: bool,
}

/// Unless asked otherwise, a trace has at most so many bytes.
pub const CAP_BYTES: u64 = 512 << 20;

/// What to answer: an HTTP status and a JSON body.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
}

type Gpu = Option<Arc<Session>>;

/// Called once with the answer, from any thread.
pub type Reply = Box<dyn FnOnce(Answer) + Send>;

/// Handles share one profiler.
#[derive(Clone)]
pub struct Profiler {
    shared: Arc<Shared>,
}

struct Shared {
    options: Options,
    roots: Roots,
    control: Mutex<Control>,
    rest: Mutex<Rest>,
    /// Tells the writer that a window has closed.
    work: Condvar,
    dumping: AtomicBool,
    /// Where `cuProfilerStart` and `cuProfilerStop` stand for this capture.
    nvidia: AtomicU8,
    /// Whether a capture wants to know what the GPU does, and from where ops are launched.
    gpu: AtomicBool,
    stacks: AtomicBool,
    /// What the engine does, for those who give way to it.
    pulse: Pulse,
    /// Steps that take longer are saved.
    slow: slow::Watch,
}

const NVIDIA_OFF: u8 = 0;
/// To be started with the first captured step.
const NVIDIA_WANTED: u8 = 1;
const NVIDIA_ON: u8 = 2;

#[derive(Default)]
struct Rest {
    sources: Vec<(Source, Arc<Ring>)>,
    model: Option<Arc<dyn Describe>>,
    ceiling: Option<Ceiling>,
    waiting: Vec<(u64, Reply)>,
    /// What the last capture led to, and whether anyone was told.
    last: Option<(Answer, bool)>,
    /// The id of the capture in progress.
    id: String,
    /// The GPU's own account, for the capture in progress.
    session: Option<Arc<Session>>,
    /// `cuProfilerStart` and `cuProfilerStop`, if there is a CUDA device.
    cuda_profiler: Option<Arc<dyn Fn(bool) -> Result<()> + Send + Sync>>,
}

impl Rest {
    /// Those who wait for the end of capture `token`.
    fn take_waiting(&mut self, token: u64) -> Vec<Reply> {
        let (told, others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.waiting).into_iter().partition(|w| w.0 == token);
        self.waiting = others;
        told.into_iter().map(|w| w.1).collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for Profiler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Profiler({:?})", self.shared.options)
    }
}

impl Answer {
    fn new(status: u16, body: Value) -> Answer {
        Answer { status, body }
    }

    /// A failure, its status after the kind of the error.
    pub fn failed(error: &Error) -> Answer {
        let (status, kind) = match error.kind {
            Kind::Usage | Kind::Unsupported => (400, "invalid_request_error"),
            _ => (500, "profiler_error"),
        };
        let error = json!({"message": error.message, "type": kind, "param": null, "code": null});
        Answer::new(status, json!({"error": error}))
    }
}

impl Profiler {
    /// # Errors
    /// A root that cannot be created.
    pub fn new(options: Options) -> Result<Profiler> {
        let roots = Roots::new(&options.roots)?;
        let shared = Shared {
            options,
            roots,
            control: Mutex::default(),
            rest: Mutex::default(),
            work: Condvar::new(),
            dumping: AtomicBool::new(false),
            nvidia: AtomicU8::new(NVIDIA_OFF),
            gpu: AtomicBool::new(false),
            stacks: AtomicBool::new(false),
            pulse: Pulse::default(),
            slow: slow::Watch::default(),
        };
        Ok(Profiler { shared: Arc::new(shared) })
    }

    /// A recorder for the calling thread that keeps its last `capacity` records. The engine's one
    /// also opens and closes captures.
    pub fn recorder(&self, source: Source, capacity: usize) -> Recorder {
        let recorder = match source {
            Source::Engine => {
                let hook: Arc<dyn StepHook> = Arc::<Shared>::clone(&self.shared);
                Recorder::with_hook(capacity, hook)
            }
            Source::Device | Source::Other => Recorder::with_capacity(capacity),
        };
        if let Some(ring) = recorder.ring() {
            lock(&self.shared.rest).sources.push((source, Arc::clone(ring)));
        }
        recorder
    }

    /// Says what ops are, so that traces name and cost them.
    pub fn describe(&self, model: Arc<dyn Describe>, ceiling: Option<Ceiling>) {
        let mut rest = lock(&self.shared.rest);
        let gpu = model.gpu();
        // What was measured on the CPU says nothing of a GPU.
        rest.ceiling = gpu.as_ref().map_or(ceiling, |gpu| gpu.ceiling());
        if let Some(gpu) = gpu.filter(|gpu| gpu.is_cuda()) {
            rest.cuda_profiler = Some(Arc::new(move |on| gpu.profiler(on)));
        }
        rest.model = Some(model);
    }

    /// Gives the activity `CUDA_PROFILER` something to call.
    pub fn with_cuda_profiler(&self, switch: Arc<dyn Fn(bool) -> Result<()> + Send + Sync>) {
        lock(&self.shared.rest).cuda_profiler = Some(switch);
    }

    /// Begins a capture and says which steps it will take: 200, 400 for a field that is wrong,
    /// 409 if there is a capture already.
    pub fn start(&self, request: &ProfileRequest) -> Answer {
        match self.try_start(request) {
            Ok(answer) => answer,
            Err(error) => Answer::failed(&error),
        }
    }

    fn try_start(&self, request: &ProfileRequest) -> Result<Answer> {
        request.check()?;
        let shared = &self.shared;
        let phase = lock(&shared.control).status().phase;
        if phase != Phase::Idle {
            return Ok(self.conflict("a capture is already in progress"));
        }
        shared.check_cuda_profiler(request)?;
        let id = request.id.clone().unwrap_or_else(time_id);
        check_name("profile_id", &id)?;
        let folder = Arc::new(shared.roots.open(request.output_dir.as_deref())?);
        // Nobody may start between this and the files' creation, so that of two starts with the
        // same id one is refused for the right reason.
        let Ok(session) = shared.gpu_session(request) else {
            return Ok(self.conflict("a capture is already in progress"));
        };
        let started = lock(&shared.control).start(request.wanted, clock::now_ns());
        let Ok(status) = started else {
            return Ok(self.conflict("a capture is already in progress"));
        };
        {
            let mut rest = lock(&shared.rest);
            rest.id.clone_from(&id);
            rest.last = None;
            shared.gpu.store(session.is_some(), Ordering::Release);
            shared.stacks.store(request.with_stack, Ordering::Release);
            rest.session.clone_from(&session);
        }
        if request.activities.cuda_profiler {
            shared.nvidia.store(NVIDIA_WANTED, Ordering::Release);
        }
        if let Err(error) = self.begin(request, &id, (folder, session.clone()), &status) {
            shared.give_up(&status, &error);
            return Err(error);
        }
        let mut body = shared.status_body(&status, &id);
        body["message"] = json!("Start profiling.");
        body["gpu"] = session.map_or(Value::Null, |s| writer::gpu_json(&s.times));
        Ok(Answer::new(200, body))
    }

    /// Creates the files and the thread that fills them.
    fn begin(
        &self,
        request: &ProfileRequest,
        id: &str,
        (folder, session): (Arc<Folder>, Option<Arc<Session>>),
        status: &Status,
    ) -> Result<()> {
        let job = writer::Job::new(&self.shared, request, id, (folder, session), status)?;
        let shared = Arc::clone(&self.shared);
        let spawned = std::thread::Builder::new()
            .name("pacer-trace".into())
            .spawn(move || writer::run(&shared, job));
        spawned.map(drop).map_err(|e| Error::new(Kind::Io, format!("the trace writer: {e}")))
    }

    /// Ends the capture; `reply` gets the answer once its files are complete: 200 with their
    /// paths, 409 if there is none, 500 if they could not be written.
    pub fn stop(&self, reply: Reply) {
        let shared = &self.shared;
        // The lock on the rest first, as the writer takes them, so that no reply is missed.
        let mut rest = lock(&shared.rest);
        let stopped = lock(&shared.control).stop(clock::now_ns());
        match stopped {
            Ok(Stop::Closing(token)) => {
                rest.waiting.push((token, reply));
                drop(rest);
                shared.work.notify_all();
            }
            Ok(Stop::Disarmed(_)) => {
                let id = rest.id.clone();
                shared.end_gpu(rest.session.take());
                drop(rest);
                shared.nvidia.store(NVIDIA_OFF, Ordering::Release);
                shared.work.notify_all();
                let body = json!({
                    "state": "idle",
                    "message": "Stop profiling. The capture had not begun: nothing was written.",
                    "profile_id": id,
                    "files": [],
                });
                reply(Answer::new(200, body));
            }
            Err(_) => {
                let unheard = rest.last.as_mut().filter(|l| l.0.status != 200 && !l.1);
                let failed = unheard.map(|last| {
                    last.1 = true;
                    last.0.clone()
                });
                drop(rest);
                reply(failed.unwrap_or_else(|| self.conflict("no capture is in progress")));
            }
        }
    }

    /// [`Profiler::stop`] for callers that may wait.
    pub fn stop_and_wait(&self) -> Answer {
        waited(|reply| self.stop(reply))
    }

    /// Ends a capture that is running, for a process that is about to end; waits at most `limit`.
    pub fn end(&self, limit: Duration) {
        let (send, receive) = std::sync::mpsc::channel();
        self.stop(Box::new(move |answer| {
            let _ = send.send(answer);
        }));
        // Whether it came in time: a file is complete or absent either way.
        let _ = receive.recv_timeout(limit);
    }

    /// What the profiler is doing, and what the last capture left.
    pub fn status(&self) -> Answer {
        let rest = lock(&self.shared.rest);
        let status = lock(&self.shared.control).status();
        let mut body = self.shared.status_body(&status, &rest.id);
        if let Some((last, _)) = &rest.last {
            body["last"] = last.body.clone();
        }
        Answer::new(200, body)
    }

    /// Writes what happened in the last `seconds` to a file; no capture is needed.
    pub fn dump(&self, request: &ProfileRequest, seconds: f64, reply: Reply) {
        if self.shared.dumping.swap(true, Ordering::AcqRel) {
            return reply(self.conflict("the flight recorder is being written already"));
        }
        dump::spawn(&self.shared, request, seconds, reply);
    }

    /// [`Profiler::dump`] for callers that may wait.
    pub fn dump_and_wait(&self, request: &ProfileRequest, seconds: f64) -> Answer {
        waited(|reply| self.dump(request, seconds, reply))
    }

    fn conflict(&self, message: &str) -> Answer {
        let status = self.status();
        let error = json!({"message": message, "type": "conflict", "param": null, "code": null});
        let mut body = json!({"error": error});
        if let (Some(to), Some(from)) = (body.as_object_mut(), status.body.as_object()) {
            to.extend(from.clone());
        }
        Answer::new(409, body)
    }
}

impl Shared {
    fn check_cuda_profiler(&self, request: &ProfileRequest) -> Result<()> {
        let missing = "activities CUDA_PROFILER: there is no CUDA device to profile";
        match request.activities.cuda_profiler && lock(&self.rest).cuda_profiler.is_none() {
            true => Err(Error::usage(missing)),
            false => Ok(()),
        }
    }

    /// The GPU's account for a capture, if it wants one and there is a GPU.
    ///
    /// # Errors
    /// Another capture has it.
    fn gpu_session(&self, request: &ProfileRequest) -> std::result::Result<Gpu, ()> {
        let gpu = lock(&self.rest).model.as_ref().and_then(|m| m.gpu());
        let wanted = request.activities.gpu && request.activities.timeline();
        let Some(gpu) = gpu.filter(|_| wanted) else { return Ok(None) };
        Session::begin(&gpu).map(|s| Some(Arc::new(s))).ok_or(())
    }

    fn end_gpu(&self, session: Gpu) {
        if let Some(session) = session {
            self.gpu.store(false, Ordering::Release);
            session.end();
        }
    }

    /// Moves the state of NVIDIA's profiler from `from` to `to`, and switches it if it was there.
    fn nvidia(&self, from: u8, to: u8) {
        let moved =
            self.nvidia.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok();
        let switch = lock(&self.rest).cuda_profiler.clone();
        if let (true, Some(switch)) = (moved, switch) {
            // Whether a tool listens is not known, so there is nobody to tell of a failure.
            let _ = switch(to == NVIDIA_ON);
        }
    }

    /// Ends a capture that could not begin, and tells whoever has stopped it meanwhile.
    fn give_up(&self, status: &Status, error: &Error) {
        self.nvidia.store(NVIDIA_OFF, Ordering::Release);
        let told = {
            let mut rest = lock(&self.rest);
            self.end_gpu(rest.session.take());
            lock(&self.control).finished(status.token);
            rest.take_waiting(status.token)
        };
        told.into_iter().for_each(|reply| reply(Answer::failed(error)));
    }

    fn status_body(&self, status: &Status, id: &str) -> Value {
        let mut body = json!({"state": status.phase.name(), "steps_done": status.steps});
        if status.phase != Phase::Idle {
            body["profile_id"] = json!(id);
            body["steps"] = json!({"first": status.first, "last": status.last});
            body["captured"] = captured(&status.captured);
        }
        body
    }
}

/// The answer that `ask` gets.
fn waited(ask: impl FnOnce(Reply)) -> Answer {
    let (send, receive) = std::sync::mpsc::channel();
    ask(Box::new(move |answer| {
        let _ = send.send(answer);
    }));
    let gone = Error::new(Kind::Io, "the trace writer has ended without an answer");
    receive.recv().unwrap_or_else(|_| Answer::failed(&gone))
}

fn captured(files: &[Captured]) -> Value {
    let files = files.iter().filter(|c| c.count > 0);
    let row = |c: &Captured| json!({"first": c.first, "last": c.last, "count": c.count});
    files.map(row).collect()
}

impl StepHook for Shared {
    fn step_begins(&self, stage: Stage, begun_ns: u64) -> Wants {
        self.pulse.begins(begun_ns);
        let captured = lock(&self.control).step_begins(stage, begun_ns);
        if captured && self.nvidia.load(Ordering::Acquire) == NVIDIA_WANTED {
            self.nvidia(NVIDIA_WANTED, NVIDIA_ON);
        }
        Wants {
            gpu: captured && self.gpu.load(Ordering::Acquire),
            stacks: captured && self.stacks.load(Ordering::Acquire),
        }
    }

    fn step_ends(&self, now_ns: u64) {
        let closed = lock(&self.control).step_ends(now_ns);
        if closed {
            self.nvidia(NVIDIA_ON, NVIDIA_OFF);
            self.work.notify_all();
        }
        self.slow.step_ended(self.pulse.ends(), now_ns);
    }
}

/// An id as SGLang makes them: seconds since 1970 with a fraction.
pub fn time_id() -> String {
    let ns = clock::realtime_ns();
    format!("{}.{:07}", ns / 1_000_000_000, ns % 1_000_000_000 / 100)
}

#[cfg(test)]
mod tests;
