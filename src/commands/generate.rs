//! `pacer generate`: offline generation for prompts or token ids.

use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Map, json};

use super::model_flags::DeviceChoice;
use super::{Run, load, out};
use crate::engine::Engine;
use crate::engine::collect::{About, Collected};
use crate::engine::model::Model;
use crate::engine::params::SamplingParams;
use crate::engine::request::{GenerateRequest, LogprobOptions, Update};
use crate::error::{Error, Kind, Result};
use crate::measure::interrupt::Interrupt;
use crate::text::grammar::GrammarSpec;
use crate::types::TokenId;
use crate::with_model_flags;

with_model_flags! {
    /// Continues prompts, without a server. Several prompts run as one batch. The text goes to
    /// standard output as it is made; with --json, one response of SGLang's /generate a line.
    pub struct Generate {
        /// a prompt; may be given several times (default: none)
        #[argh(option, arg_name = "TEXT")]
        pub prompt: Vec<String>,

        /// a file whose whole text is a prompt; may be given several times (default: none)
        #[argh(option, arg_name = "PATH")]
        pub prompt_file: Vec<String>,

        /// a prompt as token ids: 1,2,3; may be given several times (default: none)
        #[argh(option, arg_name = "IDS", from_str_fn(super::values::token_ids))]
        pub input_ids: Vec<Vec<TokenId>>,

        /// put each prompt through the model's chat template, as a user's message
        #[argh(switch)]
        pub chat: bool,

        /// a system message before the prompt, with --chat (default: none)
        #[argh(option, arg_name = "TEXT")]
        pub system: Option<String>,

        /// most tokens to generate (default 128)
        #[argh(option, arg_name = "N", default = "128",
            from_str_fn(super::values::whole::<0, { 1 << 30 }>))]
        pub max_new_tokens: usize,

        /// no end before so many tokens (default 0)
        #[argh(option, arg_name = "N", default = "0",
            from_str_fn(super::values::whole::<0, { 1 << 30 }>))]
        pub min_new_tokens: usize,

        /// softness of the choice; 0 is greedy (default 1.0)
        #[argh(option, arg_name = "X", default = "1.0")]
        pub temperature: f32,

        /// keep the best tokens up to this share of probability (default 1.0)
        #[argh(option, arg_name = "X", default = "1.0")]
        pub top_p: f32,

        /// keep so many of the best tokens, -1 keeps all (default -1)
        #[argh(option, arg_name = "N", default = "-1")]
        pub top_k: i64,

        /// keep tokens of at least this share of the best one's probability (default 0.0)
        #[argh(option, arg_name = "X", default = "0.0")]
        pub min_p: f32,

        /// taken off a logit each time its token was generated, -2 to 2 (default 0.0)
        #[argh(option, arg_name = "X", default = "0.0")]
        pub frequency_penalty: f32,

        /// taken off the logit of a generated token, -2 to 2 (default 0.0)
        #[argh(option, arg_name = "X", default = "0.0")]
        pub presence_penalty: f32,

        /// divides the logit of a generated token, above 0 and up to 2 (default 1.0)
        #[argh(option, arg_name = "X", default = "1.0")]
        pub repetition_penalty: f32,

        /// a bias ID:NUMBER on one token's logit; may be given several times (default: none)
        #[argh(option, arg_name = "ID:X")]
        pub logit_bias: Vec<String>,

        /// end at this text; may be given several times (default: none)
        #[argh(option, arg_name = "TEXT")]
        pub stop: Vec<String>,

        /// end where this expression matches; may be given several times (default: none)
        #[argh(option, arg_name = "REGEX")]
        pub stop_regex: Vec<String>,

        /// end at this token id, a list (default: none)
        #[argh(option, arg_name = "ID",
            from_str_fn(super::values::whole::<0, { u32::MAX as u64 }>))]
        pub stop_token_ids: Vec<usize>,

        /// leave the stop text or token in the output
        #[argh(switch)]
        pub no_stop_trim: bool,

        /// the output is JSON that follows this schema: JSON text, or @FILE (default: none)
        #[argh(option, arg_name = "SCHEMA")]
        pub json_schema: Option<String>,

        /// the whole output matches this expression, or the one in @FILE (default: none)
        #[argh(option, arg_name = "REGEX")]
        pub regex: Option<String>,

        /// the output follows this grammar (root ::= …), or the one in @FILE (default: none)
        #[argh(option, arg_name = "GRAMMAR")]
        pub ebnf: Option<String>,

        /// go on past end-of-sequence tokens
        #[argh(switch)]
        pub ignore_eos: bool,

        /// show special tokens in the text
        #[argh(switch)]
        pub keep_special_tokens: bool,

        /// continuations of each prompt (default 1)
        #[argh(option, arg_name = "N", default = "1", from_str_fn(super::values::whole::<1, 128>))]
        pub n: usize,

        /// seed of the draws; the same seed gives the same tokens (default: --random-seed)
        #[argh(option, arg_name = "N", from_str_fn(super::values::seed))]
        pub seed: Option<u64>,

        /// return log-probabilities, with --json
        #[argh(switch)]
        pub return_logprob: bool,

        /// first prompt position with log-probabilities, -1 for none (default -1)
        #[argh(option, arg_name = "N", default = "-1")]
        pub logprob_start_len: i64,

        /// return so many of the best tokens for each position (default 0)
        #[argh(option, arg_name = "N", default = "0", from_str_fn(super::values::whole::<0, 1000>))]
        pub top_logprobs_num: usize,

        /// one JSON object for each prompt, on a line of its own
        #[argh(switch)]
        pub json: bool,
    }
}

