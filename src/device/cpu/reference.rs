//! Every op in plain f64: the oracle that devices are held to.
//!
//! Each function is its formula, in the order it is written on paper: no blocks, no cache, no
//! threads. Weights are decoded row by row as they are used.

use super::decode::{decode, find, vector};
use crate::device::formula::{add, dot, gated, largest, rms_norm, soft_cap, softmax};
use crate::error::Result;
use crate::model::plan::{Activation, Expert, MatrixId, Op, Plan, View};
use crate::model::rope::RopeTable;
use crate::types::TokenId;
use crate::weights::Weights;

/// What a sequence gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// `[tokens][vocab]`
    pub logits: Vec<Vec<f64>>,
    /// The views of [`Plan::residuals`], each `[tokens][width]`.
    pub residuals: Vec<Vec<Vec<f64>>>,
}

/// Runs each of `sequences` whole and alone, with logits at every position.
///
/// # Errors
/// If a tensor is missing, has another shape than the plan says, or cannot be decoded.
pub fn run(plan: &Plan, weights: &Weights, sequences: &[Vec<TokenId>]) -> Result<Vec<Outcome>> {
    sequences.iter().map(|tokens| run_one(plan, weights, tokens)).collect()
}

fn run_one(plan: &Plan, weights: &Weights, tokens: &[TokenId]) -> Result<Outcome> {
    let rows = tokens.len();
    let buffers = plan.buffers.iter().map(|b| vec![vec![0.0; b.width]; rows]).collect();
    let kv = vec![(Vec::new(), Vec::new()); plan.kv.layers];
    let mut state = State { plan, weights, tokens, buffers, kv };
    let mut residuals = Vec::new();
    for (index, planned) in plan.ops.iter().enumerate() {
        state.run(&planned.op).map_err(|e| e.context(&planned.scope))?;
        for (_, view) in plan.residuals.iter().filter(|(after, _)| *after == index) {
            residuals.push(state.get(view));
        }
    }
    Ok(Outcome { logits: state.get(&plan.logits), residuals })
}

/// `[tokens][width]`
type Rows = Vec<Vec<f64>>;

struct State<'a> {
    plan: &'a Plan,
    weights: &'a Weights,
    tokens: &'a [TokenId],
    buffers: Vec<Rows>,
    /// K and V of each layer.
    kv: Vec<(Rows, Rows)>,
}

