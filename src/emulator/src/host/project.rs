//! Projected time of a launch, from its counters.

use crate::card::Card;
use crate::exec::Report;
use crate::isa::MatTy;
use crate::timemodel::{BlockNeeds, Work, project};

/// Seconds of a launch with nothing to do.
const LAUNCH: f64 = 2.0e-6;

/// Seconds that the launch would take on the card by its busiest resource: instructions issued,
/// matrix operations, passes through shared memory, sectors moved.
pub(super) fn projected_seconds(card: &Card, needs: BlockNeeds, report: &Report) -> f64 {
    let c = &report.counters;
    let bytes = c.sectors as f64 * 32.0;
    let mut work = Work {
        blocks: report.blocks,
        needs,
        warp_instructions: report.instructions as f64,
        shared_passes: c.wavefronts as f64,
        l2_bytes: bytes,
        memory_bytes: bytes,
        ..Work::default()
    };
    for (ty, flops) in &c.tensor_flops {
        work.tensor_flops[unit(*ty)] += *flops as f64;
    }
    project(card, &work).map_or(LAUNCH, |p| p.seconds)
}

/// Index into [`Work::tensor_flops`].
fn unit(ty: MatTy) -> usize {
    match ty {
        MatTy::Tf32 | MatTy::F64 => 0,
        MatTy::F16 | MatTy::Bf16 => 1,
        MatTy::E4m3 | MatTy::E5m2 => 2,
        _ => 3,
    }
}
