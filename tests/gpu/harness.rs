//! Golden models on a GPU driver: the recorded bfloat16 tolerances, greedy tokens up to the margin
//! given, and equal bits alone, in batches, in chunks, with graphs and without.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pacer::device::gpu::driver::Driver;
use pacer::device::gpu::{GpuDevice, GpuLoaded, GpuOptions};
use pacer::device::{Batch, Limits, Loaded, Span};
use pacer::engine::model::Model;
use pacer::engine::options::ModelOptions;
use pacer::profile::recorder::Recorder;
use serde_json::{Value, json};

pub fn folder(name: &str) -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let found = ["golden", "golden_more"].map(|dir| tests.join(dir).join(name));
    found.into_iter().find(|f| f.join("golden.json").exists()).expect("a golden model")
}

pub fn open(name: &str) -> (Model, Value) {
    let folder = folder(name);
    let path = Some(folder.to_str().unwrap().to_owned());
    let model = Model::open(&ModelOptions { path, ..ModelOptions::default() }).unwrap();
    let text = std::fs::read_to_string(folder.join("golden.json")).unwrap();
    let mut golden: Value = serde_json::from_str(&text).unwrap();
    // Those of tests/golden_more record limits for float32 alone: held to what models of this size
    // in tests/golden are, with experts and without.
    let experts = name.contains("moe");
    golden["tolerances"].as_object_mut().unwrap().entry("bfloat16").or_insert(json!({
        "logit_max_abs": if experts { 5.0 } else { 0.5 },
        "logit_mean_abs": if experts { 0.1 } else { 0.05 },
        "kl_max": 0.02,
        "greedy": "equal up to the first step whose margin is below 0.5",
    }));
    (model, golden)
}

pub fn cases(golden: &Value) -> Vec<&Value> {
    let prompts = golden["prompts"].as_array();
    let batch = golden["batch"]["sequences"].as_array();
    prompts.into_iter().chain(batch).flatten().collect()
}

pub fn ids(v: &Value) -> Vec<u32> {
    v.as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as u32).collect()
}

fn numbers(v: &Value) -> Vec<f64> {
    v.as_array().unwrap().iter().map(|n| n.as_f64().unwrap()).collect()
}

/// A model whose cache holds several sequences, pages in a scrambled order.
pub struct Gpu {
    pub loaded: GpuLoaded,
    vocab: usize,
    limits: Limits,
}

type Rows = Vec<Vec<f32>>;

impl Gpu {
    pub fn new(model: &Model, driver: &Arc<dyn Driver>, graphs: Option<usize>) -> Self {
        let limits = Limits {
            step_tokens: 96,
            step_sequences: 4,
            logit_rows: 96,
            pages: 64,
            page_size: 8,
            context: model.context.min(128),
        };
        let options = GpuOptions { graph_sizes: graphs, ..GpuOptions::default() };
        let device = GpuDevice::new(Arc::clone(driver), options).unwrap();
        let loaded = device.load(&model.plan, &model.weights, &limits, &mut |_, _| {}).unwrap();
        Gpu { loaded, vocab: model.config.vocab_size, limits }
    }

    fn pages(&self, index: usize) -> Vec<u32> {
        let each = self.limits.pages / self.limits.step_sequences;
        (0..each as u32).map(|p| (p * 7 + 3) % each as u32 + (index * each) as u32).collect()
    }

    /// One step over `pieces` of `(sequence, past, tokens)`; logits of every row, or of each last.
    pub fn step(&mut self, pieces: &[(usize, usize, &[u32])], all: bool) -> Vec<Rows> {
        let (mut tokens, mut spans, mut pages) = (Vec::new(), Vec::new(), Vec::new());
        for &(index, past, piece) in pieces {
            let (start, len, pages_start) = (tokens.len(), piece.len(), pages.len());
            spans.push(Span { start, len, past, pages_start });
            tokens.extend_from_slice(piece);
            pages.extend(self.pages(index));
        }
        let wanted = |s: &Span| if all { s.start..s.start + s.len } else { last(s) };
        let logit_rows: Vec<usize> = spans.iter().flat_map(wanted).collect();
        let batch =
            Batch { tokens: &tokens, spans: &spans, pages: &pages, logit_rows: &logit_rows };
        self.loaded.step(&batch, &mut Recorder::off()).unwrap();
        let mut rows = self.loaded.logits().chunks(self.vocab).map(<[f32]>::to_vec);
        spans.iter().map(|s| rows.by_ref().take(wanted(s).len()).collect()).collect()
    }

    fn chunked(&mut self, tokens: &[u32], chunk: usize) -> Rows {
        let pieces = tokens.chunks(chunk).enumerate();
        pieces.flat_map(|(i, piece)| self.step(&[(0, i * chunk, piece)], true).remove(0)).collect()
    }

    /// Prompts, then `steps` greedy tokens of each together: the logits that each token came from.
    pub fn greedy(&mut self, prompts: &[Vec<u32>], steps: usize) -> Vec<Rows> {
        let pieces: Vec<_> = prompts.iter().enumerate().map(|(i, p)| (i, 0, &p[..])).collect();
        let mut found = self.step(&pieces, false);
        for step in 1..steps {
            let next: Vec<[u32; 1]> = found.iter().map(|rows| [best(&rows[step - 1])]).collect();
            let pieces: Vec<_> = prompts
                .iter()
                .zip(&next)
                .enumerate()
                .map(|(i, (p, t))| (i, p.len() + step - 1, &t[..]))
                .collect();
            for (rows, more) in found.iter_mut().zip(self.step(&pieces, false)) {
                rows.extend(more);
            }
        }
        found
    }
}

