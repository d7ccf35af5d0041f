//! What a GPU tells of its own work while a capture is on: spans that know step and op.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::describe::Ceiling;
use crate::error::Result;

/// What a piece of work did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GpuWork {
    /// `registers` of a thread, `shared` memory of a block in bytes; 0 where nobody told.
    Kernel { name: Arc<str>, grid: [u32; 3], block: [u32; 3], registers: u32, shared: u32 },
    /// A copy; `to_host` tells its direction.
    Copy { bytes: u64, to_host: bool },
    /// Memory was set.
    Set { bytes: u64 },
    /// The host's call that queued work of the same correlation number.
    Launch,
    /// The host waited.
    Wait,
}

/// Whom a span belongs to: an op of the plan by its index, or one of these.
pub type Owner = u32;
/// Copying the step's tokens, positions and pages to the device.
pub const INPUT: Owner = u32::MAX;
/// Copying tokens or logits back.
pub const OUTPUT: Owner = u32::MAX - 1;
/// Rotary angles of the step's positions.
pub const ANGLES: Owner = u32::MAX - 2;
/// Copying pages of the key-value cache.
pub const PAGES: Owner = u32::MAX - 3;
/// Choosing tokens on the card.
pub const SAMPLING: Owner = u32::MAX - 4;
/// Nobody knows.
pub const UNKNOWN: Owner = u32::MAX - 5;
/// A launch of the graph of that number, all kernels together.
pub const GRAPH: Owner = 0x8000_0000;

/// What an owner that is no op is called.
pub fn owner_name(owner: Owner) -> &'static str {
    match owner {
        INPUT => "step input",
        OUTPUT => "results to host",
        ANGLES => "rotary angles",
        PAGES => "page copies",
        SAMPLING => "sampling",
        UNKNOWN => "unattributed",
        _ => "graph",
    }
}

/// Whether it is told which op: not of a graph as a whole.
pub fn is_known(owner: Owner) -> bool {
    !(GRAPH..=UNKNOWN).contains(&owner)
}

/// One piece of work, times on `CLOCK_MONOTONIC`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuSpan {
    pub work: GpuWork,
    pub step: u32,
    pub owner: Owner,
    pub stream: u32,
    /// Equal for a call and what it queued.
    pub correlation: u32,
    pub start_ns: u64,
    pub end_ns: u64,
}

/// How a GPU's times are known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Times {
    /// `CUPTI 13.0.1 (path)`, `CUDA events`, `projected by the emulator`.
    pub source: String,
    /// Why it is not CUPTI, where it might have been.
    pub fallback: Option<String>,
}

/// What one reading brought.
#[derive(Debug, Default)]
pub struct Taken {
    pub spans: Vec<GpuSpan>,
    /// Records that were lost, or were of a kind that is not read.
    pub dropped: u64,
    pub unknown: u64,
    /// Why nothing more will come.
    pub trouble: Option<String>,
}

/// A GPU that can tell. At most one session at a time.
pub trait GpuTrace: Send + Sync {
    /// Begins to tell; `None` if it is telling somebody already.
    fn begin(&self) -> Option<Times>;

    /// What is known since the last call; `last` also brings what is not complete.
    fn take(&self, last: bool) -> Taken;

    fn end(&self);

    /// Ops of the plan that run as one: first and number.
    fn fused(&self) -> Vec<(usize, usize)>;

    /// What it reaches at most, where the driver tells enough.
    fn ceiling(&self) -> Option<Ceiling>;

    /// Whether NVIDIA's profilers may be attached to it.
    fn is_cuda(&self) -> bool;

    /// Switches an attached profiler (`cuProfilerStart`).
    ///
    /// # Errors
    /// What the driver says.
    fn profiler(&self, on: bool) -> Result<()>;
}

/// A GPU that is telling, until it is ended.
pub struct Session {
    gpu: Arc<dyn GpuTrace>,
    pub times: Times,
    ended: AtomicBool,
}

impl Session {
    /// `None` if another session goes on.
    pub fn begin(gpu: &Arc<dyn GpuTrace>) -> Option<Session> {
        let times = gpu.begin()?;
        Some(Session { gpu: Arc::clone(gpu), times, ended: AtomicBool::new(false) })
    }

    pub fn take(&self, last: bool) -> Taken {
        match self.ended.load(Ordering::Acquire) {
            true => Taken::default(),
            false => self.gpu.take(last),
        }
    }

    /// Ends it; later calls change nothing.
    pub fn end(&self) {
        if !self.ended.swap(true, Ordering::AcqRel) {
            self.gpu.end();
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.end();
    }
}
