//! Integer, logic and floating-point arithmetic.

use super::Lower;
use super::form::Form;
use super::operand::arity;
use crate::error::LoadError;
use crate::isa::{BoolOp, Carry, F1, F2, Int1, Int2, Int3, Op, RegKind, Round, Ty};
use crate::parse::ast::RawOperand;

type Ops<'a> = [RawOperand<'a>];
type Decoded = Result<Option<Op>, LoadError>;

fn is_float(ty: Ty) -> bool {
    matches!(ty, Ty::F16 | Ty::F16x2 | Ty::Bf16 | Ty::Bf16x2 | Ty::F32 | Ty::F64 | Ty::F32x2)
}

impl<'m, 'a> Lower<'m, 'a> {
    pub fn arith(&mut self, form: &mut Form<'a>, ops: &'m Ops<'a>) -> Decoded {
        match form.base {
            "add" | "sub" | "mul" | "div" | "min" | "max" | "fma" | "neg" | "abs" | "mad" => {
                let ty = form.ty()?;
                if is_float(ty) { self.float(form, ops, ty) } else { self.integer(form, ops, ty) }
            }
            "rcp" | "sqrt" | "rsqrt" | "sin" | "cos" | "lg2" | "ex2" | "tanh" | "copysign" => {
                let ty = form.ty()?;
                self.float(form, ops, ty)
            }
            "and" | "or" | "xor" | "not" | "cnot" | "shl" | "shr" => self.logic(form, ops),
            "rem" | "popc" | "clz" | "brev" | "bfind" | "sad" | "bfe" | "mul24" | "bmsk"
            | "szext" => {
                if form.base == "szext" || form.base == "bmsk" {
                    return self.masks(form, ops);
                }
                let ty = form.ty()?;
                self.integer(form, ops, ty)
            }
            "bfi" => self.bfi(form, ops),
            "shf" => self.funnel(form, ops),
            "lop3" => self.lop3(form, ops),
            "addc" | "subc" | "madc" => self.carry(form, ops),
            "dp4a" | "dp2a" => self.dot(form, ops),
            "fns" => {
                form.take("b32");
                self.int3(form, ops, Int3::Fns, Ty::B32)
            }
            _ => Ok(None),
        }
    }

    fn int1(&mut self, form: &Form<'a>, ops: &Ops<'a>, op: Int1, ty: Ty) -> Decoded {
        arity(form, ops, 2, 2)?;
        let d = self.data_reg(form, &ops[0])?;
        Ok(Some(Op::Int1 { op, ty, d, a: self.src(form, &ops[1], ty)? }))
    }

    fn int2(&mut self, form: &Form<'a>, ops: &Ops<'a>, op: Int2, ty: Ty) -> Decoded {
        arity(form, ops, 3, 3)?;
        let d = self.data_reg(form, &ops[0])?;
        let a = self.src(form, &ops[1], ty)?;
        Ok(Some(Op::Int2 { op, ty, d, a, b: self.src(form, &ops[2], ty)? }))
    }

    fn int3(&mut self, form: &Form<'a>, ops: &Ops<'a>, op: Int3, ty: Ty) -> Decoded {
        arity(form, ops, 4, 4)?;
        let d = self.data_reg(form, &ops[0])?;
        let a = self.src(form, &ops[1], ty)?;
        let b = self.src(form, &ops[2], ty)?;
        Ok(Some(Op::Int3 { op, ty, d, a, b, c: self.src(form, &ops[3], ty)? }))
    }

