//! Attention over pages (`cuda/attention_decode.cu`, `cuda/attention_prefill.cu`): spans of few
//! rows by the decode kernel, the others by the prefill kernel, in one step both. They compute the
//! same bits; [`choose::attention`](crate::device::gpu::choose::attention) says which takes what.

use crate::device::gpu::abi;
use crate::device::gpu::choose::Card;
use crate::device::gpu::choose::attention::{Heads, max_splits};
use crate::device::gpu::driver::DevicePtr;
use crate::device::gpu::inputs::Counts;
use crate::device::gpu::kernels::Kernel;
use crate::device::gpu::launch::{Launchable, Prepare, Step, Tensor};
use crate::error::{Error, Result};
use crate::model::plan::Op;

/// Attention of one layer.
pub struct Attention {
    decode: Kernel,
    prefill: Kernel,
    heads: Heads,
    card: Card,
    q: Tensor,
    out: Tensor,
    pages: (DevicePtr, DevicePtr),
    inputs: [DevicePtr; 3],
    partial: DevicePtr,
    counters: DevicePtr,
    page_size: u32,
    window: u32,
    scale: f32,
    softcap: f32,
}

impl Attention {
    pub fn new(p: &mut Prepare<'_>, op: &Op) -> Result<Self> {
        let Op::Attention {
            q, out, layer, heads, kv_heads, head_dim, scale, softcap, window, ..
        } = op
        else {
            return Err(Error::unsupported("not attention"));
        };
        let (heads, kv_heads, head_dim) = (*heads, *kv_heads, *head_dim);
        let heads = Heads { half: p.half, heads, kv_heads, head_dim };
        // Also whether there are such kernels, and the card has the shared memory for them.
        let decode = heads.decode(1, 1, 1, &p.card)?;
        let prefill = heads.prefill(1, &p.card)?;
        let (q, out) = (p.tensor(q), p.tensor(out));
        if !q.is_wide() || !p.limits.page_size.is_multiple_of(8) {
            return Err(Error::unsupported(format!(
                "pages of {} tokens and rows of {} numbers: the GPU's attention needs multiples \
                 of 8 (--page-size)",
                p.limits.page_size, q.stride
            )));
        }
        let splits = p.inputs.partial_splits() as u64;
        let blocks = p.limits.step_sequences * heads.decode_tiles() * heads.kv_heads;
        Ok(Attention {
            decode: p.kernels.symbol(&decode.symbol)?,
            prefill: p.kernels.symbol(&prefill.symbol)?,
            heads,
            card: p.card,
            q,
            out,
            pages: p.kv[*layer],
            inputs: [p.inputs.spans(), p.inputs.pages(), p.inputs.tiles()],
            partial: p.scratch("attention partials", splits * heads.split_bytes() as u64)?,
            counters: p.scratch("attention counters", blocks as u64 * 4)?,
            page_size: p.limits.page_size as u32,
            window: window.unwrap_or(0) as u32,
            scale: *scale,
            softcap: softcap.unwrap_or(0.0),
        })
    }
}

impl Launchable for Attention {
    fn launch(&self, step: &mut Step<'_>) -> Result<()> {
        let counts = step.counts;
        let kv_heads = self.heads.kv_heads as u32;
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
            kv_heads,
            group: self.heads.group() as u32,
            page_size: self.page_size,
            window: self.window,
            scale: self.scale,
            softcap: self.softcap,
            span_tiles: self.heads.decode_tiles() as u32,
            max_splits: max_splits(counts.decode_deepest as usize) as u32,
        };
        step.run(&self.prefill, [counts.tiles, kv_heads, 1], &params)?;
        if counts.decodes == 0 {
            return Ok(());
        }
        let (spans, deepest) = (counts.decodes as usize, counts.decode_deepest as usize);
        let grid = self.heads.decode_grid(spans, 1, deepest, &self.card);
        step.run(&self.decode, grid.map(|n| n as u32), &params)
    }

    /// q and out, and K and V of every token that a row sees, once a sequence.
    fn traffic(&self, counts: &Counts) -> u64 {
        let window = u64::from(self.window) + u64::from(counts.longest.max(1)) - 1;
        let seen = match self.window {
            0 => counts.cached,
            _ => counts.cached.min(u64::from(counts.spans) * window),
        };
        let rows = u64::from(counts.tokens) * u64::from(self.q.width) * 4;
        seen * (self.heads.kv_heads * self.heads.head_dim) as u64 * 4 + rows
    }
}
