//! A bounded ring of fixed-size records, written by the thread that runs steps.
//!
//! Off costs a branch; on costs two clock readings an op and no allocation. A full ring forgets
//! its oldest records and counts them.

use std::time::Instant;

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A device step; `id` is the step number, `arg` its tokens.
    Step,
    /// One op of the plan; `id` is its index in the plan, `arg` the step number.
    Op,
}

/// One span on the process's monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    pub event: Event,
    pub id: u32,
    pub arg: u64,
    /// Nanoseconds since the recorder's origin.
    pub start_ns: u64,
    pub end_ns: u64,
}

/// The ring. `Recorder::off()` records nothing.
#[derive(Debug)]
pub struct Recorder {
    origin: Instant,
    ring: Vec<Record>,
    capacity: usize,
    next: usize,
    dropped: u64,
    pub step: u64,
}

impl Recorder {
    /// A recorder that keeps nothing.
    pub fn off() -> Self {
        Self::with_capacity(0)
    }

    /// A recorder that keeps the last `capacity` records.
    pub fn with_capacity(capacity: usize) -> Self {
        Recorder {
            origin: Instant::now(),
            ring: Vec::with_capacity(capacity),
            capacity,
            next: 0,
            dropped: 0,
            step: 0,
        }
    }

    pub fn is_on(&self) -> bool {
        self.capacity > 0
    }

    /// Nanoseconds since the origin, or 0 when off.
    #[inline]
    pub fn now(&self) -> u64 {
        if self.is_on() { self.origin.elapsed().as_nanos() as u64 } else { 0 }
    }

    #[inline]
    pub fn record(&mut self, event: Event, id: u32, arg: u64, start_ns: u64, end_ns: u64) {
        if !self.is_on() {
            return;
        }
        let record = Record { event, id, arg, start_ns, end_ns };
        if self.ring.len() < self.capacity {
            self.ring.push(record);
        } else {
            self.ring[self.next] = record;
            self.dropped += 1;
        }
        self.next = (self.next + 1) % self.capacity;
    }

    /// Records oldest first.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        let full = self.ring.len() == self.capacity;
        let split = if full { self.next } else { 0 };
        self.ring[split..].iter().chain(&self.ring[..split])
    }

    /// Records that the ring has forgotten.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.ring.clear();
        self.next = 0;
        self.dropped = 0;
    }
}
