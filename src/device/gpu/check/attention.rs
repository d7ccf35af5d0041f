//! attention_decode.cu and attention_prefill.cu: against the formula, and against each other bit
//! for bit; pages shuffled, slots beyond a sequence's end poisoned.

use super::{Bench, Case, Geometry, Matrix, Rng, Store};
use crate::device::Span;
use crate::device::gpu::abi;
use crate::device::gpu::choose::attention::{HEAD_DIMS, Heads, WGMMA_HEAD_DIMS, max_splits};
use crate::device::gpu::choose::{self, Card};
use crate::device::gpu::registry::Target;

/// One shape.
#[derive(Debug, Clone)]
struct Shape {
    head_dim: usize,
    kv_heads: usize,
    group: usize,
    page_size: usize,
    window: usize,
    softcap: f64,
    /// New tokens and past tokens of each sequence.
    spans: Vec<(usize, usize)>,
}

pub fn cases(list: &mut Vec<Case>) {
    let base = Shape {
        head_dim: 64,
        kv_heads: 2,
        group: 2,
        page_size: 16,
        window: 0,
        softcap: 0.0,
        spans: vec![(1, 5), (3, 300), (20, 40), (1, 255), (1, 256)],
    };
    let few = vec![(1, 70), (9, 0), (2, 260)];
    let mut shapes = Vec::new();
    for head_dim in HEAD_DIMS {
        shapes.push((true, Shape { head_dim, kv_heads: 1, spans: few.clone(), ..base.clone() }));
        shapes.push((false, Shape { head_dim, ..base.clone() }));
        // Long enough that what is read is K and V.
        let long =
            Shape { head_dim, kv_heads: 1, group: 4, spans: vec![(1, 1100)], ..base.clone() };
        shapes.push((false, long));
    }
    shapes.push((true, Shape { window: 24, group: 3, kv_heads: 1, page_size: 8, ..base.clone() }));
    shapes.push((true, Shape { softcap: 4.0, spans: few.clone(), ..base.clone() }));
    shapes.push((false, Shape { group: 7, kv_heads: 1, page_size: 24, ..base.clone() }));
    shapes.push((false, Shape { group: 20, kv_heads: 1, spans: few, ..base.clone() }));
    let long = vec![(1, 700), (200, 150)];
    shapes.push((false, Shape { window: 100, softcap: 30.0, spans: long, ..base.clone() }));
    let many = vec![(1, 1023), (1, 1500)];
    shapes.push((false, Shape { head_dim: 128, group: 4, spans: many, ..base }));
    for (quick, shape) in shapes {
        for store in Store::HALVES {
            if WGMMA_HEAD_DIMS.contains(&shape.head_dim) {
                let name = format!("attention wgmma {} {shape:?}", store.name());
                let owned = shape.clone();
                let case = Case::new(name, move |b| hopper(b, store, &owned).map(|_| ()));
                let case = case.needs(Target::Sm90a);
                list.push(if quick { case } else { case.slow() });
                let name = format!("wgmma bits: attention {} {shape:?}", store.name());
                let owned = shape.clone();
                let case = Case::new(name, move |b| hopper_bits(b, store, &owned));
                list.push(case.needs(Target::Sm90a).slow());
            }
            let (name, shape) = (format!("attention {} {shape:?}", store.name()), shape.clone());
            let case = Case::new(name, move |b| both(b, store, &shape));
            list.push(if quick { case } else { case.slow() });
        }
    }
}

/// Inputs in device memory.
struct Inputs {
    q: Matrix,
    /// `[page * kv_heads * page_size][head_dim]`, poisoned where no token is.
    k: Matrix,
    v: Matrix,
    /// Page numbers, and where each sequence's begin.
    pages: Vec<u32>,
    spans: Vec<Span>,
}

