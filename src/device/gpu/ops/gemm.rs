//! Which tile of `cuda/gemm.cu` a product uses. Every tile computes the same bits, so the choice
//! may follow the number of rows: it changes time, never tokens.

use crate::device::gpu::kernels::{Kernel, Kernels};
use crate::error::Result;

/// A tile: rows of x and columns of y that a block computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tile {
    pub rows: u32,
    pub columns: u32,
    pub gated: bool,
}

const fn tile(rows: u32, columns: u32, gated: bool) -> Tile {
    Tile { rows, columns, gated }
}

/// Tiles of plain and gated products.
pub const PLAIN: [Tile; 5] = [
    tile(16, 16, false),
    tile(16, 32, false),
    tile(32, 64, false),
    tile(64, 64, false),
    tile(128, 128, false),
];
pub const GATED: [Tile; 3] = [tile(16, 32, true), tile(64, 32, true), tile(128, 64, true)];

/// A product's shape: `y[m, n] = x[m, k] · wᵀ`, gated ones with 2n rows of w.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    pub m: u32,
    pub n: u32,
    pub k: u32,
}

/// FLOPs of mma.sync that an SM does in a cycle (half of the dense peak is what it reaches), and
/// bytes that it draws from L2 in one; both of an H100, and only their ratio matters here.
const FLOPS_PER_CYCLE: f64 = 2048.0;
const BYTES_PER_CYCLE: f64 = 32.0;

impl Tile {
    /// Rows of w that a block reads.
    fn weight_rows(&self) -> u32 {
        if self.gated { 2 * self.columns } else { self.columns }
    }

    /// Blocks of a product.
    pub fn blocks(&self, m: u32, n: u32) -> u32 {
        m.div_ceil(self.rows) * n.div_ceil(self.columns)
    }

    /// Modelled cycles: waves of blocks, each bound by its multiplications or by its loads.
    pub fn cycles(&self, shape: Shape, sms: u32) -> f64 {
        let waves = f64::from(self.blocks(shape.m, shape.n).div_ceil(sms.max(1)));
        let (rows, wide, k) =
            (f64::from(self.rows), f64::from(self.weight_rows()), f64::from(shape.k));
        let multiply = 2.0 * rows * wide * k / FLOPS_PER_CYCLE;
        let load = (rows + wide) * 2.0 * k / BYTES_PER_CYCLE;
        waves * multiply.max(load)
    }
}

/// Index of the tile with the fewest modelled cycles; the smaller one of equals.
pub fn choose(tiles: &[Tile], shape: Shape, sms: u32) -> usize {
    let costs = tiles.iter().map(|t| t.cycles(shape, sms)).enumerate();
    costs.min_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(i, _)| i)
}

/// The kernels of a list of tiles, `gemm` or `grouped_gemm`.
///
/// # Errors
/// If one is missing.
pub fn kernels(kernels: &mut Kernels, stem: &str, tiles: &[Tile]) -> Result<Vec<Kernel>> {
    let name = |t: &Tile| {
        let gated = if t.gated { "_gated" } else { "" };
        format!("{stem}_{}x{}{gated}", t.rows, t.columns)
    };
    tiles.iter().map(|t| kernels.half(&name(t))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(m: u32, n: u32, k: u32) -> (u32, u32) {
        let t = PLAIN[choose(&PLAIN, Shape { m, n, k }, 132)];
        (t.rows, t.columns)
    }

    #[test]
    fn few_rows_take_narrow_tiles_and_many_wide_ones() {
        assert_eq!(chosen(1, 2048, 2048), (16, 16));
        assert_eq!(chosen(16, 4096, 4096), (16, 32));
        assert_eq!(chosen(4096, 4096, 4096), (128, 128));
        let gated = choose(&GATED, Shape { m: 4096, n: 14336, k: 4096 }, 132);
        assert_eq!(GATED[gated].rows, 128);
    }

    #[test]
    fn blocks_cover_remainders() {
        assert_eq!(PLAIN[4].blocks(129, 257), 2 * 3);
        assert_eq!(GATED[0].blocks(1, 33), 2);
    }
}
