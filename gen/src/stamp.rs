//! The stamp: what the checked-in PTX and bindings were made from and with.
//!
//! A line an artefact: name, hash of its sources, hash of the artefact. A change of either without
//! the other makes it stale, and stale artefacts do not build.

use std::collections::BTreeSet;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::compile::{FLAGS, instantiation};
use crate::table::{self, Module};
use crate::toolkit::NVCC_VERSION;
use crate::{Result, read};

/// Where the stamp stands below the root.
pub const PATH: &str = "gen/stamp.txt";

fn sha256(parts: &[&str]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().iter().take(16).map(|b| format!("{b:02x}")).collect()
}

/// Hash of everything that decides a module's PTX: its files, its entry points, flags, compiler.
/// Comments and blank lines do not count.
pub fn source_hash(root: &Path, module: &Module) -> Result<String> {
    let mut files = BTreeSet::new();
    closure(root, &format!("{}.cu", module.source), &mut files)?;
    let texts = files.iter().map(|f| read(&root.join("cuda").join(f)).map(|t| code(&t)));
    let texts = texts.collect::<Result<Vec<String>>>()?;
    let instances = instantiation(module);
    let mut parts: Vec<&str> = FLAGS.to_vec();
    parts.extend([NVCC_VERSION, module.target.arch(), &instances]);
    parts.extend(texts.iter().map(String::as_str));
    Ok(sha256(&parts))
}

/// A file of `cuda/` and all it includes in quotes.
fn closure(root: &Path, file: &str, files: &mut BTreeSet<String>) -> Result<()> {
    if !files.insert(file.to_owned()) {
        return Ok(());
    }
    let text = read(&root.join("cuda").join(file))?;
    for line in text.lines() {
        let name = line.trim().strip_prefix("#include \"").and_then(|l| l.strip_suffix('"'));
        if let Some(name) = name {
            closure(root, name, files)?;
        }
    }
    Ok(())
}

/// Source without comments and blank lines. `//` inside a string does not occur in `cuda/`.
fn code(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let line = line.split("//").next().unwrap_or("").trim();
        if !line.is_empty() {
            out += line;
            out.push('\n');
        }
    }
    out
}

/// A line of the stamp for a module and its PTX.
pub fn module_line(root: &Path, module: &Module, ptx: &str) -> Result<String> {
    Ok(format!("{} {} {}", module.name(), source_hash(root, module)?, sha256(&[ptx])))
}

/// The line of the bindings.
pub fn bindings_line(root: &Path, bindings: &str) -> Result<String> {
    let header = code(&read(&root.join("cuda/abi.h"))?);
    Ok(format!("bindings {} {}", sha256(&[&header]), sha256(&[bindings])))
}

/// What is stale below `root`, in words; empty if everything fits.
pub fn stale(root: &Path) -> Vec<String> {
    match find_stale(root) {
        Ok(list) => list,
        Err(e) => vec![e],
    }
}

fn find_stale(root: &Path) -> Result<Vec<String>> {
    let stamp = read(&root.join(PATH))?;
    let lines: BTreeSet<&str> = stamp.lines().collect();
    let mut stale = Vec::new();
    for module in table::modules() {
        let name = module.name();
        let line = read(&root.join(format!("gen/ptx/{name}.ptx")))
            .and_then(|ptx| module_line(root, &module, &ptx));
        match line {
            Ok(line) if lines.contains(line.as_str()) => (),
            Ok(_) => stale.push(format!("gen/ptx/{name}.ptx does not fit cuda/ and gen/src/table")),
            Err(e) => stale.push(e),
        }
    }
    let bindings = read(&root.join("gen/bindings/abi.rs"))?;
    if !lines.contains(bindings_line(root, &bindings)?.as_str()) {
        stale.push("gen/bindings/abi.rs does not fit cuda/abi.h".to_owned());
    }
    Ok(stale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_do_not_count_and_code_does() {
        assert_eq!(code("// a\n\n  int b;  // c\n"), "int b;\n");
        assert_ne!(sha256(&["ab", "c"]), sha256(&["a", "bc"]));
    }

    #[test]
    fn what_is_checked_in_is_fresh() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        assert_eq!(stale(&root), Vec::<String>::new());
    }
}
