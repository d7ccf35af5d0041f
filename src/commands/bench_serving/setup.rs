//! From flags to a plan.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::codec::TokenizerCodec;
use super::super::data_flags::Dataset;
use super::{Backend, BenchServing, Growth};
use crate::bench::data::{Row, files};
use crate::bench::load::arrivals::Arrivals;
use crate::bench::load::plain;
use crate::bench::load::protocol::Api;
use crate::bench::load::target::Target;
use crate::bench::serving::body::Common;
use crate::bench::serving::run::{Plan, Profile};
use crate::error::{Error, Result};

/// Token ids of random prompts are below this where nothing is known of the vocabulary.
const SAFE_VOCAB: usize = 10_000;

impl Backend {
    pub fn api(self) -> Api {
        match self {
            Backend::Sglang | Backend::SglangNative | Backend::Pacer => Api::Generate,
            Backend::SglangOai | Backend::Vllm | Backend::Lmdeploy | Backend::Openai => {
                Api::Completions
            }
            _ => Api::Chat,
        }
    }

    fn default_port(self) -> usize {
        match self {
            Backend::Vllm | Backend::VllmChat => 8000,
            Backend::Lmdeploy | Backend::LmdeployChat => 23333,
            _ => 30000,
        }
    }

    fn flush_path(self, timeout: usize) -> String {
        match self {
            Backend::Vllm | Backend::VllmChat => "/reset_prefix_cache".into(),
            _ => format!("/flush_cache?timeout={timeout}"),
        }
    }
}

/// A server, and what it says of itself.
pub struct Server {
    pub target: Target,
    pub model: String,
    /// A few harmless fields of `/server_info`.
    pub info: Value,
    pub vocab: Option<usize>,
}

impl BenchServing {
    /// Refuses what is not there and what does not go together.
    pub fn check(&self) -> Result<()> {
        let missing = [
            ("--lora-name", !self.lora_name.is_empty()),
            ("--image-count", self.image_count.is_some()),
            ("--protocol grpc", self.protocol != "http"),
        ];
        if let Some((flag, _)) = missing.iter().find(|(_, given)| *given) {
            return Err(Error::usage(format!("{flag}: not available in this build")));
        }
        let both = !self.profile_prefill_url.is_empty() && !self.profile_decode_url.is_empty();
        if both {
            let flags = "--profile-prefill-url and --profile-decode-url";
            return Err(Error::usage(format!("{flags}: give one of them")));
        }
        if self.ramp_up_strategy.is_some() {
            if self.request_rate.is_finite() {
                let error = "--ramp-up-strategy and --request-rate: give one of them";
                return Err(Error::usage(error));
            }
            if self.ramp_up_start_rps.is_none() || self.ramp_up_end_rps.is_none() {
                let error = "--ramp-up-strategy: needs --ramp-up-start-rps and --ramp-up-end-rps";
                return Err(Error::usage(error));
            }
        }
        let needs_ids = self.backend.api() == Api::Completions && !self.text_prompts;
        if self.gsp_num_turns > 1 && needs_ids {
            let error = "--gsp-num-turns: this API's answers hold no token ids to go on from; \
                give --text-prompts and --tokenizer, or --backend pacer, sglang or one with chat";
            return Err(Error::usage(error));
        }
        if self.find_max_rate && self.slo.is_empty() {
            return Err(Error::usage("--find-max-rate: needs --slo, such as --slo ttft:200"));
        }
        Ok(())
    }

    /// The URL that flags name.
    pub fn url(&self) -> String {
        let port = self.port.unwrap_or_else(|| self.backend.default_port());
        self.base_url.clone().unwrap_or_else(|| format!("http://{}:{port}", self.host))
    }

