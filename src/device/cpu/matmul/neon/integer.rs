//! The integer tile: up to 4 activation rows × 16 weight rows, of packed or unpacked weights.
//!
//! A quad's codes of a block are loaded (and unpacked) once for all rows of the tile into 8
//! registers; a row's 32 activations meet them in 2 more, or 4 with two bytes each.

use std::arch::aarch64::*;

use super::asm::prefetch;
use super::codes::{QUAD, QUADS, STRIDE, codes, scale};
use super::dot::{Pair, Products, Steps, of_row};
use super::expand::unpacked_at;
use super::float::{Sixteen, add_to};
use crate::device::cpu::matmul::at_type::{QUANTISED, at_type};
use crate::device::cpu::matmul::integer::{Integer, Rows};
use crate::device::cpu::matmul::kernels::{Codes, INT_CHUNK, IntTile, Source};
use crate::device::cpu::matmul::layout::{self, BLOCK, PANEL};
use crate::types::Dtype;

/// See [`IntTile`].
///
/// # Safety
/// As [`super::super::kernels::Kernels`] says.
pub unsafe fn tile<A: Width, D: Products>(tile: &IntTile<'_, A>) {
    // SAFETY: passed on.
    unsafe {
        match tile.rows {
            1 => by_source::<A, D, 1>(tile),
            2 => by_source::<A, D, 2>(tile),
            3 => by_source::<A, D, 3>(tile),
            _ => by_source::<A, D, 4>(tile),
        }
    }
}

#[inline(always)]
unsafe fn by_source<A: Width, D: Products, const M: usize>(tile: &IntTile<'_, A>) {
    assert!(tile.blocks * BLOCK <= INT_CHUNK && tile.a.fine.len() >= M);
    // SAFETY: passed on; unpacked codes are of a whole chunk. Once unpacked, types differ in their
    // codes' sign and the number of scales.
    unsafe {
        match tile.weights {
            Source::Packed(units) => at_type!(tile.dtype, packed[A, D, M](tile, units)),
            Source::Unpacked(codes) => match layout::code_bits(tile.dtype) {
                8 => rows::<A, D, M, Unpacked<0>>(tile, &Unpacked { codes }),
                6 => rows::<A, D, M, Unpacked<7>>(tile, &Unpacked { codes }),
                _ => rows::<A, D, M, Unpacked<2>>(tile, &Unpacked { codes }),
            },
        }
    }
}

unsafe fn packed<A: Width, D: Products, const M: usize, const T: usize>(
    tile: &IntTile<'_, A>,
    units: &[u8],
) {
    let blocks = layout::unit_len(QUANTISED[T]) / BLOCK;
    assert!(tile.blocks / blocks * layout::unit_bytes(QUANTISED[T]) <= units.len());
    // SAFETY: the units hold the tile's blocks (just checked).
    unsafe { rows::<A, D, M, Packed<T>>(tile, &Packed { units: units.as_ptr() }) }
}

/// Where codes and scales of a type come from.
trait Weights {
    const DTYPE: Dtype;
    /// Scales in a block.
    const HALVES: usize = layout::scales_per_block(Self::DTYPE);
    const SIGNED: bool = layout::code_bits(Self::DTYPE) == 8;

    /// The codes of a quad of a block, both halves.
    unsafe fn codes(&self, block: usize, quad: usize) -> [Steps; 2];

    /// `(d, m)` of the rows of a quad of a block, or of half of it.
    unsafe fn scale(&self, block: usize, half: usize, quad: usize) -> (float32x4_t, float32x4_t);
}

struct Packed<const T: usize> {
    units: *const u8,
}

impl<const T: usize> Packed<T> {
    /// The unit of a block, and the block's number there.
    #[inline(always)]
    fn find(&self, block: usize) -> (*const u8, usize) {
        let blocks = layout::unit_len(QUANTISED[T]) / BLOCK;
        let at = block / blocks * layout::unit_bytes(QUANTISED[T]);
        (self.units.wrapping_add(at), block % blocks)
    }
}

impl<const T: usize> Weights for Packed<T> {
    const DTYPE: Dtype = QUANTISED[T];

    #[inline(always)]
    unsafe fn codes(&self, block: usize, quad: usize) -> [Steps; 2] {
        let (unit, b) = self.find(block);
        // SAFETY: the block is inside the units (the caller's promise).
        unsafe { codes::<T>(unit, b, quad) }
    }

    #[inline(always)]
    unsafe fn scale(&self, block: usize, half: usize, quad: usize) -> (float32x4_t, float32x4_t) {
        let (unit, b) = self.find(block);
        // SAFETY: as above.
        unsafe { scale::<T>(unit, b, half, quad) }
    }
}

