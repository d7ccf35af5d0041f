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
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
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
    /// What each thread has yet to do of a [`Pool::spread`].
    spans: Box<[Span]>,
    /// What each thread asks memory for while it waits.
    ahead: Box<[Ahead]>,
}

/// What a thread will read after the next wait: so many bytes from each of some places.
#[derive(Default)]
#[repr(align(128))]
struct Ahead {
    /// 0: none.
    starts: [AtomicUsize; PLACES],
    bytes: AtomicUsize,
}

/// Most places that [`Pool::expect`] takes.
const PLACES: usize = 4;

impl Ahead {
    /// Addresses of their cache lines, of every place in turn; after this there are none.
    fn take(&self) -> impl Iterator<Item = usize> {
        let bytes = self.bytes.swap(0, Ordering::Relaxed);
        let starts = self.starts.each_ref().map(|start| start.load(Ordering::Relaxed));
        let lines = (0..bytes).step_by(64);
        lines.flat_map(move |at| starts.into_iter().filter(|s| *s > 0).map(move |s| s + at))
    }
}

/// Asks for the cache line at `address`, which need not be memory, in the second-level cache.
#[inline(always)]
fn prefetch(address: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: prefetching reads nothing; every x86-64 CPU has it.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(std::ptr::without_provenance(address));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Items `first .. end` that nobody has taken yet: `first` in the low half, `end` in the high.
/// A cache line of its own, or two, as they are fetched in pairs.
#[derive(Default)]
#[repr(align(128))]
struct Span(AtomicU64);

impl Span {
    /// To be called while no one takes.
    fn set(&self, items: Range<usize>) {
        self.0.store(items.start as u64 | (items.end as u64) << 32, Ordering::Relaxed);
    }

    /// Its thread goes from the front, others from the back.
    fn take(&self, front: bool) -> Option<usize> {
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |span| {
            let (first, end) = (span as u32, (span >> 32) as u32);
            (first < end).then(|| if front { span + 1 } else { span - (1 << 32) })
        });
        let span = taken.ok()?;
        Some(if front { span as u32 as usize } else { (span >> 32) as usize - 1 })
    }
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
            spans: (0..threads).map(|_| Span::default()).collect(),
            ahead: (0..threads).map(|_| Ahead::default()).collect(),
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
        self.run_held(lock(&self.running), body);
    }

    /// [`Pool::run`] by the holder of `running`, outside of a run.
    fn run_held(&self, one_run: MutexGuard<'_, ()>, body: &Body<'_>) {
        if let Some(cpu) = self.first_cpu.filter(|_| !BOUND.replace(true)) {
            stay_on(cpu);
        }
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
        self.shared.wait(0, |s| s.pending.load(Ordering::SeqCst) == 0);
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

    /// Says what `thread` will read after the run that comes, from several places at once: while
    /// it waits for others and for the run after that, memory would be idle.
    pub fn expect(&self, thread: usize, places: [&[u8]; PLACES]) {
        let ahead = &self.shared.ahead[thread];
        for (start, bytes) in ahead.starts.iter().zip(places) {
            let address = if bytes.is_empty() { 0 } else { bytes.as_ptr().addr() };
            start.store(address, Ordering::Relaxed);
        }
        let most = places.iter().map(|bytes| bytes.len()).max().unwrap_or(0);
        ahead.bytes.store(most, Ordering::Relaxed);
    }

    /// Calls `body(thread, item)` for every item once. Each thread walks its own share of
    /// neighbouring items, the same share whenever there are as many, so that it reads memory
    /// front to back and finds what it wrote; done with it, it takes from the ends of others'.
    ///
    /// # Panics
    /// As [`Pool::run`].
    pub fn spread(&self, items: usize, body: &(dyn Fn(usize, usize) + Sync)) {
        let threads = self.threads();
        if threads == 1 || items <= 1 || items > u32::MAX as usize || INSIDE.get() {
            return (0..items).for_each(|item| body(0, item));
        }
        let one_run = lock(&self.running);
        for (t, span) in self.shared.spans.iter().enumerate() {
            span.set(items * t / threads..items * (t + 1) / threads);
        }
        self.run_held(one_run, &|thread, _| {
            for other in 0..threads {
                let span = &self.shared.spans[(thread + other) % threads];
                while let Some(item) = span.take(other == 0) {
                    body(thread, item);
                }
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
            self.wait(thread, |s| s.epoch.load(Ordering::SeqCst) != seen);
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

    /// Spins, then yields, until `ready`; then sleeps until it is. Spinning thread `thread` asks
    /// for what it will read.
    fn wait(&self, thread: usize, ready: impl Fn(&Shared) -> bool) {
        let start = Instant::now();
        let mut ahead = self.ahead[thread].take();
        loop {
            for _ in 0..64 {
                if ready(self) {
                    return;
                }
                ahead.next().map_or_else(std::hint::spin_loop, prefetch);
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
    fn spread_covers_every_item_once_and_keeps_neighbours_together() {
        let pool = Pool::new(2).unwrap();
        for items in [0, 1, 2, 7, 1000] {
            let seen: Vec<AtomicU32> = (0..items).map(|_| AtomicU32::new(0)).collect();
            let last: Vec<AtomicU32> = (0..2).map(|_| AtomicU32::new(0)).collect();
            let turns = AtomicU32::new(0);
            pool.spread(items, &|thread, item| {
                seen[item].fetch_add(1, Ordering::Relaxed);
                let before = last[thread].swap(item as u32, Ordering::Relaxed);
                let next = item as u32 == before + 1 || item as u32 + 1 == before;
                turns.fetch_add(u32::from(!next), Ordering::Relaxed);
            });
            assert!(seen.iter().all(|s| s.load(Ordering::Relaxed) == 1));
            // A thread's own share, and what it took of the other's.
            assert!(turns.into_inner() <= 4, "{items} items");
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
