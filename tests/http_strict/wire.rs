//! Reliability R3 over real sockets: a server of this process, each case with a marker request
//! behind it. Nobody answers the marker of a refused case, and its connection is closed.

use std::io::Write;
use std::net::Shutdown;

use super::harness::{Answer, Client, Running, Setup, start};
use super::{Case, Want, cases, probe};

const MARKER: &str = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// A case's bytes, posted to a route that reads bodies: elsewhere 405 comes before the body.
fn message(case: &Case) -> Vec<u8> {
    match case.bytes.strip_prefix(b"POST / ") {
        Some(rest) => [b"POST /tokenize ", rest].concat(),
        None => case.bytes.clone(),
    }
}

/// Sends a case and the marker; the answers until the server closes or `most` have come.
fn answers(client: &mut Client, case: &Case, most: usize) -> Vec<Answer> {
    let both = [message(case).as_slice(), MARKER.as_bytes()].concat();
    // The server may close before it has read everything, so this may fail.
    let _ = client.socket.write_all(&both);
    let mut all: Vec<Answer> = Vec::new();
    while all.len() < most && all.last().is_none_or(|a| a.field("connection") != Some("close")) {
        let bodyless = all.is_empty() && case.bytes.starts_with(b"HEAD ");
        match if bodyless { client.head() } else { client.answer() } {
            Some(answer) if answer.status == 100 => {}
            Some(answer) => all.push(answer),
            None => break,
        }
    }
    all
}

fn refused(server: &Running, case: &Case, status: u16) -> Result<(), String> {
    let mut client = server.connect();
    let found = answers(&mut client, case, 2);
    let statuses: Vec<u16> = found.iter().map(|a| a.status).collect();
    let closes = found.first().is_some_and(|a| a.field("connection") == Some("close"));
    if statuses != [status] || !closes || !client.closed() {
        return Err(format!("{}: answers {statuses:?}, closes {closes}, {status} wanted", case.id));
    }
    Ok(())
}

/// `n` answers, none of them a refusal of the message, then the marker's, unless the server
/// closed after the last of them as it may.
fn accepted(server: &Running, case: &Case, n: usize) -> Result<(), String> {
    let mut client = server.connect();
    let found = answers(&mut client, case, n + 1);
    let statuses: Vec<u16> = found.iter().map(|a| a.status).collect();
    let closed = found.last().is_some_and(|a| a.field("connection") == Some("close"));
    let whole = found.len() == n + 1 && found[n].status == 200;
    if !(whole || (closed && found.len() <= n)) {
        return Err(format!("{}: answers {statuses:?} to {n} requests and a marker", case.id));
    }
    Ok(())
}

/// Not whole when the client stops sending: no answer as if it were.
fn unfinished(server: &Running, case: &Case) -> Result<(), String> {
    let mut client = server.connect();
    client.socket.write_all(&message(case)).map_err(|e| e.to_string())?;
    client.socket.shutdown(Shutdown::Write).map_err(|e| e.to_string())?;
    match client.answer() {
        None => Ok(()),
        Some(answer) if answer.status >= 400 => Ok(()),
        Some(answer) => Err(format!("{}: answered {}", case.id, answer.status)),
    }
}

#[test]
fn no_case_smuggles_a_request_into_a_real_server() {
    let mut setup = Setup::default();
    // Bound to every address it takes any Host, as the cases have.
    setup.options.host = "0.0.0.0".into();
    let server = start(setup);
    let all: Vec<Case> = cases::groups().into_iter().flatten().chain(probe::cases()).collect();
    assert!(all.len() > 250, "{}", all.len());
    let verdicts = all.iter().map(|case| match case.want {
        Want::Bad(status) => refused(&server, case, status),
        Want::Ok(n) => accepted(&server, case, n),
        Want::Wait => unfinished(&server, case),
    });
    let faults: Vec<String> = verdicts.filter_map(Result::err).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert_eq!(server.get("/health").status, 200, "alive");
}
