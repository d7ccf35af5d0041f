//! The arithmetic of attention over one block of positions, for a tile of query rows.
//!
//! Each number depends only on its own query row and the block: rows of a tile never mix, sums
//! over a head's columns run lane by lane, and sums over positions start at the block's first
//! position. So a row's result has the same bits whatever tile it is computed in.

use super::BLOCK;
use crate::device::cpu::simd::{LANES, Lanes, math, simd_fn};

/// One query row against one block of positions.
#[derive(Debug, Clone, Copy)]
pub struct RowState {
    /// Largest score so far, -∞ before any.
    pub max: f32,
    /// Sum of `e^(score - max)`.
    pub sum: f32,
    /// Positions of the current block that the row sees.
    pub low: usize,
    pub high: usize,
}

impl RowState {
    /// Before any position.
    pub const EMPTY: RowState = RowState { max: f32::NEG_INFINITY, sum: 0.0, low: 0, high: 0 };

    fn is_empty(&self) -> bool {
        self.sum == 0.0 && self.max == f32::NEG_INFINITY
    }
}

/// Soft cap of scores, and their scale.
#[derive(Debug, Clone, Copy)]
pub struct Scores {
    pub scale: f32,
    pub softcap: Option<f32>,
}

simd_fn! {
    /// Online softmax over one block (Milakov and Gimelshein, arXiv:1805.02867; Dao et al.,
    /// FlashAttention, arXiv:2205.14135). `q` and `acc` are `[rows.len(), width]`, `scores`
    /// `[rows.len(), BLOCK]` scratch; `offsets` says where each position's row begins in k and v.
    pub fn attend_block<S>(
        q: &[f32],
        k: &[f32],
        v: &[f32],
        offsets: &[usize; BLOCK],
        width: usize,
        kind: Scores,
        rows: &mut [RowState],
        scores: &mut [f32],
        acc: &mut [f32],
    ) {
        let low = rows.iter().filter(|r| r.low < r.high).map(|r| r.low).min().unwrap_or(0);
        let high = rows.iter().map(|r| r.high).max().unwrap_or(0);
        let block = Block { k, v, offsets, width };
        let mut r = 0;
        while r + 2 <= rows.len() {
            dots::<S, 2, 4>(q, r, &block, low, high, scores);
            r += 2;
        }
        if r < rows.len() {
            dots::<S, 1, 8>(q, r, &block, low, high, scores);
        }
        for (r, row) in rows.iter_mut().enumerate() {
            if row.low < row.high {
                let line = &mut scores[r * BLOCK..(r + 1) * BLOCK];
                let shrink = softmax::<S>(line, row, kind);
                scale::<S>(&mut acc[r * width..(r + 1) * width], shrink);
            }
        }
        let mut r = 0;
        while r < rows.len() {
            let (low, high) = (rows[r].low, rows[r].high);
            let pair = rows.get(r + 1).is_some_and(|b| (b.low, b.high) == (low, high));
            if pair {
                weigh::<S, 2, 4>(&block, scores, r, low, high, acc);
                r += 2;
            } else {
                weigh::<S, 1, 8>(&block, scores, r, low, high, acc);
                r += 1;
            }
        }
    }
}

/// Where a block's keys and values are.
struct Block<'a> {
    k: &'a [f32],
    v: &'a [f32],
    offsets: &'a [usize; BLOCK],
    width: usize,
}

/// Vectors of one row.
#[inline(always)]
fn vectors(data: &[f32], offset: usize, width: usize) -> &[[f32; LANES]] {
    data[offset..offset + width].as_chunks::<LANES>().0
}

/// Scores of `R` query rows from `r` with positions `low .. high`, `J` at a time; R · J = 8.
#[inline(always)]
fn dots<S: Lanes, const R: usize, const J: usize>(
    q: &[f32],
    r: usize,
    block: &Block,
    low: usize,
    high: usize,
    scores: &mut [f32],
) {
    let width = block.width;
    let query: [&[[f32; LANES]]; R] = std::array::from_fn(|i| vectors(q, (r + i) * width, width));
    let mut j = low;
    while j < high {
        // Past the end the last position is computed again, and not stored.
        let key: [&[[f32; LANES]]; J] =
            std::array::from_fn(|i| vectors(block.k, block.offsets[(j + i).min(high - 1)], width));
        let mut sums = [S::splat(0.0); LANES];
        for c in 0..width / LANES {
            let keys: [S; J] = std::array::from_fn(|i| S::load(&key[i][c]));
            for i in 0..R {
                let part = S::load(&query[i][c]);
                for (n, key) in keys.iter().enumerate() {
                    sums[i * J + n] = part.fma(*key, sums[i * J + n]);
                }
            }
        }
        let mut done = [0.0; LANES];
        S::sums(sums).store(&mut done);
        let count = J.min(high - j);
        for i in 0..R {
            let to = (r + i) * BLOCK + j;
            scores[to..to + count].copy_from_slice(&done[i * J..i * J + count]);
        }
        j += J;
    }
}

