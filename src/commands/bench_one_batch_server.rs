//! `pacer bench-one-batch-server`: one batch through a running server.

use std::time::Duration;

use argh::ArgsInfo;
use serde_json::{Map, Value, json};

use super::bench_serving::positive;
use super::launch::Launched;
use super::model_flags::SharedFlags;
use super::values::{seed, whole};
use super::{Run, out};
use crate::bench::data::random::{self, Lengths};
use crate::bench::data::{Prompt, RangeRule};
use crate::bench::load::plain;
use crate::bench::load::target::Target;
use crate::bench::served::figures::{self, Figures};
use crate::bench::served::gap::{self, Ways};
use crate::bench::served::row::{self, Case, ServerSide};
use crate::bench::served::run as served;
use crate::bench::serving::counters;
use crate::bench::serving::run::ready;
use crate::choice;
use crate::error::{Error, Kind, Result};
use crate::measure::date;
use crate::measure::interrupt::Interrupt;
use crate::measure::json::JsonLines;
use crate::measure::machine::{self, Watch};
use crate::measure::validity::{self, Check, Validity};

choice! {
    /// The server's API.
    BatchBackend { Sglang = "sglang", Pacer = "pacer", Vllm = "vllm" }
}

/// Latency of one batch through a running server, over HTTP and its scheduler. Every combination
/// of batch size, input and output length is measured; results are printed and appended to a file.
#[derive(argh::FromArgs, argh::ArgsInfo, Debug, Clone, PartialEq)]
#[argh(help_triggers("--help"))]
#[argh(note = "Flags and keys as SGLang's bench_one_batch_server. The batch goes as one request. \
    Prompts are random token ids. Not there: LoRA, images, other data sets, --profile. Exit codes: \
    0 done, 1 failed, 2 usage, 4 not valid (--strict), 130 interrupted.")]
pub struct BenchOneBatchServer {
    /// name copied into each row (default default)
    #[argh(option, arg_name = "NAME", default = "String::from(\"default\")")]
    pub run_name: String,

    /// sglang or pacer (/generate), vllm (/v1/completions) (default sglang)
    #[argh(option, arg_name = "NAME", default = "Default::default()")]
    pub backend: BatchBackend,

    /// server to measure (default http://127.0.0.1:30000)
    #[argh(option, arg_name = "URL", default = "String::from(\"http://127.0.0.1:30000\")")]
    pub base_url: String,

    /// start this server first and end it afterwards: "serve FLAGS" for Pacer, or another command
    /// (default: none)
    #[argh(option, arg_name = "COMMAND")]
    pub launch: Option<String>,

    /// model name to send, for vllm (default: the first of /v1/models)
    #[argh(option, arg_name = "NAME")]
    pub model: Option<String>,

    /// sequences in the batch, a list (default 1)
    #[argh(option, arg_name = "N", from_str_fn(whole::<1, { 1 << 20 }>))]
    pub batch_size: Vec<usize>,

    /// tokens of each prompt, a list (default 1024)
    #[argh(option, arg_name = "N", from_str_fn(whole::<1, { 1 << 30 }>))]
    pub input_len: Vec<usize>,

    /// tokens to generate for each sequence, a list (default 16)
    #[argh(option, arg_name = "N", from_str_fn(whole::<1, { 1 << 30 }>))]
    pub output_len: Vec<usize>,

    /// prompt lengths of the requests of a batch, in turn, a list (default: --input-len)
    #[argh(option, arg_name = "N", from_str_fn(whole::<1, { 1 << 30 }>))]
    pub input_len_list: Vec<usize>,

    /// measured batches of each case, a row each (default 1)
    #[argh(option, arg_name = "N", default = "1", from_str_fn(whole::<1, 1000>))]
    pub repeat: usize,

    /// softness of the choice; 0 is greedy (default 0.0)
    #[argh(option, arg_name = "X", default = "0.0")]
    pub temperature: f64,

    /// let requests end early
    #[argh(switch)]
    pub disable_ignore_eos: bool,

    /// ask for log-probabilities
    #[argh(switch)]
    pub return_logprob: bool,

    /// tokens of an event of the stream (default 1)
    #[argh(option, arg_name = "N", default = "1", from_str_fn(whole::<1, { 1 << 20 }>))]
    pub client_stream_interval: usize,

    /// share of each prompt that is put into the server's prefix cache first (default 0.0)
    #[argh(option, arg_name = "X", default = "0.0", from_str_fn(super::bench_serving::ratio))]
    pub cache_hit_rate: f64,

