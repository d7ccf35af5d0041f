//! A kernel as the machine holds it.

use super::Instr;

/// A kernel parameter's place in the parameter block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Param {
    pub name: String,
    pub offset: u32,
    pub size: u32,
    pub align: u32,
}

/// A kernel, decoded.
#[derive(Debug, Clone, PartialEq)]
pub struct Kernel {
    pub name: String,
    pub code: Vec<Instr>,
    /// Registers of up to 32 bits, of 64 bits, and predicates.
    pub regs32: u32,
    pub regs64: u32,
    pub preds: u32,
    /// Names of the registers by file and slot, for messages.
    pub names: [Vec<String>; 3],
    /// Printed forms, such as `ld.global.nc.v4.f32`.
    pub forms: Vec<String>,
    pub params: Vec<Param>,
    pub param_bytes: u32,
    /// Static shared memory; dynamic shared memory begins at `dyn_base`.
    pub shared_bytes: u32,
    pub dyn_base: u32,
    pub uses_dyn_shared: bool,
    pub local_bytes: u32,
    pub max_threads: Option<[u32; 3]>,
    /// `.maxnreg`: registers of a thread.
    pub max_registers: Option<u32>,
    pub required_threads: Option<[u32; 3]>,
    pub cluster: Option<[u32; 3]>,
    pub min_blocks: Option<u32>,
    /// `.loc` file and line pairs.
    pub locs: Vec<(u32, u32)>,
    /// The kernel uses bulk copies or wgmma, so proxies have to be tracked.
    pub uses_async_proxy: bool,
    pub uses_wgmma: bool,
    /// Threads order global memory by fences, or by acquire and release operations.
    pub orders_memory: bool,
}
