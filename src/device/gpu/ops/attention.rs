//! Attention over pages: the decode kernel where every sequence brings one token, else the prefill
//! kernel (`cuda/attention_decode.cu`, `cuda/attention_prefill.cu`). Both compute the same bits.

use crate::device::gpu::abi;
use crate::device::gpu::choose::attention::HEAD_DIMS;
use crate::device::gpu::driver::DevicePtr;
use crate::device::gpu::inputs::Counts;
use crate::device::gpu::kernels::Kernel;
use crate::device::gpu::launch::{Launchable, Prepare, Step, Tensor};
use crate::error::{Error, Result};
use crate::model::plan::Op;

/// Tokens of a split, and rows of a block of the decode kernel.
const SPLIT: u32 = 256;
const ROWS: u32 = 16;
/// Blocks of the decode kernel that an SM holds, as it is compiled.
const BLOCKS_PER_SM: u32 = 2;

/// Rows of a prefill block for heads of that size.
pub fn tile_rows(head_dim: usize) -> usize {
    match head_dim {
        32 | 256 => 64,
        _ => 128,
    }
}

/// Blocks along the sequence: as many as there are splits, fewer where the card is full without.
/// Splits and their order follow from positions alone, so this changes no bits.
pub fn splits(deepest: u32, others: u32, sms: u32) -> u32 {
    let useful = deepest.div_ceil(SPLIT).max(1);
    let room = (BLOCKS_PER_SM * sms).div_ceil(others.max(1)).max(1);
    useful.min(room)
}

/// Attention of one layer.
pub struct Attention {
    decode: Kernel,
    prefill: Kernel,
    q: Tensor,
    out: Tensor,
    pages: (DevicePtr, DevicePtr),
    inputs: [DevicePtr; 3],
    partial: DevicePtr,
    counters: DevicePtr,
    kv_heads: u32,
    group: u32,
    head_dim: u32,
    page_size: u32,
    window: u32,
    scale: f32,
    softcap: f32,
    max_splits: u32,
    sms: u32,
}

impl Attention {
    pub fn new(p: &mut Prepare<'_>, op: &Op) -> Result<Self> {
        let Op::Attention {
            q, out, layer, heads, kv_heads, head_dim, scale, softcap, window, ..
        } = op
        else {
            return Err(Error::unsupported("not attention"));
        };
        if !HEAD_DIMS.contains(head_dim) {
            return Err(Error::unsupported(format!(
                "head_dim {head_dim}: the GPU's attention has kernels for {HEAD_DIMS:?}"
            )));
        }
        let (q, out) = (p.tensor(q), p.tensor(out));
        if !q.is_wide() || !p.limits.page_size.is_multiple_of(8) {
            return Err(Error::unsupported(format!(
                "pages of {} tokens and rows of {} numbers: the GPU's attention needs multiples \
                 of 8 (--page-size)",
                p.limits.page_size, q.stride
            )));
        }
        let named = |p: &mut Prepare<'_>, form: &str| {
            p.kernels.half(&format!("attention_{form}_{head_dim}"))
        };
        let (decode, prefill) = (named(p, "decode")?, named(p, "prefill")?);
        let group = (heads / kv_heads) as u32;
        let max_splits = (p.limits.context as u32).div_ceil(SPLIT);
        let blocks = p.limits.step_sequences as u64 * u64::from(group.div_ceil(ROWS));
        let tiles = blocks * *kv_heads as u64;
        let each = u64::from(ROWS) * (*head_dim as u64 + 2) * 4;
        let partial = p.scratch("attention partials", tiles * u64::from(max_splits) * each)?;
        let counters = p.scratch("attention counters", tiles * 4)?;
        Ok(Attention {
            decode,
            prefill,
            q,
            out,
            pages: p.kv[*layer],
            inputs: [p.inputs.spans(), p.inputs.pages(), p.inputs.tiles()],
            partial,
            counters,
            kv_heads: *kv_heads as u32,
            group,
            head_dim: *head_dim as u32,
            page_size: p.limits.page_size as u32,
            window: window.unwrap_or(0) as u32,
            scale: *scale,
            softcap: softcap.unwrap_or(0.0),
            max_splits,
            sms: p.sms,
        })
    }
}

impl Launchable for Attention {
    fn launch(&self, step: &mut Step<'_>) -> Result<()> {
        let counts = step.counts;
        let span_tiles = self.group.div_ceil(ROWS);
        let params = abi::AttentionParams {
            q: self.q.address,
            k: self.pages.0,
            v: self.pages.1,
            out: self.out.address,
            spans: self.inputs[0],
            pages: self.inputs[1],
            tiles: self.inputs[2],
            partial: self.partial,
            counters: self.counters,
            q_stride: self.q.stride,
            out_stride: self.out.stride,
            kv_heads: self.kv_heads,
            group: self.group,
            page_size: self.page_size,
            window: self.window,
            scale: self.scale,
            softcap: self.softcap,
            span_tiles,
            max_splits: self.max_splits,
        };
        if !counts.is_decode() {
            return step.run(&self.prefill, [counts.tiles, self.kv_heads, 1], &params);
        }
        let blocks = counts.spans * span_tiles;
        let splits = splits(counts.deepest, blocks * self.kv_heads, self.sms);
        step.run(&self.decode, [blocks, self.kv_heads, splits], &params)
    }

    /// An upper bound: as if every sequence were as long as the longest.
    fn traffic(&self, counts: &Counts) -> u64 {
        let seen = if self.window == 0 { counts.deepest } else { counts.deepest.min(self.window) };
        let kv = u64::from(counts.spans) * u64::from(seen) * u64::from(self.kv_heads);
        let rows = u64::from(counts.tokens) * u64::from(self.q.width) * 4;
        kv * u64::from(self.head_dim) * 4 + rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_fill_the_card_and_no_more() {
        assert_eq!(splits(1, 8, 132), 1);
        assert_eq!(splits(257, 8, 132), 2);
        // One sequence of 8 heads: 33 blocks along it fill 264 slots.
        assert_eq!(splits(1 << 17, 8, 132), 33);
        assert_eq!(splits(1 << 17, 1024, 132), 1);
    }
}
