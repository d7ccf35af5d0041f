//! f32 and f64 arithmetic, with rounding modes, flushing, saturation and canonical NaNs.

use super::cluster::Ctx;
use super::half;
use super::int::{bits, map1, map2, map3};
use super::warp::{V32, V64};
use crate::isa::{F1, F2, FMods, Op, Reg, Round, Src, TestKind, Ty};
use crate::tensor::approx;
use crate::tensor::number::{self, Rounding};

const NAN32: u32 = 0x7fff_ffff;

/// The tensor functions' name of a rounding mode.
pub fn rounding(round: Round) -> Rounding {
    match round {
        Round::Near => Rounding::NearestEven,
        Round::NearAway => Rounding::NearestAway,
        Round::Zero => Rounding::TowardZero,
        Round::Down => Rounding::Down,
        Round::Up => Rounding::Up,
    }
}

/// Runs a floating-point instruction; false if it is another kind.
#[inline(always)]
pub fn run(c: &mut Ctx<'_>, op: &Op) -> bool {
    match op {
        Op::Fma { ty, mods, d, a, b, c: third } => fma(c, *ty, mods, *d, [a, b, third]),
        Op::F2 { op, ty, mods, d, a, b } => float2(c, *op, *ty, mods, *d, a, b),
        Op::F1 { op, ty, mods, d, a } => float1(c, *op, *ty, mods, *d, a),
        Op::F3 { op, mods, d, a, b, c: third, .. } => {
            let (x, y, z) = (c.src32(a), c.src32(b), c.src32(third));
            let first = float2_32(*op, mods, &x, &y);
            let r = float2_32(*op, mods, &first, &z);
            c.warp.set32(*d, &r);
        }
        Op::TestP { kind, ty, d, a } => {
            let x = c.src64(a);
            let wide = *ty == Ty::F64;
            let value =
                |v: u64| if wide { f64::from_bits(v) } else { f32::from_bits(v as u32).into() };
            let tiny = |v: u64| {
                if wide {
                    f64::from_bits(v).is_subnormal()
                } else {
                    f32::from_bits(v as u32).is_subnormal()
                }
            };
            let r = map1(&x, |v| test(*kind, value(v), tiny(v)));
            c.warp.set_pred(*d, bits(&r));
        }
        _ => return false,
    }
    true
}

fn test(kind: TestKind, x: f64, tiny: bool) -> bool {
    match kind {
        TestKind::Finite => x.is_finite(),
        TestKind::Infinite => x.is_infinite(),
        TestKind::Number => !x.is_nan(),
        TestKind::NotANumber => x.is_nan(),
        TestKind::Normal => x.is_finite() && x != 0.0 && !tiny,
        TestKind::Subnormal => tiny,
    }
}

#[inline(always)]
fn canonical(x: f32) -> u32 {
    if x.is_nan() { NAN32 } else { x.to_bits() }
}

/// Subnormal inputs as zeros, where the instruction flushes.
#[inline(always)]
pub fn input(v: &V32, ftz: bool) -> V32 {
    if ftz { map1(v, flush_bits) } else { *v }
}

#[inline(always)]
fn flush_bits(x: u32) -> u32 {
    if x & 0x7f80_0000 == 0 { x & 0x8000_0000 } else { x }
}

/// Flushing and saturation of results.
#[inline(always)]
fn finish(r: V32, mods: &FMods) -> V32 {
    let r = if mods.ftz { map1(&r, flush_bits) } else { r };
    if mods.sat { map1(&r, |v| number::saturate(f32::from_bits(v)).to_bits()) } else { r }
}

/// f32 result of an exact f64 value, rounded as asked. A zero from cancellation is negative only
/// when rounding down.
fn round32(x: f64, round: Round) -> f32 {
    number::f32_from_f64(x, rounding(round))
}

