//! `pacer info`: the machine and its devices; with a model, what would be loaded and what a token
//! of it costs.

use serde_json::{Value, json};

use super::model_flags::ModelFlags;
use super::{Run, load, out};
use crate::device::{Device, DeviceInfo};
use crate::engine::model::Model;
use crate::engine::sizes::{self, MemoryPlan};
use crate::error::Result;
use crate::model::cost::{Cost, StepShape, Storage, step_cost};
use crate::model::plan::MatrixId;
use crate::types::Dtype;
use crate::with_model_flags;

with_model_flags! {
    /// Says what machine this is and which devices can be used; with --model-path also what would
    /// be loaded: parameters, bytes and operations per token, cache per token, the memory plan.
    pub struct Info {
        /// prompt tokens that prefill figures are given for (default 4096)
        #[argh(option, arg_name = "N", default = "4096",
            from_str_fn(super::values::whole::<1, { 1 << 24 }>))]
        pub prefill_tokens: usize,

        /// one JSON object instead of text
        #[argh(switch)]
        pub json: bool,
    }
}

impl Run for Info {
    const NAME: &'static str = "info";

    fn run(self) -> Result<()> {
        let flags = self.model()?;
        flags.notes.iter().for_each(|n| out::note(format_args!("note: {n}")));
        let device = load::device(&flags)?;
        let named = flags.model_path.is_some();
        let model = if named { Some(load::model(&flags)?) } else { None };
        let memory = |model: &Model| {
            let options = load::engine_options(&flags);
            sizes::memory_plan(device.as_ref(), &model.plan, &model.weights, &options)
        };
        let facts = model.as_ref().map(|m| Facts::of(m, device.as_ref(), self.prefill_tokens));
        let plan = model.as_ref().map(memory);
        let rows = self.prefill_tokens;
        let choices = |m: &Model| device.choices(&m.plan, &m.weights, rows);
        let kernels = model.as_ref().map(choices).transpose()?.unwrap_or_default();
        if self.json {
            let model = facts.as_ref().map(|f| f.to_json(plan.as_ref()));
            return out::line(json!({
                "version": super::version(),
                "devices": [device_json(&device.info())],
                "cuda": cuda(&flags),
                "model": model,
                "kernels": kernels,
            }));
        }
        for line in machine_lines(&device.info(), &cuda(&flags)) {
            out::line(line)?;
        }
        if let Some(facts) = &facts {
            facts.lines(plan.as_ref()).iter().try_for_each(out::line)?;
        }
        for line in &kernels {
            out::line(format!("kernels    {line}"))?;
        }
        Ok(())
    }
}

/// The card, or what is missing.
fn cuda(flags: &ModelFlags) -> String {
    match load::open_cuda(flags) {
        Ok(cuda) => cuda.card().name.clone(),
        Err(why) => why.message,
    }
}

fn device_json(info: &DeviceInfo) -> Value {
    json!({
        "kind": info.kind, "name": info.name, "detail": info.detail,
        "memory_free": info.memory_free, "memory_total": info.memory_total,
    })
}

fn machine_lines(info: &DeviceInfo, cuda: &str) -> Vec<String> {
    vec![
        format!("pacer      {}", super::version()),
        format!("device     {} ({}), {}", info.kind, info.name, info.detail),
        format!("memory     {} free of {}", bytes(info.memory_free), bytes(info.memory_total)),
        format!("cuda       {cuda}"),
    ]
}

/// What is said of a model.
struct Facts {
    name: String,
    architecture: String,
    format: &'static str,
    digest: String,
    shape: String,
    context: usize,
    parameters: u64,
    stored: u64,
    decode: Cost,
    prefill: Cost,
    prefill_tokens: usize,
    kv_16: usize,
    kv_device: usize,
    element: usize,
    types: Vec<(Dtype, u64)>,
}

