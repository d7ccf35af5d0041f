//! The safetensors format, read strictly: 8 bytes of header length (little-endian), a JSON header
//! `{name: {"dtype", "shape", "data_offsets"}}`, then the tensors' bytes.
//!
//! Refused, beyond bad JSON: duplicate or unknown keys, gaps, overlaps or bytes left over, a
//! shape that disagrees with its span. Memory used is a small multiple of the header.

use std::path::Path;

use serde::Deserializer as _;

use super::mapped::Mapped;
use super::safetensors_json::{HeaderVisitor, Info};
use super::table::{Entry, Spec, Stored, duplicate, elements, shown};
use crate::error::{Error, Result};
use crate::types::Dtype;

/// The format's own limit on the header, bytes.
pub const MAX_HEADER: usize = 100_000_000;
/// Bytes of the header's length.
const PREFIX: usize = 8;

/// The format's types with their size in bits.
const DTYPES: [(&str, usize, Option<Dtype>); 22] = [
    ("F32", 32, Some(Dtype::F32)),
    ("F16", 16, Some(Dtype::F16)),
    ("BF16", 16, Some(Dtype::BF16)),
    ("F64", 64, None),
    ("I64", 64, None),
    ("U64", 64, None),
    ("C64", 64, None),
    ("I32", 32, None),
    ("U32", 32, None),
    ("I16", 16, None),
    ("U16", 16, None),
    ("I8", 8, None),
    ("U8", 8, None),
    ("BOOL", 8, None),
    ("F8_E4M3", 8, None),
    ("F8_E5M2", 8, None),
    ("F8_E8M0", 8, None),
    ("F8_E4M3FNUZ", 8, None),
    ("F8_E5M2FNUZ", 8, None),
    ("F6_E2M3", 6, None),
    ("F6_E3M2", 6, None),
    ("F4", 4, None),
];

/// Maps one safetensors file and reads its header.
pub(super) fn open(path: &Path) -> Result<(Mapped, Vec<Spec>)> {
    let mapped = Mapped::open(path)?;
    let specs = parse(path, mapped.bytes())?;
    mapped.check()?;
    Ok((mapped, specs))
}

/// The entries of file number `file`.
pub(super) fn entries(specs: Vec<Spec>, file: usize) -> impl Iterator<Item = Entry> {
    specs.into_iter().map(move |s| Entry::plain(s, file))
}

/// Reads the header of the safetensors file `bytes`; `path` is for messages. Tensors come in the
/// order of their data.
///
/// # Errors
/// Anything that breaks the format, named by file and field.
pub fn parse(path: &Path, bytes: &[u8]) -> Result<Vec<Spec>> {
    let header = header(path, bytes)?;
    let text = std::str::from_utf8(header).map_err(|e| {
        Error::file(path, format!("header, byte {}: not UTF-8", PREFIX + e.valid_up_to()))
    })?;
    let mut json = serde_json::Deserializer::from_str(text);
    let infos = json
        .deserialize_map(HeaderVisitor)
        .and_then(|infos| json.end().map(|()| infos))
        .map_err(|e| Error::file(path, format!("header: {e}")))?;
    let data = PREFIX + header.len();
    let specs = infos.into_iter().map(|i| spec(path, i)).collect::<Result<Vec<_>>>()?;
    if let Some(name) = duplicate(&specs) {
        return Err(Error::file(path, format!("header: duplicate key {}", shown(name))));
    }
    cover(path, specs, data, bytes.len())
}

fn header<'a>(path: &Path, bytes: &'a [u8]) -> Result<&'a [u8]> {
    let fail = |what: String| Err(Error::file(path, what));
    let Some((len, rest)) = bytes.split_first_chunk::<PREFIX>() else {
        return fail(format!("header length: {PREFIX} bytes wanted, the file has {}", bytes.len()));
    };
    if let Some(what) = impostor(bytes) {
        return fail(format!("not safetensors but {what}"));
    }
    let len = u64::from_le_bytes(*len);
    let len = match usize::try_from(len) {
        Ok(len) if len <= MAX_HEADER => len,
        _ => return fail(format!("header length: {len} bytes, above the limit of {MAX_HEADER}")),
    };
    let Some(header) = rest.get(..len) else {
        return fail(format!(
            "header length: {len} bytes, but the file ends after {}: download it again",
            rest.len()
        ));
    };
    match header.first() {
        Some(b'{') => Ok(header),
        Some(other) => fail(format!("header: starts with byte {other:#04x}, not with {{")),
        None => fail("header: empty".into()),
    }
}

