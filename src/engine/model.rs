//! Opens a model: configuration, plan, weights, tokenizer and chat template, accounted for.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::error::{Error, Kind, Result};
use crate::model::config::Config;
use crate::model::config_gguf::{GgufFile, from_gguf};
use crate::model::plan::Plan;
use crate::model::{arch, config_hf};
use crate::text::chat::ChatTemplate;
use crate::text::grammar::Grammars;
use crate::text::tokenizer::Tokenizer;
use crate::types::Dtype;
use crate::weights::dummy::Dummy;
use crate::weights::gguf::Gguf;
use crate::weights::open::{Format, Opened};
use crate::weights::{Weights, check, digest, open};

use super::default_model;
use super::locate::locate;
use super::options::{LoadFormat, ModelOptions};

/// A model that is open but on no device yet.
pub struct Model {
    /// As the user named it, or the embedded default's name.
    pub name: String,
    pub path: Option<PathBuf>,
    pub config: Config,
    pub plan: Plan,
    /// Longest sequence that the plan's tables cover.
    pub context: usize,
    pub weights: Weights,
    /// `safetensors`, `gguf` or `dummy`.
    pub format: &'static str,
    /// Equal digests: equal configuration and weights.
    pub digest: String,
    /// Missing for dummy models without tokenizer files.
    pub tokenizer: Option<Arc<Tokenizer>>,
    /// Compiles constraints on the output; missing without a tokenizer.
    pub grammars: Option<Arc<Grammars>>,
    pub chat: Option<Arc<ChatTemplate>>,
    /// Why there is no chat template.
    pub chat_error: Option<Error>,
}

/// Configuration and what it was read from.
struct Source {
    config: Config,
    folder: Option<PathBuf>,
    opened: Option<Opened>,
}

/// Tokenizer and chat template of a model that is open already, being built on another thread.
pub struct PendingText {
    thread: JoinHandle<Result<Text>>,
}

impl PendingText {
    fn start(options: &ModelOptions, folder: Option<PathBuf>, gguf: Option<Gguf>) -> Result<Self> {
        let given = options.tokenizer.clone();
        let thread = std::thread::Builder::new()
            .name("text-loader".into())
            .spawn(move || text(given.as_deref(), folder.as_deref(), gguf.as_ref()))
            .map_err(|e| Error::device(format!("cannot start a thread: {e}")))?;
        Ok(PendingText { thread })
    }

    /// Waits, and gives them to `model`.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn finish(self, model: &mut Model) -> Result<()> {
        let panicked = |_| Error::device("the thread that builds the tokenizer panicked");
        let (tokenizer, chat, chat_error) = self.thread.join().map_err(panicked)??;
        let (vocab, ends) = (model.config.vocab_size, &model.config.eos_ids);
        model.grammars = tokenizer.clone().map(|t| Arc::new(Grammars::new(t, vocab, ends)));
        (model.tokenizer, model.chat, model.chat_error) = (tokenizer, chat, chat_error);
        Ok(())
    }
}

impl Model {
    /// # Errors
    /// Names the file, field or tensor that is missing, damaged, unknown or not supported.
    pub fn open(options: &ModelOptions) -> Result<Model> {
        let (mut model, text) = Model::open_without_text(options)?;
        text.finish(&mut model)?;
        Ok(model)
    }

    /// As [`Model::open`], with tokenizer and chat template still to come: weights can be put on a
    /// device meanwhile.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn open_without_text(options: &ModelOptions) -> Result<(Model, PendingText)> {
        let source = source(options)?;
        let config = source.config;
        let context = context(&config, options.context)?;
        let plan = arch::plan(&config, context)?;
        let (weights, format) = match &source.opened {
            None => (dummy(&config, &plan, options)?, "dummy"),
            Some(opened) if opened.format == Format::Gguf => (None, "gguf"),
            Some(_) => (None, "safetensors"),
        };
        let (stored, gguf) = source.opened.map(|o| (o.weights, o.gguf)).unzip();
        let pending = PendingText::start(options, source.folder.clone(), gguf.flatten())?;
        let Some(weights) = weights.or(stored) else {
            return Err(Error::unsupported("no weights were opened"));
        };
        check::account(&weights, &plan.tensors(), &|name| ignorable(name, &config))?;
        let digest = fingerprint(&config, &weights, format, options.seed);
        let model = Model {
            name: options.path.clone().unwrap_or_else(|| default_model::NAME.to_owned()),
            path: source.folder,
            config,
            plan,
            context,
            weights,
            format,
            digest,
            tokenizer: None,
            grammars: None,
            chat: None,
            chat_error: None,
        };
        Ok((model, pending))
    }

    /// # Errors
    /// If the model came without a tokenizer.
    pub fn tokenizer(&self) -> Result<&Arc<Tokenizer>> {
        self.tokenizer.as_ref().ok_or_else(|| {
            Error::unsupported(format!(
                "{} has no tokenizer; give token ids (--input-ids) or --tokenizer-path",
                self.name
            ))
        })
    }
}

