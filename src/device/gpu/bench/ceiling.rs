//! What this card reaches when nothing else is asked of it (`cuda/ceiling.cu`,
//! `cuda/ceiling_wgmma.cu`): bytes read from memory, and 16-bit products with f32 sums.

use super::Size;
use super::rig::{Job, Rig};
use crate::device::gpu::abi;
use crate::device::gpu::choose::Geometry;
use crate::device::gpu::registry;
use crate::error::Result;

/// Measured ceilings of a card.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ceilings {
    /// Bytes read from memory a second.
    pub read_bytes_per_s: f64,
    /// bf16 FLOPs a second by `mma.sync`.
    pub mma_flops_per_s: f64,
    /// bf16 FLOPs a second by `wgmma`; none before Hopper.
    pub wgmma_flops_per_s: Option<f64>,
}

impl Ceilings {
    /// FLOPs a second of the fastest instruction.
    pub fn flops_per_s(&self) -> f64 {
        self.wgmma_flops_per_s.unwrap_or(0.0).max(self.mma_flops_per_s)
    }
}

/// The best of several passes of each.
///
/// # Errors
/// What the driver says.
pub fn measure(rig: &mut Rig<'_>, size: Size) -> Result<Ceilings> {
    let info = rig.driver().card();
    let (small, hopper) = (size == Size::Small, info.capability == (9, 0));
    let sms = if small { 1 } else { info.sms };
    // Four times an L2 of 50 MB and more: what is read must come from memory.
    let bytes = if small { 1 << 16 } else { 1usize << 30 };
    let rounds = if small { 1 } else { 20_000 };
    let read_bytes_per_s = rate(rig, &mut |rig| read(rig, sms, bytes), |job| job.bytes)?;
    let mma = |rig: &mut Rig<'_>| products(rig, "sm80_bf16_ceiling_mma", sms, rounds);
    let mma_flops_per_s = rate(rig, &mut { mma }, |job| job.flops)?;
    let wgmma = |rig: &mut Rig<'_>| products(rig, "sm90a_bf16_ceiling_wgmma", sms, rounds);
    let flops = |job: &Job| job.flops;
    let wgmma_flops_per_s = hopper.then(|| rate(rig, &mut { wgmma }, flops)).transpose()?;
    Ok(Ceilings { read_bytes_per_s, mma_flops_per_s, wgmma_flops_per_s })
}

fn rate(
    rig: &mut Rig<'_>,
    make: &mut dyn FnMut(&mut Rig<'_>) -> Result<Job>,
    amount: impl Fn(&Job) -> f64,
) -> Result<f64> {
    let job = make(rig)?;
    let timing = rig.time(&job, 5)?;
    rig.clear()?;
    let best = timing.cold.iter().chain(&timing.warm).copied().fold(f64::INFINITY, f64::min);
    Ok(amount(&job) / best)
}

fn params(x: u64, out: u64, pieces: usize, rounds: usize) -> abi::CeilingParams {
    abi::CeilingParams { x, out, pieces: pieces as u64, rounds: rounds as u32, reserved: 0 }
}

fn geometry(symbol: &str, blocks: u32) -> Result<Geometry> {
    let (_, kernel) = registry::kernel(symbol)?;
    let Some(grid) = Some([blocks, 1, 1]).filter(|g| g[0] > 0) else {
        return Err(crate::error::Error::device("a card without multiprocessors"));
    };
    Ok(Geometry { grid, block: kernel.block, shared: kernel.shared, cluster: 1, early: false })
}

fn read(rig: &mut Rig<'_>, sms: u32, bytes: usize) -> Result<Job> {
    let symbol = "sm80_ceiling_read";
    let geometry = geometry(symbol, 4 * sms)?;
    let x = rig.halves(bytes / 2)?;
    let out = rig.alloc((geometry.grid[0] * geometry.block) as usize * 4)?;
    let job = Job::new(symbol.to_owned(), geometry, &params(x, out, bytes / 16, 0));
    Ok(job.least(bytes, 0))
}

/// Products of registers, or of tiles that stay in shared memory.
fn products(rig: &mut Rig<'_>, symbol: &str, sms: u32, rounds: usize) -> Result<Job> {
    let (_, kernel) = registry::kernel(symbol)?;
    let geometry = geometry(symbol, sms * kernel_number(kernel, "blocks"))?;
    let threads = (geometry.grid[0] * geometry.block) as usize;
    let x = rig.halves(8 * 1024)?;
    let out = rig.alloc(threads * 4)?;
    let job = Job::new(symbol.to_owned(), geometry, &params(x, out, 0, rounds));
    let each = kernel_number(kernel, "flops") as usize;
    Ok(job.least(0, threads / 32 * rounds * each))
}

/// A number that the generator's table gives beside the variant.
fn kernel_number(kernel: &registry::Kernel, key: &str) -> u32 {
    let pairs = kernel.about.split_whitespace().filter_map(|pair| pair.split_once('='));
    pairs.into_iter().find(|(k, _)| *k == key).and_then(|(_, v)| v.parse().ok()).unwrap_or(1)
}
