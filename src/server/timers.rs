//! Deadlines of connections, soonest first, and how long a turn of the loop may last.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// The share of a turn of the loop that one kind of work may have; what is left over has the next
/// turn: news of sockets, arrivals, reports, results of workers, deadlines, and what was left.
pub struct Slice(Instant);

impl Slice {
    const LENGTH: Duration = Duration::from_millis(1);

    pub fn begin() -> Slice {
        Slice(Instant::now())
    }

    pub fn over(&self) -> bool {
        self.0.elapsed() > Self::LENGTH
    }
}

/// All deadlines. One a connection; setting it again moves it.
#[derive(Debug, Default)]
pub struct Timers {
    due: BTreeSet<(Instant, usize)>,
}

impl Timers {
    /// Moves `key`'s deadline from `old` to `new`.
    pub fn set(&mut self, key: usize, old: Option<Instant>, new: Option<Instant>) {
        if old == new {
            return;
        }
        if let Some(old) = old {
            self.due.remove(&(old, key));
        }
        if let Some(new) = new {
            self.due.insert((new, key));
        }
    }

    pub fn next(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// A key whose deadline has passed. Its deadline stays until it is set again.
    pub fn expired(&self, now: Instant) -> Option<usize> {
        self.due.first().filter(|(at, _)| *at <= now).map(|(_, key)| *key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn soonest_first_and_moved() {
        let now = Instant::now();
        let at = |s| Some(now + Duration::from_secs(s));
        let mut timers = Timers::default();
        timers.set(1, None, at(5));
        timers.set(2, None, at(3));
        assert_eq!((timers.next(), timers.expired(now)), (at(3), None));
        timers.set(2, at(3), at(9));
        assert_eq!(timers.expired(now + Duration::from_secs(6)), Some(1));
        timers.set(1, at(5), None);
        assert_eq!(timers.next(), at(9));
    }
}
