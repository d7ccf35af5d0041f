//! The stream of a batch: events of all its requests, told apart by `index`. Pure.

use serde::Deserialize;
use serde_json::Value;

use crate::bench::load::record::{Failure, Reason};

/// What one request of the batch did; nanoseconds since sending.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Track {
    /// `(time, tokens so far)`.
    pub counts: Vec<(u64, u64)>,
    pub prompt_tokens: Option<u64>,
    pub cached_tokens: Option<u64>,
    /// `length`, `stop`.
    pub finish: Option<String>,
}

impl Track {
    pub fn tokens(&self) -> u64 {
        self.counts.last().map_or(0, |c| c.1)
    }

    /// When it had its first token.
    pub fn first(&self) -> Option<u64> {
        self.counts.iter().find(|c| c.1 > 0).map(|c| c.0)
    }

    pub fn last(&self) -> Option<u64> {
        self.counts.last().map(|c| c.0)
    }

    /// Tokens by `at`; between two counts, in proportion.
    pub fn tokens_at(&self, at: u64) -> f64 {
        let mut before = (0u64, 0u64);
        for &(t, n) in &self.counts {
            if t > at {
                // Nothing came before the first count: it is no ramp from 0.
                if before.0 == 0 {
                    return 0.0;
                }
                let share = (at - before.0) as f64 / (t - before.0) as f64;
                return before.1 as f64 + share * (n - before.1) as f64;
            }
            before = (t, n);
        }
        before.1 as f64
    }
}

/// Reads the stream of a batch of known size.
#[derive(Debug, Clone)]
pub struct BatchReader {
    pub tracks: Vec<Track>,
    pub done: bool,
    /// The last event, nanoseconds since sending.
    pub end: u64,
}

#[derive(Deserialize)]
struct Event {
    index: Option<usize>,
    meta_info: Option<Meta>,
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<Usage>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Meta {
    completion_tokens: Option<u64>,
    prompt_tokens: Option<u64>,
    cached_tokens: Option<u64>,
    finish_reason: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    index: Option<usize>,
    text: Option<String>,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Usage {
    prompt_tokens: Option<u64>,
}

impl BatchReader {
    pub fn new(batch: usize) -> Self {
        BatchReader { tracks: vec![Track::default(); batch], done: false, end: 0 }
    }

    /// One event's data, which arrived at `at`.
    ///
    /// # Errors
    /// An error event, or one that is not as expected.
    pub fn event(&mut self, data: &[u8], at: u64) -> Result<(), Failure> {
        self.end = at;
        if data.trim_ascii() == b"[DONE]" {
            self.done = true;
            return Ok(());
        }
        let malformed = |what: String| Failure::new(Reason::Malformed, what);
        let event: Event = serde_json::from_slice(data)
            .map_err(|e| malformed(format!("an event that cannot be read: {e}")))?;
        if let Some(error) = event.error.filter(|e| !e.is_null()) {
            let text = error["message"].as_str().map_or_else(|| error.to_string(), str::to_string);
            return Err(Failure::new(Reason::ErrorEvent, text));
        }
        if let Some(meta) = event.meta_info {
            // A batch of one may come without index.
            let index = event.index.unwrap_or(0);
            return self.count(index, meta, at);
        }
        for choice in event.choices {
            let index = choice.index.unwrap_or(0);
            let track = self.track(index)?;
            if choice.text.is_some_and(|t| !t.is_empty()) {
                let so_far = track.tokens();
                track.counts.push((at, so_far + 1));
            }
            track.finish = choice.finish_reason.or(track.finish.take());
        }
        if let (Some(usage), [only]) = (event.usage, self.tracks.as_mut_slice()) {
            only.prompt_tokens = usage.prompt_tokens;
        }
        Ok(())
    }

    fn track(&mut self, index: usize) -> Result<&mut Track, Failure> {
        let most = self.tracks.len();
        let wrong =
            || Failure::new(Reason::Malformed, format!("index {index} in a batch of {most}"));
        self.tracks.get_mut(index).ok_or_else(wrong)
    }

    fn count(&mut self, index: usize, meta: Meta, at: u64) -> Result<(), Failure> {
        let track = self.track(index)?;
        track.prompt_tokens = meta.prompt_tokens.or(track.prompt_tokens);
        track.cached_tokens = meta.cached_tokens.or(track.cached_tokens);
        if let Some(total) = meta.completion_tokens.filter(|t| *t > track.tokens()) {
            track.counts.push((at, total));
        }
        if let Some(reason) = meta.finish_reason.filter(|r| !r.is_null()) {
            let kind = reason["type"].as_str().unwrap_or("unknown");
            if kind == "abort" || reason["matched"] == "NaN happened" {
                let text = reason["message"].as_str().unwrap_or("aborted");
                return Err(Failure::new(Reason::ErrorEvent, text));
            }
            track.finish = Some(kind.to_string());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(index: usize, total: u64, finish: &str) -> Vec<u8> {
        format!(
            r#"{{"text":"x","index":{index},"meta_info":{{"prompt_tokens":3,"completion_tokens":{total},"finish_reason":{finish}}}}}"#
        )
        .into_bytes()
    }

    #[test]
    fn requests_are_told_apart() {
        let mut r = BatchReader::new(2);
        r.event(&event(0, 1, "null"), 10).unwrap();
        r.event(&event(1, 2, "null"), 20).unwrap();
        r.event(&event(0, 1, "null"), 25).unwrap();
        r.event(&event(0, 4, r#"{"type":"length","length":4}"#), 30).unwrap();
        r.event(b"[DONE]", 40).unwrap();
        assert_eq!(r.tracks[0].counts, [(10, 1), (30, 4)]);
        assert_eq!((r.tracks[1].first(), r.tracks[0].tokens()), (Some(20), 4));
        assert_eq!((r.done, r.end, r.tracks[0].finish.as_deref()), (true, 40, Some("length")));
        assert_eq!(r.tracks[0].tokens_at(5), 0.0);
        assert_eq!(r.tracks[0].tokens_at(20), 2.5);
        assert_eq!(r.tracks[0].tokens_at(99), 4.0);
    }

    #[test]
    fn faults() {
        let mut r = BatchReader::new(1);
        assert_eq!(r.event(&event(3, 1, "null"), 1).unwrap_err().reason, Reason::Malformed);
        assert_eq!(r.event(b"{", 1).unwrap_err().reason, Reason::Malformed);
        let error = br#"{"error":{"message":"m"}}"#;
        assert_eq!(r.event(error, 1).unwrap_err(), Failure::new(Reason::ErrorEvent, "m"));
        let abort = event(0, 1, r#"{"type":"abort","message":"gone"}"#);
        assert_eq!(r.event(&abort, 1).unwrap_err().detail, "gone");
    }

    #[test]
    fn completions_count_chunks() {
        let mut r = BatchReader::new(2);
        r.event(br#"{"choices":[{"index":1,"text":"a"},{"index":0,"text":""}]}"#, 5).unwrap();
        r.event(br#"{"choices":[{"index":1,"text":"b","finish_reason":"length"}]}"#, 6).unwrap();
        assert_eq!((r.tracks[0].tokens(), r.tracks[1].tokens()), (0, 2));
    }
}
