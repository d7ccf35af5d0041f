//! `mma.sync.aligned.m16n8k*`: multiply whole fragments natively.
//!
//! Arithmetic. The ISA promises products and accumulation in at least single precision, in an
//! unspecified order. We take every product exactly, add the k products and C in `f64` (products
//! of 11-bit significands are exact there and so are their sums unless magnitudes differ by
//! 2^29 or more), and round once, to nearest even, to the accumulator's type. Hardware truncates
//! instead, within a few units in the last place; a kernel must be right under either.
//! Integer products are exact and accumulate modulo 2^32, or clamp with `.satfinite`.

use super::element::Element;
use super::fragment::{self, At, LANES, LaneRegister, Slot};
use super::number;

/// Type of C and D.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Accumulator {
    /// Two halves to a register.
    F16,
    /// One number to a register.
    F32,
    /// 32-bit integer, wrapping.
    S32,
    /// 32-bit integer, clamped (`.satfinite`).
    S32Saturating,
}

/// Shape and types of one `mma.sync` form with m = 16 and n = 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mma {
    /// Depth of the product.
    pub k: usize,
    /// Type of A.
    pub a: Element,
    /// Type of B; differs from A's only among the 8-bit floats and among the bytes.
    pub b: Element,
    /// Type of D and C.
    pub d: Accumulator,
}

impl Mma {
    /// The form with these modifiers, or `None` where the ISA has no such instruction.
    pub fn new(k: usize, a: Element, b: Element, d: Accumulator) -> Option<Self> {
        let depths: &[usize] = match a {
            Element::F16 | Element::Bf16 => &[8, 16],
            Element::Tf32 => &[4, 8],
            _ => &[16, 32],
        };
        let same_family = match a {
            Element::F16 | Element::Bf16 | Element::Tf32 => a == b,
            _ => a.bytes() == b.bytes() && a.is_integer() == b.is_integer(),
        };
        let accumulates = match d {
            Accumulator::F32 => !a.is_integer(),
            Accumulator::F16 => matches!(a, Element::F16 | Element::E4m3 | Element::E5m2),
            Accumulator::S32 | Accumulator::S32Saturating => a.is_integer(),
        };
        let exists = depths.contains(&k) && same_family && accumulates;
        exists.then_some(Self { k, a, b, d })
    }

    /// Registers of A.
    pub fn a_registers(self) -> usize {
        self.k / (2 * self.a.per_register())
    }

    /// Registers of B.
    pub fn b_registers(self) -> usize {
        self.k / (4 * self.b.per_register())
    }

    /// Registers of C and of D.
    pub fn d_registers(self) -> usize {
        if self.d == Accumulator::F16 { 2 } else { 4 }
    }

    /// D = A·B + C on whole fragments, one `LaneRegister` per register of the operand list.
    ///
    /// # Panics
    /// When a list's length is not `a_registers()`, `b_registers()` or `d_registers()`; the
    /// caller checks that when it decodes the instruction.
    pub fn execute(
        self,
        a: &[LaneRegister],
        b: &[LaneRegister],
        c: &[LaneRegister],
    ) -> Vec<LaneRegister> {
        assert_eq!(a.len(), self.a_registers(), "registers of A");
        assert_eq!(b.len(), self.b_registers(), "registers of B");
        assert_eq!(c.len(), self.d_registers(), "registers of C");
        let rows = self.gather(a, 16, self.a, fragment::a_at);
        let columns = self.gather(b, 8, self.b, |s, p| {
            let at = fragment::b_at(s, p);
            At { row: at.col, col: at.row }
        });
        let mut d = vec![[0; LANES]; self.d_registers()];
        for lane in 0..LANES {
            for value in 0..4 {
                let at = fragment::c_at(lane, value);
                let x = &rows[at.row * self.k..][..self.k];
                let y = &columns[at.col * self.k..][..self.k];
                self.accumulate(x, y, lane, value, c, &mut d);
            }
        }
        d
    }

