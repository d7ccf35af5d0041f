//! The GPU's own account in traces and summaries: through the `cuda` driver against the stand-ins
//! for libcuda and CUPTI, with CUDA events where there is no CUPTI, and projected on the emulator.

#[path = "gpu/harness.rs"]
#[allow(dead_code)]
mod harness;
#[path = "libcuda/support.rs"]
mod support;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use pacer::device::gpu::driver::Driver;
use pacer::device::gpu::driver::cuda::Cuda;
use pacer::device::gpu::driver::emulated::Emulated;
use pacer::device::gpu::{GpuDevice, GpuOptions};
use pacer::engine::Engine;
use pacer::engine::core::simple_request;
use pacer::engine::options::EngineOptions;
use pacer::engine::params::SamplingParams;
use pacer::model::plan::{Op, Plan};
use pacer::profile::control::Wanted;
use pacer::profile::profiler::{Options, Profiler, Source};
use pacer::profile::request::{Activities, ProfileRequest};
use pacer::profile::trace::names::Ranks;
use pacer::profile::validate::validate;
use pacer_emulator::Checks;
use pacer_emulator::host::Config;
use serde_json::Value;

/// The stand-in for CUPTI, built by the C compiler.
fn standin() -> PathBuf {
    let folder = std::env::temp_dir().join(format!("pacer-gpu-cupti-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let library = folder.join("libcupti.so.13");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cupti/standin.c");
    let cc = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    let built = Command::new(cc)
        .args(["-O1", "-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(source)
        .status()
        .unwrap();
    assert!(built.success());
    library
}

/// A capture of one request's steps: prefill and `DECODES` decode steps.
struct Captured {
    trace: Value,
    summary: Value,
    answer: Value,
    plan: Plan,
}

const PROMPT: usize = 9;
const DECODES: usize = 3;

fn capture(driver: &Arc<dyn Driver>, graphs: usize, activities: &[&str]) -> Captured {
    capture_with(driver, graphs, activities, false)
}

fn capture_with(
    driver: &Arc<dyn Driver>,
    graphs: usize,
    activities: &[&str],
    with_stack: bool,
) -> Captured {
    let folder =
        std::env::temp_dir().join(format!("pacer-gpu-trace-{}-{graphs}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    let model = harness::open("llama");
    let plan = model.plan.clone();
    let options = GpuOptions { graph_sizes: Some(graphs), ..GpuOptions::default() };
    let device = GpuDevice::new(Arc::clone(driver), options).unwrap();
    let options = EngineOptions {
        total_tokens: Some(256),
        page_size: Some(8),
        max_running: Some(2),
        step_tokens: Some(16),
        ..EngineOptions::default()
    };
    let mut engine = Engine::new(model, &device, &options, &mut |_, _| {}).unwrap();
    let profiler = Profiler::new(Options {
        roots: vec![folder.clone()],
        cap_bytes: 64 << 20,
        ranks: Ranks::default(),
        label: "test".into(),
        replace: true,
    })
    .unwrap();
    engine.recorder = profiler.recorder(Source::Engine, 1 << 14);
    profiler.describe(Arc::new(engine.described()), None);
    let request = ProfileRequest {
        wanted: Wanted { num_steps: Some(1 + DECODES as u64), ..Wanted::default() },
        activities: Activities::named(activities).unwrap(),
        id: Some("gpu".into()),
        with_stack,
        ..ProfileRequest::default()
    };
    let started = profiler.start(&request);
    assert_eq!(started.status, 200, "{started:?}");
    let params = SamplingParams {
        max_new_tokens: Some(DECODES + 3),
        temperature: 0.0,
        ignore_eos: true,
        ..SamplingParams::default()
    };
    let prompt = (1..=PROMPT as u32).collect();
    engine.submit(&simple_request(1, prompt, Arc::new(params))).unwrap();
    let mut updates = Vec::new();
    // Two steps more than are captured: they leave no trace.
    for _ in 0..DECODES + 3 {
        assert!(engine.step(&mut updates).unwrap());
    }
    let answer = finished(&profiler);
    let read = |file: &Value| std::fs::File::open(file.as_str().unwrap()).unwrap();
    let mut text = String::new();
    let file = flate2::read::GzDecoder::new(read(&answer["details"][0]["trace"]));
    std::io::BufReader::new(file).read_to_string(&mut text).unwrap();
    let trace: Value = serde_json::from_str(&text).unwrap();
    let summary = serde_json::from_reader(read(&answer["details"][0]["summary"])).unwrap();
    if let Ok(kept) = std::env::var("PACER_KEEP_TRACE") {
        std::fs::write(kept, &text).unwrap();
    }
    std::fs::remove_dir_all(folder).unwrap();
    Captured { trace, summary, answer, plan }
}

fn finished(profiler: &Profiler) -> Value {
    loop {
        let status = profiler.status().body;
        if status["state"] == "idle" {
            return status["last"].clone();
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

impl Captured {
    /// Everything that holds however times are known.
    fn check(&self) {
        let report = validate(&self.trace).unwrap();
        assert_eq!(report.steps.len(), 1 + DECODES, "{report:?}");
        assert_eq!(self.answer["gpu_dropped_records"], 0);
        assert_eq!(self.answer["gpu_trouble"], Value::Null);
        let kernels = self.events("kernel");
        assert!(kernels.len() > 50, "{}", kernels.len());
        assert!(report.arrows > 10, "{report:?}");
        let ops = self.plan.ops.iter().map(|p| p.scope.as_str());
        let scopes: std::collections::HashSet<&str> = ops.collect();
        for kernel in &kernels {
            let args = &kernel["args"];
            let of_op = scopes.contains(args["module"].as_str().unwrap());
            let of_none = ["rotary angles", "sampling"].iter().any(|op| args["op"] == *op);
            assert!(of_op || of_none, "{kernel}");
            let layer = args["module"].as_str().unwrap().starts_with("model.layers.");
            assert_eq!(layer, args["layer"].is_u64(), "{kernel}");
        }
        let device = &self.summary["device"];
        assert_eq!(device["attributed_share"], 1.0, "{device}");
        assert!(device["busy_s"].as_f64().unwrap() > 0.0);
        self.check_floors();
    }

    fn events(&self, category: &str) -> Vec<&Value> {
        let events = self.trace["traceEvents"].as_array().unwrap();
        events.iter().filter(|e| e["ph"] == "X" && e["cat"] == category).collect()
    }

    fn stage(&self, name: &str) -> &Value {
        let stages = self.summary["stages"].as_array().unwrap();
        stages.iter().find(|s| s["stage"] == name).unwrap()
    }

    fn rows(&self, table: &str, stage: &str) -> Vec<&Value> {
        let rows = self.summary[table].as_array().unwrap();
        rows.iter().filter(|r| r["stage"] == stage).collect()
    }

    /// What ops and kernels must move sums to what the steps must: weights and cache.
    fn check_floors(&self) {
        for stage in ["EXTEND", "DECODE"] {
            let whole = self.stage(stage)["bytes"].as_u64().unwrap();
            let sum = |table| -> u64 {
                self.rows(table, stage).iter().map(|r| r["bytes"].as_u64().unwrap_or(0)).sum()
            };
            assert_eq!(sum("ops"), whole, "{stage}");
            // A kernel's share of its op is rounded down to bytes.
            let lost = whole - sum("kernels");
            assert!(lost < 4 * self.events("kernel").len() as u64, "{stage}: {lost} of {whole}");
        }
        let decode = self.stage("DECODE");
        let of = |op: &Op| match op {
            Op::Linear { matrix, .. } => {
                let m = &self.plan.matrices[*matrix];
                (m.rows * m.cols * 2) as u64
            }
            _ => 0,
        };
        let matrices: u64 = self.plan.ops.iter().map(|p| of(&p.op)).sum::<u64>() * DECODES as u64;
        let weights = decode["weight_bytes"].as_u64().unwrap();
        // Besides: norms, and one row of the embedding.
        assert!(weights >= matrices, "{weights} {matrices}");
        assert!(weights as f64 <= matrices as f64 * 1.05, "{weights} {matrices}");
        let kv = self.plan.kv;
        let position = (kv.layers * kv.kv_heads * kv.head_dim * 2 * 2) as u64;
        // Step k of decoding reads all positions up to its own, and writes its own.
        let positions: usize = (0..DECODES).map(|k| PROMPT + k + 1 + 1).sum();
        assert_eq!(decode["kv_bytes"].as_u64().unwrap(), position * positions as u64);
    }

    /// Device seconds of decode steps by op and module.
    fn decode_times(&self) -> BTreeMap<String, f64> {
        let rows = self.rows("ops", "DECODE").into_iter();
        rows.map(|r| (format!("{} {}", r["op"], r["module"]), r["total_s"].as_f64().unwrap()))
            .collect()
    }
}

#[test]
fn cupti_joins_kernels_with_ops_and_layers() {
    let library = standin();
    let cupti = library.to_str().unwrap();
    let log = library.with_extension("profiler");
    let variables = [
        ("PACER_CUPTI", cupti),
        ("PACER_LIBCUDA_CUPTI", cupti),
        ("PACER_LIBCUDA_CHECKS", "fast"),
        ("PACER_LIBCUDA_PROFILER", log.to_str().unwrap()),
    ];
    support::pass("with_cupti", &variables);
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "start\nstop\n");
    // A card numbers the nodes of launchable graphs anew.
    let cloned = [&variables[..3], &[("PACER_LIBCUDA_CUPTI_CLONED", "1")]].concat();
    support::pass("with_cupti", &cloned);
    std::fs::remove_dir_all(library.parent().unwrap()).unwrap();
}

#[test]
#[ignore = "a child of cupti_joins_kernels_with_ops_and_layers"]
fn with_cupti() {
    let driver: Arc<dyn Driver> = Arc::new(Cuda::open(0).unwrap());
    let with = capture(&driver, 2, &["CPU", "GPU", "CUDA_PROFILER"]);
    let source = with.answer["gpu"]["times"].as_str().unwrap();
    assert!(source.starts_with("CUPTI 13."), "{source}");
    assert_eq!(with.trace["pacer"]["gpu"]["fallback"], Value::Null);
    assert_eq!(with.trace["pacer"]["times"], "measured");
    with.check();
    let replays = with.events("cuda_driver");
    assert!(replays.iter().any(|e| e["args"]["op"] == "graph"), "no graph was replayed");
    // With graphs off the same ops take the same time; a captured attention has splits for the
    // longest context.
    let without = capture(&driver, 0, &["CPU", "GPU"]);
    without.check();
    assert!(without.events("cuda_driver").iter().all(|e| e["args"]["op"] != "graph"));
    let (a, b) = (with.decode_times(), without.decode_times());
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    for (op, seconds) in &a {
        // The stand-in has no times of copies.
        if (*seconds, b[op]) == (0.0, 0.0) {
            continue;
        }
        let ratio = seconds / b[op];
        println!("{op}: {:.2} us with graphs, {ratio:.3} of that without", seconds * 1e6);
        let attention = op.contains("attention");
        assert!(attention || (0.98..1.02).contains(&ratio), "{op}: {ratio}");
    }
}

#[test]
fn events_stand_in_for_cupti_and_say_so() {
    let variables = [("PACER_CUPTI", "/nowhere/libcupti.so.13"), ("PACER_LIBCUDA_CHECKS", "fast")];
    support::pass("with_events", &variables);
}

#[test]
#[ignore = "a child of events_stand_in_for_cupti_and_say_so"]
fn with_events() {
    let driver: Arc<dyn Driver> = Arc::new(Cuda::open(0).unwrap());
    let events = capture(&driver, 2, &["CPU", "GPU"]);
    let gpu = &events.trace["pacer"]["gpu"];
    assert!(gpu["times"].as_str().unwrap().starts_with("CUDA events"), "{gpu}");
    let why = gpu["fallback"].as_str().unwrap();
    assert!(why.contains("CUPTI was not found"), "{why}");
    assert_eq!(&events.answer["gpu"], gpu);
    events.check();
}

/// The process has a CUPTI subscriber already: said in both answers and in the trace, and times are
/// of CUDA events, labelled so.
#[test]
fn a_second_subscriber_is_reported() {
    let library = standin();
    let cupti = library.to_str().unwrap();
    let status = pacer::profile::cupti::layout::ERROR_MULTIPLE_SUBSCRIBERS.to_string();
    let variables = [
        ("PACER_CUPTI", cupti),
        ("PACER_STANDIN_REFUSE", &status),
        ("PACER_LIBCUDA_CHECKS", "fast"),
    ];
    support::pass("with_a_second_subscriber", &variables);
}

#[test]
#[ignore = "a child of a_second_subscriber_is_reported"]
fn with_a_second_subscriber() {
    let driver: Arc<dyn Driver> = Arc::new(Cuda::open(0).unwrap());
    let captured = capture(&driver, 0, &["CPU", "GPU"]);
    let gpu = &captured.trace["pacer"]["gpu"];
    assert!(gpu["times"].as_str().unwrap().starts_with("CUDA events"), "{gpu}");
    assert!(gpu["fallback"].as_str().unwrap().contains("another profiler"), "{gpu}");
    assert_eq!(&captured.answer["gpu"], gpu);
    assert_eq!(&captured.summary["gpu"], gpu);
    captured.check();
}

#[test]
fn a_dry_run_projects_the_same_timeline() {
    let config = Config { checks: Checks::FAST, ..Config::default() };
    let driver: Arc<dyn Driver> = Arc::new(Emulated::new(config));
    let dry = capture_with(&driver, 2, &["CPU", "GPU"], true);
    for op in dry.events("gpu_op").iter().filter(|op| op["args"]["module"] != "") {
        let frames = op["args"]["stack"].to_string();
        let step = op["args"]["step"].as_u64().unwrap();
        // A prompt is launched op by op; decoding launches graphs.
        let any = |a: &str, b: &str| frames.contains(a) || frames.contains(b);
        assert!(step > 1 || any("gpu::ops", "gpu/ops/"), "{op}");
        assert!(any("gpu::executor", "gpu/executor.rs"), "{op}");
        assert!(any("engine::step", "engine/step.rs"), "{op}");
    }
    assert_eq!(dry.trace["pacer"]["times"], "projected");
    assert_eq!(dry.trace["pacer"]["gpu"]["times"], "projected by the emulator");
    assert_eq!(dry.summary["device"]["times"], "projected");
    let ceiling = dry.summary["ceiling"]["source"].as_str().unwrap();
    assert!(ceiling.contains("H100"), "{ceiling}");
    dry.check();
    let table = dry.answer["table"].as_str().unwrap();
    assert!(table.contains("projected"), "{table}");
    println!("{table}");
}
