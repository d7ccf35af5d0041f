//! Loads and stores of a whole warp: what the lanes have in common is checked once.
//!
//! These paths take the accesses whose lanes all lead to one allocation, or to the block's own
//! shared memory, and that nothing but a race can refuse. Everything else, every other error
//! included, is left to the lane-by-lane paths of [`super::access`], before anything was changed.

use super::atomic::{Atomic, combine};
use super::cluster::Ctx;
use super::fault::{Run, refused};
use super::moves::in_window;
use super::span::{Span, load_shared, put_lanes, put_words, word, word32};
use super::warp::{LANES, V64, Warp, lanes, truth};
use crate::isa::{AtomOp, Order, Reg, RegKind, Space, Ty};
use crate::memory::SHARED_WINDOW;
use crate::memory::global::Allocation;
use crate::memory::global_shadow::whole_rows;
use crate::memory::shadow::{Access, Clock};
use crate::memory::shared::Refusal;

/// Addresses of the block's own shared memory are below this.
const OWN_SHARED: u64 = 1 << 24;

/// Where all lanes of an access lead.
enum Place<'a> {
    Global(&'a Allocation),
    /// Added to an address, gives the offset in the block's shared memory.
    Shared(u64),
}

/// The clock of each lane, looked up once if all lanes have the same.
struct Clocks<'a> {
    warp: &'a Warp,
    only: Option<&'a Clock>,
}

impl<'a> Clocks<'a> {
    fn new(warp: &'a Warp) -> Self {
        let only = match warp.clocks.as_slice() {
            [(_, clock)] => Some(&**clock),
            _ => None,
        };
        Self { warp, only }
    }

    /// The clock of all lanes, if they also have one epoch.
    #[inline]
    fn shared(&self) -> Option<&'a Clock> {
        let first = self.warp.epochs[0];
        let alike = self.warp.epochs.iter().fold(true, |all, e| all & (*e == first));
        self.only.filter(|_| alike)
    }

    #[inline]
    fn of(&self, lane: u32) -> &'a Clock {
        match self.only {
            Some(clock) => clock,
            None => self.warp.clock(lane),
        }
    }

    #[inline]
    fn access(&self, lane: u32, pc: u32, atomic: bool) -> Access {
        Access {
            actor: self.warp.base + lane,
            base: self.warp.base,
            lane,
            epoch: self.warp.epochs[lane as usize],
            pc,
            store: self.warp.stores,
            atomic,
            generic: true,
        }
    }
}

