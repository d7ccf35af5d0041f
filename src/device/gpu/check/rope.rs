//! rope.cu: angles, rotation, pages, and the norm of q and k.

use super::{Bench, Case, Geometry, Matrix, Rng, Store, Traffic};
use crate::device::formula;
use crate::device::gpu::{abi, turns};

const PAGES: usize = 5;
const PAGE: usize = 16;
const EPS: f32 = 1e-6;

#[derive(Clone, Copy)]
struct Shape {
    form: &'static str,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    /// Rotated pairs; 0 for none.
    half: usize,
    pad: usize,
}

pub fn cases(list: &mut Vec<Case>) {
    let shape = |form, heads, kv_heads, head_dim, half, pad| Shape {
        form,
        heads,
        kv_heads,
        head_dim,
        half,
        pad,
    };
    let shapes = [
        shape("vec", 4, 2, 64, 32, 0),
        shape("vec", 3, 1, 128, 64, 16),
        shape("vec", 2, 2, 80, 16, 0),
        shape("vec", 2, 1, 96, 48, 16),
        shape("vec", 1, 1, 256, 128, 0),
        shape("vec", 2, 2, 64, 0, 0),
        shape("norm", 3, 2, 64, 32, 0),
        shape("norm", 5, 1, 128, 64, 16),
        shape("norm", 1, 1, 256, 128, 0),
        shape("any", 3, 1, 20, 5, 3),
        shape("any", 2, 1, 40, 20, 1),
        shape("any", 2, 1, 24, 0, 0),
    ];
    for store in Store::HALVES {
        for s in shapes {
            let Shape { form, heads, kv_heads, head_dim, half, .. } = s;
            let name = format!(
                "rope {} {form} {heads}/{kv_heads} heads of {head_dim}, {half} pairs",
                store.name()
            );
            list.push(Case::new(name, move |b| check(b, store, s)));
        }
    }
    list.push(Case::new("rope angles far out".to_owned(), far_angles));
}

/// Frequencies as a model has them, and the fractions of a turn that the kernel takes.
fn frequencies(half: usize) -> (Vec<f32>, Vec<u8>) {
    let freq = |i: usize| 10000f64.powf(-(i as f64) / half as f64) as f32;
    let list: Vec<f32> = (0..half).map(freq).collect();
    let bytes = list.iter().flat_map(|f| turns::per_position(*f).to_le_bytes()).collect();
    (list, bytes)
}

/// Floats of a row's block of angles.
fn block(half: usize) -> usize {
    16 * half.div_ceil(8).next_multiple_of(2)
}

/// Launches the angles' kernel; the address of its result.
fn angles(
    b: &mut Bench,
    positions: &[u32],
    half: usize,
    scale: f32,
) -> Result<(u64, Vec<f32>), String> {
    let (list, turns) = frequencies(half);
    let rows = positions.len();
    let out = b.alloc(rows * block(half) * 4)?;
    let params = abi::RopeAnglesParams {
        turns: b.upload(&turns)?,
        positions: b.upload_u32(positions)?,
        angles: out,
        rows: rows as u32,
        half: half as u32,
        scale,
        reserved: 0,
    };
    let read = rows * (half.min(128) * 4 + half * 8);
    let traffic = Traffic { read, written: rows * half * 8 };
    b.launch("sm80_f32_rope_angles", Geometry::new(rows, 128), &params, Some(traffic))?;
    Ok((out, list))
}

/// Positions at which an f32 angle would be off by a hundredth of a radian.
fn far_angles(b: &mut Bench) -> Result<(), String> {
    let positions = [0u32, 1, 7, 131_071, 1 << 20, 4_194_303];
    let half = 32;
    let (address, list) = angles(b, &positions, half, 1.5)?;
    for (r, position) in positions.into_iter().enumerate() {
        let bytes = b.download(address + (r * block(half) * 4) as u64, block(half) * 4)?;
        let found = Store::F32.decode(&bytes);
        for (i, freq) in list.iter().enumerate() {
            let (sin, cos) = (f64::from(position) * f64::from(*freq)).sin_cos();
            let at = |part: usize| found[(part + i % 8 / 4) * half / 8 * 4 + i / 8 * 4 + i % 4];
            for (got, want) in [(at(0), cos * 1.5), (at(2), sin * 1.5)] {
                if (got - want).abs() > 4e-7 {
                    return Err(format!("position {position}, pair {i}: {got}; {want} expected"));
                }
            }
        }
    }
    Ok(())
}

/// A head after its norm (if any) and its rotation.
struct Rotation {
    positions: Vec<u32>,
    freqs: Vec<f32>,
    scale: f64,
    /// Weight + offset, for q or k.
    weight: Option<Vec<f64>>,
}

impl Rotation {
    /// `head` rotated, and for each number the sum of the magnitudes that it was made of.
    fn apply(&self, row: usize, head: &[f64]) -> Vec<(f64, f64)> {
        let normed = match &self.weight {
            Some(w) => formula::rms_norm(head, w, f64::from(EPS), 1),
            None => head.to_vec(),
        };
        let half = self.freqs.len();
        let mut out: Vec<(f64, f64)> = normed.iter().map(|x| (*x, x.abs())).collect();
        for (i, freq) in self.freqs.iter().enumerate() {
            let (sin, cos) = (f64::from(self.positions[row]) * f64::from(*freq)).sin_cos();
            let (sin, cos) = (sin * self.scale, cos * self.scale);
            let (x, y) = (normed[i], normed[i + half]);
            let terms = (x.abs() + y.abs()) * self.scale;
            out[i] = (x * cos - y * sin, terms);
            out[i + half] = (y * cos + x * sin, terms);
        }
        out
    }
}

