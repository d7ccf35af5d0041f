//! Latency of one static batch, without a server: what `pacer bench-one-batch` measures.
//!
//! Nothing here knows the engine: it measures a [`OneBatch`], on a clock that is passed in, so
//! every figure is tested with a fake subject and a fake clock.
//!
//! - [`inputs`]: seeded token ids, or prompts from a file.
//! - [`case`]: warms up and measures one shape.
//! - [`ops`]: where the time of a pass went, op by op. - [`gpu_ops`]: by a GPU's own account.
//! - [`figures`]: medians, intervals, utilisation and validity out of raw samples.
//! - [`row`], [`text`]: the JSON row, the printed lines.
//! - [`replay`]: a step that a server saved.
//! - [`profile`]: a timeline of a case. - [`sweep`]: all shapes in SGLang's order.
//! - [`subject`]: the engine behind it; [`correctness`]: it against the reference.

pub mod case;
mod correctness;
pub mod figures;
mod gpu_ops;
pub mod inputs;
pub mod ops;
pub mod profile;
pub mod replay;
pub mod row;
pub mod subject;
pub mod sweep;
pub mod text;

use std::sync::Arc;

use crate::device::MemoryUse;
use crate::error::Result;
use crate::model::cost::{StepShape, Storage};
use crate::model::plan::Plan;
use crate::profile::describe::Describe;
use crate::profile::gpu::GpuTrace;
use crate::profile::recorder::Recorder;
use crate::types::TokenId;

/// What is measured, for result rows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SubjectInfo {
    /// `cpu`, `cuda`, `emulated`.
    pub device_kind: String,
    pub device_name: String,
    /// Instruction set, or compute capability and driver.
    pub device_detail: String,
    /// The model as the user named it, or `default`.
    pub model: String,
    /// A digest of configuration and weights: equal digests, equal work.
    pub model_digest: String,
    /// The stored type that most of the weights have, e.g. `bfloat16`, `q4_1`.
    pub dtype: String,
    /// `safetensors`, `gguf`, `dummy`.
    pub load_format: String,
    pub threads: usize,
    pub vocab_size: usize,
    /// Longest sequence, prompt and output together.
    pub context: usize,
    pub memory: MemoryUse,
    /// Which kernels serve products and attention, where they are chosen.
    pub kernels: Vec<String>,
}

/// Tokens that really are in the cache and were really generated, over all sequences.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Achieved {
    pub input: u64,
    pub output: u64,
}

/// What `--correctness-test` found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Correctness {
    /// What to print, line by line.
    pub lines: Vec<String>,
    /// What was compared with what, and within which tolerance.
    pub compared: String,
    pub mismatches: u64,
}

/// An engine with a model that runs one fixed batch.
///
/// Every call is synchronous: when it returns, the device is done. Sampling is greedy and part of
/// the step; no sequence ends early, whatever is sampled.
pub trait OneBatch {
    fn describe(&self) -> SubjectInfo;

    /// Tokens that the key-value cache holds over all sequences (`max_total_num_tokens`).
    fn capacity_tokens(&self) -> usize;

    /// Forgets all sequences and everything cached.
    fn clear(&mut self) -> Result<()>;

    /// Runs the prompts `ids`, one per sequence, and samples the first token of each.
    fn prefill(&mut self, ids: &[Vec<TokenId>]) -> Result<()>;

    /// One decode step of the whole batch, sampling included.
    fn decode_step(&mut self) -> Result<()>;

    /// `steps` decode steps back to back, as a server runs them: nothing waits between them that
    /// need not. Nanoseconds of each step.
    fn decode_run(&mut self, steps: usize) -> Result<Vec<u64>>;

    /// Goes back to the state right after [`OneBatch::prefill`], the prompts still cached. `false`
    /// if it cannot: then `clear` and `prefill` are run again instead.
    fn rewind(&mut self) -> Result<bool> {
        Ok(false)
    }

    /// Tokens in the cache and generated since [`OneBatch::clear`].
    fn achieved(&self) -> Achieved;

    /// The plan that steps run, for costs and names; `None` if there is none to show.
    fn plan(&self) -> Option<&Plan>;

    /// How wide things are stored; only asked for with a plan.
    fn storage(&self) -> Storage<'_>;

    /// The plan as traces want to know it; `None` if there is none to show.
    fn described(&self) -> Option<Arc<dyn Describe>> {
        None
    }

    /// What the device tells of its own work, if it is a GPU.
    fn gpu(&self) -> Option<Arc<dyn GpuTrace>> {
        None
    }

    /// As [`Loaded::declared`](crate::device::Loaded::declared).
    fn declared(&self, _shape: &StepShape) -> Vec<(usize, u64)> {
        Vec::new()
    }

    /// Puts in another recorder and gives back the one used so far.
    fn swap_recorder(&mut self, recorder: Recorder) -> Recorder;

    /// The ids of `text`, for `--prompt-filename`.
    fn tokenize(&self, text: &str) -> Result<Vec<TokenId>>;

    /// Compares with the reference: each prompt's first `cut_len` ids are run first, the rest
    /// against that cached prefix, then `output_len − 1` greedy steps.
    fn correctness(
        &mut self,
        prompts: &[String],
        cut_len: usize,
        output_len: usize,
    ) -> Result<Correctness>;
}
