//! The head of an HTTP/1.1 response, as the load client reads it: pure, bytes in, facts out.

/// A head is no longer; what is longer is no answer of a server that can be measured.
pub const MAX_HEAD: usize = 64 << 10;

/// How the length of a body is told (RFC 9112, section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// No body at all: 1xx, 204, 304.
    Empty,
    Length(u64),
    Chunked,
    /// Until the server closes.
    Close,
}

/// What matters of a response head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    pub status: u16,
    pub framing: Framing,
    /// The connection may carry another request afterwards.
    pub keep_alive: bool,
    /// `Content-Type: text/event-stream`.
    pub events: bool,
}

/// What was found at the start of the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    Incomplete,
    /// A head, and how many bytes it takes up.
    Head(Head, usize),
    /// No HTTP/1 response; the text says what is wrong.
    Bad(String),
}

/// Reads the head at the start of `bytes`. Interim responses (100 Continue) are skipped.
pub fn parse(bytes: &[u8]) -> Parsed {
    let mut from = 0;
    loop {
        let rest = bytes.get(from..).unwrap_or_default();
        let Some(length) = end_of_head(rest) else {
            return match rest.len() {
                n if n > MAX_HEAD => Parsed::Bad(format!("a head of more than {MAX_HEAD} bytes")),
                _ if !could_begin(rest) => Parsed::Bad(format!("not HTTP/1: {}", sample(rest))),
                _ => Parsed::Incomplete,
            };
        };
        let head = match head(&rest[..length]) {
            Ok(head) => head,
            Err(what) => return Parsed::Bad(what),
        };
        from += length;
        if head.status >= 200 || head.status == 101 {
            return Parsed::Head(head, from);
        }
    }
}

/// Bytes up to and with the empty line.
fn end_of_head(bytes: &[u8]) -> Option<usize> {
    let mut line = 0;
    for (i, &byte) in bytes.iter().enumerate().take(MAX_HEAD) {
        if byte == b'\n' {
            let text = &bytes[line..i];
            if text.is_empty() || text == b"\r" {
                return Some(i + 1);
            }
            line = i + 1;
        }
    }
    None
}

fn could_begin(bytes: &[u8]) -> bool {
    let want = b"HTTP/1.";
    let n = bytes.len().min(want.len());
    bytes[..n] == want[..n]
}

/// The first bytes, for a message.
pub fn sample(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]);
    text.trim().escape_debug().to_string()
}

fn head(bytes: &[u8]) -> Result<Head, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "a head that is not UTF-8".to_string())?;
    let mut lines = text.lines();
    let first = lines.next().unwrap_or("");
    let mut words = first.split(' ');
    let version = words.next().unwrap_or("");
    let status: u16 = words.next().and_then(|w| w.parse().ok()).unwrap_or(0);
    if !version.starts_with("HTTP/1.") || !(100..1000).contains(&status) {
        return Err(format!("a status line that is none: {}", sample(first.as_bytes())));
    }
    let mut length = None;
    let (mut chunked, mut events) = (false, false);
    let mut keep_alive = version != "HTTP/1.0";
    for line in lines.filter(|l| !l.is_empty()) {
        let Some((name, value)) = line.split_once(':') else {
            return Err(format!("a header line without colon: {}", sample(line.as_bytes())));
        };
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => {
                let n: u64 = value.parse().map_err(|_| format!("content-length: {value}"))?;
                if length.is_some_and(|old| old != n) {
                    return Err("two different content-lengths".to_string());
                }
                length = Some(n);
            }
            "transfer-encoding" => {
                chunked = value.to_ascii_lowercase().ends_with("chunked");
                if !chunked {
                    return Err(format!("transfer-encoding: {value}"));
                }
            }
            "connection" => {
                let value = value.to_ascii_lowercase();
                let has = |word: &str| value.split(',').any(|v| v.trim() == word);
                keep_alive = !has("close") && (keep_alive || has("keep-alive"));
            }
            "content-encoding" if !value.eq_ignore_ascii_case("identity") => {
                return Err(format!("content-encoding: {value}, which was not asked for"));
            }
            "content-type" => events = value.to_ascii_lowercase().contains("event-stream"),
            _ => {}
        }
    }
    let framing = match (status, chunked, length) {
        (100..=199 | 204 | 304, ..) => Framing::Empty,
        (_, true, _) => Framing::Chunked,
        (_, false, Some(n)) => Framing::Length(n),
        (_, false, None) => Framing::Close,
    };
    keep_alive &= framing != Framing::Close;
    Ok(Head { status, framing, keep_alive, events })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ok(text: &str) -> (Head, usize) {
        match parse(text.as_bytes()) {
            Parsed::Head(head, n) => (head, n),
            other => panic!("{text:?}: {other:?}"),
        }
    }

    #[test]
    fn framings() {
        let (h, n) = ok("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
        assert_eq!((h.status, h.framing, h.keep_alive, n), (200, Framing::Length(5), true, 38));
        let (h, _) = ok("HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\nContent-Length: 5\r\n\
                         content-type: text/event-stream; charset=utf-8\r\n\r\n");
        assert_eq!((h.framing, h.events), (Framing::Chunked, true));
        let (h, _) = ok("HTTP/1.0 200 OK\n\nrest");
        assert_eq!((h.framing, h.keep_alive), (Framing::Close, false));
        let (h, _) = ok("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
        assert_eq!((h.framing, h.keep_alive), (Framing::Empty, false));
        let (h, _) = ok("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n");
        assert_eq!((h.status, h.framing), (500, Framing::Length(0)));
    }

    #[test]
    fn every_prefix_is_incomplete() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        for n in 0..text.len() {
            assert_eq!(parse(&text[..n]), Parsed::Incomplete, "{n}");
        }
    }

    #[test]
    fn what_is_no_response_is_said() {
        for bad in [
            "SSH-2.0-OpenSSH\r\n\r\n",
            "HTTP/1.1 abc\r\n\r\n",
            "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        ] {
            assert!(matches!(parse(bad.as_bytes()), Parsed::Bad(_)), "{bad}");
        }
        let endless = [b"HTTP/1.1 200 OK\r\nA: ".as_slice(), &vec![b'x'; MAX_HEAD]].concat();
        assert!(matches!(parse(&endless), Parsed::Bad(_)));
        assert!(matches!(parse(b"HTTQ"), Parsed::Bad(_)));
    }
}
