//! What a GPU did, as rows of its own: streams, ops and layers; and the calls that queued it.
//!
//! A GPU may tell late, so steps are looked up by number. Kernels of one op share its floor in
//! proportion to their time.

use super::json::{Label, Row, put_number, put_text};
use super::rows::{Rows, Step};
use crate::profile::describe::{OpInfo, Work};
use crate::profile::gpu::{GpuSpan, GpuWork, Owner, is_known, owner_name};
use crate::profile::record::Stage;

/// Rows above the device's streams.
const LAYERS: u64 = 1_000_000_001;
const OPS: u64 = 1_000_000_002;

/// Spans of one op in one step, passing by.
#[derive(Default)]
struct Run {
    step: u32,
    owner: Owner,
    spans: Vec<GpuSpan>,
}

/// Ops of one layer in one step, passing by.
struct Layer {
    step: u32,
    stage: Stage,
    index: usize,
    busy_ns: u64,
    from_ns: u64,
    to_ns: u64,
}

/// All of one step, passing by.
#[derive(Default)]
struct Whole {
    step: u32,
    first_ns: u64,
    last_ns: u64,
    busy_ns: u64,
}

/// What is under way.
#[derive(Default)]
pub struct Passing {
    run: Run,
    layer: Option<Layer>,
    whole: Whole,
    /// Where each row has been filled to.
    filled: std::collections::HashMap<u64, u64>,
}

impl Rows {
    pub fn gpu(&mut self, span: &GpuSpan) {
        if matches!(span.work, GpuWork::Launch | GpuWork::Wait) {
            return self.gpu_call(span);
        }
        let run = &self.passing.run;
        if (run.step, run.owner) != (span.step, span.owner) {
            self.end_run();
        }
        if self.passing.whole.step != span.step {
            self.end_whole();
            let first_ns = span.start_ns;
            self.passing.whole = Whole { step: span.step, first_ns, ..Whole::default() };
        }
        let whole = &mut self.passing.whole;
        let fresh = span.end_ns.saturating_sub(whole.last_ns.max(span.start_ns));
        whole.busy_ns += fresh;
        whole.last_ns = whole.last_ns.max(span.end_ns);
        let run = &mut self.passing.run;
        (run.step, run.owner) = (span.step, span.owner);
        run.spans.push(span.clone());
    }

    /// Nothing more will come.
    pub fn end_gpu(&mut self) {
        self.end_run();
        self.end_gpu_layer();
        self.end_whole();
    }

    fn gpu_call(&mut self, span: &GpuSpan) {
        let row = self.calls_row();
        let name = if span.work == GpuWork::Launch { "launch" } else { "synchronise" };
        let mut args = String::new();
        if span.work == GpuWork::Launch {
            put_text(&mut args, "op", &self.owner(span.owner).name);
            put_number(&mut args, "step", span.step.into());
            put_number(&mut args, "correlation", span.correlation.into());
            self.launched(span.correlation, (row, span.start_ns));
        }
        let label = Label { name, category: "cuda_driver" };
        self.out.span(row, label, span.start_ns, span.end_ns, &args);
    }

    /// What an owner is called, with all ops that run as one.
    fn owner(&self, owner: Owner) -> OpInfo {
        let ops = self.model_ops();
        let count = self.fused.get(&(owner as usize)).copied().unwrap_or(1);
        let Some(parts) = ops.get(owner as usize..owner as usize + count) else {
            return OpInfo { name: owner_name(owner).into(), ..OpInfo::default() };
        };
        let names: Vec<&str> = parts.iter().map(|p| p.name.as_str()).collect();
        OpInfo { name: names.join("+"), ..parts[0].clone() }
    }

    fn end_run(&mut self) {
        let run = std::mem::take(&mut self.passing.run);
        if run.spans.is_empty() {
            return;
        }
        let info = self.owner(run.owner);
        let count = self.fused.get(&(run.owner as usize)).copied().unwrap_or(1);
        let (stage, work) = self.work_of(run.step, run.owner as usize, count);
        let busy: u64 = run.spans.iter().map(|s| s.end_ns - s.start_ns).sum();
        let from = run.spans.iter().map(|s| s.start_ns).min().unwrap_or(0);
        let to = run.spans.iter().map(|s| s.end_ns).max().unwrap_or(0);
        self.summary.op(stage, &info, busy, &work);
        self.summary.device_time(busy, is_known(run.owner));
        self.pass_gpu_layer((run.step, stage), info.layer, (from, to, busy));
        let mut args = String::new();
        put_number(&mut args, "step", run.step.into());
        put_text(&mut args, "module", &info.scope);
        self.put_parts(&mut args, run.owner as usize, count);
        put_number(&mut args, "kernels", run.spans.len() as u64);
        self.put_work(&mut args, &work, busy);
        let stack = self.stack_of(run.step, run.owner);
        self.put_stack(&mut args, stack);
        let name = title(&info);
        self.device_span((OPS, "ops"), &name, "gpu_op", (from, to), args);
        for span in &run.spans {
            let ns = span.end_ns - span.start_ns;
            self.gpu_span(span, stage, &info, &share(&work, ns, busy));
        }
    }

    /// Names the other ops that run within a fused one.
    fn put_parts(&self, args: &mut String, first: usize, count: usize) {
        if count > 1
            && let Some(parts) = self.model_ops().get(first + 1..first + count)
        {
            let list: Vec<String> =
                parts.iter().map(|p| format!("{} {}", p.name, p.scope)).collect();
            put_text(args, "with", &list.join("; "));
        }
    }