    /// A fragment as a row-major matrix of `rows` × k numbers; `place` gives each slot's position.
    fn gather(
        self,
        registers: &[LaneRegister],
        rows: usize,
        element: Element,
        place: impl Fn(Slot, usize) -> At,
    ) -> Vec<f32> {
        let packed = element.per_register();
        let mut matrix = vec![0.0; rows * self.k];
        for (register, lanes) in registers.iter().enumerate() {
            for (lane, &word) in lanes.iter().enumerate() {
                for slot in 0..packed {
                    let at = place(Slot { lane, register, slot }, packed);
                    matrix[at.row * self.k + at.col] = element.value(element.extract(word, slot));
                }
            }
        }
        matrix
    }

    fn accumulate(
        self,
        x: &[f32],
        y: &[f32],
        lane: usize,
        value: usize,
        c: &[LaneRegister],
        d: &mut [LaneRegister],
    ) {
        match self.d {
            Accumulator::F32 => {
                let c = f64::from(f32::from_bits(c[value][lane]));
                d[value][lane] = canonical_f32(dot(x, y, c) as f32);
            }
            Accumulator::F16 => {
                let shift = 16 * (value % 2);
                let c = number::f16_to_f32((c[value / 2][lane] >> shift) as u16);
                let sum = number::F16.round(
                    dot(x, y, f64::from(c)),
                    number::Rounding::NearestEven,
                    false,
                );
                d[value / 2][lane] |= sum << shift;
            }
            Accumulator::S32 | Accumulator::S32Saturating => {
                let c = c[value][lane] as i32;
                let sum = i64::from(c) + dot(x, y, 0.0) as i64;
                let clamped = sum.clamp(i64::from(i32::MIN), i64::from(i32::MAX));
                let saturates = self.d == Accumulator::S32Saturating;
                d[value][lane] = if saturates { clamped as u32 } else { sum as u32 };
            }
        }
    }
}

/// Sum of products in `f64`, added to `c` last.
pub(super) fn dot(x: &[f32], y: &[f32], c: f64) -> f64 {
    let products: f64 = x.iter().zip(y).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum();
    products + c
}

