//! A tiny model on the CPU, and requests run to their end.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use pacer::device::cpu::{CpuDevice, CpuOptions};
use pacer::device::null::NullDevice;
use pacer::engine::Engine;
use pacer::engine::collect::Collected;
use pacer::engine::core::simple_request;
use pacer::engine::model::Model;
use pacer::engine::options::{EngineOptions, ModelOptions};
use pacer::engine::overlap::{Mode, Progress};
use pacer::engine::params::SamplingParams;
use pacer::engine::request::{GenerateRequest, Update};

pub fn model(golden: &str) -> Model {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(golden);
    let path = Some(folder.to_str().expect("a readable path").to_owned());
    Model::open(&ModelOptions { path, ..ModelOptions::default() }).expect(golden)
}

pub fn engine(golden: &str, options: &EngineOptions) -> Engine {
    let cpu = CpuOptions { threads: Some(1), ..CpuOptions::default() };
    let device = CpuDevice::new(cpu).expect("a thread");
    Engine::new(model(golden), &device, options, &mut |_, _| {}).expect("it fits")
}

/// The same with every step overlapped.
pub fn overlapped(golden: &str, options: &EngineOptions) -> Engine {
    let mut engine = engine(golden, options);
    engine.overlap(Mode::Always, || {}).expect("a thread");
    engine
}

/// The golden model's text around a device that computes nothing.
pub fn null_engine(golden: &str, options: &EngineOptions) -> Engine {
    Engine::new(model(golden), &NullDevice::default(), options, &mut |_, _| {}).expect("it fits")
}

/// A fixed stream of numbers.
pub struct Numbers(pub u64);

impl Numbers {
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}

pub fn prompt(seed: u64, length: usize, vocab: usize) -> Vec<u32> {
    let mut numbers = Numbers(seed);
    (0..length).map(|_| (3 + numbers.below(vocab - 3)) as u32).collect()
}

/// A prompt that ends with a whole character: random tokens may end inside one, which would then
/// be the first of the output's text.
pub fn text_prompt(engine: &Engine, seed: u64) -> Vec<u32> {
    let mut tokens = prompt(seed, 8, engine.model.config.vocab_size);
    let tokenizer = engine.model.tokenizer().expect("a golden model has one");
    tokens.extend(tokenizer.encode("a b", false).expect("plain text"));
    tokens
}

pub fn request(id: u64, prompt: Vec<u32>, params: SamplingParams) -> GenerateRequest {
    simple_request(id, prompt, Arc::new(params))
}

pub type Answers = BTreeMap<(u64, u32), Collected>;

pub fn collect(updates: &mut Vec<Update>, answers: &mut Answers) {
    for update in updates.drain(..) {
        let answer = answers.entry((update.id, update.choice)).or_default();
        assert!(answer.finished.is_none(), "an update after the end");
        answer.add(update);
    }
}

/// Steps until nothing is left, auditing after every step.
pub fn run(engine: &mut Engine, answers: &mut Answers) {
    let mut updates = Vec::new();
    while !engine.idle() {
        let did = engine.advance(true, &mut updates).expect("a step");
        assert_ne!(did, Progress::Nothing, "work, and nothing planned");
        engine.scheduler().audit().expect("audit");
        collect(&mut updates, answers);
    }
    let metrics = engine.scheduler().metrics();
    assert_eq!(metrics.pages.held + metrics.pages.fenced, 0, "{metrics:?}");
}

/// Submits all at once and runs them to their end.
pub fn answer(engine: &mut Engine, requests: &[GenerateRequest]) -> Answers {
    let mut answers = Answers::new();
    for request in requests {
        engine.submit(request).expect("accepted");
    }
    run(engine, &mut answers);
    answers
}
