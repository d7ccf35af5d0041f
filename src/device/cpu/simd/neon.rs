//! Lanes in NEON registers, two of four numbers.

use std::arch::aarch64::*;
use std::arch::asm;

use half::f16;

use super::{LANES, Lanes};

/// Eight numbers in two registers.
#[derive(Debug, Clone, Copy)]
pub struct Neon([float32x4_t; 2]);

/// Calls intrinsics.
macro_rules! neon {
    ($call:expr) => {
        // SAFETY: NEON is part of the target, and pointers come from references to eight numbers.
        unsafe { $call }
    };
}

/// Four half-precision numbers as f32.
#[inline(always)]
pub fn widen_f16(halfs: uint16x4_t) -> float32x4_t {
    let wide;
    // SAFETY: reads and writes the named registers alone.
    unsafe {
        asm!(
            "fcvtl {wide:v}.4s, {halfs:v}.4h",
            wide = out(vreg) wide,
            halfs = in(vreg) halfs,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    wide
}

/// Four numbers rounded to half precision, ties to even.
#[inline(always)]
fn narrow_f16(wide: float32x4_t) -> uint16x4_t {
    let halves;
    // SAFETY: reads and writes the named registers alone.
    unsafe {
        asm!(
            "fcvtn {halves:v}.4h, {wide:v}.4s",
            halves = out(vreg) halves,
            wide = in(vreg) wide,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    halves
}

impl Neon {
    #[inline(always)]
    fn map(self, f: impl Fn(float32x4_t) -> float32x4_t) -> Self {
        Neon(self.0.map(f))
    }

    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(float32x4_t, float32x4_t) -> float32x4_t) -> Self {
        Neon([f(self.0[0], other.0[0]), f(self.0[1], other.0[1])])
    }
}

impl Lanes for Neon {
    #[inline(always)]
    fn splat(x: f32) -> Self {
        neon!(Neon([vdupq_n_f32(x); 2]))
    }

    #[inline(always)]
    fn load(from: &[f32; LANES]) -> Self {
        neon!(Neon([vld1q_f32(from.as_ptr()), vld1q_f32(from.as_ptr().add(4))]))
    }

    #[inline(always)]
    fn load_f16(from: &[f16; LANES]) -> Self {
        let at = from.as_ptr().cast::<u16>();
        neon!(Neon([widen_f16(vld1_u16(at)), widen_f16(vld1_u16(at.add(4)))]))
    }

    #[inline(always)]
    fn store(self, to: &mut [f32; LANES]) {
        neon!({
            vst1q_f32(to.as_mut_ptr(), self.0[0]);
            vst1q_f32(to.as_mut_ptr().add(4), self.0[1]);
        })
    }

    #[inline(always)]
    fn store_f16(self, to: &mut [f16; LANES]) {
        let [low, high] = self.0.map(narrow_f16);
        let at = to.as_mut_ptr().cast::<u16>();
        neon!({
            vst1_u16(at, low);
            vst1_u16(at.add(4), high);
        })
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        neon!(self.zip(other, |a, b| vaddq_f32(a, b)))
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        neon!(self.zip(other, |a, b| vsubq_f32(a, b)))
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        neon!(self.zip(other, |a, b| vmulq_f32(a, b)))
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        neon!(self.zip(other, |a, b| vdivq_f32(a, b)))
    }

    #[inline(always)]
    fn fma(self, factor: Self, sum: Self) -> Self {
        neon!(Neon([0, 1].map(|i| vfmaq_f32(sum.0[i], self.0[i], factor.0[i]))))
    }

    /// By comparison: NEON's own maximum is NaN where either is.
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        neon!(self.zip(other, |a, b| vbslq_f32(vcgtq_f32(a, b), a, b)))
    }

    /// As [`Lanes::max`].
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        neon!(self.zip(other, |a, b| vbslq_f32(vcltq_f32(a, b), a, b)))
    }

    #[inline(always)]
    fn round(self) -> Self {
        neon!(self.map(|v| vrndnq_f32(v)))
    }

    #[inline(always)]
    fn pow2(self) -> Self {
        neon!(self.map(|v| {
            let exponent = vaddq_s32(vcvtnq_s32_f32(v), vdupq_n_s32(127));
            vreinterpretq_f32_s32(vshlq_n_s32::<23>(exponent))
        }))
    }

    #[inline(always)]
    fn if_below(self, limit: Self, yes: Self, no: Self) -> Self {
        neon!({
            let pick = |i: usize| vbslq_f32(vcltq_f32(self.0[i], limit.0[i]), yes.0[i], no.0[i]);
            Neon([pick(0), pick(1)])
        })
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        neon!({
            let pairs = vpaddq_f32(self.0[0], self.0[1]);
            let fours = vpaddq_f32(pairs, pairs);
            vgetq_lane_f32::<0>(fours) + vgetq_lane_f32::<1>(fours)
        })
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        neon!(vmaxnmvq_f32(vmaxnmq_f32(self.0[0], self.0[1])))
    }

    #[inline(always)]
    fn sums(v: [Self; LANES]) -> Self {
        neon!({
            let pairs = v.map(|v| vpaddq_f32(v.0[0], v.0[1]));
            let fours = [0, 2, 4, 6].map(|i| vpaddq_f32(pairs[i], pairs[i + 1]));
            Neon([vpaddq_f32(fours[0], fours[1]), vpaddq_f32(fours[2], fours[3])])
        })
    }
}
