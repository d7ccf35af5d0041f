//! Accesses to memory as races are found by: which lanes of which warp, when; the set of
//! those that are kept; and what makes one of them a rival of a new access.
//!
//! A set keeps every access that a later one could still conflict with, as FastTrack's reads do
//! (Flanagan and Freund, 2009): an access leaves it when a later one of the same or a stronger kind
//! is ordered after it, because whoever is unordered with the first is unordered with the second.
//! Where clusters cannot be ordered at all, two accesses of different clusters stand for any
//! number: whatever conflicts with a third conflicts with one of them.

use super::shadow::{Access, Clock, Proxy};

/// Lanes of one warp that touched a word, or a row of words, at one epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Record {
    pub epoch: u32,
    pub cluster: u32,
    /// In a row, the lanes follow each other and share its bytes evenly.
    pub lanes: u32,
    pub pc: u32,
    /// Number of the warp in the cluster: its first thread over 32.
    pub warp: u16,
    /// 0: no record.
    pub launch: u8,
    /// Bytes of the word.
    pub bytes: u8,
    pub strong: bool,
    /// Number of the warp's store.
    pub store: u16,
    /// By the asynchronous engine, not by a thread.
    pub engine: bool,
}

/// Bytes of a row.
pub const ROW_BYTES: u64 = 64;
/// Words of a row.
pub const ROW_WORDS: usize = ROW_BYTES as usize / 4;

impl Record {
    /// An access of one thread or engine to bytes of a word.
    pub fn new(who: &Access, launch: u8, cluster: u32, bytes: u8) -> Self {
        Self {
            epoch: who.epoch,
            cluster,
            lanes: 1 << (who.actor % 32),
            pc: who.pc,
            warp: (who.actor / 32) as u16,
            launch,
            bytes,
            strong: who.atomic,
            store: who.store,
            engine: !who.generic,
        }
    }

    /// The number of a lane among the actors of the cluster.
    pub fn actor(&self, lane: u32) -> u32 {
        u32::from(self.warp) * 32 + lane
    }

    /// The record of a row as those of the lanes at one of its words.
    pub fn at_word(&self, word: u32) -> [Self; 2] {
        let (first, width) = (self.lanes.trailing_zeros(), 64 / self.lanes.count_ones().max(1));
        if width == 2 {
            let half = |lane: u32, bytes| Self { lanes: 1 << lane, bytes, ..*self };
            return [half(2 * word, 3), half(2 * word + 1, 12)];
        }
        let lane = (first + 4 * word / width) % 32;
        [Self { lanes: 1 << lane, ..*self }, Self::default()]
    }

    /// Whether the accesses are of one store, if they are of one warp.
    fn at_once(&self, other: &Self) -> bool {
        (self.pc, self.store) == (other.pc, other.store)
    }

    /// Whether the accesses are of one warp at one epoch and of one kind.
    fn alike(&self, other: &Self) -> bool {
        let key = |r: &Self| (r.warp, r.epoch, r.cluster, r.launch, r.bytes, r.strong, r.engine);
        key(self) == key(other)
    }
}

/// Why an access is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    Unordered,
    /// Not ordered after an access of an earlier launch.
    Earlier,
    /// Ordered, but by another proxy with no fence between.
    Unfenced(Proxy),
}

/// An access about to be made, and what its thread knows.
#[derive(Clone, Copy)]
pub struct Look<'a> {
    pub launch: u8,
    pub cluster: u32,
    pub write: bool,
    /// First thread of the warp.
    pub base: u32,
    /// Earlier launches that may still run, as far as the thread knows, and as far as any does.
    pub open: &'a [u8],
    pub kept: &'a [u8],
    /// No thread can know of those of other clusters.
    pub apart: bool,
    /// Writes by threads need this proxy's fence.
    pub proxy: Option<Proxy>,
    pub clock: &'a Clock,
}

/// The first of `lanes` whose epoch is not in `seen`, if any.
#[inline]
fn behind(seen: &[u32], warp: u16, lanes: u32, epoch: u32) -> Option<u32> {
    let first = lanes.trailing_zeros();
    let (from, count) = (usize::from(warp) * 32 + first as usize, lanes.count_ones());
    let dense = u64::from(lanes >> (first % 32)) + 1 == 1 << count;
    if dense
        && let Some(part) = seen.get(from..from + count as usize)
        && part.iter().fold(true, |all, e| all & (*e >= epoch))
    {
        return None;
    }
    let known = |lane: u32| seen.get(usize::from(warp) * 32 + lane as usize).copied().unwrap_or(0);
    (0..32).find(|lane| lanes >> lane & 1 != 0 && known(*lane) < epoch)
}

