//! Matrix instructions: ldmatrix, stmatrix, mma, wgmma.

use super::Lower;
use super::form::Form;
use super::memory::real_space;
use super::operand::arity;
use crate::error::LoadError;
use crate::isa::{MatTy, Mma, Op, Space, Ty, Wgmma, WgmmaA};
use crate::parse::ast::RawOperand;

type Ops<'a> = [RawOperand<'a>];
type Decoded = Result<Option<Op>, LoadError>;

/// `m16n8k16` to its numbers.
fn shape(word: &str) -> Option<[u32; 3]> {
    let rest = word.strip_prefix('m')?;
    let (m, rest) = rest.split_once('n')?;
    let (n, k) = rest.split_once('k')?;
    Some([m.parse().ok()?, n.parse().ok()?, k.parse().ok()?])
}

impl<'m, 'a> Lower<'m, 'a> {
    pub fn matrix(&mut self, form: &mut Form<'a>, ops: &Ops<'a>) -> Decoded {
        if form.base == "wgmma" {
            return self.wgmma(form, ops);
        }
        if !(form.take("sync") && form.take("aligned")) {
            return Err(form.unknown(".sync.aligned is missing"));
        }
        match form.base {
            "mma" => self.mma(form, ops),
            "movmatrix" => {
                form.need("m8n8", &[("m8n8", ())])?;
                form.need("trans", &[("trans", ())])?;
                form.ty()?;
                arity(form, ops, 2, 2)?;
                let d = self.data_reg(form, &ops[0])?;
                Ok(Some(Op::MovMatrix { d, a: self.src(form, &ops[1], Ty::B32)? }))
            }
            base => {
                let store = base == "stmatrix";
                form.need("m8n8", &[("m8n8", ())])?;
                let n = form.need("a number", &[("x1", 1), ("x2", 2), ("x4", 4)])?;
                let trans = form.take("trans");
                let space = form.space();
                if form.ty()? != Ty::B16 {
                    return Ok(None);
                }
                self.matrix_move(form, ops, n, trans, space, store)
            }
        }
    }

    fn matrix_move(
        &mut self,
        form: &Form<'a>,
        ops: &Ops<'a>,
        n: u32,
        trans: bool,
        space: Space,
        store: bool,
    ) -> Decoded {
        arity(form, ops, 2, 2)?;
        let (at, data) = if store { (&ops[0], &ops[1]) } else { (&ops[1], &ops[0]) };
        let (addr, var) = self.addr(form, at)?;
        let space = real_space(space, var);
        let wrong = || form.unknown("the vector's length differs from the number of matrices");
        if store {
            let a = self.srcs(form, data, Ty::B32)?;
            return match a.len() == n as usize {
                true => Ok(Some(Op::StMatrix { n, trans, a, addr, space })),
                false => Err(wrong()),
            };
        }
        let d = self.regs(form, data)?;
        match d.len() == n as usize {
            true => Ok(Some(Op::LdMatrix { n, trans, d, addr, space })),
            false => Err(wrong()),
        }
    }

    fn mma(&mut self, form: &mut Form<'a>, ops: &Ops<'a>) -> Decoded {
        let Some([m, n, k]) = form.pick(shape) else {
            return Err(form.unknown("a shape is missing"));
        };
        let a_row = form.first_of(&[("row", true), ("col", false)]);
        let b_col = form.first_of(&[("row", false), ("col", true)]);
        let satfinite = form.take("satfinite");
        let d_ty = form.ty()?;
        let a_ty = form.pick(MatTy::parse);
        let b_ty = form.pick(MatTy::parse);
        let c_ty = form.ty()?;
        let (Some(a_ty), Some(b_ty)) = (a_ty, b_ty) else {
            return Err(form.unknown("matrix types are missing"));
        };
        arity(form, ops, 4, 4)?;
        let reg_ty = if a_ty == MatTy::F64 { Ty::F64 } else { Ty::B32 };
        let mma = Mma {
            m,
            n,
            k,
            a_ty,
            b_ty,
            c_ty,
            d_ty,
            a_row: a_row.unwrap_or(true),
            b_col: b_col.unwrap_or(true),
            satfinite,
            d: self.regs(form, &ops[0])?,
            a: self.srcs(form, &ops[1], reg_ty)?,
            b: self.srcs(form, &ops[2], reg_ty)?,
            c: self.srcs(form, &ops[3], c_ty)?,
        };
        check_mma(form, &mma)?;
        Ok(Some(Op::Mma(Box::new(mma))))
    }

    fn wgmma(&mut self, form: &mut Form<'a>, ops: &Ops<'a>) -> Decoded {
        self.kernel.uses_wgmma = true;
        self.kernel.uses_async_proxy = true;
        let op = if form.take("fence") {
            Op::WgmmaFence
        } else if form.take("commit_group") {
            Op::WgmmaCommit
        } else if form.take("wait_group") {
            arity(form, ops, 1, 1)?;
            Op::WgmmaWait { most: self.constant(form, &ops[0])?.min(255) as u32 }
        } else if form.take("mma_async") {
            Op::Wgmma(Box::new(self.mma_async(form, ops)?))
        } else {
            return Ok(None);
        };
        if !(form.take("sync") && form.take("aligned")) {
            return Err(form.unknown(".sync.aligned is missing"));
        }
        Ok(Some(op))
    }

