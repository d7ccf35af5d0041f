//! What the GPU device launches and copies: the kernels that were chosen, wgmma only where it was
//! seen to round as mma.sync does, packed blocks of a GGUF file, tokens sampled on the card.

#[path = "gpu/harness.rs"]
#[allow(dead_code)]
mod harness;
#[path = "gpu/spy.rs"]
mod spy;

use std::collections::BTreeMap;
use std::sync::Arc;

use pacer::device::cpu::{CpuDevice, CpuOptions};
use pacer::device::gpu::driver::Driver;
use pacer::device::gpu::driver::emulated::Emulated;
use pacer::device::gpu::{GpuDevice, GpuLoaded, GpuOptions};
use pacer::device::sampling::{LogitChange, Most, Row, RowSampling, Sampled, Sampling, Wanted};
use pacer::device::{Batch, Device, Limits, Loaded, Span};
use pacer::engine::Engine;
use pacer::engine::collect::Collected;
use pacer::engine::core::simple_request;
use pacer::engine::model::Model;
use pacer::engine::options::{EngineOptions, ModelOptions};
use pacer::engine::overlap::Mode;
use pacer::engine::params::SamplingParams;
use pacer::engine::request::GenerateRequest;
use pacer::engine::sampler::{Bans, SamplerScratch, SamplerState, argmax};
use pacer::model::cost::StepShape;
use pacer::profile::recorder::Recorder;
use pacer::text::grammar::GrammarSpec;
use pacer_emulator::Checks;
use pacer_emulator::host::Config;
use spy::Spy;

const LIMITS: Limits = Limits {
    step_tokens: 256,
    step_sequences: 4,
    logit_rows: 4,
    pages: 64,
    page_size: 8,
    context: 256,
};

fn emulated() -> Arc<dyn Driver> {
    Arc::new(Emulated::new(Config { checks: Checks::FAST, ..Config::default() }))
}

fn device(driver: &Arc<Spy>, graphs: Option<usize>) -> GpuDevice {
    let driver: Arc<dyn Driver> = Arc::clone(driver) as Arc<dyn Driver>;
    GpuDevice::new(driver, GpuOptions { graph_sizes: graphs, ..GpuOptions::default() }).unwrap()
}

fn load(model: &Model, driver: &Arc<Spy>, graphs: Option<usize>) -> GpuLoaded {
    let device = device(driver, graphs);
    device.load(&model.plan, &model.weights, &LIMITS, &mut |_, _| {}).unwrap()
}

/// A step over spans of those lengths, each from its sequence's start.
fn step(loaded: &mut GpuLoaded, lens: &[usize]) -> Vec<f32> {
    with_batch(lens, |batch| loaded.step(batch, &mut Recorder::off()).unwrap());
    loaded.logits().to_vec()
}

fn with_batch(lens: &[usize], run: impl FnOnce(&Batch)) {
    let (mut spans, mut pages, mut start) = (Vec::new(), Vec::new(), 0);
    for (i, len) in lens.iter().enumerate() {
        spans.push(Span { start, len: *len, past: 0, pages_start: pages.len() });
        pages.extend((0..len.div_ceil(8)).map(|p| (i * 16 + p) as u32));
        start += len;
    }
    let tokens: Vec<u32> = (0..start as u32).map(|t| t * 7 % 50 + 3).collect();
    let logit_rows: Vec<usize> = spans.iter().map(|s| s.start + s.len - 1).collect();
    run(&Batch { tokens: &tokens, spans: &spans, pages: &pages, logit_rows: &logit_rows });
}

