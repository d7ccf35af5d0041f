//! The op table of a pass by a GPU's own account: its kernels and copies, joined with the plan by
//! the op that each belongs to. CUPTI's times or events on a card, projected ones on the PTX
//! machine.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::OneBatch;
use super::ops::{Gpu, OpTable, OpTime};
use crate::model::cost::{Cost, StepShape, Storage, cost};
use crate::model::plan::Plan;
use crate::profile::describe::layers_as_star;
use crate::profile::gpu::{
    GpuSpan, GpuTrace, GpuWork, Owner, SAMPLING, Session, Taken, UNKNOWN, is_known, owner_name,
};

/// A GPU that tells of its work while a pass is recorded.
pub struct Account {
    gpu: Arc<dyn GpuTrace>,
    session: Session,
}

impl Account {
    /// `None` where there is no GPU, or one that tells somebody else.
    pub fn open(subject: &dyn OneBatch) -> Option<Account> {
        let gpu = subject.gpu()?;
        let session = Session::begin(&gpu)?;
        Some(Account { gpu, session })
    }

    /// What it did since the last call.
    pub fn take(&self) -> Taken {
        self.session.take(true)
    }

    /// Like ops of all layers together, slowest first; `shapes` are the steps that were taken. A
    /// prefill that came in chunks counts as one step, so its least work stays the least.
    pub fn table(
        &self,
        subject: &dyn OneBatch,
        plan: &Plan,
        storage: &Storage,
        taken: Taken,
        shapes: &[StepShape],
    ) -> OpTable {
        let work = |s: &&GpuSpan| !matches!(s.work, GpuWork::Launch | GpuWork::Wait);
        let spans: Vec<&GpuSpan> = taken.spans.iter().filter(work).collect();
        let parts: BTreeMap<usize, usize> = self.gpu.fused().into_iter().collect();
        let mut named: BTreeMap<(String, String), OpTime> = BTreeMap::new();
        for span in &spans {
            let (op, scope) = name(plan, &parts, span.owner);
            let entry = named.entry((op, scope)).or_insert_with_key(|(op, scope)| OpTime {
                op: op.clone(),
                scope: scope.clone(),
                count: 0,
                total: 0.0,
                cost: Cost::default(),
                quantised: false,
            });
            entry.count += 1;
            entry.total += seconds(span.start_ns, span.end_ns);
        }
        for shape in shapes {
            for (first, least) in subject.declared(shape) {
                let count = parts.get(&first).copied().unwrap_or(1);
                if let Some(entry) = named.get_mut(&name(plan, &parts, first as Owner)) {
                    entry.cost += together(plan, storage, first..first + count, shape, least);
                }
            }
            let rows = (shape.logit_rows * plan.vocab_size * 4) as u64;
            if let Some(entry) = named.get_mut(&name(plan, &parts, SAMPLING)) {
                entry.cost += Cost { activation_bytes: rows, ..Cost::default() };
            }
        }
        let mut ops: Vec<OpTime> = named.into_values().collect();
        ops.sort_by(|a, b| b.total.total_cmp(&a.total));
        let gpu = Gpu {
            source: self.session.times.source.clone(),
            projected: self.session.times.source.starts_with("projected"),
            ceiling: self.gpu.ceiling(),
            elapsed: elapsed(&spans),
            launches: spans.len() as u64,
        };
        OpTable { ops, dropped: taken.dropped, gpu: Some(gpu) }
    }
}

/// The least work of ops that are done at once: their operations, weights and cache, and `least`
/// bytes over all, which leaves out what passes between them in registers.
fn together(
    plan: &Plan,
    storage: &Storage,
    parts: std::ops::Range<usize>,
    shape: &StepShape,
    least: u64,
) -> Cost {
    let mut sum = Cost::default();
    for planned in plan.ops.get(parts).unwrap_or_default() {
        sum += cost(plan, planned, shape, storage);
    }
    sum.activation_bytes = least.saturating_sub(sum.weight_bytes + sum.kv_bytes);
    sum
}

/// What a span is called: the ops of its owner, and where the first of them is in the model.
fn name(plan: &Plan, parts: &BTreeMap<usize, usize>, owner: Owner) -> (String, String) {
    let first = owner as usize;
    let count = parts.get(&first).copied().unwrap_or(1);
    match plan.ops.get(first..first + count) {
        Some(ops) if is_known(owner) && !ops.is_empty() => {
            let names: Vec<&str> = ops.iter().map(|p| p.op.name()).collect();
            (names.join(" + "), layers_as_star(&ops[0].scope))
        }
        _ => (owner_name(if is_known(owner) { owner } else { UNKNOWN }).to_owned(), "step".into()),
    }
}

fn seconds(from: u64, to: u64) -> f64 {
    to.saturating_sub(from) as f64 * 1e-9
}

/// From the first piece of work of each step to the end of its last, over all steps.
fn elapsed(spans: &[&GpuSpan]) -> f64 {
    let mut steps: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
    for span in spans {
        let (from, to) = steps.entry(span.step).or_insert((span.start_ns, span.end_ns));
        (*from, *to) = ((*from).min(span.start_ns), (*to).max(span.end_ns));
    }
    steps.values().map(|(from, to)| seconds(*from, *to)).sum()
}
