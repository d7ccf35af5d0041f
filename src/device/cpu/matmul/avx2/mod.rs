//! Kernels for AVX2 with FMA and F16C.

mod bytes;
mod codes;
mod expand;
mod float;
mod int;
mod quantise;

use super::kernels::Kernels;

pub static KERNELS: Kernels = Kernels {
    float_tile: float::tile,
    int_tile: int::tile,
    byte_tile: bytes::tile,
    int_row: int::row,
    byte_row: bytes::row,
    widen: float::widen,
    expand: expand::expand,
    expand_bytes: expand::expand_bytes,
    dequantise: expand::dequantise,
    quantise: quantise::quantise,
    quantise_bytes: quantise::quantise_bytes,
};

#[cfg(test)]
mod tests {
    use super::super::kernels::{Codes, INT_CHUNK, Isa, RowScale};
    use super::super::layout::{self, BLOCK};
    use super::codes::QUANTISED;
    use crate::types::Dtype;

    /// A fixed sequence of bytes without pattern (a linear congruential generator's high byte).
    fn noise(seed: u64) -> impl Iterator<Item = u8> {
        let next = |x: u64| x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        std::iter::successors(Some(next(seed)), move |x| Some(next(*x))).map(|x| (x >> 56) as u8)
    }

    fn bits(numbers: &[f32]) -> Vec<u32> {
        numbers.iter().map(|x| x.to_bits()).collect()
    }

    #[test]
    fn unpacking_is_that_of_the_scalar_kernels_to_the_bit() {
        if !Isa::Avx2.is_available() {
            return;
        }
        let (scalar, simd) = (Isa::Scalar.kernels(), Isa::Avx2.kernels());
        for (seed, dtype) in QUANTISED.into_iter().enumerate() {
            let units = INT_CHUNK / layout::unit_len(dtype);
            // Half-precision scales below 1.5: no byte pair is infinite or NaN.
            let bytes: Vec<u8> = noise(seed as u64)
                .take(units * layout::unit_bytes(dtype))
                .map(|b| b & 0xbd)
                .collect();
            let (mut a, mut b) = (Box::new(Codes::ZERO), Box::new(Codes::ZERO));
            // SAFETY: whole units of one chunk; the CPU has the instructions.
            unsafe {
                (scalar.expand)(dtype, &bytes, &mut a);
                (simd.expand)(dtype, &bytes, &mut b);
                if dtype != Dtype::Q8_0 {
                    (scalar.expand_bytes)(dtype, &bytes, &mut a);
                    (simd.expand_bytes)(dtype, &bytes, &mut b);
                }
            }
            assert!(a.q == b.q, "{dtype:?}: 16 bits");
            assert!(a.bytes == b.bytes, "{dtype:?}: bytes");
            assert_eq!(bits(&a.d), bits(&b.d), "{dtype:?}: scales");
            // Q8_0 has no minima; -0 and 0 are the same minimum.
            let plain = |m: &[f32]| bits(&m.iter().map(|x| x + 0.0).collect::<Vec<_>>());
            assert_eq!(plain(&a.m), plain(&b.m), "{dtype:?}: minima");
        }
    }

    #[test]
    fn quantising_is_that_of_the_scalar_kernels_to_the_bit() {
        if !Isa::Avx2.is_available() {
            return;
        }
        let (scalar, simd) = (Isa::Scalar.kernels(), Isa::Avx2.kernels());
        let mut x: Vec<f32> =
            noise(9).take(INT_CHUNK).map(|b| (f32::from(b) - 128.0) * 0.37).collect();
        x[..BLOCK].fill(0.0);
        x[BLOCK] = f32::NAN;
        x[2 * BLOCK] = f32::NEG_INFINITY;
        x[3 * BLOCK] = 1e-38;
        for i in 4 * BLOCK..INT_CHUNK {
            // Halves between two integers, which must go to the even one.
            x[i] = if i % BLOCK == 0 { 127.0 } else { f32::from(i as i8) / 2.0 };
        }
        let mut a = (vec![0i16; INT_CHUNK], vec![0i8; INT_CHUNK]);
        let mut b = a.clone();
        let mut scales = vec![vec![RowScale::default(); INT_CHUNK / BLOCK]; 4];
        // SAFETY: one chunk each; the CPU has the instructions.
        unsafe {
            (scalar.quantise)(&x, &mut a.0, &mut scales[0]);
            (simd.quantise)(&x, &mut b.0, &mut scales[1]);
            (scalar.quantise_bytes)(&x, &mut a.1, &mut scales[2]);
            (simd.quantise_bytes)(&x, &mut b.1, &mut scales[3]);
        }
        // A block that holds no finite scale has a NaN scale; its integers mean nothing.
        let same = |scales: &[Vec<RowScale>], block: usize| {
            let [p, q] = [&scales[0][block], &scales[1][block]];
            p == q || (p.d.is_nan() && q.d.is_nan())
        };
        for block in 0..INT_CHUNK / BLOCK {
            assert!(same(&scales[..2], block) && same(&scales[2..], block), "block {block}");
            let columns = block * BLOCK..(block + 1) * BLOCK;
            if scales[0][block].d.is_finite() {
                assert_eq!(a.0[columns.clone()], b.0[columns.clone()], "block {block}");
                assert_eq!(a.1[columns.clone()], b.1[columns], "block {block}");
            }
        }
    }
}
