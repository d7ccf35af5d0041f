//! Number formats of the tensor instructions: how bits become values and values become bits.
//!
//! One routine, [`Format::round`], rounds an `f64` to any format under any rounding mode. Every
//! narrower float is exact in `f64`, so a conversion between two of them is one decode and one
//! round. The two hot conversions (f32 to f16 and bf16, to nearest) have short paths that a test
//! holds equal to the general one.

/// Rounding modes of `cvt`, `add`, `mul` and `fma`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// `.rn`: to nearest, ties to even.
    NearestEven,
    /// `.rna`: to nearest, ties away from zero.
    NearestAway,
    /// `.rz`: toward zero.
    TowardZero,
    /// `.rm`: toward minus infinity.
    Down,
    /// `.rp`: toward plus infinity.
    Up,
}

/// What the largest exponent field means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// Infinities and NaNs as in IEEE 754.
    Ieee,
    /// No infinity; only the all-ones pattern is NaN (e4m3).
    NanOnly,
    /// Every pattern is a finite number (e2m1, e2m3, e3m2).
    Finite,
}

/// A binary floating-point format with one sign bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Width of the exponent field.
    pub exponent_bits: u32,
    /// Width of the fraction field, without the implicit one.
    pub fraction_bits: u32,
    /// Meaning of the largest exponent field.
    pub special: Special,
}

/// IEEE 754 binary32.
pub const F32: Format = Format::new(8, 23, Special::Ieee);
/// IEEE 754 binary16.
pub const F16: Format = Format::new(5, 10, Special::Ieee);
/// bfloat16: the upper half of a binary32.
pub const BF16: Format = Format::new(8, 7, Special::Ieee);
/// TF32 as a 19-bit number; in a register its bits are the upper 19 of 32.
pub const TF32: Format = Format::new(8, 10, Special::Ieee);
/// OCP 8-bit float, 4 exponent bits, largest value 448.
pub const E4M3: Format = Format::new(4, 3, Special::NanOnly);
/// OCP 8-bit float, 5 exponent bits, largest value 57344.
pub const E5M2: Format = Format::new(5, 2, Special::Ieee);
/// OCP 4-bit float, largest value 6.
pub const E2M1: Format = Format::new(2, 1, Special::Finite);

/// 2 to the power `e`, exact, for exponents of normal `f64` numbers.
fn power_of_two(e: i32) -> f64 {
    f64::from_bits(((e + 1023).clamp(0, 2046) as u64) << 52)
}

/// Exponent of the leading one of a positive finite number (subnormals count as -1023).
fn exponent_of(x: f64) -> i32 {
    ((x.to_bits() >> 52) & 0x7ff) as i32 - 1023
}

impl Format {
    const fn new(exponent_bits: u32, fraction_bits: u32, special: Special) -> Self {
        Self { exponent_bits, fraction_bits, special }
    }

    fn bias(self) -> i32 {
        (1 << (self.exponent_bits - 1)) - 1
    }

    fn sign_bit(self) -> u32 {
        1 << (self.exponent_bits + self.fraction_bits)
    }

    /// Bits of the largest finite magnitude.
    pub fn largest(self) -> u32 {
        match self.special {
            Special::Ieee => (((1 << self.exponent_bits) - 1) << self.fraction_bits) - 1,
            Special::NanOnly => self.sign_bit() - 2,
            Special::Finite => self.sign_bit() - 1,
        }
    }

    /// Bits of the canonical NaN: all ones but the sign, as the ISA gives for narrow formats.
    /// A format without NaN yields its largest number, as `satfinite` does there.
    pub fn nan(self) -> u32 {
        self.sign_bit() - 1
    }

