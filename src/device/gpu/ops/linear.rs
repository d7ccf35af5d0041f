//! Products with weight matrices (`cuda/gemm.cu`, `gemm_wgmma.cu`, `quant_gemm.cu`), with the gated
//! activation or the residual stream in passing.

use super::act_number;
use super::gemm::Products;
use crate::device::gpu::abi;
use crate::device::gpu::choose::Half;
use crate::device::gpu::choose::gemm::Family;
use crate::device::gpu::driver::{
    DevicePtr, Driver, MapElement, MapPromotion, MapSwizzle, TensorMap, TensorMapSpec,
};
use crate::device::gpu::inputs::Counts;
use crate::device::gpu::launch::{Launchable, Prepare, Step, Tensor};
use crate::device::gpu::quant::Packing;
use crate::error::{Error, Result};
use crate::model::plan::{Activation, Rows, View};

/// `y = x · Wᵀ (+ bias) (+ y)`, or `act(gate) ⊙ up` of it.
pub struct Linear {
    products: Products,
    x: Tensor,
    y: Tensor,
    weight: DevicePtr,
    /// How the weights are packed, if they are.
    packing: Option<Packing>,
    bias: DevicePtr,
    residual: bool,
    gated: bool,
    act: u32,
    /// Of x and the weights, for kernels that copy by TMA.
    maps: Option<(abi::TensorMap, abi::TensorMap)>,
}

/// x, the matrix and the bias of a product.
type Product<'a> = (&'a View, usize, Option<usize>);

/// What is done with the sums.
#[derive(Debug, Clone, Copy, Default)]
struct Extras {
    gated: bool,
    residual: bool,
    act: u32,
}

impl Linear {
    pub fn new(p: &mut Prepare<'_>, product: Product<'_>, out: &View) -> Result<Self> {
        Self::with(p, product, out, Extras::default())
    }

    /// `sum += x · Wᵀ (+ bias)`, rounded once.
    pub fn added(p: &mut Prepare<'_>, product: Product<'_>, sum: &View) -> Result<Self> {
        Self::with(p, product, sum, Extras { residual: true, ..Extras::default() })
    }

    /// `out = act(g) ⊙ u`, g and u the halves of the product.
    pub fn gated(
        p: &mut Prepare<'_>,
        product: Product<'_>,
        out: &View,
        act: Activation,
    ) -> Result<Self> {
        let extras = Extras { gated: true, residual: false, act: act_number(act) };
        Self::with(p, product, out, extras)
    }

    fn with(
        p: &mut Prepare<'_>,
        (x, matrix, bias): Product<'_>,
        out: &View,
        extras: Extras,
    ) -> Result<Self> {
        let (x, y) = (p.tensor(x), p.tensor(out));
        if !x.is_wide() {
            return Err(Error::unsupported(format!(
                "a product over {} columns: the GPU's kernels need a multiple of 8",
                x.width
            )));
        }
        let (weight, packing) = match p.packed[matrix] {
            Some(packed) => (packed.address, Some(packed.packing)),
            None => (p.matrices[matrix], None),
        };
        let family = packing.map_or(Family::Plain, Family::Packed);
        let products = Products::load(p, family, extras.gated)?;
        let maps = if products.want_maps() { Some(maps(p, &x, weight, matrix)?) } else { None };
        Ok(Linear {
            products,
            x,
            y,
            weight,
            packing,
            bias: bias.map_or(0, |b| p.vectors[b]),
            residual: extras.residual,
            gated: extras.gated,
            act: extras.act,
            maps,
        })
    }

    fn weight_rows(&self) -> u32 {
        if self.gated { 2 * self.y.width } else { self.y.width }
    }

    fn params(&self, m: u32) -> abi::GemmParams {
        abi::GemmParams {
            x: self.x.address,
            w: self.weight,
            y: self.y.address,
            bias: self.bias,
            residual: if self.residual { self.y.address } else { 0 },
            m,
            n: self.y.width,
            k: self.x.width,
            x_stride: self.x.stride,
            y_stride: self.y.stride,
            residual_stride: if self.residual { self.y.stride } else { 0 },
            act: self.act,
            out_f32: u32::from(self.y.f32),
        }
    }
}

/// Maps of x, as many rows as it ever has, and of the weights (`cuda/gemm_wgmma.cu`).
fn maps(
    p: &Prepare<'_>,
    x: &Tensor,
    weight: DevicePtr,
    matrix: usize,
) -> Result<(abi::TensorMap, abi::TensorMap)> {
    let rows = match x.rows {
        Rows::Tokens => p.limits.step_tokens,
        Rows::Logits => p.limits.logit_rows,
    };
    let (k, whole) = (x.width, p.plan.matrices[matrix].rows);
    let of = |address, rows: usize, stride, high| {
        operand_map(p.driver, p.half, address, (rows.max(1), k), stride, high)
    };
    Ok((of(x.address, rows, x.stride, 128)?, of(weight, whole, k, 64)?))
}

/// A map of `[rows, width]` numbers, rows `stride` apart, in boxes of 64 columns and `high` rows
/// (`cuda/gemm_wgmma.cu`).
///
/// # Errors
/// For a shape that TMA cannot describe.
pub fn operand_map(
    driver: &dyn Driver,
    half: Half,
    address: DevicePtr,
    (rows, width): (usize, u32),
    stride: u32,
    high: u32,
) -> Result<abi::TensorMap> {
    let element = if half == Half::F16 { MapElement::F16 } else { MapElement::Bf16 };
    let map = driver.tensor_map(&TensorMapSpec {
        element,
        address,
        dims: &[u64::from(width), rows as u64],
        strides: &[u64::from(stride) * 2],
        box_dims: &[64, high],
        swizzle: MapSwizzle::B128,
        promotion: MapPromotion::B128,
    })?;
    Ok(words(&map))
}

fn words(map: &TensorMap) -> abi::TensorMap {
    let mut words = [0; 16];
    for (word, bytes) in words.iter_mut().zip(map.0.chunks_exact(8)) {
        *word = bytes.iter().rev().fold(0, |all, b| all << 8 | u64::from(*b));
    }
    abi::TensorMap { words }
}

impl Launchable for Linear {
    fn launch(&self, step: &mut Step<'_>) -> Result<()> {
        let gemm = self.params(step.rows(self.x.rows));
        let picked = self.products.pick(gemm.m, gemm.n, gemm.k);
        if gemm.m == 0 {
            return Ok(());
        }
        match self.maps {
            Some((x_map, w_map)) if picked.tile.wgmma => {
                let params = abi::WgmmaGemmParams { x_map, w_map, gemm, reserved: [0; 14] };
                step.run(picked.kernel, picked.grid, &params)
            }
            _ => step.run(picked.kernel, picked.grid, &gemm),
        }
    }

    fn traffic(&self, counts: &Counts) -> u64 {
        let m = if self.x.rows == Rows::Tokens { counts.tokens } else { counts.logits };
        let (m, n, k) = (u64::from(m), u64::from(self.y.width), u64::from(self.x.width));
        let out = if self.y.f32 { 4 } else { 2 };
        let out = if self.residual { out + 2 } else { out };
        let rows = u64::from(self.weight_rows());
        let bias = if self.bias == 0 { 0 } else { 2 * rows };
        let weights = match self.packing {
            Some(packing) => packing.bytes(rows as usize, k as usize) as u64,
            None => 2 * rows * k,
        };
        2 * m * k + weights + bias + out * m * n
    }
}
