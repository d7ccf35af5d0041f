//! A warp: register files of 32 lanes, groups of lanes with a program counter each, what its
//! lanes know of other threads, and the asynchronous operations that they own.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Wait;
use super::wgmma::WgmmaState;
use crate::isa::{Kernel, PSrc, Reg, RegKind};
use crate::memory::shadow::Clock;

pub const LANES: usize = 32;
pub type V32 = [u32; LANES];
pub type V64 = [u64; LANES];

/// A value for each lane. (The loop of `array::from_fn` may stay a function of its own, compiled
/// without the vector instructions that its caller may use.)
#[inline(always)]
pub fn each_lane<R: Copy + Default>(f: impl Fn(usize) -> R) -> [R; LANES] {
    let mut r = [R::default(); LANES];
    for (i, r) in r.iter_mut().enumerate() {
        *r = f(i);
    }
    r
}

/// The lanes of which something holds.
#[inline(always)]
pub fn truth(f: impl Fn(usize) -> bool) -> u32 {
    let mut mask = 0;
    for i in 0..LANES {
        mask |= if f(i) { BITS[i] } else { 0 };
    }
    mask
}

/// Lanes that share a program counter.
#[derive(Debug, Clone)]
pub struct Group {
    pub pc: u32,
    pub mask: u32,
    pub wait: Wait,
    /// Goes up when the group spins, so that others get their turn.
    pub turn: u32,
    /// Backward branches since the group last yielded.
    pub spins: u32,
    /// Last polling load: instruction, checksum of what it saw, times seen.
    pub poll: (u32, u64, u32),
}

impl Group {
    pub fn new(pc: u32, mask: u32) -> Self {
        Self { pc, mask, wait: Wait::Ready, turn: 0, spins: 0, poll: (u32::MAX, 0, 0) }
    }

    /// Lanes of the same history at another place.
    pub fn split(&self, pc: u32, mask: u32) -> Self {
        Self { pc, mask, wait: Wait::Ready, turn: self.turn, spins: 0, poll: (u32::MAX, 0, 0) }
    }
}

/// A cp.async that has not been performed.
#[derive(Debug, Clone, Copy)]
pub struct PendingCopy {
    pub dst: u32,
    pub src: u64,
    pub bytes: u32,
    /// Bytes that are read; the rest is zero.
    pub src_bytes: u32,
    pub pc: u32,
}

/// cp.async copies of one lane: those not in a group yet, then groups, oldest first.
#[derive(Debug, Clone, Default)]
pub struct LaneCopies {
    pub open: Vec<PendingCopy>,
    pub groups: VecDeque<Vec<PendingCopy>>,
}

/// What bulk copies of one lane have been grouped: operation ids.
#[derive(Debug, Clone, Default)]
pub struct LaneBulk {
    pub open: Vec<u64>,
    pub groups: VecDeque<Vec<u64>>,
}

/// One warp.
pub struct Warp {
    /// Rank of the block in the cluster, and the warp's index in the block.
    pub rank: usize,
    pub index: usize,
    /// Number of the warp's first thread in the cluster.
    pub base: u32,
    pub groups: Vec<Group>,
    /// Lanes that have not exited.
    pub live: u32,
    pub r32: Vec<V32>,
    pub r64: Vec<V64>,
    pub preds: Vec<u32>,
    /// Lanes in which a register has a value.
    pub def32: Vec<u32>,
    pub def64: Vec<u32>,
    pub defp: Vec<u32>,
    /// Carry flags.
    pub carry: u32,
    /// An undefined register was read in these lanes by the current instruction.
    pub bad: u32,
    /// File and slot of that register.
    pub bad_reg: (u8, u32),
    /// Lanes that the current instruction executes.
    pub mask: u32,
    pub tid: [V32; 3],
    /// Lanes that a completed barrier released and that have not gone on yet.
    pub finished_bar: u32,
    /// Phase of the cluster barrier at which the warp arrived.
    pub cluster_phase: u64,
    /// Epoch of each lane.
    pub epochs: V32,
    /// Store instructions so far, wrapping.
    pub stores: u16,
    /// What groups of lanes know of other threads.
    pub clocks: Vec<(u32, Arc<Clock>)>,
    /// Local memory, lane by lane, with a flag a byte.
    pub local: Vec<u8>,
    pub local_init: Vec<bool>,
    pub local_bytes: usize,
    /// By lane; empty until one copies.
    pub copies: Vec<LaneCopies>,
    bulk: Vec<LaneBulk>,
    pub wgmma: WgmmaState,
    /// Registers of a thread; `None` where the kernel does not say.
    pub registers: Option<u32>,
}

