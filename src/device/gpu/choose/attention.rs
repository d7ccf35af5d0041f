//! Attention: which kernel serves a span, and on what grid.
//!
//! Both kernels give the same bits (cuda/attention.cuh), so the choice is about speed alone.

use super::{Card, Geometry, Half};
use crate::device::Span;
use crate::device::gpu::abi::AttentionTile;
use crate::device::gpu::registry;
use crate::error::{Error, Result};

/// Head sizes that kernels exist for.
pub const HEAD_DIMS: [usize; 8] = [16, 24, 32, 64, 80, 96, 128, 256];
/// Those of them that wgmma's kernel exists for.
pub const WGMMA_HEAD_DIMS: [usize; 2] = [64, 128];
/// Rows (token, head of a group) that a decode block serves.
pub const DECODE_ROWS: usize = 16;
/// Tokens of a split of the keys.
pub const SPLIT: usize = 256;

/// The attention of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Heads {
    pub half: Half,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
}

/// A kernel and its grid.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    pub symbol: String,
    pub geometry: Geometry,
}

impl Heads {
    /// Query heads of a kv head.
    pub fn group(&self) -> usize {
        self.heads / self.kv_heads.max(1)
    }

    /// # Errors
    /// No kernel has this head size, or the heads do not divide.
    pub fn check(&self) -> Result<()> {
        let Heads { heads, kv_heads, head_dim, .. } = *self;
        if !HEAD_DIMS.contains(&head_dim) {
            return Err(Error::unsupported(format!(
                "head_dim {head_dim} on the GPU; kernels exist for {HEAD_DIMS:?}"
            )));
        }
        if kv_heads == 0 || heads % kv_heads != 0 {
            return Err(Error::unsupported(format!(
                "{heads} attention heads over {kv_heads} key-value heads: not a multiple"
            )));
        }
        Ok(())
    }

    /// Whether a span of `len` new tokens goes to the decode kernel: it fits one of its blocks.
    pub fn decodes(&self, len: usize) -> bool {
        len * self.group() <= DECODE_ROWS.max(self.group())
    }

    /// Blocks along x that share a decode span of `longest` tokens
    /// (`AttentionParams::span_tiles`).
    pub fn span_tiles(&self, longest: usize) -> usize {
        (longest * self.group()).div_ceil(DECODE_ROWS).max(1)
    }

    /// Blocks along x that any span which [`decodes`](Heads::decodes) takes at most.
    pub fn decode_tiles(&self) -> usize {
        self.span_tiles(1)
    }

    /// Splits over all decode spans that partial results are kept for: all that `sequences` of
    /// `context` tokens could have, but no more than twice those of a cache of `tokens`, where
    /// tokens that sequences share count once. Spans beyond go to the prefill kernel.
    pub fn partial_splits(&self, sequences: usize, context: usize, tokens: usize) -> usize {
        let one = max_splits(context);
        (2 * max_splits(tokens) + sequences).max(one).min(sequences * one)
    }

    /// Bytes of partial results of one split of one decode span.
    pub fn split_bytes(&self) -> usize {
        self.decode_tiles() * self.kv_heads * DECODE_ROWS * (self.head_dim + 2) * 4
    }

    /// Bytes of `AttentionParams::partial` for `spans` spans of at most `longest` new tokens and
    /// sequences of at most `context` tokens.
    pub fn partial_bytes(&self, spans: usize, longest: usize, context: usize) -> usize {
        let tiles = spans * self.span_tiles(longest) * self.kv_heads;
        tiles * max_splits(context) * DECODE_ROWS * (self.head_dim + 2) * 4
    }

    /// The decode kernel for `spans` spans of at most `longest` new tokens, none of whose
    /// sequences is longer than `context`.
    ///
    /// # Errors
    /// As [`Heads::check`], or the card has too little shared memory.
    pub fn decode(
        &self,
        spans: usize,
        longest: usize,
        context: usize,
        card: &Card,
    ) -> Result<Choice> {
        self.check()?;
        let symbol = self.symbol("decode");
        self.choice(symbol, self.decode_grid(spans, longest, context, card), card)
    }

    /// The decode kernel's grid. Splits run side by side until the card is full; then blocks take
    /// several each.
    pub fn decode_grid(
        &self,
        spans: usize,
        longest: usize,
        context: usize,
        card: &Card,
    ) -> [usize; 3] {
        let x = (spans * self.span_tiles(longest)).max(1);
        let full = 4 * card.multiprocessors as usize;
        let z = max_splits(context).min(full.div_ceil(x * self.kv_heads)).max(1);
        [x, self.kv_heads, z]
    }

    /// The entry point of the `decode` or `prefill` kernel.
    pub fn symbol(&self, form: &str) -> String {
        format!("sm80_{}_attention_{form}_{}", self.half.name(), self.head_dim)
    }

    /// Rows of a prefill tile.
    pub fn prefill_rows(&self) -> usize {
        if matches!(self.head_dim, 32 | 256) { 64 } else { 128 }
    }

