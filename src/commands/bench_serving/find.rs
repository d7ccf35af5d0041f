//! `--find-max-rate`: the highest rate that keeps `--slo`.

use std::sync::atomic::AtomicUsize;

use serde_json::{Value, json};

use super::super::codec::TokenizerCodec;
use super::super::out;
use super::BenchServing;
use super::setup::Server;
use crate::bench::load::arrivals::Arrivals;
use crate::bench::serving::goodput::{self, From, Objectives};
use crate::bench::serving::overlap;
use crate::bench::serving::run::{self, Measured};
use crate::bench::serving::search::{self, Found, Judgement, Search, Trial};
use crate::error::{Error, Kind, Result};
use crate::measure::interrupt::Interrupt;
use crate::measure::json::{JsonLines, optional};

/// Beyond this shortfall over a whole trial the server has fallen behind.
const FALLS_BEHIND: f64 = 0.15;

/// With so few requests in flight on average a lower rate helps no more.
const IDLE: f64 = 0.1;

/// Requests of one trial at most, unless --slo-trial-requests asks for more.
const MOST_REQUESTS: f64 = 100_000.0;

/// Requests one at a time, to see whether the objectives can be kept at all.
const ALONE: (usize, usize) = (4, 1);

/// The burst that tells where to begin: requests, and how many of them at once.
const BURST: (usize, usize) = (32, 16);

/// Searches, prints and writes.
///
/// # Errors
/// No objective, a trial that cannot run, an interruption (what is known is written).
pub fn find(
    flags: &BenchServing,
    server: &Server,
    interrupt: &Interrupt,
    file: &mut Option<JsonLines>,
) -> Result<()> {
    let slo = Objectives::parse(&flags.slo, "--slo")?
        .ok_or_else(|| Error::usage("--find-max-rate: needs --slo"))?;
    let codec = flags.codec()?;
    let mut failed = None;
    // An objective that a request misses on an idle server is kept at no rate.
    let alone = closed_loop(flags, server, codec.as_ref(), ALONE, interrupt)?;
    let hopeless = !alone.outcome.records.iter().any(|r| goodput::good(r, &slo, From::Scheduled));
    let start = match flags.slo_start_rate {
        Some(rate) => rate,
        None if hopeless => 0.0,
        None => first_rate(&closed_loop(flags, server, codec.as_ref(), BURST, interrupt)?),
    };
    // What came before was run 0.
    let mut runs = 1u64;
    let mut trial = |rate: f64, _: usize| {
        let seen = one(flags, server, codec.as_ref(), &slo, rate, runs, interrupt);
        runs += 1;
        match seen {
            Ok(_) if interrupt.asked() => None,
            Ok(trial) => {
                let Trial { good, requests, saturated, .. } = trial;
                let behind = if saturated { ", the server fell behind" } else { "" };
                out::note(format_args!("rate {rate:.3}: {good} of {requests} good{behind}"));
                Some(trial)
            }
            Err(error) => {
                failed = Some(error);
                None
            }
        }
    };
    let how = Search { start, share: flags.slo_share, precision: 0.05, trials: 8, rates: 24 };
    let found = if hopeless { Found::default() } else { search::search(&how, &mut trial) };
    if let Some(error) = failed {
        return Err(error);
    }
    let row = row(flags, &slo, &found, interrupt.asked());
    if let Some(file) = file {
        file.append(&row)?;
    }
    if flags.json {
        out::line(&row)?;
    } else {
        lines(&slo, flags.slo_share, &found).iter().try_for_each(out::line)?;
    }
    if interrupt.asked() {
        return Err(interrupt.error("the row holds what was known"));
    }
    match found.holds {
        Some(_) => Ok(()),
        None => Err(Error::new(Kind::Limit, "no rate kept the objectives")),
    }
}

