//! The embedded default: a small Llama that runs anywhere, so that `pacer bench-one-batch` works
//! on a fresh machine with nothing downloaded. 40 million parameters, dummy weights.

/// Its name in results.
pub const NAME: &str = "pacer-default-40m";

/// Its `config.json`.
pub const CONFIG: &str = r#"{
  "architectures": ["LlamaForCausalLM"],
  "model_type": "llama",
  "vocab_size": 32000,
  "hidden_size": 512,
  "intermediate_size": 1408,
  "num_hidden_layers": 8,
  "num_attention_heads": 8,
  "num_key_value_heads": 4,
  "head_dim": 64,
  "max_position_embeddings": 8192,
  "rms_norm_eps": 1e-5,
  "rope_theta": 500000.0,
  "hidden_act": "silu",
  "tie_word_embeddings": true,
  "bos_token_id": 1,
  "eos_token_id": 2,
  "torch_dtype": "bfloat16"
}"#;
