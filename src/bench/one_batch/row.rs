//! The JSON row of one case: SGLang's keys in SGLang's order and meaning, then ours.

use serde_json::{Map, Value, json};

use super::SubjectInfo;
use super::case::{Effort, Run, Samples};
use super::figures::{Ceiling, Figures, Utilisation};
use super::ops::{Gpu, OpTable, OpTime};
use crate::bench::ceilings::store;
use crate::measure::json::{number, numbers, summary};
use crate::model::cost::Cost;

/// What a row says that is not measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Context {
    pub run_name: String,
    pub seed: u64,
    /// `random`, or the name of the prompt file.
    pub inputs: String,
    pub effort: Effort,
    pub version: String,
    pub commit: String,
    /// When the case ended, ISO-8601.
    pub date: String,
    /// The command line, program name left out.
    pub command: Vec<String>,
    pub peak_memory: Option<u64>,
}

/// The whole row.
pub fn row(
    context: &Context,
    info: &SubjectInfo,
    samples: &Samples,
    figures: &Figures,
    ceiling: &Ceiling,
) -> Value {
    let mut row = sglang(context, samples, figures);
    let ours = [
        about(context, info),
        measured(samples, figures),
        ceilings(samples, figures, ceiling),
        json!({
            "prefill_ops": ops(&samples.prefill_ops, ceiling),
            "decode_ops": ops(&samples.decode_ops, ceiling),
            "interrupted": samples.interrupted,
            "validity": figures.validity.to_json(),
        }),
    ];
    for part in ours {
        if let Value::Object(part) = part {
            row.extend(part);
        }
    }
    Value::Object(row)
}

/// SGLang's keys; the two of decode are absent when one token was asked for.
fn sglang(context: &Context, samples: &Samples, figures: &Figures) -> Map<String, Value> {
    let mut row = Map::new();
    let mut put = |key: &str, value: Value| row.insert(key.to_string(), value);
    put("run_name", context.run_name.clone().into());
    put("batch_size", samples.shape.batch_size.into());
    put("input_len", samples.shape.input_len.into());
    put("output_len", samples.shape.output_len.into());
    put("prefill_latency", number(figures.prefill.median));
    put("prefill_throughput", number(figures.prefill_throughput));
    if let Some(decode) = &figures.decode {
        put("median_decode_latency", number(decode.median));
        put("median_decode_throughput", number(decode.throughput));
    }
    put("total_latency", number(figures.total.median));
    put("overall_throughput", number(figures.overall_throughput));
    row
}

fn about(context: &Context, info: &SubjectInfo) -> Value {
    json!({
        "tool": context.version,
        "commit": context.commit,
        "date": context.date,
        "command": context.command,
        "device": {
            "kind": info.device_kind,
            "name": info.device_name,
            "detail": info.device_detail,
        },
        "model": info.model,
        "model_digest": info.model_digest,
        "load_format": info.load_format,
        "dtype": info.dtype,
        "threads": info.threads,
        "kernels": info.kernels,
        "seed": context.seed,
        "inputs": context.inputs,
        "warmup": context.effort.warmup,
        "repeat": context.effort.repeat,
        "peak_memory_bytes": context.peak_memory,
        "memory_bytes": {
            "weights": info.memory.weights,
            "kv": info.memory.kv,
            "scratch": info.memory.scratch,
        },
    })
}

/// Raw samples in seconds, with what is made of them.
fn measured(samples: &Samples, figures: &Figures) -> Value {
    let prefills: Vec<f64> = samples.passes.iter().map(|p| p.prefill).collect();
    let steps: Vec<Value> = samples.passes.iter().map(|p| numbers(&p.decode)).collect();
    let runs = |f: fn(&Run) -> Value| samples.runs.iter().map(f).collect::<Value>();
    let decode = figures.decode.as_ref().map(|d| {
        json!({
            "median_s": number(d.median),
            "p90_s": number(d.p90),
            "p99_s": number(d.p99),
            "pass_medians_s": summary(Some(&d.pass_medians)),
            "samples_s": steps,
        })
    });
    let back_to_back = figures.back_to_back.as_ref().map(|b| {
        json!({
            "per_step_s": summary(Some(&b.summary)),
            "throughput": number(b.throughput),
            "p90_s": number(b.p90),
            "p99_s": number(b.p99),
            "run_means_s": numbers(&b.per_step),
            "samples_s": runs(|r| numbers(&r.steps)),
        })
    });
    json!({
        "input_lens": samples.input_lens,
        "achieved_input_tokens": samples.achieved.input,
        "achieved_output_tokens": samples.achieved.output,
        "prefill_s": summary(Some(&figures.prefill)),
        "prefill_samples_s": numbers(&prefills),
        "decode_synchronised": decode,
        "decode_back_to_back": back_to_back,
        "total_s": summary(Some(&figures.total)),
    })
}