#[test]
fn what_is_launched_is_what_was_chosen() {
    for name in ["llama", "mixtral"] {
        let model = harness::open(name);
        let driver = Spy::new(emulated(), false);
        let mut loaded = load(&model, &driver, Some(0));
        let list = device(&driver, Some(0)).choices(&model.plan, &model.weights, 256).unwrap();
        driver.take();
        step(&mut loaded, &[1]);
        let few = driver.take().0;
        step(&mut loaded, &[128, 100]);
        let many = driver.take().0;
        // Of each line the kernel for one row, and that for the largest number of rows tried.
        for line in &list {
            let kernels: Vec<&str> =
                line.split_whitespace().filter(|w| w.contains("16_")).collect();
            let clean = |k: &str| k.trim_end_matches(',').to_owned();
            let first = clean(kernels[0]);
            assert!(few.contains(&first), "{name}: {line}: one row launched {few:?}");
            let any = kernels.iter().any(|k| many.contains(&clean(k)));
            assert!(any, "{name}: {line}: many rows launched {many:?}");
        }
        let chosen = |launched: &String| list.iter().any(|line| line.contains(launched.as_str()));
        for kernel in few.iter().filter(|k| k.contains("gemm") || k.contains("attention")) {
            assert!(chosen(kernel), "{name}: {kernel} was launched and not recorded: {list:#?}");
        }
    }
}

#[test]
fn a_mixed_step_sends_each_span_to_its_kernel() {
    let model = harness::open("llama");
    let driver = Spy::new(emulated(), false);
    let mut loaded = load(&model, &driver, Some(0));
    driver.take();
    let mixed = step(&mut loaded, &[60, 1, 1]);
    let launched = driver.take().0;
    let count = |form: &str| launched.iter().filter(|k| k.contains(form)).count();
    let layers = model.plan.kv.layers;
    assert_eq!(count("attention_prefill"), layers);
    assert_eq!(count("attention_decode"), layers);
    let vocab = model.config.vocab_size;
    let alone = step(&mut loaded, &[60]);
    assert_eq!(mixed[..vocab], alone[..vocab]);
}

#[test]
fn wgmma_serves_only_where_it_gives_the_same_bits() {
    let model = harness::open("llama");
    let run = |spoil: bool| {
        let driver = Spy::new(emulated(), spoil);
        let mut loaded = load(&model, &driver, Some(0));
        driver.take();
        let logits = step(&mut loaded, &[128, 128]);
        let notes = loaded.notes().join("; ");
        (logits, loaded.card().wgmma_is_exact, notes, driver.take().0)
    };
    let (exact, allowed, note, _) = run(false);
    assert!(allowed && note.contains("wgmma gives the bits of mma.sync"), "{note}");
    let (without, allowed, note, launched) = run(true);
    assert!(!allowed && note.contains("of 25920 numbers differ"), "{note}");
    assert!(launched.iter().all(|k| !k.contains("wgmma")), "{launched:?}");
    assert_eq!(exact, without, "the same bits either way");
}

#[test]
fn norms_and_sums_are_fused() {
    let launches = |name: &str| {
        let model = harness::open(name);
        let driver = Spy::new(emulated(), false);
        let mut loaded = load(&model, &driver, Some(0));
        driver.take();
        step(&mut loaded, &[1]);
        (driver.take().0, model.plan.kv.layers)
    };
    let (llama, layers) = launches("llama");
    // Angles, embedding; norm, qkv, rope + kv, attention, o + x, norm, gate·up, down + x in each
    // layer; gather, norm, logits.
    assert_eq!(llama.len(), 2 + 8 * layers + 3, "{llama:?}");
    let (qwen3, layers) = launches("qwen3");
    assert_eq!(qwen3.iter().filter(|k| k.ends_with("rope_norm")).count(), layers);
    assert_eq!(qwen3.len(), 2 + 8 * layers + 3, "{qwen3:?}");
}

/// What the engine's sampler chooses from a row.
fn on_the_host(row: &[f32], r: &RowSampling) -> u32 {
    let params = SamplingParams {
        temperature: r.temperature,
        top_k: r.top_k as usize,
        top_p: r.top_p,
        min_p: r.min_p,
        ..SamplingParams::default()
    };
    let mut state = SamplerState::default();
    (0..r.position).for_each(|_| state.accept(0, &params));
    let mut scratch = SamplerScratch::default();
    state.sample(row, &params, (r.seed, r.choice), &Bans::default(), &mut scratch)
}

