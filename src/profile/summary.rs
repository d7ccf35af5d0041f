//! What the records of a file come to: time by stage, op, layer and kernel against its floor, and
//! what the engine did when no op ran.

pub mod findings;

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::describe::{Ceiling, OpInfo, Work, layers_as_star};
use super::record::{Counter, Event, Stage};
use super::trace::requests::Part;

/// Count and times of like things.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Entry {
    count: u64,
    total_ns: u64,
    longest_ns: u64,
    work: Work,
}

impl Entry {
    fn add(&mut self, ns: u64, work: &Work) {
        self.count += 1;
        self.total_ns += ns;
        self.longest_ns = self.longest_ns.max(ns);
        self.work += *work;
    }

    fn seconds(&self) -> f64 {
        self.total_ns as f64 * 1e-9
    }
}

/// Steps of one stage.
#[derive(Debug, Clone, Copy, Default)]
struct StageTimes {
    steps: Entry,
    forward: Entry,
    tokens: u64,
    ops_ns: u64,
    work: Work,
}

/// Sums over the records of one file; each record is added once.
#[derive(Debug, Default)]
pub struct Summary {
    ceiling: Option<Ceiling>,
    stages: BTreeMap<Stage, StageTimes>,
    ops: BTreeMap<(Stage, String, String), Entry>,
    layers: BTreeMap<(Stage, usize), Entry>,
    kernels: BTreeMap<(String, String), Entry>,
    others: BTreeMap<&'static str, Entry>,
    requests: BTreeMap<&'static str, Entry>,
    /// To the first token: the whole and its parts.
    ttft: Entry,
    parts: Vec<(&'static str, Entry)>,
    counters: BTreeMap<Counter, (u64, u64)>,
    numbers: Vec<u64>,
    first_start_ns: Option<u64>,
    last_end_ns: u64,
}

/// Step numbers kept in a summary.
const NUMBERS: usize = 1000;

impl Summary {
    pub fn new(ceiling: Option<Ceiling>) -> Summary {
        Summary { ceiling, ..Summary::default() }
    }

    pub fn op(&mut self, stage: Stage, info: &OpInfo, ns: u64, work: &Work) {
        let key = (stage, info.name.clone(), layers_as_star(&info.scope));
        self.ops.entry(key).or_default().add(ns, work);
        let times = self.stages.entry(stage).or_default();
        times.ops_ns += ns;
        times.work += *work;
    }

    pub fn layer(&mut self, stage: Stage, layer: usize, ns: u64) {
        self.layers.entry((stage, layer)).or_default().add(ns, &Work::default());
    }

    pub fn forward(&mut self, stage: Stage, ns: u64) {
        self.stages.entry(stage).or_default().forward.add(ns, &Work::default());
    }

    pub fn step(&mut self, stage: Stage, number: u64, tokens: u64, from_ns: u64, to_ns: u64) {
        let times = self.stages.entry(stage).or_default();
        times.steps.add(to_ns - from_ns, &Work::default());
        times.tokens += tokens;
        if self.numbers.len() < NUMBERS {
            self.numbers.push(number);
        }
        self.first_start_ns.get_or_insert(from_ns);
        self.last_end_ns = self.last_end_ns.max(to_ns);
    }

    pub fn other(&mut self, event: Event, from_ns: u64, to_ns: u64) {
        let name = match event {
            Event::Plan => "scheduler: plan",
            Event::Copy => "copy pages",
            Event::Sample => "sampling",
            Event::Commit => "scheduler: commit",
            Event::Commands => "commands",
            _ => "no work",
        };
        self.others.entry(name).or_default().add(to_ns - from_ns, &Work::default());
    }

    pub fn request(&mut self, event: Event, ns: u64) {
        let name = match event {
            Event::Queue => "waiting",
            Event::Tokenise => "tokenise",
            Event::FirstToken => "to first token",
            _ => "whole request",
        };
        self.requests.entry(name).or_default().add(ns, &Work::default());
    }

    /// The way of one request to its first token.
    pub fn first_token(&mut self, whole_ns: u64, parts: &[Part]) {
        self.ttft.add(whole_ns, &Work::default());
        for part in parts {
            let ns = part.to_ns - part.from_ns;
            match self.parts.iter_mut().find(|p| p.0 == part.name) {
                Some(known) => known.1.add(ns, &Work::default()),
                None => {
                    let mut entry = Entry::default();
                    entry.add(ns, &Work::default());
                    self.parts.push((part.name, entry));
                }
            }
        }
    }

    /// Mean seconds to the first token, by part; the last is what no part covers.
    fn ttft_json(&self) -> Value {
        let count = self.ttft.count.max(1) as f64;
        let mean = self.ttft.seconds() / count;
        let mut parts: Map<String, Value> =
            self.parts.iter().map(|p| (p.0.into(), json!(p.1.seconds() / count))).collect();
        let explained: f64 = self.parts.iter().map(|p| p.1.seconds() / count).sum();
        parts.insert("unexplained".into(), json!(mean - explained));
        json!({"requests": self.ttft.count, "mean_s": mean, "parts_s": parts})
    }

