//! A model as data: a flat list of ops over named buffers (design.md §2).
//!
//! An architecture file writes a [`Plan`] through the [`Builder`](super::builder::Builder); a
//! device walks it. Everything that needs to know the model — names in traces, FLOPs and bytes,
//! memory, graph capture, sharding, a dry run — reads this list instead of the model's code.

use super::rope::RopeTable;

/// Index into [`Plan::buffers`].
pub type BufferId = usize;
/// Index into [`Plan::matrices`].
pub type MatrixId = usize;
/// Index into [`Plan::vectors`].
pub type VectorId = usize;
/// Index into [`Plan::ropes`].
pub type RopeId = usize;

/// How many rows a buffer has in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rows {
    /// One row per token of the step.
    Tokens,
    /// One row per token whose logits were asked for (`Batch::logit_rows`).
    Logits,
}

/// A scratch buffer `[rows, width]` in the device's activation type, reused by every step.
#[derive(Debug, Clone, PartialEq)]
pub struct Buffer {
    pub name: &'static str,
    pub rows: Rows,
    pub width: usize,
}

/// Columns `offset .. offset + width` of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct View {
    pub buffer: BufferId,
    pub offset: usize,
    pub width: usize,
}

impl View {
    /// Columns `offset .. offset + width` of this view.
    pub fn columns(self, offset: usize, width: usize) -> View {
        debug_assert!(offset + width <= self.width);
        View { buffer: self.buffer, offset: self.offset + offset, width }
    }
}

/// One checkpoint tensor `[rows, cols]` that makes up consecutive rows of a [`Matrix`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Part {
    /// The tensor's Hugging Face name, e.g. `model.layers.0.self_attn.q_proj.weight`.
    pub tensor: String,
    pub rows: usize,
}

/// A weight matrix `[rows, cols]` = `[out_features, in_features]`, row-major, stacked from parts
/// (`q_proj`, `k_proj`, `v_proj` become one product). `y = x · Mᵀ`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Matrix {
    /// The module path, e.g. `model.layers.0.self_attn.qkv_proj`.
    pub name: String,
    pub parts: Vec<Part>,
    pub rows: usize,
    pub cols: usize,
}

/// A weight vector (norm weight or bias), concatenated from parts given as `(tensor, length)`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Vector {
    pub parts: Vec<(String, usize)>,
    pub len: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `x · sigmoid(x)`
    Silu,
    /// `0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³)))`
    GeluTanh,
    /// `0.5 x (1 + erf(x / √2))`
    Gelu,
}

/// One expert's gated MLP: `down · (act(gate · x) ⊙ (up · x))`; `gate_up` stacks gate over up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expert {
    pub gate_up: MatrixId,
    pub down: MatrixId,
}

