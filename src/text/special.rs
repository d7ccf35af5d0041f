//! The small JSON files beside tokenizer.json: names of special tokens, end-of-text ids.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::types::{GgufVocab, TokenId};

/// No JSON file of a model is larger; the largest tokenizer.json known is 33 MB.
const MAX_JSON_BYTES: u64 = 512 << 20;

/// Special tokens by role (`bos_token`, `eos_token`, `unk_token`, `pad_token`, …), as texts:
/// what chat templates see under these names.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SpecialTokens {
    by_role: Map<String, Value>,
}

impl SpecialTokens {
    /// From tokenizer_config.json, and special_tokens_map.json for what that leaves out.
    /// Both files are optional.
    pub fn from_folder(folder: &Path) -> Result<Self> {
        let mut tokens = SpecialTokens::default();
        for name in ["tokenizer_config.json", "special_tokens_map.json"] {
            if let Some(Value::Object(file)) = read_json(&folder.join(name))? {
                tokens.add(&file);
            }
        }
        Ok(tokens)
    }

    /// From the ids in a GGUF file. Errors: an id that is not in the vocabulary.
    pub fn from_gguf(vocab: &GgufVocab) -> Result<Self> {
        let mut tokens = SpecialTokens::default();
        let roles = [
            ("bos", vocab.bos_id),
            ("eos", vocab.eos_id),
            ("unk", vocab.unk_id),
            ("pad", vocab.pad_id),
        ];
        for (role, id) in roles {
            let Some(id) = id else { continue };
            let text = vocab.tokens.get(id as usize).ok_or_else(|| {
                let size = vocab.tokens.len();
                Error::new(
                    crate::error::Kind::File,
                    format!(
                        "tokenizer.ggml.{role}_token_id is {id}, the vocabulary ends at {size}"
                    ),
                )
            })?;
            tokens.by_role.insert(format!("{role}_token"), text.clone().into());
        }
        Ok(tokens)
    }

    /// The text of a role, such as `bos_token`.
    pub fn text(&self, role: &str) -> Option<&str> {
        self.by_role.get(role)?.as_str()
    }

    /// All roles, for a template.
    pub fn by_role(&self) -> &Map<String, Value> {
        &self.by_role
    }

    fn add(&mut self, file: &Map<String, Value>) {
        for (role, value) in file {
            let wanted = role.ends_with("_token") || role == "additional_special_tokens";
            if !wanted || self.by_role.contains_key(role) {
                continue;
            }
            if let Some(text) = token_text(value) {
                self.by_role.insert(role.clone(), text);
            }
        }
    }
}

/// A token is a string or an object with `content`; a list of tokens is a list of texts.
fn token_text(value: &Value) -> Option<Value> {
    match value {
        Value::String(_) => Some(value.clone()),
        Value::Object(token) => token.get("content").filter(|c| c.is_string()).cloned(),
        Value::Array(list) => Some(list.iter().filter_map(token_text).collect()),
        _ => None,
    }
}

/// The ids that end a text: `eos_token_id` of generation_config.json and of config.json (one
/// id or a list), without repeats.
pub(super) fn eos_ids_of_folder(folder: &Path) -> Result<Vec<TokenId>> {
    let mut ids = Vec::new();
    for name in ["generation_config.json", "config.json"] {
        let Some(file) = read_json(&folder.join(name))? else { continue };
        let Some(eos) = file.get("eos_token_id").filter(|v| !v.is_null()) else { continue };
        let list = eos.as_array().cloned().unwrap_or_else(|| vec![eos.clone()]);
        for value in list {
            let id = value.as_u64().and_then(|id| TokenId::try_from(id).ok());
            let id = id.ok_or_else(|| {
                let what = format!("eos_token_id holds {value}, expected a token id");
                Error::file(folder.join(name), what)
            })?;
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
    }
    Ok(ids)
}

/// A JSON file, or `None` if there is none.
pub(super) fn read_json(path: &Path) -> Result<Option<Value>> {
    let Some(bytes) = read_file(path)? else { return Ok(None) };
    let value = serde_json::from_slice(&bytes);
    value.map(Some).map_err(|e| Error::file(path, format!("not valid JSON: {e}")))
}

/// A file's bytes, or `None` if there is none.
pub(super) fn read_file(path: &Path) -> Result<Option<Vec<u8>>> {
    let size = match std::fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io(path, &e)),
    };
    if size > MAX_JSON_BYTES {
        return Err(Error::file(path, format!("{size} bytes, expected at most {MAX_JSON_BYTES}")));
    }
    std::fs::read(path).map(Some).map_err(|e| Error::io(path, &e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tokens_are_texts_objects_or_lists() {
        let file = json!({"bos_token": {"content": "<s>"}, "eos_token": "</s>", "pad_token": null,
            "additional_special_tokens": ["a", {"content": "b"}], "model_max_length": 5,
            "add_bos_token": true});
        let mut tokens = SpecialTokens::default();
        tokens.add(file.as_object().unwrap());
        tokens.add(json!({"bos_token": "other", "pad_token": "p"}).as_object().unwrap());
        let expected = json!({"bos_token": "<s>", "eos_token": "</s>",
            "additional_special_tokens": ["a", "b"], "pad_token": "p"});
        assert_eq!(Value::Object(tokens.by_role), expected);
    }

    #[test]
    fn a_gguf_id_outside_the_vocabulary_is_named() {
        let vocab = GgufVocab { tokens: vec!["a".into()], bos_id: Some(1), ..Default::default() };
        let error = SpecialTokens::from_gguf(&vocab).unwrap_err();
        assert!(error.message.contains("bos_token_id is 1"), "{error}");
    }
}
