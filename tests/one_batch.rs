//! `bench-one-batch` on a fake subject and a fake clock: every figure is known beforehand.

use std::cell::Cell;

use pacer::bench::ceilings::Ceilings;
use pacer::bench::one_batch::{Achieved, Correctness, OneBatch, SubjectInfo};
use pacer::commands::args::{Parsed, parse};
use pacer::commands::bench_one_batch::BenchOneBatch;
use pacer::error::{Error, Kind, Result};
use pacer::measure::clock::FakeClock;
use pacer::measure::interrupt::Interrupt;
use pacer::model::cost::Storage;
use pacer::model::plan::*;
use pacer::profile::recorder::{Event, Recorder};
use pacer::types::TokenId;
use serde_json::Value;

const MS: u64 = 1_000_000;

/// A subject whose prefill takes 2 ms a prompt token and whose decode step i takes 10 + i ms, and
/// 8 ms back to back.
struct Fake {
    clock: FakeClock,
    plan: Plan,
    recorder: Recorder,
    batch: usize,
    input: usize,
    output: usize,
    prefills: Vec<Vec<Vec<TokenId>>>,
    can_rewind: bool,
    /// Generates one token fewer than asked for.
    lazy: bool,
    /// Extra milliseconds of each further pass.
    slower_ms: u64,
    /// Asks for an interruption in this prefill.
    stop_at: Option<(usize, Interrupt)>,
    capacity: Cell<usize>,
}

fn plan() -> Plan {
    let view = View { buffer: 0, offset: 0, width: 4 };
    let linear = |layer: usize| PlannedOp {
        op: Op::Linear { x: view, matrix: 0, bias: None, out: view },
        scope: format!("model.layers.{layer}.mlp"),
        layer: Some(layer),
    };
    let add =
        PlannedOp { op: Op::Add { x: view, y: view }, scope: "model.norm".into(), layer: None };
    Plan {
        ops: vec![linear(0), linear(1), add],
        buffers: vec![Buffer { name: "x", rows: Rows::Tokens, width: 4 }],
        matrices: vec![Matrix { name: "m".into(), parts: vec![], rows: 4, cols: 4 }],
        vectors: vec![],
        ropes: vec![],
        kv: KvShape { layers: 2, kv_heads: 1, head_dim: 4 },
        vocab_size: 11,
        logits: view,
        residuals: vec![],
    }
}

impl Fake {
    fn new(clock: &FakeClock) -> Self {
        Fake {
            clock: clock.clone(),
            plan: plan(),
            recorder: Recorder::off(),
            batch: 0,
            input: 0,
            output: 0,
            prefills: Vec::new(),
            can_rewind: true,
            lazy: false,
            slower_ms: 0,
            stop_at: None,
            capacity: Cell::new(1000),
        }
    }

    /// Lets `ms` pass; records ops 0, 1, 2 in proportion 5 : 3 : 2.
    fn take(&mut self, ms: u64) {
        self.clock.advance(ms * MS);
        let unit = ms * MS / 10;
        self.recorder.record(Event::Op, 0, 0, 0, 5 * unit);
        self.recorder.record(Event::Op, 1, 0, 5 * unit, 8 * unit);
        self.recorder.record(Event::Op, 2, 0, 8 * unit, 10 * unit);
    }
}

impl OneBatch for Fake {
    fn describe(&self) -> SubjectInfo {
        SubjectInfo {
            device_kind: "cpu".into(),
            model: "fake".into(),
            model_digest: "abc".into(),
            dtype: "float32".into(),
            threads: 3,
            vocab_size: 11,
            context: 500,
            ..SubjectInfo::default()
        }
    }

    fn capacity_tokens(&self) -> usize {
        self.capacity.get()
    }

    fn clear(&mut self) -> Result<()> {
        (self.batch, self.input, self.output) = (0, 0, 0);
        Ok(())
    }

