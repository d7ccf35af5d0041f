//! Launches of one kernel on the PTX machine, scaled to the whole shape.

use pacer::device::Span;
use pacer::device::gpu::abi;
use pacer::device::gpu::choose::attention::{Heads, max_splits};
use pacer::device::gpu::choose::gemm::{Product, choose, rank};
use pacer::device::gpu::choose::{Card, Geometry, Half};
use pacer::device::gpu::registry;

use crate::work::{self, Bench, Load, Row, row};

/// The card with wgmma allowed.
const H100: Card = Card { wgmma_is_exact: true, ..Card::H100 };
/// Attention of Llama-3.1-8B, and of Llama-3.2-1B.
pub const HEADS: Heads = Heads { half: Half::Bf16, heads: 32, kv_heads: 8, head_dim: 128 };
pub const SMALL_HEADS: Heads = Heads { head_dim: 64, ..HEADS };
const PAGE: usize = 16;

/// A product on one tile of columns, scaled: the chosen tile, or the best of an instruction.
pub fn gemm(name: &str, (m, n, k, gated): (usize, usize, usize, bool), wgmma: Option<bool>) -> Row {
    let p = Product { half: Half::Bf16, m, n, k, gated };
    let choice = match wgmma {
        None => choose(&p, &H100).expect("sizes"),
        Some(on) => {
            let ranked = rank(&p, &H100).expect("sizes");
            ranked.into_iter().find(|c| c.tile.wgmma == on).expect("a legal tile")
        }
    };
    let tile = choice.tile;
    let (rows, columns) = (tile.rows as usize, tile.columns as usize);
    // One tile of rows (a cluster's for wgmma) and of columns.
    let m = p.m.min(tile.cluster as usize * rows);
    let rows_w = if p.gated { 2 * columns } else { columns };
    let mut bench = Bench::default();
    let (x, w) = (bench.halves(m * p.k), bench.halves(rows_w * p.k));
    let y = bench.alloc(m * columns * 2);
    let gemm = abi::GemmParams {
        x,
        w,
        y,
        m: m as u32,
        n: columns as u32,
        k: p.k as u32,
        x_stride: p.k as u32,
        y_stride: columns as u32,
        ..Default::default()
    };
    let grid = [tile.cluster, 1, 1];
    let report = if tile.wgmma {
        let (x_map, w_map) = (work::map(x, m, p.k, 128), work::map(w, rows_w, p.k, 64));
        let params = abi::WgmmaGemmParams { x_map, w_map, gemm, reserved: [0; 14] };
        bench.launch(&choice.symbol, grid, &params)
    } else {
        bench.launch(&choice.symbol, grid, &gemm)
    };
    let tiles = p.m.div_ceil(m) * p.n.div_ceil(columns);
    let all_w = p.n * if p.gated { 2 } else { 1 };
    let stages = choice.geometry.shared as usize / ((rows + rows_w) * 128);
    let load = Load {
        scale: tiles as f64,
        blocks: choice.geometry.grid[0].into(),
        unique: 2.0 * (all_w * p.k + p.m * p.k + p.m * p.n) as f64,
        flops: 2.0 * (all_w * p.k * p.m) as f64,
        in_flight: ((stages - 1) * (rows + rows_w) * 128) as f64,
    };
    row(name, &choice.symbol, choice.geometry, &report, &load)
}

/// One sequence and one kv head.
fn params(bench: &mut Bench, heads: Heads, len: usize, past: usize) -> abi::AttentionParams {
    let (context, width) = (len + past, heads.group() * heads.head_dim);
    let pages: Vec<u32> = (0..context.div_ceil(PAGE) as u32).collect();
    let cache = pages.len() * PAGE * heads.head_dim;
    abi::AttentionParams {
        q: bench.halves(len * width),
        k: bench.halves(cache),
        v: bench.halves(cache),
        out: bench.alloc(len * width * 2),
        spans: bench.words(&[0, len as u32, past as u32, 0]),
        pages: bench.words(&pages),
        q_stride: width as u32,
        out_stride: width as u32,
        kv_heads: 1,
        group: heads.group() as u32,
        page_size: PAGE as u32,
        scale: 0.09,
        span_tiles: 1,
        max_splits: max_splits(context) as u32,
        ..Default::default()
    }
}

