//! GGUF's tensor names and conventions, turned into Hugging Face's.

use super::table::shown;
use crate::error::{Error, Result};

/// How a GGUF architecture differs from the Hugging Face layout of the same model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Family {
    /// `general.architecture`, and the prefix of its metadata keys.
    pub arch: &'static str,
    /// q and k rows are stored as interleaved rotary pairs.
    pub rope_pairs: bool,
    /// Norm weights are stored with 1 added.
    pub norm_plus_one: bool,
    /// `ffn_norm` stands before the MLP of a block whose attention output has a norm of its own.
    sandwich: bool,
    /// `ffn_up` holds gate over up.
    fused_gate_up: bool,
    /// Names of the router and of an expert's gate, up and down matrices.
    experts: Option<Experts>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Experts {
    router: &'static str,
    folder: &'static str,
    gate: &'static str,
    up: &'static str,
    down: &'static str,
}

const MIXTRAL: Experts = Experts {
    router: "block_sparse_moe.gate",
    folder: "block_sparse_moe.experts",
    gate: "w1",
    up: "w3",
    down: "w2",
};

const QWEN_MOE: Experts = Experts {
    router: "mlp.gate",
    folder: "mlp.experts",
    gate: "gate_proj",
    up: "up_proj",
    down: "down_proj",
};

const PLAIN: Family = Family {
    arch: "",
    rope_pairs: false,
    norm_plus_one: false,
    sandwich: false,
    fused_gate_up: false,
    experts: None,
};

const FAMILIES: [Family; 9] = [
    Family { arch: "llama", rope_pairs: true, experts: Some(MIXTRAL), ..PLAIN },
    Family { arch: "smollm3", rope_pairs: true, ..PLAIN },
    Family { arch: "qwen2", ..PLAIN },
    Family { arch: "qwen3", ..PLAIN },
    Family { arch: "qwen3moe", experts: Some(QWEN_MOE), ..PLAIN },
    Family { arch: "gemma2", norm_plus_one: true, sandwich: true, ..PLAIN },
    Family { arch: "gemma3", norm_plus_one: true, sandwich: true, ..PLAIN },
    Family { arch: "phi3", fused_gate_up: true, ..PLAIN },
    Family { arch: "olmo2", ..PLAIN },
];

/// The family of a `general.architecture`.
pub(super) fn family(arch: &str) -> Result<&'static Family> {
    FAMILIES.iter().find(|f| f.arch == arch).ok_or_else(|| {
        let known: Vec<&str> = FAMILIES.iter().map(|f| f.arch).collect();
        Error::unsupported(format!(
            "GGUF architecture {} is not supported; supported are {}",
            shown(arch),
            known.join(", ")
        ))
    })
}

/// What becomes of a tensor.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// It is this one.
    One(String),
    /// A 3-D tensor `[experts, rows, cols]`; expert e is `{before}{e}{after}`.
    PerExpert { before: String, after: String },
}

impl Family {
    /// The Hugging Face place of the tensor that GGUF calls `name`; unknown names stay.
    pub fn target(&self, name: &str) -> Target {
        self.known(name).unwrap_or_else(|| Target::One(name.to_owned()))
    }

    fn known(&self, name: &str) -> Option<Target> {
        let (stem, suffix) = name.rsplit_once('.')?;
        if !matches!(suffix, "weight" | "bias") {
            return None;
        }
        let one = |module: &str| Some(Target::One(format!("{module}.{suffix}")));
        match stem {
            "token_embd" => return one("model.embed_tokens"),
            "output_norm" => return one("model.norm"),
            "output" => return one("lm_head"),
            _ => {}
        }
        let (layer, stem) = stem.strip_prefix("blk.")?.split_once('.')?;
        layer.parse::<u32>().ok().filter(|n| n.to_string() == layer)?;
        if let Some(module) = self.module(stem) {
            return one(&format!("model.layers.{layer}.{module}"));
        }
        self.expert(layer, stem, suffix)
    }

