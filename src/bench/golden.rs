//! Checks a device against a golden model: a folder with a checkpoint and `golden.json`, the logits
//! and greedy tokens that another library computed from it (`tests/golden/README.md`).
//!
//! Distances are held to the file's own limits for the type; greedy tokens must agree up to the
//! first step whose margin is below the given one. Company in a batch, chunks of a prompt and
//! CUDA graphs may change no bit.

use std::path::Path;

use serde_json::Value;

use crate::device::{Batch, Device, Limits, Loaded, Span};
use crate::engine::model::Model;
use crate::engine::options::ModelOptions;
use crate::error::{Error, Result};
use crate::profile::recorder::Recorder;

/// What `golden.json` records of one prompt.
struct Case {
    name: String,
    ids: Vec<u32>,
    last_logits: Vec<f64>,
    greedy: Vec<u32>,
    margins: Vec<f64>,
}

/// How far a type may be off, and the margin below which a greedy token may differ.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Allowed {
    pub max: f64,
    pub mean: f64,
    pub kl: f64,
    pub margin: f64,
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Found {
    /// Largest and mean distance of a logit, largest divergence of a row.
    pub max: f64,
    pub mean: f64,
    pub kl: f64,
    pub allowed: Allowed,
    /// Prompts whose logits were compared, greedy tokens compared.
    pub prompts: usize,
    pub tokens: usize,
}

/// What is checked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Part {
    #[default]
    All,
    /// Distances of logits, and equal bits in batches and chunks.
    Logits,
    /// Greedy tokens, and equal bits with graphs and in company.
    Greedy,
}

/// How a folder is checked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Checks {
    pub part: Part,
    /// Greedy tokens of each prompt.
    pub steps: usize,
    /// For files that record no limits for the type; `None`: they are refused.
    pub otherwise: Option<Allowed>,
}

impl Default for Checks {
    fn default() -> Self {
        Checks { part: Part::All, steps: 8, otherwise: None }
    }
}

/// Gives the device; with graphs or without.
pub type Open<'a> = dyn Fn(bool) -> Result<Box<dyn Device>> + 'a;

/// Longest prompt that takes part in the greedy and batch checks.
const SHORT: usize = 33;

/// Runs the checks of a folder for a storage type (`bfloat16`, `float16`).
///
/// # Errors
/// `File` for a folder that is no golden model or has no limits for the type; `Device` naming the
/// check and the prompt that failed.
pub fn check(folder: &Path, dtype: &str, checks: Checks, open: &Open<'_>) -> Result<Found> {
    let path = folder.join("golden.json");
    let text = std::fs::read_to_string(&path).map_err(|e| Error::io(&path, &e))?;
    let golden: Value = serde_json::from_str(&text).map_err(|e| Error::file(&path, e))?;
    let allowed = allowed(&golden, dtype)
        .or(checks.otherwise)
        .ok_or_else(|| Error::file(&path, format!("no tolerances for {dtype}")))?;
    let cases =
        cases(&golden).ok_or_else(|| Error::file(&path, "prompts are missing or damaged"))?;
    let name = folder.to_str().map(str::to_owned);
    let model = Model::open(&ModelOptions { path: name, ..ModelOptions::default() })?;
    let mut with = Sequences::new(&model, open(true)?.as_ref())?;
    let mut found = Found { max: 0.0, mean: 0.0, kl: 0.0, allowed, prompts: 0, tokens: 0 };
    if checks.part != Part::Greedy {
        let whole = logits(&mut with, &cases, &mut found)?;
        company(&mut with, &cases, &whole)?;
    }
    if checks.part != Part::Logits {
        let mut without = Sequences::new(&model, open(false)?.as_ref())?;
        found.tokens = greedy(&mut with, &mut without, &cases, (checks.steps, allowed.margin))?;
    }
    Ok(found)
}

fn allowed(golden: &Value, dtype: &str) -> Option<Allowed> {
    let limits = golden.get("tolerances")?.get(dtype)?;
    let number = |key: &str| limits.get(key)?.as_f64();
    let margin = limits.get("greedy")?.as_str()?.rsplit(' ').next()?.parse().ok()?;
    let (max, mean) = (number("logit_max_abs")?, number("logit_mean_abs")?);
    Some(Allowed { max, mean, kl: number("kl_max")?, margin })
}

