//! One instruction of one group of lanes.

use super::atomic::Atomic;
use super::cluster::Ctx;
use super::fault::{Run, Stop, stop, stop_lane};
use super::warp::{LANES, LaneCopies, lanes};
use super::{Flow, Wait, compare, convert, exchange, float, int, moves};
use crate::error::Rule;
use crate::isa::{Op, Order, Src, TrapKind};

/// Lanes that have to meet at an instruction.
pub enum Meet {
    /// None: the group goes alone.
    Alone,
    /// All lanes of the warp that have not exited.
    Warp,
    /// Those that the mask operand names.
    Named(Src),
}

/// Which lanes an instruction brings together.
pub fn meets(op: &Op) -> Meet {
    match op {
        Op::Shfl { mask, .. }
        | Op::Vote { mask, .. }
        | Op::Match { mask, .. }
        | Op::Redux { mask, .. }
        | Op::Elect { mask, .. }
        | Op::WarpSync { mask } => Meet::Named(*mask),
        Op::Bar(bar) if bar.aligned => Meet::Warp,
        Op::ClusterBar { aligned: true, .. }
        | Op::LdMatrix { .. }
        | Op::StMatrix { .. }
        | Op::MovMatrix { .. }
        | Op::Mma(_)
        | Op::Wgmma(_)
        | Op::WgmmaFence
        | Op::WgmmaCommit
        | Op::WgmmaWait { .. }
        | Op::SetMaxNReg { .. } => Meet::Warp,
        _ => Meet::Alone,
    }
}

/// Whether the processor has the wide vector registers that `dispatch_wide` is compiled for.
pub fn wide() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("lzcnt")
        && is_x86_feature_detected!("popcnt");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

