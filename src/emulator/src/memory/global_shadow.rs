//! Who touched global memory, as far as somebody may still race with it.
//!
//! Threads of one cluster are ordered by their clocks; threads of different clusters only by what
//! their clocks know of each other's. [`super::record`] says what is kept and what conflicts.
//!
//! Records are kept in pages that exist once they are touched, by rows ([`super::rows`]).

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use super::record::{Look, ROW_BYTES, Record};
pub use super::rows::{Rival, whole_rows};
use super::rows::{Row, Table, lanes_by_row, parts};
use super::shadow::{Access, Clock, Proxy};

/// Rows and bytes of a page.
const ROWS: usize = 256;
const PAGE_BYTES: u64 = ROWS as u64 * ROW_BYTES;

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
                row.forget_all();
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

    /// As [`Self::access`] for lanes of a warp, each at its place, with one clock and one epoch.
    pub fn lanes(
        &mut self,
        places: impl Iterator<Item = (u32, u64)>,
        bytes: u32,
        who: &Access,
        clock: &Clock,
    ) -> Result<(), Rival> {
        let look = self.look(who, clock);
        let new = Record::new(who, look.launch, look.cluster, 15);
        for (lane, at) in places {
            self.range(at, bytes, Record { lanes: 1 << lane, ..new }, &look)?;
        }
        Ok(())
    }

    /// Checks a thread's read of a tensor map, which the tensor map proxy makes.
    pub fn map(&mut self, at: u64, bytes: u32, who: &Access, clock: &Clock) -> Result<(), Rival> {
        let look = Look { proxy: Some(Proxy::TensorMap), ..self.look(who, clock) };
        self.range(at, bytes, Record::new(who, look.launch, look.cluster, 15), &look)
    }

    fn range(&mut self, at: u64, bytes: u32, new: Record, look: &Look<'_>) -> Result<(), Rival> {
        for (row, from, to) in parts(at, bytes.into()) {
            let mut table = self.hold(row / ROWS as u64).table();
            table.part(row as usize % ROWS, (from, to), &new, look)?;
        }
        Ok(())
    }

    /// Checks and records an access of a full warp, each lane right after the one before, with
    /// one clock and one epoch for all, to whole rows.
    #[inline]
    pub fn run(&mut self, at: u64, width: u32, who: &Access, clock: &Clock) -> Result<(), Rival> {
        let look = self.look(who, clock);
        let new = Record::new(who, look.launch, look.cluster, 15);
        for (row, part) in lanes_by_row(at, width, new) {
            self.hold(row / ROWS as u64).table().row(row as usize % ROWS, &part, &look)?;
        }
        Ok(())
    }
}

impl Held<'_> {
    #[inline]
    fn table(&mut self) -> Table<'_> {
        let [writes, reads] =
            [&mut self.writes, &mut self.reads].map(|rows| rows.as_mut().map(|rows| &mut ***rows));
        Table { writes, reads }
    }
}

#[cfg(test)]
mod tests;
