//! Products: GEMM, GEMV, attention, quantised weights.

use super::{HALVES, Module, Target, Variant};

pub fn modules() -> Vec<Module> {
    vec![
        Module::new("gemm", Target::Sm80, gemm("gemm", "gemm_mma", "GemmParams", &TILES)),
        // The same code with programmatic dependent launch: weights before the wait.
        Module::new("gemm", Target::Sm90a, gemm("gemm", "gemm_mma", "GemmParams", &TILES)),
        Module::new("gemm_wgmma", Target::Sm90a, wgmma()),
        Module::new("ceiling_wgmma", Target::Sm90a, vec![ceiling()]),
        Module::new("grouped_gemm", Target::Sm80, grouped()),
        Module::new("quant_gemm", Target::Sm80, quant()),
        Module::new("attention_decode", Target::Sm80, decode()),
        Module::new("attention_prefill", Target::Sm80, prefill()),
        Module::new("attention_prefill_wgmma", Target::Sm90a, prefill_wgmma()),
    ]
}

/// A block's tile of a product on tensor cores: the arguments of `gemm::Config`.
struct Tile {
    bm: u32,
    bn: u32,
    wm: u32,
    wn: u32,
    stages: u32,
    gated: bool,
    registers: u32,
}

const fn tile(b: [u32; 2], w: [u32; 2], stages: u32, gated: bool, registers: u32) -> Tile {
    Tile { bm: b[0], bn: b[1], wm: w[0], wn: w[1], stages, gated, registers }
}

/// From a GEMV that fills a card with narrow tiles to a GEMM.
const TILES: [Tile; 8] = [
    tile([16, 16], [16, 8], 16, false, 48),
    tile([16, 32], [16, 8], 12, false, 48),
    tile([16, 64], [16, 16], 8, true, 64),
    tile([32, 64], [32, 16], 8, false, 64),
    tile([64, 64], [32, 32], 6, false, 96),
    tile([64, 64], [32, 32], 6, true, 96),
    tile([128, 128], [64, 32], 3, false, 128),
    tile([128, 128], [64, 32], 3, true, 128),
];

impl Tile {
    fn threads(&self) -> u32 {
        32 * (self.bm / self.wm) * (self.bn / self.wn)
    }

    /// Columns of the output.
    fn out(&self) -> u32 {
        if self.gated { self.bn / 2 } else { self.bn }
    }

    /// `gemm::Config::kShared`: the ring, or the result that takes its place.
    fn shared(&self) -> u32 {
        let ring = self.stages * (self.bm + self.bn) * 128;
        ring.max(self.bm * (self.out() + 8) * 4)
    }
}

fn gemm(stem: &str, call: &str, params: &'static str, tiles: &[Tile]) -> Vec<Variant> {
    let mut all = Vec::new();
    for (name, ty) in HALVES {
        for t in tiles {
            let Tile { bm, bn, wm, wn, stages, gated, registers } = *t;
            let gate = if gated { "_gated" } else { "" };
            let call = format!("{call}<{ty}, {bm}, {bn}, {wm}, {wn}, {stages}, {gated}>");
            let symbol = format!("{name}_{stem}_{bm}x{}{gate}", t.out());
            let about = format!("dtype={name} rows={bm} columns={} gated={gated}", t.out());
            let v = Variant::new(symbol, call, params).block(t.threads()).registers(registers);
            all.push(v.shared(t.shared()).about(about));
        }
    }
    all
}

/// Tiles of 128 rows; columns of products, stages of the ring, gated, blocks of a cluster.
const WGMMA_TILES: [(u32, u32, bool, u32); 5] = [
    (128, 6, false, 2),
    (256, 4, false, 2),
    (256, 4, true, 2),
    (256, 4, false, 4),
    (256, 4, true, 4),
];

fn wgmma() -> Vec<Variant> {
    let mut all = Vec::new();
    for (name, ty) in HALVES {
        for (bn, stages, gated, cluster) in WGMMA_TILES {
            let (gate, out) = if gated { ("_gated", bn / 2) } else { ("", bn) };
            // Alignment, the ring, results of eight warps, barriers.
            let shared = 1024 + stages * (128 + bn) * 128 + 8 * 16 * 40 * 4 + stages * 16;
            let call = format!("gemm_wgmma<{ty}, {bn}, {stages}, {gated}, {cluster}>");
            let four = if cluster == 4 { "_by4" } else { "" };
            let symbol = format!("{name}_gemm_wgmma_128x{out}{gate}{four}");
            let about =
                format!("dtype={name} rows=128 columns={out} gated={gated} cluster={cluster}");
            let v = Variant::new(symbol, call, "WgmmaGemmParams").block(384).blocks_per_sm(1);
            let v = v.cluster(cluster).registers(168).shared(shared).sass(&["HGMMA"]).about(about);
            all.push(v);
        }
    }
    all
}

/// `flops`: operations of a warp in a round; `blocks`: of a multiprocessor.
fn ceiling() -> Variant {
    let v = Variant::new("bf16_ceiling_wgmma", "ceiling_wgmma<bf16>", "CeilingParams");
    let v = v.registers(232).shared(1024 + 256 * 128).sass(&["HGMMA"]);
    v.about("wgmma of shared memory: flops=524288 blocks=1")
}

