//! Matrix products of the CPU device: every stored type against float64 on dequantised weights,
//! and the promise that an output element depends on its own two rows alone, bit for bit.

use half::{bf16, f16};
use pacer::device::cpu::matmul::{Isa, Mode, PackPart, PackedMatrix, Scratch, matmul};
use pacer::device::cpu::pool::Pool;
use pacer::types::Dtype;
use pacer::weights::quant::dequantise;
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

const MODES: [Mode; 3] = [Mode::Int8, Mode::Int16, Mode::Exact];

/// SplitMix64, for inputs.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// About normal.
    fn number(&mut self) -> f32 {
        let sum: u64 = (0..4).map(|_| self.next() >> 40).sum();
        (sum as f64 / f64::from(1 << 24) - 2.0) as f32 * 1.7
    }
}

/// Where a block's half-precision scales stand.
fn scale_offsets(dtype: Dtype) -> &'static [usize] {
    match dtype {
        Dtype::Q4_1 | Dtype::Q5_1 | Dtype::Q4K | Dtype::Q5K => &[0, 2],
        Dtype::Q6K => &[208],
        _ => &[0],
    }
}

/// Stored bytes of `[rows, cols]` random numbers.
fn stored(dtype: Dtype, rows: usize, cols: usize, random: &mut Random) -> Vec<u8> {
    let mut bytes = Vec::new();
    if !dtype.is_quantised() {
        for _ in 0..rows * cols {
            let x = random.number();
            match dtype {
                Dtype::F16 => bytes.extend(f16::from_f32(x).to_le_bytes()),
                Dtype::BF16 => bytes.extend(bf16::from_f32(x).to_le_bytes()),
                _ => bytes.extend(x.to_le_bytes()),
            }
        }
        return bytes;
    }
    for _ in 0..rows * cols / dtype.block_len() {
        let mut block: Vec<u8> = (0..dtype.block_bytes()).map(|_| random.next() as u8).collect();
        for at in scale_offsets(dtype) {
            let scale = f16::from_f32(random.number() * 0.05);
            block[*at..at + 2].copy_from_slice(&scale.to_le_bytes());
        }
        bytes.extend(block);
    }
    bytes
}

fn dequantised(dtype: Dtype, bytes: &[u8], cols: usize) -> Vec<Vec<f32>> {
    let row_bytes = dtype.bytes(cols).unwrap();
    bytes
        .chunks(row_bytes)
        .map(|row| {
            let mut out = vec![0.0; cols];
            dequantise(dtype, row, &mut out);
            out
        })
        .collect()
}

fn pack(dtype: Dtype, bytes: &[u8], rows: usize, cols: usize, pool: &Pool) -> PackedMatrix {
    let shape = [rows, cols];
    let order = RowOrder::Plain;
    let tensor = Tensor { name: "w", dtype, shape: &shape, data: bytes, order };
    PackedMatrix::pack(&[PackPart { tensor: &tensor, rows }], cols, pool, None).unwrap()
}

struct Setup {
    pool: Pool,
    scratch: Scratch,
}

impl Setup {
    fn new(isa: Isa, threads: usize, cols: usize) -> Self {
        let scratch = Scratch::with_isa(1000, cols, threads, isa);
        Setup { pool: Pool::new(threads).unwrap(), scratch }
    }

    fn product(
        &mut self,
        mode: Mode,
        x: &[f32],
        m: usize,
        matrix: &PackedMatrix,
        bias: Option<&[f32]>,
    ) -> Vec<f32> {
        let (rows, cols) = (matrix.rows(), matrix.cols());
        let mut y = vec![f32::NAN; m * rows];
        let scratch = &mut self.scratch;
        matmul(&self.pool, scratch, mode, x, cols, m, matrix, bias, &mut y, rows);
        y
    }
}

fn activations(m: usize, cols: usize, random: &mut Random) -> Vec<f32> {
    let mut x: Vec<f32> = (0..m * cols).map(|_| random.number()).collect();
    // Outliers, as in real activations, and a row of zeros.
    for i in (0..x.len()).step_by(97) {
        x[i] *= 40.0;
    }
    if m > 2 {
        x[cols..2 * cols].fill(0.0);
    }
    x
}

/// What activations are quantised to.
#[derive(Clone, Copy)]
enum Steps {
    None,
    /// 127 for a block's largest magnitude, or 32639 if that is above 2.5 times the mean of its
    /// row's blocks' largest.
    Bytes,
    Wide,
}

fn steps(mode: Mode, dtype: Dtype) -> Steps {
    match mode {
        _ if !dtype.is_quantised() => Steps::None,
        Mode::Exact => Steps::None,
        Mode::Int8 if dtype != Dtype::Q8_0 => Steps::Bytes,
        Mode::Int8 | Mode::Int16 => Steps::Wide,
    }
}