    pub fn http(&mut self, event: Event, ns: u64) {
        let name = match event {
            Event::Accept => "accept",
            Event::Read => "read",
            Event::Submit => "submit",
            Event::Respond => "respond",
            _ => "write",
        };
        self.requests.entry(name).or_default().add(ns, &Work::default());
    }

    pub fn counter(&mut self, counter: Counter, value: u64) {
        let (last, most) = self.counters.entry(counter).or_default();
        (*last, *most) = (value, value.max(*most));
    }

    pub fn device(&mut self, event: Event, name: &str, op: Option<&OpInfo>, ns: u64) {
        let name = if event == Event::Kernel { name } else { "copies and sets" };
        let scope = op.map_or("unattributed".into(), |o| layers_as_star(&o.scope));
        self.kernels.entry((name.to_owned(), scope)).or_default().add(ns, &Work::default());
    }

    /// Numbers of the steps in it, at most the first thousand.
    pub fn steps(&self) -> &[u64] {
        &self.numbers
    }

    /// Seconds between the first step's beginning and the last one's end.
    fn window(&self) -> f64 {
        let first = self.first_start_ns.unwrap_or(self.last_end_ns);
        self.last_end_ns.saturating_sub(first) as f64 * 1e-9
    }

    /// Where the time of the window went when no op ran, by cause. The causes sum to the window
    /// less the ops.
    pub fn idle(&self) -> Vec<(&'static str, f64)> {
        let sum = |f: &dyn Fn(&StageTimes) -> u64| -> f64 {
            self.stages.values().map(f).sum::<u64>() as f64 * 1e-9
        };
        let steps = sum(&|s| s.steps.total_ns);
        let forward = sum(&|s| s.forward.total_ns);
        let other = |name: &str| self.others.get(name).map_or(0.0, Entry::seconds);
        let within = ["scheduler: plan", "copy pages", "sampling", "scheduler: commit"];
        let named: f64 = within.iter().map(|n| other(n)).sum();
        let mut causes: Vec<(&'static str, f64)> = within.iter().map(|n| (*n, other(n))).collect();
        causes.push(("launch gaps", forward - sum(&|s| s.ops_ns)));
        causes.push(("rest of the step", steps - forward - named));
        let (no_work, commands) = (other("no work"), other("commands"));
        causes.push(("no work", no_work));
        causes.push(("commands", commands));
        causes.push(("between steps", self.window() - steps - no_work - commands));
        causes
    }

    fn entry(&self, e: &Entry, whole_ns: u64) -> Map<String, Value> {
        let mut row = Map::new();
        row.insert("count".into(), json!(e.count));
        row.insert("total_s".into(), json!(e.seconds()));
        row.insert("mean_s".into(), json!(e.seconds() / e.count.max(1) as f64));
        row.insert("longest_s".into(), json!(e.longest_ns as f64 * 1e-9));
        row.insert("share".into(), finite(e.total_ns as f64 / whole_ns as f64));
        if e.work != Work::default() {
            row.insert("flops".into(), json!(e.work.flops));
            row.insert("bytes".into(), json!(e.work.bytes()));
            let floor = self.ceiling.as_ref().map(|c| e.work.floor(c));
            row.insert("floor_s".into(), json!(floor));
            let share = floor.map_or(Value::Null, |f| finite(f / e.seconds()));
            row.insert("share_of_ceiling".into(), share);
        }
        row
    }

    /// All tables, for the file beside the trace.
    pub fn json(&self) -> Value {
        let ops_ns = |stage: &Stage| self.stages.get(stage).map_or(0, |s| s.ops_ns);
        let stages = self.stages.iter().map(|(stage, s)| {
            let mut row = self.entry(&Entry { work: s.work, ..s.steps }, s.steps.total_ns);
            row.insert("stage".into(), json!(stage.name()));
            row.insert("tokens".into(), json!(s.tokens));
            row.insert("forward_s".into(), json!(s.forward.seconds()));
            row.insert("ops_s".into(), json!(s.ops_ns as f64 * 1e-9));
            row.insert("weight_bytes".into(), json!(s.work.weight_bytes));
            row.insert("kv_bytes".into(), json!(s.work.kv_bytes));
            Value::Object(row)
        });
        let ops = self.ops.iter().map(|((stage, op, scope), e)| {
            let mut row = self.entry(e, ops_ns(stage));
            row.insert("stage".into(), json!(stage.name()));
            row.insert("op".into(), json!(op));
            row.insert("module".into(), json!(scope));
            Value::Object(row)
        });
        let layers = self.layers.iter().map(|((stage, layer), e)| {
            let mut row = self.entry(e, ops_ns(stage));
            row.insert("stage".into(), json!(stage.name()));
            row.insert("layer".into(), json!(layer));
            Value::Object(row)
        });
        let device_ns = self.kernels.values().map(|e| e.total_ns).sum();
        let kernels = self.kernels.iter().map(|((name, scope), e)| {
            let mut row = self.entry(e, device_ns);
            row.insert("kernel".into(), json!(name));
            row.insert("module".into(), json!(scope));
            Value::Object(row)
        });
        let plain = |map: &BTreeMap<&'static str, Entry>| -> Map<String, Value> {
            let rows = map.iter();
            rows.map(|(n, e)| ((*n).into(), Value::Object(self.entry(e, 0)))).collect()
        };
        let counters: Map<String, Value> = self
            .counters
            .iter()
            .map(|(c, (last, most))| (c.name().into(), json!({"last": last, "most": most})))
            .collect();
        let idle: Map<String, Value> =
            self.idle().into_iter().map(|(cause, s)| (cause.into(), json!(s))).collect();
        let ceiling = self.ceiling.as_ref().map(|c| {
            json!({"bytes_per_s": c.bytes_per_s, "flops_per_s": c.flops_per_s, "source": c.source})
        });
        json!({
            "steps": self.numbers,
            "window_s": self.window(),
            "ceiling": ceiling,
            "stages": stages.collect::<Vec<_>>(),
            "ops": slowest_first(ops.collect()),
            "layers": layers.collect::<Vec<_>>(),
            "kernels": slowest_first(kernels.collect()),
            "idle_by_cause_s": idle,
            "findings": findings::json(&self.findings()),
            "requests": plain(&self.requests),
            "time_to_first_token": self.ttft_json(),
            "counters": counters,
        })
    }

