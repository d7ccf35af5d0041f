//! The runs of one command line, each measured, printed and written before the next.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::super::launch::Launched;
use super::super::progress::Progress;
use super::super::{commit, out, version};
use super::BenchServing;
use super::setup::Server;
use crate::bench::data::Row;
use crate::bench::load::arrivals::Arrivals;
use crate::bench::serving::checks::{self, Asked};
use crate::bench::serving::goodput::Objectives;
use crate::bench::serving::metrics::{self, Metrics};
use crate::bench::serving::row::{self, Context};
use crate::bench::serving::run::{self, Measured, Plan};
use crate::bench::serving::{plot, text};
use crate::error::{Error, Kind, Result};
use crate::measure::interrupt::Interrupt;
use crate::measure::json::JsonLines;
use crate::measure::{date, machine};

/// How long a launched server may take to load.
const LOADING: Duration = Duration::from_secs(600);

/// The whole command.
pub fn command(flags: &BenchServing) -> Result<()> {
    flags.check()?;
    let objectives = Objectives::parse(&flags.goodput, "--goodput")?;
    let interrupt = Interrupt::on_signals()?;
    let mut launched = flags.launch.as_deref().map(Launched::start).transpose()?;
    let url = launched.as_ref().map_or_else(|| flags.url(), |l| l.url.clone());
    let target = flags.target(&url)?;
    let mut file = output(flags)?;
    let patience = Duration::from_secs(flags.ready_check_timeout_sec as u64);
    // A server that was just started has weights to load.
    let patience = if launched.is_some() { patience.max(LOADING) } else { patience };
    if !patience.is_zero() {
        let ready = run::ready(&target, patience, &interrupt);
        if let Some(launched) = &mut launched {
            launched.check()?;
        }
        ready?;
    }
    let server = flags.meet(target);
    if flags.find_max_rate {
        return super::find::find(flags, &server, &interrupt, &mut file);
    }
    let mut bench = Bench { flags, objectives, server, throughputs: Vec::new(), rows: Vec::new() };
    let result = bench.all(&interrupt, &mut file);
    drop(launched);
    result
}

/// The file of results, opened before anything is measured.
fn output(flags: &BenchServing) -> Result<Option<JsonLines>> {
    let name = match &flags.output_file {
        Some(name) if name.is_empty() => return Ok(None),
        Some(name) => name.clone(),
        None => default_name(flags, &date::now_iso()),
    };
    JsonLines::open(name).map(Some)
}

/// SGLang's: `sglang_1124_100_1024_128.jsonl`, or with the data set's name instead of lengths.
fn default_name(flags: &BenchServing, now: &str) -> String {
    let day = format!("{}{}", now.get(5..7).unwrap_or(""), now.get(8..10).unwrap_or(""));
    let (backend, n, name) = (flags.backend, flags.num_prompts, flags.dataset_name.name());
    let what = match name.starts_with("random") {
        true => format!("{}_{}", flags.random_input_len, flags.random_output_len),
        false => name.to_string(),
    };
    format!("{backend}_{day}_{n}_{what}.jsonl")
}

struct Bench<'a> {
    flags: &'a BenchServing,
    objectives: Option<Objectives>,
    server: Server,
    /// Output throughput of each run so far.
    throughputs: Vec<f64>,
    rows: Vec<Value>,
}