fn source(options: &ModelOptions) -> Result<Source> {
    let Some(name) = &options.path else {
        let mut json = serde_json::from_str(default_model::CONFIG)
            .map_err(|e| Error::unsupported(format!("the embedded configuration: {e}")))?;
        merge(&mut json, options);
        let config = config_hf::from_json(&json)?;
        return Ok(Source { config, folder: None, opened: None });
    };
    let path = locate(name)?;
    if options.format == LoadFormat::Dummy {
        let folder = if path.is_dir() { path } else { parent(&path) };
        let config = config_hf::from_folder(&folder, options.overrides.as_ref())?;
        return Ok(Source { config, folder: Some(folder), opened: None });
    }
    let format = match options.format {
        LoadFormat::Safetensors => Format::Safetensors,
        LoadFormat::Gguf => Format::Gguf,
        LoadFormat::Auto | LoadFormat::Dummy => Format::Auto,
    };
    let opened = open::open(&path, format)?;
    let config = match &opened.gguf {
        Some(gguf) => gguf_config(gguf, &opened.weights, options)?,
        None => {
            let folder = if path.is_dir() { path.clone() } else { parent(&path) };
            config_hf::from_folder(&folder, options.overrides.as_ref())?
        }
    };
    let folder = if path.is_dir() && opened.gguf.is_none() { path } else { parent_of(&opened) };
    Ok(Source { config, folder: Some(folder), opened: Some(opened) })
}

fn merge(json: &mut Value, options: &ModelOptions) {
    if let Some(overrides) = &options.overrides {
        config_hf::merge(json, overrides);
    }
}

fn parent(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("")).to_path_buf()
}

fn parent_of(opened: &Opened) -> PathBuf {
    opened.files.first().map(|f| parent(f)).unwrap_or_default()
}

fn gguf_config(gguf: &Gguf, weights: &Weights, options: &ModelOptions) -> Result<Config> {
    let vocab = gguf.vocab.clone().unwrap_or_default();
    let has = |name: &str| weights.describe(name).is_some();
    let floats = |name: &str| gguf.f32_tensor(name);
    let file = GgufFile { meta: &gguf.meta, vocab: &vocab, has: &has, floats: &floats };
    let mut config = from_gguf(&file)?;
    apply_to_gguf(&mut config, options.overrides.as_ref())?;
    Ok(config)
}

/// Overrides of a GGUF model: fewer layers, nothing else, since its other sizes are those of its
/// tensors.
fn apply_to_gguf(config: &mut Config, overrides: Option<&Value>) -> Result<()> {
    let Some(Value::Object(map)) = overrides else { return Ok(()) };
    for (key, value) in map {
        let layers = value.as_u64().map(|n| n as usize);
        match (key.as_str(), layers) {
            ("num_hidden_layers", Some(n)) if n >= 1 && n <= config.layers.len() => {
                config.layers.truncate(n);
            }
            _ => {
                return Err(Error::usage(format!(
                    "--json-model-override-args: {key} = {value} cannot be applied to a GGUF \
                     file; num_hidden_layers from 1 to {} can",
                    config.layers.len()
                )));
            }
        }
    }
    Ok(())
}

fn context(config: &Config, asked: Option<usize>) -> Result<usize> {
    match asked {
        None => Ok(config.max_context),
        Some(n) if n >= 1 && n <= config.max_context => Ok(n),
        Some(n) => Err(Error::usage(format!(
            "--context-length {n}: the model was made for 1 to {}",
            config.max_context
        ))),
    }
}

fn dummy(config: &Config, plan: &Plan, options: &ModelOptions) -> Result<Option<Weights>> {
    let dtype = options.dtype.unwrap_or(config.dtype);
    let tensors = plan.tensors().into_iter().map(|(n, s)| {
        // Vectors are few and every device keeps them in float32.
        let dtype = if s.len() == 1 { Dtype::F32 } else { dtype };
        (n, s, dtype)
    });
    Ok(Some(Weights::new(Box::new(Dummy::new(options.seed, tensors)?))))
}

/// Tensors that a checkpoint may hold although the plan does not read them: the stored copy of a
/// tied head, layers cut off by an override, and rotary frequencies that old files stored.
fn ignorable(name: &str, config: &Config) -> bool {
    let layer = name.strip_prefix("model.layers.").and_then(|rest| rest.split('.').next());
    let cut = layer.and_then(|l| l.parse().ok()).is_some_and(|l: usize| l >= config.layers.len());
    cut || (config.tied && name == "lm_head.weight") || name.ends_with(".rotary_emb.inv_freq")
}

/// A digest of configuration and weights; dummy weights are told by their seed, not generated.
fn fingerprint(config: &Config, weights: &Weights, format: &str, seed: u64) -> String {
    let mut hash = Sha256::new();
    hash.update(format!("{config:?}"));
    match format {
        "dummy" => hash.update(format!("dummy {seed}")),
        _ => hash.update(digest::digest(weights)),
    }
    hash.finalize().iter().take(8).map(|b| format!("{b:02x}")).collect()
}

type Text = (Option<Arc<Tokenizer>>, Option<Arc<ChatTemplate>>, Option<Error>);

/// Tokenizer and chat template: from `--tokenizer-path`, the GGUF's vocabulary, or the folder.
fn text(given: Option<&Path>, folder: Option<&Path>, gguf: Option<&Gguf>) -> Result<Text> {
    let vocab = gguf.and_then(|g| g.vocab.as_ref());
    let folder = given.or(folder);
    let (tokenizer, chat) = match (given.is_some(), vocab, folder) {
        (false, Some(vocab), _) => {
            (Some(Tokenizer::from_gguf(vocab)?), ChatTemplate::from_gguf(vocab))
        }
        (given, _, Some(folder)) => {
            let there = folder.is_file() || folder.join("tokenizer.json").exists();
            let load = given || there;
            let tokenizer = load.then(|| Tokenizer::from_folder(folder)).transpose()?;
            (tokenizer, ChatTemplate::from_folder(folder))
        }
        _ => (None, Err(Error::new(Kind::Unsupported, "the default model has no chat template"))),
    };
    let (chat, error) = match chat {
        Ok(chat) => (Some(Arc::new(chat)), None),
        Err(error) => (None, Some(error)),
    };
    Ok((tokenizer.map(Arc::new), chat, error))
}
