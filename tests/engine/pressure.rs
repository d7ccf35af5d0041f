//! R29 and R27 at the engine: a pool far too small for what is asked, and clients that leave.

use pacer::engine::Engine;
use pacer::engine::options::EngineOptions;
use pacer::engine::params::SamplingParams;
use pacer::engine::request::{FinishReason, GenerateRequest};
use pacer::error::Kind;

use crate::support::{Answers, Numbers, answer, collect, engine, prompt, request, run};

const PAGE: usize = 4;

fn requests(count: u64) -> Vec<GenerateRequest> {
    let mut numbers = Numbers(3);
    let mut each = |id: u64| {
        let params = SamplingParams {
            max_new_tokens: Some(8 + numbers.below(10)),
            seed: Some(id),
            ignore_eos: true,
            ..SamplingParams::default()
        };
        let mut made = request(id, prompt(id % 40, 6 + numbers.below(14), 500), params);
        made.logprobs.output = true;
        made
    };
    (0..count).map(&mut each).collect()
}

fn pool(pages: usize, preempt_every: u64) -> Engine {
    let options = EngineOptions {
        total_tokens: Some(pages * PAGE),
        page_size: Some(PAGE),
        max_running: Some(32),
        preempt_every,
        ..EngineOptions::default()
    };
    engine("llama", &options)
}

/// 64 pages of 4 tokens; 200 requests want more than 20 times as many.
#[test]
fn a_pool_of_64_pages_serves_twenty_times_its_size() {
    let requests = requests(200);
    let wanted = |r: &GenerateRequest| r.prompt.len() + r.params.max_new_tokens.unwrap_or(0);
    let demand: usize = requests.iter().map(wanted).sum();
    assert!(demand > 19 * 64 * PAGE, "{demand}");
    let expected = answer(&mut pool(4096, 0), &requests);
    for preempt_every in [0, 5] {
        let mut small = pool(64, preempt_every);
        let found = answer(&mut small, &requests);
        assert_eq!(found.len(), 200);
        for (key, found) in &found {
            assert_eq!(found.ids, expected[key].ids, "{key:?}");
            let bits = |c: &pacer::engine::collect::Collected| {
                c.logprobs.iter().map(|l| l.logprob.to_bits()).collect::<Vec<_>>()
            };
            assert_eq!(bits(found), bits(&expected[key]), "{key:?}");
        }
        assert!(small.scheduler().metrics().preemptions_total > 0);
    }
}

#[test]
fn what_can_never_fit_is_refused_at_once_and_the_queue_flows() {
    let mut small = pool(16, 0);
    let long = SamplingParams { max_new_tokens: Some(100), ..SamplingParams::default() };
    let error = small.submit(&request(1, prompt(1, 10, 500), long)).expect_err("too long");
    assert_eq!(error.kind, Kind::Limit);
    let few = SamplingParams { max_new_tokens: Some(5), ..SamplingParams::default() };
    assert_eq!(answer(&mut small, &[request(2, prompt(1, 10, 500), few)]).len(), 1);
}

/// Cancels at every stage: queued, in prefill, decoding, preempted, with parallel samples.
#[test]
fn who_leaves_gives_everything_back_and_changes_nobody() {
    let staying = requests(30);
    let expected = answer(&mut pool(4096, 0), &staying);
    let mut small = pool(64, 4);
    let mut numbers = Numbers(11);
    let mut leavers = Vec::new();
    for (at, request) in staying.iter().enumerate() {
        small.submit(request).expect("accepted");
        let mut leaver = request.clone();
        leaver.id = 1000 + at as u64;
        let n = if at % 2 == 0 { 4 } else { 1 };
        leaver.params = SamplingParams { n, ..SamplingParams::clone(&request.params) }.into();
        small.submit(&leaver).expect("accepted");
        leavers.push((leaver.id, n));
    }
    let (mut answers, mut updates, mut cancelled) = (Answers::new(), Vec::new(), 0);
    while !small.idle() {
        small.step(&mut updates).expect("a step");
        if !leavers.is_empty() && numbers.below(3) > 0 {
            let (id, _) = leavers.swap_remove(numbers.below(leavers.len()));
            cancelled += usize::from(small.cancel(id, &mut updates));
            assert!((0..4).all(|choice| small.scheduler().state(id, choice).is_none()));
            small.scheduler().audit().expect("audit");
        }
        collect(&mut updates, &mut answers);
    }
    run(&mut small, &mut answers);
    assert!(cancelled >= 15, "{cancelled} of 30 were still there to leave");
    let gone = answers
        .iter()
        .filter(|(_, a)| a.finished.as_ref().is_some_and(|f| f.reason == FinishReason::Cancelled));
    assert!(gone.count() >= cancelled);
    for (key, expected) in &expected {
        assert_eq!(answers[key].ids, expected.ids, "{key:?}");
    }
    assert!(answers.values().all(|a| a.finished.is_some()));
    let metrics = small.scheduler().metrics();
    assert_eq!(metrics.pages.free + metrics.pages.cached, metrics.pages_total, "{metrics:?}");
}
