//! Rotation of q and k, and k and v into their pages, in one launch (`cuda/rope.cu`); the angles
//! of a step, once for each rotary table.

use crate::device::gpu::abi;
use crate::device::gpu::driver::DevicePtr;
use crate::device::gpu::inputs::Counts;
use crate::device::gpu::kernels::Kernel;
use crate::device::gpu::launch::{Launchable, Prepare, Step, Tensor};
use crate::device::gpu::memory::Memory;
use crate::device::gpu::turns::per_position;
use crate::error::{Error, Result};
use crate::model::plan::Op;
use crate::model::rope::RopeTable;

/// Bytes of a row's angles, as the kernels lay them out.
pub fn angle_bytes(half: usize) -> usize {
    let pieces = half.div_ceil(8).next_multiple_of(2);
    pieces * 32 * 4
}

/// Fills a table's angles for the rows of a step.
pub struct Angles {
    kernel: Kernel,
    turns: DevicePtr,
    positions: DevicePtr,
    angles: DevicePtr,
    half: u32,
    scale: f32,
}

impl Angles {
    /// # Errors
    /// If memory runs out.
    pub fn new(
        memory: &mut Memory,
        kernel: Kernel,
        table: &RopeTable,
        positions: DevicePtr,
        angles: DevicePtr,
    ) -> Result<Self> {
        let list: Vec<u64> = table.inv_freq.iter().map(|f| per_position(*f)).collect();
        let turns = memory.list(&list, "rotary frequencies")?;
        let half = (table.dim / 2) as u32;
        Ok(Angles { kernel, turns, positions, angles, half, scale: table.scale })
    }
}

impl Launchable for Angles {
    fn launch(&self, step: &mut Step<'_>) -> Result<()> {
        let rows = step.counts.tokens;
        let params = abi::RopeAnglesParams {
            turns: self.turns,
            positions: self.positions,
            angles: self.angles,
            rows,
            half: self.half,
            scale: self.scale,
            reserved: 0,
        };
        step.run(&self.kernel, [rows, 1, 1], &params)
    }

    fn traffic(&self, counts: &Counts) -> u64 {
        u64::from(counts.tokens) * (4 + 8 * u64::from(self.half)) + 8 * u64::from(self.half)
    }
}

/// Rotation and storing, or storing alone.
pub struct Rope {
    kernel: Kernel,
    /// q, if it is rotated.
    q: Option<Tensor>,
    k: Tensor,
    v: Tensor,
    pages: (DevicePtr, DevicePtr),
    angles: DevicePtr,
    slots: DevicePtr,
    heads: u32,
    kv_heads: u32,
    head_dim: u32,
    half: u32,
    page_size: u32,
    /// Items of a row: see the kernel's launch line.
    items: u32,
    norms: Norms,
}

/// Norms of each head before the rotation; weights 0: none.
#[derive(Debug, Clone, Copy, Default)]
struct Norms {
    q_weight: DevicePtr,
    k_weight: DevicePtr,
    eps: f32,
    offset: f32,
}

/// Whether the form with 16 bytes a thread fits.
pub fn is_wide(half: u32, head_dim: u32, tensors: &[Tensor]) -> bool {
    half.is_multiple_of(8) && head_dim.is_multiple_of(8) && tensors.iter().all(Tensor::is_wide)
}

impl Rope {
    /// Rotation, if there is one, and storing.
    ///
    /// # Errors
    /// If the ops are others, or no kernel fits.
    pub fn new(p: &mut Prepare<'_>, rope: Option<&Op>, write: &Op) -> Result<Self> {
        Self::with(p, rope, write, Norms::default())
    }

    /// The same after a norm of each head of q and of k ([`fuse`](super::fuse) has checked that
    /// the kernel can).
    ///
    /// # Errors
    /// As [`Rope::new`].
    pub fn normed(p: &mut Prepare<'_>, norms: (&Op, &Op), rope: &Op, write: &Op) -> Result<Self> {
        let (Op::RmsNorm { weight: q, eps, plus_one, .. }, Op::RmsNorm { weight: k, .. }) = norms
        else {
            return Err(Error::unsupported("not norms of q and k"));
        };
        let (q_weight, k_weight) = (p.vectors[*q], p.vectors[*k]);
        let offset = if *plus_one { 1.0 } else { 0.0 };
        Self::with(p, Some(rope), write, Norms { q_weight, k_weight, eps: *eps, offset })
    }

