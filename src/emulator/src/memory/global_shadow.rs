//! Who touched global memory, as far as somebody may still race with it.
//!
//! Threads of one cluster are ordered by their clocks; threads of different clusters only by what
//! their clocks know of each other's. [`super::record`] says what is kept and what conflicts.
//!
//! Records are kept in pages that exist once they are touched. A full warp that touches
//! consecutive addresses leaves one record a row of 64 bytes; everything else leaves one a word.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use super::record::{Look, ROW_BYTES, ROW_WORDS, Record, Set, Why};
use super::shadow::{Access, Clock, Proxy};

/// Rows and bytes of a page.
const ROWS: usize = 256;
const PAGE_BYTES: u64 = ROWS as u64 * ROW_BYTES;

/// Records of 64 bytes: of all of them at once, or word by word.
#[derive(Debug, Default)]
struct Row {
    whole: Set,
    words: Option<Box<[Set; ROW_WORDS]>>,
    /// The last launch in which the words' records were the ones that hold; 0: the row's are.
    in_words: u8,
}

impl Row {
    #[inline]
    fn is_in_words(&self, look: &Look<'_>) -> bool {
        self.in_words != 0 && !look.forgotten(self.in_words)
    }

    /// Whether nothing here conflicts with an access to the whole row, as far as can be said
    /// without a look at words.
    #[inline]
    fn admits(&self, wrote: bool, new: &Record, look: &Look<'_>) -> bool {
        !self.is_in_words(look)
            && self.whole.iter().all(|old| look.clash(old, wrote, new, true).is_none())
    }

    /// The record of a word that an access conflicts with, its lane, and why.
    fn clash(
        &self,
        word: usize,
        wrote: bool,
        new: &Record,
        look: &Look<'_>,
    ) -> Option<(Record, u32, Why)> {
        let with =
            |old: &Record| look.clash(old, wrote, new, false).map(|(lane, why)| (*old, lane, why));
        match &self.words {
            Some(words) if self.is_in_words(look) => words[word].iter().find_map(with),
            _ => {
                let mut parts = self.whole.iter().flat_map(|row| row.at_word(word as u32));
                parts.find_map(|old| with(&old))
            }
        }
    }

    /// The records of the row's words, which hold from now on.
    fn words(&mut self, look: &Look<'_>) -> &mut [Set; ROW_WORDS] {
        let spread = !self.is_in_words(look);
        self.in_words = look.launch;
        let words = self.words.get_or_insert_default();
        if spread {
            for (n, set) in words.iter_mut().enumerate() {
                set.clear();
                let parts = self.whole.iter().flat_map(|row| row.at_word(n as u32));
                parts.filter(|p| p.launch != 0).for_each(|p| set.push(p));
            }
        }
        words
    }

    /// The record of the whole row, which holds from now on.
    #[inline]
    fn whole(&mut self) -> &mut Set {
        if self.in_words != 0 {
            self.in_words = 0;
            self.whole.clear();
        }
        &mut self.whole
    }
}

type Rows = Box<[Row]>;

/// Pages by number.
type Pages = Box<[OnceLock<Box<Mutex<Rows>>>]>;

/// Records of one allocation, made when a launch first asks.
#[derive(Debug)]
pub struct GlobalShadow {
    bytes: u64,
    writes: OnceLock<Pages>,
    reads: OnceLock<Pages>,
}

/// The other party of a race: a thread of this cluster or of another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rival {
    /// The lane that made the new access.
    pub lane: u32,
    pub cluster: u32,
    pub actor: u32,
    pub pc: u32,
    pub wrote: bool,
    /// The access was one of an earlier launch.
    pub earlier: bool,
    /// It is ordered before, but lacks this proxy's fence.
    pub unfenced: Option<Proxy>,
}

/// The launch and cluster that an access belongs to.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// 1 to 255; records of other launches count for nothing, except those named here.
    pub launch: u8,
    pub cluster: u32,
    /// Earlier launches that may still run when this one begins, and when a thread has waited.
    pub open: [&'a [u8]; 2],
    /// Threads order memory by flags, across clusters too.
    pub flags: bool,
}

impl GlobalShadow {
    pub fn new(bytes: u64) -> Self {
        Self { bytes, writes: OnceLock::new(), reads: OnceLock::new() }
    }

