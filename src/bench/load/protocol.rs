//! What the events of each API mean: tokens, counts, ends, errors. Pure.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;

use super::record::{Chunk, Failure, Reason, Record, ServerTiming};
use crate::types::TokenId;

/// The API that a server is spoken to with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    /// SGLang's and Pacer's `/generate`: counts in every chunk, cumulative.
    Generate,
    /// `/v1/completions`.
    Completions,
    /// `/v1/chat/completions`.
    Chat,
}

impl Api {
    pub const fn path(self) -> &'static str {
        match self {
            Api::Generate => "/generate",
            Api::Completions => "/v1/completions",
            Api::Chat => "/v1/chat/completions",
        }
    }
}

#[derive(Deserialize)]
struct GenerateEvent<'a> {
    #[serde(borrow, default)]
    text: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    meta_info: Option<MetaInfo<'a>>,
    #[serde(default)]
    error: Option<Value>,
}

/// Read of the last event only: they are all tokens so far.
#[derive(Deserialize)]
struct OutputIds {
    #[serde(default)]
    output_ids: Option<Vec<TokenId>>,
}

#[derive(Deserialize)]
struct MetaInfo<'a> {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    cached_tokens: Option<u64>,
    #[serde(borrow, default)]
    finish_reason: Option<Finish<'a>>,
}

#[derive(Deserialize)]
struct Finish<'a> {
    #[serde(borrow, rename = "type", default)]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    message: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct OpenAiEvent<'a> {
    #[serde(borrow, default)]
    choices: Option<Vec<ChoiceEvent<'a>>>,
    #[serde(default)]
    usage: Option<Usage>,
    #[serde(default)]
    error: Option<Value>,
}

#[derive(Deserialize)]
struct ChoiceEvent<'a> {
    #[serde(borrow, default)]
    text: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    delta: Option<Delta<'a>>,
    #[serde(borrow, default)]
    message: Option<Delta<'a>>,
    #[serde(borrow, default)]
    finish_reason: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow, default)]
    content: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    reasoning_content: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    reasoning: Option<Cow<'a, str>>,
    #[serde(default)]
    tool_calls: Option<Value>,
}

#[derive(Deserialize)]
struct Usage {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    prompt_tokens_details: Option<CachedTokens>,
}

#[derive(Deserialize)]
struct CachedTokens {
    cached_tokens: Option<u64>,
}

/// The beginning of the event that `pacer serve` adds for a client that asks for its stamps.
const TIMING: &[u8] = b"{\"pacer_timing\"";

#[derive(Deserialize)]
struct TimingEvent {
    pacer_timing: ServerTiming,
}

/// Reads one answer, event by event, into its record.
#[derive(Debug, Clone)]
pub struct Reader {
    api: Api,
    keep_text: bool,
    /// `completion_tokens` of the last chunk of `/generate`.
    counted: u64,
    /// `[DONE]` was seen.
    done: bool,
}

impl Reader {
    pub fn new(api: Api, keep_text: bool) -> Self {
        Reader { api, keep_text, counted: 0, done: false }
    }

    /// `[DONE]` was seen: the answer is complete, whatever still comes.
    pub fn done(&self) -> bool {
        self.done
    }

    /// One event of a stream, which arrived at `at`.
    pub fn event(&mut self, data: &[u8], at: u64, record: &mut Record) -> Result<(), Failure> {
        if self.done {
            return Ok(());
        }
        if data.trim_ascii() == b"[DONE]" {
            self.done = true;
        } else if data.starts_with(TIMING) {
            let event: TimingEvent = parse(data)?;
            record.timing = Some(Box::new(event.pacer_timing));
            return Ok(());
        } else {
            self.json(data, at, record)?;
        }
        record.end = at;
        Ok(())
    }

    /// An answer that is not streamed.
    pub fn whole(&mut self, body: &[u8], at: u64, record: &mut Record) -> Result<(), Failure> {
        self.json(body, at, record)?;
        self.done = true;
        record.end = at;
        let tokens = u32::try_from(record.output_tokens()).unwrap_or(u32::MAX);
        // One chunk with all of it: nothing is known about the times between.
        record.chunks = vec![Chunk { at, tokens, text: true }];
        Ok(())
    }

