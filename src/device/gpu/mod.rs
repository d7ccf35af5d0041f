//! The GPU device: ops become launches of Pacer's own kernels through a small [`driver`].
//!
//! [`load`](self::load) makes the memory plan, uploads weights and prepares each op ([`ops`]);
//! [`GpuLoaded`] runs steps. Weights, activations and cache have 16 bits, sums 32. A token's bits
//! depend on its own sequence alone: not on the batch, the chunk it arrives in, its pages, or on
//! whether a graph was replayed.

pub mod abi;
pub mod bench;
pub mod check;
pub mod choose;
pub mod driver;
mod exact;
mod executor;
mod graphs;
mod inputs;
mod kernels;
mod launch;
pub mod layout;
mod load;
mod memory;
mod ops;
pub mod quant;
pub mod registry;
mod sample;
mod trace;
pub mod turns;
mod weights;

use std::sync::Arc;

use self::choose::{Card, Half, record};
use self::driver::Driver;
pub use self::executor::GpuLoaded;
use self::layout::Layout;
use super::{Device, DeviceInfo, Limits, Loaded};
use crate::error::{Error, Result};
use crate::model::plan::Plan;
use crate::types::Dtype;
use crate::weights::Weights;

/// How the GPU device works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GpuOptions {
    /// Storage of weights, activations and cache: bfloat16 or float16.
    pub dtype: Dtype,
    /// Whether matrices stay in the blocks of their file where a kernel multiplies these.
    pub packed: bool,
    /// Largest batch that a graph is captured for; `None`: the engine's largest, 0: no graphs.
    pub graph_sizes: Option<usize>,
}

impl Default for GpuOptions {
    fn default() -> Self {
        GpuOptions { dtype: Dtype::BF16, packed: true, graph_sizes: None }
    }
}

/// A card as a device.
pub struct GpuDevice {
    driver: Arc<dyn Driver>,
    options: GpuOptions,
}

impl GpuDevice {
    /// # Errors
    /// For a storage type that no kernel has.
    pub fn new(driver: Arc<dyn Driver>, options: GpuOptions) -> Result<Self> {
        if !matches!(options.dtype, Dtype::BF16 | Dtype::F16) {
            return Err(Error::usage(format!(
                "--dtype {}: a GPU stores bfloat16 or float16",
                options.dtype.name()
            )));
        }
        Ok(GpuDevice { driver, options })
    }

    /// [`Device::prepare`], giving the concrete type.
    ///
    /// # Errors
    /// As [`Device::prepare`].
    pub fn load(
        &self,
        plan: &Plan,
        weights: &Weights,
        limits: &Limits,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<GpuLoaded> {
        if limits.page_size == 0 {
            return Err(Error::usage("--page-size 0: a page holds at least one token"));
        }
        load::load(&self.driver, &self.options, plan, weights, limits, progress)
    }
}

impl Device for GpuDevice {
    fn info(&self) -> DeviceInfo {
        let card = self.driver.card();
        let (major, minor) = card.capability;
        // A lost context has no memory to give.
        let (memory_free, memory_total) = self.driver.memory().unwrap_or((0, card.memory_total));
        let version = card.driver_version;
        DeviceInfo {
            kind: self.driver.kind(),
            name: card.name.clone(),
            detail: format!(
                "compute capability {major}.{minor}, {} SMs, driver for CUDA {}.{}",
                card.sms,
                version / 1000,
                version % 1000 / 10
            ),
            memory_free,
            memory_total,
        }
    }

    fn element_bytes(&self, _: &Plan, _: &Weights) -> (usize, usize) {
        (2, 2)
    }

    fn weight_bytes(&self, plan: &Plan, weights: &Weights) -> u64 {
        Layout::new(plan, weights, self.options.packed).bytes(plan)
    }

    fn choices(&self, plan: &Plan, weights: &Weights, rows: usize) -> Result<Vec<String>> {
        let layout = Layout::new(plan, weights, self.options.packed);
        // Before a card has been asked, wgmma is not counted on.
        let card = Card::of(self.driver.card(), false);
        let chosen = record::record(plan, &layout, &card, Half::of(self.options.dtype), rows)?;
        Ok(chosen.iter().map(ToString::to_string).collect())
    }

    fn prepare(
        &self,
        plan: &Plan,
        weights: &Weights,
        limits: &Limits,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Box<dyn Loaded>> {
        Ok(Box::new(self.load(plan, weights, limits, progress)?))
    }
}
