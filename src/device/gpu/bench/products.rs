//! Products and attention on the layers of Llama-3.1-8B and Llama-3.2-1B.

use super::rig::{Job, Rig};
use super::{Size, Subject};
use crate::device::Span;
use crate::device::gpu::choose::attention::{Heads, max_splits};
use crate::device::gpu::choose::gemm::{Choice, Product, choose, choose_quant, rank};
use crate::device::gpu::choose::{Card, Half};
use crate::device::gpu::quant::Packing;
use crate::device::gpu::{abi, choose};
use crate::error::{Error, Result};
use crate::types::Dtype;

/// Name, n, k, gated.
type Layer = (&'static str, usize, usize, bool);

const LAYERS_8B: [Layer; 5] = [
    ("8B qkv", 6144, 4096, false),
    ("8B o", 4096, 4096, false),
    ("8B gate-up", 14336, 4096, true),
    ("8B down", 4096, 14336, false),
    ("8B lm_head", 128_256, 4096, false),
];
const LAYERS_1B: [Layer; 5] = [
    ("1B qkv", 3072, 2048, false),
    ("1B o", 2048, 2048, false),
    ("1B gate-up", 8192, 2048, true),
    ("1B down", 2048, 8192, false),
    ("1B lm_head", 128_256, 2048, false),
];
/// A ladder of rows that published kernels are compared on.
const LADDER: Layer = ("ladder", 2112, 7168, false);
const TINY: [Layer; 2] = [("tiny", 64, 128, false), ("tiny gated", 32, 64, true)];

fn product(m: usize, (_, n, k, gated): Layer) -> Product {
    Product { half: Half::Bf16, m, n, k, gated }
}

/// Layers and the rows that each is timed with.
fn shapes(size: Size) -> Vec<(Layer, Vec<usize>)> {
    if size == Size::Small {
        return TINY.into_iter().map(|l| (l, vec![1, 70])).collect();
    }
    let mut list = Vec::new();
    list.extend(LAYERS_8B.into_iter().map(|l| match l.0 {
        "8B lm_head" => (l, vec![1, 8, 32, 128]),
        _ => (l, vec![1, 8, 32, 128, 512, 4096]),
    }));
    list.extend(LAYERS_1B.into_iter().map(|l| (l, vec![1, 8])));
    list.push((LADDER, (0..14).map(|i| 1 << i).collect()));
    list
}

/// The tile that is chosen, and with many rows also the best of the other instruction.
pub fn gemm(size: Size, card: &Card, list: &mut Vec<Subject>) {
    for (layer, rows) in shapes(size) {
        for m in rows {
            let p = product(m, layer);
            let Ok(ranked) = rank(&p, card) else { continue };
            let mut shown: Vec<Choice> = Vec::new();
            for wgmma in [false, true] {
                shown.extend(ranked.iter().find(|c| c.tile.wgmma == wgmma).cloned());
            }
            if m < 512 && size == Size::Full {
                shown.retain(|c| choose(&p, card).is_ok_and(|best| best.symbol == c.symbol));
            }
            for choice in shown {
                let name = format!("gemm {} {m}x{}x{}", layer.0, p.n, p.k);
                list.push(Subject::new(name, move |rig| gemm_job(rig, &p, &choice)));
            }
        }
    }
}

fn gemm_job(rig: &mut Rig<'_>, p: &Product, choice: &Choice) -> Result<Job> {
    let rows_w = if p.gated { 2 * p.n } else { p.n };
    let (x, w) = (rig.halves(p.m * p.k)?, rig.halves(rows_w * p.k)?);
    let gemm = abi::GemmParams {
        x,
        w,
        y: rig.alloc(p.m * p.n * 2)?,
        bias: 0,
        residual: 0,
        m: p.m as u32,
        n: p.n as u32,
        k: p.k as u32,
        x_stride: p.k as u32,
        y_stride: p.n as u32,
        residual_stride: 0,
        act: 0,
        out_f32: 0,
    };
    let job = if choice.tile.wgmma {
        let x_map = rig.tensor_map(x, p.m, p.k, 128)?;
        let w_map = rig.tensor_map(w, rows_w, p.k, 64)?;
        let params = abi::WgmmaGemmParams { x_map, w_map, gemm, reserved: [0; 14] };
        Job::new(choice.symbol.clone(), choice.geometry, &params)
    } else {
        Job::new(choice.symbol.clone(), choice.geometry, &gemm)
    };
    let bytes = 2 * (rows_w * p.k + p.m * p.k + p.m * p.n);
    Ok(job.least(bytes, 2 * p.m * rows_w * p.k))
}

/// Packed weights: what a quantised model's decode step reads.
pub fn quant(size: Size, card: &Card, list: &mut Vec<Subject>) {
    let layer = if size == Size::Small { TINY[0] } else { LAYERS_8B[3] };
    let rows: &[usize] = if size == Size::Small { &[1] } else { &[1, 8, 128] };
    for dtype in [Dtype::Q8_0, Dtype::Q4_0, Dtype::Q4_1] {
        for m in rows.iter().copied() {
            let card = *card;
            let name = format!("quant {} {} {m}x{}x{}", dtype.name(), layer.0, layer.1, layer.2);
            list.push(Subject::new(name, move |rig| quant_job(rig, m, layer, dtype, &card)));
        }
    }
}

fn quant_job(rig: &mut Rig<'_>, m: usize, layer: Layer, dtype: Dtype, card: &Card) -> Result<Job> {
    let p = product(m, layer);
    let packing = Packing::of(dtype).ok_or_else(|| Error::unsupported("no packing"))?;
    let choice = choose_quant(&p, packing, card)?;
    let weights = packing.bytes(p.n, p.k);
    let params = abi::GemmParams {
        x: rig.halves(p.m * p.k)?,
        // Zero scales, so that no sum leaves the range; the time does not depend on them.
        w: rig.upload(&vec![0; weights])?,
        y: rig.alloc(p.m * p.n * 2)?,
        m: p.m as u32,
        n: p.n as u32,
        k: p.k as u32,
        x_stride: p.k as u32,
        y_stride: p.n as u32,
        ..Default::default()
    };
    let job = Job::new(choice.symbol.clone(), choice.geometry, &params);
    Ok(job.least(weights + 2 * (p.m * p.k + p.m * p.n), 2 * p.m * p.n * p.k))
}

/// Llama-3.1-8B's heads, and Llama-3.2-1B's.
const HEADS_8B: Heads = Heads { half: Half::Bf16, heads: 32, kv_heads: 8, head_dim: 128 };
const HEADS_1B: Heads = Heads { half: Half::Bf16, heads: 32, kv_heads: 8, head_dim: 64 };
const PAGE: usize = 16;

/// Sequences, new tokens and past tokens of each.
type Load = (usize, usize, usize);

pub fn attention(size: Size, card: &Card, list: &mut Vec<Subject>) {
    let (heads, decodes, prefills): (Vec<(&str, Heads)>, Vec<Load>, Vec<Load>) = match size {
        Size::Small => {
            let few = Heads { heads: 4, kv_heads: 2, ..HEADS_1B };
            (vec![("tiny", few)], vec![(2, 1, 70)], vec![(1, 40, 0)])
        }
        Size::Full => (
            vec![("8B", HEADS_8B), ("1B", HEADS_1B)],
            vec![(1, 1, 127), (1, 1, 4095), (8, 1, 4095), (32, 1, 1023), (128, 1, 4095)],
            vec![(1, 1024, 0), (1, 4096, 0), (1, 8192, 0), (8, 1024, 0), (1, 2048, 30_720)],
        ),
    };
    for (name, heads) in heads {
        for (load, decode) in
            decodes.iter().map(|l| (*l, true)).chain(prefills.iter().map(|l| (*l, false)))
        {
            let (spans, len, past) = load;
            let kind = if decode { "decode" } else { "prefill" };
            let name = format!("attention {kind} {name} {spans}x{len} after {past}");
            let card = *card;
            if decode {
                list.push(Subject::new(name, move |rig| decode_job(rig, &heads, load, &card)));
                continue;
            }
            list.push(Subject::new(name.clone(), move |rig| {
                prefill_job(rig, &heads, load, &card, false)
            }));
            if card.capability == (9, 0) {
                let wgmma = move |rig: &mut Rig<'_>| prefill_job(rig, &heads, load, &card, true);
                list.push(Subject::new(name, wgmma));
            }
        }
    }
}

/// Queries, a cache whose pages are out of order, and room for the result.
fn attention_params(
    rig: &mut Rig<'_>,
    heads: &Heads,
    (spans, len, past): Load,
) -> Result<(abi::AttentionParams, usize)> {
    let each = (len + past).div_ceil(PAGE);
    let count = spans * each;
    // A step that has no factor in common with the count visits every page once.
    let step = (count / 2 + 1..).find(|s| gcd(*s, count) == 1).unwrap_or(1);
    let pages: Vec<u32> = (0..count).map(|i| (i * step % count) as u32).collect();
    let words: Vec<u32> =
        (0..spans).flat_map(|s| [s * len, len, past, s * each].map(|n| n as u32)).collect();
    let width = heads.heads * heads.head_dim;
    let slots = count * PAGE * heads.kv_heads;
    let params = abi::AttentionParams {
        q: rig.halves(spans * len * width)?,
        k: rig.halves(slots * heads.head_dim)?,
        v: rig.halves(slots * heads.head_dim)?,
        out: rig.alloc(spans * len * width * 2)?,
        spans: rig.words(&words)?,
        pages: rig.words(&pages)?,
        q_stride: width as u32,
        out_stride: width as u32,
        kv_heads: heads.kv_heads as u32,
        group: heads.group() as u32,
        page_size: PAGE as u32,
        scale: 1.0 / (heads.head_dim as f32).sqrt(),
        ..Default::default()
    };
    Ok((params, slots))
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Bytes of queries, results, keys and values once, and two products of every pair that is seen.
fn least(job: Job, heads: &Heads, (spans, len, past): Load) -> Job {
    let rows = 2 * len * heads.heads * heads.head_dim;
    let cache = 2 * (len + past) * heads.kv_heads * heads.head_dim;
    let pairs = len * past + len * (len + 1) / 2;
    let flops = 4 * pairs * heads.heads * heads.head_dim;
    job.least(spans * 2 * (rows + cache), spans * flops)
}

fn decode_job(rig: &mut Rig<'_>, heads: &Heads, load: Load, card: &Card) -> Result<Job> {
    let (spans, len, past) = load;
    let choice = heads.decode(spans, len, len + past, card)?;
    let (mut params, _) = attention_params(rig, heads, load)?;
    params.span_tiles = heads.span_tiles(len) as u32;
    params.max_splits = max_splits(len + past) as u32;
    params.partial = rig.alloc(heads.partial_bytes(spans, len, len + past))?;
    let counters = spans * heads.span_tiles(len) * heads.kv_heads;
    params.counters = rig.words(&vec![0; counters])?;
    Ok(least(Job::new(choice.symbol, choice.geometry, &params), heads, load))
}

fn prefill_job(
    rig: &mut Rig<'_>,
    heads: &Heads,
    load: Load,
    card: &Card,
    wgmma: bool,
) -> Result<Job> {
    let (spans, len, past) = load;
    let list: Vec<Span> =
        (0..spans).map(|s| Span { start: s * len, len, past, pages_start: 0 }).collect();
    let tiles = heads.prefill_tiles(&list);
    let (mut params, slots) = attention_params(rig, heads, load)?;
    params.tiles = rig.words(&tiles.iter().flat_map(|t| [t.span, t.row]).collect::<Vec<u32>>())?;
    if !wgmma {
        let choose::attention::Choice { symbol, geometry } = heads.prefill(tiles.len(), card)?;
        return Ok(least(Job::new(symbol, geometry, &params), heads, load));
    }
    let choose::attention::Choice { symbol, geometry } = heads.prefill_wgmma(tiles.len(), card)?;
    let all = abi::WgmmaAttentionParams {
        k_map: rig.tensor_map(params.k, slots, heads.head_dim, 8)?,
        v_map: rig.tensor_map(params.v, slots, heads.head_dim, 8)?,
        attention: params,
        reserved: [0; 4],
    };
    Ok(least(Job::new(symbol, geometry, &all), heads, load))
}
