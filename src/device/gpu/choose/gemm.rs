//! Products y = x · Wᵀ: which tile of `cuda/gemm.cu` or `cuda/gemm_wgmma.cu`.

use super::{Card, Geometry, Half};
use crate::device::gpu::quant::Packing;
use crate::device::gpu::registry;
use crate::error::{Error, Result};

/// Cycles from one `mma.sync` to the next that adds to its sum (Luo et al. 2024, Hopper).
const MMA_LATENCY: f64 = 33.0;
/// What a block costs beside its products: ramp-up of its ring, and writing its result.
const BLOCK_SECONDS: f64 = 1.0e-6;

/// One product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Product {
    pub half: Half,
    /// Rows of x.
    pub m: usize,
    /// Columns of y.
    pub n: usize,
    pub k: usize,
    /// y = act(x · gateᵀ) ⊙ (x · upᵀ): W has 2n rows.
    pub gated: bool,
}

/// A tile that `gen/src/table/products.rs` instantiates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tile {
    /// Rows and columns of y that a block makes.
    pub rows: u32,
    pub columns: u32,
    pub gated: bool,
    /// `wgmma` and TMA instead of `mma.sync`: sm_90a.
    pub wgmma: bool,
    /// Blocks, one below the other, that share their rows of w: 1 but for wgmma.
    pub cluster: u32,
}

/// Kernels for products, by how the weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// `cuda/gemm.cu`, `cuda/gemm_wgmma.cu`.
    Plain,
    /// `cuda/grouped_gemm.cu`: the rows of each of that many experts.
    Grouped(usize),
    /// `cuda/quant_gemm.cu`.
    Packed(Packing),
}

/// A configuration that a card can run, whatever the number of rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Variant {
    pub tile: Tile,
    pub kernel: &'static registry::Kernel,
}

/// What was chosen, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    pub tile: Tile,
    pub symbol: String,
    pub geometry: Geometry,
    /// Projected seconds.
    pub seconds: f64,
}

const fn mma(rows: u32, columns: u32, gated: bool) -> Tile {
    Tile { rows, columns, gated, wgmma: false, cluster: 1 }
}

const fn wgmma(columns: u32, gated: bool, cluster: u32) -> Tile {
    Tile { rows: 128, columns, gated, wgmma: true, cluster }
}

/// Every tile of the generator's table.
pub const TILES: [Tile; 13] = [
    mma(16, 16, false),
    mma(16, 32, false),
    mma(16, 32, true),
    mma(32, 64, false),
    mma(64, 64, false),
    mma(64, 32, true),
    mma(128, 128, false),
    mma(128, 64, true),
    wgmma(128, false, 2),
    wgmma(256, false, 2),
    wgmma(128, true, 2),
    wgmma(256, false, 4),
    wgmma(128, true, 4),
];

/// Tiles of `cuda/grouped_gemm.cu` and `cuda/quant_gemm.cu`.
pub const GROUPED_TILES: [Tile; 4] =
    [mma(16, 32, false), mma(16, 32, true), mma(64, 64, false), mma(64, 32, true)];

impl Tile {
    /// The entry point of a plain product on this card; the sm_90a build of `gemm.cu` asks for
    /// weights before the kernel before it has ended.
    pub fn symbol(self, half: Half, card: &Card) -> String {
        let Tile { rows, columns, .. } = self;
        let target = if card.capability == (9, 0) { "sm90a" } else { "sm80" };
        let stem = if self.wgmma { "gemm_wgmma" } else { "gemm" };
        format!("{target}_{}_{stem}_{rows}x{columns}{}", half.name(), self.suffix())
    }

    /// The entry point of a product with packed weights (`Packing::name`).
    pub fn quant_symbol(self, half: Half, format: &str) -> String {
        let Tile { rows, columns, .. } = self;
        format!("sm80_{}_{format}_gemm_{rows}x{columns}{}", half.name(), self.gate())
    }

    /// The entry point of a grouped product.
    pub fn grouped_symbol(self, half: Half) -> String {
        let Tile { rows, columns, .. } = self;
        format!("sm80_{}_grouped_gemm_{rows}x{columns}{}", half.name(), self.gate())
    }

    /// What stands behind the size in a symbol.
    pub fn suffix(self) -> String {
        format!("{}{}", self.gate(), if self.cluster == 4 { "_by4" } else { "" })
    }

