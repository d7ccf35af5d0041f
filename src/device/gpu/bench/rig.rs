//! Memory, modules and events for timing kernels.

use std::collections::BTreeMap;

use crate::device::gpu::abi;
use crate::device::gpu::check::words;
use crate::device::gpu::choose::Geometry;
use crate::device::gpu::driver::{
    DevicePtr, Driver, Event, Function, Launch, MapElement, MapPromotion, MapSwizzle, ModuleId,
    Stream, TensorMapSpec,
};
use crate::device::gpu::registry::{self, Kernel};
use crate::error::{Error, Result};

/// A launch that is timed.
pub struct Job {
    pub symbol: String,
    pub geometry: Geometry,
    /// The kernel's parameter struct.
    pub params: Vec<u8>,
    /// Fewest bytes that must move between memory and the chip.
    pub bytes: f64,
    /// Operations that the result needs, a multiply-add counting two.
    pub flops: f64,
}

impl Job {
    pub fn new<P: Copy>(symbol: String, geometry: Geometry, params: &P) -> Self {
        let params = registry::param_bytes(params).to_vec();
        Job { symbol, geometry, params, bytes: 0.0, flops: 0.0 }
    }

    /// What must move and be computed at least.
    pub fn least(self, bytes: usize, flops: usize) -> Self {
        Job { bytes: bytes as f64, flops: flops as f64, ..self }
    }
}

/// Seconds of one launch.
#[derive(Debug, Clone, PartialEq)]
pub struct Timing {
    /// With nothing of its data in L2, one after another.
    pub cold: Vec<f64>,
    /// Launches back to back from a graph: the mean of each pass.
    pub warm: Vec<f64>,
}

/// What jobs share.
pub struct Rig<'d> {
    driver: &'d dyn Driver,
    modules: BTreeMap<&'static str, ModuleId>,
    given: Vec<DevicePtr>,
    /// Overwritten to empty L2, and its bytes.
    flush: (DevicePtr, u64),
    stream: Stream,
    marks: (Event, Event),
}

/// Bytes of random numbers that larger buffers repeat.
const SEED_BYTES: usize = 1 << 16;

impl<'d> Rig<'d> {
    /// # Errors
    /// The card has no memory left, or the driver fails.
    pub fn new(driver: &'d dyn Driver, flush_bytes: u64) -> Result<Self> {
        let flush = (driver.alloc(flush_bytes)?, flush_bytes);
        let marks = (driver.create_event(true)?, driver.create_event(true)?);
        let stream = driver.create_stream()?;
        Ok(Rig { driver, modules: BTreeMap::new(), given: Vec::new(), flush, stream, marks })
    }

