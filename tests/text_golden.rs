//! The text room against transformers: tokenizer and chat cases of every golden model, streaming
//! against whole decoding, stop strings against a naive search, and hostile tokenizer files.

use std::path::{Path, PathBuf};

use pacer::text::{ChatTemplate, StopMatcher, Tokenizer};
use serde_json::{Map, Value, json};

fn golden_models() -> Vec<(PathBuf, Value)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut models = Vec::new();
    for entry in std::fs::read_dir(&root).unwrap() {
        let folder = entry.unwrap().path();
        if folder.is_dir() {
            let bytes = std::fs::read(folder.join("golden.json")).unwrap();
            models.push((folder, serde_json::from_slice(&bytes).unwrap()));
        }
    }
    models.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(models.len(), 9, "golden models in {}", root.display());
    models
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// xorshift64*: the same sequence everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n
    }
}

#[test]
fn tokenizer_cases_are_equal() {
    let mut cases = 0;
    for (folder, golden) in golden_models() {
        let tokenizer = Tokenizer::from_folder(&folder).unwrap();
        assert_eq!(json!(tokenizer.vocab_size()), golden["tokenizer_size"], "{folder:?}");
        for case in golden["tokenizer_cases"].as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            let place = format!("{} {text:?}", folder.display());
            let all = ids(&case["ids"]);
            assert_eq!(tokenizer.encode(text, true).unwrap(), all, "{place}");
            let bare = ids(&case["ids_without_added"]);
            assert_eq!(tokenizer.encode(text, false).unwrap(), bare, "{place}");
            assert_eq!(tokenizer.decode(&all, false), case["decoded"], "{place}");
            assert_eq!(tokenizer.decode(&all, true), case["decoded_skip_special"], "{place}");
            cases += 1;
        }
    }
    assert!(cases == 272, " {cases} cases");
}

#[test]
fn end_of_text_ids_are_equal() {
    for (folder, golden) in golden_models() {
        let tokenizer = Tokenizer::from_folder(&folder).unwrap();
        let (mut found, mut expected) = (tokenizer.eos_ids().to_vec(), ids(&golden["eos_ids"]));
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected, "{}", folder.display());
        assert!(tokenizer.special_ids().contains(&found[0]), "{}", folder.display());
    }
}

#[test]
fn chat_cases_are_equal() {
    let (mut rendered, mut refused) = (0, 0);
    for (folder, golden) in golden_models() {
        let template = ChatTemplate::from_folder(&folder).unwrap();
        let tokenizer = Tokenizer::from_folder(&folder).unwrap();
        for case in golden["chat_cases"].as_array().unwrap() {
            let kwargs = case["kwargs"].as_object().unwrap();
            let prompt = case["add_generation_prompt"].as_bool().unwrap();
            let result = template.render(&case["messages"], prompt, kwargs);
            let place = format!("{} {}", folder.display(), case["messages"]);
            if case["error"].is_string() {
                assert_eq!(result.unwrap_err().message, case["error"], "{place}");
                refused += 1;
                continue;
            }
            let text = result.unwrap();
            assert_eq!(text, case["rendered"], "{place}");
            assert_eq!(tokenizer.encode(&text, false).unwrap(), ids(&case["ids"]), "{place}");
            rendered += 1;
        }
    }
    assert!(rendered == 41 && refused == 4, "{rendered} rendered, {refused} refused");
}

fn stream(tokenizer: &Tokenizer, ids: &[u32], skip_special: bool) -> String {
    let mut detokenizer = tokenizer.detokenizer(skip_special);
    let mut pieces: Vec<String> = ids.iter().map(|id| detokenizer.push(*id)).collect();
    pieces.push(detokenizer.finish());
    pieces.concat()
}

#[test]
fn streaming_equals_whole_for_every_golden_text() {
    for (folder, golden) in golden_models() {
        let tokenizer = Tokenizer::from_folder(&folder).unwrap();
        for case in golden["tokenizer_cases"].as_array().unwrap() {
            let all = ids(&case["ids"]);
            let place = format!("{} {}", folder.display(), case["text"]);
            assert_eq!(stream(&tokenizer, &all, false), case["decoded"], "{place}");
            assert_eq!(stream(&tokenizer, &all, true), case["decoded_skip_special"], "{place}");
        }
    }
}

