//! What goes into the scheduler and what comes out.

use std::fmt;

use crate::types::TokenId;

/// A prompt to continue.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Request {
    /// Chosen by the caller; must differ from that of every live request.
    pub id: u64,
    pub prompt: Vec<TokenId>,
    /// Most tokens to generate; 0 only computes the prompt (for its log-probabilities).
    pub max_new_tokens: usize,
    /// How many continuations to sample, ≥ 1: choices `0 .. choices`.
    pub choices: u32,
    /// The first prompt position whose row of logits is wanted: row p predicts token p + 1. The
    /// prefix cache is used only before it. Choice 0 delivers the rows.
    pub logprob_start: Option<usize>,
    /// Requests share cached prefixes only with requests of the same salt (tenant, adapter).
    pub salt: u64,
}

/// Why a request was not taken. None of these can change by waiting, but the last two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    EmptyPrompt,
    NoChoices,
    DuplicateId(u64),
    /// Prompt and output together exceed the context length.
    ExceedsContext {
        tokens: usize,
        context: usize,
    },
    /// Prompt and output together exceed all of the key-value cache.
    ExceedsCache {
        tokens: usize,
        capacity: usize,
    },
    /// `logprob_start` is not a position of the prompt.
    LogprobStart {
        start: usize,
        prompt: usize,
    },
    QueueFull {
        limit: usize,
    },
    QueueTokensFull {
        limit: usize,
    },
}

impl Refusal {
    /// The same request may be taken later (HTTP 429 rather than 400).
    pub fn is_temporary(&self) -> bool {
        matches!(self, Refusal::QueueFull { .. } | Refusal::QueueTokensFull { .. })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::EmptyPrompt => write!(f, "the prompt has no tokens; give at least one"),
            Refusal::NoChoices => write!(f, "n is 0; ask for at least one choice"),
            Refusal::DuplicateId(id) => write!(f, "request id {id} is already in use"),
            Refusal::ExceedsContext { tokens, context } => write!(
                f,
                "prompt and output need {tokens} tokens, the context length is {context}; \
                 shorten the prompt or max_new_tokens"
            ),
            Refusal::ExceedsCache { tokens, capacity } => write!(
                f,
                "prompt and output need {tokens} tokens, the key-value cache holds {capacity}; \
                 shorten the prompt or max_new_tokens, or raise --max-total-tokens"
            ),
            Refusal::LogprobStart { start, prompt } => {
                write!(f, "logprob_start_len is {start}, the prompt has {prompt} tokens")
            }
            Refusal::QueueFull { limit } => {
                write!(f, "the queue is full ({limit} requests); try again later")
            }
            Refusal::QueueTokensFull { limit } => {
                write!(f, "the queue is full ({limit} prompt tokens); try again later")
            }
        }
    }
}

/// Why a choice ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Finish {
    /// The engine found an end token or a stop string.
    Stop,
    /// `max_new_tokens` were generated.
    Length,
    /// The caller cancelled it.
    Cancelled,
    /// Its step failed.
    Failed,
}

/// What a step sampled for one sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Output {
    pub token: TokenId,
    /// Set by the engine when the sequence ends with this token.
    pub finish: Option<Finish>,
}

/// Something to tell the client of choice `choice` of request `id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Event {
    pub id: u64,
    pub choice: u32,
    pub token: Option<TokenId>,
    /// Present exactly once for each choice, in its last event.
    pub end: Option<End>,
}

/// How a choice ended, and what it used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct End {
    pub reason: Finish,
    pub prompt_tokens: usize,
    /// Prompt tokens that the prefix cache or another choice had computed, at first admission.
    pub cached_tokens: usize,
    pub output_tokens: usize,
    pub preemptions: u32,
}
