//! What the engine says, passed on to those who wait for it.

use std::time::{Duration, Instant};

use super::conn::Busy;
use super::event_loop::{Notice, Server};
use super::timers::Slice;
use crate::engine::request::Update;
use crate::engine::service::{Flushed, Report, State};
use crate::error::Error;
use crate::http::{Refused, Response};
use crate::profile::clock;

/// A flush that has to wait asks again after this.
const FLUSH_RETRY: Duration = Duration::from_millis(20);

/// Updates of a report that are taken before their connections are driven.
const UPDATES: usize = 128;

impl Server {
    /// Takes reports and tells their clients, for as long as a turn may last: an engine that is
    /// faster than its clients' sockets must not keep the loop from everything else.
    pub(super) fn take_reports(&mut self) {
        let slice = Slice::begin();
        loop {
            while let Some(key) = self.touched.pop_front() {
                self.drive(key);
                if slice.over() {
                    self.more = true;
                    return;
                }
            }
            let Some(report) = self.reading.take().or_else(|| self.context.engine.poll()) else {
                return;
            };
            self.take(report, Instant::now());
            if slice.over() {
                self.more = true;
                return;
            }
        }
    }

    /// Takes the next part of a report; what it leaves is read before the report after it.
    fn take(&mut self, mut report: Report, now: Instant) {
        if let Some(step) = report.step.take() {
            self.stats.stepped(&step);
        }
        let mut touched = Vec::new();
        let part = report.updates.len().min(UPDATES);
        let updates: Vec<_> = report.updates.drain(..part).collect();
        for update in updates {
            touched.extend(self.update(update, now));
        }
        if !report.updates.is_empty() {
            self.touch(touched);
            self.reading = Some(report);
            return;
        }
        for refused in report.refused {
            let Some(&key) = self.owners.get(&refused.id) else { continue };
            if let Some(conn) = self.conns.get_mut(key)
                && let Busy::Generating(generation) = &mut conn.busy
            {
                generation.fail(Refused::from(refused.error));
                touched.push(key);
            }
        }
        self.touch(touched);
        for flushed in report.flushed {
            self.flushed(flushed, now);
        }
        if let Some(error) = report.error {
            self.trouble(error, now);
        }
    }

    /// Connections to drive, each once.
    fn touch(&mut self, mut keys: Vec<usize>) {
        keys.sort_unstable();
        keys.dedup();
        self.touched.extend(keys);
    }

    /// The connection that the news were for.
    fn update(&mut self, update: Update, now: Instant) -> Option<usize> {
        let key = *self.owners.get(&update.id)?;
        let Busy::Generating(generation) = &mut self.conns.get_mut(key)?.busy else { return None };
        if update.token.is_some() {
            let running = generation.running.get(generation.place(update.id));
            let choice = running.and_then(|r| r.choices.get(update.choice as usize));
            let before = choice.and_then(|c| c.last_token);
            self.stats.token(generation.received, before, now);
            if generation.timing.taken_ns == 0 {
                generation.timing.taken_ns = clock::now_ns();
            }
        }
        generation.update(update, now);
        Some(key)
    }

    fn trouble(&mut self, error: Error, now: Instant) {
        if self.context.engine.health().state() == State::Faulted {
            self.begin_drain(now, Some(error));
        } else {
            self.notices.push(Notice::Trouble(error));
        }
    }

    fn flushed(&mut self, flushed: Flushed, now: Instant) {
        let Some(flush) = self.flushes.get_mut(&flushed.tag) else { return };
        if !flushed.done && now < flush.until {
            flush.again = Some(now + FLUSH_RETRY);
            return;
        }
        let (key, serial) = flush.ticket;
        self.flushes.remove(&flushed.tag);
        let waits = self.conns.get(key).is_some_and(|c| c.serial == serial);
        if !waits {
            return;
        }
        let response = if flushed.done {
            Response::text(200, "Cache flushed.\n")
        } else {
            let why = "the cache was not flushed: requests are running or waiting; wait for them, \
                       or give ?timeout=SECONDS";
            Response::from(&Refused::bad(why))
        };
        self.respond(key, &response);
        self.drive(key);
    }

    pub(super) fn retry_flushes(&mut self, now: Instant) {
        let due = |f: &super::event_loop::Flush| f.again.is_some_and(|at| at <= now);
        let tags: Vec<u64> =
            self.flushes.iter().filter(|(_, f)| due(f)).map(|(tag, _)| *tag).collect();
        for tag in tags {
            if let Some(flush) = self.flushes.get_mut(&tag) {
                flush.again = None;
            }
            if self.context.engine.flush_cache(tag).is_err() {
                self.flushed(Flushed { tag, done: false }, now + Duration::from_secs(3600));
            }
        }
    }
}
