//! `pacer bench-serving`: load against a running server.

mod find;
mod measure;
mod setup;

use super::Run;
use super::values::{seed, whole};
use crate::choice;
use crate::error::Result;

choice! {
    /// The server's API.
    Backend {
        Sglang = "sglang", SglangNative = "sglang-native", Pacer = "pacer",
        SglangOai = "sglang-oai", Vllm = "vllm", Lmdeploy = "lmdeploy", Openai = "openai",
        SglangOaiChat = "sglang-oai-chat", VllmChat = "vllm-chat",
        LmdeployChat = "lmdeploy-chat", OpenaiChat = "openai-chat",
    }
}

choice! {
    /// Where prompts come from.
    Dataset {
        Random = "random", RandomIds = "random-ids", Sharegpt = "sharegpt", Custom = "custom",
        Openai = "openai", SharedPrefix = "generated-shared-prefix", Mooncake = "mooncake",
        Text = "text",
    }
}

choice! {
    /// How --random-range-ratio is read.
    Rule { Sglang = "sglang", Vllm = "vllm" }
}

choice! {
    /// How the rate grows.
    Growth { Linear = "linear", Exponential = "exponential" }
}

choice! {
    /// How requests fall on groups.
    Groups { Uniform = "uniform", Zipf = "zipf" }
}

/// A rate above 0, or `inf`.
fn rate(value: &str) -> std::result::Result<f64, String> {
    let x: Option<f64> = value.parse().ok().filter(|x| *x > 0.0);
    x.ok_or_else(|| "expected a number above 0, or inf".into())
}

/// A finite number above 0.
pub fn positive(value: &str) -> std::result::Result<f64, String> {
    rate(value).ok().filter(|x| x.is_finite()).ok_or_else(|| "expected a number above 0".into())
}

/// A number from 0 to 1.
pub fn ratio(value: &str) -> std::result::Result<f64, String> {
    super::values::real(value, 0.0, 1.0)
}

/// Load against a running server: Pacer, SGLang, vLLM, llama-server or any with an OpenAI API.
/// Requests leave by an absolute schedule; a client that could not keep it says so.
#[derive(argh::FromArgs, argh::ArgsInfo, Debug, Clone, PartialEq)]
#[argh(help_triggers("--help"))]
#[argh(note = "Flags, keys and formulas are those of SGLang's bench_serving; latencies from the \
    scheduled time stand beside them as *_from_schedule_ms. With --request-rate inf and \
    --max-concurrency a request's scheduled time is when its place became free. Prompts of random \
    data sets are token ids, so no tokenizer is needed. Not there: LoRA, images, embeddings, gRPC \
    and the data sets mmmu, image, longbench_v2, speed-bench and agentic-trace. Exit codes: 0 \
    done, 1 failed, 2 usage, 4 not valid (--strict), 130 interrupted.")]
pub struct BenchServing {
    /// sglang, sglang-native or pacer (/generate); sglang-oai, vllm, lmdeploy or openai
    /// (/v1/completions); these with -chat (/v1/chat/completions) (default sglang)
    #[argh(option, arg_name = "NAME", default = "Default::default()")]
    pub backend: Backend,

    /// server to load, http://HOST:PORT (default: from --host and --port)
    #[argh(option, arg_name = "URL")]
    pub base_url: Option<String>,

    /// server's host (default 127.0.0.1)
    #[argh(option, arg_name = "HOST", default = "String::from(\"127.0.0.1\")")]
    pub host: String,

    /// server's port (default: 30000; 8000 for vllm*, 23333 for lmdeploy*)
    #[argh(option, arg_name = "N", from_str_fn(whole::<1, 65535>))]
    pub port: Option<usize>,

    /// start this server first and end it afterwards: "serve FLAGS" for Pacer, or another command
    /// (default: none)
    #[argh(option, arg_name = "COMMAND")]
    pub launch: Option<String>,

    /// seconds to wait for the server, 0 for not at all (default 60)
    #[argh(option, arg_name = "SECONDS", default = "60", from_str_fn(whole::<0, 86400>))]
    pub ready_check_timeout_sec: usize,

    /// model name to send (default: the first of /v1/models)
    #[argh(option, arg_name = "NAME")]
    pub model: Option<String>,

