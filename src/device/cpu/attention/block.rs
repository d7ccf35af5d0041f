//! The arithmetic of attention over one block of positions, for a tile of query rows.
//!
//! Each number depends only on its own query row and the block: rows of a tile never mix, a score
//! is summed column by column, and sums over positions start at the block's first position. So a
//! row's result has the same bits whatever tile it is computed in, and however keys are paged.

use super::{BLOCK, OCTETS};
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
pub struct Block<'a> {
    /// Octet `o`'s keys, `[width, 8]`, begin at `k_at[o]`.
    pub k: &'a [f32],
    pub k_at: &'a [usize; OCTETS],
    /// Position `j`'s values begin at `v_at[j]`.
    pub v: &'a [f32],
    pub v_at: &'a [usize; BLOCK],
    pub width: usize,
    /// Octets of keys of the block that comes next, where few rows use a block and memory is what
    /// they wait for: they are asked for while values are weighed, and this block's values while
    /// keys are multiplied. Pages lie apart, so that the hardware does not see what comes.
    pub ahead: Option<&'a [usize]>,
}

impl Block<'_> {
    /// Asks for line `line` (64 bytes) of the values of the positions from `first` on, below `end`.
    #[inline(always)]
    fn ask_value<S: Lanes>(&self, first: usize, end: usize, line: usize) {
        let lines = self.width / (2 * LANES);
        let position = first + line / lines;
        if position < end {
            ask::<S>(self.v, self.v_at[position] + line % lines * 2 * LANES);
        }
    }

    /// Asks for line `line` of the next block's keys.
    #[inline(always)]
    fn ask_key<S: Lanes>(&self, ahead: &[usize], line: usize) {
        let lines = self.width / 2;
        if let Some(at) = ahead.get(line / lines) {
            ask::<S>(self.k, at + line % lines * 2 * LANES);
        }
    }
}

/// Asks for the cache line of the numbers from `at` on.
#[inline(always)]
fn ask<S: Lanes>(data: &[f32], at: usize) {
    if let Some(numbers) = data.get(at..).and_then(|data| data.first_chunk()) {
        S::prefetch(numbers);
    }
}

simd_fn! {
    /// Online softmax over one block (Milakov and Gimelshein, arXiv:1805.02867; Dao et al.,
    /// FlashAttention, arXiv:2205.14135). `q` and `acc` are `[rows.len(), width]`, `scores`
    /// `[rows.len(), BLOCK]` scratch.
    pub fn attend_block<S>(
        q: &[f32],
        block: &Block,
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
            // The first rows ask for the values of all.
            let end = if r == 0 && block.ahead.is_some() { high } else { 0 };
            r += match rows.len() - r {
                1 => dots::<S, 1>(q, r, block, octets, scores, end),
                2 => dots::<S, 2>(q, r, block, octets, scores, end),
                3 | 5 => dots::<S, 3>(q, r, block, octets, scores, end),
                4 => dots::<S, 4>(q, r, block, octets, scores, end),
                _ => dots::<S, 6>(q, r, block, octets, scores, end),
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
                1 => weigh::<S, 1, 8>(block, scores, r, (low, high), acc),
                2 | 4 => weigh::<S, 2, 4>(block, scores, r, (low, high), acc),
                _ => weigh::<S, 3, 4>(block, scores, r, (low, high), acc),
            };
        }
    }
}

/// Scores of `R` query rows from `r` with the positions of octets `first .. end`, two octets at a
/// time; says `R`. Meanwhile values of positions below `ask` are asked for.
#[inline(always)]
fn dots<S: Lanes, const R: usize>(
    q: &[f32],
    r: usize,
    block: &Block,
    (first, end): (usize, usize),
    scores: &mut [f32],
    ask: usize,
) -> usize {
    let mut octet = first;
    while octet + 2 <= end {
        dot_tile::<S, R, 2>(q, r, block, octet, scores, ask);
        octet += 2;
    }
    if octet < end {
        dot_tile::<S, R, 1>(q, r, block, octet, scores, ask);
    }
    R
}

/// `R` rows times `O` octets: one lane a position, column after column. As many values are asked
/// for as there are keys: half a line a column and octet.
#[inline(always)]
fn dot_tile<S: Lanes, const R: usize, const O: usize>(
    q: &[f32],
    r: usize,
    block: &Block,
    octet: usize,
    scores: &mut [f32],
    ask: usize,
) {
    let width = block.width;
    let query: [&[f32]; R] = std::array::from_fn(|i| &q[(r + i) * width..][..width]);
    let keys: [&[[f32; LANES]]; O] =
        std::array::from_fn(|n| vectors(block.k, block.k_at[octet + n], width * LANES));
    let mut sums = [[S::splat(0.0); O]; R];
    for c in 0..width {
        if ask > 0 && (c * O).is_multiple_of(2) {
            block.ask_value::<S>(octet * LANES, ask, c * O / 2);
        }
        let key: [S; O] = std::array::from_fn(|n| S::load(&keys[n][c]));
        for i in 0..R {
            let x = S::splat(query[i][c]);
            for n in 0..O {
                sums[i][n] = x.fma(key[n], sums[i][n]);
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
fn vectors(data: &[f32], offset: usize, len: usize) -> &[[f32; LANES]] {
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
fn weigh<S: Lanes, const R: usize, const V: usize>(
    block: &Block,
    scores: &[f32],
    r: usize,
    seen: (usize, usize),
    acc: &mut [f32],
) -> usize {
    let count = block.width / LANES;
    let mut c = 0;
    while c + V <= count {
        weigh_columns::<S, R, V>(block, scores, r, seen, acc, c);
        c += V;
    }
    while c < count {
        weigh_columns::<S, R, 1>(block, scores, r, seen, acc, c);
        c += 1;
    }
    R
}

#[inline(always)]
fn weigh_columns<S: Lanes, const R: usize, const V: usize>(
    block: &Block,
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
    // The first rows ask, in each pass for its share: as many keys as there are values.
    let ahead = if r == 0 { block.ahead.unwrap_or_default() } else { &[] };
    let first_line = c / V * BLOCK * V / 2;
    for j in low..high {
        if !ahead.is_empty() {
            let line = first_line + j * V / 2;
            (line..line + V.div_ceil(2)).for_each(|line| block.ask_key::<S>(ahead, line));
        }
        let row = vectors(block.v, block.v_at[j] + c * LANES, V * LANES);
        let weights: [S; R] = std::array::from_fn(|i| S::splat(lines[i][j]));
        for n in 0..V {
            let value = S::load(&row[n]);
            for i in 0..R {
                sums[i][n] = weights[i].fma(value, sums[i][n]);
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
