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

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of a field's type, and its alignment.
    fn size(ty: &str, known: &[(String, usize)]) -> Option<(usize, usize)> {
        match ty {
            "u64" => Some((8, 8)),
            "u32" | "i32" | "f32" => Some((4, 4)),
            _ => known.iter().find(|(n, _)| n == ty).map(|(_, s)| (*s, 8)),
        }
    }

    /// A launch passes a struct as bytes, so every byte of it must belong to a field.
    #[test]
    fn parameter_structs_have_no_padding() {
        let text = include_str!("../../../cuda/abi.h");
        let mut known: Vec<(String, usize)> = Vec::new();
        for body in text.split("typedef struct ").skip(1) {
            let name = body.split(' ').next().unwrap().to_owned();
            let fields = body.split_once('{').unwrap().1.split_once('}').unwrap().0;
            let (mut at, mut align) = (0, 4);
            for line in fields.lines().filter_map(|l| l.split_once(';')) {
                let mut words = line.0.split_whitespace();
                let Some((bytes, aligned)) = size(words.next().unwrap(), &known) else { continue };
                let count = words.next().and_then(|w| w.split(['[', ']']).nth(1));
                let count: usize = count.map_or(1, |n| n.parse().unwrap());
                assert_eq!(at % aligned, 0, "{name} has a hole before {line:?}");
                at += bytes * count;
                align = align.max(aligned);
            }
            assert_eq!(at % align, 0, "{name} ends in padding: add a `reserved` field");
            known.push((name, at));
        }
        assert!(known.len() > 10);
    }

    #[test]
    fn names_are_distinct() {
        let all = modules();
        let mut names: Vec<String> = all.iter().map(Module::name).collect();
        names.extend(all.iter().flat_map(|m| m.variants.iter().map(|v| m.symbol(v))));
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
