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
use crate::bench::serving::run;
use crate::bench::serving::search::{self, Found, Judgement, Search, Trial};
use crate::error::{Error, Kind, Result};
use crate::measure::interrupt::Interrupt;
use crate::measure::json::{JsonLines, optional};

/// Beyond this shortfall over a whole trial the server has fallen behind.
const FALLS_BEHIND: f64 = 0.15;

/// Requests of one trial at most, unless --num-prompts asks for more.
const MOST_REQUESTS: f64 = 100_000.0;

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
    let mut runs = 0u64;
    let mut trial = |rate: f64, _: usize| {
        let seen = one(flags, server, codec.as_ref(), &slo, rate, runs, interrupt);
        runs += 1;
        match seen {
            Ok(_) if interrupt.asked() => None,
            Ok(trial) => {
                let Trial { good, requests, saturated } = trial;
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
    let how = Search {
        start: flags.slo_start_rate,
        share: flags.slo_share,
        precision: 0.05,
        trials: 8,
        rates: 24,
    };
    let found = search::search(&how, &mut trial);
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
    let longer = BenchServing { num_prompts: flags.num_prompts.max(lasting), ..flags.clone() };
    let rows = longer.rows(number, vocab, codec)?;
    let mut plan = flags.plan(server, rows, number)?;
    plan.arrivals = Arrivals::Rate { per_second: rate, burstiness: flags.burstiness };
    let measured = run::run(&plan, interrupt, &AtomicUsize::new(0))?;
    let records = &measured.outcome.records;
    let good = records.iter().filter(|r| goodput::good(r, slo, From::Scheduled)).count();
    let saturated = overlap::shortfall(records).is_some_and(|x| x > FALLS_BEHIND);
    Ok(Trial { requests: records.len(), good, saturated })
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
        (None, None) => format!("{all}: nothing was tried"),
    }]
}
