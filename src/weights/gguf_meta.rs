//! GGUF metadata: typed key-value pairs, read once into a [`MetaMap`].

use std::path::Path;

use super::gguf_cursor::Cursor;
use super::table::shown;
use crate::error::{Error, Result};
use crate::types::{Meta, MetaMap};

/// Most key-value pairs; files have about 30.
const MAX_PAIRS: usize = 1 << 16;
/// Longest key, by the format.
const MAX_KEY: usize = (1 << 16) - 1;
/// Longest string value; chat templates are the longest in use, about 20 KiB.
const MAX_STRING: usize = 16 << 20;
/// Longest array; merges of the largest vocabularies are below a million.
const MAX_ARRAY: usize = 1 << 24;
/// Fewest bytes of a pair: key length, one byte of key, type, one byte of value.
const MIN_PAIR: usize = 8 + 1 + 4 + 1;

/// The key whose type the format fixes and whose value the parser itself needs.
pub(super) const ALIGNMENT: &str = "general.alignment";

/// The types of metadata values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    Str,
    Array,
    U64,
    I64,
    F64,
}

impl Type {
    const ALL: [Type; 13] = [
        Type::U8,
        Type::I8,
        Type::U16,
        Type::I16,
        Type::U32,
        Type::I32,
        Type::F32,
        Type::Bool,
        Type::Str,
        Type::Array,
        Type::U64,
        Type::I64,
        Type::F64,
    ];

    fn read(cursor: &mut Cursor, key: &str) -> Result<Type> {
        let id = cursor.u32(format_args!("type of {}", shown(key)))?;
        let known = usize::try_from(id).ok().and_then(|id| Type::ALL.get(id).copied());
        known.ok_or_else(|| cursor.fail(shown(key), format!("unknown value type {id}")))
    }

    /// Fewest bytes of a value in the file.
    fn bytes(self) -> usize {
        match self {
            Type::U8 | Type::I8 | Type::Bool => 1,
            Type::U16 | Type::I16 => 2,
            Type::U32 | Type::I32 | Type::F32 => 4,
            Type::U64 | Type::I64 | Type::F64 | Type::Str => 8,
            Type::Array => 12,
        }
    }
}

/// Reads the number of pairs that the header gives.
pub(super) fn count(cursor: &mut Cursor) -> Result<usize> {
    cursor.count(MIN_PAIR, MAX_PAIRS, "metadata count")
}

/// Reads `pairs` key-value pairs.
pub(super) fn read(cursor: &mut Cursor, pairs: usize) -> Result<MetaMap> {
    let mut map = MetaMap::new();
    for i in 0..pairs {
        let key = cursor.str(MAX_KEY, format_args!("metadata key {i}"))?;
        if key.is_empty() {
            return Err(cursor.fail(format_args!("metadata key {i}"), "empty"));
        }
        let kind = Type::read(cursor, key)?;
        if key == ALIGNMENT && kind != Type::U32 {
            return Err(cursor.fail(key, format!("the type must be U32, found {kind:?}")));
        }
        let value = value(cursor, key, kind)?;
        if map.insert(key.to_owned(), value).is_some() {
            return Err(cursor.fail("metadata", format!("duplicate key {}", shown(key))));
        }
    }
    Ok(map)
}

fn value(cursor: &mut Cursor, key: &str, kind: Type) -> Result<Meta> {
    let field = || shown(key);
    Ok(match kind {
        Type::U8 | Type::U16 | Type::U32 | Type::U64 => Meta::U64(unsigned(cursor, key, kind)?),
        Type::I8 | Type::I16 | Type::I32 | Type::I64 => Meta::I64(signed(cursor, key, kind)?),
        Type::F32 | Type::F64 => Meta::F64(float(cursor, key, kind)?),
        Type::Bool => Meta::Bool(boolean(cursor, key)?),
        Type::Str => Meta::Str(cursor.str(MAX_STRING, field())?.to_owned()),
        Type::Array => array(cursor, key)?,
    })
}

