//! `generated-shared-prefix`: groups of requests that begin with the same system prompt.

use super::{RangeRule, Row};
use crate::bench::draws::Draws;
use crate::error::Result;
use crate::types::TokenId;

/// How group sizes come about.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Distribution {
    /// As many requests in each.
    Uniform,
    /// Each request draws its group with probability proportional to `1 / rank^alpha`.
    Zipf(f64),
}

/// What to make.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    pub groups: usize,
    pub prompts_per_group: usize,
    /// Requests of each conversation; those after the first say what is new.
    pub turns: usize,
    pub system: usize,
    pub question: usize,
    pub output: usize,
    /// Lengths from `max(⌊L · ratio⌋, 1)` to `L`.
    pub ratio: f64,
    pub distribution: Distribution,
    /// Keep group after group instead of shuffling.
    pub ordered: bool,
}

/// All rows: `groups × prompts_per_group × turns`, the turns of a conversation one after another.
pub fn rows(shape: Shape, vocab: usize, seed: u64) -> Result<Vec<Row>> {
    let bounds = |len| RangeRule::Sglang.bounds(len, shape.ratio);
    let (system, question, output) =
        (bounds(shape.system)?, bounds(shape.question)?, bounds(shape.output)?);
    let mut draws = Draws::new(seed);
    let vocab = vocab.max(1) as u64;
    let some = |draws: &mut Draws, (low, high): (usize, usize)| -> Vec<TokenId> {
        let n = draws.between(low, high);
        (0..n).map(|_| draws.below(vocab) as TokenId).collect()
    };
    let systems: Vec<Vec<TokenId>> = (0..shape.groups).map(|_| some(&mut draws, system)).collect();
    // A stream of its own, so that texts do not depend on the distribution.
    let mut picks = Draws::new(seed ^ 0x5EED_0F67_0095);
    let total = shape.groups * shape.prompts_per_group;
    let mut all = Vec::with_capacity(total);
    for i in 0..total {
        let group = match shape.distribution {
            Distribution::Uniform => i / shape.prompts_per_group.max(1),
            Distribution::Zipf(alpha) => zipf(&mut picks, shape.groups, alpha),
        };
        let mut ids = systems.get(group).cloned().unwrap_or_default();
        ids.extend(some(&mut draws, question));
        let output = draws.between(output.0, output.1);
        let routing_key = Some(format!("group-{seed}-{group}"));
        all.push(vec![Row { routing_key, ..Row::ids(ids, output) }]);
    }
    // Further turns come last, so that the first ones do not depend on their number.
    for turns in &mut all {
        for _ in 1..shape.turns {
            let ids = some(&mut draws, question);
            turns.push(next_turn(&turns[turns.len() - 1], ids, draws.between(output.0, output.1)));
        }
    }
    if !shape.ordered {
        draws.shuffle(&mut all);
    }
    Ok(all.into_iter().flatten().collect())
}

/// The turn after `before`, which says `ids`; its prompt is as long as all that was said.
fn next_turn(before: &Row, ids: Vec<TokenId>, output: usize) -> Row {
    let prompt_len = before.prompt_len + before.output_len + ids.len();
    let routing_key = before.routing_key.clone();
    Row { prompt_len, follows: true, routing_key, ..Row::ids(ids, output) }
}

/// A rank below `n`, by the inverse of the cumulative weights.
fn zipf(draws: &mut Draws, n: usize, alpha: f64) -> usize {
    let weight = |rank: usize| ((rank + 1) as f64).powf(-alpha);
    let total: f64 = (0..n).map(weight).sum();
    let mut left = draws.uniform() * total;
    for rank in 0..n {
        left -= weight(rank);
        if left < 0.0 {
            return rank;
        }
    }
    n.saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::data::Prompt;
    use std::collections::BTreeMap;

    const SHAPE: Shape = Shape {
        groups: 4,
        prompts_per_group: 8,
        turns: 1,
        system: 20,
        question: 5,
        output: 3,
        ratio: 1.0,
        distribution: Distribution::Uniform,
        ordered: false,
    };

    fn sizes(shape: Shape) -> Vec<usize> {
        let mut groups: BTreeMap<Vec<TokenId>, usize> = BTreeMap::new();
        for row in rows(shape, 1000, 5).unwrap() {
            let Prompt::Ids(ids) = row.prompt else { panic!("ids") };
            assert_eq!((ids.len(), row.output_len), (25, 3));
            *groups.entry(ids[..20].to_vec()).or_default() += 1;
        }
        let mut sizes: Vec<usize> = groups.into_values().collect();
        sizes.sort_unstable();
        sizes
    }

    #[test]
    fn groups_share_their_beginning() {
        assert_eq!(sizes(SHAPE), [8, 8, 8, 8]);
        let skewed = sizes(Shape { distribution: Distribution::Zipf(1.5), ..SHAPE });
        assert_eq!(skewed.iter().sum::<usize>(), 32);
        assert!(skewed[skewed.len() - 1] > 12, "{skewed:?}");
    }

    #[test]
    fn turns_stay_together_and_their_prompts_grow() {
        let talks = rows(Shape { turns: 3, ..SHAPE }, 1000, 5).unwrap();
        assert_eq!(talks.len(), 4 * 8 * 3);
        for talk in talks.chunks(3) {
            let follows: Vec<bool> = talk.iter().map(|r| r.follows).collect();
            let lens: Vec<usize> = talk.iter().map(|r| r.prompt_len).collect();
            assert_eq!((follows, lens), (vec![false, true, true], vec![25, 33, 41]));
            assert!(matches!(&talk[1].prompt, Prompt::Ids(ids) if ids.len() == 5));
        }
        let ordered = |turns| rows(Shape { turns, ordered: true, ..SHAPE }, 1000, 5).unwrap();
        let firsts: Vec<Row> = ordered(3).into_iter().filter(|r| !r.follows).collect();
        assert_eq!(firsts, ordered(1), "the first turns are the same");
    }

    #[test]
    fn order_is_kept_on_request() {
        let ordered = rows(Shape { ordered: true, ..SHAPE }, 1000, 5).unwrap();
        let begin = |r: &Row| match &r.prompt {
            Prompt::Ids(ids) => ids[..20].to_vec(),
            _ => Vec::new(),
        };
        assert!(ordered.chunks(8).all(|g| g.iter().all(|r| begin(r) == begin(&g[0]))));
    }
}
