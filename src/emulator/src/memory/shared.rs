//! Shared memory of one block: bytes, which of them were written, and who touched them.

use std::collections::HashMap;

use super::SHARED_START;
use super::record::{ROW_BYTES, ROW_WORDS};
use super::shadow::{Access, Cell, Clock, Conflict};
use super::shared_rows::{RowAccess, SharedRow};

/// Shared memory of a block. Addresses are those of the shared window.
#[derive(Debug)]
pub struct Shared {
    bytes: Vec<u8>,
    /// One flag a byte.
    init: Vec<bool>,
    /// Made when a row first needs them.
    cells: Vec<Cell>,
    rows: Vec<SharedRow>,
    /// mbarrier objects by address.
    pub mbars: HashMap<u32, Mbarrier>,
    /// Words that hold an mbarrier, so that a plain access is found.
    mbar_words: Vec<bool>,
}

/// An mbarrier object.
#[derive(Debug, Clone)]
pub struct Mbarrier {
    /// Arrivals that a phase needs.
    pub expected: u32,
    /// Arrivals that the current phase still needs.
    pub pending: u32,
    /// Bytes that the current phase still waits for.
    pub tx: i64,
    /// Phases completed.
    pub phase: u64,
    /// What arrivals of the current phase made known.
    pub gathering: Clock,
    /// What the last completed phase made known.
    pub done: Clock,
}

impl Mbarrier {
    /// Completes the phase if nothing is missing; says whether it did.
    pub fn settle(&mut self) -> bool {
        if self.pending != 0 || self.tx != 0 {
            return false;
        }
        self.phase += 1;
        self.pending = self.expected;
        let empty = Clock::new(self.gathering.seen.len());
        self.done = std::mem::replace(&mut self.gathering, empty);
        true
    }
}

/// What a byte range of shared memory is, when it cannot be accessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    OutOfBounds,
    Unwritten,
    /// The bytes are an mbarrier object.
    Mbarrier,
    Conflict(Conflict),
}

impl Shared {
    /// `bytes` of shared memory, none of them written.
    pub fn new(bytes: u32) -> Self {
        let size = bytes as usize;
        let words = size.div_ceil(4);
        let rows = words.div_ceil(ROW_WORDS);
        Self {
            bytes: vec![0; words * 4],
            init: vec![false; words * 4],
            cells: Vec::new(),
            rows: vec![SharedRow::default(); rows],
            mbars: HashMap::new(),
            mbar_words: vec![false; words],
        }
    }

    pub fn size(&self) -> u32 {
        self.bytes.len() as u32
    }

    /// Offset of a range in this memory.
    pub fn offset(&self, address: u32, bytes: u32) -> Result<usize, Refusal> {
        let at = address.checked_sub(SHARED_START).ok_or(Refusal::OutOfBounds)?;
        match at.checked_add(bytes) {
            Some(end) if end <= self.size() => Ok(at as usize),
            _ => Err(Refusal::OutOfBounds),
        }
    }

    #[inline]
    pub fn slice(&self, at: usize, bytes: usize) -> &[u8] {
        &self.bytes[at..at + bytes]
    }

    /// Writes without checks and marks the bytes written.
    #[inline]
    pub fn put(&mut self, at: usize, data: &[u8]) {
        self.bytes[at..at + data.len()].copy_from_slice(data);
        self.init[at..at + data.len()].fill(true);
    }

    pub fn is_written(&self, at: usize, bytes: usize) -> bool {
        self.init[at..at + bytes].iter().fold(true, |all, &b| all & b)
    }

    /// Calls `visit` with each word of a range and the mask of its bytes in the range.
    #[inline]
    pub fn cells(
        &mut self,
        at: usize,
        bytes: usize,
        mut visit: impl FnMut(&mut Cell, u8) -> Result<(), Conflict>,
    ) -> Result<(), Conflict> {
        if bytes > 0 {
            for row in at / ROW_BYTES as usize..=(at + bytes - 1) / ROW_BYTES as usize {
                if !self.rows[row].in_cells {
                    self.spread(row);
                }
            }
        }
        let mut from = at;
        while from < at + bytes {
            let end = (from / 4 * 4 + 4).min(at + bytes);
            let mask = (((1u32 << (end - from)) - 1) << (from % 4)) as u8;
            visit(&mut self.cells[from / 4], mask)?;
            from = end;
        }
        Ok(())
    }

