//! A trace as a person reads it: for each kind of step, where the time of a typical one went, as
//! one bar, a sentence and a drawing of its rows; then memory over time.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;

use super::axis::Scale;
use super::plot::{Mark, Plot, Series, escape};

/// A span of the trace, microseconds.
#[derive(Debug, Clone, PartialEq)]
struct Span {
    from: f64,
    to: f64,
    name: String,
    category: String,
    /// What its time is booked under.
    group: String,
    device: bool,
}

/// Groups that have a colour of their own; the rest share the last.
const COLOURS: usize = 7;
const WIDTH: f64 = 1160.0;
const ROW: f64 = 26.0;

/// The sections of one trace. `name` is what it is called on the page.
pub fn sections(name: &str, trace: &Value) -> String {
    let events = trace["traceEvents"].as_array().map(Vec::as_slice).unwrap_or_default();
    let spans: Vec<Span> = events.iter().filter_map(span).collect();
    let projected = trace["pacer"]["times"] == "projected";
    let mut html = format!("<h2>Timeline: {}</h2>\n", escape(name));
    let times = trace["pacer"]["gpu"]["times"].as_str().unwrap_or("CPU clock");
    let _ = writeln!(html, "<p class=\"about\">Times: {}.</p>", escape(times));
    let mut stages: BTreeMap<&str, Vec<&Span>> = BTreeMap::new();
    for step in spans.iter().filter(|s| s.name.starts_with("step[")) {
        let stage = step.name[5..].split([' ', ']']).next().unwrap_or_default();
        stages.entry(stage).or_default().push(step);
    }
    for (stage, mut steps) in stages {
        steps.sort_by(|a, b| (a.to - a.from).total_cmp(&(b.to - b.from)));
        let typical = steps[steps.len() / 2];
        html.push_str(&step(stage, steps.len(), typical, &spans, projected));
    }
    html.push_str(&memory(events));
    html
}

fn span(event: &Value) -> Option<Span> {
    if event["ph"] != "X" {
        return None;
    }
    let from = event["ts"].as_f64()?;
    let name = event["name"].as_str()?.to_owned();
    let category = event["cat"].as_str().unwrap_or_default().to_owned();
    let group = match category.as_str() {
        "scheduler" => match name.as_str() {
            "sample" => "sampling".to_owned(),
            other => other.replace('.', ": "),
        },
        "kernel" | "gpu_memcpy" => {
            let text = |key: &str| event["args"][key].as_str().unwrap_or_default();
            let last = text("module").rsplit('.').next().unwrap_or_default();
            format!("{} {last}", text("op")).trim_end().to_owned()
        }
        _ => name.clone(),
    };
    let device = matches!(category.as_str(), "gpu_op" | "gpu_layer" | "kernel" | "gpu_memcpy");
    Some(Span { from, to: from + event["dur"].as_f64()?, name, category, group, device })
}

/// Time by group within a step, greatest first, what nothing covers last.
fn parts(step: &Span, inside: &[&Span], projected: bool) -> (Vec<(String, f64)>, f64) {
    let on_device = inside.iter().any(|s| s.category == "gpu_op");
    let op = if on_device { "gpu_op" } else { "cpu_op" };
    let mut sums: BTreeMap<&str, f64> = BTreeMap::new();
    for s in inside {
        let counts = s.category == op || (s.category == "scheduler" && !projected);
        if counts && s.name != "no work" && s.name != "commands" {
            *sums.entry(&s.group).or_default() += s.to - s.from;
        }
    }
    let mut parts: Vec<(String, f64)> = sums.into_iter().map(|(n, t)| (n.into(), t)).collect();
    parts.sort_by(|a, b| b.1.total_cmp(&a.1));
    let covered: f64 = parts.iter().map(|p| p.1).sum();
    // A projected step lasts as long as its kernels: the emulator's own time says nothing.
    let whole = if projected { covered } else { (step.to - step.from).max(covered) };
    if parts.len() > COLOURS {
        let rest: f64 = parts.drain(COLOURS..).map(|p| p.1).sum();
        parts.push(("all other ops".into(), rest));
    }
    if whole - covered > 0.001 * whole {
        let name = if on_device { "GPU idle" } else { "outside ops" };
        parts.push((name.into(), whole - covered));
    }
    (parts, whole)
}

