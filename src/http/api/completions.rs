//! OpenAI's `/v1/completions`.

use serde_json::{Map, Value};

use super::fields::{self, Fields, wrong};
use super::openai::{MAX_TOKENS, OpenAi};
use super::{Generation, Logprobs, MAX_PROMPTS, MAX_TOP_LOGPROBS, Prompt};
use crate::http::refused::Refused;

/// Tokens that are generated when the request does not say.
const DEFAULT_TOKENS: i64 = 16;

/// Reads the body: the generation, the options around it, and whether the prompt is to be
/// repeated in front of the answer.
///
/// # Errors
/// 400 that names the field.
pub fn completions(body: &Map<String, Value>) -> Result<(Generation, OpenAi, bool), Refused> {
    let fields = Fields(body);
    let mut openai = OpenAi::read(fields)?;
    let (prompts, batch) = prompts(fields)?;
    let count = prompts.len();
    if count == 0 || count > MAX_PROMPTS {
        let what = format!("{count} prompts in one request, expected 1 to {MAX_PROMPTS}");
        return Err(Refused::field("prompt", what));
    }
    let echo = fields.flag("echo")?.unwrap_or(false);
    let least = if echo { 0 } else { 1 };
    let tokens = fields.whole("max_tokens", least, MAX_TOKENS)?.unwrap_or(DEFAULT_TOKENS);
    openai.sampling.insert("max_new_tokens".into(), tokens.into());
    let top = fields.whole("logprobs", 0, MAX_TOP_LOGPROBS)?;
    let logprobs = Logprobs {
        output: top.is_some(),
        prompt_start: (echo && top.is_some()).then_some(0),
        top: top.unwrap_or(0) as usize,
    };
    let generation = Generation {
        prompts,
        batch,
        sampling: vec![std::mem::take(&mut openai.sampling)],
        stream: openai.stream,
        logprobs: vec![logprobs; count],
        logprob_texts: true,
        ids: Vec::new(),
        salt: openai.salt.clone(),
    };
    Ok((generation, openai, echo))
}

/// A text, a list of texts, token ids, or a list of lists of token ids.
fn prompts(fields: Fields) -> Result<(Vec<Prompt>, bool), Refused> {
    let wanted = "a string, a list of strings, token ids, or a list of lists of token ids";
    match fields.get("prompt") {
        None => Err(Refused::field("prompt", "prompt is missing")),
        Some(Value::String(text)) => Ok((vec![Prompt::Text(text.clone())], false)),
        Some(Value::Array(list)) if list.first().is_some_and(Value::is_number) => {
            Ok((vec![Prompt::Ids(fields::token_ids("prompt", list)?)], false))
        }
        Some(Value::Array(list)) => {
            let one = |v: &Value| match v {
                Value::String(text) => Ok(Prompt::Text(text.clone())),
                Value::Array(ids) => fields::token_ids("prompt", ids).map(Prompt::Ids),
                other => Err(wrong("prompt", other, wanted)),
            };
            Ok((list.iter().map(one).collect::<Result<_, _>>()?, true))
        }
        Some(other) => Err(wrong("prompt", other, wanted)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_clients_send() {
        let body = json!({
            "model": "m", "prompt": [[1, 2], [3]], "repetition_penalty": 1.0, "max_tokens": "8",
            "logprobs": null, "stream": true, "stream_options": {"include_usage": true},
            "ignore_eos": true, "seed": 7, "unknown": [1]
        });
        let (generation, openai, echo) = completions(body.as_object().unwrap()).unwrap();
        assert_eq!(generation.prompts.len(), 2);
        assert_eq!(generation.sampling[0]["max_new_tokens"], 8);
        assert_eq!(generation.sampling[0]["sampling_seed"], 7);
        assert!(openai.include_usage && openai.stream && !echo);
        assert!(!generation.logprobs[0].output);
    }

    #[test]
    fn errors_name_the_field() {
        for (bad, field) in [
            (json!({}), "prompt"),
            (json!({"prompt": []}), "prompt"),
            (json!({"prompt": {}}), "prompt"),
            (json!({"prompt": [1, "a"]}), "prompt"),
            (json!({"prompt": "a", "max_tokens": 0}), "max_tokens"),
            (json!({"prompt": "a", "max_tokens": 1u64 << 31}), "max_tokens"),
            (json!({"prompt": "a", "logprobs": 21}), "logprobs"),
            (json!({"prompt": "a", "logprobs": -1}), "logprobs"),
            (json!({"prompt": "a", "best_of": 0}), "best_of"),
            (json!({"prompt": "a", "stream_options": 1}), "stream_options"),
            (json!({"prompt": "a", "response_format": {"type": "xml"}}), "response_format"),
            (json!({"prompt": "a", "suffix": "b"}), "suffix"),
            (json!({"prompt": "a", "seed": "x"}), "seed"),
        ] {
            let error = completions(bad.as_object().unwrap()).expect_err(&bad.to_string());
            assert_eq!((error.status, error.param.as_deref()), (400, Some(field)), "{bad}");
        }
    }
}
