//! Every op of the CPU device against the f64 reference on small random plans with awkward sizes
//! and planted outliers; scalar against SIMD; and a token's bits whatever is beside it: chunks,
//! batches, pages, threads, contexts cut at splits.

use std::collections::BTreeMap;

use pacer::device::cpu::simd::Isa;
use pacer::device::cpu::{CpuDevice, CpuLoaded, CpuOptions, KvType, reference};
use pacer::device::{Batch, Limits, Loaded, Span};
use pacer::error::{Kind, Result};
use pacer::model::config::Config;
use pacer::model::plan::{Activation, Op, Part, Plan, View};
use pacer::model::{arch, config_hf};
use pacer::profile::recorder::{Event, Recorder};
use pacer::types::Dtype;
use pacer::weights::{RowOrder, Source, Tensor, Weights};

/// A small generator (splitmix64): the same numbers on every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// From -1 to 1.
    fn signed(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    fn tokens(&mut self, len: usize, vocab: usize) -> Vec<u32> {
        (0..len).map(|_| self.below(vocab) as u32).collect()
    }
}

/// Tensors by name, float32.
struct Made(BTreeMap<String, (Vec<usize>, Vec<u8>)>);

impl Made {
    /// Random numbers for every tensor of `plan`; about one in 200 is an outlier.
    fn new(plan: &Plan, seed: u64) -> Self {
        let mut random = Random(seed);
        let mut all = BTreeMap::new();
        for (name, shape) in plan.tensors() {
            let scale = 2.0 / (*shape.last().unwrap() as f32).sqrt();
            let mut number = || {
                let outlier = if random.below(200) == 0 { 20.0 } else { 1.0 };
                random.signed() * scale * outlier
            };
            let bytes = (0..shape.iter().product()).flat_map(|_| number().to_le_bytes()).collect();
            all.insert(name.to_owned(), (shape, bytes));
        }
        Made(all)
    }
}

impl Source for Made {
    fn tensor(&self, name: &str) -> Option<Tensor<'_>> {
        let (name, (shape, data)) = self.0.get_key_value(name)?;
        Some(Tensor { name, dtype: Dtype::F32, shape, data, order: RowOrder::Plain })
    }

    fn names(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }

    fn check(&self) -> Result<()> {
        Ok(())
    }
}

/// Sizes that are no multiples of a vector: group 3, heads of 20, partial rotary, odd widths.
fn small() -> Config {
    let mut config = config_hf::from_json(&serde_json::json!({
        "architectures": ["Gemma2ForCausalLM"], "hidden_size": 52, "intermediate_size": 44,
        "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 20,
        "num_hidden_layers": 2, "max_position_embeddings": 4096, "vocab_size": 101,
        "rms_norm_eps": 1e-5, "query_pre_attn_scalar": 20, "sliding_window": 70,
        "attn_logit_softcapping": 8.0, "final_logit_softcapping": 5.0, "torch_dtype": "float32",
        "hidden_activation": "gelu_pytorch_tanh"
    }))
    .unwrap();
    config.ropes[0].dim = 12;
    config.qkv_bias = true;
    config
}

/// Experts, one head a KV head, exact GELU, q/k norm, heads of 12.
fn experts() -> Config {
    let mut config = config_hf::from_json(&serde_json::json!({
        "architectures": ["Qwen3MoeForCausalLM"], "hidden_size": 36, "intermediate_size": 24,
        "moe_intermediate_size": 28, "num_attention_heads": 3, "num_key_value_heads": 3,
        "head_dim": 12, "num_hidden_layers": 2, "max_position_embeddings": 4096,
        "vocab_size": 67, "num_experts": 5, "num_experts_per_tok": 2, "norm_topk_prob": true,
        "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "torch_dtype": "float32",
        "hidden_act": "silu"
    }))
    .unwrap();
    config.activation = Activation::Gelu;
    config
}

fn plan_of(config: &Config) -> Plan {
    arch::plan(config, 2048).unwrap()
}

fn limits(page_size: usize) -> Limits {
    let pages = 3000usize.div_ceil(page_size) + 8;
    let (step_tokens, logit_rows) = (1600, 1600);
    Limits { step_tokens, step_sequences: 8, logit_rows, pages, page_size, context: 1400 }
}

