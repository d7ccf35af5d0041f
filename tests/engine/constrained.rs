//! Constrained output parses, whatever a model with random weights would rather say.

use pacer::engine::options::EngineOptions;
use pacer::engine::params::SamplingParams;
use pacer::engine::request::FinishReason;
use pacer::text::grammar::GrammarSpec;
use regex::Regex;
use serde_json::{Value, json};

use crate::support::{answer, engine, null_engine, prompt, request, text_prompt};

fn params(grammar: GrammarSpec, seed: u64, length: usize) -> SamplingParams {
    SamplingParams {
        max_new_tokens: Some(length),
        grammar: Some(grammar),
        seed: Some(seed),
        ..SamplingParams::default()
    }
}

fn options() -> EngineOptions {
    EngineOptions { total_tokens: Some(4096), max_running: Some(8), ..EngineOptions::default() }
}

/// Texts of eight samples, each of which must have come to its own end.
fn samples(golden: &str, grammar: &GrammarSpec, length: usize) -> Vec<String> {
    let mut engine = engine(golden, &options());
    let requests: Vec<_> = (0..4)
        .map(|id| {
            let params = SamplingParams { n: 2, ..params(grammar.clone(), id, length) };
            request(id, text_prompt(&engine, id), params)
        })
        .collect();
    let answers = answer(&mut engine, &requests);
    assert_eq!(answers.len(), 8);
    for (key, answer) in &answers {
        let reason = answer.finished.as_ref().map(|f| &f.reason);
        let ended = matches!(reason, Some(FinishReason::StopToken(_) | FinishReason::StopText(_)));
        assert!(ended, "{golden} {key:?} {reason:?}: {}", answer.text);
    }
    answers.into_values().map(|a| a.text).collect()
}

fn person() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": { "type": "string", "maxLength": 6 },
            "age": { "type": "integer", "minimum": 0, "maximum": 150 },
            "tags": { "type": "array", "items": { "enum": ["a", "bc"] }, "maxItems": 2 },
            "alive": { "type": "boolean" }
        },
        "required": ["name", "age", "tags", "alive"],
        "additionalProperties": false,
        // Random weights love blanks; a model that was trained does not.
        "x-guidance": { "whitespace_flexible": false }
    })
}

#[test]
fn json_follows_its_schema_with_every_tokenizer() {
    for golden in ["llama", "mistral", "qwen2", "phi3"] {
        let grammar = GrammarSpec::JsonSchema(person().to_string());
        for text in samples(golden, &grammar, 300) {
            let v: Value = serde_json::from_str(&text).expect(&text);
            let age = v["age"].as_i64().expect(&text);
            assert!((0..=150).contains(&age) && v["alive"].is_boolean(), "{text}");
            assert!(v["name"].as_str().expect(&text).chars().count() <= 6, "{text}");
            let tags = v["tags"].as_array().expect(&text);
            assert!(tags.len() <= 2 && tags.iter().all(|t| *t == "a" || *t == "bc"), "{text}");
            assert_eq!(v.as_object().expect(&text).len(), 4);
        }
    }
}

#[test]
fn regular_expressions_match_all_of_the_output() {
    for (pattern, length) in [
        (r"[0-9]{3}-[0-9]{4}", 20),
        (r"(yes|no|maybe), (sir|madam)!?", 40),
        (r"[äöü]{2,5}€", 40),
        (r"https?://[a-z]{1,9}\.(com|org)(/[a-z]{0,5}){0,2}", 80),
    ] {
        let whole = Regex::new(&format!("^(?:{pattern})$")).expect("a test's own");
        for text in samples("llama", &GrammarSpec::Regex(pattern.into()), length) {
            assert!(whole.is_match(&text), "{pattern}: {text:?}");
        }
    }
}

#[test]
fn grammars_in_both_notations_are_followed() {
    let sum =
        "root ::= term ([+*] term){0,3} # a sum\nterm ::= [0-9] | \"(\" [0-9] \"-\" [0-9] \")\"";
    let lark = "start: term (/[+*]/ term){0,3}\nterm: /[0-9]/ | \"(\" /[0-9]/ \"-\" /[0-9]/ \")\"";
    let term = r"([0-9]|\([0-9]-[0-9]\))";
    let whole = Regex::new(&format!("^{term}([+*]{term}){{0,3}}$")).expect("a test's own");
    for grammar in [sum, lark] {
        for text in samples("llama", &GrammarSpec::Ebnf(grammar.into()), 60) {
            assert!(whole.is_match(&text), "{grammar}: {text:?}");
        }
    }
}

#[test]
fn a_recursive_grammar_is_balanced_as_far_as_it_comes() {
    let grammar = "root ::= \"[\" (root (\",\" root)?)? \"]\"";
    let mut engine = engine("qwen2", &options());
    let requests: Vec<_> = (0..6)
        .map(|id| {
            request(id, text_prompt(&engine, id), params(GrammarSpec::Ebnf(grammar.into()), id, 60))
        })
        .collect();
    for (key, found) in answer(&mut engine, &requests) {
        let mut depth = 0i32;
        for c in found.text.chars() {
            depth += i32::from(c == '[') - i32::from(c == ']');
            assert!("[],".contains(c) && depth >= 0, "{key:?}: {}", found.text);
        }
        let ended = matches!(found.finished.map(|f| f.reason), Some(FinishReason::StopToken(_)));
        assert_eq!(ended, depth == 0, "{key:?}: {}", found.text);
    }
}

/// Neither a least length nor ignored ends can make a complete output go on.
#[test]
fn a_complete_output_ends_whatever_else_is_asked() {
    let mut engine = null_engine("llama", &options());
    let grammar = GrammarSpec::Regex("(ab){1,2}".into());
    let wilful =
        SamplingParams { ignore_eos: true, min_new_tokens: 30, ..params(grammar.clone(), 1, 40) };
    let plain = params(grammar, 1, 40);
    let requests = [request(1, vec![5, 6], wilful), request(2, vec![5, 6], plain)];
    for (key, found) in answer(&mut engine, &requests) {
        assert!(found.text == "ab" || found.text == "abab", "{key:?}: {:?}", found.text);
        let reason = found.finished.map(|f| f.reason);
        assert!(matches!(reason, Some(FinishReason::StopToken(_))), "{key:?}: {reason:?}");
    }
}

/// A constraint leaves the neighbours of a batch alone, and the same request gets the same.
#[test]
fn neighbours_of_a_constrained_request_are_unchanged() {
    let free = |id| {
        let params = SamplingParams { seed: Some(7), ..SamplingParams::default() };
        request(id, prompt(id, 12, 500), SamplingParams { max_new_tokens: Some(24), ..params })
    };
    let bound = |id| request(id, prompt(id, 12, 500), params(GrammarSpec::json_object(), 3, 24));
    let alone = answer(&mut engine("llama", &options()), &[free(1)]);
    let bound_alone = answer(&mut engine("llama", &options()), &[bound(2)]);
    let both = answer(&mut engine("llama", &options()), &[free(1), bound(2), bound(3)]);
    assert_eq!(both[&(1, 0)].ids, alone[&(1, 0)].ids);
    assert_eq!(both[&(2, 0)].ids, bound_alone[&(2, 0)].ids);
}
