//! What `/v1/completions` and `/v1/chat/completions` share.

use serde_json::{Map, Value, json};

use super::fields::{Fields, wrong};
use super::generate::{is_id, salt};
use crate::http::refused::Refused;

/// OpenAI options around a generation.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenAi {
    pub model: Option<String>,
    pub stream: bool,
    /// A last chunk with the usage.
    pub include_usage: bool,
    /// The usage so far in every chunk.
    pub continuous_usage: bool,
    pub id: Option<String>,
    pub salt: Option<String>,
    pub sampling: Map<String, Value>,
}

/// Sampling parameters that have the same name on both sides.
const SAME: &[&str] = &[
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "frequency_penalty",
    "presence_penalty",
    "repetition_penalty",
    "logit_bias",
    "stop",
    "stop_token_ids",
    "stop_regex",
    "ignore_eos",
    "skip_special_tokens",
    "spaces_between_special_tokens",
    "no_stop_trim",
    "n",
    "regex",
    "ebnf",
];

/// Fields that ask for what is not available here.
const UNAVAILABLE: &[&str] =
    &["lora_path", "return_hidden_states", "suffix", "custom_logit_processor", "audio"];

/// Largest count of tokens that can be asked for.
pub const MAX_TOKENS: i64 = 1 << 30;

impl OpenAi {
    pub fn read(fields: Fields) -> Result<Self, Refused> {
        fields.unavailable(UNAVAILABLE)?;
        fields.whole("best_of", 1, 128)?;
        let options = fields.object("stream_options")?;
        let option = |name: &str| options.map_or(Ok(None), |map| Fields(map).flag(name));
        let id = fields.text("rid")?.map(str::to_owned);
        if let Some(id) = id.as_deref().filter(|id| !is_id(id)) {
            let value = Value::from(id);
            return Err(wrong("rid", &value, "1 to 128 characters of A-Z a-z 0-9 . _ -"));
        }
        Ok(OpenAi {
            model: fields.text("model")?.map(str::to_owned),
            stream: fields.flag("stream")?.unwrap_or(false),
            include_usage: option("include_usage")?.unwrap_or(false),
            continuous_usage: option("continuous_usage_stats")?.unwrap_or(false),
            id,
            salt: salt(fields)?,
            sampling: sampling(fields)?,
        })
    }
}

fn sampling(fields: Fields) -> Result<Map<String, Value>, Refused> {
    let mut map = Map::new();
    for name in SAME {
        if let Some(value) = fields.get(name) {
            map.insert((*name).into(), value.clone());
        }
    }
    if let Some(seed) = fields.whole("seed", i64::MIN, i64::MAX)? {
        // Some clients draw signed seeds; any fixed meaning will do.
        map.insert("sampling_seed".into(), (seed as u64 & (u64::MAX >> 1)).into());
    }
    if let Some(min) = fields.whole("min_tokens", 0, MAX_TOKENS)? {
        map.insert("min_new_tokens".into(), min.into());
    }
    if let Some(schema) = fields.get("json_schema") {
        map.insert("json_schema".into(), text_of(schema));
    }
    if let Some(format) = fields.object("response_format")? {
        response_format(Fields(format), &mut map)?;
    }
    Ok(map)
}

/// `response_format` as the schema that it stands for.
fn response_format(format: Fields, map: &mut Map<String, Value>) -> Result<(), Refused> {
    match format.text("type")? {
        Some("text") | None => {}
        Some("json_object") => {
            map.insert("json_schema".into(), json!({ "type": "object" }).to_string().into());
        }
        Some("json_schema") => {
            let schema = format.object("json_schema")?.and_then(|named| named.get("schema"));
            let schema = schema.ok_or_else(|| {
                Refused::field("response_format", "response_format.json_schema.schema is missing")
            })?;
            map.insert("json_schema".into(), text_of(schema));
        }
        Some(other) => {
            let wanted = "text, json_object or json_schema";
            return Err(wrong("response_format", &Value::from(other), wanted));
        }
    }
    Ok(())
}

/// The engine takes schemas as text.
fn text_of(value: &Value) -> Value {
    match value {
        Value::String(_) => value.clone(),
        other => other.to_string().into(),
    }
}
