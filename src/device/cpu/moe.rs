//! Mixture of experts: tokens are grouped by expert, so each expert's weights are read once.
//!
//! A token's result adds up its experts in ascending order of their index, whatever else is in
//! the batch.

use super::matmul::Scratch;
use super::numbers::Numbers;
use super::ops::activation::gated;
use super::ops::norm::add_scaled;
use super::parallel::{Columns, each_piece};
use super::prepare::Model;
use super::simd::{Isa, LANES, math, simd_fn};
use crate::device::Limits;
use crate::error::{Error, Result};
use crate::model::plan::{Activation, Expert, MatrixId, Op, Plan};

/// What is fixed about one op.
pub struct Moe<'a> {
    pub router: MatrixId,
    pub experts: &'a [Expert],
    pub intermediate: usize,
    pub top_k: usize,
    pub renormalise: bool,
    pub act: Activation,
}

impl<'a> Moe<'a> {
    /// What is fixed about a mixture op, `None` of others.
    pub fn of(op: &'a Op) -> Option<Self> {
        match op {
            Op::Moe { router, experts, intermediate, top_k, renormalise, act, .. } => Some(Moe {
                router: *router,
                experts,
                intermediate: *intermediate,
                top_k: *top_k,
                renormalise: *renormalise,
                act: *act,
            }),
            _ => None,
        }
    }
}

/// A token sent to an expert.
#[derive(Debug, Clone, Copy, Default)]
struct Choice {
    token: u32,
    expert: u32,
    share: f32,
}

/// Buffers for the largest of a plan's mixtures.
pub struct Workspace {
    /// `[tokens, experts]`
    routed: Numbers,
    choices: Vec<Choice>,
    /// `[tokens, hidden]`, the rows of one expert's tokens.
    gathered: Numbers,
    gate_up: Numbers,
    active: Numbers,
    down: Numbers,
}

impl Workspace {
    /// Buffers for `plan`; empty if it has no experts.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn new(plan: &Plan, limits: &Limits) -> Result<Self> {
        // Experts, hidden size, intermediate size and experts a token, each the largest.
        let mut most = [0; 4];
        for planned in &plan.ops {
            if let Op::Moe { x, out, experts, intermediate, top_k, .. } = &planned.op {
                let sizes = [experts.len(), x.width.max(out.width), *intermediate, *top_k];
                most = std::array::from_fn(|i| most[i].max(sizes[i]));
            }
        }
        let [experts, hidden, intermediate, top_k] = most;
        let rows = |width: usize| limits.step_tokens.checked_mul(width).and_then(Numbers::zeroed);
        let all = || {
            Some(Workspace {
                routed: rows(experts)?,
                choices: Vec::with_capacity(limits.step_tokens.checked_mul(top_k)?),
                gathered: rows(hidden)?,
                gate_up: rows(2 * intermediate)?,
                active: rows(intermediate)?,
                down: rows(hidden)?,
            })
        };
        all().ok_or_else(|| Error::limit("expert buffers do not fit; lower the step's tokens"))
    }

    pub fn bytes(&self) -> u64 {
        let lens = [&self.routed, &self.gathered, &self.gate_up, &self.active, &self.down];
        let numbers: usize = lens.iter().map(|v| v.len()).sum();
        (numbers * 4 + self.choices.capacity() * size_of::<Choice>()) as u64
    }
}

