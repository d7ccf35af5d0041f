//! The validity of a serving run (contract.md §5). Pure.

use super::metrics::{self, Metrics};
use super::overlap;
use super::run::Measured;
use crate::bench::data::Row;
use crate::bench::load::record::Record;
use crate::measure::stats;
use crate::measure::validity::{self, Check, Status, Validity};

/// What the checks need to know beside the run.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub rows: &'a [Row],
    /// Requests may not end early.
    pub ignore_eos: bool,
    /// The data set shares prefixes on purpose.
    pub shares_prefixes: bool,
    /// Requests a second that the schedule offers; `None` in a closed loop or a burst.
    pub offered: Option<f64>,
    pub runs: &'a [f64],
    pub optimised: bool,
}

/// All checks of one run.
pub fn validity(asked: &Asked, measured: &Measured, m: &Metrics) -> Validity {
    let records = &measured.outcome.records;
    let mut v = Validity::default();
    v.push(failures(records));
    v.push(slip(records));
    v.push(client_cpu(measured));
    v.push(client_starved(measured));
    v.push(output_lengths(asked, records));
    v.push(input_lengths(asked, records));
    v.push(token_counts(records));
    v.push(cache_hits(asked, records));
    v.push(records_kept(asked, measured));
    v.push(counters(measured, m));
    v.push(saturation(asked, records, m));
    v.push(drift(records));
    v.push(run_spread(asked.runs));
    let [other, steal, clock] = validity::machine(&measured.machine);
    v.push(if measured.local && measured.server_cpu_s.is_none() {
        unknown_load(other)
    } else {
        other
    });
    v.push(steal);
    v.push(clock);
    v.push(validity::build(asked.optimised));
    v
}

fn percent(x: f64) -> String {
    format!("{:.1}%", x * 100.0)
}

fn failures(records: &[Record]) -> Check {
    let failed = records.iter().filter(|r| !r.ok()).count();
    let share = failed as f64 / records.len().max(1) as f64;
    let note = format!("{failed} of {} requests failed", records.len());
    let figure = if records.is_empty() { 1.0 } else { share };
    Check::bounded("failed_requests", Some(figure), 0.0, 0.01, note)
}

/// How late the client sent, over requests that did not belong to the first burst (which cannot
/// leave all at once).
fn slip(records: &[Record]) -> Check {
    let late: Vec<f64> = records.iter().filter(|r| r.ready > 0).map(metrics::lateness_ms).collect();
    let Some(p99) = stats::percentile(&late, 99.0) else {
        let note = "every request was due at the start: no schedule to slip";
        return Check::bounded("schedule_slip", Some(0.0), 1.0, 10.0, note);
    };
    let note = format!("99% of requests were sent within {p99:.3} ms of their time");
    Check::bounded("schedule_slip", Some(p99), 1.0, 10.0, note)
}

fn client_cpu(measured: &Measured) -> Check {
    let share = per_wall(measured, measured.outcome.cpu_ns);
    let note = match share {
        Some(x) => format!("the client's busiest thread used {} of a processor", percent(x)),
        None => "the client's processor time is unknown on this system".into(),
    };
    Check::bounded("client_cpu", share, 0.7, 0.9, note)
}

fn client_starved(measured: &Measured) -> Check {
    let share = per_wall(measured, measured.outcome.starved_ns);
    let note = match share {
        Some(x) => format!("the client waited {} of the run for a processor", percent(x)),
        None => "how long the client waited for a processor is unknown on this system".into(),
    };
    Check::bounded("client_starved", share, 0.05, 0.25, note)
}

fn per_wall(measured: &Measured, ns: Option<u64>) -> Option<f64> {
    let wall = measured.outcome.wall_ns;
    ns.filter(|_| wall > 0).map(|ns| ns as f64 / wall as f64)
}

fn of_row<'a>(asked: &Asked<'a>, r: &Record) -> Option<&'a Row> {
    asked.rows.get(r.index)
}

/// Output asked for against output made, over successful requests.
fn output_lengths(asked: &Asked, records: &[Record]) -> Check {
    let good = records.iter().filter(|r| r.ok());
    let (mut wanted, mut made, mut early) = (0u64, 0u64, 0usize);
    for r in good {
        let want = of_row(asked, r).map_or(0, |row| row.output_len as u64);
        wanted += want;
        made += r.output_tokens();
        early += usize::from(r.output_tokens() != want);
    }
    let off = wanted.abs_diff(made) as f64 / wanted.max(1) as f64;
    let note = format!("{made} of {wanted} output tokens; {early} requests differ");
    let limit = if asked.ignore_eos { 0.01 } else { f64::INFINITY };
    let mut check = Check::bounded("achieved_output", Some(off), 0.0, limit, note);
    if early > 0 {
        check.status = check.status.max(Status::Warn);
    }
    check
}

