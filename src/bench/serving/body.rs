//! Request bodies for each API. Pure.

use serde_json::{Map, Value, json};

use crate::bench::data::{Prompt, Row, files};
use crate::bench::load::protocol::Api;
use crate::error::{Error, Result};
use crate::types::TokenId;

/// SGLang's name of a prefill worker that is not there.
pub const FAKE_HOST: &str = "2.2.2.2";

/// What every request of a run has in common.
#[derive(Debug, Clone, PartialEq)]
pub struct Common {
    pub api: Api,
    pub model: String,
    pub stream: bool,
    pub ignore_eos: bool,
    pub temperature: f64,
    pub top_p: f64,
    pub return_logprob: bool,
    pub top_logprobs: usize,
    pub logprob_start_len: i64,
    /// Tokens whose log-probabilities are wanted at each position.
    pub token_ids_logprob: Vec<TokenId>,
    /// As if a prefill worker had computed the prompt.
    pub fake_prefill: bool,
    /// Asks OpenAI-style servers for token counts at the end of a stream.
    pub include_usage: bool,
    /// Merged over everything else but a row's own fields.
    pub extra: Map<String, Value>,
}

/// The body of the request for `row`.
///
/// # Errors
/// `Usage` where the API does not take such a prompt.
pub fn body(common: &Common, row: &Row) -> Result<Vec<u8>> {
    let mut body = match common.api {
        Api::Generate => generate(common, row)?,
        Api::Completions => completions(common, row)?,
        Api::Chat => chat(common, row)?,
    };
    for (key, value) in common.extra.iter().chain(&row.extra) {
        body.insert(key.clone(), value.clone());
    }
    serde_json::to_vec(&body).map_err(|e| Error::usage(format!("a request body: {e}")))
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn generate(common: &Common, row: &Row) -> Result<Map<String, Value>> {
    let mut params = object(json!({
        "temperature": common.temperature,
        "max_new_tokens": row.output_len,
        "ignore_eos": common.ignore_eos,
    }));
    if common.top_p < 1.0 {
        params.insert("top_p".into(), common.top_p.into());
    }
    let (key, prompt) = match &row.prompt {
        Prompt::Ids(ids) => ("input_ids", json!(ids)),
        Prompt::Text(text) => ("text", json!(text)),
        Prompt::Messages(_) => {
            let error = "messages go to a chat backend, such as --backend sglang-oai-chat";
            return Err(Error::usage(error));
        }
    };
    let mut body = Map::new();
    body.insert(key.into(), prompt);
    body.insert("sampling_params".into(), params.into());
    body.insert("stream".into(), common.stream.into());
    if common.return_logprob {
        body.insert("return_logprob".into(), true.into());
        body.insert("logprob_start_len".into(), common.logprob_start_len.into());
        if common.top_logprobs > 0 {
            body.insert("top_logprobs_num".into(), common.top_logprobs.into());
        }
        if !common.token_ids_logprob.is_empty() {
            body.insert("token_ids_logprob".into(), json!(common.token_ids_logprob));
        }
    }
    if common.fake_prefill {
        body.insert("bootstrap_host".into(), FAKE_HOST.into());
        body.insert("bootstrap_room".into(), 0.into());
    }
    Ok(body)
}

fn completions(common: &Common, row: &Row) -> Result<Map<String, Value>> {
    let prompt = match &row.prompt {
        Prompt::Ids(ids) => json!(ids),
        Prompt::Text(text) => json!(text),
        Prompt::Messages(_) => {
            let error = "messages go to a chat backend, such as --backend vllm-chat";
            return Err(Error::usage(error));
        }
    };
    let mut body = object(json!({
        "model": common.model,
        "prompt": prompt,
        "max_tokens": row.output_len,
    }));
    if common.return_logprob && common.top_logprobs > 0 {
        body.insert("logprobs".into(), common.top_logprobs.into());
    }
    openai(common, body)
}

fn chat(common: &Common, row: &Row) -> Result<Map<String, Value>> {
    let messages = match &row.prompt {
        Prompt::Messages(messages) => messages.clone(),
        Prompt::Text(text) => files::as_message(text),
        Prompt::Ids(_) => {
            return Err(Error::usage(
                "a chat backend takes text, not token ids; give --tokenizer so that random \
                 prompts can be written as text",
            ));
        }
    };
    let mut body = object(json!({
        "model": common.model,
        "messages": messages,
        "max_completion_tokens": row.output_len,
    }));
    if common.return_logprob {
        body.insert("logprobs".into(), true.into());
        body.insert("top_logprobs".into(), common.top_logprobs.into());
    }
    openai(common, body)
}

fn openai(common: &Common, mut body: Map<String, Value>) -> Result<Map<String, Value>> {
    body.insert("temperature".into(), common.temperature.into());
    if common.top_p < 1.0 {
        body.insert("top_p".into(), common.top_p.into());
    }
    body.insert("stream".into(), common.stream.into());
    body.insert("ignore_eos".into(), common.ignore_eos.into());
    if common.stream && common.include_usage {
        body.insert("stream_options".into(), json!({ "include_usage": true }));
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn common(api: Api) -> Common {
        Common {
            api,
            model: "m".into(),
            stream: true,
            ignore_eos: true,
            temperature: 0.0,
            top_p: 1.0,
            return_logprob: false,
            top_logprobs: 0,
            logprob_start_len: -1,
            token_ids_logprob: Vec::new(),
            fake_prefill: false,
            include_usage: true,
            extra: Map::new(),
        }
    }

    fn parsed(common: &Common, row: &Row) -> Value {
        serde_json::from_slice(&body(common, row).unwrap()).unwrap()
    }

    #[test]
    fn the_native_api() {
        let got = parsed(&common(Api::Generate), &Row::ids(vec![1, 2], 5));
        let want = json!({
            "input_ids": [1, 2],
            "sampling_params": { "temperature": 0.0, "max_new_tokens": 5, "ignore_eos": true },
            "stream": true,
        });
        assert_eq!(got, want);
        let logprobs = Common {
            return_logprob: true,
            top_logprobs: 2,
            top_p: 0.5,
            token_ids_logprob: vec![7],
            fake_prefill: true,
            ..common(Api::Generate)
        };
        let got = parsed(&logprobs, &Row::new(Prompt::Text("x".into()), 1, 5));
        assert_eq!((&got["text"], &got["top_logprobs_num"]), (&json!("x"), &json!(2)));
        assert_eq!(got["sampling_params"]["top_p"], 0.5);
        assert_eq!(got["token_ids_logprob"], json!([7]));
        assert_eq!(
            (&got["bootstrap_host"], &got["bootstrap_room"]),
            (&json!("2.2.2.2"), &json!(0))
        );
    }

    #[test]
    fn the_openai_apis() {
        let got = parsed(&common(Api::Completions), &Row::ids(vec![3], 5));
        assert_eq!(got["prompt"], json!([3]));
        assert_eq!((&got["max_tokens"], &got["ignore_eos"]), (&json!(5), &json!(true)));
        assert_eq!(got["stream_options"], json!({ "include_usage": true }));
        let got = parsed(&common(Api::Chat), &Row::new(Prompt::Text("hi".into()), 1, 5));
        assert_eq!(got["messages"], json!([{ "role": "user", "content": "hi" }]));
        assert_eq!(got["max_completion_tokens"], 5);
        assert!(body(&common(Api::Chat), &Row::ids(vec![1], 1)).is_err());
    }

    #[test]
    fn a_rows_own_fields_win() {
        let mut common = common(Api::Completions);
        common.extra = object(json!({ "temperature": 0.7, "seed": 1 }));
        let mut row = Row::ids(vec![3], 5);
        row.extra = object(json!({ "seed": 2 }));
        let got = parsed(&common, &row);
        assert_eq!((&got["temperature"], &got["seed"]), (&json!(0.7), &json!(2)));
    }
}
