//! One shape: warms it up, measures it, keeps every sample.

use super::gpu_ops::Account;
use super::ops::{self, OpTable};
use super::{Achieved, OneBatch};
use crate::error::{Error, Kind, Result};
use crate::measure::clock::{Clock, ClockFacts};
use crate::measure::interrupt::Interrupt;
use crate::measure::machine::{Machine, Watch};
use crate::model::cost::{Cost, StepShape};
use crate::profile::recorder::Recorder;
use crate::types::TokenId;

/// One point of a sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    pub batch_size: usize,
    /// Tokens of each prompt as asked for; prompts from a file have their own lengths.
    pub input_len: usize,
    pub output_len: usize,
}

/// How often a shape is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effort {
    /// Passes before anything is measured.
    pub warmup: usize,
    /// Measured passes, at least 1.
    pub repeat: usize,
}

/// One measured pass, seconds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pass {
    /// The whole prompt step, with the first token sampled.
    pub prefill: f64,
    /// Each decode step, waiting for the device after each.
    pub decode: Vec<f64>,
}

impl Pass {
    /// Prefill and all decode steps; time between steps is not counted, as SGLang does.
    pub fn total(&self) -> f64 {
        self.prefill + self.decode.iter().sum::<f64>()
    }
}

/// One back-to-back run of all decode steps.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Run {
    /// All steps together on our clock, seconds.
    pub elapsed: f64,
    /// Each step as the subject reports it, seconds.
    pub steps: Vec<f64>,
}

/// Everything that was measured of one shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Samples {
    pub shape: Shape,
    /// Tokens of each prompt.
    pub input_lens: Vec<usize>,
    pub passes: Vec<Pass>,
    pub runs: Vec<Run>,
    /// Tokens after the last complete pass.
    pub achieved: Achieved,
    /// Least work of the prefill, and of all decode steps of a pass; `None` without a plan.
    pub prefill_cost: Option<Cost>,
    pub decode_cost: Option<Cost>,
    pub prefill_ops: OpTable,
    pub decode_ops: OpTable,
    pub machine: Machine,
    pub clock: ClockFacts,
    /// The user asked to stop before all passes were done.
    pub interrupted: bool,
}

/// What measuring needs beside the subject.
pub struct Bench<'a> {
    pub clock: &'a dyn Clock,
    pub interrupt: &'a Interrupt,
    pub effort: Effort,
}

/// Decode steps of a pass with the recorder on: enough for a table of where time goes.
const RECORDED_STEPS: usize = 8;
/// Records kept in such a pass.
const RECORDS: usize = 1 << 16;
/// A warm-up decodes no longer than SGLang's.
const WARMUP_STEPS: usize = 32;

