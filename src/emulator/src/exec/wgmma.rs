//! wgmma: one operation of a warpgroup, of which each warp computes its sixteen rows. Operands in
//! shared memory are read only when the first of the four warps waits for the group, and the
//! accumulators of a warp are written when that warp waits; until then both are out of bounds.
//! A wait needs all four warps to have committed the group, because the operation is theirs.

use std::collections::VecDeque;
use std::sync::Arc;

use super::cluster::Ctx;
use super::fault::{Run, refused, stop};
use super::matrix::element;
use super::warp::{LANES, V32};
use super::{Flow, Wait};
use crate::error::Rule;
use crate::isa::{Reg, Src, Ty, Wgmma, WgmmaA};
use crate::memory::SHARED_START;
use crate::memory::shadow::Access;
use crate::tensor::descriptor::{Descriptor, Major};
use crate::tensor::element::Element;
use crate::tensor::fragment::{self, Slot};
use crate::tensor::number::{self, Rounding};

/// A started product.
#[derive(Debug, Clone)]
pub struct Started {
    op: Box<Wgmma>,
    a: Operand,
    b: Vec<Chunk>,
    keep_d: bool,
    pc: u32,
    /// A and B as numbers, once the operation has read them.
    captured: Option<(Vec<f32>, Arc<Vec<f32>>)>,
    /// Epoch of the warpgroup's engine at which it read them.
    read_at: u32,
}

#[derive(Debug, Clone)]
enum Operand {
    Registers(Vec<V32>),
    Shared(Vec<Chunk>),
}

impl Operand {
    /// The pieces of an operand in shared memory.
    fn chunks(&self) -> &[Chunk] {
        match self {
            Self::Registers(_) => &[],
            Self::Shared(chunks) => chunks,
        }
    }
}

/// Sixteen bytes of an operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Chunk {
    mn: u32,
    k: u32,
    address: u32,
}

/// The ranges that chunks fill, address and bytes, in the order of addresses.
fn ranges(chunks: &[Chunk]) -> Vec<(u32, u32)> {
    let mut addresses: Vec<u32> = chunks.iter().map(|c| c.address).collect();
    addresses.sort_unstable();
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for address in addresses {
        match ranges.last_mut() {
            Some((first, bytes)) if *first + *bytes == address => *bytes += 16,
            _ => ranges.push((address, 16)),
        }
    }
    ranges
}

/// What a warp has in flight.
#[derive(Debug, Clone)]
pub struct WgmmaState {
    used: bool,
    pub open: Vec<Started>,
    pub groups: VecDeque<Vec<Started>>,
    /// Groups committed, and waited for, since the start.
    committed: u64,
    retired: u64,
    /// Write clock of each 32-bit register, of the last fence, and now.
    written: Vec<u64>,
    fenced: Option<u64>,
    now: u64,
    /// Accumulators in flight.
    flight: Vec<bool>,
}

impl WgmmaState {
    pub fn new(regs: usize, used: bool) -> Self {
        let n = if used { regs } else { 0 };
        Self {
            used,
            open: Vec::new(),
            groups: VecDeque::new(),
            committed: 0,
            retired: 0,
            written: vec![0; n],
            fenced: None,
            now: 1,
            flight: vec![false; n],
        }
    }

    /// Notes that an ordinary instruction wrote a register.
    #[inline(always)]
    pub fn wrote(&mut self, slot: usize) {
        if self.used {
            self.now += 1;
            self.written[slot] = self.now;
        }
    }

    /// Whether a register belongs to a product that has not been waited for.
    pub fn in_flight(&self, a: &Src) -> bool {
        match a {
            Src::Reg(reg) if reg.bits() == 32 => self.slot_in_flight(reg.slot),
            _ => false,
        }
    }

    pub fn slot_in_flight(&self, slot: u32) -> bool {
        self.flight.get(slot as usize).is_some_and(|f| *f)
    }

    pub fn idle(&self) -> bool {
        self.open.is_empty() && self.groups.iter().all(Vec::is_empty)
    }
}

