//! What a launch counts: instructions, bytes, sectors, bank conflicts, matrix operations.

use super::warp::{V64, lanes};
use crate::isa::MatTy;

/// What one instruction of the kernel did, over all warps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Site {
    /// Warps that issued it, and lanes that executed it.
    pub warps: u64,
    pub lanes: u64,
    /// Bytes asked of global memory (copies by the asynchronous engine included).
    pub global_bytes: u64,
    pub sectors: u64,
    pub sectors_least: u64,
    /// Bytes asked of shared memory.
    pub shared_bytes: u64,
    pub wavefronts: u64,
    pub wavefronts_least: u64,
    /// Times that a warp waited here, or asked in vain.
    pub waits: u64,
}

impl Site {
    /// Adds another instruction's counts.
    pub fn add(&mut self, other: &Self) {
        self.warps += other.warps;
        self.lanes += other.lanes;
        self.global_bytes += other.global_bytes;
        self.sectors += other.sectors;
        self.sectors_least += other.sectors_least;
        self.shared_bytes += other.shared_bytes;
        self.wavefronts += other.wavefronts;
        self.wavefronts_least += other.wavefronts_least;
        self.waits += other.waits;
    }
}

/// Counts of one launch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// By instruction (index into [`crate::isa::Kernel::code`]).
    pub sites: Vec<Site>,
    /// Warp instructions by form (index of [`crate::isa::Kernel::forms`]), and lanes that
    /// executed them; filled in when the launch is over.
    pub by_form: Vec<(u64, u64)>,
    /// Bytes that lanes and copies asked of global memory.
    pub global_read: u64,
    pub global_written: u64,
    /// 32-byte sectors touched by each access, and the fewest that could hold their bytes.
    pub sectors: u64,
    pub sectors_least: u64,
    /// Bytes of distinct sectors that the launch read and wrote: what must cross the memory bus
    /// at least once.
    pub distinct_read: u64,
    pub distinct_written: u64,
    pub shared_read: u64,
    pub shared_written: u64,
    /// Bytes of local memory (spills, arrays indexed at run time).
    pub local_read: u64,
    pub local_written: u64,
    /// Passes through shared memory, and the fewest possible.
    pub wavefronts: u64,
    pub wavefronts_least: u64,
    /// Floating-point operations of matrix instructions by element type.
    pub tensor_flops: Vec<(MatTy, u64)>,
    pub barrier_waits: u64,
}

/// An access to memory as the counters see it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counted {
    pub write: bool,
    /// Bytes of each lane.
    pub bytes: u32,
    pub pc: u32,
}

/// Distinct 32-byte sectors of an access.
pub(crate) type Sectors = ([u64; 64], usize);

impl Counters {
    pub(crate) fn instruction(&mut self, pc: u32, mask: u32) {
        if let Some(site) = self.sites.get_mut(pc as usize) {
            site.warps += 1;
            // Counting bits is slow where the processor's instruction for it may not be used.
            site.lanes += if mask == u32::MAX { 32 } else { mask.count_ones().into() };
        }
    }

    pub(crate) fn waited(&mut self, pc: u32) {
        self.barrier_waits += 1;
        if let Some(site) = self.sites.get_mut(pc as usize) {
            site.waits += 1;
        }
    }

    pub(crate) fn tensor(&mut self, ty: MatTy, flops: u64) {
        match self.tensor_flops.iter_mut().find(|(t, _)| *t == ty) {
            Some(slot) => slot.1 += flops,
            None => self.tensor_flops.push((ty, flops)),
        }
    }

    /// Counts an access of a warp to shared memory.
    pub(crate) fn shared(&mut self, what: Counted, at: &V64, mask: u32) {
        let asked = u64::from(what.bytes) * u64::from(mask.count_ones());
        self.shared_traffic(what.pc, what.write, asked, banks(at, mask, what.bytes));
    }

    /// Counts an access of a warp to global memory; returns its sectors.
    pub(crate) fn global(&mut self, what: Counted, at: &V64, mask: u32) -> Sectors {
        let asked = u64::from(what.bytes) * u64::from(mask.count_ones());
        let (sectors, least) = distinct_sectors(at, mask, what.bytes);
        self.global_traffic(what.pc, what.write, asked, (sectors.1 as u64, least));
        sectors
    }

    /// Adds shared-memory traffic: bytes, passes and the fewest passes.
    pub(crate) fn shared_traffic(&mut self, pc: u32, write: bool, bytes: u64, by: (u64, u64)) {
        *if write { &mut self.shared_written } else { &mut self.shared_read } += bytes;
        self.wavefronts += by.0;
        self.wavefronts_least += by.1;
        if let Some(site) = self.sites.get_mut(pc as usize) {
            site.shared_bytes += bytes;
            site.wavefronts += by.0;
            site.wavefronts_least += by.1;
        }
    }

