//! Checks that a plan hangs together, so that running it cannot index out of range.

use crate::error::{Error, Result};
use crate::model::plan::{Matrix, Op, Plan, Rows, View};

/// Checks every op's views, widths and indices, and that inputs and outputs do not overlap.
///
/// # Errors
/// Names the op's scope and what does not fit.
pub fn validate(plan: &Plan) -> Result<()> {
    for planned in &plan.ops {
        check_op(plan, &planned.op)
            .map_err(|e| e.context(format!("{} ({})", planned.scope, planned.op.name())))?;
    }
    view(plan, &plan.logits)?;
    let buffer = &plan.buffers[plan.logits.buffer];
    ensure(
        plan.logits.width == plan.vocab_size
            && buffer.width == plan.vocab_size
            && buffer.rows == Rows::Logits,
        "logits must fill a buffer of one vocabulary a logit row",
    )?;
    ensure(
        plan.ropes.iter().all(|r| r.dim % 2 == 0 && r.inv_freq.len() == r.dim / 2),
        "a rotary table needs one frequency for every two columns",
    )
}

fn ensure(holds: bool, what: &str) -> Result<()> {
    if holds {
        Ok(())
    } else {
        Err(Error::unsupported(format!("the plan is inconsistent: {what}")))
    }
}

fn view(plan: &Plan, view: &View) -> Result<()> {
    let buffer = plan.buffers.get(view.buffer);
    let end = view.offset.checked_add(view.width);
    let inside = buffer.is_some_and(|b| end.is_some_and(|end| end <= b.width));
    ensure(inside && view.width > 0, "a view is outside its buffer")
}

/// Views of ops whose output must be in another buffer than their input.
fn apart(plan: &Plan, x: &View, out: &View) -> Result<()> {
    view(plan, x)?;
    view(plan, out)?;
    ensure(x.buffer != out.buffer, "input and output share a buffer")
}

fn same_rows(plan: &Plan, views: &[&View]) -> Result<()> {
    let rows = |v: &View| plan.buffers[v.buffer].rows;
    ensure(views.windows(2).all(|v| rows(v[0]) == rows(v[1])), "row counts differ")
}

/// Ops over tokens' positions and pages have no meaning for logit rows.
fn token_rows(plan: &Plan, views: &[&View]) -> Result<()> {
    let tokens = |v: &&View| plan.buffers[v.buffer].rows == Rows::Tokens;
    ensure(views.iter().all(tokens), "it needs one row per token")
}

fn matrix(plan: &Plan, id: usize) -> Result<&Matrix> {
    let matrix = plan.matrices.get(id);
    let whole = |m: &&Matrix| m.parts.iter().map(|p| p.rows).sum::<usize>() == m.rows;
    matrix.filter(whole).ok_or_else(|| {
        Error::unsupported(format!("the plan is inconsistent: matrix {id} is missing or not whole"))
    })
}

fn product(plan: &Plan, id: usize, from: usize, to: usize) -> Result<()> {
    let m = matrix(plan, id)?;
    ensure((m.rows, m.cols) == (to, from), "a matrix does not fit its input or output")
}

fn vector(plan: &Plan, id: usize, len: usize) -> Result<()> {
    let fits = |v: &crate::model::plan::Vector| {
        v.len == len && v.parts.iter().map(|p| p.1).sum::<usize>() == len
    };
    ensure(plan.vectors.get(id).is_some_and(fits), "a vector has another length")
}

fn check_op(plan: &Plan, op: &Op) -> Result<()> {
    match op {
        Op::Embed { table, out, .. } => {
            view(plan, out)?;
            token_rows(plan, &[out])?;
            product(plan, *table, out.width, plan.vocab_size)
        }
        Op::RmsNorm { x, out, weight, groups, .. } => {
            view(plan, x)?;
            view(plan, out)?;
            same_rows(plan, &[x, out])?;
            ensure(x == out || x.buffer != out.buffer, "input and output overlap")?;
            ensure(x.width == out.width && *groups > 0 && x.width % groups == 0, "widths differ")?;
            vector(plan, *weight, x.width / groups)
        }
        Op::Add { x, y } => {
            apart(plan, x, y)?;
            same_rows(plan, &[x, y])?;
            ensure(x.width == y.width, "widths differ")
        }
        Op::Linear { x, matrix, bias, out } => {
            apart(plan, x, out)?;
            same_rows(plan, &[x, out])?;
            product(plan, *matrix, x.width, out.width)?;
            bias.map_or(Ok(()), |id| vector(plan, id, out.width))
        }
        Op::GatedAct { gate_up, out, .. } => {
            apart(plan, gate_up, out)?;
            same_rows(plan, &[gate_up, out])?;
            ensure(gate_up.width == 2 * out.width, "gate and up are not twice the output")
        }
        Op::Gather { x, out } => {
            apart(plan, x, out)?;
            token_rows(plan, &[x])?;
            let logits = plan.buffers[out.buffer].rows == Rows::Logits;
            ensure(logits && x.width == out.width, "it gathers into logit rows of one width")
        }
        Op::Softcap { x, cap } => {
            view(plan, x)?;
            ensure(*cap > 0.0, "a soft cap must be positive")
        }
        Op::Rope { .. } | Op::KvWrite { .. } | Op::Attention { .. } => check_heads(plan, op),
        Op::Moe { .. } => check_moe(plan, op),
    }
}

fn check_heads(plan: &Plan, op: &Op) -> Result<()> {
    let kv = plan.kv;
    match op {
        Op::Rope { q, k, heads, kv_heads, head_dim, rope } => {
            view(plan, q)?;
            view(plan, k)?;
            token_rows(plan, &[q, k])?;
            let whole = q.width == heads * head_dim && k.width == kv_heads * head_dim;
            let table = plan.ropes.get(*rope).is_some_and(|r| r.dim <= *head_dim);
            ensure(whole && table, "heads or rotary table do not fit")
        }
        Op::KvWrite { k, v, layer } => {
            view(plan, k)?;
            view(plan, v)?;
            token_rows(plan, &[k, v])?;
            let width = kv.kv_heads * kv.head_dim;
            let fits = k.width == width && v.width == width && *layer < kv.layers;
            ensure(fits, "keys or values do not fit the cache")
        }
        Op::Attention { q, out, layer, heads, kv_heads, head_dim, softcap, window, .. } => {
            apart(plan, q, out)?;
            token_rows(plan, &[q, out])?;
            let shape = (*kv_heads, *head_dim) == (kv.kv_heads, kv.head_dim) && *layer < kv.layers;
            let grouped = *kv_heads > 0 && *heads > 0 && heads % kv_heads == 0;
            let width = q.width == heads * head_dim && out.width == q.width;
            ensure(shape && grouped && width, "heads do not fit the cache or the views")?;
            ensure(softcap.is_none_or(|c| c > 0.0), "a soft cap must be positive")?;
            ensure(window.is_none_or(|w| w > 0), "a window must be at least 1")
        }
        _ => Ok(()),
    }
}

fn check_moe(plan: &Plan, op: &Op) -> Result<()> {
    let Op::Moe { x, out, router, experts, intermediate, top_k, .. } = op else {
        return Ok(());
    };
    apart(plan, x, out)?;
    token_rows(plan, &[x, out])?;
    ensure(x.width == out.width, "widths differ")?;
    ensure((1..=experts.len()).contains(top_k), "more experts a token than there are")?;
    product(plan, *router, x.width, experts.len())?;
    for expert in experts {
        product(plan, expert.gate_up, x.width, 2 * intermediate)?;
        product(plan, expert.down, *intermediate, x.width)?;
    }
    Ok(())
}