    /// model name to send, before --model (default: none)
    #[argh(option, arg_name = "NAME")]
    pub served_model_name: Option<String>,

    /// tokenizer for data sets of text: a folder, a .gguf file or org/name (default: none)
    #[argh(option, arg_name = "PATH")]
    pub tokenizer: Option<String>,

    /// random token ids are below this (default: the tokenizer's, else the server's, else 10000)
    #[argh(option, arg_name = "N", from_str_fn(whole::<1, { u32::MAX as u64 }>))]
    pub vocab_size: Option<usize>,

    /// header to send along, NAME=VALUE, a list (default: Authorization from OPENAI_API_KEY)
    #[argh(option, arg_name = "NAME=VALUE")]
    pub header: Vec<String>,

    /// random, random-ids, sharegpt, custom, openai, generated-shared-prefix, mooncake or text
    /// (default random)
    #[argh(option, arg_name = "NAME", default = "Default::default()")]
    pub dataset_name: Dataset,

    /// file of the data set (default: none)
    #[argh(option, arg_name = "PATH", default = "String::new()")]
    pub dataset_path: String,

    /// requests to send (default 1000)
    #[argh(option, arg_name = "N", default = "1000", from_str_fn(whole::<1, { 1 << 30 }>))]
    pub num_prompts: usize,

    /// output length of rows from files (default: the file's own)
    #[argh(option, arg_name = "N", from_str_fn(whole::<1, { 1 << 30 }>))]
    pub sharegpt_output_len: Option<usize>,

    /// leave out rows from files that are longer together (default: none)
    #[argh(option, arg_name = "N", from_str_fn(whole::<1, { 1 << 30 }>))]
    pub sharegpt_context_len: Option<usize>,

    /// prompt length of random data sets (default 1024)
    #[argh(option, arg_name = "N", default = "1024", from_str_fn(whole::<1, { 1 << 24 }>))]
    pub random_input_len: usize,

    /// output length of random data sets (default 1024)
    #[argh(option, arg_name = "N", default = "1024", from_str_fn(whole::<1, { 1 << 24 }>))]
    pub random_output_len: usize,

    /// spread of random lengths, see --random-range-rule (default 0.0)
    #[argh(option, arg_name = "X", default = "0.0", from_str_fn(ratio))]
    pub random_range_ratio: f64,

    /// sglang: lengths from L*ratio to L, so 1 is exact; vllm: from L*(1-ratio) to L*(1+ratio), so
    /// 0 is exact (default sglang)
    #[argh(option, arg_name = "RULE", default = "Default::default()")]
    pub random_range_rule: Rule,

    /// requests a second, or inf for all at once (default inf)
    #[argh(option, arg_name = "X", default = "f64::INFINITY", from_str_fn(rate))]
    pub request_rate: f64,

    /// shape of the gamma law of arrivals: 1 Poisson, less bursts, more evens, inf constant
    /// (default 1.0)
    #[argh(option, arg_name = "X", default = "1.0", from_str_fn(rate))]
    pub burstiness: f64,

    /// grow the rate over the run, linear or exponential; needs both rates (default: no ramp)
    #[argh(option, arg_name = "HOW")]
    pub ramp_up_strategy: Option<Growth>,

    /// requests a second at the start of a ramp (default: none)
    #[argh(option, arg_name = "X", from_str_fn(positive))]
    pub ramp_up_start_rps: Option<f64>,

    /// requests a second at the end of a ramp (default: none)
    #[argh(option, arg_name = "X", from_str_fn(positive))]
    pub ramp_up_end_rps: Option<f64>,

    /// arrivals as the data set has them (mooncake does so anyway)
    #[argh(switch)]
    pub use_trace_timestamps: bool,

    /// most requests in flight (default: no limit)
    #[argh(option, arg_name = "N", from_str_fn(whole::<1, { 1 << 20 }>))]
    pub max_concurrency: Option<usize>,

    /// runs, each with the next seed and a row of its own (default 1)
    #[argh(option, arg_name = "N", default = "1", from_str_fn(whole::<1, 1000>))]
    pub num_runs: usize,

    /// requests before the run, of at most 32 output tokens (default 1)
    #[argh(option, arg_name = "N", default = "1", from_str_fn(whole::<0, 65536>))]
    pub warmup_requests: usize,

    /// empty the server's prefix cache after the warm-up
    #[argh(switch)]
    pub flush_cache: bool,

