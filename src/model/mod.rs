//! Models as data: configuration, plan, cost.

pub mod arch;
pub mod builder;
pub mod config;
pub mod cost;
pub mod plan;
pub mod rope;
