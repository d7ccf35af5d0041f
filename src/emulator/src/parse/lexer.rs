//! PTX text to tokens. A word keeps its dots (`mma.sync.aligned`, `%tid.x`, `.reg`), because the
//! meaning of a dot depends on where the word stands.

use crate::error::LoadError;

/// One token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Tok<'a> {
    /// Identifier, directive, opcode or register, with its dots.
    Word(&'a str),
    /// Integer literal; a minus sign is a separate token.
    Int(u64),
    /// `0f` literal: bits of a binary32.
    F32(u32),
    /// `0d` literal or a decimal float: bits of a binary64.
    F64(u64),
    /// String literal without its quotes.
    Str(&'a str),
    /// Any other single character.
    Punct(char),
    /// End of the text.
    End,
}

/// A token and the line it stands on, counted from 1.
#[derive(Debug, Clone, Copy)]
pub struct Token<'a> {
    pub tok: Tok<'a>,
    pub line: u32,
}

/// Splits PTX text into tokens, dropping white space and comments.
///
/// # Errors
/// A literal that does not fit 64 bits, an unclosed string or comment, a non-ASCII character.
pub fn tokens(text: &str) -> Result<Vec<Token<'_>>, LoadError> {
    let mut lexer = Lexer { text, bytes: text.as_bytes(), at: 0, line: 1 };
    let mut out = Vec::with_capacity(text.len() / 4);
    loop {
        lexer.skip_blank()?;
        let line = lexer.line;
        let tok = lexer.token()?;
        out.push(Token { tok, line });
        if tok == Tok::End {
            return Ok(out);
        }
    }
}

struct Lexer<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    line: u32,
}

fn starts_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || matches!(byte, b'_' | b'$' | b'%' | b'.')
}

fn continues_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'%' | b'.')
}

impl<'a> Lexer<'a> {
    fn peek(&self, ahead: usize) -> u8 {
        self.bytes.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn fail<T>(&self, message: impl Into<String>) -> Result<T, LoadError> {
        Err(LoadError::new(self.line, message))
    }

    fn bump(&mut self) {
        if self.peek(0) == b'\n' {
            self.line = self.line.saturating_add(1);
        }
        self.at += 1;
    }

    fn skip_blank(&mut self) -> Result<(), LoadError> {
        while self.at < self.bytes.len() {
            match (self.peek(0), self.peek(1)) {
                (b' ' | b'\t' | b'\r' | b'\n', _) => self.bump(),
                (b'/', b'/') => self.skip_line(),
                (b'/', b'*') => self.skip_comment()?,
                _ => return Ok(()),
            }
        }
        Ok(())
    }

    fn skip_line(&mut self) {
        while self.at < self.bytes.len() && self.peek(0) != b'\n' {
            self.at += 1;
        }
    }

    fn skip_comment(&mut self) -> Result<(), LoadError> {
        self.at += 2;
        while self.at < self.bytes.len() {
            if self.peek(0) == b'*' && self.peek(1) == b'/' {
                self.at += 2;
                return Ok(());
            }
            self.bump();
        }
        self.fail("comment is never closed")
    }

    fn token(&mut self) -> Result<Tok<'a>, LoadError> {
        if self.at >= self.bytes.len() {
            return Ok(Tok::End);
        }
        let byte = self.peek(0);
        if byte.is_ascii_digit() {
            return self.number();
        }
        if starts_word(byte) {
            return Ok(self.word());
        }
        if byte == b'"' {
            return self.string();
        }
        if !byte.is_ascii_graphic() {
            return self.fail(format!("unexpected byte 0x{byte:02x}"));
        }
        self.at += 1;
        Ok(Tok::Punct(byte as char))
    }

