//! A loaded model: checks a batch, walks the plan over buffers allocated once, records each op.

use super::attention;
use super::kv_cache::{KvCache, Place};
use super::matmul::Scratch;
use super::moe;
use super::numbers::Numbers;
use super::ops::rope::Angles;
use super::prepare::{Model, Step, attentions};
use super::run::Run;
use crate::device::check::check_batch;
use crate::device::{Batch, Loaded, MemoryUse};
use crate::error::{Error, Result};
use crate::model::cost::Storage;
use crate::model::plan::{Rows, View};
use crate::profile::recorder::{Event, Recorder};
use crate::profile::stack;
use crate::types::Dtype;

/// A model on the CPU.
pub struct CpuLoaded {
    model: Model,
    state: State,
    logit_rows: usize,
    matrix_bytes: Box<dyn Fn(usize) -> u64 + Send>,
}

/// What steps write: allocated once, from the limits.
pub struct State {
    /// The plan's buffers, each `[rows, width]`.
    pub buffers: Vec<Numbers>,
    pub cache: KvCache,
    pub attention: attention::Workspace,
    pub moe: moe::Workspace,
    pub scratch: Scratch,
    /// One for each of the plan's rotary tables.
    pub angles: Vec<Angles>,
    /// Position, page and slot of each row of the step.
    pub places: Vec<Place>,
}

impl CpuLoaded {
    /// Allocates everything that steps of `model` need.
    ///
    /// # Errors
    /// If it does not fit in memory.
    pub fn new(model: Model) -> Result<Self> {
        let (plan, limits) = (&model.plan, &model.limits);
        let buffer = |rows: Rows, width: usize| {
            let rows = match rows {
                Rows::Tokens => limits.step_tokens,
                Rows::Logits => limits.logit_rows,
            };
            rows.checked_mul(width).and_then(Numbers::zeroed)
        };
        let buffers: Option<Vec<Numbers>> =
            plan.buffers.iter().map(|b| buffer(b.rows, b.width)).collect();
        let buffers = buffers.ok_or_else(|| {
            Error::limit("activations do not fit in memory; lower --chunked-prefill-size")
        })?;
        let cache = KvCache::new(&plan.kv, model.kv, limits)?;
        let (ops, threads) = (attentions(plan), model.pool.threads());
        // No sequence can outgrow the cache.
        let positions = limits.context.min(limits.pages.saturating_mul(limits.page_size));
        let angles: Result<Vec<Angles>> =
            plan.ropes.iter().map(|rope| Angles::new(rope, positions)).collect();
        let state = State {
            buffers,
            attention: attention::Workspace::new(&ops, &cache, threads, limits)?,
            cache,
            moe: moe::Workspace::new(plan, limits)?,
            scratch: model.scratch(),
            angles: angles?,
            places: Vec::with_capacity(limits.step_tokens),
        };
        let bytes = model.matrix_bytes();
        let matrix_bytes = Box::new(move |id: usize| bytes.get(id).copied().unwrap_or(0));
        Ok(CpuLoaded { model, state, logit_rows: 0, matrix_bytes })
    }

    /// Row `row` of a view as the last step left it: for checking one op against another device.
    ///
    /// # Panics
    /// If the view or the row is outside the plan's buffers.
    pub fn row(&self, view: &View, row: usize) -> &[f32] {
        let width = self.model.plan.buffers[view.buffer].width;
        &self.state.buffers[view.buffer][row * width + view.offset..][..view.width]
    }
}

impl Loaded for CpuLoaded {
    fn step(&mut self, batch: &Batch, recorder: &mut Recorder) -> Result<()> {
        let begin = recorder.now();
        check_batch(batch, &self.model.limits, self.model.plan.vocab_size)?;
        self.state.place(batch, self.model.limits.page_size);
        self.logit_rows = batch.logit_rows.len();
        let step = recorder.step;
        let mut run = Run { model: &self.model, state: &mut self.state, batch };
        let asking = stack::asking(recorder.wants.stacks);
        let mut start = recorder.now();
        for planned in &self.model.steps {
            if let Some(ranges) = &mut recorder.ranges {
                let (Step::One(index) | Step::AddNorm(index)) = *planned;
                ranges.op(index);
                run.step(*planned);
                ranges.pop();
            } else {
                run.step(*planned);
            }
            let end = recorder.now();
            let (Step::One(first) | Step::AddNorm(first)) = *planned;
            recorder.stack(first, start);
            match *planned {
                Step::One(index) => recorder.record(Event::Op, index as u32, step, start, end),
                // The pair's time stands at its first op; the second has none of its own.
                Step::AddNorm(index) => {
                    recorder.record(Event::Op, index as u32, step, start, end);
                    recorder.record(Event::Op, index as u32 + 1, step, end, end);
                }
            }
            // What taking a stack takes is nobody's.
            start = if asking.is_some() { recorder.now() } else { end };
        }
        if let Some(ranges) = &mut recorder.ranges {
            ranges.ops_end();
        }
        recorder.record(Event::Step, step as u32, batch.tokens.len() as u64, begin, start);
        Ok(())
    }

    fn logits(&self) -> &[f32] {
        let view = &self.model.plan.logits;
        &self.state.buffers[view.buffer][..self.logit_rows * view.width]
    }

    fn copy_page(&mut self, from: u32, to: u32, tokens: usize) -> Result<()> {
        self.state.cache.copy_page(from, to, tokens)
    }

    fn memory(&self) -> MemoryUse {
        let buffers: usize = self.state.buffers.iter().map(|b| b.len() * 4).sum();
        let products = self.state.scratch.bytes() as u64;
        let angles: u64 = self.state.angles.iter().map(Angles::bytes).sum();
        let spaces = products + angles + self.state.attention.bytes() + self.state.moe.bytes();
        MemoryUse {
            weights: self.model.bytes(),
            kv: self.state.cache.bytes(),
            scratch: buffers as u64 + spaces,
        }
    }

    fn storage(&self) -> Storage<'_> {
        Storage {
            matrix_bytes: &*self.matrix_bytes,
            kv_element: self.state.cache.kind().bytes(),
            activation_element: size_of::<f32>(),
        }
    }

    fn weight_dtype(&self) -> Dtype {
        self.model.weight_dtype()
    }
}

impl State {
    /// Looks up where each row of the step belongs.
    fn place(&mut self, batch: &Batch, page_size: usize) {
        self.places.clear();
        for span in batch.spans {
            for position in span.past..span.past + span.len {
                let page = batch.pages[span.pages_start + position / page_size] as usize;
                self.places.push(Place { position, page, slot: position % page_size });
            }
        }
        let reached = batch.spans.iter().map(|s| s.past + s.len).max().unwrap_or(0);
        self.angles.iter_mut().for_each(|angles| angles.cover(reached));
    }
}
