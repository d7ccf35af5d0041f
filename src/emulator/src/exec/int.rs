//! Integer and logic instructions.

use super::bits::{dot, fns, funnel_left, funnel_right, prmt};
use super::cluster::Ctx;
use super::warp::{LANES, V32, V64, each_lane};
use crate::isa::{BoolOp, Carry, Int1, Int2, Int3, Op, Reg, RegKind, Src, Ty};

#[inline(always)]
pub fn map1<T: Copy, R: Copy + Default>(a: &[T; LANES], f: impl Fn(T) -> R) -> [R; LANES] {
    each_lane(|i| f(a[i]))
}

#[inline(always)]
pub fn map2<T: Copy, U: Copy, R: Copy + Default>(
    a: &[T; LANES],
    b: &[U; LANES],
    f: impl Fn(T, U) -> R,
) -> [R; LANES] {
    each_lane(|i| f(a[i], b[i]))
}

#[inline(always)]
pub fn map3<T: Copy, U: Copy, V: Copy, R: Copy + Default>(
    a: &[T; LANES],
    b: &[U; LANES],
    c: &[V; LANES],
    f: impl Fn(T, U, V) -> R,
) -> [R; LANES] {
    each_lane(|i| f(a[i], b[i], c[i]))
}

/// Sign- or zero-extends the low bits of a 32-bit value as `ty` says.
#[inline(always)]
fn extend(v: &V32, ty: Ty) -> V32 {
    match (ty.bits(), ty.signed()) {
        (8, true) => map1(v, |x| x as i8 as i32 as u32),
        (16, true) => map1(v, |x| x as i16 as i32 as u32),
        (8, false) => map1(v, |x| x & 0xff),
        (16, false) => map1(v, |x| x & 0xffff),
        _ => *v,
    }
}

/// Runs an integer instruction; false if it is another kind.
#[inline(always)]
pub fn run(c: &mut Ctx<'_>, op: &Op) -> bool {
    match op {
        Op::Int2 { op, ty, d, a, b } => int2(c, *op, *ty, *d, a, b),
        Op::Int1 { op, ty, d, a } => int1(c, *op, *ty, *d, a),
        Op::Int3 { op, ty, d, a, b, c: third } => int3(c, *op, *ty, *d, a, b, third),
        Op::Lop3 { lut, d, a, b, c: third, p } => {
            let (x, y, z) = (c.src32(a), c.src32(b), c.src32(third));
            let r = lop3(*lut, &x, &y, &z);
            c.warp.set32(*d, &r);
            if let Some((p, op, q)) = p {
                let nonzero = bits(&map1(&r, |v| v != 0));
                let q = c.warp.pred(*q);
                c.warp.set_pred(*p, combine(*op, nonzero, q));
            }
        }
        Op::Prmt { mode, d, a, b, c: third } => {
            let (x, y, z) = (c.src32(a), c.src32(b), c.src32(third));
            let r = map3(&x, &y, &z, |x, y, z| prmt(*mode, x, y, z));
            c.warp.set32(*d, &r);
        }
        Op::Bfi { ty, d, a, b, pos, len } => bfi(c, *ty, *d, [a, b, pos, len]),
        Op::Carry { op, ty, reads, writes, d, a, b, c: third } => {
            carry(c, (*op, *ty, *reads, *writes), *d, [a, b, third]);
        }
        Op::Dot { ways, high, a_signed, b_signed, d, a, b, c: third } => {
            let (x, y, z) = (c.src32(a), c.src32(b), c.src32(third));
            let signs = (*a_signed, *b_signed);
            let r = map3(&x, &y, &z, |x, y, z| dot(*ways, *high, signs, x, y, z));
            c.warp.set32(*d, &r);
        }
        Op::Pred2 { op, d, a, b } => {
            let (x, y) = (c.warp.pred(*a), c.warp.pred(*b));
            c.warp.set_pred(*d, combine(*op, x, y));
        }
        _ => return false,
    }
    true
}

