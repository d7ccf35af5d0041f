//! Matrix products `y = x · Mᵀ` of the CPU device.
//!
//! - [`layout`]: how a panel of 16 weight rows lies in memory; [`interleave`] makes it from a
//!   file's rows, [`pack`] whole matrices of it.
//! - [`kernels`]: the table of kernels of one instruction set ([`scalar`], `avx2`,
//!   `avx512`, `neon`).
//! - [`integer`]: what activations are quantised to.
//! - [`scratch`]: activations in the kernels' layout.
//! - [`mapping`]: huge pages for weights; [`memory`] buffers in them.
//! - [`product`]: blocking and the split over threads; `streams` for few rows.
//!
//! One promise holds everywhere: an output element depends on its activation row and its weight
//! row alone, bit for bit, whatever the number of rows, the threads or the place in a batch.

mod at_type;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod integer;
mod interleave;
mod kernels;
mod layout;
mod mapping;
mod memory;
#[cfg(target_arch = "aarch64")]
mod neon;
mod pack;
mod product;
mod scalar;
mod scratch;
mod streams;
#[cfg(test)]
mod tests;

pub use kernels::Isa;
pub use pack::{PackPart, PackedMatrix};
pub use product::{Mode, matmul};
pub use scratch::Scratch;
pub use streams::streams;
