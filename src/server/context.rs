//! What every request may look at: settings, the model's facts, the engine's handle.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::options::Options;
use crate::engine::Engine;
use crate::engine::service::EngineHandle;
use crate::error::Error;
use crate::http::Refused;
use crate::text::grammar::Grammars;
use crate::text::{ChatTemplate, Tokenizer};

/// Facts of the model that is served, taken before the engine's thread owns it.
#[derive(Debug)]
pub struct ModelFacts {
    /// As it was named on the command line.
    pub path: String,
    pub tokenizer_path: String,
    /// The name in answers.
    pub served_name: String,
    pub format: &'static str,
    pub dtype: String,
    pub digest: String,
    pub architecture: String,
    pub vocab: usize,
    pub context: usize,
    /// Tokens of a page, choices and tokens of a step.
    pub page_size: usize,
    pub max_running: usize,
    pub step_tokens: usize,
    /// Tokens that the key-value cache holds.
    pub capacity: usize,
    pub device: String,
    pub weights_bytes: u64,
    pub kv_bytes: u64,
    pub tokenizer: Option<Arc<Tokenizer>>,
    pub grammars: Option<Arc<Grammars>>,
    pub chat: Option<Arc<ChatTemplate>>,
    pub chat_error: Option<Error>,
}

impl ModelFacts {
    pub fn of(engine: &Engine, options: &Options) -> Self {
        let model = &engine.model;
        let memory = engine.loaded().memory();
        let path = match &model.path {
            Some(folder) if model.format != "gguf" => folder.display().to_string(),
            _ => model.name.clone(),
        };
        ModelFacts {
            tokenizer_path: path.clone(),
            served_name: options.served_name.clone().unwrap_or_else(|| path.clone()),
            path,
            format: model.format,
            dtype: engine.loaded().weight_dtype().name().into(),
            digest: model.digest.clone(),
            architecture: model.config.architecture.clone(),
            vocab: model.config.vocab_size,
            context: model.context,
            page_size: engine.limits().page_size,
            max_running: engine.limits().step_sequences,
            step_tokens: engine.limits().step_tokens,
            capacity: engine.capacity_tokens(),
            device: format!("{}: {}", engine.device().kind, engine.device().name),
            weights_bytes: memory.weights,
            kv_bytes: memory.kv,
            tokenizer: model.tokenizer.clone(),
            grammars: model.grammars.clone(),
            chat: model.chat.clone(),
            chat_error: model.chat_error.clone(),
        }
    }
}

/// Shared by the loop and its workers.
pub struct Context {
    pub options: Options,
    pub bound: SocketAddr,
    pub started: Instant,
    pub engine: EngineHandle,
    pub model: Arc<OnceLock<ModelFacts>>,
}

impl Context {
    /// # Errors
    /// 503 while the model is being loaded.
    pub fn model(&self) -> Result<&ModelFacts, Refused> {
        self.model.get().ok_or_else(|| Refused::new(503, "the model is being loaded"))
    }

    /// # Errors
    /// 503 while loading; 400 for a model without a tokenizer.
    pub fn tokenizer(&self) -> Result<&Arc<Tokenizer>, Refused> {
        let missing = "this model has no tokenizer: send token ids, or start the server with \
                       --tokenizer-path";
        self.model()?.tokenizer.as_ref().ok_or_else(|| Refused::bad(missing))
    }
}

/// Seconds since 1970.
pub fn unix_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
