//! The GPU device: ops become launches of Pacer's own kernels through a small [`driver`].

pub mod abi;
pub mod check;
pub mod choose;
pub mod driver;
pub mod quant;
pub mod registry;
pub mod turns;
