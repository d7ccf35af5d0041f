//! The key-value cache: pages of rows, one row per position and KV head.
//!
//! For each layer, K and V are each `[pages, kv_heads, page_size, row]`; a row is one head's
//! numbers, padded with zeros to whole vectors. Attention reads a head's rows of a page one after
//! another, and a page of any size works, because rows never mix positions.
//!
//! Keys of eight neighbouring slots (an octet) lie column by column, `[row, 8]`, so that a vector
//! holds one column of eight positions and a score needs no sum across lanes. That needs pages of
//! whole octets; with other page sizes keys lie by rows, and attention transposes what it reads.

use super::numbers::Numbers;
use super::simd::LANES;
use crate::device::Limits;
use crate::error::{Error, Result};
use crate::model::plan::KvShape;

/// How a number is kept in the cache.
pub type Element = f32;

/// Where things lie in one layer's K or V.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    pub kv_heads: usize,
    pub page_size: usize,
    pub head_dim: usize,
    /// Numbers in a row: `head_dim` rounded up to whole vectors.
    pub row: usize,
}

impl Layout {
    /// The first number of the row of `head` at `slot` of `page`.
    #[inline(always)]
    pub fn offset(&self, page: usize, head: usize, slot: usize) -> usize {
        ((page * self.kv_heads + head) * self.page_size + slot) * self.row
    }

    /// Do keys lie in octets?
    pub fn octets(&self) -> bool {
        self.page_size.is_multiple_of(LANES)
    }

    /// Where the key of `head` at `slot` of `page` begins, and how far its columns are apart.
    #[inline(always)]
    pub fn key(&self, page: usize, head: usize, slot: usize) -> (usize, usize) {
        if self.octets() {
            (self.offset(page, head, slot / LANES * LANES) + slot % LANES, LANES)
        } else {
            (self.offset(page, head, slot), 1)
        }
    }

    /// Numbers in a page, all heads.
    pub fn page_len(&self) -> usize {
        self.kv_heads * self.page_size * self.row
    }
}

/// All layers' keys and values.
pub struct KvCache {
    pub layout: Layout,
    pages: usize,
    layers: Vec<LayerCache>,
}

/// Keys and values of one layer.
pub struct LayerCache {
    pub k: Numbers,
    pub v: Numbers,
}

impl KvCache {
    /// Allocates `limits.pages` pages for every layer.
    ///
    /// # Errors
    /// [`Kind::Limit`](crate::error::Kind::Limit) if that does not fit in memory.
    pub fn new(shape: &KvShape, limits: &Limits) -> Result<Self> {
        let row = shape.head_dim.next_multiple_of(LANES);
        let layout = Layout {
            kv_heads: shape.kv_heads,
            page_size: limits.page_size,
            head_dim: shape.head_dim,
            row,
        };
        let len = shape
            .kv_heads
            .checked_mul(row)
            .and_then(|n| n.checked_mul(limits.page_size))
            .and_then(|n| n.checked_mul(limits.pages));
        let layer = || -> Option<LayerCache> {
            Some(LayerCache { k: Numbers::zeroed(len?)?, v: Numbers::zeroed(len?)? })
        };
        let layers: Option<Vec<LayerCache>> = (0..shape.layers).map(|_| layer()).collect();
        let layers = layers.ok_or_else(|| {
            Error::limit(format!(
                "a key-value cache of {} pages of {} tokens does not fit in memory; \
                 lower --max-total-tokens",
                limits.pages, limits.page_size
            ))
        })?;
        Ok(KvCache { layout, pages: limits.pages, layers })
    }

    pub fn layer(&self, layer: usize) -> &LayerCache {
        &self.layers[layer]
    }

    pub fn layer_mut(&mut self, layer: usize) -> &mut LayerCache {
        &mut self.layers[layer]
    }

    /// Bytes of K and V.
    pub fn bytes(&self) -> u64 {
        let numbers: usize = self.layers.iter().map(|l| l.k.len() + l.v.len()).sum();
        (numbers * size_of::<Element>()) as u64
    }

    /// Copies the first `tokens` slots of page `from` to page `to` in every layer.
    ///
    /// # Errors
    /// If a page or the number of slots is out of range.
    pub fn copy_page(&mut self, from: u32, to: u32, tokens: usize) -> Result<()> {
        let (from, to, layout) = (from as usize, to as usize, self.layout);
        if from >= self.pages || to >= self.pages || tokens > layout.page_size {
            return Err(Error::device(format!(
                "cannot copy {tokens} tokens of page {from} to page {to}: there are {} pages of \
                 {} tokens",
                self.pages, layout.page_size
            )));
        }
        // Whole octets of keys: what comes with the last one is written before it is read.
        let keys = if layout.octets() { tokens.next_multiple_of(LANES) } else { tokens };
        for layer in &mut self.layers {
            for head in 0..layout.kv_heads {
                let (source, target) = (layout.offset(from, head, 0), layout.offset(to, head, 0));
                layer.k.copy_within(source..source + keys * layout.row, target);
                layer.v.copy_within(source..source + tokens * layout.row, target);
            }
        }
        Ok(())
    }
}