    /// token ids are below this (default: what the server says, else 10000)
    #[argh(option, arg_name = "N", from_str_fn(whole::<1, { u32::MAX as u64 }>))]
    pub vocab_size: Option<usize>,

    /// no warm-up
    #[argh(switch)]
    pub skip_warmup: bool,

    /// run cases though the server says that its cache is too small
    #[argh(switch)]
    pub skip_token_capacity_check: bool,

    /// run batches larger than the server runs at once
    #[argh(switch)]
    pub enable_multi_batch: bool,

    /// run each case static, continuous and served, and say where the difference goes; needs
    /// --launch "serve FLAGS"
    #[argh(switch)]
    pub static_vs_served: bool,

    /// seconds that one batch may take (default 3600)
    #[argh(option, arg_name = "SECONDS", default = "3600.0", from_str_fn(positive))]
    pub request_timeout: f64,

    /// JSON Lines file that a row is appended to after each case; empty for none (default
    /// result.jsonl)
    #[argh(option, arg_name = "PATH", default = "String::from(\"result.jsonl\")")]
    pub result_filename: String,

    /// seed of the token ids (default 42)
    #[argh(option, arg_name = "N", default = "42", from_str_fn(seed))]
    pub seed: u64,

    /// print a markdown table at the end
    #[argh(switch)]
    pub show_report: bool,

    /// print only the rows, as JSON Lines, on standard output
    #[argh(switch)]
    pub json: bool,

    /// exit with 4 if any validity check fails
    #[argh(switch)]
    pub strict: bool,
}

impl Run for BenchOneBatchServer {
    const NAME: &'static str = "bench-one-batch-server";

    fn run(mut self) -> Result<()> {
        let lists = [(&mut self.batch_size, 1), (&mut self.input_len, 1024)];
        for (list, default) in lists.into_iter().chain([(&mut self.output_len, 16)]) {
            if list.is_empty() {
                list.push(default);
            }
        }
        if self.static_vs_served && self.own_flags().is_none() {
            let error = "--static-vs-served: needs --launch \"serve FLAGS\"";
            return Err(Error::usage(error));
        }
        let interrupt = Interrupt::on_signals()?;
        let mut file = match self.result_filename.as_str() {
            "" => None,
            name => Some(JsonLines::open(name)?),
        };
        let mut launched = self.launch.as_deref().map(Launched::start).transpose()?;
        let url = launched.as_ref().map_or(self.base_url.clone(), |l| l.url.clone());
        let target = Target::new(&url, Vec::new())?;
        let up = ready(&target, Duration::from_secs(600), &interrupt);
        if let Some(launched) = &mut launched {
            launched.check()?;
        }
        up?;
        let mut sweep = Sweep::new(&self, target, &interrupt)?;
        let result = sweep.all(&mut file);
        let rows = std::mem::take(&mut sweep.rows);
        // The static ways run alone on the machine.
        drop(launched);
        if self.show_report {
            row::markdown(&rows).iter().try_for_each(out::line)?;
        }
        result?;
        if self.static_vs_served {
            self.explain(&rows, &mut file)?;
        }
        let invalid = sweep.invalid.filter(|_| self.strict);
        invalid.map_or(Ok(()), Err)
    }
}

/// The vocabulary of a server that does not tell.
const SAFE_VOCAB: usize = 10_000;

struct Sweep<'a> {
    flags: &'a BenchOneBatchServer,
    target: Target,
    interrupt: &'a Interrupt,
    model: String,
    vocab: usize,
    /// Sequences at once and tokens that the server has room for, if it says.
    most_running: Option<u64>,
    capacity: Option<u64>,
    rows: Vec<Value>,
    invalid: Option<Error>,
    sent: u64,
}

