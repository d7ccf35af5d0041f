//! One row of logits in, one token out.
//!
//! Order, as SGLang's: bias, penalties, forbidden ends, temperature, softmax, then top-k, top-p
//! and min-p on probabilities sorted from the best (ties: lower id first), then one draw from
//! what is left. Everything is computed from the row, the request's own tokens, seed and
//! position, in one fixed order: the result cannot depend on the rest of the batch.

use std::collections::HashMap;

use crate::types::TokenId;

use super::params::SamplingParams;
use crate::device::cpu::simd::{Isa, softmax};
use crate::device::philox::uniform;

/// What the sampler keeps of one choice of one request.
#[derive(Debug, Clone, Default)]
pub struct SamplerState {
    /// How often each token was generated; filled only if a penalty needs it.
    pub(super) counts: HashMap<TokenId, u32>,
    /// Tokens generated so far.
    pub(super) generated: usize,
}

/// Tokens that may not come next.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bans<'a> {
    /// Forbidden until `min_new_tokens` were generated.
    pub ends: &'a [TokenId],
    /// One bit for each token: those without are forbidden.
    pub allowed: Option<&'a [u32]>,
}

impl Bans<'_> {
    fn allows(&self, id: TokenId) -> bool {
        let word = |allowed: &[u32]| allowed.get(id as usize / 32).copied().unwrap_or(0);
        self.allowed.is_none_or(|allowed| word(allowed) >> (id % 32) & 1 == 1)
    }

    /// A constraint that lets nothing but an end follow is stronger than a least length.
    fn leaves_only_ends(&self, vocab: usize) -> bool {
        let mut allowed = (0..vocab as TokenId).filter(|&id| self.allows(id));
        allowed.all(|id| self.ends.contains(&id))
    }
}

/// Scratch that is reused over rows: `[vocab]` each.
#[derive(Debug, Default)]
pub struct SamplerScratch {
    logits: Vec<f32>,
    order: Vec<u32>,
}

impl SamplerState {
    /// Chooses the next token from `row` `[vocab]`. Seed and choice key the draw.
    pub fn sample(
        &self,
        row: &[f32],
        params: &SamplingParams,
        key: (u64, u32),
        bans: &Bans,
        scratch: &mut SamplerScratch,
    ) -> TokenId {
        let early = self.generated < params.min_new_tokens;
        let free = !early && bans.allowed.is_none();
        let plain = free && params.logit_bias.is_empty() && !params.has_penalties();
        if plain && params.is_greedy() {
            return argmax(row);
        }
        scratch.logits.clear();
        scratch.logits.extend_from_slice(row);
        let logits = &mut scratch.logits;
        self.adjust(logits, params);
        if early && (bans.allowed.is_none() || !bans.leaves_only_ends(row.len())) {
            forbid(logits, bans.ends);
        }
        if let Some(allowed) = bans.allowed {
            keep(logits, allowed);
        }
        let token = if params.is_greedy() {
            argmax(logits)
        } else {
            let draw = uniform(key.0, key.1, self.generated as u64);
            draw_token(logits, &mut scratch.order, params, draw)
        };
        if bans.allows(token) {
            return token;
        }
        // Every allowed logit is NaN or -inf: the first will do as well as any.
        (0..row.len() as TokenId).find(|&id| bans.allows(id)).unwrap_or(token)
    }

    /// Counts `token` as generated.
    pub fn accept(&mut self, token: TokenId, params: &SamplingParams) {
        self.generated += 1;
        if params.has_penalties() {
            *self.counts.entry(token).or_insert(0) += 1;
        }
    }

    fn adjust(&self, logits: &mut [f32], params: &SamplingParams) {
        for &(id, bias) in &params.logit_bias {
            if let Some(logit) = logits.get_mut(id as usize) {
                *logit += bias;
            }
        }
        for (&id, &count) in &self.counts {
            let Some(logit) = logits.get_mut(id as usize) else { continue };
            let factor = params.repetition_penalty;
            *logit = if *logit > 0.0 { *logit / factor } else { *logit * factor };
            *logit -= count as f32 * params.frequency_penalty + params.presence_penalty;
        }
    }
}

fn forbid(logits: &mut [f32], ends: &[TokenId]) {
    for &id in ends {
        if let Some(logit) = logits.get_mut(id as usize) {
            *logit = f32::NEG_INFINITY;
        }
    }
}

/// Forbids all tokens but those whose bits are set.
fn keep(logits: &mut [f32], allowed: &[u32]) {
    for (index, logits) in logits.chunks_mut(32).enumerate() {
        let word = allowed.get(index).copied().unwrap_or(0);
        for (bit, logit) in logits.iter_mut().enumerate() {
            *logit = if word >> bit & 1 == 1 { *logit } else { f32::NEG_INFINITY };
        }
    }
}

