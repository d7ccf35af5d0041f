//! From a name and numbers to rows.

use super::files::{self, Take};
use super::random::{self, Lengths};
use super::shared::{self, Shape};
use super::{Codec, Prompt, Row, exact, mooncake};
use crate::error::{Error, Result};

/// The data sets there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    Random,
    RandomIds,
    ShareGpt,
    Custom,
    OpenAi,
    SharedPrefix,
    Mooncake,
    Text,
}

/// What rows to make.
#[derive(Debug, Clone)]
pub struct Spec {
    pub name: Name,
    /// Empty for data sets that are made up.
    pub path: String,
    pub lengths: Lengths,
    pub take: Take,
    pub shape: Shape,
    pub slowdown: f64,
    /// Requests for each line of a trace.
    pub rounds: usize,
    /// Token ids are below this.
    pub vocab: usize,
    /// The API takes token ids.
    pub ids: bool,
}

/// All rows.
///
/// # Errors
/// A file that is missing or damaged; a tokenizer that would be needed.
pub fn make(spec: &Spec, codec: Option<&dyn Codec>) -> Result<Vec<Row>> {
    let (take, path) = (&spec.take, spec.path.as_str());
    let rows = match spec.name {
        Name::Random | Name::RandomIds => {
            let running = spec.name == Name::RandomIds;
            random::rows(spec.lengths, take.num_prompts, spec.vocab, running, take.seed)?
        }
        Name::SharedPrefix => shared::rows(spec.shape, spec.vocab, take.seed)?,
        Name::Mooncake => {
            let (most, rounds) = (take.num_prompts, spec.rounds);
            let rows = mooncake::rows(&read(path)?, path, most, spec.slowdown, spec.vocab)?;
            mooncake::with_rounds(rows, rounds, spec.vocab)
        }
        Name::ShareGpt => files::sharegpt(&read(path)?, path, take, needed(codec, "sharegpt")?)?,
        Name::Custom => files::custom(&read(path)?, path, take, needed(codec, "custom")?)?,
        Name::OpenAi => files::openai(&read(path)?, path, take, codec)?,
        Name::Text => files::text(&read(path)?, path, take, codec)?,
    };
    if spec.ids { Ok(rows) } else { rows.into_iter().map(|r| as_text(r, codec)).collect() }
}

fn read(path: &str) -> Result<String> {
    if path.is_empty() {
        return Err(Error::usage("--dataset-path: this data set is a file; name it"));
    }
    std::fs::read_to_string(path).map_err(|e| Error::io(path, &e))
}

fn needed<'a>(codec: Option<&'a dyn Codec>, name: &str) -> Result<&'a dyn Codec> {
    codec.ok_or_else(|| {
        Error::usage(format!(
            "--dataset-name {name}: lengths are counted in tokens; give --tokenizer (a folder \
             with tokenizer.json, or a .gguf file)"
        ))
    })
}

/// Ids as a text of as many tokens, for APIs that take text only.
fn as_text(row: Row, codec: Option<&dyn Codec>) -> Result<Row> {
    let Prompt::Ids(ids) = &row.prompt else { return Ok(row) };
    let codec = codec.ok_or_else(|| {
        Error::usage(
            "this backend takes text, not token ids: give --tokenizer (a folder with \
             tokenizer.json, or a .gguf file), or a completions backend",
        )
    })?;
    let (text, tokens) = exact::text(codec, ids)?;
    // Of a conversation only the server can tell.
    let prompt_len = if row.follows { 0 } else { tokens };
    Ok(Row { prompt: Prompt::Text(text), prompt_len, ..row })
}
