//! Decoded instructions: names are resolved to register slots and symbols to addresses, so that
//! nothing is looked up by name while a kernel runs.

mod class;
mod kernel;
mod matrix;
mod op;
mod uses;

pub use crate::parse::ast::Ty;
pub use class::Class;
pub use kernel::{Kernel, Param};
pub use matrix::{Bulk, BulkKind, MatTy, Mbar, MbarKind, Mma, Wgmma, WgmmaA};
pub use op::{BarKind, Barrier, FenceKind, Instr, Op, TestKind, TrapKind};

/// Width class of a register. Registers up to 32 bits live in one file, 64-bit ones in another,
/// predicates as lane masks in a third.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RegKind {
    B8,
    B16,
    B32,
    B64,
    Pred,
    /// `_`: the result is dropped.
    Sink,
}

/// A register: its width class and its slot in the file of that class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reg {
    pub kind: RegKind,
    pub slot: u32,
}

impl Reg {
    pub const SINK: Self = Self { kind: RegKind::Sink, slot: 0 };

    /// Width in bits; 0 for the sink.
    pub fn bits(self) -> u32 {
        match self.kind {
            RegKind::B8 => 8,
            RegKind::B16 => 16,
            RegKind::B32 => 32,
            RegKind::B64 => 64,
            RegKind::Pred => 1,
            RegKind::Sink => 0,
        }
    }
}

/// Special registers. Those with an axis carry it as 0, 1, 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    Tid(u8),
    Ntid(u8),
    Ctaid(u8),
    Nctaid(u8),
    ClusterId(u8),
    NclusterId(u8),
    ClusterCtaid(u8),
    ClusterNctaid(u8),
    ClusterCtarank,
    ClusterNctarank,
    IsExplicitCluster,
    LaneId,
    WarpId,
    NwarpId,
    SmId,
    NsmId,
    GridId,
    LaneMaskEq,
    LaneMaskLe,
    LaneMaskLt,
    LaneMaskGe,
    LaneMaskGt,
    Clock,
    ClockHi,
    Clock64,
    GlobalTimer,
    DynamicSmem,
    TotalSmem,
}

/// A source operand.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Src {
    Reg(Reg),
    Imm(u64),
    Special(Special),
    /// Address of a global or constant variable of the module, plus an offset.
    Symbol(u32, i64),
    /// Offset into the dynamic shared memory of the block.
    DynShared(i64),
}

/// A predicate source: a predicate register, perhaps negated, or a constant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PSrc {
    Reg { slot: u32, negated: bool },
    Const(bool),
}

/// State spaces of memory instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Space {
    Generic,
    Global,
    Const,
    Param,
    Local,
    Shared,
    SharedCluster,
}

/// An address operand.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Addr {
    pub base: Src,
    pub offset: i64,
}

/// Memory ordering of a load, store or atomic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Weak,
    Volatile,
    Relaxed,
    Acquire,
    Release,
    AcqRel,
}

impl Order {
    /// Whether the access is one that other threads may make at the same time.
    pub fn strong(self) -> bool {
        self != Self::Weak
    }

    pub fn acquires(self) -> bool {
        matches!(self, Self::Acquire | Self::AcqRel)
    }

    pub fn releases(self) -> bool {
        matches!(self, Self::Release | Self::AcqRel)
    }
}

/// Who takes part in a memory operation's order. The system is as far as the device here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    Block,
    Cluster,
    Device,
}

impl Scope {
    pub const ALL: [Self; 3] = [Self::Block, Self::Cluster, Self::Device];
}

/// Rounding modes of floating-point results, and of conversions to integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Round {
    /// To nearest, ties to even.
    Near,
    /// To nearest, ties away from zero.
    NearAway,
    Zero,
    Down,
    Up,
}

/// Modifiers of floating-point arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FMods {
    pub round: Round,
    pub ftz: bool,
    /// Clamp to [0, 1].
    pub sat: bool,
    /// `.relu`: negative results become zero.
    pub relu: bool,
    /// `.NaN`: min and max return NaN when an input is NaN.
    pub nan: bool,
    pub xorsign_abs: bool,
    /// `.approx` or `.full`.
    pub approx: bool,
}

impl FMods {
    pub const PLAIN: Self = Self {
        round: Round::Near,
        ftz: false,
        sat: false,
        relu: false,
        nan: false,
        xorsign_abs: false,
        approx: false,
    };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Int1 {
    Neg,
    Abs,
    Not,
    Cnot,
    Popc,
    Clz,
    Brev,
    Bfind,
    BfindShift,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Int2 {
    Add,
    AddSat,
    Sub,
    SubSat,
    MulLo,
    MulHi,
    MulWide,
    Mul24,
    Div,
    Rem,
    Min,
    Max,
    And,
    Or,
    Xor,
    Shl,
    Shr,
    Bmsk,
    BmskClamp,
    Szext,
    SzextWrap,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Int3 {
    MadLo,
    MadHi,
    MadWide,
    MadHiSat,
    Sad,
    Bfe,
    ShfL,
    ShfLWrap,
    ShfR,
    ShfRWrap,
    Fns,
}

/// Arithmetic with the carry flag: which flag is read and whether it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carry {
    Add,
    Sub,
    MadLo,
    MadHi,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum F1 {
    Neg,
    Abs,
    Rcp,
    Sqrt,
    Rsqrt,
    Sin,
    Cos,
    Lg2,
    Ex2,
    Tanh,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum F2 {
    Add,
    Sub,
    Mul,
    Div,
    Min,
    Max,
    CopySign,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cmp {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    Equ,
    Neu,
    Ltu,
    Leu,
    Gtu,
    Geu,
    Num,
    Nan,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BoolOp {
    And,
    Or,
    Xor,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrmtMode {
    Index,
    F4e,
    B4e,
    Rc8,
    Ecl,
    Ecr,
    Rc16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShflMode {
    Up,
    Down,
    Bfly,
    Idx,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VoteMode {
    All,
    Any,
    Uni,
    Ballot,
}

/// Operations of `atom`, `red`, `redux` and reducing copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtomOp {
    Add,
    Min,
    Max,
    And,
    Or,
    Xor,
    Inc,
    Dec,
    Exch,
    Cas,
}

/// A comparison of `setp` or `set`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Compare {
    pub cmp: Cmp,
    pub ty: Ty,
    pub ftz: bool,
    pub a: Src,
    pub b: Src,
    pub combine: Option<(BoolOp, PSrc)>,
}

/// `cvt`, in all its forms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Convert {
    pub to: Ty,
    pub from: Ty,
    pub round: Option<Round>,
    /// The rounding is to an integral value of a floating type.
    pub integral: bool,
    pub ftz: bool,
    pub sat: bool,
    pub relu: bool,
    pub satfinite: bool,
}
