//! Log-probabilities in the three forms that clients know.

use serde_json::{Value, json};

use super::super::generate::{Generation, Running};
use super::Choice;
use crate::engine::logprobs::TokenLogprob;
use crate::engine::request::LogprobOptions;
use crate::text::Tokenizer;
use crate::types::TokenId;

/// JSON has no infinity: the least float stands for the logarithm of 0.
fn finite(logprob: f32) -> f32 {
    if logprob.is_finite() { logprob } else { f32::MIN }
}

/// SGLang's: `[logprob, id, text or null]`.
struct Native<'a>(Option<&'a Tokenizer>);

impl Native<'_> {
    fn entry(&self, id: TokenId, logprob: Option<f32>) -> Value {
        json!([logprob.map(finite), id, self.0.map(|t| t.decode(&[id], false))])
    }

    fn top(&self, scored: &TokenLogprob) -> Value {
        scored.top.iter().map(|&(id, p)| self.entry(id, Some(p))).collect()
    }
}

/// Writes scores that have come since the last call in SGLang's form, beside the others.
pub fn gather(
    prompt: &[TokenId],
    options: LogprobOptions,
    tokenizer: Option<&Tokenizer>,
    choice: &mut Choice,
) {
    let form = Native(tokenizer);
    let json = &mut choice.scores_json;
    if let (Some(start), true) = (options.prompt_start, json.input.is_empty()) {
        // Nothing stands before the first position, so it has no score.
        let first = prompt.get(start).map_or(Value::Null, |&id| form.entry(id, None));
        append(&mut json.input, &first);
        append(&mut json.input_top, &Value::Null);
    }
    for scored in choice.prompt_logprobs.iter().skip(json.inputs) {
        append(&mut json.input, &form.entry(scored.token, Some(scored.logprob)));
        append(&mut json.input_top, &form.top(scored));
    }
    for scored in choice.logprobs.iter().skip(json.outputs) {
        append(&mut json.output, &form.entry(scored.token, Some(scored.logprob)));
        append(&mut json.output_top, &form.top(scored));
    }
    json.inputs = choice.prompt_logprobs.len();
    json.outputs = choice.logprobs.len();
}

fn append(list: &mut Vec<u8>, entry: &Value) {
    if !list.is_empty() {
        list.push(b',');
    }
    super::push(list, entry);
}

/// Adds what was asked for to SGLang's `meta_info`, an object that is still open.
pub fn native(options: LogprobOptions, choice: &Choice, meta: &mut Vec<u8>) {
    let mut list = |name: &str, entries: &[u8]| {
        meta.extend_from_slice(format!(",\"{name}\":[").as_bytes());
        meta.extend_from_slice(entries);
        meta.push(b']');
    };
    let json = &choice.scores_json;
    if options.prompt_start.is_some() {
        list("input_token_logprobs", &json.input);
        if options.top > 0 {
            list("input_top_logprobs", &json.input_top);
        }
    }
    if options.output {
        list("output_token_logprobs", &json.output);
        if options.top > 0 {
            list("output_top_logprobs", &json.output_top);
        }
        let length = choice.logprobs.len();
        meta.extend_from_slice(format!(",\"output_token_logprobs_length\":{length}").as_bytes());
    }
}

/// A token's own text; without a tokenizer its number.
fn text(tokenizer: Option<&Tokenizer>, id: TokenId) -> String {
    tokenizer.map_or_else(|| format!("token_id:{id}"), |t| t.decode(&[id], false))
}

/// OpenAI's completion form, for tokens from `from` on. `offset` is where their text begins;
/// `prompt`: the prompt's tokens stand in front (`echo`).
pub fn completion(
    generation: &Generation,
    running: &Running,
    choice: &Choice,
    from: usize,
    offset: usize,
    prompt: bool,
) -> Value {
    let tokenizer = generation.tokenizer.as_deref();
    let mut scored: Vec<(TokenId, Option<&TokenLogprob>)> = Vec::new();
    if prompt {
        scored.extend(running.prompt.first().map(|&id| (id, None)));
        scored.extend(choice.prompt_logprobs.iter().map(|l| (l.token, Some(l))));
    }
    scored.extend(choice.logprobs.iter().skip(from).map(|l| (l.token, Some(l))));
    let (mut tokens, mut offsets, mut at) = (Vec::new(), Vec::new(), offset);
    for (id, _) in &scored {
        let text = text(tokenizer, *id);
        offsets.push(at);
        at += text.chars().count();
        tokens.push(text);
    }
    let values: Vec<Value> =
        scored.iter().map(|(_, l)| l.map_or(Value::Null, |l| finite(l.logprob).into())).collect();
    let best = |l: &TokenLogprob| -> Value {
        let entry = |&(id, p): &(TokenId, f32)| (text(tokenizer, id), finite(p).into());
        Value::Object(l.top.iter().map(entry).collect())
    };
    let tops = scored.iter().map(|(_, l)| l.map_or(Value::Null, best));
    let tops = if running.logprobs.top > 0 { tops.collect() } else { Value::Null };
    json!({ "tokens": tokens, "token_logprobs": values, "top_logprobs": tops,
        "text_offset": offsets })
}

/// OpenAI's chat form, for tokens from `from` on.
pub fn chat(generation: &Generation, choice: &Choice, from: usize) -> Value {
    let tokenizer = generation.tokenizer.as_deref();
    let entry = |id: TokenId, logprob: f32| {
        let bytes = tokenizer.and_then(|t| t.token_bytes(id));
        json!({ "token": text(tokenizer, id), "logprob": finite(logprob), "bytes": bytes })
    };
    let content = choice.logprobs.iter().skip(from).map(|l| {
        let mut scored = entry(l.token, l.logprob);
        scored["top_logprobs"] = l.top.iter().map(|&(id, p)| entry(id, p)).collect();
        scored
    });
    json!({ "content": content.collect::<Value>(), "refusal": null })
}
