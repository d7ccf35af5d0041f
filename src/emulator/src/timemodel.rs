//! Projected durations: how long a launch would take on a card if nothing but one resource held
//! it back, for each resource; the longest is the projection and names the bound.
//!
//! This is a roofline, not a simulator: it ignores instruction scheduling, cache replacement and
//! DRAM row conflicts. It answers "what limits this kernel, and by how much". Nothing it prints
//! was measured, so everything it prints says `projected`.

use std::fmt;

use crate::card::{Card, TensorType};

/// Registers are handed out to warps in units of this many.
const REGISTER_UNIT: u32 = 256;
/// Shared memory is handed out in units of this many bytes.
const SHARED_UNIT: u32 = 128;
/// Shared memory the system keeps for each block, in bytes.
const SHARED_RESERVED: u32 = 1024;
/// Warp schedulers, each with its own quarter of the registers.
const SCHEDULERS: u32 = 4;
/// Time from one small kernel's end to the next one's work, in seconds.
const LAUNCH_SECONDS: f64 = 2.0e-6;

/// What a block needs of an SM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockNeeds {
    /// Threads of a block.
    pub threads: u32,
    /// Registers of a thread, as the assembler reports them.
    pub registers: u32,
    /// Static and dynamic shared memory in bytes.
    pub shared: u32,
}

/// How many blocks fit on an SM, and which limit said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occupancy {
    /// Resident blocks per SM; 0 when a block does not fit at all.
    pub blocks: u32,
    /// Resident warps per SM.
    pub warps: u32,
    /// The limit.
    pub limit: Limit,
}

/// What bounds the number of resident blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Thread slots.
    Threads,
    /// Registers.
    Registers,
    /// Shared memory.
    Shared,
    /// Block slots.
    Blocks,
}

/// Blocks of this kind that an SM of `card` holds at once.
pub fn occupancy(card: &Card, needs: BlockNeeds) -> Occupancy {
    let warps = needs.threads.div_ceil(32).max(1);
    let per_warp = (needs.registers.max(1) * 32).next_multiple_of(REGISTER_UNIT);
    let warps_by_registers = card.registers / SCHEDULERS / per_warp * SCHEDULERS;
    let shared = needs.shared.saturating_add(SHARED_RESERVED).next_multiple_of(SHARED_UNIT);
    let fits = needs.shared <= card.shared_per_block && needs.threads <= 1024;
    let limits = [
        (card.threads_per_sm / 32 / warps, Limit::Threads),
        (warps_by_registers / warps, Limit::Registers),
        (if fits { card.shared_per_sm / shared } else { 0 }, Limit::Shared),
        (card.blocks_per_sm, Limit::Blocks),
    ];
    let mut tightest = limits[0];
    for l in limits {
        if l.0 < tightest.0 {
            tightest = l;
        }
    }
    Occupancy { blocks: tightest.0, warps: tightest.0 * warps, limit: tightest.1 }
}

/// What a launch does, summed over all its threads.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// Blocks of the grid.
    pub blocks: u64,
    /// Needs of each.
    pub needs: BlockNeeds,
    /// Warp instructions issued.
    pub warp_instructions: f64,
    /// f32 and f16 lane operations on the CUDA cores.
    pub float_lane_ops: f64,
    /// Integer and logic lane operations.
    pub int_lane_ops: f64,
    /// Special-function lane operations.
    pub special_lane_ops: f64,
    /// Tensor FLOPs by type, in the order of [`TensorType::ALL`].
    pub tensor_flops: [f64; 4],
    /// Shared-memory passes of 128 bytes, conflicts included.
    pub shared_passes: f64,
    /// Bytes between SMs and L2, whole sectors.
    pub l2_bytes: f64,
    /// Bytes between L2 and memory: at least each byte touched once.
    pub memory_bytes: f64,
    /// Bytes a warp has under way to memory at once, on average; 0 when not known.
    pub bytes_in_flight_per_warp: f64,
    /// Longest chain of dependent global accesses in one thread.
    pub dependent_accesses: f64,
}

/// The resource that a projection names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bound {
    /// Starting a kernel at all.
    Launch,
    /// Warp schedulers.
    Issue,
    /// f32 units.
    Float,
    /// Integer units.
    Integer,
    /// Special-function units.
    Special,
    /// Tensor cores.
    Tensor,
    /// Shared memory.
    Shared,
    /// L2 bandwidth.
    L2,
    /// Memory bandwidth.
    Memory,
    /// Too few bytes in flight, or one long chain of accesses.
    Latency,
}

