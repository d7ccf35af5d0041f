//! Who touched global memory last, within one launch.
//!
//! Of every four bytes the last write and the last read are kept. Threads of one cluster are
//! ordered by their clocks; threads of different clusters only by what their clocks know of each
//! other's.
//!
//! Records are kept in pages that exist once they are touched. A full warp that touches
//! consecutive addresses leaves one record a row of 64 bytes ([`super::rows`]); everything else
//! leaves one a word.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use super::rows::{ROW_BYTES, Row, RowRecord};
use super::shadow::{Access, Clock};

/// Rows and words of a page.
const ROWS: usize = 256;
const WORDS: usize = ROWS * ROW_WORDS;
const ROW_WORDS: usize = ROW_BYTES as usize / 4;
const PAGE_BYTES: u64 = ROWS as u64 * ROW_BYTES;

const EPOCHS: u64 = 1 << 16;
const ACTORS: u64 = 1 << 15;
const CLUSTERS: u64 = 1 << 20;

/// A word's record and the instruction that left it.
type Slot = (AtomicU64, AtomicU32);

/// Records of 16 KiB of memory.
#[derive(Debug)]
struct Page {
    rows: Box<[Row]>,
    words: OnceLock<Box<[Slot]>>,
}

impl Page {
    fn new() -> Self {
        Self { rows: (0..ROWS).map(|_| Row::default()).collect(), words: OnceLock::new() }
    }

    fn words(&self) -> &[Slot] {
        self.words.get_or_init(|| (0..WORDS).map(|_| Default::default()).collect())
    }

    /// The records of a word: none, one, or those of two lanes with half a word.
    #[inline]
    fn records(&self, word: usize) -> [Option<(Record, u32)>; 2] {
        let row = &self.rows[word / ROW_WORDS];
        if row.is_in_words() {
            let slot = &self.words()[word];
            return [Some((Record::unpack(slot.0.load(Relaxed)), slot.1.load(Relaxed))), None];
        }
        let Some((of_row, pc)) = row.record() else { return [None, None] };
        let lanes = of_row.lanes_of((word % ROW_WORDS) as u32);
        lanes.map(|lane| lane.map(|(lane, bytes)| (Record::of_lane(&of_row, lane, bytes), pc)))
    }

    /// Records an access to one word.
    #[inline]
    fn put(&self, word: usize, record: Record, pc: u32) {
        let at = word / ROW_WORDS;
        let row = &self.rows[at];
        if !row.is_in_words() {
            self.expand(at);
        }
        row.use_words(record.launch);
        let slot = &self.words()[word];
        slot.0.store(record.pack(), Relaxed);
        slot.1.store(pc, Relaxed);
    }

    /// Turns a row's record into those of its words.
    fn expand(&self, at: usize) {
        let row = &self.rows[at];
        for n in 0..ROW_WORDS {
            let slot = &self.words()[at * ROW_WORDS + n];
            let last = row.record().and_then(|(of_row, pc)| {
                let [first, second] = of_row.lanes_of(n as u32);
                second.or(first).map(|(lane, bytes)| (Record::of_lane(&of_row, lane, bytes), pc))
            });
            slot.0.store(last.map_or(0, |(record, _)| record.pack()), Relaxed);
            slot.1.store(last.map_or(0, |(_, pc)| pc), Relaxed);
        }
    }
}

/// Pages by number.
type Pages = Box<[OnceLock<Box<Page>>]>;

/// Records of one allocation, made when a launch first asks.
#[derive(Debug)]
pub struct GlobalShadow {
    bytes: u64,
    writes: OnceLock<Pages>,
    reads: OnceLock<Pages>,
}

/// A record, packed in 64 bits: launch 8, cluster 20, actor 15, epoch 16, bytes 4, strong 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Record {
    launch: u8,
    cluster: u32,
    actor: u32,
    epoch: u32,
    bytes: u8,
    strong: bool,
}

impl Record {
    #[inline]
    fn pack(self) -> u64 {
        u64::from(self.launch) << 56
            | u64::from(self.cluster) << 36
            | u64::from(self.actor) << 21
            | u64::from(self.epoch) << 5
            | u64::from(self.bytes) << 1
            | u64::from(self.strong)
    }