    /// The prefill kernel's tiles for some spans of a batch, the longest work first.
    pub fn prefill_tiles(&self, spans: &[Span]) -> Vec<AttentionTile> {
        let mut tiles = Vec::new();
        for (i, span) in spans.iter().enumerate() {
            let rows = span.len * self.group();
            for row in (0..rows).step_by(self.prefill_rows()) {
                let seen = span.past + row / self.group();
                tiles.push((seen, AttentionTile { span: i as u32, row: row as u32 }));
            }
        }
        tiles.sort_by_key(|(seen, _)| std::cmp::Reverse(*seen));
        tiles.into_iter().map(|(_, tile)| tile).collect()
    }

    /// The prefill kernel for that many tiles.
    ///
    /// # Errors
    /// As [`Heads::decode`].
    pub fn prefill(&self, tiles: usize, card: &Card) -> Result<Choice> {
        self.check()?;
        let symbol = self.symbol("prefill");
        self.choice(symbol, [tiles, self.kv_heads, 1], card)
    }

    /// The prefill kernel of wgmma and TMA, on the same tiles. A candidate only: nothing picks it
    /// before a card was seen to give the same bits as with `mma.sync`.
    ///
    /// # Errors
    /// As [`Heads::prefill`]; the card is no Hopper, or the head size has no such kernel.
    pub fn prefill_wgmma(&self, tiles: usize, card: &Card) -> Result<Choice> {
        self.check()?;
        if card.capability != (9, 0) || !WGMMA_HEAD_DIMS.contains(&self.head_dim) {
            return Err(Error::unsupported(format!(
                "attention by wgmma: head_dim {} on compute capability {}.{}; kernels exist for \
                 {WGMMA_HEAD_DIMS:?} on 9.0",
                self.head_dim, card.capability.0, card.capability.1
            )));
        }
        let (half, dim) = (self.half.name(), self.head_dim);
        let symbol = format!("sm90a_{half}_attention_prefill_wgmma_{dim}");
        self.choice(symbol, [tiles, self.kv_heads, 1], card)
    }

    fn choice(&self, symbol: String, grid: [usize; 3], card: &Card) -> Result<Choice> {
        let (_, kernel) = registry::kernel(&symbol)?;
        if kernel.shared > card.shared_per_block {
            return Err(Error::unsupported(format!(
                "{symbol} needs {} bytes of shared memory a block; this card has {}",
                kernel.shared, card.shared_per_block
            )));
        }
        let grid = grid.map(|n| n as u32);
        let geometry =
            Geometry { grid, block: kernel.block, shared: kernel.shared, cluster: 1, early: false };
        Ok(Choice { symbol, geometry })
    }
}

/// Splits of the longest sequence (`AttentionParams::max_splits`).
pub fn max_splits(context: usize) -> usize {
    context.div_ceil(SPLIT).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LLAMA: Heads = Heads { half: Half::Bf16, heads: 32, kv_heads: 8, head_dim: 128 };

    #[test]
    fn every_head_size_has_both_kernels() {
        for half in Half::ALL {
            for head_dim in HEAD_DIMS {
                let heads = Heads { half, head_dim, ..LLAMA };
                heads.decode(1, 1, 4096, &Card::A100).unwrap();
                heads.prefill(1, &Card::A100).unwrap();
            }
        }
        assert!(Heads { head_dim: 72, ..LLAMA }.check().is_err());
        assert!(Heads { kv_heads: 5, ..LLAMA }.check().is_err());
    }

    #[test]
    fn decode_fills_the_card_and_no_more() {
        let one = LLAMA.decode(1, 1, 4096, &Card::H100).unwrap();
        assert_eq!(one.geometry.grid, [1, 8, 16]);
        let many = LLAMA.decode(128, 1, 4096, &Card::H100).unwrap();
        assert_eq!(many.geometry.grid, [128, 8, 1]);
        assert!(LLAMA.decodes(4) && !LLAMA.decodes(5));
        let wide = Heads { kv_heads: 1, ..LLAMA };
        assert!(wide.decodes(1) && wide.span_tiles(1) == 2);
        assert_eq!(LLAMA.partial_bytes(1, 1, 4096), 8 * 16 * 16 * 130 * 4);
    }

    #[test]
    fn partial_results_grow_with_the_cache_and_not_with_context_times_sequences() {
        // 4 sequences of 1,024 tokens: all of their splits.
        assert_eq!(LLAMA.partial_splits(4, 1024, 1 << 17), 16);
        // 128 sequences of up to 131,072 tokens over a cache of 400,000.
        assert_eq!(LLAMA.partial_splits(128, 1 << 17, 400_000), 2 * 1563 + 128);
        assert!(LLAMA.partial_splits(128, 1 << 17, 400_000) * LLAMA.split_bytes() < 256 << 20);
        // One sequence may always take the context.
        assert_eq!(LLAMA.partial_splits(1, 1 << 17, 1 << 10), 512);
    }

    #[test]
    fn prefill_tiles_cover_each_row_once_and_start_with_the_longest() {
        let span = |len, past| Span { start: 0, len, past, pages_start: 0 };
        let tiles = LLAMA.prefill_tiles(&[span(100, 0), span(33, 1000)]);
        assert_eq!(tiles.len(), (100 * 4usize).div_ceil(128) + (33 * 4usize).div_ceil(128));
        assert_eq!((tiles[0].span, tiles[0].row), (1, 128));
        assert_eq!((tiles[tiles.len() - 1].span, tiles[tiles.len() - 1].row), (0, 0));
    }
}
