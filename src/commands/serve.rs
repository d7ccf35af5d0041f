//! `pacer serve`: the HTTP server.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{Run, load, out};
use crate::bench::ceilings::store;
use crate::engine::overlap::Mode;
use crate::engine::service::ServiceOptions;
use crate::error::{Error, Result};
use crate::http::Limits;
use crate::measure::machine;
use crate::profile::describe::Ceiling;
use crate::profile::paths;
use crate::profile::profiler::{self, Profiler};
use crate::profile::recorder::COMPILED_IN;
use crate::profile::trace::names::Ranks;
use crate::server::auth::{Key, Keys};
use crate::server::event_loop::Notice;
use crate::server::{self, Options, Server};
use crate::with_model_flags;

with_model_flags! {
    /// Serves a model over HTTP with continuous batching: SGLang's /generate, OpenAI's completions
    /// and chat, metrics at /metrics, a status page at /. SIGTERM lets running requests finish.
    pub struct Serve {
        /// address to listen on (default 127.0.0.1)
        #[argh(option, arg_name = "HOST", default = "\"127.0.0.1\".into()")]
        pub host: String,

        /// port to listen on, 0 for any free one (default 30000)
        #[argh(option, arg_name = "N", default = "30000",
            from_str_fn(super::values::whole::<0, 65535>))]
        pub port: usize,

        /// key that clients must send as a bearer token (default: the environment's PACER_API_KEY,
        /// else none)
        #[argh(option, arg_name = "KEY")]
        pub api_key: Option<String>,

        /// key for flushing, aborting and profiling (default: PACER_ADMIN_API_KEY, else the API
        /// key, else none, and these answer this machine only)
        #[argh(option, arg_name = "KEY")]
        pub admin_api_key: Option<String>,

        /// model name in answers (default: the model's path)
        #[argh(option, arg_name = "NAME")]
        pub served_model_name: Option<String>,

        /// most requests that wait to run; more get 429 (default 4096)
        #[argh(option, arg_name = "N", default = "4096",
            from_str_fn(super::values::whole::<1, { 1 << 24 }>))]
        pub max_queued_requests: usize,

        /// most prompt tokens that wait to run; more get 429 (default 16777216)
        #[argh(option, arg_name = "N", default = "1 << 24",
            from_str_fn(super::values::whole::<1, { 1 << 40 }>))]
        pub max_queued_tokens: usize,

        /// most open connections; more get 503 (default 16384, or what the system allows)
        #[argh(option, arg_name = "N", default = "16384",
            from_str_fn(super::values::whole::<1, { 1 << 20 }>))]
        pub max_connections: usize,

        /// largest request body, MiB (default 32)
        #[argh(option, arg_name = "N", default = "32",
            from_str_fn(super::values::whole::<1, 1024>))]
        pub max_body_size: usize,

        /// seconds that running requests may take to finish after SIGTERM (default 30)
        #[argh(option, arg_name = "SECONDS", default = "30",
            from_str_fn(super::values::whole::<0, 86400>))]
        pub shutdown_timeout: usize,

        /// seconds that a connection without a request stays open (default 75)
        #[argh(option, arg_name = "SECONDS", default = "75",
            from_str_fn(super::values::whole::<1, 86400>))]
        pub keep_alive_timeout: usize,

        /// seconds without a finished step, while there is work, after which /health says 503
        /// (default 30)
        #[argh(option, arg_name = "SECONDS", default = "30",
            from_str_fn(super::values::whole::<1, 86400>))]
        pub watchdog_timeout: usize,

        /// threads that read requests, fill in chat templates and tokenise (default 2)
        #[argh(option, arg_name = "N", default = "2",
            from_str_fn(super::values::whole::<1, 64>))]
        pub tokenizer_worker_num: usize,

        /// rows of logits of a step, for log-probabilities of prompts (default 256)
        #[argh(option, arg_name = "N", default = "256",
            from_str_fn(super::values::whole::<1, 65536>))]
        pub logit_rows: usize,

        /// handle a step's results before the next step begins, not while it runs
        #[argh(switch)]
        pub disable_overlap_schedule: bool,

        /// another folder that profiles may be written below, a list (default: only
        /// PACER_PROFILER_DIR, else SGLANG_TORCH_PROFILER_DIR, else the temporary folder)
        #[argh(option, arg_name = "PATH")]
        pub profile_root: Vec<String>,

        /// largest trace file, MiB; what is beyond is left out and counted (default 512)
        #[argh(option, arg_name = "N", default = "512",
            from_str_fn(super::values::whole::<1, { 1 << 20 }>))]
        pub profile_max_size: usize,

        /// save the batch of a step that takes longer than so many milliseconds, to be run again
        /// with bench-one-batch --replay; at most one a second and 100 in all (default: none)
        #[argh(option, arg_name = "MS", from_str_fn(super::values::positive))]
        pub slow_step_ms: Option<f64>,

        /// run without the flight recorder and without /start_profile
        #[argh(switch)]
        pub disable_profiler: bool,

        /// print a line for each request
        #[argh(switch)]
        pub log_requests: bool,

        /// accepted for SGLang's scripts: metrics are always on
        #[argh(switch)]
        pub enable_metrics: bool,

        /// accepted for SGLang's scripts: there is no warm-up request
        #[argh(switch)]
        pub skip_server_warmup: bool,
    }
}

