//! Quantising activations to 16 or 8 bits in blocks of 32.

use std::arch::aarch64::*;

use crate::device::cpu::matmul::integer::{
    BYTE_MAX, FINE_MAX, RowMut, RowScale, WIDE_MAX, block_scale, row_scale,
};
use crate::device::cpu::matmul::layout::BLOCK;

/// A block's integers in 16 bits.
type Shorts = [int16x8_t; 4];

/// Quantises a row to 16 bits, high and low bytes apart; see the kernel table.
///
/// # Safety
/// As [`super::super::kernels::Kernels`] says.
pub unsafe fn wide(x: &[f32], _: f32, out: RowMut<'_, i16>) {
    let blocks = x.len() / BLOCK;
    assert!(out.q.len() >= blocks * BLOCK && out.scales.len() >= blocks);
    *out.fine = 0;
    for (b, scale) in out.scales[..blocks].iter_mut().enumerate() {
        // SAFETY: block b is inside `x` and `out` (just checked).
        unsafe {
            let x = block(x.as_ptr().add(b * BLOCK));
            let q = rounded(x, max_magnitude(x), WIDE_MAX, scale);
            let to = out.q.as_mut_ptr().add(b * BLOCK).cast::<i8>();
            store(high_bytes(q), to);
            // Less 128, as signed bytes.
            store(low_bytes(q).map(|low| veorq_s8(low, vdupq_n_s8(i8::MIN))), to.add(BLOCK));
        }
    }
}

/// Quantises a row to bytes; see the kernel table.
///
/// # Safety
/// As [`super::super::kernels::Kernels`] says.
pub unsafe fn bytes(x: &[f32], limit: f32, out: RowMut<'_, i8>) {
    let blocks = x.len() / BLOCK;
    assert!(out.q.len().min(out.low.len()) >= blocks * BLOCK && out.scales.len() >= blocks);
    let mut fine = 0;
    for (b, scale) in out.scales[..blocks].iter_mut().enumerate() {
        // SAFETY: block b is inside `x` and `out` (just checked).
        unsafe {
            let x = block(x.as_ptr().add(b * BLOCK));
            let to = (out.q.as_mut_ptr().add(b * BLOCK), out.low.as_mut_ptr().add(b * BLOCK));
            let max = max_magnitude(x);
            if f32::from_bits(max) > limit {
                fine |= 1 << b;
                let q = rounded(x, max, FINE_MAX, scale);
                // 32639 + 128 fits; the low byte is what the high one, so rounded, leaves.
                store(high_bytes(q.map(|q| vaddq_s16(q, vdupq_n_s16(128)))), to.0);
                store(low_bytes(q), to.1);
            } else {
                store(low_bytes(rounded(x, max, BYTE_MAX, scale)), to.0);
                store([vdupq_n_s8(0); 2], to.1);
            }
        }
    }
    *out.fine = fine;
}

#[inline(always)]
fn high_bytes(q: Shorts) -> [int8x16_t; 2] {
    // SAFETY: NEON is part of the target.
    unsafe {
        let q = q.map(|q| vreinterpretq_s8_s16(q));
        [vuzp2q_s8(q[0], q[1]), vuzp2q_s8(q[2], q[3])]
    }
}

#[inline(always)]
fn low_bytes(q: Shorts) -> [int8x16_t; 2] {
    // SAFETY: NEON is part of the target.
    unsafe {
        let q = q.map(|q| vreinterpretq_s8_s16(q));
        [vuzp1q_s8(q[0], q[1]), vuzp1q_s8(q[2], q[3])]
    }
}

#[inline(always)]
unsafe fn store(bytes: [int8x16_t; 2], to: *mut i8) {
    // SAFETY: the caller's pointer holds a block of bytes.
    unsafe {
        vst1q_s8(to, bytes[0]);
        vst1q_s8(to.add(16), bytes[1]);
    }
}

#[inline(always)]
unsafe fn block(x: *const f32) -> [float32x4_t; 8] {
    // SAFETY: the caller's pointer holds a block.
    std::array::from_fn(|i| unsafe { vld1q_f32(x.add(4 * i)) })
}

/// A block as integers, the magnitude of the bits `max` as `most`.
#[inline(always)]
fn rounded(x: [float32x4_t; 8], max: u32, most: f32, scale: &mut RowScale) -> Shorts {
    let (d, inverse) = block_scale(max, most);
    // SAFETY: NEON is part of the target.
    unsafe {
        let q = x.map(|v| vcvtnq_s32_f32(vmulq_n_f32(v, inverse)));
        let sum = |i: usize| {
            let pairs = vaddq_s32(vaddq_s32(q[i], q[i + 1]), vaddq_s32(q[i + 2], q[i + 3]));
            vaddvq_s32(pairs)
        };
        *scale = row_scale(d, [sum(0), sum(4)]);
        let q = q.map(|q| vreinterpretq_s16_s32(q));
        std::array::from_fn(|i| vuzp1q_s16(q[2 * i], q[2 * i + 1]))
    }
}

/// Bits of the largest magnitude; magnitudes order as their bits do, NaN last.
#[inline(always)]
fn max_magnitude(x: [float32x4_t; 8]) -> u32 {
    // SAFETY: NEON is part of the target.
    unsafe {
        let bits = x.map(|v| vreinterpretq_u32_f32(vabsq_f32(v)));
        vmaxvq_u32(bits.into_iter().fold(vdupq_n_u32(0), |most, bits| vmaxq_u32(most, bits)))
    }
}