/// Whole decoding by its definition: all bytes joined, then made into characters.
fn lossy(tokenizer: &Tokenizer, ids: &[u32], strips_a_blank: bool) -> String {
    let bytes: Vec<u8> =
        ids.iter().flat_map(|id| tokenizer.token_bytes(*id).unwrap_or_default()).copied().collect();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    match text.strip_prefix(' ') {
        Some(rest) if strips_a_blank => rest.to_owned(),
        _ => text,
    }
}

#[test]
fn streaming_equals_whole_for_random_ids_and_every_byte() {
    let mut random = Random(7);
    for (folder, _) in golden_models() {
        let tokenizer = Tokenizer::from_folder(&folder).unwrap();
        let byte_tokens = byte_tokens(&tokenizer);
        let strips = tokenizer.token_id("<0x00>").is_some();
        for round in 0..400 {
            // Ids beyond the vocabulary are nothing; single bytes make broken characters.
            let id = |random: &mut Random| match round % 2 {
                0 => random.below(tokenizer.vocab_size() + 5) as u32,
                _ => byte_tokens[random.below(byte_tokens.len())],
            };
            let all: Vec<u32> = (0..random.below(40)).map(|_| id(&mut random)).collect();
            let expected = lossy(&tokenizer, &all, strips);
            assert_eq!(stream(&tokenizer, &all, false), expected, "{folder:?} {all:?}");
            assert_eq!(tokenizer.decode(&all, false), expected, "{folder:?} {all:?}");
        }
        for byte in 0..=255u8 {
            let all = [byte_tokens[byte as usize]];
            let expected = lossy(&tokenizer, &all, strips);
            assert_eq!(stream(&tokenizer, &all, false), expected, "{folder:?} {byte}");
        }
    }
}

/// The token of each single byte.
fn byte_tokens(tokenizer: &Tokenizer) -> Vec<u32> {
    let id = |byte: u8| {
        let fallback = tokenizer.token_id(&format!("<0x{byte:02X}>"));
        let all = 0..tokenizer.vocab_size() as u32;
        fallback.or_else(|| all.into_iter().find(|id| tokenizer.token_bytes(*id) == Some(&[byte])))
    };
    (0..=255).map(|byte| id(byte).unwrap_or_else(|| panic!("no token for byte {byte}"))).collect()
}

#[test]
fn every_push_is_whole_characters_and_prompt_text_does_not_come_again() {
    for (folder, golden) in golden_models() {
        let tokenizer = Tokenizer::from_folder(&folder).unwrap();
        for case in golden["tokenizer_cases"].as_array().unwrap() {
            let all = ids(&case["ids"]);
            let whole = tokenizer.decode(&all, true);
            for cut in 0..=all.len() {
                let (prompt, rest) = all.split_at(cut);
                let mut before = tokenizer.detokenizer(true);
                let mut text: String = prompt.iter().map(|id| before.push(*id)).collect();
                let mut after = tokenizer.detokenizer_after(prompt, true);
                text.extend(rest.iter().map(|id| after.push(*id)));
                text.push_str(&after.finish());
                assert_eq!(text, whole, "{} cut at {cut}", folder.display());
            }
        }
    }
}

/// The first end of any stop string, the longest that ends there.
fn naive_stop(text: &str, stops: &[String], keep: bool) -> (String, Option<String>) {
    for end in (0..=text.len()).filter(|end| text.is_char_boundary(*end)) {
        let ending = stops.iter().filter(|stop| text[..end].ends_with(stop.as_str()));
        if let Some(stop) = ending.max_by_key(|stop| stop.len()) {
            let cut = if keep { end } else { end - stop.len() };
            return (text[..cut].to_owned(), Some(stop.clone()));
        }
    }
    (text.to_owned(), None)
}

