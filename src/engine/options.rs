//! What an engine is asked to be: plain values, checked where they are used.

use std::path::PathBuf;

use serde_json::Value;

use super::overlap::Mode;
use crate::scheduler::Policy;
use crate::types::Dtype;

/// How weights are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LoadFormat {
    #[default]
    Auto,
    Safetensors,
    Gguf,
    /// Seeded numbers; only a `config.json` is needed.
    Dummy,
}

/// Where a model comes from and how it is to run; `None`: the engine chooses.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ModelOptions {
    /// A Hugging Face folder, a `.gguf` file, or `org/name` in the local cache; `None`: the
    /// embedded default configuration with dummy weights.
    pub path: Option<String>,
    pub tokenizer: Option<PathBuf>,
    pub format: LoadFormat,
    /// Merged over `config.json`.
    pub overrides: Option<Value>,
    /// Longest sequence.
    pub context: Option<usize>,
    /// Plain weights are stored in this type.
    pub dtype: Option<Dtype>,
    /// Seed of dummy weights.
    pub seed: u64,
}

/// Sizes and policies of an engine.
#[derive(Debug, Clone, PartialEq)]
pub struct EngineOptions {
    pub threads: Option<usize>,
    /// Share of free memory that weights and cache may take.
    pub memory_fraction: Option<f64>,
    /// Tokens of the key-value cache.
    pub total_tokens: Option<usize>,
    pub page_size: Option<usize>,
    pub max_running: Option<usize>,
    /// Most tokens of one step.
    pub step_tokens: Option<usize>,
    pub max_prefill_tokens: usize,
    /// Most prompt tokens of a step in which others decode; `None`: the device says.
    pub mixed_prefill: Option<usize>,
    pub policy: Policy,
    pub prefix_cache: bool,
    /// Most rows of logits of one step; prompt log-probabilities need more than one a sequence.
    pub logit_rows: Option<usize>,
    /// Most choices that wait to run for the first time, and most prompt tokens of these.
    pub max_queued: usize,
    pub max_queued_tokens: usize,
    /// Whether a step's results are handled while the next one runs.
    pub overlap: Mode,
    /// Whether a device that can chooses the tokens; if not, logits come to the host.
    pub device_sampling: bool,
    /// For tests: every so many steps the youngest running choice is preempted; 0 never.
    pub preempt_every: u64,
    /// Seed of requests that bring none.
    pub seed: u64,
    /// NVTX ranges of steps, layers and ops for a tool that is attached.
    pub nvtx: bool,
}

impl Default for EngineOptions {
    fn default() -> Self {
        EngineOptions {
            threads: None,
            memory_fraction: None,
            total_tokens: None,
            page_size: None,
            max_running: None,
            step_tokens: None,
            max_prefill_tokens: 16_384,
            mixed_prefill: None,
            policy: Policy::Fcfs,
            prefix_cache: true,
            logit_rows: None,
            max_queued: 4096,
            max_queued_tokens: 1 << 24,
            overlap: Mode::Auto,
            device_sampling: true,
            preempt_every: 0,
            seed: 0,
            nvtx: false,
        }
    }
}
