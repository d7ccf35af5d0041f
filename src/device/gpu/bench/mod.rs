//! Times single kernels on a driver: each from a cold and a warm L2, beside the ceilings that the
//! same card reaches in this very run.
//!
//! [`Rig`] holds memory, modules and events; [`subjects`] lists what is timed, each with the least
//! bytes that must move and the operations that count; [`ceiling`] measures what the card can do.
//! On the PTX machine times are projected, and are good for trying the command only.

pub mod ceiling;
mod products;
mod rig;
mod rows;

pub use rig::{Job, Rig, Timing};

use super::choose::Card;
use super::driver::CardInfo;
use crate::error::Result;

/// One kernel on one shape.
pub struct Subject {
    /// Family and shape: `gemm 8B qkv 1x6144x4096`.
    pub name: String,
    /// Puts the inputs on the card.
    pub make: Box<dyn Fn(&mut Rig<'_>) -> Result<Job>>,
}

impl Subject {
    fn new(name: String, make: impl Fn(&mut Rig<'_>) -> Result<Job> + 'static) -> Self {
        Subject { name, make: Box::new(make) }
    }
}

/// How large the shapes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// Llama-3.1-8B's and Llama-3.2-1B's layers, and a ladder of rows.
    Full,
    /// A few rows of each kernel, to try the command where kernels are emulated.
    Small,
}

/// Everything that is timed, in the order of the report.
pub fn subjects(size: Size, card: &Card) -> Vec<Subject> {
    let mut list = Vec::new();
    products::gemm(size, card, &mut list);
    products::quant(size, card, &mut list);
    products::attention(size, card, &mut list);
    rows::subjects(size, &mut list);
    list
}

/// The card that choices are made for: what is known of its generation, with its own counts. Tiles
/// of wgmma are in the running: their speed is asked for here, not their bits.
pub fn card(info: &CardInfo) -> Card {
    let hopper = info.capability == (9, 0);
    let base = if hopper { Card::H100 } else { Card::A100 };
    Card {
        capability: info.capability,
        multiprocessors: info.sms,
        shared_per_block: info.shared_per_block,
        shared_per_multiprocessor: info.shared_per_sm,
        wgmma_is_exact: hopper,
        ..base
    }
}
