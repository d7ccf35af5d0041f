//! Entries for fuzzers and for tests that cut the same bytes in many ways. Any outcome but a
//! panic, or a difference between two ways to feed the same bytes, is fine.

use super::api;
use super::chunked::Decoder;
use super::connection::{Connection, Event};
use super::limits::Limits;

/// Limits small enough that a fuzzer reaches them.
pub const SMALL: Limits = Limits { line: 256, head: 1024, fields: 16, body: 512, ahead: 256 };

/// All events of `input`, fed in pieces of the sizes that `cut` gives, as a server would: bodies
/// are let in, requests answered at once.
pub fn events(
    limits: Limits,
    input: &[u8],
    mut cut: impl FnMut(usize) -> usize,
) -> (Vec<Event>, Connection) {
    let mut connection = Connection::new(limits);
    let mut events = Vec::new();
    let mut rest = input;
    loop {
        while let Some(event) = connection.poll() {
            match &event {
                Event::Head(_) => connection.accept(),
                Event::Body(_) => connection.answered(),
                Event::Continue | Event::Refused(_) => {}
            }
            events.push(event);
        }
        if rest.is_empty() {
            return (events, connection);
        }
        let size = cut(rest.len()).clamp(1, rest.len());
        let (piece, later) = rest.split_at(size);
        connection.receive(piece);
        rest = later;
    }
}

/// Bytes to events: whole, byte by byte, and in the pieces that the first bytes say.
pub fn connection(data: &[u8]) {
    let (cuts, input) = data.split_at(data.len().min(4));
    let (whole, _) = events(SMALL, input, |left| left);
    let (bytes, _) = events(SMALL, input, |_| 1);
    let mut turn = 0;
    let (pieces, _) = events(SMALL, input, |_| {
        turn += 1;
        1 + usize::from(cuts.get(turn % 4).copied().unwrap_or(7) % 61)
    });
    assert_eq!(whole, bytes, "byte by byte");
    assert_eq!(whole, pieces, "in pieces");
    for event in &whole {
        if let Event::Refused(refused) = event {
            assert!((400..600).contains(&refused.status));
        }
    }
}

/// A chunked body: whole, and byte by byte.
pub fn chunked(data: &[u8]) {
    const MAX: usize = 300;
    let mut body = Vec::new();
    let whole = Decoder::new(MAX).decode(data, &mut body);
    assert!(body.len() <= MAX);
    let (mut other, mut decoder) = (Vec::new(), Decoder::new(MAX));
    let mut outcome = Ok((0, false));
    for byte in data {
        match decoder.decode(std::slice::from_ref(byte), &mut other) {
            Ok((used, done)) => {
                outcome = outcome.map(|(sum, _)| (sum + used, done));
                if done {
                    break;
                }
            }
            Err(error) => {
                outcome = Err(error);
                break;
            }
        }
    }
    assert_eq!(whole, outcome);
    assert_eq!(body, other);
}

/// A body as every JSON route would read it.
pub fn json_requests(data: &[u8]) {
    let Ok(body) = api::parse(data) else { return };
    let refusals = [
        api::generate(&body).err(),
        api::completions(&body).err(),
        api::chat(&body).err(),
        api::tokenize(&body).err(),
        api::detokenize(&body).err(),
        api::abort(&body).err(),
    ];
    for refused in refusals.into_iter().flatten() {
        assert_eq!(refused.status, 400);
        assert!(refused.param.is_some(), "{refused:?} names no field");
    }
}
