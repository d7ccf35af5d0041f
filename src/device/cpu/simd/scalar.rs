//! Lanes in plain Rust: the fallback on every processor.

use half::f16;

use super::{LANES, Lanes};

/// Eight numbers in an array.
#[derive(Debug, Clone, Copy)]
pub struct Scalar([f32; LANES]);

impl Scalar {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Scalar(std::array::from_fn(|i| f(self.0[i], other.0[i])))
    }
}

impl Lanes for Scalar {
    #[inline(always)]
    fn splat(x: f32) -> Self {
        Scalar([x; LANES])
    }

    #[inline(always)]
    fn load(from: &[f32; LANES]) -> Self {
        Scalar(*from)
    }

    #[inline(always)]
    fn load_f16(from: &[f16; LANES]) -> Self {
        Scalar(from.map(f16::to_f32))
    }

    #[inline(always)]
    fn store(self, to: &mut [f32; LANES]) {
        *to = self.0;
    }

    #[inline(always)]
    fn store_f16(self, to: &mut [f16; LANES]) {
        *to = self.0.map(f16::from_f32);
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        self.zip(other, |a, b| a / b)
    }

    /// Rounds twice: without FMA instructions `f32::mul_add` is a slow library call.
    #[inline(always)]
    fn fma(self, factor: Self, sum: Self) -> Self {
        self.mul(factor).add(sum)
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        self.zip(other, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    fn round(self) -> Self {
        Scalar(self.0.map(f32::round_ties_even))
    }

    #[inline(always)]
    fn pow2(self) -> Self {
        Scalar(self.0.map(|n| f32::from_bits(((n as i32 + 127) as u32) << 23)))
    }

    #[inline(always)]
    fn if_below(self, limit: Self, yes: Self, no: Self) -> Self {
        let pick = |i: usize| if self.0[i] < limit.0[i] { yes.0[i] } else { no.0[i] };
        Scalar(std::array::from_fn(pick))
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        let [a, b, c, d, e, f, g, h] = self.0;
        ((a + b) + (c + d)) + ((e + f) + (g + h))
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        self.0.into_iter().fold(f32::NEG_INFINITY, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn sums(vectors: [Self; LANES]) -> Self {
        Scalar(vectors.map(Self::sum))
    }
}
