//! Every case of the sweep, measured, printed and written before the next.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::super::{commit, out, version};
use super::explain::events;
use super::prompts::Prompts;
use super::{BatchBackend, BenchOneBatchServer};
use crate::bench::load::plain;
use crate::bench::load::target::Target;
use crate::bench::served::figures::{self, Figures};
use crate::bench::served::parts::Parts;
use crate::bench::served::row::{self, Case, ServerSide};
use crate::bench::served::run as served;
use crate::bench::serving::body::FAKE_HOST;
use crate::bench::serving::{counters, process};
use crate::error::{Error, Kind, Result};
use crate::measure::date;
use crate::measure::interrupt::Interrupt;
use crate::measure::json::JsonLines;
use crate::measure::machine::{self, Watch};
use crate::measure::validity::{self, Check, Validity};

/// The vocabulary of a server that does not tell.
const SAFE_VOCAB: usize = 10_000;

/// The cases of a command line, one after another.
pub struct Sweep<'a> {
    pub(super) flags: &'a BenchOneBatchServer,
    pub(super) target: Target,
    interrupt: &'a Interrupt,
    model: String,
    prompts: Prompts<'a>,
    /// Sequences at once and tokens that the server has room for, if it says.
    most_running: Option<u64>,
    capacity: Option<u64>,
    /// Rows so far and, for --static-vs-served, where the server's time went in each.
    pub rows: Vec<Value>,
    pub timelines: Vec<Option<Parts>>,
    /// What `--strict` would say.
    pub invalid: Option<Error>,
}

impl<'a> Sweep<'a> {
    pub fn new(
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
        let vocab = flags.vocab_size.or(vocab).unwrap_or(SAFE_VOCAB);
        let prompts = Prompts::new(flags, vocab, &info, &about)?;
        // `None` and `dummy` are what SGLang's users write where the server decides.
        let given = flags.model.clone();
        let given = given.filter(|m| !matches!(m.as_str(), "None" | "none" | "dummy"));
        let named = given.or(models["data"][0]["id"].as_str().map(str::to_string));
        Ok(Sweep {
            model: named.unwrap_or_else(|| "default".into()),
            prompts,
            most_running: running,
            capacity,
            flags,
            target,
            interrupt,
            rows: Vec::new(),
            timelines: Vec::new(),
            invalid: None,
        })
    }

    pub fn all(&mut self, file: &mut Option<JsonLines>) -> Result<()> {
        let flags = self.flags;
        if !flags.skip_warmup {
            for &batch_size in &flags.batch_size {
                let warm = Case { batch_size, input_len: 1024, output_len: 16 };
                // As much of SGLang's warm-up as this server has room for.
                let room = self.capacity.map_or(usize::MAX, |c| c as usize / batch_size.max(1));
                let longest = flags.input_len.iter().copied().max().unwrap_or(1024);
                let input_len = warm.input_len.min(longest).min(room.saturating_sub(17)).max(1);
                let warm = Case { input_len, ..warm };
                if let Ok(prompts) = self.fitting(warm)? {
                    self.measure(&prompts, warm.output_len)?;
                }
            }
        }
        for case in self.cases() {
            self.case(case, file)?;
        }
        match self.rows.is_empty() {
            true => Err(Error::limit("no case of the sweep fits; see the messages above")),
            false => Ok(()),
        }
    }

    /// Every combination, in SGLang's order.
    pub(super) fn cases(&self) -> Vec<Case> {
        let flags = self.flags;
        let mut cases = Vec::new();
        for &batch_size in &flags.batch_size {
            for &input_len in &flags.input_len {
                for &output_len in &flags.output_len {
                    cases.push(Case { batch_size, input_len, output_len });
                }
            }
        }
        cases
    }

    pub(super) fn say(&self, line: &str) -> Result<()> {
        if self.flags.json {
            out::note(line);
            return Ok(());
        }
        out::line(line)
    }

    /// The prompts of the next batch, or why it does not fit.
    pub(super) fn fitting(
        &mut self,
        case: Case,
    ) -> Result<std::result::Result<Vec<Vec<u32>>, String>> {
        // Known lengths are judged before so many tokens are made.
        let known = self.prompts.known_lengths(case);
        if let Some(why) = known.and_then(|lengths| self.misfit(case, &lengths)) {
            return Ok(Err(why));
        }
        let prompts = self.prompts.next(case)?;
        let lengths: Vec<usize> = prompts.iter().map(Vec::len).collect();
        Ok(self.misfit(case, &lengths).map_or(Ok(prompts), Err))
    }

