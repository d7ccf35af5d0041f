//! Text to token ids: the tokenizers crate behind a guard, with our own table for the way back.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use tokenizers::models::ModelWrapper;
use tokenizers::models::bpe::BPE;

use super::decoder::{Entry, TokenTable};
use super::detokenizer::Detokenizer;
use super::gguf::{self, Recipe};
use super::guard::{guarded, guarded_on_big_stack};
use super::special::{SpecialTokens, eos_ids_of_folder, read_json};
use crate::error::{Error, Kind, Result};
use crate::types::{GgufVocab, TokenId};

/// A model's tokenizer. Shared by threads; nothing in it changes after loading.
#[derive(Debug)]
pub struct Tokenizer {
    encoder: tokenizers::Tokenizer,
    table: Arc<TokenTable>,
    special: SpecialTokens,
    bos: Option<TokenId>,
    eos: Vec<TokenId>,
}

/// An encoder and all tokens with their ids, or why there is none.
type Made = std::result::Result<(tokenizers::Tokenizer, Vec<Entry>), String>;

impl Tokenizer {
    /// From a checkpoint folder (or the path of its tokenizer.json), with special tokens from
    /// tokenizer_config.json and special_tokens_map.json, and end-of-text ids from
    /// generation_config.json and config.json. Errors: no tokenizer.json, or a damaged file.
    pub fn from_folder(path: &Path) -> Result<Self> {
        let in_folder = path.join("tokenizer.json");
        let file = if path.is_dir() { in_folder.as_path() } else { path };
        let folder = file.parent().unwrap_or(Path::new(""));
        let json = read_json(file)?.ok_or_else(|| {
            Error::file(file, "there is no such file; a folder with a tokenizer.json is needed")
        })?;
        let special = SpecialTokens::from_folder(folder)?;
        let mut tokenizer =
            Self::from_json(json, special).map_err(|e| Error::file(file, e.message))?;
        for id in eos_ids_of_folder(folder)? {
            tokenizer.add_eos(Some(id));
        }
        Ok(tokenizer)
    }

    /// From the vocabulary of a GGUF file. Errors: a tokenizer model or pre-tokenizer that is
    /// not known, lists that do not fit together.
    pub fn from_gguf(vocab: &GgufVocab) -> Result<Self> {
        let special = SpecialTokens::from_gguf(vocab)?;
        let mut recipe = gguf::recipe(vocab)?;
        let decoder = recipe.json["decoder"].take();
        let listed = vocab.tokens.iter().zip(0..);
        let mut all: Vec<Entry> =
            listed.map(|(text, id)| Entry { id, text: text.clone(), special: false }).collect();
        let make = move || {
            let encoder = cook(recipe)?;
            all.extend(added(&encoder));
            Ok((encoder, all))
        };
        let mut tokenizer = Self::make(make, &decoder, special)
            .map_err(|e| e.context("the vocabulary in the GGUF metadata"))?;
        tokenizer.bos = vocab.bos_id.or(tokenizer.bos);
        for id in [vocab.eos_id, vocab.eot_id, vocab.eom_id] {
            tokenizer.add_eos(id);
        }
        Ok(tokenizer)
    }

    /// From the JSON of a tokenizer.json. Truncation and padding are left out: they are for
    /// training, and would cut prompts.
    fn from_json(mut json: Value, special: SpecialTokens) -> Result<Self> {
        let object = json.as_object_mut().ok_or_else(|| damaged("the file is no JSON object"))?;
        let decoder = object.remove("decoder").unwrap_or(Value::Null);
        object.insert("truncation".into(), Value::Null);
        object.insert("padding".into(), Value::Null);
        let make = move || {
            let encoder: tokenizers::Tokenizer =
                serde_json::from_value(json).map_err(|e| e.to_string())?;
            let entries = entries(&encoder);
            Ok((encoder, entries))
        };
        Self::make(make, &decoder, special)
    }

    /// Runs `make`, guarded, for the encoder and all tokens with their ids; of two tokens with
    /// one id the later holds.
    fn make(
        make: impl FnOnce() -> Made + Send,
        decoder: &Value,
        special: SpecialTokens,
    ) -> Result<Self> {
        let loaded = guarded_on_big_stack(|| {
            let (encoder, entries) = make()?;
            let table = TokenTable::new(decoder, &entries)?;
            Ok((encoder, table))
        });
        let (encoder, table) = loaded.and_then(|inner| inner).map_err(damaged)?;
        let id_of = |role| special.text(role).and_then(|text| encoder.token_to_id(text));
        let (bos, eos) = (id_of("bos_token"), id_of("eos_token"));
        let eos = eos.into_iter().collect();
        Ok(Tokenizer { encoder, table: Arc::new(table), special, bos, eos })
    }

    fn add_eos(&mut self, id: Option<TokenId>) {
        if let Some(id) = id
            && !self.eos.contains(&id)
        {
            self.eos.push(id);
        }
    }

