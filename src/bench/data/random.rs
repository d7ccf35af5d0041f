//! `random` and `random-ids`: prompts of random tokens with the lengths that were asked for.

use super::{RangeRule, Row};
use crate::bench::draws::Draws;
use crate::error::Result;
use crate::types::TokenId;

/// What to make.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lengths {
    pub input: usize,
    pub output: usize,
    pub ratio: f64,
    pub rule: RangeRule,
}

/// `n` rows of ids below `vocab`, drawn uniformly; or, if `running`, SGLang's `random-ids`:
/// consecutive ids from a random offset, `(offset + i + j) mod vocab`.
pub fn rows(
    lengths: Lengths,
    n: usize,
    vocab: usize,
    running: bool,
    seed: u64,
) -> Result<Vec<Row>> {
    let (in_low, in_high) = lengths.rule.bounds(lengths.input, lengths.ratio)?;
    let (out_low, out_high) = lengths.rule.bounds(lengths.output, lengths.ratio)?;
    let mut draws = Draws::new(seed);
    let vocab = vocab.max(1) as u64;
    let row = |i: usize| {
        let len = draws.between(in_low, in_high);
        let output = draws.between(out_low, out_high);
        let ids: Vec<TokenId> = if running {
            let offset = draws.below(vocab);
            (0..len as u64).map(|j| ((offset + i as u64 + j) % vocab) as TokenId).collect()
        } else {
            (0..len).map(|_| draws.below(vocab) as TokenId).collect()
        };
        Row::ids(ids, output)
    };
    Ok((0..n).map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::data::Prompt;

    fn ids(row: &Row) -> &[TokenId] {
        match &row.prompt {
            Prompt::Ids(ids) => ids,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn lengths_are_exact_and_inside() {
        let exact = Lengths { input: 64, output: 8, ratio: 1.0, rule: RangeRule::Sglang };
        let all = rows(exact, 20, 100, false, 3).unwrap();
        assert!(all.iter().all(|r| r.prompt_len == 64 && r.output_len == 8));
        assert!(all.iter().all(|r| ids(r).len() == 64 && ids(r).iter().all(|&t| t < 100)));
        let spread = Lengths { ratio: 0.25, rule: RangeRule::Vllm, ..exact };
        let all = rows(spread, 500, 100, false, 3).unwrap();
        let (low, high) =
            all.iter().fold((99, 0), |(l, h), r| (r.prompt_len.min(l), r.prompt_len.max(h)));
        assert_eq!((low, high), (48, 80), "both ends are reached");
        assert_eq!(rows(spread, 5, 100, false, 3), rows(spread, 5, 100, false, 3));
        assert_ne!(rows(spread, 5, 100, false, 3), rows(spread, 5, 100, false, 4));
    }

    #[test]
    fn running_ids() {
        let exact = Lengths { input: 5, output: 1, ratio: 1.0, rule: RangeRule::Sglang };
        let all = rows(exact, 3, 4, true, 1).unwrap();
        for row in &all {
            assert!(ids(row).windows(2).all(|w| w[1] == (w[0] + 1) % 4));
        }
    }
}
