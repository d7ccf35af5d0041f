//! Writes a [`Plan`]: the small vocabulary in which architecture files speak.

use std::collections::HashMap;

use super::plan::{
    Activation, Buffer, BufferId, Expert, KvShape, Matrix, MatrixId, Op, Part, Plan, PlannedOp,
    RopeId, Rows, Vector, VectorId, View,
};
use super::rope::RopeTable;

/// Collects ops under a stack of module names.
pub struct Builder {
    plan: Plan,
    scope: Vec<String>,
    layer: Option<usize>,
    buffer_ids: HashMap<(&'static str, usize), BufferId>,
    matrix_ids: HashMap<Vec<Part>, MatrixId>,
    vector_ids: HashMap<Vec<(String, usize)>, VectorId>,
}

/// A norm as the config describes it.
#[derive(Debug, Clone, Copy)]
pub struct Norm {
    pub eps: f32,
    pub plus_one: bool,
}

/// The head layout of attention.
#[derive(Debug, Clone, Copy)]
pub struct Heads {
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
}

/// The queries' way through attention.
#[derive(Debug, Clone, Copy)]
pub struct Attend {
    pub scale: f32,
    pub softcap: Option<f32>,
    pub window: Option<usize>,
}

impl Builder {
    pub fn new(kv: KvShape, vocab_size: usize, ropes: Vec<RopeTable>) -> Self {
        let logits = View { buffer: 0, offset: 0, width: vocab_size };
        let plan = Plan {
            ops: Vec::new(),
            buffers: Vec::new(),
            matrices: Vec::new(),
            vectors: Vec::new(),
            ropes,
            kv,
            vocab_size,
            logits,
            residuals: Vec::new(),
        };
        Builder {
            plan,
            scope: Vec::new(),
            layer: None,
            buffer_ids: HashMap::new(),
            matrix_ids: HashMap::new(),
            vector_ids: HashMap::new(),
        }
    }

    pub fn finish(self) -> Plan {
        self.plan
    }

    /// Runs `body` with `name` appended to the module path.
    pub fn scope<T>(&mut self, name: &str, body: impl FnOnce(&mut Self) -> T) -> T {
        self.scope.push(name.to_owned());
        let result = body(self);
        self.scope.pop();
        result
    }

    /// Runs `body` as decoder layer `index`; the residual stream `x` stands after it.
    pub fn layer(&mut self, index: usize, x: View, body: impl FnOnce(&mut Self)) {
        self.layer = Some(index);
        self.scope(&format!("model.layers.{index}"), body);
        self.layer = None;
        self.mark_residual(x);
    }

    /// A scratch buffer; the same name and width is the same buffer.
    pub fn buffer(&mut self, name: &'static str, rows: Rows, width: usize) -> View {
        let buffers = &mut self.plan.buffers;
        let buffer = *self.buffer_ids.entry((name, width)).or_insert_with(|| {
            buffers.push(Buffer { name, rows, width });
            buffers.len() - 1
        });
        View { buffer, offset: 0, width }
    }

    pub fn tokens(&mut self, name: &'static str, width: usize) -> View {
        self.buffer(name, Rows::Tokens, width)
    }

    fn path(&self, leaf: &str) -> String {
        let parts = self.scope.iter().map(String::as_str).chain([leaf]);
        parts.filter(|s| !s.is_empty()).collect::<Vec<_>>().join(".")
    }

    fn push(&mut self, leaf: &str, op: Op) {
        let scope = self.path(leaf);
        self.plan.ops.push(PlannedOp { op, scope, layer: self.layer });
    }

    fn mark_residual(&mut self, x: View) {
        self.plan.residuals.push((self.plan.ops.len() - 1, x));
    }

    /// The matrix stacked from `modules` (name below the scope, rows); `name` is what it is called.
    pub fn matrix(&mut self, name: &str, modules: &[(&str, usize)], cols: usize) -> MatrixId {
        let part = |&(module, rows): &(&str, usize)| Part {
            tensor: format!("{}.weight", self.path(module)),
            rows,
        };
        let parts: Vec<Part> = modules.iter().map(part).collect();
        let name = self.path(name);
        let matrices = &mut self.plan.matrices;
        *self.matrix_ids.entry(parts.clone()).or_insert_with(|| {
            let rows = parts.iter().map(|p| p.rows).sum();
            matrices.push(Matrix { name, parts, rows, cols });
            matrices.len() - 1
        })
    }

