//! One step's ops, each a call over the buffers.

use super::attention::{Attention, Io, attention};
use super::executor::State;
use super::moe::{Moe, moe};
use super::numbers::Numbers;
use super::ops::activation::{gated, soft_cap};
use super::ops::norm::{add_squares, inverse_rms, scale_by_weight, sum_squares};
use super::ops::rope::rotate;
use super::parallel::{Columns, each_pair, each_piece, each_row};
use super::prepare::{Model, Step};
use super::simd::Isa;
use crate::device::Batch;
use crate::model::plan::{Activation, Op, Rows, VectorId, View};

/// Up to this many rows a product waits for memory more than for the arithmetic.
const FEW_ROWS: usize = 4;

/// A step in progress. The plan was validated and the batch checked, so that no index below can
/// be out of range.
pub struct Run<'a> {
    pub model: &'a Model,
    pub state: &'a mut State,
    pub batch: &'a Batch<'a>,
}

impl Run<'_> {
    /// Runs one op, or two fused.
    pub fn step(&mut self, step: Step) {
        let model = self.model;
        match step {
            Step::One(index) => self.op(&model.plan.ops[index].op),
            Step::AddNorm(index) => {
                let (sum, norm) = (&model.plan.ops[index].op, &model.plan.ops[index + 1].op);
                let Op::Add { x, y } = sum else { return };
                let Op::RmsNorm { out, weight, eps, plus_one, .. } = norm else { return };
                self.add_norm(x, y, out, Norm::new(model, *weight, *eps, *plus_one));
            }
        }
    }

    fn op(&mut self, op: &Op) {
        let model = self.model;
        match op {
            Op::Embed { table, out, scale } => self.embed(*table, out, *scale),
            Op::RmsNorm { x, out, weight, eps, plus_one, groups } => {
                self.norm(x, out, *groups, Norm::new(model, *weight, *eps, *plus_one));
            }
            Op::Add { x, y } => self.add(x, y),
            Op::Linear { x, matrix, bias, out } => self.linear(x, *matrix, *bias, out),
            Op::Rope { q, k, head_dim, rope, .. } => {
                self.rope(q, *head_dim, *rope);
                self.rope(k, *head_dim, *rope);
            }
            Op::KvWrite { k, v, layer } => self.kv_write(k, v, *layer),
            Op::Attention { q, out, layer, .. } => {
                if let Some(kind) = Attention::of(op) {
                    self.attention(q, out, *layer, &kind);
                }
            }
            Op::GatedAct { gate_up, out, act } => self.gated(gate_up, out, *act),
            Op::Moe { x, out, .. } => self.moe(op, x, out),
            Op::Gather { x, out } => self.gather(x, out),
            Op::Softcap { x, cap } => self.soft_cap(x, *cap),
        }
    }

    fn columns(&self, view: &View) -> Columns {
        let stride = self.model.plan.buffers[view.buffer].width;
        Columns { stride, start: view.offset, len: view.width }
    }

    fn rows(&self, view: &View) -> usize {
        match self.model.plan.buffers[view.buffer].rows {
            Rows::Tokens => self.batch.tokens.len(),
            Rows::Logits => self.batch.logit_rows.len(),
        }
    }

    /// Takes a buffer out to write to it beside reading others; put it back with [`Run::put`].
    fn take(&mut self, view: &View) -> Numbers {
        std::mem::take(&mut self.state.buffers[view.buffer])
    }

    fn put(&mut self, view: &View, data: Numbers) {
        self.state.buffers[view.buffer] = data;
    }

    fn embed(&mut self, table: usize, out: &View, scale: f32) {
        let (matrix, tokens) = (self.model.matrix(table), self.batch.tokens);
        let (rows, columns) = (self.rows(out), self.columns(out));
        let data = &mut self.state.buffers[out.buffer];
        each_row(&self.model.pool, rows, data, columns, &|row, to| {
            matrix.row_f32(tokens[row] as usize, to);
            if scale != 1.0 {
                to.iter_mut().for_each(|x| *x *= scale);
            }
        });
    }

    fn norm(&mut self, x: &View, out: &View, groups: usize, norm: Norm) {
        let (rows, columns, from) = (self.rows(x), self.columns(out), self.columns(x));
        let mut data = self.take(out);
        let source = &self.state.buffers[x.buffer];
        each_row(&self.model.pool, rows, &mut data, columns, &|row, to| {
            if x.buffer != out.buffer {
                to.copy_from_slice(&source[from.of(row)]);
            }
            to.chunks_mut(columns.len / groups).for_each(|segment| norm.apply(segment));
        });
        self.put(out, data);
    }

    fn add(&mut self, x: &View, y: &View) {
        let (rows, columns, from) = (self.rows(x), self.columns(x), self.columns(y));
        let mut data = self.take(x);
        let (isa, source) = (self.model.isa, &self.state.buffers[y.buffer]);
        each_row(&self.model.pool, rows, &mut data, columns, &|row, to| {
            add_squares(isa, to, &source[from.of(row)]);
        });
        self.put(x, data);
    }

    /// `x += y`, `out = norm(x)`, with each row read once.
    fn add_norm(&mut self, x: &View, y: &View, out: &View, norm: Norm) {
        let rows = self.rows(x);
        let (x_columns, out_columns) = (self.columns(x), self.columns(out));
        let from = self.columns(y);
        let (mut sums, mut data) = (self.take(x), self.take(out));
        let source = &self.state.buffers[y.buffer];
        let (a, b) = ((&mut *sums, x_columns), (&mut *data, out_columns));
        each_pair(&self.model.pool, rows, a, b, &|row, sum, to| {
            let squares = add_squares(norm.isa, sum, &source[from.of(row)]);
            to.copy_from_slice(sum);
            norm.scale(to, squares);
        });
        self.put(x, sums);
        self.put(out, data);
    }

    fn linear(&mut self, x: &View, matrix: usize, bias: Option<VectorId>, out: &View) {
        let (rows, from, to) = (self.rows(x), self.columns(x), self.columns(out));
        if rows == 0 {
            return;
        }
        let mut data = self.take(out);
        let model = self.model;
        if rows <= FEW_ROWS {
            model.expect_after(&self.state.scratch, matrix, rows);
        }
        let bias = bias.map(|id| model.vectors[id].as_slice());
        let source = &self.state.buffers[x.buffer][from.start..];
        let target = &mut data[to.start..];
        let (matrix, scratch) = (model.matrix(matrix), &mut self.state.scratch);
        let (ldx, ldy) = (from.stride, to.stride);
        model.product(scratch, (source, ldx), rows, matrix, bias, (target, ldy));
        self.put(out, data);
    }

    fn rope(&mut self, view: &View, head_dim: usize, rope: usize) {
        let (rows, columns) = (self.rows(view), self.columns(view));
        let (isa, angles, places) = (self.model.isa, &self.state.angles[rope], &self.state.places);
        let data = &mut self.state.buffers[view.buffer];
        each_row(&self.model.pool, rows, data, columns, &|row, to| {
            let (cos, sin) = angles.at(places[row].position);
            to.chunks_mut(head_dim).for_each(|head| rotate(isa, head, cos, sin));
        });
    }

    fn kv_write(&mut self, k: &View, v: &View, layer: usize) {
        let (k_columns, v_columns) = (self.columns(k), self.columns(v));
        let state = &mut *self.state;
        let keys = (&*state.buffers[k.buffer], k_columns);
        let values = (&*state.buffers[v.buffer], v_columns);
        let how = (&*self.model.pool, self.model.isa);
        state.cache.write(how, layer, &state.places, keys, values);
    }

    fn attention(&mut self, q: &View, out: &View, layer: usize, kind: &Attention) {
        let (q_columns, out_columns) = (self.columns(q), self.columns(out));
        let mut data = self.take(out);
        let (model, state) = (self.model, &mut *self.state);
        let io = Io { q: &state.buffers[q.buffer], q_columns, out: &mut data, out_columns };
        let (how, cache) = ((&*model.pool, model.isa), (&state.cache, layer));
        attention(how, kind, self.batch, cache, io, &mut state.attention);
        self.put(out, data);
    }

    fn gated(&mut self, gate_up: &View, out: &View, act: Activation) {
        let (rows, columns, from) = (self.rows(out), self.columns(out), self.columns(gate_up));
        let mut data = self.take(out);
        let (isa, source) = (self.model.isa, &self.state.buffers[gate_up.buffer]);
        each_piece(&self.model.pool, rows, &mut data, columns, &|row, first, to| {
            let (gate, up) = source[from.of(row)].split_at(columns.len);
            let part = first..first + to.len();
            gated(isa, to, &gate[part.clone()], &up[part], act);
        });
        self.put(out, data);
    }

    fn moe(&mut self, op: &Op, x: &View, out: &View) {
        let Some(kind) = Moe::of(op) else { return };
        let (rows, x_columns, out_columns) = (self.rows(x), self.columns(x), self.columns(out));
        let mut data = self.take(out);
        let state = &mut *self.state;
        let from = (&*state.buffers[x.buffer], x_columns);
        let to = (&mut *data, out_columns);
        moe(self.model, &kind, rows, from, to, &mut state.moe, &mut state.scratch);
        self.put(out, data);
    }

    fn gather(&mut self, x: &View, out: &View) {
        let (rows, columns, from) = (self.rows(out), self.columns(out), self.columns(x));
        let mut data = self.take(out);
        let (source, wanted) = (&self.state.buffers[x.buffer], self.batch.logit_rows);
        each_row(&self.model.pool, rows, &mut data, columns, &|row, to| {
            to.copy_from_slice(&source[from.of(wanted[row])]);
        });
        self.put(out, data);
    }

    fn soft_cap(&mut self, x: &View, cap: f32) {
        let (rows, columns, isa) = (self.rows(x), self.columns(x), self.model.isa);
        let data = &mut self.state.buffers[x.buffer];
        each_piece(&self.model.pool, rows, data, columns, &|_, _, part| soft_cap(isa, part, cap));
    }
}

/// An RMSNorm's numbers.
struct Norm<'a> {
    isa: Isa,
    weight: &'a [f32],
    eps: f32,
    /// Added to the weight: 1 for the (1 + w) form.
    offset: f32,
}

impl<'a> Norm<'a> {
    fn new(model: &'a Model, weight: VectorId, eps: f32, plus_one: bool) -> Self {
        let offset = if plus_one { 1.0 } else { 0.0 };
        Norm { isa: model.isa, weight: &model.vectors[weight], eps, offset }
    }

    fn apply(&self, x: &mut [f32]) {
        self.scale(x, sum_squares(self.isa, x));
    }

    fn scale(&self, x: &mut [f32], squares: f32) {
        let scale = inverse_rms(squares, x.len(), self.eps);
        scale_by_weight(self.isa, x, scale, self.weight, self.offset);
    }
}
