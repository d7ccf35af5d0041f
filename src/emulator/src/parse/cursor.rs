//! A position in the token list, with the small questions that the parser asks.

use super::lexer::{Tok, Token, clip};
use crate::error::LoadError;

/// Reads tokens in order; never runs past the end token.
pub struct Cursor<'t, 'a> {
    tokens: &'t [Token<'a>],
    at: usize,
}

impl<'t, 'a> Cursor<'t, 'a> {
    /// `tokens` ends with [`Tok::End`].
    pub fn new(tokens: &'t [Token<'a>]) -> Self {
        Self { tokens, at: 0 }
    }

    pub fn peek(&self) -> Tok<'a> {
        self.peek_at(0)
    }

    pub fn peek_at(&self, ahead: usize) -> Tok<'a> {
        self.tokens.get(self.at + ahead).map_or(Tok::End, |t| t.tok)
    }

    pub fn line(&self) -> u32 {
        let last = self.tokens.last().map_or(0, |t| t.line);
        self.tokens.get(self.at).map_or(last, |t| t.line)
    }

    pub fn next(&mut self) -> Tok<'a> {
        let tok = self.peek();
        self.at += 1;
        tok
    }

    pub fn fail<T>(&self, message: impl Into<String>) -> Result<T, LoadError> {
        Err(LoadError::new(self.line(), message))
    }

    /// An error that says what stands here instead of `wanted`.
    pub fn wanted<T>(&self, wanted: &str) -> Result<T, LoadError> {
        self.fail(format!("expected {wanted}, found {}", describe(self.peek())))
    }

    pub fn eat(&mut self, punct: char) -> bool {
        let found = self.peek() == Tok::Punct(punct);
        if found {
            self.at += 1;
        }
        found
    }

    pub fn expect(&mut self, punct: char) -> Result<(), LoadError> {
        if self.eat(punct) { Ok(()) } else { self.wanted(&format!("'{punct}'")) }
    }

    pub fn eat_word(&mut self, word: &str) -> bool {
        let found = self.peek() == Tok::Word(word);
        if found {
            self.at += 1;
        }
        found
    }

    pub fn word(&mut self, wanted: &str) -> Result<&'a str, LoadError> {
        match self.peek() {
            Tok::Word(word) => {
                self.at += 1;
                Ok(word)
            }
            _ => self.wanted(wanted),
        }
    }

    pub fn int(&mut self, wanted: &str) -> Result<u64, LoadError> {
        match self.peek() {
            Tok::Int(value) => {
                self.at += 1;
                Ok(value)
            }
            _ => self.wanted(wanted),
        }
    }

    /// An integer no larger than `most`.
    pub fn small(&mut self, wanted: &str, most: u32) -> Result<u32, LoadError> {
        let line = self.line();
        let value = self.int(wanted)?;
        match u32::try_from(value) {
            Ok(small) if small <= most => Ok(small),
            _ => Err(LoadError::new(line, format!("{wanted} is {value}, at most {most}"))),
        }
    }

    /// An integer with an optional sign, as a 64-bit pattern.
    pub fn signed(&mut self, wanted: &str) -> Result<i64, LoadError> {
        let mut negative = false;
        loop {
            if self.eat('-') {
                negative = !negative;
            } else if !self.eat('+') {
                break;
            }
        }
        let value = self.int(wanted)? as i64;
        Ok(if negative { value.wrapping_neg() } else { value })
    }

    /// Up to three numbers separated by commas; missing ones are 1.
    pub fn dims(&mut self, wanted: &str) -> Result<[u32; 3], LoadError> {
        let mut dims = [1; 3];
        for (i, dim) in dims.iter_mut().enumerate() {
            if i > 0 && !self.eat(',') {
                break;
            }
            *dim = self.small(wanted, i32::MAX as u32)?;
        }
        Ok(dims)
    }

    /// Skips a `{ … }` block and everything in it.
    pub fn skip_braces(&mut self) -> Result<(), LoadError> {
        self.expect('{')?;
        let mut depth = 1u32;
        while depth > 0 {
            match self.next() {
                Tok::Punct('{') => depth += 1,
                Tok::Punct('}') => depth -= 1,
                Tok::End => return self.fail("'{' is never closed"),
                _ => {}
            }
        }
        Ok(())
    }

    /// Skips to the end of the given line.
    pub fn skip_line(&mut self, line: u32) {
        while self.peek() != Tok::End && self.line() == line {
            self.at += 1;
        }
    }
}

fn describe(tok: Tok<'_>) -> String {
    match tok {
        Tok::Word(word) => format!("'{}'", clip(word)),
        Tok::Int(value) => format!("{value}"),
        Tok::F32(bits) => format!("0f{bits:08X}"),
        Tok::F64(bits) => format!("0d{bits:016X}"),
        Tok::Str(text) => format!("\"{}\"", clip(text)),
        Tok::Punct(c) => format!("'{c}'"),
        Tok::End => "the end of the text".into(),
    }
}
