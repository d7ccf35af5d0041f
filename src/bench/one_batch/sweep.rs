//! All shapes of a command line, in SGLang's order.

use super::case::{Bench, Samples, Shape};
use super::profile::{self, CaseProfile};
use super::{OneBatch, inputs, text};
use crate::error::{Error, Result};
use crate::types::TokenId;

/// What to run.
#[derive(Debug, Clone)]
pub struct Sweep {
    pub batch_sizes: Vec<usize>,
    pub input_lens: Vec<usize>,
    pub output_lens: Vec<usize>,
    /// Prompts that replace random ids; `input_lens` then has no meaning.
    pub prompts: Option<Vec<String>>,
    /// Seed of random ids.
    pub seed: u64,
    /// A timeline of each case, if wanted.
    pub profile: Option<CaseProfile>,
}

/// Hears about a sweep while it runs; printing and writing happen there.
pub trait Observer {
    /// A line for the user: `Warmup ...`, `Benchmark ...`, a skipped shape.
    fn line(&mut self, line: &str) -> Result<()>;

    /// `done` of `total` passes are over.
    fn progress(&mut self, done: usize, total: usize);

    /// A shape is measured, wholly or up to an interruption.
    fn case(&mut self, subject: &dyn OneBatch, samples: &Samples) -> Result<()>;
}

/// Runs every shape. Returns how many were measured.
///
/// # Errors
/// `Limit` if not one shape fits, `Interrupted` if the user asked to stop (cases measured so far
/// have been handed over), else what the subject or the observer reports.
pub fn run(
    bench: &Bench,
    subject: &mut dyn OneBatch,
    sweep: &Sweep,
    observer: &mut dyn Observer,
) -> Result<usize> {
    let prompts = tokenized(subject, sweep)?;
    let shapes = shapes(sweep, prompts.as_deref());
    let (mut measured, mut ticks) = (0, 0);
    let total = shapes.len() * bench.effort.repeat;
    for (index, &shape) in shapes.iter().enumerate() {
        if let Some(reason) = misfit(subject, shape) {
            observer.line(&reason)?;
            ticks += bench.effort.repeat;
            continue;
        }
        let ids = match &prompts {
            Some(prompts) => {
                let (ids, message) = inputs::fit(prompts, shape.batch_size);
                message.iter().try_for_each(|m| observer.line(m))?;
                ids
            }
            None => random(subject, sweep.seed, shape),
        };
        let first = measured == 0;
        if first {
            observer.line("Warmup ...")?;
        }
        bench.warm_up(subject, &ids, shape.output_len)?;
        if first {
            observer.line("Benchmark ...")?;
        }
        let mut tick = || {
            ticks += 1;
            observer.progress(ticks, total);
        };
        let samples = bench.measure(subject, shape, &ids, &mut tick)?;
        if let Some(samples) = samples {
            observer.case(subject, &samples)?;
            measured += 1;
        }
        if let (Some(wanted), false) = (&sweep.profile, bench.interrupt.asked()) {
            profile::run(subject, shape, &ids, wanted, observer)?;
        }
        if bench.interrupt.asked() {
            let left = shapes.len() - index - 1;
            let done = format!("{measured} cases reported, {left} not begun");
            return Err(bench.interrupt.error(&done));
        }
    }
    match measured {
        0 => Err(Error::limit("no shape of the sweep fits; see the messages above")),
        n => Ok(n),
    }
}

/// The product batch × input × output, output varying fastest.
pub fn shapes(sweep: &Sweep, prompts: Option<&[Vec<TokenId>]>) -> Vec<Shape> {
    let longest = prompts.map(|p| vec![p.iter().map(Vec::len).max().unwrap_or(0)]);
    let input_lens = longest.as_ref().unwrap_or(&sweep.input_lens);
    let mut shapes = Vec::new();
    for &batch_size in &sweep.batch_sizes {
        for &input_len in input_lens {
            for &output_len in &sweep.output_lens {
                shapes.push(Shape { batch_size, input_len, output_len });
            }
        }
    }
    shapes
}

fn random(subject: &dyn OneBatch, seed: u64, shape: Shape) -> Vec<Vec<TokenId>> {
    let vocab = subject.describe().vocab_size;
    inputs::random(seed, vocab, shape.batch_size, shape.input_len)
}

fn tokenized(subject: &dyn OneBatch, sweep: &Sweep) -> Result<Option<Vec<Vec<TokenId>>>> {
    let Some(prompts) = &sweep.prompts else { return Ok(None) };
    let mut all = Vec::with_capacity(prompts.len());
    for (i, prompt) in prompts.iter().enumerate() {
        let ids = subject.tokenize(prompt).map_err(|e| e.context(format!("prompt {}", i + 1)))?;
        if ids.is_empty() {
            return Err(Error::usage(format!("prompt {}: no tokens in it", i + 1)));
        }
        all.push(ids);
    }
    Ok(Some(all))
}

/// Why a shape cannot run: the cache is too small (SGLang's rule and message), or the model's
/// context is.
fn misfit(subject: &dyn OneBatch, shape: Shape) -> Option<String> {
    let sequence = shape.input_len.saturating_add(shape.output_len);
    if shape.batch_size > subject.capacity_tokens() / sequence.max(1) {
        return Some(text::skipped(shape));
    }
    let context = subject.describe().context;
    (sequence > context).then(|| {
        let Shape { batch_size, input_len, output_len } = shape;
        format!(
            "skipping ({batch_size}, {input_len}, {output_len}): {sequence} tokens exceed the \
             context of {context}"
        )
    })
}
