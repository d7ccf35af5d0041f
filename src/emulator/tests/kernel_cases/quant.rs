//! fp8 conversion both ways and the int4 matrix-vector product.

use half::{bf16, f16};
use pacer_emulator::tensor::number;

use super::bench::{Arg, Bench, Grid};
use super::data::{self, Bytes, Rng};
use super::{Failure, compare};

pub fn fp8(ptx: &str, shape: usize, seed: u64) -> Result<(), Failure> {
    let (rows, n): (usize, usize) = [(1, 4), (2, 128), (2, 132), (3, 300)][shape];
    let groups = n.div_ceil(128);
    let mut rng = Rng::new(seed);
    let mut x = rng.bf16s(rows * n);
    // The first row's first group is all zero.
    x[..n.min(128)].fill(bf16::ZERO);
    let mut bench = Bench::new(ptx, seed)?;
    let dx = bench.upload(&x.bytes());
    let (dy, ds) = (bench.alloc(rows * n), bench.alloc(rows * groups * 4));
    let back = bench.alloc(rows * n * 2);
    let grid = Grid::new(groups, 32).y(rows);
    let args = [Arg::Ptr(dx), Arg::Ptr(dy), Arg::Ptr(ds), Arg::I32(n as i32)];
    bench.launch("fp8_quantize", grid, &args)?;
    let args = [Arg::Ptr(dy), Arg::Ptr(ds), Arg::Ptr(back), Arg::I32(n as i32)];
    bench.launch("fp8_dequantize", grid, &args)?;
    let scales = data::f32s(&bench.download(ds, rows * groups * 4)?);
    let scales: Vec<f64> = scales.into_iter().map(f64::from).collect();
    compare(&scales, |i| {
        let first = i / groups * n + i % groups * 128;
        let last = (first + 128).min((i / groups + 1) * n);
        let top = x[first..last].iter().fold(0.0, |m: f64, v| m.max(v.to_f64().abs()));
        let want = if top > 0.0 { top / 448.0 } else { 1.0 };
        (want, want * 1e-6)
    })?;
    let bytes = bench.download(dy, rows * n)?;
    let codes: Vec<f64> = bytes.iter().map(|&b| number::E4M3.decode(b.into())).collect();
    let scale = |i: usize| scales[i / n * groups + i % n / 128];
    compare(&codes, |i| {
        // Nearest code: at most half the spacing away, 2^-4 of the number or 2^-10 near zero.
        let want = x[i].to_f64() / scale(i);
        (want, (want.abs() / 16.0).max(2f64.powi(-10)) * 1.0001)
    })?;
    let restored = data::bf16s(&bench.download(back, rows * n * 2)?);
    compare(&restored, |i| {
        let want = codes[i] * scale(i);
        (want, data::bf16_error(want, 0.0))
    })
}

pub fn int4_gemv(ptx: &str, shape: usize, seed: u64) -> Result<(), Failure> {
    let (rows, n) = [(1, 32), (5, 256), (7, 1056), (4, 4128)][shape];
    let mut rng = Rng::new(seed);
    let q: Vec<u32> = (0..rows * n / 8).map(|_| rng.next() as u32).collect();
    let s: Vec<f16> = (0..rows * n / 32).map(|_| f16::from_f32(rng.value() / 16.0)).collect();
    let x = rng.bf16s(n);
    let mut bench = Bench::new(ptx, seed)?;
    let y = bench.alloc(rows * 2);
    let args = [
        Arg::Ptr(bench.upload(&q.bytes())),
        Arg::Ptr(bench.upload(&s.bytes())),
        Arg::Ptr(bench.upload(&x.bytes())),
        Arg::Ptr(y),
        Arg::I32(rows as i32),
        Arg::I32(n as i32),
    ];
    bench.launch("int4_gemv", Grid::new(rows.div_ceil(4), 128), &args)?;
    let got = data::bf16s(&bench.download(y, rows * 2)?);
    compare(&got, |r| {
        let term = |k: usize| {
            let nibble = q[(r * n + k) / 8] >> (4 * (k % 8)) & 15;
            (f64::from(nibble) - 8.0) * s[(r * n + k) / 32].to_f64() * x[k].to_f64()
        };
        let want = (0..n).map(term).sum();
        let size: f64 = (0..n).map(|k| term(k).abs()).sum();
        (want, data::bf16_error(want, size * 2e-6))
    })
}
