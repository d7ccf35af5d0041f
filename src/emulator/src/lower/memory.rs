//! Loads, stores and prefetches.

use super::Lower;
use super::form::Form;
use super::operand::arity;
use crate::error::LoadError;
use crate::isa::{Op, Scope, Space, Ty};
use crate::parse::ast::RawOperand;

type Ops<'a> = [RawOperand<'a>];
type Decoded = Result<Option<Op>, LoadError>;

/// A variable of a function body that is declared `.param` lives in local memory.
pub fn real_space(named: Space, var: Option<Space>) -> Space {
    match (named, var) {
        (Space::Param, Some(Space::Local)) => Space::Local,
        // A symbol is an address in its own space, so a generic access through it is one there.
        (Space::Generic, Some(space)) => space,
        _ => named,
    }
}

impl<'m, 'a> Lower<'m, 'a> {
    pub fn memory(&mut self, form: &mut Form<'a>, ops: &Ops<'a>) -> Decoded {
        match form.base {
            "ld" | "ldu" | "st" => self.load_store(form, ops),
            _ => self.prefetch(form, ops),
        }
    }

    fn load_store(&mut self, form: &mut Form<'a>, ops: &Ops<'a>) -> Decoded {
        let store = form.base == "st";
        if form.take("async") {
            return Err(form.unknown("st.async is not supported"));
        }
        let order = form.order();
        let scope = form.scope().unwrap_or(Scope::Device);
        let space = form.space();
        let policy = form.cache_hints();
        let lanes = form.vector();
        let ty = form.ty()?;
        if matches!(ty, Ty::B128 | Ty::Pred) || lanes as u32 * ty.bytes() > 32 {
            return Ok(None);
        }
        arity(form, ops, 2, if policy { 3 } else { 2 })?;
        let (at, data) = if store { (&ops[0], &ops[1]) } else { (&ops[1], &ops[0]) };
        let (addr, var) = self.addr(form, at)?;
        let space = real_space(space, var);
        let wrong = || form.unknown("the vector's length differs from the operand's");
        if store {
            if matches!(space, Space::Const | Space::Param) {
                return Err(form.unknown("this space is read-only"));
            }
            let a = self.srcs(form, data, ty)?;
            if a.len() != lanes {
                return Err(wrong());
            }
            return Ok(Some(Op::St { space, ty, order, scope, a, addr }));
        }
        let d = self.regs(form, data)?;
        if d.len() != lanes {
            return Err(wrong());
        }
        Ok(Some(Op::Ld { space, ty, order, scope, d, addr }))
    }

    fn prefetch(&mut self, form: &mut Form<'a>, ops: &Ops<'a>) -> Decoded {
        let space = form.space();
        for hint in ["L1", "L2", "tensormap", "L1::evict_normal", "L2::evict_last"] {
            form.take(hint);
        }
        form.cache_hints();
        arity(form, ops, 1, 2)?;
        let (addr, var) = self.addr(form, &ops[0])?;
        Ok(Some(Op::Prefetch { space: real_space(space, var), addr }))
    }
}