struct Cpu {
    loaded: CpuLoaded,
    limits: Limits,
    vocab: usize,
    /// Page numbers in the order in which they are handed out.
    free: Vec<u32>,
}

impl Cpu {
    fn new(plan: &Plan, seed: u64, threads: usize, page_size: usize, isa: Isa) -> Self {
        Cpu::keeping(KvType::F32, plan, seed, threads, page_size, isa)
    }

    fn keeping(
        kv: KvType,
        plan: &Plan,
        seed: u64,
        threads: usize,
        page_size: usize,
        isa: Isa,
    ) -> Self {
        let (limits, kv) = (limits(page_size), Some(kv));
        let options = CpuOptions { threads: Some(threads), isa, kv, ..CpuOptions::default() };
        let weights = Weights::new(Box::new(Made::new(plan, seed)));
        let device = CpuDevice::new(options).unwrap();
        let loaded = device.load(plan, &weights, &limits, &mut |_, _| {}).unwrap();
        let free = (0..limits.pages as u32).collect();
        Cpu { loaded, limits, vocab: plan.vocab_size, free }
    }

    fn scrambled(mut self, seed: u64) -> Self {
        let mut random = Random(seed);
        for i in (1..self.free.len()).rev() {
            self.free.swap(i, random.below(i + 1));
        }
        self
    }

    /// Runs sequences from the start; `chunk(sequence, done)` says how many tokens each gives to
    /// the next step. Returns the logits of every position.
    fn run(
        &mut self,
        sequences: &[Vec<u32>],
        mut chunk: impl FnMut(usize, usize) -> usize,
    ) -> Vec<Vec<Vec<f32>>> {
        let mut free = self.free.iter();
        let mut own = |s: &Vec<u32>| -> Vec<u32> {
            free.by_ref().take(s.len().div_ceil(self.limits.page_size)).copied().collect()
        };
        let pages: Vec<Vec<u32>> = sequences.iter().map(&mut own).collect();
        let mut out = vec![Vec::new(); sequences.len()];
        while (0..sequences.len()).any(|s| out[s].len() < sequences[s].len()) {
            let (mut tokens, mut spans, mut list, mut who) = (vec![], vec![], vec![], vec![]);
            for (s, all) in sequences.iter().enumerate() {
                let past = out[s].len();
                let len = chunk(s, past).min(all.len() - past);
                if len > 0 {
                    spans.push(Span { start: tokens.len(), len, past, pages_start: list.len() });
                    tokens.extend_from_slice(&all[past..past + len]);
                    list.extend_from_slice(&pages[s]);
                    who.push(s);
                }
            }
            let logit_rows: Vec<usize> = (0..tokens.len()).collect();
            let (tokens, spans, pages) = (&tokens, &spans, &list);
            let batch = Batch { tokens, spans, pages, logit_rows: &logit_rows };
            self.loaded.step(&batch, &mut Recorder::off()).unwrap();
            let mut rows = self.loaded.logits().chunks(self.vocab).map(<[f32]>::to_vec);
            for (s, span) in who.into_iter().zip(spans) {
                out[s].extend(rows.by_ref().take(span.len));
            }
        }
        out
    }
}

fn output(op: &Op) -> Option<View> {
    match *op {
        Op::Embed { out, .. } | Op::RmsNorm { out, .. } | Op::Linear { out, .. } => Some(out),
        Op::Attention { out, .. } | Op::GatedAct { out, .. } => Some(out),
        Op::Moe { out, .. } | Op::Gather { out, .. } => Some(out),
        Op::Add { x, .. } | Op::Softcap { x, .. } => Some(x),
        Op::Rope { q, k, .. } => {
            Some(View { buffer: q.buffer, offset: q.offset, width: q.width + k.width })
        }
        Op::KvWrite { .. } => None,
    }
}

