//! A persistent pool of threads for the CPU device's parallel loops.
//!
//! A model step is a hundred short loops with little between them, so a waiting thread first
//! spins (a wake-up by the kernel costs more than a small loop), then lets others run while it
//! looks, and only then sleeps. The calling thread takes part as thread 0, and a run allocates
//! nothing.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::affinity::stay_on;
use crate::error::{Error, Result};
use crate::profile::stack;

/// A loop body: called once on each thread with `(thread, threads)`.
pub type Body<'a> = dyn Fn(usize, usize) + Sync + 'a;

/// How long a thread looks for the next run before it sleeps: longer than the serial work between
/// two loops of a step, shorter than the pause between two steps.
const SPIN: Duration = Duration::from_micros(100);
/// How long of that it keeps its processor to itself. Threads of a loop end within this time of
/// each other, unless one lost its processor to somebody else: then it may be this one that it
/// waits for.
const ALONE: Duration = Duration::from_micros(10);

thread_local! {
    /// Whether this thread is inside a run, so that a nested run does not wait for itself.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
    /// Whether this thread, not one of a pool's own, was bound to a processor.
    static BOUND: Cell<bool> = const { Cell::new(false) };
}

/// Worker threads that wait for loops to run. Dropping the pool ends them.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Held during a run: one loop at a time.
    running: Mutex<()>,
    /// The processor of thread 0, whoever that is; `None`: where the system likes.
    first_cpu: Option<usize>,
}

struct Shared {
    /// Counts runs; a change tells the workers that `job` is set.
    epoch: AtomicUsize,
    job: UnsafeCell<Option<*const Body<'static>>>,
    /// Workers that have not finished the current run.
    pending: AtomicUsize,
    stop: AtomicBool,
    /// Threads asleep on `wake` or about to be.
    sleepers: AtomicUsize,
    lock: Mutex<()>,
    wake: Condvar,
    /// The first panic of the current run.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    spin: Duration,
}

// SAFETY: `job` is written only by the caller of `run` while `pending` is 0 and read by workers
// only between the epoch's release store and their decrement of `pending`; the rest is Sync.
unsafe impl Sync for Shared {}
// SAFETY: the pointer in `job` is used only while the borrowed closure lives (see `run`).
unsafe impl Send for Shared {}

impl Pool {
    /// Starts `threads - 1` workers (the caller is the other thread); 0 counts as 1.
    ///
    /// # Errors
    /// If the operating system refuses a thread.
    pub fn new(threads: usize) -> Result<Pool> {
        Pool::bound(threads, &[])
    }

    /// As [`Pool::new`], with thread `i` kept on processor `cpus[i]`, where there is one.
    ///
    /// # Errors
    /// As [`Pool::new`].
    pub fn bound(threads: usize, cpus: &[usize]) -> Result<Pool> {
        let threads = threads.max(1);
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        // More threads than cores: a spinning thread would hold up the one it waits for.
        let spin = if threads > cores { Duration::ZERO } else { SPIN };
        let shared = Arc::new(Shared {
            epoch: AtomicUsize::new(0),
            job: UnsafeCell::new(None),
            pending: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            sleepers: AtomicUsize::new(0),
            lock: Mutex::new(()),
            wake: Condvar::new(),
            panic: Mutex::new(None),
            spin,
        });
        let (running, first_cpu) = (Mutex::new(()), cpus.first().copied());
        let mut pool = Pool { shared, workers: Vec::new(), running, first_cpu };
        for thread in 1..threads {
            let (shared, cpu) = (Arc::clone(&pool.shared), cpus.get(thread).copied());
            let worker = std::thread::Builder::new()
                .name(format!("pacer-cpu-{thread}"))
                .spawn(move || {
                    cpu.into_iter().for_each(stay_on);
                    shared.work(thread, threads);
                })
                .map_err(|e| Error::device(format!("cannot start CPU thread {thread}: {e}")))?;
            pool.workers.push(worker);
        }
        Ok(pool)
    }

    /// Threads that take part in a run, the caller included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `body(thread, threads)` once on every thread and returns when all are done. Inside
    /// a run of any pool it calls `body(0, 1)` on the calling thread alone.
    ///
    /// # Panics
    /// With the first panic of `body`, after every thread has finished.
    pub fn run(&self, body: &Body<'_>) {
        stack::here();
        if self.workers.is_empty() || INSIDE.get() {
            return body(0, 1);
        }
        if let Some(cpu) = self.first_cpu.filter(|_| !BOUND.replace(true)) {
            stay_on(cpu);
        }
        let one_run = lock(&self.running);
        // SAFETY: only the lifetime changes. Workers use the pointer before they decrement
        // `pending`, and this function does not return or unwind before `pending` is 0.
        let job: *const Body<'static> =
            unsafe { std::mem::transmute::<&Body<'_>, &Body<'static>>(body) };
        // SAFETY: `pending` is 0 and `running` is held, so no one else reads or writes the job.
        unsafe { *self.shared.job.get() = Some(job) };
        self.shared.pending.store(self.workers.len(), Ordering::Relaxed);
        self.shared.epoch.fetch_add(1, Ordering::SeqCst);
        self.shared.wake_sleepers();
        self.shared.call(body, 0, self.threads());
        self.shared.wait(|s| s.pending.load(Ordering::SeqCst) == 0);
        let panic = lock(&self.shared.panic).take();
        if let Some(payload) = panic {
            drop(one_run);
            resume_unwind(payload);
        }
    }

