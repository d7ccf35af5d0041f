//! What the text says, before names are resolved.

/// A scalar type as PTX spells it. `bits` of packed types is the width of the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ty {
    B8,
    B16,
    B32,
    B64,
    B128,
    U8,
    U16,
    U32,
    U64,
    S8,
    S16,
    S32,
    S64,
    U16x2,
    S16x2,
    F16,
    F16x2,
    Bf16,
    Bf16x2,
    F32,
    F32x2,
    Tf32,
    F64,
    E4m3,
    E5m2,
    E4m3x2,
    E5m2x2,
    Pred,
}

impl Ty {
    /// The type named by one modifier (`f32`, without the dot).
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "b8" => Self::B8,
            "b16" => Self::B16,
            "b32" => Self::B32,
            "b64" => Self::B64,
            "b128" => Self::B128,
            "u8" => Self::U8,
            "u16" => Self::U16,
            "u32" => Self::U32,
            "u64" => Self::U64,
            "s8" => Self::S8,
            "s16" => Self::S16,
            "s32" => Self::S32,
            "s64" => Self::S64,
            "u16x2" => Self::U16x2,
            "s16x2" => Self::S16x2,
            "f16" => Self::F16,
            "f16x2" => Self::F16x2,
            "bf16" => Self::Bf16,
            "bf16x2" => Self::Bf16x2,
            "f32" => Self::F32,
            "f32x2" => Self::F32x2,
            "tf32" => Self::Tf32,
            "f64" => Self::F64,
            "e4m3" => Self::E4m3,
            "e5m2" => Self::E5m2,
            "e4m3x2" => Self::E4m3x2,
            "e5m2x2" => Self::E5m2x2,
            "pred" => Self::Pred,
            _ => return None,
        })
    }

    /// Width in bits; 1 for predicates.
    pub fn bits(self) -> u32 {
        match self {
            Self::Pred => 1,
            Self::B8 | Self::U8 | Self::S8 | Self::E4m3 | Self::E5m2 => 8,
            Self::B16 | Self::U16 | Self::S16 | Self::F16 | Self::Bf16 => 16,
            Self::E4m3x2 | Self::E5m2x2 => 16,
            Self::B32 | Self::U32 | Self::S32 | Self::F32 | Self::Tf32 => 32,
            Self::U16x2 | Self::S16x2 | Self::F16x2 | Self::Bf16x2 => 32,
            Self::B64 | Self::U64 | Self::S64 | Self::F64 | Self::F32x2 => 64,
            Self::B128 => 128,
        }
    }

    /// Width in whole bytes.
    pub fn bytes(self) -> u32 {
        self.bits().div_ceil(8)
    }

    /// Whether integers of this type have a sign.
    pub fn signed(self) -> bool {
        matches!(self, Self::S8 | Self::S16 | Self::S32 | Self::S64 | Self::S16x2)
    }
}

/// An operand as written.
#[derive(Debug, Clone, PartialEq)]
pub enum RawOperand<'a> {
    /// Register, symbol, special register or label, with a constant added.
    Name(&'a str, i64),
    /// `!p`.
    Not(&'a str),
    /// `-x` of a named operand is not PTX; this is a negative or positive integer.
    Int(u64),
    F32(u32),
    F64(u64),
    /// `{a, b, …}`.
    List(Vec<RawOperand<'a>>),
    /// `p|q`.
    Pair(&'a str, &'a str),
    /// `[base + offset]` or `[map, {coordinates}]`.
    Address {
        base: Box<RawOperand<'a>>,
        offset: i64,
        rest: Vec<RawOperand<'a>>,
    },
    /// `(a, b)` of a call.
    Group(Vec<RawOperand<'a>>),
}

/// An instruction as written.
#[derive(Debug, Clone, PartialEq)]
pub struct RawInstr<'a> {
    /// `@p` or `@!p`.
    pub guard: Option<(&'a str, bool)>,
    /// Opcode with its modifiers.
    pub opcode: &'a str,
    pub operands: Vec<RawOperand<'a>>,
    pub line: u32,
}

/// State space of a declared variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VarSpace {
    Global,
    Const,
    Shared,
    Local,
    Param,
}

/// One value of an initialiser.
#[derive(Debug, Clone, PartialEq)]
pub enum InitValue<'a> {
    Int(u64),
    F32(u32),
    F64(u64),
    /// Address of a variable plus an offset.
    Symbol(&'a str, i64),
}

/// A declared variable or parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct Var<'a> {
    pub name: &'a str,
    pub space: VarSpace,
    pub external: bool,
    /// Alignment in bytes, a power of two.
    pub align: u32,
    /// Bytes of one element (a scalar or a `.v2`/`.v4` vector of it).
    pub elem: u32,
    /// Size in bytes; 0 for an unsized `[]`.
    pub size: u64,
    pub init: Vec<InitValue<'a>>,
    pub line: u32,
}

/// Registers of one declaration: `%r<10>` or single names.
#[derive(Debug, Clone, PartialEq)]
pub struct RegDecl<'a> {
    pub ty: Ty,
    pub name: &'a str,
    /// `Some(n)` declares `name0` to `name(n-1)`.
    pub count: Option<u32>,
}

/// A statement of a body.
#[derive(Debug, Clone, PartialEq)]
pub enum Stmt<'a> {
    Open,
    Close,
    Label(&'a str, u32),
    Reg(RegDecl<'a>, u32),
    Var(Var<'a>),
    Loc {
        file: u32,
        line: u32,
    },
    Instr(RawInstr<'a>),
    /// `name: .branchtargets a, b;`
    Targets(&'a str, Vec<&'a str>),
}

/// An entry or a device function.
#[derive(Debug, Clone, PartialEq)]
pub struct Function<'a> {
    pub name: &'a str,
    pub entry: bool,
    pub params: Vec<Var<'a>>,
    pub returns: Vec<Var<'a>>,
    /// `None` for a declaration.
    pub body: Option<Vec<Stmt<'a>>>,
    pub max_threads: Option<[u32; 3]>,
    pub max_registers: Option<u32>,
    pub required_threads: Option<[u32; 3]>,
    pub cluster: Option<[u32; 3]>,
    pub min_blocks: Option<u32>,
    pub line: u32,
}

/// A whole module as written.
#[derive(Debug, Clone, Default)]
pub struct Ast<'a> {
    pub version: (u32, u32),
    pub target: &'a str,
    pub files: Vec<(u32, &'a str)>,
    pub vars: Vec<Var<'a>>,
    pub functions: Vec<Function<'a>>,
}
