//! mbarrier objects: arrivals, transaction bytes, phases, and what they make known.

use super::access::Target;
use super::cluster::Ctx;
use super::fault::{Run, refused, stop_lane};
use super::warp::{LANES, V64, each_lane, lanes};
use super::{Flow, Wait};
use crate::error::Rule;
use crate::isa::{Mbar, MbarKind, Space};
use crate::memory::shadow::Clock;
use crate::memory::shared::{Mbarrier, Refusal};

/// Most arrivals that an mbarrier counts.
const MAX_COUNT: u32 = (1 << 20) - 1;

impl Ctx<'_> {
    /// Rank and address of the mbarrier that a lane names.
    pub fn mbar_at(&self, space: Space, address: u64, lane: u32) -> Run<(usize, u32)> {
        self.aligned(address, 8, lane)?;
        match self.resolve(space, address, lane)? {
            Target::Shared(rank, at) => Ok((rank, at)),
            _ => stop_lane(Rule::BarrierMisuse, lane, "an mbarrier lives in shared memory"),
        }
    }

    /// The mbarrier at an address.
    pub fn mbar_mut(&mut self, rank: usize, at: u32, lane: u32) -> Run<&mut Mbarrier> {
        match self.cl.blocks[rank].shared.mbars.get_mut(&at) {
            Some(bar) => Ok(bar),
            None => {
                let message = format!("no mbarrier was initialised at shared address {at:#x}");
                stop_lane(Rule::BarrierMisuse, lane, message)
            }
        }
    }

    pub fn mbar(&mut self, m: &Mbar) -> Run<Flow> {
        let a = self.src64(&m.a);
        if m.kind == MbarKind::PendingCount {
            let r: V64 = each_lane(|i| a[i] & u64::from(MAX_COUNT));
            self.warp.set64(m.d, &r);
            return Ok(Flow::Next);
        }
        let at = self.addresses(&m.addr);
        if self.warp.bad != 0 {
            return Ok(Flow::Next);
        }
        if let MbarKind::Test { parity, .. } = m.kind {
            return self.mbar_test(m, &at, &a, parity);
        }
        let mut tokens: V64 = [0; LANES];
        for lane in lanes(self.warp.mask) {
            let i = lane as usize;
            let (rank, at) = self.mbar_at(m.space, at[i], lane)?;
            tokens[i] = self.mbar_update(m, rank, at, lane, a[i] as u32)?;
        }
        self.changed();
        self.warp.set64(m.d, &tokens);
        Ok(Flow::Next)
    }

    fn mbar_update(&mut self, m: &Mbar, rank: usize, at: u32, lane: u32, v: u32) -> Run<u64> {
        match m.kind {
            MbarKind::Init => self.mbar_init(rank, at, lane, v)?,
            MbarKind::Inval => {
                self.mbar_mut(rank, at, lane)?;
                let shared = &mut self.cl.blocks[rank].shared;
                shared.mbars.remove(&at);
                if let Ok(offset) = shared.offset(at, 8) {
                    shared.set_mbarrier(offset, false);
                }
            }
            MbarKind::ExpectTx => {
                self.mbar_mut(rank, at, lane)?.tx += i64::from(v);
                self.tx_in_range(rank, at, lane)?;
            }
            MbarKind::CompleteTx => {
                let bar = self.mbar_mut(rank, at, lane)?;
                bar.tx -= i64::from(v);
                bar.settle();
            }
            MbarKind::Arrive { expect_tx, drop, no_complete } => {
                let (count, tx) = if expect_tx { (1, v) } else { (v, 0) };
                let known = if m.releases { Some(self.warp.knowledge(1 << lane)) } else { None };
                self.warp.advance(1 << lane);
                let left = self.mbar_mut(rank, at, lane)?.pending;
                if no_complete && count >= left {
                    let message = format!("arrive.noComplete of {count} completes the phase");
                    return stop_lane(Rule::BarrierMisuse, lane, message);
                }
                return self.mbar_arrive(rank, at, lane, (count, tx, drop), known);
            }
            MbarKind::Test { .. } | MbarKind::PendingCount => {}
        }
        Ok(0)
    }

    fn mbar_init(&mut self, rank: usize, at: u32, lane: u32, count: u32) -> Run<()> {
        if count == 0 || count > MAX_COUNT {
            let message = format!("mbarrier initialised with {count} arrivals");
            return stop_lane(Rule::BarrierMisuse, lane, message);
        }
        let (who, clock) = (self.access(lane, false), self.warp.clock(lane).clone());
        let shared = &mut self.cl.blocks[rank].shared;
        let offset = match shared.offset(at, 8) {
            Ok(offset) => offset,
            Err(r) => return refused(r, lane, "mbarrier.init", at),
        };
        if shared.mbars.contains_key(&at) {
            let message = format!("the mbarrier at {at:#x} is initialised twice without inval");
            return stop_lane(Rule::BarrierMisuse, lane, message);
        }
        if shared.holds_mbarrier(offset, 8) {
            return refused(Refusal::Mbarrier, lane, "mbarrier.init", at);
        }
        if let Err(c) = shared.access(offset, 8, &who, &clock, true) {
            return refused(Refusal::Conflict(c), lane, "mbarrier.init", at);
        }
        shared.set_mbarrier(offset, true);
        let empty = clock.empty();
        let bar = Mbarrier {
            expected: count,
            pending: count,
            tx: 0,
            phase: 0,
            gathering: empty.clone(),
            done: empty,
        };
        shared.mbars.insert(at, bar);
        Ok(())
    }

    /// Checks that the initialisation is ordered before this lane's present.
    fn mbar_visible(&mut self, rank: usize, at: u32, lane: u32) -> Run<()> {
        let mut who = self.access(lane, true);
        who.atomic = true;
        let clock = self.warp.clock(lane).clone();
        let shared = &mut self.cl.blocks[rank].shared;
        let Ok(offset) = shared.offset(at, 8) else { return Ok(()) };
        match shared.check(offset, 8, &who, &clock, false) {
            Ok(()) => Ok(()),
            Err(c) => refused(Refusal::Conflict(c), lane, "use of the mbarrier", at),
        }
    }

    fn mbar_arrive(
        &mut self,
        rank: usize,
        at: u32,
        lane: u32,
        (count, tx, drop): (u32, u32, bool),
        known: Option<Clock>,
    ) -> Run<u64> {
        self.mbar_mut(rank, at, lane)?;
        self.mbar_visible(rank, at, lane)?;
        let bar = self.mbar_mut(rank, at, lane)?;
        bar.tx += i64::from(tx);
        if count == 0 || count > bar.pending {
            let message = format!(
                "{count} arrivals at the mbarrier at {at:#x}, whose phase needs {} more of {}",
                bar.pending, bar.expected
            );
            return stop_lane(Rule::BarrierMisuse, lane, message);
        }
        if drop {
            bar.expected -= count.min(bar.expected);
        }
        if let Some(known) = &known {
            bar.gathering.join(known);
        }
        self.tx_in_range(rank, at, lane)?;
        let bar = self.mbar_mut(rank, at, lane)?;
        let token = bar.phase << 32 | u64::from(bar.pending);
        bar.pending -= count;
        bar.settle();
        Ok(token)
    }

    /// The pending transaction bytes stay within what the object can count.
    fn tx_in_range(&mut self, rank: usize, at: u32, lane: u32) -> Run<()> {
        let tx = self.mbar_mut(rank, at, lane)?.tx;
        if tx.unsigned_abs() <= u64::from(MAX_COUNT) {
            return Ok(());
        }
        let message =
            format!("{tx} bytes pending at the mbarrier at {at:#x}; it counts {MAX_COUNT}");
        stop_lane(Rule::BarrierMisuse, lane, message)
    }

    /// Waiting in vain for a phase; the group comes back when something has changed.
    fn mbar_test(&mut self, m: &Mbar, at: &V64, a: &V64, parity: bool) -> Run<Flow> {
        let mut truth = 0u32;
        for lane in lanes(self.warp.mask) {
            let i = lane as usize;
            let (rank, at) = self.mbar_at(m.space, at[i], lane)?;
            self.mbar_mut(rank, at, lane)?;
            self.mbar_visible(rank, at, lane)?;
            let bar = self.mbar_mut(rank, at, lane)?;
            let passed = match parity {
                true if a[i] > 1 => {
                    let message = format!("phase parity {}", a[i]);
                    return stop_lane(Rule::BadOperand, lane, message);
                }
                true => bar.phase & 1 != a[i],
                false => bar.phase != a[i] >> 32,
            };
            if passed {
                truth |= 1 << lane;
                if m.releases {
                    let done = bar.done.clone();
                    self.warp.acquire(1 << lane, &done);
                }
            }
        }
        self.warp.set_pred(m.d, truth);
        if truth == self.warp.mask {
            return Ok(Flow::Next);
        }
        self.cl.counters.waited(self.pc);
        Ok(Flow::Pass(Wait::Poll(self.cl.version)))
    }
}
