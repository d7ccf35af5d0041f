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
    fn a_base_has_both_clocks_at_one_instant() {
        let (a, b) = (Base::read(), Base::read());
        assert!(a.realtime_ns > 1_600_000_000_000_000_000);
        assert!(b.monotonic_ns >= a.monotonic_ns);
        assert_eq!(a.boot, b.boot);
    }
}
