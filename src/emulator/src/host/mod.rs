//! The host's side of a GPU: memory, modules, streams, events, graphs and tensor maps over the
//! PTX machine.
//!
//! [`Machine`] behaves as a CUDA context does, as late as is legal: what is queued in a stream
//! runs when somebody waits for it, so a program that forgets to wait reads old data here too. Its
//! results carry CUDA's codes; a kernel's fault loses the context. Times are projected, never
//! measured.

mod config;
mod error;
mod graph;
mod kernel;
mod log;
mod machine;
mod module;
mod project;
mod stream;

pub use config::{Config, Faults};
pub use error::{Code, HostError, HostResult};
pub use graph::{Node, NodeWork};
pub use kernel::{FunctionInfo, Launch};
pub use log::{Direction, Ran, RanWork};
pub use machine::Machine;