    fn prefill(&mut self, ids: &[Vec<TokenId>]) -> Result<()> {
        assert_eq!(self.batch, 0, "cleared before each pass");
        self.prefills.push(ids.to_vec());
        self.batch = ids.len();
        self.input = ids.iter().map(Vec::len).sum();
        self.output = self.batch;
        let extra = self.slower_ms * self.prefills.len() as u64;
        self.take(2 * self.input as u64 + extra);
        if let Some((n, interrupt)) = &self.stop_at
            && *n == self.prefills.len()
        {
            interrupt.ask();
        }
        Ok(())
    }

    fn decode_step(&mut self) -> Result<()> {
        let step = (self.output / self.batch - 1) as u64;
        self.take(10 + step);
        self.output += self.batch;
        Ok(())
    }

    fn decode_run(&mut self, steps: usize) -> Result<Vec<u64>> {
        self.clock.advance(8 * MS * steps as u64);
        Ok(vec![8 * MS; steps])
    }

    fn rewind(&mut self) -> Result<bool> {
        Ok(self.can_rewind)
    }

    fn achieved(&self) -> Achieved {
        let output = (self.output - usize::from(self.lazy)) as u64;
        Achieved { input: self.input as u64, output }
    }

    fn plan(&self) -> Option<&Plan> {
        Some(&self.plan)
    }

    fn storage(&self) -> Storage<'_> {
        Storage { matrix_bytes: &|_| 64, kv_element: 4, activation_element: 4 }
    }

    fn swap_recorder(&mut self, recorder: Recorder) -> Recorder {
        std::mem::replace(&mut self.recorder, recorder)
    }

    fn tokenize(&self, text: &str) -> Result<Vec<TokenId>> {
        Ok(text.split(' ').map(|w| w.len() as TokenId).collect())
    }

    fn correctness(&mut self, p: &[String], cut: usize, output: usize) -> Result<Correctness> {
        let compared = format!("{} prompts, cut {cut}, output {output}", p.len());
        Ok(Correctness { lines: p.to_vec(), compared, mismatches: u64::from(self.lazy) })
    }
}

fn flags(words: &str) -> BenchOneBatch {
    let words: Vec<String> = words.split_whitespace().map(String::from).collect();
    let Ok(Parsed::Args(mut flags)) = parse::<BenchOneBatch>("bench-one-batch", &words) else {
        panic!("{words:?} should parse")
    };
    flags.fill_lists();
    if !words.iter().any(|w| w.starts_with("--result-filename")) {
        flags.result_filename.clear();
    }
    flags
}

/// 1 GB/s and 1 GFLOP/s, so that a megabyte or a mega-operation takes a millisecond.
fn ceilings() -> Ceilings {
    Ceilings {
        cpu: "Fake".into(),
        threads: 3,
        isa: "none".into(),
        bytes_per_s: 1e6,
        flops_per_s: 1e5,
        int8_ops_per_s: None,
        fork_join_s: None,
        date: "2026-01-01T00:00:00Z".into(),
    }
}

fn bench(fake: &mut Fake, words: &str) -> (Vec<String>, Result<()>) {
    let interrupt = fake.stop_at.as_ref().map_or_else(Interrupt::never, |s| s.1.clone());
    let clock = fake.clock.clone();
    let mut lines = Vec::new();
    let outcome = flags(words).measure(fake, &clock, &interrupt, Ok(ceilings()), &mut |line| {
        lines.push(line.to_string());
        Ok(())
    });
    (lines, outcome)
}

fn rows(fake: &mut Fake, words: &str) -> Vec<Value> {
    let (lines, outcome) = bench(fake, &format!("{words} --json"));
    outcome.unwrap();
    lines.iter().map(|l| serde_json::from_str(l).unwrap()).collect()
}

fn close(value: &Value, want: f64) {
    let got = value.as_f64().unwrap_or(f64::NAN);
    assert!((got - want).abs() <= 1e-9 * want.abs(), "{got} instead of {want}");
}