impl Steps {
    /// The step of a block with this largest magnitude in a row where that is the mean of them.
    fn step(self, max: f64, mean: f64) -> f64 {
        match self {
            Steps::None => 0.0,
            Steps::Bytes if max > 2.50001 * mean => max / 32639.0,
            Steps::Bytes => max / 127.0,
            Steps::Wide => max / 32767.0,
        }
    }
}

/// The largest error over what rounding may cost: a millionth of `Σ |x · w|`, and where
/// activations are quantised half a step of its block, times `Σ |w|`.
fn worst(y: &[f32], x: &[f32], weights: &[Vec<f32>], bias: &[f32], steps: Steps) -> f64 {
    let cols = weights[0].len();
    let mut worst = 0.0f64;
    for (row, y) in x.chunks(cols).zip(y.chunks(weights.len())) {
        let largest = |x: &[f32]| x.iter().map(|v| f64::from(v.abs())).fold(0.0, f64::max);
        let mean = row.chunks(32).map(largest).sum::<f64>() / cols.div_ceil(32) as f64;
        for (c, w) in weights.iter().enumerate() {
            let mut sum = f64::from(bias[c]);
            let mut allowed = 1e-6 * (sum.abs() + 1e-6);
            for (x, w) in row.chunks(32).zip(w.chunks(32)) {
                let step = steps.step(largest(x), mean);
                for (x, w) in x.iter().zip(w) {
                    let term = f64::from(*x) * f64::from(*w);
                    sum += term;
                    allowed += 1e-6 * term.abs() + 0.5 * step * f64::from(w.abs());
                }
            }
            let found = f64::from(y[c]);
            assert!(found.is_finite());
            worst = worst.max((found - sum).abs() / allowed);
        }
    }
    worst
}

fn isas() -> Vec<Isa> {
    Isa::ALL.into_iter().filter(|isa| isa.is_available()).collect()
}

#[test]
fn every_type_agrees_with_float64() {
    let mut random = Random(1);
    for dtype in TYPES {
        // Rows that do not fill a panel; columns that do not fill a chunk.
        let (rows, cols) = (37, if dtype.block_len() == 1 { 531 } else { 768 });
        let bytes = stored(dtype, rows, cols, &mut random);
        let weights = dequantised(dtype, &bytes, cols);
        let bias: Vec<f32> = (0..rows).map(|_| random.number()).collect();
        for isa in isas() {
            let mut setup = Setup::new(isa, 2, cols);
            let matrix = pack(dtype, &bytes, rows, cols, &setup.pool);
            for m in [1, 2, 5, 13, 31, 70] {
                let x = activations(m, cols, &mut random);
                for mode in MODES {
                    let y = setup.product(mode, &x, m, &matrix, Some(&bias));
                    let error = worst(&y, &x, &weights, &bias, steps(mode, dtype));
                    assert!(error < 1.0, "{dtype:?} {isa:?} {mode:?} m={m}: {error}");
                }
            }
        }
    }
}

#[test]
fn rows_come_back_dequantised() {
    let mut random = Random(2);
    let pool = Pool::new(1).unwrap();
    for dtype in TYPES {
        let (rows, cols) = (19, 512);
        let bytes = stored(dtype, rows, cols, &mut random);
        let matrix = pack(dtype, &bytes, rows, cols, &pool);
        let mut out = vec![0.0; cols];
        for (r, expected) in dequantised(dtype, &bytes, cols).iter().enumerate() {
            matrix.row_f32(r, &mut out);
            for (found, wanted) in out.iter().zip(expected) {
                // `d · code + m` may round once more than the file's own formula.
                assert!(
                    (found - wanted).abs() <= 1e-5 * wanted.abs().max(1.0),
                    "{dtype:?} row {r}"
                );
            }
        }
    }
}

