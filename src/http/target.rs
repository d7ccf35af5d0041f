//! Request targets: which are accepted, and how they are taken apart.

use super::refused::Refused;

/// A target in parts, still percent-encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Begins with `/`, or is `*`.
    pub path: String,
    pub query: Option<String>,
    /// The authority of an absolute-form target.
    pub authority: Option<String>,
}

/// Origin form (`/path?query`), absolute form (`http://host/path`), or `*` for OPTIONS.
pub fn parse(method: &str, target: &str) -> Result<Target, Refused> {
    if target == "*" {
        if method != "OPTIONS" {
            return Err(Refused::bad("the target * is only for OPTIONS"));
        }
        return Ok(Target { path: target.into(), query: None, authority: None });
    }
    let (authority, rest) = if target.starts_with('/') {
        (None, target)
    } else if let Some(rest) = strip_scheme(target) {
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        (Some(authority.to_owned()), rest)
    } else {
        return Err(Refused::bad("the target must begin with / or http://"));
    };
    let (path, query) = match rest.split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (rest, None),
    };
    if !legal(path, b"/") || !query.as_deref().is_none_or(|q| legal(q, b"/?")) {
        return Err(Refused::bad("the target has a character that must be percent-encoded"));
    }
    let path = if path.is_empty() { "/" } else { path };
    Ok(Target { path: path.to_owned(), query, authority })
}

fn strip_scheme(target: &str) -> Option<&str> {
    let (scheme, rest) = target.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case("http://").then_some(rest)
}

/// RFC 3986 pchar and `more`; every `%` with two hex digits.
fn legal(text: &str, more: &[u8]) -> bool {
    let bytes = text.as_bytes();
    (0..bytes.len()).all(|i| match bytes[i] {
        b'%' => bytes.get(i + 1..i + 3).is_some_and(|h| h.iter().all(u8::is_ascii_hexdigit)),
        b => b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&b) || more.contains(&b),
    })
}

/// `uri-host [ ":" port ]` (RFC 9110 §7.2), not empty.
pub fn is_host(text: &str) -> bool {
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((v6, "")) => (v6, None),
            Some((v6, port)) if port.starts_with(':') => (v6, Some(&port[1..])),
            _ => return false,
        },
        None => match text.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (text, None),
        },
    };
    let v6 = text.starts_with('[');
    let in_name = |b: u8| match v6 {
        true => b.is_ascii_hexdigit() || b == b':' || b == b'.',
        false => b.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&b),
    };
    let digits = |p: &str| p.len() <= 5 && p.bytes().all(|b| b.is_ascii_digit());
    !name.is_empty() && name.bytes().all(in_name) && port.is_none_or(digits)
}

/// `text` without percent-encoding; `None` if that is no UTF-8 or holds a control character.
pub fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if byte == b'%' {
            let hex = std::str::from_utf8(after.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(hex, 16).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(byte);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok().filter(|t| !t.chars().any(char::is_control))
}

/// The decoded value of `name` in a query.
pub fn parameter(query: &str, name: &str) -> Option<String> {
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let value = pairs.into_iter().find(|(key, _)| *key == name)?.1;
    decode(&value.replace('+', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_targets() {
        let path = |t: &str| parse("GET", t).map(|t| t.path).ok();
        assert_eq!(path("/a%20b?x=1"), Some("/a%20b".into()));
        assert_eq!(path("http://h:1/x"), Some("/x".into()));
        assert_eq!(path("HTTP://h"), Some("/".into()));
        for bad in [
            "",
            "*",
            "a",
            "/a#b",
            "/\\",
            "/%zz",
            "/%2g",
            "/%g2",
            "/%2",
            "/é",
            "/<",
            "https://h/",
            "h:1",
        ] {
            assert_eq!(path(bad), None, "{bad}");
        }
        assert_eq!(parse("OPTIONS", "*").map(|t| t.path), Ok("*".into()));
    }

    #[test]
    fn hosts() {
        for good in ["a", "a:80", "127.0.0.1:30000", "[::1]", "[::1]:80", "a-b.c"] {
            assert!(is_host(good), "{good}");
        }
        for bad in [
            "", ":80", "a b", "a:x", "a/b", "a@b", "[::1", "[]", "a:123456", "a,b c", "a:8x",
            "[::g]",
        ] {
            assert!(!is_host(bad), "{bad}");
        }
    }

    #[test]
    fn parameters_are_decoded() {
        assert_eq!(parameter("timeout=3&x=a%2Fb+c", "x"), Some("a/b c".into()));
        assert_eq!(parameter("timeout=3", "time"), None);
        assert_eq!(decode("%00"), None);
        assert_eq!(decode("a%00b"), None);
        assert_eq!(decode("%ff"), None);
    }
}
