//! The approximate functions of the special-function unit.
//!
//! The ISA bounds their error but does not fix their bits. We return the `f64` result rounded to
//! nearest f32, which lies inside every documented bound (rcp 1 ulp, rsqrt 2^-22.9, ex2 2^-22.5,
//! lg2 2^-22, sin and cos 2^-20.9 absolute, tanh 2^-11). A kernel must be right for any result
//! within the bound, so tests should not rely on the extra accuracy.

/// `ex2.approx.f32`: 2 to the power x.
pub fn ex2(x: f32) -> f32 {
    f64::from(x).exp2() as f32
}

/// `lg2.approx.f32`: base-2 logarithm; negative numbers give NaN, zeros minus infinity.
pub fn lg2(x: f32) -> f32 {
    f64::from(x).log2() as f32
}

/// `rcp.approx.f32`.
pub fn rcp(x: f32) -> f32 {
    (1.0 / f64::from(x)) as f32
}

/// `rsqrt.approx.f32`: -0 gives minus infinity, negative numbers NaN.
pub fn rsqrt(x: f32) -> f32 {
    (1.0 / f64::from(x).sqrt()) as f32
}

/// `sqrt.approx.f32`.
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

    #[test]
    fn special_values_follow_the_isa_tables() {
        assert_eq!(ex2(f32::NEG_INFINITY), 0.0);
        assert_eq!(ex2(-0.0), 1.0);
        assert_eq!(ex2(10.0), 1024.0);
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
