//! Hugging Face's `config.json`: defaults and quirks per family, as `transformers` 4.57 has them.

use std::path::Path;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::types::Dtype;

use super::config::{Config, Layer, Moe, MoeNames, NormNames, QkNorm};
use super::fields::Fields;
use super::plan::Activation;
use super::rope_hf;

/// Architectures that can be loaded, as `config.json` names them.
pub const SUPPORTED: &[&str] = &[
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
    "Gemma2ForCausalLM",
    "Gemma3ForCausalLM",
    "Phi3ForCausalLM",
    "Olmo2ForCausalLM",
    "SmolLM3ForCausalLM",
    "MixtralForCausalLM",
    "Qwen3MoeForCausalLM",
];

/// Largest `config.json` that is read.
const MAX_BYTES: u64 = 16 << 20;

/// Reads `folder/config.json`, merges `overrides` over it, and takes end-of-sequence ids from
/// `generation_config.json` where there is one, as `generate` does.
///
/// # Errors
/// Names the file and field, what was found and what was expected.
pub fn from_folder(folder: &Path, overrides: Option<&Value>) -> Result<Config> {
    let path = folder.join("config.json");
    let mut json = read_json(&path)?;
    if let Some(overrides) = overrides {
        merge(&mut json, overrides);
    }
    let mut config = from_json(&json).map_err(|e| e.context(folder.display()))?;
    let generation = folder.join("generation_config.json");
    if generation.exists() {
        let json = read_json(&generation)?;
        let eos = Fields::new(&json, "generation_config.json")?.ids("eos_token_id")?;
        if !eos.is_empty() {
            config.eos_ids = eos;
        }
    }
    Ok(config)
}

fn read_json(path: &Path) -> Result<Value> {
    let size = std::fs::metadata(path).map_err(|e| Error::io(path, &e))?.len();
    if size > MAX_BYTES {
        return Err(Error::file(path, format!("{size} bytes, expected at most {MAX_BYTES}")));
    }
    let text = std::fs::read(path).map_err(|e| Error::io(path, &e))?;
    serde_json::from_slice(&text).map_err(|e| Error::file(path, format!("not valid JSON: {e}")))
}

/// Merges `over` into `base`, nested objects key by key.
pub fn merge(base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                merge(base.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over.clone(),
    }
}

/// # Errors
/// An architecture that is not in [`SUPPORTED`], or a field of the wrong type or range.
pub fn from_json(json: &Value) -> Result<Config> {
    let f = Fields::new(json, "config.json")?;
    let name = architecture(&f)?;
    let mut c = common(&f, name)?;
    match name {
        "Qwen2ForCausalLM" => c.qkv_bias = true,
        "Qwen3ForCausalLM" => c.qk_norm = Some(QkNorm::PerHead),
        "Gemma2ForCausalLM" | "Gemma3ForCausalLM" => gemma(&f, &mut c)?,
        "Phi3ForCausalLM" => c.fused = true,
        "Olmo2ForCausalLM" => {
            c.norms = NormNames::POST;
            c.qk_norm = Some(QkNorm::Whole);
        }
        "MixtralForCausalLM" => c.moe = Some(mixtral(&f, &c)?),
        "Qwen3MoeForCausalLM" => {
            c.qk_norm = Some(QkNorm::PerHead);
            c.moe = qwen_moe(&f)?;
        }
        _ => {}
    }
    c.ropes = rope_hf::ropes(&f, name, &c)?;
    c.layers = layers(&f, name, &c)?;
    c.validate()?;
    Ok(c)
}

fn architecture<'a>(f: &Fields<'a>) -> Result<&'a str> {
    let named = f.strs("architectures")?.unwrap_or_default();
    let Some(name) = named.first() else {
        return Err(Error::unsupported(format!(
            "config.json: architectures is missing, expected one of {}",
            SUPPORTED.join(", ")
        )));
    };
    if SUPPORTED.contains(name) {
        return Ok(name);
    }
    Err(Error::unsupported(format!(
        "architecture {name} is not supported; supported are {}",
        SUPPORTED.join(", ")
    )))
}