fn input_lengths(asked: &Asked, records: &[Record]) -> Check {
    let known = records.iter().filter(|r| r.ok()).filter_map(|r| {
        let want = of_row(asked, r)?.prompt_len as u64;
        Some((want, r.prompt_tokens?)).filter(|_| want > 0)
    });
    let (mut wanted, mut made, mut n) = (0u64, 0u64, 0usize);
    for (want, got) in known {
        wanted += want;
        made += got;
        n += 1;
    }
    if n == 0 {
        let note = "the server does not say how many prompt tokens it saw";
        return Check::bounded("achieved_input", None, 0.0, 0.05, note);
    }
    let off = wanted.abs_diff(made) as f64 / wanted.max(1) as f64;
    let note = format!("{made} of {wanted} prompt tokens, as the server counts");
    // A beginning-of-sequence token more a request is common and harmless.
    Check::bounded("achieved_input", Some(off), 0.01, 0.05, note)
}

fn token_counts(records: &[Record]) -> Check {
    let good = records.iter().filter(|r| r.ok()).count();
    let guessed = records.iter().filter(|r| r.ok() && !r.counted_by_server()).count();
    let share = guessed as f64 / good.max(1) as f64;
    let note = match guessed {
        0 => "output tokens are the server's own count".to_string(),
        n => format!("{n} answers came without usage: their chunks were counted as tokens"),
    };
    Check::bounded("token_counts", Some(share), 0.0, f64::INFINITY, note)
}

fn cache_hits(asked: &Asked, records: &[Record]) -> Check {
    let told =
        records.iter().filter(|r| r.ok()).filter_map(|r| r.cached_tokens.zip(r.prompt_tokens));
    let (mut cached, mut prompt, mut n) = (0u64, 0u64, 0usize);
    for (c, p) in told {
        (cached, prompt, n) = (cached + c, prompt + p, n + 1);
    }
    if n == 0 {
        let note = "the server does not say how much of a prompt it had cached";
        return Check::bounded("prefix_cache_hits", None, 0.01, 0.10, note);
    }
    let share = cached as f64 / prompt.max(1) as f64;
    let note = format!("{} of prompt tokens came from the prefix cache", percent(share));
    let (warn, fail) = if asked.shares_prefixes { (1.0, 1.0) } else { (0.01, 0.10) };
    let hint = if share > warn { "; --flush-cache empties it first" } else { "" };
    Check::bounded("prefix_cache_hits", Some(share), warn, fail, note + hint)
}

/// Every request sent has its record.
fn records_kept(asked: &Asked, measured: &Measured) -> Check {
    let outcome = &measured.outcome;
    let sent = asked.rows.len().saturating_sub(outcome.unsent);
    let missing = sent.abs_diff(outcome.records.len());
    let note = match outcome.unsent {
        0 => format!("{missing} requests without a record"),
        n => format!("{missing} requests without a record; {n} never sent"),
    };
    Check::bounded("dropped_records", Some(missing as f64), 0.0, 0.0, note)
}

/// The server's counters over the run against ours. Others may have used the server too.
fn counters(measured: &Measured, m: &Metrics) -> Check {
    let name = "server_counters";
    let counted = measured.counted.and_then(|c| c.output_tokens);
    let Some(counted) = counted else {
        return Check {
            name,
            status: Status::Pass,
            figure: None,
            limit: None,
            note: "the server exports no counters to compare with".into(),
        };
    };
    let ours = m.output_tokens as f64;
    let off = (counted - ours).abs() / ours.max(1.0);
    let failed = m.sent > m.completed;
    let mut note = format!("the server counted {counted} output tokens, the client {ours}");
    if failed {
        note.push_str("; those of failed requests are only in the former");
    }
    let limit = if failed { f64::INFINITY } else { 0.01 };
    Check::bounded(name, Some(off), 0.0, limit, note)
}

/// An open loop that offers more than the server does has no steady latency to report.
fn saturation(asked: &Asked, records: &[Record], m: &Metrics) -> Check {
    let name = "over_saturation";
    let Some(offered) = asked.offered else {
        let note = "the load follows the server: it cannot run away";
        return Check::bounded(name, Some(0.0), 0.10, 0.25, note);
    };
    let short = overlap::shortfall(records);
    let what = format!("{offered:.2} requests a second offered, {:.2} done", m.request_throughput);
    let note = match short {
        None => format!("{what}; too short a run to tell whether the server keeps up"),
        Some(x) if x > 0.1 => format!("{what}: latencies grow with the length of the run"),
        Some(_) => what,
    };
    Check::bounded(name, Some(short.unwrap_or(0.0)), 0.10, 0.25, note)
}

/// Time per token of the first third of requests against the last, in order of sending.
fn drift(records: &[Record]) -> Check {
    let mut good: Vec<&Record> = records.iter().filter(|r| r.ok()).collect();
    good.sort_by_key(|r| r.sent);
    let tpot: Vec<f64> = good.iter().filter_map(|r| metrics::tpot_ms(r)).collect();
    if tpot.len() >= 3 {
        return validity::drift("time per output token, by order of sending", &tpot);
    }
    let e2e: Vec<f64> = good.iter().map(|r| metrics::e2e_ms(r)).collect();
    validity::drift("latency, by order of sending", &e2e)
}

fn run_spread(runs: &[f64]) -> Check {
    let mut check = validity::spread("run_spread", runs);
    if runs.len() < 2 {
        check.note = "unknown from one run; --num-runs 3 tells".into();
    }
    check
}

/// The server runs here and its process cannot be seen, so its load cannot be told from others'.
fn unknown_load(mut check: Check) -> Check {
    check.status = check.status.min(Status::Warn);
    check.note.push_str("; the server under test is among them");
    check
}