    fn gpu_span(&mut self, span: &GpuSpan, stage: Stage, info: &OpInfo, work: &Work) {
        let ns = span.end_ns - span.start_ns;
        let mut args = String::new();
        put_number(&mut args, "step", span.step.into());
        put_text(&mut args, "op", &info.name);
        put_text(&mut args, "module", &info.scope);
        if let Some(layer) = info.layer {
            put_number(&mut args, "layer", layer as u64);
        }
        put_number(&mut args, "correlation", span.correlation.into());
        let (name, category) = match &span.work {
            GpuWork::Kernel { name, grid, block, registers, shared } => {
                args.push_str(&format!(", \"grid\": {grid:?}, \"block\": {block:?}"));
                put_number(&mut args, "shared_bytes", (*shared).into());
                if *registers > 0 {
                    put_number(&mut args, "registers", (*registers).into());
                }
                self.put_work(&mut args, work, ns);
                (name.to_string(), "kernel")
            }
            GpuWork::Copy { bytes, to_host } => {
                put_number(&mut args, "bytes", *bytes);
                let way = if *to_host { "device to host" } else { "host to device" };
                (format!("memcpy {way}"), "gpu_memcpy")
            }
            GpuWork::Set { bytes } => {
                put_number(&mut args, "bytes", *bytes);
                ("memset".to_owned(), "gpu_memset")
            }
            GpuWork::Launch | GpuWork::Wait => return,
        };
        let stream = format!("stream {}", span.stream);
        let times = (span.start_ns, span.end_ns);
        let to = self.device_span((span.stream.into(), &stream), &name, category, times, args);
        if let Some(from) = self.launch_of(span.correlation) {
            self.arrow("launch", from, to);
        }
        self.summary.kernel(stage, (&name, info), ns, work);
    }

    /// A span of the device. Kernels may overlap a little (the next one starts early); a row holds
    /// one after the other, so the later is cut and says by how much.
    fn device_span(
        &mut self,
        (tid, row_name): (u64, &str),
        name: &str,
        category: &str,
        (from, to): (u64, u64),
        mut args: String,
    ) -> (Row, u64) {
        let row = self.device_row(tid, row_name);
        let filled = self.passing.filled.entry(tid).or_default();
        let start = from.max((*filled).min(to));
        *filled = (*filled).max(to);
        if start > from {
            put_number(&mut args, "started_early_ns", start - from);
        }
        self.out.span(row, Label { name, category }, start, to, &args);
        (row, start)
    }

    fn pass_gpu_layer(
        &mut self,
        (step, stage): (u32, Stage),
        layer: Option<usize>,
        (from_ns, to_ns, busy_ns): (u64, u64, u64),
    ) {
        if let (Some(passing), Some(index)) = (&mut self.passing.layer, layer)
            && (passing.step, passing.index) == (step, index)
        {
            passing.to_ns = to_ns;
            passing.busy_ns += busy_ns;
            return;
        }
        self.end_gpu_layer();
        let new = |index| Layer { step, stage, index, busy_ns, from_ns, to_ns };
        self.passing.layer = layer.map(new);
    }

    fn end_gpu_layer(&mut self) {
        let Some(layer) = self.passing.layer.take() else { return };
        let mut args = String::new();
        put_number(&mut args, "step", layer.step.into());
        put_number(&mut args, "busy_ns", layer.busy_ns);
        let name = format!("layer {}", layer.index);
        let times = (layer.from_ns, layer.to_ns);
        self.device_span((LAYERS, "layers"), &name, "gpu_layer", times, args);
        self.summary.layer(layer.stage, layer.index, layer.busy_ns);
    }

    /// Where the GPU idled within the step, once the step is known whole.
    fn end_whole(&mut self) {
        let whole = std::mem::take(&mut self.passing.whole);
        let forward = self.step_of(whole.step).and_then(|s| s.forward);
        if let (Some((from, to)), true) = (forward, whole.last_ns > 0) {
            let inside = whole.last_ns.saturating_sub(whole.first_ns);
            self.summary.gpu_idle([
                whole.first_ns.saturating_sub(from),
                inside.saturating_sub(whole.busy_ns),
                to.saturating_sub(whole.last_ns),
            ]);
        }
    }

    /// Stage of a step, and the least work of `count` ops of it.
    fn work_of(&mut self, step: u32, first: usize, count: usize) -> (Stage, Work) {
        let model = self.model();
        let Some(step) = self.step_of(step) else { return (Stage::Mixed, Work::default()) };
        if let (Some(model), true) = (model, step.works.is_empty()) {
            step.works = model.works(&step.batch);
        }
        let mut sum = Work::default();
        let parts = step.works.get(first..first.saturating_add(count)).unwrap_or_default();
        parts.iter().for_each(|w| sum += *w);
        (step.stage.unwrap_or(Stage::Mixed), sum)
    }
}

impl Step {
    /// The device's part, once it has ended.
    pub fn ended(&mut self, from_ns: u64, to_ns: u64) {
        self.forward = Some((from_ns, to_ns));
    }
}

/// `linear q_proj`: the op with the last part of its module.
fn title(info: &OpInfo) -> String {
    let last = info.scope.rsplit('.').next().unwrap_or_default();
    format!("{} {last}", info.name).trim_end().to_owned()
}

/// The part of an op's work that `ns` of its `busy` nanoseconds stand for.
fn share(work: &Work, ns: u64, busy: u64) -> Work {
    let of = |x: u64| (u128::from(x) * u128::from(ns) / u128::from(busy.max(1))) as u64;
    match ns == busy {
        true => *work,
        false => Work {
            flops: of(work.flops),
            weight_bytes: of(work.weight_bytes),
            kv_bytes: of(work.kv_bytes),
            activation_bytes: of(work.activation_bytes),
        },
    }
}
