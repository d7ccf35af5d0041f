//! Log-probabilities in the three forms that clients know.

use serde_json::{Map, Value, json};

use super::super::generate::{Generation, Running};
use super::Choice;
use crate::engine::logprobs::TokenLogprob;
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

/// Adds what was asked for to SGLang's `meta_info`.
pub fn native(
    generation: &Generation,
    running: &Running,
    choice: &Choice,
    texts: bool,
    meta: &mut Map<String, Value>,
) {
    let form = Native(generation.tokenizer.as_deref().filter(|_| texts));
    let options = running.logprobs;
    if let Some(start) = options.prompt_start {
        // Nothing stands before the first position, so it has no score.
        let first = running.prompt.get(start).map(|&id| form.entry(id, None));
        let rest = choice.prompt_logprobs.iter();
        let entries = rest.clone().map(|l| form.entry(l.token, Some(l.logprob)));
        meta.insert("input_token_logprobs".into(), first.into_iter().chain(entries).collect());
        if options.top > 0 {
            let tops = [Value::Null].into_iter().chain(rest.map(|l| form.top(l)));
            meta.insert("input_top_logprobs".into(), tops.collect());
        }
    }
    if options.output {
        let entries = choice.logprobs.iter().map(|l| form.entry(l.token, Some(l.logprob)));
        meta.insert("output_token_logprobs".into(), entries.collect());
        meta.insert("output_token_logprobs_length".into(), choice.logprobs.len().into());
        if options.top > 0 {
            let tops = choice.logprobs.iter().map(|l| form.top(l)).collect();
            meta.insert("output_top_logprobs".into(), tops);
        }
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
