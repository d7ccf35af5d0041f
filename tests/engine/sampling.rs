//! A device that chooses tokens itself: it is asked for what the host's sampler would do, row by
//! row, and logits come back only for what no device does. The device here samples with the host's
//! own arithmetic, so that every bit of every answer must be the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pacer::device::cpu::{CpuDevice, CpuOptions};
use pacer::device::null::NullDevice;
use pacer::device::sampling::{LogitChange, Most, RowSampling, Sampled, Sampling, Wanted};
use pacer::device::{Batch, Device, DeviceInfo, Limits, Loaded, MemoryUse};
use pacer::engine::Engine;
use pacer::engine::logprobs::{best, log_sum_exp};
use pacer::engine::options::EngineOptions;
use pacer::engine::overlap::Mode;
use pacer::engine::params::SamplingParams;
use pacer::engine::request::GenerateRequest;
use pacer::engine::sampler::{Bans, SamplerScratch, SamplerState};
use pacer::error::Result;
use pacer::model::cost::Storage;
use pacer::model::plan::Plan;
use pacer::profile::recorder::Recorder;
use pacer::text::grammar::GrammarSpec;
use pacer::types::Dtype;
use pacer::weights::Weights;

use crate::invariance::{assert_same, options, requests};
use crate::support::{answer, engine, model, null_engine, prompt, request};

const MOST: Most = Most { top: 4, changes: 64 };

/// Rows that a device was asked for.
#[derive(Default)]
struct Counts {
    chosen: AtomicUsize,
    logits: AtomicUsize,
}

struct Samples {
    inner: Box<dyn Device>,
    counts: Arc<Counts>,
}

impl Device for Samples {
    fn info(&self) -> DeviceInfo {
        self.inner.info()
    }

    fn element_bytes(&self, plan: &Plan, weights: &Weights) -> (usize, usize) {
        self.inner.element_bytes(plan, weights)
    }

    fn prepare(
        &self,
        plan: &Plan,
        weights: &Weights,
        limits: &Limits,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Box<dyn Loaded>> {
        let inner = self.inner.prepare(plan, weights, limits, progress)?;
        let (counts, vocab) = (Arc::clone(&self.counts), plan.vocab_size);
        Ok(Box::new(SamplesLoaded { inner, counts, vocab, logits: Vec::new() }))
    }
}

struct SamplesLoaded {
    inner: Box<dyn Loaded>,
    counts: Arc<Counts>,
    vocab: usize,
    logits: Vec<f32>,
}

impl Loaded for SamplesLoaded {
    fn step(&mut self, batch: &Batch, recorder: &mut Recorder) -> Result<()> {
        self.inner.step(batch, recorder)?;
        self.counts.logits.fetch_add(batch.logit_rows.len(), Ordering::SeqCst);
        self.logits = self.inner.logits().to_vec();
        Ok(())
    }

    fn samples(&self) -> Option<Most> {
        Some(MOST)
    }

    fn step_sampled(
        &mut self,
        batch: &Batch,
        sampling: &Sampling,
        out: &mut Sampled,
        recorder: &mut Recorder,
    ) -> Result<()> {
        assert_eq!(sampling.rows.len(), batch.logit_rows.len());
        self.inner.step(batch, recorder)?;
        let width = sampling.top().unwrap_or(0);
        *out = Sampled { width, ..Sampled::default() };
        self.logits.clear();
        let (mut changes, mut logits) = (sampling.changes, 0);
        for (row, wanted) in self.inner.logits().chunks(self.vocab).zip(sampling.rows) {
            let token = match wanted.wanted {
                Wanted::Logits => {
                    logits += 1;
                    self.logits.extend_from_slice(row);
                    0
                }
                Wanted::Given(token) => token,
                Wanted::Token(how) => {
                    let (own, rest) = changes.split_at(how.changes as usize);
                    assert!(own.len() <= MOST.changes);
                    changes = rest;
                    choose(row, &how, own)
                }
            };
            out.tokens.push(token);
            let norm = log_sum_exp(row);
            let logprob = |id: u32| (f64::from(row[id as usize]) - norm) as f32;
            out.logprobs.push(if wanted.top.is_some() { logprob(token) } else { f32::NAN });
            let mut best = best(row, wanted.top.unwrap_or(0)).into_iter();
            let missing = (u32::MAX, f32::NAN);
            let top = (0..width).map(|_| best.next().map_or(missing, |id| (id, logprob(id))));
            out.top.extend(top);
        }
        assert!(changes.is_empty(), "changes that belong to no row");
        self.counts.logits.fetch_add(logits, Ordering::SeqCst);
        self.counts.chosen.fetch_add(sampling.rows.len() - logits, Ordering::SeqCst);
        Ok(())
    }