#[test]
fn the_card_samples_as_the_engine_does() {
    let model = harness::open("llama");
    let driver = Spy::new(emulated(), false);
    let mut loaded = load(&model, &driver, None);
    assert_eq!(loaded.samples(), Some(Most { top: 20, changes: 1024 }));
    let vocab = model.config.vocab_size;
    let logits = step(&mut loaded, &[1, 1, 1]);
    let rows: Vec<&[f32]> = logits.chunks(vocab).collect();
    let limits =
        [(0.0, 0, 1.0, 0.0), (1.0, 0, 1.0, 0.0), (0.7, 40, 0.9, 0.0), (1.5, 0, 0.95, 0.02)];
    let mut distinct = std::collections::BTreeSet::new();
    for draw in 0..24u32 {
        let (temperature, top_k, top_p, min_p) = limits[draw as usize % 4];
        let (seed, choice) = (0x1234_5678_9abc_def0 ^ u64::from(draw), draw % 3);
        let how = RowSampling { temperature, top_k, top_p, min_p, ..RowSampling::default() };
        let how = RowSampling { seed, choice, position: draw, ..how };
        let top = (draw % 2 == 0).then_some(5);
        let (settings, mut out) =
            ([Row { wanted: Wanted::Token(how), top }; 3], Sampled::default());
        let sampling = Sampling { rows: &settings, changes: &[] };
        driver.take();
        with_batch(&[1, 1, 1], |batch| {
            loaded.step_sampled(batch, &sampling, &mut out, &mut Recorder::off()).unwrap();
        });
        // Tokens alone, or with log-probabilities and best tokens: never the logits.
        assert_eq!(driver.take().1, if top.is_some() { 3 * 4 * (2 + 2 * 5) } else { 3 * 4 });
        for (i, row) in rows.iter().enumerate() {
            assert_eq!(out.tokens[i], on_the_host(row, &how), "draw {draw}, row {i}");
            distinct.insert(out.tokens[i]);
            let Some(top) = top else { continue };
            let host = pacer::engine::logprobs::token_logprob(row, out.tokens[i], top);
            assert!((host.logprob - out.logprobs[i]).abs() < 1e-4);
            for (ours, theirs) in out.top[i * top..][..top].iter().zip(&host.top) {
                assert_eq!(ours.0, theirs.0);
                assert!((ours.1 - theirs.1).abs() < 1e-4);
            }
            assert_eq!(host.top[0].0, argmax(row));
        }
    }
    assert!(distinct.len() > 8, "{distinct:?}");
    let sampling = Sampling { rows: &[], changes: &[] };
    with_batch(&[1], |batch| {
        let out = &mut Sampled::default();
        assert!(loaded.step_sampled(batch, &sampling, out, &mut Recorder::off()).is_err());
    });
}

