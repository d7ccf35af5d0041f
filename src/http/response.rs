//! What goes out: whole responses, and streams of server-sent events.

use serde_json::{Value, json};

use super::head::Head;
use super::refused::{self, Refused};

/// What of a request decides the form of its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exchange {
    /// The 1 of HTTP/1.1: without it there are no chunks.
    pub minor: u8,
    /// The answer to HEAD has no body.
    pub head_only: bool,
    /// The connection stays open afterwards.
    pub keep_alive: bool,
}

impl Exchange {
    pub fn of(head: &Head) -> Self {
        let head_only = head.method == "HEAD";
        Exchange { minor: head.minor, head_only, keep_alive: head.keep_alive }
    }

    /// For bytes that were no request.
    pub fn broken() -> Self {
        Exchange { minor: 1, head_only: false, keep_alive: false }
    }
}

/// A whole response.
#[derive(Debug, Clone, PartialEq)]
pub struct Response {
    pub status: u16,
    pub content_type: &'static str,
    /// Further fields.
    pub fields: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn new(status: u16, content_type: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Response { status, content_type, fields: Vec::new(), body: body.into() }
    }

    pub fn text(status: u16, body: impl Into<String>) -> Self {
        Self::new(status, "text/plain; charset=utf-8", body.into())
    }

    pub fn json(status: u16, body: &Value) -> Self {
        Self::new(status, "application/json", body.to_string())
    }

    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    /// Appends head and body to `out`; `date` is the value of the Date field.
    pub fn write(&self, exchange: &Exchange, date: &str, out: &mut Vec<u8>) {
        status_line(self.status, self.content_type, date, out);
        field("Content-Length", &self.body.len().to_string(), out);
        for (name, value) in &self.fields {
            field(name, value, out);
        }
        finish_head(exchange, out);
        if !exchange.head_only {
            out.extend_from_slice(&self.body);
        }
    }
}

impl From<&Refused> for Response {
    fn from(refused: &Refused) -> Self {
        let response = Response::json(refused.status, &error_json(refused));
        match refused.status {
            401 => response.with("WWW-Authenticate", "Bearer"),
            429 | 503 => response.with("Retry-After", "1"),
            _ => response,
        }
    }
}

/// `{"error": {"message", "type", "param", "code"}}`, with the outer fields that SGLang's OpenAI
/// routes have, so that clients of either find what they look for.
pub fn error_json(refused: &Refused) -> Value {
    let (message, kind) = (&refused.message, refused::kind(refused.status));
    let code = refused.status;
    json!({
        "object": "error",
        "message": message,
        "error": { "message": message, "type": kind, "param": refused.param, "code": code },
    })
}

fn status_line(status: u16, content_type: &str, date: &str, out: &mut Vec<u8>) {
    let reason = refused::reason(status);
    out.extend_from_slice(format!("HTTP/1.1 {status} {reason}\r\n").as_bytes());
    field("Date", date, out);
    field("Content-Type", content_type, out);
}

/// One field; control characters in its value become blanks.
fn field(name: &str, value: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend(value.bytes().map(|b| if b.is_ascii_control() { b' ' } else { b }));
    out.extend_from_slice(b"\r\n");
}

fn finish_head(exchange: &Exchange, out: &mut Vec<u8>) {
    field("X-Content-Type-Options", "nosniff", out);
    match (exchange.keep_alive, exchange.minor) {
        (false, _) => field("Connection", "close", out),
        (true, 0) => field("Connection", "keep-alive", out),
        (true, _) => {}
    }
    out.extend_from_slice(b"\r\n");
}

/// The answer to `Expect: 100-continue`.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A stream of server-sent events on its way out.
#[derive(Debug)]
pub struct EventStream {
    chunked: bool,
    /// One event's text, kept for its memory.
    scratch: Vec<u8>,
}

impl EventStream {
    /// Appends the head of the response. To an HTTP/1.0 client the end of the stream is the end
    /// of the connection, so `exchange` no longer keeps it alive.
    pub fn begin(exchange: &mut Exchange, date: &str, out: &mut Vec<u8>) -> Self {
        let chunked = exchange.minor > 0;
        exchange.keep_alive &= chunked;
        status_line(200, "text/event-stream; charset=utf-8", date, out);
        field("Cache-Control", "no-cache", out);
        if chunked {
            field("Transfer-Encoding", "chunked", out);
        }
        finish_head(exchange, out);
        EventStream { chunked, scratch: Vec::new() }
    }

    /// Appends one event: `data: {…}` and an empty line. `write` must write no line breaks,
    /// which JSON without indentation never has.
    pub fn event(&mut self, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
        self.scratch.clear();
        self.scratch.extend_from_slice(b"data: ");
        write(&mut self.scratch);
        self.scratch.extend_from_slice(b"\n\n");
        if self.chunked {
            out.extend_from_slice(format!("{:x}\r\n", self.scratch.len()).as_bytes());
        }
        out.extend_from_slice(&self.scratch);
        if self.chunked {
            out.extend_from_slice(b"\r\n");
        }
    }

    /// Appends `data: [DONE]` and the end of the body.
    pub fn end(&mut self, out: &mut Vec<u8>) {
        self.event(out, |event| event.extend_from_slice(b"[DONE]"));
        if self.chunked {
            out.extend_from_slice(b"0\r\n\r\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(minor: u8) -> Exchange {
        Exchange { minor, head_only: false, keep_alive: true }
    }

    #[test]
    fn a_response_has_its_length_and_no_injected_fields() {
        let mut out = Vec::new();
        let response = Response::text(200, "hi").with("X-Id", "a\r\nSet-Cookie: b");
        response.write(&exchange(1), "today", &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\nDate: today\r\n"), "{text}");
        assert!(text.contains("Content-Length: 2\r\nX-Id: a  Set-Cookie: b\r\n"), "{text}");
        assert!(text.ends_with("\r\n\r\nhi"), "{text}");
    }

    #[test]
    fn head_has_no_body_and_old_clients_no_chunks() {
        let mut out = Vec::new();
        let head = Exchange { head_only: true, ..exchange(1) };
        Response::text(200, "hi").write(&head, "", &mut out);
        assert!(out.ends_with(b"\r\n\r\n"));
        let mut old = exchange(0);
        out.clear();
        let mut stream = EventStream::begin(&mut old, "", &mut out);
        stream.event(&mut out, |e| e.extend_from_slice(b"{}"));
        stream.end(&mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(!old.keep_alive && text.contains("Connection: close\r\n"));
        assert!(text.ends_with("\r\n\r\ndata: {}\n\ndata: [DONE]\n\n"), "{text}");
    }

    #[test]
    fn events_are_chunks() {
        let mut out = Vec::new();
        let mut stream = EventStream::begin(&mut exchange(1), "", &mut out);
        out.clear();
        stream.event(&mut out, |e| e.extend_from_slice(b"{}"));
        stream.end(&mut out);
        assert_eq!(out, b"a\r\ndata: {}\n\n\r\ne\r\ndata: [DONE]\n\n\r\n0\r\n\r\n");
    }
}
