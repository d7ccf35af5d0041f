//! The head of a request: httparse for the grammar, and the rules that it leaves open.

use super::framing::{Framing, framing};
use super::limits::{Limits, TRAILER_FIELDS};
use super::refused::Refused;
use super::target;

/// A request without its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    pub method: String,
    /// Percent-encoded, begins with `/` (or is `*` for OPTIONS).
    pub path: String,
    pub query: Option<String>,
    /// The 1 of HTTP/1.1.
    pub minor: u8,
    /// Names in lower case; values without blanks around them.
    pub fields: Vec<(String, String)>,
    pub framing: Framing,
    /// The client wants the connection to stay open.
    pub keep_alive: bool,
    pub expects_continue: bool,
}

/// Most fields that are parsed; [`Limits::fields`] is below it.
const MAX_FIELDS: usize = 128;

impl Head {
    /// Reads a complete head, its empty line included.
    pub fn parse(bytes: &[u8], limits: &Limits) -> Result<Head, Refused> {
        let mut storage = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut parsed = httparse::Request::new(&mut storage);
        match parsed.parse(bytes) {
            Ok(httparse::Status::Complete(used)) if used == bytes.len() => {}
            Ok(_) => return Err(Refused::bad("the request head is incomplete")),
            Err(error) => return Err(refuse(error, bytes)),
        }
        let (Some(method), Some(path), Some(minor)) = (parsed.method, parsed.path, parsed.version)
        else {
            return Err(Refused::bad("the request line is incomplete"));
        };
        if parsed.headers.len() > limits.fields {
            let most = limits.fields;
            return Err(Refused::new(431, format!("more than {most} header fields")));
        }
        if method.len() > 16 || !method.bytes().all(|b| b.is_ascii_uppercase()) {
            return Err(Refused::bad("the method must be upper-case letters"));
        }
        let target = target::parse(method, path)?;
        let fields = fields(parsed.headers);
        check_host(&fields, minor, target.authority.as_deref())?;
        Ok(Head {
            method: method.to_owned(),
            path: target.path,
            query: target.query,
            minor,
            framing: framing(&fields, minor)?,
            keep_alive: keep_alive(&fields, minor),
            expects_continue: expects_continue(&fields, minor)?,
            fields,
        })
    }

    /// The value of a field, by its name in lower case; the first, if it is given several times.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// How often a field is given.
    pub fn count(&self, name: &str) -> usize {
        self.fields.iter().filter(|(n, _)| n == name).count()
    }

    /// The decoded value of a query parameter.
    pub fn parameter(&self, name: &str) -> Option<String> {
        target::parameter(self.query.as_deref()?, name)
    }
}

fn fields(parsed: &[httparse::Header]) -> Vec<(String, String)> {
    let trim = |v: &[u8]| String::from_utf8_lossy(v).trim_matches([' ', '\t']).to_owned();
    parsed.iter().map(|h| (h.name.to_ascii_lowercase(), trim(h.value))).collect()
}

/// httparse's verdict as a status: a version that is well formed but not ours is 505.
fn refuse(error: httparse::Error, bytes: &[u8]) -> Refused {
    let line = bytes.split(|b| *b == b'\r').next().unwrap_or_default();
    let version = line.rsplit(|b| *b == b' ').next().unwrap_or_default();
    let digit = |at: usize| version.get(at).is_some_and(u8::is_ascii_digit);
    let three_words = line.iter().filter(|b| **b == b' ').count() == 2;
    let other = three_words && version.len() == 8 && version.starts_with(b"HTTP/");
    let other = other && version.get(6) == Some(&b'.');
    match error {
        httparse::Error::TooManyHeaders => Refused::new(431, "too many header fields"),
        httparse::Error::Version if other && digit(5) && digit(7) => {
            Refused::new(505, "HTTP/1.1 and HTTP/1.0 are spoken here")
        }
        error => Refused::bad(format!("the request head is malformed: {error}")),
    }
}

