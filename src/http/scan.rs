//! Finds the end of a request head or trailer section, one byte at a time, so that the outcome
//! does not depend on how the bytes were cut into packets, and a slow sender costs no re-reading.

use super::limits::{self, Limits};
use super::refused::Refused;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    LineStart,
    Line,
    /// After a CR; `empty`: the line has nothing else.
    Cr {
        empty: bool,
    },
}

/// A scan in progress.
#[derive(Debug, Clone)]
pub struct Scan {
    state: State,
    bytes: usize,
    line: usize,
    lines: usize,
    /// Empty lines that may still come before the first line (RFC 9112 §2.2 suggests one).
    skip: usize,
    limits: Limits,
    trailers: bool,
}

/// What a byte led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scanned {
    More,
    /// An empty line before the request: drop what was gathered.
    Skipped,
    End,
}

impl Scan {
    pub fn head(limits: Limits) -> Self {
        let state = State::LineStart;
        Scan { state, bytes: 0, line: 0, lines: 0, skip: 1, limits, trailers: false }
    }

    /// Trailer fields: a section that may be empty.
    pub fn trailers() -> Self {
        let (head, fields) = (limits::TRAILERS, limits::TRAILER_FIELDS);
        let limits = Limits { line: head, head, fields, ..Limits::default() };
        let state = State::LineStart;
        Scan { state, bytes: 0, line: 0, lines: 0, skip: 0, limits, trailers: true }
    }

    /// Nothing but skipped empty lines has been seen.
    pub fn is_fresh(&self) -> bool {
        self.bytes == 0
    }

    pub fn push(&mut self, byte: u8) -> Result<Scanned, Refused> {
        self.bytes += 1;
        self.line += 1;
        self.check_sizes()?;
        match (self.state, byte) {
            (State::Cr { empty }, b'\n') => return self.end_of_line(empty),
            (State::Cr { .. }, _) => return Err(bad("a CR that is not followed by LF")),
            (_, b'\n') => return Err(bad("a line that ends in a bare LF")),
            (State::LineStart, b' ' | b'\t') => return Err(bad("a folded or indented line")),
            (state, b'\r') => self.state = State::Cr { empty: state == State::LineStart },
            (_, b'\t' | b' '..=b'~' | 0x80..) => self.state = State::Line,
            _ => return Err(bad("a control character")),
        }
        Ok(Scanned::More)
    }

    fn end_of_line(&mut self, empty: bool) -> Result<Scanned, Refused> {
        self.state = State::LineStart;
        self.line = 0;
        if !empty {
            self.lines += 1;
            return Ok(Scanned::More);
        }
        if self.lines > 0 || self.trailers {
            return Ok(Scanned::End);
        }
        if self.skip == 0 {
            return Err(bad("empty lines before the request line"));
        }
        self.skip -= 1;
        self.bytes = 0;
        Ok(Scanned::Skipped)
    }

    fn check_sizes(&self) -> Result<(), Refused> {
        let l = &self.limits;
        let first = self.lines == 0 && !self.trailers;
        if first && self.line > l.line {
            return Err(Refused::new(414, format!("the request line is over {} bytes", l.line)));
        }
        if self.bytes > l.head {
            return Err(Refused::new(431, format!("the head is over {} bytes", l.head)));
        }
        // Of a head the first line is no field.
        if self.lines > l.fields + usize::from(!self.trailers) {
            return Err(Refused::new(431, format!("more than {} header fields", l.fields)));
        }
        Ok(())
    }
}

fn bad(what: &str) -> Refused {
    Refused::bad(format!("the request head has {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The status that a section is refused with, or whether it ended.
    fn scanned(mut scan: Scan, text: &str) -> Result<bool, u16> {
        let mut ended = false;
        for byte in text.bytes() {
            ended = scan.push(byte).map_err(|e| e.status)? == Scanned::End;
        }
        Ok(ended)
    }

    #[test]
    fn as_many_fields_as_the_limit_says_and_no_more() {
        let most = Limits::default().fields;
        let head = |n: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(n));
        let trailers = |n: usize| format!("{}\r\n", "a: b\r\n".repeat(n));
        assert_eq!(scanned(Scan::head(Limits::default()), &head(most)), Ok(true));
        assert_eq!(scanned(Scan::head(Limits::default()), &head(most + 1)), Err(431));
        assert_eq!(scanned(Scan::trailers(), &trailers(limits::TRAILER_FIELDS)), Ok(true));
        assert_eq!(scanned(Scan::trailers(), &trailers(limits::TRAILER_FIELDS + 1)), Err(431));
    }

    #[test]
    fn one_empty_line_before_a_request_is_passed_over() {
        let get = "GET / HTTP/1.1\r\n\r\n";
        assert_eq!(scanned(Scan::head(Limits::default()), &format!("\r\n{get}")), Ok(true));
        assert_eq!(scanned(Scan::head(Limits::default()), &format!("\r\n\r\n{get}")), Err(400));
    }
}