impl Ctx<'_> {
    pub fn wgmma_fence(&mut self) {
        let state = &mut self.warp.wgmma;
        state.fenced = Some(state.now);
    }

    fn needs_fence(&self, reg: Reg) -> Run<()> {
        let state = &self.warp.wgmma;
        let slot = reg.slot as usize;
        let fenced = state.fenced.unwrap_or(0);
        if state.fenced.is_none() || state.written.get(slot).is_some_and(|w| *w > fenced) {
            let name = &self.env.k.names[0][slot];
            let message = format!("{name} was written after the last wgmma.fence");
            return stop(Rule::MissingWgmmaFence, message);
        }
        Ok(())
    }

    pub fn wgmma(&mut self, w: &Wgmma) -> Run<()> {
        let live = self.warp.live;
        let keep = self.warp.pred(w.scale_d) & live;
        if keep != 0 && keep != live {
            return stop(Rule::Undefined, "scale-d differs between lanes");
        }
        for reg in w.d.iter() {
            if !self.warp.wgmma.slot_in_flight(reg.slot) {
                if keep != 0 && self.warp.defined(*reg) & live != live {
                    let name = &self.env.k.names[0][reg.slot as usize];
                    let message = format!("accumulator {name} has no value");
                    return stop(Rule::Uninitialised, message);
                }
                self.needs_fence(*reg)?;
            }
        }
        let (Some(a_el), Some(b_el)) = (element(w.a_ty), element(w.b_ty)) else {
            return stop(Rule::BadOperand, "this wgmma type is not supported");
        };
        let b = self.descriptor(&w.b)?;
        let b = self.chunks(b, major(w.trans_b), b_el, w.n, w.k, None)?;
        let a = match &w.a {
            WgmmaA::Regs(regs) => {
                for reg in regs.iter() {
                    if let Src::Reg(reg) = reg {
                        self.needs_fence(*reg)?;
                    }
                }
                Operand::Registers(regs.iter().map(|s| self.src32(s)).collect())
            }
            WgmmaA::Shared(d) => {
                let d = self.descriptor(d)?;
                let rows = (self.warp.index % 4) as u32 * 16;
                Operand::Shared(self.chunks(d, major(w.trans_a), a_el, 64, w.k, Some(rows))?)
            }
        };
        if self.warp.bad != 0 {
            return Ok(());
        }
        for reg in w.d.iter() {
            self.warp.undefine(*reg, u32::MAX);
            self.warp.wgmma.flight[reg.slot as usize] = true;
        }
        let a_bytes = if let Operand::Shared(chunks) = &a { 16 * chunks.len() as u64 } else { 0 };
        let read = a_bytes + 4 * b.len() as u64;
        let started = Started {
            op: Box::new(w.clone()),
            a,
            b,
            keep_d: keep != 0,
            pc: self.pc,
            captured: None,
            read_at: 0,
        };
        self.warp.wgmma.open.push(started);
        self.cl.counters.tensor(w.a_ty, 2 * 16 * u64::from(w.n * w.k));
        // The warpgroup reads B once; this warp counts its quarter of it, and its rows of A.
        self.cl.counters.shared_traffic(self.pc, false, read, (read / 128, read / 128));
        Ok(())
    }

    fn descriptor(&mut self, s: &Src) -> Run<Descriptor> {
        let v = self.src64(s);
        let first = v[self.warp.mask.trailing_zeros() as usize % LANES];
        if self.warp.bad == 0 && v.iter().any(|d| *d != first) && self.warp.mask == u32::MAX {
            return stop(Rule::Undefined, "the descriptor differs between lanes");
        }
        Ok(Descriptor::decode(first))
    }

    /// Pieces of an operand that this warp reads, lent until the wait.
    fn chunks(
        &mut self,
        d: Descriptor,
        major: Major,
        element: Element,
        mn: u32,
        k: u32,
        rows: Option<u32>,
    ) -> Run<Vec<Chunk>> {
        let mine = |mn: u32| rows.is_none_or(|r| (r..r + 16).contains(&mn));
        let list: Vec<Chunk> = d
            .chunks(major, element, mn, k)
            .filter(|c| mine(c.mn))
            .map(|c| Chunk { mn: c.mn, k: c.k, address: c.address & 0x3ffff })
            .collect();
        if self.warp.bad == 0 {
            for (address, bytes) in ranges(&list) {
                if let Err(whole) = self.lend(self.warp.rank, address, bytes, 0) {
                    let mut parts = (address..address + bytes).step_by(16);
                    parts.try_for_each(|part| self.lend(self.warp.rank, part, 16, 0))?;
                    return Err(whole);
                }
            }
        }
        Ok(list)
    }

    pub fn wgmma_commit(&mut self) {
        let open = std::mem::take(&mut self.warp.wgmma.open);
        self.warp.wgmma.groups.push_back(open);
        self.warp.wgmma.committed += 1;
        self.changed();
    }

    /// Slots of the other warps of the warpgroup.
    fn peers(&self) -> Run<[usize; 3]> {
        let own = self.warp_slot();
        let first = own - self.warp.index % 4;
        let warps = self.cl.blocks[self.warp.rank].threads.div_ceil(32) as usize;
        if self.warp.index / 4 * 4 + 4 > warps {
            return stop(Rule::Undefined, "wgmma in a warpgroup of fewer than four warps");
        }
        let others = [0, 1, 2, 3].map(|i| first + i);
        let skip = self.warp.index % 4;
        Ok([0, 1, 2].map(|i| others[if i < skip { i } else { i + 1 }]))
    }

    pub fn wgmma_wait(&mut self, most: u32) -> Run<Flow> {
        let state = &self.warp.wgmma;
        let due = state.groups.len().saturating_sub(most as usize) as u64;
        if due == 0 {
            return Ok(Flow::Next);
        }
        let last = state.retired + due;
        let peers = self.peers()?;
        for slot in peers {
            let behind = |w: &super::warp::Warp| w.wgmma.committed < last;
            if self.cl.warps[slot].as_deref().is_some_and(behind) {
                return Ok(Flow::Hold(Wait::Poll(self.cl.version)));
            }
        }
        for _ in 0..due {
            let number = self.warp.wgmma.retired;
            let mut group = self.warp.wgmma.groups.pop_front().unwrap_or_default();
            // One epoch for the reads of all four warps: they are one operation.
            if group.iter().any(|s| s.captured.is_none()) {
                self.cl.engine_epoch += 1;
            }
            self.capture(&mut group, None)?;
            for slot in peers {
                self.capture_peer(slot, number, &group)?;
            }
            for started in &group {
                self.finish_wgmma(started);
            }
            let read_at = group.iter().map(|s| s.read_at).max().unwrap_or(0);
            self.learn_engine(self.wgmma_engine(), read_at);
            self.warp.wgmma.retired += 1;
        }
        self.changed();
        Ok(Flow::Next)
    }

    /// Reads the operands of a peer's group of the same number, if it has not retired it.
    fn capture_peer(&mut self, slot: usize, number: u64, own: &[Started]) -> Run<()> {
        let Some(mut peer) = self.cl.warps[slot].take() else { return Ok(()) };
        let at = number.checked_sub(peer.wgmma.retired);
        let group = at.and_then(|at| peer.wgmma.groups.get_mut(at as usize));
        let done = match group {
            Some(group) => self.capture(group, Some(own)),
            None => Ok(()),
        };
        self.cl.warps[slot] = Some(peer);
        done
    }

    /// Reads the operands of a group now. Warps of a group read the same B.
    fn capture(&mut self, group: &mut [Started], like: Option<&[Started]>) -> Run<()> {
        for (n, s) in group.iter_mut().enumerate() {
            if s.captured.is_some() {
                continue;
            }
            let w = s.op.clone();
            let (Some(a_el), Some(b_el)) = (element(w.a_ty), element(w.b_ty)) else { continue };
            let twin = like.and_then(|group| group.get(n)).filter(|other| other.b == s.b);
            let b = twin
                .and_then(|other| other.captured.as_ref().map(|c| c.1.clone()))
                .unwrap_or_else(|| Arc::new(self.fetch(&s.b, b_el, &w, w.trans_b, (0, w.n))));
            let a = match &s.a {
                Operand::Registers(regs) => registers(regs, a_el, w.k as usize),
                Operand::Shared(chunks) => {
                    let first = chunks.iter().map(|c| c.mn).min().unwrap_or(0) / 16 * 16;
                    self.fetch(chunks, a_el, &w, w.trans_a, (first, 16))
                }
            };
            s.captured = Some((a, b));
            s.read_at = self.cl.engine_epoch;
            let noted = twin.is_some_and(|other| (other.read_at, other.pc) == (s.read_at, s.pc));
            self.end_loans(s, noted)?;
        }
        Ok(())
    }

    /// Ends loans by reads of the warpgroup's engine, at its present epoch; `noted` if those of B
    /// are already. Whoever learns of them learns of its earlier ones, and of nothing else that a
    /// lane may know by now.
    fn end_loans(&mut self, s: &Started, noted: bool) -> Run<()> {
        let (rank, epoch) = (self.warp.rank, self.cl.engine_epoch);
        let engine = self.wgmma_engine();
        let who = Access::engine(engine, epoch, s.pc);
        let mut clock = self.warp.clock(0).empty();
        clock.learn(engine as usize, epoch);
        for (chunks, noted) in [(&*s.b, noted), (s.a.chunks(), false)] {
            for (address, bytes) in ranges(chunks) {
                let shared = &mut self.cl.blocks[rank].shared;
                match shared.offset(address, bytes) {
                    Ok(at) if noted => shared.release(at, bytes),
                    Ok(at) => shared.give_back(at, bytes, &who, &clock),
                    Err(r) => return refused(r, 0, "read", address),
                }
            }
        }
        Ok(())
    }

    fn fetch(
        &mut self,
        chunks: &[Chunk],
        el: Element,
        w: &Wgmma,
        trans: bool,
        rows: (u32, u32),
    ) -> Vec<f32> {
        let k = w.k as usize;
        let mut matrix = vec![0f32; rows.1 as usize * k];
        let mut values = Vec::with_capacity(16);
        let rank = self.warp.rank;
        for c in chunks {
            let shared = &self.cl.blocks[rank].shared;
            let at = (c.address - SHARED_START) as usize;
            let mut bytes = [0u8; 16];
            bytes.copy_from_slice(shared.slice(at, 16));
            values.clear();
            el.unpack(&bytes, &mut values);
            for (i, v) in values.iter().enumerate() {
                let (row, col) = match major(trans) {
                    Major::K => (c.mn - rows.0, c.k as usize + i),
                    Major::Mn => (c.mn - rows.0 + i as u32, c.k as usize),
                };
                matrix[row as usize * k + col] = *v;
            }
        }
        matrix
    }

    fn finish_wgmma(&mut self, s: &Started) {
        let w = &*s.op;
        if let Some((a, b)) = &s.captured {
            self.accumulate(s, a, b);
        }
        // A later product on the same accumulators keeps them in flight.
        let later: Vec<u32> = self
            .warp
            .wgmma
            .groups
            .iter()
            .flatten()
            .chain(&self.warp.wgmma.open)
            .flat_map(|s| s.op.d.iter().map(|r| r.slot))
            .collect();
        for reg in w.d.iter() {
            if !later.contains(&reg.slot) {
                self.warp.wgmma.flight[reg.slot as usize] = false;
                self.warp.def32[reg.slot as usize] = self.warp.live;
            }
        }
    }

    /// D = A·B + D for this warp's rows, products summed in f64 and rounded once.
    fn accumulate(&mut self, s: &Started, a: &[f32], b: &[f32]) {
        let w = &*s.op;
        let k = w.k as usize;
        let sign = if w.negate_a != w.negate_b { -1.0 } else { 1.0 };
        for lane in 0..LANES {
            for value in 0..w.n as usize / 2 {
                let at = fragment::wgmma_d_at(0, lane, value);
                let (x, y) = (&a[at.row * k..][..k], &b[at.col * k..][..k]);
                let sum: f64 = x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
                let sum = sign * sum;
                let (slot, shift) = match w.d_ty {
                    Ty::F16 => (w.d[value / 2].slot as usize, 16 * (value % 2)),
                    _ => (w.d[value].slot as usize, 0),
                };
                let word = &mut self.warp.r32[slot][lane];
                *word = added(w, *word, sum, s.keep_d, shift);
            }
        }
    }
}

