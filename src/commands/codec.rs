//! A tokenizer for data sets, from a folder or a GGUF file.

use std::path::Path;
use std::sync::Arc;

use serde_json::Map;

use crate::bench::data::{Codec, files};
use crate::engine::model::Model;
use crate::engine::options::ModelOptions;
use crate::error::{Error, Result};
use crate::text::chat::ChatTemplate;
use crate::text::tokenizer::Tokenizer;
use crate::types::TokenId;

/// A model's tokenizer as data sets use it: no special tokens are added.
pub struct TokenizerCodec {
    tokenizer: Arc<Tokenizer>,
    chat: Option<Arc<ChatTemplate>>,
}

impl TokenizerCodec {
    /// From a folder or file with a tokenizer.json, a `.gguf` file, or `org/name` in the local
    /// Hugging Face cache.
    pub fn open(path: &str) -> Result<Self> {
        let place = Path::new(path);
        if place.join("tokenizer.json").exists() || path.ends_with(".json") {
            let tokenizer = Arc::new(Tokenizer::from_folder(place)?);
            let chat = ChatTemplate::from_folder(place).ok().map(Arc::new);
            return Ok(TokenizerCodec { tokenizer, chat });
        }
        let options = ModelOptions { path: Some(path.to_string()), ..ModelOptions::default() };
        let model = Model::open(&options).map_err(|e| e.context("--tokenizer"))?;
        Ok(TokenizerCodec { tokenizer: model.tokenizer()?.clone(), chat: model.chat })
    }

    /// The tokenizer of a loaded model, if it has one.
    pub fn of(model: &Model) -> Option<Self> {
        let tokenizer = model.tokenizer.clone()?;
        Some(TokenizerCodec { tokenizer, chat: model.chat.clone() })
    }

    pub fn vocab(&self) -> usize {
        self.tokenizer.vocab_size()
    }
}

impl Codec for TokenizerCodec {
    fn encode(&self, text: &str) -> Result<Vec<TokenId>> {
        self.tokenizer.encode(text, false)
    }

    fn decode(&self, ids: &[TokenId]) -> String {
        self.tokenizer.decode(ids, true)
    }

    fn chat(&self, user: &str) -> Result<String> {
        let none = || Error::usage("--apply-chat-template: the tokenizer has no chat template");
        let chat = self.chat.as_ref().ok_or_else(none)?;
        let text = chat.render(&files::as_message(user), true, &Map::new())?;
        // The server puts it before every prompt itself.
        let bos = self.tokenizer.bos_id().map(|id| self.tokenizer.decode(&[id], false));
        let bare = bos.and_then(|b| text.strip_prefix(b.as_str()).map(str::to_string));
        Ok(bare.unwrap_or(text))
    }
}
