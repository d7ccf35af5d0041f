//! A short fingerprint of a checkpoint for result rows.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use super::Weights;

/// Bytes sampled over all tensors: small enough for milliseconds, whatever the model.
const BUDGET: usize = 4 << 20;
/// Bytes of one sample, at least and at most.
const SAMPLE: (usize, usize) = (16, 1024);
/// Samples of a tensor, evenly spread from its first bytes to its last.
const SAMPLES: usize = 4;

/// SHA-256, in hexadecimal, over every tensor's name, type, shape and row order, and a few samples
/// of its bytes, in name order. It tells checkpoints apart; it does not prove that two are equal,
/// since most bytes are not read.
pub fn digest(weights: &Weights) -> String {
    let mut names = weights.names();
    names.sort_unstable();
    let each = (BUDGET / SAMPLES / names.len().max(1)).clamp(SAMPLE.0, SAMPLE.1);
    let mut hash = Sha256::new();
    for name in names {
        let mut line = format!("{name:?} {:?}", weights.unusable(name));
        if let Some(t) = weights.tensor(name) {
            let _ = write!(line, " {} {:?} {:?}", t.dtype.name(), t.shape, t.order);
            sample(t.data, each, &mut hash);
        }
        hash.update(line);
        hash.update([0]);
    }
    hash.finalize().iter().fold(String::with_capacity(64), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

fn sample(data: &[u8], each: usize, hash: &mut Sha256) {
    if data.len() <= SAMPLES * each {
        hash.update(data);
        return;
    }
    let step = (data.len() - each) / (SAMPLES - 1);
    for i in 0..SAMPLES {
        hash.update(&data[i * step..][..each]);
    }
}