    /// The body ended well.
    pub fn finish(&self, record: &Record) -> Result<(), Failure> {
        if !self.done && record.finish.is_none() {
            let detail = "the stream ended without [DONE] and without a finish reason";
            return Err(Failure::new(Reason::Closed, detail));
        }
        if record.chunks.is_empty() && record.completion_tokens.unwrap_or(0) == 0 {
            return Err(Failure::new(Reason::NoOutput, "an answer without a token"));
        }
        Ok(())
    }

    fn json(&mut self, data: &[u8], at: u64, record: &mut Record) -> Result<(), Failure> {
        match self.api {
            Api::Generate => self.generate(data, at, record),
            Api::Completions | Api::Chat => self.openai(data, at, record),
        }
    }

    fn generate(&mut self, data: &[u8], at: u64, record: &mut Record) -> Result<(), Failure> {
        let event: GenerateEvent = parse(data)?;
        refuse(event.error.as_ref())?;
        let Some(meta) = event.meta_info else {
            return Err(Failure::new(Reason::Malformed, "an event without meta_info"));
        };
        record.prompt_tokens = meta.prompt_tokens.or(record.prompt_tokens);
        record.completion_tokens = meta.completion_tokens.or(record.completion_tokens);
        record.cached_tokens = meta.cached_tokens.or(record.cached_tokens);
        if let Some(finish) = &meta.finish_reason {
            let kind = finish.kind.as_deref().unwrap_or("unknown");
            if kind == "abort" {
                let message = finish.message.as_deref().unwrap_or("aborted");
                return Err(Failure::new(Reason::ErrorEvent, message));
            }
            record.finish = Some(kind.to_string());
            if self.keep_text {
                record.output_ids = parse::<OutputIds>(data)?.output_ids.unwrap_or_default();
            }
        }
        let text = event.text.as_deref().unwrap_or("");
        let new = meta.completion_tokens.unwrap_or(self.counted).saturating_sub(self.counted);
        self.counted += new;
        if new > 0 {
            let tokens = u32::try_from(new).unwrap_or(u32::MAX);
            record.chunks.push(Chunk { at, tokens, text: !text.is_empty() });
        }
        if self.keep_text {
            // Cumulative, unless the server streams increments.
            if text.starts_with(record.text.as_str()) {
                record.text.clear();
            }
            record.text.push_str(text);
        }
        Ok(())
    }

    fn openai(&mut self, data: &[u8], at: u64, record: &mut Record) -> Result<(), Failure> {
        let event: OpenAiEvent = parse(data)?;
        refuse(event.error.as_ref())?;
        if let Some(usage) = &event.usage {
            let cached = usage.prompt_tokens_details.as_ref().and_then(|d| d.cached_tokens);
            record.prompt_tokens = usage.prompt_tokens.or(record.prompt_tokens);
            record.completion_tokens = usage.completion_tokens.or(record.completion_tokens);
            record.cached_tokens = cached.or(record.cached_tokens);
        }
        // `choices: []` carries usage only.
        for choice in event.choices.iter().flatten() {
            if let Some(finish) = &choice.finish_reason {
                record.finish = Some(finish.to_string());
            }
            let delta = choice.delta.as_ref().or(choice.message.as_ref());
            let texts = [
                choice.text.as_deref(),
                delta.and_then(|d| d.reasoning_content.as_deref().or(d.reasoning.as_deref())),
                delta.and_then(|d| d.content.as_deref()),
            ];
            let tools = delta.is_some_and(|d| d.tool_calls.as_ref().is_some_and(|t| !t.is_null()));
            let text: usize = texts.iter().flatten().map(|t| t.len()).sum();
            if text > 0 || tools {
                record.chunks.push(Chunk { at, tokens: self.fresh(record), text: text > 0 });
            }
            if self.keep_text {
                texts.iter().flatten().for_each(|t| record.text.push_str(t));
            }
        }
        Ok(())
    }

