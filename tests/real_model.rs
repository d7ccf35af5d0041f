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
use serde_json::{Map, Value, json};

/// Mean KL divergence per position that 8-bit activations may cost.
const LIMIT: f64 = 5e-3;
/// The same of 16-bit activations; they cost 4e-7, most of it keys and values in half precision.
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

fn open(path: &str) -> Model {
    let options = ModelOptions { path: Some(path.to_owned()), ..ModelOptions::default() };
    Model::open(&options).unwrap()
}

fn engine(path: &str, mode: Mode) -> Engine {
    let device = CpuDevice::new(CpuOptions { mode, ..CpuOptions::default() }).unwrap();
    let options = EngineOptions {
        total_tokens: Some(1024),
        logit_rows: Some(256),
        ..EngineOptions::default()
    };
    Engine::new(open(path), &device, &options, &mut |_, _| {}).unwrap()
}

/// What the model at `path` says after every token of the text but the last.
fn run(path: &str, mode: Mode, ids: &[u32]) -> Vec<Best> {
    score(&mut engine(path, mode), ids)
}

fn score(engine: &mut Engine, ids: &[u32]) -> Vec<Best> {
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

/// Texts of several kinds; a question is put as the chat template says.
const PROMPTS: [(&str, bool); 10] = [
    ("What is the capital of France?", true),
    ("Write a haiku about the sea.", true),
    ("What is 17 times 23? Show your work.", true),
    ("Write a Python function that reverses a string.", true),
    ("Translate to French: The cat sleeps on the warm roof.", true),
    ("The capital of France is", false),
    ("The three largest cities of France are", false),
    ("Once upon a time, in a small village by the river, there lived", false),
    ("def fibonacci(n):\n    if n < 2:\n        return n\n    return", false),
    ("Water boils at 100 degrees", false),
];

fn prompt(model: &Model, (text, question): (&str, bool)) -> Vec<u32> {
    let (tokenizer, chat) = (model.tokenizer.as_ref().unwrap(), model.chat.as_ref().unwrap());
    let messages = json!([{ "role": "user", "content": text }]);
    let chat = || chat.render(&messages, true, &Map::new()).unwrap();
    let text = if question { chat() } else { text.to_owned() };
    tokenizer.encode(&text, !question).unwrap()
}

/// Every text by itself, not only the mean: a text may hold the one token that overflows a block.
#[test]
fn no_prompt_moves_much() {
    let Ok(path) = std::env::var("PACER_SMOLLM2") else {
        eprintln!("PACER_SMOLLM2 is not set: no real model, nothing compared");
        return;
    };
    let model = open(&path);
    let modes = [Mode::Exact, Mode::default(), Mode::Int8];
    let [mut floats, mut usual, mut bytes] = modes.map(|mode| engine(&path, mode));
    let worst = PROMPTS.map(|text| {
        let ids = prompt(&model, text);
        let exact = score(&mut floats, &ids);
        let kl = mean_divergence(&exact, &score(&mut usual, &ids));
        let eight = mean_divergence(&exact, &score(&mut bytes, &ids));
        println!("{:?}: mean KL per position {kl:.2e}, with 8 bits {eight:.2e}", text.0);
        kl
    });
    assert!(worst.iter().all(|kl| *kl < LIMIT), "{worst:?}");
}

#[test]
fn the_capital_of_france_stays_paris() {
    let Ok(path) = std::env::var("PACER_SMOLLM2") else {
        eprintln!("PACER_SMOLLM2 is not set: no real model, nothing compared");
        return;
    };
    let ids = prompt(&open(&path), PROMPTS[0]);
    let answers = [Mode::Exact, Mode::default()].map(|mode| {
        let mut engine = engine(&path, mode);
        let greedy = SamplingParams {
            max_new_tokens: Some(12),
            temperature: 0.0,
            ..SamplingParams::default()
        };
        engine.submit(&simple_request(0, ids.clone(), Arc::new(greedy))).unwrap();
        let (mut updates, mut answer) = (Vec::new(), String::new());
        while !engine.idle() {
            assert!(engine.step(&mut updates).unwrap());
            answer.extend(updates.drain(..).map(|update| update.text));
        }
        answer
    });
    println!("{answers:?}");
    assert!(answers[0].contains("Paris"), "{answers:?}");
    assert_eq!(answers[0], answers[1], "the default answers as floats do");
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
