//! A bounded ring of records: one thread writes, any number read at the same time.
//!
//! A full ring overwrites its oldest records; nobody ever waits. A reader notices what was
//! overwritten before or while it copied and counts it. This is a sequence lock (Boehm, "Can
//! seqlocks get along with programming language memory models?", 2012) whose version is the
//! record's number: `begun` is published before a slot changes, `done` after.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use super::record::{Record, WORDS};

/// A record's words, within one line of the cache.
#[derive(Debug)]
#[repr(align(32))]
struct Slot([AtomicU64; WORDS]);

/// The shared part. Records are numbered from 0; record n stands in slot n mod capacity, which is
/// a power of two so that finding it costs no division.
#[derive(Debug)]
pub struct Ring {
    slots: Box<[Slot]>,
    begun: AtomicU64,
    done: AtomicU64,
}

/// The only writer of a ring.
#[derive(Debug)]
pub struct Writer {
    ring: Arc<Ring>,
    next: u64,
}

/// A reader's place in a ring.
#[derive(Debug, Clone)]
pub struct Cursor {
    ring: Arc<Ring>,
    next: u64,
    /// Records that were overwritten before this reader came to them.
    pub lost: u64,
}

impl Writer {
    /// A new ring of at least `capacity` records (the next power of two) and its writer.
    pub fn new(capacity: usize) -> Writer {
        // Not zero, so that the memory is taken here and not in pieces while the engine runs: a
        // ring that fills up must not look like a leak, nor a step pay for its pages.
        let slot = |_| Slot([const { AtomicU64::new(u64::MAX) }; WORDS]);
        let slots = (0..capacity.max(1).next_power_of_two()).map(slot).collect();
        let ring = Ring { slots, begun: AtomicU64::new(0), done: AtomicU64::new(0) };
        Writer { ring: Arc::new(ring), next: 0 }
    }

    pub fn ring(&self) -> &Arc<Ring> {
        &self.ring
    }

    #[inline]
    pub fn push(&mut self, record: &Record) {
        let ring = &*self.ring;
        let slot = ring.slot(self.next);
        self.next += 1;
        ring.begun.store(self.next, Ordering::Relaxed);
        // Whoever sees a word of this record also sees `begun`.
        fence(Ordering::Release);
        for (to, word) in slot.0.iter().zip(record.pack()) {
            to.store(word, Ordering::Relaxed);
        }
        ring.done.store(self.next, Ordering::Release);
    }
}

impl Ring {
    #[inline]
    fn slot(&self, number: u64) -> &Slot {
        &self.slots[number as usize & (self.slots.len() - 1)]
    }

    pub fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// Records written so far.
    pub fn written(&self) -> u64 {
        self.done.load(Ordering::Acquire)
    }

    /// A reader that gets what is written from now on.
    pub fn from_now(self: &Arc<Ring>) -> Cursor {
        Cursor { ring: Arc::clone(self), next: self.written(), lost: 0 }
    }

    /// A reader that begins `start` records after the first one, or with the oldest kept.
    pub fn from(self: &Arc<Ring>, start: u64) -> Cursor {
        let oldest = self.written().saturating_sub(self.slots.len() as u64);
        Cursor { ring: Arc::clone(self), next: oldest.max(start), lost: 0 }
    }
}

impl Cursor {
    /// The ring it reads.
    pub fn ring(&self) -> &Ring {
        &self.ring
    }

    /// The number of the record that comes next.
    pub fn position(&self) -> u64 {
        self.next
    }

    /// Appends what was written since the last call to `to`, at most `most` records.
    pub fn read(&mut self, most: usize, to: &mut Vec<Record>) {
        let ring = &*self.ring;
        let capacity = ring.slots.len() as u64;
        let done = ring.done.load(Ordering::Acquire);
        let oldest = done.saturating_sub(capacity);
        if oldest > self.next {
            self.lost += oldest - self.next;
            self.next = oldest;
        }
        let (first, before) = (self.next, to.len());
        let last = done.min(first + most as u64);
        let mut words = Vec::with_capacity((last - first) as usize);
        for number in first..last {
            let slot = ring.slot(number);
            words.push([0, 1, 2, 3].map(|i| slot.0[i].load(Ordering::Relaxed)));
        }
        fence(Ordering::Acquire);
        // Records below this number may have been overwritten while they were copied.
        let safe = ring.begun.load(Ordering::Relaxed).saturating_sub(capacity);
        let damaged = safe.saturating_sub(first).min(last - first);
        self.lost += damaged;
        to.extend(words[damaged as usize..].iter().filter_map(|w| Record::unpack(*w)));
        debug_assert!(to.len() - before <= (last - first - damaged) as usize);
        self.next = last;
    }

    /// Reads all there is.
    pub fn read_all(&mut self) -> Vec<Record> {
        let mut records = Vec::new();
        self.read(usize::MAX >> 1, &mut records);
        records
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::Event;
    use super::*;

    fn record(n: u64) -> Record {
        Record { event: Event::Op, extra: n as u16, id: n as u32, arg: n, start_ns: n, end_ns: !n }
    }

    #[test]
    fn a_reader_gets_records_in_order_and_counts_what_it_missed() {
        let mut writer = Writer::new(4);
        let mut cursor = writer.ring().from_now();
        (0..3).for_each(|n| writer.push(&record(n)));
        assert_eq!(cursor.read_all(), [record(0), record(1), record(2)]);
        (3..10).for_each(|n| writer.push(&record(n)));
        assert_eq!(cursor.read_all(), [record(6), record(7), record(8), record(9)]);
        assert_eq!(cursor.lost, 3);
        assert!(cursor.read_all().is_empty());
        let mut part = Vec::new();
        writer.ring().from(7).read(2, &mut part);
        assert_eq!(part, [record(7), record(8)]);
    }

    #[test]
    fn no_reader_ever_sees_a_torn_record() {
        let mut writer = Writer::new(64);
        let ring = Arc::clone(writer.ring());
        const WRITTEN: u64 = 400_000;
        let mut cursor = ring.from(0);
        let reader = std::thread::spawn(move || {
            let mut seen = 0;
            let mut last = None;
            while ring.written() < WRITTEN || cursor.next < WRITTEN {
                let mut records = Vec::new();
                cursor.read(1000, &mut records);
                for r in records {
                    assert_eq!(r, record(r.arg), "torn");
                    assert!(last.is_none_or(|l| r.arg > l), "out of order");
                    last = Some(r.arg);
                    seen += 1;
                }
            }
            assert_eq!(seen + cursor.lost, WRITTEN);
        });
        (0..WRITTEN).for_each(|n| writer.push(&record(n)));
        reader.join().unwrap();
    }
}
