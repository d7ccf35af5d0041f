//! Which plots a set of rows gives.

use serde_json::Value;

use super::axis::Scale;
use super::heat::Heat;
use super::plot::{Mark, Plot, Series};

fn kind(row: &Value) -> &str {
    match row["kind"].as_str() {
        Some(kind) => kind,
        None if row.get("prefill_latency").is_some() => "one_batch",
        None if row.get("median_ttft_ms").is_some() => "serving",
        None => "other",
    }
}

/// Rows of one kind.
fn of<'a>(rows: &'a [Value], wanted: &str) -> Vec<&'a Value> {
    rows.iter().filter(|r| kind(r) == wanted).collect()
}

/// What tells a serving run from the others of the page.
pub fn name(row: &Value, number: usize) -> String {
    let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_string);
    let tag = row["tag"].as_str().map(|t| format!(" {t}")).unwrap_or_default();
    match kind(row) {
        "one_batch" | "served_batch" | "static_vs_served" => format!(
            "{number}: batch {}, {} in, {} out",
            row["batch_size"], row["input_len"], row["output_len"]
        ),
        "serving" => {
            let most = &row["max_concurrency"];
            let most = if most.is_null() { String::new() } else { format!(", {most} at once") };
            format!("{number}:{tag} rate {}{most}", text(&row["request_rate"]))
        }
        "max_rate" => {
            let bounds = row["slo_ms"].as_object().into_iter().flatten();
            let bounds: Vec<String> = bounds.map(|(k, v)| format!("{k} ≤ {v} ms")).collect();
            format!("{number}:{tag} {}", bounds.join(", "))
        }
        _ => format!("{number}:{tag} {}", row["dataset_name"].as_str().unwrap_or("run")),
    }
}

fn numbered<'a>(rows: &'a [Value], wanted: &str) -> Vec<(usize, &'a Value)> {
    rows.iter().enumerate().filter(|(_, r)| kind(r) == wanted).map(|(i, r)| (i + 1, r)).collect()
}

fn list(v: &Value) -> Vec<f64> {
    v.as_array().into_iter().flatten().map(|x| x.as_f64().unwrap_or(f64::NAN)).collect()
}

/// All figures of the page as HTML, in the order in which they are read.
pub fn figures(rows: &[Value]) -> Vec<String> {
    let mut plots = Vec::new();
    plots.extend(distributions(rows));
    plots.push(trade_off(rows));
    plots.push(by_load(rows));
    plots.extend(over_time(rows));
    plots.extend(timelines(rows));
    plots.extend(roofline(rows));
    let mut html: Vec<String> = plots.iter().filter(|p| !p.is_empty()).map(Plot::html).collect();
    html.extend(heats(rows).iter().filter(|h| h.is_worth_it()).map(Heat::html));
    html
}

/// Cumulative distributions of each latency, a line a run.
fn distributions(rows: &[Value]) -> Vec<Plot> {
    let kinds = [
        ("ttft", "Time to first token", "time to first token (ms)"),
        ("itl", "Inter-token latency", "gap between tokens (ms)"),
        ("tpot", "Time per output token", "time per output token (ms)"),
        ("e2e_latency", "End-to-end latency", "latency (ms)"),
    ];
    let plot = |(key, title, label): (&str, &str, &str)| Plot {
        title: title.to_string(),
        caption: "Share of requests (of gaps, for inter-token latency) at or below a time. \
                  Further left is faster; a long tail bends right at the top."
            .to_string(),
        x: (label.to_string(), Scale::Log),
        y: ("share at or below (%)".to_string(), Scale::Linear),
        series: numbered(rows, "serving")
            .into_iter()
            .map(|(i, row)| {
                let quantiles = list(&row["distributions_ms"][key]);
                let points = quantiles.iter().enumerate().map(|(q, x)| (*x, q as f64));
                Series {
                    name: name(row, i),
                    mark: Mark::Line,
                    points: points.collect(),
                    notes: Vec::new(),
                }
            })
            .collect(),
    };
    kinds.into_iter().map(plot).collect()
}

