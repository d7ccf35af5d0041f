//! The GPU device under planted faults: memory that runs out at every allocation of a load, a
//! launch that is refused, a card that is lost (reliability R30, R31).

#[path = "gpu/harness.rs"]
#[allow(dead_code)]
mod harness;

use std::sync::Arc;

use pacer::device::gpu::driver::Driver;
use pacer::device::gpu::driver::emulated::Emulated;
use pacer::device::gpu::{GpuDevice, GpuLoaded, GpuOptions};
use pacer::device::{Batch, Limits, Loaded, Span};
use pacer::engine::model::Model;
use pacer::engine::options::{LoadFormat, ModelOptions};
use pacer::error::{Kind, Result};
use pacer::profile::recorder::Recorder;
use pacer_emulator::Checks;
use pacer_emulator::host::{Config, Faults};

const LIMITS: Limits = Limits {
    step_tokens: 16,
    step_sequences: 2,
    logit_rows: 2,
    pages: 8,
    page_size: 8,
    context: 32,
};

fn driver(faults: &str) -> Arc<dyn Driver> {
    let faults = Faults::parse(faults).unwrap();
    Arc::new(Emulated::new(Config { faults, checks: Checks::FAST, ..Config::default() }))
}

fn load(model: &Model, driver: &Arc<dyn Driver>, graphs: Option<usize>) -> Result<GpuLoaded> {
    let options = GpuOptions { graph_sizes: graphs, ..GpuOptions::default() };
    let device = GpuDevice::new(Arc::clone(driver), options).unwrap();
    device.load(&model.plan, &model.weights, &LIMITS, &mut |_, _| {})
}

fn step(loaded: &mut GpuLoaded) -> Result<Vec<f32>> {
    let spans = [Span { start: 0, len: 1, past: 0, pages_start: 0 }];
    let batch = Batch { tokens: &[5], spans: &spans, pages: &[1], logit_rows: &[0] };
    loaded.step(&batch, &mut Recorder::off())?;
    Ok(loaded.logits().to_vec())
}

#[test]
fn memory_that_runs_out_while_loading_is_named_and_given_back() {
    let model = harness::open("llama");
    let mut refused = 0;
    for k in 1.. {
        let driver = driver(&format!("alloc={k}"));
        match load(&model, &driver, None) {
            Ok(loaded) => {
                drop(loaded);
                let (free, total) = driver.memory().unwrap();
                assert_eq!(free, total, "a dropped model keeps nothing");
                break;
            }
            Err(error) => {
                assert_eq!(error.kind, Kind::Limit, "allocation {k}: {error}");
                assert!(error.message.contains("MiB wanted"), "{error}");
                let (free, total) = driver.memory().unwrap();
                assert_eq!(free, total, "allocation {k} leaks");
                refused += 1;
            }
        }
    }
    assert!(refused > 30, "only {refused} allocations");
}

#[test]
fn a_refused_launch_fails_one_step_and_no_other() {
    let model = harness::open("llama");
    let sound = step(&mut load(&model, &driver(""), Some(0)).unwrap()).unwrap();
    // Launches by kernel and, with graphs, the replay (captures count while loading).
    for (k, graphs) in [(1, Some(0)), (2, Some(0)), (9, Some(0))] {
        let driver = driver(&format!("launch={k}:701"));
        let mut loaded = load(&model, &driver, graphs).unwrap();
        let error = step(&mut loaded).unwrap_err();
        assert_eq!(error.kind, Kind::Device, "{error}");
        assert!(error.message.contains("planted"), "{error}");
        assert_eq!(step(&mut loaded).unwrap(), sound, "the step after launch {k} was refused");
    }
}

#[test]
fn a_lost_card_stays_lost() {
    let model = harness::open("llama");
    let driver = driver("launch=4:214");
    let mut loaded = load(&model, &driver, Some(0)).unwrap();
    for _ in 0..2 {
        let error = step(&mut loaded).unwrap_err();
        assert_eq!(error.kind, Kind::DeviceLost, "{error}");
        assert!(error.message.contains("restart the process"), "{error}");
    }
    assert_eq!(load(&model, &driver, None).err().unwrap().kind, Kind::DeviceLost);
}

#[test]
fn pages_are_copied_in_every_layer() {
    let model = harness::open("llama");
    let mut loaded = load(&model, &driver(""), None).unwrap();
    let first = step(&mut loaded).unwrap();
    loaded.copy_page(1, 6, 1).unwrap();
    let spans = [Span { start: 0, len: 1, past: 1, pages_start: 0 }];
    let after = |loaded: &mut GpuLoaded, page: u32| {
        let batch = Batch { tokens: &[7], spans: &spans, pages: &[page], logit_rows: &[0] };
        loaded.step(&batch, &mut Recorder::off()).unwrap();
        loaded.logits().to_vec()
    };
    let (copy, original) = (after(&mut loaded, 6), after(&mut loaded, 1));
    assert_eq!(copy, original);
    assert_ne!(copy, first);
    assert!(loaded.copy_page(1, 8, 1).is_err() && loaded.copy_page(1, 2, 9).is_err());
}

#[test]
fn a_head_size_without_a_kernel_is_named() {
    let options = ModelOptions {
        path: Some(harness::folder("llama").to_str().unwrap().to_owned()),
        format: LoadFormat::Dummy,
        overrides: Some(serde_json::json!({ "head_dim": 40 })),
        ..ModelOptions::default()
    };
    let model = Model::open(&options).unwrap();
    let error = load(&model, &driver(""), None).err().expect("heads of 40 numbers");
    assert_eq!(error.kind, Kind::Unsupported);
    assert!(error.message.contains("self_attn.attn"), "{error}");
    assert!(error.message.contains("head_dim 40") && error.message.contains("128"), "{error}");
}
