//! Timelines: recording (always on), captures of chosen steps, and what is made of records.
//!
//! - [`clock`], [`record`], [`ring`], [`recorder`]: what threads write while they work.
//! - [`control`]: which steps a capture takes; [`request`]: what it was asked for.
//! - [`stack`]: from where ops are launched; [`step`]: one step as a file that can be replayed.
//! - [`paths`], [`folder`]: where files may go.
//! - [`describe`]: what ops are and cost, given by the engine.
//! - [`trace`], [`summary`]: records as a Chrome trace, and as tables.
//! - [`merge`]: the traces of several ranks as one; [`validate`]: what a trace must be.
//! - [`gpu`], [`cupti`]: what a GPU itself says of its kernels, and NVIDIA's way to ask.
//! - [`nvtx`]: ranges for NVIDIA's tools.
//! - [`profiler`]: all of it joined: one capture at a time, written by a thread of its own.

pub mod clock;
pub mod control;
pub mod cupti;
pub mod describe;
pub mod folder;
pub mod gpu;
pub mod merge;
pub mod nvtx;
pub mod paths;
pub mod profiler;
pub mod record;
pub mod recorder;
pub mod request;
pub mod ring;
pub mod stack;
pub mod step;
pub mod summary;
pub mod trace;
pub mod validate;