    /// Value of a bit pattern; bits above the format's width are ignored.
    pub fn decode(self, bits: u32) -> f64 {
        let magnitude = bits & (self.sign_bit() - 1);
        let sign = if bits & self.sign_bit() != 0 { -1.0 } else { 1.0 };
        if magnitude > self.largest() {
            let infinity = self.largest() + 1;
            let is_infinite = self.special == Special::Ieee && magnitude == infinity;
            return if is_infinite { sign * f64::INFINITY } else { f64::NAN };
        }
        let fraction = magnitude & ((1 << self.fraction_bits) - 1);
        let field = (magnitude >> self.fraction_bits) as i32;
        let (whole, field) =
            if field == 0 { (fraction, 1) } else { (fraction | 1 << self.fraction_bits, field) };
        let scale = field - self.bias() - self.fraction_bits as i32;
        sign * f64::from(whole) * power_of_two(scale)
    }

    /// Bits of `x` rounded to this format. NaN becomes the canonical NaN. `satfinite` clamps what
    /// would overflow, infinities included, to the largest finite magnitude; without it an
    /// overflow becomes infinity, or NaN where the format has no infinity.
    pub fn round(self, x: f64, mode: Rounding, satfinite: bool) -> u32 {
        if x.is_nan() {
            return self.nan();
        }
        let negative = x.is_sign_negative();
        let sign = if negative { self.sign_bit() } else { 0 };
        let a = x.abs();
        if a.is_infinite() {
            return sign | self.overflow(negative, Rounding::NearestEven, satfinite);
        }
        if a == 0.0 {
            return sign;
        }
        let lowest = 1 - self.bias();
        let exponent = exponent_of(a).max(lowest);
        if exponent > self.bias() + 1 {
            return sign | self.overflow(negative, mode, satfinite);
        }
        let scaled = a * power_of_two(self.fraction_bits as i32 - exponent);
        let whole = round_up(scaled, negative, mode);
        let bits = (((exponent - lowest) as u32) << self.fraction_bits) + whole;
        if bits > self.largest() {
            return sign | self.overflow(negative, mode, satfinite);
        }
        sign | bits
    }

    /// Magnitude bits of a number beyond the largest finite one.
    fn overflow(self, negative: bool, mode: Rounding, satfinite: bool) -> u32 {
        let stays_finite = match mode {
            Rounding::TowardZero => true,
            Rounding::Down => !negative,
            Rounding::Up => negative,
            Rounding::NearestEven | Rounding::NearestAway => false,
        };
        match (satfinite || stays_finite, self.special) {
            (true, _) | (_, Special::Finite) => self.largest(),
            (false, Special::Ieee) => self.largest() + 1,
            (false, Special::NanOnly) => self.nan(),
        }
    }
}

/// Integer nearest to `scaled` (non-negative, below 2^25) in the mode's direction.
fn round_up(scaled: f64, negative: bool, mode: Rounding) -> u32 {
    let floor = scaled.floor();
    let rest = scaled - floor;
    let whole = floor as u32;
    let up = match mode {
        Rounding::NearestEven => rest > 0.5 || (rest == 0.5 && whole & 1 == 1),
        Rounding::NearestAway => rest >= 0.5,
        Rounding::TowardZero => false,
        Rounding::Down => negative && rest > 0.0,
        Rounding::Up => !negative && rest > 0.0,
    };
    whole + u32::from(up)
}

/// f32 to f16, to nearest even: the short path of `F16.round`.
pub fn f16_from_f32(x: f32) -> u16 {
    if x.is_nan() { F16.nan() as u16 } else { half::f16::from_f32(x).to_bits() }
}

/// f32 to bf16, to nearest even: the short path of `BF16.round`.
pub fn bf16_from_f32(x: f32) -> u16 {
    if x.is_nan() {
        return BF16.nan() as u16;
    }
    let bits = x.to_bits();
    let ties_to_even = 0x7fff + ((bits >> 16) & 1);
    ((bits + ties_to_even) >> 16) as u16
}

/// f16 bits to f32, exact.
pub fn f16_to_f32(bits: u16) -> f32 {
    half::f16::from_bits(bits).to_f32()
}

/// bf16 bits to f32, exact.
pub fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// f32 to TF32 in register form: the 19 significant bits on top, 13 zero bits below.
pub fn tf32_from_f32(x: f32, mode: Rounding, satfinite: bool) -> u32 {
    TF32.round(f64::from(x), mode, satfinite) << 13
}