    fn mma_async(&mut self, form: &mut Form<'a>, ops: &Ops<'a>) -> Result<Wgmma, LoadError> {
        let Some([64, n, k]) = form.pick(shape) else {
            return Err(form.unknown("a shape m64nNkK is missing"));
        };
        let d_ty = form.ty()?;
        let (Some(a_ty), Some(b_ty)) = (form.pick(MatTy::parse), form.pick(MatTy::parse)) else {
            return Err(form.unknown("matrix types are missing"));
        };
        let satfinite = form.take("satfinite");
        check_wgmma(form, n, k, a_ty, b_ty, d_ty)?;
        arity(form, ops, 4, 8)?;
        let d = self.regs(form, &ops[0])?;
        let want = n as usize / if d_ty == Ty::F16 { 4 } else { 2 };
        if d.len() != want {
            return Err(form.unknown(&format!("{} accumulators, expected {want}", d.len())));
        }
        let a = match &ops[1] {
            RawOperand::List(_) => WgmmaA::Regs(self.srcs(form, &ops[1], Ty::B32)?),
            op => WgmmaA::Shared(self.src(form, op, Ty::B64)?),
        };
        let b = self.src(form, &ops[2], Ty::B64)?;
        let scale_d = self.psrc(form, &ops[3])?;
        let flags = ops[4..].iter().map(|op| match op {
            RawOperand::Int(value) => Ok(*value as i64),
            _ => Err(form.unknown("scale and transpose operands are constants")),
        });
        let flags = flags.collect::<Result<Vec<i64>, _>>()?;
        let scales = |at: usize| flags.get(at).is_some_and(|v| *v == -1);
        let integer = d_ty == Ty::S32;
        let in_regs = matches!(a, WgmmaA::Regs(_));
        let sixteen = a_ty.bits() == 16;
        let most = match (integer, sixteen, in_regs) {
            (true, _, _) => 0,
            (_, true, true) => 3,
            (_, true, false) => 4,
            _ => 2,
        };
        let legal = |(i, v): (usize, &i64)| if i < 2 { v.abs() == 1 } else { (0..=1).contains(v) };
        if flags.len() != most || !flags.iter().enumerate().all(legal) {
            return Err(form.unknown("wrong scale or transpose operands"));
        }
        let trans = |at: usize| flags.get(at).is_some_and(|v| *v == 1);
        Ok(Wgmma {
            n,
            k,
            a_ty,
            b_ty,
            d_ty,
            d,
            b,
            scale_d,
            negate_a: scales(0),
            negate_b: scales(1),
            trans_a: !in_regs && trans(2),
            trans_b: if in_regs { trans(2) } else { trans(3) },
            a,
            satfinite,
        })
    }
}

fn check_wgmma(
    form: &Form<'_>,
    n: u32,
    k: u32,
    a: MatTy,
    b: MatTy,
    d: Ty,
) -> Result<(), LoadError> {
    let fp8 = |t| matches!(t, MatTy::E4m3 | MatTy::E5m2);
    let int8 = |t| matches!(t, MatTy::S8 | MatTy::U8);
    let types = match d {
        Ty::F32 => {
            (a == b && matches!(a, MatTy::F16 | MatTy::Bf16 | MatTy::Tf32)) || (fp8(a) && fp8(b))
        }
        Ty::F16 => (a == b && a == MatTy::F16) || (fp8(a) && fp8(b)),
        Ty::S32 => int8(a) && int8(b),
        _ => false,
    };
    if !types || k * a.bits() != 256 || n == 0 || n > 256 || n % 8 != 0 {
        return Err(form.unknown("no such wgmma shape and types"));
    }
    Ok(())
}

/// Shapes that exist, and how many registers each operand then has.
fn check_mma(form: &Form<'_>, mma: &Mma) -> Result<(), LoadError> {
    use MatTy::{B1, Bf16, E4m3, E5m2, F16, F64, S4, S8, Tf32, U4, U8};
    let ks: &[u32] = match mma.a_ty {
        F16 | Bf16 => &[8, 16],
        Tf32 => &[4, 8],
        E4m3 | E5m2 | S8 | U8 => &[16, 32],
        S4 | U4 | B1 | F64 => &[],
    };
    let same = match mma.a_ty {
        E4m3 | E5m2 => matches!(mma.b_ty, E4m3 | E5m2),
        S8 | U8 => matches!(mma.b_ty, S8 | U8),
        other => mma.b_ty == other,
    };
    let acc = match mma.a_ty {
        F16 | E4m3 | E5m2 => {
            matches!(mma.d_ty, Ty::F16 | Ty::F32) && matches!(mma.c_ty, Ty::F16 | Ty::F32)
        }
        Bf16 | Tf32 => mma.d_ty == Ty::F32 && mma.c_ty == Ty::F32,
        _ => mma.d_ty == Ty::S32 && mma.c_ty == Ty::S32,
    };
    let shaped = mma.m == 16 && mma.n == 8 && ks.contains(&mma.k) && mma.a_row && mma.b_col;
    if !(same && acc && shaped) {
        return Err(form.unknown("no such mma shape and types here"));
    }
    let regs = |rows: u32, bits: u32| (rows * mma.k * bits / 32 / 32) as usize;
    let c_regs = |ty: Ty| if ty == Ty::F16 { 2 } else { 4 };
    let fits = mma.a.len() == regs(16, mma.a_ty.bits())
        && mma.b.len() == regs(8, mma.b_ty.bits()).max(1)
        && mma.c.len() == c_regs(mma.c_ty)
        && mma.d.len() == c_regs(mma.d_ty);
    if fits { Ok(()) } else { Err(form.unknown("wrong number of fragment registers")) }
}
