//! Grammars written `name ::= …`, as llama.cpp and xgrammar take them: literals, character
//! classes, groups, alternatives and repetitions.
//!
//! A part without recursion becomes one regular expression, so that it is matched exactly;
//! around it stand rules. A regular expression inside rules is a lexeme and matches greedily.

use std::collections::BTreeMap;

use llguidance::api::TopLevelGrammar;

use super::spec::{MAX_DEPTH, MAX_REPEAT};
use crate::error::{Error, Result};

/// Largest regular expression that rules are put together into.
const MAX_INLINE: usize = 64 << 10;

/// Is it this notation, rather than Lark's?
pub fn looks_like(text: &str) -> bool {
    text.contains("::=")
}

#[derive(Debug, Clone, PartialEq)]
enum Node {
    /// A regular expression that matches a literal, a class or any character.
    Regex(String),
    Rule(String),
    Sequence(Vec<Node>),
    Either(Vec<Node>),
    /// At least, at most (`None`: any number).
    Repeat(Box<Node>, u32, Option<u32>),
}

/// A parsed grammar: rules by name, in alphabetical order.
#[derive(Debug)]
pub struct Gbnf {
    rules: BTreeMap<String, Node>,
}

/// # Errors
/// Where the text is no grammar, by line; no rule `root`; a rule that is not defined.
pub fn parse(text: &str) -> Result<Gbnf> {
    let mut reader = Reader { text, at: 0 };
    let mut rules = BTreeMap::new();
    loop {
        reader.blanks();
        if reader.rest().is_empty() {
            break;
        }
        let name = reader.name().ok_or_else(|| reader.fault("expected the name of a rule"))?;
        reader.blanks();
        reader.expect("::=")?;
        let node = reader.alternatives(0)?;
        if rules.insert(name.clone(), node).is_some() {
            return Err(Error::usage(format!("ebnf: rule {name} is defined twice")));
        }
    }
    let grammar = Gbnf { rules };
    grammar.check()?;
    Ok(grammar)
}

impl Gbnf {
    fn check(&self) -> Result<()> {
        if !self.rules.contains_key("root") {
            return Err(Error::usage("ebnf: there is no rule root"));
        }
        let mut named = Vec::new();
        self.rules.values().for_each(|node| node.names(&mut named));
        match named.iter().find(|name| !self.rules.contains_key(**name)) {
            Some(name) => Err(Error::usage(format!("ebnf: rule {name} is not defined"))),
            None => Ok(()),
        }
    }

    /// # Errors
    /// If it is too large once put together.
    pub(super) fn to_grammar(&self) -> Result<TopLevelGrammar> {
        let mut regular: BTreeMap<&str, String> = BTreeMap::new();
        // A rule is regular if all that it names is; as many rounds as there are levels.
        loop {
            let before = regular.len();
            for (name, node) in &self.rules {
                if !regular.contains_key(name.as_str())
                    && let Some(regex) = node.regex(&regular).filter(|r| r.len() <= MAX_INLINE)
                {
                    regular.insert(name, regex);
                }
            }
            if regular.len() == before {
                break;
            }
        }
        if let Some(regex) = regular.get("root") {
            return Ok(TopLevelGrammar::from_regex(regex));
        }
        let names: BTreeMap<&str, String> = self
            .rules
            .keys()
            .zip(0..)
            .map(|(n, i): (&String, u32)| (n.as_str(), rule_name(n, i)))
            .collect();
        let mut lark = String::new();
        for (name, node) in &self.rules {
            if !regular.contains_key(name.as_str()) {
                lark.push_str(&format!(
                    "{}: {}\n",
                    names[name.as_str()],
                    node.lark(&regular, &names)
                ));
            }
        }
        if lark.len() > 4 * MAX_INLINE {
            return Err(Error::usage("ebnf: the grammar is too large once put together"));
        }
        Ok(TopLevelGrammar::from_lark(lark))
    }
}

