//! quant_gemm.cu: every tile and format against the numbers that GGUF blocks stand for.

use half::f16;

use super::{Bench, Case, Geometry, Matrix, Rng, Store};
use crate::device::gpu::choose::Half;
use crate::device::gpu::choose::gemm::{GROUPED_TILES, Tile};
use crate::device::gpu::quant::Packing;
use crate::device::gpu::{abi, registry};
use crate::types::Dtype;

const FORMATS: [Dtype; 3] = [Dtype::Q8_0, Dtype::Q4_0, Dtype::Q4_1];

pub fn cases(list: &mut Vec<Case>) {
    for dtype in FORMATS {
        for tile in GROUPED_TILES {
            for half in Half::ALL {
                for (i, sizes) in [(5, 40, 96), (1, 64, 1024), (17, 40, 224), (70, 136, 64)]
                    .into_iter()
                    .enumerate()
                {
                    let gate = if tile.gated { "gated" } else { "plain" };
                    let kind = (tile.rows, gate, half.name());
                    let name = format!("quant_gemm {dtype:?} {kind:?} {sizes:?}");
                    let case = Case::new(name, move |b| check(b, dtype, tile, half, sizes));
                    list.push(if i == 0 { case } else { case.slow() });
                }
            }
        }
        let name = format!("quant_gemm {dtype:?} rows keep their bits");
        list.push(Case::new(name, move |b| invariant(b, dtype)));
    }
}

/// Random blocks, and the numbers that they stand for.
fn blocks(dtype: Dtype, count: usize, rng: &mut Rng) -> (Vec<u8>, Vec<f64>) {
    let (mut bytes, mut values) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let (d, min) = (f16::from_f64(rng.value() * 0.02), f16::from_f64(rng.value() * 0.1));
        bytes.extend(d.to_le_bytes());
        let d = d.to_f64();
        if dtype == Dtype::Q8_0 {
            let numbers: Vec<i8> = (0..32).map(|_| rng.word() as i8).collect();
            bytes.extend(numbers.iter().map(|q| *q as u8));
            values.extend(numbers.iter().map(|q| d * f64::from(*q)));
            continue;
        }
        if dtype == Dtype::Q4_1 {
            bytes.extend(min.to_le_bytes());
        }
        let pairs: Vec<u8> = (0..16).map(|_| rng.word() as u8).collect();
        for k in 0..32 {
            let q = f64::from(pairs[k % 16] >> (k / 16 * 4) & 15);
            values.push(if dtype == Dtype::Q4_1 { d * q + min.to_f64() } else { d * (q - 8.0) });
        }
        bytes.extend(pairs);
    }
    (bytes, values)
}

/// Runs a product; gives x, the weights' values and y.
fn product(
    b: &mut Bench,
    dtype: Dtype,
    tile: Tile,
    half: Half,
    (m, n, k): (usize, usize, usize),
) -> Result<(Matrix, Vec<f64>, Matrix), String> {
    let store = if half == Half::F16 { Store::F16 } else { Store::Bf16 };
    let packing = Packing::of(dtype).ok_or("no packing")?;
    let rows_w = if tile.gated { 2 * n } else { n };
    let (bytes, w) = blocks(dtype, rows_w * k / 32, &mut Rng::new(11));
    let packed = packing.pack(&bytes, rows_w, k).map_err(|e| e.to_string())?;
    let rows: Vec<f64> = (0..m).flat_map(|r| Rng::new(1000 + r as u64).values(k)).collect();
    let x = b.input(store, k, 8, &rows)?;
    let y = b.output(Store::F32, m, n, 4)?;
    let params = abi::GemmParams {
        x: x.address,
        w: b.upload(&packed)?,
        y: y.address,
        bias: 0,
        residual: 0,
        m: m as u32,
        n: n as u32,
        k: k as u32,
        x_stride: x.stride as u32,
        y_stride: y.stride as u32,
        residual_stride: 0,
        act: 0,
        out_f32: 1,
    };
    let symbol = tile.quant_symbol(half, packing.name);
    let (_, kernel) = registry::kernel(&symbol).map_err(|e| e.to_string())?;
    let blocks = m.div_ceil(tile.rows as usize) * n.div_ceil(tile.columns as usize);
    let geometry = Geometry::new(blocks, kernel.block).shared(kernel.shared);
    b.launch(&symbol, geometry, &params, None)?;
    Ok((x, w, y))
}

fn check(
    b: &mut Bench,
    dtype: Dtype,
    tile: Tile,
    half: Half,
    sizes: (usize, usize, usize),
) -> Result<(), String> {
    let (_, n, k) = sizes;
    let (x, w, y) = product(b, dtype, tile, half, sizes)?;
    if k == 1024 {
        b.coalesced()?;
    }
    let dot = |r: usize, c: usize| {
        let products = || x.row(r).iter().zip(&w[c * k..][..k]).map(|(a, b)| a * b);
        (products().sum::<f64>(), products().map(f64::abs).sum::<f64>())
    };
    b.compare(&y, |r, c| {
        let (gate, size) = dot(r, c);
        if !tile.gated {
            return (gate, Store::F32.tolerance(gate, 3.0 * size + 0.1));
        }
        let (up, up_size) = dot(r, n + c);
        let act = gate / (1.0 + (-gate).exp());
        let terms = 1.2 * (3.0 * size + 1.0) * up.abs() + 3.0 * act.abs() * up_size;
        (act * up, Store::F32.tolerance(act * up, terms))
    })
}

/// Row 0 alone and among others, in both tiles: the same bytes.
fn invariant(b: &mut Bench, dtype: Dtype) -> Result<(), String> {
    let mut first: Option<Vec<u8>> = None;
    for tile in GROUPED_TILES.into_iter().filter(|t| !t.gated) {
        for m in [1, 20] {
            let (_, _, y) = product(b, dtype, tile, Half::Bf16, (m, 40, 96))?;
            let bytes = b.download(y.address, 160)?;
            if *first.get_or_insert_with(|| bytes.clone()) != bytes {
                return Err(format!("{} rows at once, {m} in all: other bits", tile.rows));
            }
        }
    }
    Ok(())
}
