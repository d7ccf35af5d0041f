//! Figures out of raw samples: medians, intervals, utilisation, validity.

use super::case::Samples;
use crate::bench::ceilings::Ceilings;
use crate::measure::stats::{self, Summary};
use crate::measure::validity::{self, Validity};
use crate::model::cost::Cost;

/// Ceilings, or why there are none.
pub type Ceiling = std::result::Result<Ceilings, String>;

/// How near a phase came to the machine's ceilings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Utilisation {
    /// Model FLOPs utilisation: least operations per second over the peak.
    pub mfu: f64,
    /// Model bandwidth utilisation: least bytes per second over the peak.
    pub mbu: f64,
    /// The time that the nearer ceiling allows, over the time it took.
    pub share_of_ceiling: f64,
    /// Which ceiling is the nearer one: `compute` or `memory`.
    pub bound: &'static str,
}

/// Utilisation of work `cost` that took `seconds`. `None` if the time is zero.
pub fn utilisation(cost: &Cost, seconds: f64, ceilings: &Ceilings) -> Option<Utilisation> {
    let compute = cost.flops as f64 / ceilings.flops_per_s;
    let memory = cost.bytes() as f64 / ceilings.bytes_per_s;
    let bound = if compute > memory { "compute" } else { "memory" };
    (seconds > 0.0).then(|| Utilisation {
        mfu: compute / seconds,
        mbu: memory / seconds,
        share_of_ceiling: compute.max(memory) / seconds,
        bound,
    })
}

/// Decode steps run back to back.
#[derive(Debug, Clone, PartialEq)]
pub struct BackToBack {
    /// Elapsed time over steps, per run.
    pub per_step: Vec<f64>,
    pub summary: Summary,
    /// Of the single steps of all runs, seconds.
    pub p90: f64,
    pub p99: f64,
    /// Tokens per second at the median.
    pub throughput: f64,
}

/// Decode steps with a wait after each.
#[derive(Debug, Clone, PartialEq)]
pub struct Synchronised {
    /// Median over all steps of all passes (SGLang's `median_decode_latency`), seconds.
    pub median: f64,
    /// Tokens per second at that median.
    pub throughput: f64,
    /// Each pass's own median: what the interval is made of, because steps of one pass are not
    /// independent of each other.
    pub pass_medians: Summary,
    pub p90: f64,
    pub p99: f64,
    /// Median over the passes of step 0, 1, …
    pub each_step: Vec<f64>,
}

/// Everything that a row says about one shape, beside the raw samples.
#[derive(Debug, Clone, PartialEq)]
pub struct Figures {
    pub prefill: Summary,
    /// Prompt tokens per second at the median.
    pub prefill_throughput: f64,
    /// `None` if only one token was asked for.
    pub decode: Option<Synchronised>,
    pub back_to_back: Option<BackToBack>,
    /// Prefill and all decode steps, seconds.
    pub total: Summary,
    /// Prompt and generated tokens per second at the median total.
    pub overall_throughput: f64,
    pub prefill_use: Option<Utilisation>,
    pub decode_use: Option<Utilisation>,
    pub back_to_back_use: Option<Utilisation>,
    pub validity: Validity,
}

/// All figures of `samples`; `None` if there is not one complete pass in it.
pub fn figures(samples: &Samples, ceiling: &Ceiling) -> Option<Figures> {
    let shape = samples.shape;
    let prefills: Vec<f64> = samples.passes.iter().map(|p| p.prefill).collect();
    let totals: Vec<f64> = samples.passes.iter().map(|p| p.total()).collect();
    let (prefill, total) = (stats::summary(&prefills)?, stats::summary(&totals)?);
    let decode = synchronised(samples);
    let back_to_back = back_to_back(samples);
    let prompt_tokens: usize = samples.input_lens.iter().sum();
    let tokens = prompt_tokens + shape.batch_size * shape.output_len;
    let steps = shape.output_len.saturating_sub(1) as f64;
    let used = |cost: Option<Cost>, seconds: Option<f64>| {
        utilisation(&cost?, seconds?, ceiling.as_ref().ok()?)
    };
    Some(Figures {
        prefill,
        prefill_throughput: prompt_tokens as f64 / prefill.median,
        total,
        overall_throughput: tokens as f64 / total.median,
        prefill_use: used(samples.prefill_cost, Some(prefill.median)),
        decode_use: used(samples.decode_cost, decode.as_ref().map(|d| d.median * steps)),
        back_to_back_use: used(
            samples.decode_cost,
            back_to_back.as_ref().map(|b| b.summary.median * steps),
        ),
        validity: validity(samples, &prefills),
        decode,
        back_to_back,
    })
}

