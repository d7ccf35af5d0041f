//! The engine: plans a step, runs it, samples, commits, tells what happened.

use std::collections::HashMap;
use std::sync::Arc;

use crate::device::faulty::Faults;
use crate::device::sampling::Most;
use crate::device::{Batch, Device, DeviceInfo, Limits, Loaded, Span};
use crate::error::{Error, Kind, Result};
use crate::profile::nvtx;
use crate::profile::recorder::{Ranges, Recorder};
use crate::scheduler::{self, Request, Scheduler};
use crate::text::grammar::Constraint;
use crate::text::guard::guarded;
use crate::types::TokenId;

use super::choice::{Choice, Shared};
use super::describe::Described;
use super::model::Model;
use super::options::EngineOptions;
use super::overlap::{Mode, Overlap};
use super::params::SamplingParams;
use super::ranges::LayerRanges;
use super::request::{FinishReason, GenerateRequest, Update};
use super::sizes;
use super::step::{Buffers, StepStats};

/// A model on a device with its scheduler. Single-threaded: whoever owns it steps it.
pub struct Engine {
    pub model: Model,
    /// The recorder of the thread that runs steps; while one runs elsewhere,
    /// [`aside`](Self::aside).
    pub recorder: Recorder,
    /// Records what this thread does while the device runs a step on its own thread.
    pub aside: Recorder,
    /// Faults that a test plants in samplers, grammars and detokenisers.
    #[doc(hidden)]
    pub faults: Option<Faults>,
    device: DeviceInfo,
    limits: Limits,
    /// While a step runs on the device's thread both are there, and stand-ins here.
    pub(super) loaded: Box<dyn Loaded>,
    /// What the device's own sampling does; `None`: it leaves that to the host.
    pub(super) samples: Option<Most>,
    pub(super) scheduler: Scheduler,
    seed: u64,
    submitted: u64,
    pub(super) choices: HashMap<(u64, u32), Choice>,
    pub(super) buffers: Buffers,
    pub(super) last: StepStats,
    /// NVTX ranges, while no step runs.
    pub(super) ranges: Option<Box<dyn Ranges>>,
    pub(super) overlap: Option<Overlap>,
    mode: Mode,
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
        let mixed_prefill = options.mixed_prefill.or(device.mixed_prefill());
        let scheduler = scheduler::Limits {
            mixed_prefill_tokens: mixed_prefill.unwrap_or(usize::MAX),
            ..scheduler_limits(&limits, options)
        };
        let scheduler = Scheduler::new(scheduler)?;
        let loaded = device.prepare(&model.plan, &model.weights, &limits, progress)?;
        model.weights.check()?;
        let kind = device.info().kind;
        let tool = nvtx::tool().filter(|_| options.nvtx);
        let ranges = tool.map(|tool| -> Box<dyn Ranges> {
            let described = Described::new(&model.plan, loaded.as_ref(), kind);
            Box::new(LayerRanges::new(described, tool))
        });
        let samples = loaded.samples().filter(|_| options.device_sampling);
        Ok(Engine {
            model,
            recorder: Recorder::off(),
            aside: Recorder::off(),
            faults: None,
            device: device.info(),
            limits,
            loaded,
            samples,
            scheduler,
            seed: options.seed,
            submitted: 0,
            choices: HashMap::new(),
            buffers: Buffers::default(),
            last: StepStats::default(),
            ranges,
            overlap: None,
            mode: options.overlap,
        })
    }

    pub fn device(&self) -> &DeviceInfo {
        &self.device
    }

    /// Whether steps are to be overlapped by whoever can.
    pub fn overlap_mode(&self) -> Mode {
        self.mode
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
    /// A parameter or token id out of range (`Usage`); a request that can never fit (`Limit`) or
    /// that the queue has no room for now (`Busy`).
    pub fn submit(&mut self, request: &GenerateRequest) -> Result<()> {
        // Nothing is changed before all of the request has been made.
        let choices = guarded(|| self.choices_of(request)).unwrap_or_else(|what| {
            Err(Error::new(Kind::Device, format!("making the request {what}")))
        })?;
        let room = self.model.context.saturating_sub(request.prompt.len());
        let wanted = Request {
            id: request.id,
            prompt: request.prompt.clone(),
            max_new_tokens: request.params.max_new_tokens.unwrap_or(room),
            choices: choices.len() as u32,
            logprob_start: request.logprobs.prompt_start,
            salt: request.salt,
        };
        self.scheduler.submit(&wanted).map_err(|refusal| {
            let kind = if refusal.is_temporary() { Error::busy } else { Error::limit };
            kind(refusal.to_string())
        })?;
        self.submitted += 1;
        let key = |n: usize| (request.id, n as u32);
        self.choices.extend(choices.into_iter().enumerate().map(|(n, c)| (key(n), c)));
        Ok(())
    }

    fn choices_of(&self, request: &GenerateRequest) -> Result<Vec<Choice>> {
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
        let constraint = self.constraint(&request.params)?;
        (0..request.params.n as u32)
            .map(|choice| {
                let mut made = Choice::new(request, &shared, choice, seed)?;
                made.constraint = constraint.as_ref().map(Constraint::fork);
                made.born = self.scheduler.last_step();
                Ok(made)
            })
            .collect()
    }

    /// The constraint that the parameters ask for. A server has compiled it elsewhere, so that it
    /// comes from the cache here.
    fn constraint(&self, params: &SamplingParams) -> Result<Option<Constraint>> {
        let Some(spec) = &params.grammar else { return Ok(None) };
        let grammars = self.model.grammars.as_ref();
        let missing = || Error::unsupported(format!("{} needs a tokenizer", spec.name()));
        grammars.ok_or_else(missing)?.compile(spec).map(Some)
    }

    /// Ends all choices of request `id`; false if there is none.
    pub fn cancel(&mut self, id: u64, updates: &mut Vec<Update>) -> bool {
        let mut events = std::mem::take(&mut self.buffers.events);
        let found = self.scheduler.cancel(id, &mut events);
        self.report(&mut events, updates);
        self.buffers.events = events;
        found
    }

    /// Ends everything that waits or runs with `Failed(why)`: nobody is left without an answer.
    pub fn abort_all(&mut self, why: &str, updates: &mut Vec<Update>) {
        let mut ids: Vec<u64> = self.choices.keys().map(|key| key.0).collect();
        ids.sort_unstable();
        ids.dedup();
        let mut events = std::mem::take(&mut self.buffers.events);
        ids.iter().for_each(|&id| _ = self.scheduler.cancel(id, &mut events));
        self.report_as(&mut events, updates, &FinishReason::Failed(why.to_owned()));
        self.buffers.events = events;
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

    /// The last step: what it ran and how long its parts took.
    pub fn last_step(&self) -> &StepStats {
        &self.last
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
        max_queued_requests: options.max_queued,
        max_queued_tokens: options.max_queued_tokens,
        preempt_every: options.preempt_every,
        ..scheduler::Limits::default()
    }
}

/// A request for one greedy or sampled continuation, nothing else.
pub fn simple_request(
    id: u64,
    prompt: Vec<TokenId>,
    params: Arc<SamplingParams>,
) -> GenerateRequest {
    GenerateRequest { id, prompt, params, logprobs: Default::default(), salt: 0 }
}
