//! The flags that every command with a model shares (contract.md §1), declared once.
//!
//! `argh` cannot nest one struct of flags in another, so [`with_model_flags!`] appends the shared
//! fields to a command's own and gives the struct `fn model(&self) -> Result<ModelFlags>`.
//! [`ModelFlags`] is what the engine loader reads: checked values with their meaning, no text.

use serde_json::{Map, Value};

use crate::choice;
use crate::device::cpu::affinity::CpuSet;
use crate::device::cpu::numa::Numa;
use crate::error::{Error, Result};

choice! {
    /// How weights are read.
    LoadFormat { Auto = "auto", Safetensors = "safetensors", Gguf = "gguf", Dummy = "dummy" }
}

choice! {
    /// The type that weights are computed in; `auto` is the checkpoint's own.
    DtypeChoice {
        Auto = "auto", Float32 = "float32", Bfloat16 = "bfloat16", Float16 = "float16"
    }
}

choice! {
    /// Where the model runs; `auto` is a usable GPU, else the CPU.
    /// `null` computes nothing and answers at once: what is left is the cost of everything else.
    DeviceChoice {
        Auto = "auto", Cuda = "cuda", Cpu = "cpu", Emulated = "emulated", Null = "null"
    }
}

choice! {
    /// Bits of activations that meet quantised weights on the CPU.
    ActivationBits { Sixteen = "16", Eight = "8" }
}

choice! {
    /// How the CPU keeps keys and values; `auto` is float16 for weights that are mostly quantised,
    /// else float32.
    KvDtype { Auto = "auto", Float32 = "float32", Float16 = "float16" }
}

choice! {
    /// Which waiting request goes first: arrival order, or the longest cached prefix.
    SchedulePolicy { Fcfs = "fcfs", Lpm = "lpm" }
}

choice! {
    /// The least important message that is shown.
    LogLevel { Info = "info", Debug = "debug", Warn = "warn", Error = "error" }
}

/// How long prompts are cut into steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Chunking {
    /// The engine chooses.
    #[default]
    Auto,
    /// Never cut.
    Off,
    /// At most so many prompt tokens a step.
    Tokens(usize),
}

impl std::str::FromStr for Chunking {
    type Err = String;

    fn from_str(value: &str) -> std::result::Result<Self, String> {
        match value.parse::<i64>() {
            Ok(-1) => Ok(Chunking::Off),
            Ok(n) if n > 0 => Ok(Chunking::Tokens(n.unsigned_abs() as usize)),
            _ => Err("expected -1 (off) or a whole number of at least 1".into()),
        }
    }
}

/// Where a model comes from and how it is to run. `None` means that the engine chooses.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelFlags {
    /// A Hugging Face folder, a `.gguf` file or `org/name`; `None`: the embedded default
    /// configuration with dummy weights.
    pub model_path: Option<String>,
    /// `None`: the model's own.
    pub tokenizer_path: Option<String>,
    pub load_format: LoadFormat,
    /// Merged over the configuration, nested keys included.
    pub config_override: Map<String, Value>,
    pub dtype: DtypeChoice,
    /// Most tokens of a sequence, prompt and output together.
    pub context_length: Option<usize>,
    pub device: DeviceChoice,
    /// Ordinal of the card.
    pub gpu: usize,
    /// Largest batch with a CUDA graph; 0: none are captured.
    pub graph_sizes: Option<usize>,
    /// Threads for CPU math.
    pub threads: Option<usize>,
    /// Processors that these threads are kept on.
    pub cpu_bind: Option<CpuSet>,
    /// What is done about memory nodes.
    pub numa: Option<Numa>,
    pub activation_bits: ActivationBits,
    pub kv_cache_dtype: KvDtype,
    /// Share of device memory for weights and cache.
    pub mem_fraction_static: Option<f64>,
    /// Most tokens in the key-value cache.
    pub max_total_tokens: Option<usize>,
    /// Tokens of a cache page.
    pub page_size: Option<usize>,
    pub max_running_requests: Option<usize>,
    pub chunked_prefill_size: Chunking,
    /// Most prompt tokens of a step over all requests.
    pub max_prefill_tokens: usize,
    /// Most prompt tokens of a step in which others decode.
    pub mixed_prefill_size: Option<usize>,
    pub schedule_policy: SchedulePolicy,
    pub disable_radix_cache: bool,
    /// Tokens are chosen on the device where it can.
    pub device_sampling: bool,
    pub random_seed: Option<u64>,
    /// NVTX ranges of layers.
    pub nvtx: bool,
    pub log_level: LogLevel,
    /// What the user should know about flags that have nothing to act on, for standard error.
    pub notes: Vec<String>,
}

