//! Moves, packing, address conversions.

use super::cluster::Ctx;
use super::fault::{Run, stop_lane};
use super::int::{bits, map1, map2};
use super::warp::{LANES, V64, lanes};
use crate::error::Rule;
use crate::isa::{Op, RegKind, Space, Src};
use crate::memory::{LOCAL_WINDOW, PARAM_WINDOW, RANK_SHIFT, SHARED_WINDOW, WINDOW_BYTES};

/// Runs a move or a (un)packing; false if it is another kind.
#[inline(always)]
pub fn run(c: &mut Ctx<'_>, op: &Op) -> Run<bool> {
    match op {
        Op::Mov { d, a } => mov(c, *d, a),
        Op::MovPred { d, a } => {
            let v = c.warp.pred(*a);
            c.warp.set_pred(*d, v);
        }
        Op::Pack { d, parts, bits } => {
            let mut r: V64 = [0; LANES];
            let cut = u64::MAX >> (64 - bits);
            for (n, part) in parts.iter().enumerate() {
                let shift = n as u32 * bits;
                let v = c.src64(part);
                r = map2(&r, &v, |r, v| r | (v & cut) << shift);
            }
            c.warp.set64(*d, &r);
        }
        Op::Unpack { parts, a, bits } => {
            let v = c.src64(a);
            let cut = u64::MAX >> (64 - bits);
            for (n, part) in parts.iter().enumerate() {
                let shift = n as u32 * bits;
                c.warp.set64(*part, &map1(&v, |v| v >> shift & cut));
            }
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// Runs an instruction about addresses; false if it is another kind.
pub fn run_address(c: &mut Ctx<'_>, op: &Op) -> Run<bool> {
    match op {
        Op::Cvta { space, to_generic, d, a } => {
            let base = window(*space);
            let v = c.src64(a);
            let r = match to_generic {
                true => map1(&v, |v| v.wrapping_add(base)),
                false => map1(&v, |v| v.wrapping_sub(base)),
            };
            c.warp.set64(*d, &r);
        }
        Op::IsSpace { space, d, a } => {
            let v = c.src64(a);
            let rank = c.warp.rank as u64 + 1;
            let r = map1(&v, |v| match *space {
                Space::Shared => in_window(v, SHARED_WINDOW) && own_shared(v, rank),
                Space::SharedCluster => in_window(v, SHARED_WINDOW),
                Space::Local => in_window(v, LOCAL_WINDOW),
                Space::Param => in_window(v, PARAM_WINDOW),
                _ => v < SHARED_WINDOW,
            });
            c.warp.set_pred(*d, bits(&r));
        }
        Op::Mapa { d, a, rank, generic } => {
            let (v, ranks) = (c.src64(a), c.src32(rank));
            let blocks = c.cl.blocks.len() as u32;
            for lane in lanes(c.warp.mask) {
                if ranks[lane as usize] >= blocks {
                    let message = format!("mapa to rank {} of {blocks}", ranks[lane as usize]);
                    return stop_lane(Rule::BadOperand, lane, message);
                }
            }
            let base = if *generic { SHARED_WINDOW } else { 0 };
            let r: V64 = map2(&v, &ranks, |v, rank| {
                let at = v.wrapping_sub(base) & ((1 << RANK_SHIFT) - 1);
                base + (u64::from(rank + 1) << RANK_SHIFT | at)
            });
            c.warp.set64(*d, &r);
        }
        Op::GetCtaRank { d, a, generic } => {
            let v = c.src64(a);
            let base = if *generic { SHARED_WINDOW } else { 0 };
            let own = c.warp.rank as u64;
            let r: V64 = map1(&v, |v| match v.wrapping_sub(base) >> RANK_SHIFT {
                0 => own,
                rank => rank - 1,
            });
            c.warp.set64(*d, &r);
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// A plain copy carries an undefined value along; only a use of it is an error.
#[inline(always)]
fn mov(c: &mut Ctx<'_>, d: crate::isa::Reg, a: &Src) {
    let lacking = match a {
        Src::Reg(reg) => c.warp.mask & !c.warp.defined(*reg),
        _ => 0,
    };
    if d.kind == RegKind::B64 {
        let v = c.src64(a);
        c.warp.set64(d, &v);
    } else {
        let v = c.src32(a);
        c.warp.set32(d, &v);
    }
    if lacking != 0 && !c.warp.wgmma.in_flight(a) {
        c.warp.bad = 0;
        c.warp.undefine(d, lacking);
    }
}

pub fn window(space: Space) -> u64 {
    match space {
        Space::Shared | Space::SharedCluster => SHARED_WINDOW,
        Space::Local => LOCAL_WINDOW,
        Space::Param => PARAM_WINDOW,
        _ => 0,
    }
}

pub fn in_window(v: u64, base: u64) -> bool {
    v.wrapping_sub(base) < WINDOW_BYTES
}

fn own_shared(v: u64, rank: u64) -> bool {
    let named = (v - SHARED_WINDOW) >> RANK_SHIFT;
    named == 0 || named == rank
}
