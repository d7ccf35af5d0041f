//! Results of an offline run: SGLang's keys and lines first, then ours.

use serde_json::{Map, Value, json};

use super::run::{Recorded, StepSample};
use crate::bench::serving::metrics::{self, Spread};
use crate::bench::serving::text::{entry, rule};
use crate::bench::step_cost::{self, Point, StepCost};
use crate::measure::json::{number, numbers, optional};
use crate::measure::machine::Machine;
use crate::measure::stats;
use crate::measure::validity::{self, Check, Validity};

/// Figures of a run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Figures {
    pub successful: usize,
    pub failed: usize,
    /// Seconds from the first submission to the last token.
    pub seconds: f64,
    /// Of requests that ended.
    pub input_tokens: u64,
    pub output_tokens: u64,
    pub wanted_tokens: u64,
    pub cached_tokens: u64,
    /// Decode tokens a second over the last tenth of decode steps.
    pub last_gen_throughput: Option<f64>,
    pub ttft: Option<Spread>,
    pub latency: Option<Spread>,
}

impl Figures {
    pub fn per_second(&self, count: f64) -> f64 {
        if self.seconds > 0.0 { count / self.seconds } else { 0.0 }
    }
}

pub fn figures(r: &Recorded) -> Figures {
    let ended: Vec<_> =
        r.requests.iter().filter(|q| q.end_ns.is_some() && q.failed.is_none()).collect();
    let ms = |ns: Option<u64>| ns.map(|n| n as f64 * 1e-6);
    Figures {
        successful: ended.len(),
        failed: r.requests.iter().filter(|q| q.failed.is_some()).count(),
        seconds: r.wall_ns as f64 * 1e-9,
        input_tokens: ended.iter().map(|q| q.prompt_tokens as u64).sum(),
        output_tokens: ended.iter().map(|q| q.output_tokens as u64).sum(),
        wanted_tokens: ended.iter().map(|q| q.wanted as u64).sum(),
        cached_tokens: ended.iter().map(|q| q.cached_tokens as u64).sum(),
        last_gen_throughput: last_gen(&r.steps),
        ttft: metrics::spread(&ended.iter().filter_map(|q| ms(q.first_ns)).collect::<Vec<_>>()),
        latency: metrics::spread(&ended.iter().filter_map(|q| ms(q.end_ns)).collect::<Vec<_>>()),
    }
}

fn last_gen(steps: &[StepSample]) -> Option<f64> {
    let decode: Vec<&StepSample> =
        steps.iter().filter(|s| s.decode_tokens > 0 && s.prefill_tokens == 0).collect();
    let last = &decode[decode.len() - decode.len().div_ceil(10)..];
    let (tokens, ns) = last.iter().fold((0, 0), |(t, n), s| (t + s.decode_tokens, n + s.ns));
    (ns > 0).then(|| tokens as f64 / (ns as f64 * 1e-9))
}

/// The validity of a run. `throughputs`: of all repeats so far.
pub fn validity(
    r: &Recorded,
    f: &Figures,
    throughputs: &[f64],
    machine: &Machine,
    ignore_eos: bool,
    shares_prefixes: bool,
) -> Validity {
    let mut v = Validity::default();
    let share = f.failed as f64 / r.requests.len().max(1) as f64;
    let note = format!("{} of {} requests failed", f.failed, r.requests.len());
    v.push(Check::bounded("failed_requests", Some(share), 0.0, 0.01, note));
    let off = f.wanted_tokens.abs_diff(f.output_tokens) as f64 / f.wanted_tokens.max(1) as f64;
    let note = format!("{} of {} output tokens", f.output_tokens, f.wanted_tokens);
    let limit = if ignore_eos { 0.0 } else { f64::INFINITY };
    v.push(Check::bounded("achieved_output", Some(off), 0.0, limit, note));
    let hits = f.cached_tokens as f64 / f.input_tokens.max(1) as f64;
    let note = format!("{:.1}% of prompt tokens came from the prefix cache", hits * 100.0);
    let (warn, fail) = if shares_prefixes { (1.0, 1.0) } else { (0.01, 0.10) };
    v.push(Check::bounded("prefix_cache_hits", Some(hits), warn, fail, note));
    let unfinished = r.requests.iter().filter(|q| q.end_ns.is_none() && q.failed.is_none()).count();
    let note = format!("{unfinished} requests without an end");
    v.push(Check::bounded("dropped_records", Some(unfinished as f64), 0.0, 0.0, note));
    v.push(drift(&r.steps));
    let mut spread = validity::spread("run_spread", throughputs);
    if throughputs.len() < 2 {
        spread.note = "unknown from one run; --repeat 3 tells".into();
    }
    v.push(spread);
    validity::machine(machine).into_iter().for_each(|c| v.push(c));
    v.push(validity::build(!cfg!(debug_assertions)));
    v
}