fn check(b: &mut Bench, store: Store, s: Shape) -> Result<(), String> {
    let positions = vec![3u32, 40, 99_999, 8];
    // Row 2 is padding: it has no slot.
    let slots = [17i32, 2 * PAGE as i32 + 15, -1, 4 * PAGE as i32];
    let rows = positions.len();
    let scale = 1.25f32;
    let (address, freqs) =
        if s.half > 0 { angles(b, &positions, s.half, scale)? } else { (0, Vec::new()) };
    let input = |b: &mut Bench, heads: usize, seed: u64| {
        let values = Rng::new(seed).values(rows * heads * s.head_dim);
        b.input(store, heads * s.head_dim, s.pad, &values)
    };
    let q = input(b, s.heads, 1)?;
    let k = input(b, s.kv_heads, 2)?;
    let v = input(b, s.kv_heads, 3)?;
    let q_weight = b.input(store, s.head_dim, 0, &Rng::new(4).values(s.head_dim))?;
    let k_weight = b.input(store, s.head_dim, 0, &Rng::new(5).values(s.head_dim))?;
    let slot_rows = PAGES * s.kv_heads * PAGE;
    let k_pages = b.output(store, slot_rows, s.head_dim, 0)?;
    let v_pages = b.output(store, slot_rows, s.head_dim, 0)?;
    let params = abi::RopeParams {
        q: q.address,
        k: k.address,
        v: v.address,
        angles: address,
        k_pages: k_pages.address,
        v_pages: v_pages.address,
        slots: b.upload(&slots.iter().flat_map(|s| s.to_le_bytes()).collect::<Vec<u8>>())?,
        q_weight: q_weight.address,
        k_weight: k_weight.address,
        rows: rows as u32,
        heads: s.heads as u32,
        kv_heads: s.kv_heads as u32,
        head_dim: s.head_dim as u32,
        half: s.half as u32,
        page_size: PAGE as u32,
        q_stride: q.stride as u32,
        k_stride: k.stride as u32,
        v_stride: v.stride as u32,
        eps: EPS,
        offset: 1.0,
        reserved: 0,
    };
    let piece = if s.form == "any" { 1 } else { 8 };
    let items = ((s.heads + s.kv_heads) * s.half + s.kv_heads * 2 * (s.head_dim - s.half)) / piece;
    let geometry = Geometry::new(rows, 128).y(items.div_ceil(128));
    b.launch(&format!("sm80_{}_rope_{}", store.name(), s.form), geometry, &params, None)?;
    if s.form != "any" {
        b.coalesced()?;
    }
    let norm = s.form == "norm";
    let rotation = |weight: &Matrix| Rotation {
        positions: positions.clone(),
        freqs: freqs.clone(),
        scale: f64::from(scale),
        weight: norm.then(|| weight.values.iter().map(|w| w + 1.0).collect()),
    };
    let turned = rotation(&q_weight);
    b.compare(&q, |r, c| {
        let (head, i) = (c / s.head_dim, c % s.head_dim);
        let (want, terms) = turned.apply(r, &q.row(r)[head * s.head_dim..][..s.head_dim])[i];
        (want, store.tolerance(want, terms))
    })?;
    let turned = rotation(&k_weight);
    let rotated = |r: usize, head: &[f64]| turned.apply(r, head);
    let same = |_: usize, head: &[f64]| head.iter().map(|x| (*x, 0.0)).collect();
    pages(b, s, &slots, &k_pages, &k, &rotated)?;
    pages(b, s, &slots, &v_pages, &v, &same)
}

/// Compares the slots that were to be written, and sees that no other was.
fn pages(
    b: &mut Bench,
    s: Shape,
    slots: &[i32],
    pool: &Matrix,
    from: &Matrix,
    head_of: &dyn Fn(usize, &[f64]) -> Vec<(f64, f64)>,
) -> Result<(), String> {
    let bytes = s.head_dim * pool.store.bytes();
    for page in 0..PAGES {
        for head in 0..s.kv_heads {
            for slot in 0..PAGE {
                let at = ((page * s.kv_heads + head) * PAGE + slot) * bytes;
                let one = Matrix {
                    address: pool.address + at as u64,
                    rows: 1,
                    width: s.head_dim,
                    stride: s.head_dim,
                    store: pool.store,
                    values: Vec::new(),
                };
                let row = slots.iter().position(|x| *x == (page * PAGE + slot) as i32);
                match row {
                    None if b.untouched(one.address, bytes)? => (),
                    None => return Err(format!("page {page} slot {slot} was written")),
                    Some(r) => {
                        let want = head_of(r, &from.row(r)[head * s.head_dim..][..s.head_dim]);
                        b.compare(&one, |_, c| {
                            (want[c].0, pool.store.tolerance(want[c].0, want[c].1))
                        })?;
                    }
                }
            }
        }
    }
    Ok(())
}
