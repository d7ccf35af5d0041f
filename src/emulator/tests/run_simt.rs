//! RMSNorm, softmax and the cluster reduction run under several schedules, with no false alarm
//! and equal to f64.

use std::path::Path;

use pacer_emulator::{Checks, LaunchSpec, Memory, Module, launch};

struct Case<'a> {
    file: &'a str,
    grid: u32,
    block: u32,
    cluster: u32,
}

fn go(case: &Case<'_>, memory: &Memory, params: &[u8], seed: u64) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernels").join(case.file);
    let module = Module::parse(&std::fs::read_to_string(path).unwrap()).unwrap();
    let kernel = &module.kernels[0];
    let mut params = params.to_vec();
    params.resize(kernel.param_bytes as usize, 0);
    let spec = LaunchSpec {
        kernel: &kernel.name,
        grid: [case.grid, 1, 1],
        block: [case.block, 1, 1],
        cluster: [case.cluster, 1, 1],
        shared_bytes: 0,
        params: &params,
        symbols: &[],
        seed,
        budget: 10_000_000,
        checks: Checks::ALL,
        threads: 1,
    };
    launch(&module, memory, &spec).unwrap_or_else(|f| panic!("{} seed {seed}: {f}", case.file));
}

fn floats(memory: &mut Memory, values: &[f32]) -> u64 {
    let at = memory.alloc(values.len() as u64 * 4).unwrap();
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    memory.write(at, &bytes).unwrap();
    at
}

fn read(memory: &Memory, at: u64, n: usize) -> Vec<f32> {
    let mut bytes = vec![0; n * 4];
    memory.read(at, &mut bytes).unwrap();
    bytes.chunks(4).map(|c| f32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect()
}

fn sample(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 37 + i / 11) % 101) as f32 * 0.07 - 3.0).collect()
}

#[test]
fn softmax_rows() {
    let case = Case { file: "softmax.ptx", grid: 3, block: 128, cluster: 1 };
    for n in [1usize, 31, 128, 500] {
        for seed in 0..5 {
            let x = sample(3 * n);
            let mut memory = Memory::new();
            let from = floats(&mut memory, &x);
            let to = memory.alloc(3 * n as u64 * 4).unwrap();
            let mut params = from.to_le_bytes().to_vec();
            params.extend(to.to_le_bytes());
            params.extend((n as i32).to_le_bytes());
            go(&case, &memory, &params, seed);
            let y = read(&memory, to, 3 * n);
            for (row, out) in x.chunks(n).zip(y.chunks(n)) {
                let top = row.iter().fold(f64::MIN, |m, v| m.max(f64::from(*v)));
                let sum: f64 = row.iter().map(|v| (f64::from(*v) - top).exp()).sum();
                for (v, got) in row.iter().zip(out) {
                    let want = (f64::from(*v) - top).exp() / sum;
                    assert!((f64::from(*got) - want).abs() < 1e-5 * want + 1e-9, "{got} {want}");
                }
            }
        }
    }
}

#[test]
fn cluster_sums() {
    let case = Case { file: "cluster_sum.ptx", grid: 6, block: 128, cluster: 2 };
    for n in [1usize, 257, 1000] {
        for seed in 0..5 {
            let x = sample(3 * n);
            let mut memory = Memory::new();
            let from = floats(&mut memory, &x);
            let to = memory.alloc(12).unwrap();
            let mut params = from.to_le_bytes().to_vec();
            params.extend(to.to_le_bytes());
            params.extend((n as i32).to_le_bytes());
            go(&case, &memory, &params, seed);
            for (row, got) in x.chunks(n).zip(read(&memory, to, 3)) {
                let want: f64 = row.iter().map(|v| f64::from(*v)).sum();
                assert!((f64::from(got) - want).abs() < 1e-3, "{got} {want}");
            }
        }
    }
}

#[test]
fn rmsnorm_rows() {
    let case = Case { file: "rmsnorm.ptx", grid: 2, block: 256, cluster: 1 };
    for n in [8usize, 264, 2560] {
        for seed in 0..5 {
            let cut = |v: f32| f32::from_bits(v.to_bits() & 0xffff_0000);
            let x: Vec<f32> = sample(2 * n).into_iter().map(cut).collect();
            let w: Vec<f32> = sample(n).into_iter().map(|v| cut(v * 0.5)).collect();
            let mut memory = Memory::new();
            let half = |memory: &mut Memory, values: &[f32]| {
                let bytes: Vec<u8> = values
                    .iter()
                    .flat_map(|v| ((v.to_bits() >> 16) as u16).to_le_bytes())
                    .collect();
                let at = memory.alloc(bytes.len() as u64).unwrap();
                memory.write(at, &bytes).unwrap();
                at
            };
            let (xs, ws) = (half(&mut memory, &x), half(&mut memory, &w));
            let to = memory.alloc(4 * n as u64).unwrap();
            let mut params: Vec<u8> = [xs, ws, to].iter().flat_map(|p| p.to_le_bytes()).collect();
            params.extend((n as i32).to_le_bytes());
            params.extend(1e-5f32.to_le_bytes());
            go(&case, &memory, &params, seed);
            let mut out = vec![0; 4 * n];
            memory.read(to, &mut out).unwrap();
            for (r, row) in x.chunks(n).enumerate() {
                let mean = row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / n as f64;
                let scale = 1.0 / (mean + 1e-5).sqrt();
                for i in 0..n {
                    let want = f64::from(row[i]) * f64::from(w[i]) * scale;
                    let at = (r * n + i) * 2;
                    let bits = u32::from(u16::from_le_bytes([out[at], out[at + 1]])) << 16;
                    let got = f64::from(f32::from_bits(bits));
                    assert!((got - want).abs() <= want.abs() / 128.0 + 1e-6, "{got} {want}");
                }
            }
        }
    }
}
