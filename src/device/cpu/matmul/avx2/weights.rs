//! What the integer tile multiplies: packed or unpacked weights of a panel.

use std::arch::x86_64::*;

use super::codes::{load, scale};
use super::width::{Vectors, Width, vector_at};
use crate::device::cpu::matmul::at_type::QUANTISED;
use crate::device::cpu::matmul::kernels::Codes;
use crate::device::cpu::matmul::layout::{self, BLOCK, OCTET, PANEL, STEPS};
use crate::types::Dtype;

/// Where codes and scales of a type come from.
pub trait Weights {
    const DTYPE: Dtype;
    /// Scales in a block.
    const HALVES: usize = layout::scales_per_block(Self::DTYPE);

    /// Steps `j` and `j + 4` of an octet of a block.
    ///
    /// # Safety
    /// AVX2 must be there, and the block.
    unsafe fn codes<A: Width<N>, const N: usize>(
        &self,
        block: usize,
        octet: usize,
        j: usize,
    ) -> Vectors<N>;

    /// [`Weights::biased`] gives codes [`BIAS`](super::super::integer::BIAS) larger, and sooner.
    const BIASED: bool = false;

    /// As [`Weights::codes`], biased.
    ///
    /// # Safety
    /// As there.
    unsafe fn biased<A: Width<N>, const N: usize>(
        &self,
        block: usize,
        octet: usize,
        j: usize,
    ) -> Vectors<N> {
        // SAFETY: passed on.
        unsafe { self.codes::<A, N>(block, octet, j) }
    }

    /// Where a block's codes lie one vector after another, as [`vector_at`] says.
    fn in_memory<A: Width<N>, const N: usize>(&self, _block: usize) -> Option<*const u8> {
        None
    }

    /// `(d, m)` of the rows of an octet of a block, or of half of it.
    ///
    /// # Safety
    /// AVX2 must be there, and the block.
    unsafe fn scale(&self, block: usize, half: usize, octet: usize) -> (__m256, __m256);
}

/// Codes and scales as they are stored, in whole units.
#[derive(Clone, Copy)]
pub struct Packed<const T: usize> {
    pub units: *const u8,
}

impl<const T: usize> Packed<T> {
    const BLOCKS: usize = layout::unit_len(QUANTISED[T]) / BLOCK;

    #[inline(always)]
    fn unit(&self, block: usize) -> *const u8 {
        self.units.wrapping_add(block / Self::BLOCKS * layout::unit_bytes(QUANTISED[T]))
    }

    /// Where a block begins.
    #[inline(always)]
    pub fn block(&self, block: usize) -> *const u8 {
        let within = block % Self::BLOCKS * layout::block_stride(QUANTISED[T]);
        self.unit(block).wrapping_add(within)
    }

    /// An octet of a block.
    #[inline(always)]
    fn octet(&self, block: usize, octet: usize) -> *const u8 {
        let offset = layout::codes_offset(QUANTISED[T], block % Self::BLOCKS)
            + octet * layout::octet_bytes(QUANTISED[T]);
        self.unit(block).wrapping_add(offset)
    }
}

impl<const T: usize> Weights for Packed<T> {
    const DTYPE: Dtype = QUANTISED[T];

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn codes<A: Width<N>, const N: usize>(
        &self,
        block: usize,
        octet: usize,
        j: usize,
    ) -> Vectors<N> {
        // SAFETY: the block is inside the units (the caller's promise).
        unsafe { A::vectors::<T>(self.octet(block, octet), j) }
    }

    const BIASED: bool = layout::code_bits(QUANTISED[T]) == 8;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn biased<A: Width<N>, const N: usize>(
        &self,
        block: usize,
        octet: usize,
        j: usize,
    ) -> Vectors<N> {
        // SAFETY: as above.
        unsafe { A::biased::<T>(self.octet(block, octet), j) }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn scale(&self, block: usize, half: usize, octet: usize) -> (__m256, __m256) {
        // SAFETY: as above.
        unsafe { scale::<T>(self.unit(block), block % Self::BLOCKS, half, octet) }
    }
}

/// Codes of type `T` or one that is unpacked alike.
pub struct Unpacked<'a, const T: usize> {
    pub codes: &'a Codes,
}

impl<const T: usize> Weights for Unpacked<'_, T> {
    const DTYPE: Dtype = QUANTISED[T];

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn codes<A: Width<N>, const N: usize>(
        &self,
        block: usize,
        octet: usize,
        j: usize,
    ) -> Vectors<N> {
        // SAFETY: the block is inside the chunk (the caller's promise).
        unsafe {
            let from = A::unpacked(self.codes).add((block * 2 + octet) * STEPS * N * 32);
            unpacked_step(from, j)
        }
    }

    #[inline]
    fn in_memory<A: Width<N>, const N: usize>(&self, block: usize) -> Option<*const u8> {
        Some(A::unpacked(self.codes).wrapping_add(block * 2 * STEPS * N * 32))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn scale(&self, block: usize, half: usize, octet: usize) -> (__m256, __m256) {
        let part = block * layout::scales_per_block(Self::DTYPE) + half;
        let at = part * PANEL + octet * OCTET;
        // SAFETY: as above.
        unsafe {
            let (d, m) = (self.codes.d.as_ptr().add(at), self.codes.m.as_ptr().add(at));
            (_mm256_loadu_ps(d), _mm256_loadu_ps(m))
        }
    }
}

/// Steps `j` and `j + 4` of an octet's unpacked codes.
///
/// # Safety
/// AVX2 must be there, and `octet` hold an octet's vectors.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn unpacked_step<const N: usize>(octet: *const u8, j: usize) -> Vectors<N> {
    let mut vectors = [[_mm256_setzero_si256(); N]; 2];
    for (half, vectors) in vectors.iter_mut().enumerate() {
        for (n, vector) in vectors.iter_mut().enumerate() {
            // SAFETY: the caller's promise.
            *vector = unsafe { load(octet, vector_at::<N>(half, j, n)) };
        }
    }
    vectors
}
