//! The key-value cache: pages of rows, one row per position and KV head.
//!
//! For each layer, K and V are each `[pages, kv_heads, page_size, row]`; a row is one head's
//! numbers, padded with zeros to whole vectors. Attention reads a head's rows of a page one after
//! another, and a page of any size works, because rows never mix positions.
//!
//! Keys of eight neighbouring slots (an octet) lie column by column, `[row, 8]`, so that a vector
//! holds one column of eight positions and a score needs no sum across lanes. That needs pages of
//! whole octets; with other page sizes keys lie by rows, and attention transposes what it reads.
//!
//! Numbers are kept as f32 or as f16 ([`KvType`]); arithmetic is f32 on both. Decoding many
//! sequences reads more of the cache than of quantised weights, so that half the bytes is most of
//! its speed.

use half::f16;

use super::numbers::{LINE, Number, Numbers};
use super::parallel::{Columns, Shared, split};
use super::pool::Pool;
use super::simd::{Isa, LANES, Lanes, padded, simd_fn};
use crate::device::Limits;
use crate::error::{Error, Result};
use crate::model::plan::KvShape;

/// How numbers are kept in the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvType {
    F32,
    /// Rounded to 11 bits; beyond ±65,504 the largest number.
    F16,
}

impl KvType {
    /// Bytes of a number.
    pub fn bytes(self) -> usize {
        match self {
            KvType::F32 => size_of::<f32>(),
            KvType::F16 => size_of::<f16>(),
        }
    }
}

/// A number as the cache keeps it.
pub trait Element: Number {
    const ZERO: Self;
    fn load<S: Lanes>(from: &[Self; LANES]) -> S;
    /// To the nearest; what is finite stays finite: an infinite key would make every later token
    /// of its sequence NaN.
    fn store<S: Lanes>(numbers: S, to: &mut [Self; LANES]);
    /// The numbers of this type.
    fn space(space: &mut KeySpace) -> &mut [Self];
}

/// Scratch for keys in the cache's type; the other is empty.
pub struct KeySpace {
    f32: Numbers<f32>,
    f16: Numbers<f16>,
}

impl KeySpace {
    /// Room for `len` numbers.
    pub fn zeroed(kind: KvType, len: usize) -> Option<Self> {
        let of = |wanted| if kind == wanted { len } else { 0 };
        let (f32, f16) = (of(KvType::F32), of(KvType::F16));
        Some(KeySpace { f32: Numbers::zeroed(f32)?, f16: Numbers::zeroed(f16)? })
    }

    pub fn bytes(&self) -> usize {
        size_of_val(&*self.f32) + size_of_val(&*self.f16)
    }
}

impl Element for f32 {
    const ZERO: f32 = 0.0;

    #[inline(always)]
    fn load<S: Lanes>(from: &[f32; LANES]) -> S {
        S::load(from)
    }

    #[inline(always)]
    fn store<S: Lanes>(numbers: S, to: &mut [f32; LANES]) {
        numbers.store(to);
    }

    fn space(space: &mut KeySpace) -> &mut [f32] {
        &mut space.f32
    }
}

impl Element for f16 {
    const ZERO: f16 = f16::ZERO;

    #[inline(always)]
    fn load<S: Lanes>(from: &[f16; LANES]) -> S {
        S::load_f16(from)
    }

    #[inline(always)]
    fn store<S: Lanes>(numbers: S, to: &mut [f16; LANES]) {
        let (least, most) = (S::splat(f16::MIN.to_f32()), S::splat(f16::MAX.to_f32()));
        let near = least.max(most.min(numbers));
        let magnitude = numbers.max(S::splat(0.0).sub(numbers));
        magnitude.if_below(S::splat(f32::INFINITY), near, numbers).store_f16(to);
    }

    fn space(space: &mut KeySpace) -> &mut [f16] {
        &mut space.f16
    }
}

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

