//! Every instruction that the machine runs.

use super::*;

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
        scope: Scope,
        d: Box<[Reg]>,
        addr: Addr,
    },
    St {
        space: Space,
        ty: Ty,
        order: Order,
        scope: Scope,
        a: Box<[Src]>,
        addr: Addr,
    },
    /// `atom` (d is a register) and `red` (d is the sink).
    Atom {
        space: Space,
        op: AtomOp,
        ty: Ty,
        order: Order,
        scope: Scope,
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
    /// griddepcontrol: waits for the grids that this one depends on, or lets those begin that
    /// depend on this one.
    GridDependency {
        wait: bool,
    },
    /// Nothing to do.
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
    /// fence.acq_rel, fence.sc and membar.
    Memory(Scope),
    /// fence.proxy.async: threads' writes become visible to asynchronous copies and wgmma, in
    /// these spaces.
    ProxyAsync { shared: bool, global: bool },
    /// fence.proxy.tensormap: threads' writes become visible to readers of tensor maps.
    TensorMap,
    /// fence.mbarrier_init.
    MbarrierInit,
    /// Proxies this machine does not model apart: alias.
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
