//! A GGUF header's tensors as Hugging Face ones: renamed, experts split, conventions undone.

use std::path::Path;

use super::RowOrder;
use super::gguf::Header;
use super::gguf_meta::mistyped;
use super::gguf_names::{Family, Target, family};
use super::quant::dequantise;
use super::table::{Bytes, Entry, Spec, Stored, shown};
use crate::error::{Error, Result};
use crate::types::{Dtype, Meta, MetaMap};

const ARCHITECTURE: &str = "general.architecture";
/// Most experts of a layer.
const MAX_EXPERTS: usize = 1024;
/// Fewest bytes of an expert's matrix: bounds what names of experts take next to the file.
const MIN_EXPERT: usize = 256;

/// Renames the tensors of one file.
pub(super) struct Renamer<'a> {
    path: &'a Path,
    meta: &'a MetaMap,
    family: &'static Family,
}

impl<'a> Renamer<'a> {
    /// `meta` is the metadata of the file, or of the first of several.
    ///
    /// # Errors
    /// The architecture is missing or not supported.
    pub fn new(path: &'a Path, meta: &'a MetaMap) -> Result<Self> {
        let arch = match meta.get(ARCHITECTURE) {
            Some(Meta::Str(arch)) => arch,
            Some(other) => return Err(mistyped(path, ARCHITECTURE, "a string", other)),
            None => return Err(Error::file(path, format!("metadata {ARCHITECTURE}: missing"))),
        };
        let family = family(arch).map_err(|e| e.context(path.display()))?;
        Ok(Renamer { path, meta, family })
    }

    /// The entries of file number `file`, whose bytes are `bytes`.
    pub fn entries(&self, header: Header, bytes: &[u8], file: usize) -> Result<Vec<Entry>> {
        let mut out = Vec::with_capacity(header.tensors.len());
        for spec in header.tensors {
            match self.family.target(&spec.name) {
                Target::PerExpert { before, after } => {
                    self.experts(&spec, &before, &after, file, &mut out)?;
                }
                Target::One(name) => out.push(self.one(spec, name, bytes, file)?),
            }
        }
        Ok(out)
    }

    fn one(&self, spec: Spec, name: String, bytes: &[u8], file: usize) -> Result<Entry> {
        let heads = self.rope_heads(&spec)?;
        let norm = self.family.norm_plus_one && spec.name.ends_with("norm.weight");
        let mut entry = Entry { name, ..Entry::plain(spec, file) };
        let vector = entry.shape.len() == 1;
        match heads {
            Some(heads) if vector => reorder(&mut entry, bytes, heads),
            Some(heads) => entry.order = RowOrder::RopePairs { heads },
            None if norm && vector => subtract_one(&mut entry, bytes),
            None => {}
        }
        Ok(entry)
    }

    fn experts(
        &self,
        spec: &Spec,
        before: &str,
        after: &str,
        file: usize,
        out: &mut Vec<Entry>,
    ) -> Result<()> {
        let fail = |what: String| {
            Err(Error::file(self.path, format!("tensor {}: {what}", shown(&spec.name))))
        };
        let &[experts, rows, cols] = spec.shape.as_slice() else {
            return fail(format!("shape {:?}, but experts have three dimensions", spec.shape));
        };
        if experts > MAX_EXPERTS {
            return fail(format!("{experts} experts are above the limit of {MAX_EXPERTS}"));
        }
        // Rows fill whole blocks, so experts do.
        let size = spec.bytes.len() / experts;
        if size < MIN_EXPERT {
            return fail(format!("experts of {size} bytes are too small to be real"));
        }
        out.extend((0..experts).map(|e| {
            let start = spec.bytes.start + e * size;
            Entry {
                name: format!("{before}{e}{after}"),
                dtype: spec.dtype,
                shape: vec![rows, cols],
                bytes: Bytes::File { file, range: start..start + size },
                order: RowOrder::Plain,
            }
        }));
        Ok(())
    }

    /// The heads by which `spec`, a q or k projection, is interleaved; `None` if it is not.
    fn rope_heads(&self, spec: &Spec) -> Result<Option<usize>> {
        if !self.family.rope_pairs {
            return Ok(None);
        }
        let parts: Vec<&str> = spec.name.split('.').collect();
        let (layer, q) = match parts.as_slice() {
            ["blk", layer, "attn_q", "weight" | "bias"] => (layer, true),
            ["blk", layer, "attn_k", "weight" | "bias"] => (layer, false),
            _ => return Ok(None),
        };
        let arch = self.family.arch;
        let all = format!("{arch}.attention.head_count");
        let kv = format!("{arch}.attention.head_count_kv");
        let key = if q || !self.meta.contains_key(&kv) { all } else { kv };
        let heads = self.heads(&key, layer.parse().unwrap_or(usize::MAX))?;
        let rows = spec.shape.first().copied().unwrap_or(0);
        if heads == 0 || rows % heads != 0 || (rows / heads) % 2 != 0 {
            let what = format!(
                "tensor {}: {rows} rows do not make pairs in {heads} heads ({key})",
                shown(&spec.name)
            );
            return Err(Error::file(self.path, what));
        }
        Ok(Some(heads))
    }

    /// A head count: one number, or one a layer.
    fn heads(&self, key: &str, layer: usize) -> Result<usize> {
        let value = match self.meta.get(key) {
            None => return Err(Error::file(self.path, format!("metadata {key}: missing"))),
            Some(Meta::U64(n)) => Some(*n),
            Some(Meta::I64(n)) => u64::try_from(*n).ok(),
            Some(Meta::U64s(list)) => list.get(layer).copied(),
            Some(Meta::I64s(list)) => list.get(layer).and_then(|n| u64::try_from(*n).ok()),
            Some(other) => return Err(mistyped(self.path, key, "an integer", other)),
        };
        value.and_then(|n| usize::try_from(n).ok()).ok_or_else(|| {
            Error::file(self.path, format!("metadata {key}: no count for layer {layer}"))
        })
    }
}

/// Puts a bias whose numbers are interleaved rotary pairs into the plain order.
fn reorder(entry: &mut Entry, bytes: &[u8], heads: usize) {
    in_float32(entry, bytes, |stored| {
        let head_dim = stored.len() / heads;
        let logical = |(r, _): (usize, &f32)| {
            let (head, within) = (r / head_dim, r % head_dim);
            let (half, pair) = (within / (head_dim / 2), within % (head_dim / 2));
            stored[head * head_dim + 2 * pair + half]
        };
        stored.iter().enumerate().map(logical).collect()
    });
}

/// Takes the 1 off a norm's weights.
fn subtract_one(entry: &mut Entry, bytes: &[u8]) {
    in_float32(entry, bytes, |stored| stored.iter().map(|w| w - 1.0).collect());
}

/// Replaces a vector's numbers in the file `bytes` by what `change` makes of them.
fn in_float32(entry: &mut Entry, bytes: &[u8], change: impl Fn(&[f32]) -> Vec<f32>) {
    let (Stored::Usable(dtype), Bytes::File { range, .. }) = (entry.dtype, &entry.bytes) else {
        return;
    };
    let mut numbers = vec![0.0; entry.shape.iter().product()];
    dequantise(dtype, &bytes[range.clone()], &mut numbers);
    entry.dtype = Stored::Usable(Dtype::F32);
    entry.bytes = Bytes::Owned(change(&numbers).iter().flat_map(|x| x.to_le_bytes()).collect());
}
