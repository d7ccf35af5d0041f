//! Golden models on the GPU device: over the PTX machine directly, and through the `cuda` driver
//! against the stand-in libcuda.

#[path = "gpu/harness.rs"]
#[allow(dead_code)]
mod harness;
#[path = "libcuda/support.rs"]
mod support;

use std::sync::Arc;

use pacer::device::gpu::driver::Driver;
use pacer::device::gpu::driver::cuda::Cuda;
use pacer::device::gpu::driver::emulated::Emulated;
use pacer_emulator::Checks;
use pacer_emulator::host::Config;

/// The machine with or without its checks for races and unwritten memory.
fn emulated(checks: Checks) -> Arc<dyn Driver> {
    Arc::new(Emulated::new(Config { checks, ..Config::default() }))
}

#[test]
fn llama_under_every_check() {
    let driver = emulated(Checks::ALL);
    harness::logits("llama", &driver);
    harness::greedy("llama", &driver, 3);
}

#[test]
fn graphs_and_company_change_no_bit() {
    harness::greedy("qwen3", &emulated(Checks::FAST), 8);
}

#[test]
fn llama_through_the_cuda_driver() {
    support::pass("llama_on_cuda", &[("PACER_LIBCUDA_CHECKS", "fast")]);
}

/// With the forerunners of calls that newer drivers brought.
#[test]
fn llama_through_the_oldest_driver() {
    let variables = [("PACER_LIBCUDA_CHECKS", "fast"), ("PACER_LIBCUDA_VERSION", "12000")];
    support::pass("llama_on_cuda", &variables);
}

#[test]
#[ignore = "a child of llama_through_the_cuda_driver"]
fn llama_on_cuda() {
    let driver: Arc<dyn Driver> = Arc::new(Cuda::open(0).unwrap());
    harness::logits("llama", &driver);
    harness::greedy("llama", &driver, 4);
}

/// Other architectures and rope scalings, heads of 16, 24 and 32 numbers.
const MORE: [&str; 7] =
    ["gemma3", "llama-bias", "llama-yarn", "olmo2", "phi3-longrope", "qwen3-moe-mixed", "smollm3"];

#[test]
fn heads_of_16_and_24_numbers() {
    for name in ["llama-yarn", "llama-bias"] {
        harness::logits(name, &emulated(Checks::FAST));
        harness::greedy(name, &emulated(Checks::FAST), 4);
    }
}

/// The models of `tests/golden`, which record what bfloat16 may differ by.
const MODELS: [&str; 9] =
    ["gemma2", "llama", "llama3-rope", "mistral", "mixtral", "phi3", "qwen2", "qwen3", "qwen3-moe"];

/// The models to run: those in `PACER_GOLDEN`, separated by commas, or all.
fn models() -> Vec<&'static str> {
    let named = std::env::var("PACER_GOLDEN").unwrap_or_default();
    let wanted = |m: &&str| named.is_empty() || named.split(',').any(|n| n == *m);
    let chosen: Vec<&str> = MODELS.into_iter().chain(MORE).filter(wanted).collect();
    assert!(!chosen.is_empty(), "PACER_GOLDEN={named} names no golden model");
    chosen
}

#[test]
#[ignore = "takes minutes: a step of .ci/run"]
fn every_model_emulated() {
    for name in models() {
        harness::logits(name, &emulated(Checks::FAST));
        harness::greedy(name, &emulated(Checks::FAST), 8);
    }
}

#[test]
#[ignore = "takes minutes: a step of .ci/run"]
fn every_model_on_cuda() {
    support::pass("models_on_cuda", &[("PACER_LIBCUDA_CHECKS", "fast")]);
}

#[test]
#[ignore = "a child of every_model_on_cuda"]
fn models_on_cuda() {
    let driver: Arc<dyn Driver> = Arc::new(Cuda::open(0).unwrap());
    for name in models() {
        harness::logits(name, &driver);
        harness::greedy(name, &driver, 8);
    }
}
