//! Vocabularies as GGUF metadata carries them, made from the golden tokenizer files, must give
//! the same tokens as those files.

use std::path::Path;

use pacer::text::{ChatTemplate, Tokenizer};
use pacer::types::GgufVocab;
use serde_json::{Value, json};

fn golden(model: &str, file: &str) -> Value {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    serde_json::from_slice(&std::fs::read(root.join(model).join(file)).unwrap()).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// A tokenizer.json as the metadata that a converter writes.
fn gguf_of(model: &str, kind: &str, pre: Option<&str>) -> GgufVocab {
    let json = golden(model, "tokenizer.json");
    let mut tokens: Vec<(u64, String, i32)> = Vec::new();
    for (text, id) in json["model"]["vocab"].as_object().unwrap() {
        let byte = kind == "llama" && text.len() == 6 && text.starts_with("<0x");
        tokens.push((id.as_u64().unwrap(), text.clone(), if byte { 6 } else { 1 }));
    }
    for token in json["added_tokens"].as_array().unwrap() {
        let id = token["id"].as_u64().unwrap();
        tokens.retain(|(other, ..)| *other != id);
        let kind = if token["special"].as_bool().unwrap() { 3 } else { 4 };
        tokens.push((id, token["content"].as_str().unwrap().into(), kind));
    }
    tokens.sort();
    assert!(tokens.iter().enumerate().all(|(at, (id, ..))| at as u64 == *id));
    let config = golden(model, "tokenizer_config.json");
    let id_of = |role: &str| {
        let text = config[role].as_str()?;
        tokens.iter().find(|(_, token, _)| token == text).map(|(id, ..)| *id as u32)
    };
    GgufVocab {
        model: kind.into(),
        pre: pre.map(str::to_owned),
        merges: merges(&json),
        bos_id: id_of("bos_token"),
        eos_id: id_of("eos_token"),
        unk_id: id_of("unk_token"),
        chat_template: config["chat_template"].as_str().map(str::to_owned),
        token_types: tokens.iter().map(|(_, _, kind)| *kind).collect(),
        tokens: tokens.into_iter().map(|(_, text, _)| text).collect(),
        ..Default::default()
    }
}

fn merges(json: &Value) -> Vec<String> {
    let text = |merge: &Value| match merge.as_array() {
        Some(pair) => format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap()),
        None => merge.as_str().unwrap().to_owned(),
    };
    json["model"]["merges"].as_array().unwrap().iter().map(text).collect()
}

/// SentencePiece files have scores in place of merges: the earlier the merge, the better.
fn scores_for_merges(vocab: &mut GgufVocab) {
    let merges = std::mem::take(&mut vocab.merges);
    let score = |token: &String| {
        let made_by = |merge: &String| merge.replace(' ', "") == *token;
        merges.iter().position(made_by).map_or(-1e6, |rank| -(rank as f32))
    };
    vocab.scores = vocab.tokens.iter().map(score).collect();
}

fn assert_cases(model: &str, vocab: &GgufVocab) {
    let tokenizer = Tokenizer::from_gguf(vocab).unwrap();
    for case in golden(model, "golden.json")["tokenizer_cases"].as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        let all = ids(&case["ids"]);
        assert_eq!(tokenizer.encode(text, true).unwrap(), all, "{model} {text:?}");
        let bare = ids(&case["ids_without_added"]);
        assert_eq!(tokenizer.encode(text, false).unwrap(), bare, "{model} {text:?}");
        assert_eq!(tokenizer.decode(&all, false), case["decoded"], "{model} {text:?}");
        assert_eq!(tokenizer.decode(&all, true), case["decoded_skip_special"], "{model} {text:?}");
    }
}

#[test]
fn byte_level_families_equal_their_tokenizer_json() {
    for (model, pre) in [
        ("llama", Some("llama-bpe")),
        ("llama3-rope", Some("llama-bpe")),
        ("qwen2", Some("qwen2")),
        ("qwen3", Some("qwen2")),
        ("qwen3-moe", Some("qwen2")),
        ("phi3", Some("gpt-2")),
        ("phi3", None),
    ] {
        assert_cases(model, &gguf_of(model, "gpt2", pre));
    }
}

