//! wgmma: each warp computes its sixteen rows. Operands in shared memory are read, and the
//! accumulators written, only when the group is waited for; until then both are out of bounds.

use std::collections::VecDeque;

use super::cluster::Ctx;
use super::fault::{Run, refused, stop};
use super::matrix::element;
use super::warp::{LANES, V32};
use crate::error::Rule;
use crate::isa::{Reg, Src, Ty, Wgmma, WgmmaA};
use crate::memory::SHARED_START;
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
}

#[derive(Debug, Clone)]
enum Operand {
    Registers(Vec<V32>),
    Shared(Vec<Chunk>),
}

#[derive(Debug, Clone, Copy)]
struct Chunk {
    mn: u32,
    k: u32,
    address: u32,
}

/// What a warp has in flight.
#[derive(Debug, Clone)]
pub struct WgmmaState {
    used: bool,
    pub open: Vec<Started>,
    pub groups: VecDeque<Vec<Started>>,
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
        let started = Started { op: Box::new(w.clone()), a, b, keep_d: keep != 0, pc: self.pc };
        self.warp.wgmma.open.push(started);
        self.cl.counters.tensor(w.a_ty, 2 * 16 * u64::from(w.n * w.k));
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
            for chunk in &list {
                self.lend(self.warp.rank, chunk.address, 16, 0)?;
            }
        }
        Ok(list)
    }

    pub fn wgmma_commit(&mut self) {
        let open = std::mem::take(&mut self.warp.wgmma.open);
        self.warp.wgmma.groups.push_back(open);
    }

    pub fn wgmma_wait(&mut self, most: u32) -> Run<()> {
        while self.warp.wgmma.groups.len() > most as usize {
            let group = self.warp.wgmma.groups.pop_front().unwrap_or_default();
            for started in group {
                self.finish_wgmma(&started)?;
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

    fn finish_wgmma(&mut self, s: &Started) -> Run<()> {
        let w = &*s.op;
        let (Some(a_el), Some(b_el)) = (element(w.a_ty), element(w.b_ty)) else { return Ok(()) };
        let first = (self.warp.index % 4) as u32 * 16;
        let b = self.fetch(&s.b, b_el, w, w.trans_b, (0, w.n));
        let a = match &s.a {
            Operand::Registers(regs) => registers(regs, a_el, w.k as usize),
            Operand::Shared(chunks) => self.fetch(chunks, a_el, w, w.trans_a, (first, 16)),
        };
        let rank = self.warp.rank;
        let mut lent: Vec<u32> = s.b.iter().map(|c| c.address).collect();
        if let Operand::Shared(chunks) = &s.a {
            lent.extend(chunks.iter().map(|c| c.address));
        }
        for address in lent {
            if self.cl.blocks[rank].shared.offset(address, 16).is_err() {
                return refused(crate::memory::shared::Refusal::OutOfBounds, 0, "read", address);
            }
            self.give_back(rank, address, 16, 0, s.pc);
        }
        self.accumulate(s, &a, &b);
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
        Ok(())
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