/// Rows of logits that one step computes for prompt log-probabilities.
const LOGIT_ROWS: usize = 256;

/// Cache tokens on the PTX machine, which backs a card's memory with the host's at once; its steps
/// take too long for more.
const EMULATED_TOKENS: usize = 2048;

impl Run for Generate {
    const NAME: &'static str = "generate";

    fn run(self) -> Result<()> {
        let started = Instant::now();
        let flags = self.model()?;
        let params = Arc::new(self.params()?);
        self.check()?;
        let interrupt = Interrupt::on_signals()?;
        let (model, text) = load::model_without_text(&flags)?;
        params.validate(model.config.vocab_size)?;
        let mut options = load::engine_options(&flags);
        if self.logprob_start().is_some() {
            options.logit_rows = Some(LOGIT_ROWS);
        }
        if flags.device == DeviceChoice::Emulated {
            options.total_tokens.get_or_insert(EMULATED_TOKENS);
        }
        // The tokenizer is built while weights are packed: how long prompts are is not known yet,
        // and need not be, since a cache takes memory as far as it is written to.
        let mut engine = load::engine(model, &flags, &options)?;
        text.finish(&mut engine.model)?;
        let prompts = self.prompts(&engine.model)?;
        let session = Session { flags: &self, prompts, params, started, first: None, finished: 0 };
        session.run(engine, &interrupt)
    }
}

impl Generate {
    fn check(&self) -> Result<()> {
        if self.prompt.is_empty() && self.prompt_file.is_empty() && self.input_ids.is_empty() {
            return Err(Error::usage("generate: give --prompt, --prompt-file or --input-ids"));
        }
        if self.chat && !self.input_ids.is_empty() {
            return Err(Error::usage("--chat: token ids cannot go through a chat template"));
        }
        if self.system.is_some() && !self.chat {
            return Err(Error::usage("--system: only with --chat"));
        }
        if self.return_logprob && !self.json {
            return Err(Error::usage("--return-logprob: only with --json"));
        }
        Ok(())
    }

