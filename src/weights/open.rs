//! Opens a checkpoint: a folder or a file, safetensors or GGUF.

use std::path::{Path, PathBuf};

use super::gguf::Gguf;
use super::safetensors_index::{self, INDEX};
use super::table::Table;
use super::{Weights, gguf_open, safetensors};
use crate::error::{Error, Result};

const SINGLE: &str = "model.safetensors";

/// The file format to expect (`--load-format`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// By what is there.
    Auto,
    Safetensors,
    Gguf,
}

/// An open checkpoint.
pub struct Opened {
    pub weights: Weights,
    /// Metadata and vocabulary, if the format is GGUF.
    pub gguf: Option<Gguf>,
    /// [`Format::Safetensors`] or [`Format::Gguf`].
    pub format: Format,
    /// The files that hold the weights.
    pub files: Vec<PathBuf>,
    /// Bytes of those files.
    pub bytes: u64,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Opened { format, files, bytes, .. } = self;
        write!(f, "Opened {{ {format:?}, {files:?}, {bytes} bytes }}")
    }
}

/// Opens the weights at `path`: a `.safetensors` or `.gguf` file, a shard index, or a folder
/// with one checkpoint in it.
///
/// # Errors
/// Nothing of that format is there, more than one candidate is, or a file is damaged.
pub fn open(path: impl AsRef<Path>, format: Format) -> Result<Opened> {
    let path = path.as_ref();
    let is_dir = std::fs::metadata(path).map_err(|e| Error::io(path, &e))?.is_dir();
    let (file, format) = match (is_dir, format) {
        (true, _) => in_folder(path, format)?,
        (false, Format::Auto) => (path.to_path_buf(), sniff(path)?),
        (false, format) => (path.to_path_buf(), format),
    };
    let (table, gguf) = match format {
        Format::Gguf => gguf_open::open(&file).map(|(table, gguf)| (table, Some(gguf)))?,
        _ if is_index(&file) => (safetensors_index::open(&file)?, None),
        _ => {
            let (mapped, specs) = safetensors::open(&file)?;
            let entries = safetensors::entries(specs, 0).collect();
            (Table::new(vec![mapped], entries)?, None)
        }
    };
    let files = table.files().iter().map(|f| f.path().to_path_buf()).collect();
    let bytes = table.files().iter().map(|f| f.bytes().len() as u64).sum();
    Ok(Opened { weights: Weights::new(Box::new(table)), gguf, format, files, bytes })
}

fn is_index(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "json")
}

/// The format of a file, by its first bytes; by its name if it is an index.
fn sniff(path: &Path) -> Result<Format> {
    if is_index(path) {
        return Ok(Format::Safetensors);
    }
    let mapped = super::mapped::Mapped::open(path)?;
    Ok(if mapped.bytes().starts_with(b"GGUF") { Format::Gguf } else { Format::Safetensors })
}

/// The checkpoint in a folder: `model.safetensors`, its index, the only `.safetensors` file, or
/// the only `.gguf` file (or the first of a split one).
fn in_folder(folder: &Path, format: Format) -> Result<(PathBuf, Format)> {
    let names = names_in(folder)?;
    let ending =
        |end: &str| -> Vec<&String> { names.iter().filter(|n| n.ends_with(end)).collect() };
    if format != Format::Gguf {
        let usual = [SINGLE, INDEX].into_iter().find(|n| names.iter().any(|have| have == n));
        if let Some(name) = usual {
            return Ok((folder.join(name), Format::Safetensors));
        }
        if let Some(name) = only(folder, &ending(".safetensors"))? {
            return Ok((folder.join(name), Format::Safetensors));
        }
    }
    if format != Format::Safetensors {
        let whole: Vec<&String> =
            ending(".gguf").into_iter().filter(|n| !is_later_split(n)).collect();
        if let Some(name) = only(folder, &whole)? {
            return Ok((folder.join(name), Format::Gguf));
        }
    }
    let wanted = match format {
        Format::Auto => "a .safetensors or .gguf file",
        Format::Safetensors => "a .safetensors file",
        Format::Gguf => "a .gguf file",
    };
    Err(Error::file(folder, format!("{wanted} wanted, none found: is this a model's folder?")))
}

fn names_in(folder: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(folder).map_err(|e| Error::io(folder, &e))?;
    let mut names: Vec<String> =
        entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect();
    names.sort();
    Ok(names)
}

fn only<'a>(folder: &Path, names: &[&'a String]) -> Result<Option<&'a String>> {
    match names {
        [] => Ok(None),
        [name] => Ok(Some(name)),
        [first, second, ..] => Err(Error::file(
            folder,
            format!("{} candidates ({first}, {second}, …): name one file", names.len()),
        )),
    }
}

/// Whether a GGUF file name is that of the second or a later part: `…-00002-of-00003.gguf`.
fn is_later_split(name: &str) -> bool {
    let number = name
        .strip_suffix(".gguf")
        .and_then(|n| n.rsplit_once("-of-"))
        .and_then(|(n, _)| n.rsplit_once('-'));
    number.is_some_and(|(_, n)| n.len() == 5 && n.parse::<u32>().is_ok_and(|n| n > 1))
}
