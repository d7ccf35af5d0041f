//! The GGUF format, versions 2 and 3, little-endian: header, metadata, tensor list, then data at
//! multiples of an alignment. Every size is checked before it is used, and memory stays within a
//! small multiple of the file.

use std::collections::BTreeMap;
use std::path::Path;

use super::gguf_cursor::Cursor;
use super::gguf_meta::{self, ALIGNMENT, integer};
use super::table::{Spec, Stored, duplicate, elements, shown};
use crate::error::{Error, Kind, Result};
use crate::types::{Dtype, GgufVocab, MetaMap};

/// Most tensors in a file; the largest models have tens of thousands.
const MAX_TENSORS: usize = 1 << 20;
/// Longest tensor name, by the format.
const MAX_NAME: usize = 64;
const MAX_DIMS: u32 = 4;
/// Fewest bytes of a tensor's entry: name length and byte, one dimension, type, offset.
const MIN_TENSOR: usize = 8 + 1 + 4 + 8 + 4 + 8;
const DEFAULT_ALIGNMENT: u64 = 32;
const MAX_ALIGNMENT: u64 = 64 << 10;

/// What a GGUF file says beside its weights.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Gguf {
    /// All metadata but the vocabulary's lists.
    pub meta: MetaMap,
    pub vocab: Option<GgufVocab>,
    /// Small float tensors that configure the model rather than being weights of it.
    pub(super) extras: BTreeMap<String, Vec<f32>>,
}

impl Gguf {
    /// `rope_freqs.weight`, `rope_factors_long.weight` or `rope_factors_short.weight`, if there.
    pub fn f32_tensor(&self, name: &str) -> Option<Vec<f32>> {
        self.extras.get(name).cloned()
    }
}

/// A file's metadata and its tensors under GGUF's own names, in file order.
#[derive(Debug, PartialEq)]
pub struct Header {
    pub meta: MetaMap,
    pub tensors: Vec<Spec>,
}

/// Reads the GGUF file `bytes`; `path` is for messages.
///
/// # Errors
/// Anything that breaks the format, named by file, byte and field; tensor types that no device
/// computes with.
pub fn parse(path: &Path, bytes: &[u8]) -> Result<Header> {
    let mut cursor = Cursor::new(path, bytes);
    magic(&mut cursor)?;
    let count = cursor.count(MIN_TENSOR, MAX_TENSORS, "tensor count")?;
    let pairs = gguf_meta::count(&mut cursor)?;
    let meta = gguf_meta::read(&mut cursor, pairs)?;
    let align = alignment(path, &meta)?;
    let mut tensors = Vec::with_capacity(count.min(cursor.left() / MIN_TENSOR));
    for i in 0..count {
        tensors.push(tensor(path, &mut cursor, i, align)?);
    }
    if let Some(name) = duplicate(&tensors) {
        return Err(Error::file(path, format!("tensor {} is listed twice", shown(name))));
    }
    place(path, &mut tensors, cursor.at().next_multiple_of(align), bytes.len())?;
    Ok(Header { meta, tensors })
}

fn magic(cursor: &mut Cursor) -> Result<()> {
    let found = cursor.array::<4>("magic")?;
    if &found != b"GGUF" {
        let what = format!("GGUF wanted, found {:?}", String::from_utf8_lossy(&found));
        return Err(cursor.fail("magic", what));
    }
    match cursor.u32("version")? {
        2 | 3 => Ok(()),
        version if version.swap_bytes() <= 3 && version != 0 => {
            Err(cursor.fail("version", "the file is big-endian: convert it to little-endian GGUF"))
        }
        version => Err(cursor.fail("version", format!("{version}, but 2 or 3 can be read"))),
    }
}

fn alignment(path: &Path, meta: &MetaMap) -> Result<usize> {
    let align = integer(path, meta, ALIGNMENT)?.unwrap_or(DEFAULT_ALIGNMENT);
    match usize::try_from(align) {
        Ok(ok) if align.is_power_of_two() && align <= MAX_ALIGNMENT => Ok(ok),
        _ => Err(Error::file(
            path,
            format!("metadata {ALIGNMENT}: {align} is no power of two up to {MAX_ALIGNMENT}"),
        )),
    }
}

