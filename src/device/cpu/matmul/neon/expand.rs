//! Unpacking quantised panels to memory: codes to bytes, scales to f32, and on to f32 weights for
//! the exact mode.

use std::arch::aarch64::*;

use super::codes::{QUAD, QUADS, STRIDE, codes, scale};
use crate::device::cpu::matmul::at_type::{QUANTISED, at_type};
use crate::device::cpu::matmul::kernels::{Codes, INT_CHUNK};
use crate::device::cpu::matmul::layout::{self, BLOCK, PANEL, STEPS};
use crate::types::Dtype;

/// Where the codes of a quad of a block begin among unpacked bytes; its steps follow each other
/// by [`STRIDE`].
#[inline(always)]
pub fn unpacked_at(block: usize, quad: usize) -> usize {
    (block * 2 + quad / 2) * STEPS * STRIDE + quad % 2 * STRIDE / 2
}

/// Unpacks whole units, for either width of activations.
///
/// # Safety
/// As [`super::super::kernels::Kernels`] says.
pub unsafe fn expand(dtype: Dtype, units: &[u8], out: &mut Codes) {
    // SAFETY: passed on.
    unsafe { at_type!(dtype, units_of[](units, out)) }
}

unsafe fn units_of<const T: usize>(units: &[u8], out: &mut Codes) {
    let dtype = QUANTISED[T];
    let (blocks, halves) = (layout::unit_len(dtype) / BLOCK, layout::scales_per_block(dtype));
    let count = units.len() / layout::unit_bytes(dtype);
    assert!(count * blocks * BLOCK <= INT_CHUNK);
    for index in 0..count * blocks {
        for quad in 0..QUADS {
            // SAFETY: the units are whole and the block is inside `out` (just checked).
            unsafe {
                let unit = units.as_ptr().add(index / blocks * layout::unit_bytes(dtype));
                let to = out.bytes.as_mut_ptr().add(unpacked_at(index, quad));
                let steps = codes::<T>(unit, index % blocks, quad);
                for (step, codes) in steps.as_flattened().iter().enumerate() {
                    vst1q_u8(to.add(STRIDE * step), vreinterpretq_u8_s8(*codes));
                }
                for half in 0..halves {
                    let (d, m) = scale::<T>(unit, index % blocks, half, quad);
                    let at = (index * halves + half) * PANEL + quad * QUAD;
                    vst1q_f32(out.d.as_mut_ptr().add(at), d);
                    vst1q_f32(out.m.as_mut_ptr().add(at), m);
                }
            }
        }
    }
}

/// `[32 · blocks][16]` f32 weights.
///
/// # Safety
/// As [`super::super::kernels::Kernels`] says.
pub unsafe fn dequantise(dtype: Dtype, codes: &Codes, blocks: usize, out: &mut [f32]) {
    assert!(out.len() >= blocks * BLOCK * PANEL && blocks * BLOCK <= INT_CHUNK);
    let signed = layout::code_bits(dtype) == 8;
    let halves = layout::scales_per_block(dtype);
    for block in 0..blocks {
        for (step, quad) in (0..STEPS * QUADS).map(|i| (i / QUADS, i % QUADS)) {
            let part = block * halves + step * halves / STEPS;
            // SAFETY: inside `codes` and `out` (checked above).
            unsafe {
                let d = vld1q_f32(codes.d.as_ptr().add(part * PANEL + quad * QUAD));
                let m = vld1q_f32(codes.m.as_ptr().add(part * PANEL + quad * QUAD));
                let from = codes.bytes.as_ptr().add(unpacked_at(block, quad) + STRIDE * step);
                let to = out.as_mut_ptr().add((block * BLOCK + 4 * step) * PANEL + quad * QUAD);
                let codes = vreinterpretq_s32_u8(vld1q_u8(from));
                for (k, code) in columns(codes).into_iter().enumerate() {
                    let w = if signed { vmulq_f32(code, d) } else { vfmaq_f32(m, code, d) };
                    vst1q_f32(to.add(k * PANEL), w);
                }
            }
        }
    }
}

/// The four signed bytes of each lane.
#[inline(always)]
fn columns(v: int32x4_t) -> [float32x4_t; 4] {
    // SAFETY: NEON is part of the target.
    unsafe {
        let shifted = [vshlq_n_s32::<24>(v), vshlq_n_s32::<16>(v), vshlq_n_s32::<8>(v), v];
        shifted.map(|v| vcvtq_f32_s32(vshrq_n_s32::<24>(v)))
    }
}
