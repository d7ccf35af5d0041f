//! Runs decoded kernels: grids of clusters of blocks of warps of lanes.

mod access;
mod atomic;
mod barrier;
mod bits;
mod bulk;
mod cluster;
mod compare;
mod convert;
mod copies;
mod counters;
mod dependents;
mod engine;
mod exchange;
mod fault;
mod flags;
mod float;
mod half;
mod int;
mod launch;
mod matrix;
mod mbarrier;
mod meet;
mod moves;
mod registers;
mod schedule;
mod span;
mod step;
mod traffic;
mod warp;
mod warp_access;
mod wgmma;

pub use counters::{Counters, Site};
pub use dependents::Prior;
pub(crate) use launch::check;
pub use launch::{Checks, LaunchSpec, Report, launch, launch_after};

/// Why a group of lanes does not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    Ready,
    /// For other lanes of the warp to reach the same instruction.
    Lanes,
    /// At a block barrier, arrived.
    Barrier(u32),
    /// At the cluster barrier, for this phase to pass.
    Cluster(u64),
    /// For registers of the block's pool; asked in vain when the state had this version.
    Registers(u64),
    /// Runs again, but asked in vain for something when the cluster's state had this version.
    Poll(u64),
}

/// What to do after an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Go on with the next one.
    Next,
    /// The group waits at this instruction and runs it again.
    Hold(Wait),
    /// The group waits, and goes on with the next instruction when woken.
    Pass(Wait),
    /// The lanes ended.
    Ended,
}
