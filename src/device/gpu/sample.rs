//! Tokens chosen on the card (`cuda/sample.cu`, `cuda/logprobs.cu`): settings go in by one small
//! copy, tokens and log-probabilities come back by another.

use super::abi;
use super::driver::{DevicePtr, Driver, Pinned, Stream, pinned_bytes};
use super::kernels::{Kernel, Kernels};
use super::launch::Step;
use super::memory::{Memory, Purpose};
use super::registry::param_bytes;
use super::trace::{self, Queued};
use crate::device::sampling::{RowSampling, Sampled, Sampling};
use crate::error::{Error, Result};
use crate::profile::gpu;

/// Most best tokens of a row that come back.
pub const TOP: usize = 20;
/// Largest vocabulary of `cuda/sample.cu`.
const VOCAB: usize = 1 << 21;

/// The kernels and what they read and write.
pub struct Sampler {
    sample: Kernel,
    logprobs: Kernel,
    logits: DevicePtr,
    vocab: u32,
    most_rows: usize,
    /// `[rows + 1]` settings on both sides.
    settings: (Pinned, DevicePtr),
    /// Tokens, their log-probabilities, best tokens, theirs: one behind the other.
    found: (Pinned, DevicePtr),
}

/// Where things lie in `found`, in words from its start.
struct Places {
    rows: usize,
    top: Option<usize>,
}

impl Places {
    fn top(&self) -> usize {
        self.top.unwrap_or(0)
    }

    /// Target log-probabilities, best tokens, their log-probabilities, the end.
    fn words(&self) -> [usize; 4] {
        let targets = if self.top.is_some() { self.rows } else { 0 };
        let best = self.rows + targets;
        [self.rows, best, best + self.rows * self.top(), best + 2 * self.rows * self.top()]
    }
}

impl Sampler {
    /// For up to `rows` rows of logits; `None` if no kernel takes the vocabulary.
    ///
    /// # Errors
    /// If memory runs out.
    pub fn new(
        kernels: &mut Kernels,
        memory: &mut Memory,
        logits: DevicePtr,
        rows: usize,
        vocab: usize,
    ) -> Result<Option<Sampler>> {
        if vocab > VOCAB {
            return Ok(None);
        }
        let mut both = |bytes: usize| -> Result<(Pinned, DevicePtr)> {
            let device = memory.alloc(Purpose::Scratch, bytes as u64, "sampling")?;
            Ok((memory.pinned(bytes)?, device))
        };
        let settings = both((rows + 1) * size_of::<abi::SampleRow>())?;
        let found = both(Places { rows, top: Some(TOP) }.words()[3] * 4)?;
        Ok(Some(Sampler {
            sample: kernels.get("f32_sample")?,
            logprobs: kernels.get("f32_logprobs")?,
            logits,
            vocab: vocab as u32,
            most_rows: rows,
            settings,
            found,
        }))
    }

    /// # Errors
    /// Names what is asked for and not there.
    pub fn check(&self, sampling: &Sampling<'_>, rows: usize) -> Result<()> {
        let top = sampling.top.unwrap_or(0);
        if sampling.rows.len() != rows || rows > self.most_rows || top > TOP {
            return Err(Error::unsupported(format!(
                "{} settings for {rows} rows of logits, {top} best tokens: the device samples one \
                 token a row and tells up to {TOP}",
                sampling.rows.len()
            )));
        }
        Ok(())
    }

    /// Queues the settings' copy.
    ///
    /// # Errors
    /// If the driver refuses it.
    pub fn send(&self, driver: &dyn Driver, stream: Stream, rows: &[RowSampling]) -> Result<()> {
        // SAFETY: every step waits for its stream before it returns, so no copy is queued.
        let host = unsafe { pinned_bytes(self.settings.0) };
        let size = size_of::<abi::SampleRow>();
        let last = abi::SampleRow::default();
        for (at, row) in rows.iter().map(setting).chain([last]).enumerate() {
            host[at * size..][..size].copy_from_slice(param_bytes(&row));
        }
        let bytes = (rows.len() + 1) * size;
        Ok(driver.upload_async(self.settings.1, self.settings.0, 0, bytes, stream)?)
    }

    /// Queues the kernels and the copy back.
    ///
    /// # Errors
    /// If the driver refuses one.
    pub fn launch(&self, step: &mut Step<'_>, rows: usize, top: Option<usize>) -> Result<()> {
        let places = Places { rows, top };
        let [targets, best, best_out, end] = places.words().map(|w| self.found.1 + w as u64 * 4);
        let params = abi::SampleParams {
            logits: self.logits,
            settings: self.settings.1,
            changes: 0,
            tokens: self.found.1,
            rows: rows as u32,
            vocab: self.vocab,
            stride: self.vocab,
            reserved: 0,
        };
        step.run(&self.sample, [rows as u32, 1, 1], &params)?;
        if top.is_some() {
            let params = abi::LogprobsParams {
                logits: self.logits,
                targets: self.found.1,
                target_out: targets,
                top_tokens: best,
                top_out: best_out,
                rows: rows as u32,
                vocab: self.vocab,
                stride: self.vocab,
                top: places.top() as u32,
            };
            step.run(&self.logprobs, [rows as u32, 1, 1], &params)?;
        }
        let bytes = (end - self.found.1) as usize;
        if bytes > 0 {
            let what = Queued::Copy { bytes: bytes as u64, to_host: true };
            let (driver, stream) = (step.driver, step.stream);
            trace::around(step.trace.as_deref_mut(), stream, gpu::OUTPUT, what, &mut || {
                driver.download_async(self.found.0, 0, self.found.1, bytes, stream)
            })?;
        }
        Ok(())
    }

    /// What the last step chose; the stream was waited for.
    pub fn read(&self, rows: usize, top: Option<usize>, out: &mut Sampled) {
        // SAFETY: the step waited for its copy, and nothing writes before the next step.
        let bytes = unsafe { pinned_bytes(self.found.0) };
        let word = |at: usize| {
            let b = &bytes[at * 4..at * 4 + 4];
            u32::from_le_bytes([b[0], b[1], b[2], b[3]])
        };
        let places = Places { rows, top };
        let [targets, best, best_out, _] = places.words();
        out.tokens.clear();
        out.tokens.extend((0..rows).map(word));
        out.logprobs.clear();
        out.logprobs.extend((targets..best).map(|at| f32::from_bits(word(at))));
        out.top.clear();
        let pairs = 0..rows * places.top();
        out.top.extend(pairs.map(|i| (word(best + i), f32::from_bits(word(best_out + i)))));
    }
}

fn setting(row: &RowSampling) -> abi::SampleRow {
    abi::SampleRow {
        temperature: row.temperature,
        top_p: row.top_p,
        min_p: row.min_p,
        top_k: row.top_k,
        seed_low: row.seed as u32,
        seed_high: (row.seed >> 32) as u32,
        choice: row.choice,
        position: row.position,
        repetition: 1.0,
        frequency: 0.0,
        presence: 0.0,
        changes: 0,
    }
}
