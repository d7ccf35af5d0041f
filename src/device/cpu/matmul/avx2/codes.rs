//! Packed codes and scales to vectors, for each quantised type.
//!
//! A 16-bit lane of packed codes holds an even and an odd column of one row: with 4 bits a code,
//! of two steps. Masks and shifts of whole lanes bring each to 16 bits, without a shuffle, as
//! pairs (column 0, column 2) and (column 1, column 3) of every row.

use std::arch::x86_64::*;

use crate::device::cpu::matmul::at_type::QUANTISED;
use crate::device::cpu::matmul::layout::{self, OCTET, PANEL, STEPS};
use crate::types::Dtype;

/// Asks for part `part` of four of a block at `at`, as [`ask`] does. All at once would hold up the
/// loads that come after.
#[inline(always)]
pub fn prefetch(at: *const u8, dtype: Dtype, part: usize, once: bool) {
    let lines = layout::block_stride(dtype).div_ceil(64);
    for line in part * lines / 4..(part + 1) * lines / 4 {
        ask(at.wrapping_add(64 * line), once);
    }
}

/// Asks for the line at `at`, which need not be memory; if it is read `once`, for the first-level
/// cache alone: from there it need not be written on to the others.
#[inline(always)]
pub fn ask(at: *const u8, once: bool) {
    // SAFETY: prefetching reads nothing; every x86-64 CPU has it.
    unsafe {
        match once {
            true => _mm_prefetch::<_MM_HINT_NTA>(at.cast()),
            false => _mm_prefetch::<_MM_HINT_T0>(at.cast()),
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn load(from: *const u8, vector: usize) -> __m256i {
    // SAFETY: the caller's pointer holds that vector.
    unsafe { _mm256_loadu_si256(from.add(32 * vector).cast()) }
}

/// Steps `j` and `j + 4` of an octet as 16-bit codes: even and odd columns of the one, then of
/// the other.
///
/// # Safety
/// `from` must hold an octet of type `T`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn quad<const T: usize>(from: *const u8, j: usize) -> [__m256i; 4] {
    // SAFETY: passed on; vectors as in `layout`.
    unsafe {
        let bits = layout::code_bits(QUANTISED[T]);
        if bits == 8 {
            let (a, b) = (load(from, j), load(from, j + STEPS / 2));
            let even = |v| _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(v));
            return [even(a), _mm256_srai_epi16::<8>(a), even(b), _mm256_srai_epi16::<8>(b)];
        }
        let low = nibbles(load(from, j));
        match bits {
            5 => {
                let high = load(from, 4);
                let high = [high, _mm256_srli_epi16::<8>(high)];
                let bit = |v, s| field(v, s, 4, 0x10);
                let up =
                    [bit(high[0], j), bit(high[1], j), bit(high[0], j + 4), bit(high[1], j + 4)];
                std::array::from_fn(|i| _mm256_or_si256(low[i], up[i]))
            }
            6 => {
                let high = [load(from, 4), load(from, 5)];
                let odd = high.map(|v| _mm256_srli_epi16::<8>(v));
                let pair = |v| field(v, 2 * j, 4, 0x30);
                let up = [pair(high[0]), pair(odd[0]), pair(high[1]), pair(odd[1])];
                std::array::from_fn(|i| _mm256_or_si256(low[i], up[i]))
            }
            _ => low,
        }
    }
}

/// As [`quad`] of 8-bit codes, all of them [`BIAS`](super::super::integer::BIAS) larger. Taking
/// bytes apart then needs one shift, not three; on many CPUs only one of the vector units shifts.
///
/// # Safety
/// `from` must hold an octet of 8-bit codes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn biased_quad(from: *const u8, j: usize) -> [__m256i; 4] {
    let (sign, low) = (_mm256_set1_epi8(i8::MIN), _mm256_set1_epi16(255));
    // SAFETY: passed on; vectors as in `layout`.
    let v = unsafe { [load(from, j), load(from, j + STEPS / 2)] };
    let [a, b] = v.map(|v| _mm256_xor_si256(v, sign));
    let even = |v| _mm256_and_si256(v, low);
    [even(a), _mm256_srli_epi16::<8>(a), even(b), _mm256_srli_epi16::<8>(b)]
}