#[inline(always)]
pub fn combine(op: BoolOp, a: u32, b: u32) -> u32 {
    match op {
        BoolOp::And => a & b,
        BoolOp::Or => a | b,
        BoolOp::Xor => a ^ b,
    }
}

/// Booleans of lanes as a mask.
#[inline(always)]
pub fn bits(v: &[bool; LANES]) -> u32 {
    let mut mask = 0;
    for (n, eight) in v.chunks_exact(8).enumerate() {
        let bytes = u64::from_le_bytes(std::array::from_fn(|i| eight[i].into()));
        // Byte i is 0 or 1; the product moves it to bit 56 + i.
        let packed = bytes.wrapping_mul(0x0102_0408_1020_4080) >> 56;
        mask |= (packed as u32) << (8 * n);
    }
    mask
}

#[inline(always)]
fn int2(c: &mut Ctx<'_>, op: Int2, ty: Ty, d: Reg, a: &Src, b: &Src) {
    if matches!(ty, Ty::U16x2 | Ty::S16x2) {
        return packed16(c, op, ty, d, a, b);
    }
    if op == Int2::MulWide && ty.bits() == 32 {
        let (x, y) = (c.src32(a), c.src32(b));
        let r: V64 = if ty.signed() {
            map2(&x, &y, |x, y| (i64::from(x as i32) * i64::from(y as i32)) as u64)
        } else {
            map2(&x, &y, |x, y| u64::from(x) * u64::from(y))
        };
        return c.warp.set64(d, &r);
    }
    if ty.bits() == 64 {
        let shift = matches!(op, Int2::Shl | Int2::Shr);
        let x = c.src64(a);
        let y = if shift { map1(&c.src32(b), u64::from) } else { c.src64(b) };
        let r = int2_64(op, ty.signed(), &x, &y);
        if d.kind == RegKind::B64 {
            return c.warp.set64(d, &r);
        }
        return c.warp.set32(d, &map1(&r, |v| v as u32));
    }
    let shift = matches!(op, Int2::Shl | Int2::Shr);
    let x = extend(&c.src32(a), ty);
    let y = if shift { c.src32(b) } else { extend(&c.src32(b), ty) };
    let bits = ty.bits();
    let r = if bits == 32 { int2_32(op, ty.signed(), &x, &y) } else { narrow2(op, ty, &x, &y) };
    c.warp.set32(d, &r);
}

/// 8- and 16-bit forms, on values already extended to 32 bits.
#[inline(always)]
fn narrow2(op: Int2, ty: Ty, x: &V32, y: &V32) -> V32 {
    let bits = ty.bits();
    match op {
        Int2::MulHi => map2(x, y, |x, y| ((x as i32).wrapping_mul(y as i32) >> bits) as u32),
        // The full product of two 16-bit values fits 32 bits.
        Int2::MulWide => map2(x, y, u32::wrapping_mul),
        Int2::Shl => map2(x, y, |x, y| if y >= bits { 0 } else { x << y }),
        _ => int2_32(op, ty.signed(), x, y),
    }
}

