//! The C library's maths functions, from the `libm` crate (MUSL's, in Rust).
//!
//! `f32::exp` and its like are calls to symbols of `libm.so.6`. Defining those symbols here keeps
//! the binary's needs down to libc itself, and makes a model's numbers the same on every Linux,
//! whatever its libm rounds like. Hot loops have vector versions of their own.

macro_rules! export {
    ($($name:ident ( $($arg:ident : $type:ty),* ) -> $result:ty;)*) => {
        $(
            // SAFETY: the symbol has the C library's name, signature and meaning.
            #[unsafe(no_mangle)]
            extern "C" fn $name($($arg: $type),*) -> $result {
                libm::$name($($arg),*)
            }
        )*
    };
}

export! {
    acos(x: f64) -> f64;
    acosf(x: f32) -> f32;
    asin(x: f64) -> f64;
    asinf(x: f32) -> f32;
    atan(x: f64) -> f64;
    atanf(x: f32) -> f32;
    atan2(y: f64, x: f64) -> f64;
    atan2f(y: f32, x: f32) -> f32;
    cbrt(x: f64) -> f64;
    cbrtf(x: f32) -> f32;
    ceil(x: f64) -> f64;
    ceilf(x: f32) -> f32;
    cos(x: f64) -> f64;
    cosf(x: f32) -> f32;
    cosh(x: f64) -> f64;
    coshf(x: f32) -> f32;
    erf(x: f64) -> f64;
    erff(x: f32) -> f32;
    exp(x: f64) -> f64;
    expf(x: f32) -> f32;
    exp2(x: f64) -> f64;
    exp2f(x: f32) -> f32;
    expm1(x: f64) -> f64;
    expm1f(x: f32) -> f32;
    floor(x: f64) -> f64;
    floorf(x: f32) -> f32;
    fma(x: f64, y: f64, z: f64) -> f64;
    fmaf(x: f32, y: f32, z: f32) -> f32;
    fmod(x: f64, y: f64) -> f64;
    fmodf(x: f32, y: f32) -> f32;
    hypot(x: f64, y: f64) -> f64;
    hypotf(x: f32, y: f32) -> f32;
    log(x: f64) -> f64;
    logf(x: f32) -> f32;
    log10(x: f64) -> f64;
    log10f(x: f32) -> f32;
    log1p(x: f64) -> f64;
    log1pf(x: f32) -> f32;
    log2(x: f64) -> f64;
    log2f(x: f32) -> f32;
    pow(x: f64, y: f64) -> f64;
    powf(x: f32, y: f32) -> f32;
    rint(x: f64) -> f64;
    rintf(x: f32) -> f32;
    round(x: f64) -> f64;
    roundf(x: f32) -> f32;
    sin(x: f64) -> f64;
    sinf(x: f32) -> f32;
    sinh(x: f64) -> f64;
    sinhf(x: f32) -> f32;
    tan(x: f64) -> f64;
    tanf(x: f32) -> f32;
    tanh(x: f64) -> f64;
    tanhf(x: f32) -> f32;
    tgamma(x: f64) -> f64;
    tgammaf(x: f32) -> f32;
    trunc(x: f64) -> f64;
    truncf(x: f32) -> f32;
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;

    #[test]
    fn values_of_known_functions() {
        assert!((black_box(1f64).exp() - std::f64::consts::E).abs() < 1e-15);
        assert!((black_box(1f32).exp() - std::f32::consts::E).abs() < 5e-7);
        assert_eq!(black_box(1024f64).log2(), 10.0);
        assert!((black_box(2f32).powf(black_box(0.5)) - std::f32::consts::SQRT_2).abs() < 2e-7);
        assert!((black_box(0.5f64).tanh() - 0.462_117_157_260_009_75).abs() < 1e-15);
        assert_eq!((black_box(2.5f64).floor(), black_box(-2.5f32).round()), (2.0, -3.0));
        assert_eq!(black_box(3f64).mul_add(black_box(5.0), 1.0), 16.0);
        assert!((black_box(0.5f64).sin() - 0.479_425_538_604_203).abs() < 1e-15);
    }
}
