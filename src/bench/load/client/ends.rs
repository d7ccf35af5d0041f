//! How requests end: answered, refused, closed on, too late, or stopped by the user.

use std::cmp::Reverse;
use std::io;
use std::sync::atomic::Ordering;

use super::super::conn::Conn;
use super::super::exchange::Exchange;
use super::super::record::{Failure, Reason, Record};
use super::Client;

impl Client<'_> {
    pub(super) fn closed(&mut self, place: usize) {
        let at = self.now();
        if self.resend(place) {
            return;
        }
        let Some(conn) = self.conns[place].as_mut() else { return };
        let ended = conn.exchange.as_mut().filter(|_| !conn.lingers).map(|e| e.closed(at));
        self.close(place, ended.and_then(std::result::Result::err));
    }

    pub(super) fn broken(&mut self, place: usize, error: &io::Error) {
        if !self.resend(place) {
            self.close(place, Some(Failure::new(Reason::Closed, error.to_string())));
        }
    }

    /// A kept connection that the server closed before a byte of the answer: the request goes out
    /// once more on a new one, and its clock runs on.
    fn resend(&mut self, place: usize) -> bool {
        let Some(conn) = self.conns[place].as_mut() else { return false };
        let stale = conn.reused && conn.exchange.as_ref().is_some_and(Exchange::untouched);
        if !stale {
            return false;
        }
        let (job, record) = (conn.job, conn.take_record());
        self.drop_conn(place);
        self.outcome.resent += 1;
        if let Some(record) = record {
            self.send(job, record, true);
        }
        true
    }

    /// Closes a connection; its request, if it has one, ends with `failure`, or well.
    pub(super) fn close(&mut self, place: usize, failure: Option<Failure>) {
        let record = self.conns[place].as_mut().and_then(Conn::take_record);
        self.drop_conn(place);
        self.settle(record, failure);
    }

    fn drop_conn(&mut self, place: usize) {
        if let Some(mut conn) = self.conns[place].take() {
            let _ = self.poll.registry().deregister(&mut conn.stream);
            self.idle.retain(|&p| p != place);
            self.vacant.push(place);
        }
    }

    pub(super) fn settle(&mut self, record: Option<Record>, failure: Option<Failure>) {
        if let Some(record) = record {
            self.count(record, failure);
        }
    }

    pub(super) fn count(&mut self, mut record: Record, failure: Option<Failure>) {
        let now = self.now();
        if failure.is_some() {
            record.failure = failure;
            record.end = now;
        }
        if !self.goes_on(&record, now) {
            self.freed.push_back(now);
            self.active -= 1;
        }
        self.outcome.records.push(record);
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn expire(&mut self) {
        let now = self.now();
        while let Some(&Reverse((at, place, serial))) = self.deadlines.peek() {
            if at > now {
                break;
            }
            self.deadlines.pop();
            let Some(conn) = self.conns.get(place).and_then(Option::as_ref) else { continue };
            if conn.serial == serial {
                let seconds = self.options.timeout.as_secs_f64();
                let failure = conn.exchange.as_ref().map(|e| e.expired(seconds));
                self.close(place, failure);
            }
        }
    }

    /// The user asked to stop: what runs is cancelled.
    pub(super) fn stop(&mut self) {
        self.outcome.interrupted = true;
        self.outcome.unsent = self.jobs[self.next..].iter().map(|job| 1 + job.rest).sum();
        let failure = || Some(Failure::new(Reason::Cancelled, "the run was interrupted"));
        for place in 0..self.conns.len() {
            if self.conns[place].is_some() {
                self.close(place, failure());
            }
        }
        while let Some((job, ready)) = self.turns.pop_front() {
            let index = self.job(job).index;
            let record = Record { index, scheduled: ready, ready, ..Record::default() };
            self.count(record, failure());
        }
    }
}

pub(super) fn failed_connect(error: &io::Error) -> Failure {
    Failure::new(Reason::Connect, error.to_string())
}