/// Throughput against latency, a dot a run, and the line of runs that no other beats on both.
fn trade_off(rows: &[Value]) -> Plot {
    let mut dots: Vec<(f64, f64, String)> = numbered(rows, "serving")
        .into_iter()
        .filter_map(|(i, r)| {
            let x = r["median_tpot_ms"].as_f64().filter(|x| *x > 0.0)?;
            Some((x, r["output_throughput"].as_f64()?, name(r, i)))
        })
        .collect();
    dots.sort_by(|a, b| a.0.total_cmp(&b.0));
    let front = pareto(&dots.iter().map(|d| (d.0, d.1)).collect::<Vec<_>>());
    let runs = Series {
        name: "runs".into(),
        mark: Mark::Dots,
        points: dots.iter().map(|d| (d.0, d.1)).collect(),
        notes: dots.iter().map(|d| d.2.clone()).collect(),
    };
    let best =
        Series { name: "best of both".into(), mark: Mark::Line, points: front, notes: vec![] };
    let series = if dots.len() > 1 { vec![runs, best] } else { Vec::new() };
    Plot {
        title: "Throughput against latency".into(),
        caption: "Each dot is a run. On the line no other run is both faster for a user and \
                  higher in throughput (Pareto)."
            .into(),
        x: ("median time per output token (ms)".into(), Scale::Linear),
        y: ("output throughput (tokens/s)".into(), Scale::Linear),
        series,
    }
}

/// Of `(less is better, more is better)` in order of the first: those that beat all before them.
fn pareto(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut best = f64::NEG_INFINITY;
    let mut front = Vec::new();
    for &(x, y) in points {
        if y > best {
            best = y;
            front.push((x, y));
        }
    }
    front
}

/// Latency over the offered load, where it varies.
fn by_load(rows: &[Value]) -> Plot {
    let serving = of(rows, "serving");
    let varies = |key: &str| {
        let mut v: Vec<f64> = serving.iter().filter_map(|r| r[key].as_f64()).collect();
        v.sort_by(f64::total_cmp);
        v.dedup();
        v.len() > 1
    };
    let (key, label) = match (varies("request_rate"), varies("max_concurrency")) {
        (true, _) => ("request_rate", "offered requests per second"),
        (false, true) => ("max_concurrency", "requests in flight at most"),
        _ => ("", ""),
    };
    let line = |name: &str, figure: &str| {
        let mut points: Vec<(f64, f64)> =
            serving.iter().filter_map(|r| r[key].as_f64().zip(r[figure].as_f64())).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        Series { name: name.into(), mark: Mark::Both, points, notes: vec![] }
    };
    let series = match key {
        "" => Vec::new(),
        _ => vec![
            line("median TTFT", "median_ttft_from_schedule_ms"),
            line("99th percentile of TTFT", "p99_ttft_from_schedule_ms"),
        ],
    };
    Plot {
        title: "Time to first token over load".into(),
        caption: "From the time a request should have been sent, so waiting counts.".into(),
        x: (label.into(), Scale::Linear),
        y: ("time to first token (ms)".into(), Scale::Log),
        series,
    }
}

/// Throughput and concurrency along each run.
fn over_time(rows: &[Value]) -> Vec<Plot> {
    let series = |wanted: &str, key: &str| -> Vec<Series> {
        let line = |(i, row): (usize, &Value)| {
            let step = row["over_time"]["step_s"].as_f64().unwrap_or(0.0);
            let values = list(&row["over_time"][key]);
            let points = values.iter().enumerate().map(|(n, y)| ((n as f64 + 0.5) * step, *y));
            let points = points.filter(|_| step > 0.0).collect();
            Series { name: name(row, i), mark: Mark::Line, points, notes: vec![] }
        };
        numbered(rows, wanted).into_iter().map(line).filter(|s| !s.points.is_empty()).collect()
    };
    let plot = |title: &str, y: &str, caption: &str, series| Plot {
        title: title.into(),
        caption: caption.into(),
        x: ("time since the start (s)".into(), Scale::Linear),
        y: (y.into(), Scale::Linear),
        series,
    };
    let even = "Ramps at both ends are not steady state.";
    vec![
        plot(
            "Output throughput over time",
            "output (tokens/s)",
            even,
            series("serving", "output_throughput"),
        ),
        plot(
            "Requests in flight over time",
            "requests in flight",
            even,
            series("serving", "concurrency"),
        ),
        plot(
            "Offline: generated tokens over time",
            "output (tokens/s)",
            "Dips are steps that prefill.",
            series("offline", "output_throughput"),
        ),
        plot(
            "Offline: prefilled tokens over time",
            "prompt (tokens/s)",
            "Prompt tokens computed, cached ones left out.",
            series("offline", "prefill_throughput"),
        ),
    ]
}

