//! Memory of the machine: address windows, global allocations, shared memory with its shadow.

mod flights;
pub mod global;
pub mod global_shadow;
pub mod reach;
mod record;
mod rows;
pub mod shadow;
pub mod shared;
pub mod touched;

pub use global::{Memory, MemoryError};

/// First address of a block's shared memory in the shared window: the system keeps the first KiB.
pub const SHARED_START: u32 = 1024;
/// Addresses of other blocks of a cluster carry rank + 1 from this bit on.
pub const RANK_SHIFT: u32 = 24;
/// Generic address of the shared window.
pub const SHARED_WINDOW: u64 = 0x0070_0000_0000_0000;
/// Generic address of the local window.
pub const LOCAL_WINDOW: u64 = 0x0071_0000_0000_0000;
/// Generic address of the kernel parameters.
pub const PARAM_WINDOW: u64 = 0x0072_0000_0000_0000;
/// Bytes of each window.
pub const WINDOW_BYTES: u64 = 1 << 32;
