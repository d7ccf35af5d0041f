//! The machine's state and its memory calls.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use super::config::Config;
use super::error::{Code, HostError, HostResult};
use super::graph::{Exec, GraphState};
use super::kernel::FunctionState;
use super::log::Log;
use super::module::LoadedModule;
use super::stream::{EventState, StreamState, Work};
use crate::exec::Counters;
use crate::memory::Memory;
use crate::tensor::tensormap::{MAP_BYTES, TensorMap};

/// A GPU as its host sees it. All calls may come from any thread.
pub struct Machine {
    config: Config,
    state: Mutex<State>,
}

/// Everything that calls change.
pub(super) struct State {
    pub config: Config,
    pub memory: Memory,
    /// Bytes allocated, and allocations made so far.
    pub used: u64,
    pub allocations: u64,
    /// Sizes of live allocations.
    pub sizes: HashMap<u64, u64>,
    /// Page-locked host memory by address.
    pub pinned: BTreeMap<usize, Box<[u64]>>,
    pub modules: HashMap<u64, LoadedModule>,
    pub functions: HashMap<u64, FunctionState>,
    pub streams: BTreeMap<u64, StreamState>,
    pub events: HashMap<u64, EventState>,
    pub graphs: HashMap<u64, GraphState>,
    pub execs: HashMap<u64, Exec>,
    /// Kernels launched so far.
    pub launches: u64,
    pub log: Log,
    /// What lost the context.
    pub lost: Option<HostError>,
    next: u64,
    pub moved: Moved,
}

/// Bytes of the sectors that each kernel so far touched, every sector once a kernel.
#[derive(Debug, Default)]
pub(super) struct Moved {
    read: AtomicU64,
    written: AtomicU64,
}

impl Moved {
    pub fn add(&self, counters: &Counters) {
        self.read.fetch_add(counters.distinct_read, Ordering::Relaxed);
        self.written.fetch_add(counters.distinct_written, Ordering::Relaxed);
    }
}

impl State {
    /// A handle that was never given before.
    pub fn handle(&mut self) -> u64 {
        self.next += 16;
        self.next
    }

    /// Refuses calls that may not be made while a stream captures.
    pub fn not_capturing(&self, what: &str) -> HostResult<()> {
        match self.streams.values().any(|s| s.capturing.is_some()) {
            true => Err(HostError::new(
                Code::CaptureUnsupported,
                format!("{what} is not allowed while a stream captures"),
            )),
            false => Ok(()),
        }
    }
}

impl Machine {
    /// A machine with nothing in it.
    pub fn new(config: Config) -> Self {
        let state = State {
            config: config.clone(),
            memory: Memory::new(),
            used: 0,
            allocations: 0,
            sizes: HashMap::new(),
            pinned: BTreeMap::new(),
            modules: HashMap::new(),
            functions: HashMap::new(),
            streams: BTreeMap::from([(0, StreamState::new(true))]),
            events: HashMap::new(),
            graphs: HashMap::new(),
            execs: HashMap::new(),
            launches: 0,
            log: Log::default(),
            lost: None,
            next: 0x1000,
            moved: Moved::default(),
        };
        Self { config, state: Mutex::new(state) }
    }

