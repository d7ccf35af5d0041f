//! The page: heading, table of rows, figures, validity, all in one file.

use std::fmt::Write;

use serde_json::Value;

use super::axis::short;
use super::charts;
use super::plot::escape;
use super::timeline;

/// Colours, light and dark. The eight series colours keep their distance under the common kinds
/// of colour blindness.
const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1f2328; --soft: #59636e; --paper: #ffffff;
  --card: #f6f8fa;
  --line: #d8dee4;
  --c0: #2563c9; --c1: #c2410c; --c2: #0f7b55; --c3: #8a3ffc; --c4: #b1197c;
  --c5: #7a6000; --c6: #007a8a; --c7: #6e7781; --heat: #2563c9; --strong: #ffffff;
  --bad: #b42318; --warn: #8a5a00; --good: #0f7b55; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9aa4af; --paper: #0d1117;
  --card: #161b22; --line: #30363d; --c0: #6ea8fe; --c1: #ff9b5e; --c2: #4cc38a; --c3: #c4a1ff;
  --c4: #ff7ac6; --c5: #e3c34b; --c6: #56cfe1; --c7: #a6adb5; --heat: #6ea8fe; --strong: #06101f;
  --bad: #ff8b7e; --warn: #e3b341; --good: #4cc38a; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 1240px; margin: 0 auto; padding: 24px 20px 60px; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 36px 0 10px; }
h3 { font-size: 15px; margin: 0 0 8px; } p.about { color: var(--soft); margin: 0; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(480px, 100%), 1fr));
  gap: 18px; }
figure { background: var(--card); border: 1px solid var(--line); border-radius: 8px; margin: 0;
  padding: 14px 16px; }
figcaption { color: var(--soft); font-size: 13px; margin-top: 6px; }
svg { width: 100%; height: auto; display: block; }
.grid { stroke: var(--line); stroke-width: 1; } .tick { fill: var(--soft); font-size: 12px; }
.label { fill: var(--ink); font-size: 13px; } .line { fill: none; stroke-width: 2; }
.bound { fill: none; stroke: var(--soft); stroke-width: 1.5; stroke-dasharray: 6 4; }
.cell { font-size: 12px; } .on-strong { fill: var(--strong); } .on-weak { fill: var(--ink); }
.on-middle { fill: #06101f; }
.heat { fill: var(--heat); }
.line.c0 { stroke: var(--c0); } .line.c1 { stroke: var(--c1); } .line.c2 { stroke: var(--c2); }
.line.c3 { stroke: var(--c3); } .line.c4 { stroke: var(--c4); } .line.c5 { stroke: var(--c5); }
.line.c6 { stroke: var(--c6); } .line.c7 { stroke: var(--c7); }
.dot { fill-opacity: .75; } .dot.c0 { fill: var(--c0); } .dot.c1 { fill: var(--c1); }
.dot.c2 { fill: var(--c2); } .dot.c3 { fill: var(--c3); } .dot.c4 { fill: var(--c4); }
.dot.c5 { fill: var(--c5); } .dot.c6 { fill: var(--c6); } .dot.c7 { fill: var(--c7); }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 2px 16px; padding: 0;
  margin: 6px 0 0; font-size: 13px; }
.legend i { display: inline-block; width: 14px; height: 4px; border-radius: 2px;
  margin: 0 6px 3px 0; background: var(--soft); }
i.c0 { background: var(--c0) !important; } i.c1 { background: var(--c1) !important; }
i.c2 { background: var(--c2) !important; } i.c3 { background: var(--c3) !important; }
i.c4 { background: var(--c4) !important; } i.c5 { background: var(--c5) !important; }
i.c6 { background: var(--c6) !important; } i.c7 { background: var(--c7) !important; }
.scroll { overflow-x: auto; } .scroll + .scroll { margin-top: 18px; }
table { border-collapse: collapse; font-size: 13px; width: 100%; }
th, td { text-align: right; padding: 5px 10px; border-bottom: 1px solid var(--line);
  white-space: nowrap; font-variant-numeric: tabular-nums; }