/// Reads tensor `i`'s entry; its byte range stays relative to the data.
fn tensor(path: &Path, cursor: &mut Cursor, i: usize, align: usize) -> Result<Spec> {
    let name = cursor.str(MAX_NAME, format_args!("name of tensor {i}"))?;
    if name.is_empty() {
        return Err(cursor.fail(format_args!("name of tensor {i}"), "empty"));
    }
    let shape = shape(cursor, name)?;
    let dtype = dtype(cursor, name)?;
    let offset = cursor.u64(format_args!("offset of tensor {}", shown(name)))?;
    let fail = |what: String| cursor.fail(format_args!("tensor {}", shown(name)), what);
    let cols = shape.last().copied().unwrap_or(1);
    if cols % dtype.block_len() != 0 {
        let (kind, block) = (dtype.name(), dtype.block_len());
        return Err(fail(format!("rows of {cols} do not fill whole {kind} blocks of {block}")));
    }
    let size = dtype
        .bytes(elements(path, name, &shape)?)
        .ok_or_else(|| fail(format!("shape {shape:?}: its size overflows")))?;
    let start = usize::try_from(offset).ok().filter(|o| o % align == 0);
    let start = start.ok_or_else(|| fail(format!("offset {offset} is no multiple of {align}")))?;
    let end = start
        .checked_add(size)
        .ok_or_else(|| fail(format!("offset {offset} and {size} bytes overflow")))?;
    Ok(Spec { name: name.to_owned(), dtype: Stored::Usable(dtype), shape, bytes: start..end })
}

/// Dimensions, outermost first; the file has them innermost first.
fn shape(cursor: &mut Cursor, name: &str) -> Result<Vec<usize>> {
    let field = || format!("dimensions of tensor {}", shown(name));
    let n = cursor.u32(field())?;
    if n == 0 || n > MAX_DIMS {
        return Err(cursor.fail(field(), format!("{n} of them, but 1 to {MAX_DIMS} can be")));
    }
    let mut shape = Vec::with_capacity(MAX_DIMS as usize);
    for _ in 0..n {
        let dim = cursor.u64(field())?;
        match usize::try_from(dim) {
            Ok(d) if d > 0 && i64::try_from(dim).is_ok() => shape.push(d),
            _ => return Err(cursor.fail(field(), format!("{dim} is out of range"))),
        }
    }
    shape.reverse();
    Ok(shape)
}

fn dtype(cursor: &mut Cursor, name: &str) -> Result<Dtype> {
    let id = cursor.u32(format_args!("type of tensor {}", shown(name)))?;
    Ok(match id {
        0 => Dtype::F32,
        1 => Dtype::F16,
        2 => Dtype::Q4_0,
        3 => Dtype::Q4_1,
        6 => Dtype::Q5_0,
        7 => Dtype::Q5_1,
        8 => Dtype::Q8_0,
        12 => Dtype::Q4K,
        13 => Dtype::Q5K,
        14 => Dtype::Q6K,
        30 => Dtype::BF16,
        other => return Err(foreign(cursor, name, other)),
    })
}

/// The error for a type that no device computes with.
fn foreign(cursor: &Cursor, name: &str, id: u32) -> Error {
    let field = format!("type of tensor {}", shown(name));
    let known = FOREIGN.iter().find(|(known, _)| *known == id);
    match known {
        Some((_, kind)) => {
            let what = format!(
                "{kind} is not supported: use a file in F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, \
                 Q5_1, Q4_K, Q5_K or Q6_K"
            );
            Error { kind: Kind::Unsupported, ..cursor.fail(field, what) }
        }
        None => cursor.fail(field, format!("unknown type {id}")),
    }
}

/// Types of the format that Pacer does not compute with.
const FOREIGN: [(u32, &str); 24] = [
    (9, "Q8_1"),
    (10, "Q2_K"),
    (11, "Q3_K"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
    (40, "NVFP4"),
    (4, "Q4_2 (removed)"),
    (5, "Q4_3 (removed)"),
];

/// Checks that the tensors lie inside the file without overlap, and makes their ranges relative
/// to the file; the data starts at byte `data`.
fn place(path: &Path, tensors: &mut [Spec], data: usize, len: usize) -> Result<()> {
    let room = len.saturating_sub(data);
    for tensor in tensors.iter() {
        if tensor.bytes.end > room {
            let (name, range) = (shown(&tensor.name), &tensor.bytes);
            let what = format!(
                "tensor {name}: bytes {range:?} end behind the file's {room} bytes of data: \
                 download it again"
            );
            return Err(Error::file(path, what));
        }
    }
    let mut order: Vec<&Spec> = tensors.iter().collect();
    order.sort_by_key(|t| t.bytes.start);
    if let Some(pair) = order.windows(2).find(|w| w[1].bytes.start < w[0].bytes.end) {
        let (a, b) = (shown(&pair[0].name), shown(&pair[1].name));
        return Err(Error::file(path, format!("tensors {a} and {b} overlap")));
    }
    for tensor in tensors {
        tensor.bytes = data + tensor.bytes.start..data + tensor.bytes.end;
    }
    Ok(())
}