/// Steps `j` and `j + 4` of an octet of unsigned codes, a byte each.
///
/// # Safety
/// `from` must hold an octet of type `T`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn byte_pair<const T: usize>(from: *const u8, j: usize) -> [__m256i; 2] {
    let mask = _mm256_set1_epi8(15);
    // Shifts move 16-bit lanes; the masks drop what comes from a byte's neighbour.
    // SAFETY: passed on; vectors as in `layout`.
    unsafe {
        let v = load(from, j);
        let low = [v, _mm256_srli_epi16::<4>(v)].map(|v| _mm256_and_si256(v, mask));
        let up = match layout::code_bits(QUANTISED[T]) {
            5 => {
                let high = load(from, 4);
                [field(high, j, 4, 0x1010), field(high, j + 4, 4, 0x1010)]
            }
            6 => [load(from, 4), load(from, 5)].map(|high| field(high, 2 * j, 4, 0x3030)),
            _ => return low,
        };
        [_mm256_or_si256(low[0], up[0]), _mm256_or_si256(low[1], up[1])]
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn nibbles(v: __m256i) -> [__m256i; 4] {
    let mask = _mm256_set1_epi16(15);
    [
        _mm256_and_si256(v, mask),
        _mm256_and_si256(_mm256_srli_epi16::<8>(v), mask),
        _mm256_and_si256(_mm256_srli_epi16::<4>(v), mask),
        _mm256_srli_epi16::<12>(v),
    ]
}

/// The bits of `mask`, after moving bit `from` of every 16-bit lane to bit `to`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn field(v: __m256i, from: usize, to: usize, mask: i16) -> __m256i {
    let by = _mm_cvtsi32_si128(from.abs_diff(to) as i32);
    let v = if from < to { _mm256_sll_epi16(v, by) } else { _mm256_srl_epi16(v, by) };
    _mm256_and_si256(v, _mm256_set1_epi16(mask))
}

/// `(d, m)` of block `b` of a unit, half `half`, for the 8 rows of octet `octet`: a weight is
/// `d · code + m`.
///
/// # Safety
/// `unit` must hold a unit of type `T`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn scale<const T: usize>(
    unit: *const u8,
    b: usize,
    half: usize,
    octet: usize,
) -> (__m256, __m256) {
    let dtype = QUANTISED[T];
    // SAFETY: offsets as in `layout::scale`.
    unsafe {
        let tail = unit.add(2 * layout::octet_bytes(dtype));
        let subs = unit.add(layout::head_bytes(dtype) + b * layout::block_stride(dtype));
        let halfs =
            |at: *const u8| _mm256_cvtph_ps(_mm_loadu_si128(at.add(octet * 2 * OCTET).cast()));
        let small = |at: *const u8| _mm_loadl_epi64(at.add(octet * OCTET).cast());
        match dtype {
            Dtype::Q4_0 => (halfs(tail), _mm256_mul_ps(halfs(tail), _mm256_set1_ps(-8.0))),
            Dtype::Q5_0 => (halfs(tail), _mm256_mul_ps(halfs(tail), _mm256_set1_ps(-16.0))),
            Dtype::Q4_1 | Dtype::Q5_1 => (halfs(tail), halfs(tail.add(2 * PANEL))),
            Dtype::Q4K | Dtype::Q5K => {
                let scale = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(small(subs)));
                let min = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(small(subs.add(PANEL))));
                let min = _mm256_mul_ps(halfs(unit.add(2 * PANEL)), min);
                (_mm256_mul_ps(halfs(unit), scale), _mm256_xor_ps(min, _mm256_set1_ps(-0.0)))
            }
            Dtype::Q6K => {
                let scale = _mm256_cvtepi8_epi32(small(subs.add(half * PANEL)));
                let d = _mm256_mul_ps(halfs(unit), _mm256_cvtepi32_ps(scale));
                (d, _mm256_mul_ps(d, _mm256_set1_ps(-32.0)))
            }
            _ => (halfs(tail), _mm256_setzero_ps()),
        }
    }
}
