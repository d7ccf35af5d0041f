//! A device that computes nothing and answers at once, so that what is left is the server's own
//! cost. Its logits are a pure function of a row's token and position: the best next token is
//! [`next_token`].

use std::time::{Duration, Instant};

use super::{Batch, Device, DeviceInfo, Limits, Loaded, MemoryUse};
use crate::error::{Error, Result};
use crate::model::cost::Storage;
use crate::model::plan::Plan;
use crate::profile::recorder::{Event, Recorder};
use crate::types::{Dtype, TokenId};
use crate::weights::Weights;

/// The best logit of a row; all others are 0.
const PEAK: f32 = 30.0;
/// What it says of its memory: more than any cache needs.
const MEMORY: u64 = 1 << 40;

/// Answers at once, or after a fixed time a step.
#[derive(Debug, Clone, Copy, Default)]
pub struct NullDevice {
    /// A step takes this long, whatever it holds.
    pub step_time: Duration,
}

/// The best token after `token` at `position`. It lies in the second quarter of the vocabulary,
/// where vocabularies keep ordinary words, so nothing ends early.
pub fn next_token(token: TokenId, position: usize, vocab: usize) -> TokenId {
    let (first, count) = if vocab < 8 { (0, vocab) } else { (vocab / 4, vocab / 4) };
    let mixed = (u64::from(token) << 20 | position as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (first + (mixed >> 40) as usize % count.max(1)) as TokenId
}

impl Device for NullDevice {
    fn info(&self) -> DeviceInfo {
        DeviceInfo {
            kind: "null",
            name: "no device".to_owned(),
            detail: format!("answers after {:?}, computes nothing", self.step_time),
            memory_free: MEMORY,
            memory_total: MEMORY,
        }
    }

    fn element_bytes(&self, _: &Plan, _: &Weights) -> (usize, usize) {
        (0, 0)
    }

    fn prepare(
        &self,
        plan: &Plan,
        _: &Weights,
        limits: &Limits,
        _: &mut dyn FnMut(u64, u64),
    ) -> Result<Box<dyn Loaded>> {
        let vocab = plan.vocab_size;
        // Written to, so that its memory is taken here: in a soak only what leaks may grow.
        let mut logits = vec![1.0; limits.logit_rows * vocab];
        logits.fill(0.0);
        Ok(Box::new(NullLoaded {
            step_time: self.step_time,
            limits: *limits,
            vocab,
            logits,
            peaks: vec![0; limits.logit_rows],
            rows: 0,
        }))
    }
}

struct NullLoaded {
    step_time: Duration,
    limits: Limits,
    vocab: usize,
    /// `[logit_rows, vocab]`, zero but for each row's peak.
    logits: Vec<f32>,
    peaks: Vec<usize>,
    rows: usize,
}

impl NullLoaded {
    fn check(&self, batch: &Batch) -> Result<()> {
        let limits = &self.limits;
        let covered: usize = batch.spans.iter().map(|s| s.len).sum();
        let fits = batch.tokens.len() <= limits.step_tokens
            && batch.spans.len() <= limits.step_sequences
            && batch.logit_rows.len() <= limits.logit_rows
            && covered == batch.tokens.len();
        if fits { Ok(()) } else { Err(Error::usage("the batch is outside the limits")) }
    }
}

impl Loaded for NullLoaded {
    fn step(&mut self, batch: &Batch, recorder: &mut Recorder) -> Result<()> {
        let (start, begin) = (Instant::now(), recorder.now());
        self.check(batch)?;
        self.rows = batch.logit_rows.len();
        let mut spans = batch.spans.iter().peekable();
        for (index, &row) in batch.logit_rows.iter().enumerate() {
            while spans.peek().is_some_and(|s| s.start + s.len <= row) {
                spans.next();
            }
            let Some(span) = spans.peek() else { break };
            let position = span.past + row - span.start;
            let logits = &mut self.logits[index * self.vocab..(index + 1) * self.vocab];
            logits[self.peaks[index]] = 0.0;
            self.peaks[index] = next_token(batch.tokens[row], position, self.vocab) as usize;
            logits[self.peaks[index]] = PEAK;
        }
        if !self.step_time.is_zero() {
            std::thread::sleep(self.step_time.saturating_sub(start.elapsed()));
        }
        let (number, tokens) = (recorder.step as u32, batch.tokens.len() as u64);
        recorder.record(Event::Step, number, tokens, begin, recorder.now());
        Ok(())
    }

    fn logits(&self) -> &[f32] {
        &self.logits[..self.rows * self.vocab]
    }

    fn copy_page(&mut self, _: u32, _: u32, _: usize) -> Result<()> {
        Ok(())
    }

    fn memory(&self) -> MemoryUse {
        MemoryUse { weights: 0, kv: 0, scratch: self.logits.len() as u64 * 4 }
    }

    fn storage(&self) -> Storage<'_> {
        Storage { matrix_bytes: &|_| 0, kv_element: 0, activation_element: 0 }
    }

    fn weight_dtype(&self) -> Dtype {
        Dtype::F32
    }
}