fn rule_name(name: &str, index: u32) -> String {
    if name == "root" { "start".to_owned() } else { format!("r{index}") }
}

impl Node {
    fn names<'a>(&'a self, found: &mut Vec<&'a str>) {
        match self {
            Node::Regex(_) => {}
            Node::Rule(name) => found.push(name),
            Node::Sequence(list) | Node::Either(list) => list.iter().for_each(|n| n.names(found)),
            Node::Repeat(node, ..) => node.names(found),
        }
    }

    /// As one regular expression, if everything named is in `known`.
    fn regex(&self, known: &BTreeMap<&str, String>) -> Option<String> {
        Some(match self {
            Node::Regex(regex) => regex.clone(),
            Node::Rule(name) => format!("(?:{})", known.get(name.as_str())?),
            Node::Sequence(list) => {
                list.iter().map(|n| n.regex(known)).collect::<Option<Vec<_>>>()?.concat()
            }
            Node::Either(list) => {
                let each: Option<Vec<_>> = list.iter().map(|n| n.regex(known)).collect();
                format!("(?:{})", each?.join("|"))
            }
            Node::Repeat(node, least, most) => {
                format!("(?:{}){}", node.regex(known)?, repetition(*least, *most))
            }
        })
    }

    /// As a Lark expression: regular parts are lexemes.
    fn lark(&self, known: &BTreeMap<&str, String>, names: &BTreeMap<&str, String>) -> String {
        if let Some(regex) = self.regex(known) {
            return lexeme(&regex);
        }
        match self {
            Node::Regex(regex) => lexeme(regex),
            Node::Rule(name) => names.get(name.as_str()).cloned().unwrap_or_default(),
            Node::Sequence(list) => {
                let each: Vec<_> = list.iter().map(|n| n.lark(known, names)).collect();
                format!("({})", each.join(" "))
            }
            Node::Either(list) => {
                let each: Vec<_> = list.iter().map(|n| n.lark(known, names)).collect();
                format!("({})", each.join(" | "))
            }
            Node::Repeat(node, least, most) => {
                format!("({}){}", node.lark(known, names), repetition(*least, *most))
            }
        }
    }
}

/// A regular expression as a Lark terminal; one that matches nothing at all is left out.
fn lexeme(regex: &str) -> String {
    if regex.is_empty() {
        return "\"\"".to_owned();
    }
    format!("/{}/", regex.replace('/', "\\/"))
}

