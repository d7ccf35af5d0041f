//! Lanes in AVX2 registers, with FMA and F16C.

use std::arch::x86_64::*;

use half::f16;

use super::{LANES, Lanes};

/// Eight numbers in a register. Used only inside functions compiled with AVX2, FMA and F16C.
#[derive(Debug, Clone, Copy)]
pub struct Avx2(__m256);

/// Calls an intrinsic.
macro_rules! avx {
    ($call:expr) => {
        // SAFETY: `simd_fn!` uses these lanes only where AVX2, FMA and F16C were detected, and
        // pointers come from references to eight numbers.
        unsafe { $call }
    };
}

impl Lanes for Avx2 {
    #[inline(always)]
    fn splat(x: f32) -> Self {
        avx!(Avx2(_mm256_set1_ps(x)))
    }

    #[inline(always)]
    fn load(from: &[f32; LANES]) -> Self {
        avx!(Avx2(_mm256_loadu_ps(from.as_ptr())))
    }

    #[inline(always)]
    fn load_f16(from: &[f16; LANES]) -> Self {
        avx!(Avx2(_mm256_cvtph_ps(_mm_loadu_si128(from.as_ptr().cast()))))
    }

    #[inline(always)]
    fn store(self, to: &mut [f32; LANES]) {
        avx!(_mm256_storeu_ps(to.as_mut_ptr(), self.0))
    }

    #[inline(always)]
    fn store_f16(self, to: &mut [f16; LANES]) {
        avx!({
            let halves = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.0);
            _mm_storeu_si128(to.as_mut_ptr().cast(), halves)
        })
    }

    #[inline(always)]
    fn prefetch<T>(at: &T) {
        avx!(_mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(at).cast()))
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        avx!(Avx2(_mm256_add_ps(self.0, other.0)))
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        avx!(Avx2(_mm256_sub_ps(self.0, other.0)))
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        avx!(Avx2(_mm256_mul_ps(self.0, other.0)))
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        avx!(Avx2(_mm256_div_ps(self.0, other.0)))
    }

    #[inline(always)]
    fn fma(self, factor: Self, sum: Self) -> Self {
        avx!(Avx2(_mm256_fmadd_ps(self.0, factor.0, sum.0)))
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        avx!(Avx2(_mm256_max_ps(self.0, other.0)))
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        avx!(Avx2(_mm256_min_ps(self.0, other.0)))
    }

    #[inline(always)]
    fn round(self) -> Self {
        avx!(Avx2(_mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0)))
    }

    #[inline(always)]
    fn pow2(self) -> Self {
        avx!({
            let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(self.0), _mm256_set1_epi32(127));
            Avx2(_mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent)))
        })
    }

    #[inline(always)]
    fn if_below(self, limit: Self, yes: Self, no: Self) -> Self {
        avx!({
            let below = _mm256_cmp_ps::<_CMP_LT_OQ>(self.0, limit.0);
            Avx2(_mm256_blendv_ps(no.0, yes.0, below))
        })
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        avx!({
            let pairs = _mm256_hadd_ps(self.0, self.0);
            let fours = _mm256_hadd_ps(pairs, pairs);
            let high = _mm256_extractf128_ps::<1>(fours);
            _mm_cvtss_f32(_mm_add_ss(_mm256_castps256_ps128(fours), high))
        })
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        avx!({
            let high = _mm256_extractf128_ps::<1>(self.0);
            let four = _mm_max_ps(_mm256_castps256_ps128(self.0), high);
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps::<1>(two, two)))
        })
    }

    #[inline(always)]
    fn sums(v: [Self; LANES]) -> Self {
        avx!({
            let four = |a: Avx2, b: Avx2, c: Avx2, d: Avx2| {
                _mm256_hadd_ps(_mm256_hadd_ps(a.0, b.0), _mm256_hadd_ps(c.0, d.0))
            };
            let (first, last) = (four(v[0], v[1], v[2], v[3]), four(v[4], v[5], v[6], v[7]));
            let low = _mm256_permute2f128_ps::<0x20>(first, last);
            let high = _mm256_permute2f128_ps::<0x31>(first, last);
            Avx2(_mm256_add_ps(low, high))
        })
    }
}
