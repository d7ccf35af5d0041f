//! Kernels that order global memory by fences: between blocks, by acquire and release operations,
//! and between threads and the asynchronous engine.

use super::bench::{Arg, Bench, Grid};
use super::data::{self, Bytes, Rng};
use super::{Failure, compare};

/// The last block of a row merges the parts of all.
pub fn split_sum(ptx: &str, shape: usize, seed: u64) -> Result<(), Failure> {
    let (rows, n, splits) = [(1, 5, 1), (2, 33, 4), (3, 7, 5), (1, 64, 8)][shape];
    let mut rng = Rng::new(seed);
    let x = rng.f32s(rows * n * 64);
    let mut bench = Bench::new(ptx, seed)?;
    let y = bench.alloc(rows * 64 * 4);
    let args = [
        Arg::Ptr(bench.upload(&x.bytes())),
        Arg::Ptr(bench.alloc(rows * splits * 64 * 4)),
        Arg::Ptr(bench.upload(&vec![0u32; rows].bytes())),
        Arg::Ptr(y),
        Arg::I32(n as i32),
    ];
    bench.launch("split_sum", Grid::new(splits, 64).y(rows), &args)?;
    let got = data::f32s(&bench.download(y, rows * 64 * 4)?);
    let got: Vec<f64> = got.into_iter().map(f64::from).collect();
    compare(&got, |i| {
        let column = |t: usize| f64::from(x[(i / 64 * n + t) * 64 + i % 64]);
        let size: f64 = (0..n).map(|t| column(t).abs()).sum();
        ((0..n).map(column).sum(), size * 1e-6)
    })
}

/// Each block waits for what the ones before it publish.
pub fn scan(ptx: &str, shape: usize, seed: u64) -> Result<(), Failure> {
    let n: usize = [1, 128, 700, 1111][shape];
    let tiles = n.div_ceil(128);
    let mut rng = Rng::new(seed);
    let x: Vec<i32> = (0..n).map(|_| rng.next() as i32 >> 8).collect();
    let mut bench = Bench::new(ptx, seed)?;
    let y = bench.alloc(n * 4);
    let args = [
        Arg::Ptr(bench.upload(&x.bytes())),
        Arg::Ptr(y),
        Arg::Ptr(bench.alloc(tiles * 4)),
        Arg::Ptr(bench.alloc(tiles * 4)),
        Arg::Ptr(bench.upload(&vec![0u32; tiles].bytes())),
        Arg::Ptr(bench.upload(&[0u32].bytes())),
        Arg::I32(n as i32),
    ];
    bench.launch("scan", Grid::new(tiles, 128), &args)?;
    let got = data::i32s(&bench.download(y, n * 4)?);
    let got: Vec<f64> = got.into_iter().map(f64::from).collect();
    let mut sum = 0i32;
    let want: Vec<f64> = x
        .iter()
        .map(|v| {
            sum = sum.wrapping_add(*v);
            f64::from(sum)
        })
        .collect();
    compare(&got, |i| (want[i], 0.0))
}

/// Threads write tiles to global memory, which bulk copies read back.
pub fn relay(ptx: &str, shape: usize, seed: u64) -> Result<(), Failure> {
    let (blocks, n): (usize, usize) = [(1, 1), (1, 300), (2, 256), (3, 1111)][shape];
    let mut rng = Rng::new(seed);
    let x = rng.f32s(n);
    let mut bench = Bench::new(ptx, seed)?;
    let (scratch, y) = (bench.alloc(blocks * 512), bench.alloc(n * 4));
    let args =
        [Arg::Ptr(bench.upload(&x.bytes())), Arg::Ptr(scratch), Arg::Ptr(y), Arg::I32(n as i32)];
    bench.launch("relay", Grid::new(blocks, 128), &args)?;
    let got: Vec<f64> = data::f32s(&bench.download(y, n * 4)?).into_iter().map(f64::from).collect();
    // Within a tile, thread t gets what thread t + 1 wrote; the last one gets the first's.
    compare(&got, |i| {
        let from = i / 128 * 128 + (i + 1) % 128;
        (2.0 * x.get(from).copied().map_or(0.0, f64::from), 0.0)
    })
}
