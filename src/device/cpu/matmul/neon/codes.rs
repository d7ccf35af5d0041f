//! Packed codes and scales to vectors, for each quantised type, a quad at a time: 4 of a panel's
//! 16 rows, half of an octet's.

use std::arch::aarch64::*;

use super::dot::Steps;
use crate::device::cpu::matmul::at_type::QUANTISED;
use crate::device::cpu::matmul::layout::{self, PANEL};
use crate::device::cpu::simd::widen_f16;
use crate::types::Dtype;

/// Rows of a quad: the 32-bit lanes of a vector.
pub const QUAD: usize = 4;
/// Quads of a panel.
pub const QUADS: usize = PANEL / QUAD;
/// Bytes from a step of a quad to its next: an octet's vector.
pub const STRIDE: usize = 32;

/// Where a quad of a block of a unit begins.
///
/// # Safety
/// `unit` must hold a unit of type `T`.
#[inline(always)]
unsafe fn quad_at<const T: usize>(unit: *const u8, b: usize, quad: usize) -> *const u8 {
    let octet = quad / 2 * layout::octet_bytes(QUANTISED[T]);
    let at = layout::codes_offset(QUANTISED[T], b) + octet + quad % 2 * STRIDE / 2;
    // SAFETY: inside the unit.
    unsafe { unit.add(at) }
}

/// The codes of block `b` of a unit, both halves.
///
/// # Safety
/// `unit` must hold a unit of type `T`.
#[inline(always)]
pub unsafe fn codes<const T: usize>(unit: *const u8, b: usize, quad: usize) -> [Steps; 2] {
    // SAFETY: vectors as in `layout`.
    unsafe {
        let from = quad_at::<T>(unit, b, quad);
        let load = |vector: usize| vld1q_u8(from.add(STRIDE * vector));
        let bits = layout::code_bits(QUANTISED[T]);
        let steps = |half: usize| {
            [0, 1, 2, 3].map(|j: usize| {
                if bits == 8 {
                    return vreinterpretq_s8_u8(load(4 * half + j));
                }
                let packed = load(j);
                let low = match half {
                    0 => vandq_u8(packed, vdupq_n_u8(15)),
                    _ => vshrq_n_u8::<4>(packed),
                };
                let code = match bits {
                    5 => vorrq_u8(low, field(load(4), 4 * half + j, 0x10)),
                    6 => vorrq_u8(low, field(load(4 + half), 2 * j, 0x30)),
                    _ => low,
                };
                vreinterpretq_s8_u8(code)
            })
        };
        [steps(0), steps(1)]
    }
}

/// The bits of `mask`, after moving bit `from` of every byte to bit 4.
#[inline(always)]
fn field(v: uint8x16_t, from: usize, mask: u8) -> uint8x16_t {
    // SAFETY: NEON is part of the target.
    unsafe { vandq_u8(vshlq_u8(v, vdupq_n_s8(4 - from as i8)), vdupq_n_u8(mask)) }
}

/// `(d, m)` of block `b` of a unit, half `half`, for the rows of a quad: a weight is
/// `d · code + m`.
///
/// # Safety
/// `unit` must hold a unit of type `T`.
#[inline(always)]
pub unsafe fn scale<const T: usize>(
    unit: *const u8,
    b: usize,
    half: usize,
    quad: usize,
) -> (float32x4_t, float32x4_t) {
    let dtype = QUANTISED[T];
    // SAFETY: offsets as in `layout::scale`.
    unsafe {
        let tail = unit.add(2 * layout::octet_bytes(dtype));
        let subs = unit.add(layout::head_bytes(dtype) + b * layout::block_stride(dtype));
        let halfs = |at: *const u8| widen_f16(vld1_u16(at.add(2 * QUAD * quad).cast()));
        let small = |at: *const u8| at.add(QUAD * quad).cast::<[u8; QUAD]>().read();
        let unsigned = |at: *const u8| lanes(small(at).map(f32::from));
        match dtype {
            Dtype::Q4_0 => (halfs(tail), vmulq_n_f32(halfs(tail), -8.0)),
            Dtype::Q5_0 => (halfs(tail), vmulq_n_f32(halfs(tail), -16.0)),
            Dtype::Q4_1 | Dtype::Q5_1 => (halfs(tail), halfs(tail.add(2 * PANEL))),
            Dtype::Q4K | Dtype::Q5K => {
                let min = vmulq_f32(halfs(unit.add(2 * PANEL)), unsigned(subs.add(PANEL)));
                (vmulq_f32(halfs(unit), unsigned(subs)), vnegq_f32(min))
            }
            Dtype::Q6K => {
                let scale = small(subs.add(half * PANEL)).map(|s| f32::from(s as i8));
                let d = vmulq_f32(halfs(unit), lanes(scale));
                (d, vmulq_n_f32(d, -32.0))
            }
            _ => (halfs(tail), vdupq_n_f32(0.0)),
        }
    }
}

/// Four numbers as a vector.
#[inline(always)]
fn lanes(numbers: [f32; QUAD]) -> float32x4_t {
    // SAFETY: a reference to four numbers.
    unsafe { vld1q_f32(numbers.as_ptr()) }
}
