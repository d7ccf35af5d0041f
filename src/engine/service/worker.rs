//! The engine's thread: takes commands, steps, reports; survives what can be survived.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::health::{Health, Phase, State};
use super::queues::{Commands, Queues, Task, Until};
use super::{Flushed, Refused, Report, Shutdown};
use crate::engine::core::Engine;
use crate::engine::overlap::Progress;
use crate::engine::request::{FinishReason, Finished, GenerateRequest, Update};
use crate::engine::trace;
use crate::error::{Error, Kind, Result};
use crate::scheduler::{End, Finish};

/// Requests taken between two steps while something runs, so that a burst of arrivals does not
/// hold up those that are being served.
const REQUESTS_PER_STEP: usize = 64;

/// So long without work is idle.
const QUIET: Duration = Duration::from_millis(100);

/// What a live choice has used so far, for the day that its engine cannot say.
#[derive(Clone, Copy)]
struct Used {
    prompt: usize,
    output: usize,
}

struct Worker<'a> {
    queues: Arc<Queues>,
    health: Arc<Health>,
    wake: &'a dyn Fn(),
    on_idle: fn(),
    /// Choices that have not been answered to their end.
    live: BTreeMap<(u64, u32), Used>,
    report: Report,
    tasks: Vec<Task>,
    shutdown: Option<Shutdown>,
}

/// Runs until shut down or faulted; afterwards nobody is left without an answer.
pub(super) fn main(
    build: impl FnOnce() -> Result<Engine>,
    queues: Arc<Queues>,
    health: Arc<Health>,
    wake: &dyn Fn(),
    on_idle: fn(),
) {
    let (live, report, tasks) = Default::default();
    let mut worker = Worker { queues, health, wake, on_idle, live, report, tasks, shutdown: None };
    // The engine is dropped when it panicked, and everything else here stays consistent: the
    // books of `live` change only together with the reports.
    let ended = catch_unwind(AssertUnwindSafe(|| worker.run(build)));
    let fault = match ended {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error),
        Err(panic) => {
            let what = panic_text(panic.as_ref());
            Some(Error::new(Kind::DeviceLost, format!("the engine panicked: {what}")))
        }
    };
    worker.end(fault);
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

