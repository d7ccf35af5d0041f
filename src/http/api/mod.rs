//! The JSON of the routes. Reading only: what a request means for the engine is the server's
//! business, and sampling parameters stay JSON under SGLang's names until the engine reads them.
//!
//! A number may be given as a string, as SGLang allows; every number has a range; an error names
//! its field. Unknown fields are ignored, as both peers do; fields whose effect is not available
//! are refused rather than ignored.

mod chat;
mod completions;
mod fields;
mod generate;
mod json;
mod openai;
mod others;

pub use chat::{ChatRequest, chat};
pub use completions::completions;
pub use fields::Fields;
pub use generate::{generate, is_id};
pub use json::parse;
pub use openai::OpenAi;
pub use others::{Abort, Detokenize, Tokenize, abort, detokenize, tokenize};

use serde_json::{Map, Value};

use crate::types::TokenId;

/// Most prompts of one request.
pub const MAX_PROMPTS: usize = 4096;
/// Most of the best tokens for each position.
pub const MAX_TOP_LOGPROBS: i64 = 20;

/// A prompt as it came.
#[derive(Debug, Clone, PartialEq)]
pub enum Prompt {
    Text(String),
    Ids(Vec<TokenId>),
}

/// Which log-probabilities to return, for one prompt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Logprobs {
    /// Of generated tokens.
    pub output: bool,
    /// Of prompt tokens from this position on.
    pub prompt_start: Option<usize>,
    pub top: usize,
}

/// A request for continuations, whatever route it came by.
#[derive(Debug, Clone, PartialEq)]
pub struct Generation {
    pub prompts: Vec<Prompt>,
    /// The prompts came as a list, so the answer is one, too.
    pub batch: bool,
    /// For all prompts, or one each; SGLang's names.
    pub sampling: Vec<Map<String, Value>>,
    pub stream: bool,
    /// One a prompt.
    pub logprobs: Vec<Logprobs>,
    /// Texts beside token ids in log-probabilities.
    pub logprob_texts: bool,
    /// One a prompt, or none.
    pub ids: Vec<String>,
    /// Requests of different salts share no cached prefixes.
    pub salt: Option<String>,
}
