//! Exchanges within a warp: shuffles, votes, matches, reductions. The lanes that take part have
//! met when these run (see `step`).

use super::atomic::redux;
use super::cluster::Ctx;
use super::fault::{Run, stop_lane};
use super::warp::{LANES, V32, lanes};
use crate::error::Rule;
use crate::isa::{Op, ShflMode, VoteMode};

/// Runs an exchange; false if it is another kind.
pub fn run(c: &mut Ctx<'_>, op: &Op) -> Run<bool> {
    match op {
        Op::Shfl { mode, d, p, a, b, c: third, .. } => {
            let (v, by, control) = (c.src32(a), c.src32(b), c.src32(third));
            let (mut r, mut ok): (V32, u32) = ([0; LANES], 0);
            for lane in lanes(c.warp.mask) {
                let (i, inside) =
                    shuffle_source(*mode, lane, by[lane as usize], control[lane as usize]);
                let from = if inside { i } else { lane };
                if c.warp.mask >> from & 1 == 0 {
                    let message = format!("shfl from lane {from}, which does not take part");
                    return stop_lane(Rule::Undefined, lane, message);
                }
                r[lane as usize] = v[from as usize];
                ok |= u32::from(inside) << lane;
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
            let r: V32 = std::array::from_fn(|i| {
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

/// Lane that a shuffle reads, and whether it is inside the lane's segment (ISA pseudocode).
fn shuffle_source(mode: ShflMode, lane: u32, by: u32, control: u32) -> (u32, bool) {
    let (by, clamp, segment) = (by & 31, control & 31, control >> 8 & 31);
    let high = (lane & segment) | (clamp & !segment);
    let low = lane & segment;
    match mode {
        ShflMode::Up => {
            let i = lane as i32 - by as i32;
            (i.max(0) as u32, i >= high as i32)
        }
        ShflMode::Down => (lane + by, lane + by <= high),
        ShflMode::Bfly => (lane ^ by, (lane ^ by) <= high),
        ShflMode::Idx => {
            let i = low | (by & !segment);
            (i, i <= high)
        }
    }
}
