//! Whether a trace is what viewers expect: required keys, spans that nest, arrows with two ends
//! inside spans, async spans that are closed.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

/// What a valid trace holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub events: usize,
    /// Spans (`X`) by category.
    pub spans: BTreeMap<String, usize>,
    pub arrows: usize,
    /// Numbers of the engine steps, ascending.
    pub steps: Vec<u64>,
    /// Names of the engine steps, in the order of `steps`.
    pub names: Vec<String>,
}

type Row = (String, String);
type Span = (u64, u64, String);

/// Looks at a whole trace.
///
/// # Errors
/// The first thing that is wrong, with the event it is in.
pub fn validate(trace: &Value) -> Result<Report, String> {
    let events = trace["traceEvents"].as_array().ok_or("no list traceEvents")?;
    let mut found = Found::default();
    for event in events {
        found.add(event).map_err(|why| format!("{why}: {event}"))?;
    }
    found.rows.values_mut().try_for_each(|spans| nest(spans))?;
    let arrows = found.arrows()?;
    if let Some(((_, id), depth)) = found.overlapping.iter().find(|(_, depth)| **depth != 0) {
        return Err(format!("async span {id} is {depth} times open"));
    }
    found.steps.sort();
    let (steps, names) = found.steps.into_iter().unzip();
    Ok(Report { events: events.len(), spans: found.spans, arrows, steps, names })
}

#[derive(Default)]
struct Found {
    rows: HashMap<Row, Vec<Span>>,
    spans: BTreeMap<String, usize>,
    /// By id: starts and ends.
    flows: HashMap<String, [Vec<(Row, u64)>; 2]>,
    overlapping: HashMap<(String, String), i64>,
    steps: Vec<(u64, String)>,
}

/// A time in microseconds as nanoseconds.
fn time(event: &Value, key: &str) -> Result<u64, String> {
    let micros = event[key].as_f64().filter(|x| x.is_finite() && *x >= 0.0);
    micros.map(|x| (x * 1000.0).round() as u64).ok_or(format!("{key} is no time"))
}

impl Found {
    fn add(&mut self, event: &Value) -> Result<(), String> {
        let phase = event["ph"].as_str().ok_or("no phase")?;
        let row = (event["pid"].to_string(), event["tid"].to_string());
        if event["pid"].is_null() || event["tid"].is_null() {
            return Err("no process or thread".into());
        }
        let name = event["name"].as_str().ok_or("no name")?.to_owned();
        let at = time(event, "ts")?;
        let category = event["cat"].as_str().unwrap_or_default().to_owned();
        match phase {
            "X" => {
                let end = at + time(event, "dur")?;
                if name.starts_with("step[") {
                    let step = event["args"]["step"].as_u64().ok_or("a step without number")?;
                    self.steps.push((step, name.clone()));
                }
                *self.spans.entry(category).or_default() += 1;
                self.rows.entry(row).or_default().push((at, end, name));
            }
            "s" | "f" => {
                let id = &event["id"];
                if id.is_null() {
                    return Err("an arrow without id".into());
                }
                let ends = self.flows.entry(id.to_string()).or_default();
                ends[usize::from(phase == "f")].push((row, at));
            }
            "b" | "e" => {
                let id = event["id"].as_str().ok_or("an async span without id")?.to_owned();
                let step = if phase == "b" { 1 } else { -1 };
                *self.overlapping.entry((format!("{category} {name}"), id)).or_default() += step;
            }
            "C" if event["args"].as_object().is_none_or(|a| a.values().any(|v| !v.is_number())) => {
                return Err("a counter without number".into());
            }
            "M" if !event["args"].is_object() => return Err("metadata without args".into()),
            "C" | "M" | "i" => {}
            other => return Err(format!("unknown phase {other}")),
        }
        Ok(())
    }

    /// Checks all arrows: one start and one end each, forward in time, each inside a span.
    fn arrows(&self) -> Result<usize, String> {
        for (id, [starts, ends]) in &self.flows {
            let ([(from, start)], [(to, end)]) = (starts.as_slice(), ends.as_slice()) else {
                return Err(format!("arrow {id} has {} starts, {} ends", starts.len(), ends.len()));
            };
            if start > end {
                return Err(format!("arrow {id} points back in time"));
            }
            for (row, at) in [(from, start), (to, end)] {
                let inside = |s: &Span| s.0 <= *at && *at <= s.1;
                if !self.rows.get(row).is_some_and(|spans| spans.iter().any(inside)) {
                    return Err(format!("arrow {id} hangs in the air at {at} ns on {row:?}"));
                }
            }
        }
        Ok(self.flows.len())
    }
}

/// Checks that of any two spans of a row one contains the other, or they do not overlap.
fn nest(spans: &mut [Span]) -> Result<(), String> {
    spans.sort_by_key(|s| (s.0, std::cmp::Reverse(s.1)));
    let mut open: Vec<&Span> = Vec::new();
    for span in spans.iter() {
        while open.last().is_some_and(|outer| outer.1 <= span.0) {
            open.pop();
        }
        if let Some(outer) = open.last().filter(|outer| span.1 > outer.1) {
            return Err(format!("spans cross: {outer:?} and {span:?}"));
        }
        open.push(span);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn span(tid: u64, ts: f64, dur: f64) -> Value {
        json!({"ph": "X", "pid": 1, "tid": tid, "ts": ts, "dur": dur, "name": "a", "cat": "c"})
    }

    fn flow(ph: &str, ts: f64) -> Value {
        json!({"ph": ph, "pid": 1, "tid": 1, "ts": ts, "name": "x", "cat": "flow", "id": 7})
    }

    fn check(events: Vec<Value>) -> Result<Report, String> {
        validate(&json!({ "traceEvents": events }))
    }

    #[test]
    fn good_and_bad_traces() {
        let good =
            vec![span(1, 0.0, 10.0), span(1, 2.0, 3.0), span(1, 5.0, 5.0), span(2, 8.0, 9.0)];
        assert_eq!(check(good.clone()).unwrap().spans["c"], 4);
        let bad: [(Vec<Value>, &str); 7] = [
            (vec![span(1, 0.0, 10.0), span(1, 5.0, 6.0)], "cross"),
            (vec![span(1, 0.0, 10.0), flow("s", 1.0)], "0 ends"),
            (vec![span(1, 0.0, 10.0), flow("s", 3.0), flow("f", 1.0)], "back in time"),
            (vec![span(1, 0.0, 10.0), flow("s", 3.0), flow("f", 11.0)], "in the air"),
            (vec![json!({"ph": "X", "pid": 1, "tid": 1, "ts": 1, "name": "a"})], "dur"),
            (vec![json!({"ph": "X", "tid": 1, "ts": 1, "dur": 1, "name": "a"})], "no process"),
            (
                vec![json!({"ph": "b", "pid": 1, "tid": 1, "ts": 1, "name": "a", "id": "0x1"})],
                "times open",
            ),
        ];
        for (events, why) in bad {
            let error = check(events).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        assert!(validate(&json!({})).is_err());
    }
}