    /// Tokens of a chunk with text: where usage comes with every chunk
    /// (`continuous_usage_stats`), what it grew by; else 1.
    fn fresh(&mut self, record: &Record) -> u32 {
        let total = record.completion_tokens.unwrap_or(0);
        let new = total.saturating_sub(self.counted);
        self.counted = self.counted.max(total);
        u32::try_from(new.max(1)).unwrap_or(u32::MAX)
    }
}

fn parse<'a, T: Deserialize<'a>>(data: &'a [u8]) -> Result<T, Failure> {
    serde_json::from_slice(data).map_err(|e| {
        let sample = super::head::sample(data);
        Failure::new(Reason::Malformed, format!("an event that cannot be read ({e}): {sample}"))
    })
}

/// An `error` that is there and not null fails the request.
fn refuse(error: Option<&Value>) -> Result<(), Failure> {
    match error.filter(|e| !e.is_null()) {
        Some(error) => {
            let message = error.get("message").and_then(Value::as_str);
            let text = message.map_or_else(|| error.to_string(), str::to_string);
            Err(Failure::new(Reason::ErrorEvent, text))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Event `i` arrives at `10 * (i + 1)`.
    fn run(api: Api, events: &[&str]) -> (Record, Result<(), Failure>) {
        let mut reader = Reader::new(api, true);
        let mut record = Record::default();
        for (i, event) in events.iter().enumerate() {
            let at = 10 * (i as u64 + 1);
            if let Err(failure) = reader.event(event.as_bytes(), at, &mut record) {
                return (record, Err(failure));
            }
        }
        let end = reader.finish(&record);
        (record, end)
    }

    fn shape(record: &Record) -> Vec<(u64, u32, bool)> {
        record.chunks.iter().map(|c| (c.at, c.tokens, c.text)).collect()
    }

    #[test]
    fn generate_counts_cumulatively() {
        let (r, end) = run(
            Api::Generate,
            &[
                r#"{"text":"","meta_info":{"prompt_tokens":7,"completion_tokens":1,"finish_reason":null}}"#,
                r#"{"text":"a b","meta_info":{"prompt_tokens":7,"completion_tokens":4,"cached_tokens":3}}"#,
                r#"{"text":"a b","meta_info":{"prompt_tokens":7,"completion_tokens":4}}"#,
                r#"{"text":"a b c","output_ids":[1],"meta_info":{"completion_tokens":5,"finish_reason":{"type":"length","length":5}}}"#,
                "[DONE]",
                "[DONE]",
            ],
        );
        assert_eq!(end, Ok(()));
        assert_eq!(shape(&r), [(10, 1, false), (20, 3, true), (40, 1, true)]);
        assert_eq!((r.output_tokens(), r.end, r.text.as_str()), (5, 50, "a b c"));
        assert_eq!((r.prompt_tokens, r.cached_tokens), (Some(7), Some(3)));
        assert_eq!((r.first(), r.first_token(), r.last_token()), (Some(20), Some(10), Some(40)));
        assert_eq!((r.finish.as_deref(), r.output_ids), (Some("length"), vec![1]));
    }

    #[test]
    fn completions_with_usage_only_chunks() {
        let (r, end) = run(
            Api::Completions,
            &[
                r#"{"choices":[{"text":"","finish_reason":null}]}"#,
                r#"{"choices":[{"text":"x"}],"usage":null}"#,
                r#"{"choices":[{"text":"y z"}]}"#,
                r#"{"choices":[{"text":"","finish_reason":"stop"}]}"#,
                r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":9,"prompt_tokens_details":{"cached_tokens":2}}}"#,
                "[DONE]",
            ],
        );
        assert_eq!(end, Ok(()));
        assert_eq!(shape(&r), [(20, 1, true), (30, 1, true)]);
        assert_eq!((r.output_tokens(), r.prompt_tokens, r.cached_tokens), (9, Some(3), Some(2)));
        assert_eq!((r.end, r.finish.as_deref(), r.text.as_str()), (60, Some("stop"), "xy z"));
    }

    #[test]
    fn stamps_of_the_server_are_no_token() {
        let (r, end) = run(
            Api::Completions,
            &[
                r#"{"choices":[{"text":"x","finish_reason":"length"}]}"#,
                r#"{"pacer_timing":{"boot":"b","prefill_steps":2,"stamps_ns":{"begun":7}}}"#,
                "[DONE]",
            ],
        );
        assert_eq!((end, r.chunks.len(), r.end), (Ok(()), 1, 30));
        let timing = r.timing.unwrap();
        assert_eq!((timing.boot.as_str(), timing.prefill_steps), ("b", 2));
        assert_eq!(timing.stamps_ns["begun"], 7);
    }

    #[test]
    fn usage_on_every_chunk_counts_tokens() {
        let (r, _) = run(
            Api::Completions,
            &[
                r#"{"choices":[{"text":"x"}],"usage":{"completion_tokens":1}}"#,
                r#"{"choices":[{"text":"yz"}],"usage":{"completion_tokens":4}}"#,
                "[DONE]",
            ],
        );
        assert_eq!(shape(&r), [(10, 1, true), (20, 3, true)]);
    }

    #[test]
    fn missing_usage_falls_back_to_chunks_not_to_the_request() {
        let (r, end) = run(
            Api::Completions,
            &[
                r#"{"choices":[{"text":"x"}]}"#,
                r#"{"choices":[{"text":"y","finish_reason":"length"}]}"#,
            ],
        );
        assert_eq!(end, Ok(()), "a finish reason ends a stream as [DONE] does");
        assert!(!r.counted_by_server());
        assert_eq!(r.output_tokens(), 2);
    }

    #[test]
    fn chat_role_chunks_are_no_tokens_and_reasoning_is() {
        let (r, end) = run(
            Api::Chat,
            &[
                r#"{"choices":[{"delta":{"role":"assistant","content":""}}]}"#,
                r#"{"choices":[{"delta":{"reasoning_content":"hm"}}]}"#,
                r#"{"choices":[{"delta":{"content":"yes"}}]}"#,
                r#"{"choices":[{"delta":{"tool_calls":[{"index":0}]}}]}"#,
                r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#,
                "[DONE]",
            ],
        );
        assert_eq!(end, Ok(()));
        assert_eq!(shape(&r), [(20, 1, true), (30, 1, true), (40, 1, false)]);
    }

    #[test]
    fn faults() {
        let reason = |api, events: &[&str]| run(api, events).1.map_err(|f| f.reason);
        let token = r#"{"choices":[{"text":"x"}]}"#;
        assert_eq!(reason(Api::Completions, &[token]), Err(Reason::Closed));
        assert_eq!(reason(Api::Completions, &["[DONE]"]), Err(Reason::NoOutput));
        assert_eq!(reason(Api::Completions, &[token, "{oops"]), Err(Reason::Malformed));
        assert_eq!(reason(Api::Generate, &["{}"]), Err(Reason::Malformed));
        let error = r#"{"error":{"message":"out of memory"}}"#;
        let (r, end) = run(Api::Completions, &[token, error, "[DONE]"]);
        assert_eq!(end, Err(Failure::new(Reason::ErrorEvent, "out of memory")));
        assert_eq!(r.chunks.len(), 1, "what came before the error is kept");
        assert_eq!(reason(Api::Generate, &[r#"{"error":"x"}"#]), Err(Reason::ErrorEvent));
        let abort = r#"{"text":"","meta_info":{"completion_tokens":0,"finish_reason":{"type":"abort","message":"gone"}}}"#;
        assert_eq!(reason(Api::Generate, &[abort]), Err(Reason::ErrorEvent));
        let null = r#"{"error":null,"choices":[{"text":"x"}]}"#;
        assert_eq!(reason(Api::Completions, &[null, "[DONE]"]), Ok(()));
    }

    #[test]
    fn a_whole_answer_is_one_chunk() {
        let mut reader = Reader::new(Api::Chat, true);
        let mut r = Record::default();
        let body = br#"{"choices":[{"message":{"role":"assistant","content":"hi you"},"finish_reason":"stop"}],"usage":{"prompt_tokens":2,"completion_tokens":5}}"#;
        reader.whole(body, 90, &mut r).unwrap();
        assert_eq!(shape(&r), [(90, 5, true)]);
        assert_eq!((r.end, r.output_tokens(), r.text.as_str()), (90, 5, "hi you"));
        assert_eq!(reader.finish(&r), Ok(()));
    }
}
