//! The message-level ids of Http11Probe (a public suite of 215 checks), each on the strict side.
//! Not here: ids about cookies, ranges, conditional requests and upgrades, which this server has
//! none of and passes by as unknown fields, and ids about a route's answer (`tests/serve`).

use super::Want::{Bad, Ok, Wait};
use super::{Case, case};

const H: &str = "Host: a\r\n";

fn line(line: &str) -> String {
    format!("{line}\r\n{H}\r\n")
}

fn get(fields: &str) -> String {
    format!("GET / HTTP/1.1\r\n{H}{fields}\r\n")
}

fn post(fields: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\n{H}{fields}\r\n{body}")
}

fn chunked(body: &str) -> String {
    post("Transfer-Encoding: chunked\r\n", body)
}

fn cl(value: &str) -> String {
    post(&format!("Content-Length:{value}\r\n"), "hello")
}

fn te(value: &str) -> String {
    post(&format!("Transfer-Encoding:{value}\r\n"), "5\r\nhello\r\n0\r\n\r\n")
}

pub fn cases() -> Vec<Case> {
    [compliance(), compliance_bodies(), malformed(), lengths(), codings(), chunks(), desyncs()]
        .into_iter()
        .flatten()
        .collect()
}

fn compliance() -> Vec<Case> {
    vec![
        case("COMP-BASELINE", get(""), Ok(1)),
        case("RFC9112-2.2-BARE-LF-REQUEST-LINE", format!("GET / HTTP/1.1\n{H}\r\n"), Bad(400)),
        case("RFC9112-2.2-BARE-LF-HEADER", "GET / HTTP/1.1\r\nHost: a\n\r\n", Bad(400)),
        case("RFC9112-5.1-OBS-FOLD", get("X: a\r\n b\r\n"), Bad(400)),
        case("RFC9110-5.6.2-SP-BEFORE-COLON", get("X : a\r\n"), Bad(400)),
        case("RFC9112-3-MULTI-SP-REQUEST-LINE", line("GET  / HTTP/1.1"), Bad(400)),
        case("RFC9112-7.1-MISSING-HOST", "GET / HTTP/1.1\r\n\r\n", Bad(400)),
        case("RFC9112-2.3-INVALID-VERSION", line("GET / HTTP/9.9"), Bad(505)),
        case("RFC9112-5-EMPTY-HEADER-NAME", get(": a\r\n"), Bad(400)),
        case("RFC9112-3-CR-ONLY-LINE-ENDING", "GET / HTTP/1.1\rHost: a\r\r", Bad(400)),
        case("RFC9112-3-MISSING-TARGET", line("GET HTTP/1.1"), Bad(400)),
        case("RFC9112-3.2-FRAGMENT-IN-TARGET", line("GET /#x HTTP/1.1"), Bad(400)),
        case("RFC9112-2.3-HTTP09-REQUEST", "GET /\r\n\r\n", Bad(400)),
        case("RFC9112-5-INVALID-HEADER-NAME", get("X[]: a\r\n"), Bad(400)),
        case("RFC9112-5-HEADER-NO-COLON", get("X\r\n"), Bad(400)),
        case("RFC9110-5.4-DUPLICATE-HOST", get("Host: b\r\n"), Bad(400)),
        case("COMP-WHITESPACE-BEFORE-HEADERS", format!("GET / HTTP/1.1\r\n \r\n{H}\r\n"), Bad(400)),
        case("COMP-DUPLICATE-HOST-SAME", get(H), Bad(400)),
        case("COMP-HOST-WITH-USERINFO", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", Bad(400)),
        case("COMP-HOST-WITH-PATH", "GET / HTTP/1.1\r\nHost: a/p\r\n\r\n", Bad(400)),
        case("COMP-HOST-EMPTY-VALUE", "GET / HTTP/1.1\r\nHost: \r\n\r\n", Bad(400)),
        case("COMP-ASTERISK-WITH-GET", line("GET * HTTP/1.1"), Bad(400)),
        case("COMP-OPTIONS-STAR", line("OPTIONS * HTTP/1.1"), Ok(1)),
        case("COMP-LEADING-CRLF", format!("\r\n{}", get("")), Ok(1)),
        case("COMP-ABSOLUTE-FORM", line("GET http://a/ HTTP/1.1"), Ok(1)),
        case("COMP-METHOD-CASE", line("get / HTTP/1.1"), Bad(400)),
        case("COMP-METHOD-CONNECT", line("CONNECT a:443 HTTP/1.1"), Bad(400)),
        case("COMP-EXPECT-UNKNOWN", get("Expect: 200-ok\r\n"), Bad(417)),
        case("COMP-REQUEST-LINE-TAB", line("GET\t/ HTTP/1.1"), Bad(400)),
        case("COMP-VERSION-MISSING-MINOR", line("GET / HTTP/1"), Bad(400)),
        case("COMP-VERSION-LEADING-ZEROS", line("GET / HTTP/01.01"), Bad(400)),
        case("COMP-VERSION-WHITESPACE", line("GET / HTTP/1. 1"), Bad(400)),
        case("COMP-VERSION-CASE", line("GET / http/1.1"), Bad(400)),
        case("COMP-HTTP12-VERSION", line("GET / HTTP/1.2"), Bad(505)),
        case("COMP-HTTP10-NO-HOST", "GET / HTTP/1.0\r\n\r\n", Ok(1)),
        case("COMP-LONG-URL-OK", line(&format!("GET /{} HTTP/1.1", "a".repeat(7900))), Ok(1)),
        case("COMP-SPACE-IN-TARGET", line("GET /a b HTTP/1.1"), Bad(400)),
        case("COMP-UPGRADE-HTTP10", "GET / HTTP/1.0\r\nUpgrade: x\r\n\r\n", Ok(1)),
    ]
}

fn compliance_bodies() -> Vec<Case> {
    vec![
        case("COMP-UNKNOWN-TE-501", te(" bogus"), Bad(400)),
        case("COMP-POST-CL-BODY", cl(" 5"), Ok(1)),
        case("COMP-POST-CL-ZERO", post("Content-Length: 0\r\n", ""), Ok(1)),
        case("COMP-POST-NO-CL-NO-TE", post("", ""), Ok(1)),
        case("COMP-POST-CL-UNDERSEND", cl(" 10"), Wait),
        case("COMP-CHUNKED-BODY", te(" chunked"), Ok(1)),
        case("COMP-CHUNKED-MULTI", chunked("5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"), Ok(1)),
        case("COMP-CHUNKED-EMPTY", chunked("0\r\n\r\n"), Ok(1)),
        case("COMP-CHUNKED-NO-FINAL", chunked("5\r\nhello\r\n"), Wait),
        case("COMP-CHUNKED-EXTENSION", chunked("5;ext=value\r\nhello\r\n0\r\n\r\n"), Ok(1)),
        case("COMP-CHUNKED-TRAILER-VALID", chunked("5\r\nhello\r\n0\r\nX-T: v\r\n\r\n"), Ok(1)),
        case("COMP-CHUNKED-HEX-UPPERCASE", chunked("A\r\nhelloworld\r\n0\r\n\r\n"), Ok(1)),
        case("COMP-GET-WITH-CL-BODY", get("Content-Length: 5\r\n") + "hello", Ok(1)),
        case("COMP-TRACE-WITH-BODY", line("TRACE / HTTP/1.1"), Ok(1)),
    ]
}

fn malformed() -> Vec<Case> {
    let many: String = (0..10_000).map(|i| format!("X-{i}: v\r\n")).collect();
    let name = "a".repeat(100_000);
    vec![
        case("MAL-BINARY-GARBAGE", [0x80, 0xff, 0x00, 0x13, 0x0d, 0x0a, 0x0d, 0x0a], Bad(400)),
        case("MAL-LONG-URL", line(&format!("GET /{name} HTTP/1.1")), Bad(414)),
        case("MAL-LONG-HEADER-VALUE", get(&format!("X: {name}\r\n")), Bad(431)),
        case("MAL-LONG-HEADER-NAME", get(&format!("{name}: v\r\n")), Bad(431)),
        case("MAL-LONG-METHOD", line(&format!("{name} / HTTP/1.1")), Bad(414)),
        case("MAL-MANY-HEADERS", get(&many), Bad(431)),
        case("MAL-NUL-IN-URL", line("GET /\0 HTTP/1.1"), Bad(400)),
        case("MAL-CONTROL-CHARS-HEADER", get("X: a\x01\x02b\r\n"), Bad(400)),
        case("MAL-INCOMPLETE-REQUEST", "GET / HTTP/1.1\r\nHost: a", Wait),
        case("MAL-EMPTY-REQUEST", "", Wait),
        case("MAL-NON-ASCII-HEADER-NAME", get("X-é: a\r\n"), Bad(400)),
        case("MAL-NON-ASCII-URL", line("GET /é HTTP/1.1"), Bad(400)),
        case("MAL-WHITESPACE-ONLY-LINE", "   \r\n\r\n", Bad(400)),
        case("MAL-NUL-IN-HEADER-VALUE", get("X: a\0b\r\n"), Bad(400)),
        case("MAL-H2-PREFACE", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Bad(505)),
        case("MAL-URL-BACKSLASH", line("GET /\\x HTTP/1.1"), Bad(400)),
        case("MAL-URL-OVERLONG-UTF8", b"GET /\xc0\xaf HTTP/1.1\r\nHost: a\r\n\r\n", Bad(400)),
        // Legal in a target; no route has such a path.
        case("MAL-URL-PERCENT-NULL", line("GET /%00 HTTP/1.1"), Ok(1)),
        case("MAL-URL-PERCENT-CRLF", line("GET /%0d%0a HTTP/1.1"), Ok(1)),
        case(
            "MAL-CHUNK-EXT-64K",
            chunked(&format!("5;{}\r\nhello\r\n0\r\n\r\n", "e".repeat(65_536))),
            Bad(400),
        ),
        case("MAL-CHUNK-SIZE-OVERFLOW", chunked("fffffffffffffffff\r\n"), Bad(400)),
        case("MAL-CL-OVERFLOW", cl(" 99999999999999999999"), Bad(400)),
        case("MAL-CL-EMPTY", cl(""), Bad(400)),
        case("MAL-CL-TAB-BEFORE-VALUE", cl("\t5"), Ok(1)),
        case("MAL-POST-CL-HUGE-NO-BODY", post("Content-Length: 999999999\r\n", ""), Bad(413)),
        case("NORM-UNDERSCORE-CL", post("Content_Length: 5\r\n", ""), Bad(400)),
        case("NORM-SP-BEFORE-COLON-CL", post("Content-Length : 5\r\n", "hello"), Bad(400)),
        case("NORM-TAB-IN-NAME", get("X\tY: a\r\n"), Bad(400)),
        case("NORM-CASE-TE", post("TRANSFER-ENCODING: chunked\r\n", "0\r\n\r\n"), Ok(1)),
        case("NORM-UNDERSCORE-TE", post("Transfer_Encoding: chunked\r\n", ""), Bad(400)),
    ]
}

fn lengths() -> Vec<Case> {
    vec![
        case("RFC9112-6.1-CL-NON-NUMERIC", cl(" abc"), Bad(400)),
        case("RFC9112-6.1-CL-PLUS-SIGN", cl(" +5"), Bad(400)),
        case("SMUG-DUPLICATE-CL", cl(" 5\r\nContent-Length: 10"), Bad(400)),
        case("SMUG-CL-LEADING-ZEROS", cl(" 005"), Ok(1)),
        case("SMUG-CL-LEADING-ZEROS-OCTAL", cl(" 0005"), Ok(1)),
        case("SMUG-CL-DOUBLE-ZERO", post("Content-Length: 00\r\n", ""), Ok(1)),
        case("SMUG-CL-NEGATIVE", cl(" -1"), Bad(400)),
        case("SMUG-CL-NEGATIVE-ZERO", cl(" -0"), Bad(400)),
        case("SMUG-CL-TRAILING-SPACE", cl(" 5 "), Ok(1)),
        case("SMUG-CL-EXTRA-LEADING-SP", cl("  5"), Ok(1)),
        case("SMUG-CL-COMMA-DIFFERENT", cl(" 5, 10"), Bad(400)),
        case("SMUG-CL-COMMA-SAME", cl(" 5, 5"), Bad(400)),
        case("SMUG-CL-COMMA-TRIPLE", cl(" 5, 5, 5"), Bad(400)),
        case("SMUG-CL-OCTAL", cl(" 0o5"), Bad(400)),
        case("SMUG-CL-HEX-PREFIX", cl(" 0x5"), Bad(400)),
        case("SMUG-CL-INTERNAL-SPACE", cl(" 1 0"), Bad(400)),
        case("SMUG-CL-UNDERSCORE", cl(" 1_0"), Bad(400)),
        case(
            "SMUG-HEAD-CL-BODY",
            format!("HEAD / HTTP/1.1\r\n{H}Content-Length: 5\r\n\r\nhello"),
            Ok(1),
        ),
        case(
            "SMUG-OPTIONS-CL-BODY",
            format!("OPTIONS / HTTP/1.1\r\n{H}Content-Length: 5\r\n\r\nhello"),
            Ok(1),
        ),
        case(
            "SMUG-EXPECT-100-CL",
            post("Expect: 100-continue\r\nContent-Length: 5\r\n", "hello"),
            Ok(1),
        ),
        case("SMUG-ABSOLUTE-URI-HOST-MISMATCH", line("GET http://b/ HTTP/1.1"), Bad(400)),
        case("SMUG-MULTIPLE-HOST-COMMA", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", Bad(400)),
        case("SMUG-BARE-CR-HEADER-VALUE", get("X: a\rY: b\r\n"), Bad(400)),
    ]
}

fn codings() -> Vec<Case> {
    vec![
        case("SMUG-CL-TE-BOTH", te(" chunked\r\nContent-Length: 5"), Bad(400)),
        case("SMUG-TE-XCHUNKED", te(" xchunked"), Bad(400)),
        case("SMUG-TE-TRAILING-SPACE", te(" chunked "), Ok(1)),
        case("SMUG-TE-TAB-BEFORE-VALUE", te("\tchunked"), Ok(1)),
        case(
            "SMUG-TE-SP-BEFORE-COLON",
            post("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"),
            Bad(400),
        ),
        case("SMUG-TE-DOUBLE-CHUNKED", te(" chunked, chunked"), Bad(400)),
        case("SMUG-TE-CASE-MISMATCH", te(" Chunked"), Ok(1)),
        case("SMUG-TE-NOT-FINAL-CHUNKED", te(" chunked, gzip"), Bad(400)),
        case(
            "SMUG-TE-HTTP10",
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            Bad(400),
        ),
        case("SMUG-TE-EMPTY-VALUE", te(""), Bad(400)),
        case("SMUG-TE-LEADING-COMMA", te(" , chunked"), Bad(400)),
        case("SMUG-TE-TRAILING-COMMA", te(" chunked,"), Bad(400)),
        case("SMUG-TE-DUPLICATE-HEADERS", te(" chunked\r\nTransfer-Encoding: identity"), Bad(400)),
        case("SMUG-TE-VTAB", te(" \x0bchunked"), Bad(400)),
        case("SMUG-TE-FORMFEED", te(" \x0cchunked"), Bad(400)),
        case("SMUG-TE-NULL", te(" chunked\0"), Bad(400)),
        case("SMUG-TE-IDENTITY", te(" identity"), Bad(400)),
        case("SMUG-TE-OBS-FOLD", te("\r\n chunked"), Bad(400)),
        case(
            "SMUG-TRANSFER_ENCODING",
            post("Transfer_Encoding: chunked\r\nContent-Length: 0\r\n", ""),
            Bad(400),
        ),
        case("SMUG-CHUNKED-WITH-PARAMS", te(" chunked;ext=val"), Bad(400)),
    ]
}

fn chunks() -> Vec<Case> {
    let size = |line: &str| chunked(&format!("{line}hello\r\n0\r\n\r\n"));
    let trailer = |field: &str| chunked(&format!("5\r\nhello\r\n0\r\n{field}\r\n\r\n"));
    vec![
        case("SMUG-CHUNK-BARE-SEMICOLON", size("5;\r\n"), Bad(400)),
        case("SMUG-CHUNK-EXT-INVALID-TOKEN", size("5;b[ad=x\r\n"), Bad(400)),
        case("SMUG-CHUNK-UNDERSCORE", size("0_5\r\n"), Bad(400)),
        case("SMUG-CHUNK-HEX-PREFIX", size("0x5\r\n"), Bad(400)),
        case("SMUG-CHUNK-SIZE-PLUS", size("+5\r\n"), Bad(400)),
        case("SMUG-CHUNK-SIZE-TRAILING-OWS", size("5 \r\n"), Bad(400)),
        case("SMUG-CHUNK-LEADING-SP", size(" 5\r\n"), Bad(400)),
        case("SMUG-CHUNK-NEGATIVE", size("-1\r\n"), Bad(400)),
        case("SMUG-CHUNK-MISSING-TRAILING-CRLF", chunked("5\r\nhello0\r\n\r\n"), Bad(400)),
        case("SMUG-CHUNK-EXT-LF", size("5;a\n"), Bad(400)),
        case("SMUG-CHUNK-EXT-CR", size("5;a\rb\r\n"), Bad(400)),
        case("SMUG-CHUNK-EXT-CTRL", size("5;a\x01\r\n"), Bad(400)),
        case("SMUG-CHUNK-SPILL", chunked("5\r\nhello!!\r\n0\r\n\r\n"), Bad(400)),
        case("SMUG-CHUNK-LF-TERM", chunked("5\r\nhello\n0\r\n\r\n"), Bad(400)),
        case("SMUG-CHUNK-LF-TRAILER", chunked("5\r\nhello\r\n0\r\n\n"), Bad(400)),
        case("SMUG-CHUNK-BARE-CR-TERM", chunked("5\rhello\r\n0\r\n\r\n"), Bad(400)),
        case("SMUG-TRAILER-CL", trailer("Content-Length: 50"), Bad(400)),
        case("SMUG-TRAILER-TE", trailer("Transfer-Encoding: chunked"), Bad(400)),
        case("SMUG-TRAILER-HOST", trailer("Host: evil"), Bad(400)),
        case("SMUG-TRAILER-AUTH", trailer("Authorization: Bearer x"), Bad(400)),
        // Dropped unread, like all trailers.
        case("SMUG-TRAILER-CONTENT-TYPE", trailer("Content-Type: text/evil"), Ok(1)),
    ]
}

fn desyncs() -> Vec<Case> {
    let hidden = "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n";
    let both = |fields: &str, body: &str| post(fields, &format!("{body}{hidden}"));
    let cl_te = "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n";
    let te_cl = "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n";
    let end = "0\r\n\r\n";
    vec![
        case("SMUG-CLTE-PIPELINE", both(cl_te, end), Bad(400)),
        case("SMUG-TECL-PIPELINE", both(te_cl, end), Bad(400)),
        case("SMUG-CLTE-CONN-CLOSE", both(&format!("{cl_te}Connection: close\r\n"), end), Bad(400)),
        case("SMUG-TECL-CONN-CLOSE", both(&format!("{te_cl}Connection: close\r\n"), end), Bad(400)),
        case(
            "SMUG-CLTE-DESYNC",
            post("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\nX"),
            Bad(400),
        ),
        case("SMUG-TECL-DESYNC", both(te_cl, "1e\r\n"), Bad(400)),
        case(
            "SMUG-CLTE-SMUGGLED-GET-CL-PLUS",
            both("Content-Length: +5\r\nTransfer-Encoding: chunked\r\n", end),
            Bad(400),
        ),
        case(
            "SMUG-CLTE-SMUGGLED-GET-CL-NON-NUMERIC",
            both("Content-Length: N\r\nTransfer-Encoding: chunked\r\n", end),
            Bad(400),
        ),
        case(
            "SMUG-CLTE-SMUGGLED-GET-TE-OBS-FOLD",
            both("Content-Length: 5\r\nTransfer-Encoding:\r\n chunked\r\n", end),
            Bad(400),
        ),
        case(
            "SMUG-CLTE-SMUGGLED-GET-TE-LEADING-COMMA",
            both("Content-Length: 5\r\nTransfer-Encoding: , chunked\r\n", end),
            Bad(400),
        ),
        case(
            "SMUG-DUPLICATE-CL-SMUGGLED-GET",
            both("Content-Length: 0\r\nContent-Length: 40\r\n", ""),
            Bad(400),
        ),
        case(
            "SMUG-TE-DUPLICATE-HEADERS-SMUGGLED-GET",
            both("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", end),
            Bad(400),
        ),
        case(
            "SMUG-OPTIONS-TE-OBS-FOLD",
            format!("OPTIONS / HTTP/1.1\r\n{H}Transfer-Encoding:\r\n chunked\r\n\r\n{end}"),
            Bad(400),
        ),
        case("SMUG-CHUNK-INVALID-SIZE-DESYNC", chunked(&format!("+0\r\n\r\n{hidden}")), Bad(400)),
        case("SMUG-GET-CL-BODY-DESYNC", get("Content-Length: 5\r\n") + "hello", Ok(1)),
        case(
            "SMUG-GET-CL-PREFIX-DESYNC",
            get(&format!("Content-Length: {}\r\n", hidden.len())) + hidden,
            Ok(1),
        ),
        case("SMUG-PIPELINE-SAFE", [get(""), get("")].concat(), Ok(2)),
    ]
}
