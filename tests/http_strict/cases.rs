//! The 121 cases: 12 valid messages, and 109 that some server somewhere misread.

use super::Want::{Bad, Ok, Wait};
use super::{Case, case};

const H: &str = "Host: a\r\n";

fn get(fields: &str) -> String {
    format!("GET / HTTP/1.1\r\n{H}{fields}\r\n")
}

fn line(line: &str) -> String {
    format!("{line}\r\n{H}\r\n")
}

fn post(fields: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\n{H}{fields}\r\n{body}")
}

fn chunked(body: &str) -> String {
    post("Transfer-Encoding: chunked\r\n", body)
}

pub fn groups() -> [Vec<Case>; 6] {
    [valid(), head(), length(), coding(), chunk(), desync()]
}

fn valid() -> Vec<Case> {
    let long = format!("GET /{} HTTP/1.1\r\n{H}\r\n", "a".repeat(8000));
    vec![
        case("get", get(""), Ok(1)),
        case("head", line("HEAD / HTTP/1.1"), Ok(1)),
        case("query", line("GET /a%20b?c=d&e=%2F HTTP/1.1"), Ok(1)),
        case("length", post("Content-Length: 3\r\n", "abc"), Ok(1)),
        case("length 0", post("Content-Length: 0\r\n", ""), Ok(1)),
        case("chunks", chunked("3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n"), Ok(1)),
        case("trailer", chunked("1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n"), Ok(1)),
        case("pipeline", [get(""), post("Content-Length: 1\r\n", "x"), get("")].concat(), Ok(3)),
        case("HTTP/1.0", "GET / HTTP/1.0\r\n\r\n", Ok(1)),
        case("absolute", line("GET http://a/x HTTP/1.1"), Ok(1)),
        case("8000 bytes of target", long, Ok(1)),
        case("blanks around a value", get("X-A:  \t b \t\r\n"), Ok(1)),
    ]
}

