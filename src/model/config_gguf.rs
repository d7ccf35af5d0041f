//! GGUF metadata: the same [`Config`] from `general.architecture` and its keys.
//!
//! What metadata leaves out is read off the tensors: biases and tied embeddings by whether a
//! tensor exists, rotary factors from their own tensors. GGUF stores Gemma's norm weights with
//! the 1 already added.

use crate::error::{Error, Result};
use crate::types::{Dtype, GgufVocab, Meta, MetaMap, TokenId};

use super::config::{Config, Layer, Moe, MoeNames, NormNames, QkNorm};
use super::plan::Activation;
use super::rope::{Rope, Scaling, longrope_attention_factor, yarn_mscale};

/// `general.architecture` values that can be loaded.
pub const SUPPORTED: &[&str] =
    &["llama", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "olmo2", "smollm3", "qwen3moe"];

/// What a config needs to know of the file beside its metadata.
pub struct GgufFile<'a> {
    pub meta: &'a MetaMap,
    pub vocab: &'a GgufVocab,
    /// Whether a tensor of that Hugging Face name exists.
    pub has: &'a dyn Fn(&str) -> bool,
    /// The numbers of a float32 tensor of that GGUF name (`rope_freqs.weight`).
    pub floats: &'a dyn Fn(&str) -> Option<Vec<f32>>,
}

/// # Errors
/// An architecture that is not in [`SUPPORTED`], or a key that is missing or of the wrong type.
pub fn from_gguf(file: &GgufFile) -> Result<Config> {
    let arch = match file.meta.get("general.architecture") {
        Some(Meta::Str(name)) => name.as_str(),
        _ => return Err(Error::unsupported("GGUF: general.architecture is missing")),
    };
    if !SUPPORTED.contains(&arch) {
        return Err(Error::unsupported(format!(
            "architecture {arch} is not supported in GGUF; supported are {}",
            SUPPORTED.join(", ")
        )));
    }
    let k = Keys { meta: file.meta, arch };
    let mut c = common(&k, file)?;
    c.ropes = ropes(&k, file, &c)?;
    c.moe = moe(&k, &c)?;
    let windows = windows(&k, &c)?;
    let layer = |(i, window): (usize, Option<usize>)| Layer {
        window,
        rope: (arch != "smollm3" || (i + 1) % 4 != 0)
            .then_some(usize::from(arch == "gemma3" && window.is_some())),
        moe: c.moe.is_some(),
    };
    c.layers = windows.into_iter().enumerate().map(layer).collect();
    c.validate()?;
    Ok(c)
}

/// Typed access to `{arch}.{key}`.
struct Keys<'a> {
    meta: &'a MetaMap,
    arch: &'a str,
}

impl Keys<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.arch)
    }

    fn wrong(&self, name: &str, wanted: &str) -> Error {
        Error::unsupported(format!("GGUF: {} is not {wanted}", self.key(name)))
    }

    /// A whole number; a list counts if all its entries are equal.
    fn usize(&self, name: &str) -> Result<Option<usize>> {
        let number = match self.meta.get(&self.key(name)) {
            None => return Ok(None),
            Some(Meta::U64(n)) => Some(*n),
            Some(Meta::I64(n)) => u64::try_from(*n).ok(),
            Some(Meta::U64s(list)) => same(list),
            Some(Meta::I64s(list)) => same(list).and_then(|n| u64::try_from(n).ok()),
            Some(_) => None,
        };
        let number = number.and_then(|n| usize::try_from(n).ok());
        number.map(Some).ok_or_else(|| self.wrong(name, "a whole number, equal in all layers"))
    }

    fn required(&self, name: &str) -> Result<usize> {
        self.usize(name)?.ok_or_else(|| self.wrong(name, "there; expected a whole number"))
    }

    fn f64(&self, name: &str) -> Result<Option<f64>> {
        match self.meta.get(&self.key(name)) {
            None => Ok(None),
            Some(Meta::F64(v)) => Ok(Some(*v)),
            Some(Meta::U64(v)) => Ok(Some(*v as f64)),
            Some(_) => Err(self.wrong(name, "a number")),
        }
    }

    fn str(&self, name: &str) -> Option<&str> {
        match self.meta.get(&self.key(name)) {
            Some(Meta::Str(s)) => Some(s),
            _ => None,
        }
    }
}

