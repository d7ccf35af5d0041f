//! The GPU device: ops become launches of Pacer's own kernels.

pub mod abi;
pub mod registry;
