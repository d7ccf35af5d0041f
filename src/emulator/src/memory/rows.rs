//! One record for 64 bytes of global memory that a full warp touched by one instruction, each lane
//! right after the one before.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use super::shadow::Clock;

/// Bytes of a row.
pub const ROW_BYTES: u64 = 64;

/// What a warp did to a row, packed in 60 bits: launch 8, cluster 20, warp 10, epoch 16, place of
/// the row in the access 3, width 2, strong 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowRecord {
    pub launch: u8,
    pub cluster: u32,
    /// Number of the warp in the cluster: its first thread over 32.
    pub warp: u32,
    pub epoch: u32,
    /// Lane at the row's first byte.
    pub first: u32,
    /// Bytes of each lane: 2, 4, 8 or 16.
    pub width: u32,
    pub strong: bool,
}

impl RowRecord {
    /// Whether an access of this width at `at` is made of whole rows.
    pub fn can_be(&self, at: u64) -> bool {
        matches!(self.width, 2 | 4 | 8 | 16) && at.is_multiple_of(ROW_BYTES)
    }

    /// Lanes that share the row.
    fn lanes(&self) -> u32 {
        ROW_BYTES as u32 / self.width
    }

    #[inline]
    fn pack(&self) -> u64 {
        // With two bytes a lane all 32 lanes share one row, and the place is 0.
        let place = u64::from(self.first / self.lanes());
        u64::from(self.launch) << 56
            | u64::from(self.cluster) << 36
            | u64::from(self.warp) << 26
            | u64::from(self.epoch) << 10
            | place << 3
            | u64::from(self.width.trailing_zeros() - 1) << 1
            | u64::from(self.strong)
    }

    #[inline]
    fn unpack(bits: u64) -> Self {
        let width = 2 << (bits >> 1 & 3);
        Self {
            launch: (bits >> 56) as u8,
            cluster: (bits >> 36) as u32 & 0xf_ffff,
            warp: (bits >> 26) as u32 & 0x3ff,
            epoch: (bits >> 10) as u32 & 0xffff,
            first: (bits >> 3 & 7) as u32 * (ROW_BYTES as u32 / width),
            width,
            strong: bits & 1 != 0,
        }
    }

    /// The lanes at a word of the row, and which of its bytes they have.
    pub fn lanes_of(&self, word: u32) -> [Option<(u32, u8)>; 2] {
        if self.width == 2 {
            return [Some((2 * word, 3)), Some((2 * word + 1, 12))];
        }
        [Some((self.first + 4 * word / self.width, 15)), None]
    }
}

/// The record of a row. It holds unless words of the row have records of their own.
#[derive(Debug, Default)]
pub struct Row {
    record: AtomicU64,
    pc: AtomicU32,
    /// The last launch in which words got records of their own; 0 while the row's record holds.
    words: AtomicU32,
}

impl Row {
    #[inline]
    pub fn has_words(&self, launch: u8) -> bool {
        self.words.load(Relaxed) == u32::from(launch)
    }

    /// Whether the words' records hold, of whatever launch.
    #[inline]
    pub fn is_in_words(&self) -> bool {
        self.words.load(Relaxed) != 0
    }

    /// From now on the words have records.
    pub fn use_words(&self, launch: u8) {
        self.words.store(launch.into(), Relaxed);
    }

    pub fn clear(&self) {
        self.record.store(0, Relaxed);
        self.words.store(0, Relaxed);
    }

    /// The row's record, of whatever launch, and its instruction.
    #[inline]
    pub fn record(&self) -> Option<(RowRecord, u32)> {
        let record = RowRecord::unpack(self.record.load(Relaxed));
        (record.launch != 0).then(|| (record, self.pc.load(Relaxed)))
    }

    /// Whether everything that the row remembers is ordered before an access, as far as can be
    /// said without a look at words.
    #[inline]
    pub fn ordered_before(&self, new: &RowRecord, clock: &Clock) -> bool {
        if self.has_words(new.launch) {
            return false;
        }
        let old = RowRecord::unpack(self.record.load(Relaxed));
        if old.launch != new.launch || (old.strong && new.strong) {
            return true;
        }
        let near = old.cluster == new.cluster;
        let same = |r: &RowRecord| (r.warp, r.first, r.width);
        if near && same(&old) == same(new) {
            return true;
        }
        let seen = if near { &clock.seen } else { clock.far_cluster(old.cluster) };
        let from = (old.warp * 32 + old.first) as usize;
        let lanes = seen.get(from..from + old.lanes() as usize);
        lanes.is_some_and(|l| l.iter().fold(true, |all, e| all & (*e >= old.epoch)))
    }

    #[inline]
    pub fn put(&self, record: &RowRecord, pc: u32) {
        self.record.store(record.pack(), Relaxed);
        self.pc.store(pc, Relaxed);
        self.words.store(0, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_keep_every_field() {
        for (width, first) in [(2, 0), (4, 16), (8, 24), (16, 28)] {
            let (launch, cluster, warp, epoch) = (255, 0xf_ffff, 0x3ff, 0xffff);
            for strong in [false, true] {
                let r = RowRecord { launch, cluster, warp, epoch, first, width, strong };
                assert_eq!(RowRecord::unpack(r.pack()), r);
            }
        }
    }
}