    /// seconds the server may wait until it is idle enough to flush (default 60)
    #[argh(option, arg_name = "SECONDS", default = "60", from_str_fn(whole::<0, 86400>))]
    pub flush_cache_timeout: usize,

    /// seconds from sending a request to its end, after which it has failed (default 21600)
    #[argh(option, arg_name = "SECONDS", default = "21600.0", from_str_fn(positive))]
    pub request_timeout: f64,

    /// threads of the client, each with its share of the requests (default 1)
    #[argh(option, arg_name = "N", default = "1", from_str_fn(whole::<1, 256>))]
    pub client_threads: usize,

    /// JSON Lines file that a row is appended to after each run; empty for none (default:
    /// BACKEND_MMDD_PROMPTS_DATASET.jsonl)
    #[argh(option, arg_name = "PATH")]
    pub output_file: Option<String>,

    /// keep lengths, times, texts and errors of every request in the row
    #[argh(switch)]
    pub output_details: bool,

    /// count requests that met ttft:MS tpot:MS e2el:MS, a list (default: none)
    #[argh(option, arg_name = "NAME:MS")]
    pub goodput: Vec<String>,

    /// look for the highest rate at which --slo holds for --slo-share of requests
    #[argh(switch)]
    pub find_max_rate: bool,

    /// objectives of --find-max-rate from the scheduled time: ttft:MS tpot:MS e2el:MS, a list
    /// (default: none)
    #[argh(option, arg_name = "NAME:MS")]
    pub slo: Vec<String>,

    /// share of requests that must meet --slo (default 0.99)
    #[argh(option, arg_name = "X", default = "0.99", from_str_fn(super::values::share))]
    pub slo_share: f64,

    /// rate that --find-max-rate begins with (default 1.0)
    #[argh(option, arg_name = "X", default = "1.0", from_str_fn(positive))]
    pub slo_start_rate: f64,

    /// ask for one whole answer instead of a stream
    #[argh(switch)]
    pub disable_stream: bool,

    /// ask for log-probabilities
    #[argh(switch)]
    pub return_logprob: bool,

    /// best tokens to return for each position (default 0)
    #[argh(option, arg_name = "N", default = "0", from_str_fn(whole::<0, 1000>))]
    pub top_logprobs_num: usize,

    /// first prompt position with log-probabilities, -1 for none (default -1)
    #[argh(option, arg_name = "N", default = "-1")]
    pub logprob_start_len: i64,

    /// put the share of cached prompt tokens into the row
    #[argh(switch)]
    pub cache_report: bool,

    /// seed of data set and arrivals (default 42)
    #[argh(option, arg_name = "N", default = "42", from_str_fn(seed))]
    pub seed: u64,

    /// let answers end early
    #[argh(switch)]
    pub disable_ignore_eos: bool,

    /// do not ask OpenAI-style servers for token counts (chunks are counted instead)
    #[argh(switch)]
    pub no_usage: bool,

    /// softness of the choice; 0 is greedy (default 0.0)
    #[argh(option, arg_name = "X", default = "0.0")]
    pub temperature: f64,

    /// keep the best tokens up to this share of probability (default 1.0)
    #[argh(option, arg_name = "X", default = "1.0", from_str_fn(super::values::share))]
    pub top_p: f64,

    /// JSON object merged into every request body (default: none)
    #[argh(option, arg_name = "JSON")]
    pub extra_request_body: Option<String>,

    /// put behind every prompt from a file (default: nothing)
    #[argh(option, arg_name = "TEXT", default = "String::new()")]
    pub prompt_suffix: String,

    /// send prompts as token ids; random data sets always do where the API takes them
    #[argh(switch)]
    pub tokenize_prompt: bool,

    /// send random prompts as text of the same length; needs --tokenizer
    #[argh(switch)]
    pub text_prompts: bool,

    /// groups of generated-shared-prefix (default 64)
    #[argh(option, arg_name = "N", default = "64", from_str_fn(whole::<1, 1_000_000>))]
    pub gsp_num_groups: usize,

    /// requests of each group (default 16)
    #[argh(option, arg_name = "N", default = "16", from_str_fn(whole::<1, 1_000_000>))]
    pub gsp_prompts_per_group: usize,