fn repetition(least: u32, most: Option<u32>) -> String {
    match (least, most) {
        (0, None) => "*".to_owned(),
        (1, None) => "+".to_owned(),
        (0, Some(1)) => "?".to_owned(),
        (least, None) => format!("{{{least},}}"),
        (least, Some(most)) => format!("{{{least},{most}}}"),
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn take(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn fault(&self, what: &str) -> Error {
        let line = 1 + self.text[..self.at].matches('\n').count();
        let near: String = self.rest().chars().take(20).collect();
        Error::usage(format!("ebnf, line {line}: {what}, found {near:?}"))
    }

    /// Blanks, line ends and comments.
    fn blanks(&mut self) {
        while let Some(c) = self.peek() {
            if c == '#' {
                self.at += self.rest().find('\n').unwrap_or(self.rest().len());
            } else if c.is_whitespace() {
                self.take();
            } else {
                return;
            }
        }
    }

    fn expect(&mut self, wanted: &str) -> Result<()> {
        if !self.rest().starts_with(wanted) {
            return Err(self.fault(&format!("expected {wanted}")));
        }
        self.at += wanted.len();
        Ok(())
    }

    fn name(&mut self) -> Option<String> {
        let inside = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let end = self.rest().find(|c| !inside(c)).unwrap_or(self.rest().len());
        let name = self.rest()[..end].to_owned();
        self.at += end;
        (!name.is_empty()).then_some(name)
    }

    /// The next name begins another rule.
    fn at_next_rule(&mut self) -> bool {
        let at = self.at;
        let named = self.name().is_some();
        self.blanks();
        let next = named && self.rest().starts_with("::=");
        self.at = at;
        next
    }

    fn alternatives(&mut self, depth: usize) -> Result<Node> {
        if depth > MAX_DEPTH {
            return Err(self.fault(&format!("groups are nested more than {MAX_DEPTH} deep")));
        }
        let mut either = vec![self.sequence(depth)?];
        while self.peek() == Some('|') {
            self.take();
            either.push(self.sequence(depth)?);
        }
        Ok(if either.len() == 1 { either.remove(0) } else { Node::Either(either) })
    }

    fn sequence(&mut self, depth: usize) -> Result<Node> {
        let mut list = Vec::new();
        loop {
            self.blanks();
            let node = match self.peek() {
                None | Some('|' | ')') => break,
                Some('"') => self.literal()?,
                Some('[') => self.class()?,
                Some('.') => {
                    self.take();
                    Node::Regex("(?s:.)".to_owned())
                }
                Some('(') => {
                    self.take();
                    let inner = self.alternatives(depth + 1)?;
                    self.expect(")")?;
                    inner
                }
                Some(_) => {
                    if self.at_next_rule() {
                        break;
                    }
                    let name = self.name();
                    Node::Rule(name.ok_or_else(|| self.fault("expected a part of a rule"))?)
                }
            };
            list.push(self.repeated(node)?);
        }
        Ok(if list.len() == 1 { list.remove(0) } else { Node::Sequence(list) })
    }

    fn repeated(&mut self, mut node: Node) -> Result<Node> {
        let mut times = 0;
        loop {
            let (least, most) = match self.peek() {
                Some('*') => (0, None),
                Some('+') => (1, None),
                Some('?') => (0, Some(1)),
                Some('{') => {
                    let bounds = self.bounds()?;
                    node = Node::Repeat(Box::new(node), bounds.0, bounds.1);
                    continue;
                }
                _ => return Ok(node),
            };
            times += 1;
            if times > MAX_DEPTH {
                return Err(self.fault("too many repetitions of repetitions"));
            }
            self.take();
            node = Node::Repeat(Box::new(node), least, most);
        }
    }

    /// `{m}`, `{m,}` or `{m,n}`.
    fn bounds(&mut self) -> Result<(u32, Option<u32>)> {
        let end = self.rest().find('}').ok_or_else(|| self.fault("expected }"))?;
        let inner = self.rest()[1..end].to_owned();
        let number = |text: &str| text.trim().parse().ok().filter(|n: &u32| *n <= MAX_REPEAT);
        let parsed = match inner.split_once(',') {
            None => number(&inner).map(|n| (n, Some(n))),
            Some((least, most)) if most.trim().is_empty() => number(least).map(|n| (n, None)),
            Some((least, most)) => {
                let both = number(least).zip(number(most)).filter(|(least, most)| least <= most);
                both.map(|(least, most)| (least, Some(most)))
            }
        };
        let wanted = format!("expected a repetition from 0 to {MAX_REPEAT}, the smaller first");
        let bounds = parsed.ok_or_else(|| self.fault(&wanted))?;
        self.at += end + 1;
        Ok(bounds)
    }

    fn literal(&mut self) -> Result<Node> {
        self.take();
        let mut text = String::new();
        loop {
            match self.take() {
                None => return Err(self.fault("a literal has no end")),
                Some('"') => return Ok(Node::Regex(regex::escape(&text))),
                Some('\\') => text.push(self.escaped()?),
                Some(c) => text.push(c),
            }
        }
    }

    fn escaped(&mut self) -> Result<char> {
        let digits = match self.take() {
            Some('n') => return Ok('\n'),
            Some('r') => return Ok('\r'),
            Some('t') => return Ok('\t'),
            Some('x') => 2,
            Some('u') => 4,
            Some('U') => 8,
            Some(c) if !c.is_alphanumeric() => return Ok(c),
            _ => return Err(self.fault("an escape that is not known")),
        };
        let code = self.rest().get(..digits).and_then(|hex| u32::from_str_radix(hex, 16).ok());
        let c = code.and_then(char::from_u32);
        let c = c.ok_or_else(|| self.fault("expected a character's code"))?;
        self.at += digits;
        Ok(c)
    }

    /// `[a-z]`, `[^"\\]`.
    fn class(&mut self) -> Result<Node> {
        self.take();
        let mut class = String::from("[");
        if self.peek() == Some('^') {
            self.take();
            class.push('^');
        }
        let mut empty = true;
        loop {
            match self.take() {
                None => return Err(self.fault("a character class has no end")),
                Some(']') => break,
                Some('\\') => class.push_str(&in_class(self.escaped()?)),
                // A hyphen is a range unless it stands at an end.
                Some('-') if !empty && self.peek() != Some(']') => class.push('-'),
                Some(c) => class.push_str(&in_class(c)),
            }
            empty = false;
        }
        if empty {
            return Err(self.fault("an empty character class"));
        }
        class.push(']');
        Ok(Node::Regex(class))
    }
}

/// A character as it stands in a class of a regular expression.
fn in_class(c: char) -> String {
    if c.is_ascii_alphanumeric() || !c.is_ascii() {
        return c.to_string();
    }
    format!("\\x{:02x}", u32::from(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root_regex(text: &str) -> String {
        let grammar = parse(text).expect(text);
        grammar.rules["root"].regex(&BTreeMap::new()).expect("no other rule")
    }

    #[test]
    fn parts_become_regular_expressions() {
        assert_eq!(
            root_regex(r#"root ::= "a.b" [0-9]+ ("x" | "y")?"#),
            r"a\.b(?:[0-9])+(?:(?:x|y))?"
        );
        assert_eq!(
            root_regex("root ::= [^\"\\\\\\n]{2,3} # words\n .{4}"),
            r"(?:[^\x22\x5c\x0a]){2,3}(?:(?s:.)){4,4}"
        );
        assert_eq!(root_regex("root ::= [a\\-z-]"), r"[a\x2dz\x2d]");
    }

    #[test]
    fn rules_may_stand_on_many_lines_and_recurse() {
        let text =
            "root ::= list\nlist ::= \"[\" (item\n  (\",\" item)*)? \"]\"\nitem ::= [0-9] | list\n";
        let grammar = parse(text).expect("a grammar");
        assert_eq!(grammar.rules.len(), 3);
        let init = grammar.to_grammar().expect("small");
        let lark = init.grammars[0].lark_grammar.clone().expect("recursive, so not one expression");
        assert!(lark.contains("start: "), "{lark}");
    }

    #[test]
    fn what_is_no_grammar_is_said_with_its_line() {
        for (text, named) in [
            ("root = \"a\"", "::="),
            ("a ::= \"x\"", "no rule root"),
            ("root ::= b", "b is not defined"),
            ("root ::= \"a", "no end"),
            ("root ::= [a", "no end"),
            ("root ::= []", "empty"),
            ("root ::= \"a\"{5,0}", "smaller first"),
            ("root ::= \"a\"{4000000000}", "repetition"),
            ("root ::= \"a\"\nroot ::= \"b\"", "twice"),
            ("root ::= (\"a\"", "expected )"),
            ("root ::= \"a\"\n\n ) ", "line 3"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.message.contains(named), "{text}: {error}");
        }
        let deep = format!("root ::= {}\"a\"{}", "(".repeat(60_000), ")".repeat(60_000));
        assert!(parse(&deep).is_err_and(|e| e.message.contains("nested")));
        assert!(parse(&format!("root ::= \"a\"{}", "*".repeat(60_000))).is_err());
    }
}
