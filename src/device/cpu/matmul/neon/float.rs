//! The float tile: up to 6 activation rows × 16 weight rows, four registers of sums a row.
//!
//! One step of k loads 16 weights and broadcasts one activation a row: 24 FMAs for 10 loads at
//! full height, where sums, weights and activations take 30 of 32 registers.

use std::arch::aarch64::*;

use super::asm::prefetch;
use super::codes::QUAD;
use crate::device::cpu::matmul::kernels::{FloatTile, Out};
use crate::device::cpu::matmul::layout::PANEL;
use crate::device::cpu::simd::widen_f16;
use crate::types::Dtype;

const F32: u8 = 0;
const F16: u8 = 1;
const BF16: u8 = 2;

/// Steps of k between prefetches.
const UNROLL: usize = 4;

/// Sixteen numbers, one a row of a panel.
pub type Sixteen = [float32x4_t; 4];

/// See [`FloatTile`].
///
/// # Safety
/// As [`super::super::kernels::Kernels`] says.
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

#[inline(always)]
unsafe fn by_rows<const W: u8>(tile: &FloatTile<'_>) {
    // SAFETY: passed on.
    unsafe {
        match tile.rows {
            1 => rows::<1, W>(tile),
            2 => rows::<2, W>(tile),
            3 => rows::<3, W>(tile),
            4 => rows::<4, W>(tile),
            5 => rows::<5, W>(tile),
            _ => rows::<6, W>(tile),
        }
    }
}

unsafe fn rows<const M: usize, const W: u8>(tile: &FloatTile<'_>) {
    let bytes = PANEL * if W == F32 { 4 } else { 2 };
    let (mut w, mut a) = (tile.weights.as_ptr(), tile.a.as_ptr());
    // SAFETY: the tile's slices hold `k` steps (the caller's promise).
    unsafe {
        let mut sums = [[vdupq_n_f32(0.0); 4]; M];
        prefetch(tile.soon.as_ptr(), tile.soon.len());
        let (mut asked, further, lines) = tile.asks(UNROLL);
        for _ in 0..tile.k / UNROLL {
            prefetch(asked, 64 * lines);
            asked = asked.wrapping_add(further);
            for k in 0..UNROLL {
                step::<M, W>(&mut sums, w.add(k * bytes), a.add(k), tile.lda);
            }
            (w, a) = (w.add(UNROLL * bytes), a.add(UNROLL));
        }
        for k in 0..tile.k % UNROLL {
            step::<M, W>(&mut sums, w.add(k * bytes), a.add(k), tile.lda);
        }
        for (r, sums) in sums.iter().enumerate() {
            add_to(&tile.out, r, *sums);
        }
    }
}

#[inline(always)]
unsafe fn step<const M: usize, const W: u8>(
    sums: &mut [Sixteen; M],
    w: *const u8,
    a: *const f32,
    lda: usize,
) {
    // SAFETY: the caller's pointers hold 16 weights and M rows.
    unsafe {
        let w = [0, 1, 2, 3].map(|i| load::<W>(w, i));
        for (r, sums) in sums.iter_mut().enumerate() {
            let a = *a.add(r * lda);
            for (sum, w) in sums.iter_mut().zip(w) {
                *sum = vfmaq_n_f32(*sum, w, a);
            }
        }
    }
}

/// Four weights, the `quad`th, as f32.
#[inline(always)]
unsafe fn load<const W: u8>(w: *const u8, quad: usize) -> float32x4_t {
    // SAFETY: the caller's pointer holds them.
    unsafe {
        match W {
            F32 => vld1q_f32(w.cast::<f32>().add(QUAD * quad)),
            F16 => widen_f16(vld1_u16(w.cast::<u16>().add(QUAD * quad))),
            _ => {
                let bits = vld1_u16(w.cast::<u16>().add(QUAD * quad));
                vreinterpretq_f32_u32(vshll_n_u16::<16>(bits))
            }
        }
    }
}

/// Adds 16 sums to row `r` of the output.
///
/// # Safety
/// The output must be writable there and not written by others.
#[inline(always)]
pub unsafe fn add_to(out: &Out, r: usize, sums: Sixteen) {
    // SAFETY: the caller's promise.
    unsafe {
        let y = out.y.add(r * out.ldy);
        if out.cols == PANEL {
            for (i, sum) in sums.into_iter().enumerate() {
                let y = y.add(QUAD * i);
                let old = if out.fresh { vdupq_n_f32(0.0) } else { vld1q_f32(y) };
                vst1q_f32(y, vaddq_f32(old, sum));
            }
            return;
        }
        let mut row = [0.0f32; PANEL];
        for (quad, sum) in row.as_chunks_mut::<QUAD>().0.iter_mut().zip(sums) {
            vst1q_f32(quad.as_mut_ptr(), sum);
        }
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
pub unsafe fn widen(dtype: Dtype, numbers: &[u8], out: &mut [f32]) {
    assert!(numbers.len() >= 2 * out.len());
    for (i, out) in out.as_chunks_mut::<PANEL>().0.iter_mut().enumerate() {
        // SAFETY: 16 numbers are there (just checked).
        unsafe {
            let at = numbers.as_ptr().add(2 * PANEL * i);
            for (quad, out) in out.as_chunks_mut::<QUAD>().0.iter_mut().enumerate() {
                let four = match dtype {
                    Dtype::F16 => load::<F16>(at, quad),
                    _ => load::<BF16>(at, quad),
                };
                vst1q_f32(out.as_mut_ptr(), four);
            }
        }
    }
}
