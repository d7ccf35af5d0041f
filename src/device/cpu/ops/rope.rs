//! Rotary position embedding (Su et al., arXiv:2104.09864), from tables.

use crate::device::cpu::numbers::Numbers;
use crate::device::cpu::simd::{LANES, simd_fn};
use crate::error::{Error, Result};
use crate::model::rope::RopeTable;

/// Cosines and sines, `[positions, 2, dim / 2]`, computed when a position is first reached: a long
/// context has many that a short run never sees.
pub struct Angles {
    rope: RopeTable,
    half: usize,
    table: Numbers,
    /// Positions that are computed.
    filled: usize,
}

impl Angles {
    /// Room for `positions` of them.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn new(rope: &RopeTable, positions: usize) -> Result<Self> {
        let half = rope.dim / 2;
        let table = positions.checked_mul(2 * half).and_then(Numbers::zeroed);
        let table = table.ok_or_else(|| {
            Error::limit("rotary tables do not fit in memory; lower --context-length")
        })?;
        Ok(Angles { rope: rope.clone(), half, table, filled: 0 })
    }

    /// Computes what is missing of the first `positions`, in f64, rounded once.
    pub fn cover(&mut self, positions: usize) {
        let (half, scale) = (self.half, self.rope.scale as f64);
        for position in self.filled..positions {
            let row = &mut self.table[position * 2 * half..(position + 1) * 2 * half];
            let (cos, sin) = row.split_at_mut(half);
            for (i, freq) in self.rope.inv_freq.iter().enumerate() {
                let (s, c) = (position as f64 * *freq as f64).sin_cos();
                cos[i] = (c * scale) as f32;
                sin[i] = (s * scale) as f32;
            }
        }
        self.filled = self.filled.max(positions);
    }

    /// Cosines, then sines, at `position`, which must be covered.
    pub fn at(&self, position: usize) -> (&[f32], &[f32]) {
        debug_assert!(position < self.filled, "position {position} of {}", self.filled);
        let row = &self.table[position * 2 * self.half..(position + 1) * 2 * self.half];
        row.split_at(self.half)
    }

    pub fn bytes(&self) -> u64 {
        (self.table.len() * 4) as u64
    }
}

simd_fn! {
    /// Rotates columns `i` and `i + half` of one head, `half` = length of `cos` and `sin`.
    pub fn rotate<S>(head: &mut [f32], cos: &[f32], sin: &[f32]) {
        let (first, second) = head[..2 * cos.len()].split_at_mut(cos.len());
        let (a, a_rest) = first.as_chunks_mut::<LANES>();
        let (b, b_rest) = second.as_chunks_mut::<LANES>();
        let (c, c_rest) = cos.as_chunks::<LANES>();
        let (s, s_rest) = sin.as_chunks::<LANES>();
        for (((a, b), c), s) in a.iter_mut().zip(b).zip(c).zip(s) {
            let (x, y, c, s) = (S::load(a), S::load(b), S::load(c), S::load(s));
            x.mul(c).sub(y.mul(s)).store(a);
            y.mul(c).add(x.mul(s)).store(b);
        }
        for (((a, b), c), s) in a_rest.iter_mut().zip(b_rest).zip(c_rest).zip(s_rest) {
            let (x, y) = (*a, *b);
            *a = x * c - y * s;
            *b = y * c + x * s;
        }
    }
}
