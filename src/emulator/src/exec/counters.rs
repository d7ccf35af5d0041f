//! What a launch counts: instructions, bytes, sectors, bank conflicts, matrix operations.

use super::warp::{V64, lanes};
use crate::isa::MatTy;

/// Counts of one launch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// Warp instructions by form (index of [`Kernel::forms`]), and lanes that executed them.
    pub by_form: Vec<(u64, u64)>,
    /// Bytes that lanes asked of global memory.
    pub global_read: u64,
    pub global_written: u64,
    /// 32-byte sectors touched by warp accesses, and the fewest that could hold their bytes.
    pub sectors: u64,
    pub sectors_least: u64,
    pub shared_read: u64,
    pub shared_written: u64,
    /// Passes through shared memory, and the fewest possible.
    pub wavefronts: u64,
    pub wavefronts_least: u64,
    /// Floating-point operations of matrix instructions by element type.
    pub tensor_flops: Vec<(MatTy, u64)>,
    pub barrier_waits: u64,
}

impl Counters {
    pub(crate) fn instruction(&mut self, form: u32, mask: u32) {
        if let Some(slot) = self.by_form.get_mut(form as usize) {
            slot.0 += 1;
            slot.1 += u64::from(mask.count_ones());
        }
    }

    pub(crate) fn tensor(&mut self, ty: MatTy, flops: u64) {
        match self.tensor_flops.iter_mut().find(|(t, _)| *t == ty) {
            Some(slot) => slot.1 += flops,
            None => self.tensor_flops.push((ty, flops)),
        }
    }

    pub(crate) fn access(&mut self, shared: bool, at: &V64, mask: u32, bytes: u32, write: bool) {
        let asked = u64::from(bytes) * u64::from(mask.count_ones());
        match (shared, write) {
            (true, false) => self.shared_read += asked,
            (true, true) => self.shared_written += asked,
            (false, false) => self.global_read += asked,
            (false, true) => self.global_written += asked,
        }
        if shared { self.banks(at, mask, bytes) } else { self.sector_count(at, mask, bytes) }
    }

    fn sector_count(&mut self, at: &V64, mask: u32, bytes: u32) {
        let mut units = [0u64; 64];
        let mut n = 0;
        for lane in lanes(mask) {
            let first = at[lane as usize] / 32;
            let last = (at[lane as usize] + u64::from(bytes) - 1) / 32;
            for sector in first..=last {
                if n == 0 || units[n - 1] != sector {
                    units[n.min(63)] = sector;
                    n = (n + 1).min(64);
                }
            }
        }
        let list = &mut units[..n];
        list.sort_unstable();
        let distinct = list.windows(2).filter(|w| w[0] != w[1]).count() + usize::from(n > 0);
        let mut addresses = [0u64; 32];
        let mut m = 0;
        for lane in lanes(mask) {
            addresses[m] = at[lane as usize];
            m += 1;
        }
        let used = &mut addresses[..m];
        used.sort_unstable();
        let different = used.windows(2).filter(|w| w[0] != w[1]).count() as u64 + u64::from(m > 0);
        self.sectors += distinct as u64;
        self.sectors_least += (different * u64::from(bytes)).div_ceil(32);
    }

    fn banks(&mut self, at: &V64, mask: u32, bytes: u32) {
        let words = bytes.div_ceil(4).max(1);
        let lanes_per_pass = 32 / words.min(4);
        let mut first = 0;
        while first < 32 {
            let part = mask & (u32::MAX >> (32 - lanes_per_pass)) << first;
            first += lanes_per_pass;
            if part == 0 {
                continue;
            }
            let mut bank_words: [[u64; 8]; 32] = [[u64::MAX; 8]; 32];
            let mut depth = [0usize; 32];
            for lane in lanes(part) {
                for w in 0..u64::from(words) {
                    let word = at[lane as usize] / 4 + w;
                    let bank = (word % 32) as usize;
                    let used = depth[bank].min(8);
                    if !bank_words[bank][..used].contains(&word) {
                        if used < 8 {
                            bank_words[bank][used] = word;
                        }
                        depth[bank] += 1;
                    }
                }
            }
            self.wavefronts += depth.iter().copied().max().unwrap_or(1) as u64;
            self.wavefronts_least += 1;
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (a, b) in self.by_form.iter_mut().zip(&other.by_form) {
            a.0 += b.0;
            a.1 += b.1;
        }
        self.global_read += other.global_read;
        self.global_written += other.global_written;
        self.sectors += other.sectors;
        self.sectors_least += other.sectors_least;
        self.shared_read += other.shared_read;
        self.shared_written += other.shared_written;
        self.wavefronts += other.wavefronts;
        self.wavefronts_least += other.wavefronts_least;
        self.barrier_waits += other.barrier_waits;
        for (ty, flops) in &other.tensor_flops {
            self.tensor(*ty, *flops);
        }
    }
}
