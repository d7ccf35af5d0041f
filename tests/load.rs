//! The load client against the mock server: known delays, and every bad server of reliability
//! R45. Never hangs, counts exactly.

#[path = "support/mock/mod.rs"]
mod mock;

use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use pacer::bench::data::{Prompt, Row};
use pacer::bench::load::arrivals::Arrivals;
use pacer::bench::load::protocol::Api;
use pacer::bench::load::target::Target;
use pacer::bench::serving::body::Common;
use pacer::bench::serving::metrics::{self, Metrics};
use pacer::bench::serving::run::{self, Measured, Plan};
use pacer::measure::interrupt::Interrupt;
use pacer::measure::{machine, stats};
use serde_json::Map;

use mock::{Mock, Timing};

fn plan(mock: &Mock, behaviour: &str, api: Api, requests: usize, tokens: usize) -> Plan {
    let row = |i: usize| match api {
        Api::Chat => Row::new(Prompt::Text("a b c".into()), 1, tokens),
        _ => Row::ids(vec![i as u32, 2, 3], tokens),
    };
    Plan {
        target: Target::new(&mock.url(behaviour), Vec::new()).unwrap(),
        common: Common {
            api,
            model: "m".into(),
            stream: true,
            ignore_eos: true,
            temperature: 0.0,
            top_p: 1.0,
            return_logprob: false,
            top_logprobs: 0,
            logprob_start_len: -1,
            token_ids_logprob: Vec::new(),
            fake_prefill: false,
            include_usage: true,
            extra: Map::new(),
        },
        rows: (0..requests).map(row).collect(),
        arrivals: Arrivals::AtOnce,
        seed: 1,
        concurrency: None,
        timeout: Duration::from_secs(20),
        keep_text: false,
        threads: 1,
        warmup: 0,
        flush: None,
        flush_timeout: Duration::from_secs(1),
        profile: None,
    }
}

fn go(plan: &Plan) -> (Measured, Metrics) {
    let measured = run::run(plan, &Interrupt::never(), &AtomicUsize::new(0)).unwrap();
    let lens: Vec<usize> = plan.rows.iter().map(|r| r.prompt_len).collect();
    let seconds = measured.outcome.wall_ns as f64 * 1e-9;
    let m = metrics::metrics(&measured.outcome.records, &lens, seconds);
    (measured, m)
}

/// The mock's own times of one figure, milliseconds.
fn truth(mock: &Mock) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let seen = mock.seen.lock().unwrap();
    let ms = |a: Instant, b: Instant| b.duration_since(a).as_secs_f64() * 1e3;
    let (mut ttft, mut itl, mut e2e) = (Vec::new(), Vec::new(), Vec::new());
    for r in &seen.requests {
        let received = r.received.unwrap();
        ttft.push(ms(received, r.chunks[0].0));
        itl.extend(r.chunks.windows(2).map(|w| ms(w[0].0, w[1].0)));
        e2e.extend(r.done.map(|d| ms(received, d)));
    }
    (ttft, itl, e2e)
}

/// What a busy machine may add to the way between client and server, ms. The 1 % of a quiet one
/// is what `bench/clients/truth.py` measures.
const BUSY: f64 = 2000.0;

/// The client's mean against the server's. A time that begins before the server's and ends after
/// it (`around`) cannot be shorter, however busy the machine is.
fn close(what: &str, ours: f64, theirs: &[f64], around: bool) {
    let theirs = stats::mean(theirs).unwrap();
    let least = if around { theirs } else { theirs - BUSY / 7.0 };
    let right = (least..theirs + BUSY).contains(&ours);
    assert!(right, "{what}: client {ours:.3} ms, server {theirs:.3} ms");
}

