//! The tensors of one or more mapped files as a [`Source`], looked up by name.

use std::fmt;
use std::ops::Range;
use std::path::Path;

use super::mapped::Mapped;
use super::{RowOrder, Source, Tensor};
use crate::error::{Error, Result};
use crate::types::Dtype;

/// A tensor as a file's header describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    pub name: String,
    pub dtype: Stored,
    /// Outermost dimension first.
    pub shape: Vec<usize>,
    /// Where its bytes lie in the file; checked to be inside.
    pub bytes: Range<usize>,
}

/// The type a file gives a tensor: one that devices can read, or only its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    Usable(Dtype),
    /// A type of the format that no device computes with, e.g. `I64`.
    Unusable(&'static str),
}

/// Where a tensor's bytes are.
pub(super) enum Bytes {
    File { file: usize, range: Range<usize> },
    Owned(Box<[u8]>),
}

/// A tensor under its Hugging Face name.
pub(super) struct Entry {
    pub name: String,
    pub dtype: Stored,
    pub shape: Vec<usize>,
    pub bytes: Bytes,
    pub order: RowOrder,
}

impl Entry {
    /// `spec` as it is in file number `file`.
    pub fn plain(spec: Spec, file: usize) -> Entry {
        Entry {
            name: spec.name,
            dtype: spec.dtype,
            shape: spec.shape,
            bytes: Bytes::File { file, range: spec.bytes },
            order: RowOrder::Plain,
        }
    }
}

/// Mapped files and the tensors in them.
pub(super) struct Table {
    files: Vec<Mapped>,
    entries: Vec<Entry>,
    /// Indices into `entries`, sorted by name.
    by_name: Vec<u32>,
}

impl Table {
    /// # Errors
    /// Two entries have the same name.
    pub fn new(files: Vec<Mapped>, entries: Vec<Entry>) -> Result<Table> {
        let by_name = sorted_by_name(&entries, |e| &e.name);
        let twice = by_name.windows(2).find_map(|w| match w {
            [a, b] if entries[*a as usize].name == entries[*b as usize].name => Some((*a, *b)),
            _ => None,
        });
        if let Some((a, b)) = twice {
            let [first, second] = [a, b].map(|i| path_of(&files, &entries[i as usize]));
            let name = shown(&entries[a as usize].name);
            let what = format!("tensor {name} is there twice, first in {}", first.display());
            return Err(Error::file(second, what));
        }
        Ok(Table { files, entries, by_name })
    }

    fn find(&self, name: &str) -> Option<&Entry> {
        let at =
            self.by_name.binary_search_by(|&i| self.entries[i as usize].name.as_str().cmp(name));
        at.ok().map(|at| &self.entries[self.by_name[at] as usize])
    }

    pub fn contains(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    pub fn files(&self) -> &[Mapped] {
        &self.files
    }

    fn data<'a>(&'a self, entry: &'a Entry) -> &'a [u8] {
        match &entry.bytes {
            Bytes::File { file, range } => &self.files[*file].bytes()[range.clone()],
            Bytes::Owned(bytes) => bytes,
        }
    }
}

fn path_of<'a>(files: &'a [Mapped], entry: &Entry) -> &'a Path {
    let file = match &entry.bytes {
        Bytes::File { file, .. } => files.get(*file),
        Bytes::Owned(_) => files.first(),
    };
    file.map_or(Path::new("weights"), Mapped::path)
}

impl Source for Table {
    fn tensor(&self, name: &str) -> Option<Tensor<'_>> {
        let entry = self.find(name)?;
        let Stored::Usable(dtype) = entry.dtype else { return None };
        Some(Tensor {
            name: &entry.name,
            dtype,
            shape: &entry.shape,
            data: self.data(entry),
            order: entry.order,
        })
    }

    fn names(&self) -> Vec<&str> {
        self.entries.iter().map(|e| e.name.as_str()).collect()
    }

    fn check(&self) -> Result<()> {
        self.files.iter().try_for_each(Mapped::check)
    }

    fn unusable(&self, name: &str) -> Option<&'static str> {
        match self.find(name)?.dtype {
            Stored::Usable(_) => None,
            Stored::Unusable(kind) => Some(kind),
        }
    }

    fn release(&self, name: &str) {
        if let Some(Bytes::File { file, range }) = self.find(name).map(|e| &e.bytes) {
            self.files[*file].release(range.clone());
        }
    }
}

/// The indices of `items` (fewer than 2³²: each took more than a byte of a file) in name order.
pub(super) fn sorted_by_name<T>(items: &[T], name: impl Fn(&T) -> &str) -> Vec<u32> {
    let count = u32::try_from(items.len()).unwrap_or(u32::MAX);
    let mut order: Vec<u32> = (0..count).collect();
    order.sort_by(|&a, &b| name(&items[a as usize]).cmp(name(&items[b as usize])));
    order
}

/// The first name that two of `specs` share.
pub(super) fn duplicate(specs: &[Spec]) -> Option<&str> {
    sorted_by_name(specs, |s| &s.name).windows(2).find_map(|w| match w {
        [a, b] if specs[*a as usize].name == specs[*b as usize].name => {
            Some(specs[*a as usize].name.as_str())
        }
        _ => None,
    })
}

/// The product of `shape`, or an error of `path` that names the tensor.
pub(super) fn elements(path: &Path, name: &str, shape: &[usize]) -> Result<usize> {
    shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).ok_or_else(|| {
        let what = format!("tensor {}: shape {shape:?}: the product overflows", shown(name));
        Error::file(path, what)
    })
}

/// A name out of a file, safe and short enough to print: quoted, escaped, at most 80 characters.
pub(super) fn shown(name: &str) -> impl fmt::Display + '_ {
    struct Shown<'a>(&'a str);
    impl fmt::Display for Shown<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            match self.0.char_indices().nth(80) {
                None => write!(f, "{:?}", self.0),
                Some((end, _)) => {
                    write!(f, "{:?}… ({} bytes)", &self.0[..end], self.0.len())
                }
            }
        }
    }
    Shown(name)
}