fn cases(golden: &Value) -> Option<Vec<Case>> {
    let prompts = golden.get("prompts")?.as_array()?;
    let batch = golden.get("batch")?.get("sequences")?.as_array()?;
    prompts.iter().chain(batch).map(case).collect()
}

fn case(v: &Value) -> Option<Case> {
    let ids = |v: &Value| -> Option<Vec<u32>> {
        v.as_array()?.iter().map(|n| u32::try_from(n.as_u64()?).ok()).collect()
    };
    let numbers =
        |v: &Value| -> Option<Vec<f64>> { v.as_array()?.iter().map(Value::as_f64).collect() };
    Some(Case {
        name: v.get("name").and_then(Value::as_str).unwrap_or("prompt").to_owned(),
        ids: ids(v.get("ids")?)?,
        last_logits: numbers(v.get("last_logits")?)?,
        greedy: ids(v.get("greedy")?.get("ids")?)?,
        margins: numbers(v.get("greedy")?.get("margins")?)?,
    })
}

type Rows = Vec<Vec<f32>>;

/// A model on a device, with room for a few sequences whose pages are out of order.
struct Sequences {
    loaded: Box<dyn Loaded>,
    vocab: usize,
    limits: Limits,
}

/// Sequence, tokens already there, new tokens.
type Piece<'a> = (usize, usize, &'a [u32]);

impl Sequences {
    fn new(model: &Model, device: &dyn Device) -> Result<Self> {
        let limits = Limits {
            step_tokens: 96,
            step_sequences: 4,
            logit_rows: 96,
            pages: 64,
            page_size: 8,
            context: model.context.min(128),
        };
        let loaded = device.prepare(&model.plan, &model.weights, &limits, &mut |_, _| {})?;
        Ok(Sequences { loaded, vocab: model.config.vocab_size, limits })
    }

    fn pages(&self, index: usize) -> impl Iterator<Item = u32> + use<> {
        let each = (self.limits.pages / self.limits.step_sequences) as u32;
        (0..each).map(move |p| (p * 7 + 3) % each + index as u32 * each)
    }

    /// Logits of every new token, or of each sequence's last.
    fn step(&mut self, pieces: &[Piece<'_>], every: bool) -> Result<Vec<Rows>> {
        let (mut tokens, mut spans, mut pages) = (Vec::new(), Vec::new(), Vec::new());
        for &(index, past, piece) in pieces {
            let (start, len, pages_start) = (tokens.len(), piece.len(), pages.len());
            spans.push(Span { start, len, past, pages_start });
            tokens.extend_from_slice(piece);
            pages.extend(self.pages(index));
        }
        let wanted = |s: &Span| {
            let end = s.start + s.len;
            if every { s.start..end } else { end - 1..end }
        };
        let logit_rows: Vec<usize> = spans.iter().flat_map(wanted).collect();
        let batch =
            Batch { tokens: &tokens, spans: &spans, pages: &pages, logit_rows: &logit_rows };
        self.loaded.step(&batch, &mut Recorder::off())?;
        let mut rows = self.loaded.logits().chunks(self.vocab).map(<[f32]>::to_vec);
        Ok(spans.iter().map(|s| rows.by_ref().take(wanted(s).len()).collect()).collect())
    }

    /// Every row of a prompt that comes in chunks.
    fn chunked(&mut self, ids: &[u32], chunk: usize) -> Result<Rows> {
        let mut all = Rows::new();
        for (i, piece) in ids.chunks(chunk).enumerate() {
            all.extend(self.step(&[(0, i * chunk, piece)], true)?.into_iter().flatten());
        }
        Ok(all)
    }

    /// Greedy tokens of several prompts together: the logits that each token came from.
    fn greedy(&mut self, prompts: &[&[u32]], steps: usize) -> Result<Vec<Rows>> {
        let pieces: Vec<Piece<'_>> = prompts.iter().enumerate().map(|(i, p)| (i, 0, *p)).collect();
        let mut found = self.step(&pieces, false)?;
        for step in 1..steps {
            let next: Vec<[u32; 1]> = found.iter().map(|rows| [last_best(rows)]).collect();
            let pieces: Vec<Piece<'_>> = prompts
                .iter()
                .zip(&next)
                .enumerate()
                .map(|(i, (p, t))| (i, p.len() + step - 1, &t[..]))
                .collect();
            for (rows, more) in found.iter_mut().zip(self.step(&pieces, false)?) {
                rows.extend(more);
            }
        }
        Ok(found)
    }
}

fn last_best(rows: &Rows) -> u32 {
    rows.last().map_or(0, |row| best(row))
}

fn best(row: &[f32]) -> u32 {
    let all = row.iter().enumerate();
    all.max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(i, _)| i as u32)
}