/// The largest error of each op, relative to the largest number of its row.
fn errors(plan: &Plan, seed: u64, tokens: &[u32], isa: Isa) -> Vec<(String, f64)> {
    let mut told = plan.clone();
    let ends = plan.ops.iter().enumerate().filter_map(|(i, p)| Some((i, output(&p.op)?)));
    told.residuals = ends.collect();
    let weights = Weights::new(Box::new(Made::new(plan, seed)));
    let want = reference::run(&told, &weights, &[tokens.to_vec()]).unwrap().remove(0).residuals;
    let mut found = Vec::new();
    for ((index, view), want) in told.residuals.iter().zip(want) {
        let mut part = plan.clone();
        part.ops.truncate(index + 1);
        let mut cpu = Cpu::new(&part, seed, 2, 4, isa);
        cpu.run(&[tokens.to_vec()], |_, _| usize::MAX);
        let mut worst = 0.0f64;
        for (row, want) in want.iter().enumerate() {
            let largest = want.iter().fold(1e-3f64, |m, x| m.max(x.abs()));
            for (a, b) in cpu.loaded.row(view, row).iter().zip(want) {
                worst = worst.max((f64::from(*a) - b).abs() / largest);
                assert!(a.is_finite());
            }
        }
        found.push((format!("{} {}", plan.ops[*index].scope, plan.ops[*index].op.name()), worst));
    }
    found
}

#[test]
fn every_op_agrees_with_the_reference() {
    for (config, seed) in [(small(), 1), (experts(), 2)] {
        let plan = plan_of(&config);
        for isa in [Isa::scalar(), Isa::best()] {
            for len in [1, 9, 131] {
                let tokens = Random(seed + len as u64).tokens(len, config.vocab_size);
                for (op, error) in errors(&plan, seed, &tokens, isa) {
                    assert!(error < 3e-5, "{op}, {len} tokens, {}: {error}", isa.name());
                }
            }
        }
    }
}

#[test]
fn a_wrong_op_is_far_from_the_reference() {
    let plan = plan_of(&small());
    let tokens = Random(5).tokens(90, 101);
    let weights = Weights::new(Box::new(Made::new(&plan, 1)));
    let want =
        reference::run(&plan, &weights, std::slice::from_ref(&tokens)).unwrap().remove(0).logits;
    let spoil: [&dyn Fn(&mut Op); 5] = [
        &|op| {
            if let Op::Attention { window: Some(w), .. } = op {
                *w += 1;
            }
        },
        &|op| {
            if let Op::Attention { softcap, .. } = op {
                *softcap = None;
            }
        },
        &|op| {
            if let Op::GatedAct { act, .. } = op {
                *act = Activation::Silu;
            }
        },
        &|op| {
            if let Op::RmsNorm { eps, .. } = op {
                *eps = 1e-2;
            }
        },
        &|_| {},
    ];
    for (i, spoil) in spoil.iter().enumerate() {
        let mut wrong = plan.clone();
        wrong.ops.iter_mut().for_each(|p| spoil(&mut p.op));
        let rows =
            Cpu::new(&wrong, 1, 1, 4, Isa::best()).run(std::slice::from_ref(&tokens), |_, _| 90);
        let pairs = rows[0].iter().flatten().zip(want.iter().flatten());
        let worst = pairs.map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
        let sound = i == 4;
        assert_eq!(worst < 3e-4, sound, "mistake {i}: {worst}");
    }
}

#[test]
fn every_chunking_batch_page_order_and_thread_count_gives_the_same_bits() {
    let kinds = [(small(), 3), (experts(), 4)];
    for ((config, seed), kv) in kinds.iter().flat_map(|k| [(k, KvType::F32), (k, KvType::F16)]) {
        let (seed, plan, mut random) = (*seed, plan_of(config), Random(*seed));
        let sequences: Vec<Vec<u32>> =
            [1, 130, 7, 64, 65].map(|len| random.tokens(len, config.vocab_size)).into();
        let mut one = Cpu::keeping(kv, &plan, seed, 1, 16, Isa::best());
        let alone = |s: &Vec<u32>| one.run(std::slice::from_ref(s), |_, _| usize::MAX).remove(0);
        let want: Vec<_> = sequences.iter().map(alone).collect();
        for (threads, page_size) in [(1, 1), (2, 3), (3, 16), (4, 200)] {
            let cpu = Cpu::keeping(kv, &plan, seed, threads, page_size, Isa::best());
            let mut cpu = cpu.scrambled(page_size as u64);
            for most in [1, 5, 33, 1000] {
                // Unequal chunks; now and then a sequence sits a step out.
                let found = cpu.run(&sequences, |_, _| random.below(most + 1));
                assert!(
                    found == want,
                    "{kv:?}: {threads} threads, pages of {page_size}, up to {most}"
                );
            }
        }
    }
}

