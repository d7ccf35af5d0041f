//! `cvt` in its forms: between integers, between floats, and across.

use super::cluster::Ctx;
use super::float::rounding;
use super::int::{map1, map2};
use super::warp::V64;
use crate::isa::{Convert, Reg, RegKind, Round, Src, Ty};
use crate::tensor::number::{self, Format, Rounding};

fn format(ty: Ty) -> Option<Format> {
    Some(match ty {
        Ty::F32 => number::F32,
        Ty::F16 | Ty::F16x2 => number::F16,
        Ty::Bf16 | Ty::Bf16x2 => number::BF16,
        Ty::E4m3 | Ty::E4m3x2 => number::E4M3,
        Ty::E5m2 | Ty::E5m2x2 => number::E5M2,
        Ty::Tf32 => number::TF32,
        _ => return None,
    })
}

fn is_float(ty: Ty) -> bool {
    format(ty).is_some() || ty == Ty::F64
}

/// Runs a conversion.
#[inline(always)]
pub fn run(c: &mut Ctx<'_>, form: &Convert, d: Reg, a: &Src, b: &Src) {
    let pair = matches!(form.to, Ty::Bf16x2 | Ty::F16x2 | Ty::E4m3x2 | Ty::E5m2x2);
    if pair && form.from == Ty::F32 {
        return pack(c, form, d, a, b);
    }
    if matches!(form.to, Ty::E4m3x2 | Ty::E5m2x2 | Ty::F16x2 | Ty::Bf16x2) {
        return repack(c, form, d, a);
    }
    let x = c.src64(a);
    let r: V64 = match (is_float(form.from), is_float(form.to)) {
        (false, false) => int_to_int(form, &x),
        (false, true) if form.to == Ty::F32 && form.from.bits() == 32 && plain(form, Ty::F32) => {
            match form.from.signed() {
                true => map1(&x, |x| (x as i32 as f32).to_bits().into()),
                false => map1(&x, |x| (x as u32 as f32).to_bits().into()),
            }
        }
        (false, true) => map1(&x, |x| int_to_float(form, x)),
        (true, false) => map1(&x, |x| float_to_int(form, x)),
        (true, true) if form.from == Ty::F32 && plain(form, Ty::Bf16) => {
            map1(&x, |x| number::bf16_from_f32(f32::from_bits(x as u32)).into())
        }
        (true, true) if form.to == Ty::F32 && form.from == Ty::Bf16 && !form.sat => {
            map1(&x, |x| canonical_widen((x as u32) << 16))
        }
        (true, true) => map1(&x, |x| float_to_float(form, x)),
    };
    let r = if form.to.signed() && d.bits() > form.to.bits() {
        map1(&r, |x| sign_extend(x, form.to.bits()) as u64)
    } else {
        r
    };
    if d.kind == RegKind::B64 {
        c.warp.set64(d, &r)
    } else {
        c.warp.set32(d, &map1(&r, |v| v as u32))
    }
}

#[inline(always)]
fn canonical_widen(bits: u32) -> u64 {
    if f32::from_bits(bits).is_nan() { 0x7fff_ffff } else { bits.into() }
}

#[inline(always)]
fn plain(form: &Convert, to: Ty) -> bool {
    let near = matches!(form.round, Some(Round::Near) | None);
    form.to == to && near && !(form.relu || form.sat || form.satfinite || form.integral)
}

/// Two f32 to a pair: the first operand goes to the upper half.
#[inline(always)]
fn pack(c: &mut Ctx<'_>, form: &Convert, d: Reg, a: &Src, b: &Src) {
    let (x, y) = (c.src32(a), c.src32(b));
    let width = form.to.bits() / 2;
    let r = if plain(form, Ty::Bf16x2) {
        map2(&x, &y, |x, y| {
            let one = |v: u32| u32::from(number::bf16_from_f32(f32::from_bits(v)));
            one(x) << 16 | one(y)
        })
    } else {
        map2(&x, &y, |x, y| {
            let one = |v: u32| narrow(form, f32::from_bits(v).into()) as u32;
            one(x) << width | one(y)
        })
    };
    c.warp.set32(d, &r);
}

/// A pair to a pair, element by element.
fn repack(c: &mut Ctx<'_>, form: &Convert, d: Reg, a: &Src) {
    let x = c.src32(a);
    let (from, to) = (form.from.bits() / 2, form.to.bits() / 2);
    let r = map1(&x, |x| {
        let one = |v: u32| narrow(form, value(form.from, u64::from(v))) as u32;
        one(x >> from) << to | one(x & ((1 << from) - 1))
    });
    c.warp.set32(d, &r);
}

/// Bits of a value in the destination's format.
fn narrow(form: &Convert, x: f64) -> u64 {
    let Some(format) = format(form.to) else { return x.to_bits() };
    if form.relu && (x < 0.0 || (x == 0.0 && x.is_sign_negative())) {
        return 0;
    }
    // The 8-bit formats saturate always; the ISA asks for the modifier.
    let mode = form.round.map_or(Rounding::NearestEven, rounding);
    let bits = u64::from(format.round(x, mode, form.satfinite));
    if form.to == Ty::Tf32 { bits << 13 } else { bits }
}

