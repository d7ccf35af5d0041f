//! `pacer kernels golden`: whole models on the GPU kernels against recorded logits.

use std::path::PathBuf;
use std::sync::Arc;

use argh::{ArgsInfo, FromArgs};
use serde_json::json;

use super::super::{Run, out};
use super::check::On;
use crate::bench::golden::{self, Checks, Found};
use crate::choice;
use crate::device::Device;
use crate::device::gpu::driver::Driver;
use crate::device::gpu::driver::cuda::Cuda;
use crate::device::gpu::driver::emulated::Emulated;
use crate::device::gpu::{GpuDevice, GpuOptions};
use crate::error::{Error, Kind, Result};
use crate::types::Dtype;

choice! {
    /// What weights, activations and cache are stored as.
    Stored { Bfloat16 = "bfloat16", Float16 = "float16" }
}

/// Runs golden models (folders with a checkpoint and golden.json, as in tests/golden) on the GPU
/// kernels: logits within the recorded limits, greedy tokens up to the recorded margin, and equal
/// bits in batches, in chunks, with CUDA graphs and without. Exit 1 if a model fails.
#[derive(FromArgs, ArgsInfo, Debug, Clone, PartialEq)]
#[argh(help_triggers("--help"))]
pub struct Golden {
    /// folders of golden models
    #[argh(positional, arg_name = "FOLDER")]
    pub folders: Vec<PathBuf>,

    /// emulated (the PTX machine, no GPU needed) or cuda (default emulated)
    #[argh(option, arg_name = "DEVICE", default = "On::Emulated")]
    pub device: On,

    /// bfloat16 or float16 (default bfloat16)
    #[argh(option, arg_name = "TYPE", default = "Stored::Bfloat16")]
    pub dtype: Stored,

    /// one JSON object a model instead of text
    #[argh(switch)]
    pub json: bool,
}

impl Run for Golden {
    const NAME: &'static str = "kernels golden";

    fn run(self) -> Result<()> {
        if self.folders.is_empty() {
            return Err(Error::usage("no FOLDER given: name golden models, as in tests/golden"));
        }
        let driver: Arc<dyn Driver> = match self.device {
            On::Cuda => Arc::new(Cuda::open(0).map_err(|e| Error::device(e.to_string()))?),
            On::Emulated => Arc::new(Emulated::new(pacer_emulator::host::Config::default())),
        };
        let (dtype, name) = match self.dtype {
            Stored::Bfloat16 => (Dtype::BF16, "bfloat16"),
            Stored::Float16 => (Dtype::F16, "float16"),
        };
        let open = |graphs: bool| -> Result<Box<dyn Device>> {
            let graph_sizes = if graphs { None } else { Some(0) };
            let stored = GpuOptions { dtype, ..GpuOptions::default() };
            let options = GpuOptions { graph_sizes, ..stored };
            Ok(Box::new(GpuDevice::new(Arc::clone(&driver), options)?))
        };
        let mut failed = 0;
        for folder in &self.folders {
            let result = golden::check(folder, name, Checks::default(), &open);
            failed += usize::from(result.is_err());
            self.tell(driver.kind(), folder, &result)?;
        }
        if failed == 0 {
            return Ok(());
        }
        let count = self.folders.len();
        Err(Error::new(Kind::Device, format!("{failed} of {count} golden models fail")))
    }
}

impl Golden {
    fn tell(&self, device: &str, folder: &std::path::Path, result: &Result<Found>) -> Result<()> {
        let name = folder.display();
        if self.json {
            let found = result.as_ref().ok();
            return out::line(json!({
                "model": name.to_string(),
                "device": device,
                "passed": result.is_ok(),
                "failure": result.as_ref().err().map(ToString::to_string),
                "logit_max": found.map(|f| f.max),
                "logit_mean": found.map(|f| f.mean),
                "kl": found.map(|f| f.kl),
                "allowed": found.map(|f| [f.allowed.max, f.allowed.mean, f.allowed.kl]),
                "prompts": found.map(|f| f.prompts),
                "greedy_tokens": found.map(|f| f.tokens),
            }));
        }
        match result {
            Ok(f) => out::line(format!(
                "pass  {name}: logits off {:.4} at most, {:.5} in the mean, divergence {:.6} \
                 (allowed {}, {}, {}); {} greedy tokens; same bits in batches, chunks and graphs",
                f.max, f.mean, f.kl, f.allowed.max, f.allowed.mean, f.allowed.kl, f.tokens
            )),
            Err(e) => out::line(format!("FAIL  {name}: {e}")),
        }
    }
}
