//! SmolLM2-135M-Instruct (GGUF Q4_1), where `PACER_SMOLLM2` names the file: log-probabilities of a
//! text against those of an independent dequantised float32 run (tests/real_model.json, made by
//! tests/real_model.py). Without the file there is nothing to compare and the test says so.
//!
//! `PACER_SMOLLM2_TYPES` may name more files, separated by colons (the same model requantised):
//! each is compared with its own weights dequantised and multiplied as floats.

use std::sync::Arc;

use pacer::device::cpu::{CpuDevice, CpuOptions, Mode};
use pacer::engine::Engine;
use pacer::engine::core::simple_request;
use pacer::engine::model::Model;
use pacer::engine::options::{EngineOptions, ModelOptions};
use pacer::engine::params::SamplingParams;
use serde_json::Value;

/// Mean KL divergence per position that 8-bit activations may cost.
const LIMIT: f64 = 5e-3;
/// The same of 16-bit activations; they cost 5e-8.
const WIDE_LIMIT: f64 = 1e-5;
/// The same without quantised activations: float32 rounding alone.
const EXACT_LIMIT: f64 = 1e-6;

/// The best tokens of a position and their log-probabilities.
type Best = Vec<(u32, f64)>;

/// KL(p ‖ q) over the recorded best tokens, the rest of the mass taken as one more token.
fn divergence(expected: &Best, found: &Best) -> f64 {
    let (mut kl, mut p_rest, mut q_rest) = (0.0, 1.0, 1.0);
    for (id, log_p) in expected {
        let log_q = found.iter().find(|f| f.0 == *id).map_or(-20.0, |f| f.1);
        kl += log_p.exp() * (log_p - log_q);
        p_rest -= log_p.exp();
        q_rest -= log_q.exp();
    }
    let (p, q) = (f64::max(p_rest, 1e-9), f64::max(q_rest, 1e-9));
    kl + p * (p / q).ln()
}

fn mean_divergence(expected: &[Best], found: &[Best]) -> f64 {
    assert_eq!(expected.len(), found.len());
    let each = expected.iter().zip(found).map(|(e, f)| divergence(e, f));
    each.sum::<f64>() / found.len() as f64
}

/// What the model at `path` says after every token of the text but the last.
fn run(path: &str, mode: Mode, ids: &[u32]) -> Vec<Best> {
    let options = ModelOptions { path: Some(path.to_owned()), ..ModelOptions::default() };
    let model = Model::open(&options).unwrap();
    let device = CpuDevice::new(CpuOptions { mode, ..CpuOptions::default() }).unwrap();
    let options = EngineOptions {
        total_tokens: Some(1024),
        logit_rows: Some(256),
        ..EngineOptions::default()
    };
    let mut engine = Engine::new(model, &device, &options, &mut |_, _| {}).unwrap();
    let params = Arc::new(SamplingParams { max_new_tokens: Some(0), ..SamplingParams::default() });
    let mut request = simple_request(0, ids.to_vec(), params);
    request.logprobs.prompt_start = Some(0);
    request.logprobs.top = 256;
    engine.submit(&request).unwrap();
    let (mut updates, mut rows) = (Vec::new(), Vec::new());
    while !engine.idle() {
        assert!(engine.step(&mut updates).unwrap());
        rows.extend(updates.drain(..).filter_map(|u| u.prompt_logprobs).flatten());
    }
    assert_eq!(rows.len(), ids.len() - 1);
    let wide = |top: &[(u32, f32)]| top.iter().map(|(id, x)| (*id, f64::from(*x))).collect();
    rows.iter().map(|row| wide(&row.top)).collect()
}

/// The recorded text and what the float32 run said.
fn recorded() -> (Vec<u32>, Vec<Best>) {
    let recorded: Value = serde_json::from_str(include_str!("real_model.json")).unwrap();
    let list = recorded["ids"].as_array().unwrap();
    let ids: Vec<u32> = list.iter().map(|n| n.as_u64().unwrap() as u32).collect();
    let pair = |v: &Value| (v[0].as_u64().unwrap() as u32, v[1].as_f64().unwrap());
    let best = |row: &Value| row.as_array().unwrap().iter().map(pair).collect();
    let rows: Vec<Best> = recorded["top"].as_array().unwrap().iter().map(best).collect();
    let count = ids.len() - 1;
    (ids, rows[..count].to_vec())
}

#[test]
fn a_real_quantised_model_agrees_with_a_float32_run() {
    let Ok(path) = std::env::var("PACER_SMOLLM2") else {
        eprintln!("PACER_SMOLLM2 is not set: no real model, nothing compared");
        return;
    };
    let (ids, expected) = recorded();
    let limits = [(Mode::Int8, LIMIT), (Mode::Int16, WIDE_LIMIT), (Mode::Exact, EXACT_LIMIT)];
    for (mode, limit) in limits {
        let kl = mean_divergence(&expected, &run(&path, mode, &ids));
        println!("{mode:?}: mean KL per position {kl:.2e}, at most {limit:e}");
        assert!(kl < limit, "{mode:?}: {kl}");
    }
    assert_eq!(Mode::default(), Mode::Int16, "the default is among those compared");
}

#[test]
fn other_types_agree_with_their_own_weights_as_floats() {
    let Ok(paths) = std::env::var("PACER_SMOLLM2_TYPES") else {
        eprintln!("PACER_SMOLLM2_TYPES is not set: nothing compared");
        return;
    };
    let (ids, _) = recorded();
    for path in paths.split(':') {
        let expected = run(path, Mode::Exact, &ids);
        for (mode, limit) in [(Mode::Int8, LIMIT), (Mode::Int16, WIDE_LIMIT)] {
            let kl = mean_divergence(&expected, &run(path, mode, &ids));
            println!("{path} {mode:?}: mean KL per position {kl:.2e}, at most {limit:e}");
            assert!(kl < limit, "{path} {mode:?}: {kl}");
        }
    }
}