impl Warp {
    pub fn new(k: &Kernel, rank: usize, index: usize, base: u32, live: u32, clock: Clock) -> Self {
        let local_bytes = k.local_bytes as usize;
        let (n32, n64, np) = (k.regs32 as usize, k.regs64 as usize, k.preds as usize);
        Self {
            rank,
            index,
            base,
            groups: vec![Group::new(0, live)],
            live,
            r32: vec![[0; LANES]; n32],
            r64: vec![[0; LANES]; n64],
            preds: vec![0; np],
            def32: vec![0; n32],
            def64: vec![0; n64],
            defp: vec![0; np],
            carry: 0,
            bad: 0,
            bad_reg: (0, 0),
            mask: 0,
            tid: [[0; LANES]; 3],
            finished_bar: 0,
            cluster_phase: 0,
            epochs: [1; LANES],
            stores: 0,
            clocks: vec![(u32::MAX, Arc::new(clock))],
            local: vec![0; local_bytes * LANES],
            local_init: vec![false; local_bytes * LANES],
            local_bytes,
            copies: Vec::new(),
            bulk: Vec::new(),
            wgmma: WgmmaState::new(n32, k.uses_wgmma),
            registers: None,
        }
    }

    /// The cp.async copies of a lane.
    pub fn lane_copies(&mut self, lane: u32) -> &mut LaneCopies {
        if self.copies.is_empty() {
            self.copies.resize(LANES, LaneCopies::default());
        }
        &mut self.copies[lane as usize % LANES]
    }

    /// The bulk copies of a lane.
    pub fn lane_bulk(&mut self, lane: u32) -> &mut LaneBulk {
        if self.bulk.is_empty() {
            self.bulk.resize(LANES, LaneBulk::default());
        }
        &mut self.bulk[lane as usize % LANES]
    }

    /// Notes a read of a register that lacks a value in some executing lane.
    #[inline(always)]
    fn note(&mut self, defined: u32, file: u8, slot: u32) {
        let missing = self.mask & !defined;
        if missing != 0 && self.bad == 0 {
            self.bad = missing;
            self.bad_reg = (file, slot);
        }
    }

    /// A register of up to 32 bits, or the low half of a wider one.
    #[inline(always)]
    pub fn reg32(&mut self, reg: Reg) -> V32 {
        let slot = reg.slot as usize;
        match reg.kind {
            RegKind::B64 => {
                self.note(self.def64[slot], 1, reg.slot);
                let wide = &self.r64[slot];
                each_lane(|i| wide[i] as u32)
            }
            RegKind::Pred | RegKind::Sink => [0; LANES],
            _ => {
                self.note(self.def32[slot], 0, reg.slot);
                self.r32[slot]
            }
        }
    }

    /// A register, zero-extended to 64 bits.
    #[inline(always)]
    pub fn reg64(&mut self, reg: Reg) -> V64 {
        let slot = reg.slot as usize;
        if reg.kind == RegKind::B64 {
            self.note(self.def64[slot], 1, reg.slot);
            return self.r64[slot];
        }
        let narrow = self.reg32(reg);
        each_lane(|i| narrow[i].into())
    }

    /// Lanes where a predicate source is true.
    #[inline(always)]
    pub fn pred(&mut self, p: PSrc) -> u32 {
        match p {
            PSrc::Const(value) => {
                if value {
                    u32::MAX
                } else {
                    0
                }
            }
            PSrc::Reg { slot, negated } => {
                self.note(self.defp[slot as usize], 2, slot);
                let bits = self.preds[slot as usize];
                if negated { !bits } else { bits }
            }
        }
    }

    /// Lanes in which a register has a value.
    pub fn defined(&self, reg: Reg) -> u32 {
        let slot = reg.slot as usize;
        match reg.kind {
            RegKind::B64 => self.def64[slot],
            RegKind::Pred => self.defp[slot],
            RegKind::Sink => u32::MAX,
            _ => self.def32[slot],
        }
    }

    /// Writes the executing lanes of a register, cut to its width.
    #[inline(always)]
    pub fn set32(&mut self, reg: Reg, v: &V32) {
        let slot = reg.slot as usize;
        let mask = self.mask;
        match reg.kind {
            RegKind::B32 => {
                blend(&mut self.r32[slot], v, mask);
                self.def32[slot] |= mask;
                self.wgmma.wrote(slot);
            }
            RegKind::B64 => {
                let wide: V64 = each_lane(|i| v[i].into());
                self.set64(reg, &wide);
            }
            RegKind::B16 | RegKind::B8 => {
                let cut = if reg.kind == RegKind::B16 { 0xffff } else { 0xff };
                let v: V32 = each_lane(|i| v[i] & cut);
                blend(&mut self.r32[slot], &v, mask);
                self.def32[slot] |= mask;
            }
            RegKind::Pred | RegKind::Sink => {}
        }
    }

