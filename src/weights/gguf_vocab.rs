//! The vocabulary in a GGUF file's metadata, checked: lists of equal length, ids inside.

use std::path::Path;

use super::gguf_meta::{integer, mistyped};
use super::table::shown;
use crate::error::{Error, Result};
use crate::types::{GgufVocab, Meta, MetaMap, TokenId};

const TOKENS: &str = "tokenizer.ggml.tokens";
/// How a file without such a token may write its id: -1 as u32.
const NO_TOKEN: u64 = u32::MAX as u64;

/// Moves the vocabulary out of `map`: its lists leave the map, the other keys stay. `None` if
/// the file has none.
pub(super) fn take(path: &Path, map: &mut MetaMap) -> Result<Option<GgufVocab>> {
    let Some(tokens) = strings(path, map, TOKENS)? else { return Ok(None) };
    if tokens.is_empty() || u32::try_from(tokens.len()).is_err() {
        return Err(Error::file(path, format!("metadata {TOKENS}: {} tokens", tokens.len())));
    }
    let n = tokens.len();
    let id = |name: &str| token_id(path, map, name, n);
    let vocab = GgufVocab {
        model: string(path, map, "tokenizer.ggml.model")?.unwrap_or_default(),
        pre: string(path, map, "tokenizer.ggml.pre")?,
        bos_id: id("bos")?,
        eos_id: id("eos")?,
        eot_id: id("eot")?,
        eom_id: id("eom")?,
        unk_id: id("unknown")?,
        pad_id: id("padding")?,
        add_bos: flag(path, map, "tokenizer.ggml.add_bos_token")?,
        add_eos: flag(path, map, "tokenizer.ggml.add_eos_token")?,
        add_space_prefix: flag(path, map, "tokenizer.ggml.add_space_prefix")?,
        remove_extra_whitespaces: flag(path, map, "tokenizer.ggml.remove_extra_whitespaces")?,
        chat_template: string(path, map, "tokenizer.chat_template")?,
        merges: strings(path, map, "tokenizer.ggml.merges")?.unwrap_or_default(),
        scores: scores(path, map, n)?,
        token_types: token_types(path, map, n)?,
        tokens,
    };
    if vocab.model.is_empty() {
        return Err(Error::file(path, "metadata tokenizer.ggml.model: missing"));
    }
    Ok(Some(vocab))
}

fn string(path: &Path, map: &MetaMap, key: &str) -> Result<Option<String>> {
    match map.get(key) {
        None => Ok(None),
        Some(Meta::Str(s)) => Ok(Some(s.clone())),
        Some(other) => Err(mistyped(path, key, "a string", other)),
    }
}

fn flag(path: &Path, map: &MetaMap, key: &str) -> Result<Option<bool>> {
    match map.get(key) {
        None => Ok(None),
        Some(Meta::Bool(b)) => Ok(Some(*b)),
        Some(other) => Err(mistyped(path, key, "a bool", other)),
    }
}

fn token_id(path: &Path, map: &MetaMap, name: &str, tokens: usize) -> Result<Option<TokenId>> {
    let key = format!("tokenizer.ggml.{name}_token_id");
    match integer(path, map, &key)? {
        None | Some(NO_TOKEN) => Ok(None),
        Some(id) => match TokenId::try_from(id) {
            Ok(id) if (id as usize) < tokens => Ok(Some(id)),
            _ => Err(Error::file(
                path,
                format!("metadata {key}: {id} is outside the vocabulary of {tokens} tokens"),
            )),
        },
    }
}

fn strings(path: &Path, map: &mut MetaMap, key: &str) -> Result<Option<Vec<String>>> {
    match map.remove(key) {
        None => Ok(None),
        Some(Meta::Strs(list)) => Ok(Some(list)),
        Some(other) => Err(mistyped(path, key, "an array of strings", &other)),
    }
}

fn scores(path: &Path, map: &mut MetaMap, tokens: usize) -> Result<Vec<f32>> {
    let key = "tokenizer.ggml.scores";
    match map.remove(key) {
        None => Ok(Vec::new()),
        Some(Meta::F64s(list)) => {
            same_len(path, key, list.len(), tokens)?;
            Ok(list.into_iter().map(|score| score as f32).collect())
        }
        Some(other) => Err(mistyped(path, key, "an array of floats", &other)),
    }
}

fn token_types(path: &Path, map: &mut MetaMap, tokens: usize) -> Result<Vec<i32>> {
    let key = "tokenizer.ggml.token_type";
    let list: Vec<i64> = match map.remove(key) {
        None => return Ok(Vec::new()),
        Some(Meta::I64s(list)) => list,
        Some(Meta::U64s(list)) => {
            list.into_iter().map(|t| i64::try_from(t).unwrap_or(i64::MAX)).collect()
        }
        Some(other) => return Err(mistyped(path, key, "an array of integers", &other)),
    };
    same_len(path, key, list.len(), tokens)?;
    let narrow = |(i, kind): (usize, i64)| {
        i32::try_from(kind).ok().filter(|k| (0..=6).contains(k)).ok_or_else(|| {
            Error::file(path, format!("metadata {key}[{i}]: {kind} is no token type (0 to 6)"))
        })
    };
    list.into_iter().enumerate().map(narrow).collect()
}

fn same_len(path: &Path, key: &str, found: usize, tokens: usize) -> Result<()> {
    if found == tokens {
        return Ok(());
    }
    let key = shown(key);
    Err(Error::file(path, format!("metadata {key}: {found} values for {tokens} tokens")))
}