/// The best token; the lower id wins a tie. NaN never wins.
pub fn argmax(row: &[f32]) -> TokenId {
    // Eight maxima side by side, which compiles to vectors; the few pieces that beat the best so
    // far are searched.
    const PIECE: usize = 256;
    let mut best = (0, f32::NEG_INFINITY);
    for (index, piece) in row.chunks(PIECE).enumerate() {
        let mut most = [best.1; 8];
        let (eights, rest) = piece.as_chunks::<8>();
        for eight in eights {
            for (most, &logit) in most.iter_mut().zip(eight) {
                *most = if logit > *most { logit } else { *most };
            }
        }
        if most.iter().chain(rest).all(|&logit| logit.is_nan() || logit <= best.1) {
            continue;
        }
        for (id, &logit) in (index * PIECE..).zip(piece) {
            if logit > best.1 {
                best = (id, logit);
            }
        }
    }
    best.0 as TokenId
}

/// Turns logits into weights `exp((l - max) / temperature)` and draws from those that top-k,
/// top-p and min-p leave.
fn draw_token(
    logits: &mut [f32],
    order: &mut Vec<u32>,
    params: &SamplingParams,
    draw: f64,
) -> TokenId {
    let best = argmax(logits);
    let max = logits[best as usize];
    if !max.is_finite() {
        return best;
    }
    softmax::exp_scaled(Isa::best(), logits, max, 1.0 / params.temperature);
    let total: f64 = logits.iter().map(|&w| f64::from(w)).sum();
    candidates(logits, order, params, total);

    let k = if params.top_k == 0 { usize::MAX } else { params.top_k };
    let (mut kept, mut mass) = (0, 0.0);
    for (rank, &id) in order.iter().enumerate() {
        let weight = f64::from(logits[id as usize]);
        let outside =
            rank >= k || mass > f64::from(params.top_p) * total || weight < f64::from(params.min_p);
        if rank > 0 && outside {
            break;
        }
        mass += weight;
        kept = rank + 1;
    }
    let target = draw * mass;
    let mut passed = 0.0;
    for &id in &order[..kept] {
        passed += f64::from(logits[id as usize]);
        if target < passed {
            return id;
        }
    }
    order[kept - 1]
}

