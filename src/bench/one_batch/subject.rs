//! The engine as the subject of `bench-one-batch`: the same scheduler, runner and sampler that
//! serve, in static mode.

use std::sync::Arc;
use std::time::Instant;

use super::correctness::{self, Probe};
use super::{Achieved, Correctness, OneBatch, SubjectInfo};
use crate::engine::Engine;
use crate::engine::core::simple_request;
use crate::engine::params::SamplingParams;
use crate::engine::request::Update;
use crate::error::{Error, Result};
use crate::model::cost::{StepShape, Storage};
use crate::model::plan::Plan;
use crate::profile::describe::Describe;
use crate::profile::gpu::GpuTrace;
use crate::profile::recorder::Recorder;
use crate::types::TokenId;

/// An engine that runs one fixed batch, greedily and past every end.
pub struct EngineBatch {
    engine: Engine,
    threads: usize,
    /// Longest output that a case asks for.
    output: usize,
    prompts: Vec<Vec<TokenId>>,
    updates: Vec<Update>,
    next_id: u64,
    generated: u64,
}

impl EngineBatch {
    /// `output` is the longest output of any case.
    pub fn new(engine: Engine, threads: usize, output: usize) -> Self {
        let (prompts, updates) = (Vec::new(), Vec::new());
        EngineBatch { engine, threads, output, prompts, updates, next_id: 0, generated: 0 }
    }

    /// Ends what runs; computed pages stay cached.
    fn cancel(&mut self) {
        let first = self.next_id - self.prompts.len() as u64;
        for id in first..self.next_id {
            self.engine.cancel(id, &mut self.updates);
        }
        self.updates.clear();
        self.generated = 0;
    }

    /// Submits the prompts and steps until each has its first token.
    fn start(&mut self) -> Result<()> {
        let longest = self.prompts.iter().map(Vec::len).max().unwrap_or(0);
        let batch = self.prompts.len().max(1);
        let room = self.engine.limits().context.min(self.engine.capacity_tokens() / batch);
        let max_new_tokens = self.output.min(room.saturating_sub(longest)).max(1);
        let params = Arc::new(SamplingParams {
            max_new_tokens: Some(max_new_tokens),
            temperature: 0.0,
            ignore_eos: true,
            ..SamplingParams::default()
        });
        for prompt in &self.prompts {
            let request = simple_request(self.next_id, prompt.clone(), Arc::clone(&params));
            self.next_id += 1;
            self.engine.submit(&request)?;
        }
        while self.generated < self.prompts.len() as u64 {
            self.step()?;
        }
        Ok(())
    }

    /// One step; counts the tokens that it brought.
    fn step(&mut self) -> Result<()> {
        if !self.engine.step(&mut self.updates)? {
            return Err(Error::device("the batch has ended before its output length"));
        }
        self.generated += self.updates.iter().filter(|u| u.token.is_some()).count() as u64;
        self.updates.clear();
        Ok(())
    }
}

impl OneBatch for EngineBatch {
    fn describe(&self) -> SubjectInfo {
        let (device, model) = (self.engine.device(), &self.engine.model);
        SubjectInfo {
            device_kind: device.kind.to_owned(),
            device_name: device.name.clone(),
            // The threads have a field of their own.
            device_detail: device.detail.split(", ").next().unwrap_or_default().to_owned(),
            model: model.name.clone(),
            model_digest: model.digest.clone(),
            dtype: self.engine.loaded().weight_dtype().name().to_owned(),
            load_format: model.format.to_owned(),
            threads: self.threads,
            vocab_size: model.config.vocab_size,
            context: model.context,
            memory: self.engine.loaded().memory(),
            kernels: self.engine.loaded().choices().to_vec(),
        }
    }

    fn capacity_tokens(&self) -> usize {
        self.engine.capacity_tokens()
    }

    fn clear(&mut self) -> Result<()> {
        self.cancel();
        self.prompts.clear();
        self.engine.scheduler().flush_prefix_cache();
        Ok(())
    }

    fn prefill(&mut self, ids: &[Vec<TokenId>]) -> Result<()> {
        self.prompts = ids.to_vec();
        self.start()
    }

    fn decode_step(&mut self) -> Result<()> {
        self.step()
    }

    fn decode_run(&mut self, steps: usize) -> Result<Vec<u64>> {
        let mut times = Vec::with_capacity(steps);
        let mut last = Instant::now();
        for _ in 0..steps {
            self.step()?;
            let now = Instant::now();
            times.push((now - last).as_nanos() as u64);
            last = now;
        }
        Ok(times)
    }

    /// Runs the prompts again: their full pages are cached, so only the last page is computed.
    fn rewind(&mut self) -> Result<bool> {
        self.cancel();
        self.start()?;
        Ok(true)
    }

    fn achieved(&self) -> Achieved {
        let input = self.prompts.iter().map(|p| p.len() as u64).sum();
        Achieved { input, output: self.generated }
    }

    fn plan(&self) -> Option<&Plan> {
        Some(&self.engine.model.plan)
    }

    fn storage(&self) -> Storage<'_> {
        self.engine.loaded().storage()
    }

    fn described(&self) -> Option<Arc<dyn Describe>> {
        Some(Arc::new(self.engine.described()))
    }

    fn gpu(&self) -> Option<Arc<dyn GpuTrace>> {
        self.engine.loaded().gpu_trace()
    }

    fn declared(&self, shape: &StepShape) -> Vec<(usize, u64)> {
        self.engine.loaded().declared(shape)
    }

    fn swap_recorder(&mut self, recorder: Recorder) -> Recorder {
        std::mem::replace(&mut self.engine.recorder, recorder)
    }

    fn tokenize(&self, text: &str) -> Result<Vec<TokenId>> {
        self.engine.model.tokenizer()?.encode(text, true)
    }

    fn correctness(
        &mut self,
        prompts: &[String],
        cut_len: usize,
        output_len: usize,
    ) -> Result<Correctness> {
        self.clear()?;
        let probe = Probe { cut_len, output_len };
        correctness::compare(&mut self.engine, prompts, &probe)
    }
}