    fn logits(&self) -> &[f32] {
        &self.logits
    }

    fn copy_page(&mut self, from: u32, to: u32, tokens: usize) -> Result<()> {
        self.inner.copy_page(from, to, tokens)
    }

    fn memory(&self) -> MemoryUse {
        self.inner.memory()
    }

    fn storage(&self) -> Storage<'_> {
        self.inner.storage()
    }

    fn weight_dtype(&self) -> Dtype {
        self.inner.weight_dtype()
    }
}

/// The host's sampler, told what the device was told.
fn choose(row: &[f32], how: &RowSampling, changes: &[LogitChange]) -> u32 {
    let ends: Vec<u32> = changes.iter().filter(|c| c.forbidden).map(|c| c.token).collect();
    let params = SamplingParams {
        temperature: how.temperature,
        top_k: how.top_k as usize,
        top_p: how.top_p,
        min_p: how.min_p,
        repetition_penalty: how.repetition,
        frequency_penalty: how.frequency,
        presence_penalty: how.presence,
        logit_bias: changes.iter().filter(|c| c.bias != 0.0).map(|c| (c.token, c.bias)).collect(),
        min_new_tokens: if ends.is_empty() { 0 } else { how.position as usize + 1 },
        ..SamplingParams::default()
    };
    let mut state = SamplerState::default();
    let generated = changes.iter().flat_map(|c| (0..c.count).map(|_| c.token));
    let mut left = how.position;
    for token in generated {
        state.accept(token, &params);
        left -= 1;
    }
    assert!(left == 0 || !params.has_penalties(), "every generated token is counted");
    (0..left).for_each(|_| state.accept(0, &params));
    let bans = Bans { ends: &ends, allowed: None };
    let mut scratch = SamplerScratch::default();
    state.sample(row, &params, (how.seed, how.choice), &bans, &mut scratch)
}

fn sampling(golden: &str, sizes: &EngineOptions, overlapped: bool) -> (Engine, Arc<Counts>) {
    let cpu = CpuOptions { threads: Some(1), ..CpuOptions::default() };
    let inner: Box<dyn Device> = Box::new(CpuDevice::new(cpu).expect("a thread"));
    around(inner, golden, sizes, overlapped)
}

fn around(
    inner: Box<dyn Device>,
    golden: &str,
    sizes: &EngineOptions,
    overlapped: bool,
) -> (Engine, Arc<Counts>) {
    let counts = Arc::<Counts>::default();
    let device = Samples { inner, counts: Arc::clone(&counts) };
    let mut engine = Engine::new(model(golden), &device, sizes, &mut |_, _| {}).expect("it fits");
    if overlapped {
        engine.overlap(Mode::Always, || {}).expect("a thread");
    }
    (engine, counts)
}

/// Everything that moves logits or ends a request early, in turn.
fn mixed(id: u64) -> GenerateRequest {
    let mut params = SamplingParams {
        max_new_tokens: Some(20),
        temperature: if id % 2 == 0 { 0.0 } else { 0.9 },
        min_p: if id % 5 == 0 { 0.02 } else { 0.0 },
        n: 1 + id as usize % 2,
        seed: Some(70 + id),
        ..SamplingParams::default()
    };
    match id % 8 {
        0 => {
            params.logit_bias = (0..30).map(|i| (i * 7 + id as u32, 2.0 - i as f32 / 8.0)).collect()
        }
        1 => (params.frequency_penalty, params.presence_penalty) = (0.7, 0.3),
        2 => (params.stop_token_ids, params.min_new_tokens) = ((0..250).step_by(5).collect(), 9),
        3 => params.stop = vec!["e".into()],
        4 => params.logit_bias = (0..100).map(|i| (i, 1.0)).collect(),
        5 => params.repetition_penalty = 1.3,
        6 => (params.logit_bias, params.repetition_penalty) = (vec![(9, 4.0), (8, 4.5)], 1.5),
        _ => params.stop_token_ids = (0..60).collect(),
    }
    let mut made = request(id, prompt(id / 2, 9 + id as usize % 4, 500), params);
    made.logprobs.output = id % 3 == 0;
    made.logprobs.top = id as usize % 4;
    made.logprobs.prompt_start = (id % 9 == 0).then_some(2);
    made
}

