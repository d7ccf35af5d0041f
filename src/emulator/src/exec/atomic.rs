//! Atomics and reductions.

use super::access::Target;
use super::cluster::Ctx;
use super::fault::{Run, stop_lane};
use super::half;
use super::warp::{LANES, V64, lanes};
use crate::error::Rule;
use crate::isa::{Addr, AtomOp, Order, Reg, Scope, Space, Src, Ty};

/// The new value of an atomic operation.
#[inline]
pub fn combine(op: AtomOp, ty: Ty, old: u64, a: u64, b: u64) -> u64 {
    match op {
        AtomOp::Exch => a,
        AtomOp::Cas => {
            if old == a {
                b
            } else {
                old
            }
        }
        AtomOp::And => old & a,
        AtomOp::Or => old | a,
        AtomOp::Xor => old ^ a,
        AtomOp::Inc => {
            if old >= a {
                0
            } else {
                old + 1
            }
        }
        AtomOp::Dec => {
            if old == 0 || old > a {
                a
            } else {
                old - 1
            }
        }
        AtomOp::Add | AtomOp::Min | AtomOp::Max => arithmetic(op, ty, old, a),
    }
}

fn arithmetic(op: AtomOp, ty: Ty, old: u64, a: u64) -> u64 {
    match ty {
        Ty::F32 => {
            let sum = f32::from_bits(old as u32) + f32::from_bits(a as u32);
            if sum.is_nan() { 0x7fff_ffff } else { sum.to_bits().into() }
        }
        Ty::F64 => (f64::from_bits(old) + f64::from_bits(a)).to_bits(),
        Ty::F16 | Ty::Bf16 => half_op(op, ty, old as u32, a as u32).into(),
        Ty::F16x2 | Ty::Bf16x2 => {
            let (old, a) = (old as u32, a as u32);
            let low = half_op(op, ty, old & 0xffff, a & 0xffff);
            u64::from(low | half_op(op, ty, old >> 16, a >> 16) << 16)
        }
        _ => integer(op, ty, old, a),
    }
}

fn half_op(op: AtomOp, ty: Ty, x: u32, y: u32) -> u32 {
    let (a, b) = (half::to_f32(ty, x), half::to_f32(ty, y));
    half::from_f32(
        ty,
        match op {
            AtomOp::Min => {
                if a.is_nan() || b < a {
                    b
                } else {
                    a
                }
            }
            AtomOp::Max => {
                if a.is_nan() || b > a {
                    b
                } else {
                    a
                }
            }
            _ => a + b,
        },
    )
}

fn integer(op: AtomOp, ty: Ty, x: u64, y: u64) -> u64 {
    let signed = |v: u64| if ty.bits() == 32 { i64::from(v as u32 as i32) } else { v as i64 };
    match (op, ty.signed()) {
        (AtomOp::Min, true) => {
            if signed(y) < signed(x) {
                y
            } else {
                x
            }
        }
        (AtomOp::Max, true) => {
            if signed(y) > signed(x) {
                y
            } else {
                x
            }
        }
        (AtomOp::Min, false) => x.min(y),
        (AtomOp::Max, false) => x.max(y),
        _ if ty.bits() == 32 => u64::from((x as u32).wrapping_add(y as u32)),
        _ => x.wrapping_add(y),
    }
}

/// An `atom` or `red`, decoded.
pub struct Atomic<'a> {
    pub space: Space,
    pub op: AtomOp,
    pub ty: Ty,
    pub order: Order,
    pub scope: Scope,
    pub d: &'a [Reg],
    pub addr: &'a Addr,
    pub a: &'a [Src],
    pub b: &'a Src,
}

