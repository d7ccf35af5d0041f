//! A trace file read piece by piece: its events one after the other and its other fields, without
//! ever holding the whole.

use std::io::Read;

use crate::error::{Error, Result};

/// Bytes of one event or field at most; a longer field is passed over, a longer event refused.
const LARGEST: usize = 16 << 20;
const BUFFER: usize = 1 << 16;

/// What is found on the way.
pub trait Visitor {
    /// A field of the outer object other than the events, as JSON text.
    fn field(&mut self, name: &str, json: &[u8]) -> Result<()>;
    /// Whether events are wanted at all; they are skipped quickly otherwise.
    fn wants_events(&self) -> bool;
    /// One event as JSON text.
    fn event(&mut self, json: &[u8]) -> Result<()>;
}

/// Reads JSON text from a stream.
pub struct Scanner<R> {
    input: R,
    name: String,
    buffer: Vec<u8>,
    at: usize,
    end: usize,
    passed: u64,
}

impl<R: Read> Scanner<R> {
    /// `name` is what errors call the file.
    pub fn new(input: R, name: &str) -> Scanner<R> {
        let buffer = vec![0; BUFFER];
        Scanner { input, name: name.to_owned(), buffer, at: 0, end: 0, passed: 0 }
    }

    /// Goes through the whole file: an object with a list `traceEvents`, or just such a list.
    pub fn walk(&mut self, visitor: &mut dyn Visitor) -> Result<()> {
        match self.peek()? {
            Some(b'[') => return self.events(visitor),
            Some(b'{') => self.at += 1,
            _ => return Err(self.wrong("neither an object nor a list")),
        }
        let mut value = Vec::new();
        loop {
            match self.peek()? {
                Some(b'}') => return Ok(()),
                Some(b',') => self.at += 1,
                Some(b'"') => {
                    value.clear();
                    self.value(&mut value, true)?;
                    let name: String = serde_json::from_slice(&value)
                        .map_err(|_| self.wrong("a field whose name is no string"))?;
                    if self.peek()? != Some(b':') {
                        return Err(self.wrong("a field without a value"));
                    }
                    self.at += 1;
                    if name == "traceEvents" {
                        self.events(visitor)?;
                        continue;
                    }
                    value.clear();
                    self.value(&mut value, true)?;
                    if value.len() < LARGEST {
                        visitor.field(&name, &value)?;
                    }
                }
                _ => return Err(self.wrong("the object is not closed")),
            }
        }
    }

    fn events(&mut self, visitor: &mut dyn Visitor) -> Result<()> {
        if self.peek()? != Some(b'[') {
            return Err(self.wrong("traceEvents is no list"));
        }
        let mut value = Vec::new();
        if !visitor.wants_events() {
            return self.value(&mut value, false);
        }
        self.at += 1;
        loop {
            match self.peek()? {
                Some(b']') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b',') => self.at += 1,
                Some(_) => {
                    value.clear();
                    self.value(&mut value, true)?;
                    if value.len() >= LARGEST {
                        return Err(self.wrong("an event of more than 16 MiB"));
                    }
                    visitor.event(&value)?;
                }
                None => return Err(self.wrong("the list of events is not closed")),
            }
        }
    }

    fn wrong(&self, what: &str) -> Error {
        let at = self.passed + self.at as u64;
        Error::file(&self.name, format!("at byte {at}: {what}"))
    }

    /// Makes the next byte available; false at the end.
    fn fill(&mut self) -> Result<bool> {
        if self.at < self.end {
            return Ok(true);
        }
        self.passed += self.end as u64;
        (self.at, self.end) = (0, 0);
        loop {
            match self.input.read(&mut self.buffer) {
                Ok(n) => {
                    self.end = n;
                    return Ok(n > 0);
                }
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::io(&self.name, &e)),
            }
        }
    }

    /// The next byte that is no blank.
    fn peek(&mut self) -> Result<Option<u8>> {
        while self.fill()? {
            let byte = self.buffer[self.at];
            if !byte.is_ascii_whitespace() {
                return Ok(Some(byte));
            }
            self.at += 1;
        }
        Ok(None)
    }

    /// Passes over one value, with its text to `to` if it is to be kept and not too large.
    fn value(&mut self, to: &mut Vec<u8>, keep: bool) -> Result<()> {
        let mut state = State::default();
        self.peek()?;
        loop {
            if !self.fill()? {
                let whole = state.depth == 0 && !state.text && state.begun;
                return if whole { Ok(()) } else { Err(self.wrong("the file ends in a value")) };
            }
            let bytes = &self.buffer[self.at..self.end];
            let taken = state.take(bytes);
            if keep && to.len() + taken <= LARGEST {
                to.extend_from_slice(&bytes[..taken]);
            }
            self.at += taken;
            if state.over {
                return Ok(());
            }
        }
    }
}