impl Default for ModelFlags {
    fn default() -> Self {
        ModelFlags {
            model_path: None,
            tokenizer_path: None,
            load_format: LoadFormat::default(),
            config_override: Map::new(),
            dtype: DtypeChoice::default(),
            context_length: None,
            device: DeviceChoice::default(),
            gpu: 0,
            graph_sizes: None,
            threads: None,
            cpu_bind: None,
            numa: None,
            activation_bits: ActivationBits::default(),
            kv_cache_dtype: KvDtype::default(),
            mem_fraction_static: None,
            max_total_tokens: None,
            page_size: None,
            max_running_requests: None,
            chunked_prefill_size: Chunking::default(),
            max_prefill_tokens: 16_384,
            mixed_prefill_size: None,
            schedule_policy: SchedulePolicy::default(),
            disable_radix_cache: false,
            device_sampling: true,
            random_seed: None,
            nvtx: false,
            log_level: LogLevel::default(),
            notes: Vec::new(),
        }
    }
}

/// A JSON object, for `--json-model-override-args`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct JsonObject(pub Map<String, Value>);

impl std::str::FromStr for JsonObject {
    type Err = String;

    fn from_str(value: &str) -> std::result::Result<Self, String> {
        match serde_json::from_str(value) {
            Ok(Value::Object(map)) => Ok(JsonObject(map)),
            Ok(_) => Err("expected a JSON object such as {\"num_hidden_layers\": 2}".into()),
            Err(e) => Err(format!("expected a JSON object: {e}")),
        }
    }
}

/// A value that names what this build does not have.
pub fn unavailable(flag: &str, value: impl std::fmt::Display, harmless: &str) -> Error {
    let given = format!("{flag} {value}");
    let given = given.trim_end();
    Error::usage(format!("{given}: not available in this build; accepted: {harmless}"))
}

/// Checks that a count of parallel ranks is 1.
pub fn one_rank(flag: &str, ranks: usize) -> Result<()> {
    if ranks == 1 { Ok(()) } else { Err(unavailable(flag, ranks, "1")) }
}

