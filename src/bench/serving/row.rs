//! The result row of a run: SGLang's keys in SGLang's order and meaning, then ours. Pure.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::goodput::{self, From, Objectives};
use super::metrics::{self, Metrics, Spread};
use super::overlap;
use super::run::Measured;
use super::ttft::Decomposition;
use crate::bench::data::Row;
use crate::bench::load::record::Record;
use crate::measure::json::{number, numbers, optional};
use crate::measure::stats;
use crate::measure::validity::Validity;

/// What a row says that is not measured.
#[derive(Debug, Clone, Default)]
pub struct Context {
    pub tag: Option<String>,
    pub backend: String,
    pub dataset: String,
    /// A number, `inf` or `trace`.
    pub request_rate: Value,
    pub max_concurrency: Option<usize>,
    pub sharegpt_output_len: Option<usize>,
    pub random_input_len: Option<usize>,
    pub random_output_len: Option<usize>,
    pub random_range_ratio: Option<f64>,
    /// A few fields of `/server_info`; SGLang stores all of it, secrets included.
    pub server_info: Value,
    pub objectives: Option<Objectives>,
    pub details: bool,
    pub cache_report: bool,
    /// Tool, commit, date, command, seed, and whatever else the caller knows.
    pub about: Map<String, Value>,
}

/// How many points a distribution or a series over time has in a row.
const POINTS: usize = 100;

/// The whole row.
pub fn row(c: &Context, rows: &[Row], measured: &Measured, m: &Metrics, v: &Validity) -> Value {
    let records = &measured.outcome.records;
    let mut out = sglang(c, rows, m);
    goodput_keys(c, records, m, &mut out);
    if c.cache_report {
        out.insert("cache_report".into(), cache_report(records));
    }
    if c.details {
        details(records, rows, &mut out);
    }
    ours(c, rows, measured, m, &mut out);
    out.insert("validity".into(), v.to_json());
    Value::Object(out)
}

/// `{mean,median,std,p90,p95,p99}_{name}_ms`.
fn latency(name: &str, spread: Option<&Spread>, out: &mut Map<String, Value>) {
    let mut put = |stat: &str, value: fn(&Spread) -> f64| {
        out.insert(format!("{stat}_{name}_ms"), optional(spread.map(value)));
    };
    put("mean", |s| s.mean);
    put("median", |s| s.median);
    put("std", |s| s.std);
    put("p90", |s| s.p90);
    put("p95", |s| s.p95);
    put("p99", |s| s.p99);
}