fn grouped() -> Vec<Variant> {
    let tiles = [
        tile([16, 32], [16, 8], 12, false, 48),
        tile([16, 64], [16, 16], 8, true, 64),
        tile([64, 64], [32, 32], 6, false, 96),
        tile([64, 64], [32, 32], 6, true, 96),
    ];
    gemm("grouped_gemm", "grouped_gemm_mma", "GroupedGemmParams", &tiles)
}

/// Formats of `quant_gemm.cu`: name, number in the template, bytes of a group of 8 × 64 weights.
const FORMATS: [(&str, u32, u32); 3] = [("q8_0", 0, 544), ("q4_0", 1, 288), ("q4_1", 2, 320)];

fn quant() -> Vec<Variant> {
    let tiles = [
        tile([16, 32], [16, 8], 12, false, 64),
        tile([16, 64], [16, 16], 8, true, 96),
        tile([64, 64], [32, 32], 6, false, 168),
        tile([64, 64], [32, 32], 6, true, 168),
    ];
    let mut all = Vec::new();
    for (name, ty) in HALVES {
        for (format, number, group) in FORMATS {
            for t in &tiles {
                let Tile { bm, bn, wm, wn, stages, gated, registers } = *t;
                let gate = if gated { "_gated" } else { "" };
                let stage = (bm * 128 + bn / 8 * group).next_multiple_of(128);
                let shared = (stages * stage).max(bm * (t.out() + 8) * 4);
                let sizes = format!("{bm}, {bn}, {wm}, {wn}, {stages}, {gated}, {number}");
                let call = format!("quant_gemm<{ty}, {sizes}>");
                let symbol = format!("{name}_{format}_gemm_{bm}x{}{gate}", t.out());
                let columns = t.out();
                let about = format!(
                    "dtype={name} weights={format} rows={bm} columns={columns} gated={gated}"
                );
                let v = Variant::new(symbol, call, "GemmParams").block(t.threads());
                all.push(v.registers(registers).shared(shared).about(about));
            }
        }
    }
    all
}

/// Head sizes of attention. Those up to 32 are for small test models.
const HEAD_DIMS: [u32; 8] = [16, 24, 32, 64, 80, 96, 128, 256];

/// Bytes of 64 tokens of K or V, in panels of 64 columns.
fn slot(head_dim: u32) -> u32 {
    head_dim.div_ceil(64) * 8192
}

fn decode() -> Vec<Variant> {
    let mut all = Vec::new();
    for (name, ty) in HALVES {
        for d in HEAD_DIMS {
            let slots = if d > 128 { 4 } else { 6 };
            // The ring, 16 rows of q, the exchanged scores, page addresses and a flag.
            let shared = slots * slot(d) + d.div_ceil(64) * 2048 + 16 * 72 * 4 + 4 * 8 * 4 + 16;
            let call = format!("attention_decode<{ty}, {d}, {slots}>");
            let symbol = format!("{name}_attention_decode_{d}");
            let v = Variant::new(symbol, call, "AttentionParams").block(128).registers(184);
            let about = format!("dtype={name} head_dim={d} rows=16 split=256");
            // Told that two blocks share a multiprocessor, ptxas takes the registers it needs.
            all.push(v.blocks_per_sm(2).shared(shared).about(about));
        }
    }
    all
}

/// Two warpgroups of 64 rows beside the one that copies.
fn prefill_wgmma() -> Vec<Variant> {
    let mut all = Vec::new();
    for (name, ty) in HALVES {
        for d in [64, 128] {
            let (rows, slots) = (128, 8);
            let total = if d > 64 { rows * d * 4 } else { 0 };
            // Alignment, the ring, q, the total of the splits, barriers.
            let shared = 1024 + slots * slot(d) + d / 64 * rows * 128 + total + 2 * slots * 8;
            let call = format!("attention_prefill_wgmma<{ty}, {d}, {slots}>");
            let symbol = format!("{name}_attention_prefill_wgmma_{d}");
            let v = Variant::new(symbol, call, "WgmmaAttentionParams").block(384);
            let v = v.blocks_per_sm(1).registers(168).shared(shared).sass(&["HGMMA"]);
            all.push(v.about(format!("dtype={name} head_dim={d} rows={rows}")));
        }
    }
    all
}

fn prefill() -> Vec<Variant> {
    let mut all = Vec::new();
    for (name, ty) in HALVES {
        for d in HEAD_DIMS {
            let (warps, slots) = match d {
                32 => (4, 4),
                256 => (4, 2),
                _ => (8, 4),
            };
            let rows = warps * 16;
            let total = if d > 128 { rows * d * 4 } else { 0 };
            let shared = slots * slot(d) + d.div_ceil(64) * rows * 128 + total + 4 * 8 * 4;
            let call = format!("attention_prefill<{ty}, {d}, {warps}, {slots}>");
            let symbol = format!("{name}_attention_prefill_{d}");
            let v = Variant::new(symbol, call, "AttentionParams").block(32 * warps).registers(255);
            let about = format!("dtype={name} head_dim={d} rows={rows}");
            all.push(v.shared(shared).about(about));
        }
    }
    all
}
