//! A whole data set at once through the engine in this process: what
//! `pacer bench-offline-throughput` measures. No HTTP, continuous batching as when serving.
//!
//! - [`run`]: requests in, what happened out. - [`engine`]: the engine behind it.
//! - [`row`]: results as JSON and text.

pub mod engine;
pub mod profile;
pub mod row;
pub mod run;
