//! Where a split's keys and values lie, and in which order they are read.

use super::block::Ahead;
use super::{OCTETS, SPLIT};
use crate::device::cpu::kv_cache::{Element, LayerCache, Layout};
use crate::device::cpu::simd::LANES;

/// Octets read between asking for one and reading it: 8 KiB of f16 with heads of 64, several times
/// what memory delivers in the time that it takes to answer.
const DISTANCE: usize = 8;

/// Eight positions' keys or values, which lie together where pages hold whole octets.
#[derive(Debug, Clone, Copy)]
enum Piece {
    Keys(usize),
    Values(usize),
}

/// The places of positions `first ..` of one sequence and KV head, at most a split of them.
#[derive(Debug)]
pub struct Places {
    /// Where each octet's keys begin, if they lie in octets.
    pub k: [usize; SPLIT / LANES],
    /// Where each position's values begin.
    pub v: [usize; SPLIT],
    /// Keys and values by octets as they are read: a block's keys, then its values.
    pieces: Vec<Piece>,
}

impl Places {
    pub fn new() -> Self {
        let pieces = Vec::with_capacity(2 * SPLIT / LANES);
        Places { k: [0; SPLIT / LANES], v: [0; SPLIT], pieces }
    }

    /// Nothing is read.
    pub fn clear(&mut self) {
        self.pieces.clear();
    }

    /// Finds `len` positions from `first` on, the beginning of a block, in a sequence's `pages`.
    pub fn find(
        &mut self,
        layout: &Layout,
        pages: &[u32],
        kv_head: usize,
        first: usize,
        len: usize,
    ) {
        // One division a split, not one a position.
        let (mut index, mut slot) = (first / layout.page_size, first % layout.page_size);
        for i in 0..len {
            let page = pages[index] as usize;
            self.v[i] = layout.offset(page, kv_head, slot);
            if layout.octets() && i.is_multiple_of(LANES) {
                // An octet does not cross pages, and a block begins with one.
                (self.k[i / LANES], _) = layout.key(page, kv_head, slot);
            }
            slot += 1;
            if slot == layout.page_size {
                (index, slot) = (index + 1, 0);
            }
        }
        self.pieces.clear();
        if layout.octets() {
            let octets = len.div_ceil(LANES);
            for block in (0..octets).step_by(OCTETS) {
                let all = block..octets.min(block + OCTETS);
                self.pieces.extend(all.clone().map(|octet| Piece::Keys(self.k[octet])));
                self.pieces.extend(all.map(|octet| Piece::Values(self.v[octet * LANES])));
            }
        }
    }

    /// What to ask for while the block at position `base` is read: what is read [`DISTANCE`]
    /// octets later, here or in `next`.
    pub fn ahead<'a, E: Element>(
        &self,
        next: &Places,
        base: usize,
        row: usize,
        cache: &'a LayerCache<E>,
    ) -> Ahead<'a, E> {
        let read = 2 * base / LANES;
        let octets = (self.pieces.len().saturating_sub(read) / 2).min(OCTETS);
        let data = |index: usize| -> &'a [E] {
            let later = index + DISTANCE;
            let piece = self.pieces.get(later);
            let piece = piece.or_else(|| next.pieces.get(later - self.pieces.len()));
            let found = match piece {
                Some(Piece::Keys(at)) => cache.k.get(*at..*at + LANES * row),
                Some(Piece::Values(at)) => cache.v.get(*at..*at + LANES * row),
                None => None,
            };
            found.unwrap_or_default()
        };
        let mut ahead = Ahead::NOTHING;
        for octet in 0..octets {
            ahead.keys[octet] = data(read + octet);
            ahead.values[octet] = data(read + octets + octet);
        }
        ahead
    }
}

#[cfg(test)]
mod tests {
    use super::super::BLOCK;
    use super::*;
    use crate::device::cpu::numbers::Numbers;

    const ROW: usize = 8;

    /// Page `p` holds the sequence's positions `(3 - p) · 16 ..`; two heads.
    fn layout() -> Layout {
        Layout { kv_heads: 2, page_size: 16, head_dim: ROW, row: ROW }
    }

    fn cache() -> LayerCache<f32> {
        let len = layout().page_len() * 8;
        let numbers = |from: f32| {
            let mut all = Numbers::zeroed(len).unwrap();
            all.iter_mut().enumerate().for_each(|(i, x)| *x = from + i as f32);
            all
        };
        LayerCache { k: numbers(0.0), v: numbers(1e6) }
    }

    #[test]
    fn positions_are_found_in_pages_of_any_order_and_size() {
        for page_size in [16, 5] {
            let layout = Layout { page_size, ..layout() };
            let pages: Vec<u32> = (0..64).rev().collect();
            let mut places = Places::new();
            places.find(&layout, &pages, 1, BLOCK, 70);
            for i in 0..70 {
                let (page, slot) = ((BLOCK + i) / page_size, (BLOCK + i) % page_size);
                assert_eq!(places.v[i], layout.offset(pages[page] as usize, 1, slot));
                if layout.octets() {
                    let (at, _) = layout.key(pages[page] as usize, 1, slot / LANES * LANES);
                    assert_eq!(places.k[i / LANES], at);
                }
            }
        }
    }

    /// Every octet is asked for once, [`DISTANCE`] before it is read, and the first of what comes
    /// next while the last of this are read.
    #[test]
    fn what_is_asked_for_is_what_is_read_later() {
        let (layout, cache) = (layout(), cache());
        let (mut this, mut next) = (Places::new(), Places::new());
        // A whole block and one octet; then three octets of another sequence.
        this.find(&layout, &[4, 3, 2, 1, 0], 0, 0, BLOCK + 2);
        next.find(&layout, &[7, 6], 1, 0, 20);
        let mut read: Vec<f32> = Vec::new();
        for (places, octets) in [(&this, 0..8), (&this, 8..9), (&next, 0..3)] {
            read.extend(octets.clone().map(|o| cache.k[places.k[o]]));
            read.extend(octets.map(|o| cache.v[places.v[o * LANES]]));
        }
        let mut asked: Vec<f32> = Vec::new();
        for (base, octets) in [(0, 8), (BLOCK, 1)] {
            let ahead = this.ahead(&next, base, ROW, &cache);
            for data in ahead.keys[..octets].iter().chain(&ahead.values[..octets]) {
                assert!(data.len() == LANES * ROW || data.is_empty());
                asked.extend(data.first());
            }
            assert!(
                ahead.keys[octets..].iter().chain(&ahead.values[octets..]).all(|d| d.is_empty())
            );
        }
        assert_eq!(read.len(), 18 + 6);
        assert_eq!(asked, read[DISTANCE..DISTANCE + 16]);
    }
}
