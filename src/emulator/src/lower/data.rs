//! Moves, conversions, comparisons, and the exchanges within a warp.

use super::Lower;
use super::form::Form;
use super::operand::arity;
use crate::error::LoadError;
use crate::isa::{
    AtomOp, BoolOp, Cmp, Compare, Convert, Op, PrmtMode, Reg, RegKind, ShflMode, Space, Src,
    TestKind, Ty, VoteMode,
};
use crate::parse::ast::RawOperand;

type Ops<'a> = [RawOperand<'a>];
type Decoded = Result<Option<Op>, LoadError>;

impl<'m, 'a> Lower<'m, 'a> {
    pub fn data(&mut self, form: &mut Form<'a>, ops: &Ops<'a>) -> Decoded {
        match form.base {
            "mov" => self.mov(form, ops),
            "cvta" => self.cvta(form, ops),
            "isspacep" => {
                let space = form.space();
                arity(form, ops, 2, 2)?;
                let d = self.pred_reg(form, &ops[0])?;
                Ok(Some(Op::IsSpace { space, d, a: self.src(form, &ops[1], Ty::U64)? }))
            }
            "mapa" | "getctarank" => self.mapa(form, ops),
            "selp" => self.selp(form, ops),
            "slct" => self.slct(form, ops),
            "cvt" => self.cvt(form, ops),
            "prmt" => self.prmt(form, ops),
            "setp" | "set" => self.compare(form, ops),
            "testp" => self.testp(form, ops),
            _ => self.exchange(form, ops),
        }
    }

    fn mov(&mut self, form: &mut Form<'a>, ops: &Ops<'a>) -> Decoded {
        let ty = form.ty()?;
        arity(form, ops, 2, 2)?;
        if ty == Ty::Pred {
            let d = self.pred_reg(form, &ops[0])?;
            return Ok(Some(Op::MovPred { d, a: self.psrc(form, &ops[1])? }));
        }
        match (&ops[0], &ops[1]) {
            (RawOperand::List(parts), source) => {
                let a = self.src(form, source, ty)?;
                let bits = part_bits(form, ty, parts.len())?;
                let parts =
                    parts.iter().map(|p| self.data_reg(form, p)).collect::<Result<_, _>>()?;
                Ok(Some(Op::Unpack { parts, a, bits }))
            }
            (d, RawOperand::List(parts)) => {
                let d = self.data_reg(form, d)?;
                let bits = part_bits(form, ty, parts.len())?;
                let parts =
                    parts.iter().map(|p| self.src(form, p, ty)).collect::<Result<_, _>>()?;
                Ok(Some(Op::Pack { d, parts, bits }))
            }
            (d, a) => {
                let d = self.data_reg(form, d)?;
                Ok(Some(Op::Mov { d, a: self.src(form, a, ty)? }))
            }
        }
    }

    fn cvta(&mut self, form: &mut Form<'a>, ops: &Ops<'a>) -> Decoded {
        let to_generic = !form.take("to");
        let space = form.space();
        let ty = form.ty()?;
        if ty.bits() != 64 || space == Space::Generic {
            return Ok(None);
        }
        arity(form, ops, 2, 2)?;
        let d = self.data_reg(form, &ops[0])?;
        Ok(Some(Op::Cvta { space, to_generic, d, a: self.src(form, &ops[1], ty)? }))
    }

    fn mapa(&mut self, form: &mut Form<'a>, ops: &Ops<'a>) -> Decoded {
        let generic = form.space() == Space::Generic;
        let ty = form.ty()?;
        let d = match ops.first() {
            Some(op) => self.data_reg(form, op)?,
            None => return Ok(None),
        };
        if form.base == "getctarank" {
            arity(form, ops, 2, 2)?;
            return Ok(Some(Op::GetCtaRank { d, a: self.src(form, &ops[1], ty)?, generic }));
        }
        arity(form, ops, 3, 3)?;
        let a = self.src(form, &ops[1], ty)?;
        Ok(Some(Op::Mapa { d, a, rank: self.src(form, &ops[2], Ty::U32)?, generic }))
    }

    fn selp(&mut self, form: &mut Form<'a>, ops: &Ops<'a>) -> Decoded {
        let ty = form.ty()?;
        arity(form, ops, 4, 4)?;
        let d = self.data_reg(form, &ops[0])?;
        let a = self.src(form, &ops[1], ty)?;
        let b = self.src(form, &ops[2], ty)?;
        Ok(Some(Op::SelP { d, a, b, p: self.psrc(form, &ops[3])? }))
    }

    fn slct(&mut self, form: &mut Form<'a>, ops: &Ops<'a>) -> Decoded {
        let ftz = form.take("ftz");
        let (ty, test) = (form.ty()?, form.ty()?);
        arity(form, ops, 4, 4)?;
        let d = self.data_reg(form, &ops[0])?;
        let a = self.src(form, &ops[1], ty)?;
        let b = self.src(form, &ops[2], ty)?;
        let c = self.src(form, &ops[3], test)?;
        Ok(Some(Op::Slct { float: test == Ty::F32, ftz, d, a, b, c }))
    }

