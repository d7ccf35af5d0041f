//! Fits an engine into memory: how many pages, how large a step.

use crate::device::{Device, Limits};
use crate::error::{Error, Result};
use crate::model::plan::{Plan, Rows};
use crate::weights::Weights;

use super::options::EngineOptions;

/// Tokens of a page unless asked otherwise: small enough to share prefixes finely, large enough
/// that a page of one head is whole cache lines.
pub const PAGE_SIZE: usize = 16;
/// Sequences that run at once unless asked otherwise.
const MAX_RUNNING: usize = 64;
/// Tokens of a step unless asked otherwise: on a CPU, products are at full speed well below.
const STEP_TOKENS: usize = 512;
/// Share of free memory that is taken unless asked otherwise.
const MEMORY_FRACTION: f64 = 0.8;
/// Tokens of cache that are enough unless asked otherwise: more would only be touched by loads
/// that name them.
const DEFAULT_TOKENS: usize = 65_536;

/// The memory plan of a model on a device, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryPlan {
    pub weights: u64,
    pub kv_per_token: u64,
    pub scratch: u64,
    /// What may be used in all.
    pub budget: u64,
    /// Tokens that the cache would hold if it took all that is left.
    pub kv_tokens_possible: usize,
}

/// # Errors
/// If weights and scratch alone exceed the budget.
pub fn memory_plan(
    device: &dyn Device,
    plan: &Plan,
    weights: &Weights,
    options: &EngineOptions,
) -> Result<MemoryPlan> {
    let (kv_element, activation) = device.element_bytes(plan, weights);
    let stored = device.weight_bytes(plan, weights);
    let kv_per_token = plan.kv.bytes_per_token(kv_element) as u64;
    let (tokens, rows) = (step_tokens(options), logit_rows(options));
    let scratch: u64 = plan
        .buffers
        .iter()
        .map(|b| (if b.rows == Rows::Tokens { tokens } else { rows } * b.width * activation) as u64)
        .sum();
    let free = device.info().memory_free;
    let budget = (free as f64 * options.memory_fraction.unwrap_or(MEMORY_FRACTION)) as u64;
    let Some(left) = budget.checked_sub(stored + scratch).filter(|l| *l >= kv_per_token) else {
        return Err(Error::limit(format!(
            "the model needs {} of weights and {} of scratch, {} may be used (free {}); free \
             memory, raise --mem-fraction-static or lower --chunked-prefill-size",
            mib(stored),
            mib(scratch),
            mib(budget),
            mib(free)
        )));
    };
    let kv_tokens_possible = usize::try_from(left / kv_per_token.max(1)).unwrap_or(usize::MAX);
    Ok(MemoryPlan { weights: stored, kv_per_token, scratch, budget, kv_tokens_possible })
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

fn step_tokens(options: &EngineOptions) -> usize {
    options.step_tokens.unwrap_or(STEP_TOKENS)
}

fn max_running(options: &EngineOptions) -> usize {
    options.max_running.unwrap_or(MAX_RUNNING).min(step_tokens(options))
}

fn logit_rows(options: &EngineOptions) -> usize {
    options.logit_rows.unwrap_or(0).max(max_running(options))
}

/// The device limits for `options`, with as many pages as asked for or as is sensible.
///
/// # Errors
/// Tokens were asked for that do not fit into memory.
pub fn limits(options: &EngineOptions, memory: &MemoryPlan, context: usize) -> Result<Limits> {
    let page_size = options.page_size.unwrap_or(PAGE_SIZE);
    if page_size == 0 || page_size > 1 << 16 {
        let message = format!("--page-size {page_size}: expected 1 to 65536");
        return Err(Error::usage(message));
    }
    let tokens = match options.total_tokens {
        None => DEFAULT_TOKENS.max(context.min(1 << 17)).min(memory.kv_tokens_possible),
        Some(asked) if asked <= memory.kv_tokens_possible => asked,
        Some(asked) => {
            return Err(Error::limit(format!(
                "a cache of {asked} tokens needs {}, memory is left for {} tokens; lower \
                 --max-total-tokens or the batch, or raise --mem-fraction-static",
                mib(asked as u64 * memory.kv_per_token),
                memory.kv_tokens_possible
            )));
        }
    };
    let pages = tokens.div_ceil(page_size).max(1);
    let step_sequences = max_running(options);
    let (step_tokens, logit_rows) = (step_tokens(options), logit_rows(options));
    Ok(Limits { step_tokens, step_sequences, logit_rows, pages, page_size, context })
}