fn last(s: &Span) -> std::ops::Range<usize> {
    s.start + s.len - 1..s.start + s.len
}

pub fn best(row: &[f32]) -> u32 {
    let better = |a: &usize, b: &usize| row[*a].total_cmp(&row[*b]);
    (0..row.len()).max_by(better).unwrap() as u32
}

fn log_softmax(row: &[f64]) -> Vec<f64> {
    let most = row.iter().copied().fold(f64::MIN, f64::max);
    let norm = most + row.iter().map(|x| (x - most).exp()).sum::<f64>().ln();
    row.iter().map(|x| x - norm).collect()
}

/// How far logits are from the recorded ones over all cases.
#[derive(Debug, Default)]
pub struct Distance {
    max: f64,
    sum: f64,
    count: usize,
    kl: f64,
}

impl Distance {
    fn add(&mut self, row: &[f32], case: &Value) {
        let wanted = numbers(&case["last_logits"]);
        let row: Vec<f64> = row.iter().map(|x| f64::from(*x)).collect();
        assert_eq!(row.len(), wanted.len());
        for (a, b) in row.iter().zip(&wanted) {
            assert!(a.is_finite());
            self.max = self.max.max((a - b).abs());
            self.sum += (a - b).abs();
            self.count += 1;
        }
        let (ours, theirs) = (log_softmax(&row), log_softmax(&wanted));
        let kl = theirs.iter().zip(&ours).map(|(p, q)| p.exp() * (p - q)).sum::<f64>();
        self.kl = self.kl.max(kl);
    }

    /// Within the golden file's limits for bfloat16.
    fn within(&self, name: &str, golden: &Value) {
        let limits = &golden["tolerances"]["bfloat16"];
        let limit = |key: &str| limits[key].as_f64().unwrap();
        let mean = self.sum / self.count as f64;
        println!("{name}: max {:.4} mean {mean:.5} kl {:.6}", self.max, self.kl);
        assert!(self.max <= limit("logit_max_abs"), "{name}: max {}", self.max);
        assert!(mean <= limit("logit_mean_abs"), "{name}: mean {mean}");
        assert!(self.kl <= limit("kl_max"), "{name}: kl {}", self.kl);
    }
}

/// The margin below which a greedy token may differ.
fn margin(golden: &Value) -> f64 {
    let text = golden["tolerances"]["bfloat16"]["greedy"].as_str().unwrap();
    text.rsplit(' ').next().unwrap().parse().unwrap()
}

/// Logits of every case within the limits; equal bits in batches and chunks.
pub fn logits(name: &str, driver: &Arc<dyn Driver>) {
    let (model, golden) = open(name);
    let mut gpu = Gpu::new(&model, driver, None);
    let all = cases(&golden);
    let mut distance = Distance::default();
    let mut whole = Vec::new();
    for case in &all {
        let rows = gpu.chunked(&ids(&case["ids"]), 96);
        distance.add(rows.last().unwrap(), case);
        whole.push(rows);
    }
    distance.within(name, &golden);
    let tokens: Vec<Vec<u32>> = all.iter().map(|c| ids(&c["ids"])).collect();
    let short: Vec<usize> = (0..all.len()).filter(|i| tokens[*i].len() <= 21).take(4).collect();
    let pieces: Vec<_> = short.iter().enumerate().map(|(s, i)| (s, 0, &tokens[*i][..])).collect();
    for (rows, i) in gpu.step(&pieces, true).iter().zip(&short) {
        assert_eq!(rows, &whole[*i], "{name} {} in a batch", all[*i]["name"]);
    }
    let (_, middle) = tokens.iter().enumerate().find(|(_, t)| t.len() == 33).unwrap();
    let at = tokens.iter().position(|t| t == middle).unwrap();
    for chunk in [1, 13] {
        assert_eq!(gpu.chunked(middle, chunk), whole[at], "{name} by {chunk}");
    }
}

/// Greedy tokens up to the margin; graphs change no bit, nor does the company.
pub fn greedy(name: &str, driver: &Arc<dyn Driver>, steps: usize) {
    let (model, golden) = open(name);
    let all = cases(&golden);
    // Three sequences: a graph of four is padded.
    let chosen: Vec<&&Value> = all.iter().filter(|c| ids(&c["ids"]).len() <= 33).take(3).collect();
    let prompts: Vec<Vec<u32>> = chosen.iter().map(|c| ids(&c["ids"])).collect();
    let mut with = Gpu::new(&model, driver, None);
    assert!(with.loaded.graph_table().count() > 1);
    let found = with.greedy(&prompts, steps);
    let without = Gpu::new(&model, driver, Some(0)).greedy(&prompts, steps);
    assert!(found == without, "{name}: a graph changed bits");
    let alone = with.greedy(&prompts[..1], steps);
    assert!(alone[0] == found[0], "{name}: company changed bits");
    for (rows, case) in found.iter().zip(&chosen) {
        let margins = numbers(&case["greedy"]["margins"]);
        let clear = margins.iter().take_while(|m| **m >= margin(&golden)).count().min(steps);
        let tokens: Vec<u32> = rows.iter().map(|r| best(r)).collect();
        let wanted = ids(&case["greedy"]["ids"]);
        assert_eq!(tokens[..clear], wanted[..clear], "{name} {}", case["name"]);
    }
}
