//! A strict PTX machine: runs the PTX that ships on a CPU and reports what a GPU would hide.
//!
//! `parse` turns text into statements, `lower` into decoded instructions ([`isa`]), `exec` runs
//! them over `memory`. The crate knows nothing of what the kernels are for.

pub mod analysis;
pub mod card;
mod error;
mod exec;
pub mod host;
pub mod isa;
mod lower;
mod memory;
mod module;
mod parse;
pub mod report;
pub mod tensor;
pub mod timemodel;
mod work;

pub use error::{Actor, Fault, LoadError, Place, Rule};
pub use exec::{Checks, Counters, LaunchSpec, Prior, Report, Site, launch, launch_after};
pub use memory::{Memory, MemoryError};
pub use module::{Module, Variable};
