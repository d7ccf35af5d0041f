//! What a decoder model is: one struct whose fields are all the quirks that families differ in.
//!
//! Read from Hugging Face's `config.json` ([`super::config_hf`]) or from GGUF metadata
//! ([`super::config_gguf`]), checked here once, then turned into a plan by `arch`.

use crate::error::{Error, Result};
use crate::types::{Dtype, TokenId};

use super::plan::Activation;
use super::rope::Rope;

/// Largest sizes that a config may name: beyond them a file is damaged or hostile, and sizes
/// computed from them could no longer be trusted to fit 64 bits.
const MAX_LAYERS: usize = 1024;
const MAX_WIDTH: usize = 1 << 20;
const MAX_VOCAB: usize = 1 << 24;
const MAX_HEADS: usize = 4096;
const MAX_EXPERTS: usize = 1024;
const MAX_CONTEXT: usize = 1 << 27;

/// Names of a layer's norms; `None` where the family has none there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NormNames {
    pub attn_in: Option<&'static str>,
    pub attn_out: Option<&'static str>,
    pub mlp_in: Option<&'static str>,
    pub mlp_out: Option<&'static str>,
}

impl NormNames {
    /// Norms before each block (Llama and most others).
    pub const PRE: NormNames = NormNames {
        attn_in: Some("input_layernorm"),
        attn_out: None,
        mlp_in: Some("post_attention_layernorm"),
        mlp_out: None,
    };
    /// Norms after each block, before the residual is added (OLMo 2).
    pub const POST: NormNames = NormNames {
        attn_in: None,
        attn_out: Some("post_attention_layernorm"),
        mlp_in: None,
        mlp_out: Some("post_feedforward_layernorm"),
    };
    /// Norms before and after (Gemma 2 and 3).
    pub const SANDWICH: NormNames = NormNames {
        attn_in: Some("input_layernorm"),
        attn_out: Some("post_attention_layernorm"),
        mlp_in: Some("pre_feedforward_layernorm"),
        mlp_out: Some("post_feedforward_layernorm"),
    };
}

/// Normalisation of queries and keys before the rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QkNorm {
    /// Each head on its own, weight `[head_dim]` (Qwen 3, Gemma 3).
    PerHead,
    /// All heads together, weight `[heads · head_dim]` (OLMo 2).
    Whole,
}

/// Names of the mixture-of-experts tensors below the layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MoeNames {
    pub block: &'static str,
    pub gate: &'static str,
    pub up: &'static str,
    pub down: &'static str,
}

impl MoeNames {
    pub const MIXTRAL: MoeNames =
        MoeNames { block: "block_sparse_moe", gate: "w1", up: "w3", down: "w2" };
    pub const QWEN: MoeNames =
        MoeNames { block: "mlp", gate: "gate_proj", up: "up_proj", down: "down_proj" };
}

#[derive(Debug, Clone, PartialEq)]
pub struct Moe {
    pub experts: usize,
    /// Experts that each token goes to.
    pub top_k: usize,
    /// Width of one expert's hidden layer.
    pub intermediate: usize,
    /// Whether the chosen experts' weights are scaled to sum 1.
    pub renormalise: bool,
    pub names: MoeNames,
}

/// What differs from layer to layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layer {
    /// Sliding window: a token sees this many positions, itself included.
    pub window: Option<usize>,
    /// Index into [`Config::ropes`]; `None` for a layer without rotation (NoPE).
    pub rope: Option<usize>,
    /// Whether the MLP is a mixture of experts.
    pub moe: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// As the file names it, e.g. `Qwen3ForCausalLM`.
    pub architecture: String,
    pub vocab_size: usize,
    pub hidden: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    /// Width of the dense MLP's hidden layer.
    pub intermediate: usize,
    /// Longest context that the model was made for.
    pub max_context: usize,
    pub norm_eps: f32,
    /// Norms multiply by `1 + w` instead of `w` (Gemma).
    pub norm_plus_one: bool,
    pub norms: NormNames,
    pub qk_norm: Option<QkNorm>,
    pub qkv_bias: bool,
    pub o_bias: bool,
    pub mlp_bias: bool,
    /// `qkv_proj` and `gate_up_proj` are stored fused (Phi-3).
    pub fused: bool,
    pub activation: Activation,
    /// Multiplies q·k; usually `1/√head_dim`.
    pub attention_scale: f32,
    pub attention_softcap: Option<f32>,
    pub final_softcap: Option<f32>,
    /// Multiplies the embedding (Gemma: `√hidden`).
    pub embed_scale: f32,
    /// `lm_head` is the embedding matrix.
    pub tied: bool,
    pub layers: Vec<Layer>,
    pub ropes: Vec<Rope>,
    pub moe: Option<Moe>,
    pub bos_id: Option<TokenId>,
    pub eos_ids: Vec<TokenId>,
    /// The type that the checkpoint says its weights have.
    pub dtype: Dtype,
}