impl Look<'_> {
    /// Lanes of an earlier access whose own accesses are ordered by the program.
    #[inline]
    fn own(&self, old: &Record, new: &Record, row: bool) -> u32 {
        let near = old.cluster == self.cluster && old.warp == new.warp;
        if !near || old.engine || new.engine {
            return 0;
        }
        if row {
            return if old.lanes == new.lanes { old.lanes } else { 0 };
        }
        // Of several lanes at one word, each is ordered after itself alone.
        if new.lanes.is_power_of_two() { new.lanes } else { 0 }
    }

    /// The first lane of a record of this launch that the thread does not know of.
    #[inline]
    fn unknown(&self, old: &Record, lanes: u32) -> Option<u32> {
        if lanes == 0 {
            return None;
        }
        let near = old.cluster == self.cluster;
        let seen = if near { &self.clock.seen } else { self.clock.far_cluster(old.cluster) };
        behind(seen, old.warp, lanes, old.epoch)
    }

    /// The first lane of a record whose write no fence has made visible to the proxy.
    fn unfenced(&self, old: &Record, proxy: Proxy) -> Option<u32> {
        let near = old.cluster == self.cluster;
        let covered = match near {
            true => self.clock.proxied(proxy),
            false => self.clock.far_proxied(old.cluster, proxy),
        };
        behind(covered, old.warp, old.lanes, old.epoch)
    }

    /// Lanes of a warp that write one place at once, by one instruction: one of them wins, which
    /// is no race (CUDA programming guide, on simultaneous writes of a warp).
    fn together(&self, old: &Record, new: &Record) -> u32 {
        let same = self.write && old.at_once(new) && old.cluster == self.cluster && !new.engine;
        let of_warp = |lane: &u32| old.actor(*lane).wrapping_sub(self.base) < 32;
        if same { (0..32).filter(of_warp).fold(0, |m, lane| m | 1 << lane) } else { 0 }
    }

    /// The lane of an earlier access that a new one conflicts with, and why. For a row the answer
    /// may be too strict.
    #[inline]
    pub fn clash(&self, old: &Record, wrote: bool, new: &Record, row: bool) -> Option<(u32, Why)> {
        let meets = old.bytes & new.bytes != 0 && !(old.strong && new.strong);
        if !meets || old.launch == 0 {
            return None;
        }
        if old.launch != new.launch {
            let late = self.open.contains(&old.launch);
            return late.then_some((old.lanes.trailing_zeros(), Why::Earlier));
        }
        self.unordered(old, wrote, new, row)
    }

    /// As [`Self::clash`], for accesses of one launch that meet.
    fn unordered(&self, old: &Record, wrote: bool, new: &Record, row: bool) -> Option<(u32, Why)> {
        let mut own = self.own(old, new, row);
        if wrote && !row {
            own |= self.together(old, new);
        }
        if let Some(lane) = self.unknown(old, old.lanes & !own) {
            return Some((lane, Why::Unordered));
        }
        let proxy = self.proxy.filter(|_| wrote && !old.engine)?;
        self.unfenced(old, proxy).map(|lane| (lane, Why::Unfenced(proxy)))
    }

    /// Nobody asks for this launch's records any more.
    #[inline]
    pub fn forgotten(&self, launch: u8) -> bool {
        launch != self.launch && !self.kept.contains(&launch)
    }

    /// Whether a record need not be kept beside a new one.
    #[inline]
    fn past(&self, old: &Record, new: &Record, row: bool) -> bool {
        if old.launch != new.launch {
            return self.forgotten(old.launch);
        }
        let covered = old.bytes & !new.bytes == 0 && (old.strong || !new.strong);
        covered && self.unknown(old, old.lanes & !self.own(old, new, row)).is_none()
    }
}

/// Records of one place that later accesses could conflict with.
#[derive(Debug, Default)]
pub struct Set {
    near: [Record; 2],
    /// Most places have none, and there are many of them.
    #[allow(clippy::box_collection)]
    more: Option<Box<Vec<Record>>>,
}

impl Set {
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = &Record> {
        let more = self.more.iter().flat_map(|m| m.iter());
        self.near.iter().filter(|r| r.launch != 0).chain(more)
    }

