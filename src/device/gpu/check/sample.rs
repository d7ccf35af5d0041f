//! sample.cu against its formula in f64: order, limits, draw, penalties.

use super::{Bench, Case, Geometry, Rng, Store, Traffic};
use crate::device::gpu::{abi, registry};
use crate::device::philox::uniform;

/// Temperature, top_k, top_p, min_p.
type Limits = (f32, u32, f32, f32);

pub fn cases(list: &mut Vec<Case>) {
    let settings: [(&str, Limits); 8] = [
        ("greedy", (0.0, 0, 1.0, 0.0)),
        ("plain", (1.0, 0, 1.0, 0.0)),
        ("hot", (3.0, 0, 1.0, 0.0)),
        ("top_k", (1.0, 5, 1.0, 0.0)),
        ("top_p", (0.8, 0, 0.7, 0.0)),
        ("min_p", (1.0, 0, 1.0, 0.1)),
        ("all limits", (1.3, 40, 0.9, 0.01)),
        ("top_k 1", (1.0, 1, 1.0, 0.0)),
    ];
    for (name, limits) in settings {
        for vocab in [19, 3001] {
            list.push(Case::new(format!("sample {name} of {vocab}"), move |b| {
                check(b, vocab, limits, &|r, id| spread(vocab, r, id))
            }));
        }
    }
    let flat: Limits = (1.0, 1000, 0.9, 0.0);
    list.push(Case::new("sample among equals".to_owned(), move |b| {
        check(b, 2048, flat, &|_, id| if id % 3 == 0 { 1.0 } else { -30.0 })
    }));
    let quarter: Limits = (1.0, 3, 1.0, 0.0);
    list.push(Case::new("sample NaN and infinities".to_owned(), move |b| {
        check(b, 50, quarter, &|_, id| match id % 5 {
            0 => f64::NAN,
            1 => f64::NEG_INFINITY,
            _ => id as f64 * 0.1,
        })
    }));
    list.push(Case::new("sample penalties".to_owned(), |b| penalties(b, false)));
    list.push(Case::new("sample penalties, scored".to_owned(), |b| penalties(b, true)));
    list.push(Case::new("sample given tokens".to_owned(), given));
}

/// Logits of a few likely tokens over a long tail, among them equals.
fn spread(vocab: usize, row: usize, id: usize) -> f64 {
    let noise = Rng::new((row * vocab + id / 2) as u64).value();
    let likely = Rng::new((row * vocab + id / 2) as u64 ^ 0xabcd).below(vocab) < 8;
    if likely { 6.0 + noise } else { noise * 2.0 }
}

const ROWS: usize = 6;

fn setting(limits: Limits, row: usize) -> abi::SampleRow {
    abi::SampleRow {
        temperature: limits.0,
        top_k: limits.1,
        top_p: limits.2,
        min_p: limits.3,
        seed_low: 7 + row as u32,
        seed_high: 0x1234,
        choice: row as u32 % 2,
        position: row as u32 * 31,
        repetition: 1.0,
        ..abi::SampleRow::default()
    }
}

fn launch(
    b: &mut Bench,
    logits: &super::Matrix,
    settings: &[abi::SampleRow],
    changes: &[abi::LogitChange],
    traffic: Option<Traffic>,
) -> Result<Vec<u32>, String> {
    let bytes: Vec<u8> = settings.iter().flat_map(registry::param_bytes).copied().collect();
    let more: Vec<u8> = changes.iter().flat_map(registry::param_bytes).copied().collect();
    let tokens = b.alloc(logits.rows * 4)?;
    let params = abi::SampleParams {
        logits: logits.address,
        settings: b.upload(&bytes)?,
        changes: if more.is_empty() { 0 } else { b.upload(&more)? },
        tokens,
        rows: logits.rows as u32,
        vocab: logits.width as u32,
        stride: logits.stride as u32,
        reserved: 0,
    };
    b.launch("sm80_f32_sample", Geometry::new(logits.rows, 1024), &params, traffic)?;
    b.download_u32(tokens, logits.rows)
}

fn check(
    b: &mut Bench,
    vocab: usize,
    limits: Limits,
    logit: &dyn Fn(usize, usize) -> f64,
) -> Result<(), String> {
    let values: Vec<f64> = (0..ROWS * vocab).map(|i| logit(i / vocab, i % vocab)).collect();
    let logits = b.input(Store::F32, vocab, 3, &values)?;
    let settings: Vec<_> = (0..=ROWS).map(|r| setting(limits, r)).collect();
    let tokens = launch(b, &logits, &settings, &[], None)?;
    for (r, token) in tokens.into_iter().enumerate() {
        allowed(logits.row(r), limits, &settings[r], token as usize)
            .map_err(|e| format!("row {r}: {e}"))?;
    }
    Ok(())
}