    pub fn target(&self, url: &str) -> Result<Target> {
        let mut headers = Vec::new();
        for header in &self.header {
            let (name, value) = header
                .split_once('=')
                .ok_or_else(|| Error::usage(format!("--header {header}: expected NAME=VALUE")))?;
            headers.push(format!("{}: {}", name.trim(), value.trim()));
        }
        let given = headers.iter().any(|h| h.to_ascii_lowercase().starts_with("authorization:"));
        if !given {
            let bearer = std::env::var("OPENAI_API_KEY").ok().map(|k| format!("Bearer {k}"));
            let key = bearer.or_else(|| std::env::var("API_KEY").ok());
            headers.extend(key.map(|k| format!("Authorization: {k}")));
        }
        Target::new(url, headers)
    }

    /// Asks the server who it is.
    pub fn meet(&self, mut target: Target) -> Server {
        let models = plain::get_json(&target, "/v1/models").unwrap_or(Value::Null);
        let first = &models["data"][0];
        let named = self.served_model_name.clone().or(self.model.clone());
        let model = named.or(first["id"].as_str().map(str::to_string));
        let about = plain::get_json(&target, "/model_info").unwrap_or(Value::Null);
        let info = plain::get_json(&target, "/server_info").unwrap_or(Value::Null);
        if info["server"] == "pacer" {
            // It then tells when it did what on the way to each first token.
            target.headers.push("X-Pacer-Timing: 1".into());
        }
        let sizes = [&about["vocab_size"], &info["vocab_size"], &first["meta"]["n_vocab"]];
        let vocab = sizes.iter().find_map(|v| v.as_u64()).map(|n| n as usize);
        Server { target, model: model.unwrap_or_else(|| "default".into()), info: few(&info), vocab }
    }

    pub fn codec(&self) -> Result<Option<TokenizerCodec>> {
        self.tokenizer.as_deref().map(TokenizerCodec::open).transpose()
    }

    /// The rows of run `run`.
    pub fn rows(&self, run: u64, vocab: usize, codec: Option<&TokenizerCodec>) -> Result<Vec<Row>> {
        let api = self.backend.api();
        let as_ids = self.tokenize_prompt && api != Api::Chat;
        let ids = api != Api::Chat && !self.text_prompts;
        let mut data = self.data(as_ids);
        data.shape.turns = self.gsp_num_turns;
        let mut rows = data.rows(run, vocab, ids, codec)?;
        if !self.gsp_send_routing_key {
            rows.iter_mut().for_each(|r| r.routing_key = None);
        }
        Ok(rows)
    }

    pub fn vocab(&self, server: &Server, codec: Option<&TokenizerCodec>) -> usize {
        let known = self.vocab_size.or(codec.map(TokenizerCodec::vocab)).or(server.vocab);
        known.unwrap_or(SAFE_VOCAB)
    }

    /// Threads of the client.
    pub fn threads(&self) -> usize {
        self.rust_worker_threads.unwrap_or(self.client_threads)
    }

    fn timed(&self) -> bool {
        self.dataset_name == Dataset::Mooncake || self.use_trace_timestamps
    }

    /// What the row says of the rate: a number, `inf` or `trace`.
    pub fn rate_name(&self) -> Value {
        match () {
            () if self.timed() => "trace".into(),
            () if self.ramp_up_strategy.is_some() => "ramp".into(),
            () if self.request_rate.is_finite() => json!(self.request_rate),
            () => "inf".into(),
        }
    }

    pub fn arrivals(&self, rows: &[Row]) -> Result<Arrivals> {
        if self.timed() {
            let times: Option<Vec<f64>> = rows.iter().map(|r| r.at).collect();
            let error = "--use-trace-timestamps: this data set has no times";
            return times.map(Arrivals::Trace).ok_or_else(|| Error::usage(error));
        }
        let ends = self.ramp_up_start_rps.zip(self.ramp_up_end_rps);
        if let (Some(growth), Some((from, to))) = (self.ramp_up_strategy, ends) {
            let exponential = growth == Growth::Exponential;
            return Ok(Arrivals::Ramp { from, to, exponential, burstiness: self.burstiness });
        }
        Ok(match (self.request_rate.is_finite(), self.max_concurrency) {
            (true, _) => {
                Arrivals::Rate { per_second: self.request_rate, burstiness: self.burstiness }
            }
            (false, Some(_)) => Arrivals::Closed,
            (false, None) => Arrivals::AtOnce,
        })
    }

