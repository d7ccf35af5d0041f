//! A loaded model: one copy in, kernels or a graph of them, one copy back.

use std::sync::Arc;

use super::abi;
use super::choose::Card;
use super::driver::{DevicePtr, Driver, Pinned, Stream, pinned_bytes};
use super::graphs::{self, Captured, Graphs};
use super::inputs::{Counts, Inputs};
use super::kernels::{Kernel, Kernels};
use super::launch::{Launchable, Step};
use super::layout::Layout;
use super::memory::Memory;
use super::ops::Prepared;
use super::sample::{MOST, Sampler};
use super::trace::{self, Node, Queued, StepTrace, Tracer};
use crate::device::check::check_batch;
use crate::device::sampling::{Most, Sampled, Sampling, Wanted};
use crate::device::{Batch, Limits, Loaded, MemoryUse};
use crate::error::{Error, Result};
use crate::model::cost::{StepShape, Storage};
use crate::model::plan::{Plan, View};
use crate::profile::gpu::{self, GpuTrace};
use crate::profile::recorder::{Event, Ranges, Recorder};
use crate::profile::stack;
use crate::types::Dtype;

/// Copies one page to another in every layer.
pub struct PageCopy {
    pub kernel: Kernel,
    pub k_layers: DevicePtr,
    pub v_layers: DevicePtr,
}

/// What loading makes.
pub struct Parts {
    pub plan: Plan,
    pub limits: Limits,
    pub kernels: Kernels,
    pub inputs: Inputs,
    pub angles: Vec<Box<dyn Launchable>>,
    pub ops: Vec<Prepared>,
    pub page_copy: PageCopy,
    pub buffers: Vec<DevicePtr>,
    pub sampler: Option<Sampler>,
    pub logits_at: DevicePtr,
    pub logits: Pinned,
    pub dtype: Dtype,
    pub layout: Layout,
    /// What a user should know of how the model was loaded.
    pub notes: Vec<String>,
    /// What choices were made for, and what they were.
    pub card: Card,
    pub choices: Vec<String>,
}

/// A model on a GPU. Fields are dropped in order: graphs and kernels before the memory they use.
pub struct GpuLoaded {
    graphs: Graphs,
    parts: Parts,
    memory: Memory,
    stream: Stream,
    driver: Arc<dyn Driver>,
    logit_rows: usize,
    /// Number of the last step.
    steps: u32,
    tracer: Arc<Tracer>,
    matrix_bytes: Box<dyn Fn(usize) -> u64 + Send>,
}

impl GpuLoaded {
    /// # Errors
    /// If the driver refuses a stream.
    pub fn new(
        driver: Arc<dyn Driver>,
        memory: Memory,
        parts: Parts,
        graphs: Graphs,
    ) -> Result<Self> {
        let stream = driver.create_stream()?;
        let matrices = parts.plan.matrices.iter().enumerate();
        let bytes: Vec<u64> = matrices.map(|(id, m)| parts.layout.read(id, m)).collect();
        let matrix_bytes = Box::new(move |id: usize| bytes.get(id).copied().unwrap_or(0));
        let fused = parts.ops.iter().map(|p| (p.first, p.count)).collect();
        let tracer = Arc::new(Tracer::new(Arc::clone(&driver), fused));
        let logit_rows = 0;
        Ok(GpuLoaded {
            graphs,
            parts,
            memory,
            stream,
            driver,
            logit_rows,
            steps: 0,
            tracer,
            matrix_bytes,
        })
    }

    /// Captures a decode step of `size` sequences.
    ///
    /// # Errors
    /// If the driver refuses it.
    pub fn capture(&mut self, size: usize) -> Result<()> {
        let depth = self.parts.inputs.decode_depth(size).min(self.parts.limits.context);
        let counts = graphs::counts(size, depth);
        let (parts, driver, stream) = (&self.parts, &*self.driver, self.stream);
        self.graphs.capture((size, depth), stream, &mut |nodes| {
            let step = Step { nodes: Some(nodes), ..Step::new(driver, stream, counts) };
            launch_all(parts, step, None)
        })?;
        self.tracer.graph(self.graphs.list.last().map(|c| c.nodes.clone()).unwrap_or_default());
        Ok(())
    }