/// Codes of type `T` or one that is unpacked alike.
struct Unpacked<'a, const T: usize> {
    codes: &'a Codes,
}

impl<const T: usize> Weights for Unpacked<'_, T> {
    const DTYPE: Dtype = QUANTISED[T];

    #[inline(always)]
    unsafe fn codes(&self, block: usize, quad: usize) -> [Steps; 2] {
        // SAFETY: the block is inside the chunk (the caller's promise).
        unsafe {
            let from = self.codes.bytes.as_ptr().add(unpacked_at(block, quad)).cast::<i8>();
            let steps =
                |first: usize| [0, 1, 2, 3].map(|step| vld1q_s8(from.add(STRIDE * (first + step))));
            [steps(0), steps(4)]
        }
    }

    #[inline(always)]
    unsafe fn scale(&self, block: usize, half: usize, quad: usize) -> (float32x4_t, float32x4_t) {
        let at = (block * Self::HALVES + half) * PANEL + quad * QUAD;
        // SAFETY: as above.
        unsafe {
            let (d, m) = (self.codes.d.as_ptr().add(at), self.codes.m.as_ptr().add(at));
            (vld1q_f32(d), vld1q_f32(m))
        }
    }
}

/// A width of activations: where its bytes are.
pub trait Width: Integer {
    /// Has every number a low byte, less 128?
    const LOW: bool;

    /// Bytes of block `block` of row `r`: the high or only ones, and the low ones.
    fn bytes(rows: &Rows<'_, Self>, r: usize, block: usize) -> (*const i8, *const i8);
}

impl Width for i16 {
    const LOW: bool = true;

    #[inline(always)]
    fn bytes(rows: &Rows<'_, i16>, r: usize, block: usize) -> (*const i8, *const i8) {
        let high = rows.q.as_ptr().wrapping_add(r * INT_CHUNK + block * BLOCK).cast::<i8>();
        (high, high.wrapping_add(BLOCK))
    }
}

impl Width for i8 {
    const LOW: bool = false;

