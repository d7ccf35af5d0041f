//! Where the time of a pass went: recorder records joined with the plan, like ops of all layers
//! together.

use std::collections::BTreeMap;

use crate::bench::ceilings::Ceilings;
use crate::model::cost::{Cost, StepShape, Storage, cost, step_cost};
use crate::model::plan::{Op, Plan};
use crate::profile::describe::{self, layers_as_star};
use crate::profile::recorder::{Event, Recorder};

/// Time and least work of one kind of op.
#[derive(Debug, Clone, PartialEq)]
pub struct OpTime {
    /// `linear`, `attention`, …; of ops that one kernel does together, all.
    pub op: String,
    /// The module path with layer numbers as `*`: `model.layers.*.mlp.down_proj`.
    pub scope: String,
    pub count: u64,
    /// Seconds over all of them.
    pub total: f64,
    /// Their least floating-point operations and bytes.
    pub cost: Cost,
    /// Products with weights of fewer than 16 bits, which the integer units can do.
    pub quantised: bool,
}

/// What an op would take at this machine's ceilings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Floor {
    /// Seconds: the longer of its arithmetic and its bytes.
    pub seconds: f64,
    /// Which of them: `memory`, `float32`, `int8` or `tensor`.
    pub bound: &'static str,
}

/// The ceilings that ops are held against.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    pub bytes_per_s: f64,
    /// Operations a second, and what they are called.
    pub flops_per_s: f64,
    pub unit: &'static str,
    /// Operations a second on 8-bit integers, where quantised products use them.
    pub int8_ops_per_s: Option<f64>,
}

impl Rates {
    /// Of this machine's processor, or of a card, as measured.
    pub fn measured(c: &Ceilings) -> Rates {
        let Ceilings { bytes_per_s, flops_per_s, int8_ops_per_s, .. } = *c;
        Rates { bytes_per_s, flops_per_s, unit: "float32", int8_ops_per_s }
    }
}

/// Where a GPU's times are from, and what it reaches at most.
#[derive(Debug, Clone, PartialEq)]
pub struct Gpu {
    /// `projected by the emulator`, `CUPTI 13.0.1 (path)`, …
    pub source: String,
    /// Nothing was measured: times come from counters and a model of the card.
    pub projected: bool,
    pub ceiling: Option<describe::Ceiling>,
    /// Seconds of the steps, from the first piece of work to the end of the last.
    pub elapsed: f64,
    pub launches: u64,
}

impl OpTime {
    /// Every weight and activation read once at the memory's rate, every operation at the rate of
    /// float32, or of int8 for quantised weights. What stays in a cache can be faster than that.
    pub fn floor(&self, rates: &Rates) -> Floor {
        let int8 = rates.int8_ops_per_s.filter(|_| self.quantised);
        let (rate, unit) = int8.map_or((rates.flops_per_s, rates.unit), |rate| (rate, "int8"));
        let compute = self.cost.flops as f64 / rate;
        let memory = self.cost.bytes() as f64 / rates.bytes_per_s;
        let bound = if compute > memory { unit } else { "memory" };
        Floor { seconds: compute.max(memory), bound }
    }

    /// Its floor over the time it took: 1 at the ceiling.
    pub fn share_of_ceiling(&self, rates: &Rates) -> f64 {
        if self.total > 0.0 { self.floor(rates).seconds / self.total } else { 0.0 }
    }
}

/// The ops of one phase, slowest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OpTable {
    pub ops: Vec<OpTime>,
    /// Records that did not fit in the ring.
    pub dropped: u64,
    /// The device's own account, where it is a GPU.
    pub gpu: Option<Gpu>,
}

impl OpTable {
    /// What its ops are held against: ceilings that were measured, but for projected times the
    /// data sheet's.
    pub fn rates(&self, measured: Option<&Ceilings>) -> Option<Rates> {
        let of_card = |c: &describe::Ceiling| Rates {
            bytes_per_s: c.bytes_per_s,
            flops_per_s: c.flops_per_s,
            unit: "tensor",
            int8_ops_per_s: None,
        };
        match &self.gpu {
            None => measured.map(Rates::measured),
            Some(gpu) => {
                let measured = measured.filter(|_| !gpu.projected).map(Rates::measured);
                let measured = measured.map(|r| Rates { unit: "tensor", ..r });
                measured.or_else(|| gpu.ceiling.as_ref().map(of_card))
            }
        }
    }

    /// Nothing in it was measured.
    pub fn projected(&self) -> bool {
        self.gpu.as_ref().is_some_and(|g| g.projected)
    }

    /// Seconds of all ops.
    pub fn total(&self) -> f64 {
        self.ops.iter().map(|o| o.total).sum()
    }

    /// The op that takes most time beyond its floor, and how much: where there is most to gain.
    pub fn most_to_gain(&self, rates: &Rates) -> Option<(&OpTime, f64)> {
        let beyond = |o: &OpTime| o.total - o.floor(rates).seconds;
        let most = self.ops.iter().max_by(|a, b| beyond(a).total_cmp(&beyond(b)))?;
        Some((most, beyond(most))).filter(|(_, seconds)| *seconds > 0.0)
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
            op: (*op).to_owned(),
            scope: scope.clone(),
            count: 0,
            total: 0.0,
            cost: Cost::default(),
            quantised: plan
                .ops
                .get(record.id as usize)
                .is_some_and(|p| quantised(plan, &p.op, storage)),
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
    OpTable { ops, dropped: recorder.dropped(), gpu: None }
}

/// Does the op multiply with a matrix of fewer than 16 bits a number?
fn quantised(plan: &Plan, op: &Op, storage: &Storage) -> bool {
    let Op::Linear { matrix, .. } = op else { return false };
    plan.matrices.get(*matrix).is_some_and(|m| {
        let numbers = (m.parts.iter().map(|p| p.rows).sum::<usize>() * m.cols) as u64;
        (storage.matrix_bytes)(*matrix) < 2 * numbers
    })
}
