//! logprobs.cu.

use super::{Bench, Case, Geometry, Rng, Store, Traffic};
use crate::device::formula;
use crate::device::gpu::{abi, registry};

pub fn cases(list: &mut Vec<Case>) {
    for (rows, vocab, top, named) in [
        (1, 33, 3, true),
        (3, 1500, 5, true),
        (2, 4099, 1, false),
        (1, 7, 7, true),
        (2, 64, 0, true),
    ] {
        let name = format!("logprobs {rows}x{vocab} top {top}");
        list.push(Case::new(name, move |b| check(b, (rows, vocab), top, named)));
    }
    list.push(Case::new("logprobs of what each row wants".to_owned(), some));
}

/// Rows that want none, the token's alone, and fewer best tokens than the step brings.
fn some(b: &mut Bench) -> Result<(), String> {
    let (vocab, top, scores) = (77, 4, [0u32, 1, 3, 5]);
    let rows = scores.len();
    let values: Vec<f64> = Rng::new(5).values(rows * vocab).iter().map(|x| x * 3.0).collect();
    let logits = b.input(Store::F32, vocab, 0, &values)?;
    let wanted = scores.map(|scores| abi::SampleRow { scores, ..abi::SampleRow::default() });
    let settings: Vec<u8> = wanted.iter().flat_map(registry::param_bytes).copied().collect();
    let params = abi::LogprobsParams {
        logits: logits.address,
        targets: b.upload_u32(&[9; 4])?,
        target_out: b.alloc(rows * 4)?,
        top_tokens: b.alloc(rows * top * 4)?,
        top_out: b.alloc(rows * top * 4)?,
        settings: b.upload(&settings)?,
        rows: rows as u32,
        vocab: vocab as u32,
        stride: logits.stride as u32,
        top: top as u32,
    };
    b.launch("sm80_f32_logprobs", Geometry::new(rows, 1024), &params, None)?;
    let tokens = b.download_u32(params.top_tokens, rows * top)?;
    let targets = Store::F32.decode(&b.download(params.target_out, rows * 4)?);
    let found = Store::F32.decode(&b.download(params.top_out, rows * top * 4)?);
    for (r, scores) in scores.into_iter().enumerate() {
        let row = logits.row(r);
        let base = row.iter().map(|x| x.exp()).sum::<f64>().ln();
        let near = |got: f64, want: f64| (got - want).abs() < 2e-5;
        let target = if scores > 0 { near(targets[r], row[9] - base) } else { targets[r].is_nan() };
        let best = formula::largest(row, top);
        let right = |j: usize| {
            let (token, at) = (tokens[r * top + j], r * top + j);
            if (j as u32) + 1 < scores {
                token as usize == best[j] && near(found[at], row[best[j]] - base)
            } else {
                token == u32::MAX && found[at].is_nan()
            }
        };
        if !target || !(0..top).all(right) {
            return Err(format!("row {r} wants {scores}: {} {tokens:?} {found:?}", targets[r]));
        }
    }
    Ok(())
}

fn check(
    b: &mut Bench,
    (rows, vocab): (usize, usize),
    top: usize,
    named: bool,
) -> Result<(), String> {
    let mut values: Vec<f64> = Rng::new(1).values(rows * vocab).iter().map(|x| x * 4.0).collect();
    // Equals at the top, the later id first in memory's order of writing.
    (values[vocab - 1], values[2]) = (40.0, 40.0);
    values[1] = f64::NEG_INFINITY;
    let logits = b.input(Store::F32, vocab, 5, &values)?;
    let targets: Vec<u32> = (0..rows).map(|r| ((r * 13 + 5) % vocab) as u32).collect();
    let target_out = b.alloc(rows * 4)?;
    let (tokens, out) = (b.alloc((rows * top * 4).max(1))?, b.alloc((rows * top * 4).max(1))?);
    let params = abi::LogprobsParams {
        logits: logits.address,
        targets: if named { b.upload_u32(&targets)? } else { 0 },
        target_out,
        top_tokens: tokens,
        top_out: out,
        settings: 0,
        rows: rows as u32,
        vocab: vocab as u32,
        stride: logits.stride as u32,
        top: top as u32,
    };
    let passes = rows * vocab * 4 * (2 + top);
    let extra = if named { rows * 8 } else { 0 };
    let traffic = Traffic { read: passes + extra, written: extra / 2 + rows * top * 8 };
    b.launch("sm80_f32_logprobs", Geometry::new(rows, 1024), &params, Some(traffic))?;
    let base = |r: usize| {
        let row = logits.row(r);
        let most = row.iter().copied().fold(f64::MIN, f64::max);
        most + row.iter().map(|x| (x - most).exp()).sum::<f64>().ln()
    };
    let close = |got: f64, want: f64| got == want || (got - want).abs() < 2e-5;
    if named {
        let got = Store::F32.decode(&b.download(target_out, rows * 4)?);
        for r in 0..rows {
            let want = logits.row(r)[targets[r] as usize] - base(r);
            if !close(got[r], want) {
                return Err(format!("row {r}: target {}; {want} expected", got[r]));
            }
        }
    }
    if top == 0 {
        return Ok(());
    }
    let tokens = b.download_u32(tokens, rows * top)?;
    let found = Store::F32.decode(&b.download(out, rows * top * 4)?);
    for r in 0..rows {
        for (j, want) in formula::largest(logits.row(r), top).into_iter().enumerate() {
            let (id, got) = (tokens[r * top + j] as usize, found[r * top + j]);
            if id != want || !close(got, logits.row(r)[want] - base(r)) {
                return Err(format!("row {r}, rank {j}: token {id} at {got}; {want} expected"));
            }
        }
    }
    Ok(())
}
