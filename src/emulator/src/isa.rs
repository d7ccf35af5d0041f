//! Decoded instructions: names are resolved to register slots and symbols to addresses, so that
//! nothing is looked up by name while a kernel runs.

pub use crate::parse::ast::Ty;

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

/// One decoded instruction.
#[derive(Debug, Clone, PartialEq)]
pub struct Instr {
    pub op: Op,
    pub guard: Option<PSrc>,
    /// Line of the PTX text.
    pub line: u32,
    /// Index into [`Kernel::locs`] plus one, 0 for none.
    pub loc: u32,
    /// Index of the printed form in [`Kernel::forms`].
    pub form: u32,
}

/// What an instruction does.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    Mov {
        d: Reg,
        a: Src,
    },
    MovPred {
        d: Reg,
        a: PSrc,
    },
    /// `mov.b64 d, {a, b}`: parts of `bits` each, the first in the low bits.
    Pack {
        d: Reg,
        parts: Box<[Src]>,
        bits: u32,
    },
    Unpack {
        parts: Box<[Reg]>,
        a: Src,
        bits: u32,
    },
    Int1 {
        op: Int1,
        ty: Ty,
        d: Reg,
        a: Src,
    },
    Int2 {
        op: Int2,
        ty: Ty,
        d: Reg,
        a: Src,
        b: Src,
    },
    Int3 {
        op: Int3,
        ty: Ty,
        d: Reg,
        a: Src,
        b: Src,
        c: Src,
    },
    Bfi {
        ty: Ty,
        d: Reg,
        a: Src,
        b: Src,
        pos: Src,
        len: Src,
    },
    Lop3 {
        lut: u8,
        d: Reg,
        a: Src,
        b: Src,
        c: Src,
        p: Option<(Reg, BoolOp, PSrc)>,
    },
    Prmt {
        mode: PrmtMode,
        d: Reg,
        a: Src,
        b: Src,
        c: Src,
    },
    Carry {
        op: Carry,
        ty: Ty,
        reads: bool,
        writes: bool,
        d: Reg,
        a: Src,
        b: Src,
        c: Src,
    },
    /// dp4a (`ways` 4) and dp2a (`ways` 2, `high` picks bytes 2 and 3 of b).
    Dot {
        ways: u32,
        high: bool,
        a_signed: bool,
        b_signed: bool,
        d: Reg,
        a: Src,
        b: Src,
        c: Src,
    },
    /// Bitwise on predicates.
    Pred2 {
        op: BoolOp,
        d: Reg,
        a: PSrc,
        b: PSrc,
    },
    F1 {
        op: F1,
        ty: Ty,
        mods: FMods,
        d: Reg,
        a: Src,
    },
    F2 {
        op: F2,
        ty: Ty,
        mods: FMods,
        d: Reg,
        a: Src,
        b: Src,
    },
    Fma {
        ty: Ty,
        mods: FMods,
        d: Reg,
        a: Src,
        b: Src,
        c: Src,
    },
    /// min and max of three floats.
    F3 {
        op: F2,
        ty: Ty,
        mods: FMods,
        d: Reg,
        a: Src,
        b: Src,
        c: Src,
    },
    TestP {
        kind: TestKind,
        ty: Ty,
        d: Reg,
        a: Src,
    },
    SetP {
        compare: Compare,
        d: Reg,
        q: Reg,
    },
    Set {
        compare: Compare,
        to: Ty,
        d: Reg,
    },
    SelP {
        d: Reg,
        a: Src,
        b: Src,
        p: PSrc,
    },
    /// slct: `a` where `c ≥ 0`, else `b`.
    Slct {
        float: bool,
        ftz: bool,
        d: Reg,
        a: Src,
        b: Src,
        c: Src,
    },
    Cvt {
        form: Convert,
        d: Reg,
        a: Src,
        b: Src,
    },
    Shfl {
        mode: ShflMode,
        d: Reg,
        p: Reg,
        a: Src,
        b: Src,
        c: Src,
        mask: Src,
    },
    Vote {
        mode: VoteMode,
        d: Reg,
        p: PSrc,
        mask: Src,
    },
    Match {
        all: bool,
        ty: Ty,
        d: Reg,
        p: Reg,
        a: Src,
        mask: Src,
    },
    Redux {
        op: AtomOp,
        ty: Ty,
        d: Reg,
        a: Src,
        mask: Src,
    },
    ActiveMask {
        d: Reg,
    },
    Elect {
        d: Reg,
        p: Reg,
        mask: Src,
    },
    Ld {
        space: Space,
        ty: Ty,
        order: Order,
        d: Box<[Reg]>,
        addr: Addr,
    },
    St {
        space: Space,
        ty: Ty,
        order: Order,
        a: Box<[Src]>,
        addr: Addr,
    },
    /// `atom` (d is a register) and `red` (d is the sink).
    Atom {
        space: Space,
        op: AtomOp,
        ty: Ty,
        order: Order,
        noftz: bool,
        d: Box<[Reg]>,
        addr: Addr,
        a: Box<[Src]>,
        b: Src,
    },
    Prefetch {
        space: Space,
        addr: Addr,
    },
    /// cvta from (`to_generic` false: to) a space.
    Cvta {
        space: Space,
        to_generic: bool,
        d: Reg,
        a: Src,
    },
    IsSpace {
        space: Space,
        d: Reg,
        a: Src,
    },
    Mapa {
        d: Reg,
        a: Src,
        rank: Src,
        generic: bool,
    },
    GetCtaRank {
        d: Reg,
        a: Src,
        generic: bool,
    },
    Bra {
        target: u32,
    },
    Brx {
        table: Box<[u32]>,
        index: Src,
    },
    Ret,
    Exit,
    Trap {
        what: TrapKind,
    },
    Nop,
    Nanosleep {
        ns: Src,
    },
    Bar(Barrier),
    WarpSync {
        mask: Src,
    },
    ClusterBar {
        arrive: bool,
        wait: bool,
        relaxed: bool,
        aligned: bool,
    },
    Fence {
        kind: FenceKind,
    },
    CpAsync {
        dst: Addr,
        src: Addr,
        bytes: u32,
        src_bytes: Option<Src>,
        ignore: Option<PSrc>,
    },
    CpCommit,
    /// `None`: wait for all.
    CpWait {
        most: Option<u32>,
    },
    CpMbarArrive {
        space: Space,
        addr: Addr,
        noinc: bool,
    },
    LdMatrix {
        n: u32,
        trans: bool,
        d: Box<[Reg]>,
        addr: Addr,
        space: Space,
    },
    StMatrix {
        n: u32,
        trans: bool,
        a: Box<[Src]>,
        addr: Addr,
        space: Space,
    },
    MovMatrix {
        d: Reg,
        a: Src,
    },
    Mma(Box<Mma>),
    Mbar(Box<Mbar>),
    Bulk(Box<Bulk>),
    BulkCommit,
    BulkWait {
        most: u32,
        read: bool,
    },
    WgmmaFence,
    WgmmaCommit,
    WgmmaWait {
        most: u32,
    },
    Wgmma(Box<Wgmma>),
    SetMaxNReg {
        increase: bool,
        count: u32,
    },
    /// Nothing to do: hints, griddepcontrol with sequential launches.
    Hint,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TestKind {
    Finite,
    Infinite,
    Number,
    NotANumber,
    Normal,
    Subnormal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrapKind {
    Trap,
    Assert,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FenceKind {
    /// fence.acq_rel, fence.sc and membar at block scope.
    Block,
    /// The same at cluster, device or system scope.
    Device,
    /// fence.proxy.async: generic writes become visible to asynchronous copies and wgmma.
    ProxyAsync,
    /// fence.mbarrier_init.
    MbarrierInit,
    /// Proxies this machine does not model apart: alias, tensormap.
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Barrier {
    pub id: Src,
    /// Threads that take part; `None` for all of the block.
    pub count: Option<Src>,
    pub aligned: bool,
    pub kind: BarKind,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum BarKind {
    Sync,
    Arrive,
    Popc { d: Reg, p: PSrc },
    And { d: Reg, p: PSrc },
    Or { d: Reg, p: PSrc },
}

/// mma.sync: D = A · B + C over a warp.
#[derive(Debug, Clone, PartialEq)]
pub struct Mma {
    pub m: u32,
    pub n: u32,
    pub k: u32,
    pub a_ty: MatTy,
    pub b_ty: MatTy,
    /// F16, F32, F64 or S32.
    pub c_ty: Ty,
    pub d_ty: Ty,
    pub a_row: bool,
    pub b_col: bool,
    pub satfinite: bool,
    pub d: Box<[Reg]>,
    pub a: Box<[Src]>,
    pub b: Box<[Src]>,
    pub c: Box<[Src]>,
}

/// Element types of matrix instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MatTy {
    F16,
    Bf16,
    Tf32,
    E4m3,
    E5m2,
    S8,
    U8,
    S4,
    U4,
    B1,
    F64,
}

impl MatTy {
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "f16" => Self::F16,
            "bf16" => Self::Bf16,
            "tf32" => Self::Tf32,
            "e4m3" => Self::E4m3,
            "e5m2" => Self::E5m2,
            "s8" => Self::S8,
            "u8" => Self::U8,
            "s4" => Self::S4,
            "u4" => Self::U4,
            "b1" => Self::B1,
            "f64" => Self::F64,
            _ => return None,
        })
    }

    pub fn bits(self) -> u32 {
        match self {
            Self::B1 => 1,
            Self::S4 | Self::U4 => 4,
            Self::E4m3 | Self::E5m2 | Self::S8 | Self::U8 => 8,
            Self::F16 | Self::Bf16 => 16,
            Self::Tf32 => 32,
            Self::F64 => 64,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Tf32 => "tf32",
            Self::E4m3 => "e4m3",
            Self::E5m2 => "e5m2",
            Self::S8 => "s8",
            Self::U8 => "u8",
            Self::S4 => "s4",
            Self::U4 => "u4",
            Self::B1 => "b1",
            Self::F64 => "f64",
        }
    }
}

