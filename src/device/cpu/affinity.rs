//! Which processors the threads run on.

use std::str::FromStr;

use crate::error::{Error, Result};

/// Processors that can be named: as many as the kernel's fixed-size set holds.
const MOST: usize = 1024;

/// A set of logical processors, by the kernel's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CpuSet([u64; MOST / 64]);

impl CpuSet {
    fn insert(&mut self, cpu: usize) {
        self.0[cpu / 64] |= 1 << (cpu % 64);
    }

    pub fn contains(&self, cpu: usize) -> bool {
        cpu < MOST && self.0[cpu / 64] >> (cpu % 64) & 1 == 1
    }

    /// The numbers in it, ascending.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        (0..MOST).filter(|cpu| self.contains(*cpu))
    }

    /// One processor for each of `threads`, the lowest first.
    ///
    /// # Errors
    /// Fewer processors than threads, or one that this process may not use.
    pub fn assign(&self, threads: usize) -> Result<Vec<usize>> {
        let cpus: Vec<usize> = self.iter().take(threads).collect();
        if cpus.len() < threads {
            return Err(Error::usage(format!(
                "--cpu-bind: {} processors for {threads} threads; name more, or lower --threads",
                cpus.len()
            )));
        }
        let allowed = allowed();
        match cpus.iter().find(|cpu| allowed.is_some_and(|set| !set.contains(**cpu))) {
            None => Ok(cpus),
            Some(cpu) => {
                let may: Vec<String> =
                    allowed.iter().flat_map(CpuSet::iter).map(|cpu| cpu.to_string()).collect();
                Err(Error::usage(format!(
                    "--cpu-bind: this process may not use processor {cpu}; it may use {}",
                    may.join(",")
                )))
            }
        }
    }
}

impl FromStr for CpuSet {
    type Err = String;

    /// `0-3,8`
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let wanted = || format!("expected processors from 0 to {}, such as 0-3,8", MOST - 1);
        let number = |text: &str| text.trim().parse().ok().filter(|cpu: &usize| *cpu < MOST);
        let mut set = CpuSet::default();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = number(first).zip(number(last)).ok_or_else(wanted)?;
            if first > last {
                return Err(wanted());
            }
            (first..=last).for_each(|cpu| set.insert(cpu));
        }
        Ok(set)
    }
}

/// What this process may use; `None` where that is not told.
#[cfg(target_os = "linux")]
pub fn allowed() -> Option<CpuSet> {
    // SAFETY: a set of zeros is a value of this plain type.
    let mut raw: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is as large as said, and lives during the call.
    let failed = unsafe { libc::sched_getaffinity(0, size_of_val(&raw), &mut raw) };
    let mut set = CpuSet::default();
    // SAFETY: the number is below the size of the set.
    (0..MOST).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &raw) }).for_each(|cpu| set.insert(cpu));
    (failed == 0).then_some(set)
}

#[cfg(not(target_os = "linux"))]
pub fn allowed() -> Option<CpuSet> {
    None
}

/// The processor that the calling thread runs on; `None` where that is not told.
#[cfg(target_os = "linux")]
pub fn current() -> Option<usize> {
    // SAFETY: it takes nothing and returns a number.
    usize::try_from(unsafe { libc::sched_getcpu() }).ok()
}

#[cfg(not(target_os = "linux"))]
pub fn current() -> Option<usize> {
    None
}

/// Keeps the calling thread on `cpu`. A refusal leaves it where the system likes.
#[cfg(target_os = "linux")]
pub fn stay_on(cpu: usize) {
    // SAFETY: a set of zeros is a value of this plain type.
    let mut raw: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    if cpu < MOST {
        // SAFETY: the number is below the size of the set.
        unsafe { libc::CPU_SET(cpu, &mut raw) };
        // SAFETY: the set is as large as said; 0 is the calling thread.
        unsafe { libc::sched_setaffinity(0, size_of_val(&raw), &raw) };
    }
}

/// Not available on this system: threads go where it likes.
#[cfg(not(target_os = "linux"))]
pub fn stay_on(_cpu: usize) {}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpus(text: &str) -> Option<Vec<usize>> {
        text.parse::<CpuSet>().ok().map(|set| set.iter().collect())
    }

    #[test]
    fn lists_are_numbers_and_ranges() {
        assert_eq!(cpus("0-3,8"), Some(vec![0, 1, 2, 3, 8]));
        assert_eq!(cpus("1023, 5,5"), Some(vec![5, 1023]));
        for wrong in ["", "a", "3-1", "1024", "0-", "-1", "1,,2", "0-99999999999999999999"] {
            assert_eq!(cpus(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn threads_are_bound_to_processors_that_are_there() {
        let all = allowed().unwrap_or_default();
        let Some(first) = all.iter().next() else { return };
        let mut one = CpuSet::default();
        one.insert(first);
        assert_eq!(one.assign(1).unwrap(), [first]);
        assert!(one.assign(2).unwrap_err().message.contains("1 processors for 2 threads"));
        if let Some(missing) = (0..MOST).find(|cpu| !all.contains(*cpu)) {
            let mut other = CpuSet::default();
            other.insert(missing);
            assert!(other.assign(1).unwrap_err().message.contains("may not use"));
        }
        let bound = std::thread::spawn(move || {
            stay_on(first);
            allowed().map(|set| set.iter().collect::<Vec<_>>())
        });
        assert!(bound.join().unwrap().is_none_or(|cpus| cpus == [first]));
    }
}
