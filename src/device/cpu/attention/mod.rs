//! Causal attention over pages.
//!
//! A unit of work is a tile of queries that share a KV head: all heads of its group for a few
//! tokens of one sequence. Keys are walked in blocks of [`BLOCK`] positions with an online
//! softmax, and blocks in splits of [`SPLIT`] positions, each begun afresh and merged in order.
//! Blocks and splits lie at absolute positions, so a token's result depends on its own prefix
//! alone: not on the batch, the chunk it arrives in, its pages, or how many threads work.
//!
//! Long contexts with too few tiles for the threads (decoding a small batch) are cut at splits
//! (Dao et al., Flash-Decoding, 2023): same arithmetic, other threads.

mod block;
mod places;
mod tile;

use std::ops::Range;

use self::block::RowState;
use self::places::Places;
use self::tile::{BlockSpace, Job, Output, Unit};
use super::kv_cache::{Element, KeySpace, KvCache, LayerCache, Layers, Layout};
use super::numbers::Numbers;
use super::parallel::{Columns, Shared};
use super::pool::Pool;
use super::simd::{Isa, LANES};
use crate::device::{Batch, Limits};
use crate::error::{Error, Result};
use crate::model::plan::Op;

/// Positions of a block.
pub const BLOCK: usize = 64;
/// Positions of a split: whole blocks.
pub const SPLIT: usize = 8 * BLOCK;
/// Octets of positions in a block.
const OCTETS: usize = BLOCK / LANES;
/// Query rows (tokens × heads of a group) that a tile aims at: the more, the fewer times keys and
/// values are read; fewer where there would not be enough tiles for the threads.
const TILE_ROWS: [usize; 3] = [48, 24, 12];
/// Tiles for each thread that are enough to share them out evenly.
const TILES_A_THREAD: usize = 6;

/// One attention op.
#[derive(Debug, Clone, Copy)]
pub struct Attention {
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub scale: f32,
    pub softcap: Option<f32>,
    pub window: Option<usize>,
}

impl Attention {
    /// The kind of an attention op, `None` of others.
    pub fn of(op: &Op) -> Option<Self> {
        match *op {
            Op::Attention { heads, kv_heads, head_dim, scale, softcap, window, .. } => {
                Some(Attention { heads, kv_heads, head_dim, scale, softcap, window })
            }
            _ => None,
        }
    }

    /// Query heads that share a KV head.
    fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Tokens of a tile that aims at `rows` query rows.
    fn tile(&self, rows: usize) -> usize {
        (rows / self.group()).max(1)
    }

    /// Query rows of the largest tile.
    fn rows(&self) -> usize {
        self.tile(TILE_ROWS[0]) * self.group()
    }

    /// Tokens of a tile for this batch: the largest that leaves enough work to share. What a
    /// token's result is does not depend on it.
    fn tile_for(&self, batch: &Batch, threads: usize) -> usize {
        let enough = |tile: &usize| {
            let tiles: usize = batch.spans.iter().map(|s| s.len.div_ceil(*tile)).sum();
            threads == 1 || tiles * self.kv_heads >= TILES_A_THREAD * threads
        };
        let tiles = TILE_ROWS.map(|rows| self.tile(rows));
        tiles.into_iter().find(enough).unwrap_or(tiles[2])
    }

    /// Positions that a token at `position` sees.
    fn sees(&self, position: usize) -> Range<usize> {
        let first = self.window.map_or(0, |w| (position + 1).saturating_sub(w));
        first..position + 1
    }
}

/// Scratch for the attention ops of a plan, for every thread and every split.
pub struct Workspace {
    /// Per thread: queries, scores, and two accumulators.
    tiles: Vec<TileScratch>,
    /// `[units, splits, group]` states and accumulators, when units are cut at splits.
    states: Vec<RowState>,
    accs: Numbers,
    /// The first tile of each sequence of the step, counting tiles over all sequences.
    starts: Vec<usize>,
}

struct TileScratch {
    /// Of what is read, `here`, and of what comes next.
    places: Box<[Places; 2]>,
    here: usize,
    /// The item whose first places stand `here` already.
    found: Option<usize>,
    q: Numbers,
    space: BlockSpace,
    part: Numbers,
    whole: Numbers,
    part_rows: Vec<RowState>,
    whole_rows: Vec<RowState>,
}

