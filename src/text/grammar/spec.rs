//! What a client asks for. Everything here is checked before anything is compiled.

use llguidance::api::TopLevelGrammar;
use serde_json::{Value, json};

use super::gbnf;
use crate::error::{Error, Result};

/// Longest specifications, in bytes.
const MAX_SCHEMA: usize = 256 << 10;
const MAX_REGEX: usize = 16 << 10;
const MAX_EBNF: usize = 64 << 10;
/// Deepest nesting of groups. JSON has the parser's own limit of 128.
pub(super) const MAX_DEPTH: usize = 100;
/// Largest number in a repetition.
pub(super) const MAX_REPEAT: u32 = 10_000;

/// What may stand between two parts of JSON: enough to indent, too little for a model that has
/// nothing to say to go on for ever.
const WHITESPACE: &str = r"[\x20\x0A\x0D\x09]{1,40}";

/// A constraint on the output.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GrammarSpec {
    /// A JSON schema, as text.
    JsonSchema(String),
    /// A regular expression for all of the output.
    Regex(String),
    /// A grammar: `root ::= …`, or llguidance's Lark notation (`start: …`).
    Ebnf(String),
}

impl GrammarSpec {
    /// Any JSON object.
    pub fn json_object() -> Self {
        GrammarSpec::JsonSchema(json!({ "type": "object" }).to_string())
    }

    /// OpenAI's `response_format`: `text` is no constraint.
    ///
    /// # Errors
    /// An unknown type, or a missing schema.
    pub fn from_response_format(format: &Value) -> Result<Option<Self>> {
        match format["type"].as_str() {
            None if format.is_null() => Ok(None),
            Some("text") => Ok(None),
            Some("json_object") => Ok(Some(Self::json_object())),
            Some("json_schema") => match &format["json_schema"]["schema"] {
                Value::Null => Err(Error::usage("response_format.json_schema.schema is missing")),
                schema => Ok(Some(GrammarSpec::JsonSchema(schema.to_string()))),
            },
            _ => {
                let found = format["type"].to_string();
                let wanted = "text, json_object or json_schema";
                Err(Error::usage(format!("response_format.type is {found}, expected {wanted}")))
            }
        }
    }

    /// The parameter's name.
    pub fn name(&self) -> &'static str {
        match self {
            GrammarSpec::JsonSchema(_) => "json_schema",
            GrammarSpec::Regex(_) => "regex",
            GrammarSpec::Ebnf(_) => "ebnf",
        }
    }

    /// Sizes and nesting; costs no more than reading the text once.
    ///
    /// # Errors
    /// Names the parameter and the limit.
    pub fn check(&self) -> Result<()> {
        let (text, most) = match self {
            GrammarSpec::JsonSchema(text) => (text, MAX_SCHEMA),
            GrammarSpec::Regex(text) => (text, MAX_REGEX),
            GrammarSpec::Ebnf(text) => (text, MAX_EBNF),
        };
        let name = self.name();
        if text.is_empty() || text.len() > most {
            let found = text.len();
            return Err(Error::usage(format!("{name} has {found} bytes, expected 1 to {most}")));
        }
        if !matches!(self, GrammarSpec::JsonSchema(_)) && depth(text) > MAX_DEPTH {
            let message = format!("{name}: groups are nested more than {MAX_DEPTH} deep");
            return Err(Error::usage(message));
        }
        Ok(())
    }

    /// The grammar in the parser's own terms.
    ///
    /// # Errors
    /// [`check`](Self::check)'s, and text that is no JSON or no grammar.
    pub(super) fn grammar(&self) -> Result<TopLevelGrammar> {
        self.check()?;
        match self {
            GrammarSpec::JsonSchema(text) => {
                let mut schema: Value = serde_json::from_str(text)
                    .map_err(|e| Error::usage(format!("json_schema is no JSON: {e}")))?;
                match &mut schema {
                    Value::Object(map) => {
                        let layout = json!({ "whitespace_pattern": WHITESPACE });
                        map.entry("x-guidance").or_insert(layout);
                    }
                    Value::Bool(_) => {}
                    _ => return Err(Error::usage("json_schema: expected an object")),
                }
                Ok(TopLevelGrammar::from_json_schema(schema))
            }
            GrammarSpec::Regex(text) => {
                let parsed = regex_syntax_check(text);
                parsed.map_err(|what| Error::usage(format!("regex {text:?}: {what}")))?;
                Ok(TopLevelGrammar::from_regex(text))
            }
            GrammarSpec::Ebnf(text) if gbnf::looks_like(text) => gbnf::parse(text)?.to_grammar(),
            GrammarSpec::Ebnf(text) => Ok(TopLevelGrammar::from_lark(text.clone())),
        }
    }
}

/// A clear message for what is no regular expression at all.
fn regex_syntax_check(text: &str) -> std::result::Result<(), String> {
    match regex::RegexBuilder::new(text).size_limit(1 << 22).build() {
        Err(error @ regex::Error::Syntax(_)) => {
            let text = error.to_string();
            let last = text.lines().last().unwrap_or("it does not parse");
            Err(last.trim_start_matches("error: ").to_owned())
        }
        _ => Ok(()),
    }
}

/// Deepest nesting of round brackets, leaving out what is quoted, escaped, or in a class.
fn depth(text: &str) -> usize {
    let (mut depth, mut deepest, mut class, mut quoted) = (0usize, 0, false, false);
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match c {
            '\\' => _ = characters.next(),
            '"' if !class => quoted = !quoted,
            '[' if !quoted => class = true,
            ']' => class = false,
            '(' if !class && !quoted => depth += 1,
            ')' if !class && !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    // An odd quote would hide brackets: then count them all.
    if quoted { deepest.max(text.matches('(').count()) } else { deepest }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nesting_is_counted_outside_quotes_and_classes() {
        assert_eq!(depth(r#"((a)(b)) [((((] "((((" \(\("#), 2);
        assert_eq!(depth(&"(".repeat(60_000)), 60_000);
        let deep = GrammarSpec::Regex("(".repeat(8000) + &")".repeat(8000));
        assert!(deep.check().is_err_and(|e| e.message.contains("nested")));
        assert!(GrammarSpec::Regex("(".repeat(60_000)).check().is_err());
    }

    #[test]
    fn response_formats() {
        let read = |v: Value| GrammarSpec::from_response_format(&v);
        assert_eq!(read(Value::Null).unwrap(), None);
        assert_eq!(read(json!({"type": "text"})).unwrap(), None);
        let object = read(json!({"type": "json_object"})).unwrap();
        assert_eq!(object, Some(GrammarSpec::json_object()));
        let named = json!({"type": "json_schema", "json_schema": {"name": "a", "schema": {}}});
        assert_eq!(read(named).unwrap(), Some(GrammarSpec::JsonSchema("{}".into())));
        assert!(read(json!({"type": "json_schema"})).is_err());
        assert!(read(json!({"type": "xml"})).is_err());
    }
}
