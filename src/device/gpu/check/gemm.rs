//! gemm.cu, gemm_wgmma.cu and grouped_gemm.cu: every tile, remainders in every size, epilogues, and
//! that a row's bits depend neither on the tile nor on the rows beside it.

use super::{Bench, Case, Geometry, Matrix, Rng, Store, Traffic};
use crate::device::gpu::abi;
use crate::device::gpu::choose::gemm::{GROUPED_TILES, TILES, Tile};
use crate::device::gpu::registry::{self, Target};

/// Sizes m, n, k.
type Sizes = (usize, usize, usize);

/// What is done to the sums.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Extras {
    bias: bool,
    residual: bool,
    out_f32: bool,
    act: u32,
}

pub fn cases(list: &mut Vec<Case>) {
    for tile in TILES {
        for store in Store::HALVES {
            if !tile.wgmma {
                push(list, Target::Sm80, tile, store);
            }
            push(list, Target::Sm90a, tile, store);
        }
    }
    for tile in GROUPED_TILES {
        for store in Store::HALVES {
            let symbol = format!("sm80_{}_grouped_gemm_{}", store.name(), stem(tile));
            for (gather, counts) in [(false, vec![3, 0, 17, 1]), (true, vec![0, 0, 70, 5, 0])] {
                let (symbol, name) = (symbol.clone(), format!("{symbol} {counts:?}"));
                list.push(Case::new(name, move |b| {
                    grouped(b, &symbol, tile, store, &counts, gather)
                }));
            }
        }
    }
    for gated in [false, true] {
        for (wgmma, what) in [(false, "gemm rows keep their bits"), (true, "wgmma bits: gemm")] {
            let name = format!("{what}, gated {gated}");
            let case = Case::new(name, move |b| invariant(b, gated, wgmma, (70, 72, 200)));
            list.push(case.needs(Target::Sm90a));
        }
    }
}

fn push(list: &mut Vec<Case>, target: Target, tile: Tile, store: Store) {
    let symbol = symbol(target, store, tile);
    let none = Extras::default();
    let both = Extras { bias: true, residual: true, ..none };
    let quick = [((5, 72, 104), both), ((17, 33, 200), none)];
    let slow = [
        ((70, 136, 72), Extras { residual: true, ..none }),
        ((130, if tile.wgmma { 264 } else { 136 }, 520), Extras { out_f32: true, ..none }),
        ((1, 64, 1032), Extras { bias: true, act: 1, ..none }),
        ((300, 48, 64), Extras { act: 2, ..none }),
    ];
    for (i, (sizes, extras)) in quick.into_iter().chain(slow).enumerate() {
        let owned = symbol.clone();
        let name = format!("{symbol} {sizes:?} {extras:?}");
        let run = move |b: &mut Bench<'_>| plain(b, &owned, tile, store, sizes, extras);
        let case = Case::new(name, run).needs(target);
        list.push(if i < quick.len() { case } else { case.slow() });
    }
}

fn stem(tile: Tile) -> String {
    format!("{}x{}{}", tile.rows, tile.columns, tile.suffix())
}

fn symbol(target: Target, store: Store, tile: Tile) -> String {
    let family = if tile.wgmma { "gemm_wgmma" } else { "gemm" };
    let target = target.name();
    format!("{target}_{}_{family}_{}", store.name(), stem(tile))
}

/// Operands of one product. Row r of x is the same for every m.
struct Operands {
    x: Matrix,
    w: Matrix,
    y: Matrix,
    residual: Option<Matrix>,
    bias: Option<Matrix>,
}

fn operands(
    b: &mut Bench,
    store: Store,
    (m, n, k): Sizes,
    gated: bool,
    extras: Extras,
) -> Result<Operands, String> {
    let rows_w = if gated { 2 * n } else { n };
    let mut rng = Rng::new(7);
    let w = b.input(store, k, 0, &rng.values(rows_w * k))?;
    let bias = extras.bias.then(|| b.input(store, rows_w, 0, &rng.values(rows_w))).transpose()?;
    let rows = |width: usize, seed: u64| -> Vec<f64> {
        (0..m).flat_map(|r| Rng::new(seed + r as u64).values(width)).collect()
    };
    let pad = if n % 4 == 0 { 16 } else { 1 };
    let x = b.input(store, k, 16, &rows(k, 1000))?;
    let residual = extras.residual.then(|| b.input(store, n, pad, &rows(n, 5000))).transpose()?;
    let y = b.output(if extras.out_f32 { Store::F32 } else { store }, m, n, pad)?;
    Ok(Operands { x, w, y, residual, bias })
}

