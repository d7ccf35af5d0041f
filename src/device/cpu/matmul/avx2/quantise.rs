//! Quantising activations to 16 or 8 bits in blocks of 32.

use std::arch::x86_64::*;

use crate::device::cpu::matmul::integer::{
    BYTE_MAX, FINE_MAX, RowMut, RowScale, WIDE_MAX, block_scale, row_scale,
};
use crate::device::cpu::matmul::layout::BLOCK;

/// Quantises a row to 16 bits; see the kernel table.
///
/// # Safety
/// As [`super::super::kernels::Kernels`] says.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn wide(x: &[f32], _: f32, out: RowMut<'_, i16>) {
    let blocks = x.len() / BLOCK;
    assert!(out.q.len() >= blocks * BLOCK && out.scales.len() >= blocks);
    *out.fine = 0;
    for (b, scale) in out.scales[..blocks].iter_mut().enumerate() {
        // SAFETY: block b is inside `x` and `out` (just checked).
        unsafe {
            let x = block(x.as_ptr().add(b * BLOCK));
            let q = rounded(x, max_magnitude(x), WIDE_MAX, scale);
            store_paired(q, out.q.as_mut_ptr().add(b * BLOCK));
        }
    }
}

/// Quantises a row to bytes; see the kernel table.
///
/// # Safety
/// As [`super::super::kernels::Kernels`] says.
#[target_feature(enable = "avx2,fma,f16c")]
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
                let half = _mm256_set1_epi32(128);
                let high = q.map(|q| _mm256_srai_epi32::<8>(_mm256_add_epi32(q, half)));
                store_bytes(high, to.0);
                let low = |i: usize| _mm256_sub_epi32(q[i], _mm256_slli_epi32::<8>(high[i]));
                store_bytes([low(0), low(1), low(2), low(3)], to.1);
            } else {
                store_bytes(rounded(x, max, BYTE_MAX, scale), to.0);
                _mm256_storeu_si256(to.1.cast(), _mm256_setzero_si256());
            }
        }
    }
    *out.fine = fine;
}

/// Stores 32 numbers as bytes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn store_bytes(q: [__m256i; 4], to: *mut i8) {
    // The order of 4-byte groups after packing within 128-bit lanes twice.
    let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    let low = _mm256_packs_epi32(q[0], q[1]);
    let v = _mm256_packs_epi16(low, _mm256_packs_epi32(q[2], q[3]));
    // SAFETY: the caller's pointer holds a block.
    unsafe { _mm256_storeu_si256(to.cast(), _mm256_permutevar8x32_epi32(v, order)) };
}

/// Stores 32 numbers as 16 bits, paired.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn store_paired(q: [__m256i; 4], to: *mut i16) {
    for (i, pair) in q.chunks_exact(2).enumerate() {
        // Packing works within 128-bit lanes; the permutation puts the groups of 4 in order, the
        // shuffles the even columns of each before the odd ones.
        let packed = _mm256_packs_epi32(pair[0], pair[1]);
        let v = _mm256_permute4x64_epi64::<0b11_01_10_00>(packed);
        let v = _mm256_shufflelo_epi16::<0b11_01_10_00>(v);
        let v = _mm256_shufflehi_epi16::<0b11_01_10_00>(v);
        // SAFETY: the caller's pointer holds a block.
        unsafe { _mm256_storeu_si256(to.add(16 * i).cast(), v) };
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn block(x: *const f32) -> [__m256; 4] {
    // SAFETY: the caller's pointer holds a block.
    [0, 1, 2, 3].map(|i| unsafe { _mm256_loadu_ps(x.add(8 * i)) })
}

/// A block as integers, the magnitude of the bits `max` as `most`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn rounded(x: [__m256; 4], max: u32, most: f32, scale: &mut RowScale) -> [__m256i; 4] {
    let (d, inverse) = block_scale(max, most);
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
