//! The two bounded queues between a reader that must never wait and the engine thread.
//!
//! Locks are held for a push or a swap only. Commands have a limit and are refused beyond it;
//! cancels are a set of ids, so they always fit. Reports have a limit too: the engine waits for
//! the reader, never the other way round.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::super::core::Engine;
use super::super::request::GenerateRequest;
use super::{Report, Shutdown};
use crate::error::{Error, Result};

/// Reports that wait for the reader.
const MAX_REPORTS: usize = 64;
/// Commands other than requests.
const MAX_TASKS: usize = 64;

/// What [`Queues::take`] waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    Now,
    Command,
    /// A command that was not seen yet, or the end of the step that runs.
    Landing,
}

/// Something to be done on the engine's thread between two steps.
pub type Task = Box<dyn FnOnce(&mut Engine) + Send>;

#[derive(Default)]
pub(super) struct Commands {
    pub requests: VecDeque<GenerateRequest>,
    pub cancels: BTreeSet<u64>,
    pub flushes: Vec<u64>,
    pub tasks: Vec<Task>,
    pub shutdown: Option<Shutdown>,
    /// The handle is gone.
    pub abandoned: bool,
    /// The step that ran on the device's thread is done.
    pub landed: bool,
}

#[derive(Default)]
struct Inner {
    commands: Commands,
    /// Choices and prompt tokens in `commands.requests`.
    choices: usize,
    tokens: usize,
    /// A step on the device's thread is done, and nobody has looked yet.
    landed: bool,
    /// What of `commands` stays there and was seen.
    seen: (Option<Shutdown>, bool),
    reports: VecDeque<Report>,
    /// Why nothing is taken any more.
    closed: Option<Error>,
}

pub(super) struct Queues {
    inner: Mutex<Inner>,
    to_engine: Condvar,
    to_reader: Condvar,
    max_choices: usize,
    max_tokens: usize,
}

fn size(request: &GenerateRequest) -> (usize, usize) {
    let choices = request.params.n;
    (choices, request.prompt.len().saturating_mul(choices))
}

impl Queues {
    pub fn new(max_choices: usize, max_tokens: usize) -> Self {
        Queues {
            inner: Mutex::default(),
            to_engine: Condvar::new(),
            to_reader: Condvar::new(),
            max_choices,
            max_tokens,
        }
    }

    /// A panic elsewhere must not spread: what the lock guards is whole between statements.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn submit(&self, request: GenerateRequest) -> Result<()> {
        let (choices, tokens) = size(&request);
        let mut inner = self.lock();
        if let Some(why) = &inner.closed {
            return Err(why.clone());
        }
        let full = |what: &str, limit: usize| {
            Err(Error::busy(format!("the queue is full ({limit} {what}); try again later")))
        };
        if choices > self.max_choices.saturating_sub(inner.choices) {
            return full("requests", self.max_choices);
        }
        if tokens > self.max_tokens.saturating_sub(inner.tokens) {
            return full("prompt tokens", self.max_tokens);
        }
        inner.choices += choices;
        inner.tokens += tokens;
        inner.commands.requests.push_back(request);
        self.to_engine.notify_one();
        Ok(())
    }

    /// Changes the commands under the lock, and wakes the engine.
    pub fn command(&self, change: impl FnOnce(&mut Commands)) {
        change(&mut self.lock().commands);
        self.to_engine.notify_one();
        self.to_reader.notify_one();
    }

    pub fn task(&self, task: Task) -> Result<()> {
        let mut inner = self.lock();
        if let Some(why) = &inner.closed {
            return Err(why.clone());
        }
        if inner.commands.tasks.len() + inner.commands.flushes.len() >= MAX_TASKS {
            return Err(Error::busy("too many commands wait for the engine; try again later"));
        }
        inner.commands.tasks.push(task);
        self.to_engine.notify_one();
        Ok(())
    }

    pub fn flush(&self, tag: u64) -> Result<()> {
        let mut inner = self.lock();
        if let Some(why) = &inner.closed {
            return Err(why.clone());
        }
        if inner.commands.tasks.len() + inner.commands.flushes.len() >= MAX_TASKS {
            return Err(Error::busy("too many commands wait for the engine; try again later"));
        }
        inner.commands.flushes.push(tag);
        self.to_engine.notify_one();
        Ok(())
    }

    pub fn poll(&self) -> Option<Report> {
        let report = self.lock().reports.pop_front();
        self.to_reader.notify_one();
        report
    }

    /// The step on the device's thread is done.
    pub fn landed(&self) {
        self.lock().landed = true;
        self.to_engine.notify_one();
    }

    /// Waits for a command, but not longer than `most`; false if none came.
    pub fn expect(&self, most: Duration) -> bool {
        let nothing = |inner: &mut Inner| inner.nothing(Until::Command);
        let waited = self.to_engine.wait_timeout_while(self.lock(), most, nothing);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Takes all commands, at most `most` requests.
    pub fn take(&self, until: Until, most: usize) -> Commands {
        let mut inner = self.lock();
        while inner.nothing(until) {
            inner = self.to_engine.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        let kept = inner.commands.requests.len().min(most);
        let later = inner.commands.requests.split_off(kept);
        let taken = std::mem::take(&mut inner.commands);
        for (choices, tokens) in taken.requests.iter().map(size) {
            inner.choices -= choices;
            inner.tokens -= tokens;
        }
        inner.commands.requests = later;
        inner.commands.shutdown = taken.shutdown;
        inner.commands.abandoned = taken.abandoned;
        inner.seen = (taken.shutdown, taken.abandoned);
        Commands { landed: std::mem::take(&mut inner.landed), ..taken }
    }

    /// Hands a report to the reader. Waits while the reader has too many; gives up when the
    /// reader is gone.
    pub fn report(&self, report: Report) {
        let mut inner = self.lock();
        while inner.reports.len() >= MAX_REPORTS && !inner.commands.abandoned {
            // The time-out only guards against a reader that died without saying so.
            let wait = self.to_reader.wait_timeout(inner, Duration::from_secs(1));
            inner = wait.unwrap_or_else(PoisonError::into_inner).0;
        }
        inner.reports.push_back(report);
    }

    /// From now on everything is refused with `why`; returns what had been taken so far.
    pub fn close(&self, why: Error) -> Commands {
        let mut inner = self.lock();
        inner.closed = Some(why);
        (inner.choices, inner.tokens) = (0, 0);
        std::mem::take(&mut inner.commands)
    }

    /// The last report of all, past the limit: nobody may be left without an answer.
    pub fn last_report(&self, report: Report) {
        self.lock().reports.push_back(report);
    }
}

impl Inner {
    /// There is nothing yet of what is waited for.
    fn nothing(&self, until: Until) -> bool {
        let standing = (self.commands.shutdown, self.commands.abandoned);
        match until {
            Until::Now => false,
            Until::Command => self.commands.is_empty() && standing == (None, false),
            Until::Landing => !self.landed && self.commands.is_empty() && standing == self.seen,
        }
    }
}

impl Commands {
    /// Besides what stays there for ever.
    fn is_empty(&self) -> bool {
        self.requests.is_empty()
            && self.cancels.is_empty()
            && self.flushes.is_empty()
            && self.tasks.is_empty()
    }
}
