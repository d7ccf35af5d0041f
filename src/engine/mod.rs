//! A batch in, tokens out.

pub mod default_model;
pub mod logprobs;
pub mod params;
pub mod philox;
pub mod sampler;
