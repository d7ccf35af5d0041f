//! Tokens chosen on the card (`cuda/sample.cu`, `cuda/logprobs.cu`): settings go in by one small
//! copy, tokens and log-probabilities come back by another.

use super::abi;
use super::driver::{DevicePtr, Driver, Pinned, Stream, pinned_bytes};
use super::kernels::{Kernel, Kernels};
use super::launch::Step;
use super::memory::{Memory, Purpose};
use super::registry::param_bytes;
use super::trace::{self, Queued};
use crate::device::Limits;
use crate::device::sampling::{LogitChange, Most, Row, RowSampling, Sampled, Sampling, Wanted};
use crate::error::{Error, Result};
use crate::profile::gpu;

/// Most best tokens of a row that come back, and most changes of a row that go in.
pub const MOST: Most = Most { top: 20, changes: 1024 };
/// Largest vocabulary of `cuda/sample.cu`.
const VOCAB: usize = 1 << 21;

/// The kernels and what they read and write.
pub struct Sampler {
    sample: Kernel,
    logprobs: Kernel,
    logits: DevicePtr,
    vocab: u32,
    most_rows: usize,
    most_changes: usize,
    /// `[rows + 1]` settings on both sides, then changes.
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
    /// For up to `limits.logit_rows` rows; `None` if no kernel takes the vocabulary.
    ///
    /// # Errors
    /// If memory runs out.
    pub fn new(
        kernels: &mut Kernels,
        memory: &mut Memory,
        logits: DevicePtr,
        limits: &Limits,
        vocab: usize,
    ) -> Result<Option<Sampler>> {
        if vocab > VOCAB {
            return Ok(None);
        }
        let mut both = |bytes: usize| -> Result<(Pinned, DevicePtr)> {
            let device = memory.alloc(Purpose::Scratch, bytes as u64, "sampling")?;
            Ok((memory.pinned(bytes)?, device))
        };
        let rows = limits.logit_rows.max(1);
        let most_changes = limits.step_sequences * MOST.changes;
        let changes = most_changes * size_of::<abi::LogitChange>();
        let settings = both((rows + 1) * size_of::<abi::SampleRow>() + changes)?;
        let found = both(Places { rows, top: Some(MOST.top) }.words()[3] * 4)?;
        Ok(Some(Sampler {
            sample: kernels.get("f32_sample")?,
            logprobs: kernels.get("f32_logprobs")?,
            logits,
            vocab: vocab as u32,
            most_rows: rows,
            most_changes,
            settings,
            found,
        }))
    }

    /// # Errors
    /// Names what is asked for and not there.
    pub fn check(&self, sampling: &Sampling<'_>, rows: usize) -> Result<()> {
        let (top, changes) = (sampling.top().unwrap_or(0), sampling.changes.len());
        let fits = rows <= self.most_rows && top <= MOST.top && changes <= self.most_changes;
        let counted: usize = sampling.rows.iter().map(changes_of).sum();
        if sampling.rows.len() != rows || !fits || counted != changes {
            return Err(Error::unsupported(format!(
                "{} settings for {rows} rows of logits, {top} best tokens, {changes} changes of \
                 logits for {counted}: the device samples one token a row, tells up to {} and \
                 takes up to {} changes a sequence",
                sampling.rows.len(),
                MOST.top,
                MOST.changes
            )));
        }
        Ok(())
    }

    /// Queues the settings' copy.
    ///
    /// # Errors
    /// If the driver refuses it.
    pub fn send(&self, driver: &dyn Driver, stream: Stream, wanted: &Sampling<'_>) -> Result<()> {
        // SAFETY: every step waits for its stream before it returns, so no copy is queued.
        let host = unsafe { pinned_bytes(self.settings.0) };
        let (rows, list) = host.split_at_mut(changes_at(wanted.rows.len()));
        let mut before = 0;
        let rows = rows.chunks_exact_mut(size_of::<abi::SampleRow>());
        let last = Row { wanted: Wanted::Given(0), top: None };
        for (place, row) in rows.zip(wanted.rows.iter().chain([&last])) {
            place.copy_from_slice(param_bytes(&setting(row, before)));
            before += changes_of(row) as u32;
        }
        let list = list.chunks_exact_mut(size_of::<abi::LogitChange>());
        for (place, change) in list.zip(wanted.changes) {
            place.copy_from_slice(param_bytes(&changed(change)));
        }
        let changes = wanted.changes.len() * size_of::<abi::LogitChange>();
        let bytes = changes_at(wanted.rows.len()) + changes;
        Ok(driver.upload_async(self.settings.1, self.settings.0, 0, bytes, stream)?)
    }

    /// Queues the kernels and the copy back.
    ///
    /// # Errors
    /// If the driver refuses one.
    pub fn launch(&self, step: &mut Step<'_>, wanted: &Sampling<'_>) -> Result<()> {
        let (rows, top) = (wanted.rows.len(), wanted.top());
        let places = Places { rows, top };
        let [targets, best, best_out, end] = places.words().map(|w| self.found.1 + w as u64 * 4);
        let params = abi::SampleParams {
            logits: self.logits,
            settings: self.settings.1,
            changes: self.settings.1 + changes_at(rows) as u64,
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
                settings: self.settings.1,
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
    pub fn read(&self, wanted: &Sampling<'_>, out: &mut Sampled) {
        let (rows, top) = (wanted.rows.len(), wanted.top());
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
        out.width = places.top();
    }
}

/// Bytes of the settings of so many rows: changes come after them.
fn changes_at(rows: usize) -> usize {
    (rows + 1) * size_of::<abi::SampleRow>()
}

fn changes_of(row: &Row) -> usize {
    match row.wanted {
        Wanted::Token(row) => row.changes as usize,
        Wanted::Given(_) | Wanted::Logits => 0,
    }
}

fn changed(change: &LogitChange) -> abi::LogitChange {
    let LogitChange { token, bias, count, forbidden } = *change;
    abi::LogitChange { token, bias, count, forbidden: forbidden.into() }
}

/// `changes`: of the rows before.
fn setting(row: &Row, changes: u32) -> abi::SampleRow {
    let (kind, given, how) = match row.wanted {
        Wanted::Token(how) => (0, 0, how),
        Wanted::Given(token) => (1, token, RowSampling::default()),
        Wanted::Logits => (2, 0, RowSampling::default()),
    };
    abi::SampleRow {
        temperature: how.temperature,
        top_p: how.top_p,
        min_p: how.min_p,
        top_k: how.top_k,
        seed_low: how.seed as u32,
        seed_high: (how.seed >> 32) as u32,
        choice: how.choice,
        position: how.position,
        repetition: how.repetition,
        frequency: how.frequency,
        presence: how.presence,
        changes,
        kind,
        given,
        scores: row.top.map_or(0, |top| top as u32 + 1),
        reserved: 0,
    }
}