/// A prompt's token is scored, a row comes whole, a bias moves one row alone and no log-probability.
#[test]
fn rows_of_a_step_get_what_each_wants() {
    let model = harness::open("llama");
    let driver = Spy::new(emulated(), false);
    let mut loaded = load(&model, &driver, None);
    let vocab = model.config.vocab_size;
    let logits = step(&mut loaded, &[1, 1, 1, 1]);
    let rows: Vec<&[f32]> = logits.chunks(vocab).collect();
    let how = RowSampling { changes: 2, repetition: 1.5, presence: 0.5, ..RowSampling::default() };
    let best = argmax(rows[2]);
    let change = |token, bias, count| LogitChange { token, bias, count, forbidden: false };
    let changes = [change(best, 0.0, 3), change(5, 90.0, 0)];
    let settings = [
        Row { wanted: Wanted::Given(7), top: Some(0) },
        Row::LOGITS,
        Row { wanted: Wanted::Token(how), top: Some(2) },
        Row { wanted: Wanted::Token(RowSampling::default()), top: None },
    ];
    let sampling = Sampling { rows: &settings, changes: &changes };
    let mut out = Sampled::default();
    driver.take();
    with_batch(&[1, 1, 1, 1], |batch| {
        loaded.step_sampled(batch, &sampling, &mut out, &mut Recorder::off()).unwrap();
    });
    assert_eq!(out.tokens, [7, 0, 5, argmax(rows[3])]);
    assert_eq!(loaded.logits(), rows[1]);
    assert_eq!(driver.take().1, vocab * 4 + 4 * 4 * (2 + 2 * 2));
    let scored = |row: usize, token, top| {
        let host = pacer::engine::logprobs::token_logprob(rows[row], token, top);
        assert!((host.logprob - out.logprobs[row]).abs() < 1e-4, "row {row}");
        let tokens = |list: &[(u32, f32)]| list.iter().map(|t| t.0).collect::<Vec<_>>();
        assert_eq!(tokens(out.best(row, top)), tokens(&host.top), "row {row}");
    };
    scored(0, 7, 0);
    scored(2, 5, 2);
    assert!(out.logprobs[1].is_nan() && out.best(3, 2).is_empty());
    let counted = Sampling { rows: &settings, changes: &changes[..1] };
    with_batch(&[1, 1, 1, 1], |batch| {
        let refused = loaded.step_sampled(batch, &counted, &mut out, &mut Recorder::off());
        assert!(refused.unwrap_err().message.contains("1 changes of logits for 2"));
    });
}

/// Greedy and scored, drawn, drawn with limits and penalties, and one that a grammar binds.
fn four_requests() -> Vec<GenerateRequest> {
    let each = |id: u64| {
        let mut params = SamplingParams {
            max_new_tokens: Some(6),
            temperature: if id == 0 { 0.0 } else { 0.9 },
            seed: Some(40 + id),
            ignore_eos: true,
            ..SamplingParams::default()
        };
        match id {
            2 => {
                (params.top_k, params.top_p, params.frequency_penalty) = (50, 0.9, 0.8);
                params.logit_bias = vec![(30, 1.5)];
            }
            3 => params.grammar = Some(GrammarSpec::Regex("[a-z ]{4,9}".into())),
            _ => {}
        }
        let prompt = (0..7 + id as u32).map(|t| t * 11 % 50 + 3 + id as u32).collect();
        let mut made = simple_request(id, prompt, Arc::new(params));
        (made.logprobs.output, made.logprobs.top) = (id != 1, 2 * usize::from(id == 0));
        made.logprobs.prompt_start = (id == 0).then_some(0);
        made
    };
    (0..4).map(each).collect()
}

/// What each request got, and the bytes that came to the host.
fn served(
    requests: &[GenerateRequest],
    options: &EngineOptions,
    mode: Mode,
) -> (BTreeMap<u64, Collected>, usize) {
    let driver = Spy::new(emulated(), false);
    let model = harness::open("llama");
    let mut engine =
        Engine::new(model, &device(&driver, None), options, &mut |_, _| {}).expect("it fits");
    engine.overlap(mode, || {}).unwrap();
    driver.take();
    let (mut found, mut updates) = (BTreeMap::<u64, Collected>::new(), Vec::new());
    for request in requests {
        engine.submit(request).unwrap();
    }
    while !engine.idle() {
        engine.advance(true, &mut updates).unwrap();
        updates.drain(..).for_each(|u| found.entry(u.id).or_default().add(u));
    }
    (found, driver.take().1)
}