    /// Calls `body(thread, range)` for ranges of at most `chunk` that cover `0..items` once;
    /// threads take the next range when they are done with one, so uneven work is balanced.
    ///
    /// # Panics
    /// As [`Pool::run`].
    pub fn for_each(
        &self,
        items: usize,
        chunk: usize,
        body: &(dyn Fn(usize, Range<usize>) + Sync),
    ) {
        let chunk = chunk.max(1);
        if items <= chunk {
            if items > 0 {
                body(0, 0..items);
            }
            return;
        }
        let next = AtomicUsize::new(0);
        self.run(&|thread, _| {
            loop {
                let start = next.fetch_add(chunk, Ordering::Relaxed);
                if start >= items {
                    break;
                }
                body(thread, start..items.min(start + chunk));
            }
        });
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.epoch.fetch_add(1, Ordering::SeqCst);
        self.shared.wake_sleepers();
        for worker in self.workers.drain(..) {
            // A worker catches every panic of a job, so there is none to report here.
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// A worker's life: wait for a new epoch, run its job, count down.
    fn work(&self, thread: usize, threads: usize) {
        let mut seen = 0;
        loop {
            self.wait(|s| s.epoch.load(Ordering::SeqCst) != seen);
            seen = seen.wrapping_add(1);
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            // SAFETY: the caller set the job before the epoch changed and waits for `pending`.
            if let Some(job) = unsafe { *self.job.get() } {
                // SAFETY: as above, the closure is alive until `pending` is decremented below.
                self.call(unsafe { &*job }, thread, threads);
            }
            if self.pending.fetch_sub(1, Ordering::SeqCst) == 1 {
                self.wake_sleepers();
            }
        }
    }

    /// Runs a job's share of one thread and keeps its panic for the caller.
    fn call(&self, body: &Body<'_>, thread: usize, threads: usize) {
        INSIDE.set(true);
        let outcome = catch_unwind(AssertUnwindSafe(|| body(thread, threads)));
        INSIDE.set(false);
        if let Err(payload) = outcome {
            lock(&self.panic).get_or_insert(payload);
        }
    }

    /// Spins, then yields, until `ready`; then sleeps until it is.
    fn wait(&self, ready: impl Fn(&Shared) -> bool) {
        let start = Instant::now();
        loop {
            for _ in 0..64 {
                if ready(self) {
                    return;
                }
                std::hint::spin_loop();
            }
            let waited = start.elapsed();
            if waited >= self.spin {
                break;
            }
            if waited >= ALONE {
                std::thread::yield_now();
            }
        }
        let mut guard = lock(&self.lock);
        // Counted before `ready` is looked at again: whoever makes it true sees the sleeper or
        // is seen by it (both sides are sequentially consistent).
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        while !ready(self) {
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }

    fn wake_sleepers(&self) {
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            let _guard = lock(&self.lock);
            self.wake.notify_all();
        }
    }
}

/// Locks a mutex whose data stays valid when a holder panics.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    #[test]
    fn every_thread_runs_once_in_every_run() {
        for threads in [1, 2, 5] {
            let pool = Pool::new(threads).unwrap();
            let counts: Vec<AtomicU32> = (0..threads).map(|_| AtomicU32::new(0)).collect();
            for _ in 0..500 {
                pool.run(&|thread, all| {
                    assert_eq!(all, threads);
                    counts[thread].fetch_add(1, Ordering::Relaxed);
                });
            }
            assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 500));
        }
    }

    #[test]
    fn wakes_workers_that_went_to_sleep() {
        let pool = Pool::new(2).unwrap();
        let runs = AtomicU32::new(0);
        for _ in 0..5 {
            std::thread::sleep(SPIN * 20);
            pool.run(&|_, _| {
                runs.fetch_add(1, Ordering::Relaxed);
            });
        }
        assert_eq!(runs.load(Ordering::Relaxed), 10);
    }

    #[test]
    fn for_each_covers_every_item_once() {
        let pool = Pool::new(3).unwrap();
        for (items, chunk) in [(0, 4), (3, 4), (1000, 7), (10, 0)] {
            let seen: Vec<AtomicU32> = (0..items).map(|_| AtomicU32::new(0)).collect();
            pool.for_each(items, chunk, &|_, range| {
                assert!(range.len() <= chunk.max(1));
                range.for_each(|i| {
                    seen[i].fetch_add(1, Ordering::Relaxed);
                });
            });
            assert!(seen.iter().all(|s| s.load(Ordering::Relaxed) == 1));
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let pool = Pool::new(3).unwrap();
        for culprit in 0..3 {
            let caught = catch_unwind(AssertUnwindSafe(|| {
                pool.run(&|thread, _| assert!(thread != culprit, "thread {thread} fell"));
            }));
            let message = *caught.unwrap_err().downcast::<String>().unwrap();
            assert_eq!(message, format!("thread {culprit} fell"));
        }
        let runs = AtomicU32::new(0);
        pool.run(&|_, _| {
            runs.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(runs.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn runs_from_many_threads_and_nested_runs_finish() {
        let pool = Pool::new(2).unwrap();
        let calls = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        pool.run(&|_, _| {
                            pool.run(&|_, threads| {
                                assert_eq!(threads, 1);
                                calls.fetch_add(1, Ordering::Relaxed);
                            });
                        });
                    }
                });
            }
        });
        assert_eq!(calls.load(Ordering::Relaxed), 4 * 50 * 2);
    }
}
