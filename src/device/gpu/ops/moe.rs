//! A mixture of experts: router, choice, rows sorted by expert, two grouped products, weighted sum
//! (`cuda/moe_*.cu`, `cuda/grouped_gemm.cu`). Nothing returns to the host in between.

use super::act_number;
use super::gemm::Products;
use crate::device::gpu::abi;
use crate::device::gpu::choose::gemm::Family;
use crate::device::gpu::driver::DevicePtr;
use crate::device::gpu::inputs::Counts;
use crate::device::gpu::kernels::Kernel;
use crate::device::gpu::launch::{Launchable, Prepare, Step, Tensor, row_blocks};
use crate::error::{Error, Result};
use crate::model::plan::Op;

/// Kernels of all stages.
struct Stages {
    router: Products,
    topk: Kernel,
    permute: Kernel,
    up: Products,
    down: Products,
    combine: Kernel,
}

/// Device memory between the stages.
struct Spaces {
    logits: DevicePtr,
    chosen: DevicePtr,
    shares: DevicePtr,
    offsets: DevicePtr,
    gather: DevicePtr,
    places: DevicePtr,
    /// `[assignments, intermediate]` and `[assignments, hidden]`.
    inner: DevicePtr,
    outer: DevicePtr,
}

/// One layer's mixture.
pub struct Moe {
    stages: Stages,
    spaces: Spaces,
    x: Tensor,
    out: Tensor,
    router: DevicePtr,
    /// Addresses of the experts' matrices.
    up: DevicePtr,
    down: DevicePtr,
    experts: u32,
    top_k: u32,
    intermediate: u32,
    renormalise: bool,
    act: u32,
    columns: u32,
}

impl Moe {
    pub fn new(p: &mut Prepare<'_>, op: &Op) -> Result<Self> {
        let Op::Moe { x, out, router, experts, intermediate, top_k, renormalise, act } = op else {
            return Err(Error::unsupported("not a mixture of experts"));
        };
        let (x, out) = (p.tensor(x), p.tensor(out));
        if experts.len() > 512 || *top_k > 32 {
            let message = "the GPU's kernels take up to 512 experts and 32 of them a token";
            return Err(Error::unsupported(message));
        }
        if !x.is_wide() || !out.is_wide() || !intermediate.is_multiple_of(8) {
            let message = "experts' widths: the GPU's kernels need multiples of 8";
            return Err(Error::unsupported(message));
        }
        let addresses = |of: fn(&crate::model::plan::Expert) -> usize| -> Vec<u64> {
            experts.iter().map(|e| p.matrices[of(e)]).collect()
        };
        let (up, down) = (addresses(|e| e.gate_up), addresses(|e| e.down));
        let stages = Stages {
            router: Products::load(p, Family::Plain, false)?.without_maps(),
            topk: p.kernels.get("f32_moe_topk")?,
            permute: p.kernels.get("moe_permute")?,
            up: Products::load(p, Family::Grouped(experts.len()), true)?,
            down: Products::load(p, Family::Grouped(experts.len()), false)?,
            combine: p.kernels.half("moe_combine_vec")?,
        };
        let (tokens, count) = (p.limits.step_tokens as u64, (p.limits.step_tokens * top_k) as u64);
        let spaces = Spaces {
            logits: p.scratch("router logits", tokens * experts.len() as u64 * 4)?,
            chosen: p.scratch("chosen experts", count * 4)?,
            shares: p.scratch("experts' shares", count * 4)?,
            offsets: p.scratch("experts' offsets", (experts.len() as u64 + 1) * 4)?,
            gather: p.scratch("experts' rows", count * 4)?,
            places: p.scratch("assignments' places", count * 4)?,
            inner: p.scratch("experts' inner rows", count * *intermediate as u64 * 2)?,
            outer: p.scratch("experts' outer rows", count * u64::from(out.width) * 2)?,
        };
        Ok(Moe {
            stages,
            spaces,
            x,
            out,
            router: p.matrices[*router],
            up: p.memory.list(&up, "experts' addresses")?,
            down: p.memory.list(&down, "experts' addresses")?,
            experts: experts.len() as u32,
            top_k: *top_k as u32,
            intermediate: *intermediate as u32,
            renormalise: *renormalise,
            act: act_number(*act),
            columns: row_blocks(out.width, 8),
        })
    }

