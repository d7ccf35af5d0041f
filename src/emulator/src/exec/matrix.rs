//! ldmatrix, stmatrix, movmatrix and mma.sync.

use super::cluster::Ctx;
use super::fault::{Run, stop};
use super::warp::{LANES, V32, V64};
use crate::error::Rule;
use crate::isa::{Addr, MatTy, Mma, Order, Reg, Space, Src, Ty};
use crate::tensor::element::Element;
use crate::tensor::fragment;
use crate::tensor::mma::{self, Accumulator};

/// The tensor functions' name of an element type.
pub fn element(ty: MatTy) -> Option<Element> {
    Some(match ty {
        MatTy::F16 => Element::F16,
        MatTy::Bf16 => Element::Bf16,
        MatTy::Tf32 => Element::Tf32,
        MatTy::E4m3 => Element::E4m3,
        MatTy::E5m2 => Element::E5m2,
        MatTy::S8 => Element::S8,
        MatTy::U8 => Element::U8,
        _ => return None,
    })
}

impl Ctx<'_> {
    /// Addresses of the lanes that name a row: eight a matrix; the others need not have one.
    fn row_addresses(&mut self, n: u32, addr: &Addr) -> V64 {
        let all = self.warp.mask;
        self.warp.mask = if n == 4 { all } else { all & ((1 << (8 * n)) - 1) };
        let at = self.addresses(addr);
        self.warp.mask = all;
        at
    }

    pub fn ldmatrix(
        &mut self,
        n: u32,
        trans: bool,
        d: &[Reg],
        addr: &Addr,
        space: Space,
    ) -> Run<()> {
        let at = self.row_addresses(n, addr);
        if self.warp.bad != 0 {
            return Ok(());
        }
        let mut out: Vec<V32> = Vec::new();
        for matrix in 0..n as usize {
            let mut rows = [[0u8; 16]; 8];
            for (r, row) in rows.iter_mut().enumerate() {
                let lane = fragment::ldmatrix_address_lane(matrix, r) as u32;
                let address = at[lane as usize];
                self.aligned(address, 16, lane)?;
                let target = self.resolve(space, address, lane)?;
                self.read(target, row, lane, Order::Weak)?;
            }
            out.push(fragment::ldmatrix(&rows, trans));
        }
        let mask = if n == 4 { u32::MAX } else { (1 << (8 * n)) - 1 };
        self.count_shared(&at, mask, 16, false);
        for (reg, v) in d.iter().zip(&out) {
            self.warp.set32(*reg, v);
        }
        Ok(())
    }

    pub fn stmatrix(
        &mut self,
        n: u32,
        trans: bool,
        a: &[Src],
        addr: &Addr,
        space: Space,
    ) -> Run<()> {
        let at = self.row_addresses(n, addr);
        let values: Vec<V32> = a.iter().map(|s| self.src32(s)).collect();
        if self.warp.bad != 0 {
            return Ok(());
        }
        for (matrix, value) in values.iter().enumerate().take(n as usize) {
            let rows = fragment::stmatrix(value, trans);
            for (r, row) in rows.iter().enumerate() {
                let lane = fragment::ldmatrix_address_lane(matrix, r) as u32;
                let address = at[lane as usize];
                self.aligned(address, 16, lane)?;
                let target = self.resolve(space, address, lane)?;
                self.write(target, row, lane, Order::Weak)?;
            }
        }
        self.changed();
        let mask = if n == 4 { u32::MAX } else { (1 << (8 * n)) - 1 };
        self.count_shared(&at, mask, 16, true);
        Ok(())
    }

    pub fn movmatrix(&mut self, d: Reg, a: &Src) {
        let v = self.src32(a);
        let rows = fragment::stmatrix(&v, false);
        let r = fragment::ldmatrix(&rows, true);
        self.warp.set32(d, &r);
    }

    pub fn mma(&mut self, m: &Mma) -> Run<()> {
        let (Some(a), Some(b)) = (element(m.a_ty), element(m.b_ty)) else {
            return stop(Rule::BadOperand, "this mma type is not supported");
        };
        let d = match (m.d_ty, m.satfinite) {
            (Ty::F16, _) => Accumulator::F16,
            (Ty::F32, _) => Accumulator::F32,
            (_, false) => Accumulator::S32,
            (_, true) => Accumulator::S32Saturating,
        };
        let Some(form) = mma::Mma::new(m.k as usize, a, b, d) else {
            return stop(Rule::BadOperand, "this mma form is not supported");
        };
        if m.c_ty != m.d_ty {
            return stop(Rule::BadOperand, "mma with different types of C and D");
        }
        let x: Vec<V32> = m.a.iter().map(|s| self.src32(s)).collect();
        let y: Vec<V32> = m.b.iter().map(|s| self.src32(s)).collect();
        let z: Vec<V32> = m.c.iter().map(|s| self.src32(s)).collect();
        if self.warp.bad != 0 {
            return Ok(());
        }
        let sizes = (x.len(), y.len(), z.len());
        if sizes != (form.a_registers(), form.b_registers(), form.d_registers()) {
            return stop(Rule::BadOperand, "wrong number of fragment registers");
        }
        let r = form.execute(&x, &y, &z);
        for (reg, v) in m.d.iter().zip(&r) {
            self.warp.set32(*reg, v);
        }
        self.cl.counters.tensor(m.a_ty, 2 * u64::from(m.m * m.n * m.k));
        debug_assert_eq!(LANES, fragment::LANES);
        Ok(())
    }
}