/// Where in a value the scanner is.
#[derive(Default)]
struct State {
    begun: bool,
    depth: usize,
    text: bool,
    escaped: bool,
    over: bool,
}

impl State {
    /// Bytes that belong to the value.
    fn take(&mut self, bytes: &[u8]) -> usize {
        for (i, &byte) in bytes.iter().enumerate() {
            if self.text {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => {
                        self.text = false;
                        if self.depth == 0 {
                            self.over = true;
                            return i + 1;
                        }
                    }
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.text = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' if self.depth > 0 => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        self.over = true;
                        return i + 1;
                    }
                }
                // A number or a word ends with what cannot be part of it.
                b',' | b'}' | b']' if self.depth == 0 => {
                    self.over = true;
                    return i;
                }
                b if b.is_ascii_whitespace() && self.depth == 0 && self.begun => {
                    self.over = true;
                    return i;
                }
                _ => {}
            }
            self.begun = true;
        }
        bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Seen {
        fields: Vec<(String, String)>,
        events: Vec<String>,
    }

    impl Visitor for Seen {
        fn field(&mut self, name: &str, json: &[u8]) -> Result<()> {
            self.fields.push((name.into(), String::from_utf8(json.to_vec()).unwrap()));
            Ok(())
        }

        fn wants_events(&self) -> bool {
            true
        }

        fn event(&mut self, json: &[u8]) -> Result<()> {
            self.events.push(String::from_utf8(json.to_vec()).unwrap());
            Ok(())
        }
    }

    /// Gives its bytes in pieces of one size.
    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
            let n = self.1.min(self.0.len()).min(to.len());
            to[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    #[test]
    fn whatever_the_pieces_the_values_are_the_same() {
        let text = r#" {"a": 12, "b" : "x\"]}\\", "traceEvents":[ {"n":"[{\"", "v":[1,2,{}]} ,
            3,"s"], "c": {"d":[true, null]},"e":-1.5e3 } "#;
        for size in 1..text.len() {
            let mut seen = Seen::default();
            Scanner::new(Pieces(text.as_bytes(), size), "t").walk(&mut seen).unwrap();
            let fields: Vec<(&str, &str)> =
                seen.fields.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
            let c = ("c", r#"{"d":[true, null]}"#);
            assert_eq!(fields, [("a", "12"), ("b", r#""x\"]}\\""#), c, ("e", "-1.5e3")]);
            assert_eq!(seen.events, [r#"{"n":"[{\"", "v":[1,2,{}]}"#, "3", r#""s""#]);
        }
        let mut seen = Seen::default();
        Scanner::new(&b"[{},{}]"[..], "t").walk(&mut seen).unwrap();
        assert_eq!(seen.events.len(), 2);
    }

    #[test]
    fn damaged_files_are_refused() {
        for text in [
            "",
            "x",
            "{",
            "{\"a\"",
            "{\"a\":",
            "{\"traceEvents\":[{}",
            "{\"traceEvents\":7}",
            "{\"a\":\"",
            "{\"a\":[1}",
            "[",
            "{5:1}",
        ] {
            let mut seen = Seen::default();
            assert!(Scanner::new(text.as_bytes(), "t").walk(&mut seen).is_err(), "{text}");
        }
    }
}