/// Requests `requests` at a time `at_once`, each as soon as there is a place.
fn closed_loop(
    flags: &BenchServing,
    server: &Server,
    codec: Option<&TokenizerCodec>,
    (requests, at_once): (usize, usize),
    interrupt: &Interrupt,
) -> Result<Measured> {
    let vocab = flags.vocab(server, codec);
    let few = BenchServing { num_prompts: requests, ..flags.clone() };
    let mut rows = few.rows(0, vocab, codec)?;
    rows.truncate(requests);
    let mut plan = few.plan(server, rows, 0)?;
    (plan.arrivals, plan.concurrency) = (Arrivals::Closed, Some(at_once));
    let measured = run::run(&plan, interrupt, &AtomicUsize::new(0))?;
    let records = &measured.outcome.records;
    if interrupt.asked() {
        return Err(interrupt.error("no rate was tried"));
    }
    if records.iter().any(|r| r.ok()) {
        return Ok(measured);
    }
    let first = records.iter().find_map(|r| r.failure.clone());
    let why = first.map_or(String::new(), |f| format!(": {}", f.detail));
    Err(Error::new(Kind::Io, format!("--find-max-rate: no request succeeded{why}")))
}

/// Half the rate at which a burst is served: the search doubles or halves from there.
fn first_rate(burst: &Measured) -> f64 {
    let good = burst.outcome.records.iter().filter(|r| r.ok()).count();
    let rate = good as f64 / (burst.outcome.wall_ns.max(1) as f64 * 1e-9);
    out::note(format_args!("a burst of {} is served at {rate:.3} requests/s", BURST.0));
    rate / 2.0
}

/// One open-loop trial at `rate`, judged from the scheduled time.
fn one(
    flags: &BenchServing,
    server: &Server,
    codec: Option<&TokenizerCodec>,
    slo: &Objectives,
    rate: f64,
    number: u64,
    interrupt: &Interrupt,
) -> Result<Trial> {
    let vocab = flags.vocab(server, codec);
    // A queue needs time to grow: a short burst proves nothing of a rate.
    let lasting = (rate * flags.slo_trial_seconds).ceil().min(MOST_REQUESTS) as usize;
    let num_prompts = flags.slo_trial_requests.max(lasting);
    let longer = BenchServing { num_prompts, ..flags.clone() };
    let rows = longer.rows(number, vocab, codec)?;
    let mut plan = flags.plan(server, rows, number)?;
    plan.arrivals = Arrivals::Rate { per_second: rate, burstiness: flags.burstiness };
    let measured = run::run(&plan, interrupt, &AtomicUsize::new(0))?;
    let records = &measured.outcome.records;
    let good = records.iter().filter(|r| goodput::good(r, slo, From::Scheduled)).count();
    let saturated = overlap::shortfall(records).is_some_and(|x| x > FALLS_BEHIND);
    let busy: u64 = records.iter().map(|r| r.end.saturating_sub(r.sent)).sum();
    let idle = (busy as f64) < IDLE * measured.outcome.wall_ns as f64;
    Ok(Trial { requests: records.len(), good, saturated, idle })
}

fn row(flags: &BenchServing, slo: &Objectives, found: &Found, interrupted: bool) -> Value {
    let steps: Vec<Value> = found
        .steps
        .iter()
        .map(|s| {
            let holds = s.judgement == Judgement::Holds;
            json!({ "rate": s.rate, "holds": holds, "requests": s.requests, "good": s.good })
        })
        .collect();
    let bounds: serde_json::Map<String, Value> =
        slo.named().into_iter().map(|(n, b)| (n.to_string(), json!(b))).collect();
    json!({
        "kind": "max_rate",
        "tag": flags.tag,
        "backend": flags.backend.name(),
        "dataset_name": flags.dataset_name.name(),
        "slo_ms": bounds,
        "slo_share": flags.slo_share,
        "max_rate": optional(found.holds),
        "lowest_rate_that_breaks": optional(found.breaks),
        "steps": steps,
        "interrupted": interrupted,
    })
}

fn lines(slo: &Objectives, share: f64, found: &Found) -> Vec<String> {
    let named: Vec<String> = slo.named().iter().map(|(n, b)| format!("{n} ≤ {b} ms")).collect();
    let all = format!("{} for {} % of requests", named.join(", "), share * 100.0);
    vec![match (found.holds, found.breaks) {
        (Some(low), Some(high)) => {
            let (middle, half) = ((low + high) / 2.0, (high - low) / 2.0);
            format!(
                "{all}: {middle:.3} ± {half:.3} requests/s (holds at {low:.3}, breaks at \
                     {high:.3})"
            )
        }
        (Some(low), None) => format!("{all}: at least {low:.3} requests/s; none tried broke"),
        (None, Some(high)) => format!("{all}: broken already at {high:.3} requests/s"),
        (None, None) => format!("{all}: kept by no request, though sent one at a time"),
    }]
}
