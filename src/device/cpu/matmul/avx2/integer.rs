//! The integer tile: up to 4 activation rows × 16 weight rows, of packed or unpacked weights.
//!
//! An octet's codes are loaded (and unpacked) once for all rows of the tile, an activation once
//! for both octets: at full height 16 multiplications for 8 loads. Fine blocks are multiplied
//! again with their low bytes.

use std::arch::x86_64::*;

use super::asm::{dots_of_four, whole_step};
use super::codes::prefetch;
use super::dense;
use super::float::add_to;
use super::weights::{Packed, Unpacked, Weights};
use super::width::{Width, vector_at};
use crate::device::cpu::matmul::at_type::{QUANTISED, at_type};
use crate::device::cpu::matmul::integer::Rows;
use crate::device::cpu::matmul::kernels::{
    Codes, INT_CHUNK, INT_ROWS, IntTile, Out, STREAM_AHEAD, STREAMS, Source,
};
use crate::device::cpu::matmul::layout::{self, BLOCK, STEPS};
use crate::types::Dtype;

/// See [`IntTile`].
///
/// # Safety
/// As [`super::super::kernels::Kernels`] says.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn tile<A: Width<N>, E: Engine<A, N>, const N: usize>(tile: &IntTile<'_, A>) {
    // SAFETY: passed on.
    unsafe {
        match tile.rows {
            1 => by_source::<A, E, N, 1>(tile),
            2 => by_source::<A, E, N, 2>(tile),
            3 => by_source::<A, E, N, 3>(tile),
            _ => by_source::<A, E, N, 4>(tile),
        }
    }
}

/// As [`tile`], up to [`TALL_ROWS`](super::super::kernels::TALL_ROWS) rows of packed weights: they
/// are unpacked for all at once: up to 8 in registers, one octet at a time with 8 sums.
///
/// # Safety
/// As [`super::super::kernels::Kernels`] says.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn tall_tile(tile: &IntTile<'_, i16>) {
    // SAFETY: passed on.
    unsafe {
        match tile.rows {
            ..=INT_ROWS => self::tile::<i16, Octets, 2>(tile),
            5 => by_source::<i16, Octets, 2, 5>(tile),
            6 => by_source::<i16, Octets, 2, 6>(tile),
            7 => by_source::<i16, Octets, 2, 7>(tile),
            8 => by_source::<i16, Octets, 2, 8>(tile),
            _ => dense::tile(tile),
        }
    }
}

/// Octets that are multiplied at a time: with two scales, or many rows, there are registers for
/// one.
#[inline(always)]
pub const fn octets<W: Weights, const M: usize>() -> usize {
    if W::HALVES == 1 && M <= INT_ROWS { 2 } else { 1 }
}

