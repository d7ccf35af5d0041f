//! SGLang's native `/generate`.

use serde_json::{Map, Value};

use super::fields::{self, Fields, wrong};
use super::{Generation, Logprobs, MAX_PROMPTS, MAX_TOP_LOGPROBS, Prompt};
use crate::http::refused::Refused;

/// Fields that ask for what is not available here.
const UNAVAILABLE: &[&str] = &[
    "input_embeds",
    "image_data",
    "video_data",
    "audio_data",
    "lora_path",
    "token_ids_logprob",
    "return_hidden_states",
    "return_routed_experts",
    "session_params",
    "custom_logit_processor",
];

/// Longest prompt position that can be asked for.
const MAX_POSITION: i64 = 1 << 30;

/// Reads the body of `/generate`.
///
/// # Errors
/// 400 that names the field.
pub fn generate(body: &Map<String, Value>) -> Result<Generation, Refused> {
    let fields = Fields(body);
    fields.unavailable(UNAVAILABLE)?;
    let (prompts, batch) = prompts(fields)?;
    let count = prompts.len();
    if count == 0 || count > MAX_PROMPTS {
        let what = format!("{count} prompts in one request, expected 1 to {MAX_PROMPTS}");
        return Err(Refused::field(
            if fields.get("text").is_some() { "text" } else { "input_ids" },
            what,
        ));
    }
    Ok(Generation {
        sampling: sampling(fields, count)?,
        stream: fields.flag("stream")?.unwrap_or(false),
        logprobs: logprobs(fields, count)?,
        logprob_texts: fields.flag("return_text_in_logprobs")?.unwrap_or(false),
        ids: ids(fields, count)?,
        salt: salt(fields)?,
        prompts,
        batch,
    })
}

fn prompts(fields: Fields) -> Result<(Vec<Prompt>, bool), Refused> {
    match (fields.get("text"), fields.get("input_ids")) {
        (Some(_), Some(_)) => {
            Err(Refused::field("input_ids", "text and input_ids are both given, expected one"))
        }
        (Some(Value::String(text)), None) => Ok((vec![Prompt::Text(text.clone())], false)),
        (Some(Value::Array(list)), None) => {
            let text = |v: &Value| match v {
                Value::String(text) => Ok(Prompt::Text(text.clone())),
                other => Err(wrong("text", other, "a string or a list of strings")),
            };
            Ok((list.iter().map(text).collect::<Result<_, _>>()?, true))
        }
        (Some(other), None) => Err(wrong("text", other, "a string or a list of strings")),
        (None, Some(Value::Array(list))) => ids_prompts(list),
        (None, Some(other)) => {
            Err(wrong("input_ids", other, "a list of token ids, or a list of such lists"))
        }
        (None, None) => Err(Refused::field("text", "text or input_ids is missing")),
    }
}

fn ids_prompts(list: &[Value]) -> Result<(Vec<Prompt>, bool), Refused> {
    if !list.first().is_some_and(Value::is_array) {
        return Ok((vec![Prompt::Ids(fields::token_ids("input_ids", list)?)], false));
    }
    let ids = |v: &Value| match v {
        Value::Array(ids) => fields::token_ids("input_ids", ids).map(Prompt::Ids),
        other => Err(wrong("input_ids", other, "a list of token ids")),
    };
    Ok((list.iter().map(ids).collect::<Result<_, _>>()?, true))
}

fn sampling(fields: Fields, count: usize) -> Result<Vec<Map<String, Value>>, Refused> {
    let name = "sampling_params";
    let one = |v: &Value| match v {
        Value::Object(map) => Ok(map.clone()),
        Value::Null => Ok(Map::new()),
        other => Err(wrong(name, other, "an object")),
    };
    match fields.get(name) {
        None => Ok(vec![Map::new()]),
        Some(Value::Array(list)) if list.len() == count => list.iter().map(one).collect(),
        Some(Value::Array(list)) => {
            let message = format!("{} of {name} for {count} prompts", list.len());
            Err(Refused::field(name, message))
        }
        Some(other) => Ok(vec![one(other)?]),
    }
}

/// A value for every prompt, or a list of one each.
fn each<'a>(
    fields: Fields<'a>,
    name: &str,
    count: usize,
) -> Result<Vec<Option<&'a Value>>, Refused> {
    match fields.get(name) {
        Some(Value::Array(list)) if list.len() == count => {
            Ok(list.iter().map(|v| Some(v).filter(|v| !v.is_null())).collect())
        }
        Some(Value::Array(list)) => {
            Err(Refused::field(name, format!("{} of {name} for {count} prompts", list.len())))
        }
        other => Ok(vec![other; count]),
    }
}

