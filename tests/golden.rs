//! Every golden model on the CPU device and on the f64 reference, against the numbers that
//! `transformers` computed: logits, log-probabilities, hidden states, greedy tokens; batches and
//! chunkings bit for bit; planted mistakes found (tests/golden/README.md has the schema).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pacer::device::cpu::{CpuDevice, CpuOptions, reference};
use pacer::device::{Batch, Device, Limits, Loaded, Span};
use pacer::engine::logprobs::log_sum_exp;
use pacer::engine::model::Model;
use pacer::engine::options::{EngineOptions, ModelOptions};
use pacer::engine::params::SamplingParams;
use pacer::engine::{Engine, core::simple_request};
use pacer::model::arch;
use pacer::model::config::Config;
use pacer::model::plan::Op;
use pacer::profile::recorder::Recorder;
use serde_json::Value;

const LOGIT: f64 = 1e-3;
const HIDDEN_RELATIVE: f64 = 1e-4;

fn folders() -> Vec<PathBuf> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut found: Vec<PathBuf> = ["golden", "golden_more"]
        .iter()
        .flat_map(|dir| std::fs::read_dir(tests.join(dir)).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("golden.json").exists())
        .collect();
    found.sort();
    assert_eq!(found.len(), 16);
    found
}

fn open(folder: &Path) -> (Model, Value) {
    let path = Some(folder.to_str().unwrap().to_owned());
    let model = Model::open(&ModelOptions { path, ..ModelOptions::default() }).unwrap();
    let text = std::fs::read_to_string(folder.join("golden.json")).unwrap();
    (model, serde_json::from_str(&text).unwrap())
}

/// Prompts and batch sequences alike.
fn cases(golden: &Value) -> Vec<&Value> {
    let list = |v: &'static str| golden[v].as_array();
    let batch = golden["batch"]["sequences"].as_array();
    list("prompts").into_iter().chain(batch).flatten().collect()
}

fn ids(v: &Value) -> Vec<u32> {
    v.as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as u32).collect()
}

fn numbers(v: &Value) -> Vec<f64> {
    v.as_array().unwrap().iter().map(|n| n.as_f64().unwrap()).collect()
}

/// A model on the CPU whose cache holds several sequences, pages in a scrambled order.
struct Cpu {
    loaded: Box<dyn Loaded>,
    vocab: usize,
    limits: Limits,
}

impl Cpu {
    fn new(model: &Model, threads: usize) -> Self {
        let options = CpuOptions { threads: Some(threads), ..CpuOptions::default() };
        let limits = Limits {
            step_tokens: 160,
            step_sequences: 8,
            logit_rows: 160,
            pages: 128,
            page_size: 8,
            context: model.context.min(256),
        };
        let device = CpuDevice::new(options).unwrap();
        let loaded = device.prepare(&model.plan, &model.weights, &limits, &mut |_, _| {}).unwrap();
        Cpu { loaded, vocab: model.config.vocab_size, limits }
    }

    /// Pages of sequence `index`: a fixed scramble of its share of the pool.
    fn pages(&self, index: usize) -> Vec<u32> {
        let each = self.limits.pages / self.limits.step_sequences;
        (0..each as u32).map(|p| (p * 7 + 3) % each as u32 + (index * each) as u32).collect()
    }

    /// One step over `pieces` of `(sequence, past, tokens)`, logits of every row.
    fn step(&mut self, pieces: &[(usize, usize, &[u32])]) -> Vec<Vec<Vec<f32>>> {
        let (mut tokens, mut spans, mut pages) = (Vec::new(), Vec::new(), Vec::new());
        for &(index, past, piece) in pieces {
            let (start, len, pages_start) = (tokens.len(), piece.len(), pages.len());
            spans.push(Span { start, len, past, pages_start });
            tokens.extend_from_slice(piece);
            pages.extend(self.pages(index));
        }
        let logit_rows: Vec<usize> = (0..tokens.len()).collect();
        let batch =
            Batch { tokens: &tokens, spans: &spans, pages: &pages, logit_rows: &logit_rows };
        self.loaded.step(&batch, &mut Recorder::off()).unwrap();
        let rows: Vec<Vec<f32>> =
            self.loaded.logits().chunks(self.vocab).map(<[f32]>::to_vec).collect();
        spans.iter().map(|s| rows[s.start..s.start + s.len].to_vec()).collect()
    }

    /// All rows of one sequence, run in chunks of `chunk` tokens.
    fn chunked(&mut self, tokens: &[u32], chunk: usize) -> Vec<Vec<f32>> {
        let mut rows = Vec::new();
        for (i, piece) in tokens.chunks(chunk).enumerate() {
            rows.extend(self.step(&[(0, i * chunk, piece)]).remove(0));
        }
        rows
    }
}