    #[inline(always)]
    fn bytes(rows: &Rows<'_, i8>, r: usize, block: usize) -> (*const i8, *const i8) {
        let at = r * INT_CHUNK + block * BLOCK;
        (rows.q.as_ptr().wrapping_add(at), rows.low.as_ptr().wrapping_add(at))
    }
}

unsafe fn rows<A: Width, D: Products, const M: usize, W: Weights>(
    tile: &IntTile<'_, A>,
    weights: &W,
) {
    // SAFETY: weights and rows hold the blocks, and `out` is the tile's (the caller's promises).
    unsafe {
        let mut sums = [[vdupq_n_f32(0.0); QUADS]; M];
        for block in 0..tile.blocks {
            if !tile.ahead.is_null() {
                let stride = layout::block_stride(W::DTYPE);
                prefetch(tile.ahead.wrapping_add(block * stride), stride);
            }
            for r in M..if tile.next_rows { 2 * M } else { M } {
                let next = tile.a.q.as_ptr().wrapping_add(r * INT_CHUNK + block * BLOCK);
                prefetch(next.cast(), 1);
            }
            for quad in 0..QUADS {
                add_quad::<A, D, M, W>(&mut sums, weights, block, quad, &tile.a);
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            add_to(&tile.out, r, *sums);
        }
    }
}

/// `sums += d_w d_a · dots + m_w · (d_a Σ q_a)` of a quad of a block.
#[inline(always)]
unsafe fn add_quad<A: Width, D: Products, const M: usize, W: Weights>(
    sums: &mut [Sixteen; M],
    weights: &W,
    block: usize,
    quad: usize,
    a: &Rows<'_, A>,
) {
    // SAFETY: weights and rows hold the block (the caller's promise).
    unsafe {
        let codes = weights.codes(block, quad);
        let scales = [0, W::HALVES - 1].map(|half| weights.scale(block, half, quad));
        let zero = [vdupq_n_s32(0); 2];
        // What the low bytes lack.
        let lacking = match A::LOW {
            true => dots::<D, W>(zero, &codes, [vdupq_n_s8(1); 2]).map(|v| vshlq_n_s32::<7>(v)),
            false => zero,
        };
        let mut row = |r: usize, sum: [int32x4_t; 2]| {
            let row = a.scales.get_unchecked(r * (INT_CHUNK / BLOCK) + block);
            for half in 0..W::HALVES {
                let ((d, m), sums) = (scales[half], &mut sums[r][quad]);
                *sums = vfmaq_f32(*sums, vcvtq_f32_s32(sum[half]), vmulq_n_f32(d, row.d));
                if !W::SIGNED {
                    let total = if W::HALVES == 2 { row.halves[half] } else { row.sum };
                    *sums = vfmaq_n_f32(*sums, m, total);
                }
            }
        };
        let paired = if D::PAIRS { M / 2 * 2 } else { 0 };
        for r in (0..paired).step_by(2) {
            let pairs = two_rows::<A, D, W>(&codes, lacking, block, r, a);
            for i in 0..2 {
                row(r + i, [of_row(pairs[0], i), of_row(pairs[1], i)]);
            }
        }
        for r in paired..M {
            let (high, low) = A::bytes(a, r, block);
            let mut sum = dots::<D, W>(zero, &codes, load(high));
            if A::LOW || a.fine.get_unchecked(r) >> block & 1 == 1 {
                let high = sum.map(|v| vshlq_n_s32::<8>(v));
                let high = [vaddq_s32(high[0], lacking[0]), vaddq_s32(high[1], lacking[1])];
                sum = dots::<D, W>(high, &codes, load(low));
            }
            row(r, sum);
        }
    }
}

/// The dot products of a quad's rows with rows `r` and `r + 1`, as [`dots`] gives them.
#[inline(always)]
unsafe fn two_rows<A: Width, D: Products, W: Weights>(
    codes: &[Steps; 2],
    lacking: [int32x4_t; 2],
    block: usize,
    r: usize,
    a: &Rows<'_, A>,
) -> [Pair; 2] {
    // SAFETY: weights and rows hold the block (the caller's promise).
    unsafe {
        let bytes = [A::bytes(a, r, block), A::bytes(a, r + 1, block)];
        let sums = pairs::<D, W>([[vdupq_n_s32(0); 2]; 2], codes, bytes.map(|(high, _)| high));
        let fine = [r, r + 1].map(|r| (a.fine.get_unchecked(r) >> block & 1) as i32);
        if !A::LOW && fine == [0, 0] {
            return sums;
        }
        // The low bytes of a row that is not fine are zero.
        let by = if A::LOW { [8, 8] } else { fine.map(|bit| 8 * bit) };
        let by = vld1q_s32([by[0], by[1], by[0], by[1]].as_ptr());
        let shifted = |pair: Pair, lacking: int32x4_t| {
            let twice = [vzip1q_s32(lacking, lacking), vzip2q_s32(lacking, lacking)];
            [0, 1].map(|i| vaddq_s32(vshlq_s32(pair[i], by), twice[i]))
        };
        let high = [shifted(sums[0], lacking[0]), shifted(sums[1], lacking[1])];
        pairs::<D, W>(high, codes, bytes.map(|(_, low)| low))
    }
}

/// As [`dots`], with two rows of activations.
#[inline(always)]
unsafe fn pairs<D: Products, W: Weights>(
    sums: [Pair; 2],
    codes: &[Steps; 2],
    a: [*const i8; 2],
) -> [Pair; 2] {
    // SAFETY: passed on.
    unsafe {
        let [first, second] = a.map(|row| load(row));
        let add = |sums, half: usize| D::add_pair(sums, &codes[half], [first[half], second[half]]);
        match W::HALVES {
            1 => [add(add(sums[0], 0), 1), sums[1]],
            _ => [add(sums[0], 0), add(sums[1], 1)],
        }
    }
}

/// The dot products of a quad's rows, added to `sums`: of each half, or of both in the first where
/// a block has one scale.
#[inline(always)]
unsafe fn dots<D: Products, W: Weights>(
    sums: [int32x4_t; 2],
    codes: &[Steps; 2],
    a: [int8x16_t; 2],
) -> [int32x4_t; 2] {
    // SAFETY: passed on. The constants are what the functions' bounds on codes ask for.
    unsafe {
        let add = |sum, half: usize| match W::SIGNED {
            true => D::add::<true>(sum, &codes[half], a[half]),
            false => D::add::<false>(sum, &codes[half], a[half]),
        };
        match W::HALVES {
            1 => [add(add(sums[0], 0), 1), sums[1]],
            _ => [add(sums[0], 0), add(sums[1], 1)],
        }
    }
}

/// A block of bytes.
#[inline(always)]
unsafe fn load(from: *const i8) -> [int8x16_t; 2] {
    // SAFETY: the caller's pointer holds it.
    unsafe { [vld1q_s8(from), vld1q_s8(from.add(16))] }
}