    fn params(&self) -> Result<SamplingParams> {
        let top_k = match self.top_k {
            -1 => 0,
            k if k >= 1 => k as usize,
            k => return Err(Error::usage(format!("--top-k {k}: expected -1 or at least 1"))),
        };
        Ok(SamplingParams {
            max_new_tokens: Some(self.max_new_tokens),
            min_new_tokens: self.min_new_tokens,
            temperature: self.temperature,
            top_p: self.top_p,
            top_k,
            min_p: self.min_p,
            frequency_penalty: self.frequency_penalty,
            presence_penalty: self.presence_penalty,
            repetition_penalty: self.repetition_penalty,
            logit_bias: self.logit_bias.iter().map(|b| bias(b)).collect::<Result<_>>()?,
            stop: self.stop.clone(),
            stop_token_ids: self.stop_token_ids.iter().map(|id| *id as TokenId).collect(),
            stop_regex: self.stop_regex.clone(),
            ignore_eos: self.ignore_eos,
            skip_special_tokens: !self.keep_special_tokens,
            no_stop_trim: self.no_stop_trim,
            n: self.n,
            seed: self.seed,
            grammar: self.grammar()?,
            ..SamplingParams::default()
        })
    }

    fn grammar(&self) -> Result<Option<GrammarSpec>> {
        let schema = self.json_schema.iter().map(|t| (GrammarSpec::JsonSchema as fn(_) -> _, t));
        let regex = self.regex.iter().map(|t| (GrammarSpec::Regex as fn(_) -> _, t));
        let ebnf = self.ebnf.iter().map(|t| (GrammarSpec::Ebnf as fn(_) -> _, t));
        let given: Vec<_> = schema.chain(regex).chain(ebnf).collect();
        match given.as_slice() {
            [] => Ok(None),
            [(make, text)] => Ok(Some(make(text_or_file(text)?))),
            _ => Err(Error::usage("--json-schema, --regex and --ebnf exclude each other")),
        }
    }

    fn logprob_start(&self) -> Option<usize> {
        let start = usize::try_from(self.logprob_start_len).ok();
        start.filter(|_| self.return_logprob)
    }

    fn prompts(&self, model: &Model) -> Result<Vec<Vec<TokenId>>> {
        let mut texts = self.prompt.clone();
        for path in &self.prompt_file {
            let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, &e))?;
            texts.push(text);
        }
        let mut prompts: Vec<Vec<TokenId>> =
            texts.iter().map(|t| self.encode(model, t)).collect::<Result<_>>()?;
        prompts.extend(self.input_ids.iter().cloned());
        Ok(prompts)
    }

    fn encode(&self, model: &Model, text: &str) -> Result<Vec<TokenId>> {
        let tokenizer = model.tokenizer()?;
        if !self.chat {
            return tokenizer.encode(text, true);
        }
        let Some(chat) = &model.chat else {
            let none = Error::new(Kind::Unsupported, "the model has no chat template");
            return Err(model.chat_error.clone().unwrap_or(none).context("--chat"));
        };
        let user = json!({ "role": "user", "content": text });
        let messages = match &self.system {
            Some(system) => json!([{ "role": "system", "content": system }, user]),
            None => json!([user]),
        };
        // The template writes special tokens itself.
        tokenizer.encode(&chat.render(&messages, true, &Map::new())?, false)
    }
}

fn bias(text: &str) -> Result<(TokenId, f32)> {
    let pair = text.split_once([':', '=']);
    let parsed = pair.and_then(|(id, x)| Some((id.trim().parse().ok()?, x.trim().parse().ok()?)));
    parsed.ok_or_else(|| Error::usage(format!("--logit-bias {text}: expected ID:NUMBER")))
}

/// One run of the command, from submission to the last line.
struct Session<'a> {
    flags: &'a Generate,
    prompts: Vec<Vec<TokenId>>,
    params: Arc<SamplingParams>,
    started: Instant,
    first: Option<Duration>,
    finished: usize,
}

