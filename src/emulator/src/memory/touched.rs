//! Which sectors of global memory a launch read and wrote: each distinct one must cross the memory
//! bus at least once, however often caches serve it afterwards.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Memory;

/// Bytes of a sector.
const SECTOR: u64 = 32;

type Bits = OnceLock<Box<[AtomicU64]>>;

/// One bit a sector, for reads and for writes, made for an allocation when it is first touched.
#[derive(Debug, Default)]
pub struct Touched {
    /// Base and size of each allocation, ascending.
    ranges: Vec<(u64, u64)>,
    bits: Vec<[Bits; 2]>,
}

impl Touched {
    /// Nothing touched yet.
    pub fn new(memory: &Memory) -> Self {
        let ranges: Vec<_> = memory.allocations().collect();
        let bits = ranges.iter().map(|_| Default::default()).collect();
        Self { ranges, bits }
    }

    /// Marks sectors, given by address over 32. Sectors outside every allocation are ignored.
    pub fn mark(&self, sectors: &[u64], write: bool) {
        let mut last = usize::MAX;
        for sector in sectors {
            let address = sector * SECTOR;
            let inside = |i: usize| {
                self.ranges.get(i).is_some_and(|(base, size)| address.wrapping_sub(*base) < *size)
            };
            if !inside(last) {
                let after = self.ranges.partition_point(|(base, _)| *base <= address);
                last = after.wrapping_sub(1);
                if !inside(last) {
                    continue;
                }
            }
            let (base, size) = self.ranges[last];
            let words = size.div_ceil(SECTOR * 64);
            let make = || (0..words).map(|_| AtomicU64::new(0)).collect();
            let map = self.bits[last][usize::from(write)].get_or_init(make);
            let n = (address - base) / SECTOR;
            let (word, bit) = (&map[(n / 64) as usize], 1 << (n % 64));
            if word.load(Relaxed) & bit == 0 {
                word.fetch_or(bit, Relaxed);
            }
        }
    }

    /// Marks the sectors from `first` to `last`, all in one allocation.
    pub fn mark_run(&self, first: u64, last: u64, write: bool) {
        let after = self.ranges.partition_point(|(base, _)| *base <= first * SECTOR);
        let Some(at) = after.checked_sub(1) else { return };
        let (base, size) = self.ranges[at];
        let words = size.div_ceil(SECTOR * 64);
        let make = || (0..words).map(|_| AtomicU64::new(0)).collect();
        let map = self.bits[at][usize::from(write)].get_or_init(make);
        let (mut n, end) = (first - base / SECTOR, last - base / SECTOR + 1);
        while n < end {
            let stop = (n / 64 * 64 + 64).min(end);
            let bits = (u64::MAX >> (64 - (stop - n))) << (n % 64);
            let Some(word) = map.get((n / 64) as usize) else { return };
            if word.load(Relaxed) & bits != bits {
                word.fetch_or(bits, Relaxed);
            }
            n = stop;
        }
    }

    /// Bytes of distinct sectors read, and written.
    pub fn bytes(&self) -> (u64, u64) {
        let sum = |write: usize| {
            let maps = self.bits.iter().filter_map(|b| b[write].get());
            let ones =
                |m: &[AtomicU64]| m.iter().map(|w| u64::from(w.load(Relaxed).count_ones())).sum();
            SECTOR * maps.map(|m| -> u64 { ones(m) }).sum::<u64>()
        };
        (sum(0), sum(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distinct_sectors_count_once() {
        let mut memory = Memory::new();
        let (a, b) = (memory.alloc(100).unwrap(), memory.alloc(4096).unwrap());
        let touched = Touched::new(&memory);
        touched.mark(&[a / 32, a / 32 + 3, a / 32], false);
        touched.mark(&[b / 32, b / 32 + 127, 5], false);
        touched.mark(&[b / 32 + 64], true);
        assert_eq!(touched.bytes(), (4 * 32, 32));
        touched.mark_run(b / 32 + 60, b / 32 + 70, true);
        assert_eq!(touched.bytes(), (4 * 32, 11 * 32));
    }
}
