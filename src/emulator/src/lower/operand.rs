//! Operands: registers, constants, predicates, addresses.

use super::{Lower, Place, new_slot};
use crate::error::LoadError;
use crate::isa::{Addr, PSrc, Reg, RegKind, Space, Special, Src, Ty};
use crate::parse::ast::RawOperand;
use crate::parse::clip;

use super::form::Form;

/// Fails with the form's name unless it has between `least` and `most` operands.
pub fn arity(
    form: &Form<'_>,
    ops: &[RawOperand<'_>],
    least: usize,
    most: usize,
) -> Result<(), LoadError> {
    if (least..=most).contains(&ops.len()) {
        return Ok(());
    }
    Err(form.unknown(&format!("{} operands, expected {least} to {most}", ops.len())))
}

impl<'m, 'a> Lower<'m, 'a> {
    fn bad<T>(&self, line: u32, what: &str, op: &RawOperand<'_>) -> Result<T, LoadError> {
        let shown = format!("{op:?}");
        Err(LoadError::new(line, format!("expected {what}, found {}", clip(&shown))))
    }

    /// The register of a name, or an error.
    pub fn reg_named(&mut self, name: &'a str, line: u32) -> Result<Reg, LoadError> {
        if name == "_" {
            return Ok(Reg::SINK);
        }
        let kernel = &mut self.kernel;
        match self.names.reg(name, |kind| new_slot(kernel, kind, name)) {
            Some(reg) => Ok(reg),
            None => Err(LoadError::new(line, format!("register '{}' is not declared", clip(name)))),
        }
    }

    pub fn reg(&mut self, form: &Form<'a>, op: &RawOperand<'a>) -> Result<Reg, LoadError> {
        match op {
            RawOperand::Name(name, 0) => self.reg_named(name, form.line),
            _ => self.bad(form.line, "a register", op),
        }
    }

    /// A destination that must be a predicate, or the sink.
    pub fn pred_reg(&mut self, form: &Form<'a>, op: &RawOperand<'a>) -> Result<Reg, LoadError> {
        let reg = self.reg(form, op)?;
        if matches!(reg.kind, RegKind::Pred | RegKind::Sink) {
            return Ok(reg);
        }
        self.bad(form.line, "a predicate", op)
    }

    /// A destination that must not be a predicate.
    pub fn data_reg(&mut self, form: &Form<'a>, op: &RawOperand<'a>) -> Result<Reg, LoadError> {
        let reg = self.reg(form, op)?;
        if reg.kind != RegKind::Pred {
            return Ok(reg);
        }
        self.bad(form.line, "a data register", op)
    }

    /// A register or a vector of them.
    pub fn regs(&mut self, form: &Form<'a>, op: &RawOperand<'a>) -> Result<Box<[Reg]>, LoadError> {
        match op {
            RawOperand::List(items) => items.iter().map(|i| self.data_reg(form, i)).collect(),
            _ => Ok(Box::new([self.data_reg(form, op)?])),
        }
    }

    /// A source or a vector of them.
    pub fn srcs(
        &mut self,
        form: &Form<'a>,
        op: &RawOperand<'a>,
        ty: Ty,
    ) -> Result<Box<[Src]>, LoadError> {
        match op {
            RawOperand::List(items) => items.iter().map(|i| self.src(form, i, ty)).collect(),
            _ => Ok(Box::new([self.src(form, op, ty)?])),
        }
    }

    /// A source operand; constants are encoded for `ty`.
    pub fn src(&mut self, form: &Form<'a>, op: &RawOperand<'a>, ty: Ty) -> Result<Src, LoadError> {
        match op {
            RawOperand::Int(value) => Ok(Src::Imm(int_constant(*value, ty))),
            RawOperand::F32(bits) => {
                Ok(Src::Imm(float_constant(f64::from(f32::from_bits(*bits)), *bits, ty)))
            }
            RawOperand::F64(bits) => {
                let value = f64::from_bits(*bits);
                Ok(Src::Imm(if ty == Ty::F64 || ty.bits() == 64 {
                    *bits
                } else {
                    float_constant(value, (value as f32).to_bits(), ty)
                }))
            }
            RawOperand::Name(name, offset) => self.named(form, name, *offset),
            _ => self.bad(form.line, "a value", op),
        }
    }

    fn named(&mut self, form: &Form<'a>, name: &'a str, offset: i64) -> Result<Src, LoadError> {
        if name == "WARP_SZ" {
            return Ok(Src::Imm(32));
        }
        if let Some(special) = special(name) {
            return Ok(Src::Special(special));
        }
        if let Some(place) = self.find_place(name)? {
            return Ok(place_src(place, offset));
        }
        if name == "_" {
            return Ok(Src::Imm(0));
        }
        let reg = self.reg_named(name, form.line)?;
        if reg.kind == RegKind::Pred || offset != 0 {
            let message = format!("'{}' is not a value here", clip(name));
            return Err(LoadError::new(form.line, message));
        }
        Ok(Src::Reg(reg))
    }

    /// A predicate source.
    pub fn psrc(&mut self, form: &Form<'a>, op: &RawOperand<'a>) -> Result<PSrc, LoadError> {
        let (name, negated) = match op {
            RawOperand::Name(name, 0) => (name, false),
            RawOperand::Not(name) => (name, true),
            // The compiler writes a true constant as -1.
            RawOperand::Int(value) => return Ok(PSrc::Const(*value != 0)),
            _ => return self.bad(form.line, "a predicate", op),
        };
        let reg = self.reg_named(name, form.line)?;
        match reg.kind {
            RegKind::Pred => Ok(PSrc::Reg { slot: reg.slot, negated }),
            _ => self.bad(form.line, "a predicate", op),
        }
    }

    /// An address, and the space that its variable lives in if it names one.
    pub fn addr(
        &mut self,
        form: &Form<'a>,
        op: &RawOperand<'a>,
    ) -> Result<(Addr, Option<Space>), LoadError> {
        let (base, offset) = match op {
            RawOperand::Address { base, offset, rest } if rest.is_empty() => (base, *offset),
            _ => return self.bad(form.line, "an address", op),
        };
        self.addr_parts(form, base, offset)
    }

    pub fn addr_parts(
        &mut self,
        form: &Form<'a>,
        base: &RawOperand<'a>,
        offset: i64,
    ) -> Result<(Addr, Option<Space>), LoadError> {
        let RawOperand::Name(name, 0) = base else {
            let base = self.src(form, base, Ty::U64)?;
            return Ok((Addr { base, offset }, None));
        };
        match self.find_place(name)? {
            Some(place) => {
                let addr = Addr { base: place_src(place, offset), offset: 0 };
                Ok((addr, Some(place_space(place))))
            }
            None => {
                let base = Src::Reg(self.reg_named(name, form.line)?);
                Ok((Addr { base, offset }, None))
            }
        }
    }

    /// A constant operand.
    pub fn constant(&self, form: &Form<'a>, op: &RawOperand<'a>) -> Result<u64, LoadError> {
        match op {
            RawOperand::Int(value) => Ok(*value),
            _ => self.bad(form.line, "a constant", op),
        }
    }
}

fn place_src(place: Place, offset: i64) -> Src {
    let at = |base: u32| Src::Imm((i64::from(base)).wrapping_add(offset) as u64);
    match place {
        Place::Param(base) | Place::Local(base) => at(base),
        Place::Shared(base) => at(base + crate::memory::SHARED_START),
        Place::DynShared => Src::DynShared(offset),
        Place::Module(index) => Src::Symbol(index, offset),
    }
}

fn place_space(place: Place) -> Space {
    match place {
        Place::Param(_) => Space::Param,
        Place::Local(_) => Space::Local,
        Place::Shared(_) | Place::DynShared => Space::Shared,
        Place::Module(_) => Space::Global,
    }
}

fn int_constant(value: u64, ty: Ty) -> u64 {
    match ty {
        Ty::F32 => (value as i64 as f32).to_bits().into(),
        Ty::F64 => (value as i64 as f64).to_bits(),
        _ => value,
    }
}

/// A floating constant in the encoding of `ty`.
fn float_constant(value: f64, single: u32, ty: Ty) -> u64 {
    match ty {
        Ty::F64 => value.to_bits(),
        Ty::F16 => u64::from(half::f16::from_f64(value).to_bits()),
        Ty::Bf16 => u64::from(half::bf16::from_f64(value).to_bits()),
        _ => u64::from(single),
    }
}

fn axis(name: &str) -> Option<u8> {
    match name {
        "x" => Some(0),
        "y" => Some(1),
        "z" => Some(2),
        _ => None,
    }
}

/// A special register's name.
pub fn special(name: &str) -> Option<Special> {
    let name = name.strip_prefix('%')?;
    if let Some((family, part)) = name.rsplit_once('.') {
        let axis = axis(part)?;
        return Some(match family {
            "tid" => Special::Tid(axis),
            "ntid" => Special::Ntid(axis),
            "ctaid" => Special::Ctaid(axis),
            "nctaid" => Special::Nctaid(axis),
            "clusterid" => Special::ClusterId(axis),
            "nclusterid" => Special::NclusterId(axis),
            "cluster_ctaid" => Special::ClusterCtaid(axis),
            "cluster_nctaid" => Special::ClusterNctaid(axis),
            _ => return None,
        });
    }
    Some(match name {
        "laneid" => Special::LaneId,
        "warpid" => Special::WarpId,
        "nwarpid" => Special::NwarpId,
        "smid" => Special::SmId,
        "nsmid" => Special::NsmId,
        "gridid" => Special::GridId,
        "lanemask_eq" => Special::LaneMaskEq,
        "lanemask_le" => Special::LaneMaskLe,
        "lanemask_lt" => Special::LaneMaskLt,
        "lanemask_ge" => Special::LaneMaskGe,
        "lanemask_gt" => Special::LaneMaskGt,
        "clock" => Special::Clock,
        "clock_hi" => Special::ClockHi,
        "clock64" => Special::Clock64,
        "globaltimer" | "globaltimer_lo" => Special::GlobalTimer,
        "cluster_ctarank" => Special::ClusterCtarank,
        "cluster_nctarank" => Special::ClusterNctarank,
        "is_explicit_cluster" => Special::IsExplicitCluster,
        "dynamic_smem_size" => Special::DynamicSmem,
        "total_smem_size" => Special::TotalSmem,
        _ => return None,
    })
}
