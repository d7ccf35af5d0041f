//! `--correctness-test`: the device against the f64 reference, logits and tokens.

use super::Correctness;
use crate::device::cpu::reference;
use crate::engine::Engine;
use crate::engine::logprobs::log_sum_exp;
use crate::engine::sampler::argmax;
use crate::error::{Error, Result};
use crate::types::TokenId;

/// Largest difference of a logit, relative to the row's largest magnitude, on plain weights: the
/// device rounds to float32, the reference does not.
const PLAIN_LIMIT: f64 = 1e-4;
/// Largest mean KL divergence on quantised weights, whose activations are quantised too.
const QUANTISED_LIMIT: f64 = 5e-3;

/// What is run: each prompt's first `cut_len` ids, the rest against that cached prefix, then
/// `output_len − 1` greedy steps.
pub struct Probe {
    pub cut_len: usize,
    pub output_len: usize,
}

/// Difference of one row of logits from the reference's.
#[derive(Debug, Clone, Copy, Default)]
struct Difference {
    largest: f64,
    relative: f64,
    kl: f64,
}

/// # Errors
/// A prompt that is not longer than `cut_len`, or what the device reports.
pub fn compare(engine: &mut Engine, prompts: &[String], probe: &Probe) -> Result<Correctness> {
    let mut found = Correctness::default();
    let quantised = engine.loaded().weight_dtype().is_quantised();
    for (i, prompt) in prompts.iter().enumerate() {
        let ids = ids_of(engine, prompt)?;
        if ids.len() <= probe.cut_len {
            return Err(Error::usage(format!(
                "--cut-len {}: prompt {} has only {} tokens",
                probe.cut_len,
                i + 1,
                ids.len()
            )));
        }
        let (all, rows) = run(engine, &ids, probe)?;
        let model = &engine.model;
        let outcome = reference::run(&model.plan, &model.weights, std::slice::from_ref(&all))?;
        let Some(expected) = outcome.first() else { continue };
        let differences: Vec<Difference> =
            rows.iter().map(|(p, row)| difference(row, &expected.logits[*p])).collect();
        let wrong = mismatches(&differences, quantised);
        found.mismatches += wrong;
        found.lines.extend(describe(engine, i, &ids, &all, &differences, wrong));
    }
    found.compared = format!(
        "logits of {} with the f64 reference, limit {}",
        engine.device().detail,
        if quantised {
            format!("mean KL {QUANTISED_LIMIT:e} (quantised weights)")
        } else {
            format!("{PLAIN_LIMIT:e} of the largest logit")
        }
    );
    Ok(found)
}

/// The prompt's ids; a model without a tokenizer gets its bytes, inside the vocabulary.
fn ids_of(engine: &Engine, prompt: &str) -> Result<Vec<TokenId>> {
    match &engine.model.tokenizer {
        Some(tokenizer) => tokenizer.encode(prompt, true),
        None => {
            let vocab = engine.model.config.vocab_size as TokenId;
            Ok(prompt.bytes().map(|b| TokenId::from(b) % vocab).collect())
        }
    }
}

type Rows = Vec<(usize, Vec<f32>)>;

/// Runs one prompt; gives all tokens fed, and `(position, logits)` of each row compared.
fn run(engine: &mut Engine, ids: &[TokenId], probe: &Probe) -> Result<(Vec<TokenId>, Rows)> {
    let mut rows = Vec::new();
    let mut all = ids.to_vec();
    if probe.cut_len > 0 {
        rows.push((probe.cut_len - 1, engine.probe(&ids[..probe.cut_len], 0)?));
    }
    rows.push((ids.len() - 1, engine.probe(&ids[probe.cut_len..], probe.cut_len)?));
    for _ in 1..probe.output_len {
        let Some((position, row)) = rows.last() else { break };
        let (past, token) = (position + 1, argmax(row));
        if past + 1 > engine.limits().context.min(engine.capacity_tokens()) {
            break;
        }
        all.push(token);
        rows.push((past, engine.probe(&[token], past)?));
    }
    Ok((all, rows))
}

fn difference(row: &[f32], expected: &[f64]) -> Difference {
    let narrow: Vec<f32> = expected.iter().map(|&l| l as f32).collect();
    let (norm, wanted) = (log_sum_exp(row), log_sum_exp(&narrow));
    let mut d = Difference::default();
    let mut scale = 1e-9f64;
    for (&found, &e) in row.iter().zip(expected) {
        let found = f64::from(found);
        d.largest = d.largest.max((found - e).abs());
        scale = scale.max(e.abs());
        let (log_p, log_q) = (e - wanted, found - norm);
        d.kl += log_p.exp() * (log_p - log_q);
    }
    // A row that is not finite differs by more than any limit.
    if !norm.is_finite() {
        d.largest = f64::INFINITY;
        d.kl = f64::INFINITY;
    }
    d.relative = d.largest / scale;
    d
}

fn mismatches(differences: &[Difference], quantised: bool) -> u64 {
    if quantised {
        return u64::from(mean_kl(differences) > QUANTISED_LIMIT);
    }
    differences.iter().filter(|d| d.relative > PLAIN_LIMIT).count() as u64
}

fn mean_kl(differences: &[Difference]) -> f64 {
    differences.iter().map(|d| d.kl).sum::<f64>() / differences.len().max(1) as f64
}

fn describe(
    engine: &Engine,
    index: usize,
    ids: &[TokenId],
    all: &[TokenId],
    differences: &[Difference],
    wrong: u64,
) -> Vec<String> {
    let largest = differences.iter().map(|d| d.largest).fold(0.0, f64::max);
    let relative = differences.iter().map(|d| d.relative).fold(0.0, f64::max);
    let text = match &engine.model.tokenizer {
        Some(tokenizer) => tokenizer.decode(all, true),
        None => all.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
    };
    vec![
        format!("========== Prompt {index} =========="),
        text,
        format!(
            "{} prompt tokens, {} rows compared: largest |Δ logit| {largest:.2e} ({relative:.1e} \
             of the largest logit), mean KL {:.1e}: {}",
            ids.len(),
            differences.len(),
            mean_kl(differences),
            if wrong == 0 { "equal within the limit" } else { "MISMATCH" }
        ),
    ]
}
