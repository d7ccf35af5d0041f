//! Calls of device functions: the callee's body is expanded in place with registers and local
//! memory of its own, so the machine needs no call stack. Recursion is refused.

use super::Lower;
use super::form::Form;
use super::names::Place;
use crate::error::LoadError;
use crate::isa::{Op, PSrc, TrapKind};
use crate::parse::ast::{Function, RawInstr, RawOperand, Var};
use crate::parse::clip;

/// Deepest nesting of expanded calls.
const MAX_CALLS: usize = 24;

impl<'m, 'a> Lower<'m, 'a> {
    /// Expands a call; `guard` becomes a branch around the body.
    pub fn call(
        &mut self,
        form: &mut Form<'a>,
        raw: &'m RawInstr<'a>,
        guard: Option<PSrc>,
    ) -> Result<(), LoadError> {
        form.take("uni");
        form.finish()?;
        let (returns, name, args) = call_parts(form, &raw.operands)?;
        if let Some(op) = system_call(name) {
            self.emit(raw, guard, op);
            return Ok(());
        }
        let Some(f) = self.globals.functions.get(name).copied().filter(|f| f.body.is_some()) else {
            let message = format!("function '{}' has no body here", clip(name));
            return Err(LoadError::new(raw.line, message));
        };
        if self.calls.contains(&f.name) || self.calls.len() >= MAX_CALLS {
            let message = format!("call of '{}' is recursive or nested too deep", clip(name));
            return Err(LoadError::new(raw.line, message));
        }
        let end = self.new_label();
        if let Some(PSrc::Reg { slot, negated }) = guard {
            let skip = PSrc::Reg { slot, negated: !negated };
            self.emit(raw, Some(skip), Op::Bra { target: end });
        }
        self.expand(f, returns, args, end, raw.line)?;
        self.labels[end as usize] = self.kernel.code.len() as u32;
        Ok(())
    }

    fn expand(
        &mut self,
        f: &'m Function<'a>,
        returns: &[RawOperand<'a>],
        args: &[RawOperand<'a>],
        end: u32,
        line: u32,
    ) -> Result<(), LoadError> {
        let mut bound = self.bind(&f.returns, returns, line)?;
        bound.extend(self.bind(&f.params, args, line)?);
        self.names.open();
        for (name, place) in bound {
            self.names.add_place(name, place);
        }
        self.calls.push(f.name);
        let outer = self.returns_to.replace(end);
        let done = self.body(f.body.as_deref().unwrap_or(&[]));
        self.returns_to = outer;
        self.calls.pop();
        self.names.close();
        done
    }

    /// The callee's parameters are the caller's `.param` variables.
    fn bind(
        &mut self,
        params: &[Var<'a>],
        args: &[RawOperand<'a>],
        line: u32,
    ) -> Result<Vec<(&'a str, Place)>, LoadError> {
        if params.len() != args.len() {
            let message = format!("call passes {} values for {}", args.len(), params.len());
            return Err(LoadError::new(line, message));
        }
        let mut bound = Vec::with_capacity(params.len());
        for (param, arg) in params.iter().zip(args) {
            let RawOperand::Name(name, 0) = arg else {
                return Err(LoadError::new(line, "call arguments must be .param variables"));
            };
            match self.names.place(name) {
                Some(place @ Place::Local(_)) => bound.push((param.name, place)),
                _ => {
                    let message = format!("argument '{}' is not a .param variable", clip(name));
                    return Err(LoadError::new(line, message));
                }
            }
        }
        Ok(bound)
    }
}

type CallParts<'o, 'a> = (&'o [RawOperand<'a>], &'a str, &'o [RawOperand<'a>]);

fn call_parts<'o, 'a>(
    form: &Form<'a>,
    ops: &'o [RawOperand<'a>],
) -> Result<CallParts<'o, 'a>, LoadError> {
    let (returns, rest): (&[_], _) = match ops {
        [RawOperand::Group(returns), rest @ ..] => (returns, rest),
        rest => (&[], rest),
    };
    match rest {
        [RawOperand::Name(name, 0)] => Ok((returns, name, &[])),
        [RawOperand::Name(name, 0), RawOperand::Group(args)] => Ok((returns, name, args)),
        _ => Err(form.unknown("only direct calls are supported")),
    }
}

/// Functions that the driver provides.
fn system_call(name: &str) -> Option<Op> {
    match name {
        "__assertfail" => Some(Op::Trap { what: TrapKind::Assert }),
        "vprintf" => Some(Op::Nop),
        _ => None,
    }
}
