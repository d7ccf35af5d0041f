//! Why a served batch takes longer than a static one: the same batch in four ways, each with one
//! thing more, so that differences are what that thing costs. Pure.

use serde_json::{Value, json};

use crate::measure::json::number;

/// The same batch in four ways, seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ways {
    /// One fixed batch, waiting after each step, as bench-one-batch prints it.
    pub synchronised: f64,
    /// The same with steps back to back.
    pub back_to_back: f64,
    /// Through the continuous batcher in one process: chunked prefill, queue, prefix tree.
    pub continuous: f64,
    /// Through HTTP.
    pub served: f64,
}

/// Parts that add up from the first way to the last: `(name, seconds)`.
pub fn parts(w: &Ways) -> Vec<(&'static str, f64)> {
    vec![
        ("static batch, steps back to back", w.back_to_back),
        ("scheduling, chunked prefill, sampling bookkeeping", w.continuous - w.back_to_back),
        ("HTTP, tokenising, streaming, client", w.served - w.continuous),
    ]
}

/// Lines for people.
pub fn lines(w: &Ways) -> Vec<String> {
    let ms = |s: f64| format!("{:>10.2} ms", s * 1e3);
    let share = |s: f64| format!("{:>6.1} %", s / w.served * 100.0);
    let mut lines = vec!["served against static, the same batch:".to_string()];
    for (name, s) in parts(w) {
        lines.push(format!("  {name:<52} {} {}", ms(s), share(s)));
    }
    lines.push(format!("  {:<52} {}", "served", ms(w.served)));
    let waiting = w.synchronised - w.back_to_back;
    lines.push(format!(
        "  waiting after each step, which serving does not do, costs {} more in bench-one-batch",
        ms(waiting).trim()
    ));
    lines
}

pub fn to_json(w: &Ways) -> Value {
    json!({
        "static_synchronised_s": number(w.synchronised),
        "static_back_to_back_s": number(w.back_to_back),
        "continuous_s": number(w.continuous),
        "served_s": number(w.served),
        "synchronising_s": number(w.synchronised - w.back_to_back),
        "scheduling_s": number(w.continuous - w.back_to_back),
        "http_s": number(w.served - w.continuous),
    })
}

/// The static ways out of a row of bench-one-batch.
pub fn of_static(row: &Value) -> Option<(f64, f64)> {
    let total = row["total_latency"].as_f64()?;
    let prefill = row["prefill_latency"].as_f64()?;
    let steps = row["output_len"].as_f64()? - 1.0;
    let each = row["decode_back_to_back"]["per_step_s"]["median"].as_f64().unwrap_or(0.0);
    Some((total, prefill + steps * each))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up() {
        let w = Ways { synchronised: 1.2, back_to_back: 1.0, continuous: 1.3, served: 1.4 };
        let sum: f64 = parts(&w).iter().map(|p| p.1).sum();
        assert!((sum - w.served).abs() < 1e-12);
        let text = lines(&w).join("\n");
        assert!(text.contains("300.00 ms") && text.contains("100.00 ms"), "{text}");
        let row = json!({
            "total_latency": 2.0, "prefill_latency": 1.0, "output_len": 11,
            "decode_back_to_back": { "per_step_s": { "median": 0.05 } },
        });
        assert_eq!(of_static(&row), Some((2.0, 1.5)));
    }
}
