//! Runs a saved step again: the same sequences with as many cached and new tokens, on this device,
//! with the op table of other cases beside what was recorded.

use serde_json::{Value, json};

use super::case::Effort;
use super::ops::{self, OpTable};
use crate::device::{Batch, Device, Limits, Loaded, Span};
use crate::engine::model::Model;
use crate::error::{Error, Result};
use crate::measure::clock::Clock;
use crate::measure::interrupt::Interrupt;
use crate::measure::json::{number, summary};
use crate::measure::{rng, stats};
use crate::model::cost::StepShape;
use crate::profile::recorder::Recorder;
use crate::profile::step::{OpTotal, Sequence, StepFile};
use crate::types::TokenId;

/// How to run it.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    pub effort: Effort,
    /// Of the token ids.
    pub seed: u64,
    pub page_size: usize,
}

/// What running it again came to.
#[derive(Debug, Clone)]
pub struct Replayed {
    /// The device's part of each measured pass, seconds.
    pub passes: Vec<f64>,
    /// Of one more pass.
    pub ops: OpTable,
    /// `cpu`, `cuda`, `emulated`.
    pub device: String,
}

/// Tokens of a step that fills the cache.
const FILL: usize = 512;
/// Records kept of the pass for the op table.
const RECORDS: usize = 1 << 16;

/// The sequences of a step with their pages on a loaded model.
struct Sequences<'a> {
    loaded: Box<dyn Loaded>,
    list: &'a [Sequence],
    /// First page of each.
    pages: Vec<usize>,
    page_size: usize,
    vocab: u64,
    seed: u64,
    interrupt: &'a Interrupt,
}

/// Fills the cache with what was in it, then runs the step `warmup` and `repeat` times.
///
/// # Errors
/// `Usage` for a step that this model cannot have run; what the device says.
pub fn run(
    model: &Model,
    device: &dyn Device,
    file: &StepFile,
    wanted: &Wanted,
    (clock, interrupt): (&dyn Clock, &Interrupt),
) -> Result<Replayed> {
    let (limits, pages) = limits(model, file, wanted.page_size)?;
    let loaded = device.prepare(&model.plan, &model.weights, &limits, &mut |_, _| {})?;
    let mut step = Sequences {
        loaded,
        list: &file.sequences,
        pages,
        page_size: wanted.page_size,
        vocab: model.config.vocab_size as u64,
        seed: wanted.seed,
        interrupt,
    };
    step.fill(limits.step_tokens)?;
    for _ in 0..wanted.effort.warmup {
        step.whole(&mut Recorder::off())?;
    }
    let mut passes = Vec::new();
    for _ in 0..wanted.effort.repeat {
        let start = clock.now_ns();
        step.whole(&mut Recorder::off())?;
        passes.push(clock.now_ns().saturating_sub(start) as f64 * 1e-9);
    }
    let mut recorder = Recorder::with_capacity(RECORDS);
    step.whole(&mut recorder)?;
    let shape = StepShape {
        sequences: file.sequences.iter().map(|s| (s.past, s.new)).collect(),
        logit_rows: file.sequences.iter().map(|s| s.logits).sum(),
    };
    let ops = ops::table(&model.plan, &step.loaded.storage(), &recorder, &[shape]);
    Ok(Replayed { passes, ops, device: device.info().kind.to_owned() })
}

/// What the step needs, and the first page of each of its sequences.
fn limits(model: &Model, file: &StepFile, page_size: usize) -> Result<(Limits, Vec<usize>)> {
    let (mut first, mut pages) = (Vec::new(), 0);
    for (i, s) in file.sequences.iter().enumerate() {
        let length = s.past + s.new;
        if length > model.context {
            let context = model.context;
            let what = format!("sequences[{i}]: {length} tokens, and the context has {context}");
            return Err(Error::usage(format!("{what}; give the model that the step was run with")));
        }
        first.push(pages);
        pages += length.div_ceil(page_size);
    }
    let longest = file.sequences.iter().map(|s| s.past).max().unwrap_or(0);
    let limits = Limits {
        step_tokens: file.tokens().max(longest.min(FILL)),
        step_sequences: file.sequences.len(),
        logit_rows: file.sequences.iter().map(|s| s.logits).sum::<usize>().max(1),
        pages,
        page_size,
        context: model.context,
    };
    Ok((limits, first))
}