    /// Whether there is no record.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.near.iter().all(|r| r.launch == 0) && self.more.as_ref().is_none_or(|m| m.is_empty())
    }

    /// Whether nothing here, records of a row, can conflict with an access to all of it.
    #[inline]
    pub fn admits(&self, wrote: bool, new: &Record, look: &Look<'_>) -> bool {
        let admits = |old: &Record| look.clash(old, wrote, new, true).is_none();
        self.near.iter().all(admits) && self.more.as_ref().is_none_or(|m| m.iter().all(admits))
    }

    /// The first record that a new access to a word conflicts with, its lane, and why.
    #[inline]
    pub fn clash(&self, wrote: bool, new: &Record, look: &Look<'_>) -> Option<(Record, u32, Why)> {
        let with =
            |old: &Record| look.clash(old, wrote, new, false).map(|(lane, why)| (*old, lane, why));
        for old in &self.near {
            if let Some(found) = with(old) {
                return Some(found);
            }
        }
        self.more.as_ref()?.iter().find_map(with)
    }

    pub fn clear(&mut self) {
        self.near = Default::default();
        if let Some(more) = &mut self.more {
            more.clear();
        }
    }

    /// Adds a record as it is.
    pub fn push(&mut self, new: Record) {
        match self.near.iter_mut().find(|r| r.launch == 0) {
            Some(free) => *free = new,
            None => self.more.get_or_insert_default().push(new),
        }
    }

    /// Adds an access that conflicts with none of the others.
    #[inline]
    pub fn add(&mut self, new: &Record, look: &Look<'_>, row: bool) {
        let joined = self.near.iter_mut().any(|old| merge(old, new, look, row))
            || self.more.iter_mut().any(|more| more.iter_mut().any(|r| merge(r, new, look, row)));
        if joined {
            return;
        }
        let mut free = None;
        let mut clusters = Clusters::default();
        for (n, old) in self.near.iter_mut().enumerate() {
            if old.launch == 0 || look.past(old, new, row) {
                old.launch = 0;
                free = free.or(Some(n));
            } else {
                clusters.note(old, new);
            }
        }
        if let Some(more) = &mut self.more {
            more.retain(|old| !look.past(old, new, row));
            more.iter().for_each(|old| clusters.note(old, new));
        }
        match free {
            _ if look.apart && clusters.two => {}
            Some(n) => self.near[n] = *new,
            None => self.more.get_or_insert_default().push(*new),
        }
    }

    /// Drops what a new write, which conflicts with none of it, stands for.
    #[inline]
    pub fn forget(&mut self, new: &Record, look: &Look<'_>, row: bool) {
        for old in &mut self.near {
            if old.launch != 0 && look.past(old, new, row) {
                old.launch = 0;
            }
        }
        if let Some(more) = &mut self.more {
            more.retain(|old| !look.past(old, new, row));
        }
    }
}

/// Whether an access is one with an earlier one of its warp, to which it then belongs.
#[inline]
fn merge(old: &mut Record, new: &Record, look: &Look<'_>, row: bool) -> bool {
    let same_lanes = old.lanes == new.lanes;
    // Lanes that write one place by different stores stay apart, unless those are atomic.
    let apart = row || (look.write && !old.strong && !old.at_once(new));
    let joins = same_lanes || !apart;
    if !joins || !old.alike(new) {
        return false;
    }
    old.lanes |= new.lanes;
    (old.pc, old.store) = (new.pc, new.store);
    true
}

/// Whether records that conflict with whatever a new one does are of two clusters.
#[derive(Default)]
struct Clusters {
    one: Option<u32>,
    two: bool,
}

impl Clusters {
    #[inline]
    fn note(&mut self, old: &Record, new: &Record) {
        let covers = new.bytes & !old.bytes == 0 && (new.strong || !old.strong);
        if old.launch == new.launch && covers {
            self.two |= *self.one.get_or_insert(old.cluster) != old.cluster;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Atomic updates of one word by any number of instructions are one record a warp, and still
    /// conflict with whoever does not know of them.
    #[test]
    fn atomics_of_a_warp_are_one() {
        let clock = Clock::new(64);
        let look = Look {
            launch: 1,
            cluster: 0,
            write: true,
            base: 0,
            open: &[],
            kept: &[],
            apart: false,
            proxy: None,
            clock: &clock,
        };
        let access = |actor: u32, store, atomic| {
            let (base, lane) = (actor / 32 * 32, actor % 32);
            let who = Access { actor, base, lane, epoch: 1, pc: 7, store, atomic, generic: true };
            Record::new(&who, 1, 0, 15)
        };
        let mut set = Set::default();
        for store in 0..100 {
            for first in [0, 32] {
                let new = access(first + u32::from(store) % 32, store, true);
                assert_eq!(set.clash(true, &new, &look).map(|found| found.1), None);
                set.add(&new, &look, false);
            }
        }
        assert_eq!(set.iter().count(), 2);
        assert!(set.iter().all(|r| r.lanes == u32::MAX));
        let plain = access(3, 100, false);
        let found = set.clash(true, &plain, &look).map(|(_, lane, why)| (lane, why));
        assert_eq!(found, Some((0, Why::Unordered)));
    }
}