th { color: var(--soft); font-weight: 600; white-space: normal; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; }
.pass { color: var(--good); } .warn { color: var(--warn); } .fail { color: var(--bad); }
details { margin-top: 8px; } code { font-size: 13px; overflow-wrap: anywhere; }
";

/// A whole page of `rows` and `traces` (name and content); `title` stands at its top, `about` says
/// where they are from.
pub fn page(title: &str, about: &str, rows: &[Value], traces: &[(String, Value)]) -> String {
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{0}</title><style>{STYLE}</style></head><body>\n<h1>{0}</h1>\
         <p class=\"about\">{1}</p>\n",
        escape(title),
        escape(about)
    );
    for (name, trace) in traces {
        html.push_str(&timeline::sections(name, trace));
    }
    if rows.is_empty() {
        html.push_str("</body></html>\n");
        return html;
    }
    html.push_str("<h2>Results</h2>\n");
    for (kind, columns) in TABLES {
        table(&mut html, rows, kind, columns);
    }
    let figures = charts::figures(rows);
    if !figures.is_empty() {
        html.push_str("<h2>Figures</h2>\n<div class=\"figures\">\n");
        figures.iter().for_each(|f| html.push_str(f));
        html.push_str("</div>\n");
    }
    validity(&mut html, rows);
    provenance(&mut html, rows);
    html.push_str("</body></html>\n");
    html
}

type Columns = &'static [(&'static str, &'static str)];

/// Columns of each kind of row: heading, key.
const TABLES: &[(&str, Columns)] = &[
    (
        "serving",
        &[
            ("completed", "completed"),
            ("failed", "failed"),
            ("req/s", "request_throughput"),
            ("output tok/s", "output_throughput"),
            ("TTFT p50 (ms)", "median_ttft_ms"),
            ("TTFT p99 (ms)", "p99_ttft_ms"),
            ("from schedule p99 (ms)", "p99_ttft_from_schedule_ms"),
            ("TPOT p50 (ms)", "median_tpot_ms"),
            ("ITL p99 (ms)", "p99_itl_ms"),
            ("E2E p50 (ms)", "median_e2e_latency_ms"),
            ("peak in flight", "max_concurrent_requests"),
        ],
    ),
    (
        "offline",
        &[
            ("requests", "successful_requests"),
            ("seconds", "total_latency"),
            ("req/s", "request_throughput"),
            ("input tok/s", "input_throughput"),
            ("output tok/s", "output_throughput"),
            ("total tok/s", "total_throughput"),
        ],
    ),
    (
        "one_batch",
        &[
            ("prefill (s)", "prefill_latency"),
            ("prefill tok/s", "prefill_throughput"),
            ("decode step (s)", "median_decode_latency"),
            ("decode tok/s", "median_decode_throughput"),
            ("total (s)", "total_latency"),
            ("overall tok/s", "overall_throughput"),
        ],
    ),
    (
        "served_batch",
        &[
            ("latency (s)", "latency"),
            ("last TTFT (s)", "last_ttft"),
            ("input tok/s", "input_throughput"),
            ("output tok/s", "output_throughput"),
            ("overall tok/s", "overall_throughput"),
        ],
    ),
    (
        "max_rate",
        &[
            ("rate that holds (req/s)", "max_rate"),
            ("rate that breaks (req/s)", "lowest_rate_that_breaks"),
            ("share asked for", "slo_share"),
        ],
    ),
    (
        "static_vs_served",
        &[
            ("static, step by step (s)", "static_synchronised_s"),
            ("static, back to back (s)", "static_back_to_back_s"),
            ("served (s)", "served_s"),
            ("difference (s)", "difference_s"),
        ],
    ),
];

fn is_kind(row: &Value, kind: &str) -> bool {
    match row["kind"].as_str() {
        Some(own) => own == kind,
        None if row.get("prefill_latency").is_some() => kind == "one_batch",
        None => kind == "serving" && row.get("median_ttft_ms").is_some(),
    }
}