impl State<'_> {
    fn get(&self, view: &View) -> Rows {
        let columns = view.offset..view.offset + view.width;
        self.buffers[view.buffer].iter().map(|row| row[columns.clone()].to_vec()).collect()
    }

    fn set(&mut self, view: &View, rows: Rows) {
        for (to, from) in self.buffers[view.buffer].iter_mut().zip(rows) {
            to[view.offset..view.offset + view.width].copy_from_slice(&from);
        }
    }

    fn vector(&self, id: usize) -> Result<Vec<f64>> {
        let all = vector(self.weights, &self.plan.vectors[id].parts)?;
        Ok(all.into_iter().map(f64::from).collect())
    }

    fn run(&mut self, op: &Op) -> Result<()> {
        match op {
            Op::Embed { table, out, scale } => {
                let mut rows = Vec::new();
                for token in self.tokens {
                    let row = self.matrix_row(*table, *token as usize)?;
                    rows.push(row.iter().map(|x| x * *scale as f64).collect());
                }
                self.set(out, rows);
            }
            Op::RmsNorm { x, out, weight, eps, plus_one, groups } => {
                let mut weight = self.vector(*weight)?;
                weight.iter_mut().for_each(|w| *w += f64::from(*plus_one));
                let norm = |row: &Vec<f64>| rms_norm(row, &weight, *eps as f64, *groups);
                self.set(out, self.get(x).iter().map(norm).collect());
            }
            Op::Add { x, y } => {
                let mut rows = self.get(x);
                for (row, other) in rows.iter_mut().zip(self.get(y)) {
                    add(row, &other, 1.0);
                }
                self.set(x, rows);
            }
            Op::Linear { x, matrix, bias, out } => {
                let mut rows = self.product(*matrix, &self.get(x))?;
                if let Some(bias) = bias {
                    let bias = self.vector(*bias)?;
                    rows.iter_mut().for_each(|row| add(row, &bias, 1.0));
                }
                self.set(out, rows);
            }
            Op::Rope { q, k, heads, kv_heads, head_dim, rope } => {
                let table = &self.plan.ropes[*rope];
                for (view, heads) in [(q, heads), (k, kv_heads)] {
                    let mut rows = self.get(view);
                    for (position, row) in rows.iter_mut().enumerate() {
                        for head in 0..*heads {
                            rotate(&mut row[head * head_dim..][..*head_dim], position, table);
                        }
                    }
                    self.set(view, rows);
                }
            }
            Op::KvWrite { k, v, layer } => self.kv[*layer] = (self.get(k), self.get(v)),
            Op::Attention { q, out, .. } => {
                let attended = self.attention(op, &self.get(q));
                self.set(out, attended);
            }
            Op::GatedAct { gate_up, out, act } => {
                self.set(out, self.get(gate_up).iter().map(|row| gated(row, *act)).collect());
            }
            Op::Moe { x, out, .. } => {
                let mixed = self.moe(op, &self.get(x))?;
                self.set(out, mixed);
            }
            Op::Gather { x, out } => self.set(out, self.get(x)),
            Op::Softcap { x, cap } => {
                let mut rows = self.get(x);
                rows.iter_mut().flatten().for_each(|x| *x = soft_cap(*x, *cap as f64));
                self.set(x, rows);
            }
        }
        Ok(())
    }

    /// Row `row` of a stacked matrix.
    fn matrix_row(&self, id: MatrixId, mut row: usize) -> Result<Vec<f64>> {
        let matrix = &self.plan.matrices[id];
        let mut numbers = vec![0.0; matrix.cols];
        for part in &matrix.parts {
            if row < part.rows {
                let tensor = find(self.weights, &part.tensor, &[part.rows, matrix.cols])?;
                decode(tensor.dtype, tensor.row(row), &mut numbers)
                    .map_err(|e| e.context(&part.tensor))?;
                break;
            }
            row -= part.rows;
        }
        Ok(numbers.into_iter().map(f64::from).collect())
    }

    /// `x · Mᵀ`
    fn product(&self, id: MatrixId, x: &[Vec<f64>]) -> Result<Rows> {
        let mut out = vec![vec![0.0; self.plan.matrices[id].rows]; x.len()];
        for r in 0..self.plan.matrices[id].rows {
            let weights = self.matrix_row(id, r)?;
            for (out, x) in out.iter_mut().zip(x) {
                out[r] = dot(x, &weights);
            }
        }
        Ok(out)
    }

    fn attention(&self, op: &Op, q: &[Vec<f64>]) -> Rows {
        let Op::Attention { layer, heads, kv_heads, head_dim, scale, softcap, window, .. } = op
        else {
            return Vec::new();
        };
        let (k, v) = &self.kv[*layer];
        let attend = |position: usize| {
            let mut out = vec![0.0; heads * head_dim];
            for head in 0..*heads {
                let mine = head * head_dim..(head + 1) * head_dim;
                let kv_head = head / (heads / kv_heads);
                let shared = kv_head * head_dim..(kv_head + 1) * head_dim;
                let first = window.map_or(0, |w| (position + 1).saturating_sub(w));
                let score = |j: usize| {
                    let s = *scale as f64 * dot(&q[position][mine.clone()], &k[j][shared.clone()]);
                    softcap.map_or(s, |cap| soft_cap(s, cap as f64))
                };
                let weights = softmax(&(first..=position).map(score).collect::<Vec<f64>>());
                for (j, weight) in (first..=position).zip(weights) {
                    add(&mut out[mine.clone()], &v[j][shared.clone()], weight);
                }
            }
            out
        };
        (0..q.len()).map(attend).collect()
    }

    fn moe(&self, op: &Op, x: &[Vec<f64>]) -> Result<Rows> {
        let Op::Moe { out, router, experts, top_k, renormalise, act, .. } = op else {
            return Ok(Vec::new());
        };
        let routed = self.product(*router, x)?;
        let mut mixed = vec![vec![0.0; out.width]; x.len()];
        for (t, row) in x.iter().enumerate() {
            let shares = softmax(&routed[t]);
            let best = largest(&shares, *top_k);
            let total: f64 = best.iter().map(|e| shares[*e]).sum();
            for expert in best {
                let share = if *renormalise { shares[expert] / total } else { shares[expert] };
                let result = self.expert(&experts[expert], row, *act)?;
                add(&mut mixed[t], &result, share);
            }
        }
        Ok(mixed)
    }

    fn expert(&self, expert: &Expert, x: &[f64], act: Activation) -> Result<Vec<f64>> {
        let hidden = self.product(expert.gate_up, &[x.to_vec()])?;
        let down = self.product(expert.down, &[gated(&hidden[0], act)])?;
        Ok(down.into_iter().next().unwrap_or_default())
    }
}

fn rotate(head: &mut [f64], position: usize, table: &RopeTable) {
    let half = table.dim / 2;
    for (i, freq) in table.inv_freq.iter().enumerate() {
        let (sin, cos) = (position as f64 * *freq as f64).sin_cos();
        let (sin, cos) = (sin * table.scale as f64, cos * table.scale as f64);
        let (x, y) = (head[i], head[i + half]);
        head[i] = x * cos - y * sin;
        head[i + half] = y * cos + x * sin;
    }
}
