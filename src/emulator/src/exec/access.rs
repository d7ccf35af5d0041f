//! Loads and stores: which memory an address means, bounds, alignment, initialisation, races.

use super::cluster::Ctx;
use super::counters::Counted;
use super::fault::{Other, Run, Stop, refused, stop_lane};
use super::moves::in_window;
use super::warp::{LANES, V64, each_lane, lanes};
use crate::error::Rule;
use crate::isa::{Addr, Order, Reg, Scope, Space, Src, Ty};
use crate::memory::global::Allocation;
use crate::memory::global_shadow::{Origin, Rival};
use crate::memory::shadow::Proxy;
use crate::memory::shared::Refusal;
use crate::memory::{LOCAL_WINDOW, PARAM_WINDOW, RANK_SHIFT, SHARED_WINDOW, WINDOW_BYTES};

/// Where an address leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Global(u64),
    /// Rank of the block, and the address in its shared window.
    Shared(usize, u32),
    Local(u64),
    Param(u64),
}

impl Ctx<'_> {
    /// Addresses of all lanes.
    #[inline(always)]
    pub fn addresses(&mut self, addr: &Addr) -> V64 {
        let base = self.src64(&addr.base);
        each_lane(|i| base[i].wrapping_add(addr.offset as u64))
    }

    /// What an address in a space means for a lane.
    pub fn resolve(&self, space: Space, address: u64, lane: u32) -> Run<Target> {
        let shared = |v: u64| {
            let rank = (v >> RANK_SHIFT) as usize;
            let at = (v & ((1 << RANK_SHIFT) - 1)) as u32;
            let own = self.warp.rank;
            let rank = if rank == 0 { own } else { rank - 1 };
            if v < WINDOW_BYTES && rank < self.cl.blocks.len() {
                return Ok(Target::Shared(rank, at));
            }
            stop_lane(Rule::OutOfBounds, lane, format!("{v:#x} is no shared address"))
        };
        match space {
            Space::Shared | Space::SharedCluster => {
                let v = address & 0xffff_ffff;
                let rank = (v >> RANK_SHIFT) as usize;
                if space == Space::Shared && rank != 0 && rank != self.warp.rank + 1 {
                    let message =
                        format!("{v:#x} is in another block; .shared::cta names this one");
                    return stop_lane(Rule::OutOfBounds, lane, message);
                }
                shared(v)
            }
            Space::Local => Ok(Target::Local(address)),
            Space::Param => Ok(Target::Param(address)),
            Space::Generic if in_window(address, SHARED_WINDOW) => shared(address - SHARED_WINDOW),
            Space::Generic if in_window(address, LOCAL_WINDOW) => {
                Ok(Target::Local(address - LOCAL_WINDOW))
            }
            Space::Generic if in_window(address, PARAM_WINDOW) => {
                Ok(Target::Param(address - PARAM_WINDOW))
            }
            _ => Ok(Target::Global(address)),
        }
    }

    /// The allocation that holds a range.
    pub fn global(
        &self,
        address: u64,
        bytes: u32,
        lane: u32,
        what: &str,
    ) -> Run<(&Allocation, u64)> {
        match self.env.memory.find(address) {
            Some(a) if u64::from(bytes) <= a.size - (address - a.base) => Ok((a, address - a.base)),
            Some(a) => {
                let message = format!(
                    "{what} of {bytes} bytes at {address:#x} passes the end of its allocation \
                     ({:#x}, {} bytes)",
                    a.base, a.size
                );
                stop_lane(Rule::OutOfBounds, lane, message)
            }
            None => {
                let message =
                    format!("{what} of {bytes} bytes at {address:#x}: no allocation there");
                stop_lane(Rule::OutOfBounds, lane, message)
            }
        }
    }

    /// Finds races of an access to global memory.
    pub fn global_order(
        &self,
        a: &Allocation,
        at: u64,
        bytes: u32,
        lane: u32,
        (order, write): (Order, bool),
    ) -> Run<()> {
        if !self.env.global_races || a.read_only {
            return Ok(());
        }
        let who = self.access(lane, order.strong());
        let from = self.origin();
        match a.shadow.pass(from, write).access(at, bytes, &who, self.warp.clock(lane)) {
            Ok(()) => Ok(()),
            Err(rival) => self.global_race(rival, lane, a.base + at, write),
        }
    }

    /// Where the records of global memory say that an access came from.
    pub fn origin(&self) -> Origin<'_> {
        let prior = &self.env.prior;
        Origin {
            launch: self.env.launch,
            cluster: self.cl.number,
            open: [&prior.at_begin, &prior.after_wait],
            flags: self.env.k.orders_memory,
        }
    }

    pub(super) fn global_race(
        &self,
        rival: Rival,
        lane: u32,
        address: u64,
        write: bool,
    ) -> Run<()> {
        let verb = if write { "write" } else { "read" };
        let theirs = if rival.wrote { "write" } else { "read" };
        let mut message =
            format!("{verb} at {address:#x} is not ordered after another thread's {theirs}");
        if rival.earlier {
            message = format!(
                "{verb} at {address:#x} while the grid before this one, whose thread {} of cluster \
                 {} did a {theirs} there, may still run: no griddepcontrol.wait",
                rival.actor, rival.cluster
            );
            return stop_lane(Rule::Race, lane, message);
        }
        let mut rule = Rule::Race;
        if let Some(proxy) = rival.unfenced {
            let fence = if proxy == Proxy::TensorMap { "tensormap" } else { "async" };
            rule = Rule::MissingProxyFence;
            message = format!(
                "{verb} at {address:#x} by another proxy than a thread's write: no \
                 fence.proxy.{fence} for global memory since"
            );
        }
        let far = (rival.cluster != self.cl.number).then_some(rival.cluster);
        if let Some(cluster) = far {
            let [x, y, z] = self.env.block_of(cluster, self.cl.rank_of(rival.actor));
            message += &format!(", which is in block ({x},{y},{z})");
        }
        let others = vec![Other { actor: rival.actor, pc: rival.pc, cluster: far }];
        Err(Box::new(Stop { rule, message, lane: Some(lane), others }))
    }

    /// Reads up to 32 bytes for one lane into `out`.
    pub fn read(&mut self, target: Target, out: &mut [u8], lane: u32, order: Order) -> Run<()> {
        let bytes = out.len() as u32;
        match target {
            Target::Global(address) => {
                let (a, at) = self.global(address, bytes, lane, "read")?;
                self.global_order(a, at, bytes, lane, (order, false))?;
                let step = bytes.min(8);
                for (n, chunk) in out.chunks_mut(step as usize).enumerate() {
                    let at = at + n as u64 * u64::from(step);
                    let word = a.load(at, step);
                    chunk.copy_from_slice(&word.to_le_bytes()[..step as usize]);
                    if self.env.checks.uninitialised && !a.written(at, step) {
                        let message = format!("read at {address:#x}, which nothing has written");
                        return stop_lane(Rule::Uninitialised, lane, message);
                    }
                }
                Ok(())
            }
            Target::Shared(rank, address) => self.read_shared(rank, address, out, lane, order),
            Target::Local(at) => self.read_local(at, out, lane),
            Target::Param(at) => {
                let at = at as usize;
                match self.env.params.get(at..at.saturating_add(out.len())) {
                    Some(part) => out.copy_from_slice(part),
                    None => {
                        let message = format!("read at {at:#x} is outside the parameters");
                        return stop_lane(Rule::OutOfBounds, lane, message);
                    }
                }
                Ok(())
            }
        }
    }

    fn read_shared(
        &mut self,
        rank: usize,
        address: u32,
        out: &mut [u8],
        lane: u32,
        order: Order,
    ) -> Run<()> {
        let who = self.access(lane, order.strong());
        let clock = self.warp.clock(lane);
        let checks = self.env.checks;
        let shared = &mut self.cl.blocks[rank].shared;
        let bytes = out.len() as u32;
        let at = match shared.offset(address, bytes) {
            Ok(at) => at,
            Err(r) => return refused(r, lane, "read", address),
        };
        if checks.races {
            if let Err(c) = shared.access(at, bytes, &who, clock, false) {
                return refused(Refusal::Conflict(c), lane, "read", address);
            }
            if shared.holds_mbarrier(at, out.len()) {
                return refused(Refusal::Mbarrier, lane, "read", address);
            }
        }
        if checks.uninitialised && !shared.is_written(at, out.len()) {
            return refused(Refusal::Unwritten, lane, "read", address);
        }
        out.copy_from_slice(shared.slice(at, out.len()));
        Ok(())
    }

    fn local_range(&self, at: u64, bytes: usize, lane: u32) -> Run<usize> {
        let size = self.warp.local_bytes;
        if at.checked_add(bytes as u64).is_none_or(|end| end > size as u64) {
            let message =
                format!("local address {at:#x} is outside the {size} bytes of the thread");
            return stop_lane(Rule::OutOfBounds, lane, message);
        }
        Ok(lane as usize * size + at as usize)
    }

    fn read_local(&mut self, at: u64, out: &mut [u8], lane: u32) -> Run<()> {
        let from = self.local_range(at, out.len(), lane)?;
        if self.env.checks.uninitialised
            && !self.warp.local_init[from..from + out.len()].iter().all(|&b| b)
        {
            let message = format!("read at local address {at:#x}, which nothing has written");
            return stop_lane(Rule::Uninitialised, lane, message);
        }
        out.copy_from_slice(&self.warp.local[from..from + out.len()]);
        Ok(())
    }

    /// Writes up to 32 bytes for one lane.
    pub fn write(&mut self, target: Target, data: &[u8], lane: u32, order: Order) -> Run<()> {
        let bytes = data.len() as u32;
        match target {
            Target::Global(address) => {
                let (a, at) = self.global(address, bytes, lane, "write")?;
                if a.read_only {
                    let message = format!("write at {address:#x}, which is constant memory");
                    return stop_lane(Rule::OutOfBounds, lane, message);
                }
                self.global_order(a, at, bytes, lane, (order, true))?;
                let step = bytes.min(8);
                for (n, chunk) in data.chunks(step as usize).enumerate() {
                    let mut word = [0; 8];
                    word[..chunk.len()].copy_from_slice(chunk);
                    a.store(at + n as u64 * u64::from(step), step, u64::from_le_bytes(word));
                }
                Ok(())
            }
            Target::Shared(rank, address) => {
                let who = self.access(lane, order.strong());
                let clock = self.warp.clock(lane);
                let races = self.env.checks.races;
                let shared = &mut self.cl.blocks[rank].shared;
                let at = match shared.offset(address, bytes) {
                    Ok(at) => at,
                    Err(r) => return refused(r, lane, "write", address),
                };
                if races {
                    if let Err(c) = shared.access(at, bytes, &who, clock, true) {
                        return refused(Refusal::Conflict(c), lane, "write", address);
                    }
                    if shared.holds_mbarrier(at, data.len()) {
                        return refused(Refusal::Mbarrier, lane, "write", address);
                    }
                }
                shared.put(at, data);
                Ok(())
            }
            Target::Local(at) => {
                let from = self.local_range(at, data.len(), lane)?;
                self.warp.local[from..from + data.len()].copy_from_slice(data);
                self.warp.local_init[from..from + data.len()].fill(true);
                Ok(())
            }
            Target::Param(at) => {
                let message = format!("write at {at:#x} to the parameters");
                stop_lane(Rule::OutOfBounds, lane, message)
            }
        }
    }

    /// Fails unless the address is a multiple of the access size.
    pub fn aligned(&self, address: u64, bytes: u32, lane: u32) -> Run<()> {
        if address.is_multiple_of(u64::from(bytes)) {
            return Ok(());
        }
        let message = format!("{address:#x} is not a multiple of {bytes}");
        stop_lane(Rule::Misaligned, lane, message)
    }

    #[inline(always)]
    pub fn load(
        &mut self,
        space: Space,
        ty: Ty,
        (order, scope): (Order, Scope),
        d: &[Reg],
        addr: &Addr,
    ) -> Run<()> {
        let at = self.addresses(addr);
        if self.warp.bad != 0 {
            return Ok(());
        }
        if self.load_warp((space, ty, order), d, &at)? {
            self.observe(space, (order, scope), &at);
            return Ok(());
        }
        let width = ty.bytes() as usize;
        let bytes = width * d.len();
        let mut out = vec![[0u64; LANES]; d.len()];
        let mut buffer = [0u8; 32];
        for lane in lanes(self.warp.mask) {
            let address = at[lane as usize];
            self.aligned(address, bytes as u32, lane)?;
            let target = self.resolve(space, address, lane)?;
            self.read(target, &mut buffer[..bytes], lane, order)?;
            for (n, column) in out.iter_mut().enumerate() {
                let mut word = [0; 8];
                word[..width].copy_from_slice(&buffer[n * width..][..width]);
                column[lane as usize] = u64::from_le_bytes(word);
            }
        }
        self.count(space, &at, bytes as u32, false);
        for (reg, column) in d.iter().zip(&mut out) {
            self.loaded(ty, *reg, column);
        }
        self.observe(space, (order, scope), &at);
        Ok(())
    }

    #[inline(always)]
    pub fn store(
        &mut self,
        space: Space,
        ty: Ty,
        (order, scope): (Order, Scope),
        a: &[Src],
        addr: &Addr,
    ) -> Run<()> {
        self.warp.stores = self.warp.stores.wrapping_add(1);
        let at = self.addresses(addr);
        let width = ty.bytes() as usize;
        let (one, many): ([V64; 1], Vec<V64>);
        let values: &[V64] = if let [a] = a {
            one = [self.src64(a)];
            &one
        } else {
            many = a.iter().map(|s| self.src64(s)).collect();
            &many
        };
        if self.warp.bad != 0 {
            return Ok(());
        }
        self.publish(space, (order, scope), &at, false);
        if self.store_warp((space, ty, order), values, &at)? {
            self.changed();
            return Ok(());
        }
        let bytes = width * a.len();
        let mut buffer = [0u8; 32];
        for lane in lanes(self.warp.mask) {
            let address = at[lane as usize];
            self.aligned(address, bytes as u32, lane)?;
            let target = self.resolve(space, address, lane)?;
            for (n, column) in values.iter().enumerate() {
                let word = column[lane as usize].to_le_bytes();
                buffer[n * width..][..width].copy_from_slice(&word[..width]);
            }
            self.write(target, &buffer[..bytes], lane, order)?;
        }
        self.changed();
        self.count(space, &at, bytes as u32, true);
        Ok(())
    }

    /// Adds an access to the counters.
    pub fn count(&mut self, space: Space, at: &V64, bytes: u32, write: bool) {
        let mask = self.warp.mask;
        let shared = match space {
            Space::Shared | Space::SharedCluster => true,
            Space::Global | Space::Const => false,
            Space::Local => {
                let asked = u64::from(bytes) * u64::from(mask.count_ones());
                let counters = &mut self.cl.counters;
                *if write { &mut counters.local_written } else { &mut counters.local_read } +=
                    asked;
                return;
            }
            Space::Generic => match lanes(mask).next() {
                Some(lane) if in_window(at[lane as usize], SHARED_WINDOW) => true,
                Some(lane) if at[lane as usize] < SHARED_WINDOW => false,
                _ => return,
            },
            _ => return,
        };
        if shared {
            self.count_shared(at, mask, bytes, write);
        } else {
            self.count_global(at, mask, bytes, write);
        }
    }

    /// Counts an access of the warp to shared memory.
    pub fn count_shared(&mut self, at: &V64, mask: u32, bytes: u32, write: bool) {
        self.cl.counters.shared(Counted { write, bytes, pc: self.pc }, at, mask);
    }

    /// Counts an access of the warp to global memory.
    pub fn count_global(&mut self, at: &V64, mask: u32, bytes: u32, write: bool) {
        let what = Counted { write, bytes, pc: self.pc };
        let (sectors, n) = self.cl.counters.global(what, at, mask);
        self.env.touched.mark(&sectors[..n], write);
    }
}
