//! `wgmma.mma_async`: a 64×n×k product of a warpgroup, computed natively.
//!
//! Arithmetic as for `mma.sync` (see [`super::mma`]): exact products, summed in `f64`, rounded
//! once to nearest. On Hopper the 8-bit float forms keep only about 14 bits while they add, which
//! [`Precision::Hopper8`] reproduces in kind: every product is aligned to the largest and cut
//! there. Kernels that promote partial sums to CUDA cores show their worth only under it.

use super::descriptor::{Descriptor, Major};
use super::element::Element;
use super::fragment::{self, LaneRegister, Slot};
use super::mma::{canonical_f32, dot};
use super::number;

/// Rows of every wgmma.
pub const M: usize = 64;
/// Warps in a warpgroup.
pub const WARPS: usize = 4;

/// How products add up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Precision {
    /// In `f64`, rounded once.
    #[default]
    Exact,
    /// 13 fraction bits below the largest product, cut toward zero: 8-bit floats on Hopper.
    Hopper8,
}

/// One `wgmma.mma_async` form and its immediate arguments.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wgmma {
    /// Columns of D, a multiple of 8 up to 256.
    pub n: usize,
    /// Type of A.
    pub a: Element,
    /// Type of B.
    pub b: Element,
    /// True for f16 accumulators, two to a register; else 32-bit ones.
    pub half_accumulator: bool,
    /// Negate A (`imm-scale-a` -1).
    pub negate_a: bool,
    /// Negate B (`imm-scale-b` -1).
    pub negate_b: bool,
    /// Clamp integer results (`.satfinite`).
    pub saturating: bool,
    /// How floats accumulate.
    pub precision: Precision,
}

impl Wgmma {
    /// Depth: always 32 bytes of elements.
    pub fn k(self) -> usize {
        32 / self.a.bytes()
    }

    /// Registers of D in each lane.
    pub fn d_registers(self) -> usize {
        if self.half_accumulator { self.n / 4 } else { self.n / 2 }
    }

    /// Registers of A in each lane when A comes from registers.
    pub fn a_registers(self) -> usize {
        4
    }

    /// A from shared memory as a row-major 64×k matrix. `read` returns the 16 bytes at an address.
    pub fn a_from_shared<E>(
        self,
        descriptor: Descriptor,
        major: Major,
        read: impl FnMut(u32) -> Result<[u8; 16], E>,
    ) -> Result<Vec<f32>, E> {
        load(descriptor, major, self.a, M, self.k(), read)
    }

    /// B from shared memory as n rows of k numbers (B transposed).
    pub fn b_from_shared<E>(
        self,
        descriptor: Descriptor,
        major: Major,
        read: impl FnMut(u32) -> Result<[u8; 16], E>,
    ) -> Result<Vec<f32>, E> {
        load(descriptor, major, self.b, self.n, self.k(), read)
    }

    /// A from registers, `registers[warp][register][lane]`, as a row-major 64×k matrix.
    pub fn a_from_registers(self, registers: &[[LaneRegister; 4]; WARPS]) -> Vec<f32> {
        let (k, packed) = (self.k(), self.a.per_register());
        let mut matrix = vec![0.0; M * k];
        for (warp, list) in registers.iter().enumerate() {
            for (register, lanes) in list.iter().enumerate() {
                for (lane, &word) in lanes.iter().enumerate() {
                    for slot in 0..packed {
                        let at = fragment::wgmma_a_at(warp, Slot { lane, register, slot }, packed);
                        matrix[at.row * k + at.col] = self.a.value(self.a.extract(word, slot));
                    }
                }
            }
        }
        matrix
    }

    /// D = A·B + D, or A·B when `keep_d` is false. `a` is 64×k row-major, `b` n×k; `d` holds
    /// `d_registers()` registers for each warp in turn.
    ///
    /// # Panics
    /// When a slice has another length than that.
    pub fn accumulate(self, a: &[f32], b: &[f32], keep_d: bool, d: [&mut [LaneRegister]; WARPS]) {
        let k = self.k();
        assert_eq!((a.len(), b.len()), (M * k, self.n * k), "operand sizes");
        let negative = self.negate_a != self.negate_b;
        for (warp, registers) in d.into_iter().enumerate() {
            assert_eq!(registers.len(), self.d_registers(), "registers of D");
            for lane in 0..fragment::LANES {
                for value in 0..self.n / 2 {
                    let at = fragment::wgmma_d_at(warp, lane, value);
                    let products = self.sum(&a[at.row * k..][..k], &b[at.col * k..][..k]);
                    let signed = if negative { -products } else { products };
                    self.add(signed, keep_d, registers, lane, value);
                }
            }
        }
    }

    fn sum(self, x: &[f32], y: &[f32]) -> f64 {
        match self.precision {
            Precision::Exact => dot(x, y, 0.0),
            Precision::Hopper8 => truncated_dot(x, y),
        }
    }

