//! Quantising activations to 16 or 8 bits in blocks of 32.

use std::arch::x86_64::*;

use crate::device::cpu::matmul::kernels::{BYTE_MAX, RowScale, WIDE_MAX};
use crate::device::cpu::matmul::layout::BLOCK;
use crate::device::cpu::matmul::scalar::{block_scale, row_scale};

/// Quantises one row; see the kernel table.
///
/// # Safety
/// As [`super::super::kernels::Kernels`] says.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn quantise(x: &[f32], out: &mut [i16], scales: &mut [RowScale]) {
    let blocks = x.len() / BLOCK;
    assert!(out.len() >= blocks * BLOCK && scales.len() >= blocks);
    for (b, scale) in scales[..blocks].iter_mut().enumerate() {
        // SAFETY: block b is inside `x` and `out` (just checked).
        unsafe { block(x.as_ptr().add(b * BLOCK), out.as_mut_ptr().add(b * BLOCK), scale) };
    }
}

/// The same to bytes; see the kernel table.
///
/// # Safety
/// As [`super::super::kernels::Kernels`] says.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn quantise_bytes(x: &[f32], out: &mut [i8], scales: &mut [RowScale]) {
    let blocks = x.len() / BLOCK;
    assert!(out.len() >= blocks * BLOCK && scales.len() >= blocks);
    // The order of 4-byte groups after packing within 128-bit lanes twice.
    let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    for (b, scale) in scales[..blocks].iter_mut().enumerate() {
        // SAFETY: block b is inside `x` and `out` (just checked).
        unsafe {
            let q = rounded(x.as_ptr().add(b * BLOCK), BYTE_MAX, scale);
            let low = _mm256_packs_epi32(q[0], q[1]);
            let v = _mm256_packs_epi16(low, _mm256_packs_epi32(q[2], q[3]));
            let v = _mm256_permutevar8x32_epi32(v, order);
            _mm256_storeu_si256(out.as_mut_ptr().add(b * BLOCK).cast(), v);
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn block(x: *const f32, to: *mut i16, scale: &mut RowScale) {
    // SAFETY: passed on.
    let q = unsafe { rounded(x, WIDE_MAX, scale) };
    for (i, pair) in q.chunks_exact(2).enumerate() {
        // Packing works within 128-bit lanes; the permutation puts the groups of 4 in order, the
        // shuffles the even columns of each before the odd ones.
        let packed = _mm256_packs_epi32(pair[0], pair[1]);
        let v = _mm256_permute4x64_epi64::<0b11_01_10_00>(packed);
        let v = _mm256_shufflelo_epi16::<0b11_01_10_00>(v);
        let v = _mm256_shufflehi_epi16::<0b11_01_10_00>(v);
        // SAFETY: the caller's pointers hold a block.
        unsafe { _mm256_storeu_si256(to.add(16 * i).cast(), v) };
    }
}

/// A block as integers, its largest magnitude as `most`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn rounded(x: *const f32, most: f32, scale: &mut RowScale) -> [__m256i; 4] {
    // SAFETY: the caller's pointer holds a block.
    let x = [0, 1, 2, 3].map(|i| unsafe { _mm256_loadu_ps(x.add(8 * i)) });
    let (d, inverse) = block_scale(max_magnitude(x), most);
    let inverse = _mm256_set1_ps(inverse);
    let q = x.map(|v| _mm256_cvtps_epi32(_mm256_mul_ps(v, inverse)));
    let sums = [_mm256_add_epi32(q[0], q[1]), _mm256_add_epi32(q[2], q[3])].map(|v| sum(v));
    *scale = row_scale(d, sums);
    q
}

/// Bits of the largest magnitude; magnitudes order as their bits do, NaN last.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn max_magnitude(x: [__m256; 4]) -> u32 {
    let sign = _mm256_set1_ps(-0.0);
    let bits = x.map(|v| _mm256_castps_si256(_mm256_andnot_ps(sign, v)));
    let max =
        _mm256_max_epu32(_mm256_max_epu32(bits[0], bits[1]), _mm256_max_epu32(bits[2], bits[3]));
    let max = _mm_max_epu32(_mm256_castsi256_si128(max), _mm256_extracti128_si256::<1>(max));
    let max = _mm_max_epu32(max, _mm_shuffle_epi32::<0b01_00_11_10>(max));
    let max = _mm_max_epu32(max, _mm_shuffle_epi32::<0b10_11_00_01>(max));
    _mm_cvtsi128_si32(max) as u32
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn sum(v: __m256i) -> i32 {
    let v = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
    let v = _mm_add_epi32(v, _mm_shuffle_epi32::<0b01_00_11_10>(v));
    let v = _mm_add_epi32(v, _mm_shuffle_epi32::<0b10_11_00_01>(v));
    _mm_cvtsi128_si32(v)
}
