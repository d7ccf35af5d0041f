//! What a step must do at least: floating-point operations and bytes, per op (design.md §2).

use super::plan::{MatrixId, Op, Plan, PlannedOp, Rows, View};

/// The shape of one step, as far as cost depends on it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StepShape {
    /// Per sequence: tokens already in the cache, and new tokens in this step.
    pub sequences: Vec<(usize, usize)>,
    /// Rows whose logits are computed.
    pub logit_rows: usize,
}

impl StepShape {
    /// `batch` sequences that each add `new` tokens to `past` cached ones; last rows get logits.
    pub fn uniform(batch: usize, past: usize, new: usize) -> Self {
        StepShape { sequences: vec![(past, new); batch], logit_rows: batch }
    }

    pub fn tokens(&self) -> usize {
        self.sequences.iter().map(|&(_, new)| new).sum()
    }

    fn rows(&self, rows: Rows) -> usize {
        match rows {
            Rows::Tokens => self.tokens(),
            Rows::Logits => self.logit_rows,
        }
    }

    /// (query, key) pairs inside the causal mask and window, over all sequences.
    pub fn attention_pairs(&self, window: Option<usize>) -> usize {
        let seen = |position: usize| window.map_or(position + 1, |w| w.min(position + 1));
        self.sequences.iter().map(|&(past, new)| (past..past + new).map(seen).sum::<usize>()).sum()
    }

    /// Cached positions that at least one query reads, over all sequences.
    pub fn kv_positions(&self, window: Option<usize>) -> usize {
        let read = |past: usize, new: usize| match window {
            Some(w) => (past + new).min(new + w - 1),
            None => past + new,
        };
        self.sequences.iter().filter(|s| s.1 > 0).map(|&(past, new)| read(past, new)).sum()
    }
}

/// The least work of one op: the numerator of every roofline.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// Floating-point operations; a multiply-add counts two.
    pub flops: u64,
    /// Bytes of weights, each read once.
    pub weight_bytes: u64,
    /// Bytes of the key-value cache read and written.
    pub kv_bytes: u64,
    /// Bytes of activations read and written.
    pub activation_bytes: u64,
}

impl Cost {
    pub fn bytes(&self) -> u64 {
        self.weight_bytes + self.kv_bytes + self.activation_bytes
    }
}

impl std::ops::AddAssign for Cost {
    fn add_assign(&mut self, other: Cost) {
        self.flops += other.flops;
        self.weight_bytes += other.weight_bytes;
        self.kv_bytes += other.kv_bytes;
        self.activation_bytes += other.activation_bytes;
    }
}

/// How wide things are stored on a device: bytes of each matrix, of a KV number, of an activation.
pub struct Storage<'a> {
    /// Stored bytes of a whole matrix, given its index.
    pub matrix_bytes: &'a dyn Fn(MatrixId) -> u64,
    pub kv_element: usize,
    pub activation_element: usize,
}

/// The least cost of `planned` in a step of shape `step`.
pub fn cost(plan: &Plan, planned: &PlannedOp, step: &StepShape, storage: &Storage) -> Cost {
    let act = |v: &View, passes: usize| {
        let rows = step.rows(plan.buffers[v.buffer].rows);
        (rows * v.width * storage.activation_element * passes) as u64
    };
    let rows = |v: &View| step.rows(plan.buffers[v.buffer].rows) as u64;
    match &planned.op {
        Op::Embed { table, out, .. } => {
            let matrix = &plan.matrices[*table];
            let row = (storage.matrix_bytes)(*table) / matrix.rows.max(1) as u64;
            Cost { weight_bytes: row * rows(out), activation_bytes: act(out, 1), ..Cost::default() }
        }
        Op::RmsNorm { x, out, .. } => Cost {
            flops: 4 * rows(x) * x.width as u64,
            activation_bytes: act(x, 1) + act(out, 1),
            ..Cost::default()
        },
        Op::Add { x, y } => Cost {
            flops: rows(x) * x.width as u64,
            activation_bytes: act(x, 2) + act(y, 1),
            ..Cost::default()
        },
        Op::Linear { x, matrix, out, .. } => {
            let m = &plan.matrices[*matrix];
            let any = (rows(x) > 0) as u64;
            Cost {
                flops: 2 * rows(x) * (m.rows * m.cols) as u64,
                weight_bytes: any * (storage.matrix_bytes)(*matrix),
                activation_bytes: act(x, 1) + act(out, 1),
                kv_bytes: 0,
            }
        }
        Op::Rope { q, k, .. } => Cost {
            flops: 3 * rows(q) * (q.width + k.width) as u64,
            activation_bytes: act(q, 2) + act(k, 2),
            ..Cost::default()
        },
        Op::KvWrite { k, v, .. } => Cost {
            kv_bytes: rows(k) * ((k.width + v.width) * storage.kv_element) as u64,
            activation_bytes: act(k, 1) + act(v, 1),
            ..Cost::default()
        },
        Op::Attention { q, out, heads, kv_heads, head_dim, window, .. } => {
            let pairs = step.attention_pairs(*window) as u64;
            let positions = step.kv_positions(*window);
            Cost {
                flops: 4 * pairs * (heads * head_dim) as u64,
                kv_bytes: (2 * positions * kv_heads * head_dim * storage.kv_element) as u64,
                activation_bytes: act(q, 1) + act(out, 1),
                weight_bytes: 0,
            }
        }
        Op::GatedAct { gate_up, out, .. } => Cost {
            flops: 5 * rows(out) * out.width as u64,
            activation_bytes: act(gate_up, 1) + act(out, 1),
            ..Cost::default()
        },
        Op::Moe { x, out, router, experts, top_k, intermediate, .. } => {
            let tokens = rows(x);
            let m = &plan.matrices[*router];
            // At most tokens · top_k different experts are touched; at least that many up to all.
            let touched = (tokens * *top_k as u64).min(experts.len() as u64);
            let one = experts
                .first()
                .map_or(0, |e| (storage.matrix_bytes)(e.gate_up) + (storage.matrix_bytes)(e.down));
            let expert_flops = 6 * (x.width * intermediate) as u64;
            Cost {
                flops: tokens * (2 * (m.rows * m.cols) as u64 + *top_k as u64 * expert_flops),
                weight_bytes: (storage.matrix_bytes)(*router) + touched * one,
                activation_bytes: act(x, 1) + act(out, 1),
                kv_bytes: 0,
            }
        }
        Op::Gather { out, .. } => Cost { activation_bytes: act(out, 2), ..Cost::default() },
        Op::Softcap { x, .. } => Cost {
            flops: 3 * rows(x) * x.width as u64,
            activation_bytes: act(x, 2),
            ..Cost::default()
        },
    }
}

/// The cost of a whole step.
pub fn step_cost(plan: &Plan, step: &StepShape, storage: &Storage) -> Cost {
    let mut total = Cost::default();
    for planned in &plan.ops {
        total += cost(plan, planned, step, storage);
    }
    total
}
