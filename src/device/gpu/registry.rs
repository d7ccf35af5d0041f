//! The kernels that ship: every module's PTX and every entry point in it, as the generator wrote
//! them (gen/README.md).

use std::io::Read;

use super::abi;
use crate::error::{Error, Result};

/// What a module's PTX runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Any card of compute capability 8.0 and up.
    Sm80,
    /// Compute capability 9.0 only.
    Sm90a,
}

impl Target {
    /// Whether a card of compute capability `(major, minor)` runs it.
    pub fn runs_on(self, capability: (u32, u32)) -> bool {
        match self {
            Target::Sm80 => capability >= (8, 0),
            Target::Sm90a => capability == (9, 0),
        }
    }

    /// Prefix of symbols and module names.
    pub const fn name(self) -> &'static str {
        match self {
            Target::Sm80 => "sm80",
            Target::Sm90a => "sm90a",
        }
    }
}

/// One PTX file.
#[derive(Debug)]
pub struct Module {
    pub name: &'static str,
    pub target: Target,
    /// Its text as zlib data ([`Module::ptx`]). The build has checked that it was made from the
    /// sources beside it.
    pub packed: &'static [u8],
    pub kernels: &'static [Kernel],
}

/// One entry point.
#[derive(Debug, PartialEq, Eq)]
pub struct Kernel {
    pub symbol: &'static str,
    /// Its parameter struct in [`abi`], and that struct's size.
    pub params: &'static str,
    pub param_bytes: usize,
    /// Most threads of a block.
    pub block: u32,
    /// Dynamic shared memory in bytes, if the same for every launch.
    pub shared: u32,
    /// Blocks of a cluster; 1 for none.
    pub cluster: u32,
    /// Card, registers of a thread and static shared memory in bytes, as ptxas reports them.
    pub uses: &'static [(&'static str, u32, u32)],
    /// `key=value` pairs that describe the variant.
    pub about: &'static str,
}

/// Every module, in the generator's order.
pub static MODULES: &[Module] =
    include!(concat!(env!("CARGO_MANIFEST_DIR"), "/gen/registry/modules.rs"));

/// Module, card (`sm_90`) and machine code, for the cards that the build was asked to assemble for
/// (`PACER_CUBINS`, build.rs); mostly empty.
pub static CUBINS: &[(&str, &str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/cubins.rs"));

impl Module {
    /// The PTX text.
    ///
    /// # Errors
    /// If the program file is damaged.
    pub fn ptx(&self) -> Result<String> {
        let mut text = String::new();
        let unpacked = flate2::read::ZlibDecoder::new(self.packed).read_to_string(&mut text);
        unpacked.map_err(|e| Error::device(format!("kernel module {}: {e}", self.name)))?;
        Ok(text)
    }

    /// Machine code for a card, if this binary carries it.
    pub fn cubin(&self, card: &str) -> Option<&'static [u8]> {
        CUBINS
            .iter()
            .find(|(name, for_card, _)| *name == self.name && *for_card == card)
            .map(|c| c.2)
    }
}

/// Every kernel with its module.
pub fn kernels() -> impl Iterator<Item = (&'static Module, &'static Kernel)> {
    MODULES.iter().flat_map(|m| m.kernels.iter().map(move |k| (m, k)))
}

/// The kernel of that symbol with its module.
///
/// # Errors
/// There is none: a choice of variant and the generator's table disagree.
pub fn kernel(symbol: &str) -> Result<(&'static Module, &'static Kernel)> {
    kernels()
        .find(|(_, k)| k.symbol == symbol)
        .ok_or_else(|| Error::unsupported(format!("no kernel {symbol} was built into this binary")))
}

/// A parameter struct as the bytes that a launch passes.
pub fn param_bytes<P: Copy>(params: &P) -> &[u8] {
    // SAFETY: a struct of `abi` is `repr(C)`, made of integers and floats without padding (a test
    // adds up the fields), so every byte of it is initialised.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(params).cast(), size_of::<P>()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_are_distinct_and_carry_their_target() {
        let mut symbols: Vec<&str> = kernels().map(|(_, k)| k.symbol).collect();
        let count = symbols.len();
        assert!(count > 0);
        symbols.sort_unstable();
        symbols.dedup();
        assert_eq!(symbols.len(), count);
        for (module, kernel) in kernels() {
            assert!(kernel.symbol.starts_with(module.target.name()));
            assert!(module.ptx().unwrap().contains(&format!(".entry {}(", kernel.symbol)));
            assert!(kernel.param_bytes > 0 && kernel.block <= 1024);
        }
        assert!(super::kernel("sm80_bf16_nothing").is_err());
    }

    #[test]
    fn the_portable_modules_load_on_old_drivers() {
        for module in MODULES {
            let ptx = module.ptx().unwrap();
            let version = ptx.lines().find_map(|l| l.strip_prefix(".version "));
            let most = match module.target {
                // Its loads past the first-level cache came with 7.4; it measures a card's
                // ceilings and serves nobody.
                Target::Sm80 if module.name == "ceiling_sm80" => "7.4",
                Target::Sm80 => "7.0",
                Target::Sm90a => "8.0",
            };
            assert!(version.is_some_and(|v| v <= most), "{} has {version:?}", module.name);
        }
    }

    #[test]
    fn targets_name_the_cards_that_run_them() {
        assert!(Target::Sm80.runs_on((8, 0)) && Target::Sm80.runs_on((12, 0)));
        assert!(!Target::Sm80.runs_on((7, 5)));
        assert!(Target::Sm90a.runs_on((9, 0)) && !Target::Sm90a.runs_on((10, 0)));
    }
}