fn same<T: Copy + PartialEq>(list: &[T]) -> Option<T> {
    let first = *list.first()?;
    list.iter().all(|n| *n == first).then_some(first)
}

fn common(k: &Keys, file: &GgufFile) -> Result<Config> {
    let hidden = k.required("embedding_length")?;
    let heads = k.required("attention.head_count")?;
    let layer_count = k.required("block_count")?;
    let head_dim = k.usize("attention.key_length")?.unwrap_or(hidden / heads.max(1));
    let gemma = k.arch.starts_with("gemma");
    let has = |leaf: &str| (file.has)(&format!("model.layers.0.{leaf}"));
    let float = |name: &str| -> Result<Option<f32>> { Ok(k.f64(name)?.map(|v| v as f32)) };
    let eps = float("attention.layer_norm_rms_epsilon")?;
    let absent = Layer { window: None, rope: None, moe: false };
    Ok(Config {
        architecture: k.arch.to_owned(),
        vocab_size: k.usize("vocab_size")?.unwrap_or(file.vocab.tokens.len()),
        hidden,
        heads,
        kv_heads: k.usize("attention.head_count_kv")?.unwrap_or(heads),
        head_dim,
        intermediate: k.required("feed_forward_length")?,
        max_context: k.usize("context_length")?.unwrap_or(2048),
        norm_eps: eps.ok_or_else(|| k.wrong("attention.layer_norm_rms_epsilon", "there"))?,
        norm_plus_one: false,
        norms: match k.arch {
            "olmo2" => NormNames::POST,
            _ if gemma => NormNames::SANDWICH,
            _ => NormNames::PRE,
        },
        qk_norm: match k.arch {
            "olmo2" => Some(QkNorm::Whole),
            "qwen3" | "qwen3moe" | "gemma3" => Some(QkNorm::PerHead),
            _ => None,
        },
        qkv_bias: has("self_attn.q_proj.bias"),
        o_bias: has("self_attn.o_proj.bias"),
        mlp_bias: has("mlp.down_proj.bias"),
        fused: k.arch == "phi3",
        activation: if gemma { Activation::GeluTanh } else { Activation::Silu },
        attention_scale: attention_scale(k, hidden, heads, head_dim, layer_count),
        attention_softcap: float("attn_logit_softcapping")?,
        final_softcap: float("final_logit_softcapping")?,
        embed_scale: if gemma { (hidden as f32).sqrt() } else { 1.0 },
        tied: !(file.has)("lm_head.weight"),
        layers: vec![absent; layer_count.min(1 << 16)],
        ropes: Vec::new(),
        moe: None,
        bos_id: file.vocab.bos_id,
        eos_ids: eos_ids(file.vocab),
        dtype: Dtype::F32,
    })
}

/// `1/√head_dim`, except in the 27B models of Gemma 2 and 3, told by their depth: `1/√(hidden /
/// heads)`.
fn attention_scale(k: &Keys, hidden: usize, heads: usize, head_dim: usize, layers: usize) -> f32 {
    let wide = matches!((k.arch, layers), ("gemma2", 46) | ("gemma3", 62));
    let dim = if wide { hidden as f32 / heads as f32 } else { head_dim as f32 };
    dim.sqrt().recip()
}

