//! The two widths of activations: how codes become vectors for them, and what multiplies.
//!
//! 16 bits: 16-bit codes, `madd` sums pairs in 32 bits. 8 bits: unsigned bytes, `maddubs` sums
//! pairs in 16 bits, where 8 (4-bit codes) or 4 (5- and 6-bit) of its results fit before they are
//! widened: 2 · 15 · 128 · 8, 2 · 31 · 128 · 4 and 2 · 63 · 128 · 2 (half a block each) are below
//! 2¹⁵.

use std::arch::x86_64::*;

use super::codes::{biased_quad, byte_pair, quad};
use crate::device::cpu::matmul::integer::Integer;
use crate::device::cpu::matmul::kernels::Codes;
use crate::device::cpu::matmul::layout::STEPS;

/// Codes of one octet's steps `j` and `j + 4`, `N` vectors a step.
pub type Vectors<const N: usize> = [[__m256i; N]; 2];

/// A width of activations, `N` vectors of codes for a step of 4 columns.
pub trait Width<const N: usize>: Integer {
    /// Steps of half a block that are summed before [`Width::widen`].
    fn run(bits: usize) -> usize;

    /// Steps `j` and `j + 4` of a packed octet.
    ///
    /// # Safety
    /// AVX2 must be there, and `octet` hold an octet of type `T`.
    unsafe fn vectors<const T: usize>(octet: *const u8, j: usize) -> Vectors<N>;

    /// Products of a whole block are summed in 32 bits, and [`Width::widen`] does nothing.
    const WHOLE: bool = false;

    /// Whether [`Width::biased`] is there.
    const BIASED: bool = false;

    /// As [`Width::vectors`] of 8-bit codes, each [`BIAS`](super::super::integer::BIAS) larger.
    ///
    /// # Safety
    /// As there.
    unsafe fn biased<const T: usize>(octet: *const u8, j: usize) -> Vectors<N> {
        // SAFETY: passed on.
        unsafe { Self::vectors::<T>(octet, j) }
    }

    /// Where unpacked codes begin: octet after octet, vectors as [`vector_at`] says.
    fn unpacked(codes: &Codes) -> *const u8;
    fn unpacked_mut(codes: &mut Codes) -> *mut u8;

    /// `sum` and the products of codes with activations, neighbours added.
    ///
    /// # Safety
    /// AVX2 must be there.
    unsafe fn multiply(sum: __m256i, codes: __m256i, a: __m256i) -> __m256i;

    /// A run's sums in 32 bits.
    ///
    /// # Safety
    /// AVX2 must be there.
    unsafe fn widen(sums: __m256i) -> __m256i;
}

/// Where vector `n` of step `j`, or `j + 4` in the second half, stands among a block's: of
/// activations, 4 bytes each, and of an octet's unpacked codes.
pub const fn vector_at<const N: usize>(half: usize, j: usize, n: usize) -> usize {
    (half * STEPS / 2 + j) * N + n
}

impl Width<2> for i16 {
    fn run(_: usize) -> usize {
        STEPS / 2
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn vectors<const T: usize>(octet: *const u8, j: usize) -> Vectors<2> {
        // SAFETY: passed on.
        let [a, b, c, d] = unsafe { quad::<T>(octet, j) };
        [[a, b], [c, d]]
    }

    const WHOLE: bool = true;
    const BIASED: bool = true;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn biased<const T: usize>(octet: *const u8, j: usize) -> Vectors<2> {
        // SAFETY: passed on.
        let [a, b, c, d] = unsafe { biased_quad(octet, j) };
        [[a, b], [c, d]]
    }

    fn unpacked(codes: &Codes) -> *const u8 {
        codes.q.as_ptr().cast()
    }

    fn unpacked_mut(codes: &mut Codes) -> *mut u8 {
        codes.q.as_mut_ptr().cast()
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn multiply(sum: __m256i, codes: __m256i, a: __m256i) -> __m256i {
        _mm256_add_epi32(sum, _mm256_madd_epi16(codes, a))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn widen(sums: __m256i) -> __m256i {
        sums
    }
}

impl Width<1> for i8 {
    fn run(bits: usize) -> usize {
        if bits == 4 { STEPS / 2 } else { STEPS / 4 }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn vectors<const T: usize>(octet: *const u8, j: usize) -> Vectors<1> {
        // SAFETY: passed on.
        unsafe { byte_pair::<T>(octet, j) }.map(|v| [v])
    }

    fn unpacked(codes: &Codes) -> *const u8 {
        codes.bytes.as_ptr()
    }

    fn unpacked_mut(codes: &mut Codes) -> *mut u8 {
        codes.bytes.as_mut_ptr()
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn multiply(sum: __m256i, codes: __m256i, a: __m256i) -> __m256i {
        _mm256_add_epi16(sum, _mm256_maddubs_epi16(codes, a))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn widen(sums: __m256i) -> __m256i {
        _mm256_madd_epi16(sums, _mm256_set1_epi16(1))
    }
}