    pub fn driver(&self) -> &'d dyn Driver {
        self.driver
    }

    pub fn alloc(&mut self, bytes: usize) -> Result<DevicePtr> {
        let address = self.driver.alloc(bytes.max(16) as u64)?;
        self.given.push(address);
        Ok(address)
    }

    pub fn upload(&mut self, bytes: &[u8]) -> Result<DevicePtr> {
        let address = self.alloc(bytes.len())?;
        self.driver.upload(address, bytes)?;
        Ok(address)
    }

    pub fn words(&mut self, words: &[u32]) -> Result<DevicePtr> {
        self.upload(&words.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>())
    }

    /// `count` bf16 numbers in [-1, 1). Random bits matter: a card draws less power, and clocks
    /// higher, on numbers that are all alike.
    pub fn halves(&mut self, count: usize) -> Result<DevicePtr> {
        let number = |state: u64| {
            let x = (state >> 40) as f32 / (1u32 << 23) as f32 - 1.0;
            (x.to_bits() >> 16) as u16
        };
        self.repeat(count * 2, &mut |state| number(state).to_le_bytes().to_vec())
    }

    /// `count` f32 numbers in [-1, 1).
    pub fn floats(&mut self, count: usize) -> Result<DevicePtr> {
        let number = |state: u64| (state >> 40) as f32 / (1u32 << 23) as f32 - 1.0;
        self.repeat(count * 4, &mut |state| number(state).to_le_bytes().to_vec())
    }

    /// Fills `bytes` with a block of random elements, over and over.
    fn repeat(
        &mut self,
        bytes: usize,
        element: &mut dyn FnMut(u64) -> Vec<u8>,
    ) -> Result<DevicePtr> {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut seed = Vec::new();
        while seed.len() < bytes.min(SEED_BYTES) {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            seed.extend(element(state));
        }
        let address = self.alloc(bytes)?;
        self.driver.upload(address, &seed)?;
        let mut done = seed.len();
        while done < bytes {
            let more = done.min(bytes - done);
            let to = address + done as u64;
            self.driver.copy_async(to, address, more as u64, self.stream)?;
            done += more;
        }
        self.driver.synchronize(self.stream)?;
        Ok(address)
    }

    /// The tensor map of a dense bf16 matrix, for boxes of 64 columns and `box_rows` rows.
    pub fn tensor_map(
        &mut self,
        address: DevicePtr,
        rows: usize,
        columns: usize,
        box_rows: u32,
    ) -> Result<abi::TensorMap> {
        let spec = TensorMapSpec {
            element: MapElement::Bf16,
            address,
            dims: &[columns as u64, rows as u64],
            strides: &[columns as u64 * 2],
            box_dims: &[64, box_rows],
            swizzle: MapSwizzle::B128,
            promotion: MapPromotion::B128,
        };
        Ok(words(&self.driver.tensor_map(&spec)?.0))
    }

    fn function(&mut self, kernel: &'static Kernel) -> Result<Function> {
        let (of, _) = registry::kernel(kernel.symbol)?;
        let module = match self.modules.get(of.name) {
            Some(id) => *id,
            None => {
                let loaded = self.driver.load_module(&of.ptx()?)?;
                self.modules.insert(of.name, loaded.module);
                loaded.module
            }
        };
        let function = self.driver.function(module, kernel.symbol)?;
        if kernel.shared > 48 << 10 {
            self.driver.allow_dynamic_shared(function, kernel.shared)?;
        }
        Ok(function)
    }

    fn launch(&self, function: Function, job: &Job) -> Result<()> {
        let Geometry { grid, block, shared, cluster, .. } = job.geometry;
        let launch = Launch {
            function,
            grid,
            block: [block, 1, 1],
            cluster: [cluster, 1, 1],
            shared_bytes: shared,
            programmatic: false,
            params: &job.params,
        };
        Ok(self.driver.launch(&launch, self.stream)?)
    }

    /// Seconds between the two marks, once the second has passed.
    fn between(&self) -> Result<f64> {
        self.driver.synchronize_event(self.marks.1)?;
        Ok(f64::from(self.driver.elapsed(self.marks.0, self.marks.1)?) / 1e3)
    }

    /// Times `job`: `repeat` launches each after L2 was overwritten, then `repeat` in a graph,
    /// three times.
    ///
    /// # Errors
    /// What the driver says of the kernel, with its symbol.
    pub fn time(&mut self, job: &Job, repeat: usize) -> Result<Timing> {
        self.timed(job, repeat).map_err(|e| e.context(job.symbol.clone()))
    }

    fn timed(&mut self, job: &Job, repeat: usize) -> Result<Timing> {
        let (_, kernel) = registry::kernel(&job.symbol)?;
        if job.params.len() != kernel.param_bytes {
            let (got, want) = (job.params.len(), kernel.param_bytes);
            return Err(Error::device(format!("{got} bytes of parameters; it takes {want}")));
        }
        let function = self.function(kernel)?;
        self.launch(function, job)?;
        self.driver.synchronize(self.stream)?;
        let mut cold = Vec::new();
        for pass in 0..repeat {
            self.driver.fill_async(self.flush.0, pass as u8, self.flush.1, self.stream)?;
            self.driver.record(self.marks.0, self.stream)?;
            self.launch(function, job)?;
            self.driver.record(self.marks.1, self.stream)?;
            cold.push(self.between()?);
        }
        self.driver.begin_capture(self.stream)?;
        let queued = (0..repeat).try_for_each(|_| self.launch(function, job));
        let graph = self.driver.end_capture(self.stream)?;
        queued?;
        let exec = self.driver.instantiate(graph)?;
        let mut warm = Vec::new();
        for _ in 0..4 {
            self.driver.record(self.marks.0, self.stream)?;
            self.driver.launch_graph(exec, self.stream)?;
            self.driver.record(self.marks.1, self.stream)?;
            warm.push(self.between()? / repeat as f64);
        }
        self.driver.destroy_exec(exec)?;
        self.driver.destroy_graph(graph)?;
        // The first pass also uploads the graph.
        warm.remove(0);
        Ok(Timing { cold, warm })
    }

    /// Frees what the last job used.
    pub fn clear(&mut self) -> Result<()> {
        for address in std::mem::take(&mut self.given) {
            self.driver.free(address)?;
        }
        Ok(())
    }
}