    #[inline]
    fn unpack(bits: u64) -> Self {
        Self {
            launch: (bits >> 56) as u8,
            cluster: (bits >> 36) as u32 & (CLUSTERS - 1) as u32,
            actor: (bits >> 21) as u32 & (ACTORS - 1) as u32,
            epoch: (bits >> 5) as u32 & (EPOCHS - 1) as u32,
            bytes: (bits >> 1) as u8 & 15,
            strong: bits & 1 != 0,
        }
    }

    fn of_lane(row: &RowRecord, lane: u32, bytes: u8) -> Self {
        let RowRecord { launch, cluster, warp, epoch, strong, .. } = *row;
        Self { launch, cluster, actor: warp * 32 + lane, epoch, bytes, strong }
    }
}

/// The other party of a race: a thread of this cluster or of another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rival {
    pub cluster: u32,
    pub actor: u32,
    pub pc: u32,
    pub wrote: bool,
    /// The access was one of an earlier launch.
    pub earlier: bool,
}

/// The launch and cluster that an access belongs to.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// 1 to 255; records of other launches count for nothing, except those named here.
    pub launch: u8,
    pub cluster: u32,
    /// Earlier launches that may still run when this one begins, and when a thread has waited.
    pub open: [&'a [u8]; 2],
}

impl GlobalShadow {
    pub fn new(bytes: u64) -> Self {
        Self { bytes, writes: OnceLock::new(), reads: OnceLock::new() }
    }

    /// Forgets everything, so that launch numbers can be used again.
    pub fn clear(&self) {
        let tables = [&self.writes, &self.reads].into_iter().filter_map(|t| t.get());
        for page in tables.flat_map(|pages| pages.iter()).filter_map(|p| p.get()) {
            page.rows.iter().for_each(Row::clear);
            page.words.get().iter().flat_map(|w| w.iter()).for_each(|s| s.0.store(0, Relaxed));
        }
    }

    /// Checks and records an access of any length at `at`.
    pub fn access(
        &self,
        at: u64,
        bytes: u32,
        who: &Access,
        from: Origin<'_>,
        clock: &Clock,
        write: bool,
    ) -> Result<(), Rival> {
        self.pass(from, write).map_or(Ok(()), |pass| pass.access(at, bytes, who, clock))
    }

    /// The records as reads, or writes, of a cluster need them; `None` if they are not tracked.
    pub fn pass<'a>(&'a self, from: Origin<'a>, write: bool) -> Option<Pass<'a>> {
        if u64::from(from.cluster) >= CLUSTERS {
            return None;
        }
        let count = self.bytes.div_ceil(PAGE_BYTES);
        let make = || (0..count).map(|_| OnceLock::new()).collect();
        let own = &**(if write { &self.writes } else { &self.reads }).get_or_init(make);
        let writes = if write { Some(own) } else { self.writes.get().map(|w| &**w) };
        let reads = if write { self.reads.get().map(|r| &**r) } else { None };
        Some(Pass { own, writes, reads, from, write })
    }
}

/// Accesses of one kind by one cluster to one allocation.
pub struct Pass<'a> {
    /// Where the accesses are recorded.
    own: &'a [OnceLock<Box<Page>>],
    /// Records that they may conflict with.
    writes: Option<&'a [OnceLock<Box<Page>>]>,
    reads: Option<&'a [OnceLock<Box<Page>>]>,
    from: Origin<'a>,
    write: bool,
}

