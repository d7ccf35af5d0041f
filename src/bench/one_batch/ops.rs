//! Where the time of a pass went: recorder records joined with the plan, like ops of all layers
//! together.

use std::collections::BTreeMap;

use crate::model::cost::{Cost, StepShape, Storage, cost, step_cost};
use crate::model::plan::Plan;
use crate::profile::recorder::{Event, Recorder};

/// Time and least work of one kind of op.
#[derive(Debug, Clone, PartialEq)]
pub struct OpTime {
    /// `linear`, `attention`, …
    pub op: &'static str,
    /// The module path with layer numbers as `*`: `model.layers.*.mlp.down_proj`.
    pub scope: String,
    pub count: u64,
    /// Seconds over all of them.
    pub total: f64,
    /// Their least floating-point operations and bytes.
    pub cost: Cost,
}

/// The ops of one phase, slowest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OpTable {
    pub ops: Vec<OpTime>,
    /// Records that did not fit in the ring.
    pub dropped: u64,
}

impl OpTable {
    /// Seconds of all ops.
    pub fn total(&self) -> f64 {
        self.ops.iter().map(|o| o.total).sum()
    }
}

/// The step that prefills prompts of `lens` tokens, if it is run in one piece.
pub fn prefill_shape(lens: &[usize]) -> StepShape {
    StepShape { sequences: lens.iter().map(|&n| (0, n)).collect(), logit_rows: lens.len() }
}

/// The `steps` decode steps after it: step i sees the prompt and i earlier outputs in the cache.
pub fn decode_shapes(lens: &[usize], steps: usize) -> Vec<StepShape> {
    let step = |i: usize| StepShape {
        sequences: lens.iter().map(|&n| (n + i, 1)).collect(),
        logit_rows: lens.len(),
    };
    (0..steps).map(step).collect()
}

/// The least work of all `shapes`.
pub fn least(plan: &Plan, storage: &Storage, shapes: &[StepShape]) -> Cost {
    let mut total = Cost::default();
    for shape in shapes {
        total += step_cost(plan, shape, storage);
    }
    total
}

/// Joins the op records of `recorder` with `plan`. `shapes` are the steps that were recorded; a
/// prefill that a device cut into chunks counts as one step, so its cost stays the least.
pub fn table(plan: &Plan, storage: &Storage, recorder: &Recorder, shapes: &[StepShape]) -> OpTable {
    let mut by_kind: BTreeMap<(&'static str, String), OpTime> = BTreeMap::new();
    let key = |index: usize| {
        let planned = plan.ops.get(index)?;
        Some((planned.op.name(), layers_as_star(&planned.scope)))
    };
    for record in recorder.records().filter(|r| r.event == Event::Op) {
        let Some(key) = key(record.id as usize) else { continue };
        let entry = by_kind.entry(key).or_insert_with_key(|(op, scope)| OpTime {
            op,
            scope: scope.clone(),
            count: 0,
            total: 0.0,
            cost: Cost::default(),
        });
        entry.count += 1;
        entry.total += record.end_ns.saturating_sub(record.start_ns) as f64 * 1e-9;
    }
    for (index, planned) in plan.ops.iter().enumerate() {
        for shape in shapes {
            if let Some(entry) = key(index).and_then(|k| by_kind.get_mut(&k)) {
                entry.cost += cost(plan, planned, shape, storage);
            }
        }
    }
    let mut ops: Vec<OpTime> = by_kind.into_values().collect();
    ops.sort_by(|a, b| b.total.total_cmp(&a.total));
    OpTable { ops, dropped: recorder.dropped() }
}

/// `model.layers.12.mlp` as `model.layers.*.mlp`.
fn layers_as_star(scope: &str) -> String {
    let number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let parts = scope.split('.').map(|p| if number(p) { "*" } else { p });
    parts.collect::<Vec<_>>().join(".")
}
