//! Which variant of a kernel runs, and on what grid: pure functions from a description and a card.
//!
//! Every choice enumerates the legal configurations, models their time, and takes the shortest.
//! The model ranks; its seconds are projections. What decides how numbers are rounded (the order
//! of sums) is the same in all configurations that one choice ranks, so that no choice changes a
//! token.

pub mod attention;
pub mod gemm;
pub mod record;

use super::driver::CardInfo;
use crate::types::Dtype;

/// What a choice needs to know of a card.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Card {
    /// Compute capability.
    pub capability: (u32, u32),
    pub multiprocessors: u32,
    /// Most dynamic shared memory of a block, bytes.
    pub shared_per_block: u32,
    /// Shared memory of a multiprocessor, bytes.
    pub shared_per_multiprocessor: u32,
    /// Bytes a second from memory, and from L2.
    pub memory_bandwidth: f64,
    pub l2_bandwidth: f64,
    /// Dense 16-bit FLOPs a second of `mma.sync`, and of `wgmma`.
    pub mma_rate: f64,
    pub wgmma_rate: f64,
    pub clock_hz: f64,
    /// Whether this card's wgmma gave the same bits as its mma.sync (checked when the model is
    /// loaded). If not, wgmma is left out: a token must not depend on the batch's size.
    pub wgmma_is_exact: bool,
}

impl Card {
    /// H100 SXM by its data sheet; 62 % of the tensor peak for `mma.sync`.
    pub const H100: Card = Card {
        capability: (9, 0),
        multiprocessors: 132,
        shared_per_block: 227 * 1024,
        shared_per_multiprocessor: 228 * 1024,
        memory_bandwidth: 3.35e12,
        l2_bandwidth: 5.5e12,
        mma_rate: 0.62 * 989.4e12,
        wgmma_rate: 989.4e12,
        clock_hz: 1.83e9,
        wgmma_is_exact: false,
    };

    /// What is known of a driver's card; what the driver does not tell is scaled from the data
    /// sheet of the nearest card above, by multiprocessors and clock.
    pub fn of(info: &CardInfo, wgmma_is_exact: bool) -> Card {
        let near = if info.capability >= (9, 0) { Card::H100 } else { Card::A100 };
        let known = |told: f64, else_: f64| if told > 0.0 { told } else { else_ };
        let clock_hz = known(info.clock_hz, near.clock_hz);
        let size = f64::from(info.sms) * clock_hz;
        let scale = size / (f64::from(near.multiprocessors) * near.clock_hz);
        Card {
            capability: info.capability,
            multiprocessors: info.sms.max(1),
            shared_per_block: info.shared_per_block,
            shared_per_multiprocessor: info.shared_per_sm,
            memory_bandwidth: known(info.memory_bandwidth, near.memory_bandwidth * scale),
            l2_bandwidth: near.l2_bandwidth * scale,
            mma_rate: near.mma_rate * scale,
            wgmma_rate: near.wgmma_rate * scale,
            clock_hz,
            wgmma_is_exact,
        }
    }

    /// A100 SXM 80 GB by its data sheet.
    pub const A100: Card = Card {
        capability: (8, 0),
        multiprocessors: 108,
        shared_per_block: 163 * 1024,
        shared_per_multiprocessor: 164 * 1024,
        memory_bandwidth: 2.04e12,
        l2_bandwidth: 4.0e12,
        mma_rate: 312e12,
        wgmma_rate: 0.0,
        clock_hz: 1.41e9,
        wgmma_is_exact: false,
    };
}

/// The storage type of activations, as symbols spell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Half {
    Bf16,
    F16,
}

impl Half {
    pub const ALL: [Half; 2] = [Half::Bf16, Half::F16];

    /// The type in which a model with this storage type is kept.
    pub fn of(dtype: Dtype) -> Half {
        if dtype == Dtype::F16 { Half::F16 } else { Half::Bf16 }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Half::Bf16 => "bf16",
            Half::F16 => "f16",
        }
    }
}

/// A launch's shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    pub grid: [u32; 3],
    pub block: u32,
    /// Dynamic shared memory, bytes.
    pub shared: u32,
    /// Blocks of a cluster along x.
    pub cluster: u32,
    /// The kernel waits for the one before it by itself, so it may be launched to start early
    /// (programmatic dependent launch). Others must not be.
    pub early: bool,
}