impl Sequences<'_> {
    fn token(&self, sequence: usize, position: usize) -> TokenId {
        rng::below(self.seed, (sequence as u64) << 32 | position as u64, self.vocab) as TokenId
    }

    /// Computes what was cached, in pieces.
    fn fill(&mut self, most: usize) -> Result<()> {
        for (index, sequence) in self.list.iter().enumerate() {
            for past in (0..sequence.past).step_by(most) {
                let new = most.min(sequence.past - past);
                self.step(&[(index, Sequence { past, new, logits: 0 })], &mut Recorder::off())?;
            }
        }
        Ok(())
    }

    /// The step itself.
    fn whole(&mut self, recorder: &mut Recorder) -> Result<()> {
        let all: Vec<(usize, Sequence)> = self.list.iter().copied().enumerate().collect();
        self.step(&all, recorder)
    }

    fn step(&mut self, pieces: &[(usize, Sequence)], recorder: &mut Recorder) -> Result<()> {
        if self.interrupt.asked() {
            return Err(self.interrupt.error("nothing written"));
        }
        let (mut tokens, mut spans) = (Vec::new(), Vec::new());
        let (mut pages, mut logit_rows): (Vec<u32>, Vec<usize>) = (Vec::new(), Vec::new());
        for &(index, Sequence { past, new, logits }) in pieces {
            let (start, pages_start) = (tokens.len(), pages.len());
            spans.push(Span { start, len: new, past, pages_start });
            tokens.extend((past..past + new).map(|position| self.token(index, position)));
            let first = self.pages[index];
            let count = (past + new).div_ceil(self.page_size);
            pages.extend((first..first + count).map(|page| page as u32));
            logit_rows.extend(start + new - logits..start + new);
        }
        let batch =
            Batch { tokens: &tokens, spans: &spans, pages: &pages, logit_rows: &logit_rows };
        self.loaded.step(&batch, recorder)
    }
}

/// An op, and its seconds as recorded and as it ran again.
type Pair = (String, Option<f64>, Option<f64>);

/// All ops of both.
fn pairs<'a>(file: &'a StepFile, again: &'a OpTable) -> Vec<Pair> {
    let key = |op: &str, module: &str| format!("{op} {module}").trim_end().to_owned();
    let old = |o: &'a OpTotal| (key(&o.op, &o.module), o.seconds);
    let old: std::collections::BTreeMap<String, f64> = file.ops.iter().map(old).collect();
    let mut pairs: Vec<_> = again
        .ops
        .iter()
        .map(|o| {
            let key = key(&o.op, &o.scope);
            let recorded = old.get(&key).copied();
            (key, recorded, Some(o.total))
        })
        .collect();
    let missing = old.iter().filter(|(k, _)| !pairs.iter().any(|p| p.0 == **k));
    let missing: Vec<_> = missing.map(|(k, s)| (k.clone(), Some(*s), None)).collect();
    pairs.extend(missing);
    pairs
        .sort_by(|a, b| b.2.or(b.1).partial_cmp(&a.2.or(a.1)).unwrap_or(std::cmp::Ordering::Equal));
    pairs
}

/// The printed lines.
pub fn text(file: &StepFile, again: &Replayed) -> Vec<String> {
    let cached: usize = file.sequences.iter().map(|s| s.past).sum();
    let mut lines = vec![
        format!(
            "step {} ({}): {} sequences, {} new tokens, {cached} cached; saved because {}",
            file.step,
            file.stage.name(),
            file.sequences.len(),
            file.tokens(),
            if file.why.is_empty() { "of nothing that it says" } else { &file.why }
        ),
        format!(
            "  recorded on {}: {:.3} ms, {:.3} ms of it on the device",
            if file.device.is_empty() { "an unknown device" } else { &file.device },
            file.seconds * 1e3,
            file.forward * 1e3
        ),
    ];
    if let Some(s) = stats::summary(&again.passes) {
        let (low, high) = (s.interval.low * 1e3, s.interval.high * 1e3);
        let share = match file.forward > 0.0 {
            true => format!(", {:.1} % of the recorded", 100.0 * s.median / file.forward),
            false => String::new(),
        };
        lines.push(format!(
            "  replayed on {}: {:.3} ms [{low:.3}, {high:.3}] on the device, {} passes{share}",
            again.device,
            s.median * 1e3,
            s.n
        ));
    }
    let pairs = pairs(file, &again.ops);
    if !pairs.is_empty() {
        lines.push(format!("    {:>11} {:>11}  op", "recorded ms", "replayed ms"));
    }
    let ms = |s: &Option<f64>| s.map_or("-".into(), |s| format!("{:.3}", s * 1e3));
    let line = |(op, old, new): &Pair| format!("    {:>11} {:>11}  {op}", ms(old), ms(new));
    lines.extend(pairs.iter().take(16).map(line));
    lines
}

/// The row.
pub fn row(name: &str, file: &StepFile, again: &Replayed) -> Value {
    let pairs = pairs(file, &again.ops).into_iter();
    let op = |(op, old, new): Pair| json!({"op": op, "recorded_s": old, "replayed_s": new});
    let ops: Vec<Value> = pairs.map(op).collect();
    json!({
        "replay": name,
        "step": file.step,
        "stage": file.stage.name(),
        "batch_size": file.sequences.len(),
        "new_tokens": file.tokens(),
        "cached_tokens": file.sequences.iter().map(|s| s.past).sum::<usize>(),
        "recorded_device": file.device,
        "recorded_s": number(file.seconds),
        "recorded_forward_s": number(file.forward),
        "device": again.device,
        "replayed_forward_s": summary(stats::summary(&again.passes).as_ref()),
        "replayed_samples_s": again.passes,
        "ops": ops,
        "lost_records": again.ops.dropped,
    })
}
