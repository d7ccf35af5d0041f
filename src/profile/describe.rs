//! What the ops of a plan are and cost, in plain numbers, so that traces can say it without
//! knowing plans.

use super::record::Counter;

/// One op of the plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpInfo {
    /// `linear`, `attention`, …
    pub name: String,
    /// The checkpoint's module path: `model.layers.3.mlp.down_proj`.
    pub scope: String,
    pub layer: Option<usize>,
}

/// The batch of a step: what costs depend on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Composition {
    /// Per sequence: tokens already in the cache, and new tokens.
    pub sequences: Vec<(usize, usize)>,
    pub logit_rows: usize,
}

impl Composition {
    pub fn tokens(&self) -> usize {
        self.sequences.iter().map(|s| s.1).sum()
    }
}

/// The least work of an op.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    pub flops: u64,
    pub weight_bytes: u64,
    pub kv_bytes: u64,
    pub activation_bytes: u64,
}

impl Work {
    pub fn bytes(&self) -> u64 {
        self.weight_bytes + self.kv_bytes + self.activation_bytes
    }

    /// Seconds that the work takes at least under `ceiling`.
    pub fn floor(&self, ceiling: &Ceiling) -> f64 {
        let memory = self.bytes() as f64 / ceiling.bytes_per_s;
        memory.max(self.flops as f64 / ceiling.flops_per_s)
    }
}

impl std::ops::AddAssign for Work {
    fn add_assign(&mut self, other: Work) {
        self.flops += other.flops;
        self.weight_bytes += other.weight_bytes;
        self.kv_bytes += other.kv_bytes;
        self.activation_bytes += other.activation_bytes;
    }
}

/// What a device reaches at most, and how that is known.
#[derive(Debug, Clone, PartialEq)]
pub struct Ceiling {
    pub bytes_per_s: f64,
    pub flops_per_s: f64,
    /// `measured 2026-11-25` or `datasheet`.
    pub source: String,
}

/// A loaded model, as far as a trace wants to know it.
pub trait Describe: Send + Sync {
    fn ops(&self) -> &[OpInfo];

    /// The shapes an op sees in a step: `[8, 1024] · [3072, 1024]ᵀ → [8, 3072]`.
    fn shape(&self, op: usize, step: &Composition) -> String;

    /// The least work of every op in a step.
    fn works(&self, step: &Composition) -> Vec<Work>;

    /// What is held as long as the model is loaded.
    fn memory(&self) -> Vec<(Counter, u64)> {
        Vec::new()
    }

    /// The GPU's own account of its work; `None` on a CPU.
    fn gpu(&self) -> Option<std::sync::Arc<dyn super::gpu::GpuTrace>> {
        None
    }

    /// `cpu`, `cuda:0`, `emulated`: emulated times are projected, and traces say so.
    fn device(&self) -> &str;
}

/// `model.layers.12.mlp` as `model.layers.*.mlp`: like ops of all layers together.
pub fn layers_as_star(scope: &str) -> String {
    let number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let parts = scope.split('.').map(|p| if number(p) { "*" } else { p });
    parts.collect::<Vec<_>>().join(".")
}