/// What every family reads, with the defaults of its `transformers` config class.
fn common(f: &Fields, name: &str) -> Result<Config> {
    let hidden = f.required_usize("hidden_size")?;
    let heads = f.required_usize("num_attention_heads")?;
    let layer_count = f.required_usize("num_hidden_layers")?;
    let gemma = name.starts_with("Gemma");
    let default_kv = match name {
        "MistralForCausalLM" | "MixtralForCausalLM" => 8,
        "Gemma2ForCausalLM" | "Gemma3ForCausalLM" | "SmolLM3ForCausalLM" => 4,
        _ => heads,
    };
    let default_head_dim = match name {
        "Gemma2ForCausalLM" | "Gemma3ForCausalLM" => 256,
        "Qwen3ForCausalLM" => 128,
        _ => hidden / heads.max(1),
    };
    let default_eps = match name {
        "Phi3ForCausalLM" | "MixtralForCausalLM" | "Olmo2ForCausalLM" => 1e-5,
        _ => 1e-6,
    };
    let head_dim = f.usize("head_dim")?.unwrap_or(default_head_dim);
    let bias = f.bool("attention_bias")?.unwrap_or(false);
    let tied_default = gemma || name == "SmolLM3ForCausalLM";
    let absent = Layer { window: None, rope: None, moe: false };
    Ok(Config {
        architecture: name.to_owned(),
        vocab_size: f.required_usize("vocab_size")?,
        hidden,
        heads,
        kv_heads: f.usize("num_key_value_heads")?.unwrap_or(default_kv),
        head_dim,
        intermediate: f.required_usize("intermediate_size")?,
        max_context: f.usize("max_position_embeddings")?.unwrap_or(2048),
        norm_eps: f.f64("rms_norm_eps")?.unwrap_or(default_eps) as f32,
        norm_plus_one: gemma,
        norms: if gemma { NormNames::SANDWICH } else { NormNames::PRE },
        qk_norm: None,
        qkv_bias: bias,
        o_bias: bias,
        mlp_bias: f.bool("mlp_bias")?.unwrap_or(false),
        fused: false,
        activation: activation(f, gemma)?,
        attention_scale: (head_dim as f32).sqrt().recip(),
        attention_softcap: None,
        final_softcap: None,
        embed_scale: 1.0,
        tied: f.bool("tie_word_embeddings")?.unwrap_or(tied_default),
        layers: vec![absent; layer_count.min(1 << 16)],
        ropes: Vec::new(),
        moe: None,
        bos_id: f.ids("bos_token_id")?.first().copied(),
        eos_ids: f.ids("eos_token_id")?,
        dtype: dtype(f)?,
    })
}

fn activation(f: &Fields, gemma: bool) -> Result<Activation> {
    let (key, default) =
        if gemma { ("hidden_activation", "gelu_pytorch_tanh") } else { ("hidden_act", "silu") };
    match f.str(key)?.unwrap_or(default) {
        "silu" | "swish" => Ok(Activation::Silu),
        "gelu_pytorch_tanh" | "gelu_new" => Ok(Activation::GeluTanh),
        "gelu" => Ok(Activation::Gelu),
        other => Err(Error::unsupported(format!(
            "config.json: {key} is {other:?}, expected silu, gelu or gelu_pytorch_tanh"
        ))),
    }
}

fn dtype(f: &Fields) -> Result<Dtype> {
    let name = match f.str("dtype")? {
        Some(name) => Some(name),
        None => f.str("torch_dtype")?,
    };
    match name.unwrap_or("float32").trim_start_matches("torch.") {
        "float32" => Ok(Dtype::F32),
        "float16" => Ok(Dtype::F16),
        "bfloat16" => Ok(Dtype::BF16),
        other => Err(Error::unsupported(format!(
            "config.json: dtype is {other:?}, expected float32, float16 or bfloat16"
        ))),
    }
}

fn gemma(f: &Fields, c: &mut Config) -> Result<()> {
    let second = c.architecture == "Gemma2ForCausalLM";
    let scalar = f.f64("query_pre_attn_scalar")?.unwrap_or(256.0);
    c.attention_scale = scalar.sqrt().recip() as f32;
    c.embed_scale = (c.hidden as f32).sqrt();
    let cap = |name: &str, default: f64| -> Result<Option<f32>> {
        let default = (second && !f.has(name)).then_some(default);
        Ok(f.f64(name)?.or(default).map(|v| v as f32))
    };
    c.attention_softcap = cap("attn_logit_softcapping", 50.0)?;
    c.final_softcap = cap("final_logit_softcapping", 30.0)?;
    if !second {
        c.qk_norm = Some(QkNorm::PerHead);
    }
    Ok(())
}

fn mixtral(f: &Fields, c: &Config) -> Result<Moe> {
    Ok(Moe {
        experts: f.usize("num_local_experts")?.unwrap_or(8),
        top_k: f.usize("num_experts_per_tok")?.unwrap_or(2),
        intermediate: c.intermediate,
        renormalise: true,
        names: MoeNames::MIXTRAL,
    })
}