#[test]
fn an_engine_brings_tokens_back_and_not_logits() {
    let requests = four_requests();
    let options = |running, device_sampling| EngineOptions {
        total_tokens: Some(512),
        max_running: Some(running),
        step_tokens: Some(16),
        device_sampling,
        ..EngineOptions::default()
    };
    let (host, all) = served(&requests, &options(4, false), Mode::Off);
    let (found, some) = served(&requests, &options(4, true), Mode::Off);
    let vocab = harness::open("llama").config.vocab_size;
    let bound = host[&3].ids.len() * vocab * 4;
    assert!((bound..bound + 2048).contains(&some), "{some} bytes for {bound} bound by a grammar");
    assert!(all > 3 * some, "{all} bytes with sampling on the host, {some} on the card");
    for (id, found) in &found {
        let host = &host[id];
        assert_eq!((&found.ids, &found.text), (&host.ids, &host.text), "request {id}");
        assert_eq!(found.finished, host.finished, "request {id}");
        let scores = |c: &Collected| [c.prompt_logprobs.clone(), c.logprobs.clone()].concat();
        let (ours, theirs) = (scores(found), scores(host));
        assert_eq!(ours.len(), theirs.len(), "request {id}");
        for (a, b) in ours.iter().zip(&theirs) {
            assert!((a.logprob - b.logprob).abs() < 1e-4, "request {id}: {a:?} {b:?}");
            let tokens = |list: &[(u32, f32)]| list.iter().map(|t| t.0).collect::<Vec<_>>();
            assert_eq!(tokens(&a.top), tokens(&b.top), "request {id}");
        }
    }
    // The same bits in other company and with the next step under way.
    let (other, _) = served(&requests[..3], &options(2, true), Mode::Always);
    for (id, other) in &other {
        assert_eq!(other.ids, found[id].ids, "request {id}");
        assert_eq!(other.logprobs, found[id].logprobs, "request {id}");
        assert_eq!(other.prompt_logprobs, found[id].prompt_logprobs, "request {id}");
    }
}

#[test]
fn declared_traffic_is_what_the_machine_counts() {
    let overrides = serde_json::json!({ "num_hidden_layers": 1, "vocab_size": 4096 });
    let options = ModelOptions { overrides: Some(overrides), ..ModelOptions::default() };
    let model = Model::open(&options).unwrap();
    let config = Config { checks: Checks::FAST, ..Config::default() };
    let driver = Spy::counting(Emulated::new(config));
    let mut loaded = load(&model, &driver, Some(0));
    driver.take_moved();
    driver.take();
    let (sequences, past) = (2, 200);
    let spans: Vec<Span> =
        (0..sequences).map(|i| Span { start: i, len: 1, past, pages_start: i * 26 }).collect();
    let pages: Vec<u32> = (0..sequences * 26).map(|p| p as u32).collect();
    let batch = Batch { tokens: &[5, 900], spans: &spans, pages: &pages, logit_rows: &[0, 1] };
    loaded.step(&batch, &mut Recorder::off()).unwrap();
    let (names, moved) = (driver.take().0, driver.take_moved());
    let declared = loaded.declared(&StepShape::uniform(sequences, past, 1));
    // The first launch makes the angles, which are no op's.
    assert_eq!(names.len(), declared.len() + 1, "{names:?}");
    for ((name, counted), (op, least)) in names.iter().zip(&moved).skip(1).zip(&declared) {
        let planned = &model.plan.ops[*op];
        let place = format!("{} {name}: counted {counted}, declared {least}", planned.scope);
        println!("{place}");
        // Sectors of 32 bytes: lists of a few words fill none of theirs.
        assert!(*counted as f64 <= 1.05 * *least as f64 + 256.0, "{place}");
        assert!(*counted as f64 >= 0.9 * *least as f64, "{place}");
    }
    prefill_attention_moves_what_it_declares(&mut loaded, &driver);
}

/// A prompt whose rows are one tile reads K and V once; longer ones read them once a tile, which
/// `pacer kernels check` holds.
fn prefill_attention_moves_what_it_declares(loaded: &mut GpuLoaded, driver: &Spy) {
    let tokens = 60;
    let prompt: Vec<u32> = (0..tokens as u32).collect();
    let spans = [Span { start: 0, len: tokens, past: 0, pages_start: 0 }];
    let pages: Vec<u32> = (0..8).collect();
    let logit_rows = [tokens - 1];
    let batch = Batch { tokens: &prompt, spans: &spans, pages: &pages, logit_rows: &logit_rows };
    loaded.step(&batch, &mut Recorder::off()).unwrap();
    let (names, moved) = (driver.take().0, driver.take_moved());
    let declared = loaded.declared(&StepShape::uniform(1, 0, tokens));
    let mut found = names.iter().zip(&moved).skip(1).zip(&declared);
    let ((name, counted), (_, least)) =
        found.find(|((name, _), _)| name.contains("attention_prefill")).expect("a launch");
    // Beside it each of its warps reads the lists of spans, tiles and pages.
    assert!(*counted as f64 <= 1.05 * *least as f64 + 4096.0, "{name}: {counted} of {least}");
    assert!(*counted as f64 >= 0.9 * *least as f64, "{name}: {counted} of {least}");
}

