//! What each token stands for, in bytes: the `decoder` of a tokenizer.json, applied once a token.
//!
//! Decoders of language models work token by token, except that some strip blanks at the start
//! of the text. So they become a table of bytes and a small rule for the start, and streaming
//! is a look-up.

use serde_json::Value;

use crate::types::TokenId;

/// Ids may have gaps, but not so many that a crafted id makes the table huge.
const MAX_IDS_PER_TOKEN: usize = 4;
const MAX_EXTRA_IDS: usize = 1 << 16;

/// How a decoder treats the start of a text and the joints between tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Joints {
    /// Up to so many of this character are dropped at the very start.
    pub strip_start: Option<(char, usize)>,
    /// Blanks of the first token are dropped (the `Metaspace` decoder).
    pub first_token_without_blanks: bool,
    /// A blank goes between tokens (a tokenizer without a decoder).
    pub blank_between: bool,
}

/// Bytes by token id.
#[derive(Debug, Default)]
pub(super) struct TokenTable {
    bytes: Vec<u8>,
    ends: Vec<u32>,
    known: Vec<bool>,
    special: Vec<bool>,
    pub joints: Joints,
}

/// One entry of a vocabulary.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub id: TokenId,
    pub text: String,
    pub special: bool,
}

impl TokenTable {
    /// Applies `decoder` (the JSON of a tokenizer.json, null if none) to every entry; of two
    /// entries with one id the later holds. Errors: a decoder that is not supported, an id far
    /// beyond the number of entries.
    pub fn new(decoder: &Value, entries: &[Entry]) -> Result<Self, String> {
        let decoder = TokenDecoder::parse(decoder)?;
        let by_id = place(entries)?;
        let mut table = TokenTable { joints: decoder.joints.clone(), ..Default::default() };
        for entry in by_id {
            if let Some(entry) = entry {
                table.bytes.extend(decoder.bytes(&entry.text));
            }
            let end = u32::try_from(table.bytes.len()).map_err(|_| "vocabulary over 4 GiB")?;
            table.ends.push(end);
            table.known.push(entry.is_some());
            table.special.push(entry.is_some_and(|e| e.special));
        }
        Ok(table)
    }

    /// One more than the largest id.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn bytes(&self, id: TokenId) -> Option<&[u8]> {
        let at = id as usize;
        if !*self.known.get(at)? {
            return None;
        }
        let start = if at == 0 { 0 } else { *self.ends.get(at - 1)? };
        self.bytes.get(start as usize..*self.ends.get(at)? as usize)
    }

    pub fn is_special(&self, id: TokenId) -> bool {
        self.special.get(id as usize).copied().unwrap_or(false)
    }
}

fn place(entries: &[Entry]) -> Result<Vec<Option<&Entry>>, String> {
    let limit = entries.len() * MAX_IDS_PER_TOKEN + MAX_EXTRA_IDS;
    let mut by_id = Vec::new();
    for entry in entries {
        let at = entry.id as usize;
        if at >= limit {
            return Err(format!(
                "token {:?} has id {at}, far beyond the {} tokens of the vocabulary",
                entry.text,
                entries.len()
            ));
        }
        if by_id.len() <= at {
            by_id.resize(at + 1, None);
        }
        if let Some(slot) = by_id.get_mut(at) {
            *slot = Some(entry);
        }
    }
    Ok(by_id)
}

/// One step from a token's text to its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Replace { from: String, to: String },
    ByteFallback,
    ByteLevel,
    Strip { content: char, start: usize, stop: usize },
}

#[derive(Debug, Default)]
struct TokenDecoder {
    steps: Vec<Step>,
    joints: Joints,
}

impl TokenDecoder {
    fn parse(json: &Value) -> Result<Self, String> {
        let mut decoder = TokenDecoder::default();
        if json.is_null() {
            decoder.joints.blank_between = true;
            return Ok(decoder);
        }
        let mut fused = false;
        for step in flatten(json)? {
            decoder.add(step, &mut fused)?;
        }
        Ok(decoder)
    }

    /// `fused`: earlier steps joined the tokens, so this one acts on the whole text.
    fn add(&mut self, json: &Value, fused: &mut bool) -> Result<(), String> {
        let kind = json.get("type").and_then(Value::as_str).unwrap_or("(no type)");
        match kind {
            "Fuse" => *fused = true,
            "Strip" if *fused => {
                let (content, start, stop) = strip_fields(json)?;
                if stop > 0 || self.joints.strip_start.is_some() {
                    return Err(unsupported("Strip at the end of the text"));
                }
                self.joints.strip_start = Some((content, start));
            }
            _ if *fused => return Err(unsupported(&format!("{kind} after the tokens are fused"))),
            "ByteLevel" => {
                self.steps.push(Step::ByteLevel);
                *fused = true;
            }
            "ByteFallback" => self.steps.push(Step::ByteFallback),
            "Replace" => self.steps.push(replace_step(json)?),
            "Metaspace" => self.add_metaspace(json)?,
            "Strip" => {
                let (content, start, stop) = strip_fields(json)?;
                self.steps.push(Step::Strip { content, start, stop });
            }
            _ => return Err(unsupported(kind)),
        }
        Ok(())
    }

    fn add_metaspace(&mut self, json: &Value) -> Result<(), String> {
        let from = json.get("replacement").and_then(Value::as_str).unwrap_or("\u{2581}");
        let scheme = json.get("prepend_scheme").and_then(Value::as_str);
        let prefix = json.get("add_prefix_space").and_then(Value::as_bool).unwrap_or(true);
        self.steps.push(Step::Replace { from: from.into(), to: " ".into() });
        self.joints.first_token_without_blanks = scheme.map_or(prefix, |s| s != "never");
        Ok(())
    }