fn head() -> Vec<Case> {
    let many: String = (0..101).map(|i| format!("X-{i}: a\r\n")).collect();
    vec![
        case("bare LF after the line", format!("GET / HTTP/1.1\n{H}\r\n"), Bad(400)),
        case("bare LF after a field", "GET / HTTP/1.1\r\nHost: a\n\r\n", Bad(400)),
        case("bare LF at the end", format!("GET / HTTP/1.1\r\n{H}\n"), Bad(400)),
        case("bare CR in a value", get("X-A: a\rb\r\n"), Bad(400)),
        case("CR CR LF", format!("GET / HTTP/1.1\r\r\n{H}\r\n"), Bad(400)),
        case("end of CR LF CR X", format!("GET / HTTP/1.1\r\n{H}\rX"), Bad(400)),
        case("NUL in a value", get("X-A: a\0b\r\n"), Bad(400)),
        case("NUL in a name", get("X-\0A: b\r\n"), Bad(400)),
        case("control character", get("X-A: a\x01b\r\n"), Bad(400)),
        case("DEL in a value", get("X-A: a\x7fb\r\n"), Bad(400)),
        case("fold", get("X-A: a\r\n b\r\n"), Bad(400)),
        case("fold with a tab", get("X-A: a\r\n\tb\r\n"), Bad(400)),
        case("first field indented", format!("GET / HTTP/1.1\r\n X: a\r\n{H}\r\n"), Bad(400)),
        case("blank before the colon", get("X-A : b\r\n"), Bad(400)),
        case("tab before the colon", get("X-A\t: b\r\n"), Bad(400)),
        case("no colon", get("X-A\r\n"), Bad(400)),
        case("empty name", get(": b\r\n"), Bad(400)),
        case("blank in a name", get("X A: b\r\n"), Bad(400)),
        case("brackets in a name", get("X(A): b\r\n"), Bad(400)),
        case("non-ASCII name", get("X-Ä: b\r\n"), Bad(400)),
        case("no Host", "GET / HTTP/1.1\r\n\r\n", Bad(400)),
        case("two Hosts", get("Host: b\r\n"), Bad(400)),
        case("two equal Hosts", get(H), Bad(400)),
        case("empty Host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", Bad(400)),
        case("Host with a path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", Bad(400)),
        case("Host with a user", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", Bad(400)),
        case("Host and another target", line("GET http://b/ HTTP/1.1"), Bad(400)),
        case("two blanks", line("GET  / HTTP/1.1"), Bad(400)),
        case("tabs", line("GET\t/\tHTTP/1.1"), Bad(400)),
        case("no version", line("GET /"), Bad(400)),
        case("no target", line("GET HTTP/1.1"), Bad(400)),
        case("blank after the version", line("GET / HTTP/1.1 "), Bad(400)),
        case("lower-case version", line("GET / http/1.1"), Bad(400)),
        case("HTTP/2.0", line("GET / HTTP/2.0"), Bad(505)),
        case("HTTP/1.10", line("GET / HTTP/1.10"), Bad(400)),
        case("lower-case method", line("get / HTTP/1.1"), Bad(400)),
        case("fragment", line("GET /#a HTTP/1.1"), Bad(400)),
        case("backslash", line("GET /\\a HTTP/1.1"), Bad(400)),
        case("relative target", line("GET a HTTP/1.1"), Bad(400)),
        case("line of 9000", line(&format!("GET /{} HTTP/1.1", "a".repeat(9000))), Bad(414)),
        case("head of 40000", get(&format!("X-A: {}\r\n", "a".repeat(40_000))), Bad(431)),
        case("102 fields", get(&many), Bad(431)),
    ]
}

fn length() -> Vec<Case> {
    let with = |value: &str| post(&format!("Content-Length: {value}\r\n"), "abc");
    vec![
        case("twice, different", with("3\r\nContent-Length: 4"), Bad(400)),
        case("twice, equal", with("3\r\nContent-Length: 3"), Bad(400)),
        case("list", with("3, 3"), Bad(400)),
        case("list of different", with("3, 4"), Bad(400)),
        case("plus", with("+3"), Bad(400)),
        case("minus", with("-3"), Bad(400)),
        case("minus zero", with("-0"), Bad(400)),
        case("hex", with("0x3"), Bad(400)),
        case("word", with("three"), Bad(400)),
        case("empty", with(""), Bad(400)),
        case("fraction", with("3.0"), Bad(400)),
        case("blank inside", with("3 3"), Bad(400)),
        case("20 digits", with("00000000000000000003"), Bad(400)),
        case("2^64 + 3", with("18446744073709551619"), Bad(400)),
        case("more than is taken", with("999999999999"), Bad(413)),
        case("more than comes", post("Content-Length: 9\r\n", "abc"), Wait),
    ]
}

fn coding() -> Vec<Case> {
    let with = |value: &str| post(&format!("Transfer-Encoding: {value}\r\n"), "0\r\n\r\n");
    let old = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    vec![
        case(
            "and a length",
            post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
            Bad(400),
        ),
        case("a length behind", with("chunked\r\nContent-Length: 5"), Bad(400)),
        case("twice", with("chunked\r\nTransfer-Encoding: chunked"), Bad(400)),
        case("two words", with("chunked, chunked"), Bad(400)),
        case("gzip first", with("gzip, chunked"), Bad(400)),
        case("chunked first", with("chunked, gzip"), Bad(400)),
        case("identity", with("identity"), Bad(400)),
        case("gzip", with("gzip"), Bad(400)),
        case("xchunked", with("xchunked"), Bad(400)),
        case("empty", with(""), Bad(400)),
        case("comma first", with(", chunked"), Bad(400)),
        case("comma last", with("chunked,"), Bad(400)),
        case("quoted", with("\"chunked\""), Bad(400)),
        case("with a parameter", with("chunked;q=1"), Bad(400)),
        case("vertical tab", with("\x0bchunked"), Bad(400)),
        case("folded", with("\r\n chunked"), Bad(400)),
        case("in HTTP/1.0", old, Bad(400)),
    ]
}

fn chunk() -> Vec<Case> {
    let extension = format!("1;{}\r\na\r\n0\r\n\r\n", "e".repeat(300));
    vec![
        case("empty size", chunked("\r\nabc\r\n0\r\n\r\n"), Bad(400)),
        case("plus", chunked("+3\r\nabc\r\n0\r\n\r\n"), Bad(400)),
        case("minus", chunked("-3\r\nabc\r\n0\r\n\r\n"), Bad(400)),
        case("0x", chunked("0x3\r\nabc\r\n0\r\n\r\n"), Bad(400)),
        case("underscore", chunked("0_3\r\nabc\r\n0\r\n\r\n"), Bad(400)),
        case("no hex digit", chunked("3g\r\nabc\r\n0\r\n\r\n"), Bad(400)),
        case("blank before", chunked(" 3\r\nabc\r\n0\r\n\r\n"), Bad(400)),
        case("blank behind", chunked("3 \r\nabc\r\n0\r\n\r\n"), Bad(400)),
        case("tab behind", chunked("3\t\r\nabc\r\n0\r\n\r\n"), Bad(400)),
        case("bare LF after the size", chunked("3\nabc\r\n0\r\n\r\n"), Bad(400)),
        case("bare CR after the size", chunked("3\rabc\r\n0\r\n\r\n"), Bad(400)),
        case("bare LF after the data", chunked("3\r\nabc\n0\r\n\r\n"), Bad(400)),
        case("junk after the data", chunked("3\r\nabcXX0\r\n\r\n"), Bad(400)),
        case("data too long", chunked("3\r\nabcd\r\n0\r\n\r\n"), Bad(400)),
        case("bare semicolon", chunked("3;\r\nabc\r\n0\r\n\r\n"), Bad(400)),
        case("LF in an extension", chunked("3;a\nabc\r\n0\r\n\r\n"), Bad(400)),
        case("NUL in an extension", chunked("3;a\0\r\nabc\r\n0\r\n\r\n"), Bad(400)),
        case("blank in an extension", chunked("3; a\r\nabc\r\n0\r\n\r\n"), Bad(400)),
        case("300 bytes of extension", chunked(&extension), Bad(400)),
        case("16 digits", chunked("0000000000000003\r\nabc\r\n0\r\n\r\n"), Bad(400)),
        case("2^64 - 1", chunked("ffffffffffffffff\r\nabc\r\n0\r\n\r\n"), Bad(400)),
        case("2^60 - 1", chunked("fffffffffffffff\r\nabc\r\n0\r\n\r\n"), Bad(413)),
        case("bare LF in a trailer", chunked("1\r\na\r\n0\r\nX: 1\n\r\n"), Bad(400)),
        case("length in a trailer", chunked("1\r\na\r\n0\r\nContent-Length: 3\r\n\r\n"), Bad(400)),
        case("no last chunk", chunked("1\r\na\r\n"), Wait),
    ]
}

/// A second request hidden where two readers could disagree.
fn desync() -> Vec<Case> {
    let hidden = "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n";
    let both = |fields: &str, body: &str| post(fields, &format!("{body}{hidden}"));
    vec![
        case(
            "CL.TE",
            both("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
            Bad(400),
        ),
        case(
            "TE.CL",
            both("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", "1\r\n"),
            Bad(400),
        ),
        case(
            "TE.TE",
            both("Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n", "0\r\n\r\n"),
            Bad(400),
        ),
        case("CL.0", both("Content-Length: 0\r\nContent-Length: 40\r\n", ""), Bad(400)),
        case("+CL", both("Content-Length: +0\r\n", ""), Bad(400)),
        case(
            "TE with a blank before the colon",
            both("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"),
            Bad(400),
        ),
        case("folded TE", both("Transfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n"), Bad(400)),
        case("empty chunk size", chunked(&format!("\r\n{hidden}")), Bad(400)),
        case(
            "a GET in a body",
            post(&format!("Content-Length: {}\r\n", hidden.len()), hidden),
            Ok(1),
        ),
    ]
}
