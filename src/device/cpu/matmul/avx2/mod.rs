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

#[cfg(test)]
mod tests {
    use super::super::integer::{Integer, RowMut, RowScale};
    use super::super::kernels::{Codes, INT_CHUNK, Isa, Kernels};
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
                (scalar.wide.expand)(dtype, &bytes, &mut a);
                (simd.wide.expand)(dtype, &bytes, &mut b);
                if dtype != Dtype::Q8_0 {
                    (scalar.bytes.expand)(dtype, &bytes, &mut a);
                    (simd.bytes.expand)(dtype, &bytes, &mut b);
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

    /// A chunk quantised by a table's kernel.
    struct Quantised<A> {
        q: Vec<A>,
        low: Vec<A>,
        fine: u32,
        scales: Vec<RowScale>,
    }

    fn quantised<A: Integer>(kernels: &Kernels, x: &[f32], limit: f32) -> Quantised<A> {
        let (q, low) = (vec![A::default(); INT_CHUNK], vec![A::default(); INT_CHUNK]);
        let scales = vec![RowScale::default(); INT_CHUNK / BLOCK];
        let mut all = Quantised { q, low, fine: 0, scales };
        let (q, low, fine) = (&mut all.q[..], &mut all.low[..], &mut all.fine);
        let out = RowMut { q, low, fine, scales: &mut all.scales };
        // SAFETY: one chunk; callers have asked whether the CPU has the instructions.
        unsafe { (A::kernels(kernels).quantise)(x, limit, out) };
        all
    }

    fn same<A: Integer + PartialEq + std::fmt::Debug>(x: &[f32], limit: f32) -> u32 {
        let a = quantised::<A>(Isa::Scalar.kernels(), x, limit);
        let b = quantised::<A>(Isa::Avx2.kernels(), x, limit);
        assert_eq!(a.fine, b.fine);
        for (block, (p, q)) in a.scales.iter().zip(&b.scales).enumerate() {
            let columns = block * BLOCK..(block + 1) * BLOCK;
            // A block that holds no finite scale has a NaN scale; its integers mean nothing.
            if p.d.is_finite() {
                assert_eq!(p, q, "block {block}");
                assert_eq!(a.q[columns.clone()], b.q[columns.clone()], "block {block}");
                assert_eq!(a.low[columns.clone()], b.low[columns], "block {block}");
            } else {
                assert!(p.d.is_nan() && q.d.is_nan(), "block {block}");
            }
        }
        a.fine
    }

    #[test]
    fn quantising_is_that_of_the_scalar_kernels_to_the_bit() {
        if !Isa::Avx2.is_available() {
            return;
        }
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
        x[7 * BLOCK + 5] = -1000.0;
        assert_eq!(same::<i16>(&x, f32::INFINITY), 0);
        assert_eq!(same::<i8>(&x, f32::INFINITY), 0);
        assert_eq!(same::<i8>(&x, f32::NAN), 0);
        assert_eq!(same::<i8>(&x, 200.0), 1 << 7 | 1 << 2, "an outlier, and infinity");
        assert_eq!(same::<i8>(&x, 0.0).count_ones(), 22, "all but zeros and NaN");
    }
}