impl Facts {
    fn of(model: &Model, device: &dyn Device, prefill_tokens: usize) -> Facts {
        let (plan, c) = (&model.plan, &model.config);
        let stored = |id: MatrixId| -> u64 {
            let parts = plan.matrices[id].parts.iter();
            parts.filter_map(|p| model.weights.describe(&p.tensor)).map(|t| t.bytes as u64).sum()
        };
        let (element, activation) = device.element_bytes(plan, &model.weights);
        let storage =
            Storage { matrix_bytes: &stored, kv_element: element, activation_element: activation };
        let numbers = |shape: &[usize]| shape.iter().map(|n| *n as u64).product::<u64>();
        let (mut types, mut bytes) = (Vec::<(Dtype, u64)>::new(), 0);
        for (name, _) in plan.tensors() {
            let Some(tensor) = model.weights.describe(name) else { continue };
            bytes += tensor.bytes as u64;
            match types.iter_mut().find(|(d, _)| *d == tensor.dtype) {
                Some((_, n)) => *n += tensor.bytes as u64,
                None => types.push((tensor.dtype, tensor.bytes as u64)),
            }
        }
        types.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
        Facts {
            name: model.name.clone(),
            architecture: c.architecture.clone(),
            format: model.format,
            digest: model.digest.clone(),
            shape: format!(
                "{} layers, hidden {}, {} heads over {} KV heads of {}, MLP {}, vocabulary {}",
                c.layers.len(),
                c.hidden,
                c.heads,
                c.kv_heads,
                c.head_dim,
                c.intermediate,
                c.vocab_size
            ),
            context: model.context,
            parameters: plan.tensors().iter().map(|(_, s)| numbers(s)).sum(),
            stored: bytes,
            decode: step_cost(plan, &StepShape::uniform(1, 0, 1), &storage),
            prefill: step_cost(plan, &StepShape::uniform(1, 0, prefill_tokens), &storage),
            prefill_tokens,
            kv_16: plan.kv.bytes_per_token(2),
            kv_device: plan.kv.bytes_per_token(element),
            element,
            types,
        }
    }

    fn lines(&self, plan: Option<&Result<MemoryPlan>>) -> Vec<String> {
        let n = self.prefill_tokens as f64;
        let types: Vec<String> =
            self.types.iter().map(|(d, b)| format!("{} {}", d.name(), bytes(*b))).collect();
        let mut lines = vec![
            format!("model      {} ({}, {})", self.name, self.architecture, self.format),
            format!("digest     {}", self.digest),
            format!("shape      {}; context {}", self.shape, self.context),
            format!(
                "weights    {} parameters, {} ({})",
                count(self.parameters as f64),
                bytes(self.stored),
                types.join(", ")
            ),
            format!(
                "decode     {} of weights read per token ({:.2} GB), {}FLOP per token",
                bytes(self.decode.weight_bytes),
                self.decode.weight_bytes as f64 / 1e9,
                count(self.decode.flops as f64)
            ),
            format!(
                "prefill    {}FLOP per token over {} tokens ({}FLOP in all)",
                count(self.prefill.flops as f64 / n),
                self.prefill_tokens,
                count(self.prefill.flops as f64)
            ),
            format!(
                "KV cache   {} per token in 16 bits, {} as this device stores it ({} bits)",
                bytes(self.kv_16 as u64),
                bytes(self.kv_device as u64),
                8 * self.element
            ),
        ];
        match plan {
            Some(Ok(plan)) => lines.push(format!(
                "plan       of {} usable: {} weights, {} scratch, room for {} cached tokens",
                bytes(plan.budget),
                bytes(plan.weights),
                bytes(plan.scratch),
                plan.kv_tokens_possible
            )),
            Some(Err(error)) => lines.push(format!("plan       does not fit: {error}")),
            None => {}
        }
        lines
    }

    fn to_json(&self, plan: Option<&Result<MemoryPlan>>) -> Value {
        let plan = plan.map(|p| match p {
            Ok(p) => json!({
                "budget": p.budget, "weights": p.weights, "scratch": p.scratch,
                "kv_bytes_per_token": p.kv_per_token, "kv_tokens_possible": p.kv_tokens_possible,
            }),
            Err(error) => json!({ "error": error.message }),
        });
        json!({
            "name": self.name, "architecture": self.architecture, "format": self.format,
            "digest": self.digest, "context": self.context, "parameters": self.parameters,
            "weight_bytes": self.stored,
            "decode_weight_bytes_per_token": self.decode.weight_bytes,
            "decode_flops_per_token": self.decode.flops,
            "prefill_tokens": self.prefill_tokens,
            "prefill_flops_per_token": self.prefill.flops as f64 / self.prefill_tokens as f64,
            "kv_bytes_per_token_16_bit": self.kv_16,
            "kv_bytes_per_token": self.kv_device,
            "memory_plan": plan,
        })
    }
}

/// `1.50 GiB`, `128.0 KiB`, `12 B`.
fn bytes(n: u64) -> String {
    let n = n as f64;
    let unit = [(3, "GiB"), (2, "MiB"), (1, "KiB")];
    match unit.iter().find(|(power, _)| n >= 1024f64.powi(*power)) {
        Some((power, name)) => format!("{:.2} {name}", n / 1024f64.powi(*power)),
        None => format!("{n} B"),
    }
}

/// `8.03 G`, `134.5 M`.
fn count(n: f64) -> String {
    let unit = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    match unit.iter().find(|(size, _)| n >= *size) {
        Some((size, name)) => format!("{:.2} {name}", n / size),
        None => format!("{n:.0} "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!(bytes(131_072), "128.00 KiB");
        assert_eq!(bytes(12), "12 B");
        assert_eq!(count(8_030_261_248.0), "8.03 G");
        assert_eq!(count(7.0), "7 ");
    }
}
