//! The engine on a thread of its own, behind two bounded queues: commands in, reports out.
//!
//! ```text
//! EngineHandle ── requests, cancels, flushes, tasks, shutdown ─▶ engine thread
//!      ▲                                                             │ one report a step,
//!      └───────────────── poll() ◀── reports ◀──────────────────────┘ then wake()
//! ```
//!
//! While the device runs a step on its own thread, the engine's handles the results of the step
//! before and obeys commands ([`overlap`](super::overlap)).
//!
//! No call of the handle waits for the engine. Every accepted request is answered for each of
//! its choices exactly once by an [`Update`] with `finished`, or by one [`Refused`], whatever
//! happens: a panic in one request's sampler, grammar or detokeniser ends that request, a
//! recoverable device error the requests of that step, a lost device or another panic
//! all of them and the service is [`State::Faulted`].

mod health;
mod queues;
mod worker;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use self::queues::Queues;
pub use self::queues::Task;
use super::core::Engine;
use super::options::EngineOptions;
use super::request::{GenerateRequest, Update};
pub use super::step::StepStats;
use crate::error::{Error, Result};

pub use self::health::{Health, HealthSnapshot, Phase, State};

/// How the service ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// What was taken is finished first.
    Drain,
    /// What was taken ends at once, with an answer.
    Abort,
}

/// A request that the engine did not take. The error's kind says whose fault it is: `Usage`,
/// `Unsupported` and `Limit` the request's, `Busy` the load's, `Unavailable` the service's.
#[derive(Debug, Clone, PartialEq)]
pub struct Refused {
    pub id: u64,
    pub error: Error,
}

/// The answer to [`EngineHandle::flush_cache`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flushed {
    pub tag: u64,
    /// False: requests were live, so nothing was done.
    pub done: bool,
}

/// What happened since the report before: at most one step.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    pub updates: Vec<Update>,
    pub refused: Vec<Refused>,
    pub flushed: Vec<Flushed>,
    /// The step that ran, if one did.
    pub step: Option<StepStats>,
    /// What went wrong, if something did; see [`Health::state`] for whether it goes on.
    pub error: Option<Error>,
}

/// Limits of the service beside those of the engine.
#[derive(Debug, Clone, Copy)]
pub struct ServiceOptions {
    /// Most choices, and most prompt tokens, that wait between handle and engine. Each is beside
    /// the engine's own queue ([`EngineOptions::max_queued`]).
    pub max_choices: usize,
    pub max_tokens: usize,
    /// Called on the engine's thread when there has been no work for a tenth of a second.
    pub on_idle: fn(),
}

impl Default for ServiceOptions {
    fn default() -> Self {
        let engine = EngineOptions::default();
        ServiceOptions {
            max_choices: engine.max_queued,
            max_tokens: engine.max_queued_tokens,
            on_idle: || {},
        }
    }
}

/// The reader's end of a running service. Dropping it aborts what runs.
pub struct EngineHandle {
    queues: Arc<Queues>,
    health: Arc<Health>,
    thread: Option<JoinHandle<()>>,
}

/// Starts a service around an engine that is ready. `wake` is called on the engine's thread
/// after every report, i.e. at most once a step, and must not wait.
///
/// # Errors
/// If the system refuses a thread.
pub fn spawn(engine: Engine, wake: impl Fn() + Send + 'static) -> Result<EngineHandle> {
    start(move || Ok(engine), ServiceOptions::default(), wake)
}

/// Starts a service whose engine is made by `build` on the engine's thread, while the state is
/// [`State::Starting`] and requests are refused.
///
/// # Errors
/// If the system refuses a thread. What `build` reports comes as [`Report::error`].
pub fn start(
    build: impl FnOnce() -> Result<Engine> + Send + 'static,
    options: ServiceOptions,
    wake: impl Fn() + Send + 'static,
) -> Result<EngineHandle> {
    let queues = Arc::new(Queues::new(options.max_choices, options.max_tokens));
    let health = Arc::new(Health::default());
    let shared = (Arc::clone(&queues), Arc::clone(&health));
    let thread = std::thread::Builder::new()
        .name("engine".into())
        .spawn(move || worker::main(build, shared.0, shared.1, &wake, options.on_idle))
        .map_err(|e| Error::io("engine thread", &e))?;
    Ok(EngineHandle { queues, health, thread: Some(thread) })
}

impl EngineHandle {
    /// Passes a request on. Its answer comes in reports.
    ///
    /// # Errors
    /// `Unavailable` unless the service is ready; `Busy` if too much waits already.
    pub fn submit(&self, request: GenerateRequest) -> Result<()> {
        match self.health.state() {
            State::Ready => self.queues.submit(request),
            State::Starting => Err(Error::unavailable("the model is being loaded")),
            State::Draining | State::Stopped => {
                Err(Error::unavailable("the server is shutting down"))
            }
            State::Faulted => Err(Error::unavailable("the engine has failed and takes no work")),
        }
    }

    /// Ends request `id` before the next step; its choices are answered with `Cancelled`. An id
    /// that is not live is ignored.
    pub fn cancel(&self, id: u64) {
        self.queues.command(|c| _ = c.cancels.insert(id));
    }

    /// Forgets cached prefixes if nothing is live; answered by [`Report::flushed`] with `tag`.
    ///
    /// # Errors
    /// `Busy` or `Unavailable`.
    pub fn flush_cache(&self, tag: u64) -> Result<()> {
        self.queues.flush(tag)
    }

    /// Runs `task` on the engine's thread between two steps: for profiling and inspection.
    ///
    /// # Errors
    /// `Busy` or `Unavailable`.
    pub fn run(&self, task: Task) -> Result<()> {
        self.queues.task(task)
    }

    /// Takes no more requests and ends; a second call may turn `Drain` into `Abort`.
    pub fn shutdown(&self, how: Shutdown) {
        self.queues.command(|c| {
            c.shutdown = if c.shutdown == Some(Shutdown::Abort) { c.shutdown } else { Some(how) }
        });
    }

    /// The oldest report that was not taken yet.
    pub fn poll(&self) -> Option<Report> {
        self.queues.poll()
    }

    pub fn health(&self) -> &Arc<Health> {
        &self.health
    }

    /// Waits until the engine's thread has ended, at most `limit`; false if it has not.
    pub fn join(&mut self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        while self.thread.as_ref().is_some_and(|t| !t.is_finished()) {
            if Instant::now() >= end {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        // The thread catches its panics, so there is nothing in its result.
        self.thread.take().is_none_or(|t| t.join().is_ok())
    }
}

impl Drop for EngineHandle {
    fn drop(&mut self) {
        self.queues.command(|c| {
            c.abandoned = true;
            c.shutdown = Some(Shutdown::Abort);
        });
    }
}
