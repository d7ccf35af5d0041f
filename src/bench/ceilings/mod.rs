//! This machine's own ceilings: what its memory and its arithmetic units reach when nothing else
//! is asked of them. A benchmark's share of them says how much there is left to gain.

mod kernels;
pub mod store;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Barrier, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::device::cpu::pool::Pool;
use crate::error::{Error, Kind, Result};
use crate::measure::{date, machine};

/// Measured ceilings of one processor with a number of threads.
#[derive(Debug, Clone, PartialEq)]
pub struct Ceilings {
    /// The processor's name.
    pub cpu: String,
    pub threads: usize,
    /// The instructions they were measured with: `avx2+fma`, `portable`.
    pub isa: String,
    /// Bytes read from memory per second, all threads together.
    pub bytes_per_s: f64,
    /// Single-precision operations per second, a multiply-add counting two.
    pub flops_per_s: f64,
    /// Operations per second on 8-bit integers summed in 32 bits, a multiply-add counting two;
    /// `None` in calibrations of before it was measured.
    pub int8_ops_per_s: Option<f64>,
    /// Seconds of an empty loop on all threads: what it costs to split an op; `None` as above.
    pub fork_join_s: Option<f64>,
    /// When, ISO-8601.
    pub date: String,
}

/// How long each of the three measurements runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    pub each: Duration,
    /// Bytes that all threads read together in one pass; well beyond the last-level cache.
    pub buffer_bytes: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Budget { each: Duration::from_millis(300), buffer_bytes: 256 << 20 }
    }
}

/// Fewest passes that the best one is taken from, however long they take.
const MIN_PASSES: usize = 3;

/// Measures the ceilings with `threads` threads, in about three times `budget.each`.
pub fn measure(threads: usize, budget: Budget) -> Result<Ceilings> {
    let threads = threads.max(1);
    let words = budget.buffer_bytes / 8 / threads;
    let bytes = best_rate(threads, budget.each, || {
        let mut buffer = Vec::with_capacity(words);
        ask_for_huge_pages(&buffer);
        buffer.extend(0..words as u64);
        move || {
            std::hint::black_box(kernels::sum(&buffer));
            (buffer.len() * 8) as f64
        }
    })?;
    let flops = best_rate(threads, budget.each, || || kernels::multiply_add(ROUNDS))?;
    let int8 = best_rate(threads, budget.each, || || kernels::multiply_add_int8(ROUNDS))?;
    Ok(Ceilings {
        cpu: machine::cpu_name(),
        threads,
        isa: kernels::isa().to_string(),
        bytes_per_s: bytes,
        flops_per_s: flops,
        int8_ops_per_s: Some(int8),
        fork_join_s: Some(fork_join(threads)?),
        date: date::now_iso(),
    })
}

/// Weights lie in huge pages where the system has them, so what is read here does too.
#[cfg(target_os = "linux")]
fn ask_for_huge_pages(buffer: &Vec<u64>) {
    /// Of every size that pages of these systems have.
    const PAGE: usize = 64 << 10;
    let start = buffer.as_ptr().cast::<u8>();
    let skipped = start.align_offset(PAGE);
    let bytes = (buffer.capacity() * 8).saturating_sub(skipped) / PAGE * PAGE;
    // SAFETY: whole pages of the buffer; the advice changes nothing that is in them, and a refusal
    // nothing at all.
    unsafe {
        libc::madvise(start.wrapping_add(skipped).cast_mut().cast(), bytes, libc::MADV_HUGEPAGE)
    };
}

#[cfg(not(target_os = "linux"))]
fn ask_for_huge_pages(_: &Vec<u64>) {}

/// Rounds of the register-resident loops in one pass: a few milliseconds.
const ROUNDS: u64 = 1_000_000;

/// Seconds of an empty loop on the CPU device's own pool of `threads` threads, one loop right after
/// the other: the mean of the best of ten times a thousand.
fn fork_join(threads: usize) -> Result<f64> {
    const LOOPS: u32 = 1000;
    let pool = Pool::new(threads)?;
    let pass = |_| {
        let begin = Instant::now();
        (0..LOOPS).for_each(|_| pool.run(&|_, _| {}));
        begin.elapsed().as_secs_f64() / f64::from(LOOPS)
    };
    Ok((0..10).map(pass).fold(f64::INFINITY, f64::min))
}

/// One thread's part of a pass: when it began and ended, and how many units it did.
type Part = (Instant, Instant, f64);

/// The best rate of several passes: in each, all threads start together, and the pass lasts from
/// the first thread's beginning to the last one's end, by their own readings of the clock (the
/// thread that waits for them may be woken late). `make` builds a thread's work on that thread, so
/// that its memory is local to it; the work returns how many units it did.
fn best_rate<W: FnMut() -> f64>(
    threads: usize,
    budget: Duration,
    make: impl Fn() -> W + Sync,
) -> Result<f64> {
    let (ready, done) = (Barrier::new(threads + 1), Barrier::new(threads + 1));
    let (parts, stop) = (Mutex::new(Vec::<Part>::new()), AtomicBool::new(false));
    let worker = || {
        let mut work = make();
        loop {
            ready.wait();
            if stop.load(Ordering::Acquire) {
                return;
            }
            let begin = Instant::now();
            let units = work();
            let part = (begin, Instant::now(), units);
            parts.lock().unwrap_or_else(PoisonError::into_inner).push(part);
            done.wait();
        }
    };
    let best = std::thread::scope(|scope| {
        (0..threads).for_each(|_| drop(scope.spawn(worker)));
        let (mut best, mut passes, mut spent) = (0.0f64, 0, Duration::ZERO);
        while passes < MIN_PASSES || spent < budget {
            ready.wait();
            done.wait();
            let pass = std::mem::take(&mut *parts.lock().unwrap_or_else(PoisonError::into_inner));
            let (units, lasted) = together(&pass);
            best = best.max(units / lasted.as_secs_f64());
            (passes, spent) = (passes + 1, spent + lasted);
        }
        stop.store(true, Ordering::Release);
        ready.wait();
        best
    });
    if best.is_finite() && best > 0.0 {
        return Ok(best);
    }
    Err(Error::new(Kind::Device, "calibration: the clock did not move during a pass"))
}

/// All units of a pass, and how long it lasted.
fn together(parts: &[Part]) -> (f64, Duration) {
    let units = parts.iter().map(|p| p.2).sum();
    let begin = parts.iter().map(|p| p.0).min();
    let end = parts.iter().map(|p| p.1).max();
    (units, begin.zip(end).map_or(Duration::ZERO, |(b, e)| e - b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ceilings_are_plausible() {
        let budget = Budget { each: Duration::from_millis(20), buffer_bytes: 16 << 20 };
        let c = measure(2, budget).unwrap();
        assert!((1e7..1e12).contains(&c.bytes_per_s), "{c:?}");
        assert!((1e7..5e12).contains(&c.flops_per_s), "{c:?}");
        assert!((1e7..5e13).contains(&c.int8_ops_per_s.unwrap()), "{c:?}");
        assert!((1e-9..1e-2).contains(&c.fork_join_s.unwrap()), "{c:?}");
        assert_eq!(c.threads, 2);
    }

    #[test]
    fn the_best_pass_counts_and_all_threads_add_up() {
        let rate = best_rate(3, Duration::from_millis(1), || {
            || {
                std::thread::sleep(Duration::from_millis(5));
                10.0
            }
        });
        let rate = rate.unwrap();
        assert!((2000.0..=6000.0).contains(&rate), "30 units in 5 ms or a little more: {rate}");
    }
}
