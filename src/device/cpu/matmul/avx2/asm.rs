//! The inner loop of the integer tile at full height. The compiler would order it by columns, and
//! keep half of its sums on the stack.

use std::arch::asm;
use std::arch::x86_64::*;

use crate::device::cpu::matmul::kernels::INT_CHUNK;

/// Products of one vector of codes of each octet (32 bytes from `32 · $step`, the second octet 16
/// vectors further) with four bytes of each of four rows, added to the rows' sums.
macro_rules! step {
    ($($step:literal)*) => {
        concat!($(
            "vmovdqa {w0}, [{codes} + 32*", $step, "]\n",
            "vmovdqa {w1}, [{codes} + 512 + 32*", $step, "]\n",
            step!(row "{r0}", "{r1}", "[{a} + 4*", $step),
            step!(row "{r2}", "{r3}", "[{a} + {row} + 4*", $step),
            step!(row "{r4}", "{r5}", "[{a} + 2*{row} + 4*", $step),
            step!(row "{r6}", "{r7}", "[{a} + 3*{row} + 4*", $step),
        )*)
    };
    (row $even:literal, $odd:literal, $from:literal, $step:literal) => {
        concat!(
            "vpbroadcastd {x}, ", $from, $step, "]\n",
            "vpmaddwd {t0}, {w0}, {x}\n",
            "vpmaddwd {t1}, {w1}, {x}\n",
            "vpaddd ", $even, ", ", $even, ", {t0}\n",
            "vpaddd ", $odd, ", ", $odd, ", {t1}\n",
        )
    };
}

/// Dot products of a block of 32 columns, `[row][octet]`: four rows of 16-bit activations, in
/// pairs and [`INT_CHUNK`] numbers apart, with 16-bit codes of two octets.
///
/// # Safety
/// The CPU must have AVX2; `codes` holds 32 vectors and is aligned to 32 bytes; `a` and each of
/// the three rows after it hold 64 bytes.
#[inline]
#[target_feature(enable = "avx2")]
pub unsafe fn dots_of_four(codes: *const u8, a: *const i32) -> [[__m256i; 2]; 4] {
    let mut sums = [[_mm256_setzero_si256(); 2]; 4];
    let [[r0, r1], [r2, r3], [r4, r5], [r6, r7]] = &mut sums;
    // SAFETY: reads what the caller promises, and writes the named registers alone.
    unsafe {
        asm!(
            step!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15),
            codes = in(reg) codes,
            a = in(reg) a,
            row = const 2 * INT_CHUNK,
            w0 = out(ymm_reg) _,
            w1 = out(ymm_reg) _,
            x = out(ymm_reg) _,
            t0 = out(ymm_reg) _,
            t1 = out(ymm_reg) _,
            r0 = inout(ymm_reg) *r0,
            r1 = inout(ymm_reg) *r1,
            r2 = inout(ymm_reg) *r2,
            r3 = inout(ymm_reg) *r3,
            r4 = inout(ymm_reg) *r4,
            r5 = inout(ymm_reg) *r5,
            r6 = inout(ymm_reg) *r6,
            r7 = inout(ymm_reg) *r7,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    sums
}
