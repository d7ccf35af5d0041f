//! Records as events, on rows that a person can read from top to bottom: HTTP, requests,
//! scheduler, engine steps, layers, ops, device streams, memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::gpu::Passing;
use super::json::{Events, Label, Row, put_number, put_real, put_text, quoted};
use super::requests::Requests;
use crate::profile::describe::{Ceiling, Composition, Describe, OpInfo, Work};
use crate::profile::gpu::{Owner, is_known};
use crate::profile::record::{Counter, Event, Mark, Record, Stage};
use crate::profile::stack;
use crate::profile::summary::Summary;

/// Rows of the host process, in the order in which viewers show them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Track {
    Http = 1,
    Requests = 3,
    Scheduler = 4,
    Step = 5,
    Layer = 6,
    Op = 7,
    Memory = 8,
    Calls = 9,
}

impl Track {
    fn name(self) -> &'static str {
        match self {
            Track::Http => "HTTP",
            Track::Requests => "requests",
            Track::Scheduler => "scheduler",
            Track::Step => "engine step",
            Track::Layer => "layers",
            Track::Op => "ops",
            Track::Memory => "memory",
            Track::Calls => "GPU calls",
        }
    }
}

/// What every file of a capture is told about the program.
#[derive(Clone)]
pub struct Setting {
    pub pid: u64,
    pub model: Option<Arc<dyn Describe>>,
    pub ceiling: Option<Ceiling>,
    /// Whether ops say their shapes.
    pub shapes: bool,
    /// The device's times are projected: they say nothing of the host's.
    pub projected: bool,
}

/// The layer whose ops are passing by.
struct Layer {
    index: usize,
    from_ns: u64,
    to_ns: u64,
}

/// The step whose records are passing by.
#[derive(Default)]
pub struct Step {
    number: u32,
    pub stage: Option<Stage>,
    begun_ns: u64,
    pub batch: Composition,
    /// The least work of each op of the plan, once an op has come by.
    pub works: Vec<Work>,
    /// Work of the ops that have come by.
    work: Work,
    /// Times of the device's part.
    pub forward: Option<(u64, u64)>,
    /// From where ops were launched, by op or other owner.
    stacks: BTreeMap<u32, u32>,
}

/// Turns the records of one file into events.
pub struct Rows {
    pub out: Events,
    pub summary: Summary,
    setting: Setting,
    step: Step,
    layer: Option<Layer>,
    /// The last op that took time.
    last_op: Option<OpInfo>,
    /// Where requests were submitted, until they run.
    submitted: HashMap<u32, (Row, u64)>,
    requests: Requests,
    /// The step of their first tokens, until an answer carries them.
    running: HashMap<u32, (Row, u64)>,
    launches: HashMap<u32, (Row, u64)>,
    /// Steps that a GPU may still tell of.
    past: BTreeMap<u32, Step>,
    /// Ops that run as one: first and number.
    pub fused: HashMap<usize, usize>,
    pub passing: Passing,
    flows: u64,
    /// Stacks by number, as the inside of a JSON list.
    stack_texts: HashMap<u32, String>,
    tracks: BTreeMap<Row, (String, u64)>,
}

/// Steps remembered for a GPU that tells late.
const STEPS: usize = 4096;
/// Requests and launches remembered for arrows, at most.
const REMEMBERED: usize = 1 << 16;

impl Rows {
    /// `origin_ns` is the time that the file's times count from.
    pub fn new(setting: Setting, origin_ns: u64) -> Rows {
        let gpu = setting.model.as_ref().and_then(|m| m.gpu());
        let fused = gpu.map(|g| g.fused().into_iter().collect()).unwrap_or_default();
        let mut rows = Rows {
            out: Events::new(origin_ns),
            summary: Summary::new(setting.ceiling.clone(), setting.projected),
            setting,
            step: Step::default(),
            layer: None,
            last_op: None,
            submitted: HashMap::new(),
            requests: Requests::default(),
            running: HashMap::new(),
            launches: HashMap::new(),
            past: BTreeMap::new(),
            fused,
            passing: Passing::default(),
            flows: 0,
            stack_texts: HashMap::new(),
            tracks: BTreeMap::new(),
        };
        let memory = rows.setting.model.as_ref().map(|m| m.memory()).unwrap_or_default();
        for (counter, bytes) in memory {
            let (id, at) = (counter as u32, origin_ns);
            rows.counter(&Record::instant(Event::Memory, id, bytes, at));
        }
        rows
    }

