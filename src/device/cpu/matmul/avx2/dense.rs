//! The integer tile for more rows than one tile holds and fewer than make unpacking a whole chunk
//! worth while: a block's codes are unpacked to the first-level cache (1 KiB), and multiplied with
//! four rows after four. The rows' sums stand in memory: 4 loads and stores a row and block beside
//! 32 multiplications.

use std::arch::x86_64::*;

use super::codes::prefetch;
use super::float::add_to;
use super::integer::{add_block, dots, octets};
use super::weights::{Packed, Weights, unpacked_step};
use super::width::{Vectors, Width, vector_at};
use crate::device::cpu::matmul::at_type::{QUANTISED, at_type};
use crate::device::cpu::matmul::integer::Rows;
use crate::device::cpu::matmul::kernels::{INT_CHUNK, IntTile, Source, TALL_ROWS};
use crate::device::cpu::matmul::layout::{self, BLOCK, STEPS};
use crate::types::Dtype;

/// Rows that are multiplied at once.
const GROUP: usize = 4;
/// Vectors of an octet's 16-bit codes.
const VECTORS: usize = 2 * STEPS;

/// Up to [`TALL_ROWS`] rows of packed weights; the same to the bit as tiles of few.
///
/// # Safety
/// As [`super::super::kernels::Kernels`] says.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn tile(tile: &IntTile<'_, i16>) {
    let Source::Packed(units) = tile.weights else { return };
    assert!(tile.rows <= TALL_ROWS && tile.blocks * BLOCK <= INT_CHUNK);
    // SAFETY: passed on.
    unsafe { at_type!(tile.dtype, rows[](tile, units)) }
}

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn rows<const T: usize>(tile: &IntTile<'_, i16>, units: &[u8]) {
    let blocks = layout::unit_len(QUANTISED[T]) / BLOCK;
    assert!(tile.blocks / blocks * layout::unit_bytes(QUANTISED[T]) <= units.len());
    let packed = Packed::<T> { units: units.as_ptr() };
    let mut near = Near { codes: [[_mm256_setzero_si256(); VECTORS]; 2], packed: &packed };
    let mut all = [[_mm256_setzero_ps(); 2]; TALL_ROWS];
    let sums = &mut all[..tile.rows];
    for block in 0..tile.blocks {
        let ahead = match tile.ahead.is_null() {
            true => tile.ahead,
            false => tile.ahead.wrapping_add(block * layout::block_stride(QUANTISED[T])),
        };
        // SAFETY: units hold the block (just checked), and so do the rows (the caller's promise).
        unsafe {
            near.unpack(block, ahead);
            ask_for_rows(&tile.a, tile.rows, block + 1);
            let (fours, rest) = sums.as_chunks_mut::<GROUP>();
            let first = fours.len() * GROUP;
            for (i, sums) in fours.iter_mut().enumerate() {
                add(sums, &near, block, &from_row(&tile.a, i * GROUP));
            }
            if let Ok(sums) = <&mut [_; 1]>::try_from(&mut *rest) {
                add(sums, &near, block, &from_row(&tile.a, first));
            } else if let Ok(sums) = <&mut [_; 2]>::try_from(&mut *rest) {
                add(sums, &near, block, &from_row(&tile.a, first));
            } else if let Ok(sums) = <&mut [_; 3]>::try_from(rest) {
                add(sums, &near, block, &from_row(&tile.a, first));
            }
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        // SAFETY: the caller's promise about `out`.
        unsafe { add_to(&tile.out, r, *sums) };
    }
}

/// The activations from row `first` on.
fn from_row<'a>(a: &Rows<'a, i16>, first: usize) -> Rows<'a, i16> {
    Rows { q: &a.q[first * INT_CHUNK..], scales: &a.scales[first * (INT_CHUNK / BLOCK)..], ..*a }
}

/// Rows are a power of two apart, so that the processor does not see what comes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn ask_for_rows(a: &Rows<'_, i16>, rows: usize, block: usize) {
    if rows > 2 * GROUP {
        for r in 0..rows {
            let next = a.q.as_ptr().wrapping_add(r * INT_CHUNK + block * BLOCK);
            _mm_prefetch::<_MM_HINT_T0>(next.cast());
        }
    }
}

/// Adds a block's products to the sums of `M` rows, the first ones of `a`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn add<const M: usize, const T: usize>(
    sums: &mut [[__m256; 2]; M],
    near: &Near<'_, T>,
    block: usize,
    a: &Rows<'_, i16>,
) {
    let zero = [[[_mm256_setzero_si256(); 2]; 2]; M];
    for first in (0..2).step_by(octets::<Near<'_, T>, M>()) {
        // SAFETY: passed on.
        unsafe {
            let dots =
                dots::<i16, 2, M, _>(zero, near, block, first, a.q, (std::ptr::null(), false));
            add_block::<i16, M, _>(sums, dots, near, block, first, a);
        }
    }
}

/// One block's codes, unpacked; its scales where they are.
#[repr(C, align(64))]
struct Near<'a, const T: usize> {
    codes: [[__m256i; VECTORS]; 2],
    packed: &'a Packed<T>,
}

impl<const T: usize> Near<'_, T> {
    /// # Safety
    /// AVX2 must be there, and the block.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn unpack(&mut self, block: usize, ahead: *const u8) {
        for j in 0..STEPS / 2 {
            if !ahead.is_null() {
                prefetch(ahead, QUANTISED[T], j, false);
            }
            for (octet, codes) in self.codes.iter_mut().enumerate() {
                // SAFETY: the caller's promise.
                let vectors = unsafe { self.packed.codes::<i16, 2>(block, octet, j) };
                for (half, vectors) in vectors.iter().enumerate() {
                    for (n, vector) in vectors.iter().enumerate() {
                        codes[vector_at::<2>(half, j, n)] = *vector;
                    }
                }
            }
        }
    }
}

impl<const T: usize> Weights for Near<'_, T> {
    const DTYPE: Dtype = QUANTISED[T];

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn codes<A: Width<N>, const N: usize>(
        &self,
        _block: usize,
        octet: usize,
        j: usize,
    ) -> Vectors<N> {
        // SAFETY: an octet's codes.
        unsafe { unpacked_step(self.codes[octet].as_ptr().cast(), j) }
    }

    #[inline]
    fn in_memory<A: Width<N>, const N: usize>(&self, _block: usize) -> Option<*const u8> {
        Some(self.codes.as_ptr().cast())
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn scale(&self, block: usize, half: usize, octet: usize) -> (__m256, __m256) {
        // SAFETY: passed on.
        unsafe { self.packed.scale(block, half, octet) }
    }
}