/// Distances of the last logits of every prompt; every row of each.
fn logits(device: &mut Sequences, cases: &[Case], found: &mut Found) -> Result<Vec<Rows>> {
    let (mut whole, mut sum, mut count) = (Vec::new(), 0.0, 0);
    for case in cases {
        let rows = device.chunked(&case.ids, 96)?;
        let row: Vec<f64> = rows.last().into_iter().flatten().map(|x| f64::from(*x)).collect();
        if row.len() != case.last_logits.len() || !row.iter().all(|x| x.is_finite()) {
            let (got, want) = (row.len(), case.last_logits.len());
            return Err(failed(case, format!("{got} finite logits; {want} recorded")));
        }
        for (a, b) in row.iter().zip(&case.last_logits) {
            found.max = found.max.max((a - b).abs());
            sum += (a - b).abs();
            count += 1;
        }
        found.kl = found.kl.max(divergence(&case.last_logits, &row));
        whole.push(rows);
    }
    (found.mean, found.prompts) = (sum / f64::from(count.max(1)), cases.len());
    let Allowed { max, mean, kl, .. } = found.allowed;
    if found.max > max || found.mean > mean || found.kl > kl {
        return Err(Error::device(format!(
            "logits are {:.4} off at most, {:.5} in the mean, divergence {:.6}; allowed {max}, \
             {mean}, {kl}",
            found.max, found.mean, found.kl
        )));
    }
    Ok(whole)
}

/// Kullback-Leibler divergence of the softmax of `ours` from that of `theirs`.
fn divergence(theirs: &[f64], ours: &[f64]) -> f64 {
    let (p, q) = (log_softmax(theirs), log_softmax(ours));
    p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum()
}

fn log_softmax(row: &[f64]) -> Vec<f64> {
    let most = row.iter().copied().fold(f64::MIN, f64::max);
    let norm = most + row.iter().map(|x| (x - most).exp()).sum::<f64>().ln();
    row.iter().map(|x| x - norm).collect()
}

/// Prompts in one batch, and one in chunks: the bits of each alone and whole.
fn company(device: &mut Sequences, cases: &[Case], whole: &[Rows]) -> Result<()> {
    let short: Vec<(&Case, &Rows)> =
        cases.iter().zip(whole).filter(|(c, _)| c.ids.len() <= 21).take(4).collect();
    let pieces: Vec<Piece<'_>> =
        short.iter().enumerate().map(|(i, (c, _))| (i, 0, &c.ids[..])).collect();
    for (rows, (case, alone)) in device.step(&pieces, true)?.iter().zip(&short) {
        if rows != *alone {
            return Err(failed(case, "other bits in a batch than alone"));
        }
    }
    let middle = cases.iter().zip(whole).filter(|(c, _)| c.ids.len() <= SHORT);
    if let Some((case, rows)) = middle.max_by_key(|(c, _)| c.ids.len()) {
        for chunk in [1, 13] {
            if device.chunked(&case.ids, chunk)? != *rows {
                return Err(failed(case, format!("other bits in chunks of {chunk} than whole")));
            }
        }
    }
    Ok(())
}