impl Workspace {
    /// Scratch that is enough for each of `ops` on `threads` threads, with keys and values in
    /// `cache`.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn new(
        ops: &[Attention],
        cache: &KvCache,
        threads: usize,
        limits: &Limits,
    ) -> Result<Self> {
        let row = cache.layout.row;
        let rows = ops.iter().map(Attention::rows).max().unwrap_or(0);
        let group = ops.iter().map(Attention::group).max().unwrap_or(0);
        // Keys in octets, where the cache has them by rows.
        let keys = if cache.layout.octets() { 0 } else { BLOCK * row };
        let numbers = Numbers::zeroed;
        let tile = |_| {
            let keys = KeySpace::zeroed(cache.kind(), keys)?;
            Some(TileScratch {
                places: Box::new([Places::new(), Places::new()]),
                here: 0,
                found: None,
                q: numbers(rows * row)?,
                space: BlockSpace { scores: numbers(rows * BLOCK)?, keys },
                part: numbers(rows * row)?,
                whole: numbers(rows * row)?,
                part_rows: vec![RowState::EMPTY; rows],
                whole_rows: vec![RowState::EMPTY; rows],
            })
        };
        let cut = if threads > 1 { cut_below(threads) } else { 0 };
        let states = cut * limits.context.div_ceil(SPLIT) * group;
        let all = || {
            Some(Workspace {
                tiles: (0..threads).map(tile).collect::<Option<_>>()?,
                states: vec![RowState::EMPTY; states],
                accs: numbers(states.checked_mul(row)?)?,
                starts: Vec::with_capacity(limits.step_sequences + 1),
            })
        };
        all().ok_or_else(|| {
            Error::limit("attention scratch does not fit in memory; lower --context-length")
        })
    }

    pub fn bytes(&self) -> u64 {
        let numbers = |t: &TileScratch| t.q.len() * 3 + t.space.scores.len();
        let tile = |t: &TileScratch| numbers(t) * 4 + t.space.keys.bytes();
        let tiles: usize = self.tiles.iter().map(tile).sum();
        (tiles + self.accs.len() * 4 + self.states.len() * size_of::<RowState>()) as u64
    }
}

/// Units are cut at splits when there are fewer than this.
fn cut_below(threads: usize) -> usize {
    2 * threads
}

/// Queries and output of a step.
pub struct Io<'a> {
    pub q: &'a [f32],
    pub q_columns: Columns,
    pub out: &'a mut [f32],
    pub out_columns: Columns,
}

/// Runs attention op `op` of `layer` over the batch, whose keys and values are in `cache` already.
pub fn attention(
    (pool, isa): (&Pool, Isa),
    op: &Attention,
    batch: &Batch,
    (cache, layer): (&KvCache, usize),
    io: Io,
    space: &mut Workspace,
) {
    match &cache.layers {
        Layers::F32(layers) => {
            attend((pool, isa), op, batch, (cache.layout, &layers[layer]), io, space);
        }
        Layers::F16(layers) => {
            attend((pool, isa), op, batch, (cache.layout, &layers[layer]), io, space);
        }
    }
}

fn attend<E: Element>(
    (pool, isa): (&Pool, Isa),
    op: &Attention,
    batch: &Batch,
    (layout, cache): (Layout, &LayerCache<E>),
    io: Io,
    space: &mut Workspace,
) {
    let Workspace { tiles, states, accs, starts } = space;
    starts.clear();
    let (tile, mut count) = (op.tile_for(batch, pool.threads()), 0);
    for span in batch.spans {
        starts.push(count);
        count += span.len.div_ceil(tile);
    }
    let (q, q_columns) = (io.q, io.q_columns);
    let decode = batch.spans.iter().all(|s| s.len == 1);
    let waits = decode && layout.octets();
    let job = Job { op, isa, batch, layout, cache, q, q_columns, tile, starts, waits };
    let out = Output { data: Shared::new(io.out), columns: io.out_columns };
    let units = count * op.kv_heads;
    let longest = batch.spans.iter().map(|s| s.past + s.len).max().unwrap_or(0);
    if decode && longest > SPLIT && pool.threads() > 1 && units < cut_below(pool.threads()) {
        let states = Shared::new(states);
        let accs = Shared::new(accs);
        cut_at_splits(pool, &job, units, longest.div_ceil(SPLIT), tiles, (states, accs), &out);
    } else {
        whole_units(pool, &job, units, tiles, &out);
    }
}