impl Ctx<'_> {
    pub fn atomic(&mut self, atom: &Atomic<'_>) -> Run<()> {
        let [a] = atom.a else { return self.atomic_vector(atom) };
        let at = self.addresses(atom.addr);
        let (values, other) = (self.src64(a), self.src64(atom.b));
        if self.warp.bad != 0 {
            return Ok(());
        }
        self.publish(atom.space, (atom.order, atom.scope), &at, true);
        if self.atomic_warp(atom, &at, &values, &other)? {
            return Ok(());
        }
        self.atomic_by_lane(atom, &at, &[values], &other)
    }

    /// An atomic on several words a lane.
    #[inline(never)]
    fn atomic_vector(&mut self, atom: &Atomic<'_>) -> Run<()> {
        let at = self.addresses(atom.addr);
        let values: Vec<V64> = atom.a.iter().map(|s| self.src64(s)).collect();
        let other = self.src64(atom.b);
        if self.warp.bad != 0 {
            return Ok(());
        }
        self.publish(atom.space, (atom.order, atom.scope), &at, true);
        self.atomic_by_lane(atom, &at, &values, &other)
    }

    /// An atomic of all executing lanes, one after the other, wherever each leads.
    #[inline(never)]
    fn atomic_by_lane(
        &mut self,
        atom: &Atomic<'_>,
        at: &V64,
        values: &[V64],
        other: &V64,
    ) -> Run<()> {
        let width = atom.ty.bytes();
        let mut out = vec![[0u64; LANES]; atom.a.len()];
        for lane in lanes(self.warp.mask) {
            let i = lane as usize;
            self.aligned(at[i], width * atom.a.len() as u32, lane)?;
            for (n, column) in values.iter().enumerate() {
                let address = at[i] + n as u64 * u64::from(width);
                let target = self.resolve(atom.space, address, lane)?;
                let cut = u64::MAX >> (64 - 8 * width);
                // f32 sums in global memory flush subnormals, those in shared memory do not.
                let flushes = atom.ty == Ty::F32 && matches!(target, Target::Global(_));
                let flush =
                    |v: u64| if flushes && v & 0x7f80_0000 == 0 { v & 0x8000_0000 } else { v };
                let (a, b) = (flush(column[i] & cut), other[i] & cut);
                let update = |old| flush(combine(atom.op, atom.ty, flush(old), a, b));
                out[n][i] = self.update(target, width, lane, update)?;
            }
        }
        // The update happens where the data is: the operand travels once.
        self.count(atom.space, at, width * atom.a.len() as u32, true);
        self.atomic_done(atom, at, atom.d, &out);
        Ok(())
    }

    /// After an atomic: the old values to their registers, and what the address told.
    pub fn atomic_done(&mut self, atom: &Atomic<'_>, at: &V64, d: &[Reg], old: &[V64]) {
        self.changed();
        for (reg, column) in d.iter().zip(old) {
            self.warp.set64(*reg, column);
        }
        self.observe(atom.space, (atom.order, atom.scope), at);
    }

    /// Applies an atomic update and returns the old value.
    fn update(
        &mut self,
        target: Target,
        width: u32,
        lane: u32,
        new: impl Fn(u64) -> u64,
    ) -> Run<u64> {
        match target {
            Target::Global(address) => {
                let (a, at) = self.global(address, width, lane, "atomic")?;
                if self.env.checks.uninitialised && !a.written(at, width) {
                    let message = format!("atomic at {address:#x}, which nothing has written");
                    return stop_lane(Rule::Uninitialised, lane, message);
                }
                self.global_order(a, at, width, lane, (Order::Relaxed, true))?;
                let mut old = a.load(at, width);
                loop {
                    match a.exchange(at, width, old, new(old)) {
                        Ok(_) => return Ok(old),
                        Err(now) => old = now,
                    }
                }
            }
            Target::Shared(..) => {
                let mut bytes = [0; 8];
                let part = &mut bytes[..width as usize];
                self.read(target, part, lane, Order::Relaxed)?;
                let old = u64::from_le_bytes(bytes);
                let data = new(old).to_le_bytes();
                self.write(target, &data[..width as usize], lane, Order::Relaxed)?;
                Ok(old)
            }
            _ => stop_lane(Rule::BadOperand, lane, "atomic on local memory or parameters"),
        }
    }
}

/// Reduction of `redux.sync`.
pub fn redux(op: AtomOp, ty: Ty, values: impl Iterator<Item = u32>) -> u32 {
    let fold = |x: u32, y: u32| {
        if ty == Ty::F32 {
            let (a, b) = (f32::from_bits(x), f32::from_bits(y));
            return if op == AtomOp::Min { a.min(b) } else { a.max(b) }.to_bits();
        }
        combine(op, ty, x.into(), y.into(), 0) as u32
    };
    values.reduce(fold).unwrap_or(0)
}

/// Sum in the format of a reducing copy; kept here so that all reductions share one meaning.
pub fn reduce_bytes(op: AtomOp, ty: Ty, old: &mut [u8], new: &[u8]) {
    let width = ty.bytes() as usize;
    for (o, n) in old.chunks_exact_mut(width).zip(new.chunks_exact(width)) {
        let word = |b: &[u8]| {
            let mut w = [0; 8];
            w[..width].copy_from_slice(b);
            u64::from_le_bytes(w)
        };
        let r = combine(op, ty, word(o), word(n), 0).to_le_bytes();
        o.copy_from_slice(&r[..width]);
    }
}
