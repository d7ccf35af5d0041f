//! The modifiers of one opcode, consumed one by one. Whatever nobody consumed makes the form
//! unknown, so nothing is ever skipped silently.

use crate::error::LoadError;
use crate::isa::{FMods, Order, Round, Scope, Space, Ty};
use crate::parse::clip;

/// An opcode being decoded.
pub struct Form<'a> {
    pub opcode: &'a str,
    pub base: &'a str,
    pub line: u32,
    rest: Vec<&'a str>,
}

impl<'a> Form<'a> {
    pub fn new(opcode: &'a str, line: u32) -> Self {
        let mut parts = opcode.split('.');
        let base = parts.next().unwrap_or("");
        Self { opcode, base, line, rest: parts.collect() }
    }

    /// Consumes a modifier if it is there.
    pub fn take(&mut self, word: &str) -> bool {
        match self.rest.iter().position(|part| *part == word) {
            Some(at) => {
                self.rest.remove(at);
                true
            }
            None => false,
        }
    }

    /// Consumes the first of the given modifiers that is there, and says which.
    pub fn one_of<T: Copy>(&mut self, words: &[(&str, T)]) -> Option<T> {
        words.iter().find(|(word, _)| self.take(word)).map(|(_, value)| *value)
    }

    /// As [`Form::one_of`], in the order in which modifiers are written.
    pub fn first_of<T: Copy>(&mut self, words: &[(&str, T)]) -> Option<T> {
        for at in 0..self.rest.len() {
            if let Some((_, value)) = words.iter().find(|(word, _)| *word == self.rest[at]) {
                self.rest.remove(at);
                return Some(*value);
            }
        }
        None
    }

    /// Consumes the next modifier for which `pick` has a value.
    pub fn pick<T>(&mut self, pick: impl Fn(&str) -> Option<T>) -> Option<T> {
        for at in 0..self.rest.len() {
            if let Some(value) = pick(self.rest[at]) {
                self.rest.remove(at);
                return Some(value);
            }
        }
        None
    }

    pub fn ty(&mut self) -> Result<Ty, LoadError> {
        match self.pick(Ty::parse) {
            Some(ty) => Ok(ty),
            None => Err(self.unknown("a type is missing")),
        }
    }

    /// A required choice.
    pub fn need<T: Copy>(&mut self, what: &str, words: &[(&str, T)]) -> Result<T, LoadError> {
        match self.one_of(words) {
            Some(value) => Ok(value),
            None => Err(self.unknown(&format!("{what} is missing"))),
        }
    }

    /// An error that names the form.
    pub fn unknown(&self, why: &str) -> LoadError {
        let message = format!("unknown form '{}': {why}", clip_form(self.opcode));
        LoadError::new(self.line, message)
    }

    /// Fails if a modifier is left over.
    pub fn finish(&self) -> Result<(), LoadError> {
        match self.rest.first() {
            None => Ok(()),
            Some(part) => {
                Err(self.unknown(&format!("modifier '.{}' is not known here", clip(part))))
            }
        }
    }

    pub fn round(&mut self) -> Option<Round> {
        self.one_of(&[
            ("rn", Round::Near),
            ("rz", Round::Zero),
            ("rm", Round::Down),
            ("rp", Round::Up),
            ("rna", Round::NearAway),
        ])
    }

    /// The usual modifiers of floating-point arithmetic.
    pub fn fmods(&mut self) -> FMods {
        FMods {
            round: self.round().unwrap_or(Round::Near),
            ftz: self.take("ftz"),
            sat: self.take("sat"),
            relu: self.take("relu"),
            nan: self.take("NaN"),
            xorsign_abs: self.take("xorsign") && self.take("abs"),
            approx: self.take("approx") || self.take("full"),
        }
    }

    pub fn space(&mut self) -> Space {
        let spaces = [
            ("global", Space::Global),
            ("const", Space::Const),
            ("param", Space::Param),
            ("param::entry", Space::Param),
            ("param::func", Space::Param),
            ("local", Space::Local),
            ("shared", Space::Shared),
            ("shared::cta", Space::Shared),
            ("shared::cluster", Space::SharedCluster),
        ];
        self.one_of(&spaces).unwrap_or(Space::Generic)
    }

    /// Ordering of a memory access.
    pub fn order(&mut self) -> Order {
        let order = self.one_of(&[
            ("weak", Order::Weak),
            ("volatile", Order::Volatile),
            ("relaxed", Order::Relaxed),
            ("acquire", Order::Acquire),
            ("release", Order::Release),
            ("acq_rel", Order::AcqRel),
            ("mmio", Order::Volatile),
        ]);
        order.unwrap_or(Order::Weak)
    }

    /// Consumes a scope; `None` if there is none.
    pub fn scope(&mut self) -> Option<Scope> {
        self.one_of(&[
            ("cta", Scope::Block),
            ("cluster", Scope::Cluster),
            ("gpu", Scope::Device),
            ("gl", Scope::Device),
            ("sys", Scope::Device),
        ])
    }

    /// Consumes cache hints, which change nothing that this machine models.
    pub fn cache_hints(&mut self) -> bool {
        let plain = ["ca", "cg", "cs", "lu", "cv", "wb", "wt", "nc", "unified"];
        for hint in plain {
            self.take(hint);
        }
        let prefix = |part: &str| {
            let known = part.starts_with("L1::") || part.starts_with("L2::");
            (known && part != "L2::cache_hint").then_some(())
        };
        while self.pick(prefix).is_some() {}
        self.take("L2::cache_hint")
    }

    pub fn vector(&mut self) -> usize {
        self.one_of(&[("v2", 2), ("v4", 4), ("v8", 8)]).unwrap_or(1)
    }
}

fn clip_form(opcode: &str) -> &str {
    match opcode.char_indices().nth(120) {
        Some((end, _)) => &opcode[..end],
        None => opcode,
    }
}