    /// Captured steps: size, and each node with the op of the plan that it belongs to.
    pub fn graph_table(&self) -> impl Iterator<Item = (usize, &[Node])> {
        self.graphs.list.iter().map(|c| (c.size, c.nodes.as_slice()))
    }

    /// The plan's op that node `handle` of a captured step belongs to: scope and layer.
    pub fn node_op(&self, handle: u64) -> Option<&crate::model::plan::PlannedOp> {
        let nodes = self.graphs.list.iter().flat_map(|c| &c.nodes);
        let node = nodes.into_iter().find(|n| n.handle == handle)?;
        self.parts.plan.ops.get(node.owner as usize)
    }

    /// The card as choices of kernels see it.
    pub fn card(&self) -> &Card {
        &self.parts.card
    }

    /// Kernels that a step launches without a graph.
    pub fn launches(&self) -> usize {
        self.graphs.list.first().map_or(0, |c| c.nodes.len())
    }

    /// Row `row` of a view as the last step left it: for checking one op against another device.
    ///
    /// # Errors
    /// If the row is outside the buffer, or the driver fails.
    pub fn row(&self, view: &View, row: usize) -> Result<Vec<f32>> {
        let buffer = &self.parts.plan.buffers[view.buffer];
        let wide = view.buffer == self.parts.plan.logits.buffer;
        let size = if wide { 4 } else { 2 };
        let at =
            self.parts.buffers[view.buffer] + ((row * buffer.width + view.offset) * size) as u64;
        let mut bytes = vec![0; view.width * size];
        self.driver.download(&mut bytes, at)?;
        let half = self.parts.dtype == Dtype::F16;
        let number = |b: &[u8]| match (wide, half) {
            (true, _) => f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
            (false, true) => half::f16::from_le_bytes([b[0], b[1]]).to_f32(),
            (false, false) => half::bf16::from_le_bytes([b[0], b[1]]).to_f32(),
        };
        Ok(bytes.chunks_exact(size).map(number).collect())
    }

    /// The captured step that serves a batch, and its number.
    fn graph_of(&self, batch: &Batch) -> Option<(usize, &Captured)> {
        let sequences = batch.spans.len();
        let decode = batch.spans.iter().all(|s| s.len == 1) && batch.logit_rows.len() == sequences;
        let deepest = batch.spans.iter().map(|s| s.past + s.len).max().unwrap_or(0);
        if decode { self.graphs.find(sequences, deepest) } else { None }
    }

    /// Queues a step: its input, its kernels, and the copy back of logits or of sampled tokens.
    fn run(
        &mut self,
        batch: &Batch,
        sampling: Option<&Sampling>,
        mut trace: Option<&mut StepTrace>,
        ranges: &mut Option<Box<dyn Ranges>>,
    ) -> Result<()> {
        let split = trace.as_ref().is_some_and(|t| t.splits_graphs());
        let graph = if split { None } else { self.graph_of(batch) };
        let pad = graph.map_or(0, |g| g.1.size);
        let (parts, driver, stream) = (&self.parts, &*self.driver, self.stream);
        let sampling = sampling.zip(parts.sampler.as_ref());
        if let Some((wanted, sampler)) = sampling {
            sampler.send(driver, stream, wanted)?;
        }
        let counts = parts.inputs.send(driver, stream, batch, pad, trace.as_deref_mut())?;
        match graph {
            Some((index, graph)) => {
                if let Some(ranges) = ranges {
                    let ops: Vec<usize> = graph.nodes.iter().map(|n| n.owner as usize).collect();
                    ranges.graph(&ops);
                }
                let what = Queued::Graph(index);
                trace::around(trace.as_deref_mut(), stream, gpu::GRAPH, what, &mut || {
                    self.graphs.launch(graph, stream)
                })?;
                if let Some(ranges) = ranges {
                    ranges.pop();
                }
            }
            None => {
                let trace = trace.as_deref_mut();
                let ranges = ranges.as_deref_mut();
                launch_all(parts, Step { trace, ..Step::new(driver, stream, counts) }, ranges)?;
            }
        }
        let op = gpu::SAMPLING as usize;
        let mut step = Step { op, trace, ..Step::new(driver, stream, counts) };
        if let Some((wanted, sampler)) = sampling {
            sampler.launch(&mut step, wanted)?;
        }
        let wanted =
            |row: usize| sampling.is_none_or(|(s, _)| s.rows[row].wanted == Wanted::Logits);
        bring(parts, &mut step, batch.logit_rows.len(), &wanted)
    }

