//! Every limit at its very value and one beyond, and what a head says when it is asked.

use pacer::http::fuzz::events;
use pacer::http::{Event, Head, Limits};

const LIMITS: Limits = Limits { line: 40, head: 120, fields: 5, body: 8, ahead: 64 };

/// The status of the refusal, or how many bodies came.
fn told(input: impl AsRef<[u8]>) -> Result<usize, u16> {
    let (events, _) = events(LIMITS, input.as_ref(), |left| left);
    let refused = events.iter().find_map(|e| match e {
        Event::Refused(refused) => Some(refused.status),
        _ => None,
    });
    let bodies = events.iter().filter(|e| matches!(e, Event::Body(_))).count();
    refused.map_or(Ok(bodies), Err)
}

fn head(text: &str) -> Box<Head> {
    let (events, _) = events(Limits::default(), text.as_bytes(), |left| left);
    match events.into_iter().next() {
        Some(Event::Head(head)) => head,
        other => panic!("{other:?}"),
    }
}

/// A request line of `bytes` bytes, its CRLF included.
fn line(bytes: usize) -> String {
    let path = "p".repeat(bytes - "GET / HTTP/1.1\r\n".len());
    format!("GET /{path} HTTP/1.1\r\n")
}

#[test]
fn a_request_line_as_long_as_is_allowed() {
    for before in ["", "\r\n"] {
        let whole = |bytes| told(format!("{before}{}Host: a\r\n\r\n", line(bytes)));
        assert_eq!((whole(40), whole(41)), (Ok(1), Err(414)), "{before:?}");
    }
}

#[test]
fn a_head_as_long_as_is_allowed() {
    for before in ["", "\r\n"] {
        let whole = |bytes: usize| {
            let rest = bytes - "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n".len();
            let field = "x".repeat(rest);
            told(format!("{before}GET / HTTP/1.1\r\nHost: a\r\nX: {field}\r\n\r\n"))
        };
        assert_eq!((whole(120), whole(121)), (Ok(1), Err(431)), "{before:?}");
    }
}

#[test]
fn as_many_fields_as_are_allowed() {
    let whole = |fields: usize| {
        let more: String = (1..fields).map(|n| format!("X{n}: 1\r\n")).collect();
        told(format!("GET / HTTP/1.1\r\nHost: a\r\n{more}\r\n"))
    };
    assert_eq!((whole(5), whole(6)), (Ok(1), Err(431)));
}

#[test]
fn a_body_as_long_as_is_allowed() {
    let whole = |bytes: usize| {
        let body = "b".repeat(bytes);
        told(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {bytes}\r\n\r\n{body}"))
    };
    assert_eq!((whole(8), whole(9)), (Ok(1), Err(413)));
}

#[test]
fn a_method_of_16_capitals() {
    let whole = |method: &str| told(format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n"));
    let (longest, longer) = ("M".repeat(16), "M".repeat(17));
    assert_eq!((whole(&longest), whole(&longer)), (Ok(1), Err(400)));
    assert_eq!((whole("Get"), whole("gEt")), (Err(400), Err(400)));
}

#[test]
fn a_head_finds_its_own_fields() {
    let head = head("GET /x?a=1&b=2 HTTP/1.1\r\nX: 1\r\nHost: a\r\nX: 2\r\nx: 3\r\n\r\n");
    assert_eq!(
        (head.field("host"), head.field("x"), head.field("y")),
        (Some("a"), Some("1"), None)
    );
    assert_eq!((head.count("host"), head.count("x"), head.count("y")), (1, 3, 0));
    assert_eq!((head.parameter("b").as_deref(), head.parameter("c")), (Some("2"), None));
}