    fn row(&mut self, track: Track) -> Row {
        let row = Row { pid: self.setting.pid, tid: track as u64 };
        self.tracks.entry(row).or_insert_with(|| (track.name().to_owned(), track as u64));
        row
    }

    /// A row of the device. A device's process number is its index, as other tools have it; host
    /// processes have larger ones.
    pub fn device_row(&mut self, tid: u64, name: &str) -> Row {
        let row = Row { pid: 0, tid };
        self.tracks.entry(row).or_insert_with(|| (name.to_owned(), tid));
        row
    }

    pub fn calls_row(&mut self) -> Row {
        self.row(Track::Calls)
    }

    pub fn model(&self) -> Option<Arc<dyn Describe>> {
        self.setting.model.clone()
    }

    pub fn model_ops(&self) -> &[OpInfo] {
        self.setting.model.as_ref().map_or(&[], |m| m.ops())
    }

    /// The step of that number, unless it is long past.
    pub fn step_of(&mut self, number: u32) -> Option<&mut Step> {
        match self.step.number == number {
            true => Some(&mut self.step),
            false => self.past.get_mut(&number),
        }
    }

    /// Remembers where work was queued, until it runs.
    pub fn launched(&mut self, correlation: u32, at: (Row, u64)) {
        if self.launches.len() < REMEMBERED {
            self.launches.insert(correlation, at);
        }
    }

    pub fn launch_of(&mut self, correlation: u32) -> Option<(Row, u64)> {
        self.launches.remove(&correlation)
    }

    pub fn record(&mut self, r: &Record) {
        match r.event {
            Event::Batch => self.batch(r),
            Event::Sequence => self.sequence(r),
            Event::Op => self.op(r),
            Event::Step => self.forward(r),
            Event::EngineStep => self.engine_step(r),
            Event::Plan | Event::Copy | Event::Sample | Event::Commit => self.scheduler(r),
            Event::Idle | Event::Commands => self.scheduler(r),
            Event::Parse | Event::Tokenise => self.request(r),
            Event::Queue | Event::FirstToken | Event::Request => self.request(r),
            Event::Memory => self.counter(r),
            Event::Marker => self.marker(r),
            Event::Accept | Event::Read => self.http(r),
            Event::Submit | Event::Respond | Event::Write => self.http(r),
            Event::Stack => _ = self.step.stacks.insert(r.id, r.arg as u32),
        }
    }

    fn batch(&mut self, r: &Record) {
        let stage = Some(Stage::of(r.extra));
        let next = Step { number: r.id, stage, begun_ns: r.start_ns, ..Step::default() };
        let past = std::mem::replace(&mut self.step, next);
        if !self.fused.is_empty() {
            self.past.insert(past.number, past);
            if self.past.len() > STEPS {
                self.past.pop_first();
            }
        }
    }

    fn sequence(&mut self, r: &Record) {
        let (past, new) = r.halves();
        self.step.batch.sequences.push((past as usize, new as usize));
        self.step.batch.logit_rows += r.extra as usize;
        self.requests.in_step(r.id, self.step.begun_ns, r.extra > 0);
        if let Some(from) = self.submitted.remove(&r.id) {
            let to = (self.row(Track::Step), self.step.begun_ns);
            self.arrow("request", from, to);
            if self.running.len() < REMEMBERED {
                self.running.insert(r.id, to);
            }
        }
    }

    pub fn arrow(&mut self, name: &str, from: (Row, u64), to: (Row, u64)) {
        self.flows += 1;
        self.out.arrow(Label { name, category: "flow" }, self.flows, from, to);
    }

    fn op(&mut self, r: &Record) {
        let index = r.id as usize;
        let model = self.setting.model.clone();
        let info = model.as_ref().and_then(|m| m.ops().get(index)).cloned().unwrap_or_default();
        self.pass_layer(info.layer, r);
        let mut args = String::new();
        put_number(&mut args, "step", r.arg);
        let mut work = Work::default();
        if let (Some(model), false) = (&model, self.step.batch.sequences.is_empty()) {
            put_text(&mut args, "module", &info.scope);
            if self.setting.shapes {
                put_text(&mut args, "shapes", &model.shape(index, &self.step.batch));
            }
            if self.step.works.is_empty() {
                self.step.works = model.works(&self.step.batch);
            }
            work = self.step.works.get(index).copied().unwrap_or_default();
            self.put_work(&mut args, &work, r.end_ns - r.start_ns);
        }
        let stack = self.step.stacks.get(&r.id).copied();
        self.put_stack(&mut args, stack);
        self.step.work += work;
        let stage = self.step.stage.unwrap_or(Stage::Mixed);
        match (&self.last_op, r.end_ns - r.start_ns) {
            // It ran within the op before it, whose time is that of both.
            (Some(last), 0) => self.summary.fused(stage, last, &work),
            (_, ns) => {
                self.summary.op(stage, &info, ns, &work);
                self.last_op = Some(info.clone());
            }
        }
        let last = info.scope.rsplit('.').next().unwrap_or_default();
        let name = match info.name.as_str() {
            "" => format!("op {index}"),
            name => format!("{name} {last}"),
        };
        let row = self.row(Track::Op);
        let label = Label { name: &name, category: "cpu_op" };
        self.out.span(row, label, r.start_ns, r.end_ns, &args);
    }

