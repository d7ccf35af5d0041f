//! How each family of GGUF vocabularies cuts text into words before merging.
//!
//! The patterns are those of the families' published tokenizer.json files; the names are the
//! values of `tokenizer.ggml.pre`.

use serde_json::{Value, json};

/// Llama 3, and others that took over its pattern (cl100k with digits in threes).
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Qwen 2: as Llama 3, with single digits.
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Mistral NeMo: words also end where the case rises; single digits.
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// GPT-4o (o200k): as tekken, with contractions and digits in threes.
const GPT_4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Names that [`family`] knows, for messages.
pub(super) const KNOWN: &str =
    "default, gpt-2, gpt-4o, llama-bpe, qwen2, smollm, starcoder, tekken";

/// What a family needs besides its vocabulary and merges.
pub(super) struct Family {
    pub pre_tokenizer: Value,
    pub normalizer: Value,
    /// A word that is a token is not merged again, even if merging would not lead to it.
    pub ignore_merges: bool,
    /// Is BOS added when the file does not say?
    pub add_bos: bool,
}

/// The family of a byte-level BPE vocabulary; `None` for a name that is not known: guessing
/// would give other tokens without a word.
pub(super) fn family(pre: Option<&str>) -> Option<Family> {
    let family = match pre.unwrap_or("default") {
        "default" | "gpt-2" | "gpt2" | "phi-2" | "olmo" | "mpt" | "jais" => plain(byte_level(true)),
        "smollm" | "starcoder" | "refact" | "codeshell" | "granite" | "command-r" => {
            let digits = json!({"type": "Digits", "individual_digits": true});
            plain(sequence(digits, byte_level(true)))
        }
        "llama-bpe" | "llama3" | "llama-v3" | "smaug-bpe" => {
            Family { ignore_merges: true, add_bos: true, ..plain(split(LLAMA3)) }
        }
        "dbrx" | "olmo2" => plain(split(LLAMA3)),
        "qwen2" | "deepseek-r1-qwen" => {
            Family { normalizer: json!({"type": "NFC"}), ..plain(split(QWEN2)) }
        }
        "stablelm2" => plain(split(QWEN2)),
        "tekken" => Family { ignore_merges: true, add_bos: true, ..plain(split(TEKKEN)) },
        "gpt-4o" => plain(split(GPT_4O)),
        _ => return None,
    };
    Some(family)
}

fn plain(pre_tokenizer: Value) -> Family {
    Family { pre_tokenizer, normalizer: Value::Null, ignore_merges: false, add_bos: false }
}

fn split(pattern: &str) -> Value {
    let split = json!({
        "type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false
    });
    sequence(split, byte_level(false))
}

fn sequence(first: Value, second: Value) -> Value {
    json!({"type": "Sequence", "pretokenizers": [first, second]})
}

/// Bytes as printable characters; `use_regex` cuts by GPT-2's pattern as well.
fn byte_level(use_regex: bool) -> Value {
    json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
        "use_regex": use_regex
    })
}