fn qwen_moe(f: &Fields) -> Result<Option<Moe>> {
    let experts = f.usize("num_experts")?.unwrap_or(128);
    if experts == 0 {
        return Ok(None);
    }
    Ok(Some(Moe {
        experts,
        top_k: f.usize("num_experts_per_tok")?.unwrap_or(8),
        intermediate: f.usize("moe_intermediate_size")?.unwrap_or(768),
        renormalise: f.bool("norm_topk_prob")?.unwrap_or(false),
        names: MoeNames::QWEN,
    }))
}

fn layers(f: &Fields, name: &str, c: &Config) -> Result<Vec<Layer>> {
    let n = c.layers.len();
    let windows = windows(f, name, n)?;
    let no_rope = no_rope_layers(f, name, n)?;
    let step = f.usize("decoder_sparse_step")?.unwrap_or(1).max(1);
    let dense = f.usizes("mlp_only_layers")?.unwrap_or_default();
    let layer = |i: usize| {
        let sparse = name == "MixtralForCausalLM" || (!dense.contains(&i) && (i + 1) % step == 0);
        // Gemma 3 turns its sliding layers with a base of their own, the second table.
        let local = name == "Gemma3ForCausalLM" && windows[i].is_some();
        Layer {
            window: windows[i],
            rope: (!no_rope[i]).then_some(usize::from(local)),
            moe: c.moe.is_some() && sparse,
        }
    };
    Ok((0..n).map(layer).collect())
}

/// Each layer's window: from `layer_types` where given, else by the family's pattern.
fn windows(f: &Fields, name: &str, n: usize) -> Result<Vec<Option<usize>>> {
    let default = match name {
        "MistralForCausalLM" | "Gemma2ForCausalLM" | "Gemma3ForCausalLM" => Some(4096),
        _ => None,
    };
    let default = if f.has("sliding_window") { None } else { default };
    let mut window = f.usize("sliding_window")?.or(default);
    let switched = name.starts_with("Qwen") || name == "SmolLM3ForCausalLM";
    let off = switched && !f.bool("use_sliding_window")?.unwrap_or(false);
    if off || matches!(name, "LlamaForCausalLM" | "Olmo2ForCausalLM") {
        window = None;
    }
    if let Some(types) = f.strs("layer_types")? {
        if types.len() < n {
            return Err(Error::unsupported(format!(
                "config.json: layer_types has {} entries, expected {n}",
                types.len()
            )));
        }
        let sliding = |t: &&str| if *t == "sliding_attention" { window } else { None };
        return Ok(types.iter().take(n).map(sliding).collect());
    }
    let first_full = f.usize("max_window_layers")?.unwrap_or(28);
    let pattern = f.usize("sliding_window_pattern")?.unwrap_or(6).max(1);
    let slides = |i: usize| match name {
        "Gemma2ForCausalLM" => i % 2 == 0,
        "Gemma3ForCausalLM" => (i + 1) % pattern != 0,
        "Qwen2ForCausalLM" | "Qwen3ForCausalLM" => i >= first_full,
        _ => true,
    };
    Ok((0..n).map(|i| window.filter(|_| slides(i))).collect())
}

/// SmolLM3's layers without rotation: where `no_rope_layers` is 0, or every fourth.
fn no_rope_layers(f: &Fields, name: &str, n: usize) -> Result<Vec<bool>> {
    if name != "SmolLM3ForCausalLM" {
        return Ok(vec![false; n]);
    }
    let interval = f.usize("no_rope_layer_interval")?.unwrap_or(4).max(1);
    let listed = f.usizes("no_rope_layers")?.filter(|l| l.len() >= n);
    Ok((0..n).map(|i| listed.as_ref().map_or((i + 1) % interval == 0, |l| l[i] == 0)).collect())
}

/// For the fuzzer: any bytes are a config or an error, never a panic, and a config that is
/// accepted has a plan.
#[doc(hidden)]
pub fn fuzz_config_json(bytes: &[u8]) {
    let Ok(json) = serde_json::from_slice::<Value>(bytes) else { return };
    let Ok(config) = from_json(&json) else { return };
    if config.layers.len() <= 64 && config.moe.as_ref().is_none_or(|m| m.experts <= 64) {
        let _ = super::arch::plan(&config, config.max_context.min(4096));
    }
}