    fn route(&self, step: &mut Step<'_>, rows: u32) -> Result<()> {
        let s = &self.spaces;
        let picked = self.stages.router.pick(rows, self.experts, self.x.width);
        let params = abi::GemmParams {
            x: self.x.address,
            w: self.router,
            y: s.logits,
            m: rows,
            n: self.experts,
            k: self.x.width,
            x_stride: self.x.stride,
            y_stride: self.experts,
            out_f32: 1,
            ..Default::default()
        };
        step.run(picked.kernel, picked.grid, &params)?;
        let params = abi::MoeTopkParams {
            logits: s.logits,
            chosen: s.chosen,
            shares: s.shares,
            rows,
            experts: self.experts,
            top_k: self.top_k,
            stride: self.experts,
            renormalise: u32::from(self.renormalise),
            reserved: 0,
        };
        step.run(&self.stages.topk, [rows.div_ceil(4), 1, 1], &params)?;
        let params = abi::MoePermuteParams {
            chosen: s.chosen,
            offsets: s.offsets,
            gather: s.gather,
            places: s.places,
            count: rows * self.top_k,
            top_k: self.top_k,
            experts: self.experts,
            reserved: 0,
        };
        step.run(&self.stages.permute, [self.experts, 1, 1], &params)
    }

    /// One grouped product; `gather` takes rows of x, 0 the same rows.
    fn product(
        &self,
        step: &mut Step<'_>,
        products: &Products,
        gemm: abi::GemmParams,
        gather: DevicePtr,
    ) -> Result<()> {
        let picked = products.pick(gemm.m, gemm.n, gemm.k);
        let params = abi::GroupedGemmParams {
            gemm,
            offsets: self.spaces.offsets,
            gather,
            experts: self.experts,
            reserved: 0,
        };
        step.run(picked.kernel, picked.grid, &params)
    }
}

impl Launchable for Moe {
    fn launch(&self, step: &mut Step<'_>) -> Result<()> {
        let rows = step.rows(self.x.rows);
        if rows == 0 {
            return Ok(());
        }
        self.route(step, rows)?;
        let (s, m) = (&self.spaces, rows * self.top_k);
        let up = abi::GemmParams {
            x: self.x.address,
            w: self.up,
            y: s.inner,
            m,
            n: self.intermediate,
            k: self.x.width,
            x_stride: self.x.stride,
            y_stride: self.intermediate,
            act: self.act,
            ..Default::default()
        };
        self.product(step, &self.stages.up, up, s.gather)?;
        let down = abi::GemmParams {
            x: s.inner,
            w: self.down,
            y: s.outer,
            m,
            n: self.out.width,
            k: self.intermediate,
            x_stride: self.intermediate,
            y_stride: self.out.width,
            ..Default::default()
        };
        self.product(step, &self.stages.down, down, 0)?;
        let params = abi::MoeCombineParams {
            y: s.outer,
            places: s.places,
            shares: s.shares,
            out: self.out.address,
            rows,
            width: self.out.width,
            top_k: self.top_k,
            y_stride: self.out.width,
            out_stride: self.out.stride,
            reserved: 0,
        };
        step.run(&self.stages.combine, [rows, self.columns, 1], &params)
    }

    /// As if every expert had rows.
    fn traffic(&self, counts: &Counts) -> u64 {
        let (hidden, inner) = (u64::from(self.x.width), u64::from(self.intermediate));
        let weights = u64::from(self.experts) * (3 * hidden * inner + hidden) * 2;
        let rows = u64::from(counts.tokens);
        let assigned = rows * u64::from(self.top_k);
        weights + rows * hidden * 6 + assigned * (hidden * 4 + inner * 4 + 28)
    }
}