    /// Forgets everything, so that launch numbers can be used again.
    pub fn clear(&self) {
        let tables = [&self.writes, &self.reads].into_iter().filter_map(|t| t.get());
        for page in tables.flat_map(|pages| pages.iter()).filter_map(|p| p.get()) {
            for row in lock(page).iter_mut() {
                row.whole.clear();
                row.in_words = 0;
            }
        }
    }

    /// The records as reads, or writes, of a cluster need them.
    pub fn pass<'a>(&'a self, from: Origin<'a>, write: bool) -> Pass<'a> {
        let count = self.bytes.div_ceil(PAGE_BYTES);
        let make = || (0..count).map(|_| OnceLock::new()).collect();
        let own = if write { &self.writes } else { &self.reads };
        own.get_or_init(make);
        let [writes, reads] = [&self.writes, &self.reads].map(|t| t.get().map(|pages| &**pages));
        Pass { writes, reads, from, write, page: None }
    }
}

fn lock(page: &Mutex<Rows>) -> MutexGuard<'_, Rows> {
    page.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The locked records of a page: those of writes, and of reads.
struct Held<'a> {
    number: u64,
    writes: Option<MutexGuard<'a, Rows>>,
    reads: Option<MutexGuard<'a, Rows>>,
}

/// Accesses of one kind by one cluster to one allocation.
pub struct Pass<'a> {
    writes: Option<&'a [OnceLock<Box<Mutex<Rows>>>]>,
    reads: Option<&'a [OnceLock<Box<Mutex<Rows>>>]>,
    from: Origin<'a>,
    write: bool,
    /// The page of the last access.
    page: Option<Held<'a>>,
}

impl<'a> Pass<'a> {
    fn look<'c>(&self, who: &Access, clock: &'c Clock) -> Look<'c>
    where
        'a: 'c,
    {
        let [at_begin, after_wait] = self.from.open;
        Look {
            launch: self.from.launch,
            cluster: self.from.cluster,
            write: self.write,
            base: who.base,
            open: if clock.waited { after_wait } else { at_begin },
            kept: at_begin,
            apart: !self.from.flags && at_begin.is_empty(),
            proxy: (!who.generic).then_some(Proxy::AsyncGlobal),
            clock,
        }
    }

    /// Locks a page; the one before is let go, so that nobody holds two places at once.
    fn hold(&mut self, number: u64) -> &mut Held<'a> {
        if self.page.as_ref().is_none_or(|held| held.number != number) {
            self.page = None;
        }
        let (writes, reads, write) = (self.writes, self.reads, self.write);
        self.page.get_or_insert_with(|| {
            let new = || Box::new(Mutex::new((0..ROWS).map(|_| Row::default()).collect()));
            // Writes come first for everybody.
            let [writes, reads] = [(writes, write), (reads, !write)].map(|(table, own)| {
                let page = &table?[number as usize];
                let page = if own { Some(page.get_or_init(new)) } else { page.get() };
                page.map(|page| lock(page))
            });
            Held { number, writes, reads }
        })
    }

    /// Checks and records an access of one thread, or of an engine, of any length at `at`.
    pub fn access(
        &mut self,
        at: u64,
        bytes: u32,
        who: &Access,
        clock: &Clock,
    ) -> Result<(), Rival> {
        let look = self.look(who, clock);
        self.range(at, bytes, Record::new(who, look.launch, look.cluster, 15), &look)
    }

    /// As [`Self::access`] for all lanes of a warp that read one place, with one clock and epoch.
    pub fn read_by_warp(
        &mut self,
        at: u64,
        bytes: u32,
        who: &Access,
        clock: &Clock,
    ) -> Result<(), Rival> {
        let look = self.look(who, clock);
        let new = Record::new(who, look.launch, look.cluster, 15);
        self.range(at, bytes, Record { lanes: u32::MAX, ..new }, &look)
    }

    /// Checks a thread's read of a tensor map, which the tensor map proxy makes.
    pub fn map(&mut self, at: u64, bytes: u32, who: &Access, clock: &Clock) -> Result<(), Rival> {
        let look = Look { proxy: Some(Proxy::TensorMap), ..self.look(who, clock) };
        self.range(at, bytes, Record::new(who, look.launch, look.cluster, 15), &look)
    }

    fn range(&mut self, at: u64, bytes: u32, new: Record, look: &Look<'_>) -> Result<(), Rival> {
        let end = at + u64::from(bytes);
        let mut from = at;
        while from < end {
            let row = from / ROW_BYTES;
            let next = (ROW_BYTES * (row + 1)).min(end);
            let held = self.hold(row / ROWS as u64);
            let row = row as usize % ROWS;
            if next - from == ROW_BYTES && new.lanes.is_power_of_two() {
                held.row(row, &new, look)?;
            } else {
                while from < next {
                    let past = (from / 4 * 4 + 4).min(next);
                    let mask = ((1u32 << (past - from)) - 1) << (from % 4);
                    let part = Record { bytes: mask as u8, ..new };
                    held.word(row, (from / 4) as usize % ROW_WORDS, &part, look)?;
                    from = past;
                }
            }
            from = next;
        }
        Ok(())
    }

    /// Checks and records an access of a full warp, each lane right after the one before, with
    /// one clock and one epoch for all, to whole rows.
    #[inline]
    pub fn run(&mut self, at: u64, width: u32, who: &Access, clock: &Clock) -> Result<(), Rival> {
        let look = self.look(who, clock);
        let new = Record::new(who, look.launch, look.cluster, 15);
        let lanes = ROW_BYTES as u32 / width.clamp(2, 64);
        let first = at / ROW_BYTES;
        for n in 0..32 / lanes {
            let row = first + u64::from(n);
            let mask = (u64::MAX >> (64 - lanes)) as u32;
            let part = Record { lanes: mask << (n * lanes), ..new };
            self.hold(row / ROWS as u64).row(row as usize % ROWS, &part, &look)?;
        }
        Ok(())
    }
}