fn step(stage: &str, count: usize, step: &Span, spans: &[Span], projected: bool) -> String {
    let inside: Vec<&Span> =
        spans.iter().filter(|s| s.from >= step.from && s.to <= step.to && *s != step).collect();
    let (parts, whole) = parts(step, &inside, projected);
    let share = |t: f64| 100.0 * t / whole.max(1e-9);
    let three: Vec<String> =
        parts.iter().take(3).map(|(n, t)| format!("{n} {:.0} %", share(*t))).collect();
    let word = if projected { "projected " } else { "" };
    let mut html = format!(
        "<h3>{stage}: the median of {count} steps, {}, {word}{:.3} ms</h3>\
         <p class=\"about\">Mostly {}.</p>\n<figure>",
        escape(&step.name),
        whole / 1e3,
        escape(&three.join(", "))
    );
    html.push_str(&bar(&parts, whole));
    html.push_str(&rows(step, &inside, &parts, projected));
    let _ = writeln!(
        html,
        "<figcaption>Above: the step's time by op. Below: the same step as it ran, from left to \
         right; rest the pointer on a span for its name and time.</figcaption></figure>"
    );
    html
}

fn colour(parts: &[(String, f64)], group: &str) -> usize {
    parts.iter().take(COLOURS).position(|p| p.0 == group).unwrap_or(COLOURS)
}

/// One bar, cut by group, and its legend.
fn bar(parts: &[(String, f64)], whole: f64) -> String {
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} 44\" role=\"img\">");
    let (mut x, mut list) = (0.0, String::from("<ul class=\"legend\">"));
    for (group, time) in parts {
        let width = WIDTH * time / whole.max(1e-9);
        let c = colour(parts, group);
        let share = 100.0 * time / whole.max(1e-9);
        let text = format!("{group}: {:.3} ms, {share:.1} %", time / 1e3);
        let _ = write!(
            svg,
            "<rect x=\"{x:.2}\" y=\"2\" width=\"{width:.2}\" height=\"40\" class=\"dot c{c}\">\
             <title>{}</title></rect>",
            escape(&text)
        );
        if width > 7.5 * (group.chars().count() + 5) as f64 {
            let _ = write!(
                svg,
                "<text x=\"{:.1}\" y=\"27\" class=\"cell on-strong\">{} {share:.0} %</text>",
                x + 6.0,
                escape(group)
            );
        }
        let _ = write!(list, "<li><i class=\"c{c}\"></i>{}</li>", escape(&text));
        x += width;
    }
    svg + "</svg>" + &list + "</ul>"
}

/// Which row a span stands on, from the top.
fn row_of(span: &Span) -> Option<(usize, &'static str)> {
    Some(match (span.category.as_str(), span.device) {
        ("scheduler", _) => (0, "scheduler"),
        ("step", _) => (1, "forward"),
        ("layer", _) => (2, "layers"),
        ("cpu_op", _) => (3, "ops"),
        ("cuda_driver", _) => (4, "GPU calls"),
        ("gpu_layer", _) => (5, "GPU layers"),
        ("gpu_op", _) => (6, "GPU ops"),
        ("kernel" | "gpu_memcpy", _) => (7, "GPU stream"),
        _ => return None,
    })
}

/// The step's spans as they ran; of a projected one only what is projected.
fn rows(step: &Span, inside: &[&Span], parts: &[(String, f64)], projected: bool) -> String {
    let shown = |s: &&&Span| row_of(s).is_some() && (!projected || s.device);
    let spans: Vec<&&Span> = inside.iter().filter(shown).collect();
    let (from, to) = match projected {
        true => (
            spans.iter().map(|s| s.from).fold(f64::MAX, f64::min),
            spans.iter().map(|s| s.to).fold(0.0, f64::max),
        ),
        false => (step.from, step.to),
    };
    let used: BTreeMap<usize, &str> = spans.iter().filter_map(|s| row_of(s)).collect();
    let place: BTreeMap<usize, usize> = used.keys().enumerate().map(|(i, r)| (*r, i)).collect();
    let height = ROW * used.len() as f64 + 22.0;
    let left = 84.0;
    let scale = (WIDTH - left) / (to - from).max(1e-9);
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\">");
    for (row, name) in &used {
        let y = ROW * place[row] as f64 + 17.0;
        let _ = write!(svg, "<text x=\"0\" y=\"{y:.0}\" class=\"tick\">{name}</text>");
    }
    for s in spans {
        let Some((row, _)) = row_of(s) else { continue };
        let (x, width) = (left + scale * (s.from - from), scale * (s.to - s.from));
        let y = ROW * place[&row] as f64 + 3.0;
        let c = colour(parts, &s.group);
        let _ = write!(
            svg,
            "<rect x=\"{x:.2}\" y=\"{y:.1}\" width=\"{:.2}\" height=\"{:.0}\" class=\"dot c{c}\">\
             <title>{}: {:.1} us</title></rect>",
            (width - 0.4).max(0.3),
            ROW - 5.0,
            escape(&s.name),
            s.to - s.from
        );
    }
    let middle = (to - from) / 2e3;
    let _ = write!(
        svg,
        "<text x=\"{left}\" y=\"{0:.0}\" class=\"tick\">0</text><text x=\"{1:.0}\" y=\"{0:.0}\" \
         class=\"tick\">{middle:.3} ms</text><text x=\"{WIDTH}\" y=\"{0:.0}\" class=\"tick\" \
         text-anchor=\"end\">{2:.3} ms</text></svg>",
        height - 5.0,
        left + (WIDTH - left) / 2.0,
        (to - from) / 1e3
    );
    svg
}

