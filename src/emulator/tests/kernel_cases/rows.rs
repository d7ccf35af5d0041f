//! Row-wise kernels: RMSNorm, softmax, RoPE, cluster sum.

use super::bench::{Arg, Bench, Grid};
use super::data::{self, Bytes, Rng};
use super::{Failure, compare};

pub fn rmsnorm(ptx: &str, shape: usize, seed: u64) -> Result<(), Failure> {
    let (rows, n) = [(2, 8), (3, 264), (1, 2056), (2, 4096)][shape];
    let mut rng = Rng::new(seed);
    let (x, w) = (rng.bf16s(rows * n), rng.bf16s(n));
    let mut bench = Bench::new(ptx, seed)?;
    let (dx, dw) = (bench.upload(&x.bytes()), bench.upload(&w.bytes()));
    let dy = bench.alloc(rows * n * 2);
    let eps = 1e-5f32;
    let args = [Arg::Ptr(dx), Arg::Ptr(dw), Arg::Ptr(dy), Arg::I32(n as i32), Arg::F32(eps)];
    bench.launch("rmsnorm", Grid::new(rows, 256), &args)?;
    let y = data::bf16s(&bench.download(dy, rows * n * 2)?);
    compare(&y, |i| {
        let row = &x[i / n * n..][..n];
        let mean = row.iter().map(|v| v.to_f64().powi(2)).sum::<f64>() / n as f64;
        let want = x[i].to_f64() * w[i % n].to_f64() / (mean + f64::from(eps)).sqrt();
        (want, data::bf16_error(want, want.abs() * 1e-5))
    })
}

pub fn softmax(ptx: &str, shape: usize, seed: u64) -> Result<(), Failure> {
    let (rows, n) = [(2, 1), (3, 100), (2, 129), (1, 3000)][shape];
    let mut rng = Rng::new(seed);
    let x: Vec<f32> = rng.f32s(rows * n).iter().map(|v| v * 10.0).collect();
    let mut bench = Bench::new(ptx, seed)?;
    let (dx, dy) = (bench.upload(&x.bytes()), bench.alloc(rows * n * 4));
    let args = [Arg::Ptr(dx), Arg::Ptr(dy), Arg::I32(n as i32)];
    bench.launch("softmax", Grid::new(rows, 128), &args)?;
    let y = data::f32s(&bench.download(dy, rows * n * 4)?);
    let y: Vec<f64> = y.into_iter().map(f64::from).collect();
    compare(&y, |i| {
        let row = &x[i / n * n..][..n];
        let top = row.iter().fold(f32::MIN, |m, &v| m.max(v));
        let e = |v: f32| f64::from(v - top).exp();
        let want = e(x[i]) / row.iter().map(|&v| e(v)).sum::<f64>();
        (want, want * 3e-5 + 1e-37)
    })
}

pub fn rope(ptx: &str, shape: usize, seed: u64) -> Result<(), Failure> {
    let (tokens, heads, dim) = [(3, 2, 64), (5, 3, 80), (1, 1, 2), (7, 4, 128)][shape];
    let (half, positions) = (dim / 2, 50);
    let mut rng = Rng::new(seed);
    let x = rng.bf16s(tokens * heads * dim);
    let pos: Vec<i32> = (0..tokens).map(|_| rng.below(positions) as i32).collect();
    let angle = |p: usize, i: usize| p as f64 * 10000f64.powf(-(i as f64) / half as f64);
    let table = |f: fn(f64) -> f64| -> Vec<f32> {
        (0..positions * half).map(|i| f(angle(i / half, i % half)) as f32).collect()
    };
    let (cos, sin) = (table(f64::cos), table(f64::sin));
    let mut bench = Bench::new(ptx, seed)?;
    let dx = bench.upload(&x.bytes());
    let args = [
        Arg::Ptr(dx),
        Arg::Ptr(bench.upload(&pos.bytes())),
        Arg::Ptr(bench.upload(&cos.bytes())),
        Arg::Ptr(bench.upload(&sin.bytes())),
        Arg::I32(tokens as i32),
        Arg::I32(heads as i32),
        Arg::I32(dim as i32),
    ];
    let pairs = tokens * heads * half;
    bench.launch("rope", Grid::new(pairs.div_ceil(128), 128), &args)?;
    let y = data::bf16s(&bench.download(dx, x.len() * 2)?);
    compare(&y, |at| {
        let (vector, i) = (at / dim, at % dim);
        let p = pos[vector / heads] as usize * half + i % half;
        let (c, s) = (f64::from(cos[p]), f64::from(sin[p]));
        let lo = x[vector * dim + i % half].to_f64();
        let hi = x[vector * dim + i % half + half].to_f64();
        let want = if i < half { lo * c - hi * s } else { hi * c + lo * s };
        (want, data::bf16_error(want, (lo.abs() + hi.abs()) * 1e-6))
    })
}

pub fn cluster_sum(ptx: &str, shape: usize, seed: u64) -> Result<(), Failure> {
    let (rows, n) = [(1, 1), (3, 200), (2, 1000), (2, 256)][shape];
    let mut rng = Rng::new(seed);
    let x = rng.f32s(rows * n);
    let mut bench = Bench::new(ptx, seed)?;
    let (dx, dy) = (bench.upload(&x.bytes()), bench.alloc(rows * 4));
    let args = [Arg::Ptr(dx), Arg::Ptr(dy), Arg::I32(n as i32)];
    bench.launch("cluster_sum", Grid::new(2 * rows, 128).cluster(2), &args)?;
    let y: Vec<f64> =
        data::f32s(&bench.download(dy, rows * 4)?).into_iter().map(f64::from).collect();
    compare(&y, |r| {
        let row = &x[r * n..][..n];
        let size: f64 = row.iter().map(|v| f64::from(v.abs())).sum();
        (row.iter().map(|&v| f64::from(v)).sum(), size * 1e-6)
    })
}
