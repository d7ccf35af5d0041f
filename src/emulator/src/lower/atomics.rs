//! `atom` and `red`.

use super::Lower;
use super::data::atom_op;
use super::form::Form;
use super::memory::real_space;
use super::operand::arity;
use crate::error::LoadError;
use crate::isa::{AtomOp, Op, Order, Reg, Scope, Src, Ty};
use crate::parse::ast::RawOperand;

impl<'m, 'a> Lower<'m, 'a> {
    pub fn atomic(
        &mut self,
        form: &mut Form<'a>,
        ops: &[RawOperand<'a>],
    ) -> Result<Option<Op>, LoadError> {
        let returns = form.base == "atom";
        if form.take("async") {
            return Err(form.unknown("red.async is not supported"));
        }
        let order = match form.order() {
            Order::Weak => Order::Relaxed,
            order => order,
        };
        let scope = form.scope().unwrap_or(Scope::Device);
        let space = form.space();
        let policy = form.cache_hints();
        let op = atom_op(form)?;
        let noftz = form.take("noftz");
        let lanes = form.vector();
        let ty = form.ty()?;
        let exchanges = matches!(op, AtomOp::Exch | AtomOp::Cas);
        if (exchanges && !returns)
            || !legal(op, ty)
            || (lanes > 1 && (op != AtomOp::Add && ty.bits() > 32))
        {
            return Err(form.unknown("the operation does not exist for this type"));
        }
        let first = usize::from(returns);
        let data = if op == AtomOp::Cas { 2 } else { 1 };
        arity(form, ops, first + 1 + data, first + 1 + data + usize::from(policy))?;
        let d = if returns { self.regs(form, &ops[0])? } else { Box::new([Reg::SINK]) };
        let (addr, var) = self.addr(form, &ops[first])?;
        let space = real_space(space, var);
        let a = self.srcs(form, &ops[first + 1], ty)?;
        if a.len() != lanes || (returns && d[0] != Reg::SINK && d.len() != lanes) {
            return Err(form.unknown("the vector's length differs from the operand's"));
        }
        let b = match op {
            AtomOp::Cas => self.src(form, &ops[first + 2], ty)?,
            _ => Src::Imm(0),
        };
        Ok(Some(Op::Atom { space, op, ty, order, scope, noftz, d, addr, a, b }))
    }
}

fn legal(op: AtomOp, ty: Ty) -> bool {
    let bits = matches!(ty, Ty::B32 | Ty::B64);
    let whole = matches!(ty, Ty::U32 | Ty::S32 | Ty::U64 | Ty::S64);
    let half = matches!(ty, Ty::F16 | Ty::F16x2 | Ty::Bf16 | Ty::Bf16x2);
    match op {
        AtomOp::And | AtomOp::Or | AtomOp::Xor => bits,
        AtomOp::Exch => bits || ty == Ty::B16,
        AtomOp::Cas => bits || ty == Ty::B16,
        AtomOp::Inc | AtomOp::Dec => ty == Ty::U32,
        AtomOp::Min | AtomOp::Max => whole || half,
        AtomOp::Add => whole || half || matches!(ty, Ty::F32 | Ty::F64),
    }
}