impl Ctx<'_> {
    /// Executes an instruction for the lanes of `warp.mask`, which is not empty.
    #[inline(always)]
    pub fn step(&mut self, op: &Op) -> Run<Flow> {
        self.warp.bad = 0;
        let flow = self.dispatch_best(op)?;
        if self.warp.bad != 0 {
            return Err(self.undefined());
        }
        Ok(flow)
    }

    /// The error for reading a register that has no value.
    fn undefined(&self) -> Box<Stop> {
        let lane = self.warp.bad.trailing_zeros();
        let (file, slot) = self.warp.bad_reg;
        let names = &self.env.k.names[file as usize];
        let name = names.get(slot as usize).map_or("a register", |n| n.as_str());
        let (rule, message) = if file == 0 && self.warp.wgmma.slot_in_flight(slot) {
            let message = format!("{name} is an accumulator of a wgmma that was not waited for");
            (Rule::AsyncInFlight, message)
        } else {
            (Rule::Uninitialised, format!("{name} is read before it has a value"))
        };
        Box::new(Stop { rule, message, lane: Some(lane), others: Vec::new() })
    }

    /// `dispatch`, compiled for wide vector registers where the processor has them.
    #[inline(always)]
    fn dispatch_best(&mut self, op: &Op) -> Run<Flow> {
        #[cfg(target_arch = "x86_64")]
        if self.env.wide {
            // SAFETY: `wide` says that the processor has the features.
            return unsafe { self.dispatch_wide(op) };
        }
        self.dispatch_narrow(op)
    }

    /// Apart from [`Self::dispatch_wide`]'s caller: the compiler takes many minutes for one
    /// function that holds both.
    #[inline(never)]
    fn dispatch_narrow(&mut self, op: &Op) -> Run<Flow> {
        self.dispatch(op)
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,bmi1,bmi2,lzcnt,popcnt")]
    fn dispatch_wide(&mut self, op: &Op) -> Run<Flow> {
        self.dispatch(op)
    }

    #[inline(always)]
    fn dispatch(&mut self, op: &Op) -> Run<Flow> {
        match op {
            Op::Int1 { .. }
            | Op::Int2 { .. }
            | Op::Int3 { .. }
            | Op::Bfi { .. }
            | Op::Lop3 { .. }
            | Op::Prmt { .. }
            | Op::Carry { .. }
            | Op::Dot { .. }
            | Op::Pred2 { .. } => int::run(self, op),
            Op::F1 { .. } | Op::F2 { .. } | Op::Fma { .. } | Op::F3 { .. } | Op::TestP { .. } => {
                float::run(self, op)
            }
            Op::SetP { .. } | Op::Set { .. } | Op::SelP { .. } | Op::Slct { .. } => {
                compare::run(self, op)
            }
            Op::Cvt { form, d, a, b } => {
                convert::run(self, form, *d, a, b);
                true
            }
            Op::Ld { .. } | Op::St { .. } => return self.memory(op),
            Op::Shfl { .. } | Op::Vote { .. } => exchange::run(self, op)?,
            Op::Mov { .. } | Op::MovPred { .. } | Op::Pack { .. } | Op::Unpack { .. } => {
                moves::run(self, op)?
            }
            _ => return self.dispatch_rest(op),
        };
        Ok(Flow::Next)
    }

    #[inline(always)]
    fn memory(&mut self, op: &Op) -> Run<Flow> {
        match op {
            Op::Ld { space, ty, order, scope, d, addr } => {
                self.load(*space, *ty, (*order, *scope), d, addr)?;
                if order.strong() {
                    return Ok(self.polling(*order, d));
                }
            }
            Op::St { space, ty, order, scope, a, addr } => {
                self.store(*space, *ty, (*order, *scope), a, addr)?
            }
            _ => {}
        }
        Ok(Flow::Next)
    }

    #[inline(never)]
    fn dispatch_rest(&mut self, op: &Op) -> Run<Flow> {
        if exchange::run(self, op)? || moves::run_address(self, op)? {
            return Ok(Flow::Next);
        }
        match op {
            Op::Atom { space, op, ty, order, scope, d, addr, a, b, .. } => {
                let (space, op, ty, order, scope) = (*space, *op, *ty, *order, *scope);
                self.atomic(&Atomic { space, op, ty, order, scope, d, addr, a, b })?;
            }
            Op::Bar(bar) => return self.bar(bar),
            Op::WarpSync { .. } => self.warp_sync(),
            Op::ClusterBar { arrive, relaxed, .. } => return self.cluster_bar(*arrive, *relaxed),
            Op::Fence { kind } => self.fence(*kind),
            _ => return self.rest(op),
        }
        Ok(Flow::Next)
    }

    fn rest(&mut self, op: &Op) -> Run<Flow> {
        match op {
            Op::CpAsync { dst, src, bytes, src_bytes, ignore } => {
                self.cp_async(dst, src, *bytes, src_bytes.as_ref(), *ignore)?;
            }
            Op::CpCommit | Op::CpWait { .. } => self.cp_group(op)?,
            Op::CpMbarArrive { space, addr, noinc } => self.cp_mbar_arrive(*space, addr, *noinc)?,
            Op::LdMatrix { n, trans, d, addr, space } => {
                self.ldmatrix(*n, *trans, d, addr, *space)?
            }
            Op::StMatrix { n, trans, a, addr, space } => {
                self.stmatrix(*n, *trans, a, addr, *space)?
            }
            Op::MovMatrix { d, a } => self.movmatrix(*d, a),
            Op::Mma(m) => self.mma(m)?,
            Op::Mbar(m) => return self.mbar(m),
            Op::Bulk(b) => self.bulk(b)?,
            Op::GridDependency { wait: true } => self.grid_wait(),
            Op::BulkCommit => self.bulk_commit(),
            Op::SetMaxNReg { increase, count } => return self.set_max_registers(*increase, *count),
            Op::BulkWait { most, read } => self.bulk_wait(*most, *read)?,
            Op::WgmmaFence => self.wgmma_fence(),
            Op::WgmmaCommit => self.wgmma_commit(),
            Op::WgmmaWait { most } => return self.wgmma_wait(*most),
            Op::Wgmma(w) => self.wgmma(w)?,
            Op::Nanosleep { .. } => return Ok(Flow::Pass(Wait::Ready)),
            Op::Ret | Op::Exit => return self.exit(),
            Op::Trap { what } => {
                let message = match what {
                    TrapKind::Trap => "trap",
                    TrapKind::Assert => "a device assertion failed",
                };
                return stop(Rule::Trap, message);
            }
            _ => {}
        }
        Ok(Flow::Next)
    }

    /// A strong load that sees the same again: the group lets others run first.
    fn polling(&mut self, order: Order, d: &[crate::isa::Reg]) -> Flow {
        let mut sum = 0u64;
        for reg in d {
            for (i, v) in self.warp.reg64(*reg).iter().enumerate() {
                if self.warp.mask >> i & 1 != 0 {
                    sum = sum.wrapping_mul(0x100_0000_01b3).wrapping_add(*v ^ i as u64);
                }
            }
        }
        let _ = order;
        let (pc, mask) = (self.pc, self.warp.mask);
        let Some(g) = self.warp.groups.iter_mut().find(|g| g.mask & mask != 0) else {
            return Flow::Next;
        };
        let same = g.poll.0 == pc && g.poll.1 == sum;
        g.poll = (pc, sum, if same { g.poll.2 + 1 } else { 0 });
        if g.poll.2 < 2 {
            return Flow::Next;
        }
        self.cl.polls_memory = true;
        Flow::Pass(Wait::Poll(self.cl.version))
    }

    fn exit(&mut self) -> Run<Flow> {
        let mask = self.warp.mask;
        for lane in lanes(mask) {
            let count =
                |c: &LaneCopies| c.open.len() + c.groups.iter().map(Vec::len).sum::<usize>();
            let pending = self.warp.copies.get(lane as usize).map_or(0, count);
            if pending > 0 {
                let message = format!("{pending} cp.async copies were never waited for");
                return stop_lane(Rule::Leak, lane, message);
            }
            let own = self.warp_slot();
            let unread = self
                .cl
                .async_ops
                .iter()
                .any(|op| op.group && op.warp == own && op.lane == lane && op.data.is_none());
            if unread {
                let message = "a bulk copy still reads shared memory when its thread ends";
                return stop_lane(Rule::Leak, lane, message);
            }
        }
        if !self.warp.wgmma.idle() {
            return stop(Rule::Leak, "a wgmma was never waited for");
        }
        self.warp.live &= !mask;
        let n = mask.count_ones();
        self.block().live -= n;
        self.changed();
        Ok(Flow::Ended)
    }

    /// The lanes that the mask operand names, checked: every executing lane must be in its own.
    pub fn named(&mut self, mask: &Src) -> Run<u32> {
        self.warp.bad = 0;
        let masks = self.src32(mask);
        if self.warp.bad != 0 {
            return Err(self.undefined());
        }
        let first = self.warp.mask.trailing_zeros() as usize % LANES;
        for lane in lanes(self.warp.mask) {
            if masks[lane as usize] >> lane & 1 == 0 {
                let message = format!(
                    "lane {lane} is not in its own member mask {:#x}",
                    masks[lane as usize]
                );
                return stop_lane(Rule::BarrierMisuse, lane, message);
            }
        }
        Ok(masks[first])
    }
}
