//! Saves steps that take longer than a limit: the engine leaves a note, a thread that wakes for it
//! writes the file.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::steps::{self, Which};
use super::writer::{FORMATTING, step_aside};
use super::{Profiler, Shared};
use crate::error::{Error, Kind, Result};
use crate::profile::request::ProfileRequest;

/// Files that a process saves at most, so that a limit that is too low fills no disk.
const MOST: u32 = 100;
/// Of the slow steps of so long only the slowest is saved.
const PAUSE: Duration = Duration::from_secs(1);
/// How often the thread looks whether anybody is left to serve.
const LOOK: Duration = Duration::from_secs(1);

/// When the slowest step since the last look began and ended.
type Note = Option<(u64, u64)>;

/// Where the engine leaves its note.
#[derive(Debug, Default)]
pub struct Watch {
    /// 0: nobody watches.
    limit_ns: AtomicU64,
    note: Mutex<Note>,
    noted: Condvar,
}

impl Watch {
    /// A step ran from `begun_ns` to `ended_ns`. Never waits: if the other side is just taking a
    /// note, this one is dropped.
    pub fn step_ended(&self, begun_ns: u64, ended_ns: u64) {
        let limit = self.limit_ns.load(Ordering::Relaxed);
        let took = ended_ns.saturating_sub(begun_ns);
        if limit == 0 || begun_ns == 0 || took <= limit {
            return;
        }
        if let Ok(mut note) = self.note.try_lock() {
            if note.is_none_or(|(from, to)| took > to - from) {
                *note = Some((begun_ns, ended_ns));
            }
            drop(note);
            self.noted.notify_one();
        }
    }

    fn take(&self) -> Note {
        let note = self.note.lock().unwrap_or_else(PoisonError::into_inner);
        match self.noted.wait_timeout_while(note, LOOK, |note| note.is_none()) {
            Ok((mut note, _)) => note.take(),
            Err(_) => None,
        }
    }
}

impl Profiler {
    /// From now on saves steps that take longer than `limit` below the first root; `tell` hears
    /// of each file.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn watch_slow_steps(
        &self,
        limit: Duration,
        tell: impl Fn(&str) + Send + 'static,
    ) -> Result<()> {
        let weak = Arc::downgrade(&self.shared);
        let nanos = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        self.shared.slow.limit_ns.store(nanos.max(1), Ordering::Relaxed);
        let work = move || {
            step_aside(FORMATTING);
            let mut saved = 0;
            while let Some(shared) = weak.upgrade().filter(|_| saved < MOST) {
                if let Some((begun, _)) = shared.slow.take() {
                    saved += u32::from(save(&shared, begun, limit, &tell));
                    drop(shared);
                    std::thread::sleep(PAUSE);
                }
            }
        };
        let spawned = std::thread::Builder::new().name("pacer-slow".into()).spawn(work);
        spawned.map(drop).map_err(|e| Error::new(Kind::Io, format!("the watch for steps: {e}")))
    }
}

fn save(shared: &Arc<Shared>, begun: u64, limit: Duration, tell: &dyn Fn(&str)) -> bool {
    let why = format!("slower than {} ms", limit.as_secs_f64() * 1e3);
    let request = ProfileRequest { prefix: Some("slow".into()), ..ProfileRequest::default() };
    let answer = steps::save(shared, &request, Which::SlowestSince(begun), &why);
    match answer {
        Ok(answer) if answer.status == 200 => {
            let (step, file) = (&answer.body["step"], answer.body["files"][0].as_str());
            let took = answer.body["seconds"].as_f64().unwrap_or(0.0) * 1e3;
            let file = file.unwrap_or_default();
            tell(&format!("step {step} took {took:.1} ms; see {file}"));
            true
        }
        Ok(_) => false,
        Err(error) => {
            tell(&format!("a slow step could not be saved: {error}"));
            true
        }
    }
}
