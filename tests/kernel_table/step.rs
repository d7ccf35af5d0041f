//! A decode step of batch 1 as the sum of its launches, beside the time its bytes take.

use std::sync::Arc;

use pacer::device::Limits;
use pacer::device::gpu::driver::emulated::Emulated;
use pacer::device::gpu::{GpuDevice, GpuOptions, abi};
use pacer::engine::model::Model;
use pacer::engine::options::{LoadFormat, ModelOptions};
use pacer_emulator::card::H100_SXM;
use pacer_emulator::host::Config;

use crate::launches::{HEADS, SMALL_HEADS, attention_decode, gemm, rows};

/// A model's sizes, and what others need for a step.
struct Sizes {
    name: &'static str,
    layers: usize,
    hidden: usize,
    wide: usize,
    qkv: usize,
    vocab: usize,
    others: &'static str,
}

const MODELS: [Sizes; 2] = [
    Sizes {
        name: "Llama-3.1-8B",
        layers: 32,
        hidden: 4096,
        wide: 14336,
        qkv: 6144,
        vocab: 128_256,
        others: "SGLang about 7, torch.compile 6.4; aim 5.0",
    },
    Sizes {
        name: "Llama-3.2-1B",
        layers: 16,
        hidden: 2048,
        wide: 8192,
        qkv: 3072,
        vocab: 128_256,
        others: "aim 0.95",
    },
];
const CONTEXT: usize = 1024;

/// Launches of a step: those outside layers, and of a layer; counted on a small model of the same
/// architecture as the device prepares it.
fn launches() -> (usize, usize) {
    let count = |layers: usize| {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/bench/gpu/configs/tiny");
        let options = ModelOptions {
            path: Some(folder.to_owned()),
            format: LoadFormat::Dummy,
            overrides: Some(serde_json::json!({ "num_hidden_layers": layers })),
            ..ModelOptions::default()
        };
        let model = Model::open(&options).expect("a configuration");
        let device = GpuDevice::new(
            Arc::new(Emulated::new(Config::default())),
            GpuOptions { graph_sizes: Some(1), ..GpuOptions::default() },
        );
        let limits = Limits {
            step_tokens: 1,
            step_sequences: 1,
            logit_rows: 1,
            pages: 2,
            page_size: 16,
            context: 32,
        };
        let loaded = device
            .expect("a device")
            .load(&model.plan, &model.weights, &limits, &mut |_, _| {})
            .expect("a model");
        loaded.launches()
    };
    let (one, two) = (count(1), count(2));
    (2 * one - two, two - one)
}

/// Seconds of a layer's small kernels: two norms with residual, and rotation with the cache write.
fn small(hidden: usize) -> f64 {
    let width = hidden as u32;
    let block = width / 8;
    let norm = rows("", "sm80_bf16_rmsnorm_block1", ([1, 1, 1], block), 8 * hidden, |b| {
        abi::RmsNormParams {
            x: b.halves(hidden),
            add: b.halves(hidden),
            weight: b.halves(hidden),
            out: b.alloc(2 * hidden),
            rows: 1,
            groups: 1,
            width,
            x_stride: width,
            add_stride: width,
            out_stride: width,
            eps: 1e-5,
            offset: 0.0,
        }
    });
    let heads: (usize, usize, usize) = (32, 8, if hidden == 4096 { 128 } else { 64 });
    let items = (heads.0 + heads.1) * heads.2 / 16 + heads.1 * heads.2 / 8;
    let grid = [1, items.div_ceil(128) as u32, 1];
    let bytes = 4 * heads.0 * heads.2 + 8 * heads.1 * heads.2;
    let rope = rows("", "sm80_bf16_rope_vec", (grid, 128), bytes, |b| abi::RopeParams {
        q: b.halves(heads.0 * heads.2),
        k: b.halves(heads.1 * heads.2),
        v: b.halves(heads.1 * heads.2),
        angles: b.halves(heads.2 * 16),
        k_pages: b.alloc(heads.1 * heads.2 * 32),
        v_pages: b.alloc(heads.1 * heads.2 * 32),
        slots: b.words(&[3]),
        rows: 1,
        heads: heads.0 as u32,
        kv_heads: heads.1 as u32,
        head_dim: heads.2 as u32,
        half: heads.2 as u32 / 2,
        page_size: 16,
        q_stride: (heads.0 * heads.2) as u32,
        k_stride: (heads.1 * heads.2) as u32,
        v_stride: (heads.1 * heads.2) as u32,
        ..Default::default()
    });
    2.0 * norm.seconds + rope.seconds
}

pub fn table() -> String {
    let (outside, layer) = launches();
    let mut text = String::from(
        "| model, bf16, batch 1, 1,024 tokens | launches | GB least | floor at 3.35 TB/s, ms | \
         projected step, ms | of it products | others, measured by them, ms |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for m in MODELS {
        let product = |n, k, gated| gemm("", (1, n, k, gated), None).seconds;
        let products = product(m.qkv, m.hidden, false)
            + product(m.hidden, m.hidden, false)
            + product(m.wide, m.hidden, true)
            + product(m.hidden, m.wide, false);
        let head = product(m.vocab, m.hidden, false);
        let heads = if m.hidden == 4096 { HEADS } else { SMALL_HEADS };
        let attention = attention_decode("", heads, 1, CONTEXT - 1).seconds;
        let each = products + attention + small(m.hidden);
        let layers = m.layers as f64;
        // What stands outside layers beside the last product: each at least a launch long.
        let rest = (outside as f64 - 1.0) * 2e-6;
        let seconds = layers * each + head + rest;
        let weights = m.layers * (m.qkv * m.hidden + m.hidden * m.hidden + 3 * m.wide * m.hidden)
            + m.vocab * m.hidden;
        let cache = m.layers * CONTEXT * 8 * if m.hidden == 4096 { 128 } else { 64 } * 2;
        let bytes = 2.0 * (weights + cache) as f64;
        text += &format!(
            "| {} | {} | {:.2} | {:.2} | projected {:.2} | {:.0} % | {} |\n",
            m.name,
            outside + m.layers * layer,
            bytes / 1e9,
            bytes / H100_SXM.memory_bandwidth * 1e3,
            seconds * 1e3,
            100.0 * (layers * products + head) / seconds,
            m.others
        );
    }
    text
}
