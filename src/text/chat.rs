//! Chat templates: a list of messages as the prompt that a model was trained on.
//!
//! A template is a program from the model's files (or, if the server allows it, from a client):
//! it runs with bounded fuel and output and no I/O, by the rules of Jinja2 as transformers sets
//! it up: blocks trimmed, `raise_exception`, `strftime_now`, Python's methods and JSON.

use std::fmt;
use std::path::Path;

use minijinja::value::{Kwargs, Value as TemplateValue};
use minijinja::{Environment, Error as TemplateError, ErrorKind, State};
use serde_json::{Map, Value};

use super::clock;
use super::python;
use super::special::{SpecialTokens, read_file, read_json};
use crate::error::{Error, Kind, Result};
use crate::types::GgufVocab;

/// Instructions a rendering may take; a long chat takes some ten thousand (reliability R15).
const FUEL: u64 = 500_000;
/// A prompt is no longer.
const MAX_OUTPUT_BYTES: usize = 32 << 20;
/// A template is no longer; the longest in use have 20 KB.
const MAX_TEMPLATE_BYTES: usize = 1 << 20;

/// A model's chat template, or its templates by name. Rendering changes nothing in it.
pub struct ChatTemplate {
    templates: Environment<'static>,
    names: Vec<String>,
    special: Map<String, Value>,
}

impl ChatTemplate {
    /// One template. `special` are the texts that it sees as `bos_token` and so on. Errors: a
    /// template that does not parse.
    pub fn new(source: &str, special: &SpecialTokens) -> Result<Self> {
        Self::named(&[("default".into(), source.into())], special)
    }

    /// Templates by name; [`render`](Self::render) takes `tool_use` when there are tools, and
    /// else `default`.
    pub fn named(templates: &[(String, String)], special: &SpecialTokens) -> Result<Self> {
        let mut environment = environment();
        for (name, source) in templates {
            if source.len() > MAX_TEMPLATE_BYTES {
                let (size, most) = (source.len(), MAX_TEMPLATE_BYTES);
                let message = format!("chat template {name:?}: {size} bytes, at most {most}");
                return Err(Error::new(Kind::Limit, message));
            }
            let source = without_generation_marks(source);
            environment.add_template_owned(name.clone(), source).map_err(|e| {
                let message = format!("chat template {name:?} does not parse: {}", reason(&e));
                Error::new(Kind::File, message)
            })?;
        }
        let names = templates.iter().map(|(name, _)| name.clone()).collect();
        Ok(ChatTemplate { templates: environment, names, special: special.by_role().clone() })
    }

    /// From a checkpoint folder: chat_template.jinja, else `chat_template` of
    /// tokenizer_config.json (a string, or a list of named ones). Errors: there is none.
    pub fn from_folder(folder: &Path) -> Result<Self> {
        let special = SpecialTokens::from_folder(folder)?;
        let file = folder.join("chat_template.jinja");
        if let Some(bytes) = read_file(&file)? {
            let source =
                String::from_utf8(bytes).map_err(|_| Error::file(&file, "not valid UTF-8"))?;
            return Self::new(&source, &special).map_err(|e| e.context(file.display()));
        }
        let file = folder.join("tokenizer_config.json");
        let config = read_json(&file)?.unwrap_or(Value::Null);
        let templates = match config.get("chat_template") {
            None | Some(Value::Null) => return Err(no_template(&folder.display().to_string())),
            Some(template) => named_templates(template),
        };
        let templates = templates.ok_or_else(|| {
            Error::file(&file, "chat_template is neither a string nor a list of {name, template}")
        })?;
        Self::named(&templates, &special).map_err(|e| e.context(file.display()))
    }

    /// From the metadata of a GGUF file. Errors: there is none.
    pub fn from_gguf(vocab: &GgufVocab) -> Result<Self> {
        let source = vocab.chat_template.as_deref();
        let source = source.ok_or_else(|| no_template("the GGUF file"))?;
        Self::new(source, &SpecialTokens::from_gguf(vocab)?)
    }

