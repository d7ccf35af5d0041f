//! Text in, tokens out, and back: tokenizer, streaming detokenizer, stop strings, chat templates.
//!
//! A leaf: it knows nothing of models or devices. Files are hostile input here, and so is what
//! a client sends: every load and encode ends in a value or in an [`Error`](crate::error::Error).

pub mod chat;
mod clock;
mod decoder;
pub mod detokenizer;
mod gguf;
pub mod grammar;
pub mod guard;
mod pre_tokenizer;
mod python;
mod special;
pub mod stop;
pub mod tokenizer;

pub use chat::ChatTemplate;
pub use detokenizer::Detokenizer;
pub use special::SpecialTokens;
pub use stop::{Released, StopMatcher};
pub use tokenizer::{Tokenizer, fuzz_tokenizer_json};
