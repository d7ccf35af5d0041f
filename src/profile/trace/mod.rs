//! Records as a Chrome trace that ui.perfetto.dev and chrome://tracing open.
//!
//! - [`names`]: what files are called.
//! - [`json`]: single events as text.
//! - [`sink`]: a compressed file that grows to a cap and appears whole or not at all.
//! - [`requests`]: the way of each request to its first token.
//! - [`gpu`]: what a GPU tells, on its rows.
//! - [`rows`]: records as events, on rows for HTTP, requests, scheduler, steps, layers, ops,
//!   device streams and memory.

pub mod gpu;
pub mod json;
pub mod names;
pub mod requests;
pub mod rows;
pub mod sink;