#[inline(always)]
fn int2_32(op: Int2, signed: bool, x: &V32, y: &V32) -> V32 {
    match op {
        Int2::Add => map2(x, y, u32::wrapping_add),
        Int2::Sub => map2(x, y, u32::wrapping_sub),
        Int2::AddSat => map2(x, y, |x, y| (x as i32).saturating_add(y as i32) as u32),
        Int2::SubSat => map2(x, y, |x, y| (x as i32).saturating_sub(y as i32) as u32),
        Int2::MulLo | Int2::MulWide => map2(x, y, u32::wrapping_mul),
        Int2::MulHi if signed => {
            map2(x, y, |x, y| ((i64::from(x as i32) * i64::from(y as i32)) >> 32) as u32)
        }
        Int2::MulHi => map2(x, y, |x, y| ((u64::from(x) * u64::from(y)) >> 32) as u32),
        Int2::Mul24 if signed => {
            let cut = |v: u32| i64::from((v << 8) as i32 >> 8);
            map2(x, y, |x, y| (cut(x) * cut(y)) as u32)
        }
        Int2::Mul24 => map2(x, y, |x, y| (x & 0xff_ffff).wrapping_mul(y & 0xff_ffff)),
        Int2::Div if signed => map2(x, y, |x, y| {
            (x as i32).checked_div(y as i32).unwrap_or(if y == 0 { -1 } else { x as i32 }) as u32
        }),
        Int2::Div => map2(x, y, |x, y| x.checked_div(y).unwrap_or(u32::MAX)),
        Int2::Rem if signed => map2(x, y, |x, y| match y {
            0 => x,
            _ => (x as i32).wrapping_rem(y as i32) as u32,
        }),
        Int2::Rem => map2(x, y, |x, y| x.checked_rem(y).unwrap_or(x)),
        Int2::Min if signed => map2(x, y, |x, y| (x as i32).min(y as i32) as u32),
        Int2::Min => map2(x, y, u32::min),
        Int2::Max if signed => map2(x, y, |x, y| (x as i32).max(y as i32) as u32),
        Int2::Max => map2(x, y, u32::max),
        Int2::And => map2(x, y, |x, y| x & y),
        Int2::Or => map2(x, y, |x, y| x | y),
        Int2::Xor => map2(x, y, |x, y| x ^ y),
        Int2::Shl => map2(x, y, |x, y| x.checked_shl(y).unwrap_or(0)),
        Int2::Shr if signed => map2(x, y, |x, y| ((x as i32) >> y.min(31)) as u32),
        Int2::Shr => map2(x, y, |x, y| x.checked_shr(y).unwrap_or(0)),
        Int2::Bmsk => map2(x, y, |x, y| bmsk(x % 32, y % 32)),
        Int2::BmskClamp => map2(x, y, |x, y| bmsk(x.min(32), y.min(32))),
        Int2::Szext => map2(x, y, |x, y| szext(x, y, signed)),
        Int2::SzextWrap => map2(x, y, |x, y| szext(x, y % 32, signed)),
    }
}

/// The low `width` bits, sign- or zero-extended.
fn szext(x: u32, width: u32, signed: bool) -> u32 {
    match width {
        0 => 0,
        1..32 if signed => ((x << (32 - width)) as i32 >> (32 - width)) as u32,
        1..32 => x & ((1 << width) - 1),
        _ => x,
    }
}

fn bmsk(start: u32, width: u32) -> u32 {
    let ones = if width >= 32 { u32::MAX } else { (1 << width) - 1 };
    ones.checked_shl(start).unwrap_or(0)
}

#[inline(always)]
fn int2_64(op: Int2, signed: bool, x: &V64, y: &V64) -> V64 {
    match op {
        Int2::Add | Int2::AddSat => map2(x, y, u64::wrapping_add),
        Int2::Sub | Int2::SubSat => map2(x, y, u64::wrapping_sub),
        Int2::MulHi if signed => {
            map2(x, y, |x, y| ((i128::from(x as i64) * i128::from(y as i64)) >> 64) as u64)
        }
        Int2::MulHi => map2(x, y, |x, y| ((u128::from(x) * u128::from(y)) >> 64) as u64),
        Int2::Div if signed => map2(x, y, |x, y| match y {
            0 => u64::MAX,
            _ => (x as i64).wrapping_div(y as i64) as u64,
        }),
        Int2::Div => map2(x, y, |x, y| x.checked_div(y).unwrap_or(u64::MAX)),
        Int2::Rem if signed => map2(x, y, |x, y| match y {
            0 => x,
            _ => (x as i64).wrapping_rem(y as i64) as u64,
        }),
        Int2::Rem => map2(x, y, |x, y| x.checked_rem(y).unwrap_or(x)),
        Int2::Min if signed => map2(x, y, |x, y| (x as i64).min(y as i64) as u64),
        Int2::Min => map2(x, y, u64::min),
        Int2::Max if signed => map2(x, y, |x, y| (x as i64).max(y as i64) as u64),
        Int2::Max => map2(x, y, u64::max),
        Int2::And => map2(x, y, |x, y| x & y),
        Int2::Or => map2(x, y, |x, y| x | y),
        Int2::Xor => map2(x, y, |x, y| x ^ y),
        Int2::Shl => map2(x, y, |x, y| if y > 63 { 0 } else { x << y }),
        Int2::Shr if signed => map2(x, y, |x, y| ((x as i64) >> y.min(63)) as u64),
        Int2::Shr => map2(x, y, |x, y| if y > 63 { 0 } else { x >> y }),
        _ => map2(x, y, u64::wrapping_mul),
    }
}

