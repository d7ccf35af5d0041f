//! What the ISA does not have although its parts exist: types that an opcode does not take,
//! roundings that it needs or lacks, cache operators of the other direction.

use super::form::Form;
use crate::isa::{AtomOp, Op, Space, Ty};

type Verdict = Result<(), &'static str>;

fn need(holds: bool, why: &'static str) -> Verdict {
    if holds { Ok(()) } else { Err(why) }
}

fn one_of(ty: Ty, list: &[Ty]) -> Verdict {
    need(list.contains(&ty), "the opcode does not exist for this type")
}

const SIGNED: &[Ty] = &[Ty::S16, Ty::S32, Ty::S64];
const WHOLE: &[Ty] = &[Ty::U16, Ty::U32, Ty::U64, Ty::S16, Ty::S32, Ty::S64, Ty::U16x2, Ty::S16x2];
const LONG: &[Ty] = &[Ty::U32, Ty::U64, Ty::S32, Ty::S64];
const BITS: &[Ty] = &[Ty::B16, Ty::B32, Ty::B64, Ty::Pred];
const WIDE_BITS: &[Ty] = &[Ty::B32, Ty::B64];
const WORDS: &[Ty] = &[Ty::U32, Ty::S32];

/// The modifiers of an opcode as written.
struct Words<'a>(Vec<&'a str>);

impl Words<'_> {
    fn any(&self, list: &[&str]) -> bool {
        self.0.iter().any(|w| list.contains(w))
    }

    fn count(&self, list: &[&str]) -> usize {
        self.0.iter().filter(|w| list.contains(w)).count()
    }
}

const ROUND: &[&str] = &["rn", "rz", "rm", "rp"];
const ROUND_INT: &[&str] = &["rni", "rzi", "rmi", "rpi"];
const APPROX: &[&str] = &["approx", "full"];

/// Checks a decoded instruction against the ISA's tables of types and modifiers.
pub fn check(form: &Form<'_>, op: &Op) -> Result<(), crate::error::LoadError> {
    let words = Words(form.opcode.split('.').skip(1).collect());
    let base = form.base;
    let verdict = match op {
        Op::Int1 { ty, .. } | Op::Int2 { ty, .. } | Op::Int3 { ty, .. } => integer(base, *ty),
        Op::Bfi { ty, .. } => one_of(*ty, WIDE_BITS),
        Op::Prmt { .. } => need(words.any(&["b32"]), "prmt takes .b32"),
        Op::Dot { .. } => {
            need(words.count(&["u32", "s32"]) == 2, "dp4a and dp2a take .u32 or .s32")
        }
        Op::F1 { ty, .. } | Op::F2 { ty, .. } | Op::F3 { ty, .. } | Op::Fma { ty, .. } => {
            float(base, *ty, &words)
        }
        Op::SetP { compare, .. } | Op::Set { compare, .. } => {
            let bits = matches!(compare.ty, Ty::B16 | Ty::B32 | Ty::B64);
            need(!bits || words.any(&["eq", "ne"]), "bits compare by eq and ne only")
        }
        Op::Cvt { form, .. } => convert(form.to, form.from, &words),
        Op::Shfl { .. } => need(words.any(&["b32"]), "shfl takes .b32"),
        Op::Vote { .. } => {
            let ballot = words.any(&["ballot"]);
            need(words.any(&[if ballot { "b32" } else { "pred" }]), "the result has another type")
        }
        Op::Redux { op, ty, .. } => redux(*op, *ty),
        Op::Nanosleep { .. } => need(words.any(&["u32"]), "nanosleep takes .u32"),
        Op::Pack { .. } | Op::Unpack { .. } => Ok(()),
        _ => memory(op, &words),
    };
    verdict.map_err(|why| form.unknown(why))
}

fn integer(base: &str, ty: Ty) -> Verdict {
    match base {
        "neg" | "abs" => one_of(ty, SIGNED),
        "and" | "or" | "xor" | "not" | "cnot" => one_of(ty, BITS),
        "shl" => one_of(ty, &[Ty::B16, Ty::B32, Ty::B64]),
        "shr" => need(BITS[..3].contains(&ty) || WHOLE[..6].contains(&ty), "shr takes integers"),
        "shf" | "fns" | "bmsk" => one_of(ty, &[Ty::B32]),
        "bfe" | "bfind" => one_of(ty, LONG),
        "popc" | "clz" | "brev" => one_of(ty, WIDE_BITS),
        "szext" | "mul24" => one_of(ty, WORDS),
        _ => one_of(ty, WHOLE),
    }
}

