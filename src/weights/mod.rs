//! Named tensors over mapped files: safetensors, GGUF, or dummy numbers from a seed.
//!
//! Every tensor has its Hugging Face name, whatever the file calls it.

pub mod check;
pub mod digest;
pub mod dummy;
pub mod gguf;
mod gguf_cursor;
mod gguf_entries;
mod gguf_meta;
mod gguf_names;
pub mod gguf_open;
mod gguf_vocab;
pub mod mapped;
pub mod open;
pub mod quant;
pub mod safetensors;
pub mod safetensors_index;
mod safetensors_json;
mod sigbus;
pub mod table;

use crate::error::Result;
use crate::types::Dtype;

/// How a stored matrix's rows relate to the Hugging Face order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowOrder {
    /// Row r is row r.
    Plain,
    /// GGUF's `llama` architecture stores q and k with each head's rotary pairs interleaved:
    /// logical row `h·d + half·d/2 + i` is stored row `h·d + 2·i + half`, d = rows / heads.
    RopePairs { heads: usize },
}

/// One tensor, borrowed from its file or from a buffer.
#[derive(Debug, Clone)]
pub struct Tensor<'a> {
    pub name: &'a str,
    pub dtype: Dtype,
    /// Outermost dimension first: `[rows, cols]` for a matrix, `[len]` for a vector.
    pub shape: &'a [usize],
    /// Row-major; quantised types in GGUF blocks along the last dimension.
    pub data: &'a [u8],
    pub order: RowOrder,
}

impl<'a> Tensor<'a> {
    /// Bytes of the stored form of logical row `row` of a matrix.
    ///
    /// # Panics
    /// If `row` is outside the matrix: rows are counted by a checked plan, never by a file.
    pub fn row(&self, row: usize) -> &'a [u8] {
        let bytes = self.data.len() / self.shape[0].max(1);
        let stored = match self.order {
            RowOrder::Plain => row,
            RowOrder::RopePairs { heads } => {
                let head_dim = self.shape[0] / heads;
                let (head, within) = (row / head_dim, row % head_dim);
                let (half, pair) = (within / (head_dim / 2), within % (head_dim / 2));
                head * head_dim + 2 * pair + half
            }
        };
        &self.data[stored * bytes..(stored + 1) * bytes]
    }
}

/// A tensor without its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Description<'a> {
    pub dtype: Dtype,
    pub shape: &'a [usize],
    /// Bytes of its stored form.
    pub bytes: usize,
}

/// Where tensors come from.
pub trait Source: Send + Sync {
    /// The tensor of that Hugging Face name.
    fn tensor(&self, name: &str) -> Option<Tensor<'_>>;

    /// What [`Source::tensor`] would give, without touching its bytes.
    fn describe(&self, name: &str) -> Option<Description<'_>> {
        let t = self.tensor(name)?;
        Some(Description { dtype: t.dtype, shape: t.shape, bytes: t.data.len() })
    }

    /// All names, in file order.
    fn names(&self) -> Vec<&str>;

    /// Says whether the file below is still whole: after reading, before trusting what was read
    /// (reliability R19).
    fn check(&self) -> Result<()>;

    /// The stored type of a tensor that is listed but cannot be had, e.g. `I64`; else `None`.
    fn unusable(&self, _name: &str) -> Option<&'static str> {
        None
    }

    /// Says that the tensor's bytes will hardly be read again: what memory they take, beside the
    /// system's cache of the file, may be given back. They can still be read.
    fn release(&self, _name: &str) {}
}

/// A checkpoint's tensors.
pub struct Weights {
    source: Box<dyn Source>,
}

impl Weights {
    pub fn new(source: Box<dyn Source>) -> Self {
        Weights { source }
    }

    pub fn tensor(&self, name: &str) -> Option<Tensor<'_>> {
        self.source.tensor(name)
    }

    pub fn describe(&self, name: &str) -> Option<Description<'_>> {
        self.source.describe(name)
    }

    pub fn names(&self) -> Vec<&str> {
        self.source.names()
    }

    pub fn check(&self) -> Result<()> {
        self.source.check()
    }

    pub fn unusable(&self, name: &str) -> Option<&'static str> {
        self.source.unusable(name)
    }

    /// As [`Source::release`].
    pub fn release(&self, name: &str) {
        self.source.release(name);
    }
}
