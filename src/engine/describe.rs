//! The plan of a loaded model in the plain numbers that traces use.

use std::sync::Arc;

use crate::device::{Loaded, MemoryUse};
use crate::model::cost::{self, StepShape, Storage};
use crate::model::plan::{Op, Plan, Rows, View};
use crate::profile::describe::{Composition, Describe, OpInfo, Work};
use crate::profile::gpu::GpuTrace;
use crate::profile::record::Counter;

/// What a trace may ask of a plan, owned, so that the writing thread can hold it.
pub struct Described {
    plan: Plan,
    ops: Vec<OpInfo>,
    matrix_bytes: Vec<u64>,
    kv_element: usize,
    activation_element: usize,
    device: String,
    memory: MemoryUse,
    gpu: Option<Arc<dyn GpuTrace>>,
}

impl Described {
    /// `device` is `cpu`, `cuda:0`, `emulated`.
    pub fn new(plan: &Plan, loaded: &dyn Loaded, device: &str) -> Described {
        let storage = loaded.storage();
        let info = |planned: &crate::model::plan::PlannedOp| OpInfo {
            name: planned.op.name().to_owned(),
            scope: planned.scope.clone(),
            layer: planned.layer,
        };
        Described {
            ops: plan.ops.iter().map(info).collect(),
            matrix_bytes: (0..plan.matrices.len()).map(|id| (storage.matrix_bytes)(id)).collect(),
            kv_element: storage.kv_element,
            activation_element: storage.activation_element,
            plan: plan.clone(),
            device: device.to_owned(),
            memory: loaded.memory(),
            gpu: loaded.gpu_trace(),
        }
    }

    fn rows(&self, view: &View, step: &Composition) -> usize {
        match self.plan.buffers[view.buffer].rows {
            Rows::Tokens => step.tokens(),
            Rows::Logits => step.logit_rows,
        }
    }

    fn sized(&self, view: &View, step: &Composition) -> String {
        format!("[{}, {}]", self.rows(view, step), view.width)
    }
}

impl Describe for Described {
    fn ops(&self) -> &[OpInfo] {
        &self.ops
    }

    fn shape(&self, op: usize, step: &Composition) -> String {
        let Some(planned) = self.plan.ops.get(op) else { return String::new() };
        let of = |view: &View| self.sized(view, step);
        match &planned.op {
            Op::Embed { table, out, .. } => {
                let m = &self.plan.matrices[*table];
                format!("[{}, {}] -> {}", m.rows, m.cols, of(out))
            }
            Op::Linear { x, matrix, out, .. } => {
                let m = &self.plan.matrices[*matrix];
                format!("{} x [{}, {}] -> {}", of(x), m.rows, m.cols, of(out))
            }
            Op::Rope { q, k, .. } => format!("{}, {}", of(q), of(k)),
            Op::KvWrite { k, v, .. } => format!("{}, {}", of(k), of(v)),
            Op::Attention { q, heads, kv_heads, head_dim, .. } => {
                let shape = StepShape { sequences: step.sequences.clone(), logit_rows: 0 };
                let context = shape.kv_positions(None);
                format!("{} heads {heads}/{kv_heads}x{head_dim} over {context} positions", of(q))
            }
            Op::RmsNorm { x, out, .. } | Op::Moe { x, out, .. } | Op::Gather { x, out } => {
                format!("{} -> {}", of(x), of(out))
            }
            Op::GatedAct { gate_up, out, .. } => format!("{} -> {}", of(gate_up), of(out)),
            Op::Add { x, y } => format!("{}, {}", of(x), of(y)),
            Op::Softcap { x, .. } => of(x),
        }
    }

    fn works(&self, step: &Composition) -> Vec<Work> {
        let shape = StepShape { sequences: step.sequences.clone(), logit_rows: step.logit_rows };
        let bytes = |id: usize| self.matrix_bytes.get(id).copied().unwrap_or(0);
        let storage = Storage {
            matrix_bytes: &bytes,
            kv_element: self.kv_element,
            activation_element: self.activation_element,
        };
        let work = |planned| {
            let c = cost::cost(&self.plan, planned, &shape, &storage);
            Work {
                flops: c.flops,
                weight_bytes: c.weight_bytes,
                kv_bytes: c.kv_bytes,
                activation_bytes: c.activation_bytes,
            }
        };
        self.plan.ops.iter().map(work).collect()
    }

    fn memory(&self) -> Vec<(Counter, u64)> {
        vec![
            (Counter::WeightBytes, self.memory.weights),
            (Counter::KvBytes, self.memory.kv),
            (Counter::ScratchBytes, self.memory.scratch),
        ]
    }

    fn gpu(&self) -> Option<Arc<dyn GpuTrace>> {
        self.gpu.clone()
    }

    fn device(&self) -> &str {
        &self.device
    }
}