impl Bench<'_> {
    fn all(&mut self, interrupt: &Interrupt, file: &mut Option<JsonLines>) -> Result<()> {
        let mut invalid = None;
        for number in 0..self.flags.num_runs as u64 {
            let interrupted = match self.one(number, interrupt, file) {
                Ok((strict, interrupted)) => {
                    invalid = invalid.or(strict);
                    interrupted
                }
                Err(error) => return Err(error),
            };
            if interrupted {
                let n = self.rows.len();
                return Err(interrupt.error(&format!("{n} rows written")));
            }
        }
        if self.flags.show_report {
            let table = crate::bench::serving::text::markdown(&self.rows);
            table.iter().try_for_each(out::line)?;
        }
        match invalid.filter(|_| self.flags.strict) {
            Some(error) => Err(error),
            None => self.nothing_worked(),
        }
    }

    /// A benchmark of which no request succeeded has failed, though its row stands.
    fn nothing_worked(&self) -> Result<()> {
        let worked = self.rows.iter().any(|r| r["completed"].as_u64().unwrap_or(0) > 0);
        if worked || self.rows.is_empty() {
            return Ok(());
        }
        Err(Error::new(Kind::Io, "no request succeeded; the row lists the reasons"))
    }

    /// Run `number`: what `--strict` would say, and whether it was interrupted.
    fn one(
        &mut self,
        number: u64,
        interrupt: &Interrupt,
        file: &mut Option<JsonLines>,
    ) -> Result<(Option<Error>, bool)> {
        let flags = self.flags;
        let codec = flags.codec()?;
        let vocab = flags.vocab(&self.server, codec.as_ref());
        let rows = flags.rows(number, vocab, codec.as_ref())?;
        let plan = flags.plan(&self.server, rows, number)?;
        let measured = with_progress(flags, &plan, interrupt)?;
        let lens: Vec<usize> = plan.rows.iter().map(|r| r.prompt_len).collect();
        let duration = measured.outcome.wall_ns as f64 * 1e-9;
        let m = metrics::metrics(&measured.outcome.records, &lens, duration);
        self.throughputs.push(m.output_throughput);
        let asked = Asked {
            rows: &plan.rows,
            ignore_eos: !flags.disable_ignore_eos,
            shares_prefixes: flags.dataset_name.shares_prefixes(),
            offered: offered(&plan),
            runs: &self.throughputs,
            optimised: !cfg!(debug_assertions),
        };
        let validity = checks::validity(&asked, &measured, &m);
        let context = self.context(number, vocab);
        let row = row::row(&context, &plan.rows, &measured, &m, &validity);
        if let Some(file) = file {
            file.append(&row)?;
        }
        self.show(&row, &plan.rows, &context, &measured, &m, &validity)?;
        self.rows.push(row);
        Ok((validity.require().err(), measured.outcome.interrupted))
    }

    fn show(
        &self,
        row: &Value,
        rows: &[Row],
        context: &Context,
        measured: &Measured,
        m: &Metrics,
        validity: &crate::measure::validity::Validity,
    ) -> Result<()> {
        if self.flags.json {
            return out::line(row);
        }
        out::line("")?;
        let mut lines = text::sglang(context, measured, m);
        lines.extend(text::ours(measured, m, validity));
        if self.flags.plot_throughput {
            lines.extend(plot::over_time(&measured.outcome.records, m.duration));
        }
        if self.flags.print_requests {
            lines.extend(text::requests(rows, &measured.outcome.records));
        }
        lines.iter().try_for_each(out::line)
    }

    fn context(&self, number: u64, vocab: usize) -> Context {
        let flags = self.flags;
        let random = flags.dataset_name.name().starts_with("random");
        Context {
            tag: flags.tag.clone(),
            backend: flags.backend.to_string(),
            dataset: flags.dataset_name.to_string(),
            request_rate: flags.rate_name(),
            max_concurrency: flags.max_concurrency,
            sharegpt_output_len: flags.sharegpt_output_len,
            random_input_len: random.then_some(flags.random_input_len),
            random_output_len: random.then_some(flags.random_output_len),
            random_range_ratio: random.then_some(flags.random_range_ratio),
            server_info: self.server.info.clone(),
            objectives: self.objectives,
            details: flags.output_details,
            cache_report: flags.cache_report,
            about: about(flags, &self.server, number, vocab),
        }
    }
}

