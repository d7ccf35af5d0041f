//! The one clock of all timelines: `CLOCK_MONOTONIC`, the same on every thread of a machine and
//! in CUPTI's records, and how to align it with another machine's.

/// Nanoseconds of `CLOCK_MONOTONIC`.
#[inline]
pub fn now_ns() -> u64 {
    read(libc::CLOCK_MONOTONIC)
}

/// Nanoseconds since 1970 of the system clock, which may be set back.
pub fn realtime_ns() -> u64 {
    read(libc::CLOCK_REALTIME)
}

#[inline]
fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec to write to; both clocks exist on every POSIX system.
    unsafe { libc::clock_gettime(clock, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// The same instant on both clocks, and which boot of which machine the monotonic one belongs to:
/// files with equal `boot` are aligned by the monotonic clock, others by the system clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    pub monotonic_ns: u64,
    pub realtime_ns: u64,
    /// `/proc/sys/kernel/random/boot_id`, empty where there is none.
    pub boot: String,
}

impl Base {
    pub fn read() -> Base {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        let boot = boot.map(|b| b.trim().to_owned()).unwrap_or_default();
        // The system clock between two readings of the other, so that an interruption shows.
        let narrow = |best: (u64, u64, u64), _| {
            let (before, real, after) = (now_ns(), realtime_ns(), now_ns());
            if after - before < best.2 { (before, real, after - before) } else { best }
        };
        let (before, realtime_ns, width) = (0..8).fold((0, 0, u64::MAX), narrow);
        Base { monotonic_ns: before + width / 2, realtime_ns, boot }
    }

    /// What to add to this file's monotonic nanoseconds to have them on `other`'s.
    pub fn offset_to(&self, other: &Base) -> i64 {
        if !self.boot.is_empty() && self.boot == other.boot {
            return 0;
        }
        let of = |base: &Base| base.realtime_ns as i64 - base.monotonic_ns as i64;
        of(self) - of(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_moves_on() {
        let start = now_ns();
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert!(now_ns() - start >= 2_000_000);
    }

    #[test]
    fn bases_align() {
        let a = Base { monotonic_ns: 1_000, realtime_ns: 51_000, boot: "x".into() };
        let b = Base { monotonic_ns: 7_000, realtime_ns: 51_500, boot: "y".into() };
        // The same instant, realtime 51_000, is 1_000 on a and 6_500 on b.
        assert_eq!(a.offset_to(&b), 5_500);
        assert_eq!(b.offset_to(&a), -5_500);
        assert_eq!(a.offset_to(&Base { realtime_ns: 9, ..a.clone() }), 0);
        let here = Base::read();
        assert!(here.realtime_ns > 1_600_000_000_000_000_000);
    }
}