    fn gate(self) -> &'static str {
        if self.gated { "_gated" } else { "" }
    }

    fn named(self, family: Family, half: Half, card: &Card) -> String {
        match family {
            Family::Plain => self.symbol(half, card),
            Family::Grouped(_) => self.grouped_symbol(half),
            Family::Packed(packing) => self.quant_symbol(half, packing.name),
        }
    }

    /// Whether this card may run it at all.
    fn runs_on(self, card: &Card) -> bool {
        !self.wgmma || (card.capability == (9, 0) && card.wgmma_is_exact)
    }

    /// Whether it is worth a thought for that many rows: more than half of a large tile's are not
    /// padding, and no block of a cluster is without rows of its own.
    fn serves(self, m: usize) -> bool {
        match self.cluster {
            4 => m > 384,
            _ => self.rows <= 32 || m > self.rows as usize / 2,
        }
    }

    /// Rows of w that a block reads.
    fn weight_rows(self) -> u32 {
        self.columns * if self.gated { 2 } else { 1 }
    }

    /// Blocks' tiles of y, whole clusters of them.
    fn tiles(self, p: &Product) -> usize {
        let high = (self.rows * self.cluster) as usize;
        p.m.div_ceil(high) * self.cluster as usize * p.n.div_ceil(self.columns as usize)
    }

    /// Multiprocessors that its clusters fill at once. A cluster lies within a GPC, which has 16 or
    /// 18 of them on Hopper: pairs fill all, fours all but what is left over of each.
    fn filled(self, card: &Card) -> u32 {
        match self.cluster {
            4 => card.multiprocessors / 16 * 16,
            _ => card.multiprocessors,
        }
        .max(self.cluster)
    }

    /// Bytes of shared memory that a block of so many warps writes and reads for 64 numbers of k:
    /// each warp reads its rows of x and of w. wgmma reads them once, beside its sums.
    fn passed(self, warps: u32) -> f64 {
        let down = if self.rows >= 64 { 2 } else { 1 };
        let reads = self.rows * (warps / down).max(1) + self.weight_rows() * down;
        f64::from((self.rows + self.weight_rows() + reads) * 128)
    }

    /// Projected seconds: the longest of what memory, L2, shared memory, the tensor cores and the
    /// chain of sums take, the latter three in whole waves of blocks.
    fn seconds(self, p: &Product, card: &Card, kernel: &registry::Kernel) -> f64 {
        let shared = kernel.shared;
        let (m, k) = (p.m as f64, p.k as f64);
        let rows_w = p.n as f64 * if p.gated { 2.0 } else { 1.0 };
        let memory = 2.0 * (rows_w * k + m * k + m * p.n as f64) / card.memory_bandwidth;
        let tiles = self.tiles(p);
        // Rows beyond x's end are zeros that nothing brings.
        let brought = m.min(f64::from(self.rows)) + f64::from(self.weight_rows() / self.cluster);
        let l2 = tiles as f64 * brought * k * 2.0 / card.l2_bandwidth;
        let per_sm = (card.shared_per_multiprocessor / (shared + 1024)).clamp(1, 8);
        let filled = self.filled(card);
        let slots = (filled * if self.wgmma { 1 } else { per_sm }) as usize;
        let waves = tiles.div_ceil(slots) as f64;
        let flops = f64::from(self.rows) * f64::from(self.weight_rows()) * k * 2.0;
        let rate = if self.wgmma { card.wgmma_rate } else { card.mma_rate };
        let fullest = tiles.div_ceil(filled as usize) as f64;
        let tensor = fullest * flops * f64::from(card.multiprocessors) / rate;
        // 128 bytes a cycle.
        let passes = fullest * self.passed(kernel.block / 32) * k / 64.0 / 128.0;
        let passing = if self.wgmma { 0.0 } else { passes / card.clock_hz };
        let chain = if self.wgmma { 0.0 } else { waves * k / 16.0 * MMA_LATENCY / card.clock_hz };
        memory.max(l2).max(tensor).max(chain).max(passing) + waves * BLOCK_SECONDS
    }

    /// Blocks for a plain product.
    fn grid(self, p: &Product, card: &Card) -> u32 {
        if self.wgmma {
            let clusters = self.filled(card) / self.cluster;
            return self.cluster * (self.tiles(p) as u32 / self.cluster).min(clusters);
        }
        self.tiles(p) as u32
    }
}

