//! Shared memory of one block: bytes, which of them were written, and who touched them.

use std::collections::HashMap;

use super::SHARED_START;
use super::flights::Flights;
use super::record::{Look, ROW_BYTES, Record};
use super::rows::{Rival, Row, Table, lanes_by_row, parts, whole_rows};
use super::shadow::{Access, Clock, Conflict, Proxy};

/// Shared memory of a block. Addresses are those of the shared window.
#[derive(Debug)]
pub struct Shared {
    bytes: Vec<u8>,
    /// One flag a byte.
    init: Vec<bool>,
    /// Made when an access is first recorded.
    writes: Vec<Row>,
    reads: Vec<Row>,
    flights: Flights,
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
        Self {
            bytes: vec![0; words * 4],
            init: vec![false; words * 4],
            writes: Vec::new(),
            reads: Vec::new(),
            flights: Flights::of(words),
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

    pub fn holds_mbarrier(&self, at: usize, bytes: usize) -> bool {
        let last = (at + bytes.max(1) - 1) / 4;
        self.mbar_words[at / 4..=last].iter().any(|&m| m)
    }

    /// Makes eight bytes an mbarrier, or plain bytes again.
    pub fn set_mbarrier(&mut self, at: usize, is: bool) {
        self.mbar_words[at / 4..at / 4 + 2].fill(is);
        self.init[at..at + 8].fill(false);
    }

    /// The records; there is one launch and one cluster that this memory ever belongs to.
    #[inline]
    fn table(&mut self) -> Table<'_> {
        if self.writes.is_empty() {
            let rows = self.bytes.len().div_ceil(ROW_BYTES as usize);
            self.writes.resize_with(rows, Row::default);
            self.reads.resize_with(rows, Row::default);
        }
        Table { writes: Some(&mut self.writes), reads: Some(&mut self.reads) }
    }

    /// Checks and records an access of one thread.
    #[inline]
    pub fn access(
        &mut self,
        at: usize,
        bytes: u32,
        who: &Access,
        clock: &Clock,
        write: bool,
    ) -> Result<(), Conflict> {
        self.flights.admit(at, bytes as usize, write)?;
        let look = look(who, clock, write, None);
        let new = record(who);
        let mut table = self.table();
        for (row, from, to) in parts(at as u64, bytes.into()) {
            table.part(row as usize, (from, to), &new, &look).map_err(conflict)?;
        }
        Ok(())
    }

    /// Checks and records an access of a full warp, each lane right after the one before, with
    /// one clock and one epoch for all; `None`, with nothing recorded, if that takes a look at
    /// each lane. An error names the lane.
    #[inline]
    pub fn run(
        &mut self,
        at: usize,
        width: u32,
        who: &Access,
        clock: &Clock,
        write: bool,
    ) -> Option<Result<(), (u32, Conflict)>> {
        let all = 32 * width as usize;
        if !whole_rows(at as u64, width, who.base) || !self.flights.none_in_rows(at, all) {
            return None;
        }
        let look = look(who, clock, write, None);
        let mut table = self.table();
        let mut rows = lanes_by_row(at as u64, width, record(who));
        let done = rows.try_for_each(|(row, part)| table.row(row as usize, &part, &look));
        Some(done.map_err(|rival| (rival.lane, conflict(rival))))
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
        let aligned = who[0].base.is_multiple_of(32);
        if !aligned || who.iter().any(|who| self.check(at, bytes, who, clock, false).is_err()) {
            return false;
        }
        let [who, _] = who;
        let all = Record { lanes: u32::MAX, ..record(who) };
        self.note_read(at, bytes, &all, &look(who, clock, false, None));
        true
    }

    /// Records a read.
    fn note_read(&mut self, at: usize, bytes: u32, new: &Record, look: &Look<'_>) {
        let mut table = self.table();
        for (row, from, to) in parts(at as u64, bytes.into()) {
            table.record(row as usize, (from, to), new, look);
        }
    }