fn logprobs(fields: Fields, count: usize) -> Result<Vec<Logprobs>, Refused> {
    let returns = each(fields, "return_logprob", count)?;
    let starts = each(fields, "logprob_start_len", count)?;
    let tops = each(fields, "top_logprobs_num", count)?;
    let mut all = Vec::with_capacity(count);
    for ((output, start), top) in returns.into_iter().zip(starts).zip(tops) {
        let output = match output {
            None => false,
            Some(value) => {
                value.as_bool().ok_or_else(|| wrong("return_logprob", value, "true or false"))?
            }
        };
        let whole = |name, v: Option<&Value>, low, high, default| {
            v.map_or(Ok(default), |v| fields::whole(name, v, low, high))
        };
        let start = whole("logprob_start_len", start, -1, MAX_POSITION, -1)?;
        let top = whole("top_logprobs_num", top, 0, MAX_TOP_LOGPROBS, 0)?;
        let prompt_start = usize::try_from(start).ok().filter(|_| output);
        let top = if output { top as usize } else { 0 };
        all.push(Logprobs { output, prompt_start, top });
    }
    Ok(all)
}

fn ids(fields: Fields, count: usize) -> Result<Vec<String>, Refused> {
    let one = |v: &Value| match v.as_str() {
        Some(id) if is_id(id) => Ok(id.to_owned()),
        _ => Err(wrong("rid", v, "1 to 128 characters of A-Z a-z 0-9 . _ -")),
    };
    match fields.get("rid") {
        None => Ok(Vec::new()),
        Some(Value::Array(list)) if list.len() == count => list.iter().map(one).collect(),
        Some(Value::Array(list)) => {
            Err(Refused::field("rid", format!("{} of rid for {count} prompts", list.len())))
        }
        Some(id) if count == 1 => Ok(vec![one(id)?]),
        Some(id) => {
            let id = one(id)?;
            Ok((0..count).map(|i| format!("{id}_{i}")).collect())
        }
    }
}

/// Request ids appear in logs and answers, so they are plain.
pub fn is_id(id: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    (1..=128).contains(&id.len()) && id.bytes().all(plain)
}

/// `extra_key` and `cache_salt` both keep prefixes apart.
pub fn salt(fields: Fields) -> Result<Option<String>, Refused> {
    let parts = [fields.text("extra_key")?, fields.text("cache_salt")?];
    let given: Vec<&str> = parts.into_iter().flatten().filter(|s| !s.is_empty()).collect();
    Ok((!given.is_empty()).then(|| given.join("\u{1f}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: Value) -> Result<Generation, Refused> {
        generate(value.as_object().unwrap())
    }

    #[test]
    fn single_and_batch() {
        let one = read(json!({"text": "a", "sampling_params": {"n": 2}, "stream": true})).unwrap();
        assert_eq!((one.prompts.len(), one.batch, one.stream), (1, false, true));
        let ids = read(json!({"input_ids": [1, 2]})).unwrap();
        assert_eq!((ids.prompts, ids.batch), (vec![Prompt::Ids(vec![1, 2])], false));
        let two = read(json!({"text": ["a", "b"], "rid": "x", "return_logprob": true,
            "logprob_start_len": [0, -1], "top_logprobs_num": "2"}))
        .unwrap();
        assert!(two.batch);
        assert_eq!(two.ids, ["x_0", "x_1"]);
        let start = |i: usize| two.logprobs[i].prompt_start;
        assert_eq!((start(0), start(1), two.logprobs[1].top), (Some(0), None, 2));
        assert!(read(json!({"text": ["a"]})).unwrap().batch);
    }

    #[test]
    fn errors_name_the_field() {
        for (bad, field) in [
            (json!({}), "text"),
            (json!({"text": "a", "input_ids": [1]}), "input_ids"),
            (json!({"text": 3}), "text"),
            (json!({"text": []}), "text"),
            (json!({"text": ["a", 1]}), "text"),
            (json!({"input_ids": [1, -1]}), "input_ids"),
            (json!({"input_ids": [[1], 2]}), "input_ids"),
            (json!({"input_ids": [1u64 << 32]}), "input_ids"),
            (json!({"text": "a", "sampling_params": []}), "sampling_params"),
            (json!({"text": "a", "sampling_params": 1}), "sampling_params"),
            (json!({"text": "a", "stream": "maybe"}), "stream"),
            (json!({"text": "a", "rid": "a b"}), "rid"),
            (json!({"text": "a", "rid": "a\r\nb"}), "rid"),
            (
                json!({"text": "a", "return_logprob": true, "top_logprobs_num": 21}),
                "top_logprobs_num",
            ),
            (json!({"text": "a", "logprob_start_len": -2}), "logprob_start_len"),
            (json!({"text": "a", "image_data": "http://x"}), "image_data"),
        ] {
            let error = read(bad.clone()).expect_err(&bad.to_string());
            assert_eq!((error.status, error.param.as_deref()), (400, Some(field)), "{bad}");
        }
    }
}