fn ceilings(samples: &Samples, figures: &Figures, ceiling: &Ceiling) -> Value {
    json!({
        "prefill_cost": cost(samples.prefill_cost.as_ref()),
        "decode_cost": cost(samples.decode_cost.as_ref()),
        "prefill_use": utilisation(figures.prefill_use.as_ref()),
        "decode_use": utilisation(figures.decode_use.as_ref()),
        "decode_back_to_back_use": utilisation(figures.back_to_back_use.as_ref()),
        "ceilings": ceiling.as_ref().map_or(Value::Null, store::to_json),
        "ceilings_missing_because": ceiling.as_ref().err(),
    })
}

/// Least work: `{"flops", "weight_bytes", "kv_bytes", "activation_bytes"}`.
fn cost(cost: Option<&Cost>) -> Value {
    cost.map_or(Value::Null, |c| {
        json!({
            "flops": c.flops,
            "weight_bytes": c.weight_bytes,
            "kv_bytes": c.kv_bytes,
            "activation_bytes": c.activation_bytes,
        })
    })
}

fn utilisation(used: Option<&Utilisation>) -> Value {
    used.map_or(Value::Null, |u| {
        json!({
            "mfu": number(u.mfu),
            "mbu": number(u.mbu),
            "share_of_ceiling": number(u.share_of_ceiling),
            "bound": u.bound,
        })
    })
}

/// The ten slowest kinds of op of one recorded pass, or all that a GPU tells of, each with its
/// share of its ceiling, what the rest took, and where there is most to gain.
fn ops(table: &OpTable, ceiling: &Ceiling) -> Value {
    let total = table.total();
    let rates = table.rates(ceiling.as_ref().ok());
    let rates = rates.as_ref();
    let listed = if table.gpu.is_some() { table.ops.len() } else { 10 };
    let shown = table.ops.iter().take(listed);
    let rest: f64 = table.ops.iter().skip(listed).map(|o| o.total).sum();
    let op = |o: &OpTime| {
        let floor = rates.map(|c| o.floor(c));
        json!({
            "op": o.op,
            "scope": o.scope,
            "count": o.count,
            "total_s": number(o.total),
            "share": number(o.total / total),
            "flops": o.cost.flops,
            "bytes": o.cost.bytes(),
            "ceiling_s": floor.map(|f| number(f.seconds)),
            "ceiling": floor.map(|f| f.bound),
            "share_of_ceiling": rates.map(|c| number(o.share_of_ceiling(c))),
        })
    };
    let gain = rates.and_then(|c| table.most_to_gain(c));
    json!({
        "gpu": table.gpu.as_ref().map(gpu),
        "slowest": shown.map(op).collect::<Vec<_>>(),
        "most_to_gain": gain.map(|(o, seconds)| {
            json!({ "op": o.op, "scope": o.scope, "seconds": number(seconds) })
        }),
        "other_s": number(rest),
        "dropped_records": table.dropped,
    })
}

/// A GPU's account of the steps in a table: whether its times are projected, and held to what.
fn gpu(gpu: &Gpu) -> Value {
    let ceiling = gpu.ceiling.as_ref().map(|c| {
        json!({ "bytes_per_s": c.bytes_per_s, "flops_per_s": c.flops_per_s, "source": c.source })
    });
    json!({
        "times": gpu.source,
        "projected": gpu.projected,
        "elapsed_s": number(gpu.elapsed),
        "launches": gpu.launches,
        "ceiling": ceiling,
    })
}
