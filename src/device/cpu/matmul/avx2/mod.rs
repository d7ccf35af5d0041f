//! Kernels for AVX2 with FMA and F16C.

mod asm;
pub mod codes;
mod dense;
mod expand;
mod float;
pub mod integer;
mod quantise;
pub mod weights;
pub mod width;

use self::integer::Octets;
use super::kernels::{IntKernels, Kernels, STREAMS};

pub static KERNELS: Kernels = Kernels {
    streams: STREAMS,
    float_rows: 6,
    float_tile: float::tile,
    wide: IntKernels {
        tile: integer::tile::<i16, Octets, 2>,
        tall: Some(integer::tall_tile),
        expand: expand::expand::<i16, 2>,
        quantise: quantise::wide,
    },
    bytes: IntKernels {
        tile: integer::tile::<i8, Octets, 1>,
        tall: None,
        expand: expand::expand::<i8, 1>,
        quantise: quantise::bytes,
    },
    widen: float::widen,
    dequantise: expand::dequantise,
};