#[test]
fn stop_strings_equal_a_naive_search_however_the_text_is_cut() {
    let mut random = Random(11);
    let alphabet = ['a', 'b', 'é', '世'];
    let word = |random: &mut Random, length: usize| -> String {
        (0..length).map(|_| alphabet[random.below(alphabet.len())]).collect()
    };
    let mut stopped = 0;
    for _ in 0..4000 {
        let stops: Vec<String> = (0..random.below(5))
            .map(|_| {
                let length = 1 + random.below(5);
                word(&mut random, length)
            })
            .collect();
        let length = random.below(30);
        let text = word(&mut random, length);
        let keep = random.below(2) == 1;
        let mut matcher = StopMatcher::new(&stops, keep).unwrap();
        let (mut got, mut by, mut rest) = (String::new(), None, text.as_str());
        while !rest.is_empty() {
            let wanted = 1 + random.below(6);
            let cut = (wanted..=rest.len()).find(|at| rest.is_char_boundary(*at));
            let (piece, later) = rest.split_at(cut.unwrap_or(rest.len()));
            let released = matcher.push(piece);
            got.push_str(&released.text);
            by = by.or(released.stopped_by.map(|index| stops[index].clone()));
            rest = later;
        }
        got.push_str(&matcher.finish());
        let expected = naive_stop(&text, &stops, keep);
        stopped += usize::from(by.is_some());
        assert_eq!((got, by), expected, "{text:?} {stops:?} keep {keep}");
    }
    assert!(stopped > 1000 && stopped < 3900, "{stopped} of 4000 stopped");
}

#[test]
fn what_cannot_stop_any_more_is_released_at_once() {
    let mut matcher = StopMatcher::new(&["</answer>"], false).unwrap();
    for piece in ["The ", "answer", " is", " 世界", "."] {
        assert_eq!(matcher.push(piece).text, piece);
    }
}

/// A small tokenizer.json that loads, to be broken in one place.
fn small_tokenizer() -> Value {
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [{"id": 3, "content": "<s>", "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true}],
        "normalizer": null, "pre_tokenizer": null, "post_processor": null,
        "decoder": {"type": "ByteLevel"},
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]}
    })
}

struct Folder(PathBuf);

