//! One continuation as far as it has come, and how far its client knows it.

use std::time::Instant;

use crate::engine::logprobs::TokenLogprob;
use crate::engine::request::{Finished, Started, Update};
use crate::types::TokenId;

/// All that one choice said so far.
#[derive(Debug, Default)]
pub struct Choice {
    pub text: String,
    pub ids: Vec<TokenId>,
    pub logprobs: Vec<TokenLogprob>,
    pub prompt_logprobs: Vec<TokenLogprob>,
    pub started: Option<Started>,
    pub finished: Option<Finished>,
    pub first_token: Option<Instant>,
    pub last_token: Option<Instant>,
    /// `text` as the inside of a JSON string, and `ids` with commas between, kept beside them
    /// because every cumulative event repeats them.
    pub text_json: Vec<u8>,
    pub ids_json: Vec<u8>,
    /// Log-probabilities in SGLang's form, for the same reason.
    pub scores_json: ScoresJson,
    /// What the client has been told.
    pub sent: Sent,
}

/// Lists without their brackets.
#[derive(Debug, Default)]
pub struct ScoresJson {
    pub input: Vec<u8>,
    pub input_top: Vec<u8>,
    pub output: Vec<u8>,
    pub output_top: Vec<u8>,
    /// Entries that are written.
    pub inputs: usize,
    pub outputs: usize,
}

/// How far a client knows a choice.
#[derive(Debug, Default, Clone, Copy)]
pub struct Sent {
    pub any: bool,
    /// Bytes of text, tokens, and log-probabilities.
    pub text: usize,
    pub tokens: usize,
    pub scores: usize,
    pub end: bool,
}

impl Choice {
    /// Takes news. Without a tokenizer the text is the token ids with blanks between.
    pub fn add(&mut self, mut update: Update, has_text: bool, now: Instant) {
        if let Some(token) = update.token.filter(|_| !has_text) {
            let blank = if self.ids.is_empty() { "" } else { " " };
            update.text = format!("{blank}{token}");
        }
        if let Some(token) = update.token {
            if !self.ids_json.is_empty() {
                self.ids_json.push(b',');
            }
            self.ids_json.extend_from_slice(token.to_string().as_bytes());
            self.ids.push(token);
            self.first_token.get_or_insert(now);
            self.last_token = Some(now);
        }
        if !update.text.is_empty() {
            escape(&update.text, &mut self.text_json);
            self.text.push_str(&update.text);
        }
        self.logprobs.extend(update.logprob);
        self.prompt_logprobs.extend(update.prompt_logprobs.into_iter().flatten());
        self.started = self.started.or(update.started);
        self.finished = update.finished.or(self.finished.take());
    }

    /// There is something that the client has not been told.
    pub fn has_news(&self) -> bool {
        self.ids.len() > self.sent.tokens
            || self.text.len() > self.sent.text
            || (self.finished.is_some() && !self.sent.end)
    }

    /// The client has been told everything.
    pub fn told(&mut self) {
        self.sent = Sent {
            any: true,
            text: self.text.len(),
            tokens: self.ids.len(),
            scores: self.logprobs.len(),
            end: self.finished.is_some(),
        };
    }

    /// Text that the client has not been told.
    pub fn new_text(&self) -> &str {
        &self.text[self.sent.text..]
    }

    /// Known from the first news on.
    pub fn cached_tokens(&self) -> usize {
        self.started.map_or(0, |s| s.cached_tokens)
    }
}

/// Appends `text` as JSON would write it between quotes.
fn escape(text: &str, out: &mut Vec<u8>) {
    let quoted = serde_json::Value::from(text).to_string();
    out.extend_from_slice(&quoted.as_bytes()[1..quoted.len() - 1]);
}