/// Value the tensor unit sees in a register given as TF32: the low 13 bits are dropped, which is
/// what the hardware is known to do with a plain f32 there.
pub fn tf32_to_f32(bits: u32) -> f32 {
    f32::from_bits(bits & !0x1fff)
}

/// e4m3 bits to f32, exact.
pub fn e4m3_to_f32(bits: u8) -> f32 {
    E4M3.decode(u32::from(bits)) as f32
}

/// e5m2 bits to f32, exact.
pub fn e5m2_to_f32(bits: u8) -> f32 {
    E5M2.decode(u32::from(bits)) as f32
}

/// `f64` to f32 in a rounding mode.
pub fn f32_from_f64(x: f64, mode: Rounding) -> f32 {
    if mode == Rounding::NearestEven {
        return x as f32;
    }
    f32::from_bits(F32.round(x, mode, false))
}

/// f32 to f32 with subnormals flushed to a zero of the same sign (`.ftz`).
pub fn flush(x: f32) -> f32 {
    if x.is_subnormal() { 0.0f32.copysign(x) } else { x }
}

/// Lower NaN and clamp to [0, 1], as `.sat` does.
pub fn saturate(x: f32) -> f32 {
    // −0 is below the interval [+0, 1].
    if x > 0.0 { x.min(1.0) } else { 0.0 }
}

/// `a·b + c` rounded to odd in `f64`: exact enough that one further rounding to 24 or fewer bits
/// in any mode gives the correctly rounded fused result. `a` and `b` must have at most 26
/// significant bits so that their product is exact.
pub fn fma_to_odd(a: f64, b: f64, c: f64) -> f64 {
    let product = a * b;
    let sum = product + c;
    if !sum.is_finite() || sum == 0.0 {
        return sum;
    }
    let c_part = sum - product;
    let error = (product - (sum - c_part)) + (c - c_part);
    if error == 0.0 || sum.to_bits() & 1 == 1 {
        return sum;
    }
    // The sum is even and inexact: step to the odd neighbour on the side of the true value.
    let away = (error > 0.0) == (sum > 0.0);
    f64::from_bits(if away { sum.to_bits() + 1 } else { sum.to_bits() - 1 })
}

