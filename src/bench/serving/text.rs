//! The printed result: SGLang's block, line by line, then ours. Pure.

use serde_json::Value;

use super::goodput::{self, From};
use super::metrics::{Metrics, Spread};
use super::row::{Context, failures};
use super::run::Measured;
use super::ttft::Decomposition;
use crate::bench::data::{Prompt, Row};
use crate::bench::load::record::Record;
use crate::measure::validity::Validity;

/// `label` and value in SGLang's columns.
pub fn entry(label: &str, value: impl std::fmt::Display) -> String {
    format!("{label:<40} {value:<10}").trim_end().to_string()
}

/// A rule of 50 characters with `title` in its middle.
pub fn rule(title: &str, fill: char) -> String {
    let title = if title.is_empty() { String::new() } else { format!(" {title} ") };
    let room = 50usize.saturating_sub(title.chars().count());
    let left: String = std::iter::repeat_n(fill, room / 2).collect();
    let right: String = std::iter::repeat_n(fill, room - room / 2).collect();
    format!("{left}{title}{right}")
}

/// SGLang's lines.
pub fn sglang(c: &Context, measured: &Measured, m: &Metrics) -> Vec<String> {
    let two = |x: f64| format!("{x:.2}");
    let mut lines = vec![rule("Serving Benchmark Result", '=')];
    let mut put = |label: &str, value: String| lines.push(entry(label, value));
    put("Backend:", c.backend.clone());
    put("Traffic request rate:", plain(&c.request_rate));
    let most = c.max_concurrency.map_or("not set".to_string(), |n| n.to_string());
    put("Max request concurrency:", most);
    put("Successful requests:", m.completed.to_string());
    put("Benchmark duration (s):", two(m.duration));
    put("Total input tokens:", m.input_tokens.to_string());
    put("Total input text tokens:", m.input_tokens.to_string());
    put("Total generated tokens:", m.output_tokens.to_string());
    put("Request throughput (req/s):", two(m.request_throughput));
    put("Input token throughput (tok/s):", two(m.input_throughput));
    put("Output token throughput (tok/s):", two(m.output_throughput));
    put("Peak output token throughput (tok/s):", two(m.peak_output_throughput));
    put("Peak concurrent requests:", m.peak_concurrency.to_string());
    put("Total token throughput (tok/s):", two(m.total_throughput));
    put("Concurrency:", two(m.concurrency));
    if let Some(o) = &c.objectives {
        let g = goodput::goodput(&measured.outcome.records, o, From::Sent, m.duration);
        let named: Vec<String> = o.named().iter().map(|(n, b)| format!("{n}:{b}")).collect();
        put("Goodput SLOs (ms):", named.join(" "));
        put("Request goodput (req/s):", two(g.requests_per_second));
        put("SLO attainment (%):", two(g.attainment * 100.0));
        for (name, share) in &g.by_metric {
            put(&format!("  {name} attainment (%):"), two(share * 100.0));
        }
    }
    section(&mut lines, "End-to-End Latency", "E2E Latency", m.e2e.as_ref(), false);
    section(&mut lines, "Time to First Token", "TTFT", m.ttft.as_ref(), false);
    section(&mut lines, "Time per Output Token (excl. 1st token)", "TPOT", m.tpot.as_ref(), false);
    section(&mut lines, "Inter-Token Latency", "ITL", m.itl.as_ref(), true);
    lines
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_string)
}

fn section(lines: &mut Vec<String>, title: &str, name: &str, s: Option<&Spread>, max: bool) {
    lines.push(rule(title, '-'));
    let mut put = |label: &str, value: fn(&Spread) -> f64| {
        let shown = s.map_or("n/a".to_string(), |s| format!("{:.2}", value(s)));
        lines.push(entry(&format!("{label} {name} (ms):"), shown));
    };
    put("Mean", |s| s.mean);
    put("Median", |s| s.median);
    put("P90", |s| s.p90);
    put("P95", |s| s.p95);
    put("P99", |s| s.p99);
    if max {
        put("Max", |s| s.max);
    }
}

