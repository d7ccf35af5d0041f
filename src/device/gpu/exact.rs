//! Whether this card's wgmma rounds as its mma.sync does, measured when a model is loaded.
//!
//! A request's tokens must not depend on how many rows it is batched with, and only large products
//! would use wgmma: it may serve if both give the same bits, and not otherwise.

use std::sync::Arc;

use super::abi;
use super::choose::gemm::{Family, Product, Variant, variants};
use super::choose::{Card, Half};
use super::driver::{DevicePtr, Driver, Stream};
use super::inputs::Counts;
use super::kernels::Kernels;
use super::launch::Step;
use super::memory::{Memory, Purpose};
use super::ops::operand_map;
use crate::device::Limits;
use crate::error::Result;

/// Rows, columns and inner size of the products compared: remainders in each.
const SIZES: (usize, usize, usize) = (72, 72, 264);

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exact {
    /// No wgmma on this card, or no step large enough for it.
    Unasked,
    /// Every bit alike.
    Equal,
    /// So many of that many numbers differ.
    Different(usize, usize),
}

impl Exact {
    /// What to tell the user.
    pub fn note(self) -> Option<String> {
        match self {
            Exact::Unasked => None,
            Exact::Equal => {
                Some("wgmma gives the bits of mma.sync on this card: it is used".into())
            }
            Exact::Different(wrong, of) => Some(format!(
                "wgmma rounds otherwise than mma.sync on this card ({wrong} of {of} numbers \
                 differ): it is not used, so that no token depends on the batch's size"
            )),
        }
    }
}

/// Multiplies the same numbers both ways.
///
/// # Errors
/// If the driver refuses memory or a launch.
pub fn check(
    driver: &Arc<dyn Driver>,
    kernels: &mut Kernels,
    half: Half,
    limits: &Limits,
) -> Result<Exact> {
    if driver.card().capability != (9, 0) || limits.step_tokens.max(limits.logit_rows) <= 64 {
        return Ok(Exact::Unasked);
    }
    let operands = Operands::new(Memory::new(Arc::clone(driver)), &**driver, half)?;
    let (mut wrong, mut of) = (0, 0);
    for gated in [false, true] {
        let card = Card::of(driver.card(), true);
        let all = variants(Family::Plain, half, gated, &card)?;
        let mut first: Option<Vec<u8>> = None;
        // The narrowest mma.sync, which comes first, is compared with each wgmma.
        let asked = |(i, v): &(usize, &Variant)| *i == 0 || v.tile.wgmma;
        for variant in all.iter().enumerate().filter(asked).map(|v| v.1) {
            let found = operands.multiply(&**driver, kernels, variant, &card)?;
            match &first {
                None => first = Some(found),
                Some(first) => {
                    let pairs = first.chunks(4).zip(found.chunks(4));
                    wrong += pairs.filter(|(a, b)| a != b).count();
                    of += found.len() / 4;
                }
            }
        }
    }
    Ok(if wrong == 0 { Exact::Equal } else { Exact::Different(wrong, of) })
}

/// The operands, and room for the result.
struct Operands {
    half: Half,
    /// Frees the addresses below.
    _memory: Memory,
    x: DevicePtr,
    w: DevicePtr,
    y: DevicePtr,
}

impl Operands {
    /// Numbers whose products span 2^-16 to 2^16 of either sign, so that sums cancel and round.
    fn new(mut memory: Memory, driver: &dyn Driver, half: Half) -> Result<Self> {
        let (m, n, k) = SIZES;
        let mut state = 0x9E37_79B9_7F4A_7C15u64;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let bits = state >> 32;
            let size = f32::powi(2.0, (bits % 17) as i32 - 8);
            let sign = if bits >> 31 & 1 == 1 { -size } else { size };
            sign * (1.0 + (bits >> 8 & 0xff) as f32 / 256.0)
        };
        let mut place = |count: usize, what: &str| -> Result<DevicePtr> {
            let bytes: Vec<u8> = (0..count).flat_map(|_| stored(next(), half)).collect();
            let address = memory.alloc(Purpose::Scratch, bytes.len() as u64, what)?;
            driver.upload(address, &bytes)?;
            Ok(address)
        };
        let (x, w) =
            (place(m * k, "operands of a check")?, place(2 * n * k, "operands of a check")?);
        let y = memory.alloc(Purpose::Scratch, (m * n * 4) as u64, "result of a check")?;
        Ok(Operands { half, _memory: memory, x, w, y })
    }

    /// The product in float32, as stored bytes.
    fn multiply(
        &self,
        driver: &dyn Driver,
        kernels: &mut Kernels,
        variant: &Variant,
        card: &Card,
    ) -> Result<Vec<u8>> {
        let (m, n, k) = SIZES;
        let product = Product { half: self.half, m, n, k, gated: variant.tile.gated };
        let grid = variant.geometry(Family::Plain, &product, card).grid;
        let kernel = kernels.symbol(variant.kernel.symbol)?;
        let (m, n, k) = (m as u32, n as u32, k as u32);
        let gemm = abi::GemmParams {
            x: self.x,
            w: self.w,
            y: self.y,
            m,
            n,
            k,
            x_stride: k,
            y_stride: n,
            out_f32: 1,
            ..Default::default()
        };
        let (counts, stream) = (Counts::default(), Stream::DEFAULT);
        let mut step = Step::new(driver, stream, counts);
        if variant.tile.wgmma {
            let rows = if variant.tile.gated { 2 * n } else { n };
            let map = |address, rows: u32, high| {
                operand_map(driver, self.half, address, (rows as usize, k), k, high)
            };
            let (x_map, w_map) = (map(self.x, m, 128)?, map(self.w, rows, 64)?);
            let params = abi::WgmmaGemmParams { x_map, w_map, gemm, reserved: [0; 14] };
            step.run(&kernel, grid, &params)?;
        } else {
            step.run(&kernel, grid, &gemm)?;
        }
        let mut found = vec![0; (m * n * 4) as usize];
        driver.synchronize(stream)?;
        driver.download(&mut found, self.y)?;
        Ok(found)
    }
}

fn stored(x: f32, half: Half) -> [u8; 2] {
    match half {
        Half::Bf16 => half::bf16::from_f32(x).to_le_bytes(),
        Half::F16 => half::f16::from_f32(x).to_le_bytes(),
    }
}
