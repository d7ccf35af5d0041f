//! Instructions without a stable intrinsic.

use std::arch::aarch64::*;
use std::arch::asm;

/// Of each 32-bit lane, `sum` and the products of the four codes with the four activations of
/// lane `LANE`.
///
/// # Safety
/// The CPU must have `dotprod`.
#[inline(always)]
pub unsafe fn sdot<const LANE: usize>(
    mut sum: int32x4_t,
    codes: int8x16_t,
    a: int8x16_t,
) -> int32x4_t {
    // SAFETY: reads and writes the named registers alone.
    unsafe {
        asm!(
            ".arch_extension dotprod",
            "sdot {sum:v}.4s, {codes:v}.16b, {a:v}.4b[{lane}]",
            sum = inout(vreg) sum,
            codes = in(vreg) codes,
            a = in(vreg) a,
            lane = const LANE,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}

/// `sum` and the products of both rows of 8 codes with both rows of 8 activations: of code row 0
/// with activation rows 0 and 1, then of code row 1.
///
/// # Safety
/// The CPU must have `i8mm`.
#[inline(always)]
pub unsafe fn smmla(mut sum: int32x4_t, codes: int8x16_t, a: int8x16_t) -> int32x4_t {
    // SAFETY: reads and writes the named registers alone.
    unsafe {
        asm!(
            ".arch_extension i8mm",
            "smmla {sum:v}.4s, {codes:v}.16b, {a:v}.16b",
            sum = inout(vreg) sum,
            codes = in(vreg) codes,
            a = in(vreg) a,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}

/// Asks for the cache lines of `bytes` bytes at `at`, which need not be memory.
#[inline(always)]
pub fn prefetch(at: *const u8, bytes: usize) {
    for line in (0..bytes).step_by(64) {
        // SAFETY: prefetching reads nothing.
        unsafe {
            asm!(
                "prfm pldl1keep, [{at}]",
                at = in(reg) at.wrapping_add(line),
                options(readonly, nostack, preserves_flags),
            );
        }
    }
}
