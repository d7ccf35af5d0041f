//! The two matrix products.

use half::bf16;
use pacer_emulator::tensor::swizzle::Swizzle;
use pacer_emulator::tensor::tensormap::{MapType, TensorMap};

use super::bench::{Arg, Bench, Grid};
use super::data::{self, Bytes, Rng};
use super::{Failure, compare};

fn check(c: &[f64], a: &[bf16], b: &[bf16], n: usize, k: usize) -> Result<(), Failure> {
    compare(c, |i| {
        let (row, column) = (&a[i / n * k..][..k], &b[i % n * k..][..k]);
        let products = || row.iter().zip(column).map(|(x, y)| x.to_f64() * y.to_f64());
        let size: f64 = products().map(f64::abs).sum();
        let want: f64 = products().sum();
        (want, data::bf16_error(want, size * 2e-6))
    })
}

pub fn sm80(ptx: &str, shape: usize, seed: u64) -> Result<(), Failure> {
    let (m, n, k) = [(64, 64, 64), (100, 72, 104), (33, 65, 8), (64, 128, 256)][shape];
    let mut rng = Rng::new(seed);
    let (a, b) = (rng.bf16s(m * k), rng.bf16s(n * k));
    let mut bench = Bench::new(ptx, seed)?;
    let (da, db) = (bench.upload(&a.bytes()), bench.upload(&b.bytes()));
    let dc = bench.alloc(m * n * 2);
    let args = [
        Arg::Ptr(da),
        Arg::Ptr(db),
        Arg::Ptr(dc),
        Arg::I32(m as i32),
        Arg::I32(n as i32),
        Arg::I32(k as i32),
    ];
    let grid = Grid::new(n.div_ceil(64), 128).y(m.div_ceil(64));
    bench.launch("gemm_sm80", grid, &args)?;
    check(&data::bf16s(&bench.download(dc, m * n * 2)?), &a, &b, n, k)
}

/// Three stages of 24 KiB, two result tiles of 8 KiB, and the way to the next multiple of 1024.
const SM90_SHARED: u32 = 3 * 24576 + 2 * 8192 + 1024;

pub fn sm90(ptx: &str, shape: usize, seed: u64) -> Result<(), Failure> {
    let (m, n, k, blocks) =
        [(128, 64, 64, 1), (200, 136, 328, 2), (256, 64, 200, 1), (384, 128, 256, 2)][shape];
    let mut rng = Rng::new(seed);
    let (a, b) = (rng.bf16s(m * k), rng.bf16s(n * k));
    let mut bench = Bench::new(ptx, seed)?;
    let (da, db) = (bench.upload(&a.bytes()), bench.upload(&b.bytes()));
    let dc = bench.alloc(m * n * 2);
    let map = |address, rows: usize, columns: usize, box_rows| {
        let dims = [columns as u64, rows as u64];
        let strides = [columns as u64 * 2];
        TensorMap::tiled(MapType::Bf16, address, &dims, &strides, &[64, box_rows], Swizzle::B128)
            .expect("a valid map")
            .encode()
    };
    let args = [
        Arg::Map(map(da, m, k, 128)),
        Arg::Map(map(db, n, k, 64)),
        Arg::Map(map(dc, m, n, 64)),
        Arg::I32(m as i32),
        Arg::I32(n as i32),
        Arg::I32(k as i32),
    ];
    bench.launch("gemm_sm90", Grid::new(blocks, 384).shared(SM90_SHARED), &args)?;
    check(&data::bf16s(&bench.download(dc, m * n * 2)?), &a, &b, n, k)
}
