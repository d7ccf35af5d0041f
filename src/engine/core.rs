//! The engine: plans a step, runs it, samples, commits, tells what happened.

use std::collections::HashMap;
use std::sync::Arc;

use crate::device::{Batch, Device, DeviceInfo, Limits, Loaded, Span};
use crate::error::{Error, Kind, Result};
use crate::profile::recorder::Recorder;
use crate::scheduler::{self, Event, Finish, Output, Request, Scheduler, Step};
use crate::types::TokenId;

use super::choice::{Choice, Shared};
use super::describe::Described;
use super::logprobs::token_logprob;
use super::model::Model;
use super::options::EngineOptions;
use super::request::{FinishReason, Finished, GenerateRequest, Update};
use super::sampler::SamplerScratch;
use super::sizes;
use super::trace;

/// A model on a device with its scheduler. Single-threaded: whoever owns it steps it.
pub struct Engine {
    pub model: Model,
    pub recorder: Recorder,
    device: DeviceInfo,
    limits: Limits,
    loaded: Box<dyn Loaded>,
    scheduler: Scheduler,
    seed: u64,
    submitted: u64,
    choices: HashMap<(u64, u32), Choice>,
    buffers: Buffers,
}

/// Reused by every step.
#[derive(Default)]
struct Buffers {
    step: Step,
    spans: Vec<Span>,
    outputs: Vec<Output>,
    news: Vec<Update>,
    events: Vec<Event>,
    scratch: SamplerScratch,
}

