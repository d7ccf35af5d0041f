//! Plans against real files and hand counts: every golden model's plan names exactly the tensors
//! that its checkpoint holds, with their shapes; Llama-3.1-8B's bytes agree with arithmetic.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use pacer::model::config_hf;
use pacer::model::cost::{StepShape, Storage, step_cost};
use pacer::model::{arch, plan::Plan};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn header(path: &Path) -> serde_json::Value {
    let mut file = std::fs::File::open(path).unwrap();
    let mut length = [0; 8];
    file.read_exact(&mut length).unwrap();
    let mut text = vec![0; u64::from_le_bytes(length) as usize];
    file.read_exact(&mut text).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// Names and shapes of all tensors in the folder's safetensors files.
fn stored(folder: &Path) -> BTreeMap<String, Vec<usize>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "safetensors") {
            continue;
        }
        for (name, value) in header(&path).as_object().unwrap() {
            if name != "__metadata__" {
                let shape = value["shape"].as_array().unwrap();
                let shape = shape.iter().map(|n| n.as_u64().unwrap() as usize).collect();
                found.insert(name.clone(), shape);
            }
        }
    }
    found
}

fn expected(plan: &Plan) -> BTreeMap<String, Vec<usize>> {
    plan.tensors().into_iter().map(|(n, s)| (n.to_owned(), s)).collect()
}

#[test]
fn plans_name_exactly_the_stored_tensors() {
    let mut models = 0;
    let more = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden_more");
    let entries = [golden(), more].map(|dir| std::fs::read_dir(dir).unwrap());
    for entry in entries.into_iter().flatten() {
        let folder = entry.unwrap().path();
        if !folder.join("config.json").exists() {
            continue;
        }
        let config = config_hf::from_folder(&folder, None).unwrap();
        let plan = arch::plan(&config, config.max_context).unwrap();
        let (expected, stored) = (expected(&plan), stored(&folder));
        assert_eq!(expected, stored, "{}", folder.display());
        models += 1;
    }
    assert_eq!(models, 16);
}

#[test]
fn every_op_stands_under_its_module_path() {
    let config = config_hf::from_folder(&golden().join("gemma2"), None).unwrap();
    let plan = arch::plan(&config, 512).unwrap();
    let scopes: Vec<&str> = plan.ops.iter().map(|o| o.scope.as_str()).collect();
    assert!(scopes.contains(&"model.layers.3.self_attn.qkv_proj"));
    assert!(scopes.contains(&"model.layers.0.pre_feedforward_layernorm"));
    assert_eq!(scopes.last(), Some(&"lm_head"));
    let hidden_states = config.layers.len() + 2;
    assert_eq!(plan.residuals.len(), hidden_states);
}

fn llama_8b() -> serde_json::Value {
    serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "intermediate_size": 14336,
        "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
        "max_position_embeddings": 131072, "vocab_size": 128256, "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0, "tie_word_embeddings": false, "torch_dtype": "bfloat16"
    })
}

#[test]
fn llama_8b_agrees_with_a_hand_count() {
    let config = config_hf::from_json(&llama_8b()).unwrap();
    let plan = arch::plan(&config, 8192).unwrap();
    let bytes = |m: usize| (plan.matrices[m].rows * plan.matrices[m].cols * 2) as u64;
    let storage = Storage { matrix_bytes: &bytes, kv_element: 2, activation_element: 2 };

    let decode = step_cost(&plan, &StepShape::uniform(1, 0, 1), &storage);
    // Per layer 4096·(4096 + 2·1024 + 4096 + 3·14336), 32 layers, head 128256·4096, one row of
    // the embedding; two bytes each: 15.01 GB.
    let numbers = 32u64 * 4096 * (4096 + 2048 + 4096 + 3 * 14336) + 128256 * 4096 + 4096;
    assert_eq!(decode.weight_bytes, 2 * numbers);
    assert_eq!((decode.weight_bytes as f64 / 1e7).round(), 1501.0);
    assert_eq!(plan.kv.bytes_per_token(2), 128 << 10);

    // 4,096 tokens of prefill: 61.6 TFLOP with causal attention and one row of logits.
    let prefill = step_cost(&plan, &StepShape::uniform(1, 0, 4096), &storage);
    assert!((prefill.flops as f64 / 1e12 - 61.6).abs() < 0.3, "{}", prefill.flops);
}

