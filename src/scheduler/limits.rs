//! Sizes and policies, fixed when the scheduler is made.

use crate::error::{Error, Result};
use crate::kv::planted::Planted;

/// Who is served next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// First come, first served.
    Fcfs,
    /// Longest cached prefix first; nobody is passed over more than [`Limits::max_bypass`] times.
    Lpm,
    /// One fixed batch: all of it is prefilled, then decoded in lockstep, and only then does the
    /// next batch begin. For `bench-one-batch`.
    Static,
}

/// Sizes and policies of a [`Scheduler`](super::Scheduler).
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Pages of the key-value cache, and tokens a page holds.
    pub pages: usize,
    pub page_size: usize,
    /// Most sequences that run at once.
    pub max_running: usize,
    /// Most tokens of one step, decode and prefill together (`--chunked-prefill-size`).
    pub step_tokens: usize,
    /// Most prefill tokens of one step (`--max-prefill-tokens`).
    pub max_prefill_tokens: usize,
    /// Most prefill tokens of a step in which others decode (`--mixed-prefill-size`): what a prompt
    /// may add to the time between their tokens.
    pub mixed_prefill_tokens: usize,
    /// Most rows whose logits one step computes; chunks of requests that want prompt
    /// log-probabilities are cut to fit.
    pub logit_rows: usize,
    /// Longest sequence, prompt and output together.
    pub context: usize,
    /// Most sequences in the queue (each of a request's `n` counts), and most prompt tokens.
    pub max_queued_requests: usize,
    pub max_queued_tokens: usize,
    pub policy: Policy,
    /// Keep computed pages for later requests with the same beginning.
    pub prefix_cache: bool,
    /// How often one sequence may be preempted. After that it waits until the pages of its
    /// longest possible output are free, and keeps them to the end.
    pub max_preemptions: u32,
    /// How many later arrivals may be served before a request under [`Policy::Lpm`].
    pub max_bypass: u32,
    /// Every so many steps the youngest running sequence is preempted, needed or not; 0 never.
    /// For tests.
    pub preempt_every: u64,
    #[doc(hidden)]
    pub planted: Planted,
}

impl Default for Limits {
    /// A small pool with everything switched on; callers set the sizes.
    fn default() -> Self {
        Limits {
            pages: 1024,
            page_size: 16,
            max_running: 256,
            step_tokens: 2048,
            max_prefill_tokens: 16_384,
            mixed_prefill_tokens: usize::MAX,
            logit_rows: 2048,
            context: 4096,
            max_queued_requests: 4096,
            max_queued_tokens: 1 << 24,
            policy: Policy::Fcfs,
            prefix_cache: true,
            max_preemptions: 8,
            max_bypass: 64,
            preempt_every: 0,
            planted: Planted::default(),
        }
    }
}

impl Limits {
    /// # Errors
    /// Names the first size that is 0 or too large to number.
    pub fn check(&self) -> Result<()> {
        let sizes = [
            ("pages", self.pages),
            ("page size", self.page_size),
            ("max running requests", self.max_running),
            ("chunked prefill size", self.step_tokens),
            ("max prefill tokens", self.max_prefill_tokens),
            ("mixed prefill size", self.mixed_prefill_tokens),
            ("logit rows", self.logit_rows),
            ("context length", self.context),
        ];
        for (name, size) in sizes {
            if size == 0 {
                return Err(Error::usage(format!("{name}: 0 is too small, use at least 1")));
            }
        }
        let slots = self.pages.checked_mul(self.page_size);
        if self.pages >= u32::MAX as usize || slots.is_none() {
            let (pages, size) = (self.pages, self.page_size);
            return Err(Error::usage(format!("{pages} pages of {size} tokens are too many")));
        }
        Ok(())
    }

    /// Sequences that can run at once: each needs a token and a row of logits in every step.
    pub(super) fn running(&self) -> usize {
        self.max_running.min(self.step_tokens).min(self.logit_rows)
    }

    /// Pages that hold `tokens` tokens.
    pub(super) fn pages_for(&self, tokens: usize) -> usize {
        tokens.div_ceil(self.page_size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_of_zero_is_named() {
        let limits = Limits { page_size: 0, ..Limits::default() };
        let error = limits.check().expect_err("no page size");
        assert!(error.message.contains("page size: 0"), "{error}");
        assert!(Limits::default().check().is_ok());
        assert!(Limits { pages: 1 << 40, ..Limits::default() }.check().is_err());
    }
}
