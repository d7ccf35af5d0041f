//! One unit of attention: a tile of tokens of one sequence, with one KV head.

use std::ops::Range;

use super::block::{Block, RowState, Scores, attend_block, merge};
use super::{Attention, BLOCK, OCTETS, SPLIT};
use crate::device::cpu::kv_cache::{LayerCache, Layout};
use crate::device::cpu::numbers::Numbers;
use crate::device::cpu::parallel::{Columns, Shared};
use crate::device::cpu::simd::{Isa, LANES};
use crate::device::{Batch, Span};

/// Everything that units read.
pub struct Job<'a> {
    pub op: &'a Attention,
    pub isa: Isa,
    pub batch: &'a Batch<'a>,
    pub layout: Layout,
    pub cache: &'a LayerCache,
    pub q: &'a [f32],
    pub q_columns: Columns,
    /// Tokens of a tile.
    pub tile: usize,
    /// The first tile of each sequence.
    pub starts: &'a [usize],
}

/// One thread's scratch for a block of positions.
pub struct BlockSpace {
    /// `[rows, BLOCK]`
    pub scores: Numbers,
    /// `[OCTETS, row, 8]` where the cache has keys by rows, else empty.
    pub keys: Numbers,
}

/// What all units write, each its own rows and columns.
pub struct Output<'a> {
    pub data: Shared<'a, f32>,
    pub columns: Columns,
}

/// Tokens `tokens` (positions in the sequence) of `span`, with the heads of `kv_head`'s group.
pub struct Unit {
    span: Span,
    tokens: Range<usize>,
    kv_head: usize,
}

impl Unit {
    /// The row of the token at `position` in the step's buffers.
    fn row(&self, position: usize) -> usize {
        self.span.start + position - self.span.past
    }
}

