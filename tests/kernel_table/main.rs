//! The heavy kernels on an H100, projected: counters of the PTX machine through its time model.
//!
//! `cargo test --test kernel_table -- --ignored --nocapture` prints the table of bench/README.md.
//! A kernel is run on a few tiles of the real depth and its counters are scaled to the whole grid;
//! nothing here was measured on a card.

mod work;

use pacer::device::Span;
use pacer::device::gpu::abi;
use pacer::device::gpu::choose::attention::{Heads, max_splits};
use pacer::device::gpu::choose::gemm::{Product, Tile, choose, rank};
use pacer::device::gpu::choose::{Card, Half};
use work::{Bench, Load, print_head, print_row};

/// The card with wgmma allowed.
const H100: Card = Card { wgmma_is_exact: true, ..Card::H100 };

fn product(m: usize, n: usize, k: usize, gated: bool) -> Product {
    Product { half: Half::Bf16, m, n, k, gated }
}

/// Runs `tile` on one tile of columns (all rows) and scales to the product.
fn gemm(name: &str, p: Product, tile: Tile) {
    let choice = rank(&p, &H100).expect("sizes").into_iter().find(|c| c.tile == tile);
    let choice = choice.expect("a legal tile");
    let (rows, columns) = (tile.rows as usize, tile.columns as usize);
    // One tile of rows (a pair for wgmma) and of columns.
    let m = p.m.min(if tile.wgmma { 2 * rows } else { rows });
    let rows_w = if p.gated { 2 * columns } else { columns };
    let mut bench = Bench::default();
    let (x, w) = (bench.halves(m * p.k), bench.halves(rows_w * p.k));
    let y = bench.alloc(m * columns * 2);
    let gemm = abi::GemmParams {
        x,
        w,
        y,
        bias: 0,
        residual: 0,
        m: m as u32,
        n: columns as u32,
        k: p.k as u32,
        x_stride: p.k as u32,
        y_stride: columns as u32,
        residual_stride: 0,
        act: 0,
        out_f32: 0,
    };
    let grid = [if tile.wgmma { 2 } else { 1 }, 1, 1];
    let report = if tile.wgmma {
        let (x_map, w_map) = (work::map(x, m, p.k, 128), work::map(w, rows_w, p.k, 64));
        let params = abi::WgmmaGemmParams { x_map, w_map, gemm, reserved: [0; 14] };
        bench.launch(&choice.symbol, grid, &params)
    } else {
        bench.launch(&choice.symbol, grid, &gemm)
    };
    let tiles = p.m.div_ceil(m) * p.n.div_ceil(columns);
    let all_w = p.n * if p.gated { 2 } else { 1 };
    // TMA's bytes are not among the counted ones; a pair shares its tile of w.
    let tma = if tile.wgmma { (2 * rows + rows_w) * p.k * 2 } else { 0 };
    let stages = choice.geometry.shared as usize / ((rows + rows_w) * 128);
    let load = Load {
        scale: tiles as f64,
        blocks: choice.geometry.grid[0].into(),
        extra_l2: (tma * tiles) as f64,
        unique: 2.0 * (all_w * p.k + p.m * p.k + p.m * p.n) as f64,
        flops: 2.0 * (all_w * p.k * p.m) as f64,
        in_flight: ((stages - 1) * (rows + rows_w) * 128) as f64,
    };
    print_row(name, &choice.symbol, choice.geometry, &report, &load);
}

fn attention(name: &str, spans: &[(usize, usize)], decode: bool) {
    let heads = Heads { half: Half::Bf16, heads: 32, kv_heads: 8, head_dim: 128 };
    let one = spans[0];
    let (context, width, page) = (one.0 + one.1, 4 * 128, 16);
    // One sequence and one kv head; the grid is scaled to all.
    let mut bench = Bench::default();
    let pages: Vec<u32> = (0..context.div_ceil(page) as u32).collect();
    let cache = pages.len() * page * 128;
    let mut params = abi::AttentionParams {
        q: bench.halves(one.0 * width),
        k: bench.halves(cache),
        v: bench.halves(cache),
        out: bench.alloc(one.0 * width * 2),
        spans: bench.words(&[0, one.0 as u32, one.1 as u32, 0]),
        pages: bench.words(&pages),
        q_stride: width as u32,
        out_stride: width as u32,
        kv_heads: 1,
        group: 4,
        page_size: page as u32,
        scale: 0.09,
        span_tiles: 1,
        max_splits: max_splits(context) as u32,
        ..Default::default()
    };
    let tiles = heads.prefill_tiles(&[Span { start: 0, len: one.0, past: one.1, pages_start: 0 }]);
    let choice = if decode {
        heads.decode(spans.len(), 1, context, &H100)
    } else {
        heads.prefill(tiles.len(), &H100)
    };
    let mut choice = choice.expect("a kernel");
    let mut grid = choice.geometry.grid;
    if decode {
        params.partial = bench.alloc(heads.partial_bytes(1, 1, context));
        params.counters = bench.words(&[0]);
    } else {
        let words: Vec<u32> = tiles.iter().flat_map(|t| [t.span, t.row]).collect();
        params.tiles = bench.words(&words);
        choice.geometry.grid[0] *= spans.len() as u32;
    }
    grid = [if decode { 1 } else { grid[0] }, 1, grid[2]];
    let report = bench.launch(&choice.symbol, grid, &params);
    let copies = spans.len() * 8;
    let g = choice.geometry.grid;
    let pairs: usize = (0..one.0).map(|t| one.1 + t + 1).sum();
    let load = Load {
        scale: copies as f64,
        blocks: u64::from(g[0]) * u64::from(g[1]) * u64::from(g[2]),
        extra_l2: 0.0,
        unique: (copies * (context * 128 * 4 + one.0 * width * 4)) as f64,
        flops: (copies * pairs * 4 * 128 * 4) as f64,
        in_flight: if decode { 5.0 * 16384.0 } else { 3.0 * 16384.0 },
    };
    print_row(name, &choice.symbol, choice.geometry, &report, &load);
}

#[test]
#[ignore = "prints a table; takes a minute"]
fn print_projected_table() {
    print_head();
    for (name, n, k, gated) in [
        ("8B qkv, 1 row", 6144, 4096, false),
        ("8B o, 1 row", 4096, 4096, false),
        ("8B gate·up, 1 row", 14336, 4096, true),
        ("8B down, 1 row", 4096, 14336, false),
        ("8B lm_head, 1 row", 128_256, 4096, false),
        ("1B o, 1 row", 2048, 2048, false),
        ("1B down, 1 row", 2048, 8192, false),
    ] {
        let p = product(1, n, k, gated);
        gemm(name, p, choose(&p, &H100).expect("sizes").tile);
    }
    for (name, m) in [("8B qkv, 32 rows", 32), ("8B qkv, 128 rows", 128)] {
        let p = product(m, 6144, 4096, false);
        gemm(name, p, choose(&p, &H100).expect("sizes").tile);
    }
    let square = product(4096, 4096, 4096, false);
    for choice in rank(&square, &H100).expect("sizes") {
        if choice.tile.rows == 128 && choice.tile.columns != 64 {
            gemm("4096³", square, choice.tile);
        }
    }
    attention("decode, 1 × 1,024", &[(1, 1023)], true);
    attention("decode, 1 × 4,096", &[(1, 4095)], true);
    attention("decode, 32 × 1,024", &[(1, 1023); 32], true);
    attention("prefill, 1 × 1,024", &[(1024, 0)], false);
}