/// Other things that people end up with under this name.
fn impostor(bytes: &[u8]) -> Option<&'static str> {
    let starts: [(&[u8], &str); 5] = [
        (b"version https://git-lfs", "a Git LFS pointer: fetch the file itself (git lfs pull)"),
        (b"GGUF", "GGUF: use --load-format gguf"),
        (b"PK\x03\x04", "a zip archive (a PyTorch checkpoint?): convert it to safetensors"),
        (b"<!DOCTYPE", "a web page: the download failed"),
        (b"<html", "a web page: the download failed"),
    ];
    starts.iter().find(|(start, _)| bytes.starts_with(start)).map(|(_, what)| *what)
}

/// Checks one tensor by itself; `bytes` stays relative to the data.
fn spec(path: &Path, info: Info) -> Result<Spec> {
    let Info { name, dtype, shape, offsets: [start, end] } = info;
    let fail = |what: String| Error::file(path, format!("tensor {}: {what}", shown(&name)));
    let &(_, bits, usable) = DTYPES
        .iter()
        .find(|(known, ..)| *known == dtype)
        .ok_or_else(|| fail(format!("dtype: unknown type {}", shown(&dtype))))?;
    let bits = elements(path, &name, &shape)?
        .checked_mul(bits)
        .ok_or_else(|| fail(format!("shape {shape:?}: its size overflows")))?;
    if bits % 8 != 0 {
        return Err(fail(format!("shape {shape:?} of {dtype} does not fill whole bytes")));
    }
    let span = end
        .checked_sub(start)
        .ok_or_else(|| fail(format!("data_offsets [{start}, {end}] run backwards")))?;
    if span != bits / 8 {
        return Err(fail(format!(
            "data_offsets [{start}, {end}] hold {span} bytes, but shape {shape:?} of {dtype} \
             takes {}",
            bits / 8
        )));
    }
    let dtype = match usable {
        Some(dtype) => Stored::Usable(dtype),
        None => Stored::Unusable(name_of(&dtype)),
    };
    Ok(Spec { name, dtype, shape, bytes: start..end })
}

fn name_of(dtype: &str) -> &'static str {
    DTYPES.iter().find(|(known, ..)| *known == dtype).map_or("?", |(known, ..)| known)
}

/// Checks that the tensors cover the data, `file[data..len]`, once and without a gap, and makes
/// their ranges relative to the file.
fn cover(path: &Path, mut specs: Vec<Spec>, data: usize, len: usize) -> Result<Vec<Spec>> {
    specs.sort_by_key(|s| (s.bytes.start, s.bytes.end));
    let mut at = 0;
    for spec in &mut specs {
        let (start, end) = (spec.bytes.start, spec.bytes.end);
        if start != at {
            let how = if start < at { "overlap the tensor before" } else { "leave a gap" };
            let name = shown(&spec.name);
            return Err(Error::file(
                path,
                format!("tensor {name}: data_offsets [{start}, {end}] {how}: {at} expected"),
            ));
        }
        if end > len - data {
            let (name, have) = (shown(&spec.name), len - data);
            return Err(Error::file(
                path,
                format!(
                    "tensor {name}: data_offsets [{start}, {end}] end behind the file's {have} \
                     bytes of data: download it again"
                ),
            ));
        }
        at = end;
        spec.bytes = data + start..data + end;
    }
    match len - data - at {
        0 => Ok(specs),
        left => Err(Error::file(path, format!("{left} bytes after the last tensor"))),
    }
}