    #[cold]
    fn spread(&mut self, row: usize) {
        if self.cells.is_empty() {
            self.cells = vec![Cell::default(); self.rows.len() * ROW_WORDS];
        }
        self.rows[row].spread(&mut self.cells[row * ROW_WORDS..][..ROW_WORDS]);
    }

    /// Checks and records an access of a full warp at whole rows, each lane right after the one
    /// before; false, with nothing recorded, if that takes a look at each lane.
    pub fn run(&mut self, at: usize, who: RowAccess, write: bool, clock: &Clock) -> bool {
        let lanes = ROW_BYTES as u32 / who.width.max(2);
        if !at.is_multiple_of(ROW_BYTES as usize) || !matches!(who.width, 2 | 4 | 8 | 16) {
            return false;
        }
        let first = at / ROW_BYTES as usize;
        let Some(rows) = self.rows.get_mut(first..first + 32 / lanes as usize) else {
            return false;
        };
        let part = |n: usize| RowAccess { first: n as u32 * lanes, ..who };
        let mut all = rows.iter().enumerate();
        if !all.all(|(n, row)| row.ordered_before(&part(n), write, clock)) {
            return false;
        }
        rows.iter_mut().enumerate().for_each(|(n, row)| row.put(&part(n), write));
        true
    }

    pub fn holds_mbarrier(&self, at: usize, bytes: usize) -> bool {
        let last = (at + bytes.max(1) - 1) / 4;
        self.mbar_words[at / 4..=last].iter().any(|&m| m)
    }

    /// Makes eight bytes an mbarrier, or plain bytes again.
    pub fn set_mbarrier(&mut self, at: usize, is: bool) {
        self.mbar_words[at / 4..at / 4 + 2].fill(is);
        self.init[at..at + 8].fill(false);
    }

    /// Checks and records a generic read.
    #[inline]
    pub fn read(
        &mut self,
        at: usize,
        bytes: u32,
        who: &Access,
        clock: &Clock,
    ) -> Result<(), Refusal> {
        self.cells(at, bytes as usize, |cell, mask| cell.read(who, mask, clock))
            .map_err(Refusal::Conflict)
    }

    /// Checks and records a read of one place by all lanes of a warp with one clock and one epoch:
    /// what two of them may read, all may. False if one may not.
    pub fn read_by_warp(
        &mut self,
        at: usize,
        bytes: u32,
        who: &[Access; 2],
        clock: &Clock,
    ) -> bool {
        let done = self.cells(at, bytes as usize, |cell, mask| {
            who.iter().try_for_each(|who| cell.read(who, mask, clock))?;
            cell.reads[0].lanes = u32::MAX;
            Ok(())
        });
        done.is_ok()
    }

    /// Checks and records an atomic update of an aligned word; an error says which half it refuses.
    #[inline]
    pub fn update(
        &mut self,
        at: usize,
        who: &Access,
        clock: &Clock,
    ) -> Result<(), (Refusal, &'static str)> {
        let row = at / ROW_BYTES as usize;
        if !self.rows[row].in_cells {
            self.spread(row);
        }
        let cell = &mut self.cells[at / 4];
        cell.read(who, 15, clock).map_err(|c| (Refusal::Conflict(c), "read"))?;
        cell.may_write(who, 15, clock).map_err(|c| (Refusal::Conflict(c), "write"))?;
        cell.record_write(who, 15);
        Ok(())
    }

    /// Checks and records a generic write.
    #[inline]
    pub fn write(
        &mut self,
        at: usize,
        bytes: u32,
        who: &Access,
        clock: &Clock,
    ) -> Result<(), Refusal> {
        let done = self.cells(at, bytes as usize, |cell, mask| {
            cell.may_write(who, mask, clock)?;
            cell.record_write(who, mask);
            Ok(())
        });
        done.map_err(Refusal::Conflict)
    }
}