fn packed16(c: &mut Ctx<'_>, op: Int2, ty: Ty, d: Reg, a: &Src, b: &Src) {
    let (x, y) = (c.src32(a), c.src32(b));
    let half = |x: u32, y: u32| -> u32 {
        let (s, t) = (x as i16, y as i16);
        let r = match (op, ty.signed()) {
            (Int2::Add, _) => (x as u16).wrapping_add(y as u16),
            (Int2::Min, true) => s.min(t) as u16,
            (Int2::Max, true) => s.max(t) as u16,
            (Int2::Min, false) => (x as u16).min(y as u16),
            _ => (x as u16).max(y as u16),
        };
        r.into()
    };
    let r = map2(&x, &y, |x, y| half(x, y) | half(x >> 16, y >> 16) << 16);
    c.warp.set32(d, &r);
}

#[inline(always)]
fn int1(c: &mut Ctx<'_>, op: Int1, ty: Ty, d: Reg, a: &Src) {
    let signed = ty.signed();
    if ty.bits() == 64 {
        let x = c.src64(a);
        let r: V64 = match op {
            Int1::Neg => map1(&x, u64::wrapping_neg),
            Int1::Abs => map1(&x, |x| (x as i64).unsigned_abs()),
            Int1::Not => map1(&x, |x| !x),
            Int1::Cnot => map1(&x, |x| u64::from(x == 0)),
            Int1::Popc => map1(&x, |x| x.count_ones().into()),
            Int1::Clz => map1(&x, |x| x.leading_zeros().into()),
            Int1::Brev => map1(&x, u64::reverse_bits),
            Int1::Bfind => map1(&x, |x| u64::from(bfind64(x, signed))),
            Int1::BfindShift => map1(&x, |x| match bfind64(x, signed) {
                u32::MAX => u64::from(u32::MAX),
                at => u64::from(63 - at),
            }),
        };
        return c.warp.set64(d, &r);
    }
    let x = extend(&c.src32(a), ty);
    let r: V32 = match op {
        Int1::Neg => map1(&x, u32::wrapping_neg),
        Int1::Abs => map1(&x, |x| (x as i32).unsigned_abs()),
        Int1::Not => map1(&x, |x| !x),
        Int1::Cnot => map1(&x, |x| u32::from(x == 0)),
        Int1::Popc => map1(&x, u32::count_ones),
        Int1::Clz => map1(&x, u32::leading_zeros),
        Int1::Brev => map1(&x, u32::reverse_bits),
        Int1::Bfind => map1(&x, |x| bfind32(x, signed)),
        Int1::BfindShift => map1(&x, |x| match bfind32(x, signed) {
            u32::MAX => u32::MAX,
            at => 31 - at,
        }),
    };
    c.warp.set32(d, &r);
}

fn bfind32(x: u32, signed: bool) -> u32 {
    let x = if signed && (x as i32) < 0 { !x } else { x };
    x.checked_ilog2().unwrap_or(u32::MAX)
}

fn bfind64(x: u64, signed: bool) -> u32 {
    let x = if signed && (x as i64) < 0 { !x } else { x };
    x.checked_ilog2().unwrap_or(u32::MAX)
}

