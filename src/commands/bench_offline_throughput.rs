//! `pacer bench-offline-throughput`: a whole data set at once through the engine in this process.

use serde_json::{Map, Value, json};

use super::codec::TokenizerCodec;
use super::data_flags::Dataset;
use super::model_flags::ModelFlags;
use super::progress::Progress;
use super::values::whole;
use super::{Run, load, out};
use crate::bench::data::files;
use crate::bench::data::random::Lengths;
use crate::bench::data::{Prompt, RangeRule, Row};
use crate::bench::offline::engine::EngineSubject;
use crate::bench::offline::profile::capture;
use crate::bench::offline::row;
use crate::bench::offline::run::{self, Recorded, Subject};
use crate::engine::params::SamplingParams;
use crate::engine::request::LogprobOptions;
use crate::error::{Error, Result};
use crate::measure::clock::RealClock;
use crate::measure::date;
use crate::measure::interrupt::Interrupt;
use crate::measure::json::JsonLines;
use crate::measure::machine::{self, Watch};
use crate::profile::control::Wanted;
use crate::profile::request::{Activities, ProfileRequest};
use crate::profile::trace::names::Ranks;
use crate::profile::{paths, profiler};
use crate::{with_data_flags, with_model_flags};

with_data_flags! {
    with_model_flags:
    /// Throughput of a whole data set at once, in this process: continuous batching without HTTP.
    /// Prints SGLang's block and appends a row to a file.
    #[argh(note = "With SGLang the default data set is sharegpt, which is a download; here it is \
        random, which is none. --backend runtime is not there; bench-serving --launch stands \
        for it. Exit codes: 0 done, 1 failed, 2 usage, \
        4 not valid (--strict), 130 interrupted.")]
    pub struct BenchOfflineThroughput {
        /// engine: in this process (default engine)
        #[argh(option, arg_name = "NAME", default = "String::from(\"engine\")")]
        pub backend: String,

        /// JSON Lines file that a row is appended to after each run; empty for none (default: none)
        #[argh(option, arg_name = "PATH", default = "String::new()")]
        pub result_filename: String,

        /// let answers end early
        #[argh(switch)]
        pub disable_ignore_eos: bool,

        /// measured runs, each with the next seed and a row of its own (default 1)
        #[argh(option, arg_name = "N", default = "1", from_str_fn(whole::<1, 1000>))]
        pub repeat: usize,

        /// no warm-up of 16 requests with 256 prompt and 16 output tokens
        #[argh(switch)]
        pub skip_warmup: bool,

        /// JSON object merged into the sampling parameters of every request (default: none)
        #[argh(option, arg_name = "JSON")]
        pub extra_request_body: Option<String>,

        /// return log-probabilities of output tokens
        #[argh(switch)]
        pub return_logprob: bool,

        /// first prompt position with log-probabilities, -1 for none (default -1)
        #[argh(option, arg_name = "N", default = "-1")]
        pub logprob_start_len: i64,

        /// wait at the end until interrupted, for profilers that attach to this process
        #[argh(switch)]
        pub do_not_exit: bool,

        /// print only the rows, as JSON Lines, on standard output
        #[argh(switch)]
        pub json: bool,

        /// exit with 4 if any validity check fails
        #[argh(switch)]
        pub strict: bool,

        /// record a timeline of one more run, which no figure includes; files go to
        /// PACER_PROFILER_DIR, else SGLANG_TORCH_PROFILER_DIR, else the temporary folder
        #[argh(switch)]
        pub profile: bool,

        /// what to record: CPU, GPU, MEM, CUDA_PROFILER, a list (default CPU GPU)
        #[argh(option, arg_name = "NAME")]
        pub profile_activities: Vec<String>,

        /// first step of the run to record, from 1 (default 1)
        #[argh(option, arg_name = "N", from_str_fn(whole::<1, { 1 << 30 }>))]
        pub profile_start_step: Option<usize>,

        /// steps to record, of each stage with --profile-by-stage (default: the whole run)
        #[argh(option, arg_name = "N", from_str_fn(whole::<1, { 1 << 30 }>))]
        pub profile_steps: Option<usize>,

        /// prefill and decode steps in files of their own
        #[argh(switch)]
        pub profile_by_stage: bool,

        /// beginning of the file's name (default: none)
        #[argh(option, arg_name = "NAME")]
        pub profile_prefix: Option<String>,

        /// folder for the files, inside the profiler's (default: that itself)
        #[argh(option, arg_name = "PATH")]
        pub profile_output_dir: Option<String>,

    }
}

impl Run for BenchOfflineThroughput {
    const NAME: &'static str = "bench-offline-throughput";