impl<'a> Pass<'a> {
    /// Earlier launches that may still run as far as a thread knows.
    fn open(&self, clock: &Clock) -> &'a [u8] {
        self.from.open[usize::from(clock.waited)]
    }

    fn own_page(&self, page: usize) -> &'a Page {
        self.own[page].get_or_init(|| Box::new(Page::new()))
    }

    /// The pages that an access may conflict with: of writes, and of reads.
    fn rival_pages(&self, page: usize) -> [Option<&'a Page>; 2] {
        [self.writes, self.reads].map(|t| t.and_then(|t| t[page].get()).map(|p| &**p))
    }

    /// Checks and records an access of any length at `at`.
    pub fn access(&self, at: u64, bytes: u32, who: &Access, clock: &Clock) -> Result<(), Rival> {
        if u64::from(who.epoch) >= EPOCHS || u64::from(who.actor) >= ACTORS {
            return Ok(());
        }
        let end = at + u64::from(bytes);
        let (mut word, last) = (at / 4, end.div_ceil(4));
        while word < last {
            let page = word as usize / WORDS;
            let (own, rivals) = (self.own_page(page), self.rival_pages(page));
            let stop = last.min((page as u64 + 1) * WORDS as u64);
            while word < stop {
                let (first, past) = ((4 * word).max(at), (4 * word + 4).min(end));
                let mask = ((1u32 << (past - first)) - 1) << (first % 4);
                let record = Record {
                    launch: self.from.launch,
                    cluster: self.from.cluster,
                    actor: who.actor,
                    epoch: who.epoch,
                    bytes: mask as u8,
                    strong: who.atomic,
                };
                let at = word as usize % WORDS;
                self.check(rivals, at, record, who, clock)?;
                own.put(at, record, who.pc);
                word += 1;
            }
        }
        Ok(())
    }

    #[inline]
    fn check(
        &self,
        rivals: [Option<&Page>; 2],
        word: usize,
        record: Record,
        who: &Access,
        clock: &Clock,
    ) -> Result<(), Rival> {
        for (n, page) in rivals.into_iter().enumerate() {
            let Some(page) = page else { continue };
            for (old, pc) in page.records(word).into_iter().flatten() {
                if self.unordered(old, pc, record, who, clock) {
                    let (cluster, actor, wrote) = (old.cluster, old.actor, n == 0);
                    let earlier = old.launch != record.launch;
                    return Err(Rival { cluster, actor, pc, wrote, earlier });
                }
            }
        }
        Ok(())
    }

    #[inline]
    fn unordered(&self, old: Record, pc: u32, new: Record, who: &Access, clock: &Clock) -> bool {
        if old.bytes & new.bytes == 0 || (old.strong && new.strong) {
            return false;
        }
        if old.launch != new.launch {
            return self.open(clock).contains(&old.launch);
        }
        if old.cluster != new.cluster {
            return clock.far(old.cluster, old.actor) < old.epoch;
        }
        // Copies by one engine are not ordered by that.
        if old.actor == new.actor && who.generic {
            return false;
        }
        let own_warp = old.actor.wrapping_sub(who.base) < 32;
        let together = self.write && own_warp && pc == who.pc;
        !together && clock.seen[old.actor as usize] < old.epoch
    }

    /// Checks and records an access of a full warp, each lane right after the one before, with
    /// one clock and one epoch for all; false, with nothing recorded, if that takes a look at
    /// each word.
    pub fn run(&self, at: u64, width: u32, who: &Access, clock: &Clock) -> bool {
        let new = RowRecord {
            launch: self.from.launch,
            cluster: self.from.cluster,
            warp: who.base / 32,
            epoch: who.epoch,
            first: 0,
            width,
            strong: who.atomic,
        };
        let fits = u64::from(who.epoch) < EPOCHS && u64::from(who.base) + 32 <= ACTORS;
        let alone = self.open(clock).is_empty();
        if !fits || !alone || !new.can_be(at) || who.base % 32 != 0 {
            return false;
        }
        let rows = u64::from(width) * 32 / ROW_BYTES;
        let place = |n: u64| {
            let row = at / ROW_BYTES + n;
            ((row / ROWS as u64) as usize, (row % ROWS as u64) as usize)
        };
        let each = |n: u64| RowRecord { first: n as u32 * ROW_BYTES as u32 / width, ..new };
        for n in 0..rows {
            let (page, row) = place(n);
            let rivals = self.rival_pages(page).into_iter().flatten();
            if !rivals.into_iter().all(|p| p.rows[row].ordered_before(&each(n), clock)) {
                return false;
            }
        }
        for n in 0..rows {
            let (page, row) = place(n);
            self.own_page(page).rows[row].put(&each(n), who.pc);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(actor: u32, pc: u32) -> Access {
        let (base, lane) = (actor / 32 * 32, actor % 32);
        Access { actor, base, lane, epoch: 1, pc, atomic: false, generic: true }
    }

    #[test]
    fn conflicts_need_the_same_bytes_and_launch() {
        let shadow = GlobalShadow::new(64);
        let clock = Clock::new(64, false);
        let go = |at, bytes, actor, cluster, launch, write| {
            let from = Origin { launch, cluster, open: [&[], &[]] };
            shadow.access(at, bytes, &who(actor, actor), from, &clock, write)
        };
        assert_eq!(go(0, 2, 0, 0, 1, true), Ok(()));
        assert_eq!(go(2, 2, 40, 0, 1, true), Ok(()), "other bytes of the word");
        assert!(go(2, 2, 0, 0, 1, true).is_err(), "unordered threads of a cluster");
        assert!(go(0, 4, 0, 1, 1, true).is_err(), "another cluster");
        assert_eq!(go(0, 4, 0, 1, 2, true), Ok(()), "another launch");
        assert_eq!(go(8, 8, 0, 0, 2, false), Ok(()));
        assert_eq!(go(8, 8, 40, 0, 2, false), Ok(()), "readers do not conflict");
        let rival = go(12, 4, 1, 0, 2, true).unwrap_err();
        assert_eq!((rival.actor, rival.wrote), (40, false));
    }

    #[test]
    fn records_keep_every_field() {
        let r = Record {
            launch: 255,
            cluster: 0xf_ffff,
            actor: 0x7fff,
            epoch: 0xffff,
            bytes: 15,
            strong: true,
        };
        assert_eq!(Record::unpack(r.pack()), r);
    }

    /// What a warp leaves as rows is found word by word, and the other way round.
    #[test]
    fn rows_and_words_agree() {
        let mut clock = Clock::new(128, false);
        let from = Origin { launch: 1, cluster: 0, open: [&[], &[]] };
        for width in [2u32, 4, 8, 16] {
            let shadow = GlobalShadow::new(1 << 20);
            let at = 16384 - 64;
            let pass = |write| shadow.pass(from, write).unwrap();
            assert!(pass(true).run(at, width, &who(32, 7), &clock));
            for lane in 0..32u64 {
                let own = at + lane * u64::from(width);
                let mine = who(32 + lane as u32, 8);
                assert_eq!(pass(false).access(own, width, &mine, &clock), Ok(()), "{width}");
                let rival = pass(false).access(own, width, &who(3, 9), &clock).unwrap_err();
                assert_eq!((rival.actor, rival.pc, rival.wrote), (32 + lane as u32, 7, true));
            }
            // Another warp cannot take the rows over, unless it knows of the first one's write.
            assert!(!pass(true).run(at, width, &who(64, 7), &clock));
            let known = |clock: &mut Clock, epoch| clock.seen[32..64].fill(epoch);
            known(&mut clock, 1);
            assert!(!pass(true).run(at, width, &who(64, 7), &clock), "reads stand in words");
            let reader = Origin { launch: 2, cluster: 0, open: [&[], &[]] };
            let later = shadow.pass(reader, false).unwrap();
            assert!(later.run(at, width, &who(64, 7), &clock), "another launch");
            known(&mut clock, 0);
            let writer = shadow.pass(reader, true).unwrap();
            let rival = writer.access(at, 1, &who(0, 1), &clock).unwrap_err();
            assert_eq!((rival.actor, rival.wrote), (64, false));
        }
    }

    /// Records of an earlier launch that may still run count until a thread has waited.
    #[test]
    fn launches_that_overlap() {
        for words in [false, true] {
            let shadow = GlobalShadow::new(4096);
            let mut clock = Clock::new(64, false);
            let first = Origin { launch: 1, cluster: 0, open: [&[], &[]] };
            match words {
                true => shadow.access(0, 64, &who(3, 7), first, &clock, true).unwrap(),
                false => assert!(shadow.pass(first, true).unwrap().run(0, 4, &who(0, 7), &clock)),
            }
            let second = Origin { launch: 2, cluster: 0, open: [&[1], &[]] };
            for (at, write) in [(0, false), (60, true)] {
                let go = |c: &Clock| shadow.access(at, 4, &who(3, 9), second, c, write);
                assert!(go(&clock).unwrap_err().earlier);
            }
            assert!(!shadow.pass(second, false).unwrap().run(0, 2, &who(0, 9), &clock));
            clock.waited = true;
            assert_eq!(shadow.access(0, 4, &who(3, 9), second, &clock, false), Ok(()));
        }
    }

    #[test]
    fn large_allocations_are_tracked_where_they_are_touched() {
        let shadow = GlobalShadow::new(1 << 33);
        let clock = Clock::new(64, false);
        let at = (1 << 33) - 8;
        let from = |cluster| Origin { launch: 1, cluster, open: [&[], &[]] };
        assert_eq!(shadow.access(at, 8, &who(0, 1), from(0), &clock, true), Ok(()));
        let rival = shadow.access(at + 4, 4, &who(0, 2), from(1), &clock, false).unwrap_err();
        assert_eq!((rival.cluster, rival.wrote), (0, true));
    }
}