impl Bound {
    /// A short name that does not change between versions.
    pub fn name(self) -> &'static str {
        match self {
            Bound::Launch => "launch",
            Bound::Issue => "issue",
            Bound::Float => "float",
            Bound::Integer => "integer",
            Bound::Special => "special",
            Bound::Tensor => "tensor",
            Bound::Shared => "shared",
            Bound::L2 => "l2",
            Bound::Memory => "memory",
            Bound::Latency => "latency",
        }
    }
}

/// A projected duration.
#[derive(Clone, Debug, PartialEq)]
pub struct Projection {
    /// The card's name.
    pub card: &'static str,
    /// Projected seconds: the longest of `bounds`.
    pub seconds: f64,
    /// Which one that is.
    pub bound: Bound,
    /// Seconds each resource alone would take, longest first, zeros left out.
    pub bounds: Vec<(Bound, f64)>,
    /// Residency of the launch's blocks.
    pub occupancy: Occupancy,
}

/// Projects a launch on a card. `None` when a block does not fit on an SM, or when the work uses a
/// tensor type that the card lacks.
pub fn project(card: &Card, work: &Work) -> Option<Projection> {
    let occupancy = occupancy(card, work.needs);
    let lacking = TensorType::ALL
        .into_iter()
        .any(|t| work.tensor_flops[t as usize] > 0.0 && card.tensor_rate(t) == 0.0);
    if occupancy.blocks == 0 || lacking {
        return None;
    }
    let mut bounds = sm_bounds(card, work);
    bounds.push((Bound::L2, work.l2_bytes / card.l2_bandwidth));
    let bandwidth = card.memory_bandwidth * card.memory_efficiency;
    bounds.push((Bound::Memory, work.memory_bytes / bandwidth));
    bounds.push((Bound::Latency, latency_seconds(card, work, occupancy)));
    bounds.push((Bound::Launch, LAUNCH_SECONDS));
    bounds.retain(|b| b.1 > 0.0);
    bounds.sort_by(|a, b| b.1.total_cmp(&a.1));
    let &(bound, seconds) = bounds.first()?;
    Some(Projection { card: card.name, seconds, bound, bounds, occupancy })
}

/// Bounds of the units inside SMs. Blocks are not split, so the SM with the most of them decides.
fn sm_bounds(card: &Card, work: &Work) -> Vec<(Bound, f64)> {
    let blocks = work.blocks.max(1);
    let fullest = blocks.div_ceil(u64::from(card.sms)) as f64 / blocks as f64;
    let seconds = |amount: f64, per_cycle: f64| amount * fullest / per_cycle / card.clock_hz;
    let tensor = TensorType::ALL
        .into_iter()
        .filter(|&t| work.tensor_flops[t as usize] > 0.0)
        .map(|t| seconds(work.tensor_flops[t as usize], card.tensor_rate(t)))
        .sum();
    vec![
        (Bound::Issue, seconds(work.warp_instructions, card.issue_per_cycle)),
        (Bound::Float, seconds(work.float_lane_ops, card.fp32_lanes)),
        (Bound::Integer, seconds(work.int_lane_ops, card.int_lanes)),
        (Bound::Special, seconds(work.special_lane_ops, card.special_lanes)),
        (Bound::Tensor, tensor),
        (Bound::Shared, seconds(work.shared_passes * 128.0, card.shared_bytes_per_cycle)),
    ]
}

/// Little's law: bytes moved, over bytes in flight, times latency; and at least the longest chain
/// of dependent accesses, once per wave of blocks.
fn latency_seconds(card: &Card, work: &Work, occupancy: Occupancy) -> f64 {
    let latency = card.memory_latency / card.clock_hz;
    let blocks = work.blocks.max(1);
    let slots = u64::from(card.sms) * u64::from(occupancy.blocks);
    let warps_per_block = u64::from(work.needs.threads.div_ceil(32).max(1));
    let resident_warps = blocks.min(slots) * warps_per_block;
    let in_flight = resident_warps as f64 * work.bytes_in_flight_per_warp;
    let streaming = if in_flight > 0.0 { work.memory_bytes / in_flight * latency } else { 0.0 };
    let waves = blocks.div_ceil(slots) as f64;
    streaming.max(waves * work.dependent_accesses * latency)
}

