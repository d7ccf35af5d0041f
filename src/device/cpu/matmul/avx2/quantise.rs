//! Quantising activations to 16 bits in blocks of 32.

use std::arch::x86_64::*;

use crate::device::cpu::matmul::kernels::{INT_CHUNK, RowScale};
use crate::device::cpu::matmul::layout::BLOCK;
use crate::device::cpu::matmul::scalar::{block_scale, row_scale};

/// Quantises one row; see the kernel table.
///
/// # Safety
/// As [`super::super::kernels::Kernels`] says.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn quantise(x: &[f32], bytes: &mut [i8], wide: &mut [i16], scales: &mut [RowScale]) {
    let blocks = x.len() / BLOCK;
    assert!(bytes.len() >= INT_CHUNK + blocks * BLOCK && scales.len() >= blocks);
    assert!(wide.is_empty() || wide.len() >= blocks * BLOCK);
    for (b, scale) in scales[..blocks].iter_mut().enumerate() {
        // SAFETY: block b is inside `x`, both halves of `bytes`, and `wide` (just checked).
        unsafe {
            let q = block(x.as_ptr().add(b * BLOCK), bytes.as_mut_ptr().add(b * BLOCK), scale);
            if !wide.is_empty() {
                let to = wide.as_mut_ptr().add(b * BLOCK).cast::<__m256i>();
                _mm256_storeu_si256(to, q[0]);
                _mm256_storeu_si256(to.add(1), q[1]);
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn block(x: *const f32, to: *mut i8, scale: &mut RowScale) -> [__m256i; 2] {
    // SAFETY: the caller's pointers hold a block.
    let x: [__m256; 4] = unsafe {
        [
            _mm256_loadu_ps(x),
            _mm256_loadu_ps(x.add(8)),
            _mm256_loadu_ps(x.add(16)),
            _mm256_loadu_ps(x.add(24)),
        ]
    };
    let (d, inverse) = block_scale(max_magnitude(x));
    let inverse = _mm256_set1_ps(inverse);
    let q = x.map(|v| _mm256_cvtps_epi32(_mm256_mul_ps(v, inverse)));
    // Packing works within 128-bit lanes; the permutation puts the groups of 4 back in order.
    let in_order = |a, b| _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(a, b));
    let wide = [in_order(q[0], q[1]), in_order(q[2], q[3])];
    let high = wide.map(|v| _mm256_srai_epi16::<8>(_mm256_add_epi16(v, _mm256_set1_epi16(128))));
    let low = [0, 1].map(|i| _mm256_sub_epi16(wide[i], _mm256_slli_epi16::<8>(high[i])));
    let pack =
        |v: [__m256i; 2]| _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi16(v[0], v[1]));
    // SAFETY: as above; the low bytes stand `INT_CHUNK` after the high ones.
    unsafe {
        _mm256_storeu_si256(to.cast(), pack(high));
        _mm256_storeu_si256(to.add(INT_CHUNK).cast(), pack(low));
    }
    let sums = [_mm256_add_epi32(q[0], q[1]), _mm256_add_epi32(q[2], q[3])].map(|v| sum(v));
    *scale = row_scale(d, sums);
    wide
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
