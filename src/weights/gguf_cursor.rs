//! A cursor over a GGUF file's bytes: every read is checked, and its error says where and what.

use std::fmt::Display;
use std::path::Path;

use super::table::shown;
use crate::error::{Error, Result};

/// Reads little-endian values one after another.
pub(super) struct Cursor<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(path: &'a Path, bytes: &'a [u8]) -> Self {
        Cursor { path, bytes, at: 0 }
    }

    /// Bytes read so far.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Bytes not read yet.
    pub fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// An error of this file at this place.
    pub fn fail(&self, field: impl Display, what: impl Display) -> Error {
        Error::file(self.path, format!("byte {}: {field}: {what}", self.at))
    }

    pub fn take(&mut self, len: usize, field: impl Display) -> Result<&'a [u8]> {
        let left = &self.bytes[self.at..];
        let Some(taken) = left.get(..len) else {
            let what = format!("{len} bytes wanted, {} left in the file", left.len());
            return Err(self.fail(field, what));
        };
        self.at += len;
        Ok(taken)
    }

    pub fn array<const N: usize>(&mut self, field: impl Display) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N, field)?);
        Ok(out)
    }

    pub fn u32(&mut self, field: impl Display) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array(field)?))
    }

    pub fn u64(&mut self, field: impl Display) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array(field)?))
    }

    /// A count of things that take at least `each` bytes of the file, and at most `cap` of them.
    pub fn count(&mut self, each: usize, cap: usize, field: impl Display) -> Result<usize> {
        let count = self.u64(&field)?;
        let fits = usize::try_from(count)
            .ok()
            .filter(|&n| n.checked_mul(each).is_some_and(|bytes| bytes <= self.left()));
        match fits {
            None => {
                let what = format!("{count} is more than the {} bytes left can hold", self.left());
                Err(self.fail(field, what))
            }
            Some(n) if n > cap => Err(self.fail(field, format!("{n} is above the limit of {cap}"))),
            Some(n) => Ok(n),
        }
    }

    /// A string of at most `cap` bytes: a u64 length, then UTF-8.
    pub fn str(&mut self, cap: usize, field: impl Display) -> Result<&'a str> {
        let len = self.count(1, cap, format_args!("length of {field}"))?;
        let bytes = self.take(len, &field)?;
        std::str::from_utf8(bytes).map_err(|e| {
            let start = String::from_utf8_lossy(&bytes[..e.valid_up_to()]);
            self.fail(field, format!("not UTF-8 after {}", shown(&start)))
        })
    }
}