impl fmt::Display for Projection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let microseconds = self.seconds * 1e6;
        write!(f, "projected {microseconds:.2} µs on {}, bound by ", self.card)?;
        write!(f, "{}", self.bound.name())?;
        for (bound, seconds) in self.bounds.iter().skip(1).take(2) {
            write!(f, "; {} alone {:.2} µs", bound.name(), seconds * 1e6)?;
        }
        let Occupancy { blocks, warps, .. } = self.occupancy;
        write!(f, "; {blocks} blocks ({warps} warps) per SM")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::card::{A100, H100_SXM, RTX_4090};

    fn needs(threads: u32, registers: u32, shared: u32) -> BlockNeeds {
        BlockNeeds { threads, registers, shared }
    }

    /// Values worked out by hand from the rules of the occupancy calculator.
    #[test]
    fn occupancy_by_each_limit() {
        let of = |card, n| {
            let o = occupancy(card, n);
            (o.blocks, o.warps, o.limit)
        };
        assert_eq!(of(&H100_SXM, needs(256, 32, 0)), (8, 64, Limit::Threads));
        assert_eq!(of(&H100_SXM, needs(384, 168, 100_000)), (1, 12, Limit::Registers));
        assert_eq!(of(&H100_SXM, needs(128, 40, 100_000)), (2, 8, Limit::Shared));
        assert_eq!(of(&H100_SXM, needs(32, 16, 0)), (32, 32, Limit::Blocks));
        assert_eq!(of(&RTX_4090, needs(1024, 32, 0)), (1, 32, Limit::Threads));
        // 33 registers round to 40 a thread: 1280 a warp, 12 warps a quarter, 48 in all.
        assert_eq!(of(&A100, needs(128, 33, 0)), (12, 48, Limit::Registers));
        assert_eq!(of(&A100, needs(128, 32, 164 * 1024)).0, 0);
    }

    #[test]
    fn each_resource_can_be_the_bound() {
        let base = Work {
            blocks: 132 * 8,
            needs: needs(256, 32, 0),
            bytes_in_flight_per_warp: 512.0,
            ..Work::default()
        };
        type Change = fn(&mut Work);
        let cases: [(Bound, Change); 9] = [
            (Bound::Launch, |_| ()),
            (Bound::Issue, |w| w.warp_instructions = 1e9),
            (Bound::Float, |w| w.float_lane_ops = 1e11),
            (Bound::Special, |w| w.special_lane_ops = 1e10),
            (Bound::Tensor, |w| w.tensor_flops[1] = 1e12),
            (Bound::Shared, |w| w.shared_passes = 1e8),
            (Bound::L2, |w| w.l2_bytes = 1e9),
            (Bound::Memory, |w| w.memory_bytes = 1e9),
            (Bound::Latency, |w| {
                w.memory_bytes = 1e9;
                w.bytes_in_flight_per_warp = 32.0;
            }),
        ];
        for (bound, change) in cases {
            let mut work = base;
            change(&mut work);
            let p = project(&H100_SXM, &work).expect("fits");
            assert_eq!(p.bound, bound, "{p}");
            assert!(p.to_string().starts_with("projected "));
        }
    }

    #[test]
    fn projections_equal_the_peaks() {
        let mut work = Work { blocks: 132, needs: needs(128, 32, 0), ..Work::default() };
        work.tensor_flops[1] = 989.4e9;
        let p = project(&H100_SXM, &work).expect("fits");
        assert!((p.seconds / 1e-3 - 1.0).abs() < 1e-3, "{p}");
        // One block more than there are SMs: one SM works twice as long.
        work.blocks = 133;
        let q = project(&H100_SXM, &work).expect("fits");
        assert!((q.seconds / p.seconds - 2.0 * 132.0 / 133.0).abs() < 1e-9);
        // Eight-bit floats on a card without them.
        work.tensor_flops[2] = 1.0;
        assert_eq!(project(&A100, &work), None);
    }

    #[test]
    fn one_small_block_waits_for_its_chain() {
        let work = Work {
            blocks: 1,
            needs: needs(32, 32, 0),
            dependent_accesses: 100.0,
            ..Work::default()
        };
        let p = project(&H100_SXM, &work).expect("fits");
        assert_eq!(p.bound, Bound::Latency);
        assert!((p.seconds - 100.0 * 479.0 / 1.83e9).abs() < 1e-9);
    }
}
