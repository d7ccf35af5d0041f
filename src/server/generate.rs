//! Requests on their way through the engine: what is asked of it, and what has come back.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use serde_json::{Map, Value};

use super::answer::{self, Choice};
use super::context::{Context, ModelFacts, unix_time};
use super::timing::Timing;
use crate::engine::params::SamplingParams;
use crate::engine::request::{FinishReason, GenerateRequest, LogprobOptions, Update};
use crate::error::{Error, Kind};
use crate::http::Refused;
use crate::http::api::{self, Prompt};
use crate::http::response::EventStream;
use crate::profile::clock;
use crate::text::Tokenizer;
use crate::types::TokenId;

/// One prompt, ready for the engine.
pub struct Planned {
    pub prompt: Vec<TokenId>,
    pub params: Arc<SamplingParams>,
    pub logprobs: LogprobOptions,
    /// The id in the answer.
    pub rid: String,
    pub salt: u64,
}

/// A request as a worker made it: nothing in it can fail any more but for want of room.
pub struct Plan {
    pub prompts: Vec<Planned>,
    pub shape: Shape,
    pub stream: bool,
    pub tokenizer: Option<Arc<Tokenizer>>,
    pub made: Made,
}

/// When a worker had made what of a request, nanoseconds of the monotonic clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Made {
    pub begun_ns: u64,
    pub parsed_ns: u64,
    pub tokenised_ns: u64,
}

impl Made {
    /// A worker has taken the request.
    pub fn begin() -> Made {
        Made { begun_ns: clock::now_ns(), ..Made::default() }
    }

    /// Its body has been read and checked.
    pub fn parsed(self) -> Made {
        Made { parsed_ns: clock::now_ns(), ..self }
    }
}

/// How the answer looks.
#[derive(Debug, Clone)]
pub enum Shape {
    /// SGLang's `/generate`; `batch`: a list.
    Native {
        batch: bool,
        texts: bool,
    },
    Completion(Envelope),
    Chat(Envelope),
    /// Only whether it works.
    Health,
}

/// What surrounds an OpenAI answer.
#[derive(Debug, Clone)]
pub struct Envelope {
    pub id: String,
    pub created: u64,
    pub model: String,
    pub include_usage: bool,
    pub continuous_usage: bool,
    /// The prompts' texts, to stand in front of the answers.
    pub echo: Option<Vec<String>>,
}

impl Plan {
    /// Prompts to tokens, parameters read and checked, ids given.
    ///
    /// # Errors
    /// 400 that names the field, 503 while the model is being loaded.
    pub fn new(
        context: &Context,
        request: &api::Generation,
        shape: Shape,
        mut made: Made,
    ) -> Result<Plan, Refused> {
        if made.parsed_ns == 0 {
            made = made.parsed();
        }
        let model = context.model()?;
        let sampling: Vec<Arc<SamplingParams>> = request
            .sampling
            .iter()
            .map(|map| sampling(map, model).map(Arc::new))
            .collect::<Result<_, _>>()?;
        let salt = request.salt.as_deref().map_or(0, salted);
        let mut prompts = Vec::with_capacity(request.prompts.len());
        for (i, prompt) in request.prompts.iter().enumerate() {
            let prompt = tokens(context, model, prompt)?;
            let params = sampling.get(i).or(sampling.first());
            let params = params.ok_or_else(|| Refused::bad("sampling_params is missing"))?;
            let logprobs = request.logprobs.get(i).copied().unwrap_or_default();
            prompts.push(Planned {
                params: bounded(params, prompt.len(), model),
                logprobs: LogprobOptions {
                    output: logprobs.output,
                    prompt_start: logprobs.prompt_start,
                    top: logprobs.top,
                },
                rid: request.ids.get(i).cloned().unwrap_or_else(new_id),
                salt,
                prompt,
            });
        }
        made.tokenised_ns = clock::now_ns();
        let (stream, tokenizer) = (request.stream, model.tokenizer.clone());
        Ok(Plan { prompts, shape, stream, tokenizer, made })
    }
}

fn sampling(map: &Map<String, Value>, model: &ModelFacts) -> Result<SamplingParams, Refused> {
    let mut params = SamplingParams::from_json(&Value::Object(map.clone()))?;
    // Asked for without a number: as much as fits.
    if map.get("max_new_tokens").is_some_and(Value::is_null) {
        params.max_new_tokens = None;
    }
    params.validate(model.vocab)?;
    // Compiled here, on a worker: a bad grammar is this request's error, and the engine finds
    // the good ones ready.
    if let (Some(spec), Some(grammars)) = (&params.grammar, &model.grammars) {
        grammars.compile(spec)?;
    }
    Ok(params)
}

/// Without a limit of its own a request takes what context and cache have room for.
fn bounded(params: &Arc<SamplingParams>, prompt: usize, model: &ModelFacts) -> Arc<SamplingParams> {
    if params.max_new_tokens.is_some() {
        return Arc::clone(params);
    }
    let context = model.context.saturating_sub(prompt);
    let cache = (model.capacity + 1).saturating_sub(prompt);
    let room = context.min(cache).max(params.min_new_tokens);
    Arc::new(SamplingParams { max_new_tokens: Some(room), ..SamplingParams::clone(params) })
}

