//! Conversations: a request that cannot be made before the answer to the one before it is there.
//! It keeps its conversation's place in flight, and goes out before anything new does.

use std::sync::atomic::Ordering;

use super::super::record::{Failure, Reason, Record};
use super::{Client, Job};

/// Makes what follows in conversations.
pub trait Follow: Sync {
    /// The request after the one that `record` tells of; `None` if that was the last.
    ///
    /// # Errors
    /// The answer has not what the next request needs.
    fn next(&self, record: &Record) -> Option<Result<Job, Failure>>;

    /// Rows of the same conversation behind row `index`.
    fn behind(&self, index: usize) -> std::ops::Range<usize>;
}

impl Client<'_> {
    /// After `record` has been completed: whether its conversation goes on, in its place.
    pub(super) fn goes_on(&mut self, record: &Record, now: u64) -> bool {
        let Some(follow) = self.follow else { return false };
        let next = if record.ok() { follow.next(record) } else { None };
        let index = record.index;
        match next {
            Some(Ok(job)) => {
                self.made.push(job);
                self.turns.push_back((self.jobs.len() + self.made.len() - 1, now));
                true
            }
            Some(Err(failure)) => {
                self.give_up(index, now, &failure);
                false
            }
            None if record.ok() => false,
            None => {
                let detail = format!("request {index} of the same conversation failed");
                self.give_up(index, now, &Failure::new(Reason::Cancelled, detail));
                false
            }
        }
    }

    /// What can no longer come has failed, too.
    fn give_up(&mut self, index: usize, now: u64, failure: &Failure) {
        let Some(follow) = self.follow else { return };
        let (scheduled, ready, sent, end) = (now, now, now, now);
        for index in follow.behind(index) {
            let failure = Some(failure.clone());
            let record =
                Record { index, scheduled, ready, sent, end, failure, ..Record::default() };
            self.outcome.records.push(record);
            self.ended.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Sends the turns whose time has come.
    pub(super) fn send_turns(&mut self) {
        while let Some((job, ready)) = self.turns.pop_front() {
            let index = self.job(job).index;
            let record = Record { index, scheduled: ready, ready, ..Record::default() };
            self.send(job, record, false);
        }
    }

    /// The jobs that were there from the start, then those made since.
    pub(super) fn job(&self, number: usize) -> &Job {
        self.jobs.get(number).unwrap_or_else(|| &self.made[number - self.jobs.len()])
    }
}