    fn integer(&mut self, form: &mut Form<'a>, ops: &Ops<'a>, ty: Ty) -> Decoded {
        let base = form.base;
        if matches!(base, "add" | "sub" | "mad") && form.take("cc") {
            return self.carry_of(form, ops, ty, false, true);
        }
        let sat = form.take("sat");
        let width = form.one_of(&[("lo", 0), ("hi", 1), ("wide", 2)]);
        let packed = matches!(ty, Ty::U16x2 | Ty::S16x2);
        if packed && !matches!(base, "add" | "min" | "max") {
            return Ok(None);
        }
        let two = match (base, width) {
            ("add", None) => Int2::Add,
            ("sub", None) => Int2::Sub,
            ("mul", Some(0)) => Int2::MulLo,
            ("mul", Some(1)) => Int2::MulHi,
            ("mul", Some(_)) if ty.bits() < 64 => Int2::MulWide,
            ("mul24", Some(0)) => Int2::Mul24,
            ("div", None) => Int2::Div,
            ("rem", None) => Int2::Rem,
            ("min", None) => Int2::Min,
            ("max", None) => Int2::Max,
            _ => return self.integer_rest(form, ops, ty, width, sat),
        };
        let two = match (two, sat) {
            (two, false) => two,
            (Int2::Add, true) if ty == Ty::S32 => Int2::AddSat,
            (Int2::Sub, true) if ty == Ty::S32 => Int2::SubSat,
            _ => return Err(form.unknown(".sat needs add.s32 or sub.s32")),
        };
        self.int2(form, ops, two, ty)
    }

    fn integer_rest(
        &mut self,
        form: &mut Form<'a>,
        ops: &Ops<'a>,
        ty: Ty,
        width: Option<u32>,
        sat: bool,
    ) -> Decoded {
        let shift = form.take("shiftamt");
        let one = match form.base {
            "neg" => Int1::Neg,
            "abs" => Int1::Abs,
            "popc" => Int1::Popc,
            "clz" => Int1::Clz,
            "brev" => Int1::Brev,
            "bfind" if shift => Int1::BfindShift,
            "bfind" => Int1::Bfind,
            "sad" => return self.int3(form, ops, Int3::Sad, ty),
            "bfe" => return self.int3(form, ops, Int3::Bfe, ty),
            "mad" => {
                let op = match (width, sat) {
                    (Some(0), false) => Int3::MadLo,
                    (Some(1), false) => Int3::MadHi,
                    (Some(1), true) if ty == Ty::S32 => Int3::MadHiSat,
                    (Some(2), false) if ty.bits() < 64 => Int3::MadWide,
                    _ => return Ok(None),
                };
                let wide = if ty.signed() { Ty::S64 } else { Ty::U64 };
                arity(form, ops, 4, 4)?;
                let d = self.data_reg(form, &ops[0])?;
                let (a, b) = (self.src(form, &ops[1], ty)?, self.src(form, &ops[2], ty)?);
                let c = self.src(form, &ops[3], if op == Int3::MadWide { wide } else { ty })?;
                return Ok(Some(Op::Int3 { op, ty, d, a, b, c }));
            }
            _ => return Ok(None),
        };
        self.int1(form, ops, one, ty)
    }

    fn logic(&mut self, form: &mut Form<'a>, ops: &Ops<'a>) -> Decoded {
        let ty = form.ty()?;
        if ty == Ty::Pred {
            return self.pred_logic(form, ops);
        }
        let op = match form.base {
            "and" => Int2::And,
            "or" => Int2::Or,
            "xor" => Int2::Xor,
            "shl" => Int2::Shl,
            "shr" => Int2::Shr,
            "not" => return self.int1(form, ops, Int1::Not, ty),
            _ => return self.int1(form, ops, Int1::Cnot, ty),
        };
        self.int2(form, ops, op, ty)
    }

    fn pred_logic(&mut self, form: &mut Form<'a>, ops: &Ops<'a>) -> Decoded {
        if form.base == "not" {
            arity(form, ops, 2, 2)?;
            let d = self.pred_reg(form, &ops[0])?;
            let a = self.psrc(form, &ops[1])?;
            let b = crate::isa::PSrc::Const(true);
            return Ok(Some(Op::Pred2 { op: BoolOp::Xor, d, a, b }));
        }
        let op = match form.base {
            "and" => BoolOp::And,
            "or" => BoolOp::Or,
            "xor" => BoolOp::Xor,
            _ => return Ok(None),
        };
        arity(form, ops, 3, 3)?;
        let d = self.pred_reg(form, &ops[0])?;
        let a = self.psrc(form, &ops[1])?;
        Ok(Some(Op::Pred2 { op, d, a, b: self.psrc(form, &ops[2])? }))
    }

