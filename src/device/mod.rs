//! Devices run plans (design.md §3). An engine holds one [`Device`], prepares a [`Plan`] on it
//! and then steps batches through what it got back.

mod check;
pub mod cpu;
pub mod faulty;
pub mod formula;
pub mod gpu;
pub mod null;
pub mod philox;
pub mod sampling;
mod validate;

use self::sampling::{Most, Sampled, Sampling};
use crate::error::{Error, Result};
use crate::model::cost::{StepShape, Storage};
use crate::model::plan::Plan;
use crate::profile::recorder::Recorder;
use crate::types::{Dtype, TokenId};
use crate::weights::Weights;

/// Sizes fixed when a model is loaded: all scratch and cache memory is allocated from them, and
/// a step allocates nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most new tokens in one step, over all sequences.
    pub step_tokens: usize,
    /// Most sequences in one step.
    pub step_sequences: usize,
    /// Most rows whose logits one step may ask for.
    pub logit_rows: usize,
    /// Pages of the key-value cache.
    pub pages: usize,
    /// Tokens a page holds.
    pub page_size: usize,
    /// Longest sequence, prompt and output together.
    pub context: usize,
}

/// The rows of one sequence in a [`Batch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// First row.
    pub start: usize,
    /// New tokens of this sequence in the step, ≥ 1.
    pub len: usize,
    /// Tokens of this sequence already in the cache; the first row has this position.
    pub past: usize,
    /// Where the sequence's page list begins in [`Batch::pages`]; it covers `past + len` tokens.
    pub pages_start: usize,
}

/// One step's input: the new tokens of several sequences, packed one after another.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    /// `[tokens]` token ids.
    pub tokens: &'a [TokenId],
    /// One per sequence, in row order, covering every row.
    pub spans: &'a [Span],
    /// Page numbers of all sequences; position p of a sequence is in
    /// `pages[pages_start + p / page_size]`, slot `p % page_size`.
    pub pages: &'a [u32],
    /// Rows (ascending) whose logits are wanted.
    pub logit_rows: &'a [usize],
}

/// What a device is, for result rows and for `info`.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceInfo {
    /// `cpu`, `cuda`, `emulated`.
    pub kind: &'static str,
    /// Marketing name, e.g. `AMD EPYC 7763` or `NVIDIA H100 80GB HBM3`.
    pub name: String,
    /// What matters for speed: instruction set and threads, or compute capability and driver.
    pub detail: String,
    /// Bytes of memory that a model may use, free now and in all.
    pub memory_free: u64,
    pub memory_total: u64,
}

/// Bytes held by a loaded model, by purpose.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryUse {
    pub weights: u64,
    pub kv: u64,
    pub scratch: u64,
}

/// A piece of hardware that can run plans.
pub trait Device: Send {
    fn info(&self) -> DeviceInfo;

    /// Bytes of one number in the key-value cache, and of one activation, for `plan`.
    fn element_bytes(&self, plan: &Plan, weights: &Weights) -> (usize, usize);

    /// Prompt tokens beside which decodes go on well: products of so many rows are about as
    /// efficient as larger ones. `None`: larger ones are always better.
    fn mixed_prefill(&self) -> Option<usize> {
        None
    }

    /// Bytes that the weights take on the device.
    fn weight_bytes(&self, plan: &Plan, weights: &Weights) -> u64 {
        let stored = |(name, _): &(&str, _)| weights.describe(name).map(|t| t.bytes as u64);
        plan.tensors().iter().filter_map(stored).sum()
    }

    /// Which kernels would serve the plan's products and attention in steps of up to `rows` rows,
    /// a line each; none where nothing is chosen.
    ///
    /// # Errors
    /// Names the op for which no kernel fits.
    fn choices(&self, _plan: &Plan, _weights: &Weights, _rows: usize) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// Loads `plan` with `weights`, repacks what it likes and allocates everything that `limits`
    /// allow. `progress(done, total)` counts bytes of weights.
    fn prepare(
        &self,
        plan: &Plan,
        weights: &Weights,
        limits: &Limits,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Box<dyn Loaded>>;
}

/// A model on a device.
pub trait Loaded: Send {
    /// Runs one step: writes the batch's keys and values into their pages and computes logits.
    /// Afterwards [`Loaded::logits`] gives `[logit_rows, vocab]` float32, row-major.
    ///
    /// # Errors
    /// A batch outside the limits is refused before anything is written. `DeviceLost` means that
    /// nothing more can be run.
    fn step(&mut self, batch: &Batch, recorder: &mut Recorder) -> Result<()>;

    /// What [`Loaded::step_sampled`] does at most; `None` if this device leaves sampling to its
    /// host.
    fn samples(&self) -> Option<Most> {
        None
    }

    /// As [`Loaded::step`], but chooses tokens where the logits are: what was chosen comes back,
    /// and [`Loaded::logits`] has only the rows that want theirs, in order.
    ///
    /// # Errors
    /// As [`Loaded::step`]; more is asked for than [`Loaded::samples`] says.
    fn step_sampled(
        &mut self,
        _batch: &Batch,
        _sampling: &Sampling,
        _out: &mut Sampled,
        _recorder: &mut Recorder,
    ) -> Result<()> {
        Err(Error::unsupported("this device does not sample"))
    }

    /// Logits of the last step, `[logit_rows, vocab]`.
    fn logits(&self) -> &[f32];

    /// Copies the first `tokens` slots of page `from` to page `to` in every layer.
    fn copy_page(&mut self, from: u32, to: u32, tokens: usize) -> Result<()>;

    fn memory(&self) -> MemoryUse;

    /// Stored bytes per matrix and number, for roofline figures.
    fn storage(&self) -> Storage<'_>;

    /// What it tells of its own work; `None` where there is no GPU.
    fn gpu_trace(&self) -> Option<std::sync::Arc<dyn crate::profile::gpu::GpuTrace>> {
        None
    }

    /// Bytes that each op of a step of this shape moves at least on this device, by the index of
    /// its first part in the plan; none where nothing is fused and the plan's own costs say it.
    fn declared(&self, _shape: &StepShape) -> Vec<(usize, u64)> {
        Vec::new()
    }

    /// Which kernels serve products and attention, a line each; none where nothing is chosen.
    fn choices(&self) -> &[String] {
        &[]
    }

    /// The stored type that most of the weights have.
    fn weight_dtype(&self) -> Dtype;

    /// What a user should know of how the model was loaded.
    fn notes(&self) -> &[String] {
        &[]
    }
}