/// Logits differ by what 11 bits of keys and values leave, and by something. A router is no measure:
/// a token between two experts goes to one or the other.
#[test]
fn a_cache_of_half_precision_is_as_close_as_its_bits() {
    let plan = plan_of(&small());
    let tokens = vec![Random(13).tokens(140, 101)];
    for isa in [Isa::scalar(), Isa::best()] {
        for page_size in [8, 3] {
            let all = |kv| Cpu::keeping(kv, &plan, 13, 1, page_size, isa).run(&tokens, |_, _| 100);
            let (exact, half) = (all(KvType::F32).concat(), all(KvType::F16).concat());
            let largest = exact.iter().flatten().fold(0.0f32, |most, x| most.max(x.abs()));
            let pairs = exact.iter().flatten().zip(half.iter().flatten());
            let errors = pairs.map(|(a, b)| f64::from((a - b).abs() / largest));
            let mean = errors.clone().sum::<f64>() / errors.count() as f64;
            println!("{}, pages of {page_size}: {mean:e}", isa.name());
            // 2⁻¹² of each key and value, in random directions.
            assert!((1e-6..f64::exp2(-12.0)).contains(&mean), "{}: {mean}", isa.name());
        }
    }
}

#[test]
fn long_contexts_cut_at_splits_give_the_same_bits() {
    let mut config = small();
    config.layers[0].window = Some(600);
    let plan = plan_of(&config);
    let mut random = Random(9);
    let sequences = vec![random.tokens(1290, 101), random.tokens(530, 101)];
    let mut one = Cpu::new(&plan, 7, 1, 16, Isa::best());
    let want = one.run(&sequences, |_, _| 700);
    let weights = Weights::new(Box::new(Made::new(&plan, 7)));
    let exact = reference::run(&plan, &weights, &sequences[1..]).unwrap().remove(0).logits;
    let pairs = exact.iter().flatten().zip(want[1].iter().flatten());
    let worst = pairs.map(|(a, b)| (f64::from(*b) - a).abs()).fold(0.0, f64::max);
    assert!(worst < 3e-4, "{worst}");
    for threads in [2, 4] {
        let mut many = Cpu::new(&plan, 7, threads, 3, Isa::best()).scrambled(1);
        // Prefill in pieces, then token by token over both splits' borders and the last tokens.
        let single = |done: usize| (508..516).contains(&done) || (1020..1028).contains(&done);
        let found = many.run(&sequences, |_, done| match done {
            _ if single(done) || done >= 1280 => 1,
            0..508 => 508 - done,
            516..1020 => 1020 - done,
            _ => 1280 - done,
        });
        assert!(found == want, "{threads} threads");
    }
}

#[test]
fn scalar_and_simd_agree_closely() {
    for (config, seed) in [(small(), 11), (experts(), 12)] {
        let plan = plan_of(&config);
        let tokens = vec![Random(seed).tokens(100, config.vocab_size)];
        let all = |isa| Cpu::new(&plan, seed, 1, 8, isa).run(&tokens, |_, _| 100).remove(0);
        for (a, b) in all(Isa::scalar()).iter().zip(all(Isa::best())) {
            for (a, b) in a.iter().zip(b) {
                assert!((a - b).abs() < 2e-4, "{a} {b}");
            }
        }
    }
}

#[test]
fn equal_router_scores_go_to_the_lower_experts() {
    let plan = plan_of(&experts());
    let mut made = Made::new(&plan, 21);
    // All router rows equal: every token must go to experts 0 and 1, half each.
    for (name, (shape, bytes)) in &mut made.0 {
        if name.ends_with("mlp.gate.weight") {
            let row = bytes[..shape[1] * 4].to_vec();
            *bytes = row.repeat(shape[0]);
        }
    }
    let weights = Weights::new(Box::new(made));
    let options = CpuOptions { threads: Some(2), ..CpuOptions::default() };
    let tokens = Random(1).tokens(20, 67);
    let want =
        reference::run(&plan, &weights, std::slice::from_ref(&tokens)).unwrap().remove(0).logits;
    let device = CpuDevice::new(options).unwrap();
    let loaded = device.load(&plan, &weights, &limits(16), &mut |_, _| {}).unwrap();
    let free = vec![1, 0];
    let mut cpu = Cpu { loaded, limits: limits(16), vocab: 67, free };
    let found = cpu.run(&[tokens], |_, _| 20).remove(0);
    for (a, b) in found.iter().flatten().zip(want.iter().flatten()) {
        assert!((f64::from(*a) - b).abs() < 3e-4, "{a} {b}");
    }
}

