//! Clocks: the real monotonic one, and one that tests move by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What is known about a clock, for the validity block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClockFacts {
    /// The kernel's clock source (`tsc`, `kvm-clock`, `arch_sys_counter`), if it can be read.
    pub source: Option<String>,
    /// The smallest step seen between two readings that differ, nanoseconds.
    pub resolution_ns: u64,
}

/// A monotonic clock.
pub trait Clock {
    /// Nanoseconds since an origin that stays fixed for the clock's life.
    fn now_ns(&self) -> u64;

    fn facts(&self) -> ClockFacts;
}

/// The operating system's monotonic clock.
#[derive(Debug, Clone)]
pub struct RealClock {
    origin: Instant,
}

impl RealClock {
    pub fn new() -> Self {
        RealClock { origin: Instant::now() }
    }
}

impl Default for RealClock {
    fn default() -> Self {
        Self::new()
    }
}

const CLOCK_SOURCE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";

impl Clock for RealClock {
    fn now_ns(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn facts(&self) -> ClockFacts {
        let source = std::fs::read_to_string(CLOCK_SOURCE).ok();
        let source = source.map(|s| s.trim().to_string()).filter(|s| !s.is_empty());
        ClockFacts { source, resolution_ns: smallest_step(self) }
    }
}

/// The smallest step of `clock` over a few hundred changes of its reading.
fn smallest_step(clock: &dyn Clock) -> u64 {
    let mut smallest = u64::MAX;
    let mut last = clock.now_ns();
    for _ in 0..1000 {
        let now = clock.now_ns();
        if now > last {
            smallest = smallest.min(now - last);
        }
        last = now;
    }
    smallest
}

/// CPU time that the calling thread has used, however busy the machine is; see getrusage(2),
/// `RUSAGE_THREAD`.
pub fn thread_cpu() -> Duration {
    // SAFETY: all of a `rusage` is numbers, for which zero is valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is a valid rusage for the call to fill in.
    if unsafe { libc::getrusage(libc::RUSAGE_THREAD, &mut usage) } != 0 {
        return Duration::ZERO;
    }
    let whole = |n: i64| u64::try_from(n).unwrap_or(0);
    let time = |t: libc::timeval| {
        Duration::from_secs(whole(t.tv_sec)) + Duration::from_micros(whole(t.tv_usec))
    };
    time(usage.ru_utime) + time(usage.ru_stime)
}

/// A clock that only moves when told to. Clones share the time, so a fake subject can hold one
/// and "take" as long as a test says.
#[derive(Debug, Clone, Default)]
pub struct FakeClock {
    now: Arc<AtomicU64>,
}

impl FakeClock {
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets `ns` nanoseconds pass.
    pub fn advance(&self, ns: u64) {
        self.now.fetch_add(ns, Ordering::Relaxed);
    }
}

impl Clock for FakeClock {
    fn now_ns(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    fn facts(&self) -> ClockFacts {
        ClockFacts { source: Some("fake".into()), resolution_ns: 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_clock_moves_forward() {
        let clock = RealClock::new();
        let start = clock.now_ns();
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert!(clock.now_ns() - start >= 2_000_000);
        assert!(clock.facts().resolution_ns < 1_000_000);
    }

    #[test]
    fn sleeping_takes_no_cpu_time() {
        let start = thread_cpu();
        std::thread::sleep(Duration::from_millis(50));
        assert!(thread_cpu() - start < Duration::from_millis(40));
    }

    #[test]
    fn fake_clock_is_shared_between_clones() {
        let clock = FakeClock::new();
        clock.clone().advance(7);
        assert_eq!(clock.now_ns(), 7);
    }
}