fn check(p: &Product) -> Result<()> {
    if p.m == 0 || p.n == 0 || p.k == 0 || p.k % 8 != 0 {
        let Product { m, n, k, .. } = p;
        return Err(Error::unsupported(format!(
            "a product of {m} × {k} by {k} × {n} on the GPU: the inner size must be a multiple \
             of 8, and none may be 0"
        )));
    }
    Ok(())
}

/// Every configuration of a family that the card can run.
///
/// # Errors
/// None fits the card's shared memory, or a kernel was not built in.
pub fn variants(family: Family, half: Half, gated: bool, card: &Card) -> Result<Vec<Variant>> {
    let tiles: &[Tile] = if family == Family::Plain { &TILES } else { &GROUPED_TILES };
    let mut all = Vec::new();
    for tile in tiles.iter().filter(|t| t.gated == gated && t.runs_on(card)) {
        let (_, kernel) = registry::kernel(&tile.named(family, half, card))?;
        if kernel.shared <= card.shared_per_block {
            all.push(Variant { tile: *tile, kernel });
        }
    }
    if all.is_empty() {
        return Err(Error::unsupported(format!(
            "no GEMM fits {} bytes of shared memory",
            card.shared_per_block
        )));
    }
    Ok(all)
}

/// The best of [`variants`] for a product: that with the least projected time, the smaller of
/// equals. Grouped and packed products have one tile for few rows and one for many.
pub fn pick(family: Family, variants: &[Variant], p: &Product, card: &Card) -> usize {
    let rows = match family {
        Family::Plain => {
            let served = variants.iter().enumerate().filter(|(_, v)| v.tile.serves(p.m));
            let timed = served.map(|(i, v)| (i, v.tile.seconds(p, card, v.kernel)));
            return timed.min_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(i, _)| i);
        }
        // Small tiles unless an expert has enough rows on average to fill large ones.
        Family::Grouped(experts) if p.m >= 32 * experts => 64,
        Family::Packed(_) if p.m > 16 => 64,
        _ => 16,
    };
    variants.iter().position(|v| v.tile.rows == rows).unwrap_or(0)
}

impl Variant {
    /// The launch of a product.
    pub fn geometry(&self, family: Family, p: &Product, card: &Card) -> Geometry {
        let Variant { tile, kernel } = *self;
        let grid = match family {
            Family::Plain => [tile.grid(p, card), 1, 1],
            Family::Packed(_) => [tile.tiles(p) as u32, 1, 1],
            // As many slots as tiles can be needed however the rows are spread.
            Family::Grouped(experts) => {
                let slots = p.m.min(p.m.div_ceil(tile.rows as usize) + experts);
                [p.n.div_ceil(tile.columns as usize) as u32, slots as u32, 1]
            }
        };
        Geometry {
            grid,
            block: kernel.block,
            shared: kernel.shared,
            cluster: kernel.cluster,
            early: kernel.symbol.starts_with("sm90a"),
        }
    }

    fn choice(&self, family: Family, p: &Product, card: &Card) -> Choice {
        Choice {
            tile: self.tile,
            symbol: self.kernel.symbol.to_owned(),
            geometry: self.geometry(family, p, card),
            seconds: self.tile.seconds(p, card, self.kernel),
        }
    }
}

/// Every configuration for a product with its projected time, best first.
///
/// # Errors
/// k is no multiple of 8, or a size is 0.
pub fn rank(p: &Product, card: &Card) -> Result<Vec<Choice>> {
    check(p)?;
    let all = variants(Family::Plain, p.half, p.gated, card)?;
    let served = all.iter().filter(|v| v.tile.serves(p.m));
    let mut all: Vec<Choice> = served.map(|v| v.choice(Family::Plain, p, card)).collect();
    all.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    Ok(all)
}

/// The configuration for a product.
///
/// # Errors
/// As [`rank`].
pub fn choose(p: &Product, card: &Card) -> Result<Choice> {
    one(Family::Plain, p, card)
}

/// The configuration for products of `p.m` rows spread over `experts` matrices.
///
/// # Errors
/// As [`rank`].
pub fn choose_grouped(p: &Product, experts: usize, card: &Card) -> Result<Choice> {
    one(Family::Grouped(experts), p, card)
}