impl Inputs {
    fn new(b: &mut Bench, store: Store, s: &Shape) -> Result<Self, String> {
        let mut spans = Vec::new();
        let (mut rows, mut count) = (0, 0);
        for &(len, past) in &s.spans {
            spans.push(Span { start: rows, len, past, pages_start: count });
            rows += len;
            count += (len + past).div_ceil(s.page_size);
        }
        let pages = Rng::new(9).shuffled(count);
        let width = s.kv_heads * s.group * s.head_dim;
        let q = b.input(store, width, 16, &Rng::new(5).values(rows * width))?;
        let slots = count * s.kv_heads * s.page_size;
        let mut caches = [vec![f64::NAN; slots * s.head_dim], vec![f64::NAN; slots * s.head_dim]];
        let mut rng = Rng::new(6);
        for span in &spans {
            for t in 0..span.len + span.past {
                for h in 0..s.kv_heads {
                    let at = slot(s, &pages, span, t, h) * s.head_dim;
                    for cache in &mut caches {
                        cache[at..at + s.head_dim].copy_from_slice(&rng.values(s.head_dim));
                    }
                }
            }
        }
        let k = b.input(store, s.head_dim, 0, &caches[0])?;
        let v = b.input(store, s.head_dim, 0, &caches[1])?;
        Ok(Inputs { q, k, v, pages, spans })
    }
}

/// Row of the cache of token t.
fn slot(s: &Shape, pages: &[u32], span: &Span, t: usize, kv_head: usize) -> usize {
    let page = pages[span.pages_start + t / s.page_size] as usize;
    (page * s.kv_heads + kv_head) * s.page_size + t % s.page_size
}

fn both(b: &mut Bench, store: Store, s: &Shape) -> Result<(), String> {
    let inputs = Inputs::new(b, store, s)?;
    let heads = heads(store, s);
    let decoded = decode(b, s, &heads, &inputs)?;
    let filled = prefill(b, s, &heads, &inputs)?;
    compare(b, store, s, &inputs, &decoded)?;
    compare(b, store, s, &inputs, &filled)?;
    same(b, &decoded, &filled)
}

fn heads(store: Store, s: &Shape) -> Heads {
    let half = match store {
        Store::F16 => choose::Half::F16,
        _ => choose::Half::Bf16,
    };
    let Shape { head_dim, kv_heads, group, .. } = *s;
    Heads { half, heads: kv_heads * group, kv_heads, head_dim }
}

/// The kernel of wgmma and TMA against the formula.
fn hopper(b: &mut Bench, store: Store, s: &Shape) -> Result<(Inputs, Matrix), String> {
    let inputs = Inputs::new(b, store, s)?;
    let heads = heads(store, s);
    let tiles = heads.prefill_tiles(&inputs.spans);
    let choice = heads.prefill_wgmma(tiles.len(), &Card::H100).map_err(|e| e.to_string())?;
    let (mut attention, out) = params(b, s, &inputs)?;
    let words: Vec<u32> = tiles.iter().flat_map(|t| [t.span, t.row]).collect();
    attention.tiles = b.upload_u32(&words)?;
    let params = abi::WgmmaAttentionParams {
        k_map: b.tensor_map(&inputs.k, 8)?,
        v_map: b.tensor_map(&inputs.v, 8)?,
        attention,
        reserved: [0; 4],
    };
    b.launch(&choice.symbol, geometry(choice.geometry), &params, None)?;
    banks(b)?;
    compare(b, store, s, &inputs, &out)?;
    Ok((inputs, out))
}

/// Against the kernel of `mma.sync` bit for bit: whether one request may be served by both.
fn hopper_bits(b: &mut Bench, store: Store, s: &Shape) -> Result<(), String> {
    let (inputs, out) = hopper(b, store, s)?;
    let portable = prefill(b, s, &heads(store, s), &inputs)?;
    same(b, &out, &portable)
}

/// Two results that must agree in every bit.
fn same(b: &mut Bench, one: &Matrix, other: &Matrix) -> Result<(), String> {
    for r in 0..one.rows {
        let (row, bytes) = ((r * one.stride * 2) as u64, one.width * 2);
        if b.download(one.address + row, bytes)? != b.download(other.address + row, bytes)? {
            return Err(format!("row {r}: the two kernels' bits differ"));
        }
    }
    Ok(())
}

