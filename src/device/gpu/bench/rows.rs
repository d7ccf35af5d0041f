//! Kernels bound by memory or by a launch's own length, on Llama-3.1-8B's widths.

use super::rig::{Job, Rig};
use super::{Size, Subject};
use crate::device::gpu::abi;
use crate::device::gpu::choose::Geometry;
use crate::device::gpu::registry;
use crate::error::Result;

pub fn subjects(size: Size, list: &mut Vec<Subject>) {
    let (width, wide, vocab) = match size {
        Size::Full => (4096, 14336, 128_256),
        Size::Small => (64, 64, 512),
    };
    let rows: &[usize] = if size == Size::Full { &[1, 128, 4096] } else { &[2] };
    for m in rows.iter().copied() {
        list.push(Subject::new(format!("rmsnorm + residual {m}x{width}"), move |rig| {
            rmsnorm(rig, m, width)
        }));
        list.push(Subject::new(format!("add {m}x{width}"), move |rig| add(rig, m, width)));
        list.push(Subject::new(format!("silu-mul {m}x{wide}"), move |rig| gated(rig, m, wide)));
        list.push(Subject::new(format!("embed {m}x{width}"), move |rig| {
            embed(rig, m, width, vocab)
        }));
        list.push(Subject::new(format!("rope + kv write {m} rows"), move |rig| rope(rig, m)));
    }
    for m in if size == Size::Full { vec![1, 32, 128] } else { vec![1] } {
        for (name, limits) in [("greedy", (0.0, 1.0)), ("top-p", (0.8, 0.9))] {
            list.push(Subject::new(format!("sample {name} {m}x{vocab}"), move |rig| {
                sample(rig, m, vocab, limits)
            }));
        }
        list.push(Subject::new(format!("logprobs top 5 {m}x{vocab}"), move |rig| {
            logprobs(rig, m, vocab)
        }));
    }
}

/// The kernel's block and shared memory on a grid.
fn geometry(symbol: &str, x: usize, y: usize) -> Result<Geometry> {
    let (_, kernel) = registry::kernel(symbol)?;
    let grid = [x as u32, y as u32, 1];
    Ok(Geometry { grid, block: kernel.block, shared: kernel.shared, cluster: 1, early: false })
}

/// Blocks along y of a kernel that gives each of 256 threads eight numbers.
fn pieces(width: usize) -> usize {
    width.div_ceil(8 * 256)
}

fn rmsnorm(rig: &mut Rig<'_>, rows: usize, width: usize) -> Result<Job> {
    let block = width > 1024;
    let symbol = if block { "sm80_bf16_rmsnorm_block1" } else { "sm80_bf16_rmsnorm_warp1" };
    let mut geometry = geometry(symbol, if block { rows } else { rows.div_ceil(4) }, 1)?;
    if block {
        geometry.block = (width / 8).next_multiple_of(32) as u32;
    }
    let stride = width as u32;
    let params = abi::RmsNormParams {
        x: rig.halves(rows * width)?,
        add: rig.halves(rows * width)?,
        weight: rig.halves(width)?,
        out: rig.alloc(rows * width * 2)?,
        rows: rows as u32,
        groups: 1,
        width: width as u32,
        x_stride: stride,
        add_stride: stride,
        out_stride: stride,
        eps: 1e-5,
        offset: 0.0,
    };
    Ok(Job::new(symbol.to_owned(), geometry, &params).least(8 * rows * width + 2 * width, 0))
}

fn add(rig: &mut Rig<'_>, rows: usize, width: usize) -> Result<Job> {
    let symbol = "sm80_bf16_add_vec";
    let params = abi::AddParams {
        x: rig.halves(rows * width)?,
        y: rig.halves(rows * width)?,
        rows: rows as u32,
        width: width as u32,
        x_stride: width as u32,
        y_stride: width as u32,
    };
    let geometry = geometry(symbol, rows, pieces(width))?;
    Ok(Job::new(symbol.to_owned(), geometry, &params).least(6 * rows * width, 0))
}

fn gated(rig: &mut Rig<'_>, rows: usize, width: usize) -> Result<Job> {
    let symbol = "sm80_bf16_gated_vec";
    let params = abi::GatedParams {
        gate_up: rig.halves(rows * 2 * width)?,
        out: rig.alloc(rows * width * 2)?,
        rows: rows as u32,
        width: width as u32,
        gate_up_stride: 2 * width as u32,
        out_stride: width as u32,
        act: 0,
        reserved: 0,
    };
    let geometry = geometry(symbol, rows, pieces(width))?;
    Ok(Job::new(symbol.to_owned(), geometry, &params).least(6 * rows * width, 0))
}

