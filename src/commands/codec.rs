//! A tokenizer for data sets, from a folder or a GGUF file.

use std::path::Path;
use std::sync::Arc;

use crate::bench::data::Codec;
use crate::engine::model::Model;
use crate::engine::options::ModelOptions;
use crate::error::Result;
use crate::text::tokenizer::Tokenizer;
use crate::types::TokenId;

/// A model's tokenizer as data sets use it: no special tokens are added.
pub struct TokenizerCodec(pub Arc<Tokenizer>);

impl TokenizerCodec {
    /// From a folder or file with a tokenizer.json, a `.gguf` file, or `org/name` in the local
    /// Hugging Face cache.
    pub fn open(path: &str) -> Result<Self> {
        let place = Path::new(path);
        if place.join("tokenizer.json").exists() || path.ends_with(".json") {
            return Ok(TokenizerCodec(Arc::new(Tokenizer::from_folder(place)?)));
        }
        let options = ModelOptions { path: Some(path.to_string()), ..ModelOptions::default() };
        let model = Model::open(&options).map_err(|e| e.context("--tokenizer"))?;
        Ok(TokenizerCodec(model.tokenizer()?.clone()))
    }

    pub fn vocab(&self) -> usize {
        self.0.vocab_size()
    }
}

impl Codec for TokenizerCodec {
    fn encode(&self, text: &str) -> Result<Vec<TokenId>> {
        self.0.encode(text, false)
    }

    fn decode(&self, ids: &[TokenId]) -> String {
        self.0.decode(ids, true)
    }
}
