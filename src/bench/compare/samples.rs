//! Figures that can be compared, out of the rows of each bench command.

use std::collections::BTreeMap;

use serde_json::Value;

/// A figure's name, and whether more of it is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figure {
    pub key: &'static str,
    pub more_is_better: bool,
}

const fn less(key: &'static str) -> Figure {
    Figure { key, more_is_better: false }
}

const fn more(key: &'static str) -> Figure {
    Figure { key, more_is_better: true }
}

const SERVING: &[Figure] = &[
    more("output_throughput"),
    less("median_ttft_from_schedule_ms"),
    less("median_tpot_ms"),
    less("median_e2e_latency_from_schedule_ms"),
];
const OFFLINE: &[Figure] = &[more("total_throughput")];
const ONE_BATCH: &[Figure] = &[less("prefill_latency"), less("median_decode_latency")];
const SERVED_BATCH: &[Figure] = &[less("latency"), less("last_ttft")];
const TIMED: &[Figure] = &[less("wall_s")];

/// The figures of a row, by which command wrote it.
pub fn figures(row: &Value) -> &'static [Figure] {
    match row["kind"].as_str() {
        Some("serving") => SERVING,
        Some("offline") => OFFLINE,
        Some("served_batch") => SERVED_BATCH,
        Some("timed") => TIMED,
        _ if row.get("prefill_latency").is_some() => ONE_BATCH,
        // Rows of other tools with the same keys.
        _ if row.get("output_throughput").is_some() && row.get("median_ttft_ms").is_some() => {
            SERVING
        }
        _ if row.get("last_ttft").is_some() => SERVED_BATCH,
        _ if row.get("total_throughput").is_some() => OFFLINE,
        _ => &[],
    }
}

/// All samples of `figure` in a row: raw passes where the row keeps them, else the figure itself.
pub fn samples(row: &Value, figure: Figure) -> Vec<f64> {
    let list = |v: &Value| -> Vec<f64> {
        v.as_array().into_iter().flatten().filter_map(Value::as_f64).collect()
    };
    let raw = match figure.key {
        "prefill_latency" => list(&row["prefill_samples_s"]),
        "median_decode_latency" => {
            let passes = row["decode_synchronised"]["samples_s"].as_array();
            let medians = passes.into_iter().flatten().map(&list);
            medians.filter_map(|p| crate::measure::stats::median(&p)).collect()
        }
        _ => Vec::new(),
    };
    let key = figure.key;
    // SGLang's own rows have no figures from the schedule: theirs from sending stand in.
    let plain = row[key].as_f64().or_else(|| row[key.replace("_from_schedule", "")].as_f64());
    if raw.is_empty() { plain.into_iter().collect() } else { raw }
}

/// What tells the cases of a sweep apart: rows are only compared with rows of the same case.
pub fn case(row: &Value) -> String {
    const KEYS: &[&str] = &[
        "kind",
        "backend",
        "dataset_name",
        "batch_size",
        "input_len",
        "output_len",
        "request_rate",
        "max_concurrency",
        "random_input_len",
        "random_output_len",
        "num_prompts",
    ];
    let parts = KEYS.iter().filter_map(|k| {
        let value = row.get(*k).filter(|v| !v.is_null())?;
        Some(format!("{k}={}", value.as_str().map_or_else(|| value.to_string(), str::to_string)))
    });
    parts.collect::<Vec<_>>().join(" ")
}

/// Rows by case, in order of their first appearance.
pub fn by_case(rows: &[Value]) -> Vec<(String, Vec<&Value>)> {
    let mut order = Vec::new();
    let mut found: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
    for row in rows.iter().filter(|r| !figures(r).is_empty()) {
        let case = case(row);
        if !found.contains_key(&case) {
            order.push(case.clone());
        }
        found.entry(case).or_default().push(row);
    }
    order.into_iter().filter_map(|c| found.remove(&c).map(|rows| (c, rows))).collect()
}

/// What else differs between two rows: a difference of figures may come from there.
pub fn settings(a: &Value, b: &Value) -> Vec<String> {
    const KEYS: &[&str] = &[
        "model",
        "model_digest",
        "dtype",
        "load_format",
        "device",
        "machine",
        "threads",
        "seed",
        "temperature",
        "tool",
        "commit",
        "total_input_tokens",
        "requested_output_tokens",
        "total_output_tokens",
        "server_info",
    ];
    let differ = KEYS.iter().filter(|k| a[**k] != b[**k]);
    let mut lines: Vec<String> = differ.map(|k| format!("{k}: {} / {}", a[*k], b[*k])).collect();
    for (side, row) in [("A", a), ("B", b)] {
        let status = row["validity"]["status"].as_str().unwrap_or("pass");
        if status == "fail" {
            let checks = row["validity"]["checks"].as_array().into_iter().flatten();
            let failed = checks.filter(|c| c["status"] == "fail");
            let names: Vec<&str> = failed.filter_map(|c| c["name"].as_str()).collect();
            lines.push(format!("{side} is not valid: {}", names.join(", ")));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn raw_passes_beat_the_summary() {
        let row = json!({
            "prefill_latency": 2.0, "prefill_samples_s": [1.0, 2.0, 3.0],
            "decode_synchronised": { "samples_s": [[1.0, 3.0, 2.0], [5.0]] },
        });
        assert_eq!(figures(&row), ONE_BATCH);
        assert_eq!(samples(&row, ONE_BATCH[0]), [1.0, 2.0, 3.0]);
        assert_eq!(samples(&row, ONE_BATCH[1]), [2.0, 5.0]);
    }

    #[test]
    fn rows_of_sglang_can_be_compared() {
        let row = json!({ "output_throughput": 9.0, "median_ttft_ms": 3.0, "backend": "sglang" });
        assert_eq!(samples(&row, SERVING[1]), [3.0]);
        assert_eq!(samples(&row, SERVING[0]), [9.0]);
    }

    #[test]
    fn cases_and_settings() {
        let row =
            |bs: u32, seed: u32| json!({ "prefill_latency": 1.0, "batch_size": bs, "seed": seed });
        let rows = [row(1, 0), row(2, 0), row(1, 1), json!({ "other": 1 })];
        let cases = by_case(&rows);
        assert_eq!(cases.len(), 2);
        assert_eq!((cases[0].0.as_str(), cases[0].1.len()), ("batch_size=1", 2));
        assert_eq!(settings(&rows[0], &rows[2]), ["seed: 0 / 1"]);
        let bad = json!({ "validity": { "status": "fail", "checks": [
            { "name": "build", "status": "fail" }] } });
        assert!(settings(&bad, &bad)[0].contains("A is not valid: build"));
    }
}