fn params(o: &Operands, act: u32) -> abi::GemmParams {
    let address = |m: &Option<Matrix>| m.as_ref().map_or(0, |m| m.address);
    abi::GemmParams {
        x: o.x.address,
        w: o.w.address,
        y: o.y.address,
        bias: address(&o.bias),
        residual: address(&o.residual),
        m: o.y.rows as u32,
        n: o.y.width as u32,
        k: o.x.width as u32,
        x_stride: o.x.stride as u32,
        y_stride: o.y.stride as u32,
        residual_stride: o.residual.as_ref().map_or(0, |r| r.stride as u32),
        act,
        out_f32: u32::from(o.y.store == Store::F32),
    }
}

fn act(kind: u32, x: f64) -> f64 {
    match kind {
        0 => x / (1.0 + (-x).exp()),
        1 => 0.5 * x * (1.0 + (0.797_884_560_802_865_4 * (x + 0.044_715 * x * x * x)).tanh()),
        _ => 0.5 * x * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2)),
    }
}

/// Sum of products of two rows, and of their magnitudes.
fn dot(x: &[f64], w: &[f64]) -> (f64, f64) {
    let products = || x.iter().zip(w).map(|(a, b)| a * b);
    (products().sum(), products().map(f64::abs).sum())
}

/// The value wanted of column c, and the magnitude its error scales with.
fn wanted(
    x: &[f64],
    w: &dyn Fn(usize) -> Vec<f64>,
    bias: &dyn Fn(usize) -> f64,
    (c, n, kind): (usize, usize, Option<u32>),
) -> (f64, f64) {
    let (sum, size) = dot(x, &w(c));
    let gate = sum + bias(c);
    let Some(kind) = kind else { return (gate, size + gate.abs()) };
    let (sum, up_size) = dot(x, &w(n + c));
    let up = sum + bias(n + c);
    // d(act(g) · u) = act'(g) · u · dg + act(g) · du, and |act'| < 1.2.
    let value = act(kind, gate) * up;
    (value, 1.2 * (size + 1.0) * up.abs() + act(kind, gate).abs() * up_size + value.abs())
}

fn launch(
    b: &mut Bench,
    symbol: &str,
    tile: Tile,
    o: &Operands,
    act: u32,
    traffic: Option<Traffic>,
) -> Result<(), String> {
    let (_, kernel) = registry::kernel(symbol).map_err(|e| e.to_string())?;
    let (m, n) = (o.y.rows, o.y.width);
    let columns = n.div_ceil(tile.columns as usize);
    let gemm = params(o, act);
    if !tile.wgmma {
        let blocks = m.div_ceil(tile.rows as usize) * columns;
        let geometry = Geometry::new(blocks, kernel.block).shared(kernel.shared);
        return b.launch(symbol, geometry, &gemm, traffic);
    }
    // Fewer clusters of blocks than they have tiles: each takes several.
    let cluster = tile.cluster as usize;
    let clusters = (m.div_ceil(128 * cluster) * columns).min(2);
    let params = abi::WgmmaGemmParams {
        x_map: b.tensor_map(&o.x, 128)?,
        w_map: b.tensor_map(&o.w, 64)?,
        gemm,
        reserved: [0; 14],
    };
    let geometry = Geometry::new(cluster * clusters, kernel.block).shared(kernel.shared);
    b.launch(symbol, geometry, &params, None)
}

fn plain(
    b: &mut Bench,
    symbol: &str,
    tile: Tile,
    store: Store,
    (m, n, k): Sizes,
    extras: Extras,
) -> Result<(), String> {
    let o = operands(b, store, (m, n, k), tile.gated, extras)?;
    let residual = if extras.residual { m * n * 2 } else { 0 };
    let x = n.div_ceil(tile.columns as usize) * m * k * 2;
    let w = m.div_ceil(tile.rows as usize) * o.w.rows * k * 2;
    let traffic = Traffic { read: x + w + residual, written: m * n * o.y.store.bytes() };
    // A bias is read by every warp of a tile that needs it, which no formula is worth.
    launch(b, symbol, tile, &o, extras.act, (!extras.bias).then_some(traffic))?;
    if k >= 512
        && let Some(c) = b.counted
        && c.wavefronts as f64 > 1.05 * c.wavefronts_least as f64
    {
        return Err(format!("{} passes over banks; {} do", c.wavefronts, c.wavefronts_least));
    }
    // A row of y that begins inside a sector is no fault of the kernel's.
    if tile.rows == 16 && k % 64 == 0 && o.y.stride % 16 == 0 {
        b.coalesced()?;
    }
    let kind = tile.gated.then_some(extras.act);
    b.compare(&o.y, |r, c| {
        let bias = |i: usize| o.bias.as_ref().map_or(0.0, |v| v.values[i]);
        let (mut want, size) = wanted(o.x.row(r), &|i| o.w.row(i).to_vec(), &bias, (c, n, kind));
        want += o.residual.as_ref().map_or(0.0, |m| m.row(r)[c]);
        (want, o.y.store.tolerance(want, 2.0 * size))
    })
}