/// Fills `order` with ids from the best weight down: all that could be kept. Weights that
/// underflowed to zero never are, and without limits the order is by id, which needs no sort.
fn candidates(weights: &[f32], order: &mut Vec<u32>, params: &SamplingParams, total: f64) {
    order.clear();
    if params.top_k == 0 && params.top_p >= 1.0 && params.min_p == 0.0 {
        order.extend((0..weights.len() as u32).filter(|&id| weights[id as usize] > 0.0));
        return;
    }
    // Outside of 1 - top_p of the mass nothing is kept, so a weight below its share is not either.
    let slack = (1.0 - f64::from(params.top_p)) * total / weights.len() as f64;
    let floor = (slack as f32).max(params.min_p).max(f32::MIN_POSITIVE);
    order.extend((0..weights.len() as u32).filter(|&id| weights[id as usize] >= floor));
    let better = |a: &u32, b: &u32| {
        weights[*b as usize].total_cmp(&weights[*a as usize]).then_with(|| a.cmp(b))
    };
    if params.top_k > 0 && params.top_k < order.len() {
        order.select_nth_unstable_by(params.top_k - 1, better);
        order.truncate(params.top_k);
    }
    order.sort_unstable_by(better);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params() -> SamplingParams {
        SamplingParams { temperature: 1.0, ..SamplingParams::default() }
    }

    /// How often each token of `row` is drawn over positions 0..n.
    fn histogram(row: &[f32], params: &SamplingParams, n: usize) -> Vec<f64> {
        let mut scratch = SamplerScratch::default();
        let mut counts = vec![0.0; row.len()];
        for position in 0..n {
            let state = SamplerState { counts: HashMap::new(), generated: position };
            let id = state.sample(row, params, (1, 0), &Bans::default(), &mut scratch);
            counts[id as usize] += 1.0 / n as f64;
        }
        counts
    }

    #[test]
    fn argmax_is_the_first_of_the_best() {
        let plain = |row: &[f32]| {
            let best = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            row.iter().position(|x| *x == best && best > f32::NEG_INFINITY).unwrap_or(0) as TokenId
        };
        let mut state = 1u64;
        for len in [0, 1, 7, 8, 255, 256, 257, 1000, 5000] {
            let mut next = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                match state >> 60 {
                    0 => f32::NAN,
                    1 => f32::NEG_INFINITY,
                    _ => ((state >> 40) % 2000) as f32 - 1000.0,
                }
            };
            let row: Vec<f32> = (0..len).map(|_| next()).collect();
            assert_eq!(argmax(&row), plain(&row), "{len}");
        }
    }

    /// Probabilities 0.1, 0.4, 0.2, 0.3 as logits.
    fn row() -> Vec<f32> {
        [0.1f32, 0.4, 0.2, 0.3].iter().map(|p| p.ln()).collect()
    }

    fn close(found: &[f64], wanted: [f64; 4]) {
        for (f, w) in found.iter().zip(wanted) {
            assert!((f - w).abs() < 0.02, "{found:?} {wanted:?}");
        }
    }

    #[test]
    fn draws_follow_the_softmax() {
        close(&histogram(&row(), &params(), 20_000), [0.1, 0.4, 0.2, 0.3]);
    }

    #[test]
    fn temperature_sharpens() {
        let p = SamplingParams { temperature: 0.5, ..params() };
        close(&histogram(&row(), &p, 20_000), [1.0 / 30.0, 16.0 / 30.0, 4.0 / 30.0, 9.0 / 30.0]);
    }

    #[test]
    fn top_k_keeps_the_best() {
        let p = SamplingParams { top_k: 2, ..params() };
        close(&histogram(&row(), &p, 20_000), [0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0]);
    }

    /// 0.4 + 0.3 is not above 0.75 yet, so the third token stays too; the fourth goes.
    #[test]
    fn top_p_keeps_tokens_until_the_mass_before_them_passes_p() {
        let p = SamplingParams { top_p: 0.75, ..params() };
        close(&histogram(&row(), &p, 20_000), [0.0, 4.0 / 9.0, 2.0 / 9.0, 3.0 / 9.0]);
        let p = SamplingParams { top_p: 0.3, ..params() };
        close(&histogram(&row(), &p, 1000), [0.0, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn min_p_is_relative_to_the_best() {
        let p = SamplingParams { min_p: 0.6, ..params() };
        close(&histogram(&row(), &p, 20_000), [0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0]);
    }

    #[test]
    fn greedy_takes_the_lower_of_equals() {
        let p = SamplingParams { temperature: 0.0, ..params() };
        let state = SamplerState::default();
        let row = [1.0, 3.0, 3.0, f32::NAN];
        assert_eq!(
            state.sample(&row, &p, (0, 0), &Bans::default(), &mut SamplerScratch::default()),
            1
        );
    }

    #[test]
    fn penalties_bias_and_forbidden_ends_move_logits() {
        let greedy = SamplingParams { temperature: 0.0, ..params() };
        let mut scratch = SamplerScratch::default();
        let mut pick = |p: &SamplingParams, row: &[f32], seen: &[TokenId], ends: &[TokenId]| {
            let mut state = SamplerState::default();
            seen.iter().for_each(|&t| state.accept(t, p));
            let bans = Bans { ends, allowed: None };
            state.sample(row, p, (0, 0), &bans, &mut scratch)
        };
        let row = [2.0, 1.9, -1.0];
        let p = SamplingParams { presence_penalty: 0.2, ..greedy.clone() };
        assert_eq!(pick(&p, &row, &[0], &[]), 1);
        let p = SamplingParams { frequency_penalty: 0.06, ..greedy.clone() };
        assert_eq!(pick(&p, &row, &[0], &[]), 0);
        assert_eq!(pick(&p, &row, &[0, 0], &[]), 1);
        let p = SamplingParams { repetition_penalty: 1.1, ..greedy.clone() };
        assert_eq!(pick(&p, &row, &[0], &[]), 1);
        assert_eq!(pick(&p, &[-1.0, -1.05], &[0], &[]), 1);
        let p = SamplingParams { logit_bias: vec![(2, 5.0)], ..greedy.clone() };
        assert_eq!(pick(&p, &row, &[], &[]), 2);
        let p = SamplingParams { min_new_tokens: 1, ..greedy };
        assert_eq!(pick(&p, &row, &[], &[0]), 1);
        assert_eq!(pick(&p, &row, &[1], &[0]), 0);
    }

    #[test]
    fn only_allowed_tokens_are_chosen() {
        let state = SamplerState::default();
        let mut scratch = SamplerScratch::default();
        let row: Vec<f32> = (0..70).map(|i| i as f32).collect();
        let mut pick = |row: &[f32], p: &SamplingParams, ends: &[TokenId], allowed: &[u32]| {
            let bans = Bans { ends, allowed: Some(allowed) };
            state.sample(row, p, (3, 0), &bans, &mut scratch)
        };
        let greedy = SamplingParams { temperature: 0.0, ..params() };
        assert_eq!(pick(&row, &greedy, &[], &[0b101, 1 << 7, 0]), 39);
        assert_eq!(pick(&row, &params(), &[], &[0b100, 0, 0]), 2);
        assert_eq!(pick(&[f32::NAN; 70], &params(), &[], &[0, 0, 0b10]), 65);
        let early = SamplingParams { min_new_tokens: 5, ..greedy };
        assert_eq!(pick(&row, &early, &[39], &[0b101, 1 << 7, 0]), 2, "no end yet");
        assert_eq!(pick(&row, &early, &[39], &[0, 1 << 7, 0]), 39, "nothing but the end fits");
    }
}
