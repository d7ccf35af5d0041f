//! Between ops and the driver: what preparing an op needs to know, and how a prepared op launches.

use std::collections::HashMap;

use super::choose::{Card, Half};
use super::driver::{DevicePtr, Driver, Launch, Stream};
use super::inputs::{Counts, Inputs};
use super::kernels::{Kernel, Kernels};
use super::memory::Memory;
use super::registry::param_bytes;
use super::trace::{self, Node, Queued, StepTrace};
use super::weights::Packed;
use crate::device::Limits;
use crate::error::Result;
use crate::model::plan::{Plan, Rows, View};
use crate::profile::gpu::Owner;

/// An op that has its kernels, addresses and geometry, and launches for any number of rows.
pub trait Launchable: Send {
    /// Queues the op's kernels.
    ///
    /// # Errors
    /// If the driver refuses a launch.
    fn launch(&self, step: &mut Step<'_>) -> Result<()>;

    /// Bytes of device memory that a step of these counts moves at least.
    fn traffic(&self, counts: &Counts) -> u64;
}

/// What ops are prepared from.
pub struct Prepare<'a> {
    pub plan: &'a Plan,
    pub limits: &'a Limits,
    pub kernels: &'a mut Kernels,
    pub memory: &'a mut Memory,
    pub inputs: &'a Inputs,
    /// Base address of each of the plan's buffers, matrices and vectors.
    pub buffers: &'a [DevicePtr],
    pub matrices: &'a [DevicePtr],
    /// Matrices that are kept in packed blocks.
    pub packed: &'a [Option<Packed>],
    pub vectors: &'a [DevicePtr],
    /// K and V of each layer.
    pub kv: &'a [(DevicePtr, DevicePtr)],
    /// Angles of each rotary table.
    pub angles: &'a [DevicePtr],
    /// Scratch that ops share, by name: one op runs at a time.
    pub shared: HashMap<&'static str, (DevicePtr, u64)>,
    pub driver: &'a dyn Driver,
    /// What choices are made for.
    pub card: Card,
    pub half: Half,
}

/// A view as kernels see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tensor {
    pub address: DevicePtr,
    /// Numbers of a row, and between rows.
    pub width: u32,
    pub stride: u32,
    pub rows: Rows,
    /// Logits are f32, all else 16 bits.
    pub f32: bool,
}

impl Tensor {
    /// Rows and columns allow 16-byte accesses.
    pub fn is_wide(&self) -> bool {
        let numbers = if self.f32 { 4 } else { 8 };
        self.width.is_multiple_of(numbers)
            && self.stride.is_multiple_of(numbers)
            && self.address.is_multiple_of(16)
    }
}

impl Prepare<'_> {
    pub fn tensor(&self, view: &View) -> Tensor {
        let buffer = &self.plan.buffers[view.buffer];
        let f32 = view.buffer == self.plan.logits.buffer;
        let bytes = if f32 { 4 } else { 2 };
        Tensor {
            address: self.buffers[view.buffer] + view.offset as u64 * bytes,
            width: view.width as u32,
            stride: buffer.width as u32,
            rows: buffer.rows,
            f32,
        }
    }

    /// Scratch of at least `bytes`, zeroed, shared by all ops that ask for this name.
    ///
    /// # Errors
    /// If memory runs out.
    pub fn scratch(&mut self, name: &'static str, bytes: u64) -> Result<DevicePtr> {
        match self.shared.get(name) {
            Some((address, size)) if *size >= bytes => Ok(*address),
            _ => {
                let address = self.memory.zeroed(bytes, name)?;
                self.shared.insert(name, (address, bytes));
                Ok(address)
            }
        }
    }
}

/// A step being launched, or captured.
pub struct Step<'a> {
    pub driver: &'a dyn Driver,
    pub stream: Stream,
    pub counts: Counts,
    /// Index in the plan of the op being launched.
    pub op: usize,
    /// The graph being captured: its kernels' nodes with the ops that they belong to.
    pub nodes: Option<&'a mut Vec<Node>>,
    /// Who wants to know what is launched.
    pub trace: Option<&'a mut StepTrace>,
}

impl<'a> Step<'a> {
    pub fn new(driver: &'a dyn Driver, stream: Stream, counts: Counts) -> Step<'a> {
        Step { driver, stream, counts, op: 0, nodes: None, trace: None }
    }

    /// Rows of a tensor in this step.
    pub fn rows(&self, rows: Rows) -> u32 {
        match rows {
            Rows::Tokens => self.counts.tokens,
            Rows::Logits => self.counts.logits,
        }
    }

    /// Queues a kernel with blocks as large as it allows.
    ///
    /// # Errors
    /// If the driver refuses it.
    pub fn run<P: Copy>(&mut self, kernel: &Kernel, grid: [u32; 3], params: &P) -> Result<()> {
        self.run_block(kernel, grid, kernel.block, params)
    }

    /// Queues a kernel; an empty grid is nothing to do.
    ///
    /// # Errors
    /// If the driver refuses it.
    pub fn run_block<P: Copy>(
        &mut self,
        kernel: &Kernel,
        grid: [u32; 3],
        block: u32,
        params: &P,
    ) -> Result<()> {
        if grid.contains(&0) {
            return Ok(());
        }
        let launch = Launch {
            function: kernel.function,
            grid,
            block: [block, 1, 1],
            cluster: [kernel.cluster.max(1), 1, 1],
            shared_bytes: kernel.shared,
            programmatic: kernel.programmatic,
            params: param_bytes(params),
        };
        let (driver, stream, owner) = (self.driver, self.stream, self.op as Owner);
        let what = Queued::Kernel(kernel.symbol, &launch);
        trace::around(self.trace.as_deref_mut(), stream, owner, what, &mut || {
            driver.launch(&launch, stream)
        })?;
        if let Some(nodes) = &mut self.nodes
            && let Some(handle) = self.driver.captured_node(self.stream)?
        {
            nodes.push(Node { handle, owner, kernel: kernel.symbol });
        }
        Ok(())
    }
}

/// Blocks of 256 threads that serve a row of `width` numbers, `numbers` a thread.
pub fn row_blocks(width: u32, numbers: u32) -> u32 {
    width.div_ceil(numbers * 256)
}