fn sglang(c: &Context, rows: &[Row], m: &Metrics) -> Map<String, Value> {
    // SGLang's totals are the data set's lengths; ours, where the server counts, are the server's.
    let nominal: u64 = rows.iter().map(|r| r.prompt_len as u64).sum();
    let head = json!({
        "tag": c.tag,
        "backend": c.backend,
        "dataset_name": c.dataset,
        "request_rate": c.request_rate,
        "max_concurrency": c.max_concurrency,
        "sharegpt_output_len": c.sharegpt_output_len,
        "random_input_len": c.random_input_len,
        "random_output_len": c.random_output_len,
        "random_range_ratio": c.random_range_ratio,
        "server_info": c.server_info,
        "duration": number(m.duration),
        "completed": m.completed,
        "total_input_tokens": m.input_tokens,
        "total_input_text_tokens": m.input_tokens,
        "total_input_vision_tokens": 0,
        "total_output_tokens": m.output_tokens,
        "total_output_tokens_retokenized": m.output_tokens,
        "request_throughput": number(m.request_throughput),
        "input_throughput": number(m.input_throughput),
        "output_throughput": number(m.output_throughput),
        "total_throughput": number(m.total_throughput),
    });
    let mut out = object(head);
    latency("e2e_latency", m.e2e.as_ref(), &mut out);
    latency("ttft", m.ttft.as_ref(), &mut out);
    latency("tpot", m.tpot.as_ref(), &mut out);
    latency("itl", m.itl.as_ref(), &mut out);
    let tail = json!({
        "concurrency": number(m.concurrency),
        "accept_length": null,
        "max_output_tokens_per_s": number(m.peak_output_throughput),
        "max_concurrent_requests": m.peak_concurrency,
        "max_itl_ms": optional(m.itl.map(|s| s.max)),
        "dataset_input_tokens": nominal,
    });
    out.extend(object(tail));
    out
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn goodput_keys(c: &Context, records: &[Record], m: &Metrics, out: &mut Map<String, Value>) {
    let Some(o) = &c.objectives else { return };
    let bounds: Map<String, Value> =
        o.named().into_iter().map(|(n, b)| (n.to_string(), number(b))).collect();
    let g = goodput::goodput(records, o, From::Sent, m.duration);
    let scheduled = goodput::goodput(records, o, From::Scheduled, m.duration);
    let by: Map<String, Value> =
        g.by_metric.iter().map(|(n, x)| ((*n).to_string(), number(*x))).collect();
    out.insert("goodput_slos_ms".into(), bounds.into());
    out.insert("request_goodput".into(), number(g.requests_per_second));
    out.insert("slo_attainment".into(), number(g.attainment));
    out.insert("slo_attainment_by_metric".into(), by.into());
    out.insert("request_goodput_from_schedule".into(), number(scheduled.requests_per_second));
    out.insert("slo_attainment_from_schedule".into(), number(scheduled.attainment));
}

fn cache_report(records: &[Record]) -> Value {
    let good = records.iter().filter(|r| r.ok());
    let (prompt, cached) = good.fold((0, 0), |(p, c), r| {
        (p + r.prompt_tokens.unwrap_or(0), c + r.cached_tokens.unwrap_or(0))
    });
    let share = if prompt > 0 { cached as f64 / prompt as f64 * 100.0 } else { 0.0 };
    json!({
        "total_prompt_tokens": prompt,
        "total_cached_tokens": cached,
        "cache_hit_rate_pct": number(share),
    })
}

/// SGLang's `--output-details`, in order of the data set; seconds, as there.
fn details(records: &[Record], rows: &[Row], out: &mut Map<String, Value>) {
    let mut all: Vec<&Record> = records.iter().collect();
    all.sort_by_key(|r| r.index);
    let each = |f: &dyn Fn(&Record) -> Value| all.iter().map(|r| f(r)).collect::<Value>();
    let lens: Vec<usize> = rows.iter().map(|r| r.prompt_len).collect();
    let s = |ns: u64| number(ns as f64 * 1e-9);
    let lists = [
        ("input_lens", each(&|r| metrics::input_tokens(r, &lens).into())),
        ("output_lens", each(&|r| r.output_tokens().into())),
        ("ttfts", each(&|r| number(metrics::ttft_ms(r).unwrap_or(0.0) * 1e-3))),
        (
            "itls",
            each(&|r| {
                let gaps: Vec<f64> = metrics::itl_ms(r).iter().map(|x| x * 1e-3).collect();
                numbers(&gaps)
            }),
        ),
        ("generated_texts", each(&|r| r.text.clone().into())),
        (
            "errors",
            each(&|r| {
                let failure = r.failure.as_ref();
                failure
                    .map_or(String::new(), |f| format!("{}: {}", f.reason.name(), f.detail))
                    .into()
            }),
        ),
        ("latencies", each(&|r| number(metrics::e2e_ms(r) * 1e-3))),
        ("scheduled_s", each(&|r| s(r.scheduled))),
        ("ready_s", each(&|r| s(r.ready))),
        ("sent_s", each(&|r| s(r.sent))),
        ("cached_tokens", each(&|r| r.cached_tokens.into())),
        ("finish_reasons", each(&|r| r.finish.clone().into())),
    ];
    out.extend(lists.into_iter().map(|(k, v)| (k.to_string(), v)));
}

fn ours(c: &Context, rows: &[Row], measured: &Measured, m: &Metrics, out: &mut Map<String, Value>) {
    let records = &measured.outcome.records;
    out.extend(c.about.clone());
    latency("ttft_from_schedule", m.ttft_from_schedule.as_ref(), out);
    latency("e2e_latency_from_schedule", m.e2e_from_schedule.as_ref(), out);
    latency("ttft_first_token", m.ttft_first_token.as_ref(), out);
    latency("chunk_gap", m.chunk_gap.as_ref(), out);
    latency("client_queue", m.client_queue.as_ref(), out);
    out.extend(object(json!({
        "kind": "serving",
        "sent": m.sent,
        "failed": m.sent - m.completed,
        "failed_by_reason": failures(records),
        "first_failures": first_failures(records),
        "requested_output_tokens": asked(records, rows),
        "client": client(measured, m),
        "server": {
            "local": measured.local,
            "cpu_s": optional(measured.server_cpu_s),
            "counted_prompt_tokens": optional(measured.counted.and_then(|c| c.prompt_tokens)),
            "counted_output_tokens": optional(measured.counted.and_then(|c| c.output_tokens)),
            "counted_requests": optional(measured.counted.and_then(|c| c.requests)),
        },
        "steady_state": steady(records),
        "ttft_parts": measured.ttft.as_ref().map(Decomposition::json),
        "distributions_ms": distributions(records),
        "over_time": over_time(records, m.duration),
        "interrupted": measured.outcome.interrupted,
        "unsent": measured.outcome.unsent,
    })));
}

/// Output tokens asked for in the requests that succeeded.
fn asked(records: &[Record], rows: &[Row]) -> u64 {
    let good = records.iter().filter(|r| r.ok());
    good.filter_map(|r| rows.get(r.index)).map(|row| row.output_len as u64).sum()
}

/// Failed requests by reason.
pub fn failures(records: &[Record]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for failure in records.iter().filter_map(|r| r.failure.as_ref()) {
        *counts.entry(failure.reason.name()).or_default() += 1;
    }
    counts
}

fn first_failures(records: &[Record]) -> Vec<Value> {
    let failed = records.iter().filter_map(|r| r.failure.as_ref().map(|f| (r.index, f)));
    failed
        .take(10)
        .map(|(i, f)| json!({ "request": i, "reason": f.reason.name(), "detail": f.detail }))
        .collect()
}

fn client(measured: &Measured, m: &Metrics) -> Value {
    let o = &measured.outcome;
    let wall = o.wall_ns.max(1) as f64;
    let per_request = |ns: u64| ns as f64 / m.sent.max(1) as f64 * 1e-3;
    json!({
        "cpu_share": optional(o.cpu_ns.map(|n| n as f64 / wall)),
        "cpu_us_per_request": optional(o.cpu_ns.map(per_request)),
        "starved_share": optional(o.starved_ns.map(|n| n as f64 / wall)),
        "lateness_p50_ms": optional(m.lateness.map(|s| s.median)),
        "lateness_p99_ms": optional(m.lateness.map(|s| s.p99)),
        "lateness_max_ms": optional(m.lateness.map(|s| s.max)),
        "connections": o.connections,
        "resent": o.resent,
    })
}

fn steady(records: &[Record]) -> Value {
    overlap::steady(records, 0.95).map_or(Value::Null, |s| {
        json!({
            "from_s": number(s.from),
            "to_s": number(s.to),
            "min_concurrency": s.at_least,
            "output_throughput": number(s.output_throughput),
            "request_throughput": number(s.request_throughput),
        })
    })
}

/// The percentiles 0 to 100 of each latency, so that a report can draw its distribution.
fn distributions(records: &[Record]) -> Value {
    let good: Vec<&Record> = records.iter().filter(|r| r.ok()).collect();
    let all = |samples: Vec<f64>| {
        let mut v = samples;
        v.sort_by(f64::total_cmp);
        let at = |q: usize| stats::percentile_of_sorted(&v, q as f64).map(round);
        (0..=POINTS).filter_map(at).map(number).collect::<Value>()
    };
    json!({
        "ttft": all(good.iter().filter_map(|r| metrics::ttft_ms(r)).collect()),
        "tpot": all(good.iter().filter_map(|r| metrics::tpot_ms(r)).collect()),
        "itl": all(good.iter().flat_map(|r| metrics::itl_ms(r)).collect()),
        "e2e_latency": all(good.iter().map(|r| metrics::e2e_ms(r)).collect()),
    })
}

/// Microseconds are enough for a plot.
fn round(ms: f64) -> f64 {
    (ms * 1e3).round() * 1e-3
}

/// Throughput and concurrency in stretches, and `[sent s, TTFT ms, median gap ms]` of at most
/// [`POINTS`] · 3 requests spread over the run.
fn over_time(records: &[Record], duration: f64) -> Value {
    let s = overlap::series(records, duration, POINTS);
    let mut good: Vec<&Record> = records.iter().filter(|r| r.ok()).collect();
    good.sort_by_key(|r| r.sent);
    let every = good.len().div_ceil(POINTS * 3).max(1);
    let points = good.iter().step_by(every).map(|r| {
        let gap = stats::median(&metrics::itl_ms(r)).map(round);
        json!([
            number(round(r.sent as f64 * 1e-9)),
            optional(metrics::ttft_ms(r).map(round)),
            optional(gap)
        ])
    });
    let rounded = |v: &[f64]| numbers(&v.iter().map(|x| round(*x)).collect::<Vec<_>>());
    json!({
        "step_s": number(s.step),
        "output_throughput": rounded(&s.output_throughput),
        "concurrency": rounded(&s.concurrency),
        "requests": points.collect::<Value>(),
    })
}