/// Greedy tokens; with graphs, without, and alone the same bits. Gives the tokens compared.
fn greedy(
    with: &mut Sequences,
    without: &mut Sequences,
    cases: &[Case],
    (steps, margin): (usize, f64),
) -> Result<usize> {
    // Three sequences: a graph of four is padded.
    let chosen: Vec<&Case> = cases.iter().filter(|c| c.ids.len() <= SHORT).take(3).collect();
    let prompts: Vec<&[u32]> = chosen.iter().map(|c| &c.ids[..]).collect();
    let found = with.greedy(&prompts, steps)?;
    let plain = without.greedy(&prompts, steps)?;
    let alone = with.greedy(&prompts[..prompts.len().min(1)], steps)?;
    let mut compared = 0;
    for (i, (case, rows)) in chosen.iter().zip(&found).enumerate() {
        if plain.get(i) != Some(rows) {
            return Err(failed(case, "a CUDA graph changed bits"));
        }
        if alone.get(i).is_some_and(|a| a != rows) {
            return Err(failed(case, "company changed the bits of greedy steps"));
        }
        let clear = case.margins.iter().take_while(|m| **m >= margin).count().min(steps);
        let tokens: Vec<u32> = rows.iter().map(|r| best(r)).collect();
        if tokens.get(..clear) != case.greedy.get(..clear) {
            return Err(failed(case, format!("greedy tokens {tokens:?}; {:?}", case.greedy)));
        }
        compared += clear;
    }
    Ok(compared)
}

fn failed(case: &Case, what: impl std::fmt::Display) -> Error {
    Error::device(format!("{}: {what}", case.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cpu::{CpuDevice, CpuOptions};
    use serde_json::json;

    #[test]
    fn limits_are_read_and_damaged_files_are_refused() {
        let golden = json!({ "tolerances": { "bfloat16": { "logit_max_abs": 1.0,
            "logit_mean_abs": 0.05, "kl_max": 0.02, "greedy": "up to the margin below 0.5" } } });
        let found = allowed(&golden, "bfloat16").unwrap();
        assert_eq!(found, Allowed { max: 1.0, mean: 0.05, kl: 0.02, margin: 0.5 });
        assert!(allowed(&golden, "float16").is_none());
        assert!(cases(&golden).is_none());
        let cpu = |_: bool| -> Result<Box<dyn Device>> {
            Ok(Box::new(CpuDevice::new(CpuOptions::default())?))
        };
        let error =
            check(Path::new("/nonexistent"), "bfloat16", Checks::default(), &cpu).unwrap_err();
        assert!(error.message.contains("golden.json"), "{error}");
    }

    #[test]
    fn divergence_is_zero_for_equals_and_grows() {
        let row = [1.0, 2.0, 3.0];
        assert!(divergence(&row, &row).abs() < 1e-12);
        assert!(divergence(&row, &[3.0, 2.0, 1.0]) > 0.5);
    }

    /// The CPU keeps float32, so it is well within what bfloat16 may be off by.
    #[test]
    fn the_cpu_passes_and_a_wrong_record_does_not() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/llama");
        let cpu = |_: bool| -> Result<Box<dyn Device>> {
            Ok(Box::new(CpuDevice::new(CpuOptions::default())?))
        };
        let found = check(&folder, "bfloat16", Checks::default(), &cpu).unwrap();
        assert!(found.max < 1e-3 && found.prompts == 8 && found.tokens > 0, "{found:?}");
        let copy = std::env::temp_dir().join(format!("pacer-golden-{}", std::process::id()));
        std::fs::create_dir_all(&copy).unwrap();
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, copy.join(path.file_name().unwrap())).unwrap();
        }
        let at = copy.join("golden.json");
        let mut golden: Value =
            serde_json::from_str(&std::fs::read_to_string(&at).unwrap()).unwrap();
        golden["prompts"][1]["last_logits"][3] = json!(1e3);
        std::fs::write(&at, golden.to_string()).unwrap();
        let error = check(&copy, "bfloat16", Checks::default(), &cpu);
        std::fs::remove_dir_all(&copy).unwrap();
        assert!(error.unwrap_err().message.contains("off at most"));
    }
}
