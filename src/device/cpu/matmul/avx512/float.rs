//! The float tile: up to 12 activation rows × 16 weight rows, a register of sums a row.
//!
//! Twelve sums in turn hide the latency of an FMA, where two units start one each every cycle;
//! activations are broadcast by the FMAs' own loads.

use std::arch::x86_64::*;

use crate::device::cpu::matmul::kernels::{FloatTile, Out};
use crate::device::cpu::matmul::layout::PANEL;
use crate::types::Dtype;

const F32: u8 = 0;
const F16: u8 = 1;
const BF16: u8 = 2;

/// Steps of k between prefetches.
const UNROLL: usize = 4;

/// See [`FloatTile`].
///
/// # Safety
/// As [`super::super::kernels::Kernels`] says.
#[target_feature(enable = "avx512f")]
pub unsafe fn tile(tile: &FloatTile<'_>) {
    // SAFETY: passed on.
    unsafe {
        match tile.dtype {
            Dtype::F16 => by_rows::<F16>(tile),
            Dtype::BF16 => by_rows::<BF16>(tile),
            _ => by_rows::<F32>(tile),
        }
    }
}

#[target_feature(enable = "avx512f")]
unsafe fn by_rows<const W: u8>(tile: &FloatTile<'_>) {
    // SAFETY: passed on.
    unsafe {
        match tile.rows {
            1 => rows::<1, W>(tile),
            2 => rows::<2, W>(tile),
            3 => rows::<3, W>(tile),
            4 => rows::<4, W>(tile),
            5 => rows::<5, W>(tile),
            6 => rows::<6, W>(tile),
            7 => rows::<7, W>(tile),
            8 => rows::<8, W>(tile),
            9 => rows::<9, W>(tile),
            10 => rows::<10, W>(tile),
            11 => rows::<11, W>(tile),
            _ => rows::<12, W>(tile),
        }
    }
}

#[target_feature(enable = "avx512f")]
unsafe fn rows<const M: usize, const W: u8>(tile: &FloatTile<'_>) {
    let bytes = PANEL * if W == F32 { 4 } else { 2 };
    let mut sums = [_mm512_setzero_ps(); M];
    let (mut w, mut a) = (tile.weights.as_ptr(), tile.a.as_ptr());
    // SAFETY: the tile's slices hold `k` steps (the caller's promise); prefetching beyond them
    // reads nothing.
    unsafe {
        for line in tile.soon.iter().step_by(64) {
            _mm_prefetch::<_MM_HINT_T1>(std::ptr::from_ref(line).cast());
        }
        let (mut asked, further, lines) = tile.asks(UNROLL);
        for _ in 0..tile.k / UNROLL {
            for line in 0..lines {
                _mm_prefetch::<_MM_HINT_T0>(asked.wrapping_add(64 * line).cast());
            }
            asked = asked.wrapping_add(further);
            for k in 0..UNROLL {
                step::<M, W>(&mut sums, w.add(k * bytes), a.add(k), tile.lda);
            }
            (w, a) = (w.add(UNROLL * bytes), a.add(UNROLL));
        }
        for k in 0..tile.k % UNROLL {
            step::<M, W>(&mut sums, w.add(k * bytes), a.add(k), tile.lda);
        }
        for (r, sum) in sums.iter().enumerate() {
            add_to(&tile.out, r, *sum);
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn step<const M: usize, const W: u8>(
    sums: &mut [__m512; M],
    w: *const u8,
    a: *const f32,
    lda: usize,
) {
    // SAFETY: the caller's pointers hold 16 weights and M rows.
    unsafe {
        let w = match W {
            F32 => _mm512_loadu_ps(w.cast()),
            F16 => _mm512_cvtph_ps(_mm256_loadu_si256(w.cast())),
            _ => {
                let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(w.cast()));
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
            }
        };
        for (r, sum) in sums.iter_mut().enumerate() {
            *sum = _mm512_fmadd_ps(_mm512_set1_ps(*a.add(r * lda)), w, *sum);
        }
    }
}

/// Adds 16 sums to row `r` of the output.
///
/// # Safety
/// The output must be writable there and not written by others.
#[inline]
#[target_feature(enable = "avx512f")]
pub unsafe fn add_to(out: &Out, r: usize, sums: __m512) {
    let mask = 0xffff >> (PANEL - out.cols);
    // SAFETY: the caller's promise; what is masked is not touched.
    unsafe {
        let y = out.y.add(r * out.ldy);
        let old = if out.fresh { 0 } else { mask };
        _mm512_mask_storeu_ps(y, mask, _mm512_add_ps(_mm512_maskz_loadu_ps(old, y), sums));
    }
}