fn value(ty: Ty, bits: u64) -> f64 {
    match ty {
        Ty::F64 => f64::from_bits(bits),
        Ty::F32 => f32::from_bits(bits as u32).into(),
        Ty::Tf32 => number::tf32_to_f32(bits as u32).into(),
        _ => format(ty).map_or(0.0, |format| format.decode(bits as u32)),
    }
}

fn integral(x: f64, round: Round) -> f64 {
    match round {
        Round::Near => x.round_ties_even(),
        Round::NearAway => x.round(),
        Round::Zero => x.trunc(),
        Round::Down => x.floor(),
        Round::Up => x.ceil(),
    }
}

fn float_to_float(form: &Convert, x: u64) -> u64 {
    let mut v = value(form.from, x);
    let tiny = |v: f64| v != 0.0 && v.abs() < f64::from(f32::MIN_POSITIVE);
    if form.ftz && form.from == Ty::F32 && tiny(v) {
        v = 0f64.copysign(v);
    }
    if form.integral {
        v = integral(v, form.round.unwrap_or(Round::Near));
    }
    if form.sat {
        v = if v > 0.0 { v.min(1.0) } else { 0.0 };
    }
    if form.to == Ty::F64 {
        return if v.is_nan() { f64::NAN.to_bits() } else { v.to_bits() };
    }
    let exact = Convert { round: if form.integral { None } else { form.round }, ..*form };
    let bits = narrow(&exact, v);
    let small = form.ftz && form.to == Ty::F32 && bits & 0x7f80_0000 == 0;
    if small { bits & 0x8000_0000 } else { bits }
}

/// NaN becomes 0, or the number with only the highest bit where source or destination has 64
/// bits; what does not fit is clamped.
fn float_to_int(form: &Convert, x: u64) -> u64 {
    let mut v = value(form.from, x);
    if form.ftz && v.abs() < f64::from(f32::MIN_POSITIVE) {
        v = 0.0;
    }
    if v.is_nan() {
        let wide = form.to.bits() == 64 || form.from == Ty::F64;
        return if wide { 1 << (form.to.bits() - 1) } else { 0 };
    }
    // A cast saturates, and what fits 64 bits is cut to the limits of the narrower types.
    let whole = integral(v, form.round.unwrap_or(Round::Zero));
    let bits = form.to.bits();
    let cut = match form.to.signed() {
        true => (whole as i64).clamp(i64::MIN >> (64 - bits), i64::MAX >> (64 - bits)) as u64,
        false => (whole as u64).min(mask(form.to)),
    };
    cut & mask(form.to)
}

fn mask(ty: Ty) -> u64 {
    if ty.bits() == 64 { u64::MAX } else { (1 << ty.bits()) - 1 }
}

fn sign_extend(x: u64, bits: u32) -> i64 {
    ((x << (64 - bits)) as i64) >> (64 - bits)
}

fn source_int(ty: Ty, x: u64) -> i128 {
    if ty.signed() { sign_extend(x, ty.bits()).into() } else { (x & mask(ty)).into() }
}

#[inline(always)]
fn int_to_int(form: &Convert, x: &V64) -> V64 {
    if form.sat {
        return map1(x, |x| saturated(form, x));
    }
    let (cut, kept) = (mask(form.from), mask(form.to));
    let sign = if form.from.signed() { (cut >> 1).wrapping_add(1) } else { 0 };
    // Flipping the sign bit and taking it away extends it.
    map1(x, |x| ((x & cut) ^ sign).wrapping_sub(sign) & kept)
}

fn saturated(form: &Convert, x: u64) -> u64 {
    let bits = form.to.bits();
    let (low, high) = match form.to.signed() {
        true => (-(1 << (bits - 1)), (1 << (bits - 1)) - 1),
        false => (0, (1 << bits) - 1),
    };
    source_int(form.from, x).clamp(low, high) as u64 & mask(form.to)
}

fn int_to_float(form: &Convert, x: u64) -> u64 {
    let v = source_int(form.from, x);
    let mode = form.round.unwrap_or(Round::Near);
    // 64-bit integers may not be exact in f64: round to odd there, so that the second rounding
    // is right.
    let narrow_source = form.from.bits() <= 32;
    let near = if narrow_source { v as i64 as f64 } else { v as f64 };
    let error = if narrow_source { 0 } else { v - near as i128 };
    if form.to == Ty::F64 {
        let r = match (mode, error.signum()) {
            (Round::Down, -1) => near.next_down(),
            (Round::Up, 1) => near.next_up(),
            (Round::Zero, -1) if v > 0 => near.next_down(),
            (Round::Zero, 1) if v < 0 => near.next_up(),
            _ => near,
        };
        return r.to_bits();
    }
    let odd = if error == 0 || near.to_bits() & 1 == 1 {
        near
    } else if (error > 0) == (v > 0) {
        f64::from_bits(near.to_bits() + 1)
    } else {
        f64::from_bits(near.to_bits() - 1)
    };
    let odd = if form.sat { odd.clamp(0.0, 1.0) } else { odd };
    narrow(form, odd)
}
