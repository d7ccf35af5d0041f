//! Sampling on a device: what is wanted of each row of logits, and what comes back instead of
//! them.

use crate::types::TokenId;

/// How the token of one row of logits is chosen: as the engine's sampler does, by the same numbers
/// of the same generator ([`philox`](super::philox)).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowSampling {
    /// 0: the best token.
    pub temperature: f32,
    /// 0: no limit.
    pub top_k: u32,
    /// 1 or more: no limit.
    pub top_p: f32,
    /// 0: no limit.
    pub min_p: f32,
    /// Key of the draw: the request's seed, which of its choices, tokens generated before.
    pub seed: u64,
    pub choice: u32,
    pub position: u32,
    /// Penalties of tokens that were generated; 1, 0 and 0: none.
    pub repetition: f32,
    pub frequency: f32,
    pub presence: f32,
    /// How many of [`Sampling::changes`] are this row's; rows take theirs in order.
    pub changes: u32,
}

impl Default for RowSampling {
    fn default() -> Self {
        RowSampling {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            seed: 0,
            choice: 0,
            position: 0,
            repetition: 1.0,
            frequency: 0.0,
            presence: 0.0,
            changes: 0,
        }
    }
}

/// What a request's parameters make of one token's logit: the bias is added, then penalties.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogitChange {
    pub token: TokenId,
    pub bias: f32,
    /// How often it was generated; 0: no penalty.
    pub count: u32,
    /// It may not come now.
    pub forbidden: bool,
}

/// What is wanted of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Wanted {
    /// Its logits: something is asked for that no device does.
    Logits,
    /// The log-probability of this token.
    Given(TokenId),
    /// A token, chosen so.
    Token(RowSampling),
}

/// One row of a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row {
    pub wanted: Wanted,
    /// Log-probabilities of the token and of so many of the best, of the raw distribution; `None`:
    /// of none.
    pub top: Option<usize>,
}

impl Row {
    /// The row's logits.
    pub const LOGITS: Row = Row { wanted: Wanted::Logits, top: None };
}

/// What is to be chosen in a step.
#[derive(Debug, Clone, Copy)]
pub struct Sampling<'a> {
    /// One for each of the batch's logit rows.
    pub rows: &'a [Row],
    /// The changes of all rows, one row's after the other's; each token at most once a row.
    pub changes: &'a [LogitChange],
}

impl Sampling<'_> {
    /// The most best tokens that a row wants; `None` if no row wants log-probabilities.
    pub fn top(&self) -> Option<usize> {
        self.rows.iter().filter_map(|r| r.top).max()
    }

    /// Rows whose logits are wanted.
    pub fn logits(&self) -> usize {
        self.rows.iter().filter(|r| r.wanted == Wanted::Logits).count()
    }
}

/// What a device that samples does at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Most {
    /// Best tokens of a row.
    pub top: usize,
    /// Changes of a row's logits.
    pub changes: usize,
}

/// What was chosen.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sampled {
    /// One for each logit row.
    pub tokens: Vec<TokenId>,
    /// Log-probability of each, if a row asked for any.
    pub logprobs: Vec<f32>,
    /// `[rows, width]`, best first; ties: lower id first.
    pub top: Vec<(TokenId, f32)>,
    /// The most that a row asked for.
    pub width: usize,
}

impl Sampled {
    /// The `count` best tokens of a row, as far as it has so many.
    pub fn best(&self, row: usize, count: usize) -> &[(TokenId, f32)] {
        let best = self.top.get(row * self.width..(row + 1) * self.width).unwrap_or_default();
        let known = best.iter().take_while(|(token, _)| *token != TokenId::MAX).count();
        &best[..count.min(known)]
    }
}
