//! cp.async: copies that are performed only when their thread waits for them.

use super::access::Target;
use super::cluster::Ctx;
use super::fault::{Run, refused, stop_lane};
use super::warp::{PendingCopy, lanes};
use crate::error::Rule;
use crate::isa::{Addr, Op, Order, PSrc, Space, Src};

impl Ctx<'_> {
    pub fn cp_async(
        &mut self,
        dst: &Addr,
        src: &Addr,
        bytes: u32,
        src_bytes: Option<&Src>,
        ignore: Option<PSrc>,
    ) -> Run<()> {
        let (to, from) = (self.addresses(dst), self.addresses(src));
        let sizes = src_bytes.map(|s| self.src32(s));
        let ignored = ignore.map_or(0, |p| self.warp.pred(p));
        if self.warp.bad != 0 {
            return Ok(());
        }
        let mut reading = 0;
        for lane in lanes(self.warp.mask) {
            let i = lane as usize;
            let size = if ignored >> lane & 1 != 0 { 0 } else { sizes.map_or(bytes, |s| s[i]) };
            if size > bytes {
                let message = format!("cp.async reads {size} bytes for {bytes}");
                return stop_lane(Rule::BadOperand, lane, message);
            }
            self.aligned(to[i], bytes, lane)?;
            self.aligned(from[i], bytes, lane)?;
            if size > 0 {
                self.global(from[i], size, lane, "cp.async read")?;
                reading |= 1 << lane;
            }
            let dst = to[i] as u32;
            self.claim(self.warp.rank, dst, bytes, lane)?;
            let pc = self.pc;
            let copy = PendingCopy { dst, src: from[i], bytes, src_bytes: size, pc };
            self.warp.lane_copies(lane).open.push(copy);
        }
        // Lanes that only fill with zeros ask nothing of memory.
        if reading != 0 {
            self.count_global(&from, reading, bytes, false);
        }
        self.count_shared(&to, self.warp.mask, bytes, true);
        Ok(())
    }

    /// Marks shared memory as the destination of an asynchronous copy that a lane starts.
    pub fn claim(&mut self, rank: usize, address: u32, bytes: u32, lane: u32) -> Run<()> {
        let (who, clock) = (self.access(lane, false), self.warp.clock(lane).clone());
        let races = self.env.checks.races;
        let shared = &mut self.cl.blocks[rank].shared;
        let at = match shared.offset(address, bytes) {
            Ok(at) => at,
            Err(r) => return refused(r, lane, "asynchronous write", address),
        };
        if shared.holds_mbarrier(at, bytes as usize) {
            let r = crate::memory::shared::Refusal::Mbarrier;
            return refused(r, lane, "asynchronous write", address);
        }
        match shared.claim(at, bytes, &who, &clock, races) {
            Ok(()) => Ok(()),
            Err(c) => {
                let r = crate::memory::shared::Refusal::Conflict(c);
                refused(r, lane, "asynchronous write", address)
            }
        }
    }

    pub fn cp_group(&mut self, op: &Op) -> Run<()> {
        for lane in lanes(self.warp.mask) {
            match op {
                Op::CpCommit => {
                    let open = std::mem::take(&mut self.warp.lane_copies(lane).open);
                    self.warp.lane_copies(lane).groups.push_back(open);
                }
                Op::CpWait { most } => {
                    let keep = most.map_or(0, |n| n as usize);
                    while self.warp.lane_copies(lane).groups.len() > keep {
                        let group =
                            self.warp.lane_copies(lane).groups.pop_front().unwrap_or_default();
                        self.perform(&group, lane)?;
                    }
                    if most.is_none() {
                        let open = std::mem::take(&mut self.warp.lane_copies(lane).open);
                        self.perform(&open, lane)?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Performs copies of a lane now.
    pub fn perform(&mut self, copies: &[PendingCopy], lane: u32) -> Run<()> {
        for copy in copies {
            let mut data = [0u8; 16];
            let size = copy.src_bytes as usize;
            let mut from = 0;
            while from < size {
                // The longest part that is aligned: sizes need not be powers of two.
                let step = 1usize << (size - from).ilog2();
                let part = &mut data[from..from + step];
                self.read(Target::Global(copy.src + from as u64), part, lane, Order::Weak)?;
                from += step;
            }
            let who = self.access(lane, false);
            let who = crate::memory::shadow::Access { pc: copy.pc, ..who };
            let clock = self.warp.clock(lane).clone();
            let shared = &mut self.cl.blocks[self.warp.rank].shared;
            let Ok(at) = shared.offset(copy.dst, copy.bytes) else { continue };
            shared.put(at, &data[..copy.bytes as usize]);
            shared.land(at, copy.bytes, &who, &clock);
        }
        if !copies.is_empty() {
            self.changed();
        }
        Ok(())
    }

    /// cp.async.mbarrier.arrive: an arrival once the lane's copies so far are done. They are
    /// performed when the arrival is, which is here: the phase is observed only by a wait.
    pub fn cp_mbar_arrive(&mut self, space: Space, addr: &Addr, noinc: bool) -> Run<()> {
        let at = self.addresses(addr);
        for lane in lanes(self.warp.mask) {
            let (rank, at) = self.mbar_at(space, at[lane as usize], lane)?;
            if !noinc {
                self.mbar_mut(rank, at, lane)?.pending += 1;
            }
            self.cl.next_op += 1;
            let op = super::bulk::AsyncOp {
                id: self.cl.next_op,
                pc: self.pc,
                lane,
                warp: self.warp_slot(),
                pieces: Vec::new(),
                data: None,
                reduce: None,
                mbars: vec![(rank, at, 0)],
                arrives: true,
                group: false,
                issued: None,
            };
            self.cl.async_ops.push(op);
        }
        Ok(())
    }
}
