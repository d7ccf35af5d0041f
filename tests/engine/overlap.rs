//! The overlapped loop against the plain one: the same bits, whatever happens in between; and a
//! panic in one request's sampler, grammar or detokeniser harms that request alone.

use pacer::device::faulty::{Faults, Place};
use pacer::engine::options::EngineOptions;
use pacer::engine::params::SamplingParams;
use pacer::engine::request::{FinishReason, GenerateRequest};
use pacer::text::grammar::GrammarSpec;

use crate::invariance::{alone, assert_same, options, requests};
use crate::support::{Answers, answer, collect, engine, overlapped, prompt, request};

#[test]
fn overlapped_steps_change_no_bit() {
    let requests = requests();
    let expected = alone("llama", &requests);
    for (running, chunk, preempt_every) in [(1, 512, 0), (3, 16, 0), (8, 40, 3), (32, 64, 5)] {
        let sizes = EngineOptions { step_tokens: Some(chunk), preempt_every, ..options(running) };
        let found = answer(&mut overlapped("llama", &sizes), &requests);
        assert_same(&format!("overlapped, batch {running}, chunk {chunk}"), &found, &expected);
    }
    let mut cached = overlapped("llama", &options(8));
    answer(&mut cached, &requests);
    assert_same("overlapped, from the cache", &answer(&mut cached, &requests), &expected);
}

/// Stop strings, end tokens, grammars and n: what ends a sequence one step after it was planned.
fn ending(id: u64) -> GenerateRequest {
    let mut params = SamplingParams {
        max_new_tokens: Some(24),
        seed: Some(id),
        n: 1 + id as usize % 3,
        ..SamplingParams::default()
    };
    match id % 5 {
        0 => params.stop = vec!["e".into()],
        1 => params.stop_token_ids = (0..60).collect(),
        2 => params.grammar = Some(GrammarSpec::Regex("[a-z ]{2,9}".into())),
        3 => params.stop_regex = vec!["[aeiou]{2}".into()],
        _ => params.grammar = Some(GrammarSpec::json_object()),
    }
    let mut made = request(id, prompt(id / 2, 9, 500), params);
    made.logprobs.output = id % 2 == 0;
    made
}

#[test]
fn sequences_that_end_early_end_the_same() {
    let requests: Vec<_> = (0..40).map(ending).collect();
    let sizes = EngineOptions { step_tokens: Some(24), preempt_every: 11, ..options(12) };
    let plain = answer(&mut engine("llama", &sizes), &requests);
    let found = answer(&mut overlapped("llama", &sizes), &requests);
    assert_same("ending early", &found, &plain);
    let reason = |a: &Answers, k| a[k].finished.as_ref().map(|f| f.reason.clone());
    for key in plain.keys() {
        assert_eq!(reason(&found, key), reason(&plain, key), "{key:?}");
    }
}

#[test]
fn cancelling_while_a_step_runs_harms_nobody_and_leaves_nothing() {
    let requests = requests();
    let expected = alone("llama", &requests);
    let mut engine = overlapped("llama", &options(8));
    let (mut answers, mut updates) = (Answers::new(), Vec::new());
    for request in &requests {
        engine.submit(request).expect("accepted");
    }
    let mut turn = 0;
    while !engine.idle() {
        engine.advance(true, &mut updates).expect("a step");
        turn += 1;
        if turn % 5 == 0 {
            assert!(engine.flying() || engine.idle());
            engine.cancel(turn / 5 * 3, &mut updates);
            // The id is free again at once, also while a step still computes for the old one.
            if turn == 10 {
                let again = GenerateRequest { id: 6, ..requests[2].clone() };
                engine.submit(&again).expect("a free id");
                collect(&mut updates, &mut answers);
                answers.remove(&(6, 0));
            }
        }
        engine.scheduler().audit().expect("audit");
        collect(&mut updates, &mut answers);
    }
    let pages = engine.scheduler().metrics().pages;
    assert_eq!(pages.held + pages.fenced, 0);
    let (mut whole, mut cut) = (0, 0);
    for (key, found) in &answers {
        let from = if key.0 == 6 { (2, 0) } else { *key };
        let ended = found.finished.as_ref().map(|f| f.reason.clone());
        match ended.expect("every request ends") {
            FinishReason::Cancelled => cut += 1,
            _ => whole += usize::from(found.ids == expected[&from].ids),
        }
    }
    assert_eq!(whole + cut, requests.len());
    assert!(cut > 3 && whole > 20, "{cut} cut, {whole} whole");
}

#[test]
fn a_panic_in_one_request_fails_that_request_only() {
    let constrained = |id| {
        let params = SamplingParams {
            max_new_tokens: Some(12),
            seed: Some(id),
            grammar: Some(GrammarSpec::Regex("[a-z ]{40}".into())),
            ..SamplingParams::default()
        };
        request(id, prompt(id, 9, 500), params)
    };
    let requests: Vec<_> = (0..8).map(constrained).collect();
    let expected = answer(&mut engine("llama", &options(8)), &requests);
    for (place, part) in
        [(Place::Sampler(21), "sampler"), (Place::Grammar(30), "sampler"), (Place::Text(19), "det")]
    {
        for overlaps in [false, true] {
            let make = if overlaps { overlapped } else { engine };
            let mut engine = make("llama", &options(8));
            let faults = Faults::default();
            faults.plan(place, pacer::device::faulty::Fault::Panic);
            engine.faults = Some(faults);
            let found = answer(&mut engine, &requests);
            let failed = |a: &&(u64, u32)| {
                matches!(&found[*a].finished.as_ref().expect("an end").reason,
                    FinishReason::Failed(why) if why.contains(part) && why.contains("injected"))
            };
            assert_eq!(found.keys().filter(failed).count(), 1, "{place:?}");
            for key in found.keys().filter(|k| !failed(k)) {
                assert_eq!(found[key].ids, expected[key].ids, "{place:?} {key:?}");
                assert_eq!(found[key].text, expected[key].text, "{place:?} {key:?}");
            }
            // The next one finds an engine in order.
            let after = answer(&mut engine, &requests[..1]);
            assert_eq!(after[&(0, 0)].ids, expected[&(0, 0)].ids);
        }
    }
}
