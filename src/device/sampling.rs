//! Sampling on a device: how one row's token is to be chosen, and what comes back instead of
//! logits.

use crate::types::TokenId;

/// How the token of one row of logits is chosen: as the engine's sampler does for a request without
/// bias, penalties or constraint, by the same numbers of the same generator
/// ([`philox`](super::philox)).
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
        }
    }
}

/// What is to be chosen in a step.
#[derive(Debug, Clone, Copy)]
pub struct Sampling<'a> {
    /// One for each of the batch's logit rows.
    pub rows: &'a [RowSampling],
    /// Log-probabilities of the chosen token and of so many of the best; `None`: of none.
    pub top: Option<usize>,
}

/// What was chosen.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sampled {
    /// One for each logit row.
    pub tokens: Vec<TokenId>,
    /// Log-probability of each, of the raw distribution, if asked for.
    pub logprobs: Vec<f32>,
    /// `[rows, top]`, best first; ties: lower id first.
    pub top: Vec<(TokenId, f32)>,
}