/// Multiplies a tile's rows of activations with weights.
pub trait Engine<A, const N: usize> {
    /// # Safety
    /// The CPU must have the engine's instructions, the weights all blocks of the tile, and `out`
    /// room for its rows.
    unsafe fn rows<const M: usize, W: Weights>(tile: &IntTile<'_, A>, weights: &W, out: &Out);

    /// The tile's panel and those beside it.
    ///
    /// # Safety
    /// As [`Engine::rows`], of every panel.
    unsafe fn streams<const M: usize, const T: usize>(tile: &IntTile<'_, A>, panels: &[Packed<T>]) {
        for (panel, out) in panels.iter().zip(tile.outs()) {
            // SAFETY: passed on.
            unsafe { Self::rows::<M, _>(tile, panel, out) };
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn by_source<A: Width<N>, E: Engine<A, N>, const N: usize, const M: usize>(
    tile: &IntTile<'_, A>,
) {
    assert!(tile.blocks * BLOCK <= INT_CHUNK && tile.a.fine.len() >= M);
    // SAFETY: passed on.
    unsafe {
        match tile.weights {
            Source::Packed(units) => at_type!(tile.dtype, packed[A, E, N, M](tile, units)),
            Source::Unpacked(codes) => unpacked::<A, E, N, M>(tile, codes),
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn packed<A: Width<N>, E: Engine<A, N>, const N: usize, const M: usize, const T: usize>(
    tile: &IntTile<'_, A>,
    units: &[u8],
) {
    let blocks = layout::unit_len(QUANTISED[T]) / BLOCK;
    assert!(tile.blocks / blocks * layout::unit_bytes(QUANTISED[T]) <= units.len());
    assert!(M <= INT_ROWS || tile.beside.is_empty());
    let mut panels = [Packed::<T> { units: units.as_ptr() }; STREAMS];
    for (panel, beside) in panels[1..].iter_mut().zip(tile.beside) {
        assert!(beside.weights.len() >= units.len());
        panel.units = beside.weights.as_ptr();
    }
    // SAFETY: the units hold the tile's blocks (just checked).
    unsafe {
        match tile.beside.len() {
            others @ 1.. if M <= INT_ROWS => E::streams::<M, T>(tile, &panels[..=others]),
            _ => E::rows::<M, Packed<T>>(tile, &panels[0], &tile.out),
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn unpacked<A: Width<N>, E: Engine<A, N>, const N: usize, const M: usize>(
    tile: &IntTile<'_, A>,
    codes: &Codes,
) {
    // Once unpacked, types differ in their codes' bits and the number of scales.
    // SAFETY: codes are of a whole chunk.
    unsafe {
        match layout::code_bits(tile.dtype) {
            4 => E::rows::<M, Unpacked<2>>(tile, &Unpacked { codes }, &tile.out),
            5 => E::rows::<M, Unpacked<4>>(tile, &Unpacked { codes }, &tile.out),
            6 => E::rows::<M, Unpacked<7>>(tile, &Unpacked { codes }, &tile.out),
            _ => E::rows::<M, Unpacked<0>>(tile, &Unpacked { codes }, &tile.out),
        }
    }
}

/// AVX2: two octets of sums a row.
pub struct Octets;

impl<A: Width<N>, const N: usize> Engine<A, N> for Octets {
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn rows<const M: usize, W: Weights>(tile: &IntTile<'_, A>, weights: &W, out: &Out) {
        let mut sums = [[_mm256_setzero_ps(); 2]; M];
        let mut any = 0;
        for bits in &tile.a.fine[..M] {
            any |= bits;
        }
        for block in 0..tile.blocks {
            let ahead = match tile.ahead.is_null() {
                true => tile.ahead,
                false => tile.ahead.wrapping_add(block * layout::block_stride(W::DTYPE)),
            };
            for r in M..if tile.next_rows { 2 * M } else { M } {
                let next = tile.a.q.as_ptr().wrapping_add(r * INT_CHUNK + block * BLOCK);
                _mm_prefetch::<_MM_HINT_T0>(next.cast());
            }
            // SAFETY: passed on.
            unsafe { add_products(&mut sums, weights, (block, any), &tile.a, (ahead, false)) };
        }
        for (r, sums) in sums.iter().enumerate() {
            // SAFETY: the caller's promise about `out`.
            unsafe { add_to(out, r, *sums) };
        }
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn streams<const M: usize, const T: usize>(tile: &IntTile<'_, A>, panels: &[Packed<T>]) {
        let mut all = [[[_mm256_setzero_ps(); 2]; M]; STREAMS];
        let any = tile.a.fine[..M].iter().fold(0, |any, bits| any | bits);
        for block in 0..tile.blocks {
            for (panel, sums) in panels.iter().zip(&mut all) {
                let ahead = panel.block(block).wrapping_add(STREAM_AHEAD);
                // SAFETY: passed on.
                unsafe { add_products(sums, panel, (block, any), &tile.a, (ahead, tile.once)) };
            }
        }
        for (out, sums) in tile.outs().zip(all) {
            for (r, sums) in sums.into_iter().enumerate() {
                // SAFETY: the caller's promise about `out`.
                unsafe { add_to(out, r, sums) };
            }
        }
    }
}

/// Adds a block's products; `any` has a bit for each block that is fine in a row.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn add_products<A: Width<N>, const N: usize, const M: usize, W: Weights>(
    sums: &mut [[__m256; 2]; M],
    weights: &W,
    (block, any): (usize, u32),
    a: &Rows<'_, A>,
    (ahead, once): (*const u8, bool),
) {
    for first in (0..2).step_by(octets::<W, M>()) {
        // SAFETY: weights and rows hold the block (the caller's promise).
        unsafe {
            let zero = [[[_mm256_setzero_si256(); 2]; 2]; M];
            let from = match A::BIASED && W::BIASED {
                true => biases(a, block),
                false => zero,
            };
            let mut dots = dots::<A, N, M, W>(from, weights, block, first, a.q, (ahead, once));
            if A::FINE && any >> block & 1 == 1 {
                let none = (std::ptr::null(), false);
                let low = self::dots::<A, N, M, W>(zero, weights, block, first, a.low, none);
                dots = refined::<M, W>(dots, low, bits_of(a.fine, block));
            }
            add_block::<A, M, W>(sums, dots, weights, block, first, a);
        }
    }
}

/// Dot products of a block: `[row][octet][half]`, as [`octets`] and [`Weights::HALVES`] say.
pub type Dots<const M: usize> = [[[__m256i; 2]; 2]; M];

/// The indices of [`Dots`] that are in use. Here and not where they are used: a closure in a
/// function with target features is never inlined into an iterator, which has none.
#[inline(always)]
fn used<const M: usize, W: Weights>() -> impl Iterator<Item = (usize, usize, usize)> {
    let (octets, halves) = (octets::<W, M>(), W::HALVES);
    (0..M * octets * halves).map(move |i| (i / (octets * halves), i / halves % octets, i % halves))
}

/// What biased codes have too much in a block, negative.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn biases<A, const M: usize>(a: &Rows<'_, A>, block: usize) -> Dots<M> {
    let mut dots = [[[_mm256_setzero_si256(); 2]; 2]; M];
    for (r, dots) in dots.iter_mut().enumerate() {
        // SAFETY: the rows hold the block (the caller's promise).
        let row = unsafe { &*a.scales.as_ptr().add(r * (INT_CHUNK / BLOCK) + block) };
        (dots[0][0], dots[1][0]) = (_mm256_set1_epi32(row.bias), _mm256_set1_epi32(row.bias));
    }
    dots
}

/// `dots` and the products of a block.
///
/// # Safety
/// AVX2 must be there; weights and rows hold the block.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn dots<A: Width<N>, const N: usize, const M: usize, W: Weights>(
    mut dots: Dots<M>,
    weights: &W,
    block: usize,
    first: usize,
    a: &[A],
    (ahead, once): (*const u8, bool),
) -> Dots<M> {
    if M == 4
        && N == 2
        && octets::<W, M>() == 2
        && let Some(codes) = weights.in_memory::<A, N>(block)
    {
        if !ahead.is_null() {
            (0..STEPS / 2).for_each(|j| prefetch(ahead, W::DTYPE, j, once));
        }
        // SAFETY: weights and rows hold the block (the caller's promise); codes are aligned.
        let four = unsafe { dots_of_four(codes, a.as_ptr().add(block * BLOCK).cast()) };
        for (dots, four) in dots.iter_mut().zip(four) {
            (dots[0][0], dots[1][0]) = (four[0], four[1]);
        }
        return dots;
    }
    let run = A::run(layout::code_bits(W::DTYPE));
    // Hidden from the compiler: it would unroll the loop whole, order it by columns and spill.
    let run = if M == 1 { run } else { std::hint::black_box(run) };
    let ahead = if first == 0 { ahead } else { std::ptr::null() };
    // SAFETY: weights and rows hold the block (the caller's promise).
    unsafe {
        let a = a.as_ptr().add(block * BLOCK);
        if A::WHOLE {
            return steps::<A, N, M, W>(dots, weights, (block, first), 0..run, a, (ahead, once));
        }
        let mut start = 0;
        while start < STEPS / 2 {
            let zero = [[[_mm256_setzero_si256(); 2]; 2]; M];
            let range = start..start + run;
            let ahead = (ahead, once);
            let short = steps::<A, N, M, W>(zero, weights, (block, first), range, a, ahead);
            for (r, o, h) in used::<M, W>() {
                dots[r][o][h] = _mm256_add_epi32(dots[r][o][h], A::widen(short[r][o][h]));
            }
            start += run;
        }
    }
    dots
}

/// `sums` and the products of steps of half a block.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn steps<A: Width<N>, const N: usize, const M: usize, W: Weights>(
    mut sums: Dots<M>,
    weights: &W,
    (block, first): (usize, usize),
    range: std::ops::Range<usize>,
    a: *const A,
    (ahead, once): (*const u8, bool),
) -> Dots<M> {
    for j in range {
        if !ahead.is_null() {
            prefetch(ahead, W::DTYPE, j, once);
        }
        let mut q = [[[_mm256_setzero_si256(); N]; 2]; 2];
        let octets = octets::<W, M>();
        for (o, q) in q[..octets].iter_mut().enumerate() {
            // SAFETY: weights hold the block (the caller's promise).
            *q = unsafe {
                match A::BIASED && W::BIASED {
                    true => weights.biased::<A, N>(block, first + o, j),
                    false => weights.codes::<A, N>(block, first + o, j),
                }
            };
        }
        // SAFETY: rows hold the block (the caller's promise); AVX2 is there.
        if N == 2 && W::HALVES == 1 && unsafe { whole_step(&mut sums, &q, octets, a, j) } {
            continue;
        }
        for half in 0..2 {
            for n in 0..N {
                let at = vector_at::<N>(half, j, n);
                for (r, sums) in sums.iter_mut().enumerate() {
                    // SAFETY: rows hold the block (the caller's promise); AVX2 is there.
                    unsafe {
                        let a = four_bytes(a.add(r * INT_CHUNK).cast(), at);
                        for (q, sums) in q[..octets].iter().zip(sums) {
                            let sum = &mut sums[half % W::HALVES];
                            *sum = A::multiply(*sum, q[half][n], a);
                        }
                    }
                }
            }
        }
    }
    sums
}

/// Dots of both bytes, of rows of which the block is fine.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn refined<const M: usize, W: Weights>(mut high: Dots<M>, low: Dots<M>, fine: [u32; M]) -> Dots<M> {
    for (r, o, h) in used::<M, W>() {
        let shift = _mm_cvtsi32_si128(8 * fine[r] as i32);
        let shifted = _mm256_sll_epi32(high[r][o][h], shift);
        high[r][o][h] = _mm256_add_epi32(shifted, low[r][o][h]);
    }
    high
}

/// `sums += d_w d_a · dots + m_w · (d_a Σ q_a)` of a block.
///
/// # Safety
/// As [`dots`].
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn add_block<A, const M: usize, W: Weights>(
    sums: &mut [[__m256; 2]; M],
    dots: Dots<M>,
    weights: &W,
    block: usize,
    first: usize,
    a: &Rows<'_, A>,
) {
    for o in 0..octets::<W, M>() {
        for half in 0..W::HALVES {
            // SAFETY: weights and rows hold the block (the caller's promise).
            let (d, m) = unsafe { weights.scale(block, half, first + o) };
            for (r, sums) in sums.iter_mut().enumerate() {
                // SAFETY: as above.
                let row = unsafe { &*a.scales.as_ptr().add(r * (INT_CHUNK / BLOCK) + block) };
                let (d, sum) = (_mm256_mul_ps(d, _mm256_set1_ps(row.d)), &mut sums[first + o]);
                *sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots[r][o][half]), d, *sum);
                if layout::code_bits(W::DTYPE) < 8 {
                    let total = if W::HALVES == 2 { row.halves[half] } else { row.sum };
                    *sum = _mm256_fmadd_ps(m, _mm256_set1_ps(total), *sum);
                }
            }
        }
    }
}

/// Bit `block` of every row's word.
#[inline(always)]
fn bits_of<const M: usize>(words: &[u32], block: usize) -> [u32; M] {
    let mut bits = [0; M];
    bits.iter_mut().zip(words).for_each(|(bit, word)| *bit = word >> block & 1);
    bits
}

/// Four bytes of activations, the `index`th, in every lane.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn four_bytes(a: *const i32, index: usize) -> __m256i {
    // SAFETY: the caller's pointer holds them.
    _mm256_set1_epi32(unsafe { a.add(index).read_unaligned() })
}
