//! What a step must do at least: floating-point operations and bytes, per op (design.md §2).

use super::plan::{Expert, MatrixId, Op, Plan, PlannedOp, Rows, View};

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
    Count { plan, step, storage }.op(&planned.op)
}

/// What costs are counted from.
struct Count<'a> {
    plan: &'a Plan,
    step: &'a StepShape,
    storage: &'a Storage<'a>,
}

impl Count<'_> {
    fn rows(&self, view: &View) -> u64 {
        self.step.rows(self.plan.buffers[view.buffer].rows) as u64
    }

    /// Bytes of `passes` readings or writings of a view.
    fn act(&self, view: &View, passes: u64) -> u64 {
        self.rows(view) * (view.width * self.storage.activation_element) as u64 * passes
    }

    fn matrix_bytes(&self, id: MatrixId) -> u64 {
        (self.storage.matrix_bytes)(id)
    }

    fn op(&self, op: &Op) -> Cost {
        match op {
            Op::Embed { table, out, .. } => {
                let rows = self.plan.matrices[*table].rows.max(1) as u64;
                let weight_bytes = self.matrix_bytes(*table) / rows * self.rows(out);
                Cost { weight_bytes, activation_bytes: self.act(out, 1), ..Cost::default() }
            }
            Op::RmsNorm { x, out, .. } => self.simple(4, x, self.act(x, 1) + self.act(out, 1)),
            Op::Add { x, y } => self.simple(1, x, self.act(x, 2) + self.act(y, 1)),
            Op::Linear { x, matrix, out, .. } => self.linear(x, *matrix, out),
            Op::Rope { q, k, .. } => Cost {
                flops: 3 * self.rows(q) * (q.width + k.width) as u64,
                activation_bytes: self.act(q, 2) + self.act(k, 2),
                ..Cost::default()
            },
            Op::KvWrite { k, v, .. } => Cost {
                kv_bytes: self.rows(k) * ((k.width + v.width) * self.storage.kv_element) as u64,
                activation_bytes: self.act(k, 1) + self.act(v, 1),
                ..Cost::default()
            },
            Op::Attention { .. } => self.attention(op),
            Op::GatedAct { gate_up, out, .. } => {
                self.simple(5, out, self.act(gate_up, 1) + self.act(out, 1))
            }
            Op::Moe { .. } => self.moe(op),
            Op::Gather { out, .. } => self.simple(0, out, self.act(out, 2)),
            Op::Softcap { x, .. } => self.simple(3, x, self.act(x, 2)),
        }
    }

    /// `each` operations for every number of a view.
    fn simple(&self, each: u64, view: &View, activation_bytes: u64) -> Cost {
        let flops = each * self.rows(view) * view.width as u64;
        Cost { flops, activation_bytes, ..Cost::default() }
    }

    fn linear(&self, x: &View, matrix: MatrixId, out: &View) -> Cost {
        let m = &self.plan.matrices[matrix];
        let any = u64::from(self.rows(x) > 0);
        Cost {
            flops: 2 * self.rows(x) * (m.rows * m.cols) as u64,
            weight_bytes: any * self.matrix_bytes(matrix),
            activation_bytes: self.act(x, 1) + self.act(out, 1),
            kv_bytes: 0,
        }
    }

    fn attention(&self, op: &Op) -> Cost {
        let Op::Attention { q, out, heads, kv_heads, head_dim, window, .. } = op else {
            return Cost::default();
        };
        let pairs = self.step.attention_pairs(*window) as u64;
        let numbers = 2 * self.step.kv_positions(*window) * kv_heads * head_dim;
        Cost {
            flops: 4 * pairs * (heads * head_dim) as u64,
            kv_bytes: (numbers * self.storage.kv_element) as u64,
            activation_bytes: self.act(q, 1) + self.act(out, 1),
            weight_bytes: 0,
        }
    }

    /// The floor: all tokens go to the same experts, whose weights are read once.
    fn moe(&self, op: &Op) -> Cost {
        let Op::Moe { x, out, router, experts, top_k, intermediate, .. } = op else {
            return Cost::default();
        };
        let (tokens, top_k) = (self.rows(x), *top_k as u64);
        let m = &self.plan.matrices[*router];
        let bytes = |e: &Expert| self.matrix_bytes(e.gate_up) + self.matrix_bytes(e.down);
        let one = experts.first().map_or(0, bytes);
        let expert_flops = 6 * (x.width * intermediate) as u64;
        Cost {
            flops: tokens * (2 * (m.rows * m.cols) as u64 + top_k * expert_flops),
            weight_bytes: u64::from(tokens > 0) * (self.matrix_bytes(*router) + top_k * one),
            activation_bytes: self.act(x, 1) + self.act(out, 1),
            kv_bytes: 0,
        }
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
