//! The HTTP server: one thread with all sockets, between clients and the engine's thread.
//!
//! ```text
//! sockets ⇄ event_loop ── routes ──▶ pool (parse, template, tokenise) ──▶ engine service
//!               ▲  └── answer: what a client has got, what it gets next ◀── reports ──┘
//! ```
//!
//! - [`options`], [`context`]: what is fixed before the first request.
//! - [`listener`], [`conn`], [`timers`], [`event_loop`]: sockets, deadlines, limits.
//! - [`lifecycle`]: how it ends.
//! - [`dispatch`], [`routes`], [`auth`]: who may call what; one file a group of routes.
//! - [`pool`]: work that would hold the loop up. - [`generate`]: requests on their way through
//!   the engine. - [`answer`]: their responses, whole or streamed.
//! - [`stats`], [`prometheus`]: counts and histograms.
//!
//! The loop never waits for anything but its poll; how long it was away from it is measured
//! (`pacer_loop_busy_seconds`), and how much of that it held itself up
//! (`pacer_loop_blocked_seconds_max`).

mod answer;
pub mod auth;
pub mod conn;
pub mod context;
mod dispatch;
pub mod event_loop;
mod generate;
mod lifecycle;
mod listener;
pub mod options;
mod pool;
mod prometheus;
mod reports;
pub mod routes;
mod stats;
mod timers;
mod timing;

pub use event_loop::{Server, run};
pub use options::Options;
