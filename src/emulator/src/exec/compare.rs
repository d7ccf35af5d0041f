//! Comparisons and selections.

use super::cluster::Ctx;
use super::float::input;
use super::half::to_f32;
use super::int::{combine, map1};
use super::warp::{BITS, LANES, each_lane, truth};
use crate::isa::{Cmp, Compare, Op, RegKind, Ty};

/// Runs a comparison or a selection; false if it is another kind.
#[inline(always)]
pub fn run(c: &mut Ctx<'_>, op: &Op) -> bool {
    match op {
        Op::SetP { compare, d, q } => {
            let truth = compare_lanes(c, compare);
            let (p, n) = match compare.combine {
                None => (truth, !truth),
                Some((op, r)) => {
                    let r = c.warp.pred(r);
                    (combine(op, truth, r), combine(op, !truth, r))
                }
            };
            c.warp.set_pred(*d, p);
            c.warp.set_pred(*q, n);
        }
        Op::Set { compare, to, d } => {
            let mut truth = compare_lanes(c, compare);
            if let Some((op, r)) = compare.combine {
                truth = combine(op, truth, c.warp.pred(r));
            }
            let one = if *to == Ty::F32 { 1f32.to_bits() } else { u32::MAX };
            let r: [u32; LANES] = each_lane(|i| if truth & BITS[i] != 0 { one } else { 0 });
            c.warp.set32(*d, &r);
        }
        Op::SelP { d, a, b, p } => {
            let p = c.warp.pred(*p);
            // Only the lanes' own choice has to be defined.
            let mask = c.warp.mask;
            let (first, second) = (mask & p, mask & !p);
            if d.kind == RegKind::B64 {
                c.warp.mask = first;
                let x = c.src64(a);
                c.warp.mask = second;
                let y = c.src64(b);
                c.warp.mask = mask;
                let r = each_lane(|i| if p & BITS[i] != 0 { x[i] } else { y[i] });
                c.warp.set64(*d, &r);
            } else {
                c.warp.mask = first;
                let x = c.src32(a);
                c.warp.mask = second;
                let y = c.src32(b);
                c.warp.mask = mask;
                let r = each_lane(|i| if p & BITS[i] != 0 { x[i] } else { y[i] });
                c.warp.set32(*d, &r);
            }
        }
        Op::Slct { float, ftz, d, a, b, c: third } => {
            let (x, y, z) = (c.src64(a), c.src64(b), c.src32(third));
            let z = input(&z, *ftz && *float);
            let first = map1(&z, |z| if *float { f32::from_bits(z) >= 0.0 } else { z as i32 >= 0 });
            let r: [u64; LANES] = each_lane(|i| if first[i] { x[i] } else { y[i] });
            c.warp.set64(*d, &r);
        }
        _ => return false,
    }
    true
}

#[inline(always)]
fn compare_lanes(c: &mut Ctx<'_>, compare: &Compare) -> u32 {
    let Compare { cmp, ty, ftz, a, b, .. } = compare;
    match ty {
        Ty::F32 => {
            let (x, y) = (input(&c.src32(a), *ftz), input(&c.src32(b), *ftz));
            let f = f32::from_bits;
            float_cmp(*cmp, &map1(&x, f), &map1(&y, f))
        }
        Ty::F64 => {
            let (x, y) = (c.src64(a), c.src64(b));
            let f = f64::from_bits;
            float_cmp(*cmp, &map1(&x, f), &map1(&y, f))
        }
        Ty::F16 | Ty::Bf16 => {
            let (x, y) = (c.src32(a), c.src32(b));
            let f = |v| to_f32(*ty, v);
            float_cmp(*cmp, &map1(&x, f), &map1(&y, f))
        }
        Ty::S32 => {
            let (x, y) = (c.src32(a), c.src32(b));
            int_cmp(*cmp, &map1(&x, |v| v as i32), &map1(&y, |v| v as i32))
        }
        Ty::S16 => {
            let (x, y) = (c.src32(a), c.src32(b));
            int_cmp(*cmp, &map1(&x, |v| v as i16), &map1(&y, |v| v as i16))
        }
        Ty::S64 => {
            let (x, y) = (c.src64(a), c.src64(b));
            int_cmp(*cmp, &map1(&x, |v| v as i64), &map1(&y, |v| v as i64))
        }
        ty if ty.bits() == 64 => {
            let (x, y) = (c.src64(a), c.src64(b));
            int_cmp(*cmp, &x, &y)
        }
        ty => {
            let (x, y) = (c.src32(a), c.src32(b));
            let cut = if ty.bits() == 16 { 0xffff } else { u32::MAX };
            int_cmp(*cmp, &map1(&x, |v| v & cut), &map1(&y, |v| v & cut))
        }
    }
}

/// The lanes whose two values satisfy a comparison.
#[inline(always)]
fn each<T: Copy>(x: &[T; LANES], y: &[T; LANES], f: impl Fn(T, T) -> bool) -> u32 {
    truth(|i| f(x[i], y[i]))
}

#[inline(always)]
fn int_cmp<T: PartialOrd + Copy>(cmp: Cmp, x: &[T; LANES], y: &[T; LANES]) -> u32 {
    match cmp {
        Cmp::Eq | Cmp::Equ => each(x, y, |x, y| x == y),
        Cmp::Ne | Cmp::Neu => each(x, y, |x, y| x != y),
        Cmp::Lt | Cmp::Ltu => each(x, y, |x, y| x < y),
        Cmp::Le | Cmp::Leu => each(x, y, |x, y| x <= y),
        Cmp::Gt | Cmp::Gtu => each(x, y, |x, y| x > y),
        Cmp::Ge | Cmp::Geu => each(x, y, |x, y| x >= y),
        Cmp::Num => u32::MAX,
        Cmp::Nan => 0,
    }
}

/// Comparisons of floats: the plain ones are false where a NaN takes part, those that end in `u`
/// are true. What clippy would have instead means something else for NaN.
#[allow(clippy::double_comparisons, clippy::neg_cmp_op_on_partial_ord)]
#[inline(always)]
fn float_cmp<T: PartialOrd + Copy>(cmp: Cmp, x: &[T; LANES], y: &[T; LANES]) -> u32 {
    match cmp {
        Cmp::Eq => each(x, y, |x, y| x == y),
        Cmp::Ne => each(x, y, |x, y| x < y || x > y),
        Cmp::Lt => each(x, y, |x, y| x < y),
        Cmp::Le => each(x, y, |x, y| x <= y),
        Cmp::Gt => each(x, y, |x, y| x > y),
        Cmp::Ge => each(x, y, |x, y| x >= y),
        Cmp::Equ => each(x, y, |x, y| !(x < y || x > y)),
        Cmp::Neu => each(x, y, |x, y| x != y),
        Cmp::Ltu => each(x, y, |x, y| !(x >= y)),
        Cmp::Leu => each(x, y, |x, y| !(x > y)),
        Cmp::Gtu => each(x, y, |x, y| !(x <= y)),
        Cmp::Geu => each(x, y, |x, y| !(x < y)),
        Cmp::Num => each(x, y, |x, y| x.partial_cmp(&y).is_some()),
        Cmp::Nan => each(x, y, |x, y| x.partial_cmp(&y).is_none()),
    }
}
