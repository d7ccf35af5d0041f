//! What happened to one request, in nanoseconds since the run began.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::types::TokenId;

/// New tokens that arrived together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    pub at: u64,
    /// New tokens in it: as the server counts, or 1 where it does not say.
    pub tokens: u32,
    /// There was text in it.
    pub text: bool,
}

/// Why a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// No connection: refused, unreachable, out of ports or descriptors.
    Connect,
    /// Nothing came to an end within the request timeout.
    Timeout,
    /// The server closed in the middle of an answer.
    Closed,
    /// A status other than 200.
    Status(u16),
    /// An error event in the stream.
    ErrorEvent,
    /// Not HTTP, not JSON, or not the expected fields.
    Malformed,
    /// A head, line or body beyond the client's limits.
    TooLarge,
    /// An answer that ended well and held no token.
    NoOutput,
    /// The user stopped the run.
    Cancelled,
}

impl Reason {
    /// The key that failures are counted under: `timeout`, `status_500`.
    pub fn name(self) -> String {
        match self {
            Reason::Connect => "connect".into(),
            Reason::Timeout => "timeout".into(),
            Reason::Closed => "closed".into(),
            Reason::Status(code) => format!("status_{code}"),
            Reason::ErrorEvent => "error_event".into(),
            Reason::Malformed => "malformed".into(),
            Reason::TooLarge => "too_large".into(),
            Reason::NoOutput => "no_output".into(),
            Reason::Cancelled => "cancelled".into(),
        }
    }
}

/// A failure and what was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub reason: Reason,
    pub detail: String,
}

impl Failure {
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Failure { reason, detail: detail.into() }
    }
}

/// Stamps of a server's clock on the way to the first token.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct ServerTiming {
    /// Which boot of which machine the clock belongs to.
    pub boot: String,
    pub prefill_steps: u64,
    /// Nanoseconds of `CLOCK_MONOTONIC`; 0 where a stamp is not known.
    pub stamps_ns: BTreeMap<String, u64>,
}

/// Everything known about one request.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Record {
    /// Index of its row in the data set.
    pub index: usize,
    /// When it should have been sent: its arrival time or, in a closed loop, when its place
    /// became free.
    pub scheduled: u64,
    /// When it could be sent: `scheduled`, or later if it waited for `--max-concurrency`.
    pub ready: u64,
    /// When it was sent: the beginning of connecting or writing.
    pub sent: u64,
    pub chunks: Vec<Chunk>,
    /// The last event, `[DONE]` included, or the failure.
    pub end: u64,
    pub failure: Option<Failure>,
    /// As the server counted; `None` if it did not say.
    pub prompt_tokens: Option<u64>,
    pub completion_tokens: Option<u64>,
    pub cached_tokens: Option<u64>,
    /// `length`, `stop`, …
    pub finish: Option<String>,
    /// Generated text, if it is kept.
    pub text: String,
    /// Generated tokens, if text is kept and the server tells them.
    pub output_ids: Vec<TokenId>,
    /// A connection had to be opened for it.
    pub connected: bool,
    /// The run's beginning on `CLOCK_MONOTONIC`.
    pub origin_ns: u64,
    /// What the server stamped, if it tells.
    pub timing: Option<Box<ServerTiming>>,
}

impl Record {
    pub fn ok(&self) -> bool {
        self.failure.is_none()
    }

    /// Tokens generated: the server's count, else one for each chunk (a lower bound).
    pub fn output_tokens(&self) -> u64 {
        self.completion_tokens.unwrap_or_else(|| self.streamed_tokens())
    }

    /// Tokens that chunks brought.
    pub fn streamed_tokens(&self) -> u64 {
        self.chunks.iter().map(|c| u64::from(c.tokens)).sum()
    }

    /// Whether the length is the server's own count.
    pub fn counted_by_server(&self) -> bool {
        self.completion_tokens.is_some()
    }

    /// The first chunk with text or, if none had any, the first with a token.
    pub fn first(&self) -> Option<u64> {
        let text = self.chunks.iter().find(|c| c.text);
        text.or(self.chunks.first()).map(|c| c.at)
    }

    /// The first chunk with a token, text or not.
    pub fn first_token(&self) -> Option<u64> {
        self.chunks.first().map(|c| c.at)
    }

    /// The last chunk with a token.
    pub fn last_token(&self) -> Option<u64> {
        self.chunks.last().map(|c| c.at)
    }
}
