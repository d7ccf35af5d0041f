//! A few threads for work that would hold the loop up: JSON, chat templates, tokenising.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};

use super::context::Context;
use super::generate::Plan;
use crate::error::{Error, Kind};
use crate::http::{Refused, Response};

/// Jobs that may wait.
const QUEUE: usize = 1024;
/// Threads that slow jobs may have at once.
const SLOW: usize = 4;

/// What a job came to.
pub enum Worked {
    Respond(Response),
    Generate(Box<Plan>),
}

/// Work for one request.
pub type Job = Box<dyn FnOnce(&Context) -> Result<Worked, Refused> + Send>;

/// Names the connection, and which of its lives, that a result is for.
pub type Ticket = (usize, u64);

/// A result for the loop.
pub type Done = (Ticket, Result<Worked, Refused>);

/// The threads.
pub struct Pool {
    jobs: SyncSender<(Ticket, Job)>,
    done: Receiver<Done>,
    results: Sender<Done>,
    slow: Arc<Mutex<usize>>,
    wake: Arc<dyn Fn() + Send + Sync>,
}

impl Pool {
    /// `wake` is called after every result.
    ///
    /// # Errors
    /// If the system refuses a thread.
    pub fn new(
        context: &Arc<Context>,
        threads: usize,
        wake: Arc<dyn Fn() + Send + Sync>,
    ) -> Result<Pool, Error> {
        let (jobs, waiting) = mpsc::sync_channel::<(Ticket, Job)>(QUEUE);
        let (results, done) = mpsc::channel();
        let waiting = Arc::new(Mutex::new(waiting));
        for i in 0..threads.max(1) {
            let (waiting, results) = (Arc::clone(&waiting), results.clone());
            let (context, wake) = (Arc::clone(context), Arc::clone(&wake));
            let thread = std::thread::Builder::new().name(format!("worker-{i}"));
            let spawned = thread.spawn(move || {
                loop {
                    let job = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok((ticket, job)) = job else { return };
                    if results.send((ticket, guarded(|| job(&context)))).is_err() {
                        return;
                    }
                    wake();
                }
            });
            spawned.map_err(|e| Error::new(Kind::Io, format!("worker thread: {e}")))?;
        }
        Ok(Pool { jobs, done, results, slow: Arc::default(), wake })
    }

    /// Queues a job.
    ///
    /// # Errors
    /// 429 when too many wait.
    pub fn submit(&self, ticket: Ticket, job: Job) -> Result<(), Refused> {
        let full = |_| Refused::new(429, "too many requests are waiting to be read");
        self.jobs.try_send((ticket, job)).map_err(full)
    }

    /// Runs a job that may take seconds (writing files, waiting for the engine) on a thread of
    /// its own.
    ///
    /// # Errors
    /// 429 when too many run.
    pub fn submit_slow(
        &self,
        ticket: Ticket,
        job: Job,
        context: &Arc<Context>,
    ) -> Result<(), Refused> {
        let running = Arc::clone(&self.slow);
        {
            let mut count = running.lock().unwrap_or_else(PoisonError::into_inner);
            if *count >= SLOW {
                return Err(Refused::new(429, "too many slow requests are running"));
            }
            *count += 1;
        }
        let (results, wake) = (self.results.clone(), Arc::clone(&self.wake));
        let context = Arc::clone(context);
        let spawned = std::thread::Builder::new().name("slow".into()).spawn(move || {
            let outcome = guarded(|| job(&context));
            *running.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
            let _ = results.send((ticket, outcome));
            wake();
        });
        match spawned {
            Ok(_) => Ok(()),
            Err(e) => Err(Refused::new(500, format!("no thread: {e}"))),
        }
    }

    /// The next result.
    pub fn done(&self) -> Option<Done> {
        self.done.try_recv().ok()
    }
}

/// Work for a request that panics is a 500 for it and nothing for the others.
pub fn guarded<T>(work: impl FnOnce() -> Result<T, Refused>) -> Result<T, Refused> {
    let outcome = catch_unwind(AssertUnwindSafe(work));
    outcome.unwrap_or_else(|_| Err(Refused::new(500, "the request's handler panicked")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_500() {
        assert_eq!(guarded(|| Ok(1)), Ok(1));
        let refused = Refused::new(400, "no");
        assert_eq!(guarded::<()>(|| Err(refused.clone())), Err(refused));
        let index = std::hint::black_box(7);
        let panicked = guarded(|| Ok([1, 2][index]));
        assert_eq!(panicked.map_err(|r| r.status), Err(500));
    }
}