    fn bytes(&self, token: &str) -> Vec<u8> {
        let mut text = token.to_owned();
        for step in &self.steps {
            match step {
                Step::Replace { from, to } => text = text.replace(from.as_str(), to),
                Step::ByteFallback => {
                    if let Some(byte) = byte_token(&text) {
                        return vec![byte];
                    }
                }
                Step::ByteLevel => return byte_level_bytes(&text),
                Step::Strip { content, start, stop } => {
                    text = strip(&text, *content, *start, *stop).to_owned();
                }
            }
        }
        text.into_bytes()
    }
}

/// The steps of a decoder in order; a `Sequence` may hold sequences (the JSON parser bounds
/// their depth).
fn flatten(json: &Value) -> Result<Vec<&Value>, String> {
    if json.get("type").and_then(Value::as_str) != Some("Sequence") {
        return Ok(vec![json]);
    }
    let parts = json.get("decoders").and_then(Value::as_array);
    let parts = parts.ok_or("decoder: a Sequence without a list `decoders`")?;
    let mut steps = Vec::new();
    for part in parts {
        steps.extend(flatten(part)?);
    }
    Ok(steps)
}

fn unsupported(what: &str) -> String {
    format!(
        "decoder {what} is not supported (supported: ByteLevel, ByteFallback, Metaspace, \
         Replace of a string, Strip, Fuse, and Sequences of them)"
    )
}

fn replace_step(json: &Value) -> Result<Step, String> {
    let from = json.pointer("/pattern/String").and_then(Value::as_str);
    let to = json.get("content").and_then(Value::as_str);
    match (from, to) {
        (Some(from), Some(to)) if !from.is_empty() => {
            Ok(Step::Replace { from: from.into(), to: to.into() })
        }
        _ => Err(unsupported("Replace with a pattern other than a string")),
    }
}

fn strip_fields(json: &Value) -> Result<(char, usize, usize), String> {
    let content = json.get("content").and_then(Value::as_str).unwrap_or_default();
    let mut chars = content.chars();
    let (Some(content), None) = (chars.next(), chars.next()) else {
        return Err(format!("decoder Strip: `content` is {content:?}, expected one character"));
    };
    let count = |name: &str| json.get(name).and_then(Value::as_u64).unwrap_or(0);
    Ok((content, count("start") as usize, count("stop") as usize))
}

fn strip(text: &str, content: char, start: usize, stop: usize) -> &str {
    let mut rest = text;
    for _ in 0..start.min(text.len()) {
        rest = rest.strip_prefix(content).unwrap_or(rest);
    }
    for _ in 0..stop.min(text.len()) {
        rest = rest.strip_suffix(content).unwrap_or(rest);
    }
    rest
}

/// `<0x0A>` is byte 10: exactly two hexadecimal digits.
fn byte_token(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() != 2 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u8::from_str_radix(digits, 16).ok()
}

/// GPT-2's printable alphabet back to bytes. A token with any other character stands for
/// itself, as in the tokenizers crate.
fn byte_level_bytes(text: &str) -> Vec<u8> {
    let bytes: Option<Vec<u8>> = text.chars().map(byte_of_char).collect();
    bytes.unwrap_or_else(|| text.as_bytes().to_vec())
}

/// GPT-2 writes printable bytes as the same Latin-1 character, and the other 68 as U+0100 on,
/// in order (bytes_to_unicode in its encoder.py).
fn byte_of_char(c: char) -> Option<u8> {
    let code = c as u32;
    match code {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => Some(code as u8),
        0x100..=0x120 => Some((code - 0x100) as u8),
        0x121..=0x142 => Some((code - 0x121 + 0x7f) as u8),
        0x143 => Some(0xad),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_byte_alphabet_is_a_bijection() {
        let chars = (0..0x200).filter_map(char::from_u32);
        let mut bytes: Vec<u8> = chars.filter_map(byte_of_char).collect();
        assert_eq!(bytes.len(), 256);
        bytes.sort_unstable();
        bytes.dedup();
        assert_eq!(bytes.len(), 256);
        assert_eq!((byte_of_char('Ġ'), byte_of_char('Ċ')), (Some(b' '), Some(b'\n')));
    }

    #[test]
    fn byte_tokens_take_exactly_two_digits() {
        assert_eq!(byte_token("<0x0A>"), Some(10));
        for odd in ["<0x-1>", "<0x+1>", "<0x1>", "<0x123>", "0x0A", "<0xé>"] {
            assert_eq!(byte_token(odd), None, "{odd}");
        }
    }

    #[test]
    fn unsupported_decoders_are_named() {
        for (json, name) in [
            (json!({"type": "CTC"}), "CTC"),
            (json!({"type": "Replace", "pattern": {"Regex": "a"}, "content": ""}), "Replace"),
            (json!({"type": "Strip", "content": "", "start": 1, "stop": 0}), "Strip"),
            (json!({"type": "Sequence", "decoders": 3}), "Sequence"),
        ] {
            let error = TokenTable::new(&json, &[]).unwrap_err();
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn a_far_id_is_refused() {
        let entry = |id| Entry { id, text: "a".into(), special: false };
        assert!(TokenTable::new(&Value::Null, &[entry(u32::MAX)]).is_err());
        let table = TokenTable::new(&Value::Null, &[entry(3)]).unwrap();
        assert_eq!((table.len(), table.bytes(3), table.bytes(2)), (4, Some(&b"a"[..]), None));
        assert_eq!(table.bytes(4), None);
    }
}
