//! `pacer bench-one-batch`: latency of one static batch, without a server.

use std::path::Path;

use serde_json::Value;

use super::model_flags::ModelFlags;
use super::progress::Progress;
use super::{Run, load, out, replay};
use crate::bench::ceilings::{self, Budget, store};
use crate::bench::one_batch::case::{Bench, Effort, Samples};
use crate::bench::one_batch::figures::{self, Ceiling};
use crate::bench::one_batch::profile::CaseProfile;
use crate::bench::one_batch::row::{self, Context};
use crate::bench::one_batch::subject::EngineBatch;
use crate::bench::one_batch::sweep::{self, Observer, Sweep};
use crate::bench::one_batch::{OneBatch, SubjectInfo, inputs, text};
use crate::engine::options::EngineOptions;
use crate::engine::sizes;
use crate::error::{Error, Result};
use crate::measure::clock::{Clock, RealClock};
use crate::measure::interrupt::Interrupt;
use crate::measure::json::JsonLines;
use crate::measure::{date, machine};
use crate::profile::request::Activities;
use crate::profile::trace::names::Ranks;
use crate::profile::{describe, paths, profiler};
use crate::scheduler::Policy;
use crate::{choice, with_model_flags};

choice! {
    /// Which part of a case is profiled.
    Stage { All = "all", Prefill = "prefill", Decode = "decode" }
}

with_model_flags! {
    /// Latency of one static batch, without a server. Every combination of batch size, input and
    /// output length is warmed up and measured; results are printed and appended to a file.
    #[argh(note = "Each figure is the median over --repeat passes; with --repeat 1 the first \
        lines are what SGLang's bench_one_batch measures. Decode is measured twice: waiting after \
        each step, and back to back as a server runs. Exit codes: 0 done, 1 failed, 2 usage, \
        4 not valid (--strict), 130 interrupted.")]
    pub struct BenchOneBatch {
        /// name copied into each result row (default default)
        #[argh(option, arg_name = "NAME", default = "String::from(\"default\")")]
        pub run_name: String,

        /// sequences in the batch, a list (default 1)
        #[argh(option, arg_name = "N", from_str_fn(super::values::whole::<1, { 1 << 20 }>))]
        pub batch_size: Vec<usize>,

        /// tokens of each prompt, a list (default 1024)
        #[argh(option, arg_name = "N", from_str_fn(super::values::whole::<1, { 1 << 30 }>))]
        pub input_len: Vec<usize>,

        /// tokens to generate for each sequence, a list (default 16)
        #[argh(option, arg_name = "N", from_str_fn(super::values::whole::<1, { 1 << 30 }>))]
        pub output_len: Vec<usize>,

        /// measured passes of each shape (default 5)
        #[argh(option, arg_name = "N", default = "5",
            from_str_fn(super::values::whole::<1, 100_000>))]
        pub repeat: usize,

        /// passes of each shape before measuring, of at most 32 output tokens (default 1)
        #[argh(option, arg_name = "N", default = "1",
            from_str_fn(super::values::whole::<0, 100_000>))]
        pub warmup: usize,

        /// seed of the random input token ids (default 0)
        #[argh(option, arg_name = "N", default = "0", from_str_fn(super::values::seed))]
        pub seed: u64,

        /// prompts instead of random ids, one a line; --input-len is then not used (default: none)
        #[argh(option, arg_name = "PATH")]
        pub prompt_filename: Option<String>,

        /// JSON Lines file that a row is appended to after each case; empty for none (default
        /// result.jsonl)
        #[argh(option, arg_name = "PATH", default = "String::from(\"result.jsonl\")")]
        pub result_filename: String,

        /// print only the rows, as JSON Lines, on standard output
        #[argh(switch)]
        pub json: bool,

        /// exit with 4 if any validity check fails
        #[argh(switch)]
        pub strict: bool,

        /// also print every so many decode steps; 0 prints steps 0 to 4 only (default 0)
        #[argh(option, arg_name = "N", default = "0",
            from_str_fn(super::values::whole::<0, { 1 << 30 }>))]
        pub log_decode_step: usize,

        /// run a step again that a server saved (/dump_step, --slow-step-ms), instead of a sweep
        /// (default: none)
        #[argh(option, arg_name = "PATH")]
        pub replay: Option<String>,

        /// compare with the CPU reference instead of measuring; exit with 1 on a mismatch
        #[argh(switch)]
        pub correctness_test: bool,

        /// tokens of each prompt that --correctness-test runs before the rest (default 4)
        #[argh(option, arg_name = "N", default = "4",
            from_str_fn(super::values::whole::<0, { 1 << 30 }>))]
        pub cut_len: usize,

        /// record a timeline of each case, in a pass that no figure includes; files go to
        /// PACER_PROFILER_DIR, else SGLANG_TORCH_PROFILER_DIR, else the temporary folder
        #[argh(switch)]
        pub profile: bool,

        /// accepted for SGLang's scripts: shapes are always in the timeline
        #[argh(switch)]
        pub profile_record_shapes: bool,

        /// what to record: CPU, GPU, MEM, CUDA_PROFILER, a list (default CPU GPU)
        #[argh(option, arg_name = "NAME")]
        pub profile_activities: Vec<String>,

        /// which part of a case to record: all, prefill or decode (default all)
        #[argh(option, arg_name = "STAGE")]
        pub profile_stage: Option<Stage>,

        /// beginning of the timeline's file name (default profile)
        #[argh(option, arg_name = "NAME")]
        pub profile_prefix: Option<String>,

        /// first decode step to record, from 0 (default: half of the output)
        #[argh(option, arg_name = "N", from_str_fn(super::values::whole::<0, { 1 << 30 }>))]
        pub profile_start_step: Option<usize>,

        /// decode steps to record (default: 1)
        #[argh(option, arg_name = "N", from_str_fn(super::values::whole::<1, { 1 << 30 }>))]
        pub profile_steps: Option<usize>,
    }
}

