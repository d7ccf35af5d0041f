//! What goes into an engine and what comes out.

use std::sync::Arc;
use std::time::Instant;

use crate::scheduler::End;
use crate::types::TokenId;

use super::logprobs::TokenLogprob;
use super::params::SamplingParams;

/// Log-probabilities to return beside the tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogprobOptions {
    /// Of generated tokens.
    pub output: bool,
    /// Of prompt tokens from this position on.
    pub prompt_start: Option<usize>,
    /// How many of the best to return for each position.
    pub top: usize,
}

/// A prompt to continue.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateRequest {
    /// Differs from that of every request still running.
    pub id: u64,
    pub prompt: Vec<TokenId>,
    pub params: Arc<SamplingParams>,
    pub logprobs: LogprobOptions,
    /// Requests share cached prefixes only with requests of the same salt.
    pub salt: u64,
}

/// Why generation ended, as clients see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FinishReason {
    Length,
    /// An end-of-sequence or stop token.
    StopToken(TokenId),
    /// A stop string, or the text that a stop expression matched.
    StopText(String),
    Cancelled,
    Failed(String),
}

/// The end of a choice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    pub reason: FinishReason,
    pub usage: End,
}

/// A choice ran for the first time: its waiting is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Started {
    /// When its first step was planned.
    pub at: Instant,
    /// Prompt tokens that the prefix cache or another choice had computed.
    pub cached_tokens: usize,
    /// Number of that step.
    pub step: u64,
    /// How it came to its first token.
    pub way: Way,
}

/// When what led to a first token was done, nanoseconds of the monotonic clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Way {
    /// The first step was planned.
    pub begun_ns: u64,
    /// The logits of the last prompt token were there, after so many steps.
    pub computed_ns: u64,
    pub steps: u64,
    /// The step's tokens were chosen.
    pub picked_ns: u64,
    /// The token was text, and its news ready.
    pub settled_ns: u64,
}

/// News of one choice of one request.
#[derive(Debug, Clone, PartialEq)]
pub struct Update {
    pub id: u64,
    pub choice: u32,
    /// In its first news, if it ran at all.
    pub started: Option<Started>,
    /// A new token, with its log-probability if asked for.
    pub token: Option<TokenId>,
    pub logprob: Option<TokenLogprob>,
    /// Text that became certain.
    pub text: String,
    /// Prompt log-probabilities, once, with the first token: one entry per prompt token from
    /// `prompt_start + 1`.
    pub prompt_logprobs: Option<Vec<TokenLogprob>>,
    pub finished: Option<Finished>,
}