#[inline(always)]
fn int3(c: &mut Ctx<'_>, op: Int3, ty: Ty, d: Reg, a: &Src, b: &Src, third: &Src) {
    if op == Int3::MadWide {
        return mad_wide(c, ty, d, a, b, third);
    }
    if op == Int3::Bfe {
        return bfe(c, ty, d, a, b, third);
    }
    let signed = ty.signed();
    if ty.bits() == 64 {
        let (x, y, z) = (c.src64(a), c.src64(b), c.src64(third));
        let r = match op {
            Int3::MadHi => map2(&int2_64(Int2::MulHi, signed, &x, &y), &z, u64::wrapping_add),
            Int3::Sad if signed => {
                map3(&x, &y, &z, |x, y, z| z.wrapping_add((x as i64).abs_diff(y as i64)))
            }
            Int3::Sad => map3(&x, &y, &z, |x, y, z| z.wrapping_add(x.abs_diff(y))),
            _ => map3(&x, &y, &z, |x, y, z| x.wrapping_mul(y).wrapping_add(z)),
        };
        return c.warp.set64(d, &r);
    }
    let (x, y, z) = (extend(&c.src32(a), ty), extend(&c.src32(b), ty), extend(&c.src32(third), ty));
    let r = match op {
        Int3::MadLo | Int3::MadWide => {
            map3(&x, &y, &z, |x, y, z| x.wrapping_mul(y).wrapping_add(z))
        }
        Int3::MadHi if ty.bits() == 16 => {
            map2(&narrow2(Int2::MulHi, ty, &x, &y), &z, u32::wrapping_add)
        }
        Int3::MadHi => map2(&int2_32(Int2::MulHi, signed, &x, &y), &z, u32::wrapping_add),
        Int3::MadHiSat => map2(&int2_32(Int2::MulHi, true, &x, &y), &z, |p, z| {
            (p as i32).saturating_add(z as i32) as u32
        }),
        Int3::Sad if signed => {
            map3(&x, &y, &z, |x, y, z| z.wrapping_add((x as i32).abs_diff(y as i32)))
        }
        Int3::Sad => map3(&x, &y, &z, |x, y, z| z.wrapping_add(x.abs_diff(y))),
        Int3::ShfL => map3(&x, &y, &z, |x, y, z| funnel_left(x, y, z.min(32))),
        Int3::ShfLWrap => map3(&x, &y, &z, |x, y, z| funnel_left(x, y, z % 32)),
        Int3::ShfR => map3(&x, &y, &z, |x, y, z| funnel_right(x, y, z.min(32))),
        Int3::ShfRWrap => map3(&x, &y, &z, |x, y, z| funnel_right(x, y, z % 32)),
        Int3::Fns => map3(&x, &y, &z, fns),
        Int3::Bfe => x,
    };
    c.warp.set32(d, &r);
}

#[inline(always)]
fn mad_wide(c: &mut Ctx<'_>, ty: Ty, d: Reg, a: &Src, b: &Src, third: &Src) {
    let (x, y) = (extend(&c.src32(a), ty), extend(&c.src32(b), ty));
    if ty.bits() == 16 {
        let z = c.src32(third);
        let r = map3(&x, &y, &z, |x, y, z| x.wrapping_mul(y).wrapping_add(z));
        return c.warp.set32(d, &r);
    }
    let z = c.src64(third);
    let r = if ty.signed() {
        map3(&x, &y, &z, |x, y, z| {
            (i64::from(x as i32) * i64::from(y as i32)).wrapping_add(z as i64) as u64
        })
    } else {
        map3(&x, &y, &z, |x, y, z| (u64::from(x) * u64::from(y)).wrapping_add(z))
    };
    c.warp.set64(d, &r);
}