    fn masks(&mut self, form: &mut Form<'a>, ops: &Ops<'a>) -> Decoded {
        let clamp = form.need("clamp or wrap", &[("clamp", true), ("wrap", false)])?;
        let ty = form.ty()?;
        let op = match (form.base, clamp) {
            ("bmsk", true) => Int2::BmskClamp,
            ("bmsk", false) => Int2::Bmsk,
            (_, true) => Int2::Szext,
            (_, false) => Int2::SzextWrap,
        };
        self.int2(form, ops, op, ty)
    }

    fn bfi(&mut self, form: &mut Form<'a>, ops: &Ops<'a>) -> Decoded {
        let ty = form.ty()?;
        arity(form, ops, 5, 5)?;
        let d = self.data_reg(form, &ops[0])?;
        let (a, b) = (self.src(form, &ops[1], ty)?, self.src(form, &ops[2], ty)?);
        let (pos, len) = (self.src(form, &ops[3], Ty::U32)?, self.src(form, &ops[4], Ty::U32)?);
        Ok(Some(Op::Bfi { ty, d, a, b, pos, len }))
    }

    fn funnel(&mut self, form: &mut Form<'a>, ops: &Ops<'a>) -> Decoded {
        let left = form.need("a direction", &[("l", true), ("r", false)])?;
        let wrap = form.need("a mode", &[("wrap", true), ("clamp", false)])?;
        let ty = form.ty()?;
        let op = match (left, wrap) {
            (true, false) => Int3::ShfL,
            (true, true) => Int3::ShfLWrap,
            (false, false) => Int3::ShfR,
            (false, true) => Int3::ShfRWrap,
        };
        self.int3(form, ops, op, ty)
    }

    fn lop3(&mut self, form: &mut Form<'a>, ops: &Ops<'a>) -> Decoded {
        let bool_op = form.one_of(&[("or", BoolOp::Or), ("and", BoolOp::And)]);
        let ty = form.ty()?;
        if ty != Ty::B32 {
            return Ok(None);
        }
        let most = if bool_op.is_some() { 6 } else { 5 };
        arity(form, ops, most, most)?;
        let (d, p) = match (&ops[0], bool_op) {
            (RawOperand::Pair(d, p), Some(op)) => {
                let q = self.psrc(form, &ops[5])?;
                let d = self.reg_named(d, form.line)?;
                (d, Some((self.reg_named(p, form.line)?, op, q)))
            }
            (op, None) => (self.data_reg(form, op)?, None),
            _ => return Ok(None),
        };
        let a = self.src(form, &ops[1], ty)?;
        let b = self.src(form, &ops[2], ty)?;
        let c = self.src(form, &ops[3], ty)?;
        let Ok(lut) = u8::try_from(self.constant(form, &ops[4])?) else {
            return Err(form.unknown("the table must be 0 to 255"));
        };
        Ok(Some(Op::Lop3 { lut, d, a, b, c, p }))
    }

    fn carry(&mut self, form: &mut Form<'a>, ops: &Ops<'a>) -> Decoded {
        let writes = form.take("cc");
        let ty = form.ty()?;
        self.carry_of(form, ops, ty, true, writes)
    }

    fn carry_of(
        &mut self,
        form: &mut Form<'a>,
        ops: &Ops<'a>,
        ty: Ty,
        reads: bool,
        writes: bool,
    ) -> Decoded {
        let op = match form.base {
            "add" | "addc" => Carry::Add,
            "sub" | "subc" => Carry::Sub,
            _ => form.need("lo or hi", &[("lo", Carry::MadLo), ("hi", Carry::MadHi)])?,
        };
        let mad = matches!(op, Carry::MadLo | Carry::MadHi);
        arity(form, ops, if mad { 4 } else { 3 }, if mad { 4 } else { 3 })?;
        let d = self.data_reg(form, &ops[0])?;
        let a = self.src(form, &ops[1], ty)?;
        let b = self.src(form, &ops[2], ty)?;
        let c = if mad { self.src(form, &ops[3], ty)? } else { b };
        Ok(Some(Op::Carry { op, ty, reads, writes, d, a, b, c }))
    }