fn table(html: &mut String, rows: &[Value], kind: &str, columns: Columns) {
    let shown: Vec<(usize, &Value)> =
        rows.iter().enumerate().filter(|(_, r)| is_kind(r, kind)).collect();
    if shown.is_empty() {
        return;
    }
    html.push_str("<div class=\"scroll\"><table><thead><tr><th>run</th>");
    columns.iter().for_each(|(heading, _)| _ = write!(html, "<th>{}</th>", escape(heading)));
    html.push_str("<th>validity</th></tr></thead><tbody>\n");
    for (i, row) in shown {
        let _ = write!(html, "<tr><td>{}</td>", escape(&charts::name(row, i + 1)));
        for (_, key) in columns {
            let cell = row[*key].as_f64().map_or("–".to_string(), short);
            let _ = write!(html, "<td>{cell}</td>");
        }
        let status = row["validity"]["status"].as_str().unwrap_or("unknown");
        let status = escape(status);
        let _ = writeln!(html, "<td class=\"{status}\">{status}</td></tr>");
    }
    html.push_str("</tbody></table></div>\n");
}

/// Every check that did not pass.
fn validity(html: &mut String, rows: &[Value]) {
    html.push_str("<h2>Validity</h2>\n");
    let mut any = false;
    for (i, row) in rows.iter().enumerate() {
        for check in row["validity"]["checks"].as_array().into_iter().flatten() {
            let status = check["status"].as_str().unwrap_or("unknown");
            if status == "pass" {
                continue;
            }
            if !std::mem::replace(&mut any, true) {
                html.push_str(
                    "<div class=\"scroll\"><table><thead><tr><th>run</th><th>check</th>\
                     <th>status</th><th style=\"text-align:left\">what was found</th></tr>\
                     </thead><tbody>\n",
                );
            }
            let text = |key: &str| escape(check[key].as_str().unwrap_or(""));
            let status = escape(status);
            let _ = writeln!(
                html,
                "<tr><td>{}</td><td>{}</td><td class=\"{status}\">{status}</td>\
                 <td style=\"text-align:left;white-space:normal\">{}</td></tr>",
                escape(&charts::name(row, i + 1)),
                text("name"),
                text("note")
            );
        }
    }
    html.push_str(if any {
        "</tbody></table></div>\n"
    } else {
        "<p class=\"about\">Every check passed, or rows carry none.</p>\n"
    });
}

/// How each row was made.
fn provenance(html: &mut String, rows: &[Value]) {
    html.push_str("<h2>How each row was made</h2>\n");
    for (i, row) in rows.iter().enumerate() {
        let words = row["command"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let words: Vec<&str> = words.collect();
        let text = |key: &str| row[key].as_str().unwrap_or("–").to_string();
        let _ = writeln!(
            html,
            "<details><summary>{}</summary><p><code>pacer {}</code><br>{}, {}, {}</p></details>",
            escape(&charts::name(row, i + 1)),
            escape(&words.join(" ")),
            escape(&text("tool")),
            escape(&text("date")),
            escape(&text("machine"))
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn one_file_that_asks_for_nothing() {
        let row = json!({
            "kind": "serving", "completed": 3, "output_throughput": 12.5, "request_rate": "inf",
            "command": ["bench-serving", "<x>"],
            "validity": { "status": "warn", "checks": [
                { "name": "run_spread", "status": "warn", "note": "one run" },
                { "name": "build", "status": "pass", "note": "" }] },
        });
        let html = page("a <title>", "b", &[row], &[]);
        for outside in ["http://", "https://", "<script", "<link", "@import", "url("] {
            assert!(!html.contains(outside), "{outside}");
        }
        assert!(html.contains("a &lt;title&gt;") && html.contains("&lt;x&gt;"));
        assert!(
            html.contains(">12.5<") && html.contains("run_spread") && !html.contains(">build<")
        );
        assert!(html.contains("prefers-color-scheme: dark"));
        let open = html.matches("<table>").count();
        assert_eq!(open, html.matches("</table>").count());
    }
}
