//! Kernels for AVX2 with FMA and F16C.

mod codes;
mod expand;
mod float;
mod integer;
mod quantise;
mod width;

use super::kernels::{IntKernels, Kernels};

pub static KERNELS: Kernels = Kernels {
    float_tile: float::tile,
    wide: IntKernels {
        tile: integer::tile::<i16, 2>,
        expand: expand::expand::<i16, 2>,
        quantise: quantise::wide,
    },
    bytes: IntKernels {
        tile: integer::tile::<i8, 1>,
        expand: expand::expand::<i8, 1>,
        quantise: quantise::bytes,
    },
    widen: float::widen,
    dequantise: expand::dequantise,
};