/// Tokens of a step unless asked otherwise.
const STEP_TOKENS: usize = 512;

/// Prompts of `--correctness-test` without a file.
const BUILT_IN_PROMPTS: [&str; 3] = [
    "The capital of France is",
    "The capital of the United Kindom is",
    "Today is a sunny day and I like",
];

/// What a model must have room for, so that the loader can size its cache. 0: not known yet,
/// because prompts come from a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    pub batch: usize,
    pub input: usize,
    pub output: usize,
    /// Tokens of a sequence of the smallest case.
    pub shortest: usize,
}

impl Run for BenchOneBatch {
    const NAME: &'static str = "bench-one-batch";

    fn run(mut self) -> Result<()> {
        if let Some(file) = &self.replay {
            return replay::run(&self, file);
        }
        self.fill_lists();
        self.case_profile(&Err(String::new()))?;
        let model = self.model()?;
        model.notes.iter().for_each(|n| out::note(format_args!("note: {n}")));
        let interrupt = Interrupt::on_signals()?;
        let mut subject = load(&model, self.room())?;
        if self.correctness_test {
            return self.correctness(subject.as_mut(), &mut |l| out::line(l));
        }
        let ceiling = ceiling(&subject.describe());
        let clock = RealClock::new();
        self.measure(subject.as_mut(), &clock, &interrupt, ceiling, &mut |l| out::line(l))
    }
}

impl BenchOneBatch {
    /// Gives lists that were not given their defaults.
    pub fn fill_lists(&mut self) {
        let defaults = [(&mut self.batch_size, 1), (&mut self.input_len, 1024)];
        for (list, default) in defaults.into_iter().chain([(&mut self.output_len, 16)]) {
            if list.is_empty() {
                list.push(default);
            }
        }
    }

    /// What `--profile…` asks for.
    ///
    /// # Errors
    /// A flag that needs `--profile`, or a value that is not accepted.
    fn case_profile(&self, ceiling: &Ceiling) -> Result<Option<CaseProfile>> {
        let given = [
            ("--profile-activities", !self.profile_activities.is_empty()),
            ("--profile-stage", self.profile_stage.is_some()),
            ("--profile-prefix", self.profile_prefix.is_some()),
            ("--profile-start-step", self.profile_start_step.is_some()),
            ("--profile-steps", self.profile_steps.is_some()),
        ];
        if !self.profile {
            return match given.into_iter().find(|(_, given)| *given) {
                Some((flag, _)) => Err(Error::usage(format!("{flag}: give --profile too"))),
                None => Ok(None),
            };
        }
        let stage = self.profile_stage.unwrap_or_default();
        let prefix = self.profile_prefix.clone().unwrap_or_else(|| "profile".into());
        paths::check_name("--profile-prefix", &prefix)?;
        let activities = Activities::named(&self.profile_activities);
        let ceiling = ceiling.as_ref().ok().map(|c| describe::Ceiling {
            bytes_per_s: c.bytes_per_s,
            flops_per_s: c.flops_per_s,
            source: format!("measured on this machine, {}", c.date),
        });
        Ok(Some(CaseProfile {
            prefill: stage != Stage::Decode,
            decode: stage != Stage::Prefill,
            activities: activities.map_err(|e| e.context("--profile-activities"))?,
            shapes: true,
            prefix,
            start_step: self.profile_start_step,
            steps: self.profile_steps.unwrap_or(1),
            ceiling,
            options: profiler::Options {
                roots: vec![paths::default_root()],
                cap_bytes: profiler::CAP_BYTES,
                ranks: Ranks::default(),
                label: "bench-one-batch".into(),
                replace: true,
            },
        }))
    }

