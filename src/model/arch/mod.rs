//! Architectures: config in, plan out.

mod decoder;

use crate::error::Result;

use super::builder::Builder;
use super::config::Config;
use super::plan::{KvShape, Plan};

/// The plan of `config` for sequences of up to `context` tokens.
///
/// # Errors
/// What [`Config::validate`] refuses, and rope factors of the wrong length.
pub fn plan(config: &Config, context: usize) -> Result<Plan> {
    config.validate()?;
    let kv = KvShape {
        layers: config.layers.len(),
        kv_heads: config.kv_heads,
        head_dim: config.head_dim,
    };
    let ropes = config.ropes.iter().map(|r| r.table(context)).collect::<Result<_>>()?;
    let mut builder = Builder::new(kv, config.vocab_size, ropes);
    decoder::decoder(&mut builder, config);
    Ok(builder.finish())
}