    fn run(self) -> Result<()> {
        if self.backend != "engine" {
            let hint = "accepted: engine; for a server use bench-serving --launch";
            return Err(Error::usage(format!("--backend {}: {hint}", self.backend)));
        }
        let capture = self.capture()?;
        let mut file = match self.result_filename.as_str() {
            "" => None,
            name => Some(JsonLines::open(name)?),
        };
        let flags = self.model()?;
        let interrupt = Interrupt::on_signals()?;
        let mut subject = self.open(&flags)?;
        let mut result = self.runs(&mut subject, &interrupt, &mut file);
        if let (Ok(()), Some(capture)) = (&result, &capture) {
            result = self.record(&mut subject, capture, &interrupt);
        }
        while self.do_not_exit && !interrupt.asked() {
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        result
    }
}

impl BenchOfflineThroughput {
    /// What `--profile…` asks for.
    ///
    /// # Errors
    /// A flag that needs `--profile`, or a value that is not accepted.
    fn capture(&self) -> Result<Option<ProfileRequest>> {
        let given = [
            ("--profile-activities", !self.profile_activities.is_empty()),
            ("--profile-start-step", self.profile_start_step.is_some()),
            ("--profile-steps", self.profile_steps.is_some()),
            ("--profile-by-stage", self.profile_by_stage),
            ("--profile-prefix", self.profile_prefix.is_some()),
            ("--profile-output-dir", self.profile_output_dir.is_some()),
        ];
        if !self.profile {
            return match given.into_iter().find(|(_, given)| *given) {
                Some((flag, _)) => Err(Error::usage(format!("{flag}: give --profile too"))),
                None => Ok(None),
            };
        }
        let activities = Activities::named(&self.profile_activities);
        let request = ProfileRequest {
            wanted: Wanted {
                // A recorder of its own counts from 1, so that N skips N − 1.
                skip_steps: self.profile_start_step.map(|n| n as u64 - 1),
                num_steps: self.profile_steps.map(|n| n as u64),
                by_stage: self.profile_by_stage.then_some([true, true]),
                ..Wanted::default()
            },
            activities: activities.map_err(|e| e.context("--profile-activities"))?,
            output_dir: self.profile_output_dir.clone(),
            prefix: self.profile_prefix.clone(),
            ..ProfileRequest::default()
        };
        request.check()?;
        Ok(Some(request))
    }

    /// One more run of the first data set, recorded.
    fn record(
        &self,
        subject: &mut EngineSubject,
        request: &ProfileRequest,
        interrupt: &Interrupt,
    ) -> Result<()> {
        let codec = TokenizerCodec::of(&subject.engine().model);
        let rows = self.rows(0, subject.engine().model.config.vocab_size, codec.as_ref())?;
        subject.reset()?;
        let options = profiler::Options {
            roots: vec![paths::default_root()],
            cap_bytes: profiler::CAP_BYTES,
            ranks: Ranks::default(),
            label: Self::NAME.into(),
            replace: true,
        };
        let ceiling = super::serve::ceiling(self.threads);
        let answer = capture(subject, (&options, ceiling), request, &mut |s| {
            run::run(s, &rows, &RealClock::new(), interrupt, &mut |_| {}).map(drop)
        })?;
        let say = |line: &str| match self.json {
            true => {
                out::note(line);
                Ok(())
            }
            false => out::line(line),
        };
        for file in answer["files"].as_array().into_iter().flatten() {
            say(&format!("profile: {}", file.as_str().unwrap_or_default()))?;
        }
        answer["table"].as_str().unwrap_or_default().trim_end().lines().try_for_each(say)
    }

    fn open(&self, flags: &ModelFlags) -> Result<EngineSubject> {
        let model = load::model(flags)?;
        let mut options = load::engine_options(flags);
        // Nobody waits between tokens here.
        options.mixed_prefill = options.mixed_prefill.or(Some(usize::MAX));
        let engine = load::engine(model, flags, &options)?;
        let params = self.sampling()?;
        params.validate(engine.model.config.vocab_size)?;
        let start = usize::try_from(self.logprob_start_len).ok();
        let logprobs = LogprobOptions {
            output: self.return_logprob,
            prompt_start: start.filter(|_| self.return_logprob),
            top: 0,
        };
        Ok(EngineSubject::new(engine, params, logprobs))
    }

    fn sampling(&self) -> Result<SamplingParams> {
        let flag = "--extra-request-body";
        let mut params = Map::new();
        params.insert("temperature".into(), 0.0.into());
        params.insert("ignore_eos".into(), (!self.disable_ignore_eos).into());
        if let Some(extra) = &self.extra_request_body {
            params.extend(files::object(extra, flag)?);
        }
        SamplingParams::from_json(&Value::Object(params)).map_err(|e| e.context(flag))
    }

