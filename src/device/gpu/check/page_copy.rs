//! page_copy.cu.

use super::{Bench, Case, Geometry, Rng, Store, Traffic};
use crate::device::gpu::abi;

const LAYERS: usize = 2;
const PAGES: usize = 4;
const PAGE: usize = 16;

pub fn cases(list: &mut Vec<Case>) {
    for (form, kv_heads, head_dim, tokens) in
        [("vec", 2, 64, 5), ("vec", 1, 80, 16), ("vec", 3, 128, 1), ("any", 2, 20, 7)]
    {
        let name = format!("page_copy {form} {tokens} slots, {kv_heads} heads of {head_dim}");
        list.push(Case::new(name, move |b| check(b, form, kv_heads, head_dim, tokens)));
    }
}

fn check(
    b: &mut Bench,
    form: &str,
    kv_heads: usize,
    head_dim: usize,
    tokens: usize,
) -> Result<(), String> {
    let (from, to) = (2usize, 1usize);
    let rows = PAGES * kv_heads * PAGE;
    let mut pools = Vec::new();
    for seed in 0..2 * LAYERS as u64 {
        let values = Rng::new(seed).values(rows * head_dim);
        pools.push(b.input(Store::Bf16, head_dim, 0, &values)?);
    }
    let addresses = |of: usize| -> Vec<u8> {
        (0..LAYERS).flat_map(|l| pools[2 * l + of].address.to_le_bytes()).collect()
    };
    let params = abi::PageCopyParams {
        k_layers: b.upload(&addresses(0))?,
        v_layers: b.upload(&addresses(1))?,
        from: from as u32,
        to: to as u32,
        tokens: tokens as u32,
        kv_heads: kv_heads as u32,
        page_size: PAGE as u32,
        head_dim: head_dim as u32,
    };
    let geometry = Geometry::new(LAYERS, 128).y(kv_heads).z(2);
    let moved = LAYERS * kv_heads * tokens * head_dim * 4;
    // Each thread that copies reads its layer's address.
    let piece = if form == "vec" { 8 } else { 1 };
    let threads = (tokens * head_dim / piece).min(128);
    let read = moved + LAYERS * kv_heads * 2 * threads * 8;
    let symbol = format!("sm80_b16_page_copy_{form}");
    b.launch(&symbol, geometry, &params, Some(Traffic { read, written: moved }))?;
    for pool in &pools {
        b.compare(pool, |r, c| {
            let (page, slot) = (r / (kv_heads * PAGE), r % PAGE);
            let copied = page == to && slot < tokens;
            let source = if copied { r + (from - to) * kv_heads * PAGE } else { r };
            (pool.row(source)[c], 0.0)
        })?;
    }
    Ok(())
}
