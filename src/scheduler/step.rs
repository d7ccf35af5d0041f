//! One step's work, laid out as `device::Batch` wants it; the buffers are the caller's, reused.

use crate::kv::PageId;
use crate::types::TokenId;

/// What the device runs next. Order on the device: `copies`, then all rows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Step {
    /// Counts from 1.
    pub number: u64,
    /// `[rows]` token ids, all sequences one after another; 0 where a token is pending.
    pub tokens: Vec<TokenId>,
    pub sequences: Vec<StepSequence>,
    /// Page tables of all sequences.
    pub pages: Vec<PageId>,
    /// Rows (ascending) whose logits are wanted.
    pub logit_rows: Vec<usize>,
    pub copies: Vec<PageCopy>,
    /// Sequences that sample a token, i.e. the outputs that `commit` wants.
    pub samples: usize,
    /// Rows that prefill, the others decode.
    pub prefill_tokens: usize,
}

/// The rows of one sequence in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepSequence {
    pub id: u64,
    pub choice: u32,
    /// First row, and number of rows (≥ 1).
    pub start: usize,
    pub len: usize,
    /// Tokens of the sequence already in the cache; the first row has this position.
    pub past: usize,
    /// Its page table in [`Step::pages`], covering `past + len` tokens.
    pub pages_start: usize,
    pub pages_len: usize,
    /// The token of its only row is not known yet: it is the previous step's sample of this
    /// index (of its `samples`).
    pub pending: Option<usize>,
    /// Its rows in [`Step::logit_rows`]: `logits_start .. logits_start + logits`; they are the
    /// last `logits` rows of the sequence, the very last one being sampled if `sample` is set.
    pub logits_start: usize,
    pub logits: usize,
    /// Index among this step's samples, if it samples.
    pub sample: Option<usize>,
    /// The sequence runs for the first time (its waiting ends).
    pub first: bool,
    /// These rows compute the prompt, or recompute after a preemption.
    pub prefill: bool,
}

/// Copies the first `tokens` slots of page `from` to page `to`, in every layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageCopy {
    pub from: PageId,
    pub to: PageId,
    pub tokens: usize,
}

impl Step {
    /// Empties the buffers and keeps their memory.
    pub(super) fn clear(&mut self) {
        self.tokens.clear();
        self.sequences.clear();
        self.pages.clear();
        self.logit_rows.clear();
        self.copies.clear();
        (self.samples, self.prefill_tokens) = (0, 0);
    }

    /// The page table of one of its sequences.
    pub fn table(&self, sequence: &StepSequence) -> &[PageId] {
        &self.pages[sequence.pages_start..sequence.pages_start + sequence.pages_len]
    }
}