/// The configuration for a product with packed weights.
///
/// # Errors
/// As [`rank`], or [`packs`] does not hold.
pub fn choose_quant(p: &Product, packing: Packing, card: &Card) -> Result<Choice> {
    if !packs(p.n, p.k, p.gated) {
        let Product { n, k, .. } = p;
        return Err(Error::unsupported(format!(
            "{} weights of {n} × {k} on the GPU: whole blocks of 32, and gates of whole 8 rows",
            packing.name
        )));
    }
    one(Family::Packed(packing), p, card)
}

/// Whether a matrix of `n` columns of y over `k` numbers can be multiplied packed.
pub fn packs(n: usize, k: usize, gated: bool) -> bool {
    k.is_multiple_of(32) && (!gated || n.is_multiple_of(8))
}

fn one(family: Family, p: &Product, card: &Card) -> Result<Choice> {
    check(p)?;
    let all = variants(family, p.half, p.gated, card)?;
    Ok(all[pick(family, &all, p, card)].choice(family, p, card))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn product(m: usize, n: usize, k: usize) -> Product {
        Product { half: Half::Bf16, m, n, k, gated: false }
    }

    #[test]
    fn every_tile_is_in_the_registry_with_its_rows_and_columns() {
        for card in [Card::A100, Card { wgmma_is_exact: true, ..Card::H100 }] {
            for half in Half::ALL {
                for tile in TILES.into_iter().filter(|t| !t.wgmma || card.capability == (9, 0)) {
                    let (_, kernel) = registry::kernel(&tile.symbol(half, &card)).unwrap();
                    assert!(kernel.about.contains(&format!("columns={}", tile.columns)));
                    assert_eq!(kernel.cluster, tile.cluster);
                }
                for tile in GROUPED_TILES {
                    registry::kernel(&tile.grouped_symbol(half)).unwrap();
                }
            }
        }
    }

    #[test]
    fn few_rows_take_narrow_tiles_and_many_take_wide_ones() {
        let tile = |m, n, k| choose(&product(m, n, k), &Card::H100).unwrap().tile;
        assert_eq!(tile(1, 2048, 2048).rows, 16);
        assert_eq!(tile(8, 4096, 4096).rows, 16);
        assert_eq!(tile(4096, 4096, 4096).rows, 128);
        assert!(!tile(4096, 4096, 4096).wgmma, "not before the card was seen to round alike");
        let exact = Card { wgmma_is_exact: true, ..Card::H100 };
        // Fours bring half of w's bytes; 32 of them fit 132 multiprocessors in GPCs of 16 and 18.
        let many = choose(&product(4096, 4096, 4096), &exact).unwrap();
        assert_eq!((many.tile.cluster, many.geometry.grid[0]), (4, 128));
        let fewer = choose(&product(256, 4096, 4096), &exact).unwrap();
        assert_eq!((fewer.tile.wgmma, fewer.tile.cluster), (true, 2));
        assert!(!choose(&product(4, 4096, 4096), &exact).unwrap().tile.wgmma);
        assert!(!choose(&product(4096, 4096, 4096), &Card::A100).unwrap().tile.wgmma);
    }

    /// One row of 2,048 columns: 64 blocks of 32 columns would leave half of the card idle, and each
    /// of them passes more through its shared memory than memory brings.
    #[test]
    fn narrow_products_are_spread_over_the_card() {
        let one = choose(&product(1, 2048, 8192), &Card::H100).unwrap();
        assert_eq!((one.tile.columns, one.geometry.grid[0]), (16, 128));
    }

    #[test]
    fn grids_cover_every_row_and_column() {
        for m in [1, 16, 17, 100, 2000] {
            for gated in [false, true] {
                let p = Product { gated, ..product(m, 1000, 512) };
                for choice in rank(&p, &Card::A100).unwrap() {
                    let Tile { rows, columns, .. } = choice.tile;
                    let want = m.div_ceil(rows as usize) * 1000usize.div_ceil(columns as usize);
                    assert_eq!(choice.geometry.grid[0] as usize, want);
                }
                let grouped = choose_grouped(&p, 8, &Card::A100).unwrap();
                assert!(grouped.geometry.grid[1] as usize * grouped.tile.rows as usize >= m);
            }
        }
        assert!(choose(&product(1, 8, 7), &Card::A100).is_err());
        assert!(choose(&product(0, 8, 8), &Card::A100).is_err());
    }
}