    /// How it was made.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The state, unless the context is lost.
    pub(super) fn state(&self) -> HostResult<MutexGuard<'_, State>> {
        let state = self.state.lock().unwrap_or_else(|e| e.into_inner());
        match &state.lost {
            Some(error) => Err(error.clone()),
            None => Ok(state),
        }
    }

    /// The state, lost or not.
    pub(super) fn any_state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// What lost the context, if it is lost.
    pub fn lost(&self) -> Option<HostError> {
        self.state.lock().unwrap_or_else(|e| e.into_inner()).lost.clone()
    }

    /// Bytes that kernels have read and written so far: what must have crossed the memory bus, had
    /// each found the caches empty.
    ///
    /// # Errors
    /// If the context is lost.
    pub fn moved(&self) -> HostResult<(u64, u64)> {
        let state = self.state()?;
        let bytes = |n: &AtomicU64| n.load(Ordering::Relaxed);
        Ok((bytes(&state.moved.read), bytes(&state.moved.written)))
    }

    /// Free and total bytes of device memory.
    ///
    /// # Errors
    /// If the context is lost.
    pub fn memory(&self) -> HostResult<(u64, u64)> {
        let state = self.state()?;
        Ok((self.config.memory.saturating_sub(state.used), self.config.memory))
    }

    /// Allocates device memory.
    ///
    /// # Errors
    /// [`Code::OutOfMemory`], or [`Code::InvalidValue`] for 0 bytes.
    pub fn alloc(&self, bytes: u64) -> HostResult<u64> {
        let mut state = self.state()?;
        state.not_capturing("an allocation")?;
        state.allocations += 1;
        let planted = self.config.faults.alloc;
        let free = self.config.memory.saturating_sub(state.used);
        if bytes > free || (planted > 0 && state.allocations >= planted) {
            let message = format!("{bytes} bytes wanted, {free} free");
            return Err(HostError::new(Code::OutOfMemory, message));
        }
        let address = state.memory.alloc(bytes)?;
        state.used += bytes;
        state.sizes.insert(address, bytes);
        Ok(address)
    }

    /// Frees device memory once all queued work is done.
    ///
    /// # Errors
    /// If `address` is not what [`Machine::alloc`] gave, or queued work fails.
    pub fn free(&self, address: u64) -> HostResult<()> {
        let mut state = self.state()?;
        state.not_capturing("freeing memory")?;
        state.drain_all()?;
        state.memory.free(address)?;
        state.used -= state.sizes.remove(&address).unwrap_or(0);
        Ok(())
    }

    /// Allocates zeroed page-locked host memory and returns its address.
    ///
    /// # Errors
    /// If the host has none.
    pub fn alloc_host(&self, bytes: usize) -> HostResult<usize> {
        let mut state = self.state()?;
        let words = bytes.div_ceil(8).max(1);
        let mut memory = Vec::new();
        if memory.try_reserve_exact(words).is_err() {
            let message = format!("{bytes} bytes of host memory wanted");
            return Err(HostError::new(Code::OutOfMemory, message));
        }
        memory.resize(words, 0u64);
        let mut memory = memory.into_boxed_slice();
        let address = memory.as_mut_ptr() as usize;
        state.pinned.insert(address, memory);
        Ok(address)
    }

    /// Frees page-locked memory once all queued work is done.
    ///
    /// # Errors
    /// If there is none at `address`, or queued work fails.
    pub fn free_host(&self, address: usize) -> HostResult<()> {
        let mut state = self.state()?;
        state.drain_all()?;
        match state.pinned.remove(&address) {
            Some(_) => Ok(()),
            None => Err(HostError::invalid(format!("{address:#x} is no page-locked memory"))),
        }
    }

    /// Copies to the device now, after the default stream's work.
    ///
    /// # Errors
    /// If the range is not in one allocation.
    pub fn upload(&self, to: u64, data: &[u8]) -> HostResult<()> {
        let mut state = self.state()?;
        state.not_capturing("a synchronous copy")?;
        state.drain_default()?;
        Ok(state.memory.write(to, data)?)
    }

    /// Copies from the device now, after the default stream's work.
    ///
    /// # Errors
    /// If the range is not in one allocation.
    pub fn download(&self, to: &mut [u8], from: u64) -> HostResult<()> {
        let mut state = self.state()?;
        state.not_capturing("a synchronous copy")?;
        state.drain_default()?;
        Ok(state.memory.read(from, to)?)
    }

    /// Copies within the device now, after the default stream's work.
    ///
    /// # Errors
    /// If a range is not in one allocation.
    pub fn copy(&self, to: u64, from: u64, bytes: u64) -> HostResult<()> {
        self.run_default(Work::Copy { to, from, bytes })
    }

    /// Fills `count` elements of 1, 2 or 4 bytes now, after the default stream's work.
    ///
    /// # Errors
    /// If the range is not in one allocation.
    pub fn fill(&self, to: u64, value: u32, width: u32, count: u64) -> HostResult<()> {
        self.run_default(Work::Fill { to, value, width, count })
    }

    fn run_default(&self, work: Work) -> HostResult<()> {
        let mut state = self.state()?;
        state.not_capturing("a synchronous copy")?;
        state.submit(0, work)?;
        state.drain(0)
    }

    /// Waits for all work.
    ///
    /// # Errors
    /// What the work failed with.
    pub fn synchronize(&self) -> HostResult<()> {
        let mut state = self.state()?;
        state.not_capturing("waiting for the device")?;
        state.drain_all()
    }

    /// Encodes a tensor map.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] with the rule that it breaks.
    pub fn encode(&self, map: &TensorMap) -> HostResult<[u8; MAP_BYTES]> {
        map.check().map_err(|e| HostError::invalid(e.to_string()))?;
        Ok(map.encode())
    }
}
