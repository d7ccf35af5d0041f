//! Pacer: serve large language models, measure them, see where the time goes.
//!
//! Rooms, lowest first; a room imports only rooms above it in this list (`tests/tidy.rs`):
//!
//! - [`error`], [`types`]: plain things everyone may use.
//! - [`kv`], [`scheduler`], [`text`], [`http`], [`measure`], [`profile::recorder`]: leaves.
//! - [`model`], [`weights`]: a model as a list of ops; named tensors.
//! - [`device`]: runs plans.
//! - [`engine`]: a batch in, tokens out.
//! - [`bench`], [`server`]: what commands call.
//! - [`commands`]: one thin file a subcommand.

pub mod bench;
pub mod commands;
pub mod device;
pub mod engine;
pub mod error;
pub mod http;
pub mod kv;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod maths;
pub mod measure;
pub mod model;
pub mod profile;
pub mod scheduler;
pub mod server;
pub mod text;
pub mod types;
pub mod weights;
