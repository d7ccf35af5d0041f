//! Loading a model: the memory plan, weights, kernels, ops, graphs.

use std::collections::HashMap;
use std::sync::Arc;

use super::GpuOptions;
use super::driver::{DevicePtr, Driver, Stream};
use super::executor::{GpuLoaded, Parts};
use super::graphs::{self, Graphs};
use super::inputs::{Inputs, Tiling};
use super::kernels::Kernels;
use super::launch::{Launchable, Prepare};
use super::memory::{Memory, Purpose};
use super::ops::{self, Angles, angle_bytes, tile_rows};
use super::weights::Uploader;
use crate::device::Limits;
use crate::device::validate::validate;
use crate::error::{Error, Result};
use crate::model::plan::{Matrix, Op, Part, Plan, Rows};
use crate::weights::Weights;

/// Bytes of a stored number.
const ELEMENT: usize = 2;

/// Loads `plan` on the driver's device.
///
/// # Errors
/// If the plan is inconsistent or has an op that no kernel serves, a tensor is missing, or memory
/// runs out.
pub fn load(
    driver: &Arc<dyn Driver>,
    options: &GpuOptions,
    plan: &Plan,
    weights: &Weights,
    limits: &Limits,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<GpuLoaded> {
    validate(plan)?;
    let mut memory = Memory::new(Arc::clone(driver));
    let mut kernels = Kernels::new(Arc::clone(driver), options.dtype);
    let (matrices, vectors) = upload(driver, &mut memory, options, plan, weights, progress)?;
    weights.check()?;
    let inputs = Inputs::new(&mut memory, limits, tiling(plan)?)?;
    let buffers = buffers(&mut memory, plan, limits)?;
    let kv = kv_pages(&mut memory, plan, limits)?;
    let (tables, angles) = rotary(&mut memory, &mut kernels, plan, limits, &inputs)?;
    let mut prepare = Prepare {
        plan,
        limits,
        kernels: &mut kernels,
        memory: &mut memory,
        inputs: &inputs,
        buffers: &buffers,
        matrices: &matrices,
        vectors: &vectors,
        kv: &kv,
        angles: &tables,
        shared: HashMap::new(),
        sms: driver.card().sms,
    };
    let ops = ops::prepare(&mut prepare)?;
    let page_copy = page_copy(&mut kernels, &mut memory, plan, &kv)?;
    let rows = limits.logit_rows.max(1);
    let logits = memory.pinned(rows * plan.vocab_size * 4)?;
    let parts = Parts {
        plan: plan.clone(),
        limits: *limits,
        kernels,
        inputs,
        angles,
        ops,
        page_copy,
        logits_at: buffers[plan.logits.buffer],
        logits,
        dtype: options.dtype,
        buffers,
    };
    // Scratch was zeroed on the default stream, which steps do not wait for.
    driver.synchronize(Stream::DEFAULT)?;
    let graphs = Graphs::new(Arc::clone(driver));
    let mut loaded = GpuLoaded::new(Arc::clone(driver), memory, parts, graphs)?;
    let most = limits.step_sequences.min(limits.step_tokens).min(limits.logit_rows);
    let most = options.graph_sizes.map_or(most, |asked| most.min(asked));
    for size in graphs::sizes(most) {
        loaded.capture(size)?;
    }
    Ok(loaded)
}

/// How attention cuts rows into tiles; all of a model's layers must agree.
fn tiling(plan: &Plan) -> Result<Tiling> {
    let mut found: Option<usize> = None;
    for planned in &plan.ops {
        let Op::Attention { heads, kv_heads, .. } = planned.op else { continue };
        let group = heads / kv_heads;
        if *found.get_or_insert(group) != group {
            return Err(Error::unsupported("layers with different numbers of heads per group"));
        }
    }
    Ok(Tiling { group: found.unwrap_or(1), rows: tile_rows(plan.kv.head_dim) })
}

type Addresses = Vec<DevicePtr>;

/// Uploads each matrix once, tied ones shared, and all vectors.
fn upload(
    driver: &Arc<dyn Driver>,
    memory: &mut Memory,
    options: &GpuOptions,
    plan: &Plan,
    weights: &Weights,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(Addresses, Addresses)> {
    let stored = |m: &Matrix| (m.rows * m.cols * ELEMENT) as u64;
    let mut seen: HashMap<&[Part], DevicePtr> = HashMap::new();
    let unique = plan.matrices.iter().filter(|m| seen.insert(&m.parts, 0).is_none());
    let (mut done, total) = (0, unique.map(stored).sum());
    seen.clear();
    let mut uploader = Uploader::new(driver, memory, options.dtype)?;
    let mut matrices = Vec::with_capacity(plan.matrices.len());
    for matrix in &plan.matrices {
        if let Some(address) = seen.get(matrix.parts.as_slice()) {
            matrices.push(*address);
            continue;
        }
        let address = uploader.matrix(memory, matrix, weights)?;
        seen.insert(&matrix.parts, address);
        matrices.push(address);
        done += stored(matrix);
        progress(done, total);
    }
    let vectors: Result<Addresses> =
        plan.vectors.iter().map(|v| uploader.vector(memory, v, weights)).collect();
    let vectors = vectors?;
    uploader.finish()?;
    Ok((matrices, vectors))
}

fn buffers(memory: &mut Memory, plan: &Plan, limits: &Limits) -> Result<Addresses> {
    let sized = plan.buffers.iter().enumerate().map(|(i, b)| {
        let rows = match b.rows {
            Rows::Tokens => limits.step_tokens,
            Rows::Logits => limits.logit_rows,
        };
        let bytes = if i == plan.logits.buffer { 4 } else { ELEMENT };
        ((rows * b.width * bytes) as u64, b.name)
    });
    sized.map(|(bytes, name)| memory.zeroed(bytes, name)).collect()
}

/// K and V of every layer: `[pages, kv_heads, page_size, head_dim]` each.
fn kv_pages(
    memory: &mut Memory,
    plan: &Plan,
    limits: &Limits,
) -> Result<Vec<(DevicePtr, DevicePtr)>> {
    let kv = plan.kv;
    let numbers = limits.pages * kv.kv_heads * limits.page_size * kv.head_dim;
    let bytes = (numbers * ELEMENT) as u64;
    let one = |memory: &mut Memory| {
        memory.alloc(Purpose::Kv, bytes, "key-value pages (--max-total-tokens)")
    };
    (0..kv.layers).map(|_| Ok((one(memory)?, one(memory)?))).collect()
}

type Rotary = (Addresses, Vec<Box<dyn Launchable>>);

/// Room for the angles of each rotary table, and what fills it.
fn rotary(
    memory: &mut Memory,
    kernels: &mut Kernels,
    plan: &Plan,
    limits: &Limits,
    inputs: &Inputs,
) -> Result<Rotary> {
    let (mut tables, mut fill) = (Vec::new(), Vec::<Box<dyn Launchable>>::new());
    for table in &plan.ropes {
        let bytes = (limits.step_tokens * angle_bytes(table.dim / 2)) as u64;
        let at = memory.zeroed(bytes, "rotary angles")?;
        let kernel = kernels.get("f32_rope_angles")?;
        fill.push(Box::new(Angles::new(memory, kernel, table, inputs.positions(), at)?));
        tables.push(at);
    }
    Ok((tables, fill))
}

/// The kernel that copies pages, and lists of all layers' addresses.
fn page_copy(
    kernels: &mut Kernels,
    memory: &mut Memory,
    plan: &Plan,
    kv: &[(DevicePtr, DevicePtr)],
) -> Result<super::executor::PageCopy> {
    let form = if plan.kv.head_dim.is_multiple_of(8) { "vec" } else { "any" };
    let list =
        |of: fn(&(DevicePtr, DevicePtr)) -> DevicePtr| -> Vec<u64> { kv.iter().map(of).collect() };
    Ok(super::executor::PageCopy {
        kernel: kernels.get(&format!("b16_page_copy_{form}"))?,
        k_layers: memory.list(&list(|l| l.0), "layers' keys")?,
        v_layers: memory.list(&list(|l| l.1), "layers' values")?,
    })
}
