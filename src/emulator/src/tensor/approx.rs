//! The approximate functions of the special-function unit.
//!
//! The ISA bounds their error but does not fix their bits. We return a result in `f64`, rounded to
//! nearest f32, which lies inside every documented bound (rcp 1 ulp, rsqrt 2^-22.9, ex2 2^-22.5,
//! lg2 2^-22, sin and cos 2^-20.9 absolute, tanh 2^-11). A kernel must be right for any result
//! within the bound, so tests should not rely on the extra accuracy.

/// 1.5 · 2^52: added to a small number, leaves its nearest integer in the low bits.
const SHIFTER: f64 = 6_755_399_441_055_744.0;

/// Coefficients of 2^f for |f| ≤ 1/2, lowest first: the polynomial of degree 8 that agrees with it
/// at the nine Chebyshev points, whose relative error is at most 1.1 · 10^-12.
const POWERS: [f64; 9] = [
    1.0,
    0.6931471805459335,
    0.2402265069581299,
    0.05550410941205933,
    0.009618129159402558,
    0.0013333450568000645,
    0.00015403455852453838,
    1.5310079402249296e-5,
    1.3255224878668817e-6,
];

/// `ex2.approx.f32`: 2 to the power x.
///
/// 2^x = 2^n · 2^f with n the nearest integer and |f| ≤ 1/2. Without branches, so that a loop over
/// lanes becomes vector code.
#[inline(always)]
pub fn ex2(x: f32) -> f32 {
    // Beyond these the result is zero or infinite in f32.
    let x = f64::from(x).clamp(-200.0, 200.0);
    let shifted = x + SHIFTER;
    let f = x - (shifted - SHIFTER);
    let sum = POWERS[..8].iter().rev().fold(POWERS[8], |sum, c| sum.mul_add(f, *c));
    let power = (shifted.to_bits() << 52).wrapping_add(1023 << 52);
    (sum * f64::from_bits(power)) as f32
}

/// Bits of √½ as an `f64`.
const HALF_ROOT: u64 = 0x3fe6_a09e_667f_3bcd;

/// `lg2.approx.f32`: base-2 logarithm; negative numbers give NaN, zeros minus infinity.
///
/// x = 2^k · m with m in [√½, √2), and log2 m = 2/ln 2 · artanh t for t = (m − 1)/(m + 1), where
/// ten terms of the series leave 10^-16.
#[inline(always)]
pub fn lg2(x: f32) -> f32 {
    let bits = f64::from(x).to_bits();
    let above = bits.wrapping_sub(HALF_ROOT);
    let k = (above >> 32) as i32 >> 20;
    let m = f64::from_bits(bits.wrapping_sub(above & 0xfff0_0000_0000_0000));
    let t = (m - 1.0) / (m + 1.0);
    let square = t * t;
    let mut sum = 0.0;
    for n in (0..10).rev() {
        sum = sum * square + 1.0 / f64::from(2 * n + 1);
    }
    let log = f64::from(k) + 2.0 * std::f64::consts::LOG2_E * t * sum;
    let log = if x == f32::INFINITY { f64::INFINITY } else { log };
    let log = if x == 0.0 { f64::NEG_INFINITY } else { log };
    let log = if x >= 0.0 { log } else { f64::NAN };
    log as f32
}

/// `rcp.approx.f32`.
#[inline(always)]
pub fn rcp(x: f32) -> f32 {
    (1.0 / f64::from(x)) as f32
}

/// `rsqrt.approx.f32`: -0 gives minus infinity, negative numbers NaN.
#[inline(always)]
pub fn rsqrt(x: f32) -> f32 {
    (1.0 / f64::from(x).sqrt()) as f32
}

/// `sqrt.approx.f32`.
#[inline(always)]
pub fn sqrt(x: f32) -> f32 {
    f64::from(x).sqrt() as f32
}

/// `sin.approx.f32`.
pub fn sin(x: f32) -> f32 {
    f64::from(x).sin() as f32
}

/// `cos.approx.f32`.
pub fn cos(x: f32) -> f32 {
    f64::from(x).cos() as f32
}

/// `tanh.approx.f32`.
pub fn tanh(x: f32) -> f32 {
    f64::from(x).tanh() as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every binade, and the neighbourhood of one, where a logarithm loses digits.
    #[test]
    fn close_to_the_exact_functions() {
        let mut worst = [0f64; 2];
        for n in 0..400_000u32 {
            let x = f32::from_bits(n.wrapping_mul(10_007));
            let near_one = 1.0 + (n as f32 - 200_000.0) * 1e-8;
            for x in [x, near_one].into_iter().filter(|x| *x > 0.0 && x.is_finite()) {
                let exact = f64::from(x).log2();
                let error = (f64::from(lg2(x)) - exact).abs() / exact.abs().max(1e-30);
                worst[0] = worst[0].max(error);
            }
            let x = (n as f32 - 200_000.0) * (125.0 / 200_000.0);
            let exact = f64::from(x).exp2();
            worst[1] = worst[1].max((f64::from(ex2(x)) - exact).abs() / exact);
        }
        // Half a unit in the last place of f32, as if the exact result had been rounded.
        assert!(worst.iter().all(|w| *w <= 1.0001 * 2f64.powi(-24)), "{worst:?}");
    }

    #[test]
    fn special_values_follow_the_isa_tables() {
        assert_eq!(ex2(f32::NEG_INFINITY), 0.0);
        assert_eq!(ex2(-0.0), 1.0);
        assert_eq!(ex2(10.0), 1024.0);
        assert_eq!(ex2(-140.0), 2f32.powi(-140));
        assert_eq!(
            (ex2(128.0), ex2(f32::INFINITY), ex2(-151.0)),
            (f32::INFINITY, f32::INFINITY, 0.0)
        );
        assert!(ex2(f32::NAN).is_nan() && lg2(f32::NAN).is_nan());
        assert_eq!((lg2(1.0), lg2(8.0), lg2(2f32.powi(-149))), (0.0, 3.0, -149.0));
        assert_eq!(lg2(f32::INFINITY), f32::INFINITY);
        assert!(lg2(-1.0).is_nan());
        assert_eq!(lg2(-0.0), f32::NEG_INFINITY);
        assert_eq!(rcp(-0.0), f32::NEG_INFINITY);
        assert_eq!(rcp(f32::INFINITY), 0.0);
        assert_eq!(rsqrt(-0.0), f32::NEG_INFINITY);
        assert_eq!(rsqrt(0.25), 2.0);
        assert!(rsqrt(-1.0).is_nan());
        assert_eq!(tanh(f32::INFINITY), 1.0);
        assert_eq!((sin(0.0), cos(0.0)), (0.0, 1.0));
    }
}