#[test]
fn an_element_depends_on_its_own_rows_alone() {
    let mut random = Random(3);
    for dtype in TYPES {
        let (rows, cols) = (50, 768);
        let bytes = stored(dtype, rows, cols, &mut random);
        let x = activations(33, cols, &mut random);
        for isa in isas() {
            for mode in MODES {
                let mut one = Setup::new(isa, 1, cols);
                let matrix = pack(dtype, &bytes, rows, cols, &one.pool);
                let alone: Vec<Vec<f32>> =
                    x.chunks(cols).map(|row| one.product(mode, row, 1, &matrix, None)).collect();
                for threads in [1, 2, 3] {
                    let mut many = Setup::new(isa, threads, cols);
                    for m in (1..=17).chain([23, 32, 33]) {
                        let y = many.product(mode, &x[..m * cols], m, &matrix, None);
                        for (r, row) in y.chunks(rows).enumerate() {
                            assert_eq!(row, alone[r], "{dtype:?} {isa:?} {mode:?} m={m} row {r}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn parts_of_different_types_stack() {
    let (cols, mut random) = (256, Random(4));
    let pool = Pool::new(2).unwrap();
    let kinds = [(Dtype::Q4K, 21), (Dtype::Q6K, 9), (Dtype::BF16, 17), (Dtype::F32, 5)];
    let bytes: Vec<Vec<u8>> = kinds.iter().map(|k| stored(k.0, k.1, cols, &mut random)).collect();
    let shapes: Vec<[usize; 2]> = kinds.iter().map(|k| [k.1, cols]).collect();
    let tensors: Vec<Tensor> = (0..kinds.len())
        .map(|i| Tensor {
            name: "part",
            dtype: kinds[i].0,
            shape: &shapes[i],
            data: &bytes[i],
            order: RowOrder::Plain,
        })
        .collect();
    let parts: Vec<PackPart> =
        tensors.iter().map(|tensor| PackPart { tensor, rows: tensor.shape[0] }).collect();
    let matrix = PackedMatrix::pack(&parts, cols, &pool, None).unwrap();
    let weights: Vec<Vec<f32>> =
        (0..kinds.len()).flat_map(|i| dequantised(kinds[i].0, &bytes[i], cols)).collect();
    let mut setup = Setup::new(Isa::detect(), 2, cols);
    // One row, a slab, and several.
    for m in [1, 7, 500] {
        let x = activations(m, cols, &mut random);
        for (mode, steps) in [(Mode::Int8, Steps::Bytes), (Mode::Int16, Steps::Wide)] {
            let y = setup.product(mode, &x, m, &matrix, None);
            let error = worst(&y, &x, &weights, &vec![0.0; weights.len()], steps);
            assert!(error < 1.0, "{mode:?} m={m}: {error}");
        }
    }
}

#[test]
fn panels_read_at_once_change_nothing() {
    let (rows, cols, mut random) = (373, 768, Random(6));
    let x = activations(8, cols, &mut random);
    let bias: Vec<f32> = (0..rows).map(|_| random.number()).collect();
    for dtype in [Dtype::F32, Dtype::BF16, Dtype::Q8_0, Dtype::Q4_1, Dtype::Q6K] {
        let bytes = stored(dtype, rows, cols, &mut random);
        for (isa, mode) in isas().into_iter().flat_map(|isa| MODES.map(|mode| (isa, mode))) {
            let mut one = Setup::new(isa, 1, cols);
            let matrix = pack(dtype, &bytes, rows, cols, &one.pool);
            let all = one.product(mode, &x, 8, &matrix, Some(&bias));
            for (threads, m) in [(1, 1), (2, 1), (3, 1), (5, 2), (2, 4), (30, 1)] {
                let mut many = Setup::new(isa, threads, cols);
                many.scratch = many.scratch.for_weights(if m == 1 { u64::MAX } else { 0 });
                let y = many.product(mode, &x[..m * cols], m, &matrix, Some(&bias));
                assert!(y == all[..m * rows], "{dtype:?} {isa:?} {mode:?} m={m} of {threads}");
            }
        }
    }
}

#[test]
fn slabs_change_nothing() {
    let (rows, cols, mut random) = (40, 768, Random(5));
    let x = activations(600, cols, &mut random);
    for dtype in [Dtype::F32, Dtype::BF16, Dtype::Q4_1] {
        let bytes = stored(dtype, rows, cols, &mut random);
        for isa in isas() {
            let mut setup = Setup::new(isa, 2, cols);
            let matrix = pack(dtype, &bytes, rows, cols, &setup.pool);
            let alone: Vec<f32> = x
                .chunks(cols)
                .flat_map(|row| setup.product(Mode::default(), row, 1, &matrix, None))
                .collect();
            for m in [191, 193, 264, 265, 529, 600] {
                let y = setup.product(Mode::default(), &x[..m * cols], m, &matrix, None);
                assert!(y == alone[..m * rows], "{dtype:?} {isa:?} m={m}");
            }
        }
    }
}

#[test]
fn what_is_not_a_number_stays_one() {
    let (cols, mut random) = (64, Random(5));
    for dtype in [Dtype::F32, Dtype::Q8_0, Dtype::Q4_1] {
        let bytes = stored(dtype, 16, cols, &mut random);
        let mut setup = Setup::new(Isa::detect(), 1, cols);
        let matrix = pack(dtype, &bytes, 16, cols, &setup.pool);
        let mut x = activations(2, cols, &mut random);
        x[3] = f32::NAN;
        for mode in MODES {
            let y = setup.product(mode, &x, 2, &matrix, None);
            assert!(y[..16].iter().all(|v| v.is_nan()), "{dtype:?} {mode:?}");
            let finite = y[16..].iter().all(|v| v.is_finite());
            assert!(finite, "{dtype:?} {mode:?}: the neighbour is untouched");
        }
    }
}