#[inline(always)]
fn fma(c: &mut Ctx<'_>, ty: Ty, mods: &FMods, d: Reg, [a, b, third]: [&Src; 3]) {
    match ty {
        Ty::F32 => {
            let x = input(&c.src32(a), mods.ftz);
            let y = input(&c.src32(b), mods.ftz);
            let z = input(&c.src32(third), mods.ftz);
            let r = if mods.round == Round::Near {
                fma_near(&x, &y, &z)
            } else {
                map3(&x, &y, &z, |x, y, z| directed_fma(x, y, z, mods.round))
            };
            c.warp.set32(d, &finish(r, mods));
        }
        Ty::F64 => {
            let (x, y, z) = (c.src64(a), c.src64(b), c.src64(third));
            let r = map3(&x, &y, &z, |x, y, z| {
                let (x, y, z) = (f64::from_bits(x), f64::from_bits(y), f64::from_bits(z));
                directed_fma64(x, y, z, mods.round).to_bits()
            });
            c.warp.set64(d, &r);
        }
        _ => half::fma(c, ty, mods, d, [a, b, third]),
    }
}

fn directed_fma64(x: f64, y: f64, z: f64, round: Round) -> f64 {
    let r = x.mul_add(y, z);
    // The exact result less the rounded one, as a sum of parts that are each exact.
    let p = x * y;
    let below = x.mul_add(y, -p);
    let s = p + z;
    let part = s - p;
    let cut = (p - (s - part)) + (z - part);
    let rest = below + cut;
    let again = rest - below;
    let tail = (below - (rest - again)) + (cut - again);
    let error = (s - r) + rest;
    let zero = p == 0.0 && p.is_sign_negative() == z.is_sign_negative();
    nudge(r, if error == 0.0 { tail } else { error }, round, !zero)
}

fn directed_fma(x: u32, y: u32, z: u32, round: Round) -> u32 {
    let (a, b, c) = (f32::from_bits(x), f32::from_bits(y), f32::from_bits(z));
    let exact = number::fma_to_odd(a.into(), b.into(), c.into());
    // Opposite signs that cancel, zeros among them, give −0 when rounding down.
    let same = (a * b).is_sign_negative() == c.is_sign_negative();
    let cancelled = exact == 0.0 && round == Round::Down && !(c == 0.0 && same);
    canonical(if cancelled { -0.0 } else { round32(exact, round) })
}

#[inline(always)]
fn fma_near(x: &V32, y: &V32, z: &V32) -> V32 {
    map3(x, y, z, |x, y, z| {
        canonical(f32::from_bits(x).mul_add(f32::from_bits(y), f32::from_bits(z)))
    })
}

#[inline(always)]
fn float2(c: &mut Ctx<'_>, op: F2, ty: Ty, mods: &FMods, d: Reg, a: &Src, b: &Src) {
    match ty {
        Ty::F32 => {
            let (x, y) = (c.src32(a), c.src32(b));
            let r = float2_32(op, mods, &x, &y);
            c.warp.set32(d, &r);
        }
        Ty::F64 => {
            let (x, y) = (c.src64(a), c.src64(b));
            let r = map2(&x, &y, |x, y| float2_64(op, f64::from_bits(x), f64::from_bits(y), mods));
            c.warp.set64(d, &r);
        }
        _ => half::float2(c, op, ty, mods, d, a, b),
    }
}

#[inline(always)]
fn float2_32(op: F2, mods: &FMods, x: &V32, y: &V32) -> V32 {
    let (x, y) = (&input(x, mods.ftz), &input(y, mods.ftz));
    let f = f32::from_bits;
    if mods.round != Round::Near {
        let r = map2(x, y, |x, y| canonical(directed2(op, f(x), f(y), mods.round)));
        return finish(r, mods);
    }
    let r = match op {
        F2::Add => map2(x, y, |x, y| canonical(f(x) + f(y))),
        F2::Sub => map2(x, y, |x, y| canonical(f(x) - f(y))),
        F2::Mul => map2(x, y, |x, y| canonical(f(x) * f(y))),
        F2::Div => map2(x, y, |x, y| canonical(f(x) / f(y))),
        F2::CopySign => return map2(x, y, |x, y| (y & 0x7fff_ffff) | (x & 0x8000_0000)),
        F2::Min | F2::Max => map2(x, y, |x, y| min_max(op == F2::Max, f(x), f(y), mods)),
    };
    finish(r, mods)
}