/// First-token time and median gap of requests by when they were sent.
fn timelines(rows: &[Value]) -> Vec<Plot> {
    let series = |place: usize| -> Vec<Series> {
        let dots = |(i, row): (usize, &Value)| {
            let requests = row["over_time"]["requests"].as_array();
            let points = requests
                .into_iter()
                .flatten()
                .filter_map(|r| Some((r[0].as_f64()?, r[place].as_f64()?)));
            let points = points.collect();
            Series { name: name(row, i), mark: Mark::Dots, points, notes: vec![] }
        };
        numbered(rows, "serving").into_iter().map(dots).collect()
    };
    let plot = |title: &str, y: &str, place| Plot {
        title: title.into(),
        caption: "A dot a request, by when it was sent. A slope is a queue that grows or a \
                  machine that warms up."
            .into(),
        x: ("time since the start (s)".into(), Scale::Linear),
        y: (y.into(), Scale::Log),
        series: series(place),
    };
    vec![
        plot("Time to first token along the run", "time to first token (ms)", 1),
        plot("Inter-token latency along the run", "median gap of the request (ms)", 2),
    ]
}

/// Achieved work rate over arithmetic intensity, under the measured ceilings.
fn roofline(rows: &[Value]) -> Option<Plot> {
    let rows_of = numbered(rows, "one_batch");
    let ceilings = rows_of.iter().map(|(_, r)| &r["ceilings"]).find(|c| c.is_object())?;
    let bandwidth = ceilings["bytes_per_s"].as_f64()?;
    let compute = ceilings["flops_per_s"].as_f64()?;
    let dot = |row: &Value, cost: &str, seconds: Option<f64>| -> Option<(f64, f64)> {
        let cost = &row[cost];
        let flops = cost["flops"].as_f64()?;
        let parts = ["weight_bytes", "kv_bytes", "activation_bytes"];
        let bytes: f64 = parts.iter().filter_map(|k| cost[*k].as_f64()).sum();
        (bytes > 0.0).then_some((flops / bytes, flops / seconds? / 1e9))
    };
    let phase = |title: &str, cost: &str, time: &str| {
        let found: Vec<(String, (f64, f64))> = rows_of
            .iter()
            .filter_map(|(i, r)| Some((name(r, *i), dot(r, cost, r[time].as_f64())?)))
            .collect();
        Series {
            name: title.into(),
            mark: Mark::Dots,
            points: found.iter().map(|f| f.1).collect(),
            notes: found.into_iter().map(|f| f.0).collect(),
        }
    };
    let mut series = vec![
        phase("prefill", "prefill_cost", "prefill_latency"),
        phase("decode", "decode_cost", "median_decode_latency"),
    ];
    let intensities: Vec<f64> = series.iter().flat_map(|s| s.points.iter().map(|p| p.0)).collect();
    let knee = compute / bandwidth;
    let low = intensities.iter().copied().fold(knee, f64::min) / 2.0;
    let high = intensities.iter().copied().fold(knee, f64::max) * 2.0;
    series.push(Series {
        name: "measured ceilings: memory, then arithmetic".into(),
        mark: Mark::Bound,
        points: vec![(low, low * bandwidth / 1e9), (knee, compute / 1e9), (high, compute / 1e9)],
        notes: vec![],
    });
    Some(Plot {
        title: "Roofline".into(),
        caption: "Work done a second over the work each byte moved is used for. Left of the bend \
                  memory is the limit, right of it arithmetic; the distance to the line is what \
                  could be gained."
            .into(),
        x: ("arithmetic intensity (FLOP/byte)".into(), Scale::Log),
        y: ("achieved (GFLOP/s)".into(), Scale::Log),
        series,
    })
}