fn tokens(context: &Context, model: &ModelFacts, prompt: &Prompt) -> Result<Vec<TokenId>, Refused> {
    let ids = match prompt {
        Prompt::Text(text) => context.tokenizer()?.encode(text, true)?,
        Prompt::Ids(ids) => ids.clone(),
    };
    if ids.is_empty() {
        return Err(Refused::field("prompt", "the prompt has no tokens; give at least one"));
    }
    if let Some(id) = ids.iter().find(|id| **id as usize >= model.vocab) {
        let what = format!("token id {id} is outside the vocabulary of {}", model.vocab);
        return Err(Refused::field("input_ids", what));
    }
    Ok(ids)
}

/// Prefixes are shared within a salt only; nobody outside can compute which salts collide.
fn salted(text: &str) -> u64 {
    static SECRET: OnceLock<RandomState> = OnceLock::new();
    SECRET.get_or_init(RandomState::new).hash_one(text).max(1)
}

/// 32 hex digits that do not repeat.
pub fn new_id() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    static SECRET: OnceLock<(RandomState, RandomState)> = OnceLock::new();
    let (a, b) = SECRET.get_or_init(Default::default);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{:016x}{:016x}", a.hash_one(n), b.hash_one(n))
}

impl From<Error> for Refused {
    /// The status for what the engine or the tokenizer says; the field is the first word of
    /// messages such as `top_p is 3, expected …`.
    fn from(error: Error) -> Self {
        let status = match error.kind {
            Kind::Busy => 429,
            Kind::Unavailable => 503,
            Kind::Usage | Kind::Unsupported | Kind::Limit | Kind::File => 400,
            _ => 500,
        };
        let first = error.message.split([' ', ':']).next().unwrap_or_default();
        let word = |w: &str| w.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        let param = (status == 400 && error.message.contains(" is ") && word(first))
            .then(|| first.to_owned());
        Refused { status, message: error.message, param }
    }
}

/// A prompt in the engine.
pub struct Running {
    /// The engine's id.
    pub id: u64,
    pub rid: String,
    pub prompt: Vec<TokenId>,
    pub logprobs: LogprobOptions,
    pub choices: Vec<Choice>,
}

/// A request in the engine, with all that has come back.
pub struct Generation {
    pub running: Vec<Running>,
    pub shape: Shape,
    pub wants_stream: bool,
    /// There once the response has begun.
    pub stream: Option<EventStream>,
    pub tokenizer: Option<Arc<Tokenizer>>,
    /// When the whole request was there, on both clocks.
    pub received: Instant,
    pub received_unix: f64,
    pub dispatched_unix: f64,
    /// Choices that have not ended.
    pub open: usize,
    /// What went wrong; nothing more is made then.
    pub failed: Option<Refused>,
    pub timing: Timing,
}

impl Generation {
    /// Also gives the engine's requests, numbered from `first_id`.
    pub fn new(plan: Plan, first_id: u64, received: Instant) -> (Generation, Vec<GenerateRequest>) {
        let mut requests = Vec::with_capacity(plan.prompts.len());
        let mut running = Vec::with_capacity(plan.prompts.len());
        for (id, planned) in (first_id..).zip(plan.prompts) {
            let choices = (0..planned.params.n).map(|_| Choice::default()).collect();
            running.push(Running {
                id,
                rid: planned.rid,
                prompt: planned.prompt.clone(),
                logprobs: planned.logprobs,
                choices,
            });
            requests.push(GenerateRequest {
                id,
                prompt: planned.prompt,
                params: planned.params,
                logprobs: planned.logprobs,
                salt: planned.salt,
            });
        }
        let now = unix_time();
        let generation = Generation {
            open: running.iter().map(|r| r.choices.len()).sum(),
            running,
            shape: plan.shape,
            wants_stream: plan.stream,
            stream: None,
            tokenizer: plan.tokenizer,
            received,
            received_unix: now - received.elapsed().as_secs_f64(),
            dispatched_unix: now,
            failed: None,
            timing: Timing { made: plan.made, ..Timing::default() },
        };
        (generation, requests)
    }

    pub fn ids(&self) -> impl Iterator<Item = u64> + '_ {
        self.running.iter().map(|r| r.id)
    }

    /// Where a prompt of this engine's id is in [`running`](Self::running): ids are consecutive.
    pub fn place(&self, id: u64) -> usize {
        let first = self.running.first().map_or(0, |r| r.id);
        id.checked_sub(first).and_then(|at| usize::try_from(at).ok()).unwrap_or(usize::MAX)
    }

    /// Takes news of one choice.
    pub fn update(&mut self, update: Update, now: Instant) {
        let at = self.place(update.id);
        let Some(running) = self.running.get_mut(at) else { return };
        let Some(choice) = running.choices.get_mut(update.choice as usize) else { return };
        if let Some(finished) = &update.finished {
            self.open = self.open.saturating_sub(1);
            if let FinishReason::Failed(message) = &finished.reason {
                let message = message.clone();
                self.fail(Refused::new(500, message));
                return;
            }
        }
        choice.add(update, self.tokenizer.is_some(), now);
        if let Shape::Native { texts, .. } = self.shape {
            let tokenizer = self.tokenizer.as_deref().filter(|_| texts);
            answer::gather(&running.prompt, running.logprobs, tokenizer, choice);
        }
    }

    /// The first failure is the one that is told.
    pub fn fail(&mut self, refused: Refused) {
        self.failed.get_or_insert(refused);
    }

    /// Everything asked for is there.
    pub fn complete(&self) -> bool {
        self.open == 0
    }
}
