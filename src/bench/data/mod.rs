//! Data sets: rows of prompt and output length, made or read before anything is measured, all
//! from a seed.
//!
//! Prompts are token ids wherever the API takes them, so lengths are exact and no tokenizer is
//! needed; where text is needed, [`exact`] looks for a text of the wanted length.
//!
//! - [`random`]: `random`, `random-ids`. - [`shared`]: `generated-shared-prefix`.
//! - [`files`]: `sharegpt`, `custom`, `openai`, `text`. - [`mooncake`]: timed traces.
//! - [`spec`]: from a name to rows.

pub mod exact;
pub mod files;
pub mod mooncake;
pub mod random;
pub mod shared;
pub mod spec;

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::types::TokenId;

/// What is sent as the prompt.
#[derive(Debug, Clone, PartialEq)]
pub enum Prompt {
    Text(String),
    Ids(Vec<TokenId>),
    /// OpenAI messages.
    Messages(Value),
}

/// One request.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub prompt: Prompt,
    /// Tokens of the prompt; 0 if only the server can tell.
    pub prompt_len: usize,
    /// Tokens to generate.
    pub output_len: usize,
    /// Arrival in the trace, seconds after its first.
    pub at: Option<f64>,
    /// Merged into the request body.
    pub extra: Map<String, Value>,
    /// The next turn of the row before it: its prompt is what the user says then.
    pub follows: bool,
    /// Sent as header `X-SMG-Routing-Key`: which requests belong together.
    pub routing_key: Option<String>,
}

impl Row {
    pub fn new(prompt: Prompt, prompt_len: usize, output_len: usize) -> Self {
        let (at, extra, routing_key) = (None, Map::new(), None);
        Row { prompt, prompt_len, output_len, at, extra, follows: false, routing_key }
    }

    pub fn ids(ids: Vec<TokenId>, output_len: usize) -> Self {
        let n = ids.len();
        Row::new(Prompt::Ids(ids), n, output_len)
    }
}

/// Text to ids and back; a tokenizer, or nothing.
pub trait Codec {
    fn encode(&self, text: &str) -> Result<Vec<TokenId>>;
    fn decode(&self, ids: &[TokenId]) -> String;

    /// The text that the chat template makes of a user's message.
    ///
    /// # Errors
    /// There is no template.
    fn chat(&self, _user: &str) -> Result<String> {
        Err(Error::usage("--apply-chat-template: the tokenizer has no chat template"))
    }
}

/// How `--random-range-ratio` is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RangeRule {
    /// Lengths from `max(⌊L · r⌋, 1)` to `L`: 1 is exact.
    #[default]
    Sglang,
    /// Lengths from `L · (1 − r)` to `L · (1 + r)`: 0 is exact.
    Vllm,
}

impl RangeRule {
    /// Least and most length.
    ///
    /// # Errors
    /// `Usage` for a ratio outside the rule's range.
    pub fn bounds(self, len: usize, ratio: f64) -> Result<(usize, usize)> {
        let l = len as f64;
        match self {
            RangeRule::Sglang if (0.0..=1.0).contains(&ratio) => {
                Ok((((l * ratio) as usize).max(1).min(len), len))
            }
            RangeRule::Vllm if (0.0..1.0).contains(&ratio) => {
                Ok((((l * (1.0 - ratio)) as usize).max(1), (l * (1.0 + ratio)).ceil() as usize))
            }
            RangeRule::Sglang => Err(range(ratio, "from 0 to 1")),
            RangeRule::Vllm => Err(range(ratio, "from 0 to below 1")),
        }
    }
}

fn range(ratio: f64, wanted: &str) -> Error {
    Error::usage(format!("--random-range-ratio {ratio}: expected {wanted}"))
}

/// No row is left.
pub fn none_left(path: &str, why: &str) -> Error {
    Error::file(path, format!("no usable prompt in it: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_rules_mean_opposite_things() {
        let (s, v) = (RangeRule::Sglang, RangeRule::Vllm);
        assert_eq!(s.bounds(1024, 0.0).unwrap(), (1, 1024));
        assert_eq!(s.bounds(1024, 0.5).unwrap(), (512, 1024));
        assert_eq!(s.bounds(1024, 1.0).unwrap(), (1024, 1024));
        assert_eq!(v.bounds(1024, 0.0).unwrap(), (1024, 1024));
        assert_eq!(v.bounds(1000, 0.25).unwrap(), (750, 1250));
        assert!(s.bounds(8, 1.5).is_err() && v.bounds(8, 1.0).is_err());
        assert!(s.bounds(8, f64::NAN).is_err());
    }
}
