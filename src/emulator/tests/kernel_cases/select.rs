//! Top-k and Philox sampling.

use super::Failure;
use super::bench::{Arg, Bench, Grid};
use super::data::{self, Bytes, Rng};

pub fn topk(ptx: &str, shape: usize, seed: u64) -> Result<(), Failure> {
    let (rows, n, k) = [(2, 1, 1), (2, 100, 7), (1, 1000, 64), (2, 300, 300)][shape];
    let mut rng = Rng::new(seed);
    // Coarse values, so that the threshold has ties.
    let x: Vec<f32> = (0..rows * n).map(|_| (rng.value() * 40.0).round() / 4.0).collect();
    let mut bench = Bench::new(ptx, seed)?;
    let (values, indices) = (bench.alloc(rows * k * 4), bench.alloc(rows * k * 4));
    let args = [
        Arg::Ptr(bench.upload(&x.bytes())),
        Arg::Ptr(values),
        Arg::Ptr(indices),
        Arg::I32(n as i32),
        Arg::I32(k as i32),
    ];
    bench.launch("topk", Grid::new(rows, 256), &args)?;
    let values = data::f32s(&bench.download(values, rows * k * 4)?);
    let indices = data::i32s(&bench.download(indices, rows * k * 4)?);
    for r in 0..rows {
        check_row(&x[r * n..][..n], &values[r * k..][..k], &indices[r * k..][..k])?;
    }
    Ok(())
}

/// The right multiset of values, each at an index of its own that holds it.
fn check_row(x: &[f32], values: &[f32], indices: &[i32]) -> Result<(), Failure> {
    let sorted = |list: &[f32]| {
        let mut list = list.to_vec();
        list.sort_by(|a, b| b.total_cmp(a));
        list
    };
    // Zeros of either sign are equal to the reader but not to the selection; compare by value.
    let want = &sorted(x)[..values.len()];
    let mut seen = std::collections::HashSet::new();
    let holds = |(v, &i): (&f32, &i32)| x.get(i as usize).is_some_and(|x| x == v);
    let placed = values.iter().zip(indices).all(holds);
    let distinct = indices.iter().all(|&i| seen.insert(i));
    if sorted(values) == want && placed && distinct {
        return Ok(());
    }
    Err(Failure::Wrong(format!("top {}: {values:?} at {indices:?}", values.len())))
}

/// Philox 4×32-10, from the paper (Salmon et al. 2011).
fn philox(mut c: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let p0 = u64::from(c[0]) * 0xD251_1F53;
        let p1 = u64::from(c[2]) * 0xCD9E_8D57;
        let high = |p: u64| (p >> 32) as u32;
        c = [high(p1) ^ c[1] ^ key[0], p1 as u32, high(p0) ^ c[3] ^ key[1], p0 as u32];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    c
}

#[test]
fn philox_gives_the_published_vectors() {
    assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
    assert_eq!(
        philox([u32::MAX; 4], [u32::MAX; 2]),
        [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
    );
}

pub fn sample(ptx: &str, shape: usize, seed: u64) -> Result<(), Failure> {
    let (rows, n, temperature) = [(3, 1, 1.0), (2, 50, 0.7), (1, 1001, 1.5), (4, 513, 0.3)][shape];
    let mut rng = Rng::new(seed);
    let x: Vec<f32> = rng.f32s(rows * n).iter().map(|v| v * 3.0).collect();
    let (key, step) = (rng.next(), rng.next() as u32);
    let mut bench = Bench::new(ptx, seed)?;
    let out = bench.alloc(rows * 4);
    let args = [
        Arg::Ptr(bench.upload(&x.bytes())),
        Arg::Ptr(out),
        Arg::I32(n as i32),
        Arg::F32(temperature),
        Arg::Ptr(key),
        Arg::I32(step as i32),
    ];
    bench.launch("sample", Grid::new(rows, 128), &args)?;
    let got = data::i32s(&bench.download(out, rows * 4)?);
    for (r, &choice) in got.iter().enumerate() {
        let score = |i: usize| {
            let counter = [(i / 4) as u32, r as u32, step, 0];
            let bits = philox(counter, [key as u32, (key >> 32) as u32])[i % 4];
            let u = (f64::from(bits) + 0.5) / 4294967296.0;
            f64::from(x[r * n + i]) / f64::from(temperature) - (-u.ln()).ln()
        };
        let best = (0..n).map(score).fold(f64::MIN, f64::max);
        let valid = (0..n as i32).contains(&choice);
        // Scores closer than the approximate logarithm's error may change places.
        if !valid || score(choice as usize) < best - 1e-4 {
            return Err(Failure::Wrong(format!("row {r}: sampled {choice}")));
        }
    }
    Ok(())
}
