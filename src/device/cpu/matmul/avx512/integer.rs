//! The integer tile's rows: both octets of a step's codes in one register, multiplied and summed
//! in 32 bits by one instruction.
//!
//! Sums of a block's halves, and of the two vectors of a step of 16-bit codes, are kept apart until
//! the block's end: so a row's multiplications wait for one another less.

use std::arch::x86_64::*;

use super::float::add_to;
use crate::device::cpu::matmul::avx2::codes::prefetch;
use crate::device::cpu::matmul::avx2::integer::Engine;
use crate::device::cpu::matmul::avx2::weights::Weights;
use crate::device::cpu::matmul::avx2::width::{Width, vector_at};
use crate::device::cpu::matmul::integer::Rows;
use crate::device::cpu::matmul::kernels::{INT_CHUNK, IntTile, Out};
use crate::device::cpu::matmul::layout::{self, BLOCK, STEPS};

/// AVX-512: one register of sums a row.
pub struct Panel;

/// What multiplies a width of activations.
pub trait Vnni<const N: usize>: Width<N> {
    /// `sum` and the products of codes with activations, those of 32 bits added.
    ///
    /// # Safety
    /// AVX-512 and VNNI must be there.
    unsafe fn dot(sum: __m512i, codes: __m512i, a: __m512i) -> __m512i;
}

impl Vnni<2> for i16 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512vnni")]
    unsafe fn dot(sum: __m512i, codes: __m512i, a: __m512i) -> __m512i {
        _mm512_dpwssd_epi32(sum, codes, a)
    }
}

impl Vnni<1> for i8 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512vnni")]
    unsafe fn dot(sum: __m512i, codes: __m512i, a: __m512i) -> __m512i {
        _mm512_dpbusd_epi32(sum, codes, a)
    }
}

impl<A: Vnni<N>, const N: usize> Engine<A, N> for Panel {
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn rows<const M: usize, W: Weights>(tile: &IntTile<'_, A>, weights: &W, out: &Out) {
        let mut sums = [_mm512_setzero_ps(); M];
        let any = tile.a.fine[..M].iter().fold(0, |any, bits| any | bits);
        for block in 0..tile.blocks {
            if !tile.ahead.is_null() {
                let ahead = tile.ahead.wrapping_add(block * layout::block_stride(W::DTYPE));
                (0..4).for_each(|part| prefetch(ahead, W::DTYPE, part, false));
            }
            for r in M..if tile.next_rows { 2 * M } else { M } {
                let next = tile.a.q.as_ptr().wrapping_add(r * INT_CHUNK + block * BLOCK);
                _mm_prefetch::<_MM_HINT_T0>(next.cast());
            }
            // SAFETY: weights and rows hold the block (the caller's promise).
            unsafe {
                let mut dots = dots::<A, N, M, W>(weights, block, tile.a.q);
                if A::FINE && any >> block & 1 == 1 {
                    let low = self::dots::<A, N, M, W>(weights, block, tile.a.low);
                    refine::<M>(&mut dots, &low, &tile.a.fine[..M], block);
                }
                add_block::<A, M, W>(&mut sums, &dots, weights, block, &tile.a);
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            // SAFETY: the caller's promise about `out`.
            unsafe { add_to(out, r, *sums) };
        }
    }
}

/// Dot products of a block: of its halves, or of both in the first where it has one scale.
type Dots<const M: usize> = [[__m512i; 2]; M];

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn dots<A: Vnni<N>, const N: usize, const M: usize, W: Weights>(
    weights: &W,
    block: usize,
    a: &[A],
) -> Dots<M> {
    let mut sums = [[[_mm512_setzero_si512(); N]; 2]; M];
    // SAFETY: weights and rows hold the block (the caller's promise).
    unsafe {
        let a = a.as_ptr().add(block * BLOCK);
        for j in 0..STEPS / 2 {
            let first = weights.codes::<A, N>(block, 0, j);
            let last = weights.codes::<A, N>(block, 1, j);
            for half in 0..2 {
                for n in 0..N {
                    let codes = _mm512_castsi256_si512(first[half][n]);
                    let codes = _mm512_inserti64x4::<1>(codes, last[half][n]);
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let a = a.add(r * INT_CHUNK).cast::<i32>();
                        let a = a.add(vector_at::<N>(half, j, n)).read_unaligned();
                        let sum = &mut sums[half][n];
                        *sum = A::dot(*sum, codes, _mm512_set1_epi32(a));
                    }
                }
            }
        }
    }
    let mut dots = [[_mm512_setzero_si512(); 2]; M];
    for (dots, sums) in dots.iter_mut().zip(sums) {
        for (half, sums) in sums.into_iter().enumerate() {
            let dot = &mut dots[half % W::HALVES];
            for sum in sums {
                *dot = _mm512_add_epi32(*dot, sum);
            }
        }
    }
    dots
}

/// Adds the dots of low bytes, of rows of which the block is fine.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn refine<const M: usize>(dots: &mut Dots<M>, low: &Dots<M>, fine: &[u32], block: usize) {
    for ((dots, low), fine) in dots.iter_mut().zip(low).zip(fine) {
        let shift = _mm_cvtsi32_si128(8 * (fine >> block & 1) as i32);
        for (dot, low) in dots.iter_mut().zip(low) {
            *dot = _mm512_add_epi32(_mm512_sll_epi32(*dot, shift), *low);
        }
    }
}

/// `sums += d_w d_a · dots + m_w · (d_a Σ q_a)` of a block.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn add_block<A, const M: usize, W: Weights>(
    sums: &mut [__m512; M],
    dots: &Dots<M>,
    weights: &W,
    block: usize,
    a: &Rows<'_, A>,
) {
    for half in 0..W::HALVES {
        // SAFETY: weights and rows hold the block (the caller's promise).
        let (first, last) =
            unsafe { (weights.scale(block, half, 0), weights.scale(block, half, 1)) };
        let d = _mm512_insertf32x8::<1>(_mm512_castps256_ps512(first.0), last.0);
        let m = _mm512_insertf32x8::<1>(_mm512_castps256_ps512(first.1), last.1);
        for (r, sum) in sums.iter_mut().enumerate() {
            // SAFETY: as above.
            let row = unsafe { a.scales.get_unchecked(r * (INT_CHUNK / BLOCK) + block) };
            let d = _mm512_mul_ps(d, _mm512_set1_ps(row.d));
            *sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[r][half]), d, *sum);
            if layout::code_bits(W::DTYPE) < 8 {
                let total = if W::HALVES == 2 { row.halves[half] } else { row.sum };
                *sum = _mm512_fmadd_ps(m, _mm512_set1_ps(total), *sum);
            }
        }
    }
}
