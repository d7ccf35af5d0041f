//! ceiling.cu and ceiling_wgmma.cu: the results that keep their work from being left out.

use super::{Bench, Case, Geometry, Store, Traffic};
use crate::device::gpu::abi;
use crate::device::gpu::registry::{self, Target};

pub fn cases(list: &mut Vec<Case>) {
    for pieces in [0, 7, 256 * 8 * 2, 256 * 19 + 5] {
        list.push(Case::new(format!("ceiling read {pieces}"), move |b| read(b, pieces)));
    }
    for (rounds, target, symbol, chains) in [
        (3, Target::Sm80, "sm80_bf16_ceiling_mma", 8 * 4),
        (2, Target::Sm90a, "sm90a_bf16_ceiling_wgmma", 32 * 4 * 4),
    ] {
        let name = format!("ceiling {symbol} {rounds} rounds");
        let case = Case::new(name, move |b| products(b, symbol, rounds, chains));
        list.push(case.needs(target));
    }
}

fn params(x: u64, out: u64, pieces: usize, rounds: u32) -> abi::CeilingParams {
    abi::CeilingParams { x, out, pieces: pieces as u64, rounds, reserved: 0 }
}

/// Every word once: the xor of all results is the xor of all words.
fn read(b: &mut Bench, pieces: usize) -> Result<(), String> {
    let threads = 2 * 256;
    let words: Vec<u32> = (0..4 * pieces as u32).map(|i| i.wrapping_mul(0x9e37_79b9) ^ i).collect();
    let x = b.upload_u32(if words.is_empty() { &[1] } else { &words })?;
    let out = b.alloc(threads * 4)?;
    let traffic = Traffic { read: pieces * 16, written: threads * 4 };
    let geometry = Geometry::new(2, 256);
    b.launch("sm80_ceiling_read", geometry, &params(x, out, pieces, 0), Some(traffic))?;
    b.coalesced()?;
    let fold = |list: &[u32]| list.iter().fold(0, |a, w| a ^ w);
    let found = b.download_u32(out, threads)?;
    if fold(&found) == fold(&words) { Ok(()) } else { Err("some words were not read once".into()) }
}

/// Each number of a thread is `sums` products of 16 pairs, summed over the thread's numbers.
fn products(b: &mut Bench, symbol: &str, rounds: u32, numbers: usize) -> Result<(), String> {
    let (_, kernel) = registry::kernel(symbol).map_err(|e| e.to_string())?;
    // Halves and quarters: every product and sum is exact.
    let x = b.input(Store::Bf16, 64, 0, &vec![0.5; 64 * 64])?;
    let out = b.output(Store::F32, 1, kernel.block as usize, 0)?;
    let geometry = Geometry::new(1, kernel.block).shared(kernel.shared);
    b.launch(symbol, geometry, &params(x.address, out.address, 0, rounds), None)?;
    let want = f64::from(rounds) * numbers as f64 * 16.0 * 0.25;
    b.compare(&out, |_, _| (want, 0.0))
}
