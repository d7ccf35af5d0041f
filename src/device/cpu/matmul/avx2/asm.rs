//! The inner loops of the integer tile. The compiler would order them by columns, and keep half of
//! their sums on the stack.

use std::arch::asm;
use std::arch::x86_64::*;

use super::integer::Dots;
use super::width::{Vectors, vector_at};
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

/// Products of four vectors of an octet's codes, `{q0}` to `{q3}`, with four bytes each of the row
/// at `$from`, added to the row's sums.
macro_rules! row {
    ($sum:literal, $from:literal) => {
        concat!(
            "vpbroadcastd {x}, [{a} + ",
            $from,
            "]\n",
            "vpbroadcastd {y}, [{a} + 4 + ",
            $from,
            "]\n",
            "vpmaddwd {x}, {x}, {q0}\n",
            "vpmaddwd {y}, {y}, {q1}\n",
            "vpaddd ",
            $sum,
            ", ",
            $sum,
            ", {x}\n",
            "vpaddd ",
            $sum,
            ", ",
            $sum,
            ", {y}\n",
            "vpbroadcastd {x}, [{a} + 32 + ",
            $from,
            "]\n",
            "vpbroadcastd {y}, [{a} + 36 + ",
            $from,
            "]\n",
            "vpmaddwd {x}, {x}, {q2}\n",
            "vpmaddwd {y}, {y}, {q3}\n",
            "vpaddd ",
            $sum,
            ", ",
            $sum,
            ", {x}\n",
            "vpaddd ",
            $sum,
            ", ",
            $sum,
            ", {y}\n",
        )
    };
}

/// Adds to four rows' `sums` the products of one octet's steps `j` and `j + 4`, codes `q`, with
/// the rows from `a` on: their step `j`, [`INT_CHUNK`] numbers apart.
///
/// # Safety
/// The CPU must have AVX2; `a` and each of the three rows after it hold 40 bytes.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn step_of_four(sums: &mut [__m256i; 4], q: [__m256i; 4], a: *const i32) {
    let [r0, r1, r2, r3] = sums;
    let [q0, q1, q2, q3] = q;
    // SAFETY: reads what the caller promises, and writes the named registers alone.
    unsafe {
        asm!(
            row!("{r0}", "0*{row}"),
            row!("{r1}", "1*{row}"),
            row!("{r2}", "2*{row}"),
            row!("{r3}", "3*{row}"),
            a = in(reg) a,
            row = const 2 * INT_CHUNK,
            q0 = in(ymm_reg) q0,
            q1 = in(ymm_reg) q1,
            q2 = in(ymm_reg) q2,
            q3 = in(ymm_reg) q3,
            x = out(ymm_reg) _,
            y = out(ymm_reg) _,
            r0 = inout(ymm_reg) *r0,
            r1 = inout(ymm_reg) *r1,
            r2 = inout(ymm_reg) *r2,
            r3 = inout(ymm_reg) *r3,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
}

/// Adds steps `j` and `j + 4` of 16-bit codes of `octets` octets to the sums of four or eight rows;
/// says whether it did: other tiles are the compiler's.
///
/// # Safety
/// The CPU must have AVX2; `a` and each of the rows after it hold a block.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn whole_step<A, const N: usize, const M: usize>(
    sums: &mut Dots<M>,
    q: &[Vectors<N>; 2],
    octets: usize,
    a: *const A,
    j: usize,
) -> bool {
    if M != 4 && M != 8 {
        return false;
    }
    for (o, q) in q[..octets].iter().enumerate() {
        let q = [q[0][0], q[0][N - 1], q[1][0], q[1][N - 1]];
        // SAFETY: passed on.
        unsafe {
            let a = a.cast::<i32>().add(vector_at::<N>(0, j, 0));
            for (i, sums) in sums.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                let mut rows = std::array::from_fn(|r| sums[r][o][0]);
                step_of_four(&mut rows, q, a.add(i * 4 * INT_CHUNK / 2));
                sums.iter_mut().zip(rows).for_each(|(sums, row)| sums[o][0] = row);
            }
        }
    }
    true
}