/// Greedy tokens, and by how much each was the best. With `forced`, each step goes on from these.
fn greedy(
    loaded: &mut dyn Loaded,
    prompt: &[u32],
    count: usize,
    forced: Option<&[(u32, f32)]>,
) -> Vec<(u32, f32)> {
    let pages: Vec<u32> = (0..LIMITS.pages as u32).collect();
    let (mut past, mut tokens, mut found) = (0, prompt.to_vec(), Vec::new());
    for step in 0..count {
        let spans = [Span { start: 0, len: tokens.len(), past, pages_start: 0 }];
        let rows = [tokens.len() - 1];
        let batch = Batch { tokens: &tokens, spans: &spans, pages: &pages, logit_rows: &rows };
        loaded.step(&batch, &mut Recorder::off()).unwrap();
        let row = loaded.logits();
        let best = argmax(row);
        let others = row.iter().enumerate().filter(|(id, _)| *id != best as usize);
        let second = others.map(|(_, x)| *x).fold(f32::MIN, f32::max);
        found.push((best, row[best as usize] - second));
        past += tokens.len();
        tokens = vec![forced.map_or(best, |f| f[step].0)];
    }
    found
}

/// Differences of logits below this may fall either way: bfloat16 keeps 8 bits.
const MARGIN: f32 = 0.5;

#[test]
#[ignore = "takes minutes and a real model, PACER_SMOLLM2"]
fn a_real_model_says_what_the_cpu_says() {
    let path = std::env::var("PACER_SMOLLM2").expect("PACER_SMOLLM2 names the GGUF file");
    let model = Model::open(&ModelOptions { path: Some(path), ..ModelOptions::default() }).unwrap();
    let tokenizer = model.tokenizer.as_ref().unwrap();
    let prompt = tokenizer
        .encode("The capital of France is Paris, and the capital of Italy is", true)
        .unwrap();
    let cpu = CpuDevice::new(CpuOptions::default()).unwrap();
    let mut cpu = cpu.prepare(&model.plan, &model.weights, &LIMITS, &mut |_, _| {}).unwrap();
    let wanted = greedy(cpu.as_mut(), &prompt, 16, None);
    // The steps that have a clear best; the others may fall either way, so each goes on from the
    // CPU's token.
    let clear = |i: &usize| wanted[*i].1 >= MARGIN;
    assert!((0..16).filter(clear).count() >= 12, "too few clear tokens: {wanted:?}");
    println!("cpu:     {wanted:.2?}");
    let ways = std::env::var("PACER_WAYS").unwrap_or_else(|_| "packed widened".into());
    for way in ways.split(' ') {
        let begin = std::time::Instant::now();
        let options = GpuOptions { packed: way == "packed", ..GpuOptions::default() };
        let device = GpuDevice::new(emulated(), options).unwrap();
        let mut loaded = device.load(&model.plan, &model.weights, &LIMITS, &mut |_, _| {}).unwrap();
        let found = greedy(&mut loaded, &prompt, 16, Some(&wanted));
        let seconds = begin.elapsed().as_secs_f64();
        println!("{way}: {found:.2?}");
        println!("{way}: {:?}, {:?}, {seconds:.0} s", loaded.memory(), loaded.notes());
        for i in (0..16).filter(clear) {
            assert_eq!(found[i].0, wanted[i].0, "{way}: token {i}");
        }
    }
}