fn eos_ids(vocab: &GgufVocab) -> Vec<TokenId> {
    let mut ids: Vec<TokenId> =
        [vocab.eos_id, vocab.eot_id, vocab.eom_id].into_iter().flatten().collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

fn moe(k: &Keys, c: &Config) -> Result<Option<Moe>> {
    let experts = k.usize("expert_count")?.unwrap_or(0);
    if experts == 0 {
        return Ok(None);
    }
    let names = if k.arch == "qwen3moe" { MoeNames::QWEN } else { MoeNames::MIXTRAL };
    Ok(Some(Moe {
        experts,
        top_k: k.required("expert_used_count")?,
        intermediate: k.usize("expert_feed_forward_length")?.unwrap_or(c.intermediate),
        renormalise: true,
        names,
    }))
}

fn windows(k: &Keys, c: &Config) -> Result<Vec<Option<usize>>> {
    let default = matches!(k.arch, "gemma2" | "gemma3").then_some(4096);
    let window = match k.arch {
        "gemma2" | "gemma3" | "phi3" => k.usize("attention.sliding_window")?.or(default),
        _ => None,
    };
    let slides = |i: usize| match k.arch {
        "gemma2" => i % 2 == 0,
        "gemma3" => (i + 1) % 6 != 0,
        _ => true,
    };
    let window = window.filter(|w| *w > 0);
    Ok((0..c.layers.len()).map(|i| window.filter(|_| slides(i))).collect())
}

fn ropes(k: &Keys, file: &GgufFile, c: &Config) -> Result<Vec<Rope>> {
    let dim = k.usize("rope.dimension_count")?.unwrap_or(c.head_dim);
    let theta = k.f64("rope.freq_base")?.unwrap_or(1e4);
    let mut ropes = vec![Rope { dim, theta, scaling: scaling(k, file, c)? }];
    if k.arch == "gemma3" {
        let theta = k.f64("rope.freq_base_swa")?.unwrap_or(1e4);
        ropes.push(Rope { dim, theta, scaling: Scaling::None });
    }
    Ok(ropes)
}

fn scaling(k: &Keys, file: &GgufFile, c: &Config) -> Result<Scaling> {
    let widen = |v: Vec<f32>| v.into_iter().map(f64::from).collect::<Vec<_>>();
    let original = k.usize("rope.scaling.original_context_length")?;
    let attention = k.f64("rope.scaling.attn_factor")?;
    if let (Some(short), Some(long)) =
        ((file.floats)("rope_factors_short.weight"), (file.floats)("rope_factors_long.weight"))
    {
        let original_context = original.unwrap_or(c.max_context);
        let factor = c.max_context as f64 / original_context.max(1) as f64;
        let default = longrope_attention_factor(factor, original_context);
        let attention_factor = attention.unwrap_or(default);
        let (short, long) = (widen(short), widen(long));
        return Ok(Scaling::LongRope { short, long, original_context, attention_factor });
    }
    if let Some(factors) = (file.floats)("rope_freqs.weight") {
        return Ok(Scaling::Divided { factors: widen(factors) });
    }
    let factor = match k.f64("rope.scaling.factor")? {
        Some(factor) => Some(factor),
        None => k.f64("rope.scale_linear")?,
    };
    match (k.str("rope.scaling.type"), factor) {
        (_, None) | (Some("none"), _) => Ok(Scaling::None),
        (Some("yarn"), Some(factor)) => Ok(Scaling::Yarn {
            factor,
            original_context: original.unwrap_or(c.max_context) as f64,
            beta_fast: k.f64("rope.scaling.yarn_beta_fast")?.unwrap_or(32.0),
            beta_slow: k.f64("rope.scaling.yarn_beta_slow")?.unwrap_or(1.0),
            attention_factor: yarn_mscale(factor, 1.0) * attention.unwrap_or(1.0),
            truncate: true,
        }),
        (Some("linear") | None, Some(factor)) => Ok(Scaling::Linear { factor }),
        (Some(other), _) => Err(Error::unsupported(format!(
            "GGUF: rope.scaling.type is {other:?}, expected none, linear or yarn"
        ))),
    }
}