impl Folder {
    fn with(name: &str, tokenizer: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("pacer-text-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join("tokenizer.json"), tokenizer).unwrap();
        Folder(path)
    }

    fn load_and_encode(&self, text: &str) -> Result<Vec<u32>, String> {
        let tokenizer = Tokenizer::from_folder(&self.0).map_err(|e| e.message)?;
        tokenizer.encode(text, true).map_err(|e| e.message)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn hostile_tokenizers_are_errors_not_panics() {
    let sound = Folder::with("sound", small_tokenizer().to_string().as_bytes());
    assert_eq!(sound.load_and_encode("ab<s>a"), Ok(vec![2, 3, 0]));
    let special = |text: &str| json!([{"SpecialToken": {"id": text, "type_id": 0}}]);
    let cases: Vec<(&str, &str, Value)> = vec![
        ("merge-too-long", "/model/merges", json!([["a", "bbbbbbbb"]])),
        ("merge-unknown", "/model/merges", json!(["x y"])),
        ("merge-result-unknown", "/model/merges", json!([["b", "a"]])),
        (
            "prefix-too-long",
            "/model",
            json!({"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2},
            "continuing_subword_prefix": "########", "merges": [["a", "b"]]}),
        ),
        (
            "missing-special",
            "/post_processor",
            json!({"type": "TemplateProcessing",
            "single": special("<gone>"), "pair": special("<gone>"), "special_tokens": {}}),
        ),
        (
            "strip-decoder",
            "/decoder",
            json!({"type": "Strip", "content": "", "start": 9,
            "stop": 9}),
        ),
        ("fixed-length-0", "/pre_tokenizer", json!({"type": "FixedLength", "length": 0})),
        (
            "bad-precompiled",
            "/normalizer",
            json!({"type": "Precompiled",
            "precompiled_charsmap": "/////w=="}),
        ),
        (
            "bad-regex",
            "/pre_tokenizer",
            json!({"type": "Split", "pattern": {"Regex": "("},
            "behavior": "Isolated", "invert": false}),
        ),
        (
            "slow-regex",
            "/pre_tokenizer",
            json!({"type": "Split",
            "pattern": {"Regex": "(?:a|b|ab)*(?<!b)$"}, "behavior": "Isolated", "invert": false}),
        ),
        ("far-id", "/model/vocab", json!({"a": 0, "b": 1, "ab": 4294967295u32})),
        ("negative-id", "/model/vocab", json!({"a": 0, "b": -1, "ab": 2})),
        ("no-model", "/model", Value::Null),
        ("model-is-text", "/model", json!("BPE")),
        ("unigram-empty", "/model", json!({"type": "Unigram", "vocab": [], "unk_id": 7})),
        ("unknown-decoder", "/decoder", json!({"type": "CTC"})),
    ];
    let text = "ab".repeat(40);
    for (name, place, value) in cases {
        let mut file = small_tokenizer();
        *file.pointer_mut(place).unwrap() = value;
        let folder = Folder::with(name, file.to_string().as_bytes());
        let started = std::time::Instant::now();
        let error = folder.load_and_encode(&text).expect_err(name);
        assert!(error.len() > 20, "{name}: {error}");
        assert!(started.elapsed().as_secs() < 20, "{name} took {:?}", started.elapsed());
    }
}

#[test]
fn truncation_and_padding_of_the_file_are_left_out() {
    let mut file = small_tokenizer();
    file["truncation"] = json!({"direction": "Right", "max_length": 2, "stride": 5,
        "strategy": "LongestFirst"});
    file["padding"] = json!({"strategy": {"Fixed": 64}, "direction": "Left",
        "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "a"});
    let folder = Folder::with("truncation", file.to_string().as_bytes());
    assert_eq!(folder.load_and_encode("ababa"), Ok(vec![2, 2, 0]));
}

#[test]
fn damaged_bytes_are_errors_that_name_the_file() {
    let whole = small_tokenizer().to_string();
    for cut in (0..whole.len()).step_by(7) {
        let folder = Folder::with("cut", &whole.as_bytes()[..cut]);
        let error = Tokenizer::from_folder(&folder.0).unwrap_err();
        assert!(error.message.contains("tokenizer.json"), "{error}");
    }
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    for bytes in [deep.as_bytes(), b"\xff\xfe", b"[]", b"{}", b"null"] {
        let folder = Folder::with("odd", bytes);
        assert!(Tokenizer::from_folder(&folder.0).is_err());
    }
    let none = Path::new("/nonexistent-folder");
    assert!(Tokenizer::from_folder(none).unwrap_err().message.contains("no such file"));
}

#[test]
fn a_megabyte_of_one_character_encodes_in_seconds() {
    for (folder, _) in golden_models() {
        let name = folder.file_name().unwrap().to_str().unwrap();
        if !["llama", "mistral", "qwen3", "phi3"].contains(&name) {
            continue;
        }
        let tokenizer = Tokenizer::from_folder(&folder).unwrap();
        for unit in ["a", " ", "\n", "1", "^", "世", "\u{301}", "a ", "'"] {
            let text = unit.repeat((1 << 20) / unit.len());
            let started = std::time::Instant::now();
            let ids = tokenizer.encode(&text, false).unwrap();
            let seconds = started.elapsed().as_secs_f64();
            println!("{name} {unit:?}: {} ids in {seconds:.2} s", ids.len());
            assert!(seconds < 10.0, "{name} {unit:?}: {seconds:.1} s");
        }
    }
}

#[test]
fn a_template_may_not_run_or_write_without_end() {
    let special = pacer::text::SpecialTokens::default();
    let render = |source: &str| {
        let template = ChatTemplate::new(source, &special).unwrap();
        template.render(&json!([]), false, &Map::new()).unwrap_err().message
    };
    let long = "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}";
    assert!(render(long).contains("instructions"));
    let wide = "{% set x = 'x' * 9000000 %}{% for i in range(9) %}{{ x }}{% endfor %}";
    assert!(render(wide).contains("bytes"));
    let deep = "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}";
    assert!(render(deep).contains("recursion"), "{}", render(deep));
}