/// The largest deviation of `rows` (all positions of a case) from its recorded numbers.
fn deviation(rows: &[Vec<f32>], case: &Value) -> f64 {
    let last = numbers(&case["last_logits"]);
    let row = rows.last().unwrap();
    assert_eq!(row.len(), last.len());
    let mut worst =
        row.iter().zip(&last).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
    let top8 = case["top8"].as_array().unwrap();
    assert_eq!(top8.len(), rows.len());
    for (row, top) in rows.iter().zip(top8) {
        let norm = log_sum_exp(row);
        for pair in top.as_array().unwrap() {
            let (id, wanted) = (pair[0].as_u64().unwrap() as usize, pair[1].as_f64().unwrap());
            worst = f64::max(worst, (f64::from(row[id]) - norm - wanted).abs());
        }
    }
    worst
}

#[test]
fn logits_at_every_position() {
    for folder in folders() {
        let (model, golden) = open(&folder);
        let mut cpu = Cpu::new(&model, 2);
        for case in cases(&golden) {
            let rows = cpu.chunked(&ids(&case["ids"]), 160);
            let worst = deviation(&rows, case);
            assert!(worst < LOGIT, "{} {}: {worst}", folder.display(), case["name"]);
        }
    }
}

#[test]
fn batches_and_chunks_equal_single_runs_bit_for_bit() {
    for folder in folders() {
        let (model, golden) = open(&folder);
        let mut one = Cpu::new(&model, 1);
        let all: Vec<Vec<u32>> = cases(&golden).iter().map(|c| ids(&c["ids"])).collect();
        let whole: Vec<_> = all.iter().map(|tokens| one.chunked(tokens, 160)).collect();
        let mut two = Cpu::new(&model, 2);
        for (tokens, expected) in all.iter().zip(&whole) {
            for chunk in [1, 3, 16, 33] {
                assert_eq!(
                    &two.chunked(tokens, chunk),
                    expected,
                    "{} by {chunk}",
                    folder.display()
                );
            }
        }
        let batch: Vec<usize> = (0..all.len()).filter(|i| all[*i].len() <= 40).collect();
        let pieces: Vec<(usize, usize, &[u32])> =
            batch.iter().enumerate().map(|(slot, &i)| (slot, 0, all[i].as_slice())).collect();
        let together = two.step(&pieces);
        for (rows, &i) in together.iter().zip(&batch) {
            assert_eq!(rows, &whole[i], "{} in a batch", folder.display());
        }
        // Halves of some beside wholes of others: mixed prefill and decode in one step.
        let first: Vec<_> = pieces.iter().map(|&(s, p, t)| (s, p, &t[..t.len() / 2])).collect();
        let first: Vec<_> = first.into_iter().filter(|p| !p.2.is_empty()).collect();
        two.step(&first);
        let rest: Vec<_> =
            pieces.iter().map(|&(s, _, t)| (s, t.len() / 2, &t[t.len() / 2..])).collect();
        for ((rows, &i), piece) in two.step(&rest).iter().zip(&batch).zip(&rest) {
            assert_eq!(rows.as_slice(), &whole[i][piece.1..], "{} in halves", folder.display());
        }
    }
}

#[test]
fn greedy_tokens_and_their_logprobs() {
    for folder in folders() {
        let (model, golden) = open(&folder);
        let cases: Vec<Value> = cases(&golden).into_iter().cloned().collect();
        let device = CpuDevice::new(CpuOptions { threads: Some(2), ..Default::default() }).unwrap();
        let options = EngineOptions {
            total_tokens: Some(2048),
            step_tokens: Some(48),
            ..EngineOptions::default()
        };
        let mut engine = Engine::new(model, &device, &options, &mut |_, _| {}).unwrap();
        let params = Arc::new(SamplingParams {
            max_new_tokens: Some(24),
            temperature: 0.0,
            ignore_eos: true,
            ..SamplingParams::default()
        });
        for (id, case) in cases.iter().enumerate() {
            let mut request = simple_request(id as u64, ids(&case["ids"]), Arc::clone(&params));
            request.logprobs.output = true;
            engine.submit(&request).unwrap();
        }
        let mut found = vec![(Vec::new(), Vec::new()); cases.len()];
        let mut updates = Vec::new();
        while !engine.idle() {
            assert!(engine.step(&mut updates).unwrap());
            engine.scheduler().audit().unwrap();
            for update in updates.drain(..) {
                let of = &mut found[update.id as usize];
                of.0.extend(update.token);
                of.1.extend(update.logprob.map(|l| f64::from(l.logprob)));
            }
        }
        for ((tokens, logprobs), case) in found.iter().zip(&cases) {
            let name = format!("{} {}", folder.display(), case["name"]);
            assert_eq!(tokens, &ids(&case["greedy"]["ids"]), "{name}");
            for (found, wanted) in logprobs.iter().zip(numbers(&case["greedy"]["logprobs"])) {
                assert!((found - wanted).abs() < LOGIT, "{name}: {found} {wanted}");
            }
        }
    }
}

