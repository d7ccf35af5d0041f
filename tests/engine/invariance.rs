//! R39 and R40: a request's tokens and log-probabilities, bit for bit, do not depend on the
//! batch, the chunks, the cache, preemption or the order of arrival. `PACER_FULL=1` takes more
//! prompts, longer outputs and every pair of batch and chunk.

use std::collections::BTreeMap;

use pacer::engine::collect::Collected;
use pacer::engine::logprobs::TokenLogprob;
use pacer::engine::options::EngineOptions;
use pacer::engine::params::SamplingParams;
use pacer::engine::request::GenerateRequest;

use crate::support::{Answers, Numbers, answer, engine, prompt, request};

fn full() -> bool {
    std::env::var("PACER_FULL").is_ok()
}

pub fn options(running: usize) -> EngineOptions {
    EngineOptions {
        total_tokens: Some(8192),
        max_running: Some(running),
        ..EngineOptions::default()
    }
}

/// Greedy and sampled, with and without log-probabilities, short prompts and long ones, some of
/// which begin alike.
pub fn requests() -> Vec<GenerateRequest> {
    let mut numbers = Numbers(5);
    let each = |id: u64| {
        let mut tokens = prompt(id / 3, 40, 500);
        tokens.truncate(20 + 5 * (id as usize % 3));
        tokens.extend(prompt(id, 1 + numbers.below(30), 500));
        let params = SamplingParams {
            max_new_tokens: Some(if full() { 64 } else { 12 + id as usize % 13 }),
            temperature: if id % 3 == 0 { 0.0 } else { 0.8 },
            top_k: if id % 4 == 0 { 20 } else { 0 },
            top_p: if id % 5 == 0 { 0.9 } else { 1.0 },
            repetition_penalty: if id % 7 == 0 { 1.2 } else { 1.0 },
            seed: Some(1000 + id),
            ignore_eos: true,
            ..SamplingParams::default()
        };
        let mut made = request(id, tokens, params);
        made.logprobs.output = true;
        made.logprobs.top = id as usize % 3;
        made.logprobs.prompt_start = (id % 6 == 0).then_some(id as usize % 10);
        made
    };
    (0..if full() { 200 } else { 60 }).map(each).collect()
}

fn bits(scored: &[TokenLogprob]) -> Vec<(u32, u32, Vec<(u32, u32)>)> {
    let top = |s: &TokenLogprob| s.top.iter().map(|&(id, p)| (id, p.to_bits())).collect();
    scored.iter().map(|s| (s.token, s.logprob.to_bits(), top(s))).collect()
}

pub fn assert_same(what: &str, found: &Answers, expected: &BTreeMap<(u64, u32), Collected>) {
    for (key, found) in found {
        let expected = &expected[key];
        assert_eq!(found.ids, expected.ids, "{what}: tokens of {key:?}");
        assert_eq!(found.text, expected.text, "{what}: text of {key:?}");
        assert_eq!(bits(&found.logprobs), bits(&expected.logprobs), "{what}: {key:?}");
        let (a, b) = (bits(&found.prompt_logprobs), bits(&expected.prompt_logprobs));
        assert_eq!(a, b, "{what}: prompt of {key:?}");
    }
    assert_eq!(found.len(), expected.len(), "{what}");
}

/// Each request on its own, in an engine that has seen nothing else.
pub fn alone(golden: &str, requests: &[GenerateRequest]) -> Answers {
    let mut answers = Answers::new();
    let mut engine = engine(golden, &EngineOptions { prefix_cache: false, ..options(1) });
    for request in requests {
        answers.extend(answer(&mut engine, std::slice::from_ref(request)));
    }
    answers
}

#[test]
fn batch_chunks_cache_and_preemption_change_no_bit() {
    let requests = requests();
    let expected = alone("llama", &requests);
    for running in [1, 2, 3, 7, 8, 16, 32] {
        for chunk in [16, 33, 512] {
            // A third of the pairs, another one for each batch size, keeps the time down.
            if !full() && (running + chunk) % 3 != 0 {
                continue;
            }
            let step_tokens = Some(chunk.max(running));
            let sizes = EngineOptions { step_tokens, ..options(running) };
            let found = answer(&mut engine("llama", &sizes), &requests);
            assert_same(&format!("batch {running}, chunk {chunk}"), &found, &expected);
        }
    }
    let preempting = EngineOptions { preempt_every: 3, step_tokens: Some(40), ..options(8) };
    let mut preempted = engine("llama", &preempting);
    assert_same("preempted", &answer(&mut preempted, &requests), &expected);
    assert!(preempted.scheduler().metrics().preemptions_total > 20);
}

#[test]
fn a_second_run_is_served_from_the_cache_and_says_the_same() {
    let requests = requests();
    let expected = alone("qwen3", &requests);
    let mut cached = engine("qwen3", &options(8));
    assert_same("first run", &answer(&mut cached, &requests), &expected);
    let before = cached.scheduler().metrics().hit_tokens_total;
    let mut backwards = requests.clone();
    backwards.reverse();
    assert_same("second run", &answer(&mut cached, &backwards), &expected);
    assert!(cached.scheduler().metrics().hit_tokens_total > before + 200);
}

#[test]
fn draws_depend_on_seed_choice_and_position_alone() {
    let sampled = |id, seed, n| {
        let params = SamplingParams {
            max_new_tokens: Some(20),
            temperature: 1.2,
            seed: Some(seed),
            ignore_eos: true,
            n,
            ..SamplingParams::default()
        };
        request(id, prompt(9, 17, 500), params)
    };
    let mut one = engine("llama", &options(16));
    let first = answer(&mut one, &[sampled(1, 42, 3)]);
    let again = answer(&mut one, &[sampled(7, 1, 1), sampled(8, 42, 3), sampled(9, 43, 2)]);
    for choice in 0..3 {
        assert_eq!(first[&(1, choice)].ids, again[&(8, choice)].ids, "choice {choice}");
    }
    assert_ne!(first[&(1, 0)].ids, first[&(1, 1)].ids, "choices differ");
    assert_ne!(again[&(8, 0)].ids, again[&(9, 0)].ids, "seeds differ");
}
