//! `pacer bench-serving`: load against a running server.

mod find;
mod measure;
mod setup;

use super::Run;
use super::values::{positive, whole};
use crate::error::Result;
use crate::{choice, with_data_flags, with_own_flags};

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
    /// How the rate grows.
    Growth { Linear = "linear", Exponential = "exponential" }
}

/// A rate above 0, or `inf`.
fn rate(value: &str) -> std::result::Result<f64, String> {
    let x: Option<f64> = value.parse().ok().filter(|x| *x > 0.0);
    x.ok_or_else(|| "expected a number above 0, or inf".into())
}

with_data_flags! {
    with_own_flags:
    /// Load against a running server: Pacer, SGLang, vLLM, llama-server or any with an OpenAI API.
    /// Requests leave by an absolute schedule; a client that could not keep it says so.
    #[argh(note = "Flags, keys and formulas are those of SGLang's bench_serving; latencies from \
        the scheduled time stand beside them as *_from_schedule_ms. With --request-rate inf and \
        --max-concurrency a request's scheduled time is when its place became free. Prompts of \
        random data sets are token ids, so no tokenizer is needed. Not there: LoRA, images, \
        embeddings, gRPC, routed experts, the backends trt, truss and gserver, \
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

        /// start this server first and end it afterwards: "serve FLAGS" for Pacer, or another
        /// command (default: none)
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

        /// random token ids are below this (default: the tokenizer's, the server's, or 10000)
        #[argh(option, arg_name = "N", from_str_fn(whole::<1, { u32::MAX as u64 }>))]
        pub vocab_size: Option<usize>,

        /// header to send along, NAME=VALUE, a list (default: Authorization from OPENAI_API_KEY)
        #[argh(option, arg_name = "NAME=VALUE")]
        pub header: Vec<String>,

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

        /// rate that --find-max-rate begins with (default: half of what a short burst is served at)
        #[argh(option, arg_name = "X", from_str_fn(positive))]
        pub slo_start_rate: Option<f64>,

        /// requests in a trial of --find-max-rate at least; --num-prompts has no part in it
        /// (default 30)
        #[argh(option, arg_name = "N", default = "30", from_str_fn(whole::<1, 100_000>))]
        pub slo_trial_requests: usize,

        /// seconds of arrivals in a trial of --find-max-rate at least (default 10.0)
        #[argh(option, arg_name = "SECONDS", default = "10.0", from_str_fn(positive))]
        pub slo_trial_seconds: f64,

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

        /// token ids to return log-probabilities of, a list (default: none)
        #[argh(option, arg_name = "ID")]
        pub token_ids_logprob: Vec<u32>,

        /// put the share of cached prompt tokens into the row
        #[argh(switch)]
        pub cache_report: bool,

        /// print each prompt and its answer after the run
        #[argh(switch)]
        pub print_requests: bool,

        /// draw output throughput and concurrency over time in the terminal
        #[argh(switch)]
        pub plot_throughput: bool,

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

        /// send each request as if a prefill worker had done its prompt: for a decode worker with
        /// the transfer backend "fake"
        #[argh(switch)]
        pub fake_prefill: bool,

        /// requests of each conversation of generated-shared-prefix, each sent when the one before
        /// it is answered, with all that was said (default 1)
        #[argh(option, arg_name = "N", default = "1", from_str_fn(whole::<1, 1000>))]
        pub gsp_num_turns: usize,

        /// send the group of generated-shared-prefix as header X-SMG-Routing-Key
        #[argh(switch)]
        pub gsp_send_routing_key: bool,

        /// send prompts as token ids; random data sets always do where the API takes them
        #[argh(switch)]
        pub tokenize_prompt: bool,

        /// send random prompts as text of the same length; needs --tokenizer
        #[argh(switch)]
        pub text_prompts: bool,

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

        /// changes nothing: this client is native code anyway
        #[argh(switch)]
        pub rust_client: bool,

        /// the same as --client-threads (default: what that says)
        #[argh(option, arg_name = "N", from_str_fn(whole::<1, 256>))]
        pub rust_worker_threads: Option<usize>,

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
}

impl Run for BenchServing {
    const NAME: &'static str = "bench-serving";

    fn run(self) -> Result<()> {
        measure::command(&self)
    }
}
