//! SmolLM2-135M-Instruct (GGUF Q4_1), where `PACER_SMOLLM2` names the file: log-probabilities of a
//! text against those of an independent dequantised float32 run (tests/real_model.json, made by
//! tests/real_model.py). Without the file there is nothing to compare and the test says so.

use std::sync::Arc;

use pacer::device::cpu::{CpuDevice, CpuOptions, Mode};
use pacer::engine::Engine;
use pacer::engine::core::simple_request;
use pacer::engine::model::Model;
use pacer::engine::options::{EngineOptions, ModelOptions};
use pacer::engine::params::SamplingParams;
use serde_json::Value;

/// Mean KL divergence per position that 16-bit activations may cost; they cost 5e-8.
const LIMIT: f64 = 1e-5;
/// The same without quantised activations: float32 rounding alone.
const EXACT_LIMIT: f64 = 1e-6;

/// KL(p ‖ q) over the recorded best tokens, the rest of the mass taken as one more token.
fn divergence(expected: &[Value], found: &[(u32, f32)]) -> f64 {
    let (mut kl, mut p_rest, mut q_rest) = (0.0, 1.0, 1.0);
    for pair in expected {
        let (id, log_p) = (pair[0].as_u64().unwrap() as u32, pair[1].as_f64().unwrap());
        let log_q = found.iter().find(|f| f.0 == id).map_or(-20.0, |f| f64::from(f.1));
        kl += log_p.exp() * (log_p - log_q);
        p_rest -= log_p.exp();
        q_rest -= log_q.exp();
    }
    let (p, q) = (f64::max(p_rest, 1e-9), f64::max(q_rest, 1e-9));
    kl + p * (p / q).ln()
}

fn mean_divergence(path: &str, mode: Mode, recorded: &Value) -> f64 {
    let options = ModelOptions { path: Some(path.to_owned()), ..ModelOptions::default() };
    let model = Model::open(&options).unwrap();
    let device = CpuDevice::new(CpuOptions { mode, ..CpuOptions::default() }).unwrap();
    let options = EngineOptions {
        total_tokens: Some(1024),
        logit_rows: Some(256),
        ..EngineOptions::default()
    };
    let mut engine = Engine::new(model, &device, &options, &mut |_, _| {}).unwrap();
    let list = recorded["ids"].as_array().unwrap();
    let ids: Vec<u32> = list.iter().map(|n| n.as_u64().unwrap() as u32).collect();
    let params = Arc::new(SamplingParams { max_new_tokens: Some(0), ..SamplingParams::default() });
    let mut request = simple_request(0, ids.clone(), params);
    request.logprobs.prompt_start = Some(0);
    request.logprobs.top = 256;
    engine.submit(&request).unwrap();
    let (mut updates, mut rows) = (Vec::new(), Vec::new());
    while !engine.idle() {
        assert!(engine.step(&mut updates).unwrap());
        rows.extend(updates.drain(..).filter_map(|u| u.prompt_logprobs).flatten());
    }
    let expected = recorded["top"].as_array().unwrap();
    assert_eq!(rows.len(), ids.len() - 1);
    let each = rows.iter().zip(expected).map(|(r, e)| divergence(e.as_array().unwrap(), &r.top));
    each.sum::<f64>() / rows.len() as f64
}

#[test]
fn a_real_quantised_model_agrees_with_a_float32_run() {
    let Ok(path) = std::env::var("PACER_SMOLLM2") else {
        eprintln!("PACER_SMOLLM2 is not set: no real model, nothing compared");
        return;
    };
    let text = include_str!("real_model.json");
    let recorded: Value = serde_json::from_str(text).unwrap();
    let kl = mean_divergence(&path, Mode::default(), &recorded);
    let exact = mean_divergence(&path, Mode::Exact, &recorded);
    println!("mean KL per position: {kl:.2e}; with float activations {exact:.2e}");
    assert!(kl < LIMIT, "{kl}");
    assert!(exact < EXACT_LIMIT, "{exact}");
}
