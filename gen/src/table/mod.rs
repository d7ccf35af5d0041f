//! The table of variants: which kernel templates are instantiated, with what, for which target.
//!
//! One file an area. A module is one `cuda/NAME.cu` for one target; its variants become
//! `extern "C"` entry points in one PTX file.

mod products;
mod rows;

/// What PTX is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// Portable: any card of compute capability 8.0 and up.
    Sm80,
    /// Hopper's own instructions (wgmma, TMA, setmaxnreg): 9.0 only.
    Sm90a,
}

impl Target {
    /// The suffix of nvcc's architecture names: `compute_80`, `sm_90a`.
    pub const fn arch(self) -> &'static str {
        match self {
            Target::Sm80 => "80",
            Target::Sm90a => "90a",
        }
    }

    /// Prefix of symbols and files: `sm80`.
    pub const fn name(self) -> &'static str {
        match self {
            Target::Sm80 => "sm80",
            Target::Sm90a => "sm90a",
        }
    }

    /// PTX versions to try, lowest first: the first that assembles is written.
    pub const fn versions(self) -> &'static [&'static str] {
        match self {
            Target::Sm80 => &["7.0", "7.1", "7.4", "7.8", "8.0", "8.3", "9.0"],
            Target::Sm90a => &["8.0", "8.1", "8.3", "8.6", "9.0"],
        }
    }

    /// Cards that the module is assembled for, to see registers and spills.
    pub const fn cards(self) -> &'static [&'static str] {
        match self {
            Target::Sm80 => &["sm_80", "sm_89", "sm_90"],
            Target::Sm90a => &["sm_90a"],
        }
    }
}

/// One entry point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variant {
    /// Without the target's prefix: `bf16_rmsnorm_warp1`; the symbol is `sm80_bf16_rmsnorm_warp1`.
    pub name: String,
    /// What the entry point calls: `rms_norm_warp<bf16, 1>`.
    pub call: String,
    /// The struct of `cuda/abi.h` that it takes.
    pub params: &'static str,
    /// Most threads of a block, and its launch bound.
    pub block: u32,
    /// Blocks that shall fit on one multiprocessor; 0 leaves it to the compiler.
    pub blocks_per_sm: u32,
    /// Dynamic shared memory in bytes, if it is the same for every launch.
    pub shared: u32,
    /// Blocks of a cluster; 1 for none.
    pub cluster: u32,
    /// Registers a thread may use; more is an error.
    pub registers: u32,
    /// SASS instructions that must occur, such as `HGMMA`.
    pub sass: &'static [&'static str],
    /// `key=value` pairs for `pacer kernels list`.
    pub about: String,
}

impl Variant {
    pub fn new(name: impl Into<String>, call: impl Into<String>, params: &'static str) -> Self {
        Variant {
            name: name.into(),
            call: call.into(),
            params,
            block: 256,
            blocks_per_sm: 0,
            shared: 0,
            cluster: 1,
            registers: 64,
            sass: &[],
            about: String::new(),
        }
    }

    pub fn block(mut self, threads: u32) -> Self {
        self.block = threads;
        self
    }

    pub fn blocks_per_sm(mut self, blocks: u32) -> Self {
        self.blocks_per_sm = blocks;
        self
    }

    pub fn shared(mut self, bytes: u32) -> Self {
        self.shared = bytes;
        self
    }

    pub fn cluster(mut self, blocks: u32) -> Self {
        self.cluster = blocks;
        self
    }

    pub fn registers(mut self, most: u32) -> Self {
        self.registers = most;
        self
    }

    pub fn sass(mut self, instructions: &'static [&'static str]) -> Self {
        self.sass = instructions;
        self
    }

    pub fn about(mut self, text: impl Into<String>) -> Self {
        self.about = text.into();
        self
    }
}

/// One PTX file: a `cuda/NAME.cu` for one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// The source without folder and extension: `rmsnorm`.
    pub source: &'static str,
    /// Tells two modules of one source apart: large tables are cut into several; mostly empty.
    pub part: String,
    pub target: Target,
    pub variants: Vec<Variant>,
}

impl Module {
    pub fn new(source: &'static str, target: Target, variants: Vec<Variant>) -> Self {
        Module { source, part: String::new(), target, variants }
    }

    /// One of several modules of a source.
    pub fn part(mut self, part: impl Into<String>) -> Self {
        self.part = part.into();
        self
    }

    /// The file's stem: `rmsnorm_sm80`, `gemm_bf16_sm90a`.
    pub fn name(&self) -> String {
        let part = if self.part.is_empty() { String::new() } else { format!("_{}", self.part) };
        format!("{}{part}_{}", self.source, self.target.name())
    }

    /// The entry point's name.
    pub fn symbol(&self, variant: &Variant) -> String {
        format!("{}_{}", self.target.name(), variant.name)
    }
}

/// The storage types of activations: name in symbols, C++ type.
pub const HALVES: [(&str, &str); 2] = [("bf16", "bf16"), ("f16", "f16")];

/// Every module, in a fixed order.
pub fn modules() -> Vec<Module> {
    let mut all = rows::modules();
    all.extend(products::modules());
    all
}