/// Declares a struct of flags with the shared model flags after its own fields, which must end
/// with a comma.
#[macro_export]
macro_rules! with_model_flags {
    ($(#[$meta:meta])* pub struct $name:ident { $($own:tt)* }) => {
        #[derive(argh::FromArgs, argh::ArgsInfo, Debug, Clone, PartialEq)]
        #[argh(help_triggers("--help"))]
        $(#[$meta])*
        pub struct $name {
            $($own)*

            /// a Hugging Face folder, a .gguf file, or org/name in the local Hugging Face cache
            /// (default: an embedded small configuration with dummy weights)
            #[argh(option, arg_name = "PATH")]
            model_path: Option<String>,

            /// where the tokenizer is (default: the model's own)
            #[argh(option, arg_name = "PATH")]
            tokenizer_path: Option<String>,

            /// auto, safetensors, gguf, or dummy: random weights that need only config.json
            /// (default auto)
            #[argh(option, arg_name = "FORMAT", default = "Default::default()")]
            load_format: $crate::commands::model_flags::LoadFormat,

            /// JSON object merged over the model's configuration, nested keys included
            /// (default: no change)
            #[argh(option, arg_name = "JSON", default = "Default::default()")]
            json_model_override_args: $crate::commands::model_flags::JsonObject,

            /// auto, float32, bfloat16 or float16; auto is the checkpoint's own (default auto)
            #[argh(option, arg_name = "TYPE", default = "Default::default()")]
            dtype: $crate::commands::model_flags::DtypeChoice,

            /// most tokens of a sequence, prompt and output together (default: the model's)
            #[argh(option, arg_name = "N",
                from_str_fn($crate::commands::values::whole::<1, { 1 << 30 }>))]
            context_length: Option<usize>,

            /// auto (cuda if a usable card is there, else cpu), cuda, cpu, emulated (the GPU's
            /// kernels on the PTX machine, for tests), or null: no device, random answers at
            /// once, to measure the rest (default auto)
            #[argh(option, arg_name = "DEVICE", default = "Default::default()")]
            device: $crate::commands::model_flags::DeviceChoice,

            /// the GPU to use (default 0)
            #[argh(option, arg_name = "N", default = "0",
                from_str_fn($crate::commands::values::whole::<0, 1024>))]
            base_gpu_id: usize,

            /// threads for CPU math (default: one per core)
            #[argh(option, arg_name = "N",
                from_str_fn($crate::commands::values::whole::<1, 4096>))]
            threads: Option<usize>,

            /// processors that the threads for CPU math are kept on, one each, such as 0-3,8
            /// (default: where the system likes)
            #[argh(option, arg_name = "CPUS")]
            cpu_bind: Option<$crate::device::cpu::affinity::CpuSet>,

            /// on machines with several memory nodes: distribute (threads and memory over all of
            /// them) or isolate (on the one that this runs on) (default: as the system likes)
            #[argh(option, arg_name = "HOW")]
            numa: Option<$crate::device::cpu::numa::Numa>,

            /// bits of activations that meet quantised weights on the CPU: 16 agrees with float32
            /// to six digits, 8 is faster for many tokens at once where weights have 4 to 6 bits
            /// (blocks with outliers and 8-bit weights still meet 16) (default 16)
            #[argh(option, arg_name = "BITS", default = "Default::default()")]
            activation_bits: $crate::commands::model_flags::ActivationBits,

            /// how the CPU keeps keys and values: auto, float32 or float16; auto is float16 where
            /// most weights are quantised, as llama.cpp does, else float32 (default auto)
            #[argh(option, arg_name = "TYPE", default = "Default::default()")]
            kv_cache_dtype: $crate::commands::model_flags::KvDtype,

            /// share of device memory for weights and cache, above 0 and up to 1 (default: chosen
            /// from the device)
            #[argh(option, arg_name = "X",
                from_str_fn($crate::commands::values::share))]
            mem_fraction_static: Option<f64>,

            /// most tokens in the key-value cache (default: as many as fit)
            #[argh(option, arg_name = "N",
                from_str_fn($crate::commands::values::whole::<1, { 1 << 40 }>))]
            max_total_tokens: Option<usize>,

            /// tokens of a cache page (default: chosen by the engine)
            #[argh(option, arg_name = "N",
                from_str_fn($crate::commands::values::whole::<1, 4096>))]
            page_size: Option<usize>,

            /// most requests that run at once (default: as many as fit)
            #[argh(option, arg_name = "N",
                from_str_fn($crate::commands::values::whole::<1, { 1 << 20 }>))]
            max_running_requests: Option<usize>,

            /// most prompt tokens that one request adds in a step, -1 for no limit (default:
            /// chosen by the engine)
            #[argh(option, arg_name = "N", default = "Default::default()")]
            chunked_prefill_size: $crate::commands::model_flags::Chunking,

            /// most prompt tokens of a step over all requests (default 16384)
            #[argh(option, arg_name = "N",
                default = "crate::commands::model_flags::ModelFlags::default().max_prefill_tokens",
                from_str_fn($crate::commands::values::whole::<1, { 1 << 30 }>))]
            max_prefill_tokens: usize,

            /// most prompt tokens of a step in which others decode, which is what a prompt adds
            /// to the time between their tokens (default: 16 on the CPU, no limit on a GPU nor in
            /// bench-offline-throughput, where nobody waits)
            #[argh(option, arg_name = "N",
                from_str_fn($crate::commands::values::whole::<1, { 1 << 30 }>))]
            mixed_prefill_size: Option<usize>,

            /// fcfs, in order of arrival, or lpm, longest cached prefix first (default fcfs)
            #[argh(option, arg_name = "POLICY", default = "Default::default()")]
            schedule_policy: $crate::commands::model_flags::SchedulePolicy,

            /// never share the cache of equal prompt beginnings
            #[argh(switch)]
            disable_radix_cache: bool,

            /// do not capture CUDA graphs; there are none to disable on the CPU
            #[argh(switch)]
            disable_cuda_graph: bool,

            /// largest batch with a CUDA graph (default: the most requests that run at once)
            #[argh(option, arg_name = "N",
                from_str_fn($crate::commands::values::whole::<0, 65536>))]
            cuda_graph_max_bs: Option<usize>,

            /// bring logits to the host and choose tokens there; the CPU always does
            #[argh(switch)]
            disable_device_sampling: bool,

            /// NVTX ranges of steps, layers and ops, with shapes, for Nsight Systems
            #[argh(switch)]
            enable_layerwise_nvtx_marker: bool,

            /// tensor-parallel ranks; only 1 in this build (default 1)
            #[argh(option, arg_name = "N", default = "1",
                from_str_fn($crate::commands::values::whole::<1, 4096>))]
            tp_size: usize,

            /// pipeline-parallel ranks; only 1 in this build (default 1)
            #[argh(option, arg_name = "N", default = "1",
                from_str_fn($crate::commands::values::whole::<1, 4096>))]
            pp_size: usize,

            /// data-parallel replicas; only 1 in this build (default 1)
            #[argh(option, arg_name = "N", default = "1",
                from_str_fn($crate::commands::values::whole::<1, 4096>))]
            dp_size: usize,

            /// expert-parallel ranks; only 1 in this build (default 1)
            #[argh(option, arg_name = "N", default = "1",
                from_str_fn($crate::commands::values::whole::<1, 4096>))]
            ep_size: usize,

            /// seed of everything random that has no flag of its own, such as dummy weights
            /// (default: fixed)
            #[argh(option, arg_name = "N",
                from_str_fn($crate::commands::values::seed))]
            random_seed: Option<u64>,

            /// error, warn, info or debug (default info)
            #[argh(option, arg_name = "LEVEL", default = "Default::default()")]
            log_level: $crate::commands::model_flags::LogLevel,
        }

        impl $name {
            /// The shared flags, checked.
            ///
            /// # Errors
            /// `Usage` for a value that names something this build does not have.
            pub fn model(
                &self,
            ) -> $crate::error::Result<$crate::commands::model_flags::ModelFlags> {
                use $crate::commands::model_flags::{
                    DeviceChoice, ModelFlags, one_rank,
                };
                one_rank("--tp-size", self.tp_size)?;
                one_rank("--pp-size", self.pp_size)?;
                one_rank("--dp-size", self.dp_size)?;
                one_rank("--ep-size", self.ep_size)?;
                let mut notes = Vec::new();
                if self.enable_layerwise_nvtx_marker && $crate::profile::nvtx::tool().is_none() {
                    notes.push(
                        "--enable-layerwise-nvtx-marker: no tool listens (nsys sets \
                         NVTX_INJECTION64_PATH)"
                            .to_string(),
                    );
                }
                let graphs = self.disable_cuda_graph || self.cuda_graph_max_bs.is_some();
                if graphs && self.device == DeviceChoice::Cpu {
                    notes.push("flags of CUDA graphs have no effect on the CPU".to_string());
                }
                Ok(ModelFlags {
                    model_path: self.model_path.clone(),
                    tokenizer_path: self.tokenizer_path.clone(),
                    load_format: self.load_format,
                    config_override: self.json_model_override_args.0.clone(),
                    dtype: self.dtype,
                    context_length: self.context_length,
                    device: self.device,
                    gpu: self.base_gpu_id,
                    graph_sizes: match self.disable_cuda_graph {
                        true => Some(0),
                        false => self.cuda_graph_max_bs,
                    },
                    threads: self.threads.or(self.cpu_bind.map(|set| set.iter().count())),
                    cpu_bind: self.cpu_bind,
                    numa: self.numa,
                    activation_bits: self.activation_bits,
                    kv_cache_dtype: self.kv_cache_dtype,
                    mem_fraction_static: self.mem_fraction_static,
                    max_total_tokens: self.max_total_tokens,
                    page_size: self.page_size,
                    max_running_requests: self.max_running_requests,
                    chunked_prefill_size: self.chunked_prefill_size,
                    max_prefill_tokens: self.max_prefill_tokens,
                    mixed_prefill_size: self.mixed_prefill_size,
                    schedule_policy: self.schedule_policy,
                    disable_radix_cache: self.disable_radix_cache,
                    device_sampling: !self.disable_device_sampling,
                    random_seed: self.random_seed,
                    nvtx: self.enable_layerwise_nvtx_marker,
                    log_level: self.log_level,
                    notes,
                })
            }
        }
    };
}

with_model_flags! {
    /// The shared flags alone: help texts use it to tell them from a command's own.
    pub struct SharedFlags {}
}
