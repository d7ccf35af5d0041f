//! Which tokens run in the next step: a pure state machine, no I/O, clock, threads or tensors.
//!
//! ```text
//! submit ─▶ queued ─▶ running ─▶ finished           plan ─▶ Step ─▶ (device) ─▶ commit ─▶ events
//!                      ▲   │                                                or fail ─▶ events
//!                   preempted
//! ```
//!
//! - [`request`]: what goes in and comes out. - [`limits`]: sizes and policies.
//! - [`step`]: one step's work, laid out as a device wants it.
//! - [`core`]: [`Scheduler`] itself: submit, cancel, metrics.
//! - [`plan`]: decode, prefill chunks, preemption. - [`admit`]: who leaves the queue.
//! - [`commit`]: results come back. - [`audit`]: recount of everything.
//!
//! One step may be in flight while the next is planned; what its tokens will be is then unknown,
//! and the next step names them by their place ([`step::StepSequence::pending`]).
//!
//! Parallel samples of one prompt share its full pages and copy the partly filled one; each
//! computes the last prompt token itself, for logits of its own.
//!
//! Chunked prefill after Agrawal et al., "Sarathi-Serve" (2024); paging after Kwon et al.,
//! "PagedAttention" (2023); the prefix tree after Zheng et al., "SGLang" (2024).

mod admit;
mod audit;
mod commit;
mod core;
pub mod limits;
mod plan;
pub mod request;
mod sequence;
pub mod step;
#[cfg(test)]
mod tests;

pub use self::core::{Metrics, Scheduler, State};
pub use limits::{Limits, Policy};
pub use request::{End, Event, Finish, Output, Refusal, Request};
pub use step::{PageCopy, Step, StepSequence};
