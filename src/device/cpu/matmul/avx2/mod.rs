//! Kernels for AVX2 with FMA and F16C.

mod expand;
mod float;
mod int;
mod quantise;

use super::kernels::Kernels;

pub static KERNELS: Kernels = Kernels {
    float_tile: float::tile,
    int_tile: int::tile,
    widen: float::widen,
    expand: expand::expand,
    dequantise: expand::dequantise,
    quantise: quantise::quantise,
};