impl<'c> Ctx<'c> {
    /// Loads for all executing lanes; false if the lanes have to go one by one.
    #[inline(always)]
    pub fn load_warp(
        &mut self,
        (space, ty, order): (Space, Ty, Order),
        d: &[Reg],
        at: &V64,
    ) -> Run<bool> {
        let width = ty.bytes();
        if space == Space::Param {
            return Ok(self.load_param(ty, d, at));
        }
        let Some(span) = Span::new(at, self.warp.mask, width * d.len() as u32) else {
            return Ok(false);
        };
        match self.place(space, &span) {
            Some(Place::Global(a)) if self.all_written(a, &span) => {
                self.order_global(a, &span, order, false)?;
                self.count_global_span(&span, false);
                if span.run && width == 4 && d.len() == 1 && d[0].kind == RegKind::B32 {
                    self.warp.set32(d[0], &a.load_words(span.first - a.base));
                    return Ok(true);
                }
                for (n, reg) in d.iter().enumerate() {
                    let (from, mut column) = (u64::from(n as u32 * width), [0; LANES]);
                    a.load_lanes(span.mask, width, |i| at[i] - a.base + from, &mut column);
                    self.loaded(ty, *reg, &mut column);
                }
            }
            Some(Place::Shared(to))
                if self.shared_plain(to, &span, self.env.checks.uninitialised) =>
            {
                self.order_shared(to, &span, order, false)?;
                for (n, reg) in d.iter().enumerate() {
                    let (from, mut column) = ((n as u32 * width).into(), [0; LANES]);
                    let shared = &self.cl.blocks[self.warp.rank].shared;
                    load_shared(shared, &span, width, to.wrapping_add(from), &mut column);
                    self.loaded(ty, *reg, &mut column);
                }
                self.count_shared_span(&span, false);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Writes a loaded column to its register, extended as the type says.
    #[inline(always)]
    pub fn loaded(&mut self, ty: Ty, reg: Reg, column: &mut V64) {
        if ty.signed() && reg.bits() > ty.bits() {
            let shift = 64 - ty.bits();
            column.iter_mut().for_each(|v| *v = ((*v << shift) as i64 >> shift) as u64);
        }
        self.warp.set64(reg, column);
    }

    /// Loads a parameter that all lanes read at the same place.
    fn load_param(&mut self, ty: Ty, d: &[Reg], at: &V64) -> bool {
        let width = ty.bytes() as usize;
        let from = at[0];
        if at.iter().any(|a| *a != from) || !from.is_multiple_of((width * d.len()) as u64) {
            return false;
        }
        let env = self.env;
        let from = from as usize;
        let Some(part) = env.params.get(from..from.saturating_add(width * d.len())) else {
            return false;
        };
        for (reg, bytes) in d.iter().zip(part.chunks(width)) {
            self.loaded(ty, *reg, &mut [word(bytes); LANES]);
        }
        true
    }

    /// Stores for all executing lanes; false if the lanes have to go one by one.
    #[inline(always)]
    pub fn store_warp(
        &mut self,
        (space, ty, order): (Space, Ty, Order),
        values: &[V64],
        at: &V64,
    ) -> Run<bool> {
        let width = ty.bytes();
        let Some(span) = Span::new(at, self.warp.mask, width * values.len() as u32) else {
            return Ok(false);
        };
        match self.place(space, &span) {
            Some(Place::Global(a)) if !a.read_only => {
                self.order_global(a, &span, order, true)?;
                for (n, column) in values.iter().enumerate() {
                    let from = u64::from(n as u32 * width);
                    if span.run && width == 4 && values.len() == 1 {
                        a.store_words(span.first - a.base, column);
                        break;
                    }
                    a.store_lanes(span.mask, width, |i| at[i] - a.base + from, column);
                }
                match span.run {
                    true => a.mark_range(span.first - a.base, span.end - span.first),
                    false => {
                        lanes(span.mask).for_each(|i| a.mark(at[i as usize] - a.base, span.bytes))
                    }
                }
                self.count_global_span(&span, true);
            }
            Some(Place::Shared(to)) if self.shared_plain(to, &span, false) => {
                self.order_shared(to, &span, order, true)?;
                let shared = &mut self.cl.blocks[self.warp.rank].shared;
                if span.run && width == 4 && values.len() == 1 {
                    put_words(shared, span.first.wrapping_add(to) as usize, &values[0]);
                } else {
                    put_lanes(shared, &span, width, to, values);
                }
                self.count_shared_span(&span, true);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// An atomic of all executing lanes, one after the other, on words of the block's own shared
    /// memory; false if it is another kind.
    pub fn atomic_warp(
        &mut self,
        atom: &Atomic<'_>,
        at: &V64,
        values: &V64,
        other: &V64,
    ) -> Run<bool> {
        let ([d], 4) = (atom.d, atom.ty.bytes()) else { return Ok(false) };
        let Some(span) = Span::new(at, self.warp.mask, 4) else { return Ok(false) };
        let Some(Place::Shared(to)) = self.place(atom.space, &span) else { return Ok(false) };
        if !self.shared_plain(to, &span, self.env.checks.uninitialised) {
            return Ok(false);
        }
        self.order_atomics(to, &span)?;
        let shared = &mut self.cl.blocks[self.warp.rank].shared;
        let mut out = [0; LANES];
        let sum = atom.op == AtomOp::Add && matches!(atom.ty, Ty::U32 | Ty::S32);
        for lane in lanes(span.mask) {
            let i = lane as usize % LANES;
            let place = at[i].wrapping_add(to) as usize;
            let old = word32(shared.slice(place, 4));
            let new = match sum {
                true => old.wrapping_add(values[i] as u32),
                false => {
                    let (a, b) = (values[i] & 0xffff_ffff, other[i] & 0xffff_ffff);
                    combine(atom.op, atom.ty, old.into(), a, b) as u32
                }
            };
            out[i] = old.into();
            shared.put(place, &new.to_le_bytes());
        }
        self.count_shared(at, span.mask, 4, true);
        self.atomic_done(atom, at, &[*d], &[out]);
        Ok(true)
    }

    /// Where all lanes lead, if it is one place and in bounds.
    #[inline(always)]
    fn place(&self, space: Space, span: &Span<'_>) -> Option<Place<'c>> {
        let window = match space {
            Space::Shared | Space::SharedCluster => Some(0),
            Space::Generic if in_window(span.first, SHARED_WINDOW) => Some(SHARED_WINDOW),
            Space::Global | Space::Const | Space::Generic => None,
            _ => return None,
        };
        let Some(window) = window else {
            let a = self.env.memory.find(span.first)?;
            return (span.end - a.base <= a.size).then_some(Place::Global(a));
        };
        let (first, end) = (span.first - window, span.end.checked_sub(window)?);
        if end > OWN_SHARED {
            return None;
        }
        let shared = &self.cl.blocks[self.warp.rank].shared;
        let offset = shared.offset(first as u32, (end - first) as u32).ok()?;
        Some(Place::Shared((offset as u64).wrapping_sub(span.first)))
    }

    #[inline(always)]
    fn all_written(&self, a: &Allocation, span: &Span<'_>) -> bool {
        if !self.env.checks.uninitialised {
            return true;
        }
        if span.run || span.is_one() {
            return a.range_written(span.first - a.base, span.end - span.first);
        }
        lanes(span.mask).all(|i| a.written(span.at[i as usize] - a.base, span.bytes))
    }

    /// Checks and records the accesses of all lanes, in their order.
    #[inline(always)]
    fn order_global(&self, a: &Allocation, span: &Span<'_>, order: Order, write: bool) -> Run<()> {
        if !self.env.global_races || a.read_only {
            return Ok(());
        }
        let mut pass = a.shadow.pass(self.origin(), write);
        let clocks = Clocks::new(self.warp);
        let strong = order.strong();
        let first = span.first - a.base;
        if let Some(clock) = clocks.shared() {
            let who = clocks.access(0, self.pc, strong);
            if span.run && whole_rows(first, span.bytes, who.base) {
                return match pass.run(first, span.bytes, &who, clock) {
                    Ok(()) => Ok(()),
                    Err(rival) => {
                        let at = span.at[rival.lane as usize % LANES];
                        self.global_race(rival, rival.lane, at, write)
                    }
                };
            }
            if span.is_one() && !write && who.base.is_multiple_of(32) {
                // What two lanes may read, all may.
                for lane in [30, 31] {
                    let who = clocks.access(lane, self.pc, strong);
                    if let Err(rival) = pass.access(first, span.bytes, &who, clock) {
                        return self.global_race(rival, lane, span.first, write);
                    }
                }
                return match pass.read_by_warp(first, span.bytes, &who, clock) {
                    Ok(()) => Ok(()),
                    Err(rival) => self.global_race(rival, 0, span.first, write),
                };
            }
            if who.base.is_multiple_of(32) {
                let places = lanes(span.mask).map(|lane| (lane, span.at[lane as usize] - a.base));
                return match pass.lanes(places, span.bytes, &who, clock) {
                    Ok(()) => Ok(()),
                    Err(rival) => {
                        self.global_race(rival, rival.lane, span.at[rival.lane as usize], write)
                    }
                };
            }
        }
        for lane in lanes(span.mask) {
            let who = clocks.access(lane, self.pc, strong);
            let at = span.at[lane as usize];
            if let Err(rival) = pass.access(at - a.base, span.bytes, &who, clocks.of(lane)) {
                return self.global_race(rival, lane, at, write);
            }
        }
        Ok(())
    }

    /// Whether no lane touches an mbarrier, nor, if that counts, a byte that nothing has written.
    #[inline(always)]
    fn shared_plain(&self, to: u64, span: &Span<'_>, written: bool) -> bool {
        let shared = &self.cl.blocks[self.warp.rank].shared;
        let bars = self.env.checks.races && !shared.mbars.is_empty();
        let plain = |at: u64, bytes: u64| {
            let (at, bytes) = (at.wrapping_add(to) as usize, bytes as usize);
            (!bars || !shared.holds_mbarrier(at, bytes))
                && (!written || shared.is_written(at, bytes))
        };
        if span.run || span.is_one() {
            return plain(span.first, span.end - span.first);
        }
        lanes(span.mask).all(|i| plain(span.at[i as usize], span.bytes.into()))
    }

    #[inline(always)]
    fn order_shared(&mut self, to: u64, span: &Span<'_>, order: Order, write: bool) -> Run<()> {
        if !self.env.checks.races {
            return Ok(());
        }
        let clocks = Clocks::new(self.warp);
        let shared = &mut self.cl.blocks[self.warp.rank].shared;
        let what = if write { "write" } else { "read" };
        let refuse = |c, lane: u32| {
            let address = (span.at[lane as usize % LANES] & (OWN_SHARED - 1)) as u32;
            refused(Refusal::Conflict(c), lane, what, address)
        };
        if span.run
            && let Some(clock) = clocks.shared()
        {
            let who = clocks.access(0, self.pc, order.strong());
            let at = span.first.wrapping_add(to) as usize;
            match shared.run(at, span.bytes, &who, clock, write) {
                Some(Ok(())) => return Ok(()),
                Some(Err((lane, c))) => return refuse(c, lane),
                None => {}
            }
        }
        if span.is_one() && !write && clocks.shared().is_some() {
            let who = [30, 31].map(|l| clocks.access(l, self.pc, order.strong()));
            let at = span.first.wrapping_add(to) as usize;
            if shared.read_by_warp(at, span.bytes, &who, clocks.of(31)) {
                return Ok(());
            }
        }
        for lane in lanes(span.mask) {
            let at = span.at[lane as usize].wrapping_add(to) as usize;
            let who = clocks.access(lane, self.pc, order.strong());
            if let Err(c) = shared.access(at, span.bytes, &who, clocks.of(lane), write) {
                return refuse(c, lane);
            }
        }
        Ok(())
    }

    /// Checks and records atomic updates of words, those of one word at once where they may be.
    fn order_atomics(&mut self, to: u64, span: &Span<'_>) -> Run<()> {
        if !self.env.checks.races {
            return Ok(());
        }
        let clocks = Clocks::new(self.warp);
        let together = clocks.shared().filter(|_| self.warp.base.is_multiple_of(32));
        let shared = &mut self.cl.blocks[self.warp.rank].shared;
        let mut rest = span.mask;
        while rest != 0 {
            let first = rest.trailing_zeros();
            let address = span.at[first as usize % LANES];
            let place = address.wrapping_add(to) as usize;
            let who = clocks.access(first, self.pc, true);
            if let Some(clock) = together {
                let same = rest & truth(|i| span.at[i] == address);
                if shared.update_by_lanes(place, same, &who, clock) {
                    rest &= !same;
                    continue;
                }
            }
            if let Err((c, what)) = shared.update(place, &who, clocks.of(first)) {
                let address = (address & (OWN_SHARED - 1)) as u32;
                return refused(Refusal::Conflict(c), first, what, address);
            }
            rest &= rest - 1;
        }
        Ok(())
    }

    #[inline(always)]
    fn count_global_span(&mut self, span: &Span<'_>, write: bool) {
        if span.is_one() {
            let (first, last) = (span.first / 32, (span.end - 1) / 32);
            let by = (last - first + 1, u64::from(span.bytes).div_ceil(32));
            self.cl.counters.global_traffic(self.pc, write, 32 * u64::from(span.bytes), by);
            return self.env.touched.mark_run(first, last, write);
        }
        if !span.run {
            return self.count_global(span.at, span.mask, span.bytes, write);
        }
        let (first, last) = (span.first / 32, (span.end - 1) / 32);
        let by = (last - first + 1, span.bytes.into());
        self.cl.counters.global_traffic(self.pc, write, span.end - span.first, by);
        self.env.touched.mark_run(first, last, write);
    }

    #[inline(always)]
    fn count_shared_span(&mut self, span: &Span<'_>, write: bool) {
        if !span.run || span.bytes > 16 {
            return self.count_shared(span.at, span.mask, span.bytes, write);
        }
        // Consecutive words: each pass takes 128 bytes, one from every bank.
        let passes = u64::from(span.bytes / 4).max(1);
        let bytes = span.end - span.first;
        self.cl.counters.shared_traffic(self.pc, write, bytes, (passes, passes));
    }
}
