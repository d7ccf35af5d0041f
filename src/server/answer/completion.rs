//! OpenAI's `/v1/completions`: events carry what is new.

use serde_json::{Value, json};

use super::super::generate::{Envelope, Generation};
use super::{matched, push, reason_word, scores, usage};
use crate::http::Response;

/// The whole answer.
pub fn whole(generation: &Generation, envelope: &Envelope) -> Response {
    let mut choices = Vec::new();
    for (p, running) in generation.running.iter().enumerate() {
        for c in 0..running.choices.len() {
            choices.push(choice(generation, envelope, p, c, true));
        }
    }
    let mut body = frame(envelope, Value::Array(choices));
    body["usage"] = usage(&generation.running);
    Response::json(200, &body)
}

/// The next event of a choice.
pub fn event(
    generation: &Generation,
    envelope: &Envelope,
    prompt: usize,
    index: usize,
    out: &mut Vec<u8>,
) {
    let one = choice(generation, envelope, prompt, index, false);
    let mut body = frame(envelope, json!([one]));
    if envelope.continuous_usage {
        body["usage"] = usage(&generation.running);
    }
    push(out, &body);
}

fn frame(envelope: &Envelope, choices: Value) -> Value {
    json!({
        "id": envelope.id, "object": "text_completion", "created": envelope.created,
        "model": envelope.model, "choices": choices,
    })
}

/// All of a choice, or what is new of it.
fn choice(
    generation: &Generation,
    envelope: &Envelope,
    prompt: usize,
    index: usize,
    all: bool,
) -> Value {
    let running = &generation.running[prompt];
    let choice = &running.choices[index];
    let before: usize = generation.running[..prompt].iter().map(|r| r.choices.len()).sum();
    let sent = if all { super::choice::Sent::default() } else { choice.sent };
    let echo = envelope.echo.as_ref().filter(|_| !sent.any).and_then(|texts| texts.get(prompt));
    let new = &choice.text[sent.text..];
    let text = echo.map_or_else(|| new.to_owned(), |echo| format!("{echo}{new}"));
    let logprobs = if running.logprobs.output {
        let said = choice.text[..sent.text].chars().count();
        scores::completion(generation, running, choice, sent.scores, said, echo.is_some())
    } else {
        Value::Null
    };
    let reason = choice.finished.as_ref().map(|f| &f.reason);
    json!({
        "index": before + index,
        "text": text,
        "logprobs": logprobs,
        "finish_reason": reason.map(reason_word),
        "matched_stop": reason.map_or(Value::Null, matched),
    })
}
