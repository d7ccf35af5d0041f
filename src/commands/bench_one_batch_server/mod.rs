//! `pacer bench-one-batch-server`: one batch through a running server.

mod explain;
mod prompts;
mod sweep;

use std::io::Write;
use std::time::Duration;

use serde_json::Value;

use super::data_flags::ratio;
use super::launch::Launched;
use super::values::{positive, seed, whole};
use super::{Run, out};
use crate::bench::load::target::Target;
use crate::bench::served::row;
use crate::bench::serving::run::ready;
use crate::choice;
use crate::error::{Error, Result};
use crate::measure::interrupt::Interrupt;
use crate::measure::json::JsonLines;
use sweep::Sweep;

choice! {
    /// The server's API.
    BatchBackend { Sglang = "sglang", Pacer = "pacer", Vllm = "vllm" }
}

choice! {
    /// Where prompts come from.
    BatchData {
        Random = "random", RandomIds = "random-ids", SharedPrefix = "generated-shared-prefix",
        Sharegpt = "sharegpt", Custom = "custom",
    }
}

/// Latency of one batch through a running server, over HTTP and its scheduler. Every combination
/// of batch size, input and output length is measured; results are printed and appended to a file.
#[derive(argh::FromArgs, argh::ArgsInfo, Debug, Clone, PartialEq)]
#[argh(help_triggers("--help"))]
#[argh(note = "Flags and keys as SGLang's bench_one_batch_server. The batch goes as one request, \
    its prompts as token ids. Not there: LoRA, images, the data sets mmmu and longbench_v2, \
    --profile; --input-len-step-percentage and --parallel-batch, which do nothing in SGLang \
    either. Exit codes: 0 done, 1 failed, 2 usage, 4 not valid (--strict), 130 interrupted.")]
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

    /// model name to send, for vllm; also as --model-path (default: the first of /v1/models)
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

    /// random, random-ids, generated-shared-prefix, sharegpt or custom (default random)
    #[argh(option, arg_name = "NAME", default = "Default::default()")]
    pub dataset_name: BatchData,

    /// file of the data set (default: none)
    #[argh(option, arg_name = "PATH", default = "String::new()")]
    pub dataset_path: String,

    /// a file whose content is every prompt of every batch (default: none)
    #[argh(option, arg_name = "PATH")]
    pub fixed_prompt_file: Option<String>,

    /// put prompts of text through the chat template
    #[argh(switch)]
    pub apply_chat_template: bool,

    /// tokenizer for prompts of text (default: what the server says, if it is on this machine)
    #[argh(option, arg_name = "PATH")]
    pub local_tokenizer_path: Option<String>,

    /// groups of generated-shared-prefix, at most the batch size (default 1)
    #[argh(option, arg_name = "N", default = "1", from_str_fn(whole::<1, 1_000_000>))]
    pub gsp_num_groups: usize,

    /// tokens of each group's system prompt (default 2048)
    #[argh(option, arg_name = "N", default = "2048", from_str_fn(whole::<1, { 1 << 24 }>))]
    pub gsp_system_prompt_len: usize,

    /// tokens of each question (default 128)
    #[argh(option, arg_name = "N", default = "128", from_str_fn(whole::<1, { 1 << 24 }>))]
    pub gsp_question_len: usize,

    /// accepted for SGLang's scripts; --output-len counts (default 256)
    #[argh(option, arg_name = "N", default = "256", from_str_fn(whole::<1, { 1 << 24 }>))]
    pub gsp_output_len: usize,

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
    #[argh(option, arg_name = "X", default = "0.0", from_str_fn(ratio))]
    pub cache_hit_rate: f64,

    /// empty the server's hierarchical cache storage before each batch too
    #[argh(switch)]
    pub flush_hicache_storage: bool,

    /// send the batch as if a prefill worker had done its prompts: for a decode worker with the
    /// transfer backend "fake"
    #[argh(switch)]
    pub fake_prefill: bool,

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

    /// run each case as a static batch too, and say where the difference goes; needs --launch
    /// "serve FLAGS"
    #[argh(switch)]
    pub static_vs_served: bool,

    /// seconds that one batch may take (default 3600)
    #[argh(option, arg_name = "SECONDS", default = "3600.0", from_str_fn(positive))]
    pub request_timeout: f64,

    /// JSON Lines file that a row is appended to after each case; empty for none (default
    /// result.jsonl)
    #[argh(option, arg_name = "PATH", default = "String::from(\"result.jsonl\")")]
    pub result_filename: String,

    /// JSON file that all rows are written to as one list at the end (default: none)
    #[argh(option, arg_name = "PATH")]
    pub pydantic_result_filename: Option<String>,

    /// do not append the table to the file that GITHUB_STEP_SUMMARY names
    #[argh(switch)]
    pub no_append_to_github_summary: bool,

    /// words about the server to keep in each row, a list (default: none)
    #[argh(option, arg_name = "TEXT")]
    pub server_args_for_metrics: Vec<String>,

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
        let (rows, timelines) =
            (std::mem::take(&mut sweep.rows), std::mem::take(&mut sweep.timelines));
        // The static ways run alone on the machine.
        drop(launched);
        self.tables(&rows)?;
        result?;
        if self.static_vs_served {
            self.explain(&rows, &timelines, &mut file)?;
        }
        let invalid = sweep.invalid.filter(|_| self.strict);
        invalid.map_or(Ok(()), Err)
    }
}

impl BenchOneBatchServer {
    /// What is wanted beside the rows: a table, one list of all, a summary for a CI page.
    fn tables(&self, rows: &[Value]) -> Result<()> {
        let table = row::markdown(rows);
        if self.show_report {
            table.iter().try_for_each(out::line)?;
        }
        if let Some(path) = &self.pydantic_result_filename {
            let list = Value::from(rows.to_vec()).to_string();
            std::fs::write(path, list).map_err(|e| Error::io(path, &e))?;
        }
        let summary = std::env::var_os("GITHUB_STEP_SUMMARY");
        if let Some(path) = summary.filter(|_| !self.no_append_to_github_summary) {
            let mut file = std::fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(&path)
                .map_err(|e| Error::io(&path, &e))?;
            writeln!(file, "{}", table.join("\n")).map_err(|e| Error::io(&path, &e))?;
        }
        Ok(())
    }
}
