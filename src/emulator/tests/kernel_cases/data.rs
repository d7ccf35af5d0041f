//! Seeded inputs and the bf16 conversions of the references.

use half::bf16;

/// SplitMix64.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x5851_f42d_4c95_7f2d)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// In [-1, 1), with now and then an outlier eight times as large: uniform noise alone would
    /// let a wrong maximum or a lost term pass.
    pub fn value(&mut self) -> f32 {
        let r = self.next();
        let unit = (r >> 40) as f32 / (1u32 << 23) as f32 - 1.0;
        if r.is_multiple_of(61) { unit * 8.0 } else { unit }
    }

    pub fn f32s(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.value()).collect()
    }

    pub fn bf16s(&mut self, n: usize) -> Vec<bf16> {
        (0..n).map(|_| bf16::from_f32(self.value())).collect()
    }

    /// A permutation of 0 … n-1.
    pub fn shuffled(&mut self, n: usize) -> Vec<usize> {
        let mut list: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            list.swap(i, self.below(i + 1));
        }
        list
    }
}

/// Little-endian bytes of a slice of numbers.
pub trait Bytes {
    fn bytes(&self) -> Vec<u8>;
}

macro_rules! bytes_of {
    ($($ty:ty),*) => {$(
        impl Bytes for [$ty] {
            fn bytes(&self) -> Vec<u8> {
                self.iter().flat_map(|x| x.to_le_bytes()).collect()
            }
        }
    )*};
}
bytes_of!(u8, u32, i32, f32, bf16, half::f16);

pub fn f32s(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|c| f32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect()
}

pub fn i32s(bytes: &[u8]) -> Vec<i32> {
    bytes.chunks_exact(4).map(|c| i32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect()
}

pub fn bf16s(bytes: &[u8]) -> Vec<f64> {
    bytes.chunks_exact(2).map(|c| bf16::from_le_bytes([c[0], c[1]]).to_f64()).collect()
}

/// Largest error of a bf16 result: half a unit in the last place, and `slack` for f32 sums.
pub fn bf16_error(want: f64, slack: f64) -> f64 {
    want.abs() * (0.5 / 128.0) * 1.001 + slack
}