fn params(b: &mut Bench, s: &Shape, i: &Inputs) -> Result<(abi::AttentionParams, Matrix), String> {
    let out = b.output(i.q.store, i.q.rows, i.q.width, 32)?;
    let word = |x: &usize| *x as u32;
    let spans: Vec<u32> = i
        .spans
        .iter()
        .flat_map(|x| [&x.start, &x.len, &x.past, &x.pages_start].map(word))
        .collect();
    let params = abi::AttentionParams {
        q: i.q.address,
        k: i.k.address,
        v: i.v.address,
        out: out.address,
        spans: b.upload_u32(&spans)?,
        pages: b.upload_u32(&i.pages)?,
        q_stride: i.q.stride as u32,
        out_stride: out.stride as u32,
        kv_heads: s.kv_heads as u32,
        group: s.group as u32,
        page_size: s.page_size as u32,
        window: s.window as u32,
        scale: scale(s) as f32,
        softcap: s.softcap as f32,
        ..Default::default()
    };
    Ok((params, out))
}

/// Sharper than 1/√d, so that maxima matter.
fn scale(s: &Shape) -> f64 {
    f64::from((1.5 / (s.head_dim as f64).sqrt()) as f32)
}

fn decode(b: &mut Bench, s: &Shape, heads: &Heads, i: &Inputs) -> Result<Matrix, String> {
    let longest = s.spans.iter().map(|x| x.0).max().unwrap_or(1);
    let context = s.spans.iter().map(|x| x.0 + x.1).max().unwrap_or(1);
    let choice = heads.decode(i.spans.len(), longest, context, &Card::H100);
    let choice = choice.map_err(|e| e.to_string())?;
    let (mut params, out) = params(b, s, i)?;
    params.span_tiles = heads.span_tiles(longest) as u32;
    params.max_splits = max_splits(context) as u32;
    params.partial = b.alloc(heads.partial_bytes(i.spans.len(), longest, context))?;
    let counters = i.spans.len() * heads.span_tiles(longest) * s.kv_heads;
    params.counters = b.upload_u32(&vec![0; counters])?;
    b.launch(&choice.symbol, geometry(choice.geometry), &params, None)?;
    if b.download_u32(params.counters, counters)?.iter().any(|c| *c != 0) {
        return Err("a counter is not back at zero".to_owned());
    }
    if context > 1000 {
        lean(b, s, threads(choice.geometry))?;
    }
    Ok(out)
}

/// Long sequences: sectors and bytes close to the least, few bank conflicts.
fn lean(b: &Bench, s: &Shape, threads: usize) -> Result<(), String> {
    b.coalesced()?;
    let Some(c) = b.counted else { return Ok(()) };
    let tokens: usize = s.spans.iter().map(|x| x.0 + x.1).sum();
    let least = tokens * s.kv_heads * s.head_dim * 4;
    // Beside them every thread reads its span, from one sector a warp.
    let most = 1.1 * least as f64 + (threads * size_of::<abi::AttentionSpan>()) as f64;
    if c.read as f64 > most {
        return Err(format!("{} bytes read; K and V are {least}", c.read));
    }
    banks(b)
}

fn threads(g: choose::Geometry) -> usize {
    g.grid.iter().product::<u32>() as usize * g.block as usize
}

fn prefill(b: &mut Bench, s: &Shape, heads: &Heads, i: &Inputs) -> Result<Matrix, String> {
    let tiles = heads.prefill_tiles(&i.spans);
    let choice = heads.prefill(tiles.len(), &Card::H100).map_err(|e| e.to_string())?;
    let (mut params, out) = params(b, s, i)?;
    let words: Vec<u32> = tiles.iter().flat_map(|t| [t.span, t.row]).collect();
    params.tiles = b.upload_u32(&words)?;
    b.launch(&choice.symbol, geometry(choice.geometry), &params, None)?;
    let each = size_of::<abi::AttentionSpan>() + size_of::<abi::AttentionTile>();
    issued(b, s, heads, i, threads(choice.geometry) * each)?;
    banks(b)?;
    Ok(out)
}