#[inline(always)]
fn bfe(c: &mut Ctx<'_>, ty: Ty, d: Reg, a: &Src, b: &Src, third: &Src) {
    let (pos, len) = (c.src32(b), c.src32(third));
    let width = ty.bits();
    let x: V64 = c.src64(a);
    let signed = ty.signed();
    let r = map3(&x, &pos, &len, |x, pos, len| {
        let (pos, len) = (pos & 0xff, len & 0xff);
        let top = (pos + len).saturating_sub(1).min(width - 1);
        let sign = signed && len != 0 && x >> top & 1 != 0;
        let field = if pos >= width { 0 } else { x >> pos };
        let kept = len.min(width.saturating_sub(pos));
        let ones = if kept >= 64 { u64::MAX } else { (1 << kept) - 1 };
        (field & ones) | if sign { !ones } else { 0 }
    });
    c.warp.set64(d, &r);
}

#[inline(always)]
fn bfi(c: &mut Ctx<'_>, ty: Ty, d: Reg, [a, b, pos, len]: [&Src; 4]) {
    let (pos, len) = (c.src32(pos), c.src32(len));
    let (x, y) = (c.src64(a), c.src64(b));
    let width = ty.bits();
    let r: V64 = each_lane(|i| {
        let (pos, len) = (pos[i] & 0xff, (len[i] & 0xff).min(width));
        if pos >= width {
            return y[i];
        }
        let ones = if len >= 64 { u64::MAX } else { (1 << len) - 1 };
        let field = ones << pos;
        (y[i] & !field) | (x[i] << pos & field)
    });
    c.warp.set64(d, &r);
}

#[inline(always)]
fn lop3(lut: u8, a: &V32, b: &V32, c: &V32) -> V32 {
    match lut {
        0x80 => map3(a, b, c, |a, b, c| a & b & c),
        0xfe => map3(a, b, c, |a, b, c| a | b | c),
        0x96 => map3(a, b, c, |a, b, c| a ^ b ^ c),
        0xf8 => map3(a, b, c, |a, b, c| a | b & c),
        0xea => map3(a, b, c, |a, b, c| a & b | c),
        _ => map3(a, b, c, |a, b, c| {
            let mut r = 0;
            for i in 0..8 {
                if lut >> i & 1 != 0 {
                    let pick = |v: u32, on: bool| if on { v } else { !v };
                    r |= pick(a, i & 4 != 0) & pick(b, i & 2 != 0) & pick(c, i & 1 != 0);
                }
            }
            r
        }),
    }
}

fn carry(
    c: &mut Ctx<'_>,
    (op, ty, reads, writes): (Carry, Ty, bool, bool),
    d: Reg,
    [a, b, third]: [&Src; 3],
) {
    let (x, y, z) = (c.src64(a), c.src64(b), c.src64(third));
    let width = ty.bits();
    let all = if width == 64 { u128::from(u64::MAX) } else { u128::from(u32::MAX) };
    let (mut r, mut out): (V64, u32) = ([0; LANES], 0);
    for i in 0..LANES {
        let flag = u128::from(reads && c.warp.carry >> i & 1 != 0);
        let (x, y, z) = (u128::from(x[i]) & all, u128::from(y[i]) & all, u128::from(z[i]) & all);
        let product = if ty.signed() {
            let sign = |v: u128| ((v << (128 - width)) as i128) >> (128 - width);
            sign(x).wrapping_mul(sign(y)) as u128
        } else {
            x.wrapping_mul(y)
        };
        let sum = match op {
            Carry::Add => x + y + flag,
            Carry::Sub => x.wrapping_sub(y).wrapping_sub(flag) & ((all << 1) | 1),
            Carry::MadLo => (product & all) + z + flag,
            Carry::MadHi => (product >> width & all) + z + flag,
        };
        r[i] = (sum & all) as u64;
        out |= u32::from(sum > all) << i;
    }
    c.warp.set64(d, &r);
    if writes {
        c.warp.carry = (c.warp.carry & !c.warp.mask) | (out & c.warp.mask);
    }
}
