//! Matrix instructions, mbarriers and bulk copies: the instructions with many parts.

use super::{Addr, AtomOp, PSrc, Reg, Space, Src, Ty};

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
    /// Releases (arrivals) or acquires (waits): not `.relaxed`.
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
