//! What checks run kernels on: the PTX machine, which also counts and finds, or a real card.

use std::collections::BTreeMap;

use pacer_emulator::{Checks, LaunchSpec, Memory, Module, launch};

use crate::device::gpu::driver::{TensorMap, TensorMapSpec, emulated};
use crate::device::gpu::registry::{self, Kernel};

/// Warp instructions that a cluster may take; the largest case needs a tenth.
const BUDGET: u64 = 50_000_000;

/// A launch's blocks and threads.
#[derive(Debug, Clone, Copy)]
pub struct Geometry {
    pub grid: [u32; 3],
    pub block: u32,
    /// Dynamic shared memory, bytes.
    pub shared: u32,
}

impl Geometry {
    /// `blocks` blocks of `threads` threads.
    pub fn new(blocks: usize, threads: u32) -> Self {
        Geometry { grid: [blocks as u32, 1, 1], block: threads, shared: 0 }
    }

    pub fn y(mut self, blocks: usize) -> Self {
        self.grid[1] = blocks as u32;
        self
    }

    pub fn z(mut self, blocks: usize) -> Self {
        self.grid[2] = blocks as u32;
        self
    }

    pub fn shared(mut self, bytes: u32) -> Self {
        self.shared = bytes;
        self
    }
}

/// What a launch moved, where the machine counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// Bytes that threads asked of global memory, and gave it.
    pub read: u64,
    pub written: u64,
    /// 32-byte sectors that accesses touched, and the fewest that could have held their bytes.
    pub sectors: u64,
    pub sectors_least: u64,
    /// Passes through shared memory, and the fewest possible.
    pub wavefronts: u64,
    pub wavefronts_least: u64,
}

/// Runs kernels. Addresses are device addresses.
pub trait Machine {
    /// Allocates poisoned memory, aligned to 256 bytes.
    fn alloc(&mut self, bytes: usize) -> Result<u64, String>;

    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), String>;

    fn read(&mut self, address: u64, bytes: usize) -> Result<Vec<u8>, String>;

    /// Whether a kernel or a write reached every byte, and whether one reached any.
    fn reached(&mut self, address: u64, bytes: usize) -> Result<(bool, bool), String>;

    /// Encodes a tensor map the way this machine's TMA reads it.
    fn tensor_map(&mut self, spec: &TensorMapSpec<'_>) -> Result<TensorMap, String>;

    /// Runs a kernel to its end, in the order of blocks and warps that `seed` says.
    fn launch(
        &mut self,
        kernel: &'static Kernel,
        geometry: Geometry,
        params: &[u8],
        seed: u64,
    ) -> Result<Option<Counted>, String>;

    /// Frees everything; says what was written outside of allocations, if the machine can tell
    /// only now.
    fn clear(&mut self) -> Result<(), String>;
}

/// The PTX machine.
#[derive(Default)]
pub struct Emulated {
    modules: BTreeMap<&'static str, Module>,
    memory: Memory,
}

#[cfg(test)]
impl Emulated {
    /// Loads a module with a text of its PTX replaced; false if it has none such.
    pub fn replace(&mut self, module: &'static str, from: &str, to: &str) -> bool {
        let of = registry::MODULES.iter().find(|m| m.name == module).expect("a module");
        let original = of.ptx().expect("PTX");
        let ptx = original.replace(from, to);
        self.modules.insert(of.name, Module::parse(&ptx).expect("PTX that loads"));
        ptx != original
    }
}

impl Machine for Emulated {
    fn alloc(&mut self, bytes: usize) -> Result<u64, String> {
        self.memory.alloc(bytes as u64).map_err(|e| e.to_string())
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), String> {
        self.memory.write(address, bytes).map_err(|e| e.to_string())
    }

    fn read(&mut self, address: u64, bytes: usize) -> Result<Vec<u8>, String> {
        let mut out = vec![0; bytes];
        self.memory.read(address, &mut out).map_err(|e| e.to_string())?;
        Ok(out)
    }

    fn reached(&mut self, address: u64, bytes: usize) -> Result<(bool, bool), String> {
        let one = |i: usize| self.memory.written(address + i as u64, 1).map_err(|e| e.to_string());
        let list = (0..bytes).map(one).collect::<Result<Vec<bool>, String>>()?;
        Ok((list.iter().all(|w| *w), list.iter().any(|w| *w)))
    }

    fn tensor_map(&mut self, spec: &TensorMapSpec<'_>) -> Result<TensorMap, String> {
        Ok(TensorMap(emulated::tiled(spec).map_err(|e| e.to_string())?.encode()))
    }

    fn launch(
        &mut self,
        kernel: &'static Kernel,
        geometry: Geometry,
        params: &[u8],
        seed: u64,
    ) -> Result<Option<Counted>, String> {
        let (of, _) = registry::kernel(kernel.symbol).map_err(|e| e.to_string())?;
        if !self.modules.contains_key(of.name) {
            let module = of.ptx().map_err(|e| e.to_string())?;
            let module = Module::parse(&module).map_err(|e| e.to_string())?;
            self.modules.insert(of.name, module);
        }
        let spec = LaunchSpec {
            kernel: kernel.symbol,
            grid: geometry.grid,
            block: [geometry.block, 1, 1],
            cluster: [kernel.cluster, 1, 1],
            shared_bytes: geometry.shared,
            params,
            symbols: &[],
            seed,
            budget: BUDGET,
            checks: Checks::ALL,
            threads: 1,
        };
        let report =
            launch(&self.modules[of.name], &self.memory, &spec).map_err(|f| f.to_string())?;
        let c = &report.counters;
        Ok(Some(Counted {
            read: c.global_read,
            written: c.global_written,
            sectors: c.sectors,
            sectors_least: c.sectors_least,
            wavefronts: c.wavefronts,
            wavefronts_least: c.wavefronts_least,
        }))
    }

    fn clear(&mut self) -> Result<(), String> {
        self.memory = Memory::new();
        Ok(())
    }
}