/// Which roundings and modifiers each floating-point opcode takes.
fn float(base: &str, ty: Ty, w: &Words<'_>) -> Verdict {
    let half = matches!(ty, Ty::F16 | Ty::F16x2 | Ty::Bf16 | Ty::Bf16x2);
    let rounds = w.count(ROUND);
    let approx = w.count(APPROX);
    let plain = !w.any(&["sat", "relu", "NaN", "xorsign", "abs"]);
    let single = "this opcode needs .approx";
    match base {
        "add" | "sub" | "mul" => {
            need(approx == 0 && !w.any(&["NaN", "xorsign", "abs"]), "no such modifier here")?;
            need(ty != Ty::F64 || !w.any(&["ftz", "sat"]), "f64 neither flushes nor saturates")
        }
        "fma" | "mad" => need(rounds == 1 && approx == 0, "a rounding is missing"),
        "div" if ty == Ty::F32 => {
            need(rounds + approx == 1 && plain, "one rounding, .approx or .full is needed")
        }
        "rcp" | "sqrt" if ty == Ty::F32 => {
            need(rounds + w.count(&["approx"]) == 1 && plain, "a rounding or .approx is needed")
        }
        "rcp" if ty == Ty::F64 => need(rounds + approx == 1 && plain, "a rounding is missing"),
        "div" | "sqrt" if ty == Ty::F64 => {
            need(rounds == 1 && approx == 0, "a rounding is missing")
        }
        "rsqrt" => need(approx == 1 && rounds == 0 && plain && !half, single),
        "sin" | "cos" | "lg2" => need(approx == 1 && rounds == 0 && plain && ty == Ty::F32, single),
        "ex2" | "tanh" => need(approx == 1 && rounds == 0 && plain && ty != Ty::F64, single),
        "min" | "max" => {
            need(rounds == 0 && approx == 0 && !w.any(&["sat", "relu"]), "no such modifier here")?;
            need(w.any(&["xorsign"]) == w.any(&["abs"]), ".xorsign.abs go together")
        }
        "neg" | "abs" => {
            need(rounds == 0 && approx == 0 && !w.any(&["sat", "relu"]), "no such modifier")
        }
        "copysign" => {
            need(w.0.len() == 1 && !half, "copysign takes f32 and f64, without modifiers")
        }
        _ => Err("the opcode does not exist for this type"),
    }
}

fn is_float(ty: Ty) -> bool {
    !matches!(ty, Ty::U8 | Ty::U16 | Ty::U32 | Ty::U64 | Ty::S8 | Ty::S16 | Ty::S32 | Ty::S64)
}

/// Mantissa and exponent of a type are contained in another's, so that no rounding is asked for.
fn widens(from: Ty, to: Ty) -> bool {
    match to {
        Ty::F64 => true,
        Ty::F32 => from != Ty::F64,
        other => from == other,
    }
}

fn convert(to: Ty, from: Ty, w: &Words<'_>) -> Verdict {
    let (near, whole) = (w.count(&["rn", "rz", "rm", "rp", "rna"]), w.count(ROUND_INT));
    let eight = matches!(to, Ty::E4m3x2 | Ty::E5m2x2);
    if w.any(&["satfinite"]) {
        need(is_float(to) && to != Ty::F32 && to != Ty::F64, ".satfinite does not fit the type")?;
        need(is_float(from), ".satfinite needs a floating source")?;
    }
    match (is_float(from), is_float(to)) {
        (false, false) => need(near + whole == 0, "integers are not rounded"),
        (true, false) => need(whole == 1 && near == 0, "an integer rounding is missing"),
        (false, true) => need(near == 1 && whole == 0, "a rounding is missing"),
        _ if eight => need(
            near == 1 && w.any(&["rn"]) && w.any(&["satfinite"]),
            "eight-bit floats need .rn.satfinite",
        ),
        _ if whole == 1 => need(near == 0 && widens(from, to), "this conversion does not round"),
        _ if widens(from, to) => need(near == 0, "a widening conversion takes no rounding"),
        _ => need(near == 1, "a rounding is missing"),
    }
}

fn redux(op: AtomOp, ty: Ty) -> Verdict {
    match op {
        AtomOp::Add | AtomOp::Min | AtomOp::Max => one_of(ty, WORDS),
        AtomOp::And | AtomOp::Or | AtomOp::Xor => one_of(ty, &[Ty::B32]),
        _ => Err("no such reduction"),
    }
}

fn memory(op: &Op, w: &Words<'_>) -> Verdict {
    match op {
        Op::Ld { .. } => {
            need(!w.any(&["wb", "wt"]), "a cache operator of stores")?;
            need(!w.any(&["release"]), "loads do not release")
        }
        Op::St { .. } => {
            need(!w.any(&["ca", "lu", "cv", "nc"]), "a cache operator of loads")?;
            need(!w.any(&["acquire"]), "stores do not acquire")
        }
        Op::Atom { space, .. } => need(
            !matches!(space, Space::Const | Space::Param | Space::Local),
            "atomics work on global and shared memory",
        ),
        Op::CpAsync { .. } => {
            let at = |name: &str| w.0.iter().position(|p| p.starts_with(name));
            need(at("shared") < at("global"), "the destination is shared, the source global")
        }
        Op::Mbar(m) => need(
            matches!(m.space, Space::Generic | Space::Shared | Space::SharedCluster),
            "an mbarrier lives in shared memory",
        ),
        Op::Mapa { .. } | Op::GetCtaRank { .. } => {
            need(!w.any(&["global", "shared", "local"]), "the space is shared::cluster")
        }
        _ => Ok(()),
    }
}
