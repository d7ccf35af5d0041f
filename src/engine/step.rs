//! One step of the engine: plan, run on the device, sample, commit, say what happened. The plain
//! loop, one after the other; [`overlap`](super::overlap) does the same with the next step running.

use std::time::{Duration, Instant};

use crate::device::{Batch, Loaded, Span};
use crate::error::{Error, Kind, Result};
use crate::profile::describe::Composition;
use crate::profile::recorder::Recorder;
use crate::scheduler::{Event, Output, Step};
use crate::types::TokenId;

use super::asked::Asked;
use super::core::Engine;
use super::outcome::Pick;
use super::ranges::LayerRanges;
use super::request::{FinishReason, Update};
use super::sampler::SamplerScratch;
use super::trace;

/// Reused by every step.
#[derive(Default)]
pub(super) struct Buffers {
    /// When the step was planned.
    pub begun: Option<Instant>,
    pub step: Step,
    pub spans: Vec<Span>,
    /// What is wanted of each row of logits, and what a device that samples made of it.
    pub asked: Asked,
    pub picks: Vec<Pick>,
    /// The picked tokens, by sample.
    pub tokens: Vec<TokenId>,
    /// Rows of logits that came, whose log-probabilities are still to be computed.
    pub rows: Vec<f32>,
    pub outputs: Vec<Output>,
    pub news: Vec<Update>,
    /// When its tokens had been chosen.
    pub picked_ns: u64,
    pub events: Vec<Event>,
    pub scratch: SamplerScratch,
}

/// What a step ran, and how long its parts took.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct StepStats {
    /// Counts from 1.
    pub number: u64,
    pub sequences: usize,
    /// Rows of prompts; the other rows decode, one a sequence.
    pub prefill_tokens: usize,
    pub decode_tokens: usize,
    /// Cached positions that the rows attend to, over all rows: `Σ len · past + len (len + 1) / 2`.
    pub kv_reads: u64,
    /// Page copies and rows on the device.
    pub device: Duration,
    /// All of the step, planning to delivery.
    pub total: Duration,
    /// Turning its tokens into text, ends and updates.
    pub settle: Duration,
    /// How much of the step before was settled while this one was on the device.
    pub hidden: Duration,
}

impl StepStats {
    pub(super) fn of(step: &Step) -> Self {
        StepStats {
            number: step.number,
            sequences: step.sequences.len(),
            prefill_tokens: step.prefill_tokens,
            decode_tokens: step.tokens.len() - step.prefill_tokens,
            kv_reads: step
                .sequences
                .iter()
                .map(|s| (s.len * s.past + s.len * (s.len + 1) / 2) as u64)
                .sum(),
            ..StepStats::default()
        }
    }
}

impl Engine {
    /// Runs one step and appends what happened to `updates`; false if there was nothing to run.
    ///
    /// # Errors
    /// What the device reported. The requests of the step have ended then (in `updates`); after
    /// `DeviceLost` nothing more can be run.
    pub fn step(&mut self, updates: &mut Vec<Update>) -> Result<bool> {
        let (begin, begun_ns) = (Instant::now(), self.recorder.now());
        let mut buffers = std::mem::take(&mut self.buffers);
        self.range("scheduler.plan");
        let planned = self.scheduler.plan(&mut buffers.step);
        self.end_range();
        let ran = if planned {
            self.last = StepStats::of(&buffers.step);
            buffers.begun = Some(begin);
            trace::begin(&mut self.recorder, &buffers.step, begun_ns);
            self.step_range(&buffers.step);
            self.ask(&buffers.step, &mut buffers.asked);
            let ran = self.run(&mut buffers, updates).map(|()| true);
            self.end_range();
            trace::end(&mut self.recorder, &buffers.step, begun_ns, ran.is_ok());
            ran
        } else {
            Ok(false)
        };
        self.buffers = buffers;
        self.last.total = begin.elapsed();
        ran
    }

    pub(super) fn range(&mut self, text: &str) {
        if let Some(ranges) = &mut self.ranges {
            ranges.push(text);
        }
    }

    pub(super) fn end_range(&mut self) {
        if let Some(ranges) = &mut self.ranges {
            ranges.pop();
        }
    }

    /// Begins the range of a step, and tells the ranges inside it their batch.
    pub(super) fn step_range(&mut self, step: &Step) {
        let Some(ranges) = &mut self.ranges else { return };
        ranges.push(&trace::step_name(step));
        if let Some(layers) = ranges.as_any().downcast_mut::<LayerRanges>() {
            layers.batch(Composition {
                sequences: step.sequences.iter().map(|s| (s.past, s.len)).collect(),
                logit_rows: step.logit_rows.len(),
            });
        }
    }

    fn run(&mut self, b: &mut Buffers, updates: &mut Vec<Update>) -> Result<()> {
        let begin = Instant::now();
        // The recorder may have been exchanged since the last step.
        self.recorder.ranges = self.ranges.take();
        let computed = compute(self.loaded.as_mut(), &mut self.recorder, b);
        self.ranges = self.recorder.ranges.take();
        self.last.device = begin.elapsed();
        if let Err(error) = computed {
            return Err(self.failed(b, error, updates));
        }
        let (number, start) = (b.step.number as u32, self.recorder.now());
        self.range("sample");
        self.pick(b);
        self.end_range();
        self.recorder.since(trace::Kind::Sample, number, b.tokens.len() as u64, start);
        let (begin, start) = (Instant::now(), self.recorder.now());
        self.range("scheduler.commit");
        let settled = self.settle(b, updates);
        self.end_range();
        settled?;
        self.last.settle = begin.elapsed();
        self.recorder.since(trace::Kind::Commit, number, 0, start);
        Ok(())
    }

    /// The step did not work: its requests end. Gives what to report.
    pub(super) fn failed(
        &mut self,
        b: &mut Buffers,
        error: Error,
        updates: &mut Vec<Update>,
    ) -> Error {
        let lost = error.kind == Kind::DeviceLost;
        if let Err(e) = self.scheduler.fail(b.step.number, lost, &mut b.events) {
            return broken(e);
        }
        let reason = FinishReason::Failed(error.message.clone());
        self.report_as(&mut b.events, updates, &reason);
        error
    }
}

/// Runs the step's copies and rows on the device.
pub(super) fn compute(
    loaded: &mut dyn Loaded,
    recorder: &mut Recorder,
    b: &mut Buffers,
) -> Result<()> {
    let (step, spans) = (&b.step, &mut b.spans);
    let start = recorder.now();
    for copy in &step.copies {
        loaded.copy_page(copy.from, copy.to, copy.tokens)?;
    }
    if let copies @ 1.. = step.copies.len() {
        recorder.since(trace::Kind::Copy, step.number as u32, copies as u64, start);
    }
    spans.clear();
    spans.extend(step.sequences.iter().map(|s| Span {
        start: s.start,
        len: s.len,
        past: s.past,
        pages_start: s.pages_start,
    }));
    recorder.step = step.number;
    let batch =
        Batch { tokens: &step.tokens, spans, pages: &step.pages, logit_rows: &step.logit_rows };
    b.asked.run(loaded, &batch, recorder)
}

/// The books of engine and scheduler disagree: nothing that follows can be trusted.
pub(super) fn broken(error: Error) -> Error {
    Error::new(Kind::DeviceLost, format!("{}; this is a bug in Pacer", error.message))
}
