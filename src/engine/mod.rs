//! A batch in, tokens out: a model on a device, stepped by the scheduler.
//!
//! - [`options`], [`locate`], [`model`]: what is loaded. - [`sizes`]: how it fits into memory.
//! - [`core`]: [`Engine`] itself. - [`request`]: what goes in and comes out.
//! - [`params`], [`sampler`], [`philox`], [`logprobs`]: how a token is chosen and scored.
//! - [`choice`]: a running continuation: text, stop strings, end. - [`step`]: one step.
//! - [`overlap`], [`device_thread`]: the next step runs while a step's results are handled.
//! - [`asked`]: what a device that samples is asked for. - [`outcome`]: from a step to news.
//! - [`service`]: the engine on a thread of its own, behind two bounded queues.
//! - [`trace`], [`describe`]: what the profiler is told of steps and of the model.

mod asked;
mod choice;
pub mod collect;
pub mod core;
pub mod default_model;
pub mod describe;
mod device_thread;
pub mod locate;
pub mod logprobs;
pub mod model;
pub mod options;
mod outcome;
pub mod overlap;
pub mod params;
pub mod ranges;
pub use crate::device::philox;
pub mod request;
pub mod sampler;
pub mod service;
pub mod sizes;
pub mod step;
pub mod trace;

pub use self::core::Engine;