    fn cvt(&mut self, form: &mut Form<'a>, ops: &Ops<'a>) -> Decoded {
        if form.take("pack") {
            return Ok(None);
        }
        let integral = form.one_of(&[
            ("rni", crate::isa::Round::Near),
            ("rzi", crate::isa::Round::Zero),
            ("rmi", crate::isa::Round::Down),
            ("rpi", crate::isa::Round::Up),
        ]);
        let round = integral.or(form.round());
        let satfinite = form.take("satfinite");
        let (ftz, sat, relu) = (form.take("ftz"), form.take("sat"), form.take("relu"));
        let (to, from) = (form.ty()?, form.ty()?);
        let integral = integral.is_some();
        let convert = Convert { to, from, round, integral, ftz, sat, relu, satfinite };
        arity(form, ops, 2, 3)?;
        let d = self.data_reg(form, &ops[0])?;
        let a = self.src(form, &ops[1], from)?;
        let pair = matches!(to, Ty::F16x2 | Ty::Bf16x2 | Ty::E4m3x2 | Ty::E5m2x2);
        let two = pair && from == Ty::F32;
        if two != (ops.len() == 3) {
            return Err(form.unknown("wrong number of operands"));
        }
        let b = if two { self.src(form, &ops[2], from)? } else { Src::Imm(0) };
        Ok(Some(Op::Cvt { form: convert, d, a, b }))
    }

    fn prmt(&mut self, form: &mut Form<'a>, ops: &Ops<'a>) -> Decoded {
        form.ty()?;
        let mode = form.one_of(&[
            ("f4e", PrmtMode::F4e),
            ("b4e", PrmtMode::B4e),
            ("rc8", PrmtMode::Rc8),
            ("ecl", PrmtMode::Ecl),
            ("ecr", PrmtMode::Ecr),
            ("rc16", PrmtMode::Rc16),
        ]);
        let mode = mode.unwrap_or(PrmtMode::Index);
        arity(form, ops, 4, 4)?;
        let d = self.data_reg(form, &ops[0])?;
        let a = self.src(form, &ops[1], Ty::B32)?;
        let b = self.src(form, &ops[2], Ty::B32)?;
        Ok(Some(Op::Prmt { mode, d, a, b, c: self.src(form, &ops[3], Ty::B32)? }))
    }

    fn compare(&mut self, form: &mut Form<'a>, ops: &Ops<'a>) -> Decoded {
        let cmp = form.pick(comparison);
        let Some(cmp) = cmp else { return Err(form.unknown("a comparison is missing")) };
        let bool_op =
            form.one_of(&[("and", BoolOp::And), ("or", BoolOp::Or), ("xor", BoolOp::Xor)]);
        let ftz = form.take("ftz");
        let to = if form.base == "set" { Some(form.ty()?) } else { None };
        let ty = form.ty()?;
        let count = if bool_op.is_some() { 4 } else { 3 };
        arity(form, ops, count, count)?;
        let a = self.src(form, &ops[1], ty)?;
        let b = self.src(form, &ops[2], ty)?;
        let combine = match bool_op {
            Some(op) => Some((op, self.psrc(form, &ops[3])?)),
            None => None,
        };
        let compare = Compare { cmp, ty, ftz, a, b, combine };
        if let Some(to) = to {
            return Ok(Some(Op::Set { compare, to, d: self.data_reg(form, &ops[0])? }));
        }
        let (d, q) = self.pair(form, &ops[0])?;
        if d.kind != RegKind::Pred && d.kind != RegKind::Sink {
            return Err(form.unknown("setp writes predicates"));
        }
        Ok(Some(Op::SetP { compare, d, q }))
    }

    /// `d|p` or `d`.
    fn pair(&mut self, form: &Form<'a>, op: &RawOperand<'a>) -> Result<(Reg, Reg), LoadError> {
        if let RawOperand::Pair(d, p) = op {
            let p = self.reg_named(p, form.line)?;
            if !matches!(p.kind, RegKind::Pred | RegKind::Sink) {
                return Err(form.unknown("what follows '|' must be a predicate"));
            }
            return Ok((self.reg_named(d, form.line)?, p));
        }
        Ok((self.reg(form, op)?, Reg::SINK))
    }

    fn testp(&mut self, form: &mut Form<'a>, ops: &Ops<'a>) -> Decoded {
        let kind = form.need(
            "a property",
            &[
                ("finite", TestKind::Finite),
                ("infinite", TestKind::Infinite),
                ("number", TestKind::Number),
                ("notanumber", TestKind::NotANumber),
                ("normal", TestKind::Normal),
                ("subnormal", TestKind::Subnormal),
            ],
        )?;
        let ty = form.ty()?;
        if !matches!(ty, Ty::F32 | Ty::F64) {
            return Ok(None);
        }
        arity(form, ops, 2, 2)?;
        let d = self.pred_reg(form, &ops[0])?;
        Ok(Some(Op::TestP { kind, ty, d, a: self.src(form, &ops[1], ty)? }))
    }