impl<'a> Sweep<'a> {
    fn new(
        flags: &'a BenchOneBatchServer,
        target: Target,
        interrupt: &'a Interrupt,
    ) -> Result<Self> {
        let info = plain::get_json(&target, "/server_info").unwrap_or(Value::Null);
        let about = plain::get_json(&target, "/model_info").unwrap_or(Value::Null);
        let models = plain::get_json(&target, "/v1/models").unwrap_or(Value::Null);
        let states: Vec<&Value> =
            info["internal_states"].as_array().into_iter().flatten().collect();
        let running = states
            .first()
            .and_then(|s| s["effective_max_running_requests_per_dp"].as_u64())
            .map(|n| n * info["dp_size"].as_u64().unwrap_or(1));
        let capacities = states.iter().filter_map(|s| s["memory_usage"]["token_capacity"].as_u64());
        let capacity = capacities.fold(None, |sum: Option<u64>, n| Some(sum.unwrap_or(0) + n));
        let vocab = about["vocab_size"].as_u64().map(|n| n as usize);
        let named = flags.model.clone().or(models["data"][0]["id"].as_str().map(str::to_string));
        Ok(Sweep {
            model: named.unwrap_or_else(|| "default".into()),
            vocab: flags.vocab_size.or(vocab).unwrap_or(SAFE_VOCAB),
            most_running: running,
            capacity,
            flags,
            target,
            interrupt,
            rows: Vec::new(),
            invalid: None,
            sent: 0,
        })
    }

    fn all(&mut self, file: &mut Option<JsonLines>) -> Result<()> {
        let flags = self.flags;
        if !flags.skip_warmup {
            for &batch_size in &flags.batch_size {
                let warm = Case { batch_size, input_len: 1024, output_len: 16 };
                // As much of SGLang's warm-up as this server has room for.
                let room = self.capacity.map_or(usize::MAX, |c| c as usize / batch_size.max(1));
                let longest = flags.input_len.iter().copied().max().unwrap_or(1024);
                let input_len = warm.input_len.min(longest).min(room.saturating_sub(17)).max(1);
                let warm = Case { input_len, ..warm };
                if self.misfit(warm).is_none() {
                    self.measure(warm)?;
                }
            }
        }
        for &batch_size in &flags.batch_size {
            for &input_len in &flags.input_len {
                for &output_len in &flags.output_len {
                    let case = Case { batch_size, input_len, output_len };
                    if let Some(why) = self.misfit(case) {
                        self.say(&why)?;
                        continue;
                    }
                    self.case(case, file)?;
                }
            }
        }
        match self.rows.is_empty() {
            true => Err(Error::limit("no case of the sweep fits; see the messages above")),
            false => Ok(()),
        }
    }

    fn say(&self, line: &str) -> Result<()> {
        if self.flags.json {
            out::note(line);
            return Ok(());
        }
        out::line(line)
    }

    fn misfit(&self, case: Case) -> Option<String> {
        let Case { batch_size, input_len, output_len } = case;
        let skipping = format!("skipping ({batch_size}, {input_len}, {output_len}):");
        let most = self.most_running.filter(|_| !self.flags.enable_multi_batch);
        if let Some(most) = most.filter(|m| batch_size as u64 > *m) {
            return Some(format!("{skipping} the server runs {most} requests at once"));
        }
        let tokens = self.lengths(case).iter().map(|n| (n + output_len) as u64).sum::<u64>();
        let room = self.capacity.filter(|_| !self.flags.skip_token_capacity_check);
        let room = room.filter(|r| tokens > *r)?;
        Some(format!("{skipping} {tokens} tokens, the server has room for {room}"))
    }

    /// Prompt lengths of the batch.
    fn lengths(&self, case: Case) -> Vec<usize> {
        let list = &self.flags.input_len_list;
        let one = |i: usize| match list.is_empty() {
            true => case.input_len,
            false => list[i % list.len()],
        };
        (0..case.batch_size).map(one).collect()
    }

    fn prompts(&mut self, case: Case) -> Result<Vec<Vec<u32>>> {
        // Each batch has prompts of its own, so that the prefix cache does not know them.
        self.sent += 1;
        let mut prompts = Vec::new();
        for (i, input) in self.lengths(case).into_iter().enumerate() {
            let lengths = Lengths { input, output: 1, ratio: 1.0, rule: RangeRule::Sglang };
            let seed = self.flags.seed ^ (self.sent << 32) ^ i as u64;
            let rows = random::rows(lengths, 1, self.vocab, false, seed)?;
            for row in rows {
                if let Prompt::Ids(ids) = row.prompt {
                    prompts.push(ids);
                }
            }
        }
        Ok(prompts)
    }