/// Steps that decode as many sequences as most do, the first against the last: others differ by
/// what they run.
fn drift(steps: &[StepSample]) -> Check {
    let decode: Vec<&StepSample> =
        steps.iter().filter(|s| s.decode_tokens > 0 && s.prefill_tokens == 0).collect();
    let sizes: Vec<f64> = decode.iter().map(|s| s.decode_tokens as f64).collect();
    let usual = stats::median(&sizes).unwrap_or(0.0);
    let same: Vec<f64> = decode
        .iter()
        .filter(|s| s.decode_tokens as f64 == usual)
        // Longer contexts cost more: per cached token and row, what is left is the machine.
        .map(|s| s.ns as f64)
        .collect();
    let mut check = validity::drift("decode steps of the usual size", &same);
    check.name = "step_drift";
    if same.len() >= 3 {
        check.status = check.status.min(validity::Status::Warn);
        check.note.push_str("; contexts grow over a run, which costs time too");
    }
    check
}

/// The cost model of the run's steps.
pub fn step_cost(r: &Recorded) -> Option<StepCost> {
    let point = |s: &StepSample| Point {
        tokens: (s.prefill_tokens + s.decode_tokens) as f64,
        reads: s.kv_reads as f64,
        seconds: s.ns as f64 * 1e-9,
    };
    step_cost::fit(&r.steps.iter().map(point).collect::<Vec<_>>())
}