#[test]
fn times_and_totals_agree_with_the_server_at_each_concurrency() {
    for (concurrency, requests) in [(1, 4), (64, 128), (1000, 1000)] {
        let gap = Duration::from_millis(if concurrency > 100 { 150 } else { 10 });
        let first = Duration::from_millis(100);
        let mock = Mock::start(Timing { first, gap, tokens_a_chunk: 1 });
        let mut plan = plan(&mock, "", Api::Generate, requests, 8);
        plan.concurrency = Some(concurrency);
        plan.arrivals = Arrivals::Closed;
        let (measured, m) = go(&plan);
        assert_eq!((m.completed, m.sent), (requests, requests));
        assert_eq!(m.output_tokens, 8 * requests as u64);
        assert_eq!(m.input_tokens, 3 * requests as u64);
        assert!(m.peak_concurrency <= concurrency && m.peak_concurrency > concurrency / 2);
        let counted = measured.counted.unwrap();
        assert_eq!(counted.output_tokens, Some(m.output_tokens as f64));
        assert_eq!(counted.prompt_tokens, Some(m.input_tokens as f64));
        assert_eq!(counted.requests, Some(requests as f64));
        let (ttft, itl, e2e) = truth(&mock);
        close("TTFT", m.ttft.unwrap().mean, &ttft, true);
        close("ITL", m.itl.unwrap().mean, &itl, false);
        close("TPOT", m.tpot.unwrap().mean, &itl, false);
        close("E2E", m.e2e.unwrap().mean, &e2e, true);
        let connections = mock.seen.lock().unwrap().connections;
        // Besides the load: the connect check, and /metrics twice.
        assert!(connections <= concurrency + 3, "{connections} connections were opened");
    }
}

#[test]
fn every_api_counts_the_same() {
    let mock = Mock::start(Timing { tokens_a_chunk: 3, ..Timing::default() });
    for api in [Api::Generate, Api::Completions, Api::Chat] {
        for behaviour in ["", "double_done", "no_done", "closes", "no_end", "cached", "usage_each"]
        {
            let (measured, m) = go(&plan(&mock, behaviour, api, 3, 7));
            let failures: Vec<_> = measured.outcome.records.iter().map(|r| &r.failure).collect();
            assert_eq!(m.completed, 3, "{api:?} {behaviour}: {failures:?}");
            // An answer that ends with its finish reason alone carries no usage on OpenAI's APIs
            // unless asked for, which it was.
            assert_eq!(m.output_tokens, 21, "{api:?} {behaviour}");
        }
        let mut whole = plan(&mock, "", api, 3, 7);
        whole.common.stream = false;
        let (_, m) = go(&whole);
        assert_eq!((m.completed, m.output_tokens), (3, 21), "{api:?}, not streamed");
    }
}

#[test]
fn without_usage_chunks_are_counted_and_not_the_wish() {
    let mock = Mock::start(Timing { tokens_a_chunk: 2, ..Timing::default() });
    let (measured, m) = go(&plan(&mock, "no_usage", Api::Completions, 2, 6));
    assert_eq!((m.completed, m.output_tokens), (2, 6), "three chunks each, two tokens unseen");
    assert!(measured.outcome.records.iter().all(|r| !r.counted_by_server()));
}

#[test]
fn bad_servers_fail_their_requests_and_nothing_else() {
    let mock = Mock::start(Timing::default());
    for (behaviour, reason) in [
        ("silent", "timeout"),
        ("midchunk", "closed"),
        ("error_event", "error_event"),
        ("garbage", "malformed"),
        ("huge_line", "too_large"),
        ("s500", "status_500"),
        ("half_head", "closed"),
        ("not_http", "malformed"),
        ("empty", "no_output"),
    ] {
        let mut plan = plan(&mock, behaviour, Api::Completions, 5, 4);
        plan.timeout = Duration::from_secs(if behaviour == "silent" { 1 } else { 20 });
        plan.concurrency = Some(2);
        let begun = Instant::now();
        let (measured, m) = go(&plan);
        let reasons: Vec<String> = measured
            .outcome
            .records
            .iter()
            .map(|r| r.failure.as_ref().map_or("ok".into(), |f| f.reason.name()))
            .collect();
        assert_eq!(reasons, vec![reason; 5], "{behaviour}");
        assert_eq!((m.completed, m.sent), (0, 5));
        assert!(begun.elapsed() < Duration::from_secs(30), "{behaviour}: {:?}", begun.elapsed());
    }
    let peak = machine::peak_memory_bytes().unwrap_or(0) >> 20;
    assert!(peak < 1024, "{peak} MiB");
}

