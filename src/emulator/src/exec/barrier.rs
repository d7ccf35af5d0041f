//! Block barriers, warp barriers, the cluster barrier, and fences.

use std::sync::Arc;

use super::cluster::{Cluster, Ctx};
use super::fault::{Run, stop};
use super::warp::LANES;
use super::{Flow, Wait};
use crate::error::Rule;
use crate::isa::{BarKind, Barrier, FenceKind};
use crate::memory::shadow::Proxy;

impl Ctx<'_> {
    /// Lanes whose memory accesses are now ordered among themselves.
    pub fn warp_sync(&mut self) {
        let mask = self.warp.mask;
        let known = Arc::new(self.warp.knowledge(mask));
        self.warp.advance(mask);
        self.warp.set_knowledge(mask, known);
    }

    pub fn bar(&mut self, bar: &Barrier) -> Run<Flow> {
        let id = self.src32(&bar.id)[self.warp.mask.trailing_zeros() as usize % LANES];
        let count = match &bar.count {
            Some(count) => {
                Some(self.src32(count)[self.warp.mask.trailing_zeros() as usize % LANES])
            }
            None => None,
        };
        if self.warp.finished_bar & self.warp.mask != 0 {
            self.warp.finished_bar &= !self.warp.mask;
            self.bar_result(bar, id);
            return Ok(Flow::Next);
        }
        if id >= 16 {
            return stop(Rule::BadOperand, format!("barrier {id}; there are 16"));
        }
        let threads = self.block().threads;
        if let Some(n) = count
            && (n == 0 || n % 32 != 0 || n > threads.next_multiple_of(32))
        {
            let message = format!("barrier {id} for {n} threads in a block of {threads}");
            return stop(Rule::BarrierMisuse, message);
        }
        let votes = match bar.kind {
            BarKind::Popc { p, .. } | BarKind::And { p, .. } | BarKind::Or { p, .. } => {
                (self.warp.pred(p) & self.warp.mask).count_ones()
            }
            _ => 0,
        };
        let mask = self.warp.mask;
        let known = self.warp.knowledge(mask);
        self.warp.advance(mask);
        // A warp counts as a whole when the count is given.
        let arrives = if count.is_some() && bar.aligned { 32 } else { mask.count_ones() };
        let bit = 1u64 << self.warp.index;
        let b = &mut self.block().bars[id as usize];
        if b.arrived > 0 && b.expected != count {
            let message = format!(
                "barrier {id} is used with {count:?} threads while others wait with {:?}",
                b.expected
            );
            return stop(Rule::BarrierMisuse, message);
        }
        if bar.aligned && b.warps & bit != 0 {
            let message = format!("the warp arrives twice in one phase of barrier {id}");
            return stop(Rule::BarrierMisuse, message);
        }
        b.expected = count;
        b.arrived += arrives;
        b.warps |= bit;
        b.votes = (b.votes.0 + votes, b.votes.1 + mask.count_ones());
        match &mut b.clock {
            Some(clock) => clock.join(&known),
            None => b.clock = Some(known),
        }
        self.cl.counters.waited(self.pc);
        self.changed();
        if bar.kind == BarKind::Arrive {
            return Ok(Flow::Next);
        }
        Ok(Flow::Hold(Wait::Barrier(id)))
    }

    /// The result of a barrier reduction, for lanes that a completed barrier released.
    pub fn bar_result(&mut self, bar: &Barrier, id: u32) {
        let (yes, all) = self.block().bars[id as usize].result;
        match bar.kind {
            BarKind::Popc { d, .. } => self.warp.set32(d, &[yes; LANES]),
            BarKind::And { d, .. } => self.warp.set_pred(d, if yes == all { u32::MAX } else { 0 }),
            BarKind::Or { d, .. } => self.warp.set_pred(d, if yes > 0 { u32::MAX } else { 0 }),
            BarKind::Sync | BarKind::Arrive => {}
        }
    }

    pub fn cluster_bar(&mut self, arrive: bool, relaxed: bool) -> Run<Flow> {
        let mask = self.warp.mask;
        if !arrive {
            let phase = self.warp.cluster_phase;
            return Ok(Flow::Pass(Wait::Cluster(phase)));
        }
        let known = if relaxed { self.warp.clock(0).empty() } else { self.warp.knowledge(mask) };
        self.warp.advance(mask);
        self.warp.cluster_phase = self.cl.bar_phase;
        self.cl.bar_arrived += mask.count_ones();
        match &mut self.cl.bar_clock {
            Some(clock) => clock.join(&known),
            None => self.cl.bar_clock = Some(known),
        }
        self.changed();
        Ok(Flow::Next)
    }

    pub fn fence(&mut self, kind: FenceKind) {
        let mask = self.warp.mask;
        match kind {
            FenceKind::ProxyAsync { shared, global } => {
                if shared {
                    self.proxy_fence(mask, Proxy::AsyncShared);
                }
                if global {
                    self.proxy_fence(mask, Proxy::AsyncGlobal);
                }
                self.warp.advance(mask);
            }
            FenceKind::TensorMap => {
                self.proxy_fence(mask, Proxy::TensorMap);
                self.warp.advance(mask);
            }
            FenceKind::Memory(scope) => self.memory_fence(scope),
            FenceKind::MbarrierInit | FenceKind::Other => {}
        }
    }

    /// Each lane makes visible what it knows; lanes do not learn from each other.
    fn proxy_fence(&mut self, mask: u32, proxy: Proxy) {
        if !self.env.k.uses_async_proxy {
            return;
        }
        if mask == self.warp.live && self.same_knowledge(mask) {
            // One clock for all: the lanes' own entries can be joined.
            let seen = self.warp.clock(mask.trailing_zeros() % 32).seen.clone();
            let mut all = self.warp.knowledge(mask);
            all.fence(proxy);
            all.seen = seen;
            return self.warp.set_knowledge(mask, Arc::new(all));
        }
        for lane in super::warp::lanes(mask) {
            let own = (self.warp.base + lane) as usize;
            let before = self.warp.clock(lane).seen[own];
            let mut known = self.warp.knowledge(1 << lane);
            known.fence(proxy);
            known.seen[own] = before;
            self.warp.set_knowledge(1 << lane, Arc::new(known));
        }
    }

    fn same_knowledge(&self, mask: u32) -> bool {
        self.warp.clocks.iter().any(|(lanes, _)| lanes & mask == mask)
    }
}