    /// A checked step, waited for.
    fn whole(
        &mut self,
        batch: &Batch,
        sampling: Option<&Sampling>,
        recorder: &mut Recorder,
    ) -> Result<()> {
        let begin = recorder.now();
        check_batch(batch, &self.parts.limits, self.parts.plan.vocab_size)?;
        self.logit_rows = sampling.map_or(batch.logit_rows.len(), Sampling::logits);
        self.steps = recorder.step as u32;
        let mut trace = self.tracer.step(recorder);
        let asking = stack::asking(recorder.wants.stacks);
        let launched = self.run(batch, sampling, trace.as_mut(), &mut recorder.ranges);
        // Waited for even after a refusal: the next step writes what this one's copy reads.
        self.driver.synchronize(self.stream)?;
        if let Some(trace) = trace {
            trace.finish();
        }
        recorder.stacks(&stack::launches(), begin);
        drop(asking);
        launched?;
        let step = recorder.step;
        recorder.record(Event::Step, step as u32, batch.tokens.len() as u64, begin, recorder.now());
        Ok(())
    }
}

/// Queues the copy of the wanted ones of `rows` rows of logits to the host, one behind the other.
fn bring(
    parts: &Parts,
    step: &mut Step<'_>,
    rows: usize,
    wanted: &dyn Fn(usize) -> bool,
) -> Result<()> {
    let size = parts.plan.vocab_size * 4;
    let (mut row, mut to) = (0, 0);
    while row < rows {
        let end = (row..rows).find(|r| !wanted(*r)).unwrap_or(rows);
        let (from, bytes) = (parts.logits_at + (row * size) as u64, (end - row) * size);
        if bytes > 0 {
            let (driver, stream) = (step.driver, step.stream);
            let what = Queued::Copy { bytes: bytes as u64, to_host: true };
            trace::around(step.trace.as_deref_mut(), stream, gpu::OUTPUT, what, &mut || {
                driver.download_async(parts.logits, to, from, bytes, stream)
            })?;
        }
        (row, to) = (end.max(row + 1), to + bytes);
    }
    Ok(())
}