    /// Checks an access of one thread.
    pub fn check(
        &mut self,
        at: usize,
        bytes: u32,
        who: &Access,
        clock: &Clock,
        write: bool,
    ) -> Result<(), Conflict> {
        self.flights.admit(at, bytes as usize, write)?;
        self.ordered(at, bytes, record(who), &look(who, clock, write, None))
    }

    fn ordered(
        &mut self,
        at: usize,
        bytes: u32,
        new: Record,
        look: &Look<'_>,
    ) -> Result<(), Conflict> {
        let table = self.table();
        let mut parts = parts(at as u64, bytes.into());
        let mut check = |(row, from, to)| table.check(row as usize, (from, to), &new, look);
        parts.try_for_each(&mut check).map_err(conflict)
    }

    /// Checks and records an atomic update of an aligned word; an error says which half it refuses.
    /// Whatever conflicts with its read conflicts with its write, which alone is kept.
    #[inline]
    pub fn update(
        &mut self,
        at: usize,
        who: &Access,
        clock: &Clock,
    ) -> Result<(), (Conflict, &'static str)> {
        self.access(at, 4, who, clock, true).map_err(|c| match c {
            Conflict::Race { wrote: false, .. } | Conflict::Outgoing { .. } => (c, "write"),
            _ => (c, "read"),
        })
    }

    /// As [`Self::update`] for lanes of a warp with one clock and one epoch, all at one word;
    /// false, with nothing recorded, if they have to go one by one.
    pub fn update_by_lanes(&mut self, at: usize, lanes: u32, who: &Access, clock: &Clock) -> bool {
        if self.flights.admit(at, 4, true).is_err() {
            return false;
        }
        let look = look(who, clock, true, None);
        let new = Record { lanes, ..record(who) };
        let (row, from) = (at / ROW_BYTES as usize, at as u64 % ROW_BYTES);
        self.table().part(row, (from, from + 4), &new, &look).is_ok()
    }

    /// An asynchronous operation that `who` starts will write here.
    pub fn claim(
        &mut self,
        at: usize,
        bytes: u32,
        who: &Access,
        clock: &Clock,
        races: bool,
    ) -> Result<(), Conflict> {
        if races {
            self.check(at, bytes, who, clock, true)?;
        }
        self.flights.claim(at, bytes as usize, who.pc);
        Ok(())
    }

    /// It has written, which whoever started it was allowed to do.
    pub fn land(&mut self, at: usize, bytes: u32, who: &Access, clock: &Clock) {
        self.flights.land(at, bytes as usize);
        let look = look(who, clock, true, None);
        let new = record(who);
        let mut table = self.table();
        for (row, from, to) in parts(at as u64, bytes.into()) {
            table.replace(row as usize, (from, to), &new, &look);
        }
    }

    /// Whether a copy that has not been performed will write here.
    pub fn expected(&self, at: usize, bytes: u32) -> Result<(), Conflict> {
        self.flights.admit(at, bytes as usize, false)
    }

    /// An asynchronous operation that `who` starts will read here, by its proxy.
    pub fn lend(
        &mut self,
        at: usize,
        bytes: u32,
        who: &Access,
        clock: &Clock,
        races: bool,
    ) -> Result<(), Conflict> {
        if races {
            self.flights.admit(at, bytes as usize, false)?;
            let look = look(who, clock, false, Some(Proxy::AsyncShared));
            self.ordered(at, bytes, record(who), &look)?;
        }
        self.flights.lend(at, bytes as usize, who.pc);
        Ok(())
    }

    /// It has read, with another operation whose reads are noted.
    pub fn release(&mut self, at: usize, bytes: u32) {
        self.flights.give_back(at, bytes as usize);
    }

    /// It has read; `who` says by whom and when that counts.
    pub fn give_back(&mut self, at: usize, bytes: u32, who: &Access, clock: &Clock) {
        self.release(at, bytes);
        self.note_read(at, bytes, &record(who), &look(who, clock, false, None));
    }
}

