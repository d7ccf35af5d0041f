//! The ops, one a file: checks, choice of kernel, geometry, traffic.

mod attention;
mod elementwise;
pub mod fuse;
mod gemm;
mod linear;
mod moe;
mod norm;
mod rope;

pub use linear::operand_map;
pub use rope::{Angles, angle_bytes};

use self::fuse::Group;
use super::launch::{Launchable, Prepare};
use crate::error::{Error, Result};
use crate::model::plan::{Activation, Op, PlannedOp};

/// One launchable and the ops of the plan that it carries out: `count` from `first` on.
pub struct Prepared {
    pub op: Box<dyn Launchable>,
    pub first: usize,
    pub count: usize,
}

/// Prepares all ops, some together with those that follow.
///
/// # Errors
/// Names the op for which no kernel fits.
pub fn prepare(p: &mut Prepare<'_>) -> Result<Vec<Prepared>> {
    let plan = p.plan;
    let mut all = Vec::new();
    for (first, group) in fuse::groups(plan) {
        let planned = &plan.ops[first];
        let ops = &plan.ops[first..first + group.ops()];
        let op = fused(p, ops, group)
            .map_err(|e| e.context(format!("{} ({})", planned.scope, planned.op.name())))?;
        all.push(Prepared { op, first, count: group.ops() });
    }
    Ok(all)
}

type Boxed = Box<dyn Launchable>;

fn fused(p: &mut Prepare<'_>, ops: &[PlannedOp], group: Group) -> Result<Boxed> {
    let second = ops.get(1).map(|o| &o.op);
    Ok(match (group, &ops[0].op, second) {
        (Group::AddNorm, Op::Add { y, .. }, Some(norm)) => {
            Box::new(norm::Norm::new(p, norm, Some(y))?)
        }
        (Group::LinearGated, Op::Linear { x, matrix, bias, .. }, Some(gated)) => {
            let Op::GatedAct { out, act, .. } = gated else { return alone(p, &ops[0].op) };
            Box::new(linear::Linear::gated(p, (x, *matrix, *bias), out, *act)?)
        }
        (Group::LinearAdd, Op::Linear { x, matrix, bias, .. }, Some(Op::Add { x: sum, .. })) => {
            Box::new(linear::Linear::added(p, (x, *matrix, *bias), sum)?)
        }
        (Group::RopeWrite, rope, Some(write)) => Box::new(rope::Rope::new(p, Some(rope), write)?),
        (Group::NormsRopeWrite, q_norm, Some(k_norm)) => {
            Box::new(rope::Rope::normed(p, (q_norm, k_norm), &ops[2].op, &ops[3].op)?)
        }
        (_, op, _) => alone(p, op)?,
    })
}

fn alone(p: &mut Prepare<'_>, op: &Op) -> Result<Boxed> {
    Ok(match op {
        Op::Embed { table, out, scale } => {
            Box::new(elementwise::Embed::new(p, *table, out, *scale)?)
        }
        Op::RmsNorm { .. } => Box::new(norm::Norm::new(p, op, None)?),
        Op::Add { x, y } => Box::new(elementwise::Add::new(p, x, y)?),
        Op::Linear { x, matrix, bias, out } => {
            Box::new(linear::Linear::new(p, (x, *matrix, *bias), out)?)
        }
        Op::Rope { .. } => {
            return Err(Error::unsupported(
                "rotated keys that are not stored at once have no kernel",
            ));
        }
        Op::KvWrite { .. } => Box::new(rope::Rope::new(p, None, op)?),
        Op::Attention { .. } => Box::new(attention::Attention::new(p, op)?),
        Op::GatedAct { gate_up, out, act } => {
            Box::new(elementwise::Gated::new(p, gate_up, out, *act)?)
        }
        Op::Moe { .. } => Box::new(moe::Moe::new(p, op)?),
        Op::Gather { x, out } => Box::new(elementwise::Gather::new(p, x, out)?),
        Op::Softcap { x, cap } => Box::new(elementwise::Softcap::new(p, x, *cap)?),
    })
}

/// The activation's number in `cuda/abi.h`.
fn act_number(act: Activation) -> u32 {
    match act {
        Activation::Silu => 0,
        Activation::GeluTanh => 1,
        Activation::Gelu => 2,
    }
}