/// Sweeps over two settings.
fn heats(rows: &[Value]) -> Vec<Heat> {
    let one_batch = of(rows, "one_batch");
    let served = of(rows, "served_batch");
    let cells = |rows: &[&Value], figure: &str| -> Vec<(f64, f64, f64)> {
        let cell = |r: &&Value| {
            Some((r["input_len"].as_f64()?, r["batch_size"].as_f64()?, r[figure].as_f64()?))
        };
        rows.iter().filter_map(cell).collect()
    };
    let heat = |title: &str, cells| Heat {
        title: title.into(),
        caption: "Tokens a second; a stronger colour is more.".into(),
        x_label: "prompt length (tokens)".into(),
        y_label: "batch size".into(),
        cells,
    };
    vec![
        heat("Prefill throughput (tokens/s)", cells(&one_batch, "prefill_throughput")),
        heat("Decode throughput (tokens/s)", cells(&one_batch, "median_decode_throughput")),
        heat("Served: input throughput (tokens/s)", cells(&served, "input_throughput")),
        heat("Served: output throughput (tokens/s)", cells(&served, "output_throughput")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_front_is_what_nothing_beats() {
        let points = [(1.0, 5.0), (2.0, 4.0), (3.0, 9.0), (4.0, 9.0), (5.0, 10.0)];
        assert_eq!(pareto(&points), [(1.0, 5.0), (3.0, 9.0), (5.0, 10.0)]);
    }

    #[test]
    fn rows_of_every_kind_give_their_plots() {
        let serving = |rate: f64| {
            json!({
                "kind": "serving", "request_rate": rate, "output_throughput": 10.0 * rate,
                "median_tpot_ms": 5.0 + rate, "median_ttft_from_schedule_ms": 20.0,
                "p99_ttft_from_schedule_ms": 40.0,
                "distributions_ms": { "ttft": [1.0, 2.0], "itl": [1.0], "tpot": [], "e2e_latency": [9.0] },
                "over_time": { "step_s": 0.5, "output_throughput": [1.0, 2.0], "concurrency": [1.0],
                               "requests": [[0.0, 2.0, 3.0], [1.0, 2.5, null]] },
            })
        };
        let batch = |bs: u32, input: u32| {
            json!({
                "batch_size": bs, "input_len": input, "output_len": 4, "prefill_latency": 0.5,
                "prefill_throughput": 100.0, "median_decode_latency": 0.01,
                "median_decode_throughput": 80.0,
                "ceilings": { "bytes_per_s": 2e10, "flops_per_s": 2e11 },
                "prefill_cost": { "flops": 8e10, "weight_bytes": 4e8, "kv_bytes": 1e6, "activation_bytes": 0 },
                "decode_cost": { "flops": 8e7, "weight_bytes": 4e8, "kv_bytes": 1e6, "activation_bytes": 0 },
            })
        };
        let rows = [serving(1.0), serving(2.0), batch(1, 8), batch(4, 8), batch(1, 16)];
        let all = figures(&rows).join("");
        for title in [
            "Time to first token",
            "Inter-token latency",
            "Throughput against latency",
            "Time to first token over load",
            "Output throughput over time",
            "Roofline",
            "Prefill throughput",
            "Decode throughput",
        ] {
            assert!(all.contains(&format!("<h3>{title}")), "{title}");
        }
        assert!(!all.contains("NaN") && !all.contains("Served"));
        assert!(figures(&[json!({ "x": 1 })]).is_empty());
    }
}