/// Numbers that are written to neighbouring places in the time of one whose line is fetched first.
const SCATTERED: usize = 8;
/// Rows between asking for the lines of one and writing to it: two rows of three heads of 64 are
/// about a hundred lines.
const WRITES_AHEAD: usize = 2;

simd_fn! {
    /// Asks for the lines of `numbers`.
    fn ask<S, E: Element>(numbers: &[E]) {
        numbers.iter().step_by(LINE / size_of::<E>()).for_each(S::prefetch);
    }
}

simd_fn! {
    /// Writes a row's numbers `apart` from each other.
    fn put<S, E: Element>(from: &[f32], to: &mut [E], apart: usize) {
        let mut eight = [E::ZERO; LANES];
        for (from, to) in from.chunks(LANES).zip(to.chunks_mut(LANES * apart)) {
            let numbers = from.first_chunk().map_or_else(|| S::load(&padded(from)), S::load);
            E::store(numbers, &mut eight);
            to.iter_mut().step_by(apart).zip(eight).for_each(|(to, x)| *to = x);
        }
    }
}

/// Where a row's token stands in its sequence and in the cache.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    pub position: usize,
    pub page: usize,
    pub slot: usize,
}

/// Rows of a buffer: `[rows, kv_heads, head_dim]` in these columns.
pub type Rows<'a> = (&'a [f32], Columns);

/// All layers' keys and values.
pub struct KvCache {
    pub layout: Layout,
    pages: usize,
    pub layers: Layers,
}

/// Keys and values of every layer, all in one type.
pub enum Layers {
    F32(Vec<LayerCache<f32>>),
    F16(Vec<LayerCache<f16>>),
}

/// Keys and values of one layer.
pub struct LayerCache<E> {
    pub k: Numbers<E>,
    pub v: Numbers<E>,
}

impl<E: Element> LayerCache<E> {
    /// Room for `len` numbers of each in `layers` layers, if there is memory.
    fn zeroed(layers: usize, len: usize) -> Option<Vec<Self>> {
        let layer = |_| Some(LayerCache { k: Numbers::zeroed(len)?, v: Numbers::zeroed(len)? });
        (0..layers).map(layer).collect()
    }

    /// Writes the rows of a step to their places.
    fn write(
        &mut self,
        (pool, isa): (&Pool, Isa),
        layout: &Layout,
        places: &[Place],
        (keys, key_columns): Rows,
        (values, value_columns): Rows,
    ) {
        let width = layout.head_dim;
        let (to_k, to_v) = (Shared::new(&mut self.k), Shared::new(&mut self.v));
        // By heads, not rows: no two threads write one slot, even if two rows name it.
        split(pool, layout.kv_heads, places.len() * width * SCATTERED, &|heads| {
            for (row, place) in places.iter().enumerate() {
                let later = places.get(row + WRITES_AHEAD).filter(|later| later.page != place.page);
                for head in heads.clone() {
                    let from = head * width..(head + 1) * width;
                    let (at, apart) = layout.key(place.page, head, place.slot);
                    // SAFETY: every head's rows are written by one thread.
                    let to = unsafe { to_k.part(at..at + (width - 1) * apart + 1) };
                    put(isa, &keys[key_columns.of(row)][from.clone()], to, apart);
                    if let Some(later) = later {
                        let (at, apart) = layout.key(later.page, head, later.slot);
                        // SAFETY: as above; no other part of this thread is in use.
                        let to = unsafe { to_k.part(at..at + (width - 1) * apart + 1) };
                        ask(isa, to);
                        let at = layout.offset(later.page, head, later.slot);
                        // SAFETY: as above.
                        ask(isa, unsafe { to_v.part(at..at + width) });
                    }
                    let at = layout.offset(place.page, head, place.slot);
                    // SAFETY: as above.
                    let to = unsafe { to_v.part(at..at + width) };
                    put(isa, &values[value_columns.of(row)][from], to, 1);
                }
            }
        });
    }