    /// The plan of run `run` over `rows`.
    pub fn plan(&self, server: &Server, rows: Vec<Row>, run: u64) -> Result<Plan> {
        let extra = self.extra_request_body.as_deref();
        let extra = extra.map(|e| files::object(e, "--extra-request-body")).transpose()?;
        Ok(Plan {
            common: Common {
                api: self.backend.api(),
                model: server.model.clone(),
                stream: !self.disable_stream,
                ignore_eos: !self.disable_ignore_eos,
                temperature: self.temperature,
                top_p: self.top_p,
                return_logprob: self.return_logprob,
                top_logprobs: self.top_logprobs_num,
                logprob_start_len: self.logprob_start_len,
                token_ids_logprob: self.token_ids_logprob.clone(),
                fake_prefill: self.fake_prefill,
                include_usage: !self.no_usage,
                extra: extra.unwrap_or_default(),
            },
            arrivals: self.arrivals(&rows)?,
            rows,
            seed: self.seed.wrapping_add(run) ^ 0xA551,
            target: server.target.clone(),
            concurrency: self.max_concurrency,
            timeout: Duration::from_secs_f64(self.request_timeout.min(1e9)),
            keep_text: self.output_details || self.print_requests,
            threads: self.threads(),
            warmup: if run == 0 { self.warmup_requests } else { 0 },
            flush: self.flush_cache.then(|| self.backend.flush_path(self.flush_cache_timeout)),
            flush_timeout: Duration::from_secs(self.flush_cache_timeout as u64),
            profile: self.profile()?,
        })
    }

    fn profile(&self) -> Result<Option<Profile>> {
        if !self.profile {
            return Ok(None);
        }
        let urls = self.profile_prefill_url.iter().chain(&self.profile_decode_url);
        let targets: Vec<Target> = match self.pd_separated {
            true => urls.map(|u| self.target(u)).collect::<Result<_>>()?,
            false => Vec::new(),
        };
        if self.pd_separated && targets.is_empty() {
            let error = "--pd-separated: needs --profile-prefill-url or --profile-decode-url";
            return Err(Error::usage(error));
        }
        let activities = match self.profile_activities.as_slice() {
            [] => vec!["CPU".to_string(), "GPU".to_string()],
            given => given.to_vec(),
        };
        let steps = self.profile_steps.or(self.profile_num_steps);
        let body = json!({
            "activities": activities,
            "num_steps": steps.or(self.profile_by_stage.then_some(5)),
            "start_step": self.profile_start_step,
            "profile_by_stage": self.profile_by_stage,
            "profile_stages": (!self.profile_stages.is_empty()).then_some(&self.profile_stages),
            "output_dir": self.profile_output_dir,
            "profile_prefix": self.profile_prefix,
        });
        Ok(Some(Profile { body, stop: steps.is_none() && !self.profile_by_stage, targets }))
    }
}

/// The fields of `/server_info` that explain a result and give nothing away.
fn few(info: &Value) -> Value {
    const KEYS: &[&str] = &[
        "version",
        "model_path",
        "served_model_name",
        "device",
        "dtype",
        "load_format",
        "threads",
        "tp_size",
        "max_running_requests",
        "max_total_tokens",
        "max_total_num_tokens",
        "chunked_prefill_size",
        "schedule_policy",
        "disable_radix_cache",
        "page_size",
        "quantization",
    ];
    let Some(map) = info.as_object() else { return Value::Null };
    let kept = KEYS.iter().filter_map(|k| Some(((*k).to_string(), map.get(*k)?.clone())));
    Value::Object(kept.collect())
}
