//! The integer tile: up to 2 activation rows × 16 weight rows.
//!
//! Codes of up to 6 bits are unsigned: `maddubs` multiplies them with the signed high and low
//! bytes of the activations, each in sums of its own, and adds pairs in 16 bits, where 8 (4-bit
//! codes), 4 (5-bit) or 2 (6-bit) of its results fit before they are widened: 2 · 15 · 128 · 8,
//! 2 · 31 · 128 · 4 and 2 · 63 · 128 · 2 are below 2¹⁵. Signed 8-bit codes would overflow there;
//! they are multiplied as 16-bit numbers.

use std::arch::x86_64::*;

use super::float::add_to;
use crate::device::cpu::matmul::kernels::{INT_CHUNK, IntTile};
use crate::device::cpu::matmul::layout::{self, BLOCK, OCTET, PANEL, STEPS};

/// See [`IntTile`].
///
/// # Safety
/// As [`super::super::kernels::Kernels`] says.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn tile(tile: &IntTile<'_>) {
    // SAFETY: passed on.
    unsafe {
        match tile.rows {
            1 => by_bits::<1>(tile),
            _ => by_bits::<2>(tile),
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn by_bits<const M: usize>(tile: &IntTile<'_>) {
    // SAFETY: passed on.
    unsafe {
        match layout::code_bits(tile.dtype) {
            4 => unsigned::<M, 8, 1>(tile),
            5 => unsigned::<M, 4, 1>(tile),
            6 => unsigned::<M, 2, 2>(tile),
            _ => signed::<M>(tile),
        }
    }
}

/// `RUN`: steps summed in 16 bits; `HALVES`: scales in a block.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn unsigned<const M: usize, const RUN: usize, const HALVES: usize>(tile: &IntTile<'_>) {
    let mut sums = [[_mm256_setzero_ps(); 2]; M];
    let codes = tile.codes;
    // SAFETY: codes and rows hold `blocks` blocks (the caller's promise).
    unsafe {
        for part in 0..tile.blocks * HALVES {
            let (block, half) = (part / HALVES, part % HALVES);
            let first = STEPS / HALVES * half;
            let q = codes.q.as_ptr().add(block * STEPS * 64 + first * 32);
            let a = tile.a.bytes.as_ptr().add(block * BLOCK + first * 4);
            let dots = dot_unsigned::<M, RUN>(q, a, STEPS / HALVES);
            let d = codes.d.as_ptr().add(part * PANEL);
            let m = codes.m.as_ptr().add(part * PANEL);
            for (r, sums) in sums.iter_mut().enumerate() {
                let scale = &*tile.a.scales.as_ptr().add(r * (INT_CHUNK / BLOCK) + block);
                let total = if HALVES == 2 { scale.halves[half] } else { scale.sum };
                let (da, total) = (_mm256_set1_ps(scale.d), _mm256_set1_ps(total));
                for octet in 0..2 {
                    let d = _mm256_mul_ps(_mm256_loadu_ps(d.add(octet * OCTET)), da);
                    let dot = _mm256_cvtepi32_ps(dots[r][octet]);
                    let sum = _mm256_fmadd_ps(dot, d, sums[octet]);
                    let m = _mm256_loadu_ps(m.add(octet * OCTET));
                    sums[octet] = _mm256_fmadd_ps(m, total, sum);
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            add_to(&tile.out, r, *sums);
        }
    }
}

/// Integer dot products of `steps` steps of 4 columns.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn dot_unsigned<const M: usize, const RUN: usize>(
    q: *const u8,
    a: *const i8,
    steps: usize,
) -> [[__m256i; 2]; M] {
    let ones = _mm256_set1_epi16(1);
    let mut dots = [[_mm256_setzero_si256(); 2]; M];
    // SAFETY: the caller's pointers hold the steps.
    unsafe {
        for run in 0..steps / RUN {
            let mut high = [[_mm256_setzero_si256(); 2]; M];
            let mut low = high;
            for step in run * RUN..(run + 1) * RUN {
                let q0 = _mm256_load_si256(q.add(step * 32).cast());
                let q1 = _mm256_load_si256(q.add((STEPS + step) * 32).cast());
                for r in 0..M {
                    let a = a.add(r * 2 * INT_CHUNK + step * 4);
                    let h = _mm256_set1_epi32(a.cast::<i32>().read_unaligned());
                    let l = _mm256_set1_epi32(a.add(INT_CHUNK).cast::<i32>().read_unaligned());
                    high[r][0] = _mm256_add_epi16(high[r][0], _mm256_maddubs_epi16(q0, h));
                    high[r][1] = _mm256_add_epi16(high[r][1], _mm256_maddubs_epi16(q1, h));
                    low[r][0] = _mm256_add_epi16(low[r][0], _mm256_maddubs_epi16(q0, l));
                    low[r][1] = _mm256_add_epi16(low[r][1], _mm256_maddubs_epi16(q1, l));
                }
            }
            for (r, dots) in dots.iter_mut().enumerate() {
                for octet in 0..2 {
                    let h = _mm256_slli_epi32::<8>(_mm256_madd_epi16(high[r][octet], ones));
                    let wide = _mm256_add_epi32(h, _mm256_madd_epi16(low[r][octet], ones));
                    dots[octet] = _mm256_add_epi32(dots[octet], wide);
                }
            }
        }
    }
    dots
}

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn signed<const M: usize>(tile: &IntTile<'_>) {
    let mut sums = [[_mm256_setzero_ps(); 2]; M];
    // SAFETY: codes and rows hold `blocks` blocks (the caller's promise).
    unsafe {
        for block in 0..tile.blocks {
            let q = tile.codes.q.as_ptr().add(block * 2 * STEPS * 64);
            let a = tile.a.wide.as_ptr().add(block * BLOCK);
            let mut dots = [[_mm256_setzero_si256(); 2]; M];
            for step in 0..2 * STEPS {
                let q0 = _mm256_load_si256(q.add(step * 32).cast());
                let q1 = _mm256_load_si256(q.add((2 * STEPS + step) * 32).cast());
                for (r, dots) in dots.iter_mut().enumerate() {
                    let a = a.add(r * INT_CHUNK + step * 2).cast::<i32>();
                    let a = _mm256_set1_epi32(a.read_unaligned());
                    dots[0] = _mm256_add_epi32(dots[0], _mm256_madd_epi16(q0, a));
                    dots[1] = _mm256_add_epi32(dots[1], _mm256_madd_epi16(q1, a));
                }
            }
            let d = tile.codes.d.as_ptr().add(block * PANEL);
            for (r, sums) in sums.iter_mut().enumerate() {
                let scale = &*tile.a.scales.as_ptr().add(r * (INT_CHUNK / BLOCK) + block);
                for octet in 0..2 {
                    let d = _mm256_loadu_ps(d.add(octet * OCTET));
                    let d = _mm256_mul_ps(d, _mm256_set1_ps(scale.d));
                    let dot = _mm256_cvtepi32_ps(dots[r][octet]);
                    sums[octet] = _mm256_fmadd_ps(dot, d, sums[octet]);
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            add_to(&tile.out, r, *sums);
        }
    }
}
