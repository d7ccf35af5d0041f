//! Stop strings over streamed text.

use crate::error::{Error, Result};

/// What a push made certain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Released {
    /// Text that no stop string can take back.
    pub text: String,
    /// Which stop string ended the text, by its place in the list. Later pushes give nothing.
    pub stopped_by: Option<usize>,
}

/// Finds the first stop string in a text that comes in pieces, and holds back what may become
/// one. The match that *ends* first counts, of two that end together the longer; how the text
/// is cut into pieces makes no difference. Time is bytes × stop strings (Knuth, Morris and
/// Pratt's automaton for each).
#[derive(Debug, Clone)]
pub struct StopMatcher {
    patterns: Vec<Pattern>,
    keep_stop: bool,
    held: String,
    stopped: bool,
}

impl StopMatcher {
    /// `no_stop_trim` leaves the stop string itself in the text. Errors: an empty stop string.
    pub fn new<S: AsRef<str>>(stops: &[S], no_stop_trim: bool) -> Result<Self> {
        if stops.iter().any(|stop| stop.as_ref().is_empty()) {
            return Err(Error::usage("stop: an empty string would stop at once; leave it out"));
        }
        let patterns = stops.iter().map(|stop| Pattern::new(stop.as_ref())).collect();
        Ok(StopMatcher { patterns, keep_stop: no_stop_trim, held: String::new(), stopped: false })
    }

    /// Adds a piece of text. Nothing after a stop string comes out, also from this piece.
    pub fn push(&mut self, piece: &str) -> Released {
        if self.stopped {
            return Released::default();
        }
        let before = self.held.len();
        self.held.push_str(piece);
        for (offset, byte) in piece.bytes().enumerate() {
            if let Some(index) = self.step(byte) {
                return self.stop(index, before + offset + 1);
            }
        }
        let hold = self.patterns.iter().map(|p| p.matched).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - hold);
        Released { text: std::mem::replace(&mut self.held, rest), stopped_by: None }
    }

    /// The text ended: what was held back is text after all.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// The longest stop string that ends with this byte.
    fn step(&mut self, byte: u8) -> Option<usize> {
        let mut found: Option<(usize, usize)> = None;
        for (index, pattern) in self.patterns.iter_mut().enumerate() {
            let length = pattern.step(byte);
            if length > found.map_or(0, |(_, longest)| longest) {
                found = Some((index, length));
            }
        }
        found.map(|(index, _)| index)
    }

    /// Cuts at the match of stop string `index` that ends `end` bytes into the held text.
    fn stop(&mut self, index: usize, end: usize) -> Released {
        let length = self.patterns.get(index).map_or(0, |p| p.bytes.len());
        let cut = if self.keep_stop { end } else { end - length };
        self.stopped = true;
        let mut text = std::mem::take(&mut self.held);
        text.truncate(cut);
        Released { text, stopped_by: Some(index) }
    }
}

/// One stop string and how much of it the text ends with.
#[derive(Debug, Clone)]
struct Pattern {
    bytes: Vec<u8>,
    /// `borders[i]`: the longest proper prefix of `bytes[..=i]` that is also its suffix.
    borders: Vec<usize>,
    matched: usize,
}

impl Pattern {
    fn new(text: &str) -> Self {
        let bytes = text.as_bytes().to_vec();
        let mut pattern = Pattern { borders: vec![0], matched: 0, bytes };
        for at in 1..pattern.bytes.len() {
            let byte = pattern.bytes[at];
            pattern.advance(byte);
            pattern.borders.push(pattern.matched);
        }
        pattern.matched = 0;
        pattern
    }

    /// Takes a byte; the length of the stop string if it is complete, else 0.
    fn step(&mut self, byte: u8) -> usize {
        self.advance(byte);
        if self.matched == self.bytes.len() { self.matched } else { 0 }
    }

    /// `matched` is below the pattern's length here: a complete match ends the matcher.
    fn advance(&mut self, byte: u8) {
        while self.matched > 0 && self.bytes.get(self.matched) != Some(&byte) {
            self.matched = self.borders[self.matched - 1];
        }
        if self.bytes.get(self.matched) == Some(&byte) {
            self.matched += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(stops: &[&str], keep: bool, pieces: &[&str]) -> (Vec<String>, Option<usize>, String) {
        let mut matcher = StopMatcher::new(stops, keep).unwrap();
        let released: Vec<Released> = pieces.iter().map(|p| matcher.push(p)).collect();
        let by = released.iter().find_map(|r| r.stopped_by);
        (released.into_iter().map(|r| r.text).collect(), by, matcher.finish())
    }

    #[test]
    fn holds_back_and_lets_go() {
        let (texts, by, rest) = run(&["</s>"], false, &["a<", "/", "b</", "s"]);
        assert_eq!((texts.concat().as_str(), by, rest.as_str()), ("a</b", None, "</s"));
        assert_eq!(texts, ["a", "", "</b", ""]);
    }

    #[test]
    fn cuts_across_pieces_and_drops_what_follows() {
        let (texts, by, rest) = run(&["x", "</s>"], false, &["a<", "/s", ">more", "later"]);
        assert_eq!((texts.concat().as_str(), by, rest.as_str()), ("a", Some(1), ""));
        let (texts, by, _) = run(&["</s>"], true, &["a<", "/s", ">more", "later"]);
        assert_eq!((texts.concat().as_str(), by), ("a</s>", Some(0)));
    }

    #[test]
    fn the_match_that_ends_first_counts_then_the_longer() {
        assert_eq!(run(&["abcd", "bc"], false, &["abcd"]).0, ["a"]);
        assert_eq!(run(&["c", "abc"], false, &["xabc"]), (vec!["x".into()], Some(1), "".into()));
    }

    #[test]
    fn no_stop_strings_hold_nothing_and_an_empty_one_is_refused() {
        assert_eq!(run(&[], false, &["世", "界"]).0, ["世", "界"]);
        assert!(StopMatcher::new(&["a", ""], false).is_err());
    }
}