/// What prefill moves is what its header says: of each tile its rows of q and out once, and K and V
/// of every chunk of 64 tokens that one of its rows sees, with the pages they are in. Beyond that
/// threads read at most `lists` bytes of the lists of spans and tiles.
fn issued(b: &Bench, s: &Shape, heads: &Heads, i: &Inputs, lists: usize) -> Result<(), String> {
    let Some(c) = b.counted else { return Ok(()) };
    let (mut read, mut written) = (0, 0);
    for tile in heads.prefill_tiles(&i.spans) {
        let span = i.spans[tile.span as usize];
        let first = tile.row as usize;
        let rows = heads.prefill_rows().min(span.len * s.group - first);
        let (low, high) = (span.past + first / s.group, span.past + (first + rows - 1) / s.group);
        let from = if s.window > 0 { (low + 1).saturating_sub(s.window) / 64 * 64 } else { 0 };
        let seen = (high / 64 * 64 + 64).min(span.past + span.len) - from;
        read += rows * s.head_dim * 2 + seen * s.head_dim * 4 + seen.div_ceil(8) * 4;
        written += rows * s.head_dim * 2;
    }
    let (read, written) = ((read * s.kv_heads) as u64, (written * s.kv_heads) as u64);
    if c.written != written || c.read < read || c.read > read + lists as u64 {
        return Err(format!(
            "declared to read {read} bytes and up to {lists} of lists, and to write {written}; \
             counted {} and {}",
            c.read, c.written
        ));
    }
    Ok(())
}

/// Few bank conflicts in the last launch.
fn banks(b: &Bench) -> Result<(), String> {
    match b.counted {
        Some(c) if c.wavefronts as f64 > 1.05 * c.wavefronts_least as f64 => {
            Err(format!("{} passes over banks; {} do", c.wavefronts, c.wavefronts_least))
        }
        _ => Ok(()),
    }
}

fn geometry(g: choose::Geometry) -> Geometry {
    Geometry { grid: g.grid, block: g.block, shared: g.shared }
}

fn compare(b: &mut Bench, store: Store, s: &Shape, i: &Inputs, out: &Matrix) -> Result<(), String> {
    let mut rows = Vec::new();
    for span in &i.spans {
        for t in 0..span.len {
            for h in 0..s.kv_heads * s.group {
                rows.push(row(s, i, span, t, h));
            }
        }
    }
    let heads = s.kv_heads * s.group;
    b.compare(out, |r, c| {
        let (want, size) = rows[r * heads + c / s.head_dim][c % s.head_dim];
        // The weights are rounded to the storage type: half a step of each term.
        (want, store.tolerance(want, size) + size * 0.5 * store.ulp(1.0))
    })
}

/// Output of one head of new token t, with the sum of its terms' magnitudes.
fn row(s: &Shape, i: &Inputs, span: &Span, t: usize, head: usize) -> Vec<(f64, f64)> {
    let position = span.past + t;
    let first = if s.window > 0 { (position + 1).saturating_sub(s.window) } else { 0 };
    let q = &i.q.row(span.start + t)[head * s.head_dim..][..s.head_dim];
    let at = |j: usize| slot(s, &i.pages, span, j, head / s.group);
    let score = |j: usize| {
        let x = q.iter().zip(i.k.row(at(j))).map(|(a, b)| a * b).sum::<f64>() * scale(s);
        if s.softcap > 0.0 { s.softcap * (x / s.softcap).tanh() } else { x }
    };
    let scores: Vec<f64> = (first..=position).map(score).collect();
    let top = scores.iter().copied().fold(f64::MIN, f64::max);
    let total: f64 = scores.iter().map(|x| (x - top).exp()).sum();
    let mut out = vec![(0.0, 0.0); s.head_dim];
    for (x, j) in scores.iter().zip(first..) {
        let weight = (x - top).exp() / total;
        for (sum, v) in out.iter_mut().zip(i.v.row(at(j))) {
            sum.0 += weight * v;
            sum.1 += (weight * v).abs();
        }
    }
    out
}