    fn with(p: &mut Prepare<'_>, rope: Option<&Op>, write: &Op, norms: Norms) -> Result<Self> {
        let Op::KvWrite { k, v, layer } = write else {
            return Err(Error::unsupported("not keys and values to store"));
        };
        let kv = p.plan.kv;
        let (k, v) = (p.tensor(k), p.tensor(v));
        let (mut q, mut heads, mut half, mut angles) = (None, 0, 0, 0);
        if let Some(Op::Rope { q: view, heads: h, rope, .. }) = rope {
            q = Some(p.tensor(view));
            (heads, angles) = (*h as u32, p.angles[*rope]);
            half = (p.plan.ropes[*rope].dim / 2) as u32;
        }
        let head_dim = kv.head_dim as u32;
        if k.f32 || v.f32 {
            return Err(Error::unsupported("keys and values must have 16 bits"));
        }
        let tensors: Vec<Tensor> = [Some(k), Some(v), q].into_iter().flatten().collect();
        let wide = is_wide(half, head_dim, &tensors);
        let form = match (wide, norms.q_weight != 0) {
            (true, true) => "rope_norm",
            (true, false) => "rope_vec",
            (false, false) => "rope_any",
            (false, true) => return Err(Error::unsupported("norms of such heads")),
        };
        let kernel = p.kernels.half(form)?;
        let (numbers, kv_heads) = (if wide { 8 } else { 1 }, kv.kv_heads as u32);
        let rest = kv_heads * (2 * head_dim - 2 * half) / numbers;
        Ok(Rope {
            kernel,
            q,
            k,
            v,
            pages: p.kv[*layer],
            angles,
            slots: p.inputs.slots(),
            heads,
            kv_heads,
            head_dim,
            half,
            page_size: p.limits.page_size as u32,
            items: (heads + kv_heads) * half / numbers + rest,
            norms,
        })
    }
}

impl Launchable for Rope {
    fn launch(&self, step: &mut Step<'_>) -> Result<()> {
        let rows = step.counts.tokens;
        let params = abi::RopeParams {
            q: self.q.map_or(0, |q| q.address),
            k: self.k.address,
            v: self.v.address,
            angles: self.angles,
            k_pages: self.pages.0,
            v_pages: self.pages.1,
            slots: self.slots,
            q_weight: self.norms.q_weight,
            k_weight: self.norms.k_weight,
            rows,
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            half: self.half,
            page_size: self.page_size,
            q_stride: self.q.map_or(0, |q| q.stride),
            k_stride: self.k.stride,
            v_stride: self.v.stride,
            eps: self.norms.eps,
            offset: self.norms.offset,
            reserved: 0,
        };
        let blocks = self.items.div_ceil(self.kernel.block);
        step.run(&self.kernel, [rows, blocks, 1], &params)
    }

    fn traffic(&self, counts: &Counts) -> u64 {
        let rotated = u64::from(self.heads) * 2 * u64::from(self.half) * 4;
        let stored = u64::from(self.kv_heads) * u64::from(self.head_dim) * 8;
        let weights = if self.norms.q_weight == 0 { 0 } else { 4 * u64::from(self.head_dim) };
        u64::from(counts.tokens) * (rotated + stored + 4 + 8 * u64::from(self.half)) + weights
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn angles_take_whole_pairs_of_pieces() {
        // Half 12 is two pieces of 8 pairs, half 32 is four; room for 32 numbers a piece.
        assert_eq!(angle_bytes(12), 256);
        assert_eq!(angle_bytes(4), 256);
        assert_eq!(angle_bytes(32), 512);
        assert_eq!(angle_bytes(40), 768);
    }
}