fn embed(rig: &mut Rig<'_>, rows: usize, width: usize, vocab: usize) -> Result<Job> {
    let symbol = "sm80_bf16_embed_vec";
    let tokens: Vec<u32> = (0..rows).map(|r| (r * 7919 % vocab) as u32).collect();
    let params = abi::EmbedParams {
        table: rig.halves(vocab * width)?,
        tokens: rig.words(&tokens)?,
        out: rig.alloc(rows * width * 2)?,
        rows: rows as u32,
        width: width as u32,
        out_stride: width as u32,
        scale: 1.0,
    };
    let geometry = geometry(symbol, rows, pieces(width))?;
    Ok(Job::new(symbol.to_owned(), geometry, &params).least(4 * rows * width + 4 * rows, 0))
}

/// Llama-3.1-8B's heads: 32 of q, 8 of k and v, 128 numbers each.
fn rope(rig: &mut Rig<'_>, rows: usize) -> Result<Job> {
    let (symbol, heads, kv_heads, dim, page) = ("sm80_bf16_rope_vec", 32, 8, 128, 16);
    let slots: Vec<u32> = (0..rows as u32).collect();
    let cache = rows.next_multiple_of(page) * kv_heads * dim;
    let (q, kv) = (heads * dim, kv_heads * dim);
    let params = abi::RopeParams {
        q: rig.halves(rows * q)?,
        k: rig.halves(rows * kv)?,
        v: rig.halves(rows * kv)?,
        angles: rig.floats(rows * dim * 2)?,
        k_pages: rig.alloc(cache * 2)?,
        v_pages: rig.alloc(cache * 2)?,
        slots: rig.words(&slots)?,
        rows: rows as u32,
        heads: heads as u32,
        kv_heads: kv_heads as u32,
        head_dim: dim as u32,
        half: dim as u32 / 2,
        page_size: page as u32,
        q_stride: q as u32,
        k_stride: kv as u32,
        v_stride: kv as u32,
        ..Default::default()
    };
    let items = (heads + kv_heads) * dim / 2 / 8 + kv / 8;
    let geometry = geometry(symbol, rows, items.div_ceil(128))?;
    let bytes = rows * (4 * q + 8 * kv + 4 * dim);
    Ok(Job::new(symbol.to_owned(), geometry, &params).least(bytes, 0))
}

fn sample(
    rig: &mut Rig<'_>,
    rows: usize,
    vocab: usize,
    (temperature, top_p): (f32, f32),
) -> Result<Job> {
    let symbol = "sm80_f32_sample";
    let row = abi::SampleRow { temperature, top_p, repetition: 1.0, ..Default::default() };
    let settings: Vec<u8> = (0..=rows).flat_map(|_| registry::param_bytes(&row).to_vec()).collect();
    let params = abi::SampleParams {
        logits: rig.floats(rows * vocab)?,
        settings: rig.upload(&settings)?,
        changes: 0,
        tokens: rig.alloc(rows * 4)?,
        rows: rows as u32,
        vocab: vocab as u32,
        stride: vocab as u32,
        reserved: 0,
    };
    let geometry = geometry(symbol, rows, 1)?;
    Ok(Job::new(symbol.to_owned(), geometry, &params).least(4 * rows * vocab, 0))
}

fn logprobs(rig: &mut Rig<'_>, rows: usize, vocab: usize) -> Result<Job> {
    let (symbol, top) = ("sm80_f32_logprobs", 5);
    let params = abi::LogprobsParams {
        logits: rig.floats(rows * vocab)?,
        targets: rig.words(&vec![1; rows])?,
        target_out: rig.alloc(rows * 4)?,
        top_tokens: rig.alloc(rows * top * 4)?,
        top_out: rig.alloc(rows * top * 4)?,
        settings: 0,
        rows: rows as u32,
        vocab: vocab as u32,
        stride: vocab as u32,
        top: top as u32,
    };
    let geometry = geometry(symbol, rows, 1)?;
    Ok(Job::new(symbol.to_owned(), geometry, &params).least(4 * rows * vocab, 0))
}
