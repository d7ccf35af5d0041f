//! RMSNorm (Zhang and Sennrich, arXiv:1910.07467) and the residual addition.

use crate::device::cpu::simd::{LANES, padded, simd_fn};

/// Accumulators of a sum of squares; with eight lanes each, 32 partial sums in a fixed order.
const SUMS: usize = 4;

simd_fn! {
    /// Sum of squares, in an order fixed by the length.
    pub fn sum_squares<S>(x: &[f32]) -> f32 {
        let (vectors, rest) = x.as_chunks::<LANES>();
        let mut sums = [S::splat(0.0); SUMS];
        for (i, vector) in vectors.iter().enumerate() {
            let part = S::load(vector);
            sums[i % SUMS] = part.fma(part, sums[i % SUMS]);
        }
        let part = S::load(&padded(rest));
        sums[0] = part.fma(part, sums[0]);
        sums[0].add(sums[1]).add(sums[2].add(sums[3])).sum()
    }
}

simd_fn! {
    /// `x += y`; returns the sum of squares of the result, as [`sum_squares`] would.
    pub fn add_squares<S>(x: &mut [f32], y: &[f32]) -> f32 {
        let (vectors, rest) = x.as_chunks_mut::<LANES>();
        let (from, last) = y.as_chunks::<LANES>();
        let mut sums = [S::splat(0.0); SUMS];
        for (i, (to, from)) in vectors.iter_mut().zip(from).enumerate() {
            let part = S::load(to).add(S::load(from));
            part.store(to);
            sums[i % SUMS] = part.fma(part, sums[i % SUMS]);
        }
        rest.iter_mut().zip(last).for_each(|(x, y)| *x += y);
        let part = S::load(&padded(rest));
        sums[0] = part.fma(part, sums[0]);
        sums[0].add(sums[1]).add(sums[2].add(sums[3])).sum()
    }
}

simd_fn! {
    /// `x = (x · scale) · (weight + offset)`.
    pub fn scale_by_weight<S>(x: &mut [f32], scale: f32, weight: &[f32], offset: f32) {
        let (vectors, rest) = x.as_chunks_mut::<LANES>();
        let (weights, last) = weight.as_chunks::<LANES>();
        let (scales, offsets) = (S::splat(scale), S::splat(offset));
        for (to, weight) in vectors.iter_mut().zip(weights) {
            S::load(to).mul(scales).mul(S::load(weight).add(offsets)).store(to);
        }
        rest.iter_mut().zip(last).for_each(|(x, w)| *x = *x * scale * (w + offset));
    }
}

/// `1 / √(mean(x²) + eps)`, given the sum of squares of `len` numbers.
pub fn inverse_rms(squares: f32, len: usize, eps: f32) -> f32 {
    1.0 / (squares / len as f32 + eps).sqrt()
}

simd_fn! {
    /// `x += factor · y`.
    pub fn add_scaled<S>(x: &mut [f32], y: &[f32], factor: f32) {
        let (vectors, rest) = x.as_chunks_mut::<LANES>();
        let (from, last) = y.as_chunks::<LANES>();
        for (to, from) in vectors.iter_mut().zip(from) {
            S::load(from).mul(S::splat(factor)).add(S::load(to)).store(to);
        }
        rest.iter_mut().zip(last).for_each(|(x, y)| *x += factor * y);
    }
}