#[test]
fn no_server_at_all() {
    let mock = Mock::start(Timing::default());
    let gone = {
        let other = Mock::start(Timing::default());
        other.address
    };
    let mut plan = plan(&mock, "", Api::Generate, 3, 4);
    plan.target = Target::new(&format!("http://{gone}"), Vec::new()).unwrap();
    let (measured, m) = go(&plan);
    assert_eq!((m.completed, m.sent), (0, 3));
    let reason = |r: &pacer::bench::load::record::Record| r.failure.clone().unwrap().reason.name();
    assert!(measured.outcome.records.iter().all(|r| reason(r) == "connect"));
    plan.warmup = 1;
    let error = run::run(&plan, &Interrupt::never(), &AtomicUsize::new(0)).unwrap_err();
    assert!(error.message.contains("warm-up") && error.message.contains("connect"), "{error}");
}

#[test]
fn an_open_loop_keeps_its_schedule() {
    let mock = Mock::start(Timing { first: Duration::from_millis(30), ..Timing::default() });
    let mut plan = plan(&mock, "", Api::Generate, 300, 2);
    plan.arrivals = Arrivals::Rate { per_second: 300.0, burstiness: f64::INFINITY };
    let (measured, m) = go(&plan);
    assert_eq!(m.completed, 300);
    let records = &measured.outcome.records;
    let last = records.iter().map(|r| r.scheduled).max().unwrap();
    assert_eq!(last / 1_000_000, 996, "absolute: 299 / 300 s, no drift");
    let late: Vec<f64> = records.iter().map(metrics::lateness_ms).collect();
    let p50 = stats::median(&late).unwrap();
    assert!(p50 < 5.0, "half of the requests left within {p50} ms of their time");
    assert!(records.iter().all(|r| r.sent >= r.scheduled), "none left early");
}

#[test]
fn waiting_for_a_place_is_latency_from_the_schedule() {
    // 4 places, 20 + 4 ms each: about 160 a second, while 1,000 a second arrive.
    let mock = Mock::start(Timing::default());
    let mut plan = plan(&mock, "", Api::Generate, 100, 2);
    plan.arrivals = Arrivals::Rate { per_second: 1000.0, burstiness: 1.0 };
    plan.concurrency = Some(4);
    let (_, m) = go(&plan);
    assert_eq!((m.completed, m.peak_concurrency), (100, 4));
    let (sent, scheduled) = (m.e2e.unwrap().p99, m.e2e_from_schedule.unwrap().p99);
    assert!(scheduled > sent * 3.0, "p99 {sent} ms from sending hides {scheduled} ms");
    assert!(m.client_queue.unwrap().max > 100.0);
}

#[test]
fn an_interruption_keeps_what_there_is() {
    let mock = Mock::start(Timing { first: Duration::from_millis(50), ..Timing::default() });
    let mut plan = plan(&mock, "", Api::Generate, 1000, 4);
    plan.concurrency = Some(4);
    plan.arrivals = Arrivals::Closed;
    let interrupt = Interrupt::never();
    let measured = std::thread::scope(|s| {
        let asked = interrupt.clone();
        s.spawn(move || {
            std::thread::sleep(Duration::from_millis(400));
            asked.ask();
        });
        run::run(&plan, &interrupt, &AtomicUsize::new(0)).unwrap()
    });
    let o = &measured.outcome;
    assert!(o.interrupted && o.unsent > 0);
    assert_eq!(o.records.len() + o.unsent, 1000);
    let cancelled = o.records.iter().filter(|r| !r.ok()).count();
    assert!(cancelled <= 4 && o.records.len() > cancelled, "{cancelled} of {}", o.records.len());
}

#[test]
fn two_client_threads_share_the_work() {
    let mock = Mock::start(Timing::default());
    let mut plan = plan(&mock, "", Api::Generate, 40, 3);
    (plan.threads, plan.concurrency, plan.arrivals) = (2, Some(5), Arrivals::Closed);
    let (_, m) = go(&plan);
    assert_eq!((m.completed, m.output_tokens), (40, 120));
    assert!(mock.seen.lock().unwrap().peak <= 5);
}