    fn exchange(&mut self, form: &mut Form<'a>, ops: &Ops<'a>) -> Decoded {
        let base = form.base;
        if base == "activemask" {
            form.ty()?;
            arity(form, ops, 1, 1)?;
            return Ok(Some(Op::ActiveMask { d: self.data_reg(form, &ops[0])? }));
        }
        if !form.take("sync") {
            return Err(form.unknown("only the .sync form exists on sm_70 and later"));
        }
        match base {
            "shfl" => self.shfl(form, ops),
            "vote" => self.vote(form, ops),
            "match" => {
                let all = form.need("any or all", &[("any", false), ("all", true)])?;
                let ty = form.ty()?;
                arity(form, ops, 3, 3)?;
                let (d, p) = self.pair(form, &ops[0])?;
                let a = self.src(form, &ops[1], ty)?;
                Ok(Some(Op::Match { all, ty, d, p, a, mask: self.src(form, &ops[2], Ty::B32)? }))
            }
            "redux" => {
                let op = atom_op(form)?;
                let ty = form.ty()?;
                arity(form, ops, 3, 3)?;
                let d = self.data_reg(form, &ops[0])?;
                let a = self.src(form, &ops[1], ty)?;
                Ok(Some(Op::Redux { op, ty, d, a, mask: self.src(form, &ops[2], Ty::B32)? }))
            }
            _ => {
                arity(form, ops, 2, 2)?;
                let (d, p) = self.pair(form, &ops[0])?;
                Ok(Some(Op::Elect { d, p, mask: self.src(form, &ops[1], Ty::B32)? }))
            }
        }
    }

    fn shfl(&mut self, form: &mut Form<'a>, ops: &Ops<'a>) -> Decoded {
        let mode = form.need(
            "a mode",
            &[
                ("up", ShflMode::Up),
                ("down", ShflMode::Down),
                ("bfly", ShflMode::Bfly),
                ("idx", ShflMode::Idx),
            ],
        )?;
        form.ty()?;
        arity(form, ops, 5, 5)?;
        let (d, p) = self.pair(form, &ops[0])?;
        let a = self.src(form, &ops[1], Ty::B32)?;
        let b = self.src(form, &ops[2], Ty::B32)?;
        let c = self.src(form, &ops[3], Ty::B32)?;
        Ok(Some(Op::Shfl { mode, d, p, a, b, c, mask: self.src(form, &ops[4], Ty::B32)? }))
    }

    fn vote(&mut self, form: &mut Form<'a>, ops: &Ops<'a>) -> Decoded {
        let mode = form.need(
            "a mode",
            &[
                ("all", VoteMode::All),
                ("any", VoteMode::Any),
                ("uni", VoteMode::Uni),
                ("ballot", VoteMode::Ballot),
            ],
        )?;
        form.ty()?;
        arity(form, ops, 3, 3)?;
        let d = self.reg(form, &ops[0])?;
        if (d.kind == RegKind::Pred) == (mode == VoteMode::Ballot) {
            return Err(form.unknown("the result has the wrong type"));
        }
        let p = self.psrc(form, &ops[1])?;
        Ok(Some(Op::Vote { mode, d, p, mask: self.src(form, &ops[2], Ty::B32)? }))
    }
}

/// Width of each part when a value of type `ty` is split in `n`.
fn part_bits(form: &Form<'_>, ty: Ty, n: usize) -> Result<u32, LoadError> {
    match (ty.bits(), n) {
        (bits @ (16 | 32 | 64), 2 | 4 | 8) if bits / n as u32 >= 8 => Ok(bits / n as u32),
        _ => Err(form.unknown("a vector of this length does not fit the type")),
    }
}

fn comparison(word: &str) -> Option<Cmp> {
    Some(match word {
        "eq" => Cmp::Eq,
        "ne" => Cmp::Ne,
        "lt" | "lo" => Cmp::Lt,
        "le" | "ls" => Cmp::Le,
        "gt" | "hi" => Cmp::Gt,
        "ge" | "hs" => Cmp::Ge,
        "equ" => Cmp::Equ,
        "neu" => Cmp::Neu,
        "ltu" => Cmp::Ltu,
        "leu" => Cmp::Leu,
        "gtu" => Cmp::Gtu,
        "geu" => Cmp::Geu,
        "num" => Cmp::Num,
        "nan" => Cmp::Nan,
        _ => return None,
    })
}

/// The operation of an atomic, a reduction or a redux.
pub fn atom_op(form: &mut Form<'_>) -> Result<AtomOp, LoadError> {
    form.need(
        "an operation",
        &[
            ("add", AtomOp::Add),
            ("min", AtomOp::Min),
            ("max", AtomOp::Max),
            ("and", AtomOp::And),
            ("or", AtomOp::Or),
            ("xor", AtomOp::Xor),
            ("inc", AtomOp::Inc),
            ("dec", AtomOp::Dec),
            ("exch", AtomOp::Exch),
            ("cas", AtomOp::Cas),
        ],
    )
}
