//! The integer kernels for 8-bit activations: `maddubs` multiplies unsigned codes with them and
//! adds pairs in 16 bits, where 8 (4-bit codes), 4 (5-bit) or 2 (6-bit) of its results fit before
//! they are widened: 2 · 15 · 127 · 8, 2 · 31 · 127 · 4 and 2 · 63 · 127 · 2 are below 2¹⁵.

use std::arch::x86_64::*;

use super::codes::{QUANTISED, at_type, byte_pair, load, scale};
use super::float::add_to;
use super::int::{AHEAD, scaled};
use crate::device::cpu::matmul::kernels::{ByteRows, ByteTile, INT_CHUNK, PackedRow, RowScale};
use crate::device::cpu::matmul::layout::{self, BLOCK, OCTET, PANEL, STEPS};
use crate::types::Dtype;

/// See [`ByteTile`].
///
/// # Safety
/// As [`super::super::kernels::Kernels`] says.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn tile(tile: &ByteTile<'_>) {
    // SAFETY: passed on.
    unsafe {
        match tile.rows {
            1 => by_bits::<1>(tile),
            2 => by_bits::<2>(tile),
            3 => by_bits::<3>(tile),
            _ => by_bits::<4>(tile),
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn by_bits<const M: usize>(tile: &ByteTile<'_>) {
    // SAFETY: passed on.
    unsafe {
        match layout::code_bits(tile.dtype) {
            4 => rows::<M, 8, 1>(tile),
            5 => rows::<M, 4, 1>(tile),
            _ => rows::<M, 2, 2>(tile),
        }
    }
}

/// `RUN`: steps summed in 16 bits; `HALVES`: scales in a block.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn rows<const M: usize, const RUN: usize, const HALVES: usize>(tile: &ByteTile<'_>) {
    let mut sums = [[_mm256_setzero_ps(); 2]; M];
    let codes = tile.codes;
    // Hidden from the compiler: it would unroll the loop whole, order it by columns and spill.
    let run = std::hint::black_box(RUN);
    // SAFETY: codes and rows hold `blocks` blocks (the caller's promise).
    unsafe {
        for part in 0..tile.blocks * HALVES {
            let (block, half) = (part / HALVES, part % HALVES);
            let first = STEPS / HALVES * half;
            let q = codes.bytes.as_ptr().add((block * 2 * STEPS + first) * 32);
            let a = tile.a.q.as_ptr().add(block * BLOCK + 4 * first);
            let dots = dots::<M>(q, a, STEPS / HALVES / RUN, run);
            let at = |numbers: &[f32], octet| {
                _mm256_loadu_ps(numbers.as_ptr().add(part * PANEL + octet * OCTET))
            };
            for octet in 0..2 {
                let weight = (at(&codes.d, octet), at(&codes.m, octet));
                for r in 0..M {
                    let row = &*tile.a.scales.as_ptr().add(r * (INT_CHUNK / BLOCK) + block);
                    let total = if HALVES == 2 { row.halves[half] } else { row.sum };
                    sums[r][octet] =
                        scaled::<true>(dots[r][octet], weight, (row.d, total), sums[r][octet]);
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            add_to(&tile.out, r, *sums);
        }
    }
}

/// Dot products of `runs` runs of `run` steps of 4 columns.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn dots<const M: usize>(
    q: *const u8,
    a: *const i8,
    runs: usize,
    run: usize,
) -> [[__m256i; 2]; M] {
    let ones = _mm256_set1_epi16(1);
    let mut dots = [[_mm256_setzero_si256(); 2]; M];
    // SAFETY: the caller's pointers hold the steps.
    unsafe {
        for first in (0..runs).map(|r| r * run) {
            let mut short = [[_mm256_setzero_si256(); 2]; M];
            for step in first..first + run {
                let q = [load(q, step), load(q, STEPS + step)];
                for (r, short) in short.iter_mut().enumerate() {
                    let a = quad_of(a.add(r * INT_CHUNK), step);
                    short[0] = _mm256_add_epi16(short[0], _mm256_maddubs_epi16(q[0], a));
                    short[1] = _mm256_add_epi16(short[1], _mm256_maddubs_epi16(q[1], a));
                }
            }
            for (dots, short) in dots.iter_mut().zip(short) {
                for (dot, short) in dots.iter_mut().zip(short) {
                    *dot = _mm256_add_epi32(*dot, _mm256_madd_epi16(short, ones));
                }
            }
        }
    }
    dots
}

/// Four activations in every lane.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn quad_of(a: *const i8, step: usize) -> __m256i {
    // SAFETY: the caller's pointer holds them.
    _mm256_set1_epi32(unsafe { a.add(4 * step).cast::<i32>().read_unaligned() })
}

/// See [`PackedRow`].
///
/// # Safety
/// As [`super::super::kernels::Kernels`] says.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn row(row: &PackedRow<'_, ByteRows<'_>>) {
    // SAFETY: passed on.
    unsafe { at_type!(row.dtype, packed_row(row)) }
}

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn packed_row<const T: usize>(row: &PackedRow<'_, ByteRows<'_>>) {
    let dtype = QUANTISED[T];
    let blocks = layout::unit_len(dtype) / BLOCK;
    assert!(row.blocks() * BLOCK <= row.a.q.len() && row.blocks() <= row.a.scales.len());
    let mut sums = [_mm256_setzero_ps(); 2];
    // SAFETY: whole units, and as many blocks of activations (just checked); prefetching beyond
    // them reads nothing.
    unsafe {
        for (index, unit) in row.units.chunks_exact(layout::unit_bytes(dtype)).enumerate() {
            let unit = unit.as_ptr();
            for b in 0..blocks {
                let stride = layout::block_stride(dtype);
                for line in 0..stride.div_ceil(64) {
                    let at = unit.wrapping_add(b * stride + AHEAD + 64 * line);
                    _mm_prefetch::<_MM_HINT_T0>(at.cast());
                }
                let block = index * blocks + b;
                let a = row.a.q.as_ptr().add(block * BLOCK);
                packed_block::<T>(unit, b, a, &row.a.scales[block], &mut sums);
            }
        }
        add_to(&row.out, 0, sums);
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn packed_block<const T: usize>(
    unit: *const u8,
    b: usize,
    a: *const i8,
    row: &RowScale,
    sums: &mut [__m256; 2],
) {
    let dtype = QUANTISED[T];
    // SAFETY: the caller's pointers hold the block.
    unsafe {
        let octets = unit.add(layout::codes_offset(dtype, b));
        for (octet, sum) in sums.iter_mut().enumerate() {
            let dots = octet_dots::<T>(octets.add(octet * layout::octet_bytes(dtype)), a);
            if layout::scales_per_block(dtype) == 2 {
                for half in 0..2 {
                    let weight = scale::<T>(unit, b, half, octet);
                    *sum = scaled::<true>(dots[half], weight, (row.d, row.halves[half]), *sum);
                }
            } else {
                let weight = scale::<T>(unit, b, 0, octet);
                *sum = scaled::<true>(dots[0], weight, (row.d, row.sum), *sum);
            }
        }
    }
}

/// Dot products of one octet of a block: of its halves, or of all in the first.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn octet_dots<const T: usize>(octet: *const u8, a: *const i8) -> [__m256i; 2] {
    let ones = _mm256_set1_epi16(1);
    let bits = layout::code_bits(QUANTISED[T]);
    let run = if bits == 6 { 2 } else { 4 };
    let mut dots = [_mm256_setzero_si256(); 2];
    for first in (0..STEPS / 2).step_by(run) {
        let mut short = [_mm256_setzero_si256(); 2];
        for j in first..first + run {
            // SAFETY: the caller's pointers hold the octet and the block.
            unsafe {
                let q = byte_pair::<T>(octet, j);
                let a = [quad_of(a, j), quad_of(a, j + STEPS / 2)];
                for (half, short) in short.iter_mut().enumerate() {
                    *short = _mm256_add_epi16(*short, _mm256_maddubs_epi16(q[half], a[half]));
                }
            }
        }
        if bits == 4 {
            short = [_mm256_add_epi16(short[0], short[1]), _mm256_setzero_si256()];
        }
        for (dot, short) in dots.iter_mut().zip(short) {
            *dot = _mm256_add_epi32(*dot, _mm256_madd_epi16(short, ones));
        }
    }
    match bits {
        5 => [_mm256_add_epi32(dots[0], dots[1]), dots[1]],
        _ => dots,
    }
}