fn added(w: &Wgmma, word: u32, sum: f64, keep: bool, shift: usize) -> u32 {
    match w.d_ty {
        Ty::F16 => {
            let old = f64::from(number::f16_to_f32((word >> shift) as u16));
            let total = if keep { sum + old } else { sum };
            let new = number::F16.round(total, Rounding::NearestEven, false);
            (word & !(0xffff << shift)) | new << shift
        }
        Ty::S32 => {
            let old = if keep { i64::from(word as i32) } else { 0 };
            let total = old + sum as i64;
            let clamped = total.clamp(i64::from(i32::MIN), i64::from(i32::MAX));
            (if w.satfinite { clamped } else { total }) as u32
        }
        _ => {
            let old = if keep { f64::from(f32::from_bits(word)) } else { 0.0 };
            let r = (sum + old) as f32;
            if r.is_nan() { 0x7fff_ffff } else { r.to_bits() }
        }
    }
}

/// Sixteen rows of A from a warp's registers.
fn registers(regs: &[V32], el: Element, k: usize) -> Vec<f32> {
    let packed = el.per_register();
    let mut matrix = vec![0f32; 16 * k];
    for (register, lanes) in regs.iter().enumerate() {
        for (lane, word) in lanes.iter().enumerate() {
            for slot in 0..packed {
                let at = fragment::wgmma_a_at(0, Slot { lane, register, slot }, packed);
                matrix[at.row * k + at.col] = el.value(el.extract(*word, slot));
            }
        }
    }
    matrix
}

fn major(trans: bool) -> Major {
    if trans { Major::Mn } else { Major::K }
}