    fn copy_page(&mut self, layout: &Layout, from: usize, to: usize, tokens: usize) {
        // Whole octets of keys: what comes with the last one is written before it is read.
        let keys = if layout.octets() { tokens.next_multiple_of(LANES) } else { tokens };
        for head in 0..layout.kv_heads {
            let (source, target) = (layout.offset(from, head, 0), layout.offset(to, head, 0));
            self.k.copy_within(source..source + keys * layout.row, target);
            self.v.copy_within(source..source + tokens * layout.row, target);
        }
    }
}

impl KvCache {
    /// Allocates `limits.pages` pages for every layer.
    ///
    /// # Errors
    /// [`Kind::Limit`](crate::error::Kind::Limit) if that does not fit in memory.
    pub fn new(shape: &KvShape, kind: KvType, limits: &Limits) -> Result<Self> {
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
        let layers = len.and_then(|len| match kind {
            KvType::F32 => LayerCache::zeroed(shape.layers, len).map(Layers::F32),
            KvType::F16 => LayerCache::zeroed(shape.layers, len).map(Layers::F16),
        });
        let layers = layers.ok_or_else(|| {
            Error::limit(format!(
                "a key-value cache of {} pages of {} tokens does not fit in memory; \
                 lower --max-total-tokens",
                limits.pages, limits.page_size
            ))
        })?;
        Ok(KvCache { layout, pages: limits.pages, layers })
    }

    /// How numbers are kept.
    pub fn kind(&self) -> KvType {
        match self.layers {
            Layers::F32(_) => KvType::F32,
            Layers::F16(_) => KvType::F16,
        }
    }

    /// Bytes of K and V.
    pub fn bytes(&self) -> u64 {
        let layers = match &self.layers {
            Layers::F32(layers) => layers.len(),
            Layers::F16(layers) => layers.len(),
        };
        (2 * layers * self.pages * self.layout.page_len() * self.kind().bytes()) as u64
    }

    /// Writes a step's `keys` and `values`, a row for each of `places`, to layer `layer`.
    pub fn write(
        &mut self,
        how: (&Pool, Isa),
        layer: usize,
        places: &[Place],
        keys: Rows,
        values: Rows,
    ) {
        let layout = &self.layout;
        match &mut self.layers {
            Layers::F32(layers) => layers[layer].write(how, layout, places, keys, values),
            Layers::F16(layers) => layers[layer].write(how, layout, places, keys, values),
        }
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
        match &mut self.layers {
            Layers::F32(all) => all.iter_mut().for_each(|l| l.copy_page(&layout, from, to, tokens)),
            Layers::F16(all) => all.iter_mut().for_each(|l| l.copy_page(&layout, from, to, tokens)),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_rounded_and_stay_finite() {
        let big = 1e6;
        let from = [1.0, -2.5, 0.1, 65_519.0, big, -big, 1e-8, 0.0, f32::NAN, f32::INFINITY, 3.0];
        for isa in [Isa::scalar(), Isa::best()] {
            for apart in [1, 8] {
                let mut to = [f16::ONE; 10 * 8 + 1];
                put(isa, &from, &mut to[..10 * apart + 1], apart);
                let found: Vec<f32> = to.iter().step_by(apart).map(|x| x.to_f32()).collect();
                let most = f16::MAX.to_f32();
                let want = [1.0, -2.5, 0.099_975_586, most, most, -most, 0.0, 0.0];
                assert_eq!(found[..8], want, "{}", isa.name());
                assert!(found[8].is_nan() && found[9] == f32::INFINITY && found[10] == 3.0);
                // What lies between is not touched.
                let between = to.iter().enumerate().filter(|(i, _)| i % apart != 0);
                assert!(between.clone().all(|(_, x)| *x == f16::ONE));
                let mut same = [0.0; 10 * 8 + 1];
                put(isa, &from[..8], &mut same[..7 * apart + 1], apart);
                let found: Vec<f32> = same.iter().step_by(apart).take(8).copied().collect();
                assert_eq!(found, from[..8]);
            }
        }
    }
}
