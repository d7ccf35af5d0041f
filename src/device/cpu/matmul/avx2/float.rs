//! The float tile: up to 6 activation rows × 16 weight rows, two registers of sums a row.
//!
//! One step of k loads 16 weights and broadcasts one activation a row: 12 FMAs for 8 loads at
//! full height, so the multipliers are the limit; at one row the memory is.

use std::arch::x86_64::*;

use super::codes::ask;
use crate::device::cpu::matmul::kernels::{Beside, FloatTile, Out, STREAM_AHEAD, STREAMS};
use crate::device::cpu::matmul::layout::{OCTET, PANEL};
use crate::types::Dtype;

const F32: u8 = 0;
const F16: u8 = 1;
const BF16: u8 = 2;

/// Steps of k in the unrolled loop.
const UNROLL: usize = 4;
/// The same where panels are taken in turn.
const TURN: usize = 8;

/// See [`FloatTile`].
///
/// # Safety
/// As [`super::super::kernels::Kernels`] says.
#[target_feature(enable = "avx2,fma,f16c")]
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

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn by_rows<const W: u8>(tile: &FloatTile<'_>) {
    // SAFETY: passed on.
    unsafe {
        match tile.rows {
            1 => by_panels::<1, W>(tile),
            2 => by_panels::<2, W>(tile),
            3 => by_panels::<3, W>(tile),
            4 => by_panels::<4, W>(tile),
            5 => by_panels::<5, W>(tile),
            _ => by_panels::<6, W>(tile),
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn by_panels<const M: usize, const W: u8>(tile: &FloatTile<'_>) {
    // SAFETY: passed on.
    unsafe {
        match tile.beside.is_empty() {
            true => rows::<M, W>(tile),
            false => streams::<M, W>(tile),
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn rows<const M: usize, const W: u8>(tile: &FloatTile<'_>) {
    let bytes = if W == F32 { 4 } else { 2 };
    let mut sums = [[_mm256_setzero_ps(); 2]; M];
    let mut w = tile.weights.as_ptr();
    let mut a = tile.a.as_ptr();
    // SAFETY: the tile's slices hold `k` steps (the caller's promise); prefetching beyond them
    // reads nothing.
    unsafe {
        for r in 0..M {
            // Rows of the output are often a power of two apart and fight for the same lines.
            _mm_prefetch::<_MM_HINT_T0>(tile.out.y.wrapping_add(r * tile.out.ldy).cast());
        }
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
                step::<M, W>(&mut sums, w.add(k * PANEL * bytes), a.add(k), tile.lda);
            }
            w = w.add(UNROLL * PANEL * bytes);
            a = a.add(UNROLL);
        }
        for _ in 0..tile.k % UNROLL {
            step::<M, W>(&mut sums, w, a, tile.lda);
            w = w.add(PANEL * bytes);
            a = a.add(1);
        }
        for (r, sums) in sums.iter().enumerate() {
            add_to(&tile.out, r, *sums);
        }
    }
}

/// Several panels, [`TURN`] steps of each in turn.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn streams<const M: usize, const W: u8>(tile: &FloatTile<'_>) {
    let bytes = PANEL * if W == F32 { 4 } else { 2 };
    let own = Beside { weights: tile.weights, out: tile.out };
    let mut panels = [(own.weights.as_ptr(), own.out, [[_mm256_setzero_ps(); 2]; M]); STREAMS];
    let panels = &mut panels[..=tile.beside.len()];
    for (panel, beside) in panels[1..].iter_mut().zip(tile.beside) {
        (panel.0, panel.1) = (beside.weights.as_ptr(), beside.out);
    }
    // SAFETY: every panel and the rows hold `k` steps (the caller's promise); prefetching beyond
    // them reads nothing.
    unsafe {
        for first in (0..tile.k).step_by(TURN) {
            let a = tile.a.as_ptr().add(first);
            let steps = TURN.min(tile.k - first);
            for (w, _, sums) in &mut *panels {
                for line in 0..(TURN * bytes / 64) {
                    ask(w.wrapping_add(STREAM_AHEAD + 64 * line), tile.once);
                }
                let mut near = *sums;
                if steps == TURN {
                    for k in 0..TURN {
                        step::<M, W>(&mut near, w.add(k * bytes), a.add(k), tile.lda);
                    }
                } else {
                    for k in 0..steps {
                        step::<M, W>(&mut near, w.add(k * bytes), a.add(k), tile.lda);
                    }
                }
                *sums = near;
                *w = w.add(steps * bytes);
            }
        }
        for (_, out, sums) in panels {
            for (r, sums) in sums.iter().enumerate() {
                add_to(out, r, *sums);
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn step<const M: usize, const W: u8>(
    sums: &mut [[__m256; 2]; M],
    w: *const u8,
    a: *const f32,
    lda: usize,
) {
    // SAFETY: the caller's pointers hold 16 weights and M rows.
    unsafe {
        let (w0, w1) = (load::<W>(w), load::<W>(w.add(if W == F32 { 32 } else { 16 })));
        for (r, sums) in sums.iter_mut().enumerate() {
            let a = _mm256_broadcast_ss(&*a.add(r * lda));
            sums[0] = _mm256_fmadd_ps(a, w0, sums[0]);
            sums[1] = _mm256_fmadd_ps(a, w1, sums[1]);
        }
    }
}

/// Eight weights as f32.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn load<const W: u8>(w: *const u8) -> __m256 {
    // SAFETY: the caller's pointer holds 8 weights.
    unsafe {
        match W {
            F32 => _mm256_loadu_ps(w.cast()),
            F16 => _mm256_cvtph_ps(_mm_loadu_si128(w.cast())),
            _ => {
                let bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(w.cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits))
            }
        }
    }
}

/// Adds 16 sums to row `r` of the output.
///
/// # Safety
/// The output must be writable there and not written by others.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn add_to(out: &Out, r: usize, sums: [__m256; 2]) {
    // SAFETY: the caller's promise.
    unsafe {
        let y = out.y.add(r * out.ldy);
        if out.cols == PANEL {
            for (y, sums) in [y, y.add(OCTET)].into_iter().zip(sums) {
                let old = if out.fresh { _mm256_setzero_ps() } else { _mm256_loadu_ps(y) };
                _mm256_storeu_ps(y, _mm256_add_ps(old, sums));
            }
            return;
        }
        let mut row = [0.0f32; PANEL];
        _mm256_storeu_ps(row.as_mut_ptr(), sums[0]);
        _mm256_storeu_ps(row.as_mut_ptr().add(OCTET), sums[1]);
        for (c, sum) in row[..out.cols].iter().enumerate() {
            let old = if out.fresh { 0.0 } else { *y.add(c) };
            *y.add(c) = old + sum;
        }
    }
}

/// Plain 16-bit numbers to f32; `out.len()` is a multiple of 16.
///
/// # Safety
/// As [`super::super::kernels::Kernels`] says.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn widen(dtype: Dtype, numbers: &[u8], out: &mut [f32]) {
    assert!(numbers.len() >= 2 * out.len());
    for (i, out) in out.as_chunks_mut::<OCTET>().0.iter_mut().enumerate() {
        // SAFETY: 8 numbers are there (just checked).
        unsafe {
            let at = numbers.as_ptr().add(2 * OCTET * i);
            let eight = if dtype == Dtype::F16 { load::<F16>(at) } else { load::<BF16>(at) };
            _mm256_storeu_ps(out.as_mut_ptr(), eight);
        }
    }
}
