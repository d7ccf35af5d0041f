//! From a module of the table to PTX and cubins.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::ptxas::{self, Usage};
use crate::table::{Module, Target};
use crate::toolkit::Toolkit;
use crate::{Result, read, stamp, write};

/// What nvcc is told beside the architecture. No line information: it holds absolute paths.
pub const FLAGS: [&str; 2] = ["-O3", "-std=c++17"];

/// PTX that assembles, with what it uses on each card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// The whole file, header included.
    pub ptx: String,
    /// Card, then the use of each variant in the table's order.
    pub usage: Vec<(&'static str, Vec<Usage>)>,
}

/// The source that nvcc is given: the kernel file, and one entry point a variant.
pub fn instantiation(module: &Module) -> String {
    let mut text = format!("#include \"{}.cu\"\n", module.source);
    for v in &module.variants {
        let bound = match v.blocks_per_sm {
            0 => format!("{}", v.block),
            blocks => format!("{}, {blocks}", v.block),
        };
        let cluster = match v.cluster {
            1 => String::new(),
            n => format!(" __cluster_dims__({n}, 1, 1)"),
        };
        text += &format!(
            "\nextern \"C\" __global__ void __launch_bounds__({bound}){cluster}\n{}(const \
             __grid_constant__ {} p) {{\n  {}(p);\n}}\n",
            module.symbol(v),
            v.params,
            v.call
        );
    }
    text
}

/// Compiles a module to PTX, at the lowest PTX version that assembles, and holds it to the table.
///
/// # Errors
/// nvcc or ptxas refuses it, it spills or uses local memory, needs more registers than the table
/// allows, or lacks an instruction that the table requires.
pub fn build(root: &Path, tools: &Toolkit, module: &Module, scratch: &Path) -> Result<Built> {
    let name = module.name();
    let in_module = |e: String| format!("{name}: {e}");
    let source = scratch.join(format!("{name}.cu"));
    write(&source, &instantiation(module))?;
    let raw = scratch.join(format!("{name}.raw.ptx"));
    nvcc(root, tools, module.target, &source, &raw, &[]).map_err(in_module)?;
    let text = read(&raw)?;
    let hash = stamp::source_hash(root, module)?;
    let mut last = String::new();
    for version in module.target.versions() {
        let ptx = header(module, version, &hash, &text)?;
        let path = scratch.join(format!("{name}.ptx"));
        write(&path, &ptx)?;
        match ptxas::assemble(tools, &path, module) {
            Ok(usage) => {
                ptxas::hold(module, &usage).map_err(in_module)?;
                return Ok(Built { ptx, usage });
            }
            Err(e) => last = e,
        }
    }
    Err(in_module(last))
}

/// Runs nvcc for PTX.
pub fn nvcc(
    root: &Path,
    tools: &Toolkit,
    target: Target,
    source: &Path,
    out: &Path,
    more: &[&str],
) -> Result<()> {
    let arch = target.arch();
    let gencode = format!("-gencode=arch=compute_{arch},code=compute_{arch}");
    let include = root.join("cuda");
    let mut args: Vec<&OsStr> = FLAGS.iter().chain(more).map(OsStr::new).collect();
    args.extend([gencode.as_ref(), "-I".as_ref(), include.as_os_str(), "-ptx".as_ref()]);
    args.extend(["-o".as_ref(), out.as_os_str(), source.as_os_str()]);
    tools.run("nvcc", &args).map(|_| ())
}

/// nvcc's PTX under our own opening lines and version. nvcc always writes its newest version,
/// which older drivers refuse; ptxas checks that the lower one suffices.
fn header(module: &Module, version: &str, hash: &str, raw: &str) -> Result<String> {
    let at = raw.find("\n.version ").ok_or("nvcc's output has no .version line")?;
    let rest = raw[at + 1..].split_once('\n').map_or("", |(_, rest)| rest);
    // Comments, and a hint about loads that only PTX 8.3 knows.
    let kept = |line: &&str| {
        let words = line.trim_start();
        !words.is_empty()
            && !words.starts_with("// ")
            && !words.starts_with(".pragma \"used_bytes_mask")
    };
    let rest = rest.lines().filter(kept).collect::<Vec<_>>().join("\n");
    let file = module.source;
    Ok(format!(
        "// {} - made by pacer-gen from cuda/{file}.cu; do not edit.\n// source sha256 {hash}\n\
         .version {version}\n{rest}\n",
        module.name()
    ))
}

/// Assembles checked-in PTX into a cubin for `card` (`sm_90`) and gives its path.
pub fn cubin(tools: &Toolkit, ptx: &Path, card: &str, out: &Path) -> Result<PathBuf> {
    let arch = format!("-arch={card}");
    let args: [&OsStr; 4] = [arch.as_ref(), "-o".as_ref(), out.as_os_str(), ptx.as_os_str()];
    tools.run("ptxas", &args)?;
    Ok(out.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Variant;

    #[test]
    fn an_instantiation_names_symbol_bounds_struct_and_call() {
        let v = Variant::new("bf16_x", "x<bf16>", "XParams").block(128).blocks_per_sm(4);
        let module = Module::new("x", Target::Sm80, vec![v]);
        let text = instantiation(&module);
        assert!(text.starts_with("#include \"x.cu\"\n"));
        assert!(text.contains("__launch_bounds__(128, 4)"));
        assert!(text.contains("sm80_bf16_x(const __grid_constant__ XParams p)"));
        assert!(text.contains("  x<bf16>(p);"));
    }

    #[test]
    fn the_header_lowers_the_version_and_drops_the_compiler_s_own() {
        let module = Module::new("x", Target::Sm80, Vec::new());
        let raw = "//\n// Generated by someone\n//\n\n.version 9.0\n.target sm_80\n";
        let text = header(&module, "7.0", "ab", raw).unwrap();
        assert!(text.ends_with("// source sha256 ab\n.version 7.0\n.target sm_80\n"), "{text}");
        assert!(!text.contains("someone"));
    }
}
