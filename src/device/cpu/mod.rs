//! The CPU device: a real engine with SIMD chosen at run time and a persistent thread pool.
//!
//! [`prepare`] packs the weights, [`executor`] runs steps, [`reference`] says in f64 what each op
//! means. Activations are f32, the key-value cache f32 or f16. A token's numbers depend on its own
//! sequence alone: not on the batch, the chunk it arrives in, its pages, or the threads.

pub mod affinity;
pub mod attention;
mod caches;
mod decode;
mod executor;
mod info;
mod kv_cache;
pub mod matmul;
mod moe;
pub mod numa;
pub mod numbers;
mod ops;
mod parallel;
pub mod pool;
mod prepare;
pub mod reference;
mod run;
pub mod simd;

use std::sync::Arc;

use self::affinity::CpuSet;
pub use self::executor::CpuLoaded;
pub use self::kv_cache::KvType;
pub use self::matmul::Mode;
use self::numa::{Numa, Placement};
use self::pool::Pool;
use self::prepare::Model;
use self::simd::Isa;
use super::{Device, DeviceInfo, Limits, Loaded};
use crate::error::{Error, Result};
use crate::model::plan::Plan;
use crate::types::Dtype;
use crate::weights::Weights;

/// How the CPU device works.
#[derive(Debug, Clone, Copy)]
pub struct CpuOptions {
    /// Threads of a step; `None`: one per core that the process may use.
    pub threads: Option<usize>,
    /// Processors that threads are kept on, one each; `None`: where the system likes.
    pub bind: Option<CpuSet>,
    /// What is done about memory nodes; not beside `bind`.
    pub numa: Option<Numa>,
    /// Plain weights are stored in this type; `None`: as in the checkpoint.
    pub weights: Option<Dtype>,
    /// Instructions used for all but matrix products.
    pub isa: Isa,
    /// How quantised weights are multiplied.
    pub mode: Mode,
    /// How keys and values are kept; `None`: as the weights ask, see [`CpuOptions::kv_type`].
    pub kv: Option<KvType>,
}

impl CpuOptions {
    /// What is asked for; else f16 if most bytes of the weights are quantised and meet integers, as
    /// llama.cpp keeps them whatever the weights, and f32 where all else is float32.
    fn kv_type(&self, plan: &Plan, weights: &Weights) -> KvType {
        self.kv.unwrap_or_else(|| {
            let (mut quantised, mut all) = (0, 0);
            for (name, _) in plan.tensors() {
                let Some(tensor) = weights.describe(name) else { continue };
                all += tensor.bytes;
                quantised += if tensor.dtype.is_quantised() { tensor.bytes } else { 0 };
            }
            let integers = self.mode != Mode::Exact && 2 * quantised > all;
            if integers { KvType::F16 } else { KvType::F32 }
        })
    }
}

impl Default for CpuOptions {
    fn default() -> Self {
        CpuOptions {
            threads: None,
            bind: None,
            numa: None,
            weights: None,
            isa: Isa::best(),
            mode: Mode::default(),
            kv: None,
        }
    }
}

/// Prompt tokens of a step that also decodes. A prompt's token costs this device nearly as much
/// beside decodes as in a chunk of its own, so what few cost is only more steps; 16 keep the p99
/// between tokens of eight requests under three of their decode steps
/// (bench/results/serving-llama-server.md).
const MIXED_PREFILL: usize = 16;

/// Bytes of host memory that can be used now; 0 where that is not told.
pub fn available_memory() -> u64 {
    info::memory().0
}

/// The processor as a device.
pub struct CpuDevice {
    pool: Arc<Pool>,
    options: CpuOptions,
}

impl CpuDevice {
    /// Starts the threads: as many as asked for, else one for each processor of `bind`, else one
    /// per core.
    ///
    /// # Errors
    /// If no thread is asked for, the system refuses one, processors are too few or not there, or
    /// memory cannot be placed.
    pub fn new(options: CpuOptions) -> Result<Self> {
        if let Some(numa) = options.numa {
            return CpuDevice::on_nodes(numa, options);
        }
        let cores = || std::thread::available_parallelism().map_or(1, |n| n.get());
        let bound = options.bind.map(|set| set.iter().count());
        let threads = options.threads.or(bound).unwrap_or_else(cores);
        if threads == 0 {
            return Err(Error::usage("--threads 0: at least one thread is needed"));
        }
        let cpus = options.bind.map_or(Ok(Vec::new()), |set| set.assign(threads))?;
        Ok(CpuDevice { pool: Arc::new(Pool::bound(threads, &cpus)?), options })
    }

    /// Threads, and all that they and this thread will touch, where `numa` says.
    fn on_nodes(numa: Numa, options: CpuOptions) -> Result<Self> {
        if options.bind.is_some() {
            return Err(Error::usage("--numa chooses the processors itself; leave out --cpu-bind"));
        }
        let placement = Placement::new(numa, options.threads)?;
        placement.apply()?;
        let threads = placement.cpus.len();
        Ok(CpuDevice { pool: Arc::new(Pool::bound(threads, &placement.cpus)?), options })
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
    ) -> Result<CpuLoaded> {
        if limits.page_size == 0 {
            return Err(Error::usage("--page-size 0: a page holds at least one token"));
        }
        let pool = Arc::clone(&self.pool);
        CpuLoaded::new(Model::new(plan, weights, limits, pool, &self.options, progress)?)
    }
}

impl Device for CpuDevice {
    fn info(&self) -> DeviceInfo {
        let (memory_free, memory_total) = info::memory();
        DeviceInfo {
            kind: "cpu",
            name: info::processor(),
            detail: format!("{}, {} threads", self.options.isa.name(), self.pool.threads()),
            memory_free,
            memory_total,
        }
    }

    fn mixed_prefill(&self) -> Option<usize> {
        Some(MIXED_PREFILL)
    }

    fn element_bytes(&self, plan: &Plan, weights: &Weights) -> (usize, usize) {
        (self.options.kv_type(plan, weights).bytes(), size_of::<f32>())
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