fn grouped(
    b: &mut Bench,
    symbol: &str,
    tile: Tile,
    store: Store,
    counts: &[usize],
    gather: bool,
) -> Result<(), String> {
    let (n, k, tokens) = (72, 136, 50);
    let rows: usize = counts.iter().sum();
    let mut rng = Rng::new(3);
    let x = b.input(store, k, 8, &rng.values(if gather { tokens } else { rows } * k))?;
    let rows_w = if tile.gated { 2 * n } else { n };
    let one = |b: &mut Bench, rng: &mut Rng| b.input(store, k, 0, &rng.values(rows_w * k));
    let w = counts.iter().map(|_| one(b, &mut rng)).collect::<Result<Vec<_>, _>>()?;
    let addresses: Vec<u8> = w.iter().flat_map(|m| m.address.to_le_bytes()).collect();
    let source = |r: usize, rng: &mut Rng| if gather { rng.below(tokens) } else { r };
    let sources: Vec<u32> = (0..rows).map(|r| source(r, &mut rng) as u32).collect();
    let mut offsets = vec![0u32];
    let mut owner = Vec::new();
    for (e, count) in counts.iter().enumerate() {
        owner.extend(std::iter::repeat_n(e, *count));
        offsets.push(owner.len() as u32);
    }
    let y = b.output(store, rows, n, 8)?;
    let o = Operands { x, w: w[0].clone(), y, residual: None, bias: None };
    let mut gemm = params(&o, 0);
    gemm.w = b.upload(&addresses)?;
    let params = abi::GroupedGemmParams {
        gemm,
        offsets: b.upload_u32(&offsets)?,
        gather: if gather { b.upload_u32(&sources)? } else { 0 },
        experts: counts.len() as u32,
        reserved: 0,
    };
    let (_, kernel) = registry::kernel(symbol).map_err(|e| e.to_string())?;
    let slots = rows.min(rows.div_ceil(tile.rows as usize) + counts.len());
    let columns = n.div_ceil(tile.columns as usize);
    let geometry = Geometry::new(columns, kernel.block).y(slots).shared(kernel.shared);
    b.launch(symbol, geometry, &params, None)?;
    let kind = tile.gated.then_some(0);
    b.compare(&o.y, |r, c| {
        let matrix = &w[owner[r]];
        let row = o.x.row(sources[r] as usize);
        let (want, size) = wanted(row, &|i| matrix.row(i).to_vec(), &|_| 0.0, (c, n, kind));
        (want, store.tolerance(want, 2.0 * size))
    })
}

/// The first row alone in the narrowest tile, then among others in every tile of the instruction:
/// the same bytes.
fn invariant(b: &mut Bench, gated: bool, wgmma: bool, (m, n, k): Sizes) -> Result<(), String> {
    let extras = Extras { bias: true, residual: true, ..Extras::default() };
    let mut first: Option<Vec<u8>> = None;
    for tile in TILES.into_iter().filter(|t| t.gated == gated) {
        if first.is_some() && tile.wgmma != wgmma {
            continue;
        }
        let symbol = symbol(Target::Sm90a, Store::Bf16, tile);
        let rows = if first.is_none() { 1 } else { m };
        let o = operands(b, Store::Bf16, (rows, n, k), gated, extras)?;
        launch(b, &symbol, tile, &o, 0, None)?;
        let bytes = b.download(o.y.address, n * 2)?;
        if *first.get_or_insert_with(|| bytes.clone()) != bytes {
            return Err(format!("{symbol}: row 0 of {rows} has other bits than alone"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{Emulated, run};
    use super::*;

    /// Cases by the start of their names, the module, a text of its PTX and what takes its place.
    const PLANTED: [(&str, &str, &str, &str); 6] = [
        ("sm80_bf16_gemm_16x32 (17", "gemm_sm80", "bar.sync", "// bar.sync"),
        ("sm80_bf16_gemm_64x64 (5", "gemm_sm80", "wait_group 4", "wait_group 5"),
        ("sm80_bf16_gemm_128x128 (17", "gemm_sm80", "wait_group 1", "wait_group 2"),
        ("sm90a_bf16_gemm_wgmma_128x128 (17", "gemm_wgmma_sm90a", ", 32768;", ", 32767;"),
        ("sm90a_bf16_gemm_wgmma_128x256 (17", "gemm_wgmma_sm90a", "wgmma.fence", "// wgmma.fence"),
        ("sm80_bf16_grouped_gemm_16x32 [3", "grouped_gemm_sm80", "shfl.sync.up", "shfl.sync.down"),
    ];

    #[test]
    fn planted_faults_are_found() {
        let mut all = Vec::new();
        cases(&mut all);
        for (name, module, from, to) in PLANTED {
            let case = all.iter().find(|c| c.name.starts_with(name)).expect(name);
            let mut machine = Emulated::default();
            assert!(machine.replace(module, from, to), "{module} has no {from}");
            assert!(run(case, &mut machine, 4).failure.is_some(), "{name}: {from} -> {to} passed");
        }
    }
}
