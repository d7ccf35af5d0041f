//! Token ids to text, one at a time, never a split character.

use std::sync::Arc;

use super::decoder::TokenTable;
use crate::types::TokenId;

/// Turns a stream of ids into pieces of text. Every piece is whole characters; the pieces of
/// [`push`](Self::push) and [`finish`](Self::finish) joined are the lossy UTF-8 decoding of all
/// bytes, whatever the ids are: an invalid sequence is U+FFFD as soon as it is certain. The cost
/// of a token is its own bytes, however long the text is.
///
/// Unlike the tokenizers crate, an invalid byte does not spoil the valid characters of a run of
/// byte tokens around it: that rule needs the whole run, so it cannot be streamed.
#[derive(Debug, Clone)]
pub struct Detokenizer {
    table: Arc<TokenTable>,
    skip_special: bool,
    /// The first bytes of a character, at most three.
    pending: Vec<u8>,
    /// Characters that may still be dropped at the start of the text.
    strip_left: usize,
    first: bool,
}

impl Detokenizer {
    pub(super) fn new(table: Arc<TokenTable>, skip_special: bool) -> Self {
        let strip_left = table.joints.strip_start.map_or(0, |(_, count)| count);
        Detokenizer { table, skip_special, pending: Vec::new(), strip_left, first: true }
    }

    /// The text that `id` makes certain; empty while a character is incomplete, for ids that
    /// are not in the vocabulary, and for special tokens when these are skipped.
    pub fn push(&mut self, id: TokenId) -> String {
        let mut text = String::new();
        self.push_to(id, &mut text);
        text
    }

    /// [`push`](Self::push) that appends to `text`.
    pub fn push_to(&mut self, id: TokenId, text: &mut String) {
        if self.skip_special && self.table.is_special(id) {
            return;
        }
        let Some(bytes) = self.table.bytes(id) else { return };
        let joints = &self.table.joints;
        let first = std::mem::replace(&mut self.first, false);
        if joints.blank_between && !first {
            self.pending.push(b' ');
        }
        if joints.first_token_without_blanks && first {
            self.pending.extend(bytes.iter().filter(|b| **b != b' '));
        } else {
            self.pending.extend_from_slice(bytes);
        }
        self.release(false, text);
    }

    /// What is left at the end: U+FFFD if the text ends inside a character.
    pub fn finish(&mut self) -> String {
        let mut text = String::new();
        self.release(true, &mut text);
        text
    }

    fn release(&mut self, at_end: bool, out: &mut String) {
        let keep = if at_end { 0 } else { incomplete_tail(&self.pending) };
        let certain = self.pending.len() - keep;
        let (ready, _) = self.pending.split_at(certain);
        let text = String::from_utf8_lossy(ready);
        out.push_str(strip_start(&text, &self.table.joints.strip_start, &mut self.strip_left));
        self.pending.drain(..certain);
    }
}

/// Drops up to `left` of the character that is stripped; the first other one ends it.
fn strip_start<'a>(text: &'a str, rule: &Option<(char, usize)>, left: &mut usize) -> &'a str {
    let Some((content, _)) = rule else { return text };
    let mut rest = text;
    while *left > 0 && !rest.is_empty() {
        match rest.strip_prefix(*content) {
            Some(shorter) => {
                rest = shorter;
                *left -= 1;
            }
            None => *left = 0,
        }
    }
    rest
}

/// How many bytes at the end may be the start of one more character.
fn incomplete_tail(bytes: &[u8]) -> usize {
    for length in 1..=bytes.len().min(3) {
        let (_, tail) = bytes.split_at(bytes.len() - length);
        if let Err(error) = std::str::from_utf8(tail) {
            let incomplete = error.valid_up_to() == 0 && error.error_len().is_none();
            if incomplete {
                return length;
            }
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::decoder::Entry;
    use serde_json::{Value, json};

    fn detokenizer(decoder: Value, tokens: &[&str]) -> Detokenizer {
        let entry = |(id, text): (usize, &&str)| Entry {
            id: id as u32,
            text: (*text).into(),
            special: text.starts_with("<|"),
        };
        let entries: Vec<Entry> = tokens.iter().enumerate().map(entry).collect();
        Detokenizer::new(Arc::new(TokenTable::new(&decoder, &entries).unwrap()), true)
    }

    fn pieces(detokenizer: &mut Detokenizer, ids: &[u32]) -> Vec<String> {
        let mut pieces: Vec<String> = ids.iter().map(|id| detokenizer.push(*id)).collect();
        pieces.push(detokenizer.finish());
        pieces
    }

    #[test]
    fn the_tail_is_what_may_still_become_a_character() {
        for (bytes, tail) in [
            (&b"ab"[..], 0),
            (b"a\xe4", 1),
            (b"a\xe4\xb8", 2),
            (b"\xe4\xb8\x96", 0),
            (b"\xf0\x9f\x8c", 3),
            (b"\xff", 0),
            (b"\x80\x80", 0),
            (b"\xe0\x80", 0),
            (b"\xed\xa0", 0),
            (b"\xc3", 1),
            (b"\xf5", 0),
        ] {
            assert_eq!(incomplete_tail(bytes), tail, "{bytes:x?}");
        }
    }

    #[test]
    fn a_character_in_parts_comes_when_it_is_whole() {
        let mut d = detokenizer(json!({"type": "ByteFallback"}), &["<0xE4>", "<0xB8>", "<0x96>"]);
        assert_eq!(pieces(&mut d, &[0, 1, 2]), ["", "", "世", ""]);
        assert_eq!(pieces(&mut d.clone(), &[0, 1]), ["", "", "\u{fffd}"]);
        assert_eq!(pieces(&mut d, &[0, 0, 1, 2]), ["", "\u{fffd}", "", "世", ""]);
    }

    #[test]
    fn the_start_is_stripped_once_and_special_tokens_do_not_count() {
        let decoder = json!({"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]});
        let mut d = detokenizer(decoder, &["<|s|>", "▁", "▁a"]);
        assert_eq!(pieces(&mut d, &[0, 1, 2, 2]), ["", "", " a", " a", ""]);
    }

    #[test]
    fn metaspace_drops_the_blanks_of_the_first_token() {
        let decoder = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first"});
        let mut d = detokenizer(decoder, &["<|s|>", "▁▁", "▁a"]);
        assert_eq!(pieces(&mut d, &[0, 1, 2]), ["", "", " a", ""]);
    }

    #[test]
    fn without_a_decoder_a_blank_stands_between() {
        let mut d = detokenizer(Value::Null, &["a", "b"]);
        assert_eq!(pieces(&mut d, &[0, 1, 9, 0]).concat(), "a b a");
    }
}