#[test]
fn sentence_piece_equals_its_tokenizer_json_by_merges_and_by_scores() {
    for model in ["mistral", "gemma2", "mixtral"] {
        let mut vocab = gguf_of(model, "llama", None);
        assert_cases(model, &vocab);
        scores_for_merges(&mut vocab);
        assert_cases(model, &vocab);
    }
}

#[test]
fn the_space_prefix_and_the_added_tokens_are_the_file_s() {
    let mut vocab = gguf_of("mistral", "llama", None);
    vocab.add_space_prefix = Some(false);
    vocab.add_bos = Some(false);
    vocab.add_eos = Some(true);
    let tokenizer = Tokenizer::from_gguf(&vocab).unwrap();
    let all = tokenizer.encode("the", true).unwrap();
    assert_eq!(all.last(), vocab.eos_id.as_ref());
    assert_eq!(tokenizer.decode(&all, true), "the");
    assert_eq!(tokenizer.token_bytes(all[0]).map(|bytes| bytes[0]), Some(b't'));
    assert_eq!(tokenizer.decode(&tokenizer.encode(" the", false).unwrap(), false), " the");
}

#[test]
fn smollm_cuts_every_digit() {
    let tokenizer = Tokenizer::from_gguf(&gguf_of("phi3", "gpt2", Some("smollm"))).unwrap();
    let all = tokenizer.encode("in 1234 and ٣٤", false).unwrap();
    let texts: Vec<&[u8]> = all.iter().map(|id| tokenizer.token_bytes(*id).unwrap()).collect();
    for digit in [b"1", b"2", b"3", b"4"] {
        assert!(texts.contains(&&digit[..]), "{texts:?}");
    }
    assert!(texts.contains(&&b" "[..]), "a blank before a digit stays apart: {texts:?}");
}

#[test]
fn the_chat_template_sees_the_special_tokens() {
    let vocab = gguf_of("mistral", "llama", None);
    let template = ChatTemplate::from_gguf(&vocab).unwrap();
    for case in golden("mistral", "golden.json")["chat_cases"].as_array().unwrap() {
        let prompt = case["add_generation_prompt"].as_bool().unwrap();
        let kwargs = case["kwargs"].as_object().unwrap();
        match template.render(&case["messages"], prompt, kwargs) {
            Ok(text) => assert_eq!(text, case["rendered"]),
            Err(e) => assert_eq!(e.message, case["error"]),
        }
    }
    let none = GgufVocab { chat_template: None, ..vocab };
    assert!(ChatTemplate::from_gguf(&none).unwrap_err().message.contains("no chat template"));
}

#[test]
fn lists_that_do_not_fit_are_errors() {
    let sound = || gguf_of("mistral", "llama", None);
    let cases: Vec<(&str, GgufVocab)> = vec![
        ("scores", GgufVocab { scores: vec![0.0; 3], ..sound() }),
        ("token_type", GgufVocab { token_types: vec![1; 3], ..sound() }),
        ("scores is missing", GgufVocab { merges: vec![], ..sound() }),
        ("merges", GgufVocab { merges: vec!["ab".into()], ..sound() }),
        ("merges", GgufVocab { merges: vec!["a b c".into()], ..sound() }),
        ("bos_token_id", GgufVocab { bos_id: Some(999_999), ..sound() }),
        ("is empty", GgufVocab { tokens: vec![], bos_id: None, ..Default::default() }),
        ("\"t5\"", GgufVocab { model: "t5".into(), ..sound() }),
        ("\"odd\"", GgufVocab { model: "gpt2".into(), pre: Some("odd".into()), ..sound() }),
    ];
    for (name, vocab) in cases {
        let error = Tokenizer::from_gguf(&vocab).expect_err(name);
        assert!(error.message.contains(name), "{name}: {error}");
    }
}

#[test]
fn a_text_that_occurs_twice_keeps_both_ids() {
    let mut vocab = gguf_of("phi3", "gpt2", None);
    let (twin, id) = (vocab.tokens[300].clone(), vocab.tokens.len() as u32);
    vocab.tokens.push(twin);
    vocab.token_types.push(1);
    let tokenizer = Tokenizer::from_gguf(&vocab).unwrap();
    assert_eq!(tokenizer.token_bytes(id), tokenizer.token_bytes(300));
    assert!(!json!(tokenizer.token_bytes(id)).is_null());
}