/// Instructions on mbarrier objects.
#[derive(Debug, Clone, PartialEq)]
pub struct Mbar {
    pub kind: MbarKind,
    pub space: Space,
    pub addr: Addr,
    /// State token, arrival count, transaction bytes or parity, as `kind` needs.
    pub a: Src,
    pub b: Src,
    /// State token or predicate of the result.
    pub d: Reg,
    pub releases: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MbarKind {
    Init,
    Inval,
    ExpectTx,
    CompleteTx,
    /// `drop`, `no_complete` and the number of arrivals as modifiers say.
    Arrive {
        expect_tx: bool,
        drop: bool,
        no_complete: bool,
    },
    /// `parity`: the operand is a phase parity, else a state token.
    Test {
        parity: bool,
        blocking: bool,
    },
    PendingCount,
}

/// Bulk copies, tensor copies and their prefetches.
#[derive(Debug, Clone, PartialEq)]
pub struct Bulk {
    pub kind: BulkKind,
    /// Memory side: destination and source addresses of plain copies; tensor copies use one of
    /// them for shared memory.
    pub dst: Addr,
    pub src: Addr,
    pub dst_space: Space,
    pub src_space: Space,
    pub bytes: Src,
    /// mbarrier that completes the copy; `None` for bulk groups.
    pub mbar: Option<Addr>,
    /// Blocks of the cluster that receive the data.
    pub multicast: Option<Src>,
    pub reduce: Option<(AtomOp, Ty)>,
    pub coords: Box<[Src]>,
    pub im2col: Box<[Src]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BulkKind {
    Copy,
    TensorLoad,
    TensorStore,
    Prefetch,
}

/// wgmma.mma_async.
#[derive(Debug, Clone, PartialEq)]
pub struct Wgmma {
    pub n: u32,
    pub k: u32,
    pub a_ty: MatTy,
    pub b_ty: MatTy,
    /// F16, F32 or S32.
    pub d_ty: Ty,
    pub d: Box<[Reg]>,
    /// Four registers, or one descriptor in shared memory.
    pub a: WgmmaA,
    pub b: Src,
    pub scale_d: PSrc,
    pub negate_a: bool,
    pub negate_b: bool,
    pub trans_a: bool,
    pub trans_b: bool,
    pub satfinite: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub enum WgmmaA {
    Shared(Src),
    Regs(Box<[Src]>),
}

/// A kernel parameter's place in the parameter block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Param {
    pub name: String,
    pub offset: u32,
    pub size: u32,
    pub align: u32,
}

/// A kernel, decoded.
#[derive(Debug, Clone, PartialEq)]
pub struct Kernel {
    pub name: String,
    pub code: Vec<Instr>,
    /// Registers of up to 32 bits, of 64 bits, and predicates.
    pub regs32: u32,
    pub regs64: u32,
    pub preds: u32,
    /// Names of the registers by file and slot, for messages.
    pub names: [Vec<String>; 3],
    /// Printed forms, such as `ld.global.nc.v4.f32`.
    pub forms: Vec<String>,
    pub params: Vec<Param>,
    pub param_bytes: u32,
    /// Static shared memory; dynamic shared memory begins at `dyn_base`.
    pub shared_bytes: u32,
    pub dyn_base: u32,
    pub uses_dyn_shared: bool,
    pub local_bytes: u32,
    pub max_threads: Option<[u32; 3]>,
    pub required_threads: Option<[u32; 3]>,
    pub cluster: Option<[u32; 3]>,
    pub min_blocks: Option<u32>,
    /// `.loc` file and line pairs.
    pub locs: Vec<(u32, u32)>,
    /// The kernel uses bulk copies or wgmma, so proxies have to be tracked.
    pub uses_async_proxy: bool,
    pub uses_wgmma: bool,
}
