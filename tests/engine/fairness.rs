//! A long prompt does not hold up those who are decoding for longer than one chunk.

use pacer::engine::options::EngineOptions;
use pacer::engine::params::SamplingParams;

use crate::support::{engine, null_engine, prompt, request};

/// Counted in steps and tokens, which no busy machine can change: while 4,000 prompt tokens are
/// prefilled in chunks, every step also decodes a token of each running request.
#[test]
fn a_long_prefill_delays_decodes_by_one_chunk_at_most() {
    let options = EngineOptions {
        total_tokens: Some(16_384),
        step_tokens: Some(128),
        max_running: Some(8),
        ..EngineOptions::default()
    };
    // The golden models end at 512 positions; the scheduler is what is looked at here, so the
    // long prompt is spread over eight requests that arrive together.
    let mut engine = null_engine("llama", &options);
    let decoding = |id| {
        let length = Some(200);
        let params =
            SamplingParams { max_new_tokens: length, ignore_eos: true, ..Default::default() };
        request(id, prompt(id, 4, 500), params)
    };
    (0..4).for_each(|id| engine.submit(&decoding(id)).expect("accepted"));
    let mut updates = Vec::new();
    while updates.iter().filter(|u: &&pacer::engine::request::Update| u.token.is_some()).count() < 8
    {
        engine.step(&mut updates).expect("a step");
    }
    for id in 10..18 {
        let params = SamplingParams { max_new_tokens: Some(1), ..SamplingParams::default() };
        engine.submit(&request(id, prompt(id, 500, 500), params)).expect("accepted");
    }
    let (mut prefilled, mut steps) = (0, 0);
    while prefilled < 4000 {
        updates.clear();
        assert!(engine.step(&mut updates).expect("a step"));
        let stats = *engine.last_step();
        assert!(stats.prefill_tokens + stats.decode_tokens <= 128, "{stats:?}");
        for id in 0..4 {
            let told = updates.iter().filter(|u| u.id == id && u.token.is_some()).count();
            assert_eq!(told, 1, "request {id} in {stats:?}");
        }
        prefilled += stats.prefill_tokens;
        steps += 1;
    }
    assert!((32..=40).contains(&steps), "the chunks are full: {steps} steps for 4,000 tokens");
}

/// Prompt tokens of the first step in which a running request meets a long prompt, on the CPU.
fn beside_a_decode(mixed_prefill: Option<usize>) -> usize {
    let options = EngineOptions {
        total_tokens: Some(4096),
        step_tokens: Some(512),
        max_running: Some(4),
        mixed_prefill,
        ..EngineOptions::default()
    };
    let mut engine = engine("llama", &options);
    let params = |length| SamplingParams {
        max_new_tokens: Some(length),
        ignore_eos: true,
        ..SamplingParams::default()
    };
    let mut updates = Vec::new();
    engine.submit(&request(0, prompt(0, 4, 500), params(200))).expect("accepted");
    while !updates.iter().any(|u: &pacer::engine::request::Update| u.token.is_some()) {
        engine.step(&mut updates).expect("a step");
    }
    engine.submit(&request(1, prompt(1, 400, 500), params(1))).expect("accepted");
    engine.step(&mut updates).expect("a step");
    while engine.last_step().prefill_tokens == 0 {
        engine.step(&mut updates).expect("a step");
    }
    assert_eq!(engine.last_step().decode_tokens, 1);
    engine.last_step().prefill_tokens
}

#[test]
fn the_device_says_how_much_of_a_prompt_goes_beside_decodes_unless_asked_otherwise() {
    assert_eq!(beside_a_decode(None), 16);
    assert_eq!(beside_a_decode(Some(7)), 7);
    assert_eq!(beside_a_decode(Some(usize::MAX)), 400);
}