#[test]
fn the_reference_computes_the_recorded_hidden_states() {
    for folder in folders() {
        let (model, golden) = open(&folder);
        for case in cases(&golden).into_iter().filter(|c| ids(&c["ids"]).len() <= 40) {
            let tokens = ids(&case["ids"]);
            let outcome = reference::run(&model.plan, &model.weights, &[tokens]).unwrap().remove(0);
            let hidden = case["hidden"].as_array().unwrap();
            assert!(hidden.len() > model.config.layers.len());
            // `transformers` records no state between the last layer and the last norm in
            // golden_more; names tell which is which.
            for (state, rows) in named_states(hidden, &outcome.residuals) {
                let l2 = rows.iter().flatten().map(|v| v * v).sum::<f64>().sqrt();
                let wanted = state["l2"].as_f64().unwrap();
                let name = format!("{} {} {}", folder.display(), case["name"], state["name"]);
                assert!((l2 - wanted).abs() <= HIDDEN_RELATIVE * wanted, "{name}: {l2} {wanted}");
                for (a, b) in rows.last().unwrap().iter().zip(numbers(&state["last_first8"])) {
                    assert!((a - b).abs() < LOGIT * b.abs().max(1.0), "{name}: {a} {b}");
                }
            }
            let rows: Vec<Vec<f32>> =
                outcome.logits.iter().map(|row| row.iter().map(|v| *v as f32).collect()).collect();
            let worst = deviation(&rows, case);
            assert!(worst < LOGIT, "{} {}: {worst}", folder.display(), case["name"]);
        }
    }
}

type States = [Vec<Vec<f64>>];

/// Pairs recorded states with the plan's, by name: `embed`, `layers.N`, `norm`.
fn named_states<'a>(
    hidden: &'a [Value],
    residuals: &'a States,
) -> impl Iterator<Item = (&'a Value, &'a Vec<Vec<f64>>)> {
    hidden.iter().map(|state| {
        let name = state["name"].as_str().unwrap();
        let index = match name.strip_prefix("layers.") {
            Some(layer) => layer.parse::<usize>().unwrap() + 1,
            None if name == "embed" => 0,
            None => residuals.len() - 1,
        };
        (state, &residuals[index])
    })
}

/// The deviation of a model whose config (or plan) was changed, on its longest prompt.
fn spoilt(name: &str, change: impl FnOnce(&mut Config), drop_rope: bool) -> f64 {
    let (mut model, golden) = open(&folders().into_iter().find(|f| f.ends_with(name)).unwrap());
    change(&mut model.config);
    model.plan = arch::plan(&model.config, model.context).unwrap();
    if drop_rope {
        model.plan.ops.retain(|o| !matches!(o.op, Op::Rope { .. }));
    }
    let cases = cases(&golden);
    let longest = cases.iter().max_by_key(|c| ids(&c["ids"]).len()).unwrap();
    deviation(&Cpu::new(&model, 2).chunked(&ids(&longest["ids"]), 160), longest)
}

#[test]
fn planted_mistakes_are_found() {
    assert!(spoilt("llama", |_| {}, false) < LOGIT, "nothing planted, nothing found");
    let mistakes = [
        ("no rope", spoilt("llama", |_| {}, true)),
        ("wrong eps", spoilt("llama", |c| c.norm_eps = 1e-5, false)),
        (
            "window off by one",
            spoilt(
                "mistral",
                |c| {
                    c.layers.iter_mut().for_each(|l| l.window = l.window.map(|w| w + 1));
                },
                false,
            ),
        ),
        ("no soft cap", spoilt("gemma2", |c| c.attention_softcap = None, false)),
        ("norms without the 1", spoilt("gemma2", |c| c.norm_plus_one = false, false)),
        ("no q/k norm scale", spoilt("qwen3", |c| c.attention_scale *= 1.01, false)),
        (
            "experts not renormalised",
            spoilt(
                "mixtral",
                |c| {
                    c.moe.as_mut().unwrap().renormalise = false;
                },
                false,
            ),
        ),
        ("partial rotary ignored", spoilt("phi3", |c| c.ropes[0].dim = c.head_dim, false)),
    ];
    for (what, deviation) in mistakes {
        assert!(deviation > 10.0 * LOGIT, "{what} moved logits by {deviation} only");
    }
}
