//! Exchanges within a warp: shuffles, votes, matches, reductions. The lanes that take part have
//! met when these run (see `step`).

use super::atomic::redux;
use super::cluster::Ctx;
use super::fault::{Run, stop_lane};
use super::warp::{LANES, V32, each_lane, lanes};
use crate::error::Rule;
use crate::isa::{Op, ShflMode, VoteMode};

/// Runs an exchange; false if it is another kind.
#[inline(always)]
pub fn run(c: &mut Ctx<'_>, op: &Op) -> Run<bool> {
    match op {
        Op::Shfl { mode, d, p, a, b, c: third, .. } => {
            let (v, by, control) = (c.src32(a), c.src32(b), c.src32(third));
            let (r, ok, absent) = shuffle(*mode, c.warp.mask, &v, &by, &control);
            if let Some((lane, from)) = absent {
                let message = format!("shfl from lane {from}, which does not take part");
                return stop_lane(Rule::Undefined, lane, message);
            }
            c.warp.set32(*d, &r);
            c.warp.set_pred(*p, ok);
        }
        Op::Vote { mode, d, p, .. } => {
            let yes = c.warp.pred(*p) & c.warp.mask;
            let all = c.warp.mask;
            let truth = match mode {
                VoteMode::All => yes == all,
                VoteMode::Any => yes != 0,
                VoteMode::Uni => yes == all || yes == 0,
                VoteMode::Ballot => {
                    c.warp.set32(*d, &[yes; LANES]);
                    return Ok(true);
                }
            };
            c.warp.set_pred(*d, if truth { u32::MAX } else { 0 });
        }
        Op::Match { all, d, p, a, .. } => {
            let v = c.src64(a);
            let mask = c.warp.mask;
            let same = |lane: u32| {
                lanes(mask)
                    .filter(|o| v[*o as usize] == v[lane as usize])
                    .fold(0, |m, o| m | 1 << o)
            };
            let r: V32 = each_lane(|i| {
                let equal = same(i as u32);
                if *all && equal != mask { 0 } else { equal }
            });
            let truth = lanes(mask).next().is_some_and(|lane| same(lane) == mask);
            c.warp.set32(*d, &r);
            c.warp.set_pred(*p, if truth { u32::MAX } else { 0 });
        }
        Op::Redux { op, ty, d, a, .. } => {
            let v = c.src32(a);
            let r = redux(*op, *ty, lanes(c.warp.mask).map(|l| v[l as usize]));
            c.warp.set32(*d, &[r; LANES]);
        }
        Op::ActiveMask { d } => {
            let mask = c.warp.mask;
            c.warp.set32(*d, &[mask; LANES]);
        }
        Op::Elect { d, p, .. } => {
            let leader = c.warp.mask.trailing_zeros();
            c.warp.set32(*d, &[leader; LANES]);
            c.warp.set_pred(*p, 1 << leader);
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// What each lane gets, the lanes whose source is inside their segment, and the first lane whose
/// source does not take part, with that source (ISA pseudocode).
#[inline(always)]
fn shuffle(
    mode: ShflMode,
    mask: u32,
    v: &V32,
    by: &V32,
    control: &V32,
) -> (V32, u32, Option<(u32, u32)>) {
    let by = |i: usize| by[i] & 31;
    // The highest lane that may be read; for `up` the lowest.
    let bound = |i: usize| {
        let (clamp, segment) = (control[i] & 31, control[i] >> 8 & 31);
        (i as u32 & segment) | (clamp & !segment)
    };
    match mode {
        ShflMode::Up => gather(mask, v, |i| {
            let from = i as i32 - by(i) as i32;
            (from.max(0) as u32, from >= bound(i) as i32)
        }),
        ShflMode::Down => gather(mask, v, |i| (i as u32 + by(i), i as u32 + by(i) <= bound(i))),
        ShflMode::Bfly => gather(mask, v, |i| (i as u32 ^ by(i), (i as u32 ^ by(i)) <= bound(i))),
        ShflMode::Idx => gather(mask, v, |i| {
            let segment = control[i] >> 8 & 31;
            let from = (i as u32 & segment) | (by(i) & !segment);
            (from, from <= bound(i))
        }),
    }
}

/// Reads each lane's source; a lane whose source is outside reads itself.
#[inline(always)]
fn gather(
    mask: u32,
    v: &V32,
    source: impl Fn(usize) -> (u32, bool),
) -> (V32, u32, Option<(u32, u32)>) {
    let (mut r, mut ok, mut absent) = ([0; LANES], 0, None);
    for i in 0..LANES {
        let (from, inside) = source(i);
        let from = if inside { from as usize % LANES } else { i };
        r[i] = v[from];
        ok |= u32::from(inside) << i;
        if mask >> i & 1 != 0 && mask >> from & 1 == 0 && absent.is_none() {
            absent = Some((i as u32, from as u32));
        }
    }
    (r, ok, absent)
}
