//! What a client has got of its generation, and what it gets next.
//!
//! A stream's events are made when there is room for them: while a client reads slowly, its news
//! pile up in [`Choice`] and go out together later, so that what waits in bytes stays bounded.

mod chat;
mod choice;
mod completion;
mod native;
mod scores;

use serde_json::{Value, json};

pub use choice::Choice;
pub use scores::gather;

use super::context::unix_time;
use super::generate::{Generation, Running, Shape};
use super::options::HIGH_WATER;
use super::timing;
use crate::engine::request::FinishReason;
use crate::http::response::{EventStream, error_json};
use crate::http::{Exchange, Response};

/// The whole answer of a finished generation.
pub fn whole(generation: &Generation) -> Response {
    if let Some(refused) = &generation.failed {
        return Response::from(refused);
    }
    match &generation.shape {
        Shape::Native { batch, .. } => native::whole(generation, *batch),
        Shape::Completion(envelope) => completion::whole(generation, envelope),
        Shape::Chat(envelope) => chat::whole(generation, envelope),
        Shape::Health => Response::text(200, "OK\n"),
    }
}

/// What streaming came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Streamed {
    /// Nothing new to tell yet.
    Waiting,
    /// Something was written.
    Wrote,
    /// The last event was written.
    Ended,
}

/// Writes the next events of a stream into `out`: at most one for each choice, and no more once
/// they are [`HIGH_WATER`] bytes.
pub fn stream(
    generation: &mut Generation,
    exchange: &mut Exchange,
    date: &str,
    out: &mut Vec<u8>,
) -> Streamed {
    let news = generation.running.iter().flat_map(|r| &r.choices).any(Choice::has_news);
    if !news && generation.failed.is_none() && !generation.complete() {
        return Streamed::Waiting;
    }
    let taken = generation.stream.take();
    let mut stream = taken.unwrap_or_else(|| EventStream::begin(exchange, date, out));
    let full = out.len() + HIGH_WATER;
    for prompt in 0..generation.running.len() {
        for choice in 0..generation.running[prompt].choices.len() {
            if generation.running[prompt].choices[choice].has_news() {
                if out.len() > full {
                    generation.stream = Some(stream);
                    return Streamed::Wrote;
                }
                event(generation, prompt, choice, &mut stream, out);
                generation.running[prompt].choices[choice].told();
            }
        }
    }
    let over = generation.complete() || generation.failed.is_some();
    if over && generation.timing.waits_for_write() && generation.failed.is_none() {
        // The stamps to tell are not all there before the first news are out.
        generation.stream = Some(stream);
        return if news { Streamed::Wrote } else { Streamed::Waiting };
    }
    if over {
        last(generation, &mut stream, out);
    }
    generation.stream = Some(stream);
    if over { Streamed::Ended } else { Streamed::Wrote }
}

fn event(
    generation: &Generation,
    prompt: usize,
    choice: usize,
    stream: &mut EventStream,
    out: &mut Vec<u8>,
) {
    match &generation.shape {
        Shape::Native { batch, .. } => stream.event(out, |event| {
            native::event(generation, *batch, prompt, choice, event);
        }),
        Shape::Completion(envelope) => stream.event(out, |event| {
            completion::event(generation, envelope, prompt, choice, event);
        }),
        Shape::Chat(envelope) => chat::events(generation, envelope, prompt, choice, stream, out),
        Shape::Health => {}
    }
}

/// The usage if it was asked for, or what went wrong; then `[DONE]`.
fn last(generation: &Generation, stream: &mut EventStream, out: &mut Vec<u8>) {
    if let Some(refused) = &generation.failed {
        let mut error = error_json(refused);
        error["error"]["retryable"] = (refused.status >= 500).into();
        stream.event(out, |event| push(event, &error));
    } else if let Shape::Completion(envelope) | Shape::Chat(envelope) = &generation.shape
        && envelope.include_usage
    {
        let object = match generation.shape {
            Shape::Chat(_) => "chat.completion.chunk",
            _ => "text_completion",
        };
        let usage = json!({
            "id": envelope.id, "object": object, "created": envelope.created,
            "model": envelope.model, "choices": [], "usage": usage(&generation.running),
        });
        stream.event(out, |event| push(event, &usage));
    }
    if generation.timing.wanted && generation.failed.is_none() {
        stream.event(out, |event| push(event, &timing::event(generation)));
    }
    stream.end(out);
}

/// OpenAI's count of tokens.
fn usage(running: &[Running]) -> Value {
    let prompt: usize = running.iter().map(|r| r.prompt.len()).sum();
    let choices = || running.iter().flat_map(|r| &r.choices);
    let completion: usize = choices().map(|c| c.ids.len()).sum();
    // Each prompt counts once, so its choices do not add up.
    let cached = |r: &Running| r.choices.first().map_or(0, Choice::cached_tokens);
    let cached: usize = running.iter().map(cached).sum();
    json!({
        "prompt_tokens": prompt,
        "total_tokens": prompt + completion,
        "completion_tokens": completion,
        "prompt_tokens_details": { "cached_tokens": cached },
        "reasoning_tokens": 0,
    })
}

/// OpenAI's word for the end of a choice.
fn reason_word(reason: &FinishReason) -> &'static str {
    match reason {
        FinishReason::Length => "length",
        FinishReason::StopToken(_) | FinishReason::StopText(_) => "stop",
        FinishReason::Cancelled => "abort",
        FinishReason::Failed(_) => "error",
    }
}

/// The stop token or text that was met.
fn matched(reason: &FinishReason) -> Value {
    match reason {
        FinishReason::StopToken(id) => (*id).into(),
        FinishReason::StopText(text) => text.clone().into(),
        _ => Value::Null,
    }
}

fn push(out: &mut Vec<u8>, value: &Value) {
    // Writing to memory cannot fail.
    let _ = serde_json::to_writer(out, value);
}

/// Seconds since 1970 as whole ones.
pub fn created() -> u64 {
    unix_time() as u64
}