#[test]
fn every_figure_of_a_row() {
    let clock = FakeClock::new();
    let mut fake = Fake::new(&clock);
    let row = rows(&mut fake, "--batch-size 2 --input-len 5 --output-len 4 --run-name r").remove(0);
    let keys: Vec<&str> = row.as_object().unwrap().keys().map(String::as_str).collect();
    let sglang = [
        "run_name",
        "batch_size",
        "input_len",
        "output_len",
        "prefill_latency",
        "prefill_throughput",
        "median_decode_latency",
        "median_decode_throughput",
        "total_latency",
        "overall_throughput",
    ];
    assert_eq!(keys[..10], sglang);
    assert_eq!(row["run_name"], "r");
    // Prefill: 10 tokens at 2 ms. Decode: steps of 10, 11, 12 ms.
    close(&row["prefill_latency"], 0.020);
    close(&row["prefill_throughput"], 10.0 / 0.020);
    close(&row["median_decode_latency"], 0.011);
    close(&row["median_decode_throughput"], 2.0 / 0.011);
    close(&row["total_latency"], 0.053);
    close(&row["overall_throughput"], 18.0 / 0.053);
    close(&row["decode_synchronised"]["p90_s"], 0.012);
    close(&row["decode_back_to_back"]["per_step_s"]["median"], 0.008);
    close(&row["decode_back_to_back"]["throughput"], 250.0);
    close(&row["prefill_s"]["ci95"]["coverage"], 0.9375);
    assert_eq!(row["prefill_samples_s"].as_array().unwrap().len(), 5);
    assert_eq!(row["decode_synchronised"]["samples_s"][4].as_array().unwrap().len(), 3);
    assert_eq!(row["achieved_output_tokens"], 8);
    assert_eq!(row["model_digest"], "abc");
    assert_eq!(row["threads"], 3);
    assert!(row["date"].as_str().unwrap().ends_with('Z'));
}

#[test]
fn one_pass_is_what_sglang_measures() {
    let clock = FakeClock::new();
    let words = "--input-len 5 --output-len 4 --repeat 1 --warmup 0";
    let row = rows(&mut Fake::new(&clock), words).remove(0);
    close(&row["prefill_latency"], 0.010);
    close(&row["median_decode_latency"], 0.011);
    // Steps of 10, 11, 12 ms: ranks 1.8 and 1.98 of 0 to 2.
    close(&row["decode_synchronised"]["p90_s"], 0.0118);
    close(&row["decode_synchronised"]["p99_s"], 0.01198);
    close(&row["prefill_s"]["ci95"]["coverage"], 0.0);
    let spread = &row["validity"]["checks"][1];
    assert_eq!((&spread["name"], &spread["figure"]), (&"prefill_spread".into(), &Value::Null));
    assert_eq!(spread["status"], "warn");
}

#[test]
fn utilisation_and_ops() {
    let clock = FakeClock::new();
    let row = rows(&mut Fake::new(&clock), "--batch-size 2 --input-len 5 --output-len 4").remove(0);
    // Two products of 10 rows with a 4 × 4 matrix, one addition of 10 rows of 4.
    let flops = 2.0 * (2.0 * 10.0 * 16.0) + 40.0;
    // Each product reads 64 bytes of weights and 160 + 160 of activations; the addition 3 · 160.
    let bytes = 2.0 * (64.0 + 320.0) + 480.0;
    close(&row["prefill_cost"]["flops"], flops);
    close(&row["prefill_use"]["mfu"], flops / 1e5 / 0.020);
    close(&row["prefill_use"]["mbu"], bytes / 1e6 / 0.020);
    close(&row["prefill_use"]["share_of_ceiling"], flops / 1e5 / 0.020);
    assert_eq!(row["prefill_use"]["bound"], "compute");
    // Decode: three steps of 2 rows, at the median of 11 ms.
    let step = 2.0 * (2.0 * 2.0 * 16.0) + 8.0;
    close(&row["decode_cost"]["flops"], 3.0 * step);
    close(&row["decode_use"]["mfu"], 3.0 * step / 1e5 / 0.033);
    close(&row["decode_back_to_back_use"]["mfu"], 3.0 * step / 1e5 / 0.024);
    let slowest = &row["prefill_ops"]["slowest"];
    assert_eq!(slowest[0]["scope"], "model.layers.*.mlp");
    assert_eq!(slowest[0]["count"], 2);
    close(&slowest[0]["share"], 0.8);
    close(&slowest[1]["total_s"], 0.004);
    assert_eq!(row["decode_ops"]["slowest"][0]["count"], 6);
}