/// Whether the row may give this token: exactly, but for draws closer to a border than the mass
/// that rounding moves.
fn allowed(row: &[f64], limits: Limits, set: &abi::SampleRow, token: usize) -> Result<(), String> {
    let order = kept(row, limits);
    if limits.0 == 0.0 {
        let best = order.first().map_or(0, |(id, _)| *id);
        return if token == best { Ok(()) } else { Err(format!("{token}; {best} is best")) };
    }
    let mass: f64 = order.iter().map(|(_, w)| w).sum();
    let seed = u64::from(set.seed_high) << 32 | u64::from(set.seed_low);
    let target = uniform(seed, set.choice, u64::from(set.position)) * mass;
    let mut before = 0.0;
    for (id, weight) in order {
        let slack = 1e-6 * mass;
        if id == token {
            let inside = before - slack <= target && target < before + weight + slack;
            let says = format!("{token} has {before} to {}, drawn {target}", before + weight);
            return if inside { Ok(()) } else { Err(says) };
        }
        before += weight;
    }
    Err(format!("{token} was cut"))
}

/// What stays, in the order of the draw, with weights.
fn kept(row: &[f64], (temperature, top_k, top_p, min_p): Limits) -> Vec<(usize, f64)> {
    let most = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let heat = if temperature == 0.0 { 1.0 } else { f64::from(temperature) };
    let weight = |x: &f64| if x.is_nan() { 0.0 } else { ((x - most) / heat).exp() };
    let mut order: Vec<(usize, f64)> = row.iter().map(weight).enumerate().collect();
    if temperature > 0.0 && top_k == 0 && top_p >= 1.0 && min_p == 0.0 {
        return order;
    }
    order.sort_by(|a, b| b.1.total_cmp(&a.1));
    let total: f64 = order.iter().map(|(_, w)| w).sum();
    let k = if top_k == 0 { usize::MAX } else { top_k as usize };
    let mut mass = 0.0;
    let mut stays = 0;
    for (rank, (_, weight)) in order.iter().enumerate() {
        let cut = rank >= k || mass > f64::from(top_p) * total || *weight < f64::from(min_p);
        if rank > 0 && cut {
            break;
        }
        mass += weight;
        stays = rank + 1;
    }
    order.truncate(stays);
    order
}

/// A token that is given comes out, a row that is left alone gives 0.
fn given(b: &mut Bench) -> Result<(), String> {
    let vocab = 33;
    let values: Vec<f64> = (0..3 * vocab).map(|i| (i % vocab) as f64).collect();
    let logits = b.input(Store::F32, vocab, 2, &values)?;
    let greedy = setting((0.0, 0, 1.0, 0.0), 0);
    let settings = [
        abi::SampleRow { kind: 1, given: 12, ..greedy },
        abi::SampleRow { kind: 2, given: 5, ..greedy },
        greedy,
        greedy,
    ];
    let tokens = launch(b, &logits, &settings, &[], None);
    match tokens?[..] {
        [12, 0, 32] => Ok(()),
        ref other => Err(format!("{other:?}; [12, 0, 32] expected")),
    }
}

/// Bias, penalties and forbidden tokens move the logits of their row alone; where the row is scored
/// they are taken back.
fn penalties(b: &mut Bench, scored: bool) -> Result<(), String> {
    let vocab = 40;
    let values: Vec<f64> = (0..2 * vocab).map(|i| (i % vocab) as f64 * 0.25 - 2.0).collect();
    let logits = b.input(Store::F32, vocab, 1, &values)?;
    let greedy = (0.0, 0, 1.0, 0.0);
    let (frequency, presence, scores) = (0.5, 0.25, u32::from(scored));
    let punished =
        abi::SampleRow { repetition: 1.5, frequency, presence, scores, ..setting(greedy, 0) };
    let settings = [
        punished,
        abi::SampleRow { changes: 4, ..setting(greedy, 1) },
        abi::SampleRow { changes: 4, ..setting(greedy, 2) },
    ];
    let change = |token, bias, count, forbidden| abi::LogitChange { token, bias, count, forbidden };
    let changes =
        [change(39, 0.0, 0, 1), change(38, 0.0, 2, 0), change(1, 3.0, 1, 0), change(3, 9.5, 0, 0)];
    let tokens = launch(b, &logits, &settings, &changes, None)?;
    if tokens != [3, 39] {
        return Err(format!("{tokens:?}; [3, 39] expected"));
    }
    b.compare(&logits, |r, c| {
        let x = logits.row(r)[c];
        let want = match (r, c) {
            _ if scored => x,
            (0, 39) => f64::NEG_INFINITY,
            (0, 38) => x / 1.5 - (2.0 * 0.5 + 0.25),
            // -1.75 + 3 = 1.25 is positive by then.
            (0, 1) => (x + 3.0) / 1.5 - (0.5 + 0.25),
            (0, 3) => x + 9.5,
            _ => x,
        };
        (want, 1e-6)
    })
}