/// `a·b + c` in a narrow format with a single rounding (`fma.rn.f16`, `fma.rz.f32` and so on).
/// Arguments and result are bit patterns of `format`.
pub fn fma(format: Format, a: u32, b: u32, c: u32, mode: Rounding) -> u32 {
    let exact = fma_to_odd(format.decode(a), format.decode(b), format.decode(c));
    format.round(exact, mode, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODES: [Rounding; 5] = [
        Rounding::NearestEven,
        Rounding::NearestAway,
        Rounding::TowardZero,
        Rounding::Down,
        Rounding::Up,
    ];

    #[test]
    fn every_pattern_survives_decode_and_round() {
        for (format, bits) in [(F16, 16), (BF16, 16), (E4M3, 8), (E5M2, 8), (E2M1, 4), (TF32, 19)] {
            for pattern in 0..1u32 << bits {
                let value = format.decode(pattern);
                if value.is_nan() {
                    assert_eq!(format.round(value, MODES[0], false), format.nan());
                    continue;
                }
                for mode in MODES {
                    assert_eq!(format.round(value, mode, false), pattern, "{format:?} {pattern:x}");
                }
            }
        }
    }

    #[test]
    fn rounding_picks_the_neighbour_the_mode_names() {
        // Between each pair of neighbours of e4m3: the quarter, half and three-quarter points.
        for low in 0..E4M3.largest() {
            let (a, b) = (E4M3.decode(low), E4M3.decode(low + 1));
            for (part, nearest) in [(0.25, low), (0.5, low + (low & 1)), (0.75, low + 1)] {
                let x = a + (b - a) * part;
                let away = if part == 0.5 { low + 1 } else { nearest };
                assert_eq!(E4M3.round(x, Rounding::NearestEven, false), nearest);
                assert_eq!(E4M3.round(x, Rounding::NearestAway, false), away);
                assert_eq!(E4M3.round(x, Rounding::TowardZero, false), low);
                assert_eq!(E4M3.round(x, Rounding::Down, false), low);
                assert_eq!(E4M3.round(x, Rounding::Up, false), low + 1);
                assert_eq!(E4M3.round(-x, Rounding::Down, false), 0x80 | (low + 1));
                assert_eq!(E4M3.round(-x, Rounding::Up, false), 0x80 | low);
            }
        }
    }

    #[test]
    fn known_values_of_the_eight_bit_formats() {
        assert_eq!(E4M3.decode(0x7e), 448.0);
        assert!(E4M3.decode(0x7f).is_nan());
        assert_eq!(E4M3.decode(0x01), 2f64.powi(-9));
        assert_eq!(E5M2.decode(0x7b), 57344.0);
        assert_eq!(E5M2.decode(0x7c), f64::INFINITY);
        assert_eq!(E5M2.decode(0x01), 2f64.powi(-16));
        assert_eq!(E2M1.decode(0x7), 6.0);
    }

    #[test]
    fn overflow_saturates_or_becomes_special() {
        let rn = Rounding::NearestEven;
        assert_eq!(E4M3.round(1e9, rn, true), 0x7e);
        assert_eq!(E4M3.round(-f64::INFINITY, rn, true), 0xfe);
        assert_eq!(E4M3.round(464.0, rn, true), 0x7e);
        assert_eq!(E4M3.round(1e9, rn, false), 0x7f);
        assert_eq!(E4M3.round(f64::NAN, rn, true), 0x7f);
        assert_eq!(E5M2.round(1e9, rn, true), 0x7b);
        assert_eq!(E5M2.round(1e9, rn, false), 0x7c);
        assert_eq!(F16.round(65519.9, rn, false), 0x7bff);
        assert_eq!(F16.round(65520.0, rn, false), 0x7c00);
        assert_eq!(F16.round(1e9, Rounding::TowardZero, false), 0x7bff);
        assert_eq!(F16.round(-1e9, Rounding::Up, false), 0xfbff);
        assert_eq!(F16.round(-1e9, Rounding::Down, false), 0xfc00);
    }

    #[test]
    fn short_paths_equal_the_general_routine() {
        let mut bits = 0x1234_5678u32;
        for _ in 0..200_000 {
            bits = bits.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let x = f32::from_bits(bits);
            let rn = Rounding::NearestEven;
            assert_eq!(u32::from(f16_from_f32(x)), F16.round(f64::from(x), rn, false), "{x:e}");
            assert_eq!(u32::from(bf16_from_f32(x)), BF16.round(f64::from(x), rn, false), "{x:e}");
            if !x.is_nan() {
                assert_eq!(x.to_bits(), F32.round(f64::from(x), rn, false));
            }
        }
    }

    #[test]
    fn tf32_ties_go_away_from_zero_under_rna() {
        let tie = f32::from_bits(0x3f80_1000);
        assert_eq!(tf32_from_f32(tie, Rounding::NearestAway, false), 0x3f80_2000);
        assert_eq!(tf32_from_f32(tie, Rounding::NearestEven, false), 0x3f80_0000);
        assert_eq!(tf32_to_f32(0x3f80_1fff), 1.0);
    }

    #[test]
    fn fused_multiply_add_rounds_once() {
        // f32: the machine's own fused operation is the reference.
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f32::from_bits((state & 0x83ff_ffff) | 0x3c00_0000)
        };
        for _ in 0..100_000 {
            let (a, b, c) = (next(), next(), next());
            let rn = Rounding::NearestEven;
            let got = fma(F32, a.to_bits(), b.to_bits(), c.to_bits(), rn);
            assert_eq!(got, a.mul_add(b, c).to_bits(), "{a:e} {b:e} {c:e}");
        }
    }

    #[test]
    fn flush_and_saturate() {
        assert_eq!(flush(-1e-40).to_bits(), 0x8000_0000);
        assert_eq!(flush(1e-30), 1e-30);
        assert_eq!(saturate(f32::NAN), 0.0);
        assert_eq!(saturate(1.5), 1.0);
        assert_eq!(saturate(-0.5), 0.0);
    }
}
