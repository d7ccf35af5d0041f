//! Dot products of four rows of codes with an activation row, 16 columns at a time.

use std::arch::aarch64::*;

use super::asm::{sdot, smmla};

/// Codes of 4 rows and 16 columns: 4 steps, `[row][4 columns]` each.
pub type Steps = [int8x16_t; 4];

/// How bytes are multiplied.
pub trait Products {
    /// `sum` and the products of every row's 16 codes with 16 activations. Codes that are not
    /// `SIGNED` are below 64.
    ///
    /// # Safety
    /// The CPU must have the instructions.
    unsafe fn add<const SIGNED: bool>(
        sum: int32x4_t,
        codes: &Steps,
        activations: int8x16_t,
    ) -> int32x4_t;

    /// Whether [`Products::add_pair`] is faster than two [`Products::add`].
    const PAIRS: bool = false;

    /// `sums` and the products of every row's 16 codes with 16 activations of each of two rows, as
    /// [`Pair`] says.
    ///
    /// # Safety
    /// The CPU must have the instructions.
    unsafe fn add_pair(sums: Pair, _codes: &Steps, _activations: [int8x16_t; 2]) -> Pair {
        sums
    }
}

/// Sums of 4 rows of codes with 2 of activations: `[code row][activation row]`, two code rows a
/// vector.
pub type Pair = [int32x4_t; 2];

/// The sums of one of a pair's activation rows.
#[inline(always)]
pub fn of_row(pair: Pair, row: usize) -> int32x4_t {
    // SAFETY: NEON is part of the target.
    unsafe {
        match row {
            0 => vuzp1q_s32(pair[0], pair[1]),
            _ => vuzp2q_s32(pair[0], pair[1]),
        }
    }
}

/// With `sdot`.
pub struct Dot;

impl Products for Dot {
    #[inline(always)]
    unsafe fn add<const SIGNED: bool>(sum: int32x4_t, codes: &Steps, a: int8x16_t) -> int32x4_t {
        // SAFETY: the caller's promise.
        unsafe {
            let sum = sdot::<0>(sum, codes[0], a);
            let sum = sdot::<1>(sum, codes[1], a);
            let sum = sdot::<2>(sum, codes[2], a);
            sdot::<3>(sum, codes[3], a)
        }
    }
}

/// With `smmla`, which multiplies two rows with two, and `sdot` for a single one.
pub struct Matrix;

impl Products for Matrix {
    #[inline(always)]
    unsafe fn add<const SIGNED: bool>(sum: int32x4_t, codes: &Steps, a: int8x16_t) -> int32x4_t {
        // SAFETY: every CPU with i8mm has dotprod.
        unsafe { Dot::add::<SIGNED>(sum, codes, a) }
    }

    const PAIRS: bool = true;

    #[inline(always)]
    unsafe fn add_pair(mut sums: Pair, codes: &Steps, a: [int8x16_t; 2]) -> Pair {
        // SAFETY: the caller's promise.
        unsafe {
            let steps = codes.map(|step| vreinterpretq_s32_s8(step));
            let a = a.map(|row| vreinterpretq_s64_s8(row));
            // Eight columns at a time, of both rows of activations and of two rows of codes.
            let eights = [vzip1q_s64(a[0], a[1]), vzip2q_s64(a[0], a[1])];
            for (eight, step) in eights.into_iter().zip(steps.chunks_exact(2)) {
                let a = vreinterpretq_s8_s64(eight);
                let rows = [vzip1q_s32(step[0], step[1]), vzip2q_s32(step[0], step[1])];
                for (sum, rows) in sums.iter_mut().zip(rows) {
                    *sum = smmla(*sum, vreinterpretq_s8_s32(rows), a);
                }
            }
        }
        sums
    }
}

/// With plain multiplications.
pub struct Multiply;

impl Products for Multiply {
    #[inline(always)]
    unsafe fn add<const SIGNED: bool>(sum: int32x4_t, codes: &Steps, a: int8x16_t) -> int32x4_t {
        // SAFETY: NEON is part of the target.
        unsafe {
            let a = vreinterpretq_s32_s8(a);
            let a = [
                vdupq_laneq_s32::<0>(a),
                vdupq_laneq_s32::<1>(a),
                vdupq_laneq_s32::<2>(a),
                vdupq_laneq_s32::<3>(a),
            ]
            .map(|a| vreinterpretq_s8_s32(a));
            // Two rows each, and of a row four columns, then two.
            let low = |i: usize| (vget_low_s8(codes[i]), vget_low_s8(a[i]));
            let mut first = vmull_s8(low(0).0, low(0).1);
            let mut last = vmull_high_s8(codes[0], a[0]);
            let mut pairs = [vdupq_n_s32(0); 2];
            for i in 1..4 {
                if SIGNED {
                    // Two products of -128 are 2¹⁵: one too large.
                    pairs = [vpadalq_s16(pairs[0], first), vpadalq_s16(pairs[1], last)];
                    first = vmull_s8(low(i).0, low(i).1);
                    last = vmull_high_s8(codes[i], a[i]);
                } else {
                    // 4 · 63 · 128 < 2¹⁵.
                    first = vmlal_s8(first, low(i).0, low(i).1);
                    last = vmlal_high_s8(last, codes[i], a[i]);
                }
            }
            let pairs = [vpadalq_s16(pairs[0], first), vpadalq_s16(pairs[1], last)];
            vaddq_s32(sum, vpaddq_s32(pairs[0], pairs[1]))
        }
    }
}