/// min and max: −0 is less than +0; NaN loses unless `.NaN` asks for it.
#[inline(always)]
fn min_max(max: bool, x: f32, y: f32, mods: &FMods) -> u32 {
    let flip = if mods.xorsign_abs { (x.to_bits() ^ y.to_bits()) & 0x8000_0000 } else { 0 };
    let (x, y) = if mods.xorsign_abs { (x.abs(), y.abs()) } else { (x, y) };
    let r = match (x.is_nan(), y.is_nan()) {
        (true, true) => return NAN32,
        (true, false) | (false, true) if mods.nan => return NAN32,
        (true, false) => y,
        (false, true) => x,
        _ if x == y => match (x.is_sign_negative(), max) {
            (true, true) | (false, false) => y,
            _ => x,
        },
        _ if (x > y) == max => x,
        _ => y,
    };
    r.to_bits() | flip
}

fn directed2(op: F2, x: f32, y: f32, round: Round) -> f32 {
    let (a, b) = (f64::from(x), f64::from(y));
    match op {
        F2::Add | F2::Sub => {
            let b = if op == F2::Sub { -b } else { b };
            let sum = number::fma_to_odd(1.0, a, b);
            let same = a.is_sign_negative() == b.is_sign_negative();
            if sum == 0.0 && round == Round::Down && !same {
                return -0.0;
            }
            round32(sum, round)
        }
        F2::Mul => round32(a * b, round),
        F2::Div => {
            // The quotient of two f32 in f64 is exact or off the f32 grid by more than its error,
            // but for directed modes the remainder decides.
            let q = a / b;
            let rest = (-q).mul_add(b, a);
            let exact = rest == 0.0 || !rest.is_finite() || !q.is_finite();
            let odd = if exact || q.to_bits() & 1 == 1 {
                q
            } else {
                let up = (rest > 0.0) == (b > 0.0);
                let away = up == (q > 0.0);
                f64::from_bits(if away { q.to_bits() + 1 } else { q.to_bits() - 1 })
            };
            round32(odd, round)
        }
        F2::Min | F2::Max | F2::CopySign => x,
    }
}

fn float2_64(op: F2, x: f64, y: f64, mods: &FMods) -> u64 {
    let r = match op {
        F2::Add => x + y,
        F2::Sub => x - y,
        F2::Mul => x * y,
        F2::Div => x / y,
        F2::CopySign => y.copysign(x),
        F2::Min | F2::Max => {
            let max = op == F2::Max;
            match (x.is_nan(), y.is_nan()) {
                (true, _) => y,
                (_, true) => x,
                _ if x == y => {
                    if x.is_sign_negative() == max {
                        y
                    } else {
                        x
                    }
                }
                _ if (x > y) == max => x,
                _ => y,
            }
        }
    };
    directed64(op, x, y, r, mods.round).to_bits()
}

/// Moves a nearest result to its neighbour where a directed mode asks for it.
fn directed64(op: F2, x: f64, y: f64, r: f64, round: Round) -> f64 {
    let error = match op {
        F2::Add | F2::Sub => {
            let y = if op == F2::Sub { -y } else { y };
            let part = r - x;
            (x - (r - part)) + (y - part)
        }
        F2::Mul => x.mul_add(y, -r),
        F2::Div => (-r).mul_add(y, x) * y.signum(),
        F2::Min | F2::Max | F2::CopySign => 0.0,
    };
    let sums = matches!(op, F2::Add | F2::Sub);
    let y = if op == F2::Sub { -y } else { y };
    nudge(r, error, round, sums && x.is_sign_negative() != y.is_sign_negative())
}

