//! The engine as the subject of an offline run.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::run::{Done, Request, StepSample, Stepped, Subject};
use crate::engine::Engine;
use crate::engine::core::simple_request;
use crate::engine::params::SamplingParams;
use crate::engine::request::{FinishReason, LogprobOptions, Update};
use crate::error::Result;
use crate::profile::recorder::Recorder;

/// An engine, and how requests are to be sampled.
pub struct EngineSubject {
    engine: Engine,
    params: SamplingParams,
    logprobs: LogprobOptions,
    updates: Vec<Update>,
    /// Requests that run or wait.
    running: HashSet<u64>,
    /// Tokens so far of each.
    outputs: HashMap<u64, usize>,
}

impl EngineSubject {
    pub fn new(engine: Engine, params: SamplingParams, logprobs: LogprobOptions) -> Self {
        EngineSubject {
            engine,
            params,
            logprobs,
            updates: Vec::new(),
            running: HashSet::new(),
            outputs: HashMap::new(),
        }
    }

    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Puts another recorder in and gives back the one that was there.
    pub fn swap_recorder(&mut self, recorder: Recorder) -> Recorder {
        std::mem::replace(&mut self.engine.recorder, recorder)
    }

    fn read(&mut self, update: &Update, out: &mut Stepped) {
        let id = update.id;
        if update.token.is_some() {
            out.tokens.push((id, 1));
            *self.outputs.entry(id).or_default() += 1;
        }
        if let Some(finished) = &update.finished {
            self.running.remove(&id);
            let failed = match &finished.reason {
                FinishReason::Failed(why) => Some(why.clone()),
                FinishReason::Cancelled => Some("cancelled".into()),
                _ => None,
            };
            out.done.push(Done {
                id,
                output_tokens: self.outputs.remove(&id).unwrap_or(0),
                cached_tokens: finished.usage.cached_tokens,
                failed,
            });
        }
    }
}

impl Subject for EngineSubject {
    fn submit(&mut self, request: &Request) -> Result<()> {
        let mut params = self.params.clone();
        params.max_new_tokens = Some(request.max_new_tokens);
        let mut wanted = simple_request(request.id, request.prompt.clone(), Arc::new(params));
        wanted.logprobs = self.logprobs;
        self.engine.submit(&wanted)?;
        self.running.insert(request.id);
        Ok(())
    }

    fn step(&mut self) -> Result<Option<Stepped>> {
        let mut updates = std::mem::take(&mut self.updates);
        updates.clear();
        let ran = self.engine.step(&mut updates);
        let mut out = Stepped::default();
        updates.iter().for_each(|u| self.read(u, &mut out));
        self.updates = updates;
        let last = self.engine.last_step();
        out.sample = StepSample {
            prefill_tokens: last.prefill_tokens,
            decode_tokens: last.decode_tokens,
            sequences: last.sequences,
            kv_reads: last.kv_reads,
            ..StepSample::default()
        };
        // A step that failed has ended its requests; the device may go on.
        match ran {
            Ok(true) => Ok(Some(out)),
            Ok(false) => Ok(None),
            Err(error) if error.kind == crate::error::Kind::DeviceLost => Err(error),
            Err(error) if out.done.is_empty() => Err(error),
            Err(_) => Ok(Some(out)),
        }
    }

    fn reset(&mut self) -> Result<()> {
        let ids: Vec<u64> = self.running.iter().copied().collect();
        ids.iter().for_each(|&id| _ = self.engine.cancel(id, &mut self.updates));
        self.updates.clear();
        self.running.clear();
        self.outputs.clear();
        self.engine.scheduler().flush_prefix_cache();
        Ok(())
    }

    fn context(&self) -> usize {
        self.engine.limits().context
    }
}