    /// The module of block tensor `stem`.
    fn module(&self, stem: &str) -> Option<&'static str> {
        Some(match stem {
            "attn_norm" => "input_layernorm",
            "attn_q" => "self_attn.q_proj",
            "attn_k" => "self_attn.k_proj",
            "attn_v" => "self_attn.v_proj",
            "attn_qkv" => "self_attn.qkv_proj",
            "attn_output" => "self_attn.o_proj",
            "attn_q_norm" => "self_attn.q_norm",
            "attn_k_norm" => "self_attn.k_norm",
            "ffn_norm" if self.sandwich => "pre_feedforward_layernorm",
            "ffn_norm" | "post_attention_norm" => "post_attention_layernorm",
            "post_ffw_norm" => "post_feedforward_layernorm",
            "ffn_gate" => "mlp.gate_proj",
            "ffn_up" if self.fused_gate_up => "mlp.gate_up_proj",
            "ffn_up" => "mlp.up_proj",
            "ffn_down" => "mlp.down_proj",
            "ffn_gate_inp" => self.experts?.router,
            _ => return None,
        })
    }

    /// Experts, stacked in one tensor (`ffn_up_exps`) or, in old files, one each (`ffn_up.3`).
    fn expert(&self, layer: &str, stem: &str, suffix: &str) -> Option<Target> {
        let names = self.experts?;
        let (stem, single) = match stem.strip_suffix("_exps") {
            Some(stem) => (stem, None),
            None => stem.split_once('.').map(|(stem, e)| (stem, Some(e)))?,
        };
        let part = match stem {
            "ffn_gate" => names.gate,
            "ffn_up" => names.up,
            "ffn_down" => names.down,
            _ => return None,
        };
        let before = format!("model.layers.{layer}.{}.", names.folder);
        let after = format!(".{part}.{suffix}");
        Some(match single {
            None => Target::PerExpert { before, after },
            Some(e) => {
                e.parse::<u32>().ok().filter(|n| n.to_string() == e)?;
                Target::One(format!("{before}{e}{after}"))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(arch: &str, name: &str) -> String {
        match family(arch).unwrap().target(name) {
            Target::One(name) => name,
            Target::PerExpert { before, after } => format!("{before}*{after}"),
        }
    }

    #[test]
    fn names_of_every_family() {
        for (arch, gguf, hf) in [
            ("llama", "token_embd.weight", "model.embed_tokens.weight"),
            ("llama", "output.weight", "lm_head.weight"),
            ("llama", "output_norm.weight", "model.norm.weight"),
            ("llama", "blk.31.attn_q.weight", "model.layers.31.self_attn.q_proj.weight"),
            ("llama", "blk.0.ffn_norm.weight", "model.layers.0.post_attention_layernorm.weight"),
            ("llama", "blk.2.ffn_gate_inp.weight", "model.layers.2.block_sparse_moe.gate.weight"),
            (
                "llama",
                "blk.2.ffn_gate_exps.weight",
                "model.layers.2.block_sparse_moe.experts.*.w1.weight",
            ),
            (
                "llama",
                "blk.2.ffn_down.7.weight",
                "model.layers.2.block_sparse_moe.experts.7.w2.weight",
            ),
            ("qwen3moe", "blk.2.ffn_up_exps.weight", "model.layers.2.mlp.experts.*.up_proj.weight"),
            ("qwen3moe", "blk.2.ffn_gate_inp.weight", "model.layers.2.mlp.gate.weight"),
            ("qwen2", "blk.0.attn_k.bias", "model.layers.0.self_attn.k_proj.bias"),
            ("qwen3", "blk.0.attn_q_norm.weight", "model.layers.0.self_attn.q_norm.weight"),
            ("gemma2", "blk.0.ffn_norm.weight", "model.layers.0.pre_feedforward_layernorm.weight"),
            (
                "gemma3",
                "blk.0.post_attention_norm.weight",
                "model.layers.0.post_attention_layernorm.weight",
            ),
            (
                "olmo2",
                "blk.0.post_ffw_norm.weight",
                "model.layers.0.post_feedforward_layernorm.weight",
            ),
            ("phi3", "blk.0.attn_qkv.weight", "model.layers.0.self_attn.qkv_proj.weight"),
            ("phi3", "blk.0.ffn_up.weight", "model.layers.0.mlp.gate_up_proj.weight"),
            ("smollm3", "blk.0.ffn_up.weight", "model.layers.0.mlp.up_proj.weight"),
        ] {
            assert_eq!(one(arch, gguf), hf, "{arch}");
        }
    }

    #[test]
    fn unknown_names_stay_and_unknown_architectures_are_named() {
        for name in ["rope_freqs.weight", "blk.x.attn_q.weight", "blk.01.attn_q.weight", "odd"] {
            assert_eq!(one("llama", name), name);
        }
        assert_eq!(one("qwen2", "blk.0.ffn_up_exps.weight"), "blk.0.ffn_up_exps.weight");
        let message = family("mamba").unwrap_err().message;
        assert!(message.contains("\"mamba\"") && message.contains("qwen3moe"), "{message}");
    }
}