#[test]
fn attention_cost_counts_window_and_mask() {
    let step = StepShape { sequences: vec![(2, 3), (0, 1)], logit_rows: 2 };
    assert_eq!(step.attention_pairs(None), 3 + 4 + 5 + 1);
    assert_eq!(step.attention_pairs(Some(2)), 2 + 2 + 2 + 1);
    assert_eq!(step.kv_positions(None), 5 + 1);
    assert_eq!(step.kv_positions(Some(2)), 4 + 1);
}

fn with(changes: serde_json::Value) -> pacer::error::Result<pacer::model::config::Config> {
    let mut json = llama_8b();
    config_hf::merge(&mut json, &changes);
    config_hf::from_json(&json)
}

#[test]
fn bad_configs_say_what_is_wrong() {
    let cases = [
        (serde_json::json!({"architectures": ["MambaForCausalLM"]}), "MambaForCausalLM"),
        (serde_json::json!({"architectures": null}), "architectures"),
        (serde_json::json!({"hidden_size": "4096"}), "hidden_size"),
        (serde_json::json!({"num_attention_heads": 0}), "num_attention_heads"),
        (serde_json::json!({"num_key_value_heads": 5}), "num_key_value_heads"),
        (serde_json::json!({"num_hidden_layers": u64::MAX}), "num_hidden_layers"),
        (serde_json::json!({"vocab_size": 1u64 << 40}), "vocab_size"),
        (serde_json::json!({"rms_norm_eps": -1.0}), "rms_norm_eps"),
        (serde_json::json!({"rope_scaling": {"rope_type": "warp"}}), "warp"),
        (serde_json::json!({"rope_scaling": {"rope_type": "linear"}}), "factor"),
        (serde_json::json!({"rope_scaling": 3}), "rope_scaling"),
        (serde_json::json!({"hidden_act": "relu"}), "relu"),
        (serde_json::json!({"torch_dtype": "int8"}), "int8"),
        (serde_json::json!({"partial_rotary_factor": 7.0}), "partial_rotary_factor"),
        (serde_json::json!({"head_dim": 33}), "rotary dimension"),
    ];
    for (change, named) in cases {
        let error = with(change.clone()).expect_err(&change.to_string());
        assert!(error.message.contains(named), "{change}: {error}");
    }
}

#[test]
fn families_differ_where_they_should() {
    let family = |name: &str, more: serde_json::Value| {
        let mut change = serde_json::json!({ "architectures": [name] });
        config_hf::merge(&mut change, &more);
        with(change).unwrap()
    };
    let smol = family("SmolLM3ForCausalLM", serde_json::json!({"num_hidden_layers": 8}));
    let ropes: Vec<bool> = smol.layers.iter().map(|l| l.rope.is_some()).collect();
    assert_eq!(ropes, [true, true, true, false, true, true, true, false]);

    let more = serde_json::json!({"num_hidden_layers": 7, "sliding_window": 512, "head_dim": 256});
    let gemma = family("Gemma3ForCausalLM", more);
    let windows: Vec<_> = gemma.layers.iter().map(|l| (l.window, l.rope)).collect();
    assert_eq!(windows[4], (Some(512), Some(1)));
    assert_eq!(windows[5], (None, Some(0)));
    assert_eq!(gemma.ropes[1].theta, 1e4);

    let more = serde_json::json!({"num_hidden_layers": 4, "num_experts": 4, "moe_intermediate_size": 64,
        "num_experts_per_tok": 2, "mlp_only_layers": [0], "decoder_sparse_step": 2});
    let moe = family("Qwen3MoeForCausalLM", more);
    let sparse: Vec<bool> = moe.layers.iter().map(|l| l.moe).collect();
    assert_eq!(sparse, [false, true, false, true]);

    let mistral = family("MistralForCausalLM", serde_json::json!({}));
    assert_eq!(mistral.layers[0].window, Some(4096));
    let null = family("MistralForCausalLM", serde_json::json!({"sliding_window": null}));
    assert_eq!(null.layers[0].window, None);

    let more = serde_json::json!({"use_sliding_window": true, "sliding_window": 64,
        "max_window_layers": 30});
    let qwen = family("Qwen2ForCausalLM", more);
    assert_eq!((qwen.layers[29].window, qwen.layers[30].window), (None, Some(64)));
    assert!(qwen.qkv_bias && !qwen.o_bias);
}