    fn runs(
        &self,
        subject: &mut EngineSubject,
        interrupt: &Interrupt,
        file: &mut Option<JsonLines>,
    ) -> Result<()> {
        let codec = TokenizerCodec::of(&subject.engine().model);
        let vocab = subject.engine().model.config.vocab_size;
        if !self.skip_warmup {
            self.warm_up(subject, vocab, interrupt)?;
        }
        let (mut throughputs, mut invalid) = (Vec::new(), None);
        for number in 0..self.repeat as u64 {
            let rows = self.rows(number, vocab, codec.as_ref())?;
            run::check(&rows, subject.context())?;
            subject.reset()?;
            let bar = Progress::new("requests");
            let watch = Watch::start();
            let mut tick = |done| bar.set(done, rows.len());
            let recorded = run::run(subject, &rows, &RealClock::new(), interrupt, &mut tick)?;
            drop(bar);
            let machine = watch.finish();
            let figures = row::figures(&recorded);
            throughputs.push(figures.per_second(figures.output_tokens as f64));
            let shares = self.dataset_name.shares_prefixes();
            let eos = !self.disable_ignore_eos;
            let validity = row::validity(&recorded, &figures, &throughputs, &machine, eos, shares);
            let about = self.about(subject, number);
            let json = row::row("engine", &recorded, &figures, &validity, about);
            if let Some(file) = file {
                file.append(&json)?;
            }
            self.show(&json, &recorded, &figures, &validity)?;
            invalid = invalid.or(validity.require().err());
            if recorded.interrupted {
                return Err(interrupt.error(&written(&recorded, number)));
            }
            if figures.successful == 0 {
                let why = recorded.requests.iter().find_map(|r| r.failed.clone());
                let message = format!("no request succeeded: {}", why.unwrap_or_default());
                return Err(Error::limit(message));
            }
        }
        invalid.filter(|_| self.strict).map_or(Ok(()), Err)
    }

    /// SGLang's warm-up: 16 requests of 256 prompt and 16 output tokens, as far as they fit.
    fn warm_up(&self, s: &mut EngineSubject, vocab: usize, interrupt: &Interrupt) -> Result<()> {
        let input = 256.min(s.context().saturating_sub(16)).max(1);
        let lengths = Lengths { input, output: 16, ratio: 1.0, rule: RangeRule::Sglang };
        let n = self.num_prompts.min(16);
        let rows = crate::bench::data::random::rows(lengths, n, vocab, false, !self.seed)?;
        if run::check(&rows, s.context()).is_err() {
            return Ok(());
        }
        run::run(s, &rows, &RealClock::new(), interrupt, &mut |_| {}).map(|_| ())
    }

    fn rows(&self, run: u64, vocab: usize, codec: Option<&TokenizerCodec>) -> Result<Vec<Row>> {
        if self.dataset_name == Dataset::Openai {
            let error = "--dataset-name openai: chat messages need bench-serving";
            return Err(Error::usage(error));
        }
        let rows = self.data(true).rows(run, vocab, true, codec)?;
        match rows.iter().find(|r| !matches!(r.prompt, Prompt::Ids(_))) {
            Some(_) => Err(Error::usage("this data set needs a tokenizer: --tokenizer-path")),
            None => Ok(rows),
        }
    }

    fn show(
        &self,
        json: &Value,
        recorded: &Recorded,
        figures: &row::Figures,
        validity: &crate::measure::validity::Validity,
    ) -> Result<()> {
        if self.json {
            return out::line(json);
        }
        row::lines("engine", figures).iter().try_for_each(out::line)?;
        row::step_cost(recorded).map_or(Ok(()), |cost| out::line(cost.line()))?;
        out::line(validity.line())
    }

    fn about(&self, subject: &EngineSubject, run: u64) -> Map<String, Value> {
        let engine = subject.engine();
        let (device, model) = (engine.device(), &engine.model);
        let words = std::env::args_os().skip(1).map(|w| w.to_string_lossy().into_owned());
        let about = json!({
            "tool": super::version(),
            "commit": super::commit(),
            "date": date::now_iso(),
            "command": words.collect::<Vec<String>>(),
            "machine": machine::cpu_name(),
            "device": { "kind": device.kind, "name": device.name, "detail": device.detail },
            "model": model.name,
            "model_digest": model.digest,
            "load_format": model.format,
            "max_total_num_tokens": engine.capacity_tokens(),
            "dataset_name": self.dataset_name.name(),
            "num_prompts": self.num_prompts,
            "random_input_len": self.random_input_len,
            "random_output_len": self.random_output_len,
            "random_range_ratio": self.random_range_ratio,
            "seed": self.seed.wrapping_add(run),
            "run": run,
            "runs": self.repeat,
            "peak_memory_bytes": machine::peak_memory_bytes(),
        });
        match about {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }
}

fn written(recorded: &Recorded, number: u64) -> String {
    let ended = recorded.requests.iter().filter(|r| r.end_ns.is_some()).count();
    format!("{} rows written, the last of {ended} requests", number + 1)
}
