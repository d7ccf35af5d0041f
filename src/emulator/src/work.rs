//! From what a launch counted to the work that the time model projects.

use crate::analysis::memory_stalls;
use crate::card::TensorType;
use crate::exec::Report;
use crate::isa::{Class, Kernel, MatTy, Op, Ty};
use crate::timemodel::{BlockNeeds, Work};

fn tensor_type(ty: MatTy) -> Option<TensorType> {
    Some(match ty {
        MatTy::Tf32 => TensorType::Tf32,
        MatTy::F16 | MatTy::Bf16 => TensorType::Half,
        MatTy::E4m3 | MatTy::E5m2 => TensorType::Fp8,
        MatTy::S8 | MatTy::U8 => TensorType::Int8,
        _ => return None,
    })
}

/// Passes that an instruction makes through its unit: wide integers go in halves.
fn passes(op: &Op) -> f64 {
    let wide = |ty: &Ty| if ty.bits() == 64 { 2.0 } else { 1.0 };
    match op {
        Op::Int1 { ty, .. } | Op::Int2 { ty, .. } | Op::Int3 { ty, .. } => wide(ty),
        _ => 1.0,
    }
}

impl Work {
    /// The work of a launch that ran to its end.
    pub fn of(k: &Kernel, report: &Report, needs: BlockNeeds) -> Self {
        let c = &report.counters;
        let mut work = Self {
            blocks: report.blocks,
            needs,
            shared_passes: c.wavefronts as f64,
            l2_bytes: 32.0 * c.sectors as f64,
            memory_bytes: (c.distinct_read + c.distinct_written) as f64,
            ..Self::default()
        };
        let stalls = memory_stalls(k);
        let mut stalled = 0u64;
        for (pc, (instr, site)) in k.code.iter().zip(&c.sites).enumerate() {
            let lanes = site.lanes as f64 * passes(&instr.op);
            match instr.op.class() {
                Class::Float => work.float_lane_ops += lanes,
                Class::Special => work.special_lane_ops += lanes,
                Class::Integer | Class::Move => work.int_lane_ops += lanes,
                _ => {}
            }
            work.warp_instructions += site.warps as f64 * passes(&instr.op);
            if stalls[pc] {
                stalled += site.warps - site.waits.min(site.warps);
            }
        }
        for (ty, flops) in &c.tensor_flops {
            if let Some(ty) = tensor_type(*ty) {
                work.tensor_flops[ty as usize] += *flops as f64;
            }
        }
        let warps = report.blocks * u64::from(needs.threads.div_ceil(32).max(1));
        if stalled > 0 {
            work.bytes_in_flight_per_warp = c.global_read as f64 / stalled as f64;
            work.dependent_accesses = (stalled as f64 / warps.max(1) as f64).max(1.0);
        }
        work
    }
}