    /// tokens of each group's system prompt (default 2048)
    #[argh(option, arg_name = "N", default = "2048", from_str_fn(whole::<1, { 1 << 24 }>))]
    pub gsp_system_prompt_len: usize,

    /// tokens of each question (default 128)
    #[argh(option, arg_name = "N", default = "128", from_str_fn(whole::<1, { 1 << 24 }>))]
    pub gsp_question_len: usize,

    /// output length (default 256)
    #[argh(option, arg_name = "N", default = "256", from_str_fn(whole::<1, { 1 << 24 }>))]
    pub gsp_output_len: usize,

    /// lengths from L*ratio to L (default 1.0)
    #[argh(option, arg_name = "X", default = "1.0", from_str_fn(ratio))]
    pub gsp_range_ratio: f64,

    /// send group after group instead of shuffled
    #[argh(switch)]
    pub gsp_ordered: bool,

    /// uniform or zipf: how requests fall on groups (default uniform)
    #[argh(option, arg_name = "LAW", default = "Default::default()")]
    pub gsp_group_distribution: Groups,

    /// exponent of zipf (default 1.5)
    #[argh(option, arg_name = "X", default = "1.5", from_str_fn(positive))]
    pub gsp_zipf_alpha: f64,

    /// factor on the times of a trace (default 1.0)
    #[argh(option, arg_name = "X", default = "1.0", from_str_fn(positive))]
    pub mooncake_slowdown_factor: f64,

    /// record a profile on the server during the run
    #[argh(switch)]
    pub profile: bool,

    /// what to record: CPU, GPU, CUDA_PROFILER, MEM, a list (default CPU GPU)
    #[argh(option, arg_name = "NAME")]
    pub profile_activities: Vec<String>,

    /// first step to record (default: at once)
    #[argh(option, arg_name = "N", from_str_fn(whole::<0, { 1 << 40 }>))]
    pub profile_start_step: Option<usize>,

    /// steps to record (default: to the end of the run)
    #[argh(option, arg_name = "N", from_str_fn(whole::<1, { 1 << 40 }>))]
    pub profile_steps: Option<usize>,

    /// the same as --profile-steps (default: to the end of the run)
    #[argh(option, arg_name = "N", from_str_fn(whole::<1, { 1 << 40 }>))]
    pub profile_num_steps: Option<usize>,

    /// prefill and decode steps into files of their own
    #[argh(switch)]
    pub profile_by_stage: bool,

    /// stages to record, a list (default: all)
    #[argh(option, arg_name = "NAME")]
    pub profile_stages: Vec<String>,

    /// folder on the server (default: the server's own)
    #[argh(option, arg_name = "PATH")]
    pub profile_output_dir: Option<String>,

    /// beginning of the files' names (default: none)
    #[argh(option, arg_name = "NAME")]
    pub profile_prefix: Option<String>,

    /// profile prefill or decode workers of a disaggregated server
    #[argh(switch)]
    pub pd_separated: bool,

    /// prefill workers to profile, a list (default: none)
    #[argh(option, arg_name = "URL")]
    pub profile_prefill_url: Vec<String>,

    /// decode workers to profile, a list (default: none)
    #[argh(option, arg_name = "URL")]
    pub profile_decode_url: Vec<String>,

    /// name for this run in the row (default: none)
    #[argh(option, arg_name = "NAME")]
    pub tag: Option<String>,

    /// print only the rows, as JSON Lines, on standard output
    #[argh(switch)]
    pub json: bool,

    /// print a markdown table of all runs at the end
    #[argh(switch)]
    pub show_report: bool,

    /// exit with 4 if any validity check fails
    #[argh(switch)]
    pub strict: bool,

    /// no progress bar
    #[argh(switch)]
    pub disable_tqdm: bool,

    /// adapters (LoRA); not available in this build
    #[argh(option, arg_name = "NAME")]
    pub lora_name: Vec<String>,

    /// images a request; not available in this build
    #[argh(option, arg_name = "N")]
    pub image_count: Option<usize>,

    /// http; grpc is not available in this build (default http)
    #[argh(option, arg_name = "NAME", default = "String::from(\"http\")")]
    pub protocol: String,
}

impl Run for BenchServing {
    const NAME: &'static str = "bench-serving";

    fn run(self) -> Result<()> {
        measure::command(&self)
    }
}