    fn body(&self, prompts: &[Vec<u32>], output_len: usize) -> (&'static str, Value) {
        let flags = self.flags;
        let ignore_eos = !flags.disable_ignore_eos;
        if flags.backend == BatchBackend::Vllm {
            let body = json!({
                "model": self.model, "prompt": prompts, "max_tokens": output_len, "stream": true,
                "temperature": flags.temperature, "ignore_eos": ignore_eos,
            });
            return ("/v1/completions", body);
        }
        let mut params = json!({
            "temperature": flags.temperature, "max_new_tokens": output_len,
            "ignore_eos": ignore_eos,
        });
        if flags.client_stream_interval != 1 {
            params["stream_interval"] = flags.client_stream_interval.into();
        }
        let mut body = json!({ "input_ids": prompts, "sampling_params": params, "stream": true });
        if flags.return_logprob {
            body["return_logprob"] = true.into();
        }
        ("/generate", body)
    }

    fn send(&self, prompts: &[Vec<u32>], output_len: usize) -> Result<Figures> {
        let (path, body) = self.body(prompts, output_len);
        let patience = Duration::from_secs_f64(self.flags.request_timeout.min(1e9));
        let n = prompts.len();
        let read = served::batch(&self.target, path, &body, n, patience, self.interrupt)?;
        let input = prompts.iter().map(|p| p.len() as u64).sum();
        let eos = !self.flags.disable_ignore_eos;
        Ok(figures::figures(&read, input, output_len, eos))
    }

    fn measure(&mut self, case: Case) -> Result<Figures> {
        let path = match self.flags.backend {
            BatchBackend::Vllm => "/reset_prefix_cache",
            _ => "/flush_cache?timeout=10",
        };
        let _ = plain::call(&self.target, "POST", path, b"", Duration::from_secs(30));
        let prompts = self.prompts(case)?;
        if self.flags.cache_hit_rate > 0.0 {
            let cut =
                |p: &Vec<u32>| p[..(p.len() as f64 * self.flags.cache_hit_rate) as usize].to_vec();
            let known: Vec<Vec<u32>> = prompts.iter().map(cut).filter(|p| !p.is_empty()).collect();
            if !known.is_empty() {
                self.send(&known, 1)?;
            }
        }
        self.send(&prompts, case.output_len)
    }

    fn case(&mut self, case: Case, file: &mut Option<JsonLines>) -> Result<()> {
        let mut latencies = Vec::new();
        for number in 0..self.flags.repeat {
            let before = counters::read(&self.target);
            let watch = Watch::start();
            let measured = self.measure(case);
            if let Err(error) = &measured
                && error.kind == Kind::Interrupted
            {
                return Err(self.interrupt.error(&format!("{} rows written", self.rows.len())));
            }
            let f = measured?;
            let machine = watch.finish();
            latencies.push(f.latency);
            let counted = counters::read(&self.target).zip(before).map(|(a, b)| a.since(&b));
            let hits = counted.and_then(|c| {
                c.cached_tokens.zip(c.prompt_tokens.filter(|p| *p > 0.0)).map(|(c, p)| c / p)
            });
            let info = plain::get_json(&self.target, "/server_info").unwrap_or(Value::Null);
            let state = &info["internal_states"][0];
            let server = ServerSide {
                last_gen_throughput: state["last_gen_throughput"].as_f64(),
                acc_length: state["avg_spec_accept_length"].as_f64(),
                cache_hit_rate: hits,
            };
            let v = self.validity(case, &f, &latencies, &machine);
            let about = self.about(number);
            let row = row::row(&self.flags.run_name, case, &f, &server, &v, about);
            if let Some(file) = file {
                file.append(&row)?;
            }
            if self.flags.json {
                out::line(&row)?;
            } else {
                row::lines(case, &f, &server).iter().try_for_each(out::line)?;
                out::line(v.line())?;
            }
            self.rows.push(row);
            let failed = v.require().err();
            self.invalid = self.invalid.take().or(failed);
        }
        Ok(())
    }

    fn validity(
        &self,
        case: Case,
        f: &Figures,
        latencies: &[f64],
        machine: &machine::Machine,
    ) -> Validity {
        let mut v = Validity::default();
        let wanted = (case.batch_size * case.output_len) as u64;
        let off = wanted.abs_diff(f.output_tokens) as f64;
        let note = format!("{} of {wanted} output tokens", f.output_tokens);
        let limit = if self.flags.disable_ignore_eos { f64::INFINITY } else { 0.0 };
        v.push(Check::bounded("achieved_output", Some(off), 0.0, limit, note));
        let hits = f.cached_tokens as f64 / f.input_tokens.max(1) as f64;
        let wanted = self.flags.cache_hit_rate;
        let note = format!(
            "{:.1}% of prompt tokens were cached, {:.1}% asked for",
            hits * 100.0,
            wanted * 100.0
        );
        v.push(Check::bounded("prefix_cache_hits", Some((hits - wanted).abs()), 0.05, 0.2, note));
        let mut spread = validity::spread("run_spread", latencies);
        if latencies.len() < 2 {
            spread.note = "unknown from one batch; --repeat 3 tells".into();
        }
        v.push(spread);
        let [mut other, steal, clock] = validity::machine(machine);
        if self.target.is_local() {
            other.status = other.status.min(validity::Status::Warn);
            other.note.push_str("; the server under test is among them");
        }
        [other, steal, clock].into_iter().for_each(|c| v.push(c));
        v.push(validity::build(!cfg!(debug_assertions)));
        v
    }