/// Exactly one Host in HTTP/1.1, at most one in HTTP/1.0, the same as an absolute target's.
fn check_host(
    fields: &[(String, String)],
    minor: u8,
    authority: Option<&str>,
) -> Result<(), Refused> {
    let mut hosts = fields.iter().filter(|(n, _)| n == "host").map(|(_, v)| v.as_str());
    let (host, more) = (hosts.next(), hosts.next());
    if more.is_some() {
        return Err(Refused::bad("Host is given twice"));
    }
    match host {
        None if minor == 1 => return Err(Refused::bad("Host is missing")),
        Some(host) if !target::is_host(host) => {
            return Err(Refused::bad("Host is not a host name with an optional port"));
        }
        _ => {}
    }
    match (authority, host) {
        (Some(authority), _) if !target::is_host(authority) => {
            Err(Refused::bad("the target's host is malformed"))
        }
        (Some(a), Some(h)) if !a.eq_ignore_ascii_case(h) => {
            Err(Refused::bad("the target's host differs from Host"))
        }
        _ => Ok(()),
    }
}

fn keep_alive(fields: &[(String, String)], minor: u8) -> bool {
    let mut keep = minor == 1;
    for (_, value) in fields.iter().filter(|(n, _)| n == "connection") {
        for word in value.split(',').map(str::trim) {
            if word.eq_ignore_ascii_case("close") {
                return false;
            }
            keep |= word.eq_ignore_ascii_case("keep-alive");
        }
    }
    keep
}

fn expects_continue(fields: &[(String, String)], minor: u8) -> Result<bool, Refused> {
    let Some((_, value)) = fields.iter().find(|(n, _)| n == "expect") else { return Ok(false) };
    if !value.eq_ignore_ascii_case("100-continue") {
        return Err(Refused::new(417, "the only expectation that is met is 100-continue"));
    }
    Ok(minor == 1)
}

/// tchar of RFC 9110 §5.6.2.
pub fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Checks a trailer section, its empty line included. Its fields are of no use here; those that
/// would change how the message is read are refused.
pub fn check_trailers(bytes: &[u8]) -> Result<(), Refused> {
    let mut storage = [httparse::EMPTY_HEADER; TRAILER_FIELDS];
    let Ok(httparse::Status::Complete((used, fields))) =
        httparse::parse_headers(bytes, &mut storage)
    else {
        return Err(Refused::bad("the trailer section is malformed"));
    };
    let forbidden = ["content-length", "transfer-encoding", "host", "authorization", "trailer"];
    let named = |h: &httparse::Header| forbidden.iter().any(|f| h.name.eq_ignore_ascii_case(f));
    if used != bytes.len() || fields.iter().any(named) {
        return Err(Refused::bad("the trailer section has a field that may not be there"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(name: &str, values: &[&str]) -> Vec<(String, String)> {
        values.iter().map(|value| (name.to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn who_keeps_a_connection() {
        for (values, old, new) in [
            (&[][..], false, true),
            (&["close"], false, false),
            (&["x, Close"], false, false),
            (&["keep-alive", "CLOSE"], false, false),
            (&["Keep-Alive"], true, true),
            (&["upgrade"], false, true),
        ] {
            let fields = fields("connection", values);
            assert_eq!((keep_alive(&fields, 0), keep_alive(&fields, 1)), (old, new), "{values:?}");
        }
    }

    #[test]
    fn who_waits_for_100_continue() {
        let expects = |values: &[&str], minor| {
            expects_continue(&fields("expect", values), minor).map_err(|e| e.status)
        };
        assert_eq!(expects(&[], 1), Ok(false));
        assert_eq!(expects(&["100-Continue"], 1), Ok(true));
        assert_eq!(expects(&["100-continue"], 0), Ok(false), "HTTP/1.0 knows no 100");
        assert_eq!(expects(&["200-ok"], 1), Err(417));
    }
}