impl Engine {
    /// Puts `model` on `device`, with all memory allocated. `progress(done, total)` counts bytes
    /// of weights.
    ///
    /// # Errors
    /// What does not fit into memory, or a damaged tensor.
    pub fn new(
        model: Model,
        device: &dyn Device,
        options: &EngineOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Engine> {
        let memory = sizes::memory_plan(device, &model.plan, &model.weights, options)?;
        let limits = sizes::limits(options, &memory, model.context)?;
        let scheduler = Scheduler::new(scheduler_limits(&limits, options))?;
        let loaded = device.prepare(&model.plan, &model.weights, &limits, progress)?;
        model.weights.check()?;
        Ok(Engine {
            model,
            recorder: Recorder::off(),
            device: device.info(),
            limits,
            loaded,
            scheduler,
            seed: options.seed,
            submitted: 0,
            choices: HashMap::new(),
            buffers: Buffers::default(),
        })
    }

    pub fn device(&self) -> &DeviceInfo {
        &self.device
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    pub fn loaded(&self) -> &dyn Loaded {
        self.loaded.as_ref()
    }

    pub fn scheduler(&mut self) -> &mut Scheduler {
        &mut self.scheduler
    }

    /// The plan as traces want to know it.
    pub fn described(&self) -> Described {
        Described::new(&self.model.plan, self.loaded.as_ref(), self.device.kind)
    }

    /// Tokens that the key-value cache holds.
    pub fn capacity_tokens(&self) -> usize {
        self.limits.pages * self.limits.page_size
    }

    /// Takes a request with all its choices, or refuses it and changes nothing.
    ///
    /// # Errors
    /// A parameter or token id out of range; a request that can never fit (`Limit`, permanent) or
    /// that the queue has no room for.
    pub fn submit(&mut self, request: &GenerateRequest) -> Result<()> {
        let vocab = self.model.config.vocab_size;
        request.params.validate(vocab)?;
        if let Some(id) = request.prompt.iter().find(|id| **id as usize >= vocab) {
            let message = format!("token id {id} is outside the vocabulary of {vocab}");
            return Err(Error::usage(message));
        }
        let tokenizer = self.model.tokenizer.clone();
        let shared = Shared::new(request, tokenizer, &self.model.config.eos_ids)?;
        // Requests without a seed draw from streams of their own, by order of arrival.
        let seed = self.seed ^ self.submitted.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let choices = (0..request.params.n as u32)
            .map(|choice| Choice::new(request, &shared, choice, seed))
            .collect::<Result<Vec<_>>>()?;
        let room = self.model.context.saturating_sub(request.prompt.len());
        let wanted = Request {
            id: request.id,
            prompt: request.prompt.clone(),
            max_new_tokens: request.params.max_new_tokens.unwrap_or(room),
            choices: choices.len() as u32,
            logprob_start: request.logprobs.prompt_start,
            salt: request.salt,
        };
        self.scheduler.submit(&wanted).map_err(|r| Error::limit(r.to_string()))?;
        self.submitted += 1;
        let key = |n: usize| (request.id, n as u32);
        self.choices.extend(choices.into_iter().enumerate().map(|(n, c)| (key(n), c)));
        Ok(())
    }

    /// Ends all choices of request `id`; false if there is none.
    pub fn cancel(&mut self, id: u64, updates: &mut Vec<Update>) -> bool {
        let mut events = std::mem::take(&mut self.buffers.events);
        let found = self.scheduler.cancel(id, &mut events);
        self.report(&mut events, updates);
        self.buffers.events = events;
        found
    }

    /// Runs `tokens` at positions from `past` on in the first pages of the cache, past the
    /// scheduler, and gives the last row's logits `[vocab]`. For checks, while nothing else runs.
    ///
    /// # Errors
    /// Requests are running, the tokens do not fit, or what the device reports.
    pub fn probe(&mut self, tokens: &[TokenId], past: usize) -> Result<Vec<f32>> {
        if !self.scheduler.idle() {
            return Err(Error::usage("a probe needs an idle engine"));
        }
        self.scheduler.flush_prefix_cache();
        let pages: Vec<u32> = (0..self.limits.pages as u32).collect();
        let mut done = 0;
        for piece in tokens.chunks(self.limits.step_tokens) {
            let spans = [Span { start: 0, len: piece.len(), past: past + done, pages_start: 0 }];
            let rows = [piece.len() - 1];
            let batch = Batch { tokens: piece, spans: &spans, pages: &pages, logit_rows: &rows };
            self.loaded.step(&batch, &mut self.recorder)?;
            done += piece.len();
        }
        Ok(self.loaded.logits()[..self.model.config.vocab_size].to_vec())
    }

    /// Nothing is waiting or running.
    pub fn idle(&self) -> bool {
        self.scheduler.idle()
    }

    /// Runs one step and appends what happened to `updates`; false if there was nothing to run.
    ///
    /// # Errors
    /// What the device reported. The requests of the step have ended then (in `updates`); after
    /// `DeviceLost` nothing more can be run.
    pub fn step(&mut self, updates: &mut Vec<Update>) -> Result<bool> {
        let begun = self.recorder.now();
        let mut buffers = std::mem::take(&mut self.buffers);
        let ran = if self.scheduler.plan(&mut buffers.step) {
            trace::begin(&mut self.recorder, &buffers.step, begun);
            let ran = self.run(&mut buffers, updates).map(|()| true);
            trace::end(&mut self.recorder, &buffers.step, begun, ran.is_ok());
            ran
        } else {
            Ok(false)
        };
        self.buffers = buffers;
        ran
    }

    fn run(&mut self, b: &mut Buffers, updates: &mut Vec<Update>) -> Result<()> {
        if let Err(error) = self.compute(b) {
            let lost = error.kind == Kind::DeviceLost;
            self.scheduler.fail(b.step.number, lost, &mut b.events)?;
            let reason = FinishReason::Failed(error.message.clone());
            self.report_as(&mut b.events, updates, &reason);
            return Err(error);
        }
        let number = b.step.number as u32;
        let start = self.recorder.now();
        self.sample(b);
        self.recorder.since(trace::Kind::Sample, number, b.outputs.len() as u64, start);
        let start = self.recorder.now();
        self.scheduler.commit(b.step.number, &b.outputs, &mut b.events)?;
        self.deliver(b, updates);
        self.recorder.since(trace::Kind::Commit, number, 0, start);
        Ok(())
    }

    /// Runs the step's copies and rows on the device.
    fn compute(&mut self, b: &mut Buffers) -> Result<()> {
        if !b.step.copies.is_empty() {
            let start = self.recorder.now();
            for copy in &b.step.copies {
                self.loaded.copy_page(copy.from, copy.to, copy.tokens)?;
            }
            let copies = b.step.copies.len() as u64;
            self.recorder.since(trace::Kind::Copy, b.step.number as u32, copies, start);
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
        self.loaded.step(&batch, &mut self.recorder)
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

    fn report(&mut self, events: &mut Vec<Event>, updates: &mut Vec<Update>) {
        for event in events.drain(..) {
            let mut update = silent(&event);
            self.close(&event, &mut update, None);
            updates.push(update);
        }
    }

    fn report_as(&mut self, events: &mut Vec<Event>, out: &mut Vec<Update>, why: &FinishReason) {
        for event in events.drain(..) {
            let mut update = silent(&event);
            self.close(&event, &mut update, Some(why));
            out.push(update);
        }
    }

    /// Writes the end of a choice into its update and forgets the choice.
    fn close(&mut self, event: &Event, update: &mut Update, why: Option<&FinishReason>) {
        let Some(usage) = event.end else { return };
        let found = update.finished.take().map(|f| f.reason);
        let reason = match (usage.reason, found) {
            (Finish::Stop, Some(reason)) => reason,
            (Finish::Stop | Finish::Length, _) => FinishReason::Length,
            (Finish::Cancelled, _) => FinishReason::Cancelled,
            (Finish::Failed, _) => {
                why.cloned().unwrap_or_else(|| FinishReason::Failed("the step failed".into()))
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
        let token: TokenId = self.sampler.sample(row, &self.params, self.key, &self.ends, scratch);
        let wanted = self.logprobs.output;
        let logprob = wanted.then(|| token_logprob(row, token, self.logprobs.top));
        let accepted = self.accept(token);
        let finish = accepted.finish.as_ref().map(|_| Finish::Stop);
        let usage = scheduler::End {
            reason: Finish::Stop,
            prompt_tokens: 0,
            cached_tokens: 0,
            output_tokens: 0,
            preemptions: 0,
        };
        let scored = std::mem::take(&mut self.prompt_logprobs);
        let update = Update {
            id,
            choice: self.key.1,
            token: Some(token),
            logprob,
            text: accepted.text,
            prompt_logprobs: (!scored.is_empty()).then_some(scored),
            finished: accepted.finish.map(|reason| Finished { reason, usage }),
        };
        (update, Output { token, finish })
    }
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

fn scheduler_limits(limits: &Limits, options: &EngineOptions) -> scheduler::Limits {
    scheduler::Limits {
        pages: limits.pages,
        page_size: limits.page_size,
        max_running: limits.step_sequences,
        step_tokens: limits.step_tokens,
        max_prefill_tokens: options.max_prefill_tokens,
        logit_rows: limits.logit_rows,
        context: limits.context,
        policy: options.policy,
        prefix_cache: options.prefix_cache,
        ..scheduler::Limits::default()
    }
}

/// A request for one greedy or sampled continuation, nothing else.
pub fn simple_request(
    id: u64,
    prompt: Vec<TokenId>,
    params: Arc<super::params::SamplingParams>,
) -> GenerateRequest {
    GenerateRequest { id, prompt, params, logprobs: Default::default(), salt: 0 }
}
