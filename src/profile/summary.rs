//! What the records of a file come to: time by stage, op, layer and kernel against its floor, and
//! what the engine did when no op ran.

pub mod findings;
mod text;

use std::collections::BTreeMap;

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
    /// Times of ops and kernels are projected, those of steps are the emulator's.
    projected: bool,
    stages: BTreeMap<Stage, StageTimes>,
    ops: BTreeMap<(Stage, String, String), Entry>,
    layers: BTreeMap<(Stage, usize), Entry>,
    kernels: BTreeMap<(Stage, String, String), Entry>,
    gpu: Gpu,
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

/// What a device told of itself.
#[derive(Debug, Clone, Copy, Default)]
struct Gpu {
    busy_ns: u64,
    attributed_ns: u64,
    idle_ns: [u64; 3],
}

/// Where a GPU idles within a step: until the host has queued its first kernel, because launches
/// do not come fast enough, and until the host has noticed the end.
const GPU_CAUSES: [&str; 3] =
    ["before the first kernel", "between kernels", "after the last kernel"];

impl Gpu {
    fn json(&self, projected: bool) -> Value {
        if self.busy_ns == 0 {
            return Value::Null;
        }
        json!({
            "busy_s": self.busy_ns as f64 * 1e-9,
            "attributed_s": self.attributed_ns as f64 * 1e-9,
            "attributed_share": self.attributed_ns as f64 / self.busy_ns as f64,
            "times": if projected { "projected" } else { "measured" },
        })
    }
}

/// Step numbers kept in a summary.
const NUMBERS: usize = 1000;

impl Summary {
    pub fn new(ceiling: Option<Ceiling>, projected: bool) -> Summary {
        Summary { ceiling, projected, ..Summary::default() }
    }

    pub fn op(&mut self, stage: Stage, info: &OpInfo, ns: u64, work: &Work) {
        let key = (stage, info.name.clone(), layers_as_star(&info.scope));
        self.ops.entry(key).or_default().add(ns, work);
        let times = self.stages.entry(stage).or_default();
        times.ops_ns += ns;
        times.work += *work;
    }

    /// Work of an op that ran within `info`.
    pub fn fused(&mut self, stage: Stage, info: &OpInfo, work: &Work) {
        let key = (stage, info.name.clone(), layers_as_star(&info.scope));
        self.ops.entry(key).or_default().work += *work;
        self.stages.entry(stage).or_default().work += *work;
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

    /// A kernel or copy of a device, and the op that it is part of.
    pub fn kernel(&mut self, stage: Stage, (name, op): (&str, &OpInfo), ns: u64, work: &Work) {
        let place = format!("{} {}", op.name, layers_as_star(&op.scope)).trim_end().to_owned();
        self.kernels.entry((stage, name.to_owned(), place)).or_default().add(ns, work);
    }

    /// Time that a device was busy, and whether it is known with what.
    pub fn device_time(&mut self, ns: u64, attributed: bool) {
        self.gpu.busy_ns += ns;
        self.gpu.attributed_ns += if attributed { ns } else { 0 };
    }

    /// Where a device idled in a step: before its first kernel, between, after its last.
    pub fn gpu_idle(&mut self, ns: [u64; 3]) {
        self.gpu.idle_ns.iter_mut().zip(ns).for_each(|(sum, ns)| *sum += ns);
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
        let gaps = forward - sum(&|s| s.ops_ns);
        let known = self.gpu.idle_ns.map(|ns| ns as f64 * 1e-9);
        if self.gpu.busy_ns > 0 {
            causes.extend(GPU_CAUSES.into_iter().zip(known));
        }
        causes.push(("launch gaps", gaps - known.iter().sum::<f64>()));
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
        let kernels = self.kernels.iter().map(|((stage, name, op), e)| {
            let mut row = self.entry(e, device_ns);
            row.insert("stage".into(), json!(stage.name()));
            row.insert("kernel".into(), json!(name));
            row.insert("op".into(), json!(op));
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
            "device": self.gpu.json(self.projected),
            "idle_by_cause_s": idle,
            "findings": findings::json(&self.findings()),
            "requests": plain(&self.requests),
            "time_to_first_token": self.ttft_json(),
            "counters": counters,
        })
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
