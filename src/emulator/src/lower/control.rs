//! Branches and the end of threads.

use super::Lower;
use super::form::Form;
use super::operand::arity;
use crate::error::LoadError;
use crate::isa::{Op, TrapKind, Ty};
use crate::parse::ast::RawOperand;
use crate::parse::clip;

impl<'m, 'a> Lower<'m, 'a> {
    pub fn control(
        &mut self,
        form: &mut Form<'a>,
        ops: &[RawOperand<'a>],
    ) -> Result<Option<Op>, LoadError> {
        let op = match form.base {
            "bra" => {
                form.take("uni");
                arity(form, ops, 1, 1)?;
                Op::Bra { target: self.target(form, &ops[0])? }
            }
            "brx" => {
                form.take("idx");
                form.take("uni");
                arity(form, ops, 2, 2)?;
                let index = self.src(form, &ops[0], Ty::U32)?;
                Op::Brx { table: self.table(form, &ops[1])?, index }
            }
            "ret" => {
                form.take("uni");
                match self.returns_to {
                    Some(target) => Op::Bra { target },
                    None => Op::Ret,
                }
            }
            "exit" => Op::Exit,
            "trap" | "brkpt" => Op::Trap { what: TrapKind::Trap },
            _ => {
                form.ty()?;
                arity(form, ops, 1, 1)?;
                Op::Nanosleep { ns: self.src(form, &ops[0], Ty::U32)? }
            }
        };
        Ok(Some(op))
    }

    fn target(&mut self, form: &Form<'a>, op: &RawOperand<'a>) -> Result<u32, LoadError> {
        match op {
            RawOperand::Name(name, 0) => self.label_of(form, name),
            _ => Err(form.unknown("a branch needs a label")),
        }
    }

    fn label_of(&self, form: &Form<'a>, name: &str) -> Result<u32, LoadError> {
        match self.names.label(name) {
            Some(label) => Ok(label),
            None => {
                Err(LoadError::new(form.line, format!("label '{}' is not declared", clip(name))))
            }
        }
    }

    fn table(&mut self, form: &Form<'a>, op: &RawOperand<'a>) -> Result<Box<[u32]>, LoadError> {
        let RawOperand::Name(name, 0) = op else {
            return Err(form.unknown("brx needs a .branchtargets label"));
        };
        let Some(labels) = self.targets.get(name).cloned() else {
            return Err(LoadError::new(form.line, format!("no .branchtargets '{}'", clip(name))));
        };
        labels.iter().map(|label| self.label_of(form, label)).collect()
    }
}