    /// Writes the executing lanes of a register, cut to its width.
    #[inline(always)]
    pub fn set64(&mut self, reg: Reg, v: &V64) {
        if reg.kind != RegKind::B64 {
            let narrow: V32 = each_lane(|i| v[i] as u32);
            return self.set32(reg, &narrow);
        }
        let slot = reg.slot as usize;
        let mask = self.mask;
        blend(&mut self.r64[slot], v, mask);
        self.def64[slot] |= mask;
    }

    /// Writes the executing lanes of a predicate.
    #[inline(always)]
    pub fn set_pred(&mut self, reg: Reg, bits: u32) {
        if reg.kind == RegKind::Pred {
            let slot = reg.slot as usize;
            self.preds[slot] = (self.preds[slot] & !self.mask) | (bits & self.mask);
            self.defp[slot] |= self.mask;
        }
    }

    /// Takes the value away from lanes of a register.
    pub fn undefine(&mut self, reg: Reg, lanes: u32) {
        let slot = reg.slot as usize;
        match reg.kind {
            RegKind::B64 => self.def64[slot] &= !lanes,
            RegKind::Pred => self.defp[slot] &= !lanes,
            RegKind::Sink => {}
            _ => self.def32[slot] &= !lanes,
        }
    }

    /// What a lane knows of other threads.
    pub fn clock(&self, lane: u32) -> &Arc<Clock> {
        let found = self.clocks.iter().find(|(mask, _)| mask >> lane & 1 != 0);
        &found.unwrap_or(&self.clocks[0]).1
    }

    /// Everything that the lanes of `mask` know, their own accesses included.
    pub fn knowledge(&self, mask: u32) -> Clock {
        let mut known: Option<Clock> = None;
        for (lanes, clock) in &self.clocks {
            if lanes & mask != 0 {
                match &mut known {
                    None => known = Some((**clock).clone()),
                    Some(known) => known.join(clock),
                }
            }
        }
        let mut known = known.unwrap_or_else(|| (*self.clocks[0].1).clone());
        for lane in lanes(mask) {
            known.learn((self.base + lane) as usize, self.epochs[lane as usize]);
        }
        known
    }

    /// The lanes of `mask` publish: what they do from now on is not in what they published. They
    /// all go to the epoch after the latest of theirs, so that a warp's epochs do not drift apart.
    pub fn advance(&mut self, mask: u32) {
        let latest = lanes(mask).map(|l| self.epochs[l as usize]).max().unwrap_or(0);
        for lane in lanes(mask) {
            self.epochs[lane as usize] = latest + 1;
        }
    }

    /// Gives the lanes of `mask` this knowledge in place of their own.
    pub fn set_knowledge(&mut self, mask: u32, clock: Arc<Clock>) {
        for entry in &mut self.clocks {
            entry.0 &= !mask;
        }
        self.clocks.retain(|(lanes, _)| *lanes != 0);
        match self.clocks.iter_mut().find(|(_, known)| Arc::ptr_eq(known, &clock)) {
            Some(entry) => entry.0 |= mask,
            None => self.clocks.push((mask, clock)),
        }
    }

    /// The lanes of `mask` learn what `clock` knows.
    pub fn acquire(&mut self, mask: u32, clock: &Clock) {
        let groups: Vec<_> =
            self.clocks.iter().filter(|(lanes, _)| lanes & mask != 0).cloned().collect();
        for (lanes, known) in groups {
            let mut joined = (*known).clone();
            joined.join(clock);
            self.set_knowledge(lanes & mask, Arc::new(joined));
        }
    }
}

/// The bit of each lane in a mask.
pub const BITS: V32 = {
    let (mut bits, mut i) = ([0; LANES], 0);
    while i < LANES {
        bits[i] = 1 << i;
        i += 1;
    }
    bits
};

/// Replaces the lanes of `mask`.
#[inline(always)]
fn blend<T: Copy>(old: &mut [T; LANES], new: &[T; LANES], mask: u32) {
    if mask == u32::MAX {
        *old = *new;
        return;
    }
    for i in 0..LANES {
        old[i] = if mask & BITS[i] != 0 { new[i] } else { old[i] };
    }
}

/// The lanes of a mask, ascending.
pub fn lanes(mask: u32) -> impl Iterator<Item = u32> {
    let mut rest = mask;
    std::iter::from_fn(move || {
        if rest == 0 {
            return None;
        }
        let lane = rest.trailing_zeros();
        rest &= rest - 1;
        Some(lane)
    })
}