/// Bytes over time, and pages.
fn memory(events: &[Value]) -> String {
    let mut lines: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
    let mut last = 0.0_f64;
    for event in events {
        let at = event["ts"].as_f64().unwrap_or(0.0) * 1e-6;
        last = last.max(at);
        if event["ph"] == "C"
            && let (Some(name), Some(value)) =
                (event["name"].as_str(), event["args"]["value"].as_f64())
        {
            lines.entry(name).or_default().push((at, value));
        }
    }
    let plot = |title: &str, unit: &str, of: &dyn Fn(&str) -> bool, factor: f64| {
        let series = lines.iter().filter(|(name, _)| of(name)).map(|(name, points)| {
            let mut points: Vec<(f64, f64)> = points.iter().map(|p| (p.0, p.1 * factor)).collect();
            // A counter keeps its value until it is counted again.
            points.extend(points.last().map(|p| (last, p.1)));
            Series { name: (*name).into(), mark: Mark::Line, points, notes: Vec::new() }
        });
        let plot = Plot {
            title: title.into(),
            caption: "Counters of the trace over its length.".into(),
            x: ("seconds".into(), Scale::Linear),
            y: (unit.into(), Scale::Linear),
            series: series.collect(),
        };
        if plot.is_empty() { String::new() } else { plot.html() }
    };
    let bytes = plot("Memory", "MiB", &|n| n.ends_with("bytes"), 1.0 / (1 << 20) as f64);
    let pages = plot("Cache and requests", "count", &|n| !n.ends_with("bytes"), 1.0);
    if bytes.is_empty() && pages.is_empty() {
        return String::new();
    }
    format!("<div class=\"figures\" style=\"max-width:620px\">\n{bytes}{pages}</div>\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(name: &str, category: &str, ts: f64, dur: f64) -> Value {
        json!({"ph": "X", "pid": 1, "tid": 1, "name": name, "cat": category, "ts": ts, "dur": dur})
    }

    #[test]
    fn a_step_is_told_in_one_sentence() {
        let trace = json!({"pacer": {"times": "measured"}, "traceEvents": [
            event("step[DECODE bs=2]", "step", 0.0, 1000.0),
            event("scheduler.plan", "scheduler", 0.0, 50.0),
            event("linear <down>", "cpu_op", 100.0, 600.0),
            event("attention", "cpu_op", 700.0, 200.0),
            {"ph": "C", "pid": 1, "tid": 1, "name": "weight bytes", "cat": "memory", "ts": 0.0,
             "args": {"value": 1048576}},
        ]});
        let html = sections("x", &trace);
        assert!(html.contains("Mostly linear &lt;down&gt; 60 %, attention 20 %"), "{html}");
        assert!(html.contains("scheduler: plan: 0.050 ms, 5.0 %"), "{html}");
        assert!(html.contains("outside ops: 0.150 ms, 15.0 %"), "{html}");
        assert!(html.contains("Memory") && html.contains("the median of 1 steps"));
        for outside in ["http", "<script", "url("] {
            assert!(!html.contains(outside), "{outside}");
        }
    }

    #[test]
    fn a_projected_step_counts_its_kernels_only() {
        let trace = json!({"pacer": {"times": "projected"}, "traceEvents": [
            event("step[DECODE bs=1]", "step", 0.0, 90_000.0),
            event("sample", "scheduler", 50.0, 500.0),
            event("linear q", "gpu_op", 100.0, 3.0),
            event("attention o", "gpu_op", 103.0, 1.0),
        ]});
        let html = sections("x", &trace);
        assert!(html.contains("projected 0.004 ms"), "{html}");
        assert!(html.contains("Mostly linear q 75 %, attention o 25 %."), "{html}");
        assert!(sections("x", &json!({})).contains("Timeline"));
    }
}
