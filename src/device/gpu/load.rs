//! Loading a model: the memory plan, weights, kernels, ops, graphs.

use std::collections::HashMap;
use std::sync::Arc;

use super::GpuOptions;
use super::choose::attention::Heads;
use super::choose::{Card, Half, record};
use super::driver::{DevicePtr, Driver, Stream};
use super::exact::{self, Exact};
use super::executor::{GpuLoaded, Parts};
use super::graphs::{self, Graphs};
use super::inputs::Inputs;
use super::kernels::Kernels;
use super::launch::{Launchable, Prepare};
use super::layout::Layout;
use super::memory::{Memory, Purpose};
use super::ops::{self, Angles, angle_bytes};
use super::sample::Sampler;
use super::weights::{Packed, Uploader};
use crate::device::Limits;
use crate::device::validate::validate;
use crate::error::{Error, Result};
use crate::model::plan::{Op, Plan, Rows};
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
    let half = Half::of(options.dtype);
    let exact = exact::check(driver, &mut kernels, half, limits)?;
    let card = Card::of(driver.card(), exact == Exact::Equal);
    let layout = Layout::new(plan, weights, options.packed);
    let mut notes = layout.notes(plan, weights, options.dtype);
    notes.extend(exact.note());
    let placed = upload(driver, &mut memory, options, &layout, plan, weights, progress)?;
    weights.check()?;
    let inputs = Inputs::new(&mut memory, limits, heads(plan, half)?)?;
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
        matrices: &placed.matrices,
        packed: &placed.packed,
        vectors: &placed.vectors,
        kv: &kv,
        angles: &tables,
        shared: HashMap::new(),
        driver: &**driver,
        card,
        half,
    };
    let ops = ops::prepare(&mut prepare)?;
    let page_copy = page_copy(&mut kernels, &mut memory, plan, &kv)?;
    let rows = limits.logit_rows.max(1);
    let logits = memory.pinned(rows * plan.vocab_size * 4)?;
    let logits_at = buffers[plan.logits.buffer];
    let sampler = Sampler::new(&mut kernels, &mut memory, logits_at, limits, plan.vocab_size)?;
    let chosen = record::record(plan, &layout, &card, half, limits.step_tokens)?;
    let parts = Parts {
        plan: plan.clone(),
        limits: *limits,
        kernels,
        inputs,
        angles,
        ops,
        page_copy,
        sampler,
        logits_at,
        logits,
        dtype: options.dtype,
        buffers,
        layout,
        notes,
        card,
        choices: chosen.iter().map(ToString::to_string).collect(),
    };
    captured(driver, options, memory, parts)
}

/// The loaded model, with a graph of each decode size.
fn captured(
    driver: &Arc<dyn Driver>,
    options: &GpuOptions,
    memory: Memory,
    parts: Parts,
) -> Result<GpuLoaded> {
    let limits = parts.limits;
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

/// The heads of attention; all of a model's layers must agree.
fn heads(plan: &Plan, half: Half) -> Result<Heads> {
    let mut found: Option<Heads> = None;
    for planned in &plan.ops {
        let Op::Attention { heads, kv_heads, head_dim, .. } = planned.op else { continue };
        let own = Heads { half, heads, kv_heads, head_dim };
        if *found.get_or_insert(own) != own {
            return Err(Error::unsupported("layers with different heads of attention"));
        }
    }
    Ok(found.unwrap_or(Heads { half, heads: 1, kv_heads: 1, head_dim: plan.kv.head_dim }))
}

type Addresses = Vec<DevicePtr>;

/// Where the weights lie; 0 for a matrix that is only packed.
struct Placed {
    matrices: Addresses,
    packed: Vec<Option<Packed>>,
    vectors: Addresses,
}

/// Uploads each matrix once, tied ones shared, and all vectors.
fn upload(
    driver: &Arc<dyn Driver>,
    memory: &mut Memory,
    options: &GpuOptions,
    layout: &Layout,
    plan: &Plan,
    weights: &Weights,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Placed> {
    let (mut done, total) = (0, layout.bytes(plan));
    let mut uploader = Uploader::new(driver, memory, options.dtype)?;
    let (mut matrices, mut packed) = (Vec::new(), Vec::new());
    for (id, (matrix, form)) in plan.matrices.iter().zip(&layout.forms).enumerate() {
        matrices.push(if form.wide { uploader.matrix(memory, matrix, weights)? } else { 0 });
        packed.push(match form.packed {
            Some(packing) => Some(uploader.packed(memory, matrix, weights, packing)?),
            None => None,
        });
        done += layout.kept(id, matrix);
        progress(done, total);
    }
    let vectors: Result<Addresses> =
        plan.vectors.iter().map(|v| uploader.vector(memory, v, weights)).collect();
    let vectors = vectors?;
    uploader.finish()?;
    Ok(Placed { matrices, packed, vectors })
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
