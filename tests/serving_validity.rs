//! Every fault that spoils a serving measurement is planted, and flagged: a slow client, a warm
//! prefix cache, early stops, other load, a machine that gets hot, dropped records, failures.

use pacer::bench::data::Row;
use pacer::bench::load::client::Outcome;
use pacer::bench::load::record::{Chunk, Failure, Reason, Record};
use pacer::bench::serving::checks::{self, Asked};
use pacer::bench::serving::counters::Counters;
use pacer::bench::serving::metrics;
use pacer::bench::serving::run::Measured;
use pacer::measure::machine::Machine;
use pacer::measure::validity::Status;

const MS: u64 = 1_000_000;

/// Twelve good requests, one every 100 ms, of 4 tokens 10 ms apart, on a quiet machine.
fn good() -> (Measured, Vec<Row>) {
    let record = |i: u64| {
        let sent = (i + 1) * 100 * MS;
        let chunk = |n: u64| Chunk { at: sent + (20 + n * 10) * MS, tokens: 1, text: true };
        Record {
            index: i as usize,
            scheduled: sent,
            ready: sent,
            sent,
            chunks: (0..4).map(chunk).collect(),
            end: sent + 50 * MS,
            prompt_tokens: Some(100),
            completion_tokens: Some(4),
            cached_tokens: Some(0),
            finish: Some("length".into()),
            ..Record::default()
        }
    };
    let outcome = Outcome {
        records: (0..12).map(record).collect(),
        wall_ns: 1300 * MS,
        cpu_ns: Some(100 * MS),
        starved_ns: Some(0),
        ..Outcome::default()
    };
    let machine = Machine {
        other_share: Some(0.0),
        steal_share: Some(0.0),
        ticks: 1000,
        mhz: Some((3000.0, 3000.0)),
        throttled: Some(0),
        ..Machine::default()
    };
    let counted = Counters { output_tokens: Some(48.0), ..Counters::default() };
    let measured = Measured {
        outcome,
        machine,
        server_cpu_s: Some(1.0),
        local: true,
        counted: Some(counted),
        ttft: None,
        notes: Vec::new(),
    };
    (measured, (0..12).map(|_| Row::ids(vec![1; 100], 4)).collect())
}

/// The status of `check` after `spoil`.
fn status(check: &str, spoil: impl Fn(&mut Measured)) -> Status {
    verdict(check, Some(10.0), &[100.0, 101.0], spoil)
}

fn verdict(
    check: &str,
    offered: Option<f64>,
    runs: &[f64],
    spoil: impl Fn(&mut Measured),
) -> Status {
    let (mut measured, rows) = good();
    spoil(&mut measured);
    let m = metrics::metrics(&measured.outcome.records, &[100; 12], 1.3);
    let asked = Asked {
        rows: &rows,
        ignore_eos: true,
        shares_prefixes: false,
        offered,
        runs,
        optimised: true,
    };
    let v = checks::validity(&asked, &measured, &m);
    let found = v.checks.iter().find(|c| c.name == check);
    found.unwrap_or_else(|| panic!("{check} is not checked")).status
}

fn each(m: &mut Measured, f: impl Fn(&mut Record)) {
    m.outcome.records.iter_mut().for_each(f);
}

#[test]
fn a_good_run_passes_everything() {
    let (measured, rows) = good();
    let m = metrics::metrics(&measured.outcome.records, &[100; 12], 1.3);
    let asked = Asked {
        rows: &rows,
        ignore_eos: true,
        shares_prefixes: false,
        offered: Some(10.0),
        runs: &[100.0, 101.0],
        optimised: true,
    };
    let v = checks::validity(&asked, &measured, &m);
    let bad: Vec<_> = v.checks.iter().filter(|c| c.status != Status::Pass).collect();
    assert!(bad.is_empty(), "{bad:?}");
    assert!(v.checks.len() >= 15 && v.require().is_ok());
}

#[test]
fn a_slow_client() {
    let late = |ms: u64| move |m: &mut Measured| each(m, |r| r.sent += ms * MS);
    assert_eq!(status("schedule_slip", late(3)), Status::Warn);
    assert_eq!(status("schedule_slip", late(30)), Status::Fail);
    assert_eq!(status("client_cpu", |m| m.outcome.cpu_ns = Some(1000 * MS)), Status::Warn);
    assert_eq!(status("client_cpu", |m| m.outcome.cpu_ns = Some(1280 * MS)), Status::Fail);
    assert_eq!(status("client_cpu", |m| m.outcome.cpu_ns = None), Status::Warn);
    assert_eq!(status("client_starved", |m| m.outcome.starved_ns = Some(600 * MS)), Status::Fail);
}

