//! Eight f32 lanes, with kernels written once for every instruction set.
//!
//! A kernel is a `simd_fn!`: a body generic over [`Lanes`], compiled once plainly (always there)
//! and once with AVX2, FMA and F16C, or NEON, chosen at run time by [`Isa`]. All follow the same
//! order of operations; they differ in the last bit where FMA rounds once.

#[cfg(target_arch = "x86_64")]
mod avx2;
pub mod math;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;
pub mod softmax;

#[cfg(target_arch = "x86_64")]
pub use avx2::Avx2;
use half::f16;
#[cfg(target_arch = "aarch64")]
pub use neon::{Neon, widen_f16};
pub use scalar::Scalar;

/// Lanes of a vector.
pub const LANES: usize = 8;

/// An instruction set that this processor has: only [`Isa::best`] makes one other than scalar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Isa(pub(super) Set);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Set {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "aarch64")]
    Neon,
}

impl Isa {
    /// The fastest that the processor has.
    pub fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c")
        {
            return Isa(Set::Avx2);
        }
        #[cfg(target_arch = "aarch64")]
        return Isa(Set::Neon);
        #[cfg(not(target_arch = "aarch64"))]
        Isa::scalar()
    }

    /// Plain Rust, for any processor.
    pub fn scalar() -> Self {
        Isa(Set::Scalar)
    }

    /// `scalar`, `avx2+fma`, `neon`.
    pub fn name(self) -> &'static str {
        match self.0 {
            Set::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => "avx2+fma",
            #[cfg(target_arch = "aarch64")]
            Set::Neon => "neon",
        }
    }
}

/// Eight f32 numbers.
pub trait Lanes: Copy {
    fn splat(x: f32) -> Self;
    fn load(from: &[f32; LANES]) -> Self;
    /// Eight half-precision numbers, exactly.
    fn load_f16(from: &[f16; LANES]) -> Self;
    fn store(self, to: &mut [f32; LANES]);
    /// Rounded to half precision, ties to even; infinite from 65,520 on.
    fn store_f16(self, to: &mut [f16; LANES]);
    /// Asks for the cache line of `at`, which will be read soon.
    fn prefetch<T>(_at: &T) {}
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    fn div(self, other: Self) -> Self;
    /// `self · factor + sum`.
    fn fma(self, factor: Self, sum: Self) -> Self;
    /// The larger; `other` where either is NaN.
    fn max(self, other: Self) -> Self;
    /// The smaller; `other` where either is NaN.
    fn min(self, other: Self) -> Self;
    /// To the nearest integer, ties to even.
    fn round(self) -> Self;
    /// `2^self` for integers from -126 to 127.
    fn pow2(self) -> Self;
    /// `yes` where `self < limit`, else `no`.
    fn if_below(self, limit: Self, yes: Self, no: Self) -> Self;
    /// The lanes' sum: `((0+1) + (2+3)) + ((4+5) + (6+7))`.
    fn sum(self) -> f32;
    /// The largest lane.
    fn largest(self) -> f32;
    /// Lane i is the sum of vector i's lanes, in the order of [`Lanes::sum`].
    fn sums(vectors: [Self; LANES]) -> Self;
}

/// Defines a kernel: `fn name<S>(arguments) -> result { body }`, where `S` is the [`Lanes`] to
/// use, becomes `fn name(isa, arguments) -> result`; `fn name<S, E: Bound>` becomes `fn name<E>`.
macro_rules! simd_fn {
    ($(#[$doc:meta])* $vis:vis fn $name:ident<$s:ident $(, $e:ident: $bound:path)?>(
        $($arg:ident: $ty:ty),* $(,)?
    ) $(-> $ret:ty)? $body:block) => {
        $(#[$doc])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name$(<$e: $bound>)?(
            isa: $crate::device::cpu::simd::Isa,
            $($arg: $ty),*
        ) $(-> $ret)? {
            use $crate::device::cpu::simd as lanes;

            #[inline(always)]
            fn generic<$s: lanes::Lanes $(, $e: $bound)?>($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            fn avx2$(<$e: $bound>)?($($arg: $ty),*) $(-> $ret)? {
                generic::<lanes::Avx2 $(, $e)?>($($arg),*)
            }

            match isa.0 {
                lanes::Set::Scalar => {
                    generic::<lanes::Scalar $(, $e)?>($($arg),*)
                }
                #[cfg(target_arch = "x86_64")]
                // SAFETY: `Isa::best` made this value after detecting all three.
                lanes::Set::Avx2 => unsafe { avx2$(::<$e>)?($($arg),*) },
                #[cfg(target_arch = "aarch64")]
                lanes::Set::Neon => {
                    generic::<lanes::Neon $(, $e)?>($($arg),*)
                }
            }
        }
    };
}
pub(crate) use simd_fn;

/// The last few numbers of a slice, padded with zeros to a vector.
#[inline(always)]
pub fn padded(rest: &[f32]) -> [f32; LANES] {
    let mut all = [0.0; LANES];
    all[..rest.len()].copy_from_slice(rest);
    all
}