fn array(cursor: &mut Cursor, key: &str) -> Result<Meta> {
    let kind = Type::read(cursor, key)?;
    if kind == Type::Array {
        return Err(cursor.fail(shown(key), "an array of arrays: no key of the format has one"));
    }
    let n =
        cursor.count(kind.bytes(), MAX_ARRAY, format_args!("array length of {}", shown(key)))?;
    Ok(match kind {
        Type::U8 | Type::U16 | Type::U32 | Type::U64 => {
            Meta::U64s(list(n, |_| unsigned(cursor, key, kind))?)
        }
        Type::I8 | Type::I16 | Type::I32 | Type::I64 => {
            Meta::I64s(list(n, |_| signed(cursor, key, kind))?)
        }
        Type::F32 | Type::F64 => Meta::F64s(list(n, |_| float(cursor, key, kind))?),
        Type::Bool => Meta::Bools(list(n, |_| boolean(cursor, key))?),
        Type::Str | Type::Array => Meta::Strs(list(n, |i| {
            Ok(cursor.str(MAX_STRING, format_args!("{}[{i}]", shown(key)))?.to_owned())
        })?),
    })
}

/// `n` values; the caller has checked that the file can hold as many.
fn list<T>(n: usize, mut read: impl FnMut(usize) -> Result<T>) -> Result<Vec<T>> {
    let mut out = Vec::with_capacity(n);
    for i in 0..n {
        out.push(read(i)?);
    }
    Ok(out)
}

fn unsigned(cursor: &mut Cursor, key: &str, kind: Type) -> Result<u64> {
    Ok(match kind {
        Type::U8 => u64::from(u8::from_le_bytes(cursor.array(shown(key))?)),
        Type::U16 => u64::from(u16::from_le_bytes(cursor.array(shown(key))?)),
        Type::U32 => u64::from(cursor.u32(shown(key))?),
        _ => cursor.u64(shown(key))?,
    })
}

fn signed(cursor: &mut Cursor, key: &str, kind: Type) -> Result<i64> {
    Ok(match kind {
        Type::I8 => i64::from(i8::from_le_bytes(cursor.array(shown(key))?)),
        Type::I16 => i64::from(i16::from_le_bytes(cursor.array(shown(key))?)),
        Type::I32 => i64::from(i32::from_le_bytes(cursor.array(shown(key))?)),
        _ => i64::from_le_bytes(cursor.array(shown(key))?),
    })
}

fn float(cursor: &mut Cursor, key: &str, kind: Type) -> Result<f64> {
    Ok(match kind {
        Type::F32 => f64::from(f32::from_le_bytes(cursor.array(shown(key))?)),
        _ => f64::from_le_bytes(cursor.array(shown(key))?),
    })
}

fn boolean(cursor: &mut Cursor, key: &str) -> Result<bool> {
    match cursor.array::<1>(shown(key))? {
        [0] => Ok(false),
        [1] => Ok(true),
        [other] => Err(cursor.fail(shown(key), format!("a bool is 0 or 1, found {other}"))),
    }
}

/// What kind of value `meta` is, in the words of errors.
pub(super) fn kind(meta: &Meta) -> &'static str {
    match meta {
        Meta::U64(_) => "an unsigned integer",
        Meta::I64(_) => "a signed integer",
        Meta::F64(_) => "a float",
        Meta::Bool(_) => "a bool",
        Meta::Str(_) => "a string",
        Meta::U64s(_) => "an array of unsigned integers",
        Meta::I64s(_) => "an array of signed integers",
        Meta::F64s(_) => "an array of floats",
        Meta::Bools(_) => "an array of bools",
        Meta::Strs(_) => "an array of strings",
    }
}

/// The error that `key` of `path` holds `found` where `wanted` must be.
pub(super) fn mistyped(path: &Path, key: &str, wanted: &str, found: &Meta) -> Error {
    Error::file(path, format!("metadata {}: {wanted} wanted, found {}", shown(key), kind(found)))
}

/// The non-negative integer under `key`, if the key is there.
pub(super) fn integer(path: &Path, map: &MetaMap, key: &str) -> Result<Option<u64>> {
    match map.get(key) {
        None => Ok(None),
        Some(Meta::U64(n)) => Ok(Some(*n)),
        Some(other @ Meta::I64(n)) => u64::try_from(*n)
            .map(Some)
            .map_err(|_| mistyped(path, key, "an integer of at least 0", other)),
        Some(other) => Err(mistyped(path, key, "an integer", other)),
    }
}