    /// Why the server has no room for a batch, if so.
    fn misfit(&self, case: Case, lengths: &[usize]) -> Option<String> {
        let Case { batch_size, input_len, output_len } = case;
        let skipping = format!("skipping ({batch_size}, {input_len}, {output_len}):");
        let most = self.most_running.filter(|_| !self.flags.enable_multi_batch);
        if let Some(most) = most.filter(|m| batch_size as u64 > *m) {
            return Some(format!("{skipping} the server runs {most} requests at once"));
        }
        let tokens = lengths.iter().map(|n| (n + output_len) as u64).sum::<u64>();
        let room = self.capacity.filter(|_| !self.flags.skip_token_capacity_check);
        let room = room.filter(|r| tokens > *r)?;
        Some(format!("{skipping} {tokens} tokens, the server has room for {room}"))
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
        if flags.fake_prefill {
            body["bootstrap_host"] = vec![FAKE_HOST; prompts.len()].into();
            body["bootstrap_room"] = vec![0; prompts.len()].into();
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

    fn flush(&self) {
        let flush = match self.flags.backend {
            BatchBackend::Vllm => "/reset_prefix_cache",
            _ => "/flush_cache?timeout=10",
        };
        let storage = self.flags.flush_hicache_storage;
        let paths = storage.then_some("/hicache/storage-backend/clear").into_iter().chain([flush]);
        for path in paths {
            let _ = plain::call(&self.target, "POST", path, b"", Duration::from_secs(30));
        }
    }

    pub(super) fn measure(&self, prompts: &[Vec<u32>], output_len: usize) -> Result<Figures> {
        self.flush();
        if self.flags.cache_hit_rate > 0.0 {
            let cut =
                |p: &Vec<u32>| p[..(p.len() as f64 * self.flags.cache_hit_rate) as usize].to_vec();
            let known: Vec<Vec<u32>> = prompts.iter().map(cut).filter(|p| !p.is_empty()).collect();
            if !known.is_empty() {
                self.send(&known, 1)?;
            }
        }
        self.send(prompts, output_len)
    }

    fn case(&mut self, case: Case, file: &mut Option<JsonLines>) -> Result<()> {
        let mut latencies = Vec::new();
        for number in 0..self.flags.repeat {
            let prompts = match self.fitting(case)? {
                Ok(prompts) => prompts,
                Err(why) => return self.say(&why),
            };
            let mean = prompts.iter().map(Vec::len).sum::<usize>() / prompts.len().max(1);
            let case = Case { input_len: mean, ..case };
            let before = counters::read(&self.target);
            let server = process::of(&self.target);
            let used = || server.and_then(machine::process_seconds);
            let (cpu, watch) = (used(), Watch::start());
            let measured = self.measure(&prompts, case.output_len);
            if let Err(error) = &measured
                && error.kind == Kind::Interrupted
            {
                return Err(self.interrupt.error(&format!("{} rows written", self.rows.len())));
            }
            let f = measured?;
            let mut machine = watch.finish();
            let cpu = cpu.zip(used()).map(|(before, after)| after - before);
            machine.leave_out(cpu.unwrap_or(0.0));
            latencies.push(f.latency);
            if self.flags.static_vs_served {
                self.timelines.push(self.timeline(f.latency));
            }
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
            let known = cpu.is_some() || !self.target.is_local();
            let v = self.validity(case, &f, &latencies, (&machine, known));
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

    /// What the server's flight recorder holds of the batch that has just ended.
    fn timeline(&self, latency: f64) -> Option<Parts> {
        let body = json!({ "last_s": latency + 1.0 }).to_string();
        let patience = Duration::from_secs(60);
        let answer =
            plain::call(&self.target, "POST", "/dump_profile", body.as_bytes(), patience).ok()?;
        let file = answer.json()?["files"][0].as_str().map(PathBuf::from)?;
        let parts = Parts::of_trace(&events(&file)?);
        // The server is ours, and so are its files.
        let name = file.to_string_lossy();
        let _ = std::fs::remove_file(name.replace(".trace.json.gz", ".summary.json"));
        let _ = std::fs::remove_file(&file);
        parts
    }

    fn validity(
        &self,
        case: Case,
        f: &Figures,
        latencies: &[f64],
        (machine, server_known): (&machine::Machine, bool),
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
        if !server_known {
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
            "tool": version(),
            "commit": commit(),
            "date": date::now_iso(),
            "command": words.collect::<Vec<String>>(),
            "machine": machine::cpu_name(),
            "backend": self.flags.backend.name(),
            "model": self.model,
            "dataset_name": self.flags.dataset_name.name(),
            "server_args": self.flags.server_args_for_metrics,
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