#[test]
fn printed_lines_are_sglangs_then_ours() {
    let clock = FakeClock::new();
    let words = "--batch-size 2 --input-len 5 --output-len 8 --log-decode-step 3";
    let (lines, outcome) = bench(&mut Fake::new(&clock), words);
    outcome.unwrap();
    assert!(lines[0].ends_with("max_total_num_tokens=1000"), "{}", lines[0]);
    assert_eq!(lines[1..3], ["Warmup ...", "Benchmark ..."]);
    let decode = |i: usize| {
        let s = (10 + i) as f64 / 1e3;
        format!("Decode {i}. Batch size: 2, latency: {s:.5} s, throughput: {:9.2} token/s", 2.0 / s)
    };
    assert_eq!(lines[3], "Prefill. latency: 0.02000 s, throughput:    500.00 token/s");
    for i in 0..5 {
        assert_eq!(lines[4 + i], decode(i));
    }
    assert_eq!(lines[9], decode(6), "step 6 by --log-decode-step 3, step 5 left out");
    let median = "Decode.  median latency: 0.01300 s, median throughput:    153.85 token/s";
    assert_eq!(lines[10], median);
    assert_eq!(lines[11], "Total. latency:  0.111 s, throughput:    234.23 token/s");
    assert!(lines[12].contains("batch 2, input 5, output 8: 5 measured passes after 1 warm-up"));
    assert!(lines.iter().any(|l| l.contains("decode, back to back   8.000 ms [8.000, 8.000]")));
    assert!(lines.last().unwrap().contains("validity: "));
}

#[test]
fn one_output_token_has_no_decode() {
    let clock = FakeClock::new();
    let row = rows(&mut Fake::new(&clock), "--input-len 5 --output-len 1").remove(0);
    assert!(row.get("median_decode_latency").is_none());
    assert_eq!(row["decode_synchronised"], Value::Null);
    assert_eq!(row["decode_back_to_back"], Value::Null);
    close(&row["total_latency"], 0.010);
}

#[test]
fn sweep_order_skips_and_warm_up() {
    let clock = FakeClock::new();
    let mut fake = Fake::new(&clock);
    fake.capacity.set(60);
    let words = "--batch-size 1 4 --input-len 4 10 --output-len 2,6 --repeat 2 --warmup 3";
    let (lines, outcome) = bench(&mut fake, words);
    outcome.unwrap();
    let skipped: Vec<&String> = lines.iter().filter(|l| l.starts_with("skipping")).collect();
    assert_eq!(skipped, ["skipping (4, 10, 6) due to max batch size limit"]);
    // Seven shapes, each with 3 warm-ups, 2 passes and one recorded pass.
    assert_eq!(fake.prefills.len(), 7 * 6);
    let shapes: Vec<(usize, usize)> =
        fake.prefills.iter().step_by(6).map(|p| (p.len(), p[0].len())).collect();
    assert_eq!(shapes, [(1, 4), (1, 4), (1, 10), (1, 10), (4, 4), (4, 4), (4, 10)]);
    assert!(fake.prefills.iter().flatten().flatten().all(|&t| t < 11), "inside the vocabulary");
}

#[test]
fn without_rewind_the_prompts_run_again() {
    let clock = FakeClock::new();
    let mut fake = Fake::new(&clock);
    fake.can_rewind = false;
    rows(&mut fake, "--input-len 4 --output-len 2 --repeat 3 --warmup 0");
    assert_eq!(fake.prefills.len(), 3 + 3 + 1);
}

#[test]
fn nothing_that_fits_is_an_error() {
    let clock = FakeClock::new();
    let (_, outcome) = bench(&mut Fake::new(&clock), "--batch-size 9999");
    assert_eq!(outcome.unwrap_err().kind, Kind::Limit);
    let (lines, outcome) = bench(&mut Fake::new(&clock), "--input-len 600");
    assert!(outcome.is_err());
    assert!(lines.iter().any(|l| l.contains("616 tokens exceed the context of 500")), "{lines:?}");
}