/// Our lines below SGLang's: from the schedule, failures, the client itself, validity.
pub fn ours(measured: &Measured, m: &Metrics, v: &Validity) -> Vec<String> {
    let mut lines = Vec::new();
    section(&mut lines, "From Scheduled Time", "TTFT", m.ttft_from_schedule.as_ref(), false);
    section(&mut lines, "", "E2E Latency", m.e2e_from_schedule.as_ref(), false);
    lines.extend(measured.ttft.iter().flat_map(Decomposition::lines));
    lines.push(rule("Client and Validity", '-'));
    let failed = failures(&measured.outcome.records);
    let named: Vec<String> = failed.iter().map(|(k, n)| format!("{k} {n}")).collect();
    let failed = if named.is_empty() { "0".to_string() } else { named.join(", ") };
    lines.push(entry("Failed requests:", failed));
    if let Some(first) = measured.outcome.records.iter().find_map(|r| r.failure.as_ref()) {
        lines.push(format!("  first: {}: {}", first.reason.name(), first.detail));
    }
    if let Some(s) = &m.lateness {
        let late = format!("{:.3} / {:.3} / {:.3}", s.median, s.p99, s.max);
        lines.push(entry("Client lateness p50/p99/max (ms):", late));
    }
    if let Some(cpu) = measured.outcome.cpu_ns {
        let share = cpu as f64 / measured.outcome.wall_ns.max(1) as f64 * 100.0;
        lines.push(entry("Client CPU (% of one core):", format!("{share:.1}")));
    }
    if measured.outcome.interrupted {
        let unsent = measured.outcome.unsent;
        lines.push(entry("Interrupted; requests never sent:", unsent));
    }
    lines.push(rule("", '='));
    lines.extend(measured.notes.iter().map(|n| format!("note: {n}")));
    lines.push(v.line());
    lines
}

/// Each prompt and its answer, for `--print-requests`.
pub fn requests(rows: &[Row], records: &[Record]) -> Vec<String> {
    let mut all: Vec<&Record> = records.iter().collect();
    all.sort_by_key(|r| r.index);
    let prompt = |row: Option<&Row>| match row.map(|r| &r.prompt) {
        Some(Prompt::Text(text)) => format!("{text:?}"),
        Some(Prompt::Messages(messages)) => messages.to_string(),
        Some(Prompt::Ids(ids)) => format!("{} token ids", ids.len()),
        None => String::new(),
    };
    let answer = |r: &Record| match &r.failure {
        Some(f) => format!("failed: {}: {}", f.reason.name(), f.detail),
        None => format!("{} tokens: {:?}", r.output_tokens(), r.text),
    };
    let line = |r: &&Record| {
        format!("request {}: {} -> {}", r.index, prompt(rows.get(r.index)), answer(r))
    };
    all.iter().map(line).collect()
}

/// A markdown table of rows.
pub fn markdown(rows: &[Value]) -> Vec<String> {
    const COLUMNS: &[(&str, &str)] = &[
        ("rate", "request_rate"),
        ("concurrency", "max_concurrency"),
        ("completed", "completed"),
        ("failed", "failed"),
        ("req/s", "request_throughput"),
        ("out tok/s", "output_throughput"),
        ("TTFT p50 ms", "median_ttft_ms"),
        ("TTFT p99 ms", "p99_ttft_ms"),
        ("TTFT from schedule p99 ms", "p99_ttft_from_schedule_ms"),
        ("TPOT p50 ms", "median_tpot_ms"),
        ("ITL p99 ms", "p99_itl_ms"),
        ("E2E p99 ms", "p99_e2e_latency_ms"),
    ];
    let cells = |f: &dyn Fn(&(&str, &str)) -> String| {
        let all: Vec<String> = COLUMNS.iter().map(f).collect();
        format!("| {} |", all.join(" | "))
    };
    let mut lines = vec![cells(&|c| c.0.to_string()), cells(&|_| "---:".to_string())];
    for row in rows {
        lines.push(cells(&|c| match &row[c.1] {
            Value::Number(n) if n.is_f64() => format!("{:.2}", n.as_f64().unwrap_or(0.0)),
            Value::Null => "-".to_string(),
            other => plain(other),
        }));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_in_order_of_the_data_set() {
        let rows = [Row::ids(vec![1, 2], 3), Row::new(Prompt::Text("hi".into()), 1, 3)];
        let done = Record { index: 1, text: "ho".into(), ..Record::default() };
        let lines = requests(&rows, &[done, Record::default()]);
        assert_eq!(lines[0], "request 0: 2 token ids -> 0 tokens: \"\"");
        assert_eq!(lines[1], "request 1: \"hi\" -> 0 tokens: \"ho\"");
    }

    #[test]
    fn columns_as_sglang_prints_them() {
        assert_eq!(rule("Serving Benchmark Result", '=').len(), 50);
        assert_eq!(entry("Backend:", "sglang"), format!("{:<40} sglang", "Backend:"));
        let m = Metrics { completed: 3, duration: 1.25, ..Metrics::default() };
        let context = Context { backend: "sglang".into(), ..Context::default() };
        let lines = sglang(&context, &Measured::default(), &m);
        assert!(lines.iter().any(|l| l == &entry("Benchmark duration (s):", "1.25")));
        assert!(lines.iter().any(|l| l.ends_with("n/a")), "nothing measured is not 0");
    }
}