#[test]
fn a_copied_page_serves_as_the_original() {
    let plan = plan_of(&small());
    let tokens = Random(30).tokens(12, 101);
    let mut cpu = Cpu::new(&plan, 5, 2, 8, Isa::best());
    let want = cpu.run(std::slice::from_ref(&tokens), |_, _| 12).remove(0);
    // Pages 0 and 1 hold the sequence; go on from copies with the last two tokens again.
    cpu.loaded.copy_page(0, 6, 8).unwrap();
    cpu.loaded.copy_page(1, 3, 2).unwrap();
    let spans = [Span { start: 0, len: 2, past: 10, pages_start: 0 }];
    let batch = Batch { tokens: &tokens[10..], spans: &spans, pages: &[6, 3], logit_rows: &[0, 1] };
    cpu.loaded.step(&batch, &mut Recorder::off()).unwrap();
    assert!(cpu.loaded.logits() == want[10..].concat());
    let last = cpu.limits.pages as u32;
    assert!(cpu.loaded.copy_page(0, last, 1).is_err());
    assert!(cpu.loaded.copy_page(last, 0, 1).is_err());
    assert!(cpu.loaded.copy_page(0, 1, 9).is_err());
}

#[test]
fn every_op_is_recorded_once_and_in_order() {
    let plan = plan_of(&small());
    let mut cpu = Cpu::new(&plan, 5, 1, 8, Isa::best());
    let mut recorder = Recorder::with_capacity(1000);
    recorder.step = 17;
    let spans = [Span { start: 0, len: 2, past: 0, pages_start: 0 }];
    let batch = Batch { tokens: &[1, 2], spans: &spans, pages: &[0], logit_rows: &[1] };
    cpu.loaded.step(&batch, &mut recorder).unwrap();
    let ops: Vec<_> = recorder.records().filter(|r| r.event == Event::Op).collect();
    assert!(ops.iter().map(|r| r.id as usize).eq(0..plan.ops.len()));
    assert!(ops.iter().all(|r| r.arg == 17 && r.start_ns <= r.end_ns));
    let step: Vec<_> = recorder.records().filter(|r| r.event == Event::Step).collect();
    assert_eq!((step.len(), step[0].id, step[0].arg), (1, 17, 2));
    assert!(step[0].start_ns <= ops[0].start_ns && ops.last().unwrap().end_ns <= step[0].end_ns);
}

#[test]
fn bad_batches_and_plans_are_refused_without_harm() {
    let plan = plan_of(&small());
    let mut cpu = Cpu::new(&plan, 5, 1, 8, Isa::best());
    let spans = [Span { start: 0, len: 1, past: 0, pages_start: 0 }];
    let good = Batch { tokens: &[1], spans: &spans, pages: &[0], logit_rows: &[0] };
    cpu.loaded.step(&good, &mut Recorder::off()).unwrap();
    let want = cpu.loaded.logits().to_vec();
    for bad in [
        Batch { tokens: &[101], ..good },
        Batch { spans: &[], ..good },
        Batch { pages: &[], ..good },
        Batch { pages: &[100_000], ..good },
        Batch { logit_rows: &[1], ..good },
    ] {
        assert!(cpu.loaded.step(&bad, &mut Recorder::off()).is_err(), "{bad:?}");
    }
    assert_eq!(cpu.loaded.logits(), want);

    let weights = || Weights::new(Box::new(Made::new(&plan, 5)));
    let device = CpuDevice::new(CpuOptions { threads: Some(1), ..Default::default() }).unwrap();
    let load = |plan: &Plan| device.load(plan, &weights(), &limits(8), &mut |_, _| {}).err();
    let mut wide = plan.clone();
    wide.ops.iter_mut().for_each(|p| {
        if let Op::Linear { out, .. } = &mut p.op {
            out.offset += 1;
        }
    });
    assert_eq!(load(&wide).unwrap().kind, Kind::Unsupported);
    let mut missing = plan.clone();
    missing.matrices[1].parts = vec![Part { tensor: "none".into(), rows: plan.matrices[1].rows }];
    let error = load(&missing).unwrap();
    assert!(error.kind == Kind::File && error.message.contains("none"), "{error}");
}