/// Whether an access of a full warp at `at` is made of whole rows.
pub fn whole_rows(at: u64, width: u32, base: u32) -> bool {
    matches!(width, 2 | 4 | 8 | 16) && at.is_multiple_of(ROW_BYTES) && base.is_multiple_of(32)
}

impl Held<'_> {
    /// Checks and records an access to a whole row.
    #[inline]
    fn row(&mut self, at: usize, new: &Record, look: &Look<'_>) -> Result<(), Rival> {
        let (writes, reads) = (&mut self.writes, &mut self.reads);
        let mut clear = writes.as_ref().is_none_or(|w| w[at].admits(true, new, look));
        let own = if look.write {
            clear &= reads.as_ref().is_none_or(|r| r[at].admits(false, new, look));
            writes
        } else {
            reads
        };
        if !clear || own.as_ref().is_some_and(|own| own[at].is_in_words(look)) {
            return self.by_words(at, new, look);
        }
        if let Some(own) = own {
            own[at].whole().add(new, look, true);
        }
        if look.write
            && let Some(reads) = &mut self.reads
        {
            reads[at].whole.forget(new, look, true);
        }
        Ok(())
    }

    #[cold]
    fn by_words(&mut self, at: usize, new: &Record, look: &Look<'_>) -> Result<(), Rival> {
        for word in 0..ROW_WORDS {
            for part in new.at_word(word as u32) {
                if part.launch != 0 {
                    self.word(at, word, &part, look)?;
                }
            }
        }
        Ok(())
    }

    /// Checks and records an access to a word of a row.
    fn word(&mut self, at: usize, word: usize, new: &Record, look: &Look<'_>) -> Result<(), Rival> {
        let rivals = [(&self.writes, true), (&self.reads, false)];
        for (rows, wrote) in rivals.into_iter().filter(|(_, wrote)| *wrote || look.write) {
            let Some(rows) = rows else { continue };
            if let Some((old, lane, why)) = rows[at].clash(word, wrote, new, look) {
                let unfenced = if let Why::Unfenced(proxy) = why { Some(proxy) } else { None };
                return Err(Rival {
                    lane: new.lanes.trailing_zeros(),
                    cluster: old.cluster,
                    actor: old.actor(lane),
                    pc: old.pc,
                    wrote,
                    earlier: why == Why::Earlier,
                    unfenced,
                });
            }
        }
        let own = if look.write { &mut self.writes } else { &mut self.reads };
        if let Some(own) = own {
            own[at].words(look)[word].add(new, look, false);
        }
        if look.write
            && let Some(reads) = &mut self.reads
            && reads[at].is_in_words(look)
        {
            reads[at].words(look)[word].forget(new, look, false);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