/// What is computed. Row counts follow from the output buffer's [`Rows`].
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// `out[t] = scale · table[token[t]]`; table `[vocab, hidden]`.
    Embed { table: MatrixId, out: View, scale: f32 },
    /// Root-mean-square norm of each of `groups` equal segments of the row:
    /// `out = x · rsqrt(mean(x²) + eps) · w`, or `· (1 + w)` with `plus_one`.
    /// `weight` has one segment's length (per-head q/k norm) or the row's (`groups` = 1).
    RmsNorm { x: View, out: View, weight: VectorId, eps: f32, plus_one: bool, groups: usize },
    /// `x += y`: the residual stream.
    Add { x: View, y: View },
    /// `out = x · Mᵀ (+ bias)`.
    Linear { x: View, matrix: MatrixId, bias: Option<VectorId>, out: View },
    /// Rotates the first `dim` of each head's `head_dim` columns in place, pairing column `i` with
    /// `i + dim/2` (rotate-half), by the angle `position · inv_freq[i]`; q is `[heads · head_dim]`,
    /// k `[kv_heads · head_dim]`.
    Rope { q: View, k: View, heads: usize, kv_heads: usize, head_dim: usize, rope: RopeId },
    /// Stores k and v `[kv_heads · head_dim]` of each token in its page of layer `layer`.
    KvWrite { k: View, v: View, layer: usize },
    /// Causal attention over the pages of layer `layer`, incl. the tokens of this step:
    /// `softmax(cap(scale · q·kᵀ)) · v`, `cap(s) = softcap · tanh(s / softcap)`. With `window` w a
    /// token at position p sees positions `p-w < j ≤ p`.
    Attention {
        q: View,
        out: View,
        layer: usize,
        heads: usize,
        kv_heads: usize,
        head_dim: usize,
        scale: f32,
        softcap: Option<f32>,
        window: Option<usize>,
    },
    /// `out = act(gate) ⊙ up`, gate the first half of `gate_up`'s columns, up the second.
    GatedAct { gate_up: View, out: View, act: Activation },
    /// Mixture of experts: `softmax(router · x)` in float32, best `top_k` (ties: lower index),
    /// optionally renormalised to sum 1, `out = Σ wⱼ · expertⱼ(x)`.
    Moe {
        x: View,
        out: View,
        router: MatrixId,
        experts: Vec<Expert>,
        intermediate: usize,
        top_k: usize,
        renormalise: bool,
        act: Activation,
    },
    /// `out[r] = x[logit_rows[r]]`: only rows that need logits go on.
    Gather { x: View, out: View },
    /// `x = cap · tanh(x / cap)` in place.
    Softcap { x: View, cap: f32 },
}

impl Op {
    /// The op's short name in tables and traces.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Embed { .. } => "embed",
            Op::RmsNorm { .. } => "rmsnorm",
            Op::Add { .. } => "add",
            Op::Linear { .. } => "linear",
            Op::Rope { .. } => "rope",
            Op::KvWrite { .. } => "kv_write",
            Op::Attention { .. } => "attention",
            Op::GatedAct { .. } => "gated_act",
            Op::Moe { .. } => "moe",
            Op::Gather { .. } => "gather",
            Op::Softcap { .. } => "softcap",
        }
    }
}

/// An op with its place in the model.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedOp {
    pub op: Op,
    /// The checkpoint's module path, e.g. `model.layers.3.self_attn.qkv_proj`.
    pub scope: String,
    /// The decoder layer, if the op belongs to one.
    pub layer: Option<usize>,
}

/// What the key-value cache holds for each token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvShape {
    pub layers: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
}

impl KvShape {
    /// Bytes of K and V of one token over all layers, `element` bytes each number.
    pub fn bytes_per_token(&self, element: usize) -> usize {
        2 * self.layers * self.kv_heads * self.head_dim * element
    }
}

/// A whole model: ops in order, and what they refer to.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    pub ops: Vec<PlannedOp>,
    pub buffers: Vec<Buffer>,
    pub matrices: Vec<Matrix>,
    pub vectors: Vec<Vector>,
    pub ropes: Vec<RopeTable>,
    pub kv: KvShape,
    pub vocab_size: usize,
    /// The buffer that holds `[logit_rows, vocab]` after the last op.
    pub logits: View,
    /// Buffers that hold the residual stream after the embedding, each layer and the last norm,
    /// as `(op index after which it stands, view)`: for checks against golden hidden states.
    pub residuals: Vec<(usize, View)>,
}

impl Plan {
    /// Every checkpoint tensor the plan reads, with its shape; each name once.
    pub fn tensors(&self) -> Vec<(&str, Vec<usize>)> {
        let mut seen = std::collections::HashSet::new();
        let matrices = self
            .matrices
            .iter()
            .flat_map(|m| m.parts.iter().map(move |p| (p.tensor.as_str(), vec![p.rows, m.cols])));
        let vectors =
            self.vectors.iter().flat_map(|v| v.parts.iter().map(|(n, l)| (n.as_str(), vec![*l])));
        matrices.chain(vectors).filter(|(name, _)| seen.insert(*name)).collect()
    }
}
