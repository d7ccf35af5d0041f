//! One step of the engine: plan, run on the device, sample, commit, say what happened.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::device::{Batch, Span};
use crate::error::{Error, Kind, Result};
use crate::profile::describe::Composition;
use crate::scheduler::{self, Event, Finish, Output, Step};
use crate::types::TokenId;

use super::choice::Choice;
use super::core::Engine;
use super::logprobs::token_logprob;
use super::ranges::LayerRanges;
use super::request::{FinishReason, Finished, Update};
use super::sampler::{Bans, SamplerScratch};
use super::trace;
use crate::text::grammar::Constraint;

/// Reused by every step.
#[derive(Default)]
pub(super) struct Buffers {
    pub step: Step,
    pub spans: Vec<Span>,
    pub outputs: Vec<Output>,
    pub news: Vec<Update>,
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
}

impl StepStats {
    fn of(step: &Step) -> Self {
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
            trace::begin(&mut self.recorder, &buffers.step, begun_ns);
            self.step_range(&buffers.step);
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

    fn range(&mut self, text: &str) {
        if let Some(ranges) = &mut self.ranges {
            ranges.push(text);
        }
    }

    fn end_range(&mut self) {
        if let Some(ranges) = &mut self.ranges {
            ranges.pop();
        }
    }

    /// Begins the range of a step, and tells the ranges inside it their batch.
    fn step_range(&mut self, step: &Step) {
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
        let computed = self.compute(b);
        self.last.device = begin.elapsed();
        if let Err(error) = computed {
            let lost = error.kind == Kind::DeviceLost;
            self.scheduler.fail(b.step.number, lost, &mut b.events).map_err(broken)?;
            let reason = FinishReason::Failed(error.message.clone());
            self.report_as(&mut b.events, updates, &reason);
            return Err(error);
        }
        let (number, start) = (b.step.number as u32, self.recorder.now());
        self.range("sample");
        self.sample(b);
        self.end_range();
        self.recorder.since(trace::Kind::Sample, number, b.outputs.len() as u64, start);
        let start = self.recorder.now();
        self.range("scheduler.commit");
        let committed = self.scheduler.commit(b.step.number, &b.outputs, &mut b.events);
        if committed.is_ok() {
            self.deliver(b, updates);
        }
        self.end_range();
        committed.map_err(broken)?;
        self.recorder.since(trace::Kind::Commit, number, 0, start);
        Ok(())
    }

    /// Runs the step's copies and rows on the device.
    fn compute(&mut self, b: &mut Buffers) -> Result<()> {
        let start = self.recorder.now();
        for copy in &b.step.copies {
            self.loaded.copy_page(copy.from, copy.to, copy.tokens)?;
        }
        if let copies @ 1.. = b.step.copies.len() {
            let number = b.step.number as u32;
            self.recorder.since(trace::Kind::Copy, number, copies as u64, start);
        }
        b.spans.clear();
        b.spans.extend(b.step.sequences.iter().map(|s| Span {
            start: s.start,
            len: s.len,
            past: s.past,
            pages_start: s.pages_start,
        }));
        self.recorder.step = b.step.number;
        let batch = Batch {
            tokens: &b.step.tokens,
            spans: &b.spans,
            pages: &b.step.pages,
            logit_rows: &b.step.logit_rows,
        };
        // The recorder may have been exchanged since the last step.
        self.recorder.ranges = self.ranges.take();
        let ran = self.loaded.step(&batch, &mut self.recorder);
        self.ranges = self.recorder.ranges.take();
        ran
    }

    /// Samples a token for each sequence that wants one, and collects prompt log-probabilities.
    fn sample(&mut self, b: &mut Buffers) {
        b.outputs.clear();
        b.news.clear();
        let vocab = self.model.config.vocab_size;
        let logits = self.loaded.logits();
        let row = |index: usize| &logits[index * vocab..(index + 1) * vocab];
        for sequence in &b.step.sequences {
            let Some(choice) = self.choices.get_mut(&(sequence.id, sequence.choice)) else {
                b.outputs.extend(sequence.sample.map(|_| Output { token: 0, finish: None }));
                continue;
            };
            let rows = sequence.logits_start..sequence.logits_start + sequence.logits;
            let first = sequence.past + sequence.len - sequence.logits;
            for (position, index) in (first..).zip(rows.clone()) {
                choice.prompt_row(position, row(index));
            }
            if sequence.sample.is_none() || rows.is_empty() {
                continue;
            }
            let (update, output) = choice.next(sequence.id, row(rows.end - 1), &mut b.scratch);
            b.outputs.push(output);
            b.news.push(update);
        }
    }

    /// Joins what was sampled with what the scheduler says of it.
    fn deliver(&mut self, b: &mut Buffers, updates: &mut Vec<Update>) {
        let mut news: HashMap<(u64, u32), Update> =
            b.news.drain(..).map(|u| ((u.id, u.choice), u)).collect();
        for event in b.events.drain(..) {
            let update = news.remove(&(event.id, event.choice));
            let mut update = update.unwrap_or_else(|| silent(&event));
            self.close(&event, &mut update, None);
            updates.push(update);
        }
    }

    pub(super) fn report(&mut self, events: &mut Vec<Event>, updates: &mut Vec<Update>) {
        for event in events.drain(..) {
            let mut update = silent(&event);
            self.close(&event, &mut update, None);
            updates.push(update);
        }
    }

    pub(super) fn report_as(
        &mut self,
        events: &mut Vec<Event>,
        out: &mut Vec<Update>,
        why: &FinishReason,
    ) {
        for event in events.drain(..) {
            let mut update = silent(&event);
            self.close(&event, &mut update, Some(why));
            out.push(update);
        }
    }

    /// Writes the end of a choice into its update and forgets the choice.
    fn close(&mut self, event: &Event, update: &mut Update, why: Option<&FinishReason>) {
        let Some(mut usage) = event.end else { return };
        // A choice that got stuck in its grammar has no last token, whatever was counted.
        usage.output_tokens -= usize::from(event.token.is_some() && update.token.is_none());
        let found = update.finished.take().map(|f| f.reason);
        let reason = match (usage.reason, found) {
            (Finish::Stop, Some(reason)) => reason,
            (Finish::Stop | Finish::Length, _) => FinishReason::Length,
            (Finish::Cancelled, _) => why.cloned().unwrap_or(FinishReason::Cancelled),
            (Finish::Failed, found) => {
                let unnamed = || FinishReason::Failed("the step failed".into());
                why.cloned().or(found).unwrap_or_else(unnamed)
            }
        };
        if let Some(mut choice) = self.choices.remove(&(event.id, event.choice)) {
            if reason == FinishReason::Length {
                update.text.push_str(&choice.rest());
            }
            let scored = std::mem::take(&mut choice.prompt_logprobs);
            if choice.logprobs.prompt_start.is_some() && update.prompt_logprobs.is_none() {
                // Nothing was generated, so no token brought them along.
                update.prompt_logprobs = (!scored.is_empty()).then_some(scored);
            }
        }
        update.finished = Some(Finished { reason, usage });
    }
}

impl Choice {
    /// Scores the prompt token that `row`, at `position`, predicts.
    fn prompt_row(&mut self, position: usize, row: &[f32]) {
        let wanted = self.logprobs.prompt_start.is_some_and(|start| position >= start);
        if let (true, Some(&token)) = (wanted, self.prompt.get(position + 1)) {
            // After a preemption rows come again; each position is scored once.
            let start = self.logprobs.prompt_start.unwrap_or(0);
            if position - start == self.prompt_logprobs.len() {
                self.prompt_logprobs.push(token_logprob(row, token, self.logprobs.top));
            }
        }
    }

