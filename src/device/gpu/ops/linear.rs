//! Products with weight matrices (`cuda/gemm.cu`), the gated activation in passing.

use super::act_number;
use super::gemm::{self, GATED, PLAIN, Shape, Tile};
use crate::device::gpu::abi;
use crate::device::gpu::driver::DevicePtr;
use crate::device::gpu::inputs::Counts;
use crate::device::gpu::kernels::Kernel;
use crate::device::gpu::launch::{Launchable, Prepare, Step, Tensor};
use crate::error::{Error, Result};
use crate::model::plan::{Activation, Rows, View};

/// `y = x · Wᵀ (+ bias)`, or `act(gate) ⊙ up` of it.
pub struct Linear {
    tiles: &'static [Tile],
    kernels: Vec<Kernel>,
    x: Tensor,
    y: Tensor,
    weight: DevicePtr,
    bias: DevicePtr,
    act: u32,
    sms: u32,
}

/// x, the matrix and the bias of a product.
type Product<'a> = (&'a View, usize, Option<usize>);

impl Linear {
    pub fn new(p: &mut Prepare<'_>, product: Product<'_>, out: &View) -> Result<Self> {
        Self::with(p, product, out, &PLAIN, 0)
    }

    /// `out = act(g) ⊙ u`, g and u the halves of the product.
    pub fn gated(
        p: &mut Prepare<'_>,
        product: Product<'_>,
        out: &View,
        act: Activation,
    ) -> Result<Self> {
        Self::with(p, product, out, &GATED, act_number(act))
    }

    fn with(
        p: &mut Prepare<'_>,
        (x, matrix, bias): Product<'_>,
        out: &View,
        tiles: &'static [Tile],
        act: u32,
    ) -> Result<Self> {
        let (x, y) = (p.tensor(x), p.tensor(out));
        if !x.is_wide() {
            return Err(Error::unsupported(format!(
                "a product over {} columns: the GPU's kernels need a multiple of 8",
                x.width
            )));
        }
        Ok(Linear {
            tiles,
            kernels: gemm::kernels(p.kernels, "gemm", tiles)?,
            x,
            y,
            weight: p.matrices[matrix],
            bias: bias.map_or(0, |b| p.vectors[b]),
            act,
            sms: p.sms,
        })
    }

    fn weight_rows(&self) -> u32 {
        if self.tiles[0].gated { 2 * self.y.width } else { self.y.width }
    }
}

impl Launchable for Linear {
    fn launch(&self, step: &mut Step<'_>) -> Result<()> {
        let m = step.rows(self.x.rows);
        let shape = Shape { m, n: self.y.width, k: self.x.width };
        let at = gemm::choose(self.tiles, shape, self.sms);
        let params = abi::GemmParams {
            x: self.x.address,
            w: self.weight,
            y: self.y.address,
            bias: self.bias,
            residual: 0,
            m,
            n: shape.n,
            k: shape.k,
            x_stride: self.x.stride,
            y_stride: self.y.stride,
            residual_stride: 0,
            act: self.act,
            out_f32: u32::from(self.y.f32),
        };
        let blocks = self.tiles[at].blocks(m, shape.n);
        step.run(&self.kernels[at], [blocks, 1, 1], &params)
    }

    fn traffic(&self, counts: &Counts) -> u64 {
        let m = if self.x.rows == Rows::Tokens { counts.tokens } else { counts.logits };
        let (m, n, k) = (u64::from(m), u64::from(self.y.width), u64::from(self.x.width));
        let out = if self.y.f32 { 4 } else { 2 };
        let bias = if self.bias == 0 { 0 } else { 2 * u64::from(self.weight_rows()) };
        2 * m * k + 2 * u64::from(self.weight_rows()) * k + bias + out * m * n
    }
}
