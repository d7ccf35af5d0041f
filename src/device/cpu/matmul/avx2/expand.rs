//! Unpacking quantised panels to memory: codes to 16 bits or bytes, scales to f32, and on to f32
//! weights for the exact mode.

use std::arch::x86_64::*;

use super::codes::{load, scale};
use super::width::{Width, vector_at};
use crate::device::cpu::matmul::at_type::{QUANTISED, at_type};
use crate::device::cpu::matmul::kernels::{Codes, INT_CHUNK};
use crate::device::cpu::matmul::layout::{self, BLOCK, OCTET, PANEL, STEPS};
use crate::types::Dtype;

/// Unpacks whole units for a width of activations.
///
/// # Safety
/// As [`super::super::kernels::Kernels`] says.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn expand<A: Width<N>, const N: usize>(dtype: Dtype, units: &[u8], out: &mut Codes) {
    // SAFETY: passed on.
    unsafe { at_type!(dtype, units_of[A, N](units, out)) }
}

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn units_of<A: Width<N>, const N: usize, const T: usize>(units: &[u8], out: &mut Codes) {
    let dtype = QUANTISED[T];
    let (blocks, halves) = (layout::unit_len(dtype) / BLOCK, layout::scales_per_block(dtype));
    let count = units.len() / layout::unit_bytes(dtype);
    assert!(count * blocks * BLOCK <= INT_CHUNK);
    for index in 0..count * blocks {
        // SAFETY: the units are whole and the block is inside `out` (just checked).
        unsafe {
            let unit = units.as_ptr().add(index / blocks * layout::unit_bytes(dtype));
            let b = index % blocks;
            for octet in 0..2 {
                let octets = unit.add(layout::codes_offset(dtype, b));
                let from = octets.add(octet * layout::octet_bytes(dtype));
                let to = A::unpacked_mut(out).add((index * 2 + octet) * STEPS * N * 32);
                unpack::<A, N, T>(from, to);
                for half in 0..halves {
                    let (d, m) = scale::<T>(unit, b, half, octet);
                    let at = (index * halves + half) * PANEL + octet * OCTET;
                    _mm256_storeu_ps(out.d.as_mut_ptr().add(at), d);
                    _mm256_storeu_ps(out.m.as_mut_ptr().add(at), m);
                }
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn unpack<A: Width<N>, const N: usize, const T: usize>(octet: *const u8, to: *mut u8) {
    for j in 0..STEPS / 2 {
        // SAFETY: the caller's pointers hold an octet.
        unsafe {
            for (half, vectors) in A::vectors::<T>(octet, j).into_iter().enumerate() {
                for (n, vector) in vectors.into_iter().enumerate() {
                    _mm256_store_si256(to.add(32 * vector_at::<N>(half, j, n)).cast(), vector);
                }
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
                    let code = column(&codes.q, at, k);
                    let w =
                        if signed { _mm256_mul_ps(code, d) } else { _mm256_fmadd_ps(code, d, m) };
                    _mm256_storeu_ps(to.add(k * PANEL), w);
                }
            }
        }
    }
}

/// Column `k` of the 4 of step `at`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn column(q: &[i16], at: usize, k: usize) -> __m256 {
    // SAFETY: the caller's step is inside `q`.
    let v = unsafe { load(q.as_ptr().cast(), 2 * at + k % 2) };
    let v = if k < 2 { _mm256_slli_epi32::<16>(v) } else { v };
    _mm256_cvtepi32_ps(_mm256_srai_epi32::<16>(v))
}
