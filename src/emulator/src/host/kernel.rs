//! Kernels as launched: their attributes, what a launch asks for, and running one.

use std::sync::Arc;

use super::error::{Code, HostError, HostResult};
use super::machine::{Machine, State};
use super::project::projected_seconds;
use super::stream::Work;
use crate::card::Card;
use crate::exec::{LaunchSpec, Prior, check, launch_after};
use crate::isa::Kernel;
use crate::module::Module;
use crate::timemodel::{BlockNeeds, occupancy};

/// Dynamic shared memory that a launch may ask for without opting in, bytes.
const DEFAULT_SHARED: u32 = 48 << 10;

/// A kernel that can be launched.
#[derive(Clone)]
pub(super) struct FunctionState {
    pub module: Arc<Module>,
    pub symbols: Arc<[u64]>,
    /// Index of the kernel.
    pub kernel: usize,
    /// Most dynamic shared memory allowed, bytes.
    pub dynamic_limit: u32,
}

impl FunctionState {
    fn kernel(&self) -> &Kernel {
        &self.module.kernels[self.kernel]
    }
}

/// What a driver tells of a kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionInfo {
    pub name: String,
    /// Registers that a thread may have at most: the assembler, which would say how many it has,
    /// is not here. From the kernel's launch bounds and the registers that its text declares.
    pub registers: u32,
    pub shared_bytes: u32,
    pub local_bytes: u32,
    pub max_threads: u32,
    pub dynamic_limit: u32,
    /// Offset and size of each parameter, and of them all.
    pub params: Vec<(u32, u32)>,
    pub param_bytes: u32,
}

/// What a launch asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    pub function: u64,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Blocks of a cluster; [1, 1, 1] for none.
    pub cluster: [u32; 3],
    /// Dynamic shared memory, bytes.
    pub shared_bytes: u32,
    /// All parameters, laid out as the kernel declares.
    pub params: Vec<u8>,
    /// May begin when the kernel before it in the stream lets it (programmatic dependent launch).
    pub programmatic: bool,
}

/// A launch in a queue.
pub(super) struct Queued {
    pub function: FunctionState,
    pub launch: Launch,
}

impl Queued {
    pub fn name(&self) -> &str {
        &self.function.kernel().name
    }
}

impl Machine {
    /// The kernel `name` of a module.
    ///
    /// # Errors
    /// [`Code::NotFound`].
    pub fn function(&self, module: u64, name: &str) -> HostResult<u64> {
        let mut state = self.state()?;
        let loaded = state.modules.get(&module).ok_or(HostError::handle("module", module))?;
        let Some(kernel) = loaded.module.kernels.iter().position(|k| k.name == name) else {
            let message = format!("the module has no kernel {name}");
            return Err(HostError::new(Code::NotFound, message));
        };
        let function = FunctionState {
            module: Arc::clone(&loaded.module),
            symbols: Arc::clone(&loaded.symbols),
            kernel,
            dynamic_limit: DEFAULT_SHARED,
        };
        let handle = state.handle();
        state.functions.insert(handle, function);
        Ok(handle)
    }

    /// What is known of a kernel.
    ///
    /// # Errors
    /// If there is none of this handle.
    pub fn function_info(&self, function: u64) -> HostResult<FunctionInfo> {
        let state = self.state()?;
        let f = state.functions.get(&function).ok_or(HostError::handle("kernel", function))?;
        let k = f.kernel();
        Ok(FunctionInfo {
            name: k.name.clone(),
            registers: registers(k, self.config().card),
            shared_bytes: if k.uses_dyn_shared { k.dyn_base } else { k.shared_bytes },
            local_bytes: k.local_bytes,
            max_threads: max_threads(k),
            dynamic_limit: f.dynamic_limit,
            params: k.params.iter().map(|p| (p.offset, p.size)).collect(),
            param_bytes: k.param_bytes,
        })
    }

