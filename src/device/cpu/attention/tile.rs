//! One unit of attention: a tile of tokens of one sequence, with one KV head.

use std::ops::Range;

use super::block::{Ahead, Block, RowState, Scores, attend_block, merge};
use super::places::Places;
use super::{Attention, BLOCK, OCTETS, SPLIT};
use crate::device::cpu::kv_cache::{Element, KeySpace, LayerCache, Layout};
use crate::device::cpu::numbers::Numbers;
use crate::device::cpu::parallel::{Columns, Shared};
use crate::device::cpu::simd::{Isa, LANES};
use crate::device::{Batch, Span};

/// Everything that units read.
pub struct Job<'a, E> {
    pub op: &'a Attention,
    pub isa: Isa,
    pub batch: &'a Batch<'a>,
    pub layout: Layout,
    pub cache: &'a LayerCache<E>,
    pub q: &'a [f32],
    pub q_columns: Columns,
    /// Tokens of a tile.
    pub tile: usize,
    /// The first tile of each sequence.
    pub starts: &'a [usize],
    /// Do few queries wait for memory, and are octets worth asking for?
    pub waits: bool,
}

/// One thread's scratch for a block of positions.
pub struct BlockSpace {
    /// `[rows, BLOCK]`
    pub scores: Numbers,
    /// `[OCTETS, row, 8]` where the cache has keys by rows, else empty.
    pub keys: KeySpace,
}

/// What all units write, each its own rows and columns.
pub struct Output<'a> {
    pub data: Shared<'a, f32>,
    pub columns: Columns,
}

/// Tokens `tokens` (positions in the sequence) of `span`, with the heads of `kv_head`'s group.
#[derive(Debug, Clone)]
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

impl<E: Element> Job<'_, E> {
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

    /// Query rows of the unit.
    pub fn rows(&self, unit: &Unit) -> usize {
        unit.tokens.len() * self.op.group()
    }

    /// Copies the unit's queries to `[rows, row]`, padded with zeros.
    pub fn load_queries(&self, unit: &Unit, to: &mut [f32]) {
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
    }

    /// The positions of `split` that the unit reads: from the beginning of a block.
    fn read(&self, unit: &Unit, split: usize) -> Range<usize> {
        let seen = self.seen(unit);
        let first = (split * SPLIT).max(seen.start / BLOCK * BLOCK);
        first..((split + 1) * SPLIT).min(seen.end)
    }

    /// Finds what [`Job::run_split`] reads.
    pub fn find(&self, unit: &Unit, split: usize, places: &mut Places) {
        let read = self.read(unit, split);
        let pages = &self.batch.pages[unit.span.pages_start..];
        places.find(&self.layout, pages, unit.kv_head, read.start, read.len());
    }

    /// Attends to the positions of one split, beginning afresh. `places` are found, and so is what
    /// comes `next`, if it is worth asking for.
    pub fn run_split(
        &self,
        (unit, split): (&Unit, usize),
        (places, next): (&Places, Option<&Places>),
        q: &[f32],
        space: &mut BlockSpace,
        rows: &mut [RowState],
        acc: &mut [f32],
    ) {
        rows.fill(RowState::EMPTY);
        acc.fill(0.0);
        let read = self.read(unit, split);
        for base in read.clone().step_by(BLOCK) {
            for (row, position) in rows.chunks_mut(self.op.group()).zip(unit.tokens.clone()) {
                let sees = self.op.sees(position);
                let low = sees.start.clamp(base, base + BLOCK) - base;
                let high = sees.end.clamp(base, base + BLOCK) - base;
                row.iter_mut().for_each(|r| (r.low, r.high) = (low, high));
            }
            let len = (read.end - base).min(BLOCK);
            self.block((places, next), base - read.start, len, q, space, rows, acc);
        }
    }

    /// Attends to the `len` positions from the `base`th of `places` on.
    #[allow(clippy::too_many_arguments)]
    fn block(
        &self,
        (places, next): (&Places, Option<&Places>),
        base: usize,
        len: usize,
        q: &[f32],
        space: &mut BlockSpace,
        rows: &mut [RowState],
        acc: &mut [f32],
    ) {
        let kind = Scores { scale: self.op.scale, softcap: self.op.softcap };
        let (width, v_at) = (self.layout.row, &places.v[base..base + len]);
        let (v, scores) = (&self.cache.v, &mut space.scores);
        if self.layout.octets() {
            let ahead = next.map(|next| places.ahead(next, base, width, self.cache));
            let ahead = &ahead.unwrap_or(Ahead::NOTHING);
            let (k, k_at) = (&self.cache.k, &places.k[base / LANES..]);
            let block = Block { k, k_at, v, v_at, width, ahead };
            attend_block(self.isa, q, &block, kind, rows, scores, acc);
        } else {
            let k = E::space(&mut space.keys);
            let k_at: [usize; OCTETS] = std::array::from_fn(|octet| octet * LANES * width);
            for (i, from) in v_at.iter().enumerate() {
                // Keys lie as values do.
                let to = &mut k[i / LANES * LANES * width + i % LANES..];
                let from = &self.cache.k[*from..*from + width];
                to.iter_mut().step_by(LANES).zip(from).for_each(|(to, x)| *to = *x);
            }
            let block = Block { k, k_at: &k_at, v, v_at, width, ahead: &Ahead::NOTHING };
            attend_block(self.isa, q, &block, kind, rows, scores, acc);
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