    fn about(&self, number: usize) -> Map<String, Value> {
        let words = std::env::args_os().skip(1).map(|w| w.to_string_lossy().into_owned());
        let about = json!({
            "tool": super::version(),
            "commit": super::commit(),
            "date": date::now_iso(),
            "command": words.collect::<Vec<String>>(),
            "machine": machine::cpu_name(),
            "backend": self.flags.backend.name(),
            "model": self.model,
            "seed": self.flags.seed,
            "run": number,
            "runs": self.flags.repeat,
        });
        match about {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }
}

impl BenchOneBatchServer {
    /// The model flags of `--launch "serve …"`: what the static commands can take too.
    fn own_flags(&self) -> Option<Vec<String>> {
        let words: Vec<&str> = self.launch.as_deref()?.split_whitespace().collect();
        let rest = match words.split_first() {
            Some((&("serve" | "launch-server"), rest)) => rest,
            Some((first, _)) if first.starts_with("--") => &words,
            _ => return None,
        };
        let shared = SharedFlags::get_args_info();
        let mut kept = Vec::new();
        let mut keep = false;
        for word in rest {
            if word.starts_with("--") {
                let name = word.split('=').next().unwrap_or(word);
                keep = shared.flags.iter().any(|f| f.long == name);
            }
            if keep {
                kept.push((*word).to_string());
            }
        }
        Some(kept)
    }

    /// Runs every served case the other ways, in processes of their own.
    fn explain(&self, rows: &[Value], file: &mut Option<JsonLines>) -> Result<()> {
        for served in rows {
            let number = |key: &str| served[key].to_string();
            let (bs, input, output) =
                (number("batch_size"), number("input_len"), number("output_len"));
            let one_batch = self.own(&[
                "bench-one-batch",
                "--json",
                "--result-filename",
                "",
                "--batch-size",
                &bs,
                "--input-len",
                &input,
                "--output-len",
                &output,
            ])?;
            let continuous = self.own(&[
                "bench-offline-throughput",
                "--json",
                "--num-prompts",
                &bs,
                "--random-input-len",
                &input,
                "--random-output-len",
                &output,
                "--random-range-ratio",
                "1",
            ])?;
            let (Some((synchronised, back_to_back)), Some(continuous), Some(served_s)) = (
                gap::of_static(&one_batch),
                continuous["total_latency"].as_f64(),
                served["latency"].as_f64(),
            ) else {
                return Err(Error::new(Kind::Io, "a row without its times"));
            };
            let ways = Ways { synchronised, back_to_back, continuous, served: served_s };
            let mut row = gap::to_json(&ways);
            for key in ["batch_size", "input_len", "output_len", "model", "date", "machine"] {
                row[key] = served[key].clone();
            }
            row["kind"] = "static_vs_served".into();
            if let Some(file) = file {
                file.append(&row)?;
            }
            if self.json {
                out::line(&row)?;
            } else {
                gap::lines(&ways).iter().try_for_each(out::line)?;
            }
        }
        Ok(())
    }

    /// The last row that this program prints for `words`.
    fn own(&self, words: &[&str]) -> Result<Value> {
        let failed = |what: String| Error::new(Kind::Io, format!("pacer {}: {what}", words[0]));
        let program = std::env::current_exe().map_err(|e| failed(e.to_string()))?;
        let output = std::process::Command::new(program)
            .args(words)
            .args(self.own_flags().unwrap_or_default())
            .stdin(std::process::Stdio::null())
            .stderr(std::process::Stdio::inherit())
            .output()
            .map_err(|e| failed(e.to_string()))?;
        if !output.status.success() {
            return Err(failed(output.status.to_string()));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let row = text.lines().rev().find_map(|l| serde_json::from_str(l).ok());
        row.ok_or_else(|| failed("it printed no row".into()))
    }
}