#[test]
fn a_warm_prefix_cache() {
    let hits = |n: u64| move |m: &mut Measured| each(m, |r| r.cached_tokens = Some(n));
    assert_eq!(status("prefix_cache_hits", hits(1)), Status::Pass);
    assert_eq!(status("prefix_cache_hits", hits(5)), Status::Warn);
    assert_eq!(status("prefix_cache_hits", hits(50)), Status::Fail);
    assert_eq!(status("prefix_cache_hits", |m| each(m, |r| r.cached_tokens = None)), Status::Warn);
}

#[test]
fn early_stops_and_other_lengths() {
    let stop = |m: &mut Measured| m.outcome.records[0].completion_tokens = Some(1);
    assert_eq!(status("achieved_output", stop), Status::Fail);
    assert_eq!(
        status("achieved_input", |m| each(m, |r| r.prompt_tokens = Some(101))),
        Status::Pass
    );
    assert_eq!(
        status("achieved_input", |m| each(m, |r| r.prompt_tokens = Some(120))),
        Status::Fail
    );
    assert_eq!(status("achieved_input", |m| each(m, |r| r.prompt_tokens = None)), Status::Warn);
    assert_eq!(status("token_counts", |m| each(m, |r| r.completion_tokens = None)), Status::Warn);
}

#[test]
fn other_load_and_heat() {
    let load = |x: f64| move |m: &mut Measured| m.machine.other_share = Some(x);
    assert_eq!(status("other_load", load(0.1)), Status::Warn);
    assert_eq!(status("other_load", load(0.4)), Status::Fail);
    assert_eq!(status("clock_change", |m| m.machine.throttled = Some(1)), Status::Fail);
    assert_eq!(status("clock_change", |m| m.machine.mhz = Some((2000.0, 3000.0))), Status::Fail);
    // The machine slows down: later requests take longer per token.
    let hot = |m: &mut Measured| {
        for (i, r) in m.outcome.records.iter_mut().enumerate() {
            r.end += i as u64 * 3 * MS;
        }
    };
    assert_eq!(status("warmup_drift", hot), Status::Fail);
}

#[test]
fn dropped_records_and_failures() {
    assert_eq!(status("dropped_records", |m| _ = m.outcome.records.pop()), Status::Fail);
    let fail = |m: &mut Measured| {
        m.outcome.records[3].failure = Some(Failure::new(Reason::Timeout, "planted"));
    };
    assert_eq!(status("failed_requests", fail), Status::Fail);
    let miscounted = |m: &mut Measured| {
        m.counted = Some(Counters { output_tokens: Some(60.0), ..Counters::default() });
    };
    assert_eq!(status("server_counters", miscounted), Status::Fail);
}

#[test]
fn overload_and_runs_that_differ() {
    let none = |_: &mut Measured| {};
    // 30 arrivals, one every 100 ms; each is `factor` times as late as the one before came.
    let behind = |factor: u64| {
        move |m: &mut Measured| {
            let first = m.outcome.records[0].clone();
            let one = |i: u64| Record {
                scheduled: i * 100 * MS,
                sent: i * 100 * MS,
                end: (i * 100 * factor / 4 + 50) * MS,
                ..first.clone()
            };
            m.outcome.records = (0..30).map(one).collect();
        }
    };
    assert_eq!(verdict("over_saturation", Some(10.0), &[1.0, 1.0], behind(4)), Status::Pass);
    assert_eq!(verdict("over_saturation", Some(10.0), &[1.0, 1.0], behind(5)), Status::Warn);
    assert_eq!(verdict("over_saturation", Some(10.0), &[1.0, 1.0], behind(8)), Status::Fail);
    assert_eq!(verdict("over_saturation", None, &[1.0, 1.0], behind(8)), Status::Pass);
    assert_eq!(verdict("run_spread", None, &[100.0, 150.0], none), Status::Fail);
    assert_eq!(verdict("run_spread", None, &[100.0], none), Status::Warn);
}
