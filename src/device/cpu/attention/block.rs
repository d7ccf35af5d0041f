//! The arithmetic of attention over one block of positions, for a tile of query rows.
//!
//! Each number depends only on its own query row and the block: rows of a tile never mix, a score
//! is summed column by column, and sums over positions start at the block's first position. So a
//! row's result has the same bits whatever tile it is computed in, and however keys are paged.

use super::{BLOCK, OCTETS};
use crate::device::cpu::kv_cache::Element;
use crate::device::cpu::numbers::LINE;
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

/// Keys and values of one block of positions.
#[derive(Debug, Clone, Copy)]
pub struct Block<'a, E> {
    /// Octet `o`'s keys, `[width, 8]`, begin at `k_at[o]`.
    pub k: &'a [E],
    pub k_at: &'a [usize],
    /// Position `j`'s values begin at `v_at[j]`.
    pub v: &'a [E],
    pub v_at: &'a [usize],
    pub width: usize,
    pub ahead: &'a Ahead<'a, E>,
}

/// What is asked for meanwhile, where few rows use a block and memory is what they wait for:
/// while octet `o`'s keys are multiplied the lines of `keys[o]`, while its values are weighed
/// those of `values[o]`. Pages lie apart, so that the hardware does not see what comes.
#[derive(Debug, Clone, Copy)]
pub struct Ahead<'a, E> {
    pub keys: [&'a [E]; OCTETS],
    pub values: [&'a [E]; OCTETS],
}

impl<E: 'static> Ahead<'_, E> {
    /// Nothing is asked for.
    pub const NOTHING: Ahead<'static, E> = Ahead { keys: [&[]; OCTETS], values: [&[]; OCTETS] };
}

/// Vectors of a cache line.
const fn line_vectors<E>() -> usize {
    LINE / size_of::<[E; LANES]>()
}

/// Asks for the cache line of the numbers from `at` on, if there is one.
#[inline(always)]
fn ask<S: Lanes, E>(data: &[E], at: usize) {
    if let Some(number) = data.get(at) {
        S::prefetch(number);
    }
}

simd_fn! {
    /// Online softmax over one block (Milakov and Gimelshein, arXiv:1805.02867; Dao et al.,
    /// FlashAttention, arXiv:2205.14135). `q` and `acc` are `[rows.len(), width]`, `scores`
    /// `[rows.len(), BLOCK]` scratch.
    pub fn attend_block<S, E: Element>(
        q: &[f32],
        block: &Block<E>,
        kind: Scores,
        rows: &mut [RowState],
        scores: &mut [f32],
        acc: &mut [f32],
    ) {
        let seen = rows.iter().filter(|r| r.low < r.high);
        let low = seen.clone().map(|r| r.low).min().unwrap_or(0);
        let high = seen.map(|r| r.high).max().unwrap_or(0);
        let octets = (low / LANES, high.div_ceil(LANES));
        let mut r = 0;
        while r < rows.len() {
            // As many sums as an FMA takes cycles times the FMAs of a cycle, if registers allow.
            r += match rows.len() - r {
                1 => dots::<S, E, 1, 4>(q, r, block, octets, scores),
                2 => dots::<S, E, 2, 4>(q, r, block, octets, scores),
                3 | 5 => dots::<S, E, 3, 3>(q, r, block, octets, scores),
                4 => dots::<S, E, 4, 2>(q, r, block, octets, scores),
                _ => dots::<S, E, 6, 2>(q, r, block, octets, scores),
            };
        }
        for (r, row) in rows.iter_mut().enumerate() {
            if row.low < row.high {
                let line = &mut scores[r * BLOCK..(r + 1) * BLOCK];
                let shrink = softmax::<S>(line, row, kind);
                scale::<S>(&mut acc[r * block.width..(r + 1) * block.width], shrink);
            }
        }
        let mut r = 0;
        while r < rows.len() {
            let (low, high) = (rows[r].low, rows[r].high);
            let alike = rows[r..].iter().take_while(|b| (b.low, b.high) == (low, high)).count();
            r += match alike {
                1 => weigh::<S, E, 1, 8>(block, scores, r, (low, high), acc),
                2 | 4 => weigh::<S, E, 2, 4>(block, scores, r, (low, high), acc),
                _ => weigh::<S, E, 3, 3>(block, scores, r, (low, high), acc),
            };
        }
    }
}

/// Scores of `R` query rows from `r` with the positions of octets `first .. end`, `O` octets at a
/// time; says `R`.
#[inline(always)]
fn dots<S: Lanes, E: Element, const R: usize, const O: usize>(
    q: &[f32],
    r: usize,
    block: &Block<E>,
    (first, end): (usize, usize),
    scores: &mut [f32],
) -> usize {
    let mut octet = first;
    while octet + O <= end {
        dot_tile::<S, E, R, O>(q, r, block, octet, scores);
        octet += O;
    }
    while octet + 2 <= end {
        dot_tile::<S, E, R, 2>(q, r, block, octet, scores);
        octet += 2;
    }
    if octet < end {
        dot_tile::<S, E, R, 1>(q, r, block, octet, scores);
    }
    R
}

/// `R` rows times `O` octets: one lane a position, column after column.
#[inline(always)]
fn dot_tile<S: Lanes, E: Element, const R: usize, const O: usize>(
    q: &[f32],
    r: usize,
    block: &Block<E>,
    octet: usize,
    scores: &mut [f32],
) {
    let width = block.width;
    let query: [&[f32]; R] = std::array::from_fn(|i| &q[(r + i) * width..][..width]);
    let keys: [&[[E; LANES]]; O] =
        std::array::from_fn(|n| vectors(block.k, block.k_at[octet + n], width * LANES));
    // The first rows ask for all.
    let ahead: [&[E]; O] =
        std::array::from_fn(|n| if r == 0 { block.ahead.keys[octet + n] } else { &[] });
    let mut sums = [[S::splat(0.0); O]; R];
    for first in (0..width).step_by(line_vectors::<E>()) {
        ahead.iter().for_each(|data| ask::<S, E>(data, first * LANES));
        for c in first..first + line_vectors::<E>() {
            let key: [S; O] = std::array::from_fn(|n| E::load(&keys[n][c]));
            for i in 0..R {
                let x = S::splat(query[i][c]);
                for n in 0..O {
                    sums[i][n] = x.fma(key[n], sums[i][n]);
                }
            }
        }
    }
    for (i, line) in sums.iter().enumerate() {
        let start = (r + i) * BLOCK + octet * LANES;
        let (to, _) = scores[start..start + O * LANES].as_chunks_mut::<LANES>();
        line.iter().zip(to).for_each(|(sum, to)| sum.store(to));
    }
}

/// `len` numbers from `offset`, as vectors.
#[inline(always)]
fn vectors<E>(data: &[E], offset: usize, len: usize) -> &[[E; LANES]] {
    data[offset..offset + len].as_chunks::<LANES>().0
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
/// columns at a time; says `R`.
#[inline(always)]
fn weigh<S: Lanes, E: Element, const R: usize, const V: usize>(
    block: &Block<E>,
    scores: &[f32],
    r: usize,
    seen: (usize, usize),
    acc: &mut [f32],
) -> usize {
    let count = block.width / LANES;
    let mut c = 0;
    while c + V <= count && (V == 4 || count - c != 4) {
        weigh_columns::<S, E, R, V>(block, scores, r, seen, acc, c);
        c += V;
    }
    // Two and two, not three and one.
    while c + 2 <= count {
        weigh_columns::<S, E, R, 2>(block, scores, r, seen, acc, c);
        c += 2;
    }
    if c < count {
        weigh_columns::<S, E, R, 1>(block, scores, r, seen, acc, c);
    }
    R
}

#[inline(always)]
fn weigh_columns<S: Lanes, E: Element, const R: usize, const V: usize>(
    block: &Block<E>,
    scores: &[f32],
    r: usize,
    (low, high): (usize, usize),
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
    let v_at = &block.v_at[..high];
    for octet in low / LANES..high.div_ceil(LANES) {
        // The first rows ask, in each pass for its columns.
        let ahead = if r == 0 { block.ahead.values[octet] } else { &[] };
        let first = octet * LANES;
        for j in first.max(low)..high.min(first + LANES) {
            if !ahead.is_empty() {
                let at = (j - first) * width + c * LANES;
                let lines = (0..V).step_by(line_vectors::<E>());
                lines.for_each(|n| ask::<S, E>(ahead, at + n * LANES));
            }
            let row = vectors(block.v, v_at[j] + c * LANES, V * LANES);
            let weights: [S; R] = std::array::from_fn(|i| S::splat(lines[i][j]));
            for n in 0..V {
                let value: S = E::load(&row[n]);
                for i in 0..R {
                    sums[i][n] = weights[i].fma(value, sums[i][n]);
                }
            }
        }
    }
    for (i, line) in sums.iter().enumerate() {
        let start = (r + i) * width + c * LANES;
        let (to, _) = acc[start..start + V * LANES].as_chunks_mut::<LANES>();
        line.iter().zip(to).for_each(|(sum, to)| sum.store(to));
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
