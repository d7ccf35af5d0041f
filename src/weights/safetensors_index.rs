//! Checkpoints in shards: `model.safetensors.index.json` says which file holds which tensor.

use std::path::Path;

use serde::Deserializer as _;

use super::mapped::Mapped;
use super::safetensors::{self, MAX_HEADER};
use super::safetensors_json::IndexVisitor;
use super::table::{Entry, Table, shown};
use crate::error::{Error, Result};

/// The name of the index beside its shards.
pub const INDEX: &str = "model.safetensors.index.json";

/// An index: shard file names in order of first mention, and each tensor's shard by number.
#[derive(Debug, PartialEq)]
pub struct Index {
    pub files: Vec<String>,
    /// `(tensor, index into files)`, sorted by tensor.
    pub tensors: Vec<(String, usize)>,
}

impl Index {
    fn file_of(&self, tensor: &str) -> Option<usize> {
        let at = self.tensors.binary_search_by(|(name, _)| name.as_str().cmp(tensor)).ok()?;
        Some(self.tensors[at].1)
    }
}

/// Reads the index file at `path`.
pub(super) fn read(path: &Path) -> Result<Index> {
    let mapped = Mapped::open(path)?;
    let bytes = mapped.bytes();
    if bytes.len() > MAX_HEADER {
        let what = format!("{} bytes, above the limit of {MAX_HEADER}", bytes.len());
        return Err(Error::file(path, what));
    }
    let index = parse(path, bytes)?;
    mapped.check()?;
    Ok(index)
}

/// Reads an index; `path` is for messages.
///
/// # Errors
/// Bad JSON, a tensor listed twice, a shard name that is not a plain `*.safetensors` file name.
pub fn parse(path: &Path, bytes: &[u8]) -> Result<Index> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let mut pairs = json
        .deserialize_map(IndexVisitor)
        .and_then(|pairs| json.end().map(|()| pairs))
        .map_err(|e| Error::file(path, format!("{e}")))?;
    let fail = |what: String| Err(Error::file(path, format!("weight_map: {what}")));
    if pairs.is_empty() {
        return fail("empty: no tensors".into());
    }
    let mut files: Vec<String> = Vec::new();
    let mut numbers = std::collections::HashMap::new();
    let mut tensors = Vec::with_capacity(pairs.len());
    for (tensor, file) in pairs.drain(..) {
        if let Err(why) = plain_name(&file) {
            return fail(format!("tensor {}: file {}: {why}", shown(&tensor), shown(&file)));
        }
        let number = *numbers.entry(file).or_insert_with_key(|file| {
            files.push(file.clone());
            files.len() - 1
        });
        tensors.push((tensor, number));
    }
    tensors.sort();
    match tensors.windows(2).find(|w| w[0].0 == w[1].0) {
        Some(twice) => fail(format!("duplicate key {}", shown(&twice[0].0))),
        None => Ok(Index { files, tensors }),
    }
}

/// Shards lie beside their index. The file itself may be a link (download caches are made of
/// links), but its name may not lead anywhere.
fn plain_name(name: &str) -> std::result::Result<(), &'static str> {
    if name.contains(['/', '\\', '\0']) || name == ".." || name.len() > 255 {
        return Err("not a plain file name: shards must lie beside the index");
    }
    if !name.ends_with(".safetensors") {
        return Err("the name must end in .safetensors");
    }
    Ok(())
}

/// Maps all shards that the index at `path` names, and checks that each holds just what it says.
pub(super) fn open(path: &Path) -> Result<Table> {
    let index = read(path)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut files = Vec::with_capacity(index.files.len());
    let mut entries: Vec<Entry> = Vec::with_capacity(index.tensors.len());
    for (number, name) in index.files.iter().enumerate() {
        let shard = folder.join(name);
        let (mapped, specs) = safetensors::open(&shard).map_err(|e| e.context(path.display()))?;
        for spec in &specs {
            belongs(path, &index, number, &spec.name)?;
        }
        files.push(mapped);
        entries.extend(safetensors::entries(specs, number));
    }
    let table = Table::new(files, entries)?;
    missing(path, &index, &table)?;
    Ok(table)
}

/// Checks that the index puts `tensor`, found in shard `number`, there.
fn belongs(path: &Path, index: &Index, number: usize, tensor: &str) -> Result<()> {
    let here = &index.files[number];
    let wrong = match index.file_of(tensor) {
        Some(listed) if listed == number => return Ok(()),
        Some(listed) => format!("weight_map says {}", shown(&index.files[listed])),
        None => "weight_map does not list it".into(),
    };
    let what = format!("tensor {} is in {}, but {wrong}", shown(tensor), shown(here));
    Err(Error::file(path, what))
}

fn missing(path: &Path, index: &Index, table: &Table) -> Result<()> {
    let absent = index.tensors.iter().find(|(name, _)| !table.contains(name));
    match absent {
        None => Ok(()),
        Some((name, file)) => Err(Error::file(
            path,
            format!("tensor {} is not in {}", shown(name), shown(&index.files[*file])),
        )),
    }
}
