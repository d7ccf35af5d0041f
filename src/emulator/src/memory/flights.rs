//! Asynchronous operations under way at words of shared memory.

use super::record::{ROW_BYTES, ROW_WORDS};
use super::shadow::Conflict;

/// What is under way at one word.
#[derive(Debug, Clone, Copy, Default)]
struct Flight {
    /// Instruction plus one of the asynchronous copy that will write here; 0 for none.
    incoming: u32,
    /// Asynchronous operations that still read here.
    outgoing: u16,
    /// The last of them: its instruction.
    outgoing_pc: u32,
}

impl Flight {
    fn any(&self) -> bool {
        self.incoming != 0 || self.outgoing != 0
    }
}

/// What is under way in the shared memory of a block.
#[derive(Debug)]
pub struct Flights {
    size: usize,
    /// Made when an operation first starts.
    words: Vec<Flight>,
    /// By row, its words that have any.
    busy: Vec<u16>,
}

impl Flights {
    /// None, in a memory of so many words.
    pub fn of(words: usize) -> Self {
        Self { size: words, words: Vec::new(), busy: Vec::new() }
    }

    /// Whether nothing is under way in the rows of a range.
    #[inline]
    pub fn none_in_rows(&self, at: usize, bytes: usize) -> bool {
        let (first, last) = (at / ROW_BYTES as usize, (at + bytes.max(1) - 1) / ROW_BYTES as usize);
        self.busy.get(first..=last).is_none_or(|rows| rows.iter().all(|n| *n == 0))
    }

    /// Refuses an access to bytes that an operation will write, and a write to bytes that one
    /// still reads.
    #[inline]
    pub fn admit(&self, at: usize, bytes: usize, write: bool) -> Result<(), Conflict> {
        if self.none_in_rows(at, bytes) {
            return Ok(());
        }
        for flight in &self.words[at / 4..(at + bytes).div_ceil(4)] {
            if flight.incoming != 0 {
                return Err(Conflict::Incoming { pc: flight.incoming - 1 });
            }
            if write && flight.outgoing != 0 {
                return Err(Conflict::Outgoing { pc: flight.outgoing_pc });
            }
        }
        Ok(())
    }

    /// An operation of this instruction will write here.
    pub fn claim(&mut self, at: usize, bytes: usize, pc: u32) {
        self.change(at, bytes, |flight| flight.incoming = pc + 1);
    }

    /// It has written.
    pub fn land(&mut self, at: usize, bytes: usize) {
        self.change(at, bytes, |flight| flight.incoming = 0);
    }

    /// An operation of this instruction reads here until [`Self::give_back`].
    pub fn lend(&mut self, at: usize, bytes: usize, pc: u32) {
        self.change(at, bytes, |flight| {
            flight.outgoing = flight.outgoing.saturating_add(1);
            flight.outgoing_pc = pc;
        });
    }

    pub fn give_back(&mut self, at: usize, bytes: usize) {
        let less = |flight: &mut Flight| flight.outgoing = flight.outgoing.saturating_sub(1);
        self.change(at, bytes, less);
    }

    /// Changes the words of a range.
    fn change(&mut self, at: usize, bytes: usize, change: impl Fn(&mut Flight)) {
        if self.words.is_empty() {
            self.words = vec![Flight::default(); self.size];
            self.busy = vec![0; self.words.len().div_ceil(ROW_WORDS)];
        }
        for word in at / 4..(at + bytes).div_ceil(4) {
            let flight = &mut self.words[word];
            let before = flight.any();
            change(flight);
            let busy = &mut self.busy[word / ROW_WORDS];
            *busy = *busy + u16::from(flight.any()) - u16::from(before);
        }
    }
}
