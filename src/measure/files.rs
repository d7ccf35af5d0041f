//! Open files: how many a process may have, and room for them before they are wanted.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Lifts the limit of open files to `wanted`, as far as the system lets us; what it is then.
///
/// # Errors
/// The system does not tell the limit.
pub fn lift_limit(wanted: u64) -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` lives and has the type that the call fills.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } < 0 {
        return Err(io::Error::last_os_error());
    }
    if limit.rlim_cur < wanted as libc::rlim_t {
        let lifted = libc::rlimit {
            rlim_cur: (wanted as libc::rlim_t).min(limit.rlim_max),
            rlim_max: limit.rlim_max,
        };
        // SAFETY: `lifted` lives and holds a soft limit within the hard one.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &lifted) } == 0 {
            limit = lifted;
        }
    }
    #[allow(clippy::unnecessary_cast)]
    Ok(limit.rlim_cur as u64)
}

/// Makes room for so many open files in the kernel's table of this process, and says whether it
/// could. Linux doubles the table when it is full and, where threads share it, waits for all
/// processors first (`synchronize_rcu` in `expand_fdtable`, fs/file.c): 10 to 30 ms in which
/// the thread that accepts the 64th, 256th, 512th … connection stands still.
pub fn make_room(files: u64) -> bool {
    let highest = i32::try_from(files).unwrap_or(i32::MAX);
    let Ok(file) = File::open("/dev/null") else { return false };
    // SAFETY: the call takes numbers alone; what it returns is a descriptor nobody else has.
    let taken = unsafe {
        let fd = libc::fcntl(file.as_raw_fd(), libc::F_DUPFD_CLOEXEC, highest);
        (fd >= 0).then(|| OwnedFd::from_raw_fd(fd))
    };
    taken.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_up_to_the_limit_and_no_further() {
        let limit = lift_limit(0).unwrap();
        assert!(make_room(100.min(limit - 1)));
        assert!(!make_room(limit));
    }

    /// The table's size is told beside the process's status.
    #[test]
    #[cfg(target_os = "linux")]
    fn the_table_grows_at_once() {
        let size = || {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find_map(|l| l.strip_prefix("FDSize:"));
            line.unwrap().trim().parse::<u64>().unwrap()
        };
        if lift_limit(1000).unwrap() > 900 {
            assert!(make_room(900));
            assert!(size() >= 900, "{}", size());
        }
    }
}