#[test]
fn strict_fails_on_lengths_and_on_spread() {
    let failed = |change: fn(&mut Fake)| -> Error {
        let clock = FakeClock::new();
        let mut fake = Fake::new(&clock);
        change(&mut fake);
        let words = "--input-len 4 --output-len 2 --strict";
        let error = bench(&mut fake, words).1.unwrap_err();
        assert_eq!(error.exit_code(), 4);
        error
    };
    let short = failed(|f| f.lazy = true);
    assert!(short.message.contains("output 1 of 2 tokens"), "{short}");
    let slowing = failed(|f| f.slower_ms = 20);
    assert!(slowing.message.contains("prefill_spread"), "{slowing}");
    let clock = FakeClock::new();
    let mut fake = Fake::new(&clock);
    fake.lazy = true;
    assert!(bench(&mut fake, "--input-len 4 --output-len 2").1.is_ok(), "only with --strict");
}

#[test]
fn an_interruption_keeps_what_is_measured() {
    let path = std::env::temp_dir().join(format!("pacer-interrupt-{}", std::process::id()));
    let clock = FakeClock::new();
    let mut fake = Fake::new(&clock);
    // Shape one: warm-up, 5 passes, recorded pass = 7 prefills; then warm-up and 2 whole passes.
    fake.stop_at = Some((7 + 1 + 3, Interrupt::never()));
    let words = "--input-len 4 8 16 --output-len 3 --result-filename";
    let error = bench(&mut fake, &format!("{words}={}", path.display())).1.unwrap_err();
    assert_eq!(error.exit_code(), 130);
    assert!(error.message.contains("2 cases reported, 1 not begun"), "{error}");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let rows: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0]["interrupted"], false);
    assert_eq!(rows[1]["interrupted"], true);
    assert_eq!(rows[1]["prefill_samples_s"].as_array().unwrap().len(), 2);
}

#[test]
fn an_interruption_in_the_last_pass_keeps_all_and_runs_no_more() {
    let clock = FakeClock::new();
    let mut fake = Fake::new(&clock);
    fake.stop_at = Some((1 + 2, Interrupt::never()));
    let (lines, outcome) = bench(&mut fake, "--input-len 4 --output-len 1 --repeat 2 --json");
    assert_eq!(outcome.unwrap_err().kind, Kind::Interrupted);
    let row: Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!(row["interrupted"], false, "both passes were complete");
    assert_eq!(fake.prefills.len(), 3, "nothing more is run, not even for the op table");
    assert_eq!(row["prefill_ops"]["slowest"].as_array().unwrap().len(), 0);
}

#[test]
fn prompts_from_a_file_count_their_own_tokens() {
    let path = std::env::temp_dir().join(format!("pacer-file-{}", std::process::id()));
    std::fs::write(&path, "one two three\nfour five\n").unwrap();
    let clock = FakeClock::new();
    let mut fake = Fake::new(&clock);
    let words = format!("--batch-size 3 --output-len 2 --prompt-filename {}", path.display());
    let row = rows(&mut fake, &words).remove(0);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(fake.prefills[0], [vec![3, 3, 5], vec![4, 4], vec![4, 4]]);
    assert_eq!(row["input_lens"], serde_json::json!([3, 2, 2]));
    assert_eq!(row["input_len"], 3);
    close(&row["prefill_throughput"], 7.0 / 0.014);
}

#[test]
fn correctness_exits_with_1_on_a_mismatch() {
    let clock = FakeClock::new();
    let mut fake = Fake::new(&clock);
    let mut lines = Vec::new();
    let mut print = |l: &str| {
        lines.push(l.to_string());
        Ok(())
    };
    let flags = flags("--correctness-test --cut-len 2 --output-len 7");
    flags.correctness(&mut fake, &mut print).unwrap();
    fake.lazy = true;
    assert_eq!(flags.correctness(&mut fake, &mut print).unwrap_err().exit_code(), 1);
    assert_eq!(lines[3], "compared: 3 prompts, cut 2, output 7; mismatches: 0");
}