    fn word(&mut self) -> Tok<'a> {
        let start = self.at;
        loop {
            let scope = self.peek(0) == b':' && self.peek(1) == b':' && starts_word(self.peek(2));
            // `.L2::128B` continues with a digit.
            let sized = self.peek(0) == b':' && self.peek(1) == b':' && self.peek(2) != 0;
            if scope || (sized && self.peek(2).is_ascii_digit()) {
                self.at += 3;
            } else if continues_word(self.peek(0)) {
                self.at += 1;
            } else {
                return Tok::Word(&self.text[start..self.at]);
            }
        }
    }

    fn string(&mut self) -> Result<Tok<'a>, LoadError> {
        let start = self.at + 1;
        self.at = start;
        while self.at < self.bytes.len() {
            match self.peek(0) {
                b'"' => {
                    self.at += 1;
                    let text = self.text.get(start..self.at - 1);
                    return Ok(Tok::Str(text.unwrap_or("")));
                }
                b'\\' => self.at += 2,
                _ => self.bump(),
            }
        }
        self.fail("string is never closed")
    }

    fn number(&mut self) -> Result<Tok<'a>, LoadError> {
        let start = self.at;
        while self.peek(0).is_ascii_alphanumeric() || self.fraction_follows(start) {
            self.at += 1;
        }
        let text = &self.text[start..self.at];
        match literal(text) {
            Some(tok) => Ok(tok),
            None => self.fail(format!("bad number '{}'", clip(text))),
        }
    }

    /// A dot, or the sign of a decimal exponent, inside a decimal float.
    fn fraction_follows(&self, start: usize) -> bool {
        let so_far = &self.bytes[start..self.at];
        let prefixed = so_far.len() > 1 && so_far[0] == b'0' && so_far[1].is_ascii_alphabetic();
        let exponent = matches!(so_far.last(), Some(b'e' | b'E')) && !prefixed;
        match self.peek(0) {
            b'.' => !prefixed && self.peek(1).is_ascii_digit(),
            b'+' | b'-' => exponent && self.peek(1).is_ascii_digit() && so_far.contains(&b'.'),
            _ => false,
        }
    }
}

/// At most 40 characters of a text that an error quotes.
pub fn clip(text: &str) -> &str {
    match text.char_indices().nth(40) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

fn literal(text: &str) -> Option<Tok<'_>> {
    let lower = text.get(..2).map(str::to_ascii_lowercase);
    match lower.as_deref() {
        Some("0f") if text.len() == 10 => hex(&text[2..]).map(|v| Tok::F32(v as u32)),
        Some("0d") if text.len() == 18 => hex(&text[2..]).map(Tok::F64),
        Some("0x") => hex(text[2..].trim_end_matches(['U', 'u'])).map(Tok::Int),
        Some("0b") => radix(text[2..].trim_end_matches(['U', 'u']), 2).map(Tok::Int),
        _ => decimal(text),
    }
}

fn decimal(text: &str) -> Option<Tok<'_>> {
    if text.contains('.') {
        return text.parse::<f64>().ok().map(|v| Tok::F64(v.to_bits()));
    }
    let digits = text.trim_end_matches(['U', 'u']);
    let octal = digits.len() > 1 && digits.starts_with('0');
    radix(digits, if octal { 8 } else { 10 }).map(Tok::Int)
}

fn hex(digits: &str) -> Option<u64> {
    radix(digits, 16)
}

fn radix(digits: &str, radix: u32) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return None;
    }
    u64::from_str_radix(digits, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toks(text: &str) -> Vec<Tok<'_>> {
        tokens(text).unwrap().into_iter().map(|t| t.tok).collect()
    }

    #[test]
    fn words_keep_dots_and_scopes() {
        let got = toks("cp.async.bulk.shared::cluster.L2::128B [%rd1+-4];");
        assert_eq!(got[0], Tok::Word("cp.async.bulk.shared::cluster.L2::128B"));
        assert_eq!(got[2], Tok::Word("%rd1"));
        assert_eq!(got[4], Tok::Punct('-'));
        assert_eq!(got[5], Tok::Int(4));
    }

    #[test]
    fn labels_end_at_a_single_colon() {
        assert_eq!(toks("$L_1: ret;")[..2], [Tok::Word("$L_1"), Tok::Punct(':')]);
    }

    #[test]
    fn numbers() {
        let got = toks("0f3F800000 0d3FF0000000000000 0xffU 017 12 1.5e-3");
        assert_eq!(got[0], Tok::F32(0x3f80_0000));
        assert_eq!(got[1], Tok::F64(1f64.to_bits()));
        assert_eq!(got[2..5], [Tok::Int(255), Tok::Int(15), Tok::Int(12)]);
        assert_eq!(got[5], Tok::F64(1.5e-3f64.to_bits()));
    }

    #[test]
    fn bad_text_is_an_error_with_its_line() {
        for text in ["\n\n99999999999999999999999", "\n\n\"abc", "\n\n/* x", "\n\n0x", "\n\n\u{1}"]
        {
            assert_eq!(tokens(text).unwrap_err().line, 3, "{text:?}");
        }
        assert!(tokens("é").is_err());
    }
}