    /// Samples from `row` and says what to tell the client and the scheduler.
    fn next(&mut self, id: u64, row: &[f32], scratch: &mut SamplerScratch) -> (Update, Output) {
        let token = match self.choose(row, scratch) {
            Ok(token) => token,
            Err(why) => return self.stuck(id, why),
        };
        let wanted = self.logprobs.output;
        let logprob = wanted.then(|| token_logprob(row, token, self.logprobs.top));
        let accepted = self.accept(token);
        let finish = accepted.finish.as_ref().map(|reason| match reason {
            FinishReason::Failed(_) => Finish::Failed,
            _ => Finish::Stop,
        });
        let scored = std::mem::take(&mut self.prompt_logprobs);
        let update = Update {
            id,
            choice: self.key.1,
            token: Some(token),
            logprob,
            text: accepted.text,
            prompt_logprobs: (!scored.is_empty()).then_some(scored),
            finished: accepted.finish.map(|reason| Finished { reason, usage: UNKNOWN }),
        };
        (update, Output { token, finish })
    }

    fn choose(
        &mut self,
        row: &[f32],
        scratch: &mut SamplerScratch,
    ) -> std::result::Result<TokenId, String> {
        let allowed = self.constraint.as_mut().map(Constraint::mask).transpose()?;
        let bans = Bans { ends: &self.ends, allowed };
        Ok(self.sampler.sample(row, &self.params, self.key, &bans, scratch))
    }

    /// The end of a choice whose grammar cannot go on.
    fn stuck(&self, id: u64, why: String) -> (Update, Output) {
        let event = Event { id, choice: self.key.1, token: None, end: None };
        let reason = FinishReason::Failed(why);
        let finished = Some(Finished { reason, usage: UNKNOWN });
        let output = Output { token: 0, finish: Some(Finish::Failed) };
        (Update { finished, ..silent(&event) }, output)
    }
}

/// Stands in an update until the scheduler says what was used.
const UNKNOWN: scheduler::End = scheduler::End {
    reason: Finish::Stop,
    prompt_tokens: 0,
    cached_tokens: 0,
    output_tokens: 0,
    preemptions: 0,
};

/// The books of engine and scheduler disagree: nothing that follows can be trusted.
fn broken(error: Error) -> Error {
    Error::new(Kind::DeviceLost, format!("{}; this is a bug in Pacer", error.message))
}

/// An update without a token.
fn silent(event: &Event) -> Update {
    Update {
        id: event.id,
        choice: event.choice,
        token: event.token,
        logprob: None,
        text: String::new(),
        prompt_logprobs: None,
        finished: None,
    }
}
