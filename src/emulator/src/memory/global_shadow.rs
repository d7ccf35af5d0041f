//! Who touched global memory last, within one launch.
//!
//! Of every four bytes the last weak or strong write and the last read are kept. Threads of one
//! cluster are ordered by their clocks. Threads of different clusters are ordered by nothing, so
//! a conflict between them is a race; kernels that order blocks themselves, by fences or by
//! acquire and release operations, are therefore left out by the caller.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use super::shadow::{Access, Clock};

/// Allocations above this size are not tracked: their records would take four times as much.
const LARGEST: u64 = 64 << 20;
const EPOCHS: u64 = 1 << 16;
const ACTORS: u64 = 1 << 15;
const CLUSTERS: u64 = 1 << 20;

type Table = OnceLock<Box<[(AtomicU64, AtomicU32)]>>;

/// Records of one allocation, made when a launch first asks.
#[derive(Debug)]
pub struct GlobalShadow {
    words: u64,
    writes: Table,
    reads: Table,
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
}

/// The other party of a race: a thread of this cluster or of another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rival {
    pub cluster: u32,
    pub actor: u32,
    pub pc: u32,
    pub wrote: bool,
}

/// The launch and cluster that an access belongs to.
#[derive(Debug, Clone, Copy)]
pub struct Origin {
    /// 1 to 255; records of other launches count for nothing.
    pub launch: u8,
    pub cluster: u32,
}

impl GlobalShadow {
    pub fn new(bytes: u64) -> Self {
        let words = if bytes > LARGEST { 0 } else { bytes.div_ceil(4) };
        Self { words, writes: OnceLock::new(), reads: OnceLock::new() }
    }

    fn table<'a>(&self, table: &'a Table) -> &'a [(AtomicU64, AtomicU32)] {
        table.get_or_init(|| (0..self.words).map(|_| Default::default()).collect())
    }

    /// Forgets everything, so that launch numbers can be used again.
    pub fn clear(&self) {
        for table in [&self.writes, &self.reads].into_iter().filter_map(|t| t.get()) {
            table.iter().for_each(|slot| slot.0.store(0, Relaxed));
        }
    }

    /// Checks and records an access of up to 32 bytes at `at`.
    pub fn access(
        &self,
        at: u64,
        bytes: u32,
        who: &Access,
        from: Origin,
        clock: &Clock,
        write: bool,
    ) -> Result<(), Rival> {
        self.pass(from, write).map_or(Ok(()), |pass| pass.access(at, bytes, who, clock))
    }

    /// The records as reads, or writes, of a cluster need them; `None` if they are not tracked.
    pub fn pass(&self, from: Origin, write: bool) -> Option<Pass<'_>> {
        if self.words == 0 || u64::from(from.cluster) >= CLUSTERS {
            return None;
        }
        let own = self.table(if write { &self.writes } else { &self.reads });
        let writes = if write { Some(own) } else { self.writes.get().map(|w| &**w) };
        let reads = if write { self.reads.get().map(|r| &**r) } else { None };
        Some(Pass { own, writes, reads, from, write })
    }
}

type Slot = (AtomicU64, AtomicU32);

/// Accesses of one kind by one cluster to one allocation.
pub struct Pass<'a> {
    /// Where the accesses are recorded.
    own: &'a [Slot],
    /// Records that they may conflict with.
    writes: Option<&'a [Slot]>,
    reads: Option<&'a [Slot]>,
    from: Origin,
    write: bool,
}

impl Pass<'_> {
    /// Checks and records an access of up to 32 bytes at `at`.
    #[inline]
    pub fn access(&self, at: u64, bytes: u32, who: &Access, clock: &Clock) -> Result<(), Rival> {
        if u64::from(who.epoch) >= EPOCHS || u64::from(who.actor) >= ACTORS {
            return Ok(());
        }
        let end = at + u64::from(bytes);
        for word in at / 4..end.div_ceil(4) {
            let (first, last) = ((4 * word).max(at), (4 * word + 4).min(end));
            let mask = ((1u32 << (last - first)) - 1) << (first % 4);
            let record = Record {
                launch: self.from.launch,
                cluster: self.from.cluster,
                actor: who.actor,
                epoch: who.epoch,
                bytes: mask as u8,
                strong: who.atomic,
            };
            self.word(word as usize, record, who, clock)?;
        }
        Ok(())
    }

    #[inline]
    fn word(&self, word: usize, record: Record, who: &Access, clock: &Clock) -> Result<(), Rival> {
        let unordered = |slot: &Slot| {
            let old = Record::unpack(slot.0.load(Relaxed));
            let concerns = old.launch == record.launch && old.bytes & record.bytes != 0;
            if !concerns || (old.strong && record.strong) {
                return None;
            }
            let same = old.cluster == record.cluster;
            if same && old.actor == record.actor {
                return None;
            }
            let pc = slot.1.load(Relaxed);
            let own_warp = same && old.actor.wrapping_sub(who.base) < 32;
            let ordered = same && clock.seen[old.actor as usize] >= old.epoch
                || self.write && own_warp && pc == who.pc;
            (!ordered).then_some((old, pc))
        };
        let rival = |(old, pc): (Record, u32), wrote| Rival {
            cluster: old.cluster,
            actor: old.actor,
            pc,
            wrote,
        };
        if let Some(found) = self.writes.and_then(|w| unordered(&w[word])) {
            return Err(rival(found, true));
        }
        if let Some(found) = self.reads.and_then(|r| unordered(&r[word])) {
            return Err(rival(found, false));
        }
        let slot = &self.own[word];
        slot.0.store(record.pack(), Relaxed);
        slot.1.store(who.pc, Relaxed);
        Ok(())
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
            let from = Origin { launch, cluster };
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
}
