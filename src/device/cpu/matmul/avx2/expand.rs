//! Unpacking quantised panels: codes to bytes (or 16-bit numbers), scales to f32, and on to f32
//! weights for the exact mode.

use std::arch::x86_64::*;

use crate::device::cpu::matmul::kernels::{Codes, INT_CHUNK};
use crate::device::cpu::matmul::layout::{self, BLOCK, OCTET, PANEL, STEPS};
use crate::types::Dtype;

/// Unpacks whole units.
///
/// # Safety
/// As [`super::super::kernels::Kernels`] says.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn expand(dtype: Dtype, units: &[u8], out: &mut Codes) {
    let blocks = layout::unit_len(dtype) / BLOCK;
    let count = units.len() / layout::unit_bytes(dtype);
    assert!(count * blocks * BLOCK <= INT_CHUNK);
    for u in 0..count {
        let unit = &units[u * layout::unit_bytes(dtype)..][..layout::unit_bytes(dtype)];
        for b in 0..blocks {
            let block = u * blocks + b;
            // SAFETY: the unit is whole and the block is inside `out` (checked above).
            unsafe {
                let octets = unit.as_ptr().add(layout::codes_offset(dtype, b));
                let q = out.q.as_mut_ptr();
                for octet in 0..2 {
                    let from = octets.add(octet * layout::octet_bytes(dtype));
                    match layout::code_bits(dtype) {
                        4 => octet4(from, q.add((block * 2 + octet) * 256)),
                        5 => octet5(from, q.add((block * 2 + octet) * 256)),
                        6 => octet6(from, q.add((block * 2 + octet) * 256)),
                        _ => octet8(from, q.add((block * 2 + octet) * 512)),
                    }
                }
                scales(dtype, unit, b, block, out);
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn load(from: *const u8, vector: usize) -> __m256i {
    // SAFETY: the caller's pointer holds that vector.
    unsafe { _mm256_loadu_si256(from.add(32 * vector).cast()) }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn store(to: *mut u8, step: usize, v: __m256i) {
    // SAFETY: the caller's pointer has room for that step.
    unsafe { _mm256_store_si256(to.add(32 * step).cast(), v) }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn octet4(from: *const u8, to: *mut u8) {
    let mask = _mm256_set1_epi8(15);
    // SAFETY: the caller's pointers hold an octet.
    unsafe {
        for j in 0..STEPS / 2 {
            let v = load(from, j);
            store(to, j, _mm256_and_si256(v, mask));
            store(to, j + 4, _mm256_and_si256(_mm256_srli_epi16::<4>(v), mask));
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn octet5(from: *const u8, to: *mut u8) {
    let (mask, sixteen) = (_mm256_set1_epi8(15), _mm256_set1_epi8(16));
    // SAFETY: the caller's pointers hold an octet.
    unsafe {
        let high = load(from, 4);
        for j in 0..STEPS / 2 {
            let v = load(from, j);
            let low = _mm256_and_si256(v, mask);
            let up = _mm256_and_si256(_mm256_srli_epi16::<4>(v), mask);
            // Bit j of a byte is moved to bit 4; the mask drops what comes from its neighbour.
            let bit = _mm256_sll_epi16(high, _mm_cvtsi32_si128(4 - j as i32));
            store(to, j, _mm256_or_si256(low, _mm256_and_si256(bit, sixteen)));
            let bit = _mm256_srl_epi16(high, _mm_cvtsi32_si128(j as i32));
            store(to, j + 4, _mm256_or_si256(up, _mm256_and_si256(bit, sixteen)));
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn octet6(from: *const u8, to: *mut u8) {
    let (mask, high_mask) = (_mm256_set1_epi8(15), _mm256_set1_epi8(48));
    // SAFETY: the caller's pointers hold an octet.
    unsafe {
        let (high0, high1) = (load(from, 4), load(from, 5));
        for j in 0..STEPS / 2 {
            let v = load(from, j);
            let low = _mm256_and_si256(v, mask);
            let up = _mm256_and_si256(_mm256_srli_epi16::<4>(v), mask);
            let bits = |high| {
                let shifted = if j <= 2 {
                    _mm256_sll_epi16(high, _mm_cvtsi32_si128(4 - 2 * j as i32))
                } else {
                    _mm256_srli_epi16::<2>(high)
                };
                _mm256_and_si256(shifted, high_mask)
            };
            store(to, j, _mm256_or_si256(low, bits(high0)));
            store(to, j + 4, _mm256_or_si256(up, bits(high1)));
        }
    }
}

/// 8-bit codes to 16 bits: a step of 4 columns becomes two of 2.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn octet8(from: *const u8, to: *mut u8) {
    // Within each 128-bit lane: the first pair of every row, then the second.
    let pairs = _mm256_setr_epi8(
        0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15, //
        0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15,
    );
    // SAFETY: the caller's pointers hold an octet.
    unsafe {
        for step in 0..STEPS {
            let v = _mm256_shuffle_epi8(load(from, step), pairs);
            let v = _mm256_permute4x64_epi64::<0b11_01_10_00>(v);
            store(to, 2 * step, _mm256_cvtepi8_epi16(_mm256_castsi256_si128(v)));
            store(to, 2 * step + 1, _mm256_cvtepi8_epi16(_mm256_extracti128_si256::<1>(v)));
        }
    }
}

/// The scales of block `b` of a unit, to block `block` of `out`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn scales(dtype: Dtype, unit: &[u8], b: usize, block: usize, out: &mut Codes) {
    let halves = layout::scales_per_block(dtype);
    let unit = unit.as_ptr();
    // SAFETY: offsets as in `layout::scale`; `out` has room for the block's scales.
    unsafe {
        let d_out = out.d.as_mut_ptr().add(block * halves * PANEL);
        let m_out = out.m.as_mut_ptr().add(block * halves * PANEL);
        let tail = unit.add(2 * layout::octet_bytes(dtype));
        let subs = unit.add(layout::head_bytes(dtype) + b * layout::block_stride(dtype));
        for octet in 0..2 {
            let (d_out, m_out) = (d_out.add(octet * OCTET), m_out.add(octet * OCTET));
            let halfs =
                |at: *const u8| _mm256_cvtph_ps(_mm_loadu_si128(at.add(octet * 2 * OCTET).cast()));
            let small = |at: *const u8| _mm_loadl_epi64(at.add(octet * OCTET).cast());
            let put = |at: *mut f32, v| _mm256_storeu_ps(at, v);
            match dtype {
                Dtype::Q4_0 | Dtype::Q5_0 => {
                    let zero = if dtype == Dtype::Q4_0 { -8.0 } else { -16.0 };
                    put(d_out, halfs(tail));
                    put(m_out, _mm256_mul_ps(halfs(tail), _mm256_set1_ps(zero)));
                }
                Dtype::Q4_1 | Dtype::Q5_1 => {
                    put(d_out, halfs(tail));
                    put(m_out, halfs(tail.add(2 * PANEL)));
                }
                Dtype::Q4K | Dtype::Q5K => {
                    let scale = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(small(subs)));
                    let min = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(small(subs.add(PANEL))));
                    put(d_out, _mm256_mul_ps(halfs(unit), scale));
                    let min = _mm256_mul_ps(halfs(unit.add(2 * PANEL)), min);
                    put(m_out, _mm256_xor_ps(min, _mm256_set1_ps(-0.0)));
                }
                Dtype::Q6K => {
                    for half in 0..2 {
                        let scale = _mm256_cvtepi8_epi32(small(subs.add(half * PANEL)));
                        let d = _mm256_mul_ps(halfs(unit), _mm256_cvtepi32_ps(scale));
                        put(d_out.add(half * PANEL), d);
                        put(m_out.add(half * PANEL), _mm256_mul_ps(d, _mm256_set1_ps(-32.0)));
                    }
                }
                _ => put(d_out, halfs(tail)),
            }
        }
    }
}

/// `[32 · blocks][16]` f32 weights.
///
/// # Safety
/// As [`super::super::kernels::Kernels`] says.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn dequantise(dtype: Dtype, codes: &Codes, blocks: usize, out: &mut [f32]) {
    assert!(out.len() >= blocks * BLOCK * PANEL && blocks * BLOCK <= INT_CHUNK);
    let signed = layout::code_bits(dtype) == 8;
    let halves = layout::scales_per_block(dtype);
    for octet in 0..2 * blocks {
        let (block, octet) = (octet / 2, octet % 2);
        for step in 0..STEPS {
            let part = block * halves + step * halves / STEPS;
            let at = (block * 2 + octet) * STEPS + step;
            // SAFETY: inside `codes` and `out` (checked above).
            unsafe {
                let d = _mm256_loadu_ps(codes.d.as_ptr().add(part * PANEL + octet * OCTET));
                let m = _mm256_loadu_ps(codes.m.as_ptr().add(part * PANEL + octet * OCTET));
                let to = out.as_mut_ptr().add((block * BLOCK + 4 * step) * PANEL + octet * OCTET);
                for k in 0..4 {
                    let w = if signed {
                        _mm256_mul_ps(signed_code(&codes.q, at, k), d)
                    } else {
                        _mm256_fmadd_ps(unsigned_code(&codes.q, at, k), d, m)
                    };
                    _mm256_storeu_ps(to.add(k * PANEL), w);
                }
            }
        }
    }
}

/// Byte `k` of every 32-bit lane of step `at`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn unsigned_code(q: &[u8], at: usize, k: usize) -> __m256 {
    // SAFETY: the caller's step is inside `q`.
    let v = unsafe { load(q.as_ptr(), at) };
    let v = _mm256_srl_epi32(v, _mm_cvtsi32_si128(8 * k as i32));
    _mm256_cvtepi32_ps(_mm256_and_si256(v, _mm256_set1_epi32(255)))
}

/// Column `k` of the 4 of step `at`, stored as two steps of 16-bit pairs.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn signed_code(q: &[u8], at: usize, k: usize) -> __m256 {
    // SAFETY: the caller's step is inside `q`.
    let v = unsafe { load(q.as_ptr(), 2 * at + k / 2) };
    let v = if k % 2 == 0 { _mm256_slli_epi32::<16>(v) } else { v };
    _mm256_cvtepi32_ps(_mm256_srai_epi32::<16>(v))
}
