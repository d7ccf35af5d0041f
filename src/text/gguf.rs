//! The vocabulary of a GGUF file as the tokenizer.json that it was made from, with its two long
//! lists apart: through JSON they would take most of a cold start.

use std::collections::HashMap;

use serde_json::{Map, Value, json};
use tokenizers::models::bpe::{Merges, Vocab};

use super::pre_tokenizer::{KNOWN, family};
use crate::error::{Error, Kind, Result};
use crate::types::{GgufVocab, TokenId};

const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;

/// SentencePiece writes a blank as this character.
const BLANK: &str = "\u{2581}";
/// A longer piece is not split to find its merges; the longest in use have 48 characters.
const MAX_PIECE_CHARS: usize = 256;

/// A tokenizer.json whose model has an empty vocabulary, and what belongs there.
pub(super) struct Recipe {
    pub json: Value,
    /// Token to id; where a text occurs twice the first id is used, as when merging by rank.
    pub vocab: Vocab,
    pub merges: Merges,
}

/// The tokenizer of `vocab`: byte-level BPE for `gpt2`, BPE with byte fallback for `llama`.
/// Errors: another model, an unknown pre-tokenizer, lists of different lengths.
pub(super) fn recipe(vocab: &GgufVocab) -> Result<Recipe> {
    check_lengths(vocab)?;
    let (json, merges) = match vocab.model.as_str() {
        "gpt2" => (byte_level_json(vocab)?, split_merges(vocab)?),
        "llama" if vocab.merges.is_empty() => (sentence_piece_json(vocab)?, by_score(vocab)?),
        "llama" => (sentence_piece_json(vocab)?, split_merges(vocab)?),
        other => {
            return Err(Error::unsupported(format!(
                "tokenizer.ggml.model is {other:?}; supported: gpt2 (byte-level BPE), llama \
                 (SentencePiece)"
            )));
        }
    };
    let mut ids = Vocab::with_capacity(vocab.tokens.len());
    for (token, id) in vocab.tokens.iter().zip(0..) {
        ids.entry(token.clone()).or_insert(id);
    }
    Ok(Recipe { json, vocab: ids, merges })
}

fn check_lengths(vocab: &GgufVocab) -> Result<()> {
    let size = vocab.tokens.len();
    if size == 0 {
        return Err(fault("tokenizer.ggml.tokens is empty"));
    }
    for (name, length) in [("scores", vocab.scores.len()), ("token_type", vocab.token_types.len())]
    {
        if length != 0 && length != size {
            return Err(fault(&format!(
                "tokenizer.ggml.{name} has {length} entries for {size} tokens"
            )));
        }
    }
    Ok(())
}

fn fault(what: &str) -> Error {
    Error::new(Kind::File, what)
}

fn byte_level_json(vocab: &GgufVocab) -> Result<Value> {
    let family = family(vocab.pre.as_deref()).ok_or_else(|| {
        let pre = vocab.pre.as_deref().unwrap_or_default();
        Error::unsupported(format!("tokenizer.ggml.pre is {pre:?}; supported: {KNOWN}"))
    })?;
    Ok(json!({
        "version": "1.0",
        "added_tokens": added_tokens(vocab),
        "normalizer": family.normalizer,
        "pre_tokenizer": family.pre_tokenizer,
        "post_processor": post_processor(vocab, family.add_bos)?,
        "decoder": {"type": "ByteLevel"},
        "model": {
            "type": "BPE",
            "ignore_merges": family.ignore_merges,
            "vocab": {},
            "merges": [],
        },
    }))
}

/// `left right`: byte-level tokens hold no blank, so the only one is between them.
fn split_merges(vocab: &GgufVocab) -> Result<Merges> {
    let split = |merge: &String| match merge.split_once(' ') {
        Some((left, right)) if !right.contains(' ') => Ok((left.to_owned(), right.to_owned())),
        _ => Err(fault(&format!("tokenizer.ggml.merges holds {merge:?}, expected two tokens"))),
    };
    vocab.merges.iter().map(split).collect()
}

fn sentence_piece_json(vocab: &GgufVocab) -> Result<Value> {
    let prefix = vocab.add_space_prefix.unwrap_or(true);
    let to_blank = json!({"type": "Replace", "pattern": {"String": " "}, "content": BLANK});
    let mut normalizers = vec![to_blank];
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": BLANK}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if prefix {
        normalizers.insert(0, json!({"type": "Prepend", "prepend": BLANK}));
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    let unknown = vocab.unk_id.or_else(|| id_of_type(vocab, UNKNOWN));
    let unknown = unknown.and_then(|id| vocab.tokens.get(id as usize));
    Ok(json!({
        "version": "1.0",
        "added_tokens": added_tokens(vocab),
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": null,
        "post_processor": post_processor(vocab, true)?,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {
            "type": "BPE", "unk_token": unknown, "fuse_unk": true, "byte_fallback": true,
            "vocab": {}, "merges": [],
        },
    }))
}