/// Bits of a result, NaNs made the canonical 0x7fffffff.
pub(super) fn canonical_f32(x: f32) -> u32 {
    if x.is_nan() { 0x7fff_ffff } else { x.to_bits() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Small integers are exact in every type, so each form must give the exact product.
    fn small(i: usize) -> i32 {
        [0, 1, 2, 3, -1, -2, 4, -3][i * 7 % 8]
    }

    fn encode(element: Element, v: i32) -> u32 {
        let rn = number::Rounding::NearestEven;
        let x = f64::from(v);
        match element {
            Element::F16 => number::F16.round(x, rn, false),
            Element::Bf16 => number::BF16.round(x, rn, false),
            Element::Tf32 => (x as f32).to_bits(),
            Element::E4m3 => number::E4M3.round(x, rn, true),
            Element::E5m2 => number::E5M2.round(x, rn, true),
            Element::S8 | Element::U8 => v as u8 as u32,
        }
    }

    fn sample(element: Element, i: usize) -> i32 {
        if element == Element::U8 { small(i).abs() } else { small(i) }
    }

    fn scatter(
        element: Element,
        registers: usize,
        matrix: impl Fn(At) -> i32,
        place: impl Fn(Slot, usize) -> At,
    ) -> Vec<LaneRegister> {
        let packed = element.per_register();
        let mut out = vec![[0; LANES]; registers];
        for (register, lanes) in out.iter_mut().enumerate() {
            for (lane, word) in lanes.iter_mut().enumerate() {
                for slot in 0..packed {
                    let bits =
                        encode(element, matrix(place(Slot { lane, register, slot }, packed)));
                    *word |= bits << (slot * 8 * element.bytes());
                }
            }
        }
        out
    }

    fn check(form: Mma) {
        let a = |at: At| sample(form.a, at.row * 5 + at.col * 3);
        let b = |at: At| sample(form.b, at.row * 11 + at.col);
        let c = |at: At| (at.row * 8 + at.col) as i32 - 60;
        let a_regs = scatter(form.a, form.a_registers(), a, fragment::a_at);
        let b_regs = scatter(form.b, form.b_registers(), b, fragment::b_at);
        let mut c_regs = vec![[0u32; LANES]; form.d_registers()];
        for (lane, value) in (0..4 * LANES).map(|i| (i / 4, i % 4)) {
            let v = c(fragment::c_at(lane, value));
            match form.d {
                Accumulator::F32 => c_regs[value][lane] = (v as f32).to_bits(),
                Accumulator::F16 => {
                    c_regs[value / 2][lane] |= encode(Element::F16, v) << (16 * (value % 2));
                }
                _ => c_regs[value][lane] = v as u32,
            }
        }
        let d = form.execute(&a_regs, &b_regs, &c_regs);
        for row in 0..16 {
            for col in 0..8 {
                let products =
                    (0..form.k).map(|k| a(At { row, col: k }) * b(At { row: k, col })).sum::<i32>();
                let want = products + c(At { row, col });
                let (lane, value) = fragment::c_slot(At { row, col });
                let got = match form.d {
                    Accumulator::F32 => f32::from_bits(d[value][lane]) as i32,
                    Accumulator::F16 => {
                        number::f16_to_f32((d[value / 2][lane] >> (16 * (value % 2))) as u16) as i32
                    }
                    _ => d[value][lane] as i32,
                };
                assert_eq!(got, want, "{form:?} at {row},{col}");
            }
        }
    }

    #[test]
    fn every_form_multiplies_exactly() {
        use Accumulator as D;
        use Element as E;
        let pairs = [
            (E::F16, E::F16),
            (E::Bf16, E::Bf16),
            (E::Tf32, E::Tf32),
            (E::E4m3, E::E5m2),
            (E::E5m2, E::E4m3),
            (E::E4m3, E::E4m3),
            (E::S8, E::U8),
            (E::U8, E::S8),
        ];
        let mut forms = 0;
        for (a, b) in pairs {
            for k in [4, 8, 16, 32] {
                for d in [D::F16, D::F32, D::S32, D::S32Saturating] {
                    if let Some(form) = Mma::new(k, a, b, d) {
                        check(form);
                        forms += 1;
                    }
                }
            }
        }
        assert_eq!(forms, 4 + 2 + 2 + 12 + 8);
    }

    #[test]
    fn forms_the_isa_lacks_are_refused() {
        assert_eq!(Mma::new(16, Element::F16, Element::Bf16, Accumulator::F32), None);
        assert_eq!(Mma::new(16, Element::Bf16, Element::Bf16, Accumulator::F16), None);
        assert_eq!(Mma::new(32, Element::F16, Element::F16, Accumulator::F32), None);
        assert_eq!(Mma::new(32, Element::S8, Element::S8, Accumulator::F32), None);
    }

    #[test]
    fn register_counts_are_the_isas() {
        let count = |k, a, d| {
            let f = Mma::new(k, a, a, d).expect("a form of the ISA");
            (f.a_registers(), f.b_registers(), f.d_registers())
        };
        assert_eq!(count(16, Element::F16, Accumulator::F16), (4, 2, 2));
        assert_eq!(count(8, Element::Bf16, Accumulator::F32), (2, 1, 4));
        assert_eq!(count(8, Element::Tf32, Accumulator::F32), (4, 2, 4));
        assert_eq!(count(4, Element::Tf32, Accumulator::F32), (2, 1, 4));
        assert_eq!(count(32, Element::S8, Accumulator::S32), (4, 2, 4));
        assert_eq!(count(16, Element::E4m3, Accumulator::F32), (2, 1, 4));
    }

    #[test]
    fn integers_wrap_or_clamp() {
        let ones = vec![[0x0101_0101; LANES]; 4];
        let c = vec![[i32::MAX as u32; LANES]; 4];
        let run = |d| {
            let form = Mma::new(32, Element::S8, Element::S8, d).expect("a form of the ISA");
            form.execute(&ones, &ones[..2], &c)[0][0] as i32
        };
        assert_eq!(run(Accumulator::S32Saturating), i32::MAX);
        assert_eq!(run(Accumulator::S32), i32::MIN + 31);
    }
}
