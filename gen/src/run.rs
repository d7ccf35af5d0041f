//! Making everything, and comparing it with what is checked in.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use pacer_gen::table::{self, Module};
use pacer_gen::toolkit::Toolkit;
use pacer_gen::{Result, compile, read, registry, stamp, write};

use crate::bindings;

/// Files below the root, with their text.
type Files = Vec<(String, String)>;

/// Writes what is stale, or everything, and removes what the table no longer has.
pub fn generate(root: &Path, all: bool) -> Result<String> {
    let modules = table::modules();
    let stamped = read(&root.join(stamp::PATH)).unwrap_or_default();
    let fresh = |m: &&Module| {
        let name = m.name();
        !all && root.join(format!("gen/registry/{name}.rs")).is_file()
            && read(&root.join(format!("gen/ptx/{name}.ptx")))
                .and_then(|ptx| stamp::module_line(root, m, &ptx))
                .is_ok_and(|line| stamped.lines().any(|l| l == line))
    };
    let stale: Vec<&Module> = modules.iter().filter(|m| !fresh(m)).collect();
    if !stale.is_empty() {
        let tools = Toolkit::pinned()?;
        for (path, text) in build(root, &tools, &stale)? {
            write(&root.join(path), &text)?;
        }
    }
    let bound = bind(root)?;
    if let Some(text) = &bound {
        write(&root.join("gen/bindings/abi.rs"), text)?;
    }
    let path = root.join("gen/registry/modules.rs");
    write(&path, &registry::list(&modules))?;
    write(&root.join(stamp::PATH), &stamp_text(root, &modules, bound.is_some())?)?;
    tidy(root, &modules)?;
    let names: Vec<String> = stale.iter().map(|m| m.name()).collect();
    Ok(format!("made {} of {} modules: {}", stale.len(), modules.len(), names.join(" ")))
}

fn bind(root: &Path) -> Result<Option<String>> {
    let made = bindings::make(root)?;
    if made.is_none() {
        let text = read(&root.join("gen/bindings/abi.rs")).unwrap_or_default();
        let stamped = read(&root.join(stamp::PATH)).unwrap_or_default();
        let line = stamp::bindings_line(root, &text)?;
        if !stamped.lines().any(|l| l == line) {
            return Err("cuda/abi.h changed, so its bindings must too: run with --features \
                        bindings (gen/README.md)"
                .to_owned());
        }
    }
    Ok(made)
}

/// Everything that is generated from modules, made with two compilers at a time.
fn build(root: &Path, tools: &Toolkit, modules: &[&Module]) -> Result<Files> {
    let scratch = scratch()?;
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, Result<Files>)>> = Mutex::new(Vec::new());
    let work = || {
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let Some(module) = modules.get(i) else { return };
            let result = compile::build(root, tools, module, &scratch).map(|built| {
                let name = module.name();
                let rust = registry::module(module, &built);
                vec![
                    (format!("gen/ptx/{name}.ptx"), built.ptx),
                    (format!("gen/registry/{name}.rs"), rust),
                ]
            });
            done.lock().unwrap_or_else(|e| e.into_inner()).push((i, result));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(work);
        }
    });
    let mut done = done.into_inner().unwrap_or_else(|e| e.into_inner());
    done.sort_by_key(|(i, _)| *i);
    let failures: Vec<&String> = done.iter().filter_map(|(_, r)| r.as_ref().err()).collect();
    if !failures.is_empty() {
        let text: Vec<&str> = failures.iter().map(|f| f.as_str()).collect();
        return Err(text.join("\n"));
    }
    std::fs::remove_dir_all(&scratch).ok();
    Ok(done.into_iter().flat_map(|(_, r)| r.unwrap_or_default()).collect())
}

fn scratch() -> Result<PathBuf> {
    let folder = std::env::temp_dir().join(format!("pacer-gen-{}", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    Ok(folder)
}

fn stamp_text(root: &Path, modules: &[Module], bound: bool) -> Result<String> {
    let old = read(&root.join(stamp::PATH)).unwrap_or_default();
    let mut lines = vec![stamp::bindings_line(root, &read(&root.join("gen/bindings/abi.rs"))?)?];
    if !bound && !old.lines().any(|l| l == lines[0]) {
        return Err("the bindings are stale".to_owned());
    }
    for module in modules {
        let ptx = read(&root.join(format!("gen/ptx/{}.ptx", module.name())))?;
        lines.push(stamp::module_line(root, module, &ptx)?);
    }
    lines.sort();
    Ok(lines.join("\n") + "\n")
}

/// Removes generated files of modules that are no longer in the table.
fn tidy(root: &Path, modules: &[Module]) -> Result<()> {
    let mut keep: BTreeSet<String> = BTreeSet::from(["modules.rs".to_owned()]);
    for module in modules {
        keep.insert(format!("{}.ptx", module.name()));
        keep.insert(format!("{}.rs", module.name()));
    }
    for folder in ["gen/ptx", "gen/registry"] {
        let list = std::fs::read_dir(root.join(folder)).map_err(|e| format!("{folder}: {e}"))?;
        for entry in list.flatten() {
            if !keep.contains(&*entry.file_name().to_string_lossy()) {
                std::fs::remove_file(entry.path()).map_err(|e| format!("{folder}: {e}"))?;
            }
        }
    }
    Ok(())
}

/// Makes everything again and compares it, byte for byte.
pub fn check(root: &Path) -> Result<String> {
    let modules = table::modules();
    let tools = Toolkit::pinned()?;
    let mut files = build(root, &tools, &modules.iter().collect::<Vec<_>>())?;
    let bound = bind(root)?;
    let with = if bound.is_some() { "and bindings" } else { "(bindings not remade)" };
    files.extend(bound.map(|text| ("gen/bindings/abi.rs".to_owned(), text)));
    files.push(("gen/registry/modules.rs".to_owned(), registry::list(&modules)));
    files.push((stamp::PATH.to_owned(), stamp_text(root, &modules, true)?));
    let differs = |(path, text): &&(String, String)| {
        read(&root.join(path)).map_or(true, |found| found != *text)
    };
    let different: Vec<&str> = files.iter().filter(differs).map(|(p, _)| p.as_str()).collect();
    if different.is_empty() {
        return Ok(format!("{} modules {with} are as checked in", modules.len()));
    }
    Err(format!("differs from what is checked in: {}", different.join(", ")))
}

/// PTX with source lines, so that an emulator finding names the line of the kernel.
pub fn lines(root: &Path, folder: &Path) -> Result<String> {
    let tools = Toolkit::pinned()?;
    for module in table::modules() {
        let name = module.name();
        let source = folder.join(format!("{name}.cu"));
        write(&source, &compile::instantiation(&module))?;
        let out = folder.join(format!("{name}.ptx"));
        compile::nvcc(root, &tools, module.target, &source, &out, &["-lineinfo"])?;
    }
    Ok(format!("written to {}", folder.display()))
}