    /// Adds global traffic: bytes, sectors and the fewest sectors.
    pub(crate) fn global_traffic(&mut self, pc: u32, write: bool, bytes: u64, by: (u64, u64)) {
        *if write { &mut self.global_written } else { &mut self.global_read } += bytes;
        self.sectors += by.0;
        self.sectors_least += by.1;
        if let Some(site) = self.sites.get_mut(pc as usize) {
            site.global_bytes += bytes;
            site.sectors += by.0;
            site.sectors_least += by.1;
        }
    }

    /// Sums the instructions of each form.
    pub(crate) fn sum_forms(&mut self, forms: usize, form_of: impl Fn(usize) -> u32) {
        self.by_form = vec![(0, 0); forms];
        for (pc, site) in self.sites.iter().enumerate() {
            if let Some(slot) = self.by_form.get_mut(form_of(pc) as usize) {
                slot.0 += site.warps;
                slot.1 += site.lanes;
            }
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (a, b) in self.sites.iter_mut().zip(&other.sites) {
            a.add(b);
        }
        self.global_read += other.global_read;
        self.global_written += other.global_written;
        self.sectors += other.sectors;
        self.sectors_least += other.sectors_least;
        self.shared_read += other.shared_read;
        self.shared_written += other.shared_written;
        self.local_read += other.local_read;
        self.local_written += other.local_written;
        self.wavefronts += other.wavefronts;
        self.wavefronts_least += other.wavefronts_least;
        self.barrier_waits += other.barrier_waits;
        for (ty, flops) in &other.tensor_flops {
            self.tensor(*ty, *flops);
        }
    }
}

/// Moves the distinct numbers to the front, ascending; how many there are.
fn distinct(list: &mut [u64]) -> usize {
    // Lanes mostly go upwards, in steps.
    if list.windows(2).all(|w| w[0] < w[1]) {
        return list.len();
    }
    list.sort_unstable();
    let mut kept = 0;
    for i in 0..list.len() {
        if kept == 0 || list[kept - 1] != list[i] {
            list[kept] = list[i];
            kept += 1;
        }
    }
    kept
}

/// Distinct sectors that lanes touch, and the fewest that could hold the distinct bytes.
fn distinct_sectors(at: &V64, mask: u32, bytes: u32) -> (Sectors, u64) {
    let mut units = [0u64; 64];
    let mut n = 0;
    let width = u64::from(bytes);
    if mask == u32::MAX && width <= 32 && at.windows(2).all(|w| w[1] == w[0] + width) {
        // Consecutive addresses, the usual case: nothing to sort.
        let (first, last) = (at[0] / 32, (at[31] + width - 1) / 32);
        for sector in first..=last {
            units[n] = sector;
            n += 1;
        }
        return ((units, n), width);
    }
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
    let kept = distinct(&mut units[..n]);
    let mut addresses = [0u64; 32];
    let mut m = 0;
    for lane in lanes(mask) {
        addresses[m] = at[lane as usize];
        m += 1;
    }
    let different = distinct(&mut addresses[..m]) as u64;
    ((units, kept), (different * u64::from(bytes)).div_ceil(32))
}

/// Whether two lanes use the same bank, each for one word; not so if all use the same word.
fn shared_bank(at: &V64, mask: u32) -> bool {
    let word = at[mask.trailing_zeros() as usize % 32] / 4;
    if lanes(mask).all(|lane| at[lane as usize] / 4 == word) {
        return false;
    }
    let mut banks = 0u32;
    for lane in lanes(mask) {
        let bank = 1 << (at[lane as usize] / 4 % 32);
        if banks & bank != 0 {
            return true;
        }
        banks |= bank;
    }
    false
}

/// Passes through the 32 banks that an access takes, and the fewest possible. Accesses of 8 and
/// 16 bytes go by half and quarter warps; lanes that read the same word share it.
fn banks(at: &V64, mask: u32, bytes: u32) -> (u64, u64) {
    let words = bytes.div_ceil(4).max(1);
    let lanes_per_pass = 32 / words.min(4);
    if words == 1 && !shared_bank(at, mask) {
        return (1, 1);
    }
    let (mut passes, mut least) = (0, 0);
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
        passes += depth.iter().copied().max().unwrap_or(1) as u64;
        least += 1;
    }
    (passes, least)
}