impl Session<'_> {
    fn run(mut self, mut engine: Engine, interrupt: &Interrupt) -> Result<()> {
        let loaded = self.started.elapsed();
        let top = self.flags.top_logprobs_num;
        let logprobs = LogprobOptions {
            output: self.flags.return_logprob,
            prompt_start: self.flags.logprob_start(),
            top: if self.flags.return_logprob { top } else { 0 },
        };
        for (id, prompt) in self.prompts.iter().enumerate() {
            let (prompt, params) = (prompt.clone(), Arc::clone(&self.params));
            let id = id as u64;
            engine
                .submit(&GenerateRequest { id, prompt, params, logprobs, salt: 0 })
                .map_err(|e| e.context(format_args!("prompt {}", id + 1)))?;
        }
        let mut collected: HashMap<(u64, u32), Collected> = HashMap::new();
        let mut updates = Vec::new();
        let mut stopped = false;
        while !engine.idle() && !stopped {
            engine.step(&mut updates)?;
            for update in updates.drain(..) {
                self.news(&engine, &mut collected, update, logprobs)?;
            }
            stopped = interrupt.asked();
        }
        self.close(&collected, stopped)?;
        self.summary(&collected, loaded);
        if stopped { Err(Error::new(Kind::Interrupted, "interrupted")) } else { Ok(()) }
    }

    fn streams(&self) -> bool {
        !self.flags.json && self.prompts.len() * self.flags.n == 1
    }

    fn news(
        &mut self,
        engine: &Engine,
        collected: &mut HashMap<(u64, u32), Collected>,
        update: Update,
        logprobs: LogprobOptions,
    ) -> Result<()> {
        if update.token.is_some() {
            self.first.get_or_insert_with(|| self.started.elapsed());
        }
        if self.streams() {
            print_piece(&update.text)?;
        }
        let key = (update.id, update.choice);
        let entry = collected.entry(key).or_default();
        entry.add(update);
        if entry.finished.is_some() {
            self.finished += 1;
            if self.flags.json {
                let about = About {
                    id: format!("{}-{}", key.0, key.1),
                    prompt: self.prompts.get(key.0 as usize).map_or(&[], Vec::as_slice),
                    elapsed: self.started.elapsed(),
                    logprobs,
                    texts: engine.model.tokenizer.as_deref(),
                };
                out::line(entry.to_json(&about))?;
            }
        }
        Ok(())
    }

    /// Ends the line of a streamed text, or prints all texts in order.
    fn close(&self, collected: &HashMap<(u64, u32), Collected>, stopped: bool) -> Result<()> {
        if self.flags.json {
            return Ok(());
        }
        if self.streams() {
            let ids = self.params.n == 1 && collected.values().all(|c| c.text.is_empty());
            let only = collected.values().next().filter(|_| ids && !stopped);
            return out::line(only.map(|c| ids_text(&c.ids)).unwrap_or_default());
        }
        for id in 0..self.prompts.len() as u64 {
            for choice in 0..self.params.n as u32 {
                let Some(found) = collected.get(&(id, choice)) else { continue };
                out::line(format_args!("=== prompt {}, choice {} ===", id + 1, choice + 1))?;
                let text = &found.text;
                out::line(if text.is_empty() { ids_text(&found.ids) } else { text.clone() })?;
            }
        }
        Ok(())
    }

    fn summary(&self, collected: &HashMap<(u64, u32), Collected>, loaded: Duration) {
        let input: usize = self.prompts.iter().map(Vec::len).sum();
        let output: usize = collected.values().map(|c| c.ids.len()).sum();
        let total = self.started.elapsed();
        let first = self.first.unwrap_or(total);
        let decode = (total - first).as_secs_f64();
        let later = output.saturating_sub(collected.len());
        let rate = if later > 0 && decode > 0.0 { later as f64 / decode } else { 0.0 };
        out::note(format_args!(
            "{input} prompt tokens, {output} output tokens; loaded in {:.3} s, first token {:.3} s \
             later, then {rate:.1} tokens/s",
            loaded.as_secs_f64(),
            (first.saturating_sub(loaded)).as_secs_f64(),
        ));
    }
}

/// Token ids as text, for models without a tokenizer.
fn ids_text(ids: &[TokenId]) -> String {
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn print_piece(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::new(Kind::Io, format!("standard output: {e}")))
        }
        Err(_) => std::process::exit(0),
        Ok(()) => Ok(()),
    }
}

/// A grammar as it was given, or what the file after an `@` holds.
fn text_or_file(given: &str) -> Result<String> {
    match given.strip_prefix('@') {
        None => Ok(given.to_owned()),
        Some(path) => std::fs::read_to_string(path).map_err(|e| Error::io(path, &e)),
    }
}
