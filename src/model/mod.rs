//! Models as data: configuration, plan, cost.

pub mod arch;
pub mod builder;
pub mod config;
pub mod config_gguf;
pub mod config_hf;
pub mod cost;
mod fields;
pub mod plan;
pub mod rope;
mod rope_hf;
