//! From flags to a running engine, the same way for every command.

use std::path::PathBuf;
use std::sync::Arc;

use pacer_emulator::host::Config;
use serde_json::Value;

use super::model_flags::{
    ActivationBits, Chunking, DeviceChoice, DtypeChoice, KvDtype, LoadFormat, ModelFlags,
    SchedulePolicy,
};
use super::out;
use super::progress::Progress;
use crate::device::Device;
use crate::device::cpu::{CpuDevice, CpuOptions, KvType, Mode, available_memory};
use crate::device::gpu::driver::Driver;
use crate::device::gpu::driver::cuda::Cuda;
use crate::device::gpu::driver::emulated::Emulated;
use crate::device::gpu::{GpuDevice, GpuOptions};
use crate::device::null::NullDevice;
use crate::engine::Engine;
use crate::engine::model::{Model, PendingText};
use crate::engine::options::{self, EngineOptions, ModelOptions};
use crate::error::{Error, Result};
use crate::scheduler::Policy;
use crate::types::Dtype;

/// What the shared flags say of the model itself.
pub fn model_options(flags: &ModelFlags) -> ModelOptions {
    let overrides = &flags.config_override;
    ModelOptions {
        path: flags.model_path.clone(),
        tokenizer: flags.tokenizer_path.clone().map(PathBuf::from),
        format: match flags.load_format {
            LoadFormat::Auto => options::LoadFormat::Auto,
            LoadFormat::Safetensors => options::LoadFormat::Safetensors,
            LoadFormat::Gguf => options::LoadFormat::Gguf,
            LoadFormat::Dummy => options::LoadFormat::Dummy,
        },
        overrides: (!overrides.is_empty()).then(|| Value::Object(overrides.clone())),
        context: flags.context_length,
        dtype: match flags.dtype {
            DtypeChoice::Auto => None,
            DtypeChoice::Float32 => Some(Dtype::F32),
            DtypeChoice::Bfloat16 => Some(Dtype::BF16),
            DtypeChoice::Float16 => Some(Dtype::F16),
        },
        seed: flags.random_seed.unwrap_or(0),
    }
}

/// What they say of the engine.
pub fn engine_options(flags: &ModelFlags) -> EngineOptions {
    EngineOptions {
        threads: flags.threads,
        memory_fraction: flags.mem_fraction_static,
        total_tokens: flags.max_total_tokens,
        page_size: flags.page_size,
        max_running: flags.max_running_requests,
        step_tokens: match flags.chunked_prefill_size {
            Chunking::Auto => None,
            Chunking::Off => Some(flags.max_prefill_tokens),
            Chunking::Tokens(n) => Some(n),
        },
        max_prefill_tokens: flags.max_prefill_tokens,
        mixed_prefill: flags.mixed_prefill_size,
        policy: match flags.schedule_policy {
            SchedulePolicy::Fcfs => Policy::Fcfs,
            SchedulePolicy::Lpm => Policy::Lpm,
        },
        prefix_cache: !flags.disable_radix_cache,
        device_sampling: flags.device_sampling,
        seed: flags.random_seed.unwrap_or(0),
        nvtx: flags.nvtx,
        ..EngineOptions::default()
    }
}

/// The device that the flags name; `auto` says on standard error what it took and why.
///
/// # Errors
/// If there is no such device, with what is missing.
pub fn device(flags: &ModelFlags) -> Result<Box<dyn Device>> {
    match flags.device {
        DeviceChoice::Cpu => cpu(flags),
        DeviceChoice::Null => Ok(Box::new(NullDevice::default())),
        DeviceChoice::Cuda => {
            let cuda = open_cuda(flags).map_err(|e| e.context("--device cuda"))?;
            gpu(flags, cuda)
        }
        DeviceChoice::Emulated => gpu(flags, Arc::new(Emulated::new(emulated_config()))),
        DeviceChoice::Auto => match open_cuda(flags) {
            Ok(cuda) => {
                out::note(format_args!("device: cuda, {}", cuda.card().name));
                gpu(flags, cuda)
            }
            Err(why) => {
                out::note(format_args!("device: cpu ({why})"));
                cpu(flags)
            }
        },
    }
}

