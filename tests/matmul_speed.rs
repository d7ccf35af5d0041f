//! How fast matrix products are, for each stored type and number of rows, at SmolLM2-135M's
//! shapes. Run on a quiet machine, optimised:
//! `cargo test --release --test matmul_speed -- --ignored --nocapture`

use std::time::Instant;

use pacer::device::cpu::matmul::{Mode, PackPart, PackedMatrix, Scratch, matmul};
use pacer::device::cpu::numbers::Numbers;
use pacer::device::cpu::pool::Pool;
use pacer::types::Dtype;
use pacer::weights::{RowOrder, Tensor};

const TYPES: [Dtype; 11] = [
    Dtype::F32,
    Dtype::F16,
    Dtype::BF16,
    Dtype::Q8_0,
    Dtype::Q4_0,
    Dtype::Q4_1,
    Dtype::Q5_0,
    Dtype::Q5_1,
    Dtype::Q4K,
    Dtype::Q5K,
    Dtype::Q6K,
];
/// Copies of a matrix are multiplied in turn until they are this many bytes: more than caches
/// hold.
const COLD: usize = 128 << 20;

/// Packed copies of a matrix `[rows, cols]` of small numbers.
fn copies(dtype: Dtype, rows: usize, cols: usize, pool: &Pool) -> Vec<PackedMatrix> {
    let bytes = rows * dtype.bytes(cols).unwrap();
    // In every type these bytes are finite numbers and scales.
    let data: Vec<u8> = (0..bytes).map(|i| (i * 37 % 101) as u8 & 0x33).collect();
    let shape = [rows, cols];
    let tensor = Tensor { name: "w", dtype, shape: &shape, data: &data, order: RowOrder::Plain };
    let part = PackPart { tensor: &tensor, rows };
    (0..COLD.div_ceil(bytes))
        .map(|_| PackedMatrix::pack(&[part], cols, pool, None).unwrap())
        .collect()
}

/// Seconds of one product: the median over the copies.
fn seconds(matrices: &[PackedMatrix], m: usize, pool: &Pool) -> f64 {
    let (rows, cols) = (matrices[0].rows(), matrices[0].cols());
    let x: Vec<f32> = (0..m * cols).map(|i| (i * 37 % 101) as f32 * 0.02 - 1.0).collect();
    let mut y = Numbers::zeroed(m * rows).unwrap();
    let mut scratch = Scratch::new(m, cols, pool.threads());
    let mode = Mode::default();
    let mut times: Vec<f64> = matrices
        .iter()
        .map(|matrix| {
            let start = Instant::now();
            matmul(pool, &mut scratch, mode, &x, cols, m, matrix, None, &mut y, rows);
            start.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

#[test]
#[ignore = "a measurement, for a quiet machine"]
fn products() {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let pool = Pool::new(threads).unwrap();
    println!("{threads} threads");
    for dtype in TYPES {
        for (rows, cols) in [(3072, 576), (576, 1536)] {
            if cols % dtype.block_len() != 0 {
                continue;
            }
            let matrices = copies(dtype, rows, cols, &pool);
            for m in [1, 4, 8, 16, 512] {
                let few = &matrices[..matrices.len().min(if m > 16 { 8 } else { usize::MAX })];
                let s = seconds(few, m, &pool);
                println!(
                    "{:5} [{rows}, {cols}] m={m:3}: {:8.1} µs {:7.1} Gop/s {:6.2} GB/s",
                    dtype.name(),
                    s * 1e6,
                    2.0 * (m * rows * cols) as f64 / s / 1e9,
                    matrices[0].bytes() as f64 / s / 1e9,
                );
            }
        }
    }
}
