//! Every pair of sampling parameters together (CVE-2026-44223 was one pair that killed an
//! engine): each pair of values runs, alone and in one batch, to a proper end.

use std::sync::Arc;

use pacer::engine::options::EngineOptions;
use pacer::engine::params::SamplingParams;
use pacer::engine::request::{FinishReason, GenerateRequest};
use pacer::text::grammar::GrammarSpec;

use crate::support::{answer, engine, prompt, request};

type Change = fn(&mut GenerateRequest, &mut SamplingParams);

/// One dimension a line, one changed value each; the base is every default.
const CHANGES: &[(&str, Change)] = &[
    ("greedy", |_, p| p.temperature = 0.0),
    ("hot", |_, p| p.temperature = 10.0),
    ("top_k 1", |_, p| p.top_k = 1),
    ("top_k huge", |_, p| p.top_k = 1 << 40),
    ("top_p", |_, p| p.top_p = 0.01),
    ("min_p", |_, p| p.min_p = 1.0),
    ("frequency_penalty", |_, p| p.frequency_penalty = 2.0),
    ("presence_penalty", |_, p| p.presence_penalty = -2.0),
    ("repetition_penalty", |_, p| p.repetition_penalty = 2.0),
    ("logit_bias", |_, p| p.logit_bias = vec![(5, 1e30), (6, -1e30), (7, f32::MAX)]),
    ("stop", |_, p| p.stop = vec!["e".into(), " ".into()]),
    ("stop_token_ids", |_, p| p.stop_token_ids = (0..250).collect()),
    ("stop_regex", |_, p| p.stop_regex = vec!["[aeiou]".into()]),
    ("ignore_eos", |_, p| p.ignore_eos = true),
    ("min_new_tokens", |_, p| p.min_new_tokens = 6),
    ("max_new_tokens 0", |_, p| (p.max_new_tokens, p.min_new_tokens) = (Some(0), 0)),
    ("max_new_tokens 1", |_, p| (p.max_new_tokens, p.min_new_tokens) = (Some(1), 0)),
    ("n", |_, p| p.n = 3),
    ("seed", |_, p| p.seed = Some(u64::MAX)),
    ("special tokens", |_, p| p.skip_special_tokens = false),
    ("no_stop_trim", |_, p| p.no_stop_trim = true),
    ("json", |_, p| p.grammar = Some(GrammarSpec::json_object())),
    ("regex", |_, p| p.grammar = Some(GrammarSpec::Regex("[a-z]{3}".into()))),
    ("ebnf", |_, p| p.grammar = Some(GrammarSpec::Ebnf("root ::= (\"x\" root)?".into()))),
    ("logprobs", |r, _| r.logprobs.output = true),
    ("top logprobs", |r, _| (r.logprobs.output, r.logprobs.top) = (true, 5)),
    ("prompt logprobs", |r, _| r.logprobs.prompt_start = Some(0)),
    ("late prompt logprobs", |r, _| r.logprobs.prompt_start = Some(8)),
    ("salt", |r, _| r.salt = 9),
];

fn pair(id: u64, a: Change, b: Change) -> GenerateRequest {
    let mut params = SamplingParams { max_new_tokens: Some(6), ..SamplingParams::default() };
    let mut made = request(id, prompt(id % 7, 9, 500), params.clone());
    a(&mut made, &mut params);
    b(&mut made, &mut params);
    if let Some(most) = params.max_new_tokens {
        params.min_new_tokens = params.min_new_tokens.min(most);
    }
    made.params = Arc::new(params);
    made
}

#[test]
fn every_pair_of_parameters_runs_to_its_end() {
    let options = EngineOptions {
        total_tokens: Some(2048),
        max_running: Some(16),
        step_tokens: Some(48),
        preempt_every: 7,
        ..EngineOptions::default()
    };
    let mut engine = engine("llama", &options);
    let mut requests = Vec::new();
    let mut names = Vec::new();
    for (i, (first, a)) in CHANGES.iter().enumerate() {
        for (second, b) in &CHANGES[i..] {
            requests.push(pair(requests.len() as u64, *a, *b));
            names.push(format!("{first} × {second}"));
        }
    }
    let answers = answer(&mut engine, &requests);
    let choices: usize = requests.iter().map(|r| r.params.n).sum();
    assert_eq!(answers.len(), choices);
    for (key, found) in &answers {
        let (name, wanted) = (&names[key.0 as usize], &requests[key.0 as usize]);
        let finished = found.finished.as_ref().expect(name);
        let failed = matches!(finished.reason, FinishReason::Failed(_) | FinishReason::Cancelled);
        assert!(!failed, "{name}: {:?}", finished.reason);
        let most = wanted.params.max_new_tokens.unwrap_or(0);
        assert!(
            found.ids.len() <= most && finished.usage.output_tokens == found.ids.len(),
            "{name}"
        );
        if wanted.logprobs.output {
            assert_eq!(found.logprobs.len(), found.ids.len(), "{name}");
            assert!(found.logprobs.iter().all(|l| l.top.len() == wanted.logprobs.top), "{name}");
        }
        if let (Some(start), 0) = (wanted.logprobs.prompt_start, key.1) {
            assert_eq!(found.prompt_logprobs.len(), 8 - start, "{name}");
        }
    }
}
