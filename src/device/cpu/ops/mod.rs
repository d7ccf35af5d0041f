//! Ops that work row by row: norms, rotary embedding, activations.

pub mod activation;
pub mod norm;
pub mod rope;
