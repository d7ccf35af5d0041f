//! The golden checkpoints, and a GGUF file written here, load with every tensor listed.

use pacer::weights::check::account;
use pacer::weights::digest::digest;
use pacer::weights::open::{Format, open};

const MODELS: [&str; 9] =
    ["llama", "llama3-rope", "mistral", "qwen2", "qwen3", "gemma2", "phi3", "mixtral", "qwen3-moe"];

fn folder(model: &str) -> String {
    format!("{}/tests/golden/{model}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn every_golden_checkpoint_opens() {
    for model in MODELS {
        let opened = open(folder(model), Format::Auto).unwrap();
        assert_eq!(opened.format, Format::Safetensors);
        let names = opened.weights.names();
        assert!(names.len() > 15, "{model}: {} tensors", names.len());
        assert!(names.contains(&"model.embed_tokens.weight"));
        for name in names {
            let t = opened.weights.tensor(name).unwrap();
            let n = t.shape.iter().product();
            assert_eq!(t.dtype.bytes(n), Some(t.data.len()), "{model} {name}");
        }
        opened.weights.check().unwrap();
        let files = if model == "qwen2" { 3 } else { 1 + usize::from(model == "mixtral") };
        assert_eq!(opened.files.len(), files, "{model}");
    }
}

#[test]
fn digests_tell_checkpoints_apart_and_are_stable() {
    let of = |model| digest(&open(folder(model), Format::Auto).unwrap().weights);
    let all: std::collections::HashSet<String> = MODELS.into_iter().map(of).collect();
    assert_eq!(all.len(), MODELS.len());
    assert_eq!(of("llama"), of("llama"));
}

#[test]
fn accounting_names_what_is_wrong() {
    let opened = open(folder("llama"), Format::Auto).unwrap();
    let shapes: Vec<(&str, Vec<usize>)> = opened
        .weights
        .names()
        .into_iter()
        .map(|n| (n, opened.weights.tensor(n).unwrap().shape.to_vec()))
        .collect();
    account(&opened.weights, &shapes, &|_| false).unwrap();

    let mut odd = shapes.clone();
    odd[0].1[0] += 1;
    let swapped = odd[0].0;
    let removed = odd.pop().unwrap().0;
    odd.push(("model.made_up.weight", vec![3]));
    let message = account(&opened.weights, &odd, &|_| false).unwrap_err().message;
    for part in [swapped, removed, "model.made_up.weight", "wrong shape", "unknown", "missing"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    let only_unknown = &shapes[1..];
    account(&opened.weights, only_unknown, &|name| name == swapped).unwrap();
    let none = account(&opened.weights, &[], &|_| false).unwrap_err().message;
    assert!(none.contains(&format!("{} tensors unknown", shapes.len())), "{none}");
    assert!(none.contains(", …"), "{none}");
}