    /// From where owner `owner` of step `step` was launched. Ops of a graph are launched together.
    pub fn stack_of(&mut self, step: u32, owner: Owner) -> Option<u32> {
        let stacks = &self.step_of(step)?.stacks;
        let graph = || stacks.iter().find(|(owner, _)| !is_known(**owner)).map(|s| s.1);
        stacks.get(&owner).or_else(graph).copied()
    }

    /// Appends the functions of a stack, innermost first.
    pub fn put_stack(&mut self, args: &mut String, stack: Option<u32>) {
        let Some(number) = stack else { return };
        let text = self.stack_texts.entry(number).or_insert_with(|| {
            let names: Vec<String> = stack::names(number).iter().map(|n| quoted(n)).collect();
            names.join(", ")
        });
        let separator = if args.is_empty() { "" } else { ", " };
        args.push_str(&format!("{separator}\"stack\": [{text}]"));
    }

    pub fn put_work(&self, args: &mut String, work: &Work, ns: u64) {
        put_number(args, "flops", work.flops);
        put_number(args, "bytes", work.bytes());
        if let Some(ceiling) = &self.setting.ceiling {
            let floor = work.floor(ceiling);
            put_real(args, "floor_us", floor * 1e6);
            put_real(args, "share_of_ceiling", floor / (ns as f64 * 1e-9));
        }
    }

    /// Ends the layer that passed by unless this op still belongs to it.
    fn pass_layer(&mut self, layer: Option<usize>, r: &Record) {
        match (&mut self.layer, layer) {
            (Some(passing), Some(index)) if passing.index == index => passing.to_ns = r.end_ns,
            _ => {
                self.end_layer();
                let (from_ns, to_ns) = (r.start_ns, r.end_ns);
                self.layer = layer.map(|index| Layer { index, from_ns, to_ns });
            }
        }
    }

    fn end_layer(&mut self) {
        let Some(layer) = self.layer.take() else { return };
        let row = self.row(Track::Layer);
        let name = format!("layer {}", layer.index);
        let mut args = String::new();
        put_number(&mut args, "step", self.step.number as u64);
        let label = Label { name: &name, category: "layer" };
        self.out.span(row, label, layer.from_ns, layer.to_ns, &args);
        let stage = self.step.stage.unwrap_or(Stage::Mixed);
        self.summary.layer(stage, layer.index, layer.to_ns - layer.from_ns);
    }

    /// The device's part of a step.
    fn forward(&mut self, r: &Record) {
        self.end_layer();
        self.step.ended(r.start_ns, r.end_ns);
        let row = self.row(Track::Step);
        let mut args = String::new();
        put_number(&mut args, "step", r.id as u64);
        put_number(&mut args, "tokens", r.arg);
        let label = Label { name: "forward", category: "step" };
        self.out.span(row, label, r.start_ns, r.end_ns, &args);
        let stage = self.step.stage.unwrap_or(Stage::Mixed);
        self.summary.forward(stage, r.end_ns - r.start_ns);
    }

    fn engine_step(&mut self, r: &Record) {
        self.end_layer();
        self.requests.step_ended(r.end_ns);
        let (sequences, tokens) = r.halves();
        let stage = Stage::of(r.extra);
        let name = match stage {
            Stage::Decode => format!("step[DECODE bs={sequences}]"),
            _ => format!("step[{} bs={sequences} toks={tokens}]", stage.name()),
        };
        let mut args = String::new();
        put_number(&mut args, "step", r.id as u64);
        let whole = self.step.number == r.id && !self.step.batch.sequences.is_empty();
        if whole {
            let pairs: Vec<String> =
                self.step.batch.sequences.iter().map(|(p, n)| format!("[{p}, {n}]")).collect();
            args.push_str(&format!(", \"batch\": [{}]", pairs.join(", ")));
            let work = self.step.work;
            self.put_work(&mut args, &work, r.end_ns - r.start_ns);
        }
        let row = self.row(Track::Step);
        let label = Label { name: &name, category: "step" };
        self.out.span(row, label, r.start_ns, r.end_ns, &args);
        self.summary.step(stage, r.id as u64, tokens as u64, r.start_ns, r.end_ns);
    }