impl Job<'_> {
    /// Unit `index`: KV heads fastest, then the tiles of each sequence.
    pub fn unit(&self, index: usize) -> Unit {
        let (tile, kv_head) = (index / self.op.kv_heads, index % self.op.kv_heads);
        let sequence = self.starts.partition_point(|start| *start <= tile) - 1;
        let span = self.batch.spans[sequence];
        let first = span.past + (tile - self.starts[sequence]) * self.tile;
        let last = (first + self.tile).min(span.past + span.len);
        Unit { span, tokens: first..last, kv_head }
    }

    /// Positions that at least one token of the unit sees.
    fn seen(&self, unit: &Unit) -> Range<usize> {
        self.op.sees(unit.tokens.start).start..unit.tokens.end
    }

    /// Splits that hold those positions.
    pub fn splits(&self, unit: &Unit) -> Range<usize> {
        let seen = self.seen(unit);
        seen.start / SPLIT..seen.end.div_ceil(SPLIT)
    }

    /// Copies the unit's queries to `[rows, row]`, padded with zeros; returns the numbers used.
    pub fn load_queries(&self, unit: &Unit, to: &mut [f32]) -> usize {
        let (width, padded) = (self.layout.head_dim, self.layout.row);
        let group = self.op.group();
        for (t, position) in unit.tokens.clone().enumerate() {
            let row = &self.q[self.q_columns.of(unit.row(position))];
            for g in 0..group {
                let head = unit.kv_head * group + g;
                let line = &mut to[(t * group + g) * padded..][..padded];
                line[..width].copy_from_slice(&row[head * width..(head + 1) * width]);
                line[width..].fill(0.0);
            }
        }
        unit.tokens.len() * group * padded
    }

    /// Attends to the positions of one split, beginning afresh.
    pub fn run_split(
        &self,
        unit: &Unit,
        split: usize,
        q: &[f32],
        space: &mut BlockSpace,
        rows: &mut [RowState],
        acc: &mut [f32],
    ) {
        rows.fill(RowState::EMPTY);
        acc.fill(0.0);
        let kind = Scores { scale: self.op.scale, softcap: self.op.softcap };
        let seen = self.seen(unit);
        let first = (split * SPLIT).max(seen.start / BLOCK * BLOCK);
        let end = ((split + 1) * SPLIT).min(seen.end);
        // Where this block's and the next one's keys and values are.
        let mut places = [([0; OCTETS], [0; BLOCK]); 2];
        self.find(unit, first..end.min(first + BLOCK), &mut places[0]);
        for base in (first..end).step_by(BLOCK) {
            let next = base + BLOCK;
            self.find(unit, next..end.min(next + BLOCK), &mut places[1]);
            let k = if self.layout.octets() {
                &self.cache.k
            } else {
                let positions = base..end.min(next);
                self.transpose_keys(unit, positions, &mut places[0].0, &mut space.keys);
                &space.keys
            };
            for (row, position) in rows.chunks_mut(self.op.group()).zip(unit.tokens.clone()) {
                let sees = self.op.sees(position);
                let low = sees.start.clamp(base, base + BLOCK) - base;
                let high = sees.end.clamp(base, base + BLOCK) - base;
                row.iter_mut().for_each(|r| (r.low, r.high) = (low, high));
            }
            let [(k_at, v_at), (next_k, _)] = &places;
            let few = unit.tokens.len() == 1 && self.layout.octets();
            let coming = end.saturating_sub(next).min(BLOCK).div_ceil(LANES);
            let ahead = few.then_some(&next_k[..coming]);
            let (v, width) = (&self.cache.v, self.layout.row);
            let block = Block { k, k_at, v, v_at, width, ahead };
            attend_block(self.isa, q, &block, kind, rows, &mut space.scores, acc);
            places[0] = places[1];
        }
    }

    /// Where the keys, if they lie in octets, and values of a block's positions begin.
    fn find(
        &self,
        unit: &Unit,
        positions: Range<usize>,
        (k_at, v_at): &mut ([usize; OCTETS], [usize; BLOCK]),
    ) {
        let (size, octets) = (self.layout.page_size, self.layout.octets());
        let pages = &self.batch.pages[unit.span.pages_start..];
        // One division a block, not one a position.
        let (mut index, mut slot) = (positions.start / size, positions.start % size);
        for (i, v_at) in v_at[..positions.len()].iter_mut().enumerate() {
            let page = pages[index] as usize;
            *v_at = self.layout.offset(page, unit.kv_head, slot);
            if octets && i.is_multiple_of(LANES) {
                // An octet does not cross pages, and a block begins with one.
                (k_at[i / LANES], _) = self.layout.key(page, unit.kv_head, slot);
            }
            slot += 1;
            if slot == size {
                (index, slot) = (index + 1, 0);
            }
        }
    }

    /// Page and slot of a position of the unit's sequence.
    fn place(&self, unit: &Unit, position: usize) -> (usize, usize) {
        let size = self.layout.page_size;
        (self.batch.pages[unit.span.pages_start + position / size] as usize, position % size)
    }

    /// Copies the keys of `positions`, which the cache has by rows, into octets.
    fn transpose_keys(
        &self,
        unit: &Unit,
        positions: Range<usize>,
        at: &mut [usize],
        keys: &mut [f32],
    ) {
        let width = self.layout.row;
        at.iter_mut().enumerate().for_each(|(octet, at)| *at = octet * LANES * width);
        for (i, position) in positions.enumerate() {
            let (page, slot) = self.place(unit, position);
            let from = &self.cache.k[self.layout.offset(page, unit.kv_head, slot)..][..width];
            let to = &mut keys[i / LANES * LANES * width + i % LANES..];
            to.iter_mut().step_by(LANES).zip(from).for_each(|(to, x)| *to = *x);
        }
    }

    /// Merges a split's rows into those before it.
    pub fn merge(&self, whole: &mut [RowState], acc: &mut [f32], part: &[RowState], more: &[f32]) {
        let width = self.layout.row;
        for (r, (whole, part)) in whole.iter_mut().zip(part).enumerate() {
            let columns = r * width..(r + 1) * width;
            merge(self.isa, whole, &mut acc[columns.clone()], *part, &more[columns]);
        }
    }

    /// Divides by the sums and writes the unit's part of the output.
    pub fn finish(&self, unit: &Unit, rows: &[RowState], acc: &[f32], out: &Output) {
        let (width, padded, group) = (self.layout.head_dim, self.layout.row, self.op.group());
        for (r, state) in rows.iter().enumerate() {
            let row = unit.row(unit.tokens.start + r / group);
            let first = out.columns.of(row).start + (unit.kv_head * group + r % group) * width;
            // SAFETY: every head of every row belongs to one unit.
            let to = unsafe { out.data.part(first..first + width) };
            let share = 1.0 / state.sum;
            for (to, x) in to.iter_mut().zip(&acc[r * padded..]) {
                *to = x * share;
            }
        }
    }
}