fn cpu(flags: &ModelFlags) -> Result<Box<dyn Device>> {
    let weights = model_options(flags).dtype;
    let (threads, bind, numa) = (flags.threads, flags.cpu_bind, flags.numa);
    let mode = match flags.activation_bits {
        ActivationBits::Sixteen => Mode::Int16,
        ActivationBits::Eight => Mode::Int8,
    };
    let kv = match flags.kv_cache_dtype {
        KvDtype::Auto => None,
        KvDtype::Float32 => Some(KvType::F32),
        KvDtype::Float16 => Some(KvType::F16),
    };
    let options = CpuOptions { threads, bind, numa, weights, mode, kv, ..CpuOptions::default() };
    Ok(Box::new(CpuDevice::new(options)?))
}

/// The card that the flags name.
///
/// # Errors
/// Says which of library, driver and card is missing.
pub fn open_cuda(flags: &ModelFlags) -> Result<Arc<dyn Driver>> {
    let ordinal = i32::try_from(flags.gpu).unwrap_or(i32::MAX);
    Ok(Arc::new(Cuda::open(ordinal)?))
}

fn gpu(flags: &ModelFlags, driver: Arc<dyn Driver>) -> Result<Box<dyn Device>> {
    if flags.kv_cache_dtype != KvDtype::Auto {
        return Err(Error::usage(
            "--kv-cache-dtype: a GPU keeps keys and values in the type of its activations; set \
             --dtype, or --device cpu",
        ));
    }
    let asked = model_options(flags).dtype;
    let (dtype, packed) = (asked.unwrap_or(Dtype::BF16), asked.is_none());
    let options = GpuOptions { dtype, packed, graph_sizes: flags.graph_sizes };
    Ok(Box::new(GpuDevice::new(driver, options)?))
}

/// An emulated card whose memory the host can back: the machine keeps up to five bytes beside each
/// byte that kernels touch.
fn emulated_config() -> Config {
    const LEAST: u64 = 64 << 20;
    let available = available_memory() / 8;
    let config = Config::default();
    let memory = config.card.memory_bytes.min(available).max(LEAST);
    Config { memory, ..config }
}

/// Opens the model, with the notes that its user should see on standard error.
pub fn model(flags: &ModelFlags) -> Result<Model> {
    let (mut model, text) = model_without_text(flags)?;
    text.finish(&mut model)?;
    Ok(model)
}

/// As [`model`], with tokenizer and chat template still to come.
pub fn model_without_text(flags: &ModelFlags) -> Result<(Model, PendingText)> {
    flags.notes.iter().for_each(|n| out::note(format_args!("note: {n}")));
    let (model, text) = Model::open_without_text(&model_options(flags))?;
    if flags.model_path.is_none() {
        out::note(format_args!(
            "note: no --model-path: the embedded default configuration {}, with dummy weights",
            model.name
        ));
    }
    Ok((model, text))
}

/// Puts `model` on the device that the flags name.
pub fn engine(model: Model, flags: &ModelFlags, options: &EngineOptions) -> Result<Engine> {
    engine_on(device(flags)?.as_ref(), model, options)
}

/// Puts `model` on `device`, with a bar where a person can see it.
pub fn engine_on(device: &dyn Device, model: Model, options: &EngineOptions) -> Result<Engine> {
    let bar = Progress::new("loading weights, MiB");
    let mib = |bytes: u64| (bytes >> 20) as usize;
    let engine =
        Engine::new(model, device, options, &mut |done, total| bar.set(mib(done), mib(total)))?;
    drop(bar);
    engine.loaded().notes().iter().for_each(|n| out::note(format_args!("note: {n}")));
    Ok(engine)
}