    fn dot(&mut self, form: &mut Form<'a>, ops: &Ops<'a>) -> Decoded {
        let ways = if form.base == "dp4a" { 4 } else { 2 };
        let high = ways == 2 && form.need("lo or hi", &[("lo", false), ("hi", true)])?;
        let (a_ty, b_ty) = (form.ty()?, form.ty()?);
        arity(form, ops, 4, 4)?;
        let d = self.data_reg(form, &ops[0])?;
        let a = self.src(form, &ops[1], Ty::B32)?;
        let b = self.src(form, &ops[2], Ty::B32)?;
        let c = self.src(form, &ops[3], Ty::B32)?;
        let (a_signed, b_signed) = (a_ty.signed(), b_ty.signed());
        Ok(Some(Op::Dot { ways, high, a_signed, b_signed, d, a, b, c }))
    }

    fn float(&mut self, form: &mut Form<'a>, ops: &Ops<'a>, ty: Ty) -> Decoded {
        if form.base == "abs" || form.base == "neg" || !is_float(ty) {
            let op = if form.base == "abs" { F1::Abs } else { F1::Neg };
            if !is_float(ty) {
                return Ok(None);
            }
            return self.float1(form, ops, op, ty);
        }
        let one = match form.base {
            "rcp" => F1::Rcp,
            "sqrt" => F1::Sqrt,
            "rsqrt" => F1::Rsqrt,
            "sin" => F1::Sin,
            "cos" => F1::Cos,
            "lg2" => F1::Lg2,
            "ex2" => F1::Ex2,
            "tanh" => F1::Tanh,
            "fma" | "mad" => return self.fma(form, ops, ty),
            _ => return self.float2(form, ops, ty),
        };
        self.float1(form, ops, one, ty)
    }

    fn float1(&mut self, form: &mut Form<'a>, ops: &Ops<'a>, op: F1, ty: Ty) -> Decoded {
        let mods = form.fmods();
        arity(form, ops, 2, 2)?;
        let d = self.data_reg(form, &ops[0])?;
        let a = self.src(form, &ops[1], ty)?;
        Ok(Some(Op::F1 { op, ty, mods, d, a }))
    }

    fn fma(&mut self, form: &mut Form<'a>, ops: &Ops<'a>, ty: Ty) -> Decoded {
        let mods = form.fmods();
        arity(form, ops, 4, 4)?;
        let d = self.data_reg(form, &ops[0])?;
        let a = self.src(form, &ops[1], ty)?;
        let b = self.src(form, &ops[2], ty)?;
        let c = self.src(form, &ops[3], ty)?;
        Ok(Some(Op::Fma { ty, mods, d, a, b, c }))
    }

    fn float2(&mut self, form: &mut Form<'a>, ops: &Ops<'a>, ty: Ty) -> Decoded {
        let op = match form.base {
            "add" => F2::Add,
            "sub" => F2::Sub,
            "mul" => F2::Mul,
            "div" => F2::Div,
            "min" => F2::Min,
            "max" => F2::Max,
            "copysign" => F2::CopySign,
            _ => return Ok(None),
        };
        let mods = form.fmods();
        if mods.round == Round::NearAway {
            return Ok(None);
        }
        arity(form, ops, 3, 4)?;
        let d = self.data_reg(form, &ops[0])?;
        if d.kind == RegKind::Sink {
            return Err(form.unknown("the result needs a register"));
        }
        let a = self.src(form, &ops[1], ty)?;
        let b = self.src(form, &ops[2], ty)?;
        if ops.len() == 4 {
            if !matches!(op, F2::Min | F2::Max) || ty != Ty::F32 {
                return Ok(None);
            }
            let c = self.src(form, &ops[3], ty)?;
            return Ok(Some(Op::F3 { op, ty, mods, d, a, b, c }));
        }
        Ok(Some(Op::F2 { op, ty, mods, d, a, b }))
    }
}