/// Queues every kernel of a step.
fn launch_all(
    parts: &Parts,
    mut step: Step<'_>,
    mut ranges: Option<&mut (dyn Ranges + 'static)>,
) -> Result<()> {
    step.op = gpu::ANGLES as usize;
    for angles in &parts.angles {
        angles.launch(&mut step)?;
    }
    for prepared in &parts.ops {
        step.op = prepared.first;
        if let Some(ranges) = &mut ranges {
            ranges.op(prepared.first);
        }
        let planned = &parts.plan.ops[prepared.first];
        prepared
            .op
            .launch(&mut step)
            .map_err(|e| e.context(format!("{} ({})", planned.scope, planned.op.name())))?;
        if let Some(ranges) = &mut ranges {
            ranges.pop();
        }
    }
    if let Some(ranges) = ranges {
        ranges.ops_end();
    }
    Ok(())
}

impl Loaded for GpuLoaded {
    fn step(&mut self, batch: &Batch, recorder: &mut Recorder) -> Result<()> {
        self.whole(batch, None, recorder)
    }

    fn samples(&self) -> Option<Most> {
        self.parts.sampler.as_ref().map(|_| MOST)
    }

    fn step_sampled(
        &mut self,
        batch: &Batch,
        sampling: &Sampling,
        out: &mut Sampled,
        recorder: &mut Recorder,
    ) -> Result<()> {
        let rows = batch.logit_rows.len();
        match &self.parts.sampler {
            Some(sampler) => sampler.check(sampling, rows)?,
            None => return Err(Error::unsupported("sampling from a vocabulary of this size")),
        }
        self.whole(batch, Some(sampling), recorder)?;
        if let Some(sampler) = &self.parts.sampler {
            sampler.read(sampling, out);
        }
        Ok(())
    }

    fn logits(&self) -> &[f32] {
        // SAFETY: the step waited for its copy, and nothing writes before the next step.
        let bytes = unsafe { pinned_bytes(self.parts.logits) };
        let numbers = self.logit_rows * self.parts.plan.vocab_size;
        // SAFETY: page-locked memory is aligned to a page, and holds at least that many numbers.
        unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), numbers) }
    }

    fn copy_page(&mut self, from: u32, to: u32, tokens: usize) -> Result<()> {
        let (limits, kv) = (&self.parts.limits, self.parts.plan.kv);
        let inside = |page: u32| (page as usize) < limits.pages;
        if !inside(from) || !inside(to) || tokens > limits.page_size {
            return Err(Error::device(format!(
                "cannot copy {tokens} tokens of page {from} to page {to}: there are {} pages of \
                 {} tokens",
                limits.pages, limits.page_size
            )));
        }
        if from == to || tokens == 0 {
            return Ok(());
        }
        let copy = &self.parts.page_copy;
        let params = abi::PageCopyParams {
            k_layers: copy.k_layers,
            v_layers: copy.v_layers,
            from,
            to,
            tokens: tokens as u32,
            kv_heads: kv.kv_heads as u32,
            page_size: limits.page_size as u32,
            head_dim: kv.head_dim as u32,
        };
        let (driver, stream) = (&*self.driver, self.stream);
        let mut trace = self.tracer.pages(self.steps + 1);
        let mut step = Step::new(driver, stream, Counts::default());
        (step.op, step.trace) = (gpu::PAGES as usize, trace.as_mut());
        step.run(&copy.kernel, [kv.layers as u32, kv.kv_heads as u32, 2], &params)
    }

    fn memory(&self) -> MemoryUse {
        self.memory.used()
    }

    fn storage(&self) -> Storage<'_> {
        Storage { matrix_bytes: &*self.matrix_bytes, kv_element: 2, activation_element: 2 }
    }

    fn gpu_trace(&self) -> Option<Arc<dyn GpuTrace>> {
        let tracer: Arc<Tracer> = Arc::clone(&self.tracer);
        Some(tracer)
    }

    fn declared(&self, shape: &StepShape) -> Vec<(usize, u64)> {
        let counts = Counts::of(shape);
        self.parts.ops.iter().map(|p| (p.first, p.op.traffic(&counts))).collect()
    }

    fn choices(&self) -> &[String] {
        &self.parts.choices
    }

    fn weight_dtype(&self) -> Dtype {
        self.parts.layout.dtype(&self.parts.plan, self.parts.dtype)
    }

    fn notes(&self) -> &[String] {
        &self.parts.notes
    }
}

impl Drop for GpuLoaded {
    fn drop(&mut self) {
        // Queued work still uses what is dropped next. A lost context fails here too.
        let _ = self.driver.synchronize(self.stream);
        let _ = self.driver.destroy_stream(self.stream);
    }
}