impl Config {
    /// Refuses sizes that are zero, absurd or do not fit together.
    ///
    /// # Errors
    /// Names the field, what was found and what is possible.
    pub fn validate(&self) -> Result<()> {
        let within = |name: &str, value: usize, max: usize| {
            if value == 0 || value > max {
                let range = format!("expected 1 to {max}");
                return Err(Error::unsupported(format!("config: {name} is {value}, {range}")));
            }
            Ok(())
        };
        within("vocab_size", self.vocab_size, MAX_VOCAB)?;
        within("hidden_size", self.hidden, MAX_WIDTH)?;
        within("num_hidden_layers", self.layers.len(), MAX_LAYERS)?;
        within("num_attention_heads", self.heads, MAX_HEADS)?;
        within("num_key_value_heads", self.kv_heads, MAX_HEADS)?;
        within("head_dim", self.head_dim, 1024)?;
        within("intermediate_size", self.intermediate, MAX_WIDTH)?;
        within("max_position_embeddings", self.max_context, MAX_CONTEXT)?;
        if self.heads % self.kv_heads != 0 {
            return Err(Error::unsupported(format!(
                "config: num_attention_heads {} is not a multiple of num_key_value_heads {}",
                self.heads, self.kv_heads
            )));
        }
        self.validate_numbers()?;
        self.validate_layers()
    }

    fn validate_numbers(&self) -> Result<()> {
        let finite = |name: &str, value: f32| {
            if value.is_finite() && value > 0.0 {
                return Ok(());
            }
            Err(Error::unsupported(format!("config: {name} is {value}, expected a number above 0")))
        };
        finite("rms_norm_eps", self.norm_eps)?;
        finite("the attention scale", self.attention_scale)?;
        finite("the embedding scale", self.embed_scale)?;
        if let Some(cap) = self.attention_softcap {
            finite("attn_logit_softcapping", cap)?;
        }
        if let Some(cap) = self.final_softcap {
            finite("final_logit_softcapping", cap)?;
        }
        for rope in &self.ropes {
            finite("rope_theta", rope.theta as f32)?;
            if rope.dim == 0 || rope.dim % 2 != 0 || rope.dim > self.head_dim {
                return Err(Error::unsupported(format!(
                    "config: rotary dimension is {}, expected an even number up to head_dim {}",
                    rope.dim, self.head_dim
                )));
            }
        }
        Ok(())
    }

    fn validate_layers(&self) -> Result<()> {
        for (i, layer) in self.layers.iter().enumerate() {
            if layer.window == Some(0) {
                return Err(Error::unsupported(format!("config: layer {i} has a window of 0")));
            }
            if layer.rope.is_some_and(|r| r >= self.ropes.len()) || layer.moe && self.moe.is_none()
            {
                return Err(Error::unsupported(format!("config: layer {i} is inconsistent")));
            }
        }
        let Some(moe) = &self.moe else { return Ok(()) };
        if moe.experts == 0 || moe.experts > MAX_EXPERTS || moe.intermediate > MAX_WIDTH {
            let what = format!("config: {} experts, expected 1 to {MAX_EXPERTS}", moe.experts);
            return Err(Error::unsupported(what));
        }
        if moe.top_k == 0 || moe.top_k > moe.experts || moe.intermediate == 0 {
            let what = format!("config: top {} of {} experts", moe.top_k, moe.experts);
            return Err(Error::unsupported(what));
        }
        Ok(())
    }
}