impl Worker<'_> {
    /// # Errors
    /// What ends the service: the engine could not be made, or its device is lost.
    fn run(&mut self, build: impl FnOnce() -> Result<Engine>) -> Result<()> {
        let mut engine = build()?;
        self.health.publish(&engine.scheduler().metrics());
        self.health.set_state(State::Ready);
        (self.wake)();
        let queues = Arc::clone(&self.queues);
        engine.overlap(engine.overlap_mode(), move || queues.landed())?;
        loop {
            let landed = self.listen(&mut engine);
            if engine.idle() && self.shutdown.is_some() {
                return Ok(());
            }
            let stepped = if landed { self.step(&mut engine) } else { Ok(()) };
            let metrics = engine.scheduler().metrics();
            trace::count(&mut engine.recorder, &metrics);
            self.health.publish(&metrics);
            if stepped.is_err() {
                // Nobody is told of the fault while health still says that all is well.
                self.health.set_state(State::Faulted);
            }
            self.send();
            stepped?;
        }
    }

    /// Does what it is told, and waits while there is nothing else to do; false if a step runs
    /// that must be waited for.
    fn listen(&mut self, engine: &mut Engine) -> bool {
        let (flying, idle) = (engine.flying(), engine.idle());
        let until = match (flying, idle && self.shutdown.is_none()) {
            (true, _) => Until::Landing,
            (false, true) => Until::Command,
            (false, false) => Until::Now,
        };
        // A step that runs keeps its phase, so that whoever watches sees how long it takes.
        if !flying {
            self.health.enter(if idle { Phase::Idle } else { Phase::Commands });
        }
        let most = if idle { usize::MAX } else { REQUESTS_PER_STEP };
        let start = engine.recorder.now();
        if until == Until::Command && !self.queues.expect(QUIET) {
            (self.on_idle)();
        }
        let commands = self.queues.take(until, most);
        if !flying {
            self.health.enter(Phase::Commands);
        }
        let landed = commands.landed || !flying;
        let start = trace::waited(&mut engine.recorder, idle, start);
        self.obey(engine, commands);
        engine.recorder.since(trace::Kind::Commands, 0, 0, start);
        landed
    }

    fn obey(&mut self, engine: &mut Engine, commands: Commands) {
        if commands.shutdown.is_some() {
            self.health.set_state(State::Draining);
            self.shutdown = commands.shutdown;
        }
        for request in commands.requests {
            self.submit(engine, &request);
        }
        for id in commands.cancels {
            engine.cancel(id, &mut self.report.updates);
        }
        if self.shutdown == Some(Shutdown::Abort) {
            engine.abort_all("the server is shutting down", &mut self.report.updates);
        }
        for tag in commands.flushes {
            let done = engine.idle();
            if done {
                engine.scheduler().flush_prefix_cache();
            }
            self.report.flushed.push(Flushed { tag, done });
        }
        self.tasks.extend(commands.tasks);
        self.run_tasks(engine);
    }

    /// Tasks have the whole engine, so they wait for a step that runs.
    fn run_tasks(&mut self, engine: &mut Engine) {
        if !engine.flying() {
            self.tasks.drain(..).for_each(|task| task(engine));
        }
    }

    fn submit(&mut self, engine: &mut Engine, request: &GenerateRequest) {
        match engine.submit(request) {
            Ok(()) => {
                let used = Used { prompt: request.prompt.len(), output: 0 };
                let choices = 0..request.params.n as u32;
                self.live.extend(choices.map(|choice| ((request.id, choice), used)));
            }
            Err(error) => self.report.refused.push(Refused { id: request.id, error }),
        }
    }

    /// # Errors
    /// A lost device, or an engine that has work and cannot plan it; others are reported.
    fn step(&mut self, engine: &mut Engine) -> Result<()> {
        if engine.idle() {
            return Ok(());
        }
        self.health.enter(Phase::Step);
        let ran = engine.advance(self.tasks.is_empty(), &mut self.report.updates);
        if matches!(ran, Ok(Progress::Ended) | Err(_)) {
            self.health.stepped(engine.last_step(), ran.is_err());
            self.report.step = Some(*engine.last_step());
        }
        self.run_tasks(engine);
        match ran {
            Ok(Progress::Begun | Progress::Ended) => Ok(()),
            Ok(Progress::Nothing) if engine.idle() => Ok(()),
            Ok(Progress::Nothing) => Err(Error::new(
                Kind::DeviceLost,
                "the scheduler has requests and plans nothing; this is a bug in Pacer",
            )),
            Err(error) if error.kind == Kind::DeviceLost => Err(error),
            Err(error) => {
                self.report.error = Some(error);
                Ok(())
            }
        }
    }

    /// Settles the books with the report and hands it over.
    fn send(&mut self) {
        if self.report == Report::default() {
            return;
        }
        let before = self.health.enter(Phase::Reports);
        self.settle();
        self.queues.report(std::mem::take(&mut self.report));
        self.health.back_to(before);
        (self.wake)();
    }

    fn settle(&mut self) {
        for update in &self.report.updates {
            let key = (update.id, update.choice);
            if update.finished.is_some() {
                self.live.remove(&key);
            } else if let Some(used) = self.live.get_mut(&key) {
                used.output += usize::from(update.token.is_some());
            }
        }
    }

    /// Answers everybody who waits, for ever after refuses, and says that it is over.
    fn end(&mut self, fault: Option<Error>) {
        let (state, why) = match &fault {
            None => (State::Stopped, Error::unavailable("the server is shutting down")),
            Some(error) => {
                let message = format!("the engine has failed: {}", error.message);
                (State::Faulted, Error::unavailable(message))
            }
        };
        self.health.set_state(state);
        let left = self.queues.close(why.clone());
        let refused = left.requests.iter().map(|r| Refused { id: r.id, error: why.clone() });
        self.report.refused.extend(refused);
        self.report.flushed.extend(left.flushes.iter().map(|&tag| Flushed { tag, done: false }));
        self.settle();
        for (&(id, choice), used) in &self.live {
            self.report.updates.push(failed(id, choice, *used, &why.message));
        }
        self.live.clear();
        self.report.error = fault;
        self.queues.last_report(std::mem::take(&mut self.report));
        self.health.enter(Phase::Idle);
        (self.wake)();
    }
}

fn failed(id: u64, choice: u32, used: Used, why: &str) -> Update {
    let usage = End {
        reason: Finish::Failed,
        prompt_tokens: used.prompt,
        cached_tokens: 0,
        output_tokens: used.output,
        preemptions: 0,
    };
    let reason = FinishReason::Failed(why.to_owned());
    Update {
        id,
        choice,
        token: None,
        logprob: None,
        text: String::new(),
        started: None,
        prompt_logprobs: None,
        finished: Some(Finished { reason, usage }),
    }
}