#[test]
fn answers_are_those_of_the_host_in_both_loops() {
    let all: Vec<_> = requests().into_iter().chain((100..148).map(mixed)).collect();
    let sizes = EngineOptions { step_tokens: Some(40), preempt_every: 7, ..options(9) };
    let expected = answer(&mut engine("llama", &sizes), &all);
    for overlapped in [false, true] {
        let (mut engine, counts) = sampling("llama", &sizes, overlapped);
        let found = answer(&mut engine, &all);
        assert_same(&format!("on the device, overlapped {overlapped}"), &found, &expected);
        let reason =
            |a: &crate::support::Answers, k| a[k].finished.as_ref().map(|f| f.reason.clone());
        expected.keys().for_each(|k| assert_eq!(reason(&found, k), reason(&expected, k), "{k:?}"));
        // A bias of more tokens than the device takes: that request's rows alone came.
        let logits = counts.logits.load(Ordering::SeqCst);
        let biased = expected.iter().filter(|((id, _), _)| *id >= 100 && id % 8 == 4);
        let own: usize = biased.map(|(_, a)| a.ids.len()).sum();
        assert!((own..own + own / 4 + 8).contains(&logits), "{logits} rows, {own} tokens");
        assert!(counts.chosen.load(Ordering::SeqCst) > 4 * logits);
    }
}

#[test]
fn grammars_and_many_best_tokens_bring_their_own_rows() {
    let plain = |id| {
        request(
            id,
            prompt(id, 12, 500),
            SamplingParams {
                max_new_tokens: Some(10),
                ignore_eos: true,
                seed: Some(id),
                ..SamplingParams::default()
            },
        )
    };
    let mut many = plain(1);
    (many.logprobs.output, many.logprobs.top) = (true, MOST.top + 1);
    let grammar = Some(GrammarSpec::Regex("[a-z ]{4,9}".into()));
    let bound = request(
        2,
        prompt(2, 12, 500),
        SamplingParams {
            max_new_tokens: Some(10),
            grammar,
            seed: Some(2),
            ..SamplingParams::default()
        },
    );
    let all = [plain(0), many, bound];
    let expected = answer(&mut engine("qwen3", &options(4)), &all);
    for overlapped in [false, true] {
        let (mut engine, counts) = sampling("qwen3", &options(4), overlapped);
        assert_same("beside a grammar", &answer(&mut engine, &all), &expected);
        let own = expected[&(1, 0)].ids.len() + expected[&(2, 0)].ids.len();
        let logits = counts.logits.load(Ordering::SeqCst);
        assert!((own..=own + 2).contains(&logits), "{logits} rows of logits for {own} tokens");
    }
    // Asked not to, the device is left to compute.
    let off = EngineOptions { device_sampling: false, ..options(4) };
    let (mut engine, counts) = sampling("qwen3", &off, false);
    assert_same("on the host", &answer(&mut engine, &all), &expected);
    assert_eq!(counts.chosen.load(Ordering::SeqCst), 0);
}

#[test]
fn a_device_that_computes_nothing_can_choose_too() {
    let expected = answer(&mut null_engine("llama", &options(8)), &requests());
    for overlapped in [false, true] {
        let null: Box<dyn Device> = Box::new(NullDevice::default());
        let (mut engine, counts) = around(null, "llama", &options(8), overlapped);
        assert_same("on no device", &answer(&mut engine, &requests()), &expected);
        assert_eq!(counts.logits.load(Ordering::SeqCst), 0, "no row of logits came");
    }
}
