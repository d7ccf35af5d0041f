//! Log-probabilities of a row of logits: the raw distribution, before temperature and penalties.

use crate::device::cpu::simd::{Isa, softmax};
use crate::types::TokenId;

/// The log-probability of one token, and the best ones of its row.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprob {
    pub token: TokenId,
    pub logprob: f32,
    /// Best first; ties: lower id first.
    pub top: Vec<(TokenId, f32)>,
}

/// `ln Σ exp(l)`, summed in float64.
pub fn log_sum_exp(row: &[f32]) -> f64 {
    let isa = Isa::best();
    let max = softmax::largest(isa, row);
    f64::from(max) + softmax::sum_exp(isa, row, max).ln()
}

/// The log-probability of `token` and the `top` best of `row`.
pub fn token_logprob(row: &[f32], token: TokenId, top: usize) -> TokenLogprob {
    let norm = log_sum_exp(row);
    let logprob = |id: TokenId| {
        row.get(id as usize).map_or(f32::NEG_INFINITY, |&l| (f64::from(l) - norm) as f32)
    };
    let top = best(row, top).into_iter().map(|id| (id, logprob(id))).collect();
    TokenLogprob { token, logprob: logprob(token), top }
}

/// Ids of the `count` largest logits, best first; ties: lower id first.
pub fn best(row: &[f32], count: usize) -> Vec<TokenId> {
    if count == 0 {
        return Vec::new();
    }
    let better =
        |a: &u32, b: &u32| row[*b as usize].total_cmp(&row[*a as usize]).then_with(|| a.cmp(b));
    let mut ids: Vec<u32> = (0..row.len() as u32).collect();
    if count < ids.len() {
        ids.select_nth_unstable_by(count - 1, better);
        ids.truncate(count);
    }
    ids.sort_unstable_by(better);
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logprobs_of_known_probabilities() {
        let row: Vec<f32> = [0.1f32, 0.4, 0.2, 0.3].iter().map(|p| p.ln() + 50.0).collect();
        let found = token_logprob(&row, 2, 2);
        assert!((found.logprob - 0.2f32.ln()).abs() < 1e-5);
        assert_eq!(found.top.iter().map(|t| t.0).collect::<Vec<_>>(), [1, 3]);
        assert!((found.top[1].1 - 0.3f32.ln()).abs() < 1e-5);
    }

    #[test]
    fn ties_go_to_the_lower_id_and_counts_are_bounded() {
        assert_eq!(best(&[1.0, 2.0, 2.0, 0.0], 2), [1, 2]);
        assert_eq!(best(&[1.0, 2.0], 9), [1, 0]);
        assert_eq!(best(&[1.0], 0), [0u32; 0]);
    }
}