/// `out[t] = Σ shareⱼ · expertⱼ(x[t])` for `rows` tokens.
pub fn moe(
    model: &Model,
    op: &Moe,
    rows: usize,
    (x, x_columns): (&[f32], Columns),
    (out, out_columns): (&mut [f32], Columns),
    space: &mut Workspace,
    scratch: &mut Scratch,
) {
    let (isa, count) = (model.isa, op.experts.len());
    let from = &x[x_columns.start..];
    let router = model.matrix(op.router);
    let source = (from, x_columns.stride);
    model.product(scratch, source, rows, router, None, (&mut space.routed, count));
    space.choices.clear();
    for token in 0..rows {
        let scores = &mut space.routed[token * count..(token + 1) * count];
        choose(isa, op, token, scores, &mut space.choices);
        out[out_columns.of(token)].fill(0.0);
    }
    // Stable within an expert without a buffer: the key is unique.
    space.choices.sort_unstable_by_key(|c| (c.expert, c.token));
    let mut rest = space.choices.as_slice();
    while let Some(first) = rest.first() {
        let len = rest.partition_point(|c| c.expert == first.expert);
        let (mine, others) = rest.split_at(len);
        rest = others;
        run_expert(
            model,
            op,
            mine,
            (x, x_columns),
            Buffers {
                gathered: &mut space.gathered,
                gate_up: &mut space.gate_up,
                active: &mut space.active,
                down: &mut space.down,
            },
            scratch,
        );
        for (choice, result) in mine.iter().zip(space.down.chunks(out_columns.len)) {
            add_scaled(isa, &mut out[out_columns.of(choice.token as usize)], result, choice.share);
        }
    }
}

/// The parts of the workspace that one expert uses.
struct Buffers<'a> {
    gathered: &'a mut [f32],
    gate_up: &'a mut [f32],
    active: &'a mut [f32],
    down: &'a mut [f32],
}

/// `down[i] = expert(x[choices[i].token])`, rows packed one after another.
fn run_expert(
    model: &Model,
    op: &Moe,
    choices: &[Choice],
    (x, columns): (&[f32], Columns),
    to: Buffers,
    scratch: &mut Scratch,
) {
    let expert = &op.experts[choices[0].expert as usize];
    let (rows, inner, width) = (choices.len(), op.intermediate, columns.len);
    for (choice, row) in choices.iter().zip(to.gathered.chunks_mut(width)) {
        row.copy_from_slice(&x[columns.of(choice.token as usize)]);
    }
    let (pool, gate_up, down) =
        (&model.pool, model.matrix(expert.gate_up), model.matrix(expert.down));
    model.product(scratch, (to.gathered, width), rows, gate_up, None, (to.gate_up, 2 * inner));
    let whole = Columns { stride: inner, start: 0, len: inner };
    let both: &[f32] = to.gate_up;
    each_piece(pool, rows, to.active, whole, &|row, first, part| {
        let gate = row * 2 * inner + first;
        let (gate, up) = (&both[gate..], &both[gate + inner..]);
        gated(model.isa, part, &gate[..part.len()], &up[..part.len()], op.act);
    });
    let hidden = model.plan.matrices[expert.down].rows;
    model.product(scratch, (to.active, inner), rows, down, None, (to.down, hidden));
}

/// Appends the `top_k` experts of one token. `scores` are its router logits, and are used up.
fn choose(isa: Isa, op: &Moe, token: usize, scores: &mut [f32], choices: &mut Vec<Choice>) {
    softmax(isa, scores);
    let first = choices.len();
    for _ in 0..op.top_k {
        let mut best = 0;
        for (expert, share) in scores.iter().enumerate() {
            if *share > scores[best] {
                best = expert;
            }
        }
        choices.push(Choice { token: token as u32, expert: best as u32, share: scores[best] });
        // Shares are at least 0, so a chosen expert is never chosen again.
        scores[best] = -1.0;
    }
    if op.renormalise {
        let total: f32 = choices[first..].iter().map(|c| c.share).sum();
        choices[first..].iter_mut().for_each(|c| c.share /= total);
    }
}

simd_fn! {
    /// `x = softmax(x)`, one sum in index order.
    fn softmax<S>(x: &mut [f32]) {
        let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut sum = 0.0;
        for part in x.chunks_mut(LANES) {
            let mut all = super::simd::padded(part);
            math::exp(S::load(&all).sub(S::splat(max))).store(&mut all);
            part.copy_from_slice(&all[..part.len()]);
            part.iter().for_each(|weight| sum += weight);
        }
        x.iter_mut().for_each(|weight| *weight /= sum);
    }
}
