//! The engine as the subject of an offline run.

use std::collections::HashMap;
use std::sync::Arc;

use super::run::{Done, Request, StepSample, Stepped, Subject};
use crate::engine::Engine;
use crate::engine::core::simple_request;
use crate::engine::params::SamplingParams;
use crate::engine::request::{FinishReason, LogprobOptions, Update};
use crate::error::Result;

/// An engine, and how requests are to be sampled.
pub struct EngineSubject {
    engine: Engine,
    params: SamplingParams,
    logprobs: LogprobOptions,
    updates: Vec<Update>,
    /// Length so far of every request that runs or waits: prompt and output.
    lengths: HashMap<u64, usize>,
    outputs: HashMap<u64, usize>,
    prefilled: u64,
}

impl EngineSubject {
    pub fn new(engine: Engine, params: SamplingParams, logprobs: LogprobOptions) -> Self {
        EngineSubject {
            engine,
            params,
            logprobs,
            updates: Vec::new(),
            lengths: HashMap::new(),
            outputs: HashMap::new(),
            prefilled: 0,
        }
    }

    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    fn read(&mut self, update: &Update, out: &mut Stepped) {
        let id = update.id;
        if update.token.is_some() {
            out.tokens.push((id, 1));
            out.sample.sequences += 1;
            let made = self.outputs.entry(id).or_default();
            *made += 1;
            out.sample.decode_tokens += usize::from(*made > 1);
            if let Some(length) = self.lengths.get_mut(&id) {
                out.sample.kv_tokens += *length;
                *length += 1;
            }
        }
        if let Some(finished) = &update.finished {
            self.lengths.remove(&id);
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
        self.lengths.insert(request.id, request.prompt.len());
        Ok(())
    }

    fn step(&mut self) -> Result<Option<Stepped>> {
        let mut updates = std::mem::take(&mut self.updates);
        updates.clear();
        let ran = self.engine.step(&mut updates);
        let mut out = Stepped::default();
        updates.iter().for_each(|u| self.read(u, &mut out));
        self.updates = updates;
        let prefilled = self.engine.scheduler().metrics().prefill_tokens_total;
        let new = prefilled.saturating_sub(self.prefilled) as usize;
        out.sample = StepSample { prefill_tokens: new, ..out.sample };
        self.prefilled = prefilled;
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
        let ids: Vec<u64> = self.lengths.keys().copied().collect();
        ids.iter().for_each(|&id| _ = self.engine.cancel(id, &mut self.updates));
        self.updates.clear();
        self.lengths.clear();
        self.outputs.clear();
        self.engine.scheduler().flush_prefix_cache();
        Ok(())
    }

    fn context(&self) -> usize {
        self.engine.limits().context
    }
}
