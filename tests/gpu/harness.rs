//! Golden models on a GPU driver: the checks of `pacer kernels golden`, and limits for those models
//! that record none for bfloat16.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pacer::bench::golden::{Allowed, Checks, Part, check};
use pacer::device::Device;
use pacer::device::gpu::driver::Driver;
use pacer::device::gpu::{GpuDevice, GpuOptions};
use pacer::engine::model::Model;
use pacer::engine::options::ModelOptions;
use pacer::error::Result;

pub fn folder(name: &str) -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let found = ["golden", "golden_more"].map(|dir| tests.join(dir).join(name));
    found.into_iter().find(|f| f.join("golden.json").exists()).expect("a golden model")
}

pub fn open(name: &str) -> Model {
    let path = Some(folder(name).to_str().unwrap().to_owned());
    Model::open(&ModelOptions { path, ..ModelOptions::default() }).unwrap()
}

/// Those of tests/golden_more record limits for float32 alone: held to what models of this size in
/// tests/golden are, with experts and without.
fn otherwise(name: &str) -> Allowed {
    let (max, mean) = if name.contains("moe") { (5.0, 0.1) } else { (0.5, 0.05) };
    Allowed { max, mean, kl: 0.02, margin: 0.5 }
}

fn passes(name: &str, driver: &Arc<dyn Driver>, part: Part, steps: usize) {
    let open = |graphs: bool| -> Result<Box<dyn Device>> {
        let graph_sizes = if graphs { None } else { Some(0) };
        let options = GpuOptions { graph_sizes, ..GpuOptions::default() };
        Ok(Box::new(GpuDevice::new(Arc::clone(driver), options)?))
    };
    let checks = Checks { part, steps, otherwise: Some(otherwise(name)) };
    let found = check(&folder(name), "bfloat16", checks, &open);
    println!("{name}: {found:.5?}");
    found.unwrap_or_else(|e| panic!("{name}: {e}"));
}

/// Logits of every case within the limits; equal bits in batches and chunks.
pub fn logits(name: &str, driver: &Arc<dyn Driver>) {
    passes(name, driver, Part::Logits, 0);
}

/// Greedy tokens up to the margin; graphs change no bit, nor does the company.
pub fn greedy(name: &str, driver: &Arc<dyn Driver>, steps: usize) {
    passes(name, driver, Part::Greedy, steps);
}
