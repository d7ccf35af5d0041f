//! Kernels for NEON, which every 64-bit ARM CPU has, in three tables: with the matrix products of
//! bytes (`smmla`) that server CPUs since about 2021 have, with the dot products (`sdot`) of those
//! since about 2018, and without.
//!
//! Codes and activations are multiplied as bytes in both widths. A 16-bit activation is
//! `256 · high + low + 128` with two signed bytes: two `sdot` make twice the products that as many
//! 16-bit multiplications would. What 128 stands for is the sum of a block's codes, which is
//! found once for all rows. So both widths unpack codes alike, to bytes.
//!
//! NEON is part of the target: unlike elsewhere no function here is compiled for more than that,
//! and `#[inline(always)]` makes one function of each kernel.

mod asm;
mod codes;
mod dot;
mod expand;
mod float;
mod integer;
mod quantise;

use self::dot::{Dot, Matrix, Multiply};
use super::kernels::{IntKernels, Kernels};

pub static KERNELS: Kernels = table::<Multiply>();
pub static DOT_KERNELS: Kernels = table::<Dot>();
pub static MATRIX_KERNELS: Kernels = table::<Matrix>();

const fn table<D: dot::Products>() -> Kernels {
    Kernels {
        streams: 1,
        float_rows: 6,
        float_tile: float::tile,
        wide: IntKernels {
            tile: integer::tile::<i16, D>,
            tall: None,
            expand: expand::expand,
            quantise: quantise::wide,
        },
        bytes: IntKernels {
            tile: integer::tile::<i8, D>,
            tall: None,
            expand: expand::expand,
            quantise: quantise::bytes,
        },
        widen: float::widen,
        dequantise: expand::dequantise,
    }
}
