//! Which neighbouring ops one kernel carries out together: a pure function of the plan.

use crate::model::plan::{Op, Plan, PlannedOp, View};

/// What a kernel, or a stage of several, does at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    Alone,
    /// `x += y`, and the norm of the sum.
    AddNorm,
    /// A product, and `act(gate) ⊙ up` of it.
    LinearGated,
    /// A product, added to the residual stream before it is rounded.
    LinearAdd,
    /// q and k rotated, k and v stored.
    RopeWrite,
    /// The same after a norm of each head of q and k.
    NormsRopeWrite,
}

impl Group {
    /// Ops of the plan that it takes.
    pub fn ops(self) -> usize {
        match self {
            Group::Alone => 1,
            Group::AddNorm | Group::LinearGated | Group::LinearAdd | Group::RopeWrite => 2,
            Group::NormsRopeWrite => 4,
        }
    }
}

/// The plan as groups, each with the index of its first op.
pub fn groups(plan: &Plan) -> Vec<(usize, Group)> {
    let mut all = Vec::new();
    let mut first = 0;
    while let Some(rest) = plan.ops.get(first..).filter(|r| !r.is_empty()) {
        let group = group(plan, rest);
        all.push((first, group));
        first += group.ops();
    }
    all
}

fn group(plan: &Plan, ops: &[PlannedOp]) -> Group {
    let next = ops.get(1).map(|o| &o.op);
    match (&ops[0].op, next) {
        (Op::Add { x, y }, Some(Op::RmsNorm { x: sum, out, groups: 1, .. }))
            if x == sum && out.buffer != x.buffer && out.buffer != y.buffer =>
        {
            Group::AddNorm
        }
        (Op::Linear { out, .. }, Some(Op::GatedAct { gate_up, .. })) if out == gate_up => {
            Group::LinearGated
        }
        (Op::Linear { x: input, out, .. }, Some(Op::Add { x, y }))
            if out == y && input.buffer != x.buffer && is_dead(plan, &ops[2..], out) =>
        {
            Group::LinearAdd
        }
        (Op::Rope { k, .. }, Some(Op::KvWrite { k: stored, .. })) if k == stored => {
            Group::RopeWrite
        }
        (Op::RmsNorm { .. }, _) if norms_of_heads(plan, ops) => Group::NormsRopeWrite,
        _ => Group::Alone,
    }
}

/// Whether `ops` begin with per-head norms of q and k, in place, that `cuda/rope.cu` can do: whole
/// heads rotate, and a head's threads are a power of two.
fn norms_of_heads(plan: &Plan, ops: &[PlannedOp]) -> bool {
    let [a, b, c, d, ..] = ops else { return false };
    let (
        Op::RmsNorm { x: q, out: q_out, groups: q_heads, eps, plus_one, .. },
        Op::RmsNorm { x: k, out: k_out, groups: k_heads, eps: k_eps, plus_one: k_plus, .. },
        Op::Rope { q: rq, k: rk, heads, kv_heads, head_dim, rope },
        Op::KvWrite { k: stored, v, .. },
    ) = (&a.op, &b.op, &c.op, &d.op)
    else {
        return false;
    };
    let half = head_dim / 2;
    let whole = plan.ropes[*rope].dim == *head_dim && half % 8 == 0 && (half / 8).is_power_of_two();
    let same = (q, k, k, q, k) == (q_out, k_out, stored, rq, rk);
    let alike = (eps, plus_one, q_heads, k_heads) == (k_eps, k_plus, heads, kv_heads);
    whole && same && alike && [q, k, v].into_iter().all(|view| is_wide(plan, view))
}

/// Whether the view's rows begin at multiples of 16 bytes.
fn is_wide(plan: &Plan, view: &View) -> bool {
    [view.offset, view.width, plan.buffers[view.buffer].width].iter().all(|n| n % 8 == 0)
}

/// Whether nothing in `ops` reads `view` before all of it is written anew.
fn is_dead(plan: &Plan, ops: &[PlannedOp], view: &View) -> bool {
    let overlaps = |v: &View| {
        v.buffer == view.buffer
            && v.offset < view.offset + view.width
            && view.offset < v.offset + v.width
    };
    for planned in ops {
        let (reads, writes) = uses(&planned.op);
        if reads.iter().any(|v| overlaps(v)) {
            return false;
        }
        let covers = |v: &&View| {
            v.buffer == view.buffer
                && v.offset <= view.offset
                && v.offset + v.width >= view.offset + view.width
        };
        if writes.iter().any(covers) {
            return true;
        }
    }
    !overlaps(&plan.logits)
}

/// Views that an op reads, and those that it writes whole.
fn uses(op: &Op) -> (Vec<&View>, Vec<&View>) {
    match op {
        Op::Embed { out, .. } => (vec![], vec![out]),
        Op::RmsNorm { x, out, .. }
        | Op::Linear { x, out, .. }
        | Op::Moe { x, out, .. }
        | Op::Gather { x, out } => (vec![x], vec![out]),
        Op::Add { x, y } => (vec![x, y], vec![]),
        Op::Rope { q, k, .. } => (vec![q, k], vec![]),
        Op::KvWrite { k, v, .. } => (vec![k, v], vec![]),
        Op::Attention { q, out, .. } => (vec![q], vec![out]),
        Op::GatedAct { gate_up, out, .. } => (vec![gate_up], vec![out]),
        Op::Softcap { x, .. } => (vec![x], vec![]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{arch, config_hf};

    fn plan(name: &str) -> Plan {
        let tests = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        let config = config_hf::from_folder(&tests.join(name), None).unwrap();
        arch::plan(&config, 64).unwrap()
    }

    /// The groups of the plan's first layer.
    fn layer(plan: &Plan) -> Vec<Group> {
        let all = groups(plan);
        let of_layer = all.iter().filter(|(first, _)| plan.ops[*first].layer == Some(0));
        of_layer.map(|g| g.1).collect()
    }

    #[test]
    fn a_llama_layer_takes_eight_launches() {
        use Group::{Alone, LinearAdd, LinearGated, RopeWrite};
        let plan = plan("llama");
        let want = [Alone, Alone, RopeWrite, Alone, LinearAdd, Alone, LinearGated, LinearAdd];
        assert_eq!(layer(&plan), want);
        let covered: usize = groups(&plan).iter().map(|(_, g)| g.ops()).sum();
        assert_eq!(covered, plan.ops.len());
    }

    #[test]
    fn norms_of_heads_go_with_the_rotation_and_norms_of_outputs_keep_the_sum_apart() {
        assert!(layer(&plan("qwen3")).contains(&Group::NormsRopeWrite));
        let gemma = layer(&plan("gemma2"));
        assert!(gemma.contains(&Group::AddNorm) && !gemma.contains(&Group::LinearAdd));
    }

    #[test]
    fn a_product_that_is_read_again_is_written() {
        let mut plan = plan("llama");
        let at = groups(&plan).iter().find(|(_, g)| *g == Group::LinearAdd).unwrap().0;
        let Op::Linear { out, .. } = plan.ops[at].op else { panic!("a product") };
        let Op::RmsNorm { x, .. } = &mut plan.ops[at + 2].op else { panic!("a norm") };
        *x = out;
        assert!(groups(&plan).contains(&(at, Group::Alone)));
    }
}
