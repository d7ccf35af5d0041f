//! RMSNorm, with the residual addition before it where there is one (`cuda/rmsnorm.cu`).

use crate::device::gpu::abi;
use crate::device::gpu::driver::DevicePtr;
use crate::device::gpu::inputs::Counts;
use crate::device::gpu::kernels::Kernel;
use crate::device::gpu::launch::{Launchable, Prepare, Step, Tensor};
use crate::error::{Error, Result};
use crate::model::plan::{Op, Rows, View};

/// A form of the kernel: its name, threads of a block, and groups that a block serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    pub name: &'static str,
    pub block: u32,
    pub groups: u32,
}

/// By width alone, so that a row's sum has one order whatever the step: a warp holds a row of up
/// to 1,024 numbers, a block one of up to 16,384.
pub fn choose(width: u32, wide: bool) -> Choice {
    let block = |name, passes: u32| {
        let threads = width.div_ceil(8 * passes).next_multiple_of(32);
        Choice { name, block: threads, groups: 1 }
    };
    match width {
        _ if !wide => Choice { name: "rmsnorm_any", block: 256, groups: 1 },
        ..=256 => Choice { name: "rmsnorm_warp1", block: 128, groups: 4 },
        257..=1024 => Choice { name: "rmsnorm_warp4", block: 128, groups: 4 },
        1025..=8192 => block("rmsnorm_block1", 1),
        8193..=16384 => block("rmsnorm_block2", 2),
        _ => Choice { name: "rmsnorm_any", block: 256, groups: 1 },
    }
}

/// A norm of `groups` segments of each row.
pub struct Norm {
    kernel: Kernel,
    choice: Choice,
    x: Tensor,
    add: Option<Tensor>,
    out: Tensor,
    weight: DevicePtr,
    groups: u32,
    eps: f32,
    offset: f32,
}

impl Norm {
    pub fn new(p: &mut Prepare<'_>, op: &Op, add: Option<&View>) -> Result<Self> {
        let Op::RmsNorm { x, out, weight, eps, plus_one, groups } = op else {
            return Err(Error::unsupported("not a norm"));
        };
        let (x, out, add) = (p.tensor(x), p.tensor(out), add.map(|a| p.tensor(a)));
        let groups = *groups as u32;
        let width = x.width / groups;
        let all = [Some(x), Some(out), add];
        let wide = width.is_multiple_of(8) && all.iter().flatten().all(Tensor::is_wide);
        let choice = choose(width, wide);
        Ok(Norm {
            kernel: p.kernels.half(choice.name)?,
            choice,
            x,
            add,
            out,
            weight: p.vectors[*weight],
            groups,
            eps: *eps,
            offset: if *plus_one { 1.0 } else { 0.0 },
        })
    }
}

impl Launchable for Norm {
    fn launch(&self, step: &mut Step<'_>) -> Result<()> {
        let rows = step.rows(self.x.rows);
        let params = abi::RmsNormParams {
            x: self.x.address,
            add: self.add.map_or(0, |a| a.address),
            weight: self.weight,
            out: self.out.address,
            rows,
            groups: self.groups,
            width: self.x.width / self.groups,
            x_stride: self.x.stride,
            add_stride: self.add.map_or(0, |a| a.stride),
            out_stride: self.out.stride,
            eps: self.eps,
            offset: self.offset,
        };
        let blocks = (rows * self.groups).div_ceil(self.choice.groups);
        step.run_block(&self.kernel, [blocks, 1, 1], self.choice.block, &params)
    }

    fn traffic(&self, counts: &Counts) -> u64 {
        let rows = if self.x.rows == Rows::Tokens { counts.tokens } else { counts.logits };
        let tensors = if self.add.is_some() { 4 } else { 2 };
        let width = u64::from(self.x.width);
        u64::from(rows) * width * 2 * tensors + width / u64::from(self.groups) * 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_follows_from_the_width_alone() {
        let names = [64, 256, 264, 1024, 1032, 8192, 8200, 16384, 16392].map(|w| {
            let c = choose(w, true);
            (c.name, c.block)
        });
        assert_eq!(names[0], ("rmsnorm_warp1", 128));
        assert_eq!(names[1], ("rmsnorm_warp1", 128));
        assert_eq!(names[2], ("rmsnorm_warp4", 128));
        assert_eq!(names[3], ("rmsnorm_warp4", 128));
        assert_eq!(names[4], ("rmsnorm_block1", 160));
        assert_eq!(names[5], ("rmsnorm_block1", 1024));
        assert_eq!(names[6], ("rmsnorm_block2", 544));
        assert_eq!(names[7], ("rmsnorm_block2", 1024));
        assert_eq!(names[8], ("rmsnorm_any", 256));
        assert_eq!(choose(64, false).name, "rmsnorm_any");
    }
}
