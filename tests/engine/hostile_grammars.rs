//! Grammars as programs (the failures of llama.cpp's and others' parsers): each is refused or
//! served in bounded time and memory, and the engine lives on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pacer::engine::options::EngineOptions;
use pacer::engine::params::SamplingParams;
use pacer::error::Kind;
use pacer::text::grammar::compiler::MAX_CACHED;
use pacer::text::grammar::{GrammarSpec, Grammars, gbnf};
use serde_json::json;

use crate::support::{Numbers, answer, engine, model, prompt, request};

/// Generous: the compiler's own limit is five seconds.
const PATIENCE: Duration = Duration::from_secs(30);

fn grammars() -> Arc<Grammars> {
    model("llama").grammars.expect("a golden model has a tokenizer")
}

fn nested(open: &str, close: &str, depth: usize) -> String {
    format!("{}a{}", open.repeat(depth), close.repeat(depth))
}

fn nested_schema(depth: usize) -> String {
    let open = r#"{"type":"array","items":"#;
    format!("{}{{}}{}", open.repeat(depth), "}".repeat(depth))
}

#[test]
fn what_is_no_grammar_is_the_requests_own_error() {
    let grammars = grammars();
    let ebnf = |text: &str| GrammarSpec::Ebnf(text.to_owned());
    let regex = |text: &str| GrammarSpec::Regex(text.to_owned());
    let schema = |text: &str| GrammarSpec::JsonSchema(text.to_owned());
    for bad in [
        regex(&nested("(", ")", 60_000)),
        regex(&nested("(", ")", 4_000)),
        regex("a{5,0}"),
        regex("(unclosed"),
        regex(r"(?=look)ahead"),
        ebnf(&format!("root ::= {}", nested("(", ")", 60_000))),
        ebnf(&format!("start: {}", nested("(", ")", 20_000))),
        ebnf("root ::= \"a\"{5,0}"),
        ebnf("root ::= nobody"),
        ebnf("start: nobody"),
        ebnf("root ::= root"),
        ebnf("\u{0}\u{1}\u{2}"),
        schema("{"),
        schema("[]"),
        schema(r#"{"type": "nonsense"}"#),
        schema(r#"{"type": 7}"#),
        schema(r##"{"$ref": "#/nowhere"}"##),
        schema(r#"{"$ref": "https://example.com/schema.json"}"#),
        schema(r#"{"type": "string", "pattern": "("}"#),
        schema(&nested_schema(2_000)),
    ] {
        let begin = Instant::now();
        let error = grammars.compile(&bad).err();
        let shown: String = format!("{bad:?}").chars().take(80).collect();
        assert_eq!(error.map(|e| e.kind), Some(Kind::Usage), "{shown}");
        assert!(begin.elapsed() < PATIENCE, "{shown}");
    }
    assert_eq!(grammars.cached(), 0, "what failed is not kept");
}

/// Either answer is right for these; hanging or dying is not.
#[test]
fn work_amplifiers_are_bounded() {
    let grammars = grammars();
    let hostile = [
        GrammarSpec::Ebnf("root ::= (\"a\"*)*".into()),
        GrammarSpec::Ebnf("root ::= ((\"a\"?)+)* root?".into()),
        GrammarSpec::Ebnf("root ::= a\na ::= b | \"x\"\nb ::= a | \"y\"".into()),
        GrammarSpec::Ebnf("root ::= \"a\"{10000}".into()),
        GrammarSpec::Ebnf("root ::= ((\"a\"{1000}){1000}){1000}".into()),
        GrammarSpec::Regex("((a{1,1000}){1,1000}){1,1000}".into()),
        GrammarSpec::Regex(r"(.*a){40}[^b]{500}".into()),
        GrammarSpec::Regex("(a|b|ab)*c".repeat(200)),
        GrammarSpec::JsonSchema(nested_schema(60)),
        GrammarSpec::JsonSchema(
            json!({"type": "string", "maxLength": 4_000_000_000u64}).to_string(),
        ),
        GrammarSpec::JsonSchema(json!({"type": "array", "minItems": 1_000_000_000}).to_string()),
        GrammarSpec::JsonSchema(json!({"enum": (0..20_000).collect::<Vec<_>>()}).to_string()),
        GrammarSpec::JsonSchema(
            json!({"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}, {"type": "null"}]}},
                "$ref": "#/$defs/a"})
            .to_string(),
        ),
    ];
    for spec in hostile {
        let begin = Instant::now();
        let shown: String = format!("{spec:?}").chars().take(80).collect();
        if let Ok(mut constraint) = grammars.compile(&spec) {
            let _ = constraint.mask();
        }
        assert!(begin.elapsed() < PATIENCE, "{shown}: {:?}", begin.elapsed());
    }
}

/// Pieces of grammars in any order: whatever they make, the reader returns.
#[test]
fn no_heap_of_pieces_upsets_the_reader() {
    let pieces = [
        "root",
        " ::= ",
        "\"a\"",
        "[a-z]",
        "[^\\]]",
        "(",
        ")",
        "|",
        "*",
        "+?",
        "{2,3}",
        "{",
        "}",
        "\\x41",
        "\\u12",
        "#",
        "\n",
        "\"",
        "[",
        "é",
        ".",
        "b ::= ",
        "b",
        "\\",
        "-",
        "]",
        "{,}",
        "{9999999999}",
    ];
    let (mut numbers, mut parsed) = (Numbers(1), 0);
    for _ in 0..20_000 {
        let count = 1 + numbers.below(14);
        let tail: String = (0..count).map(|_| pieces[numbers.below(pieces.len())]).collect();
        let text = if numbers.below(2) == 0 { format!("root ::= {tail}") } else { tail };
        parsed += usize::from(gbnf::parse(&text).is_ok());
    }
    assert!(parsed > 500, "{parsed} of 20,000 are grammars");
}

#[test]
fn the_cache_has_a_cap() {
    let grammars = grammars();
    for i in 0..3 * MAX_CACHED {
        grammars.compile(&GrammarSpec::Regex(format!("a{i}"))).expect("a small one");
    }
    assert_eq!(grammars.cached(), MAX_CACHED);
}

#[test]
fn the_engine_refuses_a_bad_grammar_and_serves_the_next_request() {
    let options = EngineOptions { total_tokens: Some(1024), ..EngineOptions::default() };
    let mut engine = engine("llama", &options);
    let bad = SamplingParams {
        grammar: Some(GrammarSpec::Ebnf("root ::= nobody".into())),
        ..SamplingParams::default()
    };
    let error = engine.submit(&request(1, vec![4, 5], bad)).expect_err("no such rule");
    assert_eq!(error.kind, Kind::Usage);
    let good = SamplingParams { max_new_tokens: Some(4), ..SamplingParams::default() };
    let answers = answer(&mut engine, &[request(2, prompt(1, 5, 500), good)]);
    assert_eq!(answers.len(), 1);
}
