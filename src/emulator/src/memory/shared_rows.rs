//! One record for 64 bytes of shared memory that full warps touched, each lane right after the one
//! before. A row whose words were ever touched in another way has its records in its cells.

use super::record::ROW_BYTES;
use super::shadow::{Cell, Clock, ReadRecord, WriteRecord};

/// An access of a warp to a row: lane `first` at the row's first byte, `width` bytes a lane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RowAccess {
    /// First thread of the warp.
    pub base: u32,
    pub first: u32,
    pub width: u32,
    /// 0: never.
    pub epoch: u32,
    pub pc: u32,
    pub atomic: bool,
}

impl RowAccess {
    /// Whether this is ordered before `new`: the same lanes at the same bytes, two atomics, or
    /// known to `new`'s clock. False if that takes a look at each lane.
    #[inline]
    fn ordered_before(&self, new: &Self, clock: &Clock) -> bool {
        let same = |r: &Self| (r.base, r.first, r.width);
        if self.epoch == 0 || same(self) == same(new) || (self.atomic && new.atomic) {
            return true;
        }
        let from = (self.base + self.first) as usize;
        let lanes = clock.seen.get(from..from + (ROW_BYTES as u32 / self.width) as usize);
        lanes.is_some_and(|l| l.iter().fold(true, |all, e| all & (*e >= self.epoch)))
    }

    /// The lanes at a word, and the last of them with its bytes.
    fn word(&self, word: u32) -> (u32, u32, u8) {
        if self.width == 2 {
            return (3 << (2 * word), 2 * word + 1, 12);
        }
        let lane = self.first + 4 * word / self.width;
        (1 << lane, lane, 15)
    }
}

/// What is known of a row.
#[derive(Debug, Clone, Copy, Default)]
pub struct SharedRow {
    write: RowAccess,
    reads: [RowAccess; 2],
    /// The row's cells hold its records.
    pub in_cells: bool,
}

impl SharedRow {
    /// Whether an access may take place, as far as can be said without a look at each lane.
    #[inline]
    pub fn ordered_before(&self, new: &RowAccess, write: bool, clock: &Clock) -> bool {
        !self.in_cells
            && self.write.ordered_before(new, clock)
            && (!write || self.reads.iter().all(|r| r.ordered_before(new, clock)))
            && (write || self.mergeable(new))
    }

    /// Whether a read replaces the last one of its warp, as it would in a cell.
    fn mergeable(&self, new: &RowAccess) -> bool {
        let last = &self.reads[0];
        last.epoch != new.epoch
            || last.base != new.base
            || (last.first, last.width, last.atomic) == (new.first, new.width, new.atomic)
    }

    #[inline]
    pub fn put(&mut self, new: &RowAccess, write: bool) {
        if write {
            self.write = *new;
            return;
        }
        if self.reads[0].base != new.base && self.reads[0].epoch != 0 {
            self.reads[1] = self.reads[0];
        }
        self.reads[0] = *new;
    }

    /// Moves the records to the row's cells.
    pub fn spread(&mut self, cells: &mut [Cell]) {
        self.in_cells = true;
        for (n, cell) in cells.iter_mut().enumerate() {
            let w = &self.write;
            if w.epoch != 0 {
                let (_, lane, bytes) = w.word(n as u32);
                let (epoch, pc, atomic) = (w.epoch, w.pc, w.atomic);
                let actor = w.base + lane;
                cell.write = WriteRecord { actor, epoch, pc, bytes, atomic, generic: true };
            }
            for (r, to) in self.reads.iter().zip(&mut cell.reads) {
                if r.epoch != 0 {
                    let (lanes, _, _) = r.word(n as u32);
                    let (base, epoch, pc, atomic) = (r.base, r.epoch, r.pc, r.atomic);
                    *to = ReadRecord { base, lanes, epoch, pc, bytes: 15, atomic };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::ROW_WORDS;
    use super::super::shadow::{Access, Conflict};
    use super::*;

    /// A row and its cells say the same of every lane.
    #[test]
    fn spreading_changes_nothing() {
        let clock = Clock::new(96);
        for (width, first) in [(2, 0), (4, 16), (8, 8), (16, 28)] {
            let access = |base, pc| RowAccess { base, first, width, epoch: 1, pc, atomic: false };
            let mut row = SharedRow::default();
            let write = access(32, 7);
            assert!(row.ordered_before(&write, true, &clock));
            row.put(&write, true);
            assert!(row.ordered_before(&access(32, 8), false, &clock), "its own lanes");
            assert!(!row.ordered_before(&access(64, 8), false, &clock), "another warp");
            let mut known = clock.clone();
            known.seen[32..64].fill(1);
            assert!(row.ordered_before(&access(64, 8), false, &known), "told of the write");
            row.put(&access(64, 9), false);
            assert!(!row.ordered_before(&access(32, 10), true, &clock), "after a read");
            let mut cells = [Cell::default(); ROW_WORDS];
            row.spread(&mut cells);
            assert!(!row.ordered_before(&write, true, &known), "now in cells");
            for (n, cell) in cells.iter_mut().enumerate() {
                let lane = if width == 2 { 2 * n as u32 + 1 } else { first + 4 * n as u32 / width };
                let who = |actor, lane| Access {
                    actor,
                    base: actor - lane,
                    lane,
                    epoch: 1,
                    pc: 11,
                    atomic: false,
                    generic: true,
                };
                let other = cell.read(&who(0, 0), 8, &clock).unwrap_err();
                assert_eq!(other, Conflict::Race { actor: 32 + lane, pc: 7, wrote: true });
                let read = cell.may_write(&who(0, 0), 8, &known).unwrap_err();
                assert!(matches!(read, Conflict::Race { actor: 64.., pc: 9, wrote: false }));
            }
        }
    }
}
