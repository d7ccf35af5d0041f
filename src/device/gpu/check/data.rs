//! Seeded inputs, storage types, and how far a rounded result may be from the exact one.

use half::{bf16, f16};

/// How numbers lie in device memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    F32,
    Bf16,
    F16,
}

impl Store {
    /// The two activation types.
    pub const HALVES: [Store; 2] = [Store::Bf16, Store::F16];

    /// As symbols spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Store::F32 => "f32",
            Store::Bf16 => "bf16",
            Store::F16 => "f16",
        }
    }

    pub const fn bytes(self) -> usize {
        match self {
            Store::F32 => 4,
            Store::Bf16 | Store::F16 => 2,
        }
    }

    /// Explicit bits of the significand.
    const fn bits(self) -> i32 {
        match self {
            Store::F32 => 23,
            Store::Bf16 => 7,
            Store::F16 => 10,
        }
    }

    /// Smallest normal exponent.
    const fn least(self) -> i32 {
        match self {
            Store::F32 | Store::Bf16 => -126,
            Store::F16 => -14,
        }
    }

    pub fn encode(self, values: &[f64]) -> Vec<u8> {
        let one = |x: &f64| match self {
            Store::F32 => (*x as f32).to_le_bytes().to_vec(),
            Store::Bf16 => bf16::from_f64(*x).to_le_bytes().to_vec(),
            Store::F16 => f16::from_f64(*x).to_le_bytes().to_vec(),
        };
        values.iter().flat_map(one).collect()
    }

    pub fn decode(self, bytes: &[u8]) -> Vec<f64> {
        let one = |c: &[u8]| match (self, c) {
            (Store::F32, [a, b, c, d]) => f64::from(f32::from_le_bytes([*a, *b, *c, *d])),
            (Store::Bf16, [a, b]) => bf16::from_le_bytes([*a, *b]).to_f64(),
            (Store::F16, [a, b]) => f16::from_le_bytes([*a, *b]).to_f64(),
            _ => f64::NAN,
        };
        bytes.chunks_exact(self.bytes()).map(one).collect()
    }

    /// `x` as it is stored.
    pub fn round(self, x: f64) -> f64 {
        self.decode(&self.encode(&[x]))[0]
    }

    /// Distance between neighbouring numbers at `x`.
    pub fn ulp(self, x: f64) -> f64 {
        let exponent = if x == 0.0 { self.least() } else { x.abs().log2().floor() as i32 };
        2f64.powi(exponent.max(self.least()) - self.bits())
    }

    /// How far the stored result of an f32 computation may be from `want`: half a step for the
    /// rounding, and `terms`, the sum of the magnitudes that were added up, at f32's precision.
    pub fn tolerance(self, want: f64, terms: f64) -> f64 {
        let slack = terms.abs().max(want.abs()) * 2e-6;
        if self == Store::F32 { slack + 1e-37 } else { 0.5 * self.ulp(want) + slack }
    }
}

/// SplitMix64.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Rng(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x5851_f42d_4c95_7f2d)
    }

    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.word() % n as u64) as usize
    }

    /// In [-1, 1), with now and then an outlier eight times as large: uniform noise alone would
    /// let a wrong maximum or a lost term pass.
    pub fn value(&mut self) -> f64 {
        let r = self.word();
        let unit = (r >> 40) as f64 / f64::from(1u32 << 23) - 1.0;
        if r.is_multiple_of(61) { unit * 8.0 } else { unit }
    }

    pub fn values(&mut self, n: usize) -> Vec<f64> {
        (0..n).map(|_| self.value()).collect()
    }

    /// A permutation of 0 … n-1.
    pub fn shuffled(&mut self, n: usize) -> Vec<u32> {
        let mut list: Vec<u32> = (0..n as u32).collect();
        for i in (1..n).rev() {
            list.swap(i, self.below(i + 1));
        }
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_and_tolerances_are_those_of_the_types() {
        assert_eq!(Store::Bf16.ulp(1.0), 2f64.powi(-7));
        assert_eq!(Store::F16.ulp(1.5), 2f64.powi(-10));
        assert_eq!(Store::F16.ulp(0.0), 2f64.powi(-24));
        for store in Store::HALVES {
            let x = 1.0 + 0.3 * store.ulp(1.0);
            assert!((store.round(x) - x).abs() <= store.tolerance(x, 0.0));
            assert!(store.ulp(1.0) * 0.7 > store.tolerance(x, 0.0));
        }
    }
}
