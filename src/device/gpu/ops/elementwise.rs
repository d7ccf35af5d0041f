//! Ops that touch each number once: embedding, addition, gated activation, gather, soft cap. Each
//! has a kernel for rows of whole 16 bytes and one for any width.

use super::act_number;
use crate::device::gpu::abi;
use crate::device::gpu::driver::DevicePtr;
use crate::device::gpu::inputs::Counts;
use crate::device::gpu::kernels::Kernel;
use crate::device::gpu::launch::{Launchable, Prepare, Step, Tensor, row_blocks};
use crate::error::Result;
use crate::model::plan::{Activation, Rows, View};

/// The form of a kernel: `vec` where every tensor allows it.
fn form(tensors: &[&Tensor]) -> &'static str {
    if tensors.iter().all(|t| t.is_wide()) { "vec" } else { "any" }
}

/// Numbers a thread of that form.
fn per_thread(form: &str, f32: bool) -> u32 {
    match (form, f32) {
        ("vec", true) => 4,
        ("vec", false) => 8,
        _ => 1,
    }
}

fn row_count(counts: &Counts, rows: Rows) -> u64 {
    match rows {
        Rows::Tokens => counts.tokens.into(),
        Rows::Logits => counts.logits.into(),
    }
}

/// `out[t] = scale · table[token[t]]`.
pub struct Embed {
    kernel: Kernel,
    table: DevicePtr,
    tokens: DevicePtr,
    out: Tensor,
    scale: f32,
    columns: u32,
}

impl Embed {
    pub fn new(p: &mut Prepare<'_>, table: usize, out: &View, scale: f32) -> Result<Self> {
        let out = p.tensor(out);
        let form = form(&[&out]);
        let kernel = p.kernels.half(&format!("embed_{form}"))?;
        let columns = row_blocks(out.width, per_thread(form, false));
        let (table, tokens) = (p.matrices[table], p.inputs.tokens());
        Ok(Embed { kernel, table, tokens, out, scale, columns })
    }
}

impl Launchable for Embed {
    fn launch(&self, step: &mut Step<'_>) -> Result<()> {
        let rows = step.rows(self.out.rows);
        let params = abi::EmbedParams {
            table: self.table,
            tokens: self.tokens,
            out: self.out.address,
            rows,
            width: self.out.width,
            out_stride: self.out.stride,
            scale: self.scale,
        };
        step.run(&self.kernel, [rows, self.columns, 1], &params)
    }

    fn traffic(&self, counts: &Counts) -> u64 {
        u64::from(counts.tokens) * (u64::from(self.out.width) * 4 + 4)
    }
}

/// `x += y`.
pub struct Add {
    kernel: Kernel,
    x: Tensor,
    y: Tensor,
    columns: u32,
}

impl Add {
    pub fn new(p: &mut Prepare<'_>, x: &View, y: &View) -> Result<Self> {
        let (x, y) = (p.tensor(x), p.tensor(y));
        let form = form(&[&x, &y]);
        let kernel = p.kernels.half(&format!("add_{form}"))?;
        Ok(Add { kernel, x, y, columns: row_blocks(x.width, per_thread(form, false)) })
    }
}

impl Launchable for Add {
    fn launch(&self, step: &mut Step<'_>) -> Result<()> {
        let rows = step.rows(self.x.rows);
        let params = abi::AddParams {
            x: self.x.address,
            y: self.y.address,
            rows,
            width: self.x.width,
            x_stride: self.x.stride,
            y_stride: self.y.stride,
        };
        step.run(&self.kernel, [rows, self.columns, 1], &params)
    }

    fn traffic(&self, counts: &Counts) -> u64 {
        row_count(counts, self.x.rows) * u64::from(self.x.width) * 6
    }
}

/// `out = act(gate) ⊙ up`, where no product does it in passing.
pub struct Gated {
    kernel: Kernel,
    gate_up: Tensor,
    out: Tensor,
    act: u32,
    columns: u32,
}

impl Gated {
    pub fn new(p: &mut Prepare<'_>, gate_up: &View, out: &View, act: Activation) -> Result<Self> {
        let (gate_up, out) = (p.tensor(gate_up), p.tensor(out));
        let form = form(&[&gate_up, &out]);
        let kernel = p.kernels.half(&format!("gated_{form}"))?;
        let columns = row_blocks(out.width, per_thread(form, false));
        Ok(Gated { kernel, gate_up, out, act: act_number(act), columns })
    }
}

impl Launchable for Gated {
    fn launch(&self, step: &mut Step<'_>) -> Result<()> {
        let rows = step.rows(self.out.rows);
        let params = abi::GatedParams {
            gate_up: self.gate_up.address,
            out: self.out.address,
            rows,
            width: self.out.width,
            gate_up_stride: self.gate_up.stride,
            out_stride: self.out.stride,
            act: self.act,
            reserved: 0,
        };
        step.run(&self.kernel, [rows, self.columns, 1], &params)
    }

    fn traffic(&self, counts: &Counts) -> u64 {
        row_count(counts, self.out.rows) * u64::from(self.out.width) * 6
    }
}

/// `out[r] = x[logit_rows[r]]`.
pub struct Gather {
    kernel: Kernel,
    index: DevicePtr,
    x: Tensor,
    out: Tensor,
    columns: u32,
}

impl Gather {
    pub fn new(p: &mut Prepare<'_>, x: &View, out: &View) -> Result<Self> {
        let (x, out) = (p.tensor(x), p.tensor(out));
        let form = form(&[&x, &out]);
        let kernel = p.kernels.half(&format!("gather_{form}"))?;
        let columns = row_blocks(out.width, per_thread(form, false));
        Ok(Gather { kernel, index: p.inputs.logit_rows(), x, out, columns })
    }
}

impl Launchable for Gather {
    fn launch(&self, step: &mut Step<'_>) -> Result<()> {
        let rows = step.rows(self.out.rows);
        let params = abi::GatherParams {
            x: self.x.address,
            index: self.index,
            out: self.out.address,
            rows,
            width: self.out.width,
            x_stride: self.x.stride,
            out_stride: self.out.stride,
        };
        step.run(&self.kernel, [rows, self.columns, 1], &params)
    }

    fn traffic(&self, counts: &Counts) -> u64 {
        u64::from(counts.logits) * (u64::from(self.out.width) * 4 + 4)
    }
}

/// `x = cap · tanh(x / cap)` in place.
pub struct Softcap {
    kernel: Kernel,
    x: Tensor,
    cap: f32,
    columns: u32,
}

impl Softcap {
    pub fn new(p: &mut Prepare<'_>, x: &View, cap: f32) -> Result<Self> {
        let x = p.tensor(x);
        let form = form(&[&x]);
        let name = format!("softcap_{form}");
        let kernel =
            if x.f32 { p.kernels.get(&format!("f32_{name}"))? } else { p.kernels.half(&name)? };
        Ok(Softcap { kernel, x, cap, columns: row_blocks(x.width, per_thread(form, x.f32)) })
    }
}

impl Launchable for Softcap {
    fn launch(&self, step: &mut Step<'_>) -> Result<()> {
        let rows = step.rows(self.x.rows);
        let params = abi::SoftcapParams {
            x: self.x.address,
            rows,
            width: self.x.width,
            stride: self.x.stride,
            cap: self.cap,
        };
        step.run(&self.kernel, [rows, self.columns, 1], &params)
    }

    fn traffic(&self, counts: &Counts) -> u64 {
        let bytes = if self.x.f32 { 8 } else { 4 };
        row_count(counts, self.x.rows) * u64::from(self.x.width) * bytes
    }
}