/// Turns a row's raw scores into weights `e^(score - max)` and returns what earlier sums shrink
/// by. Positions that the row does not see weigh 0.
#[inline(always)]
fn softmax<S: Lanes>(line: &mut [f32], row: &mut RowState, kind: Scores) -> f32 {
    let first = row.low / LANES * LANES;
    let last = row.high.next_multiple_of(LANES);
    line[first..row.low].fill(f32::NEG_INFINITY);
    line[row.high..last].fill(f32::NEG_INFINITY);
    let (line, _) = line[first..last].as_chunks_mut::<LANES>();
    let mut largest = S::splat(row.max);
    for part in line.iter_mut() {
        let mut score = S::load(part).mul(S::splat(kind.scale));
        if let Some(cap) = kind.softcap {
            let capped = S::splat(cap).mul(math::tanh(score.div(S::splat(cap))));
            // A hidden position stays at -∞.
            score = score.if_below(S::splat(f32::MIN), score, capped);
        }
        score.store(part);
        largest = largest.max(score);
    }
    let max = largest.largest();
    let mut sum = S::splat(0.0);
    for part in line {
        let weight = math::exp(S::load(part).sub(S::splat(max)));
        weight.store(part);
        sum = sum.add(weight);
    }
    let shrink = exp_one::<S>(row.max - max);
    row.sum = row.sum * shrink + sum.sum();
    row.max = max;
    shrink
}

/// `e^x` of one number, by the same formula as everywhere.
#[inline(always)]
fn exp_one<S: Lanes>(x: f32) -> f32 {
    let mut all = [0.0; LANES];
    math::exp(S::splat(x)).store(&mut all);
    all[0]
}

#[inline(always)]
fn scale<S: Lanes>(line: &mut [f32], factor: f32) {
    if factor == 1.0 {
        return;
    }
    for part in line.as_chunks_mut::<LANES>().0 {
        S::load(part).mul(S::splat(factor)).store(part);
    }
}

/// `acc += weights · v` for `R` rows from `r` over positions `low .. high`, `V` vectors of
/// columns at a time; R · V = 8.
#[inline(always)]
fn weigh<S: Lanes, const R: usize, const V: usize>(
    block: &Block,
    scores: &[f32],
    r: usize,
    low: usize,
    high: usize,
    acc: &mut [f32],
) {
    let count = block.width / LANES;
    let mut c = 0;
    while c + V <= count {
        weigh_columns::<S, R, V>(block, scores, r, low, high, acc, c);
        c += V;
    }
    while c < count {
        weigh_columns::<S, R, 1>(block, scores, r, low, high, acc, c);
        c += 1;
    }
}

#[inline(always)]
fn weigh_columns<S: Lanes, const R: usize, const V: usize>(
    block: &Block,
    scores: &[f32],
    r: usize,
    low: usize,
    high: usize,
    acc: &mut [f32],
    c: usize,
) {
    let width = block.width;
    let lines: [&[f32]; R] =
        std::array::from_fn(|i| &scores[(r + i) * BLOCK..(r + i) * BLOCK + high]);
    let mut sums: [[S; V]; R] = std::array::from_fn(|i| {
        let row = vectors(acc, (r + i) * width, width);
        std::array::from_fn(|n| S::load(&row[c + n]))
    });
    for j in low..high {
        let start = block.offsets[j] + c * LANES;
        let row = vectors(block.v, start, V * LANES);
        let values: [S; V] = std::array::from_fn(|n| S::load(&row[n]));
        for i in 0..R {
            let weight = S::splat(lines[i][j]);
            for n in 0..V {
                sums[i][n] = weight.fma(values[n], sums[i][n]);
            }
        }
    }
    for (i, line) in sums.iter().enumerate() {
        let start = (r + i) * width + c * LANES;
        let (to, _) = acc[start..start + V * LANES].as_chunks_mut::<LANES>();
        for (sum, to) in line.iter().zip(to) {
            sum.store(to);
        }
    }
}

simd_fn! {
    /// Merges a finished part (`part`, `more`) into what stands before it (`whole`, `acc`).
    pub fn merge<S>(whole: &mut RowState, acc: &mut [f32], part: RowState, more: &[f32]) {
        if part.is_empty() {
            return;
        }
        if whole.is_empty() {
            *whole = part;
            acc.copy_from_slice(more);
            return;
        }
        let max = if part.max > whole.max { part.max } else { whole.max };
        let (old, new) = (exp_one::<S>(whole.max - max), exp_one::<S>(part.max - max));
        whole.sum = whole.sum * old + part.sum * new;
        whole.max = max;
        let parts = acc.as_chunks_mut::<LANES>().0.iter_mut().zip(more.as_chunks::<LANES>().0);
        for (to, from) in parts {
            let scaled = S::load(from).mul(S::splat(new));
            S::load(to).fma(S::splat(old), scaled).store(to);
        }
    }
}
