//! `/tokenize`, `/detokenize`, `/abort_request`.

use serde_json::{Map, Value};

use super::fields::{self, Fields, wrong};
use super::generate::is_id;
use crate::http::refused::Refused;
use crate::types::TokenId;

/// A text to be tokenised, or several.
#[derive(Debug, Clone, PartialEq)]
pub struct Tokenize {
    pub texts: Vec<String>,
    pub batch: bool,
    pub add_special_tokens: bool,
}

/// Reads the body of `/tokenize`: `prompt` is a text or a list of texts.
pub fn tokenize(body: &Map<String, Value>) -> Result<Tokenize, Refused> {
    let fields = Fields(body);
    let (texts, batch) = match fields.get("prompt").or_else(|| fields.get("text")) {
        Some(Value::String(text)) => (vec![text.clone()], false),
        Some(Value::Array(list)) => {
            let text = |v: &Value| v.as_str().map(str::to_owned);
            let texts: Option<Vec<String>> = list.iter().map(text).collect();
            let Some(texts) = texts else {
                return Err(Refused::field("prompt", "prompt has an entry that is no string"));
            };
            (texts, true)
        }
        Some(other) => return Err(wrong("prompt", other, "a string or a list of strings")),
        None => return Err(Refused::field("prompt", "prompt is missing")),
    };
    let add_special_tokens = fields.flag("add_special_tokens")?.unwrap_or(true);
    Ok(Tokenize { texts, batch, add_special_tokens })
}

/// Tokens to be made text.
#[derive(Debug, Clone, PartialEq)]
pub struct Detokenize {
    pub tokens: Vec<Vec<TokenId>>,
    pub batch: bool,
    pub skip_special_tokens: bool,
}

/// Reads the body of `/detokenize`: `tokens` is a list of ids or a list of such lists.
pub fn detokenize(body: &Map<String, Value>) -> Result<Detokenize, Refused> {
    let fields = Fields(body);
    let Some(list) = fields.list("tokens")? else {
        return Err(Refused::field("tokens", "tokens is missing"));
    };
    let batch = list.first().is_some_and(Value::is_array);
    let tokens = if batch {
        let ids = |v: &Value| match v {
            Value::Array(ids) => fields::token_ids("tokens", ids),
            other => Err(wrong("tokens", other, "a list of token ids")),
        };
        list.iter().map(ids).collect::<Result<_, _>>()?
    } else {
        vec![fields::token_ids("tokens", list)?]
    };
    let skip_special_tokens = fields.flag("skip_special_tokens")?.unwrap_or(true);
    Ok(Detokenize { tokens, batch, skip_special_tokens })
}

/// Whom `/abort_request` ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Abort {
    All,
    /// Requests of this id, and those of a batch that begin with it.
    Id(String),
}

/// Reads the body of `/abort_request`.
pub fn abort(body: &Map<String, Value>) -> Result<Abort, Refused> {
    let fields = Fields(body);
    if fields.flag("abort_all")?.unwrap_or(false) {
        return Ok(Abort::All);
    }
    match fields.text("rid")? {
        Some(id) if is_id(id) => Ok(Abort::Id(id.to_owned())),
        Some(id) => Err(wrong("rid", &id.into(), "1 to 128 characters of A-Z a-z 0-9 . _ -")),
        None => Err(Refused::field("rid", "rid or abort_all is missing")),
    }
}
