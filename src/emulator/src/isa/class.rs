//! Classes of instructions: which unit runs them.

use super::{F1, Op, Space, Ty};

/// The unit that an instruction keeps busy, as reports name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// f16, f32 and f64 arithmetic on the CUDA cores.
    Float,
    /// Square roots, exponentials and other special functions.
    Special,
    /// Integer, logic, comparison, selection.
    Integer,
    /// Moves and conversions.
    Move,
    /// Shuffles, votes, warp reductions.
    Exchange,
    Global,
    Shared,
    Local,
    /// Parameters and constants.
    Constant,
    Atomic,
    /// cp.async, bulk and tensor copies.
    Copy,
    Matrix,
    /// Barriers, fences, waits.
    Barrier,
    Control,
}

impl Class {
    pub const ALL: [Self; 14] = [
        Self::Float,
        Self::Special,
        Self::Integer,
        Self::Move,
        Self::Exchange,
        Self::Global,
        Self::Shared,
        Self::Local,
        Self::Constant,
        Self::Atomic,
        Self::Copy,
        Self::Matrix,
        Self::Barrier,
        Self::Control,
    ];

    /// A short name that does not change between versions.
    pub fn name(self) -> &'static str {
        match self {
            Self::Float => "float",
            Self::Special => "special",
            Self::Integer => "integer",
            Self::Move => "move",
            Self::Exchange => "exchange",
            Self::Global => "global",
            Self::Shared => "shared",
            Self::Local => "local",
            Self::Constant => "constant",
            Self::Atomic => "atomic",
            Self::Copy => "copy",
            Self::Matrix => "matrix",
            Self::Barrier => "barrier",
            Self::Control => "control",
        }
    }
}

fn float(ty: Ty) -> bool {
    matches!(ty, Ty::F16 | Ty::F16x2 | Ty::Bf16 | Ty::Bf16x2 | Ty::F32 | Ty::F64 | Ty::F32x2)
}

impl Op {
    pub fn class(&self) -> Class {
        match self {
            Op::F1 { op: F1::Neg | F1::Abs, .. }
            | Op::F2 { .. }
            | Op::Fma { .. }
            | Op::F3 { .. }
            | Op::TestP { .. } => Class::Float,
            Op::F1 { .. } => Class::Special,
            Op::SetP { compare, .. } | Op::Set { compare, .. } if float(compare.ty) => Class::Float,
            Op::Mov { .. }
            | Op::MovPred { .. }
            | Op::Pack { .. }
            | Op::Unpack { .. }
            | Op::Cvt { .. }
            | Op::Cvta { .. } => Class::Move,
            Op::Shfl { .. }
            | Op::Vote { .. }
            | Op::Match { .. }
            | Op::Redux { .. }
            | Op::ActiveMask { .. }
            | Op::Elect { .. } => Class::Exchange,
            Op::Ld { space, .. } | Op::St { space, .. } | Op::Prefetch { space, .. } => match space
            {
                Space::Shared | Space::SharedCluster => Class::Shared,
                Space::Local => Class::Local,
                Space::Param | Space::Const => Class::Constant,
                Space::Generic | Space::Global => Class::Global,
            },
            Op::LdMatrix { .. } | Op::StMatrix { .. } => Class::Shared,
            Op::Atom { .. } => Class::Atomic,
            Op::CpAsync { .. } | Op::CpCommit | Op::Bulk(_) | Op::BulkCommit => Class::Copy,
            Op::Mma(_) | Op::MovMatrix { .. } | Op::Wgmma(_) | Op::WgmmaCommit => Class::Matrix,
            Op::Bar(_)
            | Op::WarpSync { .. }
            | Op::ClusterBar { .. }
            | Op::Fence { .. }
            | Op::CpWait { .. }
            | Op::CpMbarArrive { .. }
            | Op::Mbar(_)
            | Op::BulkWait { .. }
            | Op::WgmmaFence
            | Op::WgmmaWait { .. } => Class::Barrier,
            Op::Bra { .. }
            | Op::Brx { .. }
            | Op::Ret
            | Op::Exit
            | Op::Trap { .. }
            | Op::Nop
            | Op::Nanosleep { .. }
            | Op::SetMaxNReg { .. }
            | Op::GridDependency { .. }
            | Op::Hint => Class::Control,
            _ => Class::Integer,
        }
    }

    /// Floating-point operations of one lane on the CUDA cores.
    pub fn flops(&self) -> u64 {
        let packed = |ty: Ty| if matches!(ty, Ty::F16x2 | Ty::Bf16x2 | Ty::F32x2) { 2 } else { 1 };
        match self {
            Op::Fma { ty, .. } => 2 * packed(*ty),
            Op::F2 { ty, .. } => packed(*ty),
            Op::F3 { .. } => 2,
            Op::F1 { op, ty, .. } if !matches!(op, F1::Neg | F1::Abs) => packed(*ty),
            _ => 0,
        }
    }
}