/// The row.
pub fn row(
    backend: &str,
    r: &Recorded,
    f: &Figures,
    v: &Validity,
    about: Map<String, Value>,
) -> Value {
    let both = f.input_tokens + f.output_tokens;
    let mut row = object(json!({
        "backend": backend,
        "successful_requests": f.successful,
        "total_latency": number(f.seconds),
        "total_input_tokens": f.input_tokens,
        "total_output_tokens": f.output_tokens,
        "request_throughput": number(f.per_second(f.successful as f64)),
        "input_throughput": number(f.per_second(f.input_tokens as f64)),
        "output_throughput": number(f.per_second(f.output_tokens as f64)),
        "total_throughput": number(f.per_second(both as f64)),
        "last_gen_throughput": optional(f.last_gen_throughput),
        "kind": "offline",
    }));
    row.extend(about);
    row.extend(object(json!({
        "failed": f.failed,
        "requested_output_tokens": f.wanted_tokens,
        "cached_tokens": f.cached_tokens,
        "median_ttft_ms": optional(f.ttft.map(|s| s.median)),
        "p99_ttft_ms": optional(f.ttft.map(|s| s.p99)),
        "median_latency_ms": optional(f.latency.map(|s| s.median)),
        "p99_latency_ms": optional(f.latency.map(|s| s.p99)),
        "steps": r.steps.len(),
        "step_cost": step_cost(r).map(|c| c.to_json()),
        "over_time": over_time(&r.steps, r.wall_ns),
        "interrupted": r.interrupted,
        "validity": v.to_json(),
    })));
    Value::Object(row)
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// Prefilled and decoded tokens a second, and sequences a step, in a hundred stretches.
fn over_time(steps: &[StepSample], wall_ns: u64) -> Value {
    const POINTS: u64 = 100;
    if wall_ns == 0 {
        return Value::Null;
    }
    let step = wall_ns.div_ceil(POINTS).max(1);
    let n = wall_ns.div_ceil(step) as usize;
    let (mut prefill, mut decode) = (vec![0usize; n], vec![0usize; n]);
    let (mut sequences, mut count) = (vec![0usize; n], vec![0usize; n]);
    for s in steps {
        let at = ((s.end_ns / step) as usize).min(n - 1);
        prefill[at] += s.prefill_tokens;
        decode[at] += s.decode_tokens;
        sequences[at] += s.sequences;
        count[at] += 1;
    }
    let seconds = step as f64 * 1e-9;
    let rate = |v: &[usize]| -> Vec<f64> {
        v.iter().map(|&x| (x as f64 / seconds * 10.0).round() / 10.0).collect()
    };
    let mean: Vec<f64> = sequences
        .iter()
        .zip(&count)
        .map(|(&s, &c)| if c > 0 { (s as f64 / c as f64 * 10.0).round() / 10.0 } else { 0.0 })
        .collect();
    json!({
        "step_s": number(seconds),
        "prefill_throughput": numbers(&rate(&prefill)),
        "output_throughput": numbers(&rate(&decode)),
        "sequences": numbers(&mean),
    })
}

/// SGLang's block.
pub fn lines(backend: &str, f: &Figures) -> Vec<String> {
    let two = |x: f64| format!("{x:.2}");
    let both = (f.input_tokens + f.output_tokens) as f64;
    let last = f.last_gen_throughput.map_or("n/a".to_string(), two);
    vec![
        rule("Offline Throughput Benchmark Result", '='),
        entry("Backend:", backend),
        entry("Successful requests:", f.successful),
        entry("Benchmark duration (s):", two(f.seconds)),
        entry("Total input tokens:", f.input_tokens),
        entry("Total generated tokens:", f.output_tokens),
        entry("Last generation throughput (tok/s):", last),
        entry("Request throughput (req/s):", two(f.per_second(f.successful as f64))),
        entry("Input token throughput (tok/s):", two(f.per_second(f.input_tokens as f64))),
        entry("Output token throughput (tok/s):", two(f.per_second(f.output_tokens as f64))),
        entry("Total token throughput (tok/s):", two(f.per_second(both))),
        rule("", '='),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::offline::run::Outcome;

    fn recorded() -> Recorded {
        let done = |cached| Outcome {
            prompt_tokens: 10,
            wanted: 5,
            output_tokens: 5,
            cached_tokens: cached,
            first_ns: Some(1_000_000_000),
            end_ns: Some(2_000_000_000),
            failed: None,
        };
        let step = |prefill, decode, ns| StepSample {
            prefill_tokens: prefill,
            decode_tokens: decode,
            sequences: 2,
            end_ns: ns,
            ns: 500_000_000,
            ..StepSample::default()
        };
        Recorded {
            requests: vec![done(0), done(5)],
            steps: vec![step(20, 0, 500_000_000), step(0, 2, 2_000_000_000)],
            wall_ns: 2_000_000_000,
            interrupted: false,
        }
    }

    #[test]
    fn formulas() {
        let f = figures(&recorded());
        assert_eq!((f.successful, f.input_tokens, f.output_tokens), (2, 20, 10));
        assert_eq!((f.per_second(2.0), f.last_gen_throughput), (1.0, Some(4.0)));
        let v = Validity::default();
        let row = row("engine", &recorded(), &f, &v, Map::new());
        assert_eq!(row["total_throughput"], 15.0);
        assert_eq!(row["total_latency"], 2.0);
        assert_eq!(row["median_ttft_ms"], 1000.0);
        let keys: Vec<&String> = row.as_object().unwrap().keys().take(4).collect();
        let want = ["backend", "successful_requests", "total_latency", "total_input_tokens"];
        assert_eq!(keys, want);
    }

    #[test]
    fn faults_are_flagged() {
        use crate::measure::validity::Status::*;
        let status = |r: &Recorded, name: &str| {
            let v = validity(r, &figures(r), &[1.0, 1.0], &Machine::default(), true, false);
            v.checks.iter().find(|c| c.name == name).map(|c| c.status).unwrap()
        };
        let mut r = recorded();
        assert_eq!(status(&r, "failed_requests"), Pass);
        assert_eq!(status(&r, "prefix_cache_hits"), Fail, "a quarter of prompts was cached");
        assert_eq!(status(&r, "achieved_output"), Pass);
        r.requests[0].output_tokens = 3;
        assert_eq!(status(&r, "achieved_output"), Fail);
        r.requests[0].failed = Some("x".into());
        assert_eq!(status(&r, "failed_requests"), Fail);
        r.requests[1].end_ns = None;
        assert_eq!(status(&r, "dropped_records"), Fail);
    }
}