/// Tool, time and settings, for the row.
fn about(flags: &BenchServing, server: &Server, number: u64, vocab: usize) -> Map<String, Value> {
    let words = std::env::args_os().skip(1).map(|w| w.to_string_lossy().into_owned());
    let about = json!({
        "tool": version(),
        "commit": commit(),
        "date": date::now_iso(),
        "command": words.collect::<Vec<String>>(),
        "machine": machine::cpu_name(),
        "base_url": format!("http://{}{}", server.target.host, server.target.prefix),
        "model": server.model,
        "seed": flags.seed.wrapping_add(number),
        "run": number,
        "runs": flags.num_runs,
        "vocab_size": vocab,
        "random_range_rule": flags.random_range_rule.name(),
        "burstiness": flags.burstiness.is_finite().then_some(flags.burstiness),
        "num_prompts": flags.num_prompts,
        "warmup_requests": flags.warmup_requests,
        "client_threads": flags.threads(),
    });
    match about {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// Requests a second that an open loop's schedule offers, from first to last arrival.
fn offered(plan: &Plan) -> Option<f64> {
    match &plan.arrivals {
        Arrivals::AtOnce | Arrivals::Closed => None,
        Arrivals::Rate { per_second, .. } => Some(*per_second),
        open => {
            let n = plan.rows.iter().filter(|r| !r.follows).count();
            let times = crate::bench::load::arrivals::schedule(open, n, plan.seed);
            let last = times.into_iter().flatten().max().filter(|t| *t > 0)?;
            Some(n as f64 / (last as f64 * 1e-9))
        }
    }
}

/// Runs with a bar that another thread draws.
fn with_progress(flags: &BenchServing, plan: &Plan, interrupt: &Interrupt) -> Result<Measured> {
    let (ended, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        if !flags.disable_tqdm {
            scope.spawn(|| {
                let bar = Progress::new("requests");
                while !over.load(Ordering::Relaxed) {
                    bar.set(ended.load(Ordering::Relaxed), plan.rows.len());
                    std::thread::sleep(Duration::from_millis(100));
                }
            });
        }
        let measured = run::run(plan, interrupt, &ended);
        over.store(true, Ordering::Relaxed);
        measured
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::args::{Parsed, parse};

    fn flags(text: &str) -> BenchServing {
        let words: Vec<String> = text.split_whitespace().map(str::to_string).collect();
        match parse("bench-serving", &words) {
            Ok(Parsed::Args(flags)) => flags,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn file_names_as_sglang() {
        let now = "2026-11-25T18:00:00Z";
        let random = flags("--num-prompts 10 --random-input-len 5 --random-output-len 6");
        assert_eq!(default_name(&random, now), "sglang_1125_10_5_6.jsonl");
        let shared = flags("--dataset-name generated-shared-prefix --backend vllm");
        assert_eq!(default_name(&shared, now), "vllm_1125_1000_generated-shared-prefix.jsonl");
    }

    #[test]
    fn what_does_not_go_together() {
        for bad in [
            "--lora-name a",
            "--image-count 2",
            "--protocol grpc",
            "--ramp-up-strategy linear",
            "--ramp-up-strategy linear --request-rate 3",
            "--find-max-rate",
            "--gsp-num-turns 2 --backend vllm",
            "--profile-prefill-url a --profile-decode-url b",
        ] {
            let error = flags(bad).check().unwrap_err();
            assert_eq!(error.exit_code(), 2, "{bad}");
            assert!(error.message.starts_with(bad.split(' ').next().unwrap()), "{error}");
        }
    }

    #[test]
    fn urls_and_rates() {
        assert_eq!(flags("").url(), "http://127.0.0.1:30000");
        assert_eq!(flags("--backend vllm-chat --host h").url(), "http://h:8000");
        assert_eq!(flags("--base-url http://x:1").url(), "http://x:1");
        assert_eq!(flags("").rate_name(), "inf");
        assert_eq!(flags("--request-rate 2.5").rate_name(), 2.5);
        assert_eq!(flags("--dataset-name mooncake").rate_name(), "trace");
        assert_eq!(flags("").arrivals(&[]).unwrap(), Arrivals::AtOnce);
        assert_eq!(flags("--max-concurrency 4").arrivals(&[]).unwrap(), Arrivals::Closed);
        assert!(flags("--use-trace-timestamps").rows(0, 9, None).is_ok());
    }
}