    fn scheduler(&mut self, r: &Record) {
        let (name, key) = match r.event {
            Event::Plan => ("scheduler.plan", "step"),
            Event::Copy => ("copy pages", "step"),
            Event::Sample => ("sample", "step"),
            Event::Commit => ("scheduler.commit", "step"),
            Event::Commands => ("commands", "step"),
            _ => ("no work", "step"),
        };
        let mut args = String::new();
        put_number(&mut args, key, r.id as u64);
        let row = self.row(Track::Scheduler);
        let label = Label { name, category: "scheduler" };
        self.out.span(row, label, r.start_ns, r.end_ns, &args);
        self.summary.other(r.event, r.start_ns, r.end_ns);
    }

    fn request(&mut self, r: &Record) {
        let name = match r.event {
            Event::Queue => "waiting",
            Event::Parse => {
                self.requests.submitted(r.id, r.start_ns, r.end_ns);
                return;
            }
            Event::Tokenise => "tokenise",
            Event::FirstToken => "to first token",
            _ => "request",
        };
        let row = self.row(Track::Requests);
        let mut args = String::new();
        put_number(&mut args, "request", r.id as u64);
        let label = Label { name, category: "request" };
        let times = (r.start_ns, r.end_ns);
        self.out.overlapping(row, label, r.id as u64, times, &args);
        self.summary.request(r.event, r.end_ns - r.start_ns);
        if r.event == Event::FirstToken
            && let Some(parts) = self.requests.first_token(r.id, r.end_ns)
        {
            for part in &parts {
                let label = Label { name: part.name, category: "request" };
                let times = (part.from_ns, part.to_ns);
                self.out.overlapping(row, label, r.id as u64, times, &args);
            }
            self.summary.first_token(r.end_ns - r.start_ns, &parts);
        }
    }

    fn counter(&mut self, r: &Record) {
        let Some(counter) = Counter::of(r.id) else { return };
        let row = self.row(Track::Memory);
        let label = Label { name: counter.name(), category: "memory" };
        self.out.counter(row, label, r.start_ns, r.arg);
        self.summary.counter(counter, r.arg);
    }

    fn marker(&mut self, r: &Record) {
        let row = self.row(Track::Scheduler);
        let mut args = String::new();
        put_number(&mut args, "value", r.arg);
        let label = Label { name: Mark::name(r.id), category: "mark" };
        self.out.instant(row, label, r.start_ns, &args);
    }

    fn http(&mut self, r: &Record) {
        let name = match r.event {
            Event::Accept => "accept",
            Event::Read => "read",
            Event::Submit => "submit",
            Event::Respond => "respond",
            _ => "write",
        };
        let row = self.row(Track::Http);
        let mut args = String::new();
        put_number(&mut args, "id", r.id as u64);
        put_number(&mut args, "value", r.arg);
        self.out.span(row, Label { name, category: "http" }, r.start_ns, r.end_ns, &args);
        self.summary.http(r.event, r.end_ns - r.start_ns);
        if r.event == Event::Submit && self.submitted.len() < REMEMBERED {
            self.submitted.insert(r.id, (row, r.start_ns));
        }
        if r.event == Event::Respond
            && let Some(from) = self.running.remove(&r.id)
        {
            self.arrow("first token", from, (row, r.start_ns));
        }
    }

    /// The names of all rows used, once everything else is out.
    pub fn end(&mut self, label: &str) {
        self.end_layer();
        self.end_gpu();
        let mut processes = std::collections::BTreeSet::new();
        for (row, (name, sort)) in std::mem::take(&mut self.tracks) {
            if processes.insert(row.pid) {
                let host = row.pid == self.setting.pid;
                let device = self.setting.model.as_ref().map_or("device", |m| m.device());
                let name = if host { format!("pacer {label}") } else { device.to_owned() };
                let process = Row { pid: row.pid, tid: 0 };
                self.out.name(process, "process", &name, u64::from(!host));
            }
            self.out.name(row, "thread", &name, sort);
        }
    }
}