    /// The vector concatenated from `tensors` (name below the scope, length).
    pub fn vector(&mut self, tensors: &[(&str, usize)]) -> VectorId {
        let parts: Vec<(String, usize)> = tensors.iter().map(|&(t, l)| (self.path(t), l)).collect();
        let vectors = &mut self.plan.vectors;
        *self.vector_ids.entry(parts.clone()).or_insert_with(|| {
            let len = parts.iter().map(|p| p.1).sum();
            vectors.push(Vector { parts, len });
            vectors.len() - 1
        })
    }

    /// `module.weight[token] · scale`, the start of the residual stream `[tokens, hidden]`.
    pub fn embed(&mut self, module: &str, vocab: usize, hidden: usize, scale: f32) -> View {
        let table = self.matrix(module, &[(module, vocab)], hidden);
        let out = self.tokens("x", hidden);
        self.push(module, Op::Embed { table, out, scale });
        self.mark_residual(out);
        out
    }

    /// Norm of `groups` segments of `x` with `module.weight`, into `out`.
    pub fn norm(&mut self, module: &str, x: View, out: View, groups: usize, norm: Norm) {
        let weight = self.vector(&[(&format!("{module}.weight"), x.width / groups)]);
        let Norm { eps, plus_one } = norm;
        self.push(module, Op::RmsNorm { x, out, weight, eps, plus_one, groups });
    }

    /// `out = x · Mᵀ (+ bias)` where M stacks `modules` (name, rows); `name` is the op's name.
    pub fn linear(
        &mut self,
        name: &str,
        modules: &[(&str, usize)],
        x: View,
        out: View,
        bias: bool,
    ) {
        let matrix = self.matrix(name, modules, x.width);
        let bias = bias.then(|| {
            let names: Vec<(String, usize)> =
                modules.iter().map(|&(m, r)| (format!("{m}.bias"), r)).collect();
            let names: Vec<(&str, usize)> = names.iter().map(|(m, r)| (m.as_str(), *r)).collect();
            self.vector(&names)
        });
        self.push(name, Op::Linear { x, matrix, bias, out });
    }

    pub fn rope(&mut self, q: View, k: View, h: Heads, rope: RopeId) {
        let Heads { heads, kv_heads, head_dim } = h;
        self.push("rotary_emb", Op::Rope { q, k, heads, kv_heads, head_dim, rope });
    }

    /// Writes k and v to layer `layer`'s pages and attends over them.
    pub fn attention(&mut self, layer: usize, qkv: [View; 3], out: View, h: Heads, a: Attend) {
        let [q, k, v] = qkv;
        self.push("kv", Op::KvWrite { k, v, layer });
        let Heads { heads, kv_heads, head_dim } = h;
        let Attend { scale, softcap, window } = a;
        let op = Op::Attention { q, out, layer, heads, kv_heads, head_dim, scale, softcap, window };
        self.push("attn", op);
    }

    pub fn gated_act(&mut self, gate_up: View, out: View, act: Activation) {
        self.push("act_fn", Op::GatedAct { gate_up, out, act });
    }

    pub fn moe(&mut self, x: View, out: View, m: MoeOp) {
        let MoeOp { router, experts, intermediate, top_k, renormalise, act } = m;
        let op = Op::Moe { x, out, router, experts, intermediate, top_k, renormalise, act };
        self.push("experts", op);
    }

    /// `x += y`.
    pub fn add(&mut self, x: View, y: View) {
        self.push("residual", Op::Add { x, y });
    }

    /// Rows that need logits, last norm, head and soft cap: the end of every plan.
    pub fn logits(&mut self, x: View, norm: (&str, Norm), head: (&str, usize), cap: Option<f32>) {
        let picked = self.buffer("x_picked", Rows::Logits, x.width);
        let normed = self.buffer("x_normed", Rows::Logits, x.width);
        let logits = self.buffer("logits", Rows::Logits, head.1);
        self.push("gather", Op::Gather { x, out: picked });
        self.norm(norm.0, picked, normed, 1, norm.1);
        self.mark_residual(normed);
        let matrix = self.matrix("lm_head", &[head], x.width);
        self.push("lm_head", Op::Linear { x: normed, matrix, bias: None, out: logits });
        if let Some(cap) = cap {
            self.push("lm_head", Op::Softcap { x: logits, cap });
        }
        self.plan.logits = logits;
    }
}

/// What [`Builder::moe`] needs beside its buffers.
pub struct MoeOp {
    pub router: MatrixId,
    pub experts: Vec<Expert>,
    pub intermediate: usize,
    pub top_k: usize,
    pub renormalise: bool,
    pub act: Activation,
}