    fn add(self, sum: f64, keep_d: bool, d: &mut [LaneRegister], lane: usize, value: usize) {
        if self.half_accumulator {
            let shift = 16 * (value % 2);
            let word = &mut d[value / 2][lane];
            let old = number::f16_to_f32((*word >> shift) as u16);
            let total = if keep_d { sum + f64::from(old) } else { sum };
            let new = number::F16.round(total, number::Rounding::NearestEven, false);
            *word = (*word & !(0xffff << shift)) | new << shift;
            return;
        }
        let word = &mut d[value][lane];
        if self.a.is_integer() {
            let old = if keep_d { i64::from(*word as i32) } else { 0 };
            let total = old + sum as i64;
            let clamped = total.clamp(i64::from(i32::MIN), i64::from(i32::MAX));
            *word = if self.saturating { clamped as u32 } else { total as u32 };
            return;
        }
        let old = if keep_d { f64::from(f32::from_bits(*word)) } else { 0.0 };
        *word = canonical_f32((sum + old) as f32);
    }
}

/// An operand as `mn` rows of `k` numbers.
fn load<E>(
    descriptor: Descriptor,
    major: Major,
    element: Element,
    mn: usize,
    k: usize,
    mut read: impl FnMut(u32) -> Result<[u8; 16], E>,
) -> Result<Vec<f32>, E> {
    let mut matrix = vec![0.0; mn * k];
    let mut values = Vec::with_capacity(16);
    for chunk in descriptor.chunks(major, element, mn as u32, k as u32) {
        values.clear();
        element.unpack(&read(chunk.address)?, &mut values);
        for (i, &v) in values.iter().enumerate() {
            let (row, col) = match major {
                Major::K => (chunk.mn as usize, chunk.k as usize + i),
                Major::Mn => (chunk.mn as usize + i, chunk.k as usize),
            };
            matrix[row * k + col] = v;
        }
    }
    Ok(matrix)
}