impl Run for Serve {
    const NAME: &'static str = "serve";
    const ALIASES: &'static [&'static str] = &["launch-server"];

    fn run(self) -> Result<()> {
        machine::use_one_arena();
        let flags = self.model()?;
        let options = self.options(&flags.model_path)?;
        let mut engine = load::engine_options(&flags);
        engine.max_queued = self.max_queued_requests;
        engine.max_queued_tokens = self.max_queued_tokens;
        engine.logit_rows = Some(self.logit_rows);
        if self.disable_overlap_schedule {
            engine.overlap = Mode::Off;
        }
        let service = ServiceOptions {
            max_choices: self.max_queued_requests,
            max_tokens: self.max_queued_tokens,
            on_idle: machine::give_back_memory,
        };
        let build = move || {
            let model = load::model(&flags)?;
            load::engine(model, &flags, &engine)
        };
        let profiler = options.profiler.clone();
        let ended = server::run(options, service, build, &mut say);
        if let Some(profiler) = profiler {
            profiler.end(LAST_CHANCE);
        }
        ended
    }
}

/// A capture that runs when the server ends has so long to write its files.
const LAST_CHANCE: Duration = Duration::from_secs(5);

/// The CPU's ceilings as `pacer calibrate` has stored them.
pub(super) fn ceiling(threads: Option<usize>) -> Option<Ceiling> {
    let cores = || std::thread::available_parallelism().map_or(1, |n| n.get());
    let path = store::default_path()?;
    let threads = threads.unwrap_or_else(cores);
    let stored = store::load(&path, &machine::cpu_name(), threads).ok()??;
    Some(Ceiling {
        bytes_per_s: stored.bytes_per_s,
        flops_per_s: stored.flops_per_s,
        source: format!("measured on this machine, {}", stored.date),
    })
}

fn say(server: &Server, notice: Notice) {
    match notice {
        Notice::Ready => {
            if let Some(model) = server.context().model.get() {
                out::note(format_args!(
                    "{} ({}, {}) on {}. max_total_num_tokens={}, context {}",
                    model.served_name,
                    model.format,
                    model.dtype,
                    model.device,
                    model.capacity,
                    model.context
                ));
            }
            out::note(format_args!("ready: http://{}/", server.address()));
        }
        Notice::Draining => out::note("shutting down: running requests finish first"),
        Notice::Trouble(error) => out::note(format_args!("error: {error}")),
        Notice::Request(line) => out::note(line),
    }
}

impl Serve {
    fn options(&self, model_path: &Option<String>) -> Result<Options> {
        let seconds = |n: usize| Duration::from_secs(n as u64);
        let port = u16::try_from(self.port).map_err(|_| Error::usage("--port: at most 65535"))?;
        let mut options = Options {
            host: self.host.clone(),
            port,
            keys: self.keys()?,
            served_name: self.served_model_name.clone(),
            limits: Limits { body: self.max_body_size << 20, ..Limits::default() },
            max_connections: self.max_connections,
            shutdown_timeout: seconds(self.shutdown_timeout),
            watchdog: seconds(self.watchdog_timeout),
            workers: self.tokenizer_worker_num,
            log_requests: self.log_requests,
            public: self.public(model_path),
            profiler: self.profiler()?,
            ceiling: ceiling(self.threads),
            ..Options::default()
        };
        options.deadlines.idle = seconds(self.keep_alive_timeout);
        Ok(options)
    }

    fn profiler(&self) -> Result<Option<Profiler>> {
        if self.disable_profiler || !COMPILED_IN {
            let why = if COMPILED_IN { "with --disable-profiler" } else { "in this build" };
            return match self.slow_step_ms {
                Some(_) => Err(Error::usage(format!("--slow-step-ms: not {why}"))),
                None => Ok(None),
            };
        }
        let more = self.profile_root.iter().map(PathBuf::from);
        let options = profiler::Options {
            roots: [paths::default_root()].into_iter().chain(more).collect(),
            cap_bytes: (self.profile_max_size as u64) << 20,
            ranks: Ranks::default(),
            label: "serve".into(),
            replace: false,
        };
        let profiler = Profiler::new(options)?;
        if let Some(ms) = self.slow_step_ms {
            let limit = Duration::try_from_secs_f64(ms * 1e-3);
            let limit = limit.map_err(|e| Error::usage(format!("--slow-step-ms {ms}: {e}")))?;
            profiler.watch_slow_steps(limit, |line| out::note(line))?;
        }
        Ok(Some(profiler))
    }

    fn keys(&self) -> Result<Keys> {
        let from = |flag: &str, given: &Option<String>, variable: &str| -> Result<Option<Key>> {
            let set = given.clone().or_else(|| std::env::var(variable).ok());
            match set.as_deref() {
                None => Ok(None),
                Some("") => Err(Error::usage(format!("{flag}: the key is empty"))),
                Some(secret) => Ok(Some(Key::new(secret))),
            }
        };
        Ok(Keys {
            api: from("--api-key", &self.api_key, "PACER_API_KEY")?,
            admin: from("--admin-api-key", &self.admin_api_key, "PACER_ADMIN_API_KEY")?,
        })
    }

    /// Settings for `/server_info`.
    fn public(&self, model_path: &Option<String>) -> Map<String, Value> {
        let settings = json!({
            "model_path": model_path,
            "max_queued_requests": self.max_queued_requests,
            "max_queued_tokens": self.max_queued_tokens,
            "max_connections": self.max_connections,
            "shutdown_timeout": self.shutdown_timeout,
            "watchdog_timeout": self.watchdog_timeout,
            "disable_radix_cache": self.disable_radix_cache,
            "disable_overlap_schedule": self.disable_overlap_schedule,
            "disable_device_sampling": self.disable_device_sampling,
            "schedule_policy": self.schedule_policy.name(),
            "random_seed": self.random_seed,
            "enable_metrics": true,
        });
        settings.as_object().cloned().unwrap_or_default()
    }
}
