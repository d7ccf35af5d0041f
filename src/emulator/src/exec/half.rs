//! f16, bf16 and their packed pairs. Sums and products go through f32, which has more than twice
//! their precision plus two bits, so the second rounding is harmless; fma rounds once.

use super::cluster::Ctx;
use super::float::rounding;
use super::int::{map1, map2, map3};
use crate::isa::{F1, F2, FMods, Reg, Src, Ty};
use crate::tensor::approx;
use crate::tensor::number::{self, Format};

/// The format of one element.
fn format(ty: Ty) -> Format {
    if matches!(ty, Ty::Bf16 | Ty::Bf16x2) { number::BF16 } else { number::F16 }
}

pub fn is_pair(ty: Ty) -> bool {
    matches!(ty, Ty::F16x2 | Ty::Bf16x2)
}

pub fn to_f32(ty: Ty, bits: u32) -> f32 {
    match ty {
        Ty::Bf16 | Ty::Bf16x2 => number::bf16_to_f32(bits as u16),
        _ => number::f16_to_f32(bits as u16),
    }
}

pub fn from_f32(ty: Ty, x: f32) -> u32 {
    match ty {
        Ty::Bf16 | Ty::Bf16x2 => number::bf16_from_f32(x).into(),
        _ => number::f16_from_f32(x).into(),
    }
}

/// Applies a function of one half to both halves of a pair, or to the only one.
fn each(ty: Ty, x: u32, f: impl Fn(u32) -> u32) -> u32 {
    if is_pair(ty) { f(x & 0xffff) | f(x >> 16) << 16 } else { f(x & 0xffff) }
}

fn finish(ty: Ty, mods: &FMods, bits: u32) -> u32 {
    let tiny = bits & 0x7fff < smallest_normal(ty);
    let bits = if mods.ftz && tiny { bits & 0x8000 } else { bits };
    let x = to_f32(ty, bits);
    if mods.relu && x.is_sign_negative() && !x.is_nan() {
        return 0;
    }
    if mods.sat {
        return from_f32(ty, number::saturate(x));
    }
    bits
}

fn smallest_normal(ty: Ty) -> u32 {
    if format(ty) == number::F16 { 0x400 } else { 0x80 }
}

pub fn fma(c: &mut Ctx<'_>, ty: Ty, mods: &FMods, d: Reg, [a, b, third]: [&Src; 3]) {
    let (x, y, z) = (c.src32(a), c.src32(b), c.src32(third));
    let (format, mode) = (format(ty), rounding(mods.round));
    let flushed = |x| input(ty, mods, x);
    let one =
        |x, y, z| finish(ty, mods, number::fma(format, flushed(x), flushed(y), flushed(z), mode));
    let r = map3(&x, &y, &z, |x, y, z| {
        let low = one(x & 0xffff, y & 0xffff, z & 0xffff);
        if is_pair(ty) { low | one(x >> 16, y >> 16, z >> 16) << 16 } else { low }
    });
    c.warp.set32(d, &r);
}

pub fn float2(c: &mut Ctx<'_>, op: F2, ty: Ty, mods: &FMods, d: Reg, a: &Src, b: &Src) {
    let (x, y) = (c.src32(a), c.src32(b));
    let one = |x, y| half2(op, ty, mods, x, y);
    let r = map2(&x, &y, |x, y| {
        let low = one(x & 0xffff, y & 0xffff);
        if is_pair(ty) { low | one(x >> 16, y >> 16) << 16 } else { low }
    });
    c.warp.set32(d, &r);
}

/// A subnormal input as zero, where the instruction flushes.
fn input(ty: Ty, mods: &FMods, x: u32) -> u32 {
    if mods.ftz && x & 0x7fff < smallest_normal(ty) { x & 0x8000 } else { x }
}

fn half2(op: F2, ty: Ty, mods: &FMods, x: u32, y: u32) -> u32 {
    let (x, y) = (input(ty, mods, x), input(ty, mods, y));
    let (a, b) = (to_f32(ty, x), to_f32(ty, y));
    let r = match op {
        F2::Add => from_f32(ty, a + b),
        F2::Sub => from_f32(ty, a - b),
        F2::Mul => from_f32(ty, a * b),
        F2::Div => from_f32(ty, a / b),
        F2::CopySign => (y & 0x7fff) | (x & 0x8000),
        F2::Min | F2::Max => return half_min_max(op == F2::Max, ty, mods, (x, y), (a, b)),
    };
    finish(ty, mods, r)
}

fn half_min_max(max: bool, ty: Ty, mods: &FMods, bits: (u32, u32), values: (f32, f32)) -> u32 {
    let flip = if mods.xorsign_abs { (bits.0 ^ bits.1) & 0x8000 } else { 0 };
    let cut = if mods.xorsign_abs { 0x7fff } else { 0xffff };
    let (x, y) = (bits.0 & cut, bits.1 & cut);
    let (a, b) = if mods.xorsign_abs { (values.0.abs(), values.1.abs()) } else { values };
    match (a.is_nan(), b.is_nan()) {
        (true, true) => return 0x7fff,
        (true, _) | (_, true) if mods.nan => return 0x7fff,
        _ => {}
    }
    let first = if a.is_nan() {
        false
    } else if b.is_nan() {
        true
    } else if a == b {
        a.is_sign_negative() != max
    } else {
        (a > b) == max
    };
    let picked = if first { x } else { y };
    let tiny = picked & 0x7fff < smallest_normal(ty);
    (if mods.ftz && tiny { picked & 0x8000 } else { picked }) | flip
}

pub fn float1(c: &mut Ctx<'_>, op: F1, ty: Ty, mods: &FMods, d: Reg, a: &Src) {
    let x = c.src32(a);
    let r = map1(&x, |x| each(ty, x, |half| half1(op, ty, mods, half)));
    c.warp.set32(d, &r);
}

fn half1(op: F1, ty: Ty, mods: &FMods, x: u32) -> u32 {
    let x = input(ty, mods, x);
    let value = to_f32(ty, x);
    let r = match op {
        F1::Neg => return x ^ 0x8000,
        F1::Abs => return x & 0x7fff,
        F1::Ex2 => approx::ex2(value),
        F1::Tanh => approx::tanh(value),
        F1::Rcp => 1.0 / value,
        F1::Sqrt => value.sqrt(),
        F1::Rsqrt => 1.0 / value.sqrt(),
        F1::Lg2 => value.log2(),
        F1::Sin => value.sin(),
        F1::Cos => value.cos(),
    };
    finish(ty, mods, from_f32(ty, r))
}