impl Bench<'_> {
    /// Runs the shape without keeping times.
    pub fn warm_up(
        &self,
        subject: &mut dyn OneBatch,
        ids: &[Vec<TokenId>],
        output_len: usize,
    ) -> Result<()> {
        for _ in 0..self.effort.warmup {
            subject.clear()?;
            subject.prefill(ids)?;
            for _ in 1..output_len.min(WARMUP_STEPS) {
                if self.interrupt.asked() {
                    return Ok(());
                }
                subject.decode_step()?;
            }
        }
        Ok(())
    }

    /// Measures a warm shape. `None` if the user asked to stop before one pass was complete.
    pub fn measure(
        &self,
        subject: &mut dyn OneBatch,
        shape: Shape,
        ids: &[Vec<TokenId>],
        tick: &mut dyn FnMut(),
    ) -> Result<Option<Samples>> {
        let mut watch = Watch::start();
        let (mut passes, mut runs) = (Vec::new(), Vec::new());
        let mut achieved = Achieved::default();
        for _ in 0..self.effort.repeat {
            let Some(pass) = self.pass(subject, ids, shape.output_len)? else { break };
            achieved = subject.achieved();
            passes.push(pass);
            if shape.output_len > 1 && !self.interrupt.asked() {
                runs.push(self.run(subject, ids, shape.output_len - 1)?);
            }
            watch.look();
            tick();
        }
        if passes.is_empty() {
            return Ok(None);
        }
        let machine = watch.finish();
        let runs_wanted = if shape.output_len > 1 { self.effort.repeat } else { 0 };
        let interrupted = passes.len() < self.effort.repeat || runs.len() < runs_wanted;
        let (prefill_ops, decode_ops) = match self.interrupt.asked() {
            true => Default::default(),
            false => record(subject, shape, ids)?,
        };
        let input_lens: Vec<usize> = ids.iter().map(Vec::len).collect();
        let steps = ops::decode_shapes(&input_lens, shape.output_len - 1);
        let least =
            |steps: &[StepShape]| Some(ops::least(subject.plan()?, &subject.storage(), steps));
        Ok(Some(Samples {
            shape,
            prefill_cost: least(&[ops::prefill_shape(&input_lens)]),
            decode_cost: least(&steps),
            input_lens,
            passes,
            runs,
            achieved,
            prefill_ops,
            decode_ops,
            machine,
            clock: self.clock.facts(),
            interrupted,
        }))
    }

    /// One pass with a wait after every step. `None` if the user asked to stop in the middle.
    fn pass(
        &self,
        subject: &mut dyn OneBatch,
        ids: &[Vec<TokenId>],
        output_len: usize,
    ) -> Result<Option<Pass>> {
        if self.interrupt.asked() {
            return Ok(None);
        }
        subject.clear()?;
        let mut pass = Pass { prefill: self.timed(|| subject.prefill(ids))?, decode: Vec::new() };
        for _ in 1..output_len {
            if self.interrupt.asked() {
                return Ok(None);
            }
            pass.decode.push(self.timed(|| subject.decode_step())?);
        }
        Ok(Some(pass))
    }

    /// All decode steps once more, back to back, over the same cached prompts.
    fn run(&self, subject: &mut dyn OneBatch, ids: &[Vec<TokenId>], steps: usize) -> Result<Run> {
        if !subject.rewind()? {
            subject.clear()?;
            subject.prefill(ids)?;
        }
        let mut each = Vec::new();
        let elapsed = self.timed(|| {
            each = subject.decode_run(steps)?;
            Ok(())
        })?;
        if each.len() != steps {
            let what = format!("decode_run gave {} times for {steps} steps", each.len());
            return Err(Error::new(Kind::Device, what));
        }
        Ok(Run { elapsed, steps: each.into_iter().map(|ns| ns as f64 * 1e-9).collect() })
    }

    /// Seconds that `what` takes.
    fn timed(&self, what: impl FnOnce() -> Result<()>) -> Result<f64> {
        let start = self.clock.now_ns();
        what()?;
        Ok(self.clock.now_ns().saturating_sub(start) as f64 * 1e-9)
    }
}

/// One more pass with the recorder on, which no reported time includes: the op tables of prefill
/// and of the first decode steps.
fn record(
    subject: &mut dyn OneBatch,
    shape: Shape,
    ids: &[Vec<TokenId>],
) -> Result<(OpTable, OpTable)> {
    if subject.plan().is_none() {
        return Ok(Default::default());
    }
    subject.clear()?;
    let account = Account::open(subject);
    let recorder = || {
        let mut recorder = Recorder::with_capacity(RECORDS);
        recorder.wants.gpu = account.is_some();
        recorder
    };
    let usual = subject.swap_recorder(recorder());
    let outcome = subject.prefill(ids);
    let prefilled = account.as_ref().map(|a| a.take());
    let prefill = subject.swap_recorder(recorder());
    let steps = (shape.output_len - 1).min(RECORDED_STEPS);
    let outcome = outcome.and_then(|()| (0..steps).try_for_each(|_| subject.decode_step()));
    let decode = subject.swap_recorder(usual);
    let decoded = account.as_ref().map(|a| a.take());
    outcome?;
    let subject: &dyn OneBatch = subject;
    let lens: Vec<usize> = ids.iter().map(Vec::len).collect();
    let Some(plan) = subject.plan() else { return Ok(Default::default()) };
    let storage = subject.storage();
    let (first, then) = (vec![ops::prefill_shape(&lens)], ops::decode_shapes(&lens, steps));
    let table = |recorder, taken, shapes: &[StepShape]| match (&account, taken) {
        (Some(account), Some(taken)) => account.table(subject, plan, &storage, taken, shapes),
        _ => ops::table(plan, &storage, recorder, shapes),
    };
    Ok((table(&prefill, prefilled, &first), table(&decode, decoded, &then)))
}