    /// The ids of `text`; `add_special` puts BOS (and EOS) where the tokenizer's rules say.
    /// Special tokens written out in the text become their ids either way. Time is about linear
    /// in the text. Errors: a tokenizer whose rules fail on this text.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<TokenId>> {
        let encoding = guarded(|| self.encoder.encode_fast(text, add_special));
        match encoding {
            Ok(Ok(encoding)) => Ok(encoding.get_ids().to_vec()),
            Ok(Err(e)) => Err(cannot_encode(&e.to_string())),
            Err(panic) => Err(cannot_encode(&panic)),
        }
    }

    /// The text of `ids`; ids outside the vocabulary are nothing, invalid bytes are U+FFFD.
    /// Equal to what [`detokenizer`](Self::detokenizer) streams.
    pub fn decode(&self, ids: &[TokenId], skip_special: bool) -> String {
        let mut detokenizer = self.detokenizer(skip_special);
        let mut text = String::new();
        for id in ids {
            detokenizer.push_to(*id, &mut text);
        }
        text.push_str(&detokenizer.finish());
        text
    }

    /// Streams a text from its start.
    pub fn detokenizer(&self, skip_special: bool) -> Detokenizer {
        Detokenizer::new(self.table.clone(), skip_special)
    }

    /// Streams what follows `prompt`: a blank at the start of the first token stays, because the
    /// text does not start there.
    pub fn detokenizer_after(&self, prompt: &[TokenId], skip_special: bool) -> Detokenizer {
        let mut detokenizer = self.detokenizer(skip_special);
        let mut prompt_text = String::new();
        for id in prompt {
            detokenizer.push_to(*id, &mut prompt_text);
            prompt_text.clear();
        }
        detokenizer
    }

    /// One more than the largest id; the model's own vocabulary may be larger.
    pub fn vocab_size(&self) -> usize {
        self.table.len()
    }

    /// The bytes that a token stands for inside a text, which need not be whole characters.
    pub fn token_bytes(&self, id: TokenId) -> Option<&[u8]> {
        self.table.bytes(id)
    }

    /// The id of a token by its exact text in the vocabulary.
    pub fn token_id(&self, token: &str) -> Option<TokenId> {
        self.encoder.token_to_id(token)
    }

    /// Is it left out by `skip_special`?
    pub fn is_special(&self, id: TokenId) -> bool {
        self.table.is_special(id)
    }

    /// All special ids, ascending.
    pub fn special_ids(&self) -> Vec<TokenId> {
        let size = TokenId::try_from(self.vocab_size()).unwrap_or(TokenId::MAX);
        (0..size).filter(|id| self.is_special(*id)).collect()
    }

    /// The beginning-of-text token, if the model has one.
    pub fn bos_id(&self) -> Option<TokenId> {
        self.bos
    }

    /// All ids that end a text, the tokenizer's own first.
    pub fn eos_ids(&self) -> &[TokenId] {
        &self.eos
    }

    /// Special tokens by role.
    pub fn special_tokens(&self) -> &SpecialTokens {
        &self.special
    }
}

/// The tokenizer of a recipe: its JSON, then vocabulary and merges, and the added tokens last,
/// because they take their ids from the vocabulary.
fn cook(mut recipe: Recipe) -> std::result::Result<tokenizers::Tokenizer, String> {
    let added = std::mem::replace(&mut recipe.json["added_tokens"], Value::Array(Vec::new()));
    let added: Vec<tokenizers::AddedToken> =
        serde_json::from_value(added).map_err(|e| e.to_string())?;
    let mut encoder: tokenizers::Tokenizer =
        serde_json::from_value(recipe.json).map_err(|e| e.to_string())?;
    let ModelWrapper::BPE(kind) = encoder.get_model() else {
        return Err("a GGUF vocabulary is BPE".into());
    };
    let mut model = BPE::builder()
        .vocab_and_merges(recipe.vocab, recipe.merges)
        .fuse_unk(kind.fuse_unk)
        .byte_fallback(kind.byte_fallback)
        .ignore_merges(kind.ignore_merges);
    if let Some(unknown) = &kind.unk_token {
        model = model.unk_token(unknown.clone());
    }
    encoder.with_model(model.build().map_err(|e| e.to_string())?);
    encoder.add_tokens(&added);
    Ok(encoder)
}

/// Every token with its id; added tokens last, because they hold where ids collide.
fn entries(encoder: &tokenizers::Tokenizer) -> Vec<Entry> {
    let vocabulary = encoder.get_vocab(false).into_iter();
    let listed = vocabulary.map(|(text, id)| Entry { id, text, special: false });
    listed.chain(added(encoder)).collect()
}

/// Tokens that are found in the raw text before anything else.
fn added(encoder: &tokenizers::Tokenizer) -> impl Iterator<Item = Entry> {
    let added = encoder.get_added_tokens_decoder().into_iter();
    added.map(|(id, token)| Entry { id, text: token.content, special: token.special })
}

fn damaged(what: impl Into<String>) -> Error {
    Error::new(Kind::File, what)
}

fn cannot_encode(why: &str) -> Error {
    Error::new(Kind::File, format!("the tokenizer cannot encode this text: {why}"))
}

/// Loads `bytes` as a tokenizer.json and encodes a fixed text: the entry for a fuzzer. Any
/// outcome but a panic is fine.
#[doc(hidden)]
pub fn fuzz_tokenizer_json(bytes: &[u8]) {
    let Ok(json) = serde_json::from_slice(bytes) else { return };
    let Ok(tokenizer) = Tokenizer::from_json(json, SpecialTokens::default()) else {
        return;
    };
    if let Ok(ids) = tokenizer.encode("Hello  world\n世界 <s>123 e\u{301}", true) {
        let _ = tokenizer.decode(&ids, false);
    }
}