    fn room(&self) -> Room {
        let most = |list: &[usize]| list.iter().copied().max().unwrap_or(0);
        let input = if self.prompt_file().is_some() { 0 } else { most(&self.input_len) };
        let least = |list: &[usize]| list.iter().copied().min().unwrap_or(1);
        let shortest = least(&self.input_len) + least(&self.output_len);
        Room { batch: most(&self.batch_size), input, output: most(&self.output_len), shortest }
    }

    /// The prompt file; an empty name is none, as with SGLang.
    fn prompt_file(&self) -> Option<&str> {
        self.prompt_filename.as_deref().filter(|f| !f.is_empty())
    }

    fn prompts(&self) -> Result<Option<Vec<String>>> {
        self.prompt_file().map(|f| inputs::read_prompts(Path::new(f))).transpose()
    }

    /// Measures the whole sweep on a loaded subject. `print` gets every line of standard output.
    pub fn measure(
        &self,
        subject: &mut dyn OneBatch,
        clock: &dyn Clock,
        interrupt: &Interrupt,
        ceiling: Ceiling,
        print: &mut dyn FnMut(&str) -> Result<()>,
    ) -> Result<()> {
        let sweep = Sweep {
            batch_sizes: self.batch_size.clone(),
            input_lens: self.input_len.clone(),
            output_lens: self.output_len.clone(),
            prompts: self.prompts()?,
            seed: self.seed,
            profile: self.case_profile(&ceiling)?,
        };
        let effort = Effort { warmup: self.warmup, repeat: self.repeat };
        let file = match self.result_filename.as_str() {
            "" => None,
            name => Some(JsonLines::open(name)?),
        };
        let progress = Progress::new("bench-one-batch");
        let mut printer =
            Printer { flags: self, effort, ceiling, file, print, progress, invalid: None };
        printer.line(&text::loaded(&subject.describe(), subject.capacity_tokens()))?;
        let bench = Bench { clock, interrupt, effort };
        sweep::run(&bench, subject, &sweep, &mut printer)?;
        printer.invalid.filter(|_| self.strict).map_or(Ok(()), Err)
    }

    /// Compares with the reference and prints what was compared.
    ///
    /// # Errors
    /// `Device` (exit 1) if anything differed by more than the tolerance.
    pub fn correctness(
        &self,
        subject: &mut dyn OneBatch,
        print: &mut dyn FnMut(&str) -> Result<()>,
    ) -> Result<()> {
        let built_in = || BUILT_IN_PROMPTS.map(String::from).to_vec();
        let mut prompts = self.prompts()?.unwrap_or_else(built_in);
        if self.prompt_file().is_some() {
            prompts.truncate(self.batch_size.first().copied().unwrap_or(1));
        }
        let output_len = self.output_len.first().copied().unwrap_or(16);
        let found = subject.correctness(&prompts, self.cut_len, output_len)?;
        for line in &found.lines {
            print(line)?;
        }
        print(&format!("compared: {}; mismatches: {}", found.compared, found.mismatches))?;
        match found.mismatches {
            0 => Ok(()),
            n => Err(Error::device(format!("correctness test: {n} mismatches"))),
        }
    }
}

/// Prints and writes what a sweep finds.
struct Printer<'a> {
    flags: &'a BenchOneBatch,
    effort: Effort,
    ceiling: Ceiling,
    file: Option<JsonLines>,
    print: &'a mut dyn FnMut(&str) -> Result<()>,
    progress: Progress,
    /// The first result that is not valid.
    invalid: Option<Error>,
}

