//! exp, tanh, sigmoid and erf over lanes. Errors are measured in this file's tests.

use super::Lanes;

/// `(e^r - 1 - r) / r²` for |r| ≤ ln2 / 2, lowest power first: fitted so that the largest relative
/// error of `e^r` is least, 3.1e-9.
const EXP: [f32; 5] = [0.499_999_93, 0.166_665_2, 0.041_668_39, 8.368_745e-3, 1.381_454e-3];
/// `ln 2` in two parts; the first has few bits, so that its product with an integer is exact.
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;
/// From here down `2^n` has an exponent of 0, and is 0.
const EXP_LOWEST: f32 = -88.03;
/// Above this the result stays `e^88.37`, which is finite.
const EXP_HIGHEST: f32 = 88.37;

/// `e^x` within 2 ulp; 0 below -87.69 (also for -∞), at most 2.4e38, NaN for NaN.
///
/// The series is a tree, not a chain (Estrin, 1960): a processor that holds few waiting
/// instructions has the more vectors under way, the sooner each is done.
#[inline(always)]
pub fn exp<S: Lanes>(x: S) -> S {
    let inside = S::splat(EXP_HIGHEST).min(S::splat(EXP_LOWEST).max(x));
    let n = inside.mul(S::splat(std::f32::consts::LOG2_E)).round();
    let r = n.fma(S::splat(-LN2_LOW), n.fma(S::splat(-LN2_HIGH), inside));
    let square = r.mul(r);
    let [a, b, c, d, e] = EXP.map(S::splat);
    let low = b.fma(r, a);
    let high = e.fma(square, d.fma(r, c));
    let series = high.fma(square, low).fma(square, r);
    series.add(S::splat(1.0)).mul(n.pow2())
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub fn sigmoid<S: Lanes>(x: S) -> S {
    let one = S::splat(1.0);
    one.div(one.add(exp(S::splat(0.0).sub(x))))
}

/// Series of `(tanh x - x) / x³` in x² for |x| ≤ 0.625, fitted by Cephes' `tanhf`.
const TANH: [f32; 5] =
    [-5.704_988_7e-3, 2.063_908_9e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328_2e-1];

/// Hyperbolic tangent within 4 ulp.
#[inline(always)]
pub fn tanh<S: Lanes>(x: S) -> S {
    let square = x.mul(x);
    let mut series = S::splat(TANH[0]);
    for coefficient in &TANH[1..] {
        series = series.fma(square, S::splat(*coefficient));
    }
    let small = series.mul(square).fma(x, x);
    // 1 - 2 / (e^2|x| + 1), with x's sign.
    let zero = S::splat(0.0);
    let magnitude = x.max(zero.sub(x));
    let one = S::splat(1.0);
    let large = one.sub(S::splat(2.0).div(exp(magnitude.add(magnitude)).add(one)));
    let signed = x.if_below(zero, zero.sub(large), large);
    magnitude.if_below(S::splat(0.625), small, signed)
}

/// Abramowitz and Stegun 7.1.26: `erf x = 1 - (a₁t + … + a₅t⁵) e^-x²`, `t = 1 / (1 + p x)`.
const ERF_P: f32 = 0.327_591_1;
const ERF: [f32; 5] = [1.061_405_4, -1.453_152_1, 1.421_413_7, -0.284_496_72, 0.254_829_6];

/// Error function within 3e-7.
#[inline(always)]
pub fn erf<S: Lanes>(x: S) -> S {
    let (zero, one) = (S::splat(0.0), S::splat(1.0));
    let magnitude = x.max(zero.sub(x));
    let t = one.div(magnitude.fma(S::splat(ERF_P), one));
    let mut series = S::splat(ERF[0]);
    for coefficient in &ERF[1..] {
        series = series.fma(t, S::splat(*coefficient));
    }
    let tail = series.mul(t).mul(exp(zero.sub(magnitude.mul(magnitude))));
    let large = one.sub(tail);
    x.if_below(zero, zero.sub(large), large)
}

#[cfg(test)]
mod tests {
    use super::super::{Isa, simd_fn};
    use super::*;

    simd_fn! { fn exp8<S>(x: [f32; 8]) -> [f32; 8] { let mut y = x; exp(S::load(&x)).store(&mut y); y } }
    simd_fn! { fn tanh8<S>(x: [f32; 8]) -> [f32; 8] { let mut y = x; tanh(S::load(&x)).store(&mut y); y } }
    simd_fn! { fn erf8<S>(x: [f32; 8]) -> [f32; 8] { let mut y = x; erf(S::load(&x)).store(&mut y); y } }

    fn worst_ulps(f: impl Fn(f32) -> f32, exact: impl Fn(f64) -> f64, range: (f32, f32)) -> f64 {
        let n = 200_000;
        let at = |i: i32| range.0 + (range.1 - range.0) * i as f32 / n as f32;
        let ulps = |x: f32| {
            let want = exact(x as f64);
            let ulp = (f32::from_bits((want as f32).to_bits() + 1) - want as f32).abs() as f64;
            (f(x) as f64 - want).abs() / ulp
        };
        (0..=n).map(|i| ulps(at(i))).fold(0.0, f64::max)
    }

    #[test]
    fn exp_and_tanh_are_within_a_few_ulps() {
        for isa in [Isa::scalar(), Isa::best()] {
            let worst = worst_ulps(|x| exp8(isa, [x; 8])[3], f64::exp, (-87.3, 88.3));
            assert!(worst < 2.0, "exp {} ulps", worst);
            let worst = worst_ulps(|x| tanh8(isa, [x; 8])[3], f64::tanh, (-9.5, 9.5));
            assert!(worst < 4.0, "tanh {} ulps", worst);
        }
    }

    #[test]
    fn exp_at_the_edges() {
        for isa in [Isa::scalar(), Isa::best()] {
            let x = [f32::NEG_INFINITY, -88.0, -1000.0, 0.0, -0.0, 1000.0, f32::INFINITY, f32::NAN];
            let y = exp8(isa, x);
            assert_eq!(&y[..5], &[0.0, 0.0, 0.0, 1.0, 1.0]);
            assert!(y[5] > 2e38 && y[5].is_finite() && y[6] == y[5] && y[7].is_nan());
        }
    }

    #[test]
    fn erf_is_close_to_known_values() {
        let x = [-4.0, -1.0, -0.1, 0.0, 0.5, 1.0, 2.0, 5.0];
        let known = [
            -0.999999985,
            -0.842700793,
            -0.112462916,
            0.0,
            0.520499878,
            0.842700793,
            0.995322265,
            1.,
        ];
        for isa in [Isa::scalar(), Isa::best()] {
            for (y, want) in erf8(isa, x).iter().zip(known) {
                assert!((y - want).abs() < 3e-7, "{y} {want}");
            }
        }
    }
}
