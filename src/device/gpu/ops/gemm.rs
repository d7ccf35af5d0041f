//! The kernels of one kind of product, loaded; which of them serves a step is
//! [`choose::gemm`](crate::device::gpu::choose::gemm)'s to say. All compute the same bits, so the
//! choice may follow the number of rows: it changes time, never tokens.

use crate::device::gpu::choose::gemm::{Family, Product, Tile, Variant, pick, variants};
use crate::device::gpu::choose::{Card, Half};
use crate::device::gpu::kernels::Kernel;
use crate::device::gpu::launch::Prepare;
use crate::error::Result;

/// Every configuration that the card can run.
pub struct Products {
    family: Family,
    half: Half,
    gated: bool,
    card: Card,
    variants: Vec<Variant>,
    kernels: Vec<Kernel>,
}

/// What a step launches.
pub struct Picked<'a> {
    pub kernel: &'a Kernel,
    pub tile: Tile,
    pub grid: [u32; 3],
}

impl Products {
    /// # Errors
    /// If no kernel fits the card, or the driver does not load one.
    pub fn load(p: &mut Prepare<'_>, family: Family, gated: bool) -> Result<Self> {
        let (half, card) = (p.half, p.card);
        let variants = variants(family, half, gated, &card)?;
        let kernels: Result<Vec<Kernel>> =
            variants.iter().map(|v| p.kernels.symbol(v.kernel.symbol)).collect();
        Ok(Products { family, half, gated, card, variants, kernels: kernels? })
    }

    /// The same without the configurations that take their operands by tensor maps.
    pub fn without_maps(mut self) -> Self {
        let mut kept = self.variants.iter().map(|v| !v.tile.wgmma);
        self.kernels.retain(|_| kept.next().unwrap_or(false));
        self.variants.retain(|v| !v.tile.wgmma);
        self
    }

    /// Whether a configuration takes its operands by tensor maps.
    pub fn want_maps(&self) -> bool {
        self.variants.iter().any(|v| v.tile.wgmma)
    }

    /// The configuration for `m` rows, `n` columns and `k` products each.
    pub fn pick(&self, m: u32, n: u32, k: u32) -> Picked<'_> {
        let (m, n, k) = (m.max(1) as usize, n as usize, k as usize);
        let product = Product { half: self.half, m, n, k, gated: self.gated };
        let at = pick(self.family, &self.variants, &product, &self.card);
        let variant = &self.variants[at];
        let geometry = variant.geometry(self.family, &product, &self.card);
        Picked { kernel: &self.kernels[at], tile: variant.tile, grid: geometry.grid }
    }
}
