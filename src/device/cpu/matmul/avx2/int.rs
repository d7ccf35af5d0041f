//! The integer kernels: 16-bit codes times 16-bit activations, summed in pairs by `madd`.
//!
//! A step of 4 columns is two multiplications for each octet and activation row. A tile of 4
//! rows × 16 has 8 sums in registers and shares each load of codes among its rows; one row takes
//! codes straight from the packed panel.

use std::arch::x86_64::*;

use super::codes::{QUANTISED, at_type, load, quad, scale};
use super::float::add_to;
use crate::device::cpu::matmul::kernels::{INT_CHUNK, IntRows, IntTile, PackedRow, RowScale};
use crate::device::cpu::matmul::layout::{self, BLOCK, OCTET, PANEL, STEPS};
use crate::types::Dtype;

/// Bytes that packed weights are prefetched ahead.
pub const AHEAD: usize = 4096;

/// See [`IntTile`].
///
/// # Safety
/// As [`super::super::kernels::Kernels`] says.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn tile(tile: &IntTile<'_>) {
    // SAFETY: passed on.
    unsafe {
        match tile.rows {
            1 => by_scales::<1>(tile),
            2 => by_scales::<2>(tile),
            3 => by_scales::<3>(tile),
            _ => by_scales::<4>(tile),
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn by_scales<const M: usize>(tile: &IntTile<'_>) {
    // SAFETY: passed on.
    unsafe {
        match (layout::scales_per_block(tile.dtype), layout::code_bits(tile.dtype)) {
            (1, 8) => rows::<M, 1, false>(tile),
            (1, _) => rows::<M, 1, true>(tile),
            _ => rows::<M, 2, true>(tile),
        }
    }
}

/// `HALVES`: scales in a block; `MIN`: whether weights have a minimum.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn rows<const M: usize, const HALVES: usize, const MIN: bool>(tile: &IntTile<'_>) {
    let mut sums = [[_mm256_setzero_ps(); 2]; M];
    let codes = tile.codes;
    // Hidden from the compiler: it would unroll the loop whole, order it by columns and spill.
    let vectors = std::hint::black_box(2 * STEPS / HALVES);
    // SAFETY: codes and rows hold `blocks` blocks (the caller's promise).
    unsafe {
        for part in 0..tile.blocks * HALVES {
            let (block, half) = (part / HALVES, part % HALVES);
            let first = 2 * STEPS / HALVES * half;
            let q = codes.q.as_ptr().add((block * 4 * STEPS + first) * 16).cast::<u8>();
            let a = tile.a.q.as_ptr().add(block * BLOCK + 2 * first);
            let mut dots = [[_mm256_setzero_si256(); 2]; M];
            for vector in 0..vectors {
                let q = [load(q, vector), load(q, 2 * STEPS + vector)];
                for (r, dots) in dots.iter_mut().enumerate() {
                    let a = pair(a.add(r * INT_CHUNK), vector);
                    dots[0] = _mm256_add_epi32(dots[0], _mm256_madd_epi16(q[0], a));
                    dots[1] = _mm256_add_epi32(dots[1], _mm256_madd_epi16(q[1], a));
                }
            }
            let at = |numbers: &[f32], octet| {
                _mm256_loadu_ps(numbers.as_ptr().add(part * PANEL + octet * OCTET))
            };
            for octet in 0..2 {
                let weight = (at(&codes.d, octet), at(&codes.m, octet));
                for r in 0..M {
                    let row = &*tile.a.scales.as_ptr().add(r * (INT_CHUNK / BLOCK) + block);
                    let total = if HALVES == 2 { row.halves[half] } else { row.sum };
                    sums[r][octet] =
                        scaled::<MIN>(dots[r][octet], weight, (row.d, total), sums[r][octet]);
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            add_to(&tile.out, r, *sums);
        }
    }
}

/// Two activations in every lane.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn pair(a: *const i16, vector: usize) -> __m256i {
    // SAFETY: the caller's pointer holds that pair.
    _mm256_set1_epi32(unsafe { a.add(2 * vector).cast::<i32>().read_unaligned() })
}

/// `sum + d_w d_a · dot + m_w · total`, in this order for every kernel.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub fn scaled<const MIN: bool>(
    dot: __m256i,
    (d, m): (__m256, __m256),
    (row_d, total): (f32, f32),
    sum: __m256,
) -> __m256 {
    let d = _mm256_mul_ps(d, _mm256_set1_ps(row_d));
    let sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), d, sum);
    if MIN { _mm256_fmadd_ps(m, _mm256_set1_ps(total), sum) } else { sum }
}

/// See [`PackedRow`].
///
/// # Safety
/// As [`super::super::kernels::Kernels`] says.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn row(row: &PackedRow<'_, IntRows<'_>>) {
    // SAFETY: passed on.
    unsafe { at_type!(row.dtype, packed_row(row)) }
}

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn packed_row<const T: usize>(row: &PackedRow<'_, IntRows<'_>>) {
    let dtype = QUANTISED[T];
    let blocks = layout::unit_len(dtype) / BLOCK;
    let count = row.units.len() / layout::unit_bytes(dtype);
    assert!(count * blocks * BLOCK <= row.a.q.len() && count * blocks <= row.a.scales.len());
    let mut sums = [_mm256_setzero_ps(); 2];
    // SAFETY: whole units, and as many blocks of activations (just checked); prefetching beyond
    // them reads nothing.
    unsafe {
        for index in 0..count {
            let unit = row.units.as_ptr().add(index * layout::unit_bytes(dtype));
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
    a: *const i16,
    row: &RowScale,
    sums: &mut [__m256; 2],
) {
    let dtype = QUANTISED[T];
    let mut dots = [[_mm256_setzero_si256(); 2]; 2];
    // SAFETY: the caller's pointers hold the block.
    unsafe {
        let octets = unit.add(layout::codes_offset(dtype, b));
        for j in 0..STEPS / 2 {
            let a: [__m256i; 4] =
                [2 * j, 2 * j + 1, STEPS + 2 * j, STEPS + 2 * j + 1].map(|v| pair(a, v));
            for (octet, dots) in dots.iter_mut().enumerate() {
                let q = quad::<T>(octets.add(octet * layout::octet_bytes(dtype)), j);
                for (half, dot) in dots.iter_mut().enumerate() {
                    *dot = _mm256_add_epi32(*dot, _mm256_madd_epi16(q[2 * half], a[2 * half]));
                    let odd = _mm256_madd_epi16(q[2 * half + 1], a[2 * half + 1]);
                    *dot = _mm256_add_epi32(*dot, odd);
                }
            }
        }
        for (octet, sum) in sums.iter_mut().enumerate() {
            let dots = dots[octet];
            if layout::scales_per_block(dtype) == 2 {
                for half in 0..2 {
                    let weight = scale::<T>(unit, b, half, octet);
                    *sum = scaled::<true>(dots[half], weight, (row.d, row.halves[half]), *sum);
                }
                continue;
            }
            let weight = scale::<T>(unit, b, 0, octet);
            let (dot, scales) = (_mm256_add_epi32(dots[0], dots[1]), (row.d, row.sum));
            *sum = if layout::code_bits(dtype) == 8 {
                scaled::<false>(dot, weight, scales, *sum)
            } else {
                scaled::<true>(dot, weight, scales, *sum)
            };
        }
    }
}