/// Bytes once, and two products of every pair that is seen.
fn load(of: Heads, spans: usize, len: usize, past: usize) -> Load {
    let (heads, dim) = (of.kv_heads, of.head_dim);
    let pairs: usize = (0..len).map(|t| past + t + 1).sum();
    let bytes = (len + past) * dim * 4 + len * of.group() * dim * 4;
    Load {
        scale: 0.0,
        blocks: 0,
        unique: (spans * heads * bytes) as f64,
        flops: (spans * heads * pairs * 4 * dim * of.group()) as f64,
        in_flight: 0.0,
    }
}

pub fn attention_decode(name: &str, heads: Heads, spans: usize, past: usize) -> Row {
    let mut bench = Bench::default();
    let mut params = params(&mut bench, heads, 1, past);
    let choice = heads.decode(spans, 1, past + 1, &H100).expect("a kernel");
    params.partial = bench.alloc(heads.partial_bytes(1, 1, past + 1));
    params.counters = bench.words(&[0]);
    let g = choice.geometry.grid;
    let report = bench.launch(&choice.symbol, [1, 1, g[2]], &params);
    let load = Load {
        scale: (spans * heads.kv_heads) as f64,
        blocks: u64::from(g[0]) * u64::from(g[1]) * u64::from(g[2]),
        in_flight: 5.0 * 128.0 * heads.head_dim as f64,
        ..load(heads, spans, 1, past)
    };
    row(name, &choice.symbol, choice.geometry, &report, &load)
}

/// The tile in the middle of the prompt, whose depth is the mean of all.
pub fn attention_prefill(name: &str, len: usize, wgmma: bool) -> Row {
    let mut bench = Bench::default();
    let mut attention = params(&mut bench, HEADS, len, 0);
    let tiles = HEADS.prefill_tiles(&[Span { start: 0, len, past: 0, pages_start: 0 }]);
    let middle = tiles[tiles.len() / 2];
    attention.tiles = bench.words(&[middle.span, middle.row]);
    let (choice, report) = if wgmma {
        let choice = HEADS.prefill_wgmma(tiles.len(), &H100).expect("a kernel");
        let slots = len.next_multiple_of(PAGE);
        let (k_map, v_map) = (attention.k, attention.v);
        let map = |address| work::map(address, slots, HEADS.head_dim, 8);
        let (k_map, v_map) = (map(k_map), map(v_map));
        let params = abi::WgmmaAttentionParams { k_map, v_map, attention, reserved: [0; 4] };
        let ran = bench.launch(&choice.symbol, [1, 1, 1], &params);
        (choice, ran)
    } else {
        let choice = HEADS.prefill(tiles.len(), &H100).expect("a kernel");
        let ran = bench.launch(&choice.symbol, [1, 1, 1], &attention);
        (choice, ran)
    };
    let copies = tiles.len() * HEADS.kv_heads;
    let load = Load {
        scale: copies as f64,
        blocks: copies as u64,
        in_flight: 3.0 * 16384.0,
        ..load(HEADS, 1, len, 0)
    };
    row(name, &choice.symbol, choice.geometry, &report, &load)
}

/// A kernel that goes over rows: `launched` is what the PTX machine runs, all of it.
pub fn rows<P: Copy>(
    name: &str,
    symbol: &str,
    (grid, block): ([u32; 3], u32),
    bytes: usize,
    make: impl FnOnce(&mut Bench) -> P,
) -> Row {
    let (_, kernel) = registry::kernel(symbol).expect("a kernel");
    let geometry = Geometry { grid, block, shared: kernel.shared, cluster: 1, early: false };
    let mut bench = Bench::default();
    let params = make(&mut bench);
    let report = bench.launch_block(symbol, grid, block, &params);
    let load = Load {
        scale: 1.0,
        blocks: grid.iter().map(|g| u64::from(*g)).product(),
        unique: bytes as f64,
        flops: 0.0,
        in_flight: f64::from(block) * 16.0,
    };
    row(name, symbol, geometry, &report, &load)
}