/// The neighbour of a nearest result that a directed mode asks for; `error` has the sign of the
/// exact result less `r`. A zero of parts that cancel is negative when rounding down.
fn nudge(r: f64, error: f64, round: Round, cancels: bool) -> f64 {
    if round == Round::Near || !r.is_finite() {
        return r;
    }
    if r == 0.0 && error == 0.0 && cancels {
        return if round == Round::Down { -0.0 } else { 0.0 };
    }
    let down = match round {
        Round::Down => error < 0.0,
        Round::Zero => error < 0.0 && r > 0.0,
        _ => false,
    };
    let up = match round {
        Round::Up => error > 0.0,
        Round::Zero => error > 0.0 && r < 0.0,
        _ => false,
    };
    match (down, up) {
        (true, _) => r.next_down(),
        (_, true) => r.next_up(),
        _ => r,
    }
}

#[inline(always)]
fn float1(c: &mut Ctx<'_>, op: F1, ty: Ty, mods: &FMods, d: Reg, a: &Src) {
    match ty {
        Ty::F32 => {
            let x = input(&c.src32(a), mods.ftz);
            let r = float1_32(op, mods, &x);
            c.warp.set32(d, &r);
        }
        Ty::F64 => {
            let x: V64 = c.src64(a);
            let r = map1(&x, |x| float1_64(op, f64::from_bits(x), mods).to_bits());
            c.warp.set64(d, &r);
        }
        _ => half::float1(c, op, ty, mods, d, a),
    }
}

/// Each lane by itself, so that the function becomes part of a loop over all of them.
#[inline(always)]
fn approximate(x: &V32, g: impl Fn(f32) -> f32) -> V32 {
    map1(x, |x| canonical(g(f32::from_bits(x))))
}

#[inline(always)]
fn float1_32(op: F1, mods: &FMods, x: &V32) -> V32 {
    let f = f32::from_bits;
    let r = match op {
        // Inputs are already flushed where the instruction flushes.
        F1::Neg => return map1(x, |x| x ^ 0x8000_0000),
        F1::Abs => return map1(x, |x| x & 0x7fff_ffff),
        F1::Rcp if mods.approx => approximate(x, approx::rcp),
        F1::Rcp if mods.round == Round::Near => map1(x, |x| canonical(1.0 / f(x))),
        F1::Rcp => map1(x, |x| canonical(directed2(F2::Div, 1.0, f(x), mods.round))),
        F1::Sqrt if mods.approx => approximate(x, approx::sqrt),
        F1::Sqrt if mods.round == Round::Near => map1(x, |x| canonical(f(x).sqrt())),
        F1::Sqrt => map1(x, |x| canonical(directed_sqrt(f(x), mods.round))),
        F1::Rsqrt => approximate(x, approx::rsqrt),
        F1::Sin => approximate(x, approx::sin),
        F1::Cos => approximate(x, approx::cos),
        F1::Lg2 => approximate(x, approx::lg2),
        F1::Ex2 => approximate(x, approx::ex2),
        F1::Tanh => approximate(x, approx::tanh),
    };
    finish(r, mods)
}

fn directed_sqrt(x: f32, round: Round) -> f32 {
    let wide = f64::from(x);
    let root = wide.sqrt();
    let rest = (-root).mul_add(root, wide);
    if rest == 0.0 || !root.is_finite() || root.to_bits() & 1 == 1 {
        return round32(root, round);
    }
    let odd = if rest > 0.0 { root.to_bits() + 1 } else { root.to_bits() - 1 };
    round32(f64::from_bits(odd), round)
}

fn float1_64(op: F1, x: f64, mods: &FMods) -> f64 {
    match op {
        F1::Neg => -x,
        F1::Abs => x.abs(),
        F1::Rcp => directed64(F2::Div, 1.0, x, 1.0 / x, mods.round),
        F1::Sqrt => {
            let r = x.sqrt();
            nudge(r, (-r).mul_add(r, x), mods.round, false)
        }
        F1::Rsqrt => 1.0 / x.sqrt(),
        F1::Sin => x.sin(),
        F1::Cos => x.cos(),
        F1::Lg2 => x.log2(),
        F1::Ex2 => x.exp2(),
        F1::Tanh => x.tanh(),
    }
}
