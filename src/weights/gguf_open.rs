//! Opens a GGUF file, or all files of a split one (`name-00001-of-00003.gguf`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::gguf::{self, Gguf, Header};
use super::gguf_entries::Renamer;
use super::gguf_meta::integer;
use super::gguf_vocab;
use super::mapped::Mapped;
use super::quant::dequantise;
use super::table::{Entry, Spec, Stored, Table};
use crate::error::{Error, Result};
use crate::types::MetaMap;

/// Tensors that configure rotary embedding and no plan reads; kept for the config reader.
const EXTRAS: [&str; 3] =
    ["rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"];
/// Longest of them: half of the largest head dimension is far below.
const MAX_EXTRA: usize = 1 << 16;
/// Most files of a split one: the names have five digits.
const MAX_SPLITS: u64 = 99_999;

/// Opens `path` and, if it is one of several, all the others.
pub(super) fn open(path: &Path) -> Result<(Table, Gguf)> {
    let (mapped, header) = read(path)?;
    let splits = split_count(path, &header.meta)?;
    let (first, rest) = match splits {
        1 => ((mapped, header), Vec::new()),
        n => {
            drop((mapped, header));
            let mut all = splits_of(path, n)?.into_iter();
            let first = all.next().ok_or_else(|| Error::file(path, "split.count: 0"))?;
            (first, all.collect())
        }
    };
    assemble(first, rest)
}

/// What [`open`] does with one file's bytes, for tests and fuzzing: everything but the map.
pub fn inspect(path: &Path, bytes: &[u8]) -> Result<Gguf> {
    let mut header = gguf::parse(path, bytes)?;
    let gguf = describe(path, &mut header, bytes)?;
    let entries = Renamer::new(path, &gguf.meta)?.entries(header, bytes, 0)?;
    Table::new(Vec::new(), entries)?;
    Ok(gguf)
}

fn read(path: &Path) -> Result<(Mapped, Header)> {
    let mapped = Mapped::open(path)?;
    let header = gguf::parse(path, mapped.bytes())?;
    mapped.check()?;
    Ok((mapped, header))
}

fn assemble(first: (Mapped, Header), rest: Vec<(Mapped, Header)>) -> Result<(Table, Gguf)> {
    let (mapped, mut header) = first;
    let gguf = describe(mapped.path(), &mut header, mapped.bytes())?;
    let mut files = Vec::with_capacity(rest.len() + 1);
    let mut entries: Vec<Entry> = Vec::new();
    for (mapped, header) in std::iter::once((mapped, header)).chain(rest) {
        let renamer = Renamer::new(mapped.path(), &gguf.meta)?;
        entries.extend(renamer.entries(header, mapped.bytes(), files.len())?);
        mapped.check()?;
        files.push(mapped);
    }
    Ok((Table::new(files, entries)?, gguf))
}

/// Moves metadata and vocabulary out of `header`.
fn describe(path: &Path, header: &mut Header, bytes: &[u8]) -> Result<Gguf> {
    let mut meta = std::mem::take(&mut header.meta);
    let vocab = gguf_vocab::take(path, &mut meta)?;
    let small = |t: &&Spec| {
        EXTRAS.contains(&t.name.as_str()) && t.shape.iter().product::<usize>() <= MAX_EXTRA
    };
    let extras = header.tensors.iter().filter(small).map(|t| (t.name.clone(), numbers(t, bytes)));
    Ok(Gguf { meta, vocab, extras: extras.collect::<BTreeMap<_, _>>() })
}

fn numbers(spec: &Spec, bytes: &[u8]) -> Vec<f32> {
    let mut out = vec![0.0; spec.shape.iter().product()];
    if let Stored::Usable(dtype) = spec.dtype {
        dequantise(dtype, &bytes[spec.bytes.clone()], &mut out);
    }
    out
}

fn split_count(path: &Path, meta: &MetaMap) -> Result<u64> {
    match integer(path, meta, "split.count")? {
        None | Some(0) => Ok(1),
        Some(n) if n <= MAX_SPLITS => Ok(n),
        Some(n) => Err(Error::file(path, format!("metadata split.count: {n} files"))),
    }
}

/// Opens all `count` files of the split that `path` belongs to, in order.
fn splits_of(path: &Path, count: u64) -> Result<Vec<(Mapped, Header)>> {
    let prefix = prefix(path, count).ok_or_else(|| {
        let what = format!(
            "metadata split.count: one of {count} files, so its name must end in \
             -00001-of-{count:05}.gguf"
        );
        Error::file(path, what)
    })?;
    let mut all = Vec::new();
    let mut tensors = 0;
    for i in 0..count {
        let name = format!("{prefix}-{:05}-of-{count:05}.gguf", i + 1);
        let part: PathBuf = path.with_file_name(name);
        let (mapped, header) = read(&part)?;
        let no = integer(&part, &header.meta, "split.no")?;
        let of = integer(&part, &header.meta, "split.count")?;
        if (no, of) != (Some(i), Some(count)) {
            let what = format!(
                "metadata split.no {no:?} of split.count {of:?}, but the name says {i} of {count} \
                 (counted from 0)"
            );
            return Err(Error::file(&part, what));
        }
        tensors += header.tensors.len() as u64;
        all.push((mapped, header));
    }
    complete(&all, tensors)?;
    Ok(all)
}

/// Checks the tensor count that the first file gives for all of them.
fn complete(all: &[(Mapped, Header)], tensors: u64) -> Result<()> {
    let Some((mapped, header)) = all.first() else { return Ok(()) };
    match integer(mapped.path(), &header.meta, "split.tensors.count")? {
        Some(n) if n != tensors => Err(Error::file(
            mapped.path(),
            format!("metadata split.tensors.count: {n}, but the files hold {tensors} tensors"),
        )),
        _ => Ok(()),
    }
}

/// The part of a split file's name before `-00001-of-0000N.gguf`.
fn prefix(path: &Path, count: u64) -> Option<&str> {
    let name = path.file_name()?.to_str()?;
    let rest = name.strip_suffix(&format!("-of-{count:05}.gguf"))?;
    let (prefix, number) = rest.rsplit_once('-')?;
    (number.len() == 5 && number.bytes().all(|b| b.is_ascii_digit())).then_some(prefix)
}
