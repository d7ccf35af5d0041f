//! Kernels for AVX-512 with VNNI: products in 512-bit registers, one of sums for a row's 16
//! weights. Weights and activations lie as for AVX2, whose kernels unpack and quantise them.
//!
//! Integer sums are those of AVX2, and floats are added in the same order with the same fused
//! operations: results are the same to the bit.
//!
//! No CPU has run these kernels yet. Their tests run where one has the instructions.

mod float;
mod integer;

use self::integer::Panel;
use super::avx2;
use super::kernels::{IntKernels, Kernels};

pub static KERNELS: Kernels = Kernels {
    streams: 1,
    float_rows: 12,
    float_tile: float::tile,
    wide: IntKernels {
        tile: avx2::integer::tile::<i16, Panel, 2>,
        tall: None,
        ..avx2::KERNELS.wide
    },
    bytes: IntKernels { tile: avx2::integer::tile::<i8, Panel, 1>, ..avx2::KERNELS.bytes },
    ..avx2::KERNELS
};