/// Products cut 13 bits below the largest one's leading bit, then added.
fn truncated_dot(x: &[f32], y: &[f32]) -> f64 {
    let products = || x.iter().zip(y).map(|(&x, &y)| f64::from(x) * f64::from(y));
    let largest = products().fold(0.0f64, |m, p| m.max(p.abs()));
    if largest == 0.0 || !largest.is_finite() {
        return products().sum();
    }
    let exponent = ((largest.to_bits() >> 52) & 0x7ff) as i32 - 1023;
    let unit = f64::from_bits(((exponent - 13 + 1023).clamp(1, 2046) as u64) << 52);
    products().map(|p| (p / unit).trunc() * unit).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::fragment::{At, LANES};
    use crate::tensor::swizzle::Swizzle;

    fn form(n: usize, a: Element, b: Element) -> Wgmma {
        Wgmma {
            n,
            a,
            b,
            half_accumulator: false,
            negate_a: false,
            negate_b: false,
            saturating: false,
            precision: Precision::Exact,
        }
    }

    fn small(i: usize) -> f32 {
        [0.0, 1.0, 2.0, 3.0, -1.0, -2.0, 4.0, -3.0][i * 5 % 8]
    }

    fn encode(element: Element, x: f32) -> u32 {
        let rn = number::Rounding::NearestEven;
        match element {
            Element::F16 => number::F16.round(x.into(), rn, false),
            Element::Bf16 => number::BF16.round(x.into(), rn, false),
            Element::Tf32 => x.to_bits(),
            Element::E4m3 => number::E4M3.round(x.into(), rn, true),
            Element::E5m2 => number::E5M2.round(x.into(), rn, true),
            Element::S8 | Element::U8 => x as i8 as u8 as u32,
        }
    }

    /// Shared memory holding an operand as `descriptor` lays it out.
    fn shared(d: Descriptor, major: Major, e: Element, mn: u32, k: u32, salt: usize) -> Vec<u8> {
        let mut memory = vec![0; 1 << 16];
        for row in 0..mn {
            for col in 0..k {
                let at = d.element_address(major, e, row, col) as usize;
                let bits = encode(e, small(row as usize * 3 + col as usize + salt));
                memory[at..at + e.bytes()].copy_from_slice(&bits.to_le_bytes()[..e.bytes()]);
            }
        }
        memory
    }

    fn read(memory: &[u8]) -> impl FnMut(u32) -> Result<[u8; 16], ()> + '_ {
        |a| memory[a as usize..a as usize + 16].try_into().map_err(|_| ())
    }

    fn run(form: Wgmma, a: &[f32], b: &[f32], keep: bool, start: u32) -> Vec<Vec<LaneRegister>> {
        let mut d = vec![vec![[start; LANES]; form.d_registers()]; WARPS];
        let [d0, d1, d2, d3] = &mut d[..] else { panic!("four warps") };
        form.accumulate(a, b, keep, [d0, d1, d2, d3]);
        d
    }

    #[test]
    fn products_from_shared_memory_are_exact() {
        let elements =
            [Element::F16, Element::Bf16, Element::Tf32, Element::E4m3, Element::E5m2, Element::S8];
        for element in elements {
            let form = form(24, element, element);
            let k = form.k();
            let desc = Descriptor {
                start: 1024,
                leading: 0,
                stride: 1024,
                base_offset: 0,
                swizzle: Swizzle::B128,
            };
            let a_mem = shared(desc, Major::K, element, 64, k as u32, 0);
            let b_mem = shared(desc, Major::K, element, 24, k as u32, 1);
            let a = form.a_from_shared(desc, Major::K, read(&a_mem)).expect("in range");
            let b = form.b_from_shared(desc, Major::K, read(&b_mem)).expect("in range");
            let start = if element.is_integer() { 7 } else { 7f32.to_bits() };
            for keep in [false, true] {
                let d = run(form, &a, &b, keep, start);
                for row in 0..64 {
                    for col in 0..24 {
                        let dot: f32 =
                            (0..k).map(|i| small(row * 3 + i) * small(col * 3 + i + 1)).sum();
                        let want = dot + if keep { 7.0 } else { 0.0 };
                        let (warp, lane, value) = fragment::wgmma_d_slot(At { row, col });
                        let bits = d[warp][value][lane];
                        let got = if element.is_integer() {
                            bits as i32 as f32
                        } else {
                            f32::from_bits(bits)
                        };
                        assert_eq!(got, want, "{element:?} {row},{col}");
                    }
                }
            }
        }
    }

    #[test]
    fn mn_major_and_register_operands_equal_k_major_ones() {
        let form = form(64, Element::Bf16, Element::Bf16);
        let k_major = Descriptor {
            start: 0,
            leading: 0,
            stride: 1024,
            base_offset: 0,
            swizzle: Swizzle::B128,
        };
        let mn_major = Descriptor { leading: 4096, swizzle: Swizzle::B64, stride: 512, ..k_major };
        let from = |d, major| {
            let memory = shared(d, major, form.a, 64, 16, 0);
            form.a_from_shared(d, major, read(&memory)).expect("in range")
        };
        let a = from(k_major, Major::K);
        assert_eq!(a, from(mn_major, Major::Mn));
        let registers = std::array::from_fn(|warp| {
            std::array::from_fn(|register| {
                std::array::from_fn(|lane| {
                    let bits = |slot| {
                        let at = fragment::wgmma_a_at(warp, Slot { lane, register, slot }, 2);
                        encode(form.a, small(at.row * 3 + at.col))
                    };
                    bits(0) | bits(1) << 16
                })
            })
        });
        assert_eq!(form.a_from_registers(&registers), a);
    }

    #[test]
    fn half_accumulators_pack_two_values() {
        let form = Wgmma { half_accumulator: true, ..form(8, Element::F16, Element::F16) };
        let ones = vec![1.0; 64 * 16];
        let b: Vec<f32> = (0..8 * 16).map(|i| (i / 16) as f32).collect();
        let d = run(form, &ones, &b, false, 0xffff_ffff);
        let halves =
            |word: u32| (number::f16_to_f32(word as u16), number::f16_to_f32((word >> 16) as u16));
        assert_eq!(halves(d[0][0][1]), (32.0, 48.0));
        assert_eq!(halves(d[3][1][31]), (96.0, 112.0));
    }

    #[test]
    fn negation_and_saturation() {
        let neg = Wgmma { negate_a: true, ..form(8, Element::F16, Element::F16) };
        let ones = vec![1.0; 64 * 16];
        let d = run(neg, &ones, &ones[..128], true, 1f32.to_bits());
        assert_eq!(f32::from_bits(d[0][0][0]), -15.0);
        let s8 = form(8, Element::S8, Element::S8);
        let ones = vec![1.0; 64 * 32];
        let clamp = Wgmma { saturating: true, ..s8 };
        assert_eq!(
            run(clamp, &ones, &ones[..256], true, i32::MAX as u32)[0][0][0],
            i32::MAX as u32
        );
        assert_eq!(run(s8, &ones, &ones[..256], true, i32::MAX as u32)[0][0][0], 0x8000_001f);
    }

    #[test]
    fn hopper_eight_bit_sums_lose_small_terms() {
        let mut x = vec![1.0f32; 32];
        x[0] = 64.0;
        let mut y = vec![2f32.powi(-9); 32];
        y[0] = 64.0;
        assert_eq!(truncated_dot(&x, &y), 4096.0);
        assert_eq!(dot(&x, &y, 0.0), 4096.0 + 31.0 * 2f64.powi(-9));
    }
}
