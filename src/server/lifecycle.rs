//! How a server ends: on a signal, when asked, or because its engine failed for good.

use std::io;
use std::time::{Duration, Instant};

use super::conn::{Busy, Conn};
use super::event_loop::{Notice, Server};
use crate::engine::service::{Shutdown, State};
use crate::error::{Error, Kind, Result};

/// How long a faulted server still answers, so that clients and probes learn why.
const FAULT_GRACE: Duration = Duration::from_secs(3);
/// How long answers may take to go out after the engine has ended.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// The server's shutdown.
pub(super) struct Drain {
    /// What runs is aborted then.
    pub until: Instant,
    pub aborted: bool,
    /// When the engine was seen to have ended.
    pub ended: Option<Instant>,
    pub fault: Option<Error>,
}

impl Drain {
    /// When something is to be done about it.
    pub fn next(&self) -> Option<Instant> {
        match self.ended.filter(|_| self.fault.is_none()) {
            Some(at) => Some(at + LAST_WORDS),
            // The engine says when it has aborted everything.
            None => Some(self.until).filter(|_| !self.aborted || self.fault.is_some()),
        }
    }
}

impl Server {
    /// Ends what still runs when its time is over.
    pub(super) fn cut_off(&mut self, now: Instant) {
        if let Some(drain) = self.drain.as_mut().filter(|d| d.until <= now && !d.aborted) {
            drain.aborted = true;
            self.context.engine.shutdown(Shutdown::Abort);
        }
    }

    pub(super) fn signalled(&mut self, now: Instant) -> Result<()> {
        let mut seen = [0; 16];
        while let Some(Ok(n @ 1..)) = self.signals.as_mut().map(|s| io::Read::read(s, &mut seen)) {
            for _ in 0..n {
                if self.drain.is_some() {
                    let cut = "stopped by a second signal; running requests were cut off";
                    return Err(Error::new(Kind::Interrupted, cut));
                }
                self.begin_drain(now, None);
            }
        }
        Ok(())
    }

    pub(super) fn draining(&self) -> bool {
        self.drain.is_some()
    }

    /// Takes nothing new; finishes what runs, within the time for it. After a fault the port
    /// stays open for a moment, so that a probe learns of it.
    pub(super) fn begin_drain(&mut self, now: Instant, fault: Option<Error>) {
        if let Some(drain) = &mut self.drain {
            drain.fault = drain.fault.take().or(fault);
            return;
        }
        if fault.is_none() {
            self.notices.push(Notice::Draining);
        }
        let limit = match &fault {
            None => self.context.options.shutdown_timeout,
            Some(_) => FAULT_GRACE,
        };
        if fault.is_none()
            && let Some(mut listener) = self.listener.take()
        {
            let _ = self.poll.registry().deregister(&mut listener);
        }
        self.drain = Some(Drain { until: now + limit, aborted: false, ended: None, fault });
        self.context.engine.shutdown(Shutdown::Drain);
        let keys: Vec<usize> = self.conns.iter().map(|(key, _)| key).collect();
        for key in keys {
            let free = |c: &Conn| matches!(c.busy, Busy::Free) && c.unsent() == 0;
            if self.drain.as_ref().is_some_and(|d| d.fault.is_none())
                && self.conns.get(key).is_some_and(free)
            {
                self.drop_conn(key);
            }
        }
    }

    /// How the server ended, once it has.
    pub(super) fn over(&mut self, now: Instant) -> Option<Result<()>> {
        let state = self.context.engine.health().state();
        let never_ready = !self.ready;
        let idle = self.conns.iter().all(|(_, c)| matches!(c.busy, Busy::Free) && c.unsent() == 0);
        let drain = self.drain.as_mut()?;
        if never_ready && let Some(error) = drain.fault.take() {
            return Some(Err(error));
        }
        if state == State::Starting {
            // Nothing runs yet, and loading a model may take minutes.
            return Some(Ok(()));
        }
        let stopped = matches!(state, State::Stopped | State::Faulted);
        if stopped && drain.ended.is_none() {
            drain.ended = Some(now);
        }
        if let Some(error) = &drain.fault {
            return (now >= drain.until).then(|| Err(error.clone()));
        }
        let given_up = drain.ended.is_some_and(|at| now >= at + LAST_WORDS);
        (stopped && (idle || given_up)).then_some(Ok(()))
    }
}