/// Completes a barrier if everyone is there.
pub fn settle(cl: &mut Cluster, rank: usize, id: u32) -> Run<()> {
    let live = cl.blocks[rank].live;
    let b = &mut cl.blocks[rank].bars[id as usize];
    if b.arrived == 0 {
        return Ok(());
    }
    let need = b.expected.unwrap_or(live);
    if b.arrived > need {
        let message = format!("barrier {id}: {} threads arrived, {need} take part", b.arrived);
        return stop(Rule::BarrierMisuse, message);
    }
    if b.arrived < need {
        return Ok(());
    }
    let clock = b.clock.take();
    b.result = b.votes;
    b.arrived = 0;
    b.votes = (0, 0);
    b.warps = 0;
    b.expected = None;
    let clock = clock.map(Arc::new);
    for warp in cl.warps.iter_mut().flatten().filter(|w| w.rank == rank) {
        let mut woken = 0;
        for g in warp.groups.iter_mut().filter(|g| g.wait == Wait::Barrier(id)) {
            g.wait = Wait::Ready;
            woken |= g.mask;
        }
        warp.finished_bar |= woken;
        if woken != 0
            && let Some(clock) = &clock
        {
            warp.set_knowledge(woken, clock.clone());
        }
    }
    cl.version += 1;
    Ok(())
}

/// Completes the cluster barrier if everyone is there.
pub fn settle_cluster(cl: &mut Cluster) {
    let live: u32 = cl.blocks.iter().map(|b| b.live).sum();
    if cl.bar_arrived > 0 && cl.bar_arrived >= live {
        cl.bar_arrived = 0;
        cl.bar_phase += 1;
        cl.bar_done = cl.bar_clock.take().map(Arc::new);
        cl.version += 1;
    }
    let phase = cl.bar_phase;
    let done = cl.bar_done.clone();
    for warp in cl.warps.iter_mut().flatten() {
        let mut woken = 0;
        for g in warp.groups.iter_mut() {
            if let Wait::Cluster(at) = g.wait
                && at < phase
            {
                g.wait = Wait::Ready;
                woken |= g.mask;
            }
        }
        if woken != 0
            && let Some(done) = &done
        {
            warp.acquire(woken, done);
        }
    }
}
