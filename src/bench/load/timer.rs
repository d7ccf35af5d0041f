//! A timer finer than the poll's own timeout, which counts whole milliseconds.

/// Wakes the poll at a set time, or tells how long the poll may wait at most.
pub use imp::Timer;

#[cfg(target_os = "linux")]
mod imp {
    use std::fs::File;
    use std::io::{self, Read};
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

    use mio::unix::SourceFd;
    use mio::{Interest, Registry, Token};

    /// A `timerfd` on the monotonic clock.
    #[derive(Debug)]
    pub struct Timer {
        file: File,
        armed: Option<u64>,
    }

    impl Timer {
        pub fn new(registry: &Registry, token: Token) -> io::Result<Self> {
            // SAFETY: takes two integers, returns a new descriptor or -1.
            let fd = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK) };
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            // SAFETY: `fd` was just created and belongs to nobody else.
            let file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
            registry.register(&mut SourceFd(&fd), token, Interest::READABLE)?;
            Ok(Timer { file, armed: None })
        }

        /// Fires at `at`, nanoseconds on the caller's clock, which reads `now`.
        pub fn arm(&mut self, at: Option<u64>, now: u64) -> io::Result<()> {
            if at == self.armed {
                return Ok(());
            }
            self.armed = at;
            // 0 would disarm it.
            let wait = at.map_or(0, |at| at.saturating_sub(now).max(1));
            let value = libc::timespec {
                tv_sec: (wait / 1_000_000_000) as libc::time_t,
                tv_nsec: (wait % 1_000_000_000) as libc::c_long,
            };
            let once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            let spec = libc::itimerspec { it_interval: once, it_value: value };
            // SAFETY: the descriptor is open, `spec` lives, a null old value is allowed.
            let done = unsafe {
                libc::timerfd_settime(self.file.as_raw_fd(), 0, &spec, std::ptr::null_mut())
            };
            if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
        }

        /// It fired: reads it off.
        pub fn fired(&mut self) {
            self.armed = None;
            let _ = self.file.read(&mut [0; 8]);
        }

        /// The poll need not wake up for it.
        pub const WAKES_POLL: bool = true;
    }
}

#[cfg(not(target_os = "linux"))]
mod imp {
    use std::io;

    use mio::{Registry, Token};

    /// Nothing: the poll's timeout has to do.
    #[derive(Debug)]
    pub struct Timer;

    impl Timer {
        pub fn new(_: &Registry, _: Token) -> io::Result<Self> {
            Ok(Timer)
        }

        pub fn arm(&mut self, _: Option<u64>, _: u64) -> io::Result<()> {
            Ok(())
        }

        pub fn fired(&mut self) {}

        pub const WAKES_POLL: bool = false;
    }
}
