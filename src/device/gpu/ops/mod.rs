//! The ops, one a file: checks, choice of kernel, geometry, traffic.

mod attention;
mod elementwise;
mod gemm;
mod linear;
mod moe;
mod norm;
mod rope;

pub use attention::tile_rows;
pub use rope::{Angles, angle_bytes};

use super::launch::{Launchable, Prepare};
use crate::error::Result;
use crate::model::plan::{Activation, Op};

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
    let ops: Vec<Op> = p.plan.ops.iter().map(|planned| planned.op.clone()).collect();
    let mut all = Vec::new();
    let mut first = 0;
    while first < ops.len() {
        let planned = &p.plan.ops[first];
        let place = format!("{} ({})", planned.scope, planned.op.name());
        let (op, count) = one(p, &ops[first..]).map_err(|e| e.context(place))?;
        all.push(Prepared { op, first, count });
        first += count;
    }
    Ok(all)
}

type Boxed = (Box<dyn Launchable>, usize);

/// Prepares the first of `ops`, with its neighbours where one kernel does both.
fn one(p: &mut Prepare<'_>, ops: &[Op]) -> Result<Boxed> {
    let next = ops.get(1);
    Ok(match (&ops[0], next) {
        (Op::Add { x, y }, Some(norm @ Op::RmsNorm { x: sum, out, groups: 1, .. }))
            if x == sum && out.buffer != x.buffer && out.buffer != y.buffer =>
        {
            (Box::new(norm::Norm::new(p, norm, Some(y))?), 2)
        }
        (Op::Linear { matrix, bias, x, out }, Some(Op::GatedAct { gate_up, out: gated, act }))
            if out == gate_up =>
        {
            (Box::new(linear::Linear::gated(p, (x, *matrix, *bias), gated, *act)?), 2)
        }
        (rope @ Op::Rope { k, .. }, Some(Op::KvWrite { k: stored, v, layer })) if k == stored => {
            (Box::new(rope::Rope::new(p, Some(rope), (k, v), *layer)?), 2)
        }
        (Op::Embed { table, out, scale }, _) => {
            (Box::new(elementwise::Embed::new(p, *table, out, *scale)?), 1)
        }
        (norm @ Op::RmsNorm { .. }, _) => (Box::new(norm::Norm::new(p, norm, None)?), 1),
        (Op::Add { x, y }, _) => (Box::new(elementwise::Add::new(p, x, y)?), 1),
        (Op::Linear { x, matrix, bias, out }, _) => {
            (Box::new(linear::Linear::new(p, (x, *matrix, *bias), out)?), 1)
        }
        (Op::Rope { .. }, _) => {
            return Err(crate::error::Error::unsupported(
                "rotated keys that are not stored at once have no kernel",
            ));
        }
        (Op::KvWrite { k, v, layer }, _) => {
            (Box::new(rope::Rope::new(p, None, (k, v), *layer)?), 1)
        }
        (attention @ Op::Attention { .. }, _) => {
            (Box::new(attention::Attention::new(p, attention)?), 1)
        }
        (Op::GatedAct { gate_up, out, act }, _) => {
            (Box::new(elementwise::Gated::new(p, gate_up, out, *act)?), 1)
        }
        (moe @ Op::Moe { .. }, _) => (Box::new(moe::Moe::new(p, moe)?), 1),
        (Op::Gather { x, out }, _) => (Box::new(elementwise::Gather::new(p, x, out)?), 1),
        (Op::Softcap { x, cap }, _) => (Box::new(elementwise::Softcap::new(p, x, *cap)?), 1),
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