fn synchronised(samples: &Samples) -> Option<Synchronised> {
    let all: Vec<f64> = samples.passes.iter().flat_map(|p| p.decode.iter().copied()).collect();
    let median = stats::median(&all)?;
    let medians: Vec<f64> =
        samples.passes.iter().filter_map(|p| stats::median(&p.decode)).collect();
    Some(Synchronised {
        median,
        throughput: samples.shape.batch_size as f64 / median,
        pass_medians: stats::summary(&medians)?,
        p90: stats::percentile(&all, 90.0)?,
        p99: stats::percentile(&all, 99.0)?,
        each_step: each_step(samples),
    })
}

/// The median over the passes of each decode step.
fn each_step(samples: &Samples) -> Vec<f64> {
    let steps = samples.passes.first().map_or(0, |p| p.decode.len());
    let of_step = |i: usize| -> Vec<f64> {
        samples.passes.iter().filter_map(|p| p.decode.get(i).copied()).collect()
    };
    (0..steps).filter_map(|i| stats::median(&of_step(i))).collect()
}

fn back_to_back(samples: &Samples) -> Option<BackToBack> {
    let mean = |r: &super::case::Run| r.elapsed / r.steps.len() as f64;
    let per_step: Vec<f64> = samples.runs.iter().map(mean).collect();
    let all: Vec<f64> = samples.runs.iter().flat_map(|r| r.steps.iter().copied()).collect();
    let summary = stats::summary(&per_step)?;
    Some(BackToBack {
        summary,
        p90: stats::percentile(&all, 90.0)?,
        p99: stats::percentile(&all, 99.0)?,
        throughput: samples.shape.batch_size as f64 / summary.median,
        per_step,
    })
}

/// The checks that apply to a static batch.
fn validity(samples: &Samples, prefills: &[f64]) -> Validity {
    let shape = samples.shape;
    let mut v = Validity::default();
    v.push(validity::build(!cfg!(debug_assertions)));
    v.push(validity::spread("prefill_spread", prefills));
    if shape.output_len > 1 {
        let sums: Vec<f64> = samples.passes.iter().map(|p| p.decode.iter().sum()).collect();
        v.push(validity::spread("decode_spread", &sums));
    }
    v.push(drift(samples, prefills));
    let steps = samples.passes.iter().flat_map(|p| p.decode.iter().chain([&p.prefill]));
    let shortest = steps.copied().fold(f64::INFINITY, f64::min);
    v.push(validity::clock(&samples.clock, shortest));
    v.checks.extend(validity::machine(&samples.machine));
    let input: usize = samples.input_lens.iter().sum();
    let requested = (input as u64, (shape.batch_size * shape.output_len) as u64);
    v.push(validity::lengths(requested, (samples.achieved.input, samples.achieved.output)));
    v.push(validity::dropped(samples.prefill_ops.dropped + samples.decode_ops.dropped));
    v
}

/// Drift over the decode steps of all passes in time order, each divided by its step's median,
/// because later steps read a longer cache. Without decode steps: over the prefills.
fn drift(samples: &Samples, prefills: &[f64]) -> validity::Check {
    let usual = each_step(samples);
    if usual.is_empty() {
        return validity::drift("prefill", prefills);
    }
    let series: Vec<f64> = samples
        .passes
        .iter()
        .flat_map(|p| p.decode.iter().zip(&usual).map(|(x, usual)| x / usual))
        .collect();
    validity::drift("decode steps", &series)
}
