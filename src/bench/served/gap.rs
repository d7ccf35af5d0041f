//! Why a served batch takes longer than a static one: both timelines side by side, in parts that
//! add up to the difference. Pure.

use serde_json::{Map, Value, json};

use super::parts::Parts;
use crate::measure::json::number;

/// The same batch both ways, seconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Gap {
    /// One fixed batch, waiting after each step, as bench-one-batch prints it.
    pub synchronised: f64,
    /// The same with steps back to back: what serving is held against.
    pub back_to_back: f64,
    /// As the client saw it.
    pub served: f64,
    /// Of one recorded static pass, and of the server during the served batch.
    pub fixed: Parts,
    pub server: Parts,
}

/// A part of the difference.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    pub key: &'static str,
    pub what: String,
    pub seconds: f64,
}

/// Parts that add up to `served − back_to_back`; the last is what no other explains.
pub fn parts(g: &Gap) -> Vec<Part> {
    let (s, f) = (&g.server, &g.fixed);
    let part = |key, what: String, seconds| Part { key, what, seconds };
    let each = |total: f64, n: u64| total / n.max(1) as f64;
    let extra_rows = s.rows as f64 - f.rows as f64;
    let padding = extra_rows * each(f.prefill_s, f.prefill_rows);
    let steps = (s.decode_steps as f64 - f.decode_steps as f64) * each(f.decode_s, f.decode_steps);
    let mut all = vec![
        part(
            "chunking_s",
            format!("chunking: prompts in {} steps against {}", s.prefill_steps, f.prefill_steps),
            s.prefill_s - f.prefill_s - padding,
        ),
        part(
            "padding_s",
            format!("padding: {extra_rows} rows of {} that the batch does not need", s.rows),
            padding,
        ),
        part(
            "batching_s",
            format!("batching: {} decode steps against {}", s.decode_steps, f.decode_steps),
            steps,
        ),
        part(
            "slower_steps_s",
            "the same decode steps beside the server's other threads".into(),
            s.decode_s - f.decode_s - steps,
        ),
        part(
            "scheduling_s",
            "scheduling: planning, pages, commits, gaps between steps".into(),
            s.scheduling_s + s.between_s - f.scheduling_s - f.between_s,
        ),
        part("sampling_s", "sampling".into(), s.sampling_s - f.sampling_s),
        part("tokenising_s", "tokenising".into(), s.tokenise_s),
        part("queue_s", "waiting for the first step".into(), s.queue_s),
        part(
            "http_s",
            "HTTP: reading the request, the answer's end, sockets, client".into(),
            s.read_s + s.answer_s + (g.served - s.span_s()),
        ),
    ];
    let known: f64 = all.iter().map(|p| p.seconds).sum();
    let what = "residual: the recorded static pass against the median of all".into();
    all.push(part("residual_s", what, g.served - g.back_to_back - known));
    all
}

/// Lines for people.
pub fn lines(g: &Gap) -> Vec<String> {
    let ms = |s: f64| format!("{:>10.2} ms", s * 1e3);
    let mut lines = vec!["served against static, the same batch:".to_string()];
    lines.push(format!("    {:<62} {}", "static batch, steps back to back", ms(g.back_to_back)));
    for p in parts(g) {
        let share = p.seconds.abs() / g.served * 100.0;
        let sign = if p.seconds < 0.0 { '-' } else { '+' };
        lines.push(format!("  {sign} {:<62} {} {share:>6.1} %", p.what, ms(p.seconds.abs())));
    }
    lines.push(format!("  = {:<62} {}", "served, as the client saw it", ms(g.served)));
    let waiting = g.synchronised - g.back_to_back;
    let cost = match waiting < 0.0 {
        true => format!("no time: those passes were faster by {}", ms(-waiting).trim()),
        false => ms(waiting).trim().to_string(),
    };
    lines.push(format!("  waiting after each step, as bench-one-batch does too, costs {cost}"));
    lines
}

pub fn to_json(g: &Gap) -> Value {
    let difference: Map<String, Value> =
        parts(g).into_iter().map(|p| (p.key.to_string(), number(p.seconds))).collect();
    json!({
        "static_synchronised_s": number(g.synchronised),
        "static_back_to_back_s": number(g.back_to_back),
        "served_s": number(g.served),
        "synchronising_s": number(g.synchronised - g.back_to_back),
        "difference_s": number(g.served - g.back_to_back),
        "difference": difference,
        "static_parts": g.fixed.to_json(),
        "served_parts": g.server.to_json(),
    })
}

/// The static ways out of a row of bench-one-batch: `(synchronised, back to back)`.
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

    fn gap() -> Gap {
        let fixed = Parts {
            prefill_s: 0.4,
            prefill_steps: 1,
            prefill_rows: 100,
            decode_s: 0.5,
            decode_steps: 10,
            rows: 110,
            scheduling_s: 0.02,
            sampling_s: 0.03,
            ..Parts::default()
        };
        let server = Parts {
            prefill_s: 0.5,
            prefill_steps: 3,
            prefill_rows: 110,
            decode_s: 0.66,
            decode_steps: 12,
            rows: 120,
            scheduling_s: 0.04,
            between_s: 0.01,
            sampling_s: 0.03,
            tokenise_s: 0.02,
            read_s: 0.01,
            queue_s: 0.005,
            answer_s: 0.002,
        };
        Gap { synchronised: 1.2, back_to_back: 1.0, served: 1.3, fixed, server }
    }

    #[test]
    fn parts_add_up() {
        let g = gap();
        let parts = parts(&g);
        let sum: f64 = parts.iter().map(|p| p.seconds).sum();
        assert!((sum - (g.served - g.back_to_back)).abs() < 1e-12, "{parts:?}");
        let of = |key: &str| parts.iter().find(|p| p.key == key).unwrap().seconds;
        let near = |key: &str, want: f64| {
            assert!((of(key) - want).abs() < 1e-9, "{key}: {} {want}", of(key));
        };
        near("padding_s", 0.04);
        near("chunking_s", 0.06);
        near("batching_s", 0.1);
        near("slower_steps_s", 0.06);
        near("scheduling_s", 0.03);
        near("tokenising_s", 0.02);
        near("http_s", 0.01 + 0.002 + (1.3 - 1.277));
        // The recorded static pass took 0.95 s, the median of all 1.0.
        near("residual_s", -0.05);
        let text = lines(&g).join("\n");
        assert!(text.contains("1000.00 ms") && text.contains("costs 200.00 ms"), "{text}");
        let quick = lines(&Gap { synchronised: 0.9, ..g.clone() }).join("\n");
        assert!(quick.contains("no time: those passes were faster by 100.00 ms"), "{quick}");
        assert_eq!(to_json(&g)["difference"]["padding_s"].as_f64().map(|x| x > 0.0), Some(true));
    }

    #[test]
    fn static_rows() {
        let row = json!({
            "total_latency": 2.0, "prefill_latency": 1.0, "output_len": 11,
            "decode_back_to_back": { "per_step_s": { "median": 0.05 } },
        });
        assert_eq!(of_static(&row), Some((2.0, 1.5)));
    }
}
