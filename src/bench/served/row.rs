//! The row, lines and table of one batch through a server: SGLang's, then ours. Pure.

use serde_json::{Map, Value, json};

use super::figures::Figures;
use crate::measure::json::{number, optional};
use crate::measure::validity::Validity;

/// One case of a sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    pub batch_size: usize,
    pub input_len: usize,
    pub output_len: usize,
}

/// What the server said around the batch.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ServerSide {
    pub last_gen_throughput: Option<f64>,
    pub acc_length: Option<f64>,
    pub cache_hit_rate: Option<f64>,
}

fn rounded(x: f64, decimals: i32) -> Value {
    let scale = 10f64.powi(decimals);
    number((x * scale).round() / scale)
}

fn maybe(x: Option<f64>, decimals: i32) -> Value {
    x.map_or(Value::Null, |x| rounded(x, decimals))
}

/// The whole row.
pub fn row(
    run_name: &str,
    case: Case,
    f: &Figures,
    server: &ServerSide,
    v: &Validity,
    about: Map<String, Value>,
) -> Value {
    let mut row = object(json!({
        "run_name": run_name,
        "batch_size": case.batch_size,
        "input_len": case.input_len,
        "output_len": case.output_len,
        "latency": rounded(f.latency, 4),
        "input_throughput": maybe(f.input_throughput, 2),
        "output_throughput": maybe(f.output_throughput, 2),
        "overall_throughput": rounded(f.overall_throughput, 2),
        "last_ttft": rounded(f.last_ttft, 4),
        "last_gen_throughput": rounded(server.last_gen_throughput.unwrap_or(-1.0), 2),
        "acc_length": rounded(server.acc_length.unwrap_or(-1.0), 2),
        "total_output_tokens": f.output_tokens,
        "num_early_stopped": f.early_stopped,
        "steady_state_output_throughput": maybe(f.steady.map(|s| s.0), 2),
        "steady_state_window_s": maybe(f.steady.map(|s| s.1), 4),
        "cache_hit_rate": optional(server.cache_hit_rate),
        "kind": "served_batch",
        "total_input_tokens": f.input_tokens,
    }));
    row.extend(about);
    row.insert("validity".into(), v.to_json());
    Value::Object(row)
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// SGLang's lines.
pub fn lines(case: Case, f: &Figures, server: &ServerSide) -> Vec<String> {
    let rate = |x: Option<f64>| x.map_or("n/a".into(), |x| format!("{x:.2} tok/s"));
    let mut lines = vec![
        format!("batch size: {}", case.batch_size),
        format!("input_len: {}", case.input_len),
        format!("output_len: {}", case.output_len),
        format!("latency: {:.2} s", f.latency),
        format!("input throughput: {}", rate(f.input_throughput)),
    ];
    if case.output_len > 1 {
        lines.push(format!("output throughput: {}", rate(f.output_throughput)));
    }
    lines.push(format!("last_ttft: {:.4} s", f.last_ttft));
    lines.push(format!("last generation throughput: {}", rate(server.last_gen_throughput)));
    if let Some(hits) = server.cache_hit_rate {
        lines.push(format!("cache hit rate: {:.3}", hits));
    }
    if f.early_stopped > 0 {
        lines.push(format!("early stopped: {} of {}", f.early_stopped, case.batch_size));
    }
    if let Some((rate, window)) = f.steady {
        lines.push(format!("steady state: {rate:.2} tok/s over {window:.3} s"));
    }
    lines
}

/// SGLang's markdown table, without its made-up prices.
pub fn markdown(rows: &[Value]) -> Vec<String> {
    let head = "| batch size | input len | output len | latency (s) | input throughput (tok/s) | \
                output throughput (tok/s) | ITL (ms) | cache hit rate |";
    let mut lines = vec![head.to_string(), "| ---: |".to_string() + &" ---: |".repeat(7)];
    let mut sorted: Vec<&Value> = rows.iter().collect();
    sorted.sort_by_key(|r| r["input_len"].as_u64());
    for r in sorted {
        let itl = r["output_throughput"].as_f64().filter(|x| *x > 0.0);
        let itl = itl.zip(r["batch_size"].as_f64()).map(|(rate, bs)| 1000.0 * bs / rate);
        let two = |v: &Value| v.as_f64().map_or("n/a".into(), |x| format!("{x:.2}"));
        lines.push(format!(
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            r["batch_size"],
            r["input_len"],
            r["output_len"],
            two(&r["latency"]),
            two(&r["input_throughput"]),
            two(&r["output_throughput"]),
            itl.map_or("n/a".into(), |x| format!("{x:.2}")),
            two(&r["cache_hit_rate"])
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_in_sglangs_order() {
        let case = Case { batch_size: 2, input_len: 8, output_len: 4 };
        let f = Figures { latency: 1.23456, output_throughput: Some(50.0), ..Figures::default() };
        let v = Validity::default();
        let row = row("r", case, &f, &ServerSide::default(), &v, Map::new());
        let keys: Vec<&String> = row.as_object().unwrap().keys().take(6).collect();
        assert_eq!(
            keys,
            ["run_name", "batch_size", "input_len", "output_len", "latency", "input_throughput"]
        );
        assert_eq!((&row["latency"], &row["acc_length"]), (&json!(1.2346), &json!(-1.0)));
        let table = markdown(&[row]);
        assert!(table[2].contains("| 40.00 |"), "ITL = 1000 · 2 / 50: {}", table[2]);
        assert_eq!(table[0].matches('|').count(), table[1].matches('|').count());
    }
}
