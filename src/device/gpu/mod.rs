//! The GPU device: ops become launches of Pacer's own kernels.

pub mod abi;
pub mod check;
pub mod registry;
pub mod turns;
