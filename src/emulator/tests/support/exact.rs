//! An oracle for rounding, apart from the machine's own: it never rounds, it compares. A format is
//! a list of its finite numbers; the result is found by asking, of each candidate, whether the
//! exact value lies above or below it.

use std::cmp::Ordering;

/// Rounding modes by their PTX name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Rn,
    Rz,
    Rm,
    Rp,
}

pub const MODES: [(&str, Mode); 4] =
    [("rn", Mode::Rn), ("rz", Mode::Rz), ("rm", Mode::Rm), ("rp", Mode::Rp)];

/// A binary format of at most 32 bits, by the ISA's description: exponent and fraction widths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fmt {
    pub exponent: u32,
    pub fraction: u32,
    /// The largest exponent encodes infinities and NaN (e4m3 has only one NaN and no infinity).
    pub infinite: bool,
}

pub const F32: Fmt = Fmt { exponent: 8, fraction: 23, infinite: true };
pub const F16: Fmt = Fmt { exponent: 5, fraction: 10, infinite: true };
pub const BF16: Fmt = Fmt { exponent: 8, fraction: 7, infinite: true };
pub const TF32: Fmt = Fmt { exponent: 8, fraction: 10, infinite: true };
pub const E4M3: Fmt = Fmt { exponent: 4, fraction: 3, infinite: false };
pub const E5M2: Fmt = Fmt { exponent: 5, fraction: 2, infinite: true };

impl Fmt {
    /// The value of a non-negative finite encoding, by the formula of the standard.
    pub fn value(self, magnitude: u32) -> f64 {
        let bias = (1 << (self.exponent - 1)) - 1;
        let fraction = f64::from(magnitude & ((1 << self.fraction) - 1));
        let exponent = (magnitude >> self.fraction) as i32;
        let scale = |e: i32| 2f64.powi(e - bias - self.fraction as i32);
        match exponent {
            0 => fraction * scale(1),
            e => (fraction + f64::from(1u32 << self.fraction)) * scale(e),
        }
    }

    /// Largest finite encoding.
    pub fn top(self) -> u32 {
        let all = (1 << (self.exponent + self.fraction)) - 1;
        if self.infinite { all - (1 << self.fraction) } else { all - 1 }
    }

    pub fn sign(self) -> u32 {
        1 << (self.exponent + self.fraction)
    }

    /// Value of an encoding with its sign; NaN and infinities as such.
    pub fn decode(self, bits: u32) -> f64 {
        let magnitude = bits & (self.sign() - 1);
        let v = if magnitude <= self.top() {
            self.value(magnitude)
        } else if self.infinite && magnitude == self.top() + 1 {
            f64::INFINITY
        } else {
            return f64::NAN;
        };
        if bits & self.sign() != 0 { -v } else { v }
    }
}

/// Rounds a positive value, known only by how it compares with numbers, to a magnitude of the
/// format. `top() + 1` stands for what lies above the finite range.
fn magnitude(fmt: Fmt, mode: Mode, negative: bool, above: &dyn Fn(f64) -> Ordering) -> u32 {
    let (mut low, mut high) = (0, fmt.top() + 1);
    // The largest encoding that is not above the value.
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if above(fmt.value(middle)) == Ordering::Less { high = middle } else { low = middle }
    }
    if above(fmt.value(low)) == Ordering::Equal {
        return low;
    }
    let up = match mode {
        Mode::Rz => false,
        Mode::Rm => negative,
        Mode::Rp => !negative,
        Mode::Rn => {
            // Above the range the next number would continue the same spacing.
            let next = if low == fmt.top() {
                2.0 * fmt.value(low) - fmt.value(low - 1)
            } else {
                fmt.value(low + 1)
            };
            match above((fmt.value(low) + next) / 2.0) {
                Ordering::Greater => true,
                Ordering::Less => false,
                Ordering::Equal => low & 1 == 1,
            }
        }
    };
    low + u32::from(up)
}

/// Rounds an exact value given by its sign and by how its magnitude compares with a number.
pub fn round(fmt: Fmt, mode: Mode, negative: bool, compare: &dyn Fn(f64) -> Ordering) -> u32 {
    magnitude(fmt, mode, negative, compare) | if negative { fmt.sign() } else { 0 }
}

/// Rounds a finite f64; zero keeps its sign.
pub fn round_f64(fmt: Fmt, mode: Mode, x: f64) -> u32 {
    let size = x.abs();
    round(fmt, mode, x.is_sign_negative(), &|c| size.partial_cmp(&c).unwrap())
}

/// Sum and its error: exactly `a + b` (Knuth's TwoSum).
pub fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let s = a + b;
    let part = s - a;
    (s, (a - (s - part)) + (b - part))
}

/// Rounds the exact sum of two f64, each exactly representable.
pub fn round_sum(fmt: Fmt, mode: Mode, a: f64, b: f64) -> u32 {
    let (s, e) = two_sum(a, b);
    if s == 0.0 {
        // IEEE 754 §6.3: a sum that cancels is +0, or −0 when rounding down; −0 + −0 is −0.
        let both = a == 0.0 && b == 0.0;
        let negative = if both && a.is_sign_negative() == b.is_sign_negative() {
            a.is_sign_negative()
        } else {
            mode == Mode::Rm
        };
        return if negative { fmt.sign() } else { 0 };
    }
    let (size, rest) = if s < 0.0 { (-s, -e) } else { (s, e) };
    let compare = |c: f64| {
        let first = size.partial_cmp(&c).unwrap();
        if first == Ordering::Equal { rest.partial_cmp(&0.0).unwrap() } else { first }
    };
    round(fmt, mode, s < 0.0, &compare)
}

/// f32 result of an operation on finite inputs whose exact value is finite and not NaN.
pub fn f32_of(op: &str, mode: Mode, [a, b, c]: [u32; 3]) -> u32 {
    let [x, y, z] = [a, b, c].map(|v| f64::from(f32::from_bits(v)));
    match op {
        "add" => round_sum(F32, mode, x, y),
        "sub" => round_sum(F32, mode, x, -y),
        // 24 by 24 bits fit the 53 of f64.
        "mul" => round_f64(F32, mode, x * y),
        "fma" => round_sum(F32, mode, x * y, z),
        "div" => {
            let negative = x.is_sign_negative() != y.is_sign_negative();
            // x / y > c exactly when x > c·y.
            let (x, y) = (x.abs(), y.abs());
            round(F32, mode, negative, &|c| x.partial_cmp(&(c * y)).unwrap())
        }
        "sqrt" => round(F32, mode, x.is_sign_negative(), &|c| x.partial_cmp(&(c * c)).unwrap()),
        "rcp" => f32_of("div", mode, [0x3f80_0000, a, 0]),
        other => panic!("no oracle for {other}"),
    }
}
