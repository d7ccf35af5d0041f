//! OpenAI's `/v1/chat/completions`. The role's chunk goes out with the first token, never at
//! admission, because some clients take it for the first token.

use serde_json::{Map, Value, json};

use super::super::generate::{Envelope, Generation};
use super::{matched, push, reason_word, scores, usage};
use crate::http::Response;
use crate::http::response::EventStream;

/// The whole answer.
pub fn whole(generation: &Generation, envelope: &Envelope) -> Response {
    let mut choices = Vec::new();
    for running in &generation.running {
        for choice in &running.choices {
            let reason = choice.finished.as_ref().map(|f| &f.reason);
            let logprobs = running.logprobs.output.then(|| scores::chat(generation, choice, 0));
            choices.push(json!({
                "index": choices.len(),
                "message": { "role": "assistant", "content": choice.text,
                    "reasoning_content": null, "tool_calls": null },
                "logprobs": logprobs,
                "finish_reason": reason.map(reason_word),
                "matched_stop": reason.map_or(Value::Null, matched),
            }));
        }
    }
    let body = json!({
        "id": envelope.id, "object": "chat.completion", "created": envelope.created,
        "model": envelope.model, "choices": choices, "usage": usage(&generation.running),
    });
    Response::json(200, &body)
}

/// The role before the first text, the text, and an empty delta with the reason at the end.
pub fn events(
    generation: &Generation,
    envelope: &Envelope,
    prompt: usize,
    index: usize,
    stream: &mut EventStream,
    out: &mut Vec<u8>,
) {
    let running = &generation.running[prompt];
    let choice = &running.choices[index];
    let mut send = |delta: Value, logprobs: Option<Value>, reason: Option<Map<String, Value>>| {
        let mut one = json!({ "index": index, "delta": delta, "finish_reason": null });
        if let Some(logprobs) = logprobs {
            one["logprobs"] = logprobs;
        }
        for (name, value) in reason.into_iter().flatten() {
            one[name] = value;
        }
        let mut body = json!({
            "id": envelope.id, "object": "chat.completion.chunk", "created": envelope.created,
            "model": envelope.model, "choices": [one],
        });
        if envelope.continuous_usage {
            body["usage"] = usage(&generation.running);
        }
        stream.event(out, |event| push(event, &body));
    };
    if !choice.sent.any {
        send(json!({ "role": "assistant", "content": "" }), None, None);
    }
    let scored = running.logprobs.output && choice.logprobs.len() > choice.sent.scores;
    if !choice.new_text().is_empty() || scored {
        let logprobs = scored.then(|| scores::chat(generation, choice, choice.sent.scores));
        send(json!({ "content": choice.new_text() }), logprobs, None);
    }
    if let Some(finished) = &choice.finished {
        let mut reason = Map::new();
        reason.insert("finish_reason".into(), reason_word(&finished.reason).into());
        reason.insert("matched_stop".into(), matched(&finished.reason));
        send(json!({}), None, Some(reason));
    }
}