    /// Lets launches ask for up to `bytes` of dynamic shared memory.
    ///
    /// # Errors
    /// If the card's blocks cannot have that much.
    pub fn allow_dynamic(&self, function: u64, bytes: u32) -> HostResult<()> {
        let mut state = self.state()?;
        let most = self.config().card.shared_per_block;
        let Some(f) = state.functions.get_mut(&function) else {
            return Err(HostError::handle("kernel", function));
        };
        let total = u64::from(f.kernel().shared_bytes) + u64::from(bytes);
        if total > u64::from(most) {
            let message = format!("{total} bytes of shared memory; a block has {most}");
            return Err(HostError::invalid(message));
        }
        f.dynamic_limit = bytes;
        Ok(())
    }

    /// Blocks of this kind that an SM holds.
    ///
    /// # Errors
    /// If there is no such kernel.
    pub fn occupancy(&self, function: u64, threads: u32, dynamic: u32) -> HostResult<u32> {
        let info = self.function_info(function)?;
        let shared = info.shared_bytes.saturating_add(dynamic);
        let needs = BlockNeeds { threads, registers: info.registers, shared };
        Ok(occupancy(self.config().card, needs).blocks)
    }

    /// Queues a kernel.
    ///
    /// # Errors
    /// What cannot be launched is refused here; what it does wrong is told by a later call.
    pub fn launch(&self, launch: &Launch, stream: u64) -> HostResult<()> {
        let mut state = self.state()?;
        let Some(function) = state.functions.get(&launch.function).cloned() else {
            return Err(HostError::handle("kernel", launch.function));
        };
        if launch.shared_bytes > function.dynamic_limit {
            return Err(HostError::invalid(format!(
                "{}: {} bytes of dynamic shared memory; {} are allowed",
                function.kernel().name,
                launch.shared_bytes,
                function.dynamic_limit
            )));
        }
        let queued = Queued { function, launch: launch.clone() };
        check(queued.function.kernel(), &spec(&queued, self.config()))
            .map_err(|m| HostError::invalid(format!("{}: {m}", queued.name())))?;
        state.launches += 1;
        if let Some((count, code)) = self.config().faults.launch
            && count == state.launches
        {
            let error = HostError::new(code, format!("{}: a planted fault", queued.name()));
            if !code.is_sticky() {
                return Err(error);
            }
            return state.submit(stream, Work::Fail(error));
        }
        state.submit(stream, Work::Launch(Arc::new(queued)))
    }
}

fn spec<'a>(queued: &'a Queued, config: &super::Config) -> LaunchSpec<'a> {
    let launch = &queued.launch;
    LaunchSpec {
        kernel: queued.name(),
        grid: launch.grid,
        block: launch.block,
        cluster: launch.cluster,
        shared_bytes: launch.shared_bytes,
        params: &launch.params,
        symbols: &queued.function.symbols,
        seed: config.seed,
        budget: config.budget,
        checks: config.checks,
        threads: config.threads,
    }
}

impl State {
    /// Runs a queued kernel after what its stream did before; returns its projected seconds, and
    /// what it leaves to the next one.
    pub fn run_kernel(&self, queued: &Queued, before: &Prior) -> HostResult<(f64, Prior)> {
        let spec = spec(queued, &self.config);
        let alone = Prior::default();
        let prior = if queued.launch.programmatic { before } else { &alone };
        let module = &queued.function.module;
        let (report, prior) = launch_after(module, &self.memory, &spec, prior)?;
        self.moved.add(&report.counters);
        let k = queued.function.kernel();
        let needs = BlockNeeds {
            threads: queued.launch.block.iter().product(),
            registers: registers(k, self.config.card),
            shared: k.shared_bytes + queued.launch.shared_bytes,
        };
        Ok((projected_seconds(self.config.card, k, needs, &report), prior))
    }
}

fn max_threads(k: &Kernel) -> u32 {
    let bound = k.required_threads.or(k.max_threads);
    bound.map_or(1024, |t| t.iter().product::<u32>().clamp(1, 1024))
}

fn registers(k: &Kernel, card: &Card) -> u32 {
    let threads = max_threads(k).next_multiple_of(32) * k.min_blocks.unwrap_or(1).max(1);
    let bound = (card.registers / threads / 8 * 8).clamp(8, 255);
    (k.regs32 + 2 * k.regs64).clamp(8, bound)
}