fn token_type(vocab: &GgufVocab, id: usize) -> i32 {
    vocab.token_types.get(id).copied().unwrap_or(NORMAL)
}

fn id_of_type(vocab: &GgufVocab, wanted: i32) -> Option<TokenId> {
    vocab.token_types.iter().position(|t| *t == wanted).map(|id| id as TokenId)
}

/// Tokens that are found in the raw text before anything else.
fn added_tokens(vocab: &GgufVocab) -> Vec<Value> {
    let tokens = vocab.tokens.iter().enumerate();
    let added = tokens.filter_map(|(id, token)| {
        let special = match token_type(vocab, id) {
            CONTROL | UNKNOWN => true,
            USER_DEFINED => false,
            _ => return None,
        };
        Some(json!({
            "id": id, "content": token, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": special,
        }))
    });
    added.filter(|token| token["content"] != "").collect()
}

/// BOS before and EOS after the text, as the file says.
fn post_processor(vocab: &GgufVocab, bos_by_default: bool) -> Result<Value> {
    let mut single = vec![json!({"Sequence": {"id": "A", "type_id": 0}})];
    let mut special = Map::new();
    let mut add = |id: Option<TokenId>, at: Option<usize>| -> Result<()> {
        let Some(id) = id else { return Ok(()) };
        let text = vocab.tokens.get(id as usize);
        let text = text.ok_or_else(|| fault(&format!("special token {id} is no token")))?;
        special.insert(text.clone(), json!({"id": text, "ids": [id], "tokens": [text]}));
        let part = json!({"SpecialToken": {"id": text, "type_id": 0}});
        single.insert(at.unwrap_or(single.len()), part);
        Ok(())
    };
    if vocab.add_bos.unwrap_or(bos_by_default) {
        add(vocab.bos_id, Some(0))?;
    }
    if vocab.add_eos.unwrap_or(false) {
        add(vocab.eos_id, None)?;
    }
    if special.is_empty() {
        return Ok(Value::Null);
    }
    let mut pair = single.clone();
    pair.push(json!({"Sequence": {"id": "B", "type_id": 1}}));
    Ok(json!({
        "type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special,
    }))
}

/// SentencePiece merges the two neighbours whose union has the best score. As a list of merges:
/// every way to cut a piece into two pieces, best union first (Kudo & Richardson 2018; the
/// order among cuts of one piece is that of the published conversions).
fn by_score(vocab: &GgufVocab) -> Result<Merges> {
    if vocab.scores.is_empty() {
        return Err(fault(
            "tokenizer.ggml.scores is missing: it gives a llama vocabulary's merges",
        ));
    }
    let mut ids: HashMap<&str, usize> = HashMap::new();
    for (id, piece) in pieces(vocab) {
        ids.entry(piece).or_insert(id);
    }
    let mut merges: Vec<(f32, usize, usize, &str, &str)> = Vec::new();
    for (id, piece) in pieces(vocab) {
        let Some(score) = vocab.scores.get(id) else { continue };
        for (at, _) in piece.char_indices().skip(1).take(MAX_PIECE_CHARS) {
            let (left, right) = piece.split_at(at);
            if let (Some(left_id), Some(right_id)) = (ids.get(left), ids.get(right)) {
                merges.push((*score, *left_id, *right_id, left, right));
            }
        }
    }
    merges.sort_by(|a, b| {
        let longer_left = b.3.chars().count().cmp(&a.3.chars().count());
        b.0.total_cmp(&a.0).then(longer_left).then((a.1, a.2).cmp(&(b.1, b.2)))
    });
    let pair = |left: &str, right: &str| (left.to_owned(), right.to_owned());
    Ok(merges.iter().map(|(_, _, _, left, right)| pair(left, right)).collect())
}

/// The pieces that merging may use or reach.
fn pieces(vocab: &GgufVocab) -> impl Iterator<Item = (usize, &str)> {
    let tokens = vocab.tokens.iter().enumerate();
    tokens.filter(|(id, _)| token_type(vocab, *id) == NORMAL).map(|(id, t)| (id, t.as_str()))
}