/// The number of the only launch.
const LAUNCH: u8 = 1;

fn record(who: &Access) -> Record {
    Record::new(who, LAUNCH, 0, 15)
}

fn look<'a>(who: &Access, clock: &'a Clock, write: bool, proxy: Option<Proxy>) -> Look<'a> {
    Look {
        launch: LAUNCH,
        cluster: 0,
        write,
        base: who.base,
        open: &[],
        kept: &[],
        apart: false,
        proxy,
        clock,
    }
}

fn conflict(rival: Rival) -> Conflict {
    let Rival { actor, pc, wrote, unfenced, .. } = rival;
    match unfenced {
        Some(_) => Conflict::NotProxied { actor, pc },
        None => Conflict::Race { actor, pc, wrote },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(actor: u32, pc: u32) -> Access {
        let (base, lane) = (actor / 32 * 32, actor % 32);
        Access { actor, base, lane, epoch: 1, pc, store: 0, atomic: false, generic: true }
    }

    fn knows(actors: impl IntoIterator<Item = usize>) -> Clock {
        let mut clock = Clock::new(256);
        actors.into_iter().for_each(|a| clock.learn(a, 1));
        clock
    }

    /// A write that lands stands for all before it; reads and writes meanwhile are refused.
    #[test]
    fn copies_come_and_go() {
        for (at, bytes) in [(0, 64), (64, 128), (16, 16), (48, 96)] {
            let mut shared = Shared::new(1024);
            let nothing = Clock::new(256);
            shared.access(at, 8, &who(0, 1), &nothing, true).unwrap();
            shared.access(at, 8, &who(0, 2), &nothing, false).unwrap();
            let bytes = bytes as u32;
            assert_eq!(
                shared.claim(at, bytes, &who(40, 3), &nothing, true),
                Err(Conflict::Race { actor: 0, pc: 1, wrote: true })
            );
            let told = knows([0]);
            shared.claim(at, bytes, &who(40, 3), &told, true).unwrap();
            let last = at + bytes as usize - 4;
            let early = shared.access(last, 4, &who(40, 4), &told, false);
            assert_eq!(early, Err(Conflict::Incoming { pc: 3 }));
            shared.land(at, bytes, &Access::engine(200, 1, 3), &told);
            let read = |shared: &mut Shared, clock| shared.access(at, 4, &who(0, 5), clock, false);
            let race = Conflict::Race { actor: 200, pc: 3, wrote: true };
            assert_eq!(read(&mut shared, &nothing), Err(race));
            assert_eq!(read(&mut shared, &knows([200])), Ok(()));
        }
    }

    /// What is lent may be read and not written, and was written with a fence before.
    #[test]
    fn loans() {
        let mut shared = Shared::new(256);
        let nothing = Clock::new(256);
        shared.access(64, 4, &who(0, 1), &nothing, true).unwrap();
        let mut clock = knows([0]);
        let refused = shared.lend(0, 128, &who(0, 2), &clock, true);
        assert_eq!(refused, Err(Conflict::NotProxied { actor: 0, pc: 1 }));
        clock.fence(Proxy::AsyncShared);
        for _ in 0..2 {
            shared.lend(0, 128, &who(0, 2), &clock, true).unwrap();
        }
        let read = shared.access(64, 4, &who(3, 3), &clock, false);
        assert_eq!(read, Ok(()));
        let engine = Access::engine(200, 1, 2);
        for _ in 0..2 {
            let write = shared.check(124, 4, &who(0, 4), &clock, true);
            assert_eq!(write, Err(Conflict::Outgoing { pc: 2 }));
            shared.give_back(0, 128, &engine, &clock);
        }
        let write = shared.access(124, 4, &who(0, 4), &clock, true);
        assert_eq!(write, Err(Conflict::Race { actor: 200, pc: 2, wrote: false }));
        assert_eq!(shared.access(124, 4, &who(0, 4), &knows([200]), true), Ok(()));
    }
}