impl Observer for Printer<'_> {
    /// With `--json` standard output holds rows only, so lines for people go to standard error.
    fn line(&mut self, line: &str) -> Result<()> {
        if self.flags.json {
            self.progress.suspend(|| out::note(line));
            return Ok(());
        }
        self.progress.suspend(|| (self.print)(line))
    }

    fn progress(&mut self, done: usize, total: usize) {
        self.progress.set(done, total);
    }

    fn case(&mut self, subject: &dyn OneBatch, samples: &Samples) -> Result<()> {
        let Some(figures) = figures::figures(samples, &self.ceiling) else { return Ok(()) };
        let context = self.context();
        let row = row::row(&context, &subject.describe(), samples, &figures, &self.ceiling);
        // The file first: whatever happens to the printout, the row is kept.
        if let Some(file) = &mut self.file {
            file.append(&row)?;
        }
        self.show(&row, &context, samples, &figures)?;
        if let Err(error) = figures.validity.require() {
            self.invalid.get_or_insert(error);
        }
        Ok(())
    }
}

impl Printer<'_> {
    fn context(&self) -> Context {
        let words = std::env::args_os().skip(1);
        Context {
            run_name: self.flags.run_name.clone(),
            seed: self.flags.seed,
            inputs: self.flags.prompt_file().unwrap_or("random").to_string(),
            effort: self.effort,
            version: super::version(),
            commit: super::commit().to_string(),
            date: date::now_iso(),
            command: words.map(|w| w.to_string_lossy().into_owned()).collect(),
            peak_memory: machine::peak_memory_bytes(),
        }
    }

    fn show(
        &mut self,
        row: &Value,
        context: &Context,
        samples: &Samples,
        figures: &figures::Figures,
    ) -> Result<()> {
        if self.flags.json {
            return self.progress.suspend(|| (self.print)(&row.to_string()));
        }
        let mut lines = text::sglang(samples, figures, self.flags.log_decode_step);
        let peak = context.peak_memory;
        lines.extend(text::ours(samples, figures, self.effort, &self.ceiling, peak));
        lines.iter().try_for_each(|line| self.line(line))
    }
}

/// The CPU's ceilings: as `pacer calibrate` stored them, else measured now; a card's as stored.
fn ceiling(subject: &SubjectInfo) -> Ceiling {
    let SubjectInfo { device_kind, device_name, threads, .. } = subject;
    let threads = *threads;
    if device_kind != "cpu" {
        let path = store::default_path().filter(|_| device_kind == "cuda");
        let stored = path.and_then(|p| store::load(&p, device_name, 0).ok().flatten());
        return stored.ok_or_else(|| {
            format!("no ceilings are stored for {device_name}; see pacer calibrate --device cuda")
        });
    }
    let stored = store::default_path().map(|p| store::load(&p, &machine::cpu_name(), threads));
    match stored {
        Some(Ok(Some(ceilings))) => Ok(ceilings),
        Some(Err(error)) => Err(error.message),
        _ => ceilings::measure(threads, Budget::default()).map_err(|e| e.message),
    }
}

/// Loads the model with a cache that has room for the largest case, as far as memory goes.
fn load(flags: &ModelFlags, room: Room) -> Result<Box<dyn OneBatch>> {
    let model = load::model(flags)?;
    let mut options = load::engine_options(flags);
    options.policy = Policy::Static;
    let device = load::device(flags)?;
    let one = EngineOptions { max_running: Some(1), ..options.clone() };
    let memory = sizes::memory_plan(device.as_ref(), &model.plan, &model.weights, &one)?;
    // Batches beyond what the cache could ever hold are skipped, so they need no room.
    let fits = (memory.kv_tokens_possible / room.shortest.max(1)).max(1);
    let batch = if room.input > 0 { room.batch.min(fits) } else { room.batch };
    options.max_running = options.max_running.or(Some(batch));
    let step = options.step_tokens.unwrap_or(STEP_TOKENS).max(batch);
    options.step_tokens = Some(step);
    options.max_prefill_tokens = options.max_prefill_tokens.max(step);
    if options.total_tokens.is_none() && room.input > 0 {
        let memory = sizes::memory_plan(device.as_ref(), &model.plan, &model.weights, &options)?;
        let page = options.page_size.unwrap_or(sizes::PAGE_SIZE);
        let sequence = (room.input + room.output).next_multiple_of(page);
        let wanted = sequence.saturating_mul(room.batch);
        options.total_tokens = Some(wanted.min(memory.kv_tokens_possible));
    }
    let cores = || std::thread::available_parallelism().map_or(1, |n| n.get());
    let threads = flags.threads.unwrap_or_else(cores);
    let engine = load::engine_on(device.as_ref(), model, &options)?;
    Ok(Box::new(EngineBatch::new(engine, threads, room.output)))
}