    /// The prompt for `messages` (a list of objects with `role` and `content`). `kwargs` are
    /// more names for the template: `tools`, `documents`, `enable_thinking`, …; they hold over
    /// the special tokens. Errors: the template's own message when it refuses the messages, or
    /// where and why it failed.
    pub fn render(
        &self,
        messages: &Value,
        add_generation_prompt: bool,
        kwargs: &Map<String, Value>,
    ) -> Result<String> {
        let name = self.choose(kwargs)?;
        let template = self.templates.get_template(name).map_err(failure)?;
        let mut context = self.special.clone();
        for absent_is_none in ["tools", "documents"] {
            context.insert(absent_is_none.into(), Value::Null);
        }
        context.extend(kwargs.clone());
        context.insert("messages".into(), messages.clone());
        context.insert("add_generation_prompt".into(), add_generation_prompt.into());
        let mut output = Bounded::default();
        let rendered = template.render_captured_to(&context, &mut output).map(drop);
        if output.full {
            let message = format!("the chat template wrote over {MAX_OUTPUT_BYTES} bytes");
            return Err(Error::limit(message));
        }
        rendered.map_err(failure)?;
        String::from_utf8(output.bytes).map_err(|_| Error::usage("chat template: broken UTF-8"))
    }

    fn choose(&self, kwargs: &Map<String, Value>) -> Result<&str> {
        let tools = kwargs.get("tools").is_some_and(|tools| !tools.is_null());
        let wanted: &[&str] = if tools { &["tool_use", "default"] } else { &["default"] };
        let known = wanted.iter().find(|name| self.names.iter().any(|known| known == *name));
        known.copied().ok_or_else(|| {
            let names = self.names.join(", ");
            Error::usage(format!("the model's chat templates are {names}; none is the default"))
        })
    }
}

impl fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChatTemplate({})", self.names.join(", "))
    }
}

fn no_template(place: &str) -> Error {
    Error::unsupported(format!(
        "{place} has no chat template (chat_template.jinja, or chat_template in \
         tokenizer_config.json or in the GGUF metadata): give a plain prompt instead of messages"
    ))
}

/// A string is the default template; a list holds `{name, template}`.
fn named_templates(json: &Value) -> Option<Vec<(String, String)>> {
    if let Some(source) = json.as_str() {
        return Some(vec![("default".into(), source.into())]);
    }
    let pair = |entry: &Value| {
        let field = |name| entry.get(name).and_then(Value::as_str).map(str::to_owned);
        Some((field("name")?, field("template")?))
    };
    json.as_array()?.iter().map(pair).collect()
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_fuel(Some(FUEL));
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.set_formatter(|out, _: &State, value| {
        out.write_str(&python::str_of(value)?).map_err(TemplateError::from)
    });
    environment.add_filter("tojson", |value: TemplateValue, options: Kwargs| {
        python::tojson(&value, options)
    });
    environment.add_filter("string", |value: TemplateValue| python::str_of(&value));
    environment.add_function("raise_exception", |message: String| {
        Err::<TemplateValue, _>(raised(message))
    });
    environment.add_function("strftime_now", |format: String| clock::strftime_now(&format));
    environment
}

/// transformers marks the assistant's words with `{% generation %}` for training; here they are
/// plain text.
fn without_generation_marks(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        out.push_str(before);
        let Some(end) = tag.find("%}") else {
            rest = tag;
            break;
        };
        let (tag, after) = tag.split_at(end + 2);
        let word = tag.trim_start_matches(['{', '%', '-', '+']).trim_end_matches(['}', '%', '-']);
        match word.trim() {
            "generation" => out.push_str(&tag.replace("generation", "if true")),
            "endgeneration" => out.push_str(&tag.replace("endgeneration", "endif")),
            _ => out.push_str(tag),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

/// The template called `raise_exception`: its message is the whole error.
#[derive(Debug)]
struct Raised(String);

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

fn raised(message: String) -> TemplateError {
    TemplateError::new(ErrorKind::InvalidOperation, message.clone()).with_source(Raised(message))
}

fn failure(error: TemplateError) -> Error {
    let mut cause: Option<&dyn std::error::Error> = Some(&error);
    while let Some(inner) = cause {
        if let Some(Raised(message)) = inner.downcast_ref() {
            return Error::usage(message.clone());
        }
        cause = inner.source();
    }
    if error.kind() == ErrorKind::OutOfFuel {
        return Error::limit(format!("the chat template ran over {FUEL} instructions"));
    }
    Error::usage(format!("the chat template failed: {}", reason(&error)))
}

/// `line 3: unknown filter: filter x is unknown`.
fn reason(error: &TemplateError) -> String {
    let line = error.line().map(|line| format!("line {line}: ")).unwrap_or_default();
    let detail = error.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
    format!("{line}{}{detail}", error.kind())
}

#[derive(Default)]
struct Bounded {
    bytes: Vec<u8>,
    full: bool,
}

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.bytes.len() + bytes.len() > MAX_OUTPUT_BYTES {
            self.full = true;
            return Err(std::io::Error::other("the output is too long"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