    /// The tables for a person.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (stage, s) in &self.stages {
            let mean = s.steps.seconds() / s.steps.count.max(1) as f64 * 1e3;
            let _ = writeln!(
                text,
                "{}: {} steps, {} tokens, {:.3} ms a step, {:.1} % of it in ops",
                stage.name(),
                s.steps.count,
                s.tokens,
                mean,
                100.0 * s.ops_ns as f64 / s.steps.total_ns.max(1) as f64
            );
            self.text_ops(&mut text, *stage, s.ops_ns);
        }
        if self.window() > 0.0 {
            let _ = write!(text, "when no op ran, of {:.3} ms:", self.window() * 1e3);
            for (cause, seconds) in self.idle().into_iter().filter(|c| c.1 > 0.0) {
                let _ = write!(text, " {cause} {:.3} ms;", seconds * 1e3);
            }
            text.pop();
            text.push('\n');
        }
        for (i, finding) in self.findings().iter().enumerate() {
            let _ = writeln!(text, "{}. {}", i + 1, finding.text);
        }
        if self.ttft.count > 0 {
            let count = self.ttft.count as f64;
            let mean = self.ttft.seconds() * 1e3 / count;
            let _ = write!(text, "to the first token, {count} requests, {mean:.3} ms:");
            for (name, entry) in &self.parts {
                let _ = write!(text, " {name} {:.3} ms;", entry.seconds() * 1e3 / count);
            }
            text.pop();
            text.push('\n');
        }
        text
    }

    fn text_ops(&self, text: &mut String, stage: Stage, whole_ns: u64) {
        let mut rows: Vec<_> = self.ops.iter().filter(|(k, _)| k.0 == stage).collect();
        if rows.is_empty() {
            return;
        }
        rows.sort_by_key(|(_, e)| std::cmp::Reverse(e.total_ns));
        let _ = writeln!(
            text,
            "  {:<44} {:>7} {:>11} {:>10} {:>7} {:>10} {:>8}",
            "op", "count", "total ms", "mean us", "share", "floor us", "ceiling"
        );
        for ((_, op, scope), e) in rows.into_iter().take(16) {
            let mean = e.seconds() * 1e6 / e.count.max(1) as f64;
            let floor = self.ceiling.as_ref().filter(|_| e.work != Work::default());
            let floor = floor.map(|c| e.work.floor(c) * 1e6 / e.count.max(1) as f64);
            let (floor, share) = match floor {
                Some(f) if mean > 0.0 => (format!("{f:.1}"), format!("{:.1} %", 100.0 * f / mean)),
                _ => ("-".into(), "-".into()),
            };
            let _ = writeln!(
                text,
                "  {:<44} {:>7} {:>11.3} {:>10.1} {:>5.1} % {:>10} {:>8}",
                format!("{op} {scope}"),
                e.count,
                e.seconds() * 1e3,
                mean,
                100.0 * e.total_ns as f64 / whole_ns.max(1) as f64,
                floor,
                share
            );
        }
    }
}

fn finite(x: f64) -> Value {
    if x.is_finite() { json!(x) } else { Value::Null }
}

fn slowest_first(mut rows: Vec<Value>) -> Vec<Value> {
    let total = |row: &Value| row["total_s"].as_f64().unwrap_or(0.0);
    rows.sort_by(|a, b| total(b).total_cmp(&total(a)));
    rows
}