/// Each unit on one thread, its splits one after another.
fn whole_units<E: Element>(
    pool: &Pool,
    job: &Job<E>,
    units: usize,
    tiles: &mut [TileScratch],
    out: &Output,
) {
    tiles.iter_mut().for_each(|tile| tile.found = None);
    let tiles = Shared::new(tiles);
    let body = |thread: usize, index: usize| {
        // SAFETY: each thread has its own scratch.
        let tile = unsafe { &mut tiles.part(thread..thread + 1)[0] };
        // From the last: the longest first, so that no thread is left with one at the end.
        let next = (index + 1 < units).then(|| job.unit(units - 2 - index));
        whole_unit(job, &job.unit(units - 1 - index), tile.found == Some(index), next, tile, out);
        tile.found = Some(index + 1);
    };
    if job.waits {
        // Neighbours on one thread: it asks for the next one's keys.
        pool.spread(units, &body);
    } else {
        pool.for_each(units, 1, &|thread, range| range.for_each(|index| body(thread, index)));
    }
}

/// One unit. Places are found one split ahead, if `found` this unit's first ones are; so are those
/// of the unit that probably comes `next`.
fn whole_unit<E: Element>(
    job: &Job<E>,
    unit: &Unit,
    found: bool,
    next: Option<Unit>,
    tile: &mut TileScratch,
    out: &Output,
) {
    let (rows, splits) = (job.rows(unit), job.splits(unit));
    let len = rows * job.layout.row;
    job.load_queries(unit, &mut tile.q);
    let (whole_rows, part_rows) = (&mut tile.whole_rows[..rows], &mut tile.part_rows[..rows]);
    let (q, part) = (&tile.q[..len], &mut tile.part[..len]);
    whole_rows.fill(RowState::EMPTY);
    if !found {
        job.find(unit, splits.start, &mut tile.places[tile.here]);
    }
    for split in splits.clone() {
        let coming = &mut tile.places[1 - tile.here];
        match &next {
            _ if split + 1 < splits.end => job.find(unit, split + 1, coming),
            Some(next) => job.find(next, job.splits(next).start, coming),
            None => coming.clear(),
        }
        let ahead = job.waits.then_some(&tile.places[1 - tile.here]);
        let places = (&tile.places[tile.here], ahead);
        job.run_split((unit, split), places, q, &mut tile.space, part_rows, part);
        job.merge(whole_rows, &mut tile.whole[..len], part_rows, part);
        tile.here = 1 - tile.here;
    }
    job.finish(unit, whole_rows, &tile.whole[..len], out);
}

/// Each split of each unit on one thread, then the merges in order.
fn cut_at_splits<E: Element>(
    pool: &Pool,
    job: &Job<E>,
    units: usize,
    splits: usize,
    tiles: &mut [TileScratch],
    (states, accs): (Shared<RowState>, Shared<f32>),
    out: &Output,
) {
    let (rows, len) = (job.op.group(), job.op.group() * job.layout.row);
    let tiles = Shared::new(tiles);
    pool.for_each(units * splits, 1, &|thread, range| {
        // SAFETY: each thread has its own scratch.
        let tile = unsafe { &mut tiles.part(thread..thread + 1)[0] };
        for index in range {
            let (unit, split) = (job.unit(index / splits), index % splits);
            if job.splits(&unit).contains(&split) {
                job.load_queries(&unit, &mut tile.q);
                let [places, next] = &mut *tile.places;
                job.find(&unit, split, places);
                next.clear();
                let places = (&*places, job.waits.then_some(&*next));
                // SAFETY: each index has its own part.
                let part_rows = unsafe { states.part(index * rows..(index + 1) * rows) };
                // SAFETY: as above.
                let part = unsafe { accs.part(index * len..(index + 1) * len) };
                let q = &tile.q[..len];
                job.run_split((&unit, split), places, q, &mut tile.space, part_rows, part);
            }
        }
    });
    pool.for_each(units, 1, &|thread, range| {
        // SAFETY: each thread has its own scratch.
        let tile = unsafe { &mut tiles.part(thread..thread + 1)[0] };
        for index in range {
            let unit = job.unit(index);
            let whole_rows = &mut tile.whole_rows[..rows];
            whole_rows.fill(RowState::EMPTY);
            for split in job.splits(&unit) {
                let at = index * splits + split;
                // SAFETY: each unit's parts are read by one thread, after all were written.
                let part_rows = unsafe { states.part(at * rows..(at + 1) * rows) };
                // SAFETY: as above.
                let part = unsafe { accs.part(at * len..(at + 1) * len) };
                job.merge(whole_rows, &mut tile.whole[..len], part_rows, part);
            }
            job.finish(&unit, whole_rows, &tile.whole[..len], out);
        }
    });
}
