//! Strict HTTP/1.1 (RFC 9110, 9112): what is accepted, what is refused, and that neither depends
//! on how the bytes were cut into packets. Every case is followed by a marker request: after an
//! accepted case it is the next request, after a refused one nobody may hear of it.

mod cases;
mod exact;
#[path = "../serve/harness.rs"]
#[allow(dead_code)]
mod harness;
mod mutate;
mod probe;
mod wire;

use pacer::http::fuzz::events;
use pacer::http::{Event, Limits};

/// What should become of a case.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Want {
    /// So many whole requests.
    Ok(usize),
    /// Refused with this status, the connection closed.
    Bad(u16),
    /// Not whole yet: neither answered nor refused.
    Wait,
}

/// One message and its verdict.
pub struct Case {
    pub id: &'static str,
    pub bytes: Vec<u8>,
    pub want: Want,
}

pub fn case(id: &'static str, bytes: impl AsRef<[u8]>, want: Want) -> Case {
    Case { id, bytes: bytes.as_ref().to_vec(), want }
}

const MARKER: &[u8] = b"GET /marker HTTP/1.1\r\nHost: m\r\n\r\n";

/// A message, the marker behind it.
fn with_marker(bytes: &[u8], marker: bool) -> Vec<u8> {
    [bytes, if marker { MARKER } else { b"" }].concat()
}

/// Outcome of bytes cut as `cut` says.
fn outcome(input: &[u8], cut: impl FnMut(usize) -> usize) -> Vec<Event> {
    events(Limits::default(), input, cut).0
}

fn verdict(case: &Case, events: &[Event]) -> Result<(), String> {
    let bodies = events.iter().filter(|e| matches!(e, Event::Body(_))).count();
    let marked = events.iter().any(|e| matches!(e, Event::Head(h) if h.path == "/marker"));
    let refused = events.iter().find_map(|e| match e {
        Event::Refused(refused) => Some(refused.status),
        _ => None,
    });
    let found = format!("{} bodies {bodies}, marker {marked}, refused {refused:?}", case.id);
    let right = match case.want {
        Want::Ok(n) => bodies == n + 1 && marked && refused.is_none(),
        Want::Bad(status) => !marked && refused == Some(status),
        Want::Wait => bodies == 0 && refused.is_none(),
    };
    if right { Ok(()) } else { Err(format!("{found}, wanted {:?}", case.want)) }
}

/// Messages longer than this are mostly filling.
const LONG: usize = 20_000;

/// Where a message is cut in two: everywhere or, in the middle of a long message's filling and
/// without `PACER_SPLITS`, at every 97th place.
fn places(length: usize) -> impl Iterator<Item = usize> {
    let all = length < LONG || std::env::var_os("PACER_SPLITS").is_some();
    let limits = [0, 8 << 10, 32 << 10, length];
    let near = move |at: usize| limits.iter().any(|limit| at.abs_diff(*limit) < 300);
    (1..length).filter(move |at| all || at % 97 == 0 || near(*at))
}

/// Whole, byte by byte, and in two pieces at every place.
fn check(cases: &[Case]) -> usize {
    let (mut faults, mut runs) = (Vec::new(), 0);
    for case in cases {
        let marker = case.want != Want::Wait;
        let input = with_marker(&case.bytes, marker);
        let whole = outcome(&input, |left| left);
        faults.extend(verdict(case, &whole).err());
        for at in places(input.len()) {
            let mut first = true;
            let cut = |left: usize| if std::mem::take(&mut first) { at } else { left };
            let split = outcome(&input, cut);
            if split != whole {
                faults.push(format!("{}: differs when cut at {at}", case.id));
                break;
            }
            runs += 1;
        }
        if outcome(&input, |_| 1) != whole {
            faults.push(format!("{}: differs byte by byte", case.id));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    runs
}

#[test]
fn the_121_cases() {
    let groups = cases::groups();
    let sizes: Vec<usize> = groups.iter().map(Vec::len).collect();
    assert_eq!(sizes, [12, 42, 16, 17, 25, 9], "valid, head, length, coding, chunk, desync");
    let runs: usize = groups.iter().map(|g| check(g)).sum();
    assert!(runs > 25_000, "{runs} splits");
}

#[test]
fn the_probe_ids() {
    let cases = probe::cases();
    let mut ids: Vec<&str> = cases.iter().map(|c| c.id).collect();
    ids.sort_unstable();
    let all = ids.len();
    ids.dedup();
    assert_eq!(ids.len(), all, "an id is there twice");
    let runs = check(&cases);
    assert!(runs > 25_000, "{runs} splits");
}

/// A checker that passes everything would be worth nothing.
#[test]
fn a_wrong_verdict_is_noticed() {
    let good = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let wrong = case("good", good, Want::Bad(400));
    let found = outcome(&with_marker(&wrong.bytes, true), |n| n);
    assert!(verdict(&wrong, &found).is_err());
    let wrong = case("bad", "GET / HTTP/1.1\r\n\r\n", Want::Ok(1));
    let found = outcome(&with_marker(&wrong.bytes, true), |n| n);
    assert!(verdict(&wrong, &found).is_err());
}

#[test]
fn bodies_arrive_whole() {
    let body = |bytes: &[u8]| {
        outcome(bytes, |_| 3).into_iter().find_map(|e| match e {
            Event::Body(body) => Some(body),
            _ => None,
        })
    };
    let head = "POST / HTTP/1.1\r\nHost: a\r\n";
    let plain = format!("{head}Content-Length: 5\r\n\r\nhello");
    assert_eq!(body(plain.as_bytes()), Some(b"hello".to_vec()));
    let chunks =
        format!("{head}Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;a=b\r\nllo\r\n0\r\n\r\n");
    assert_eq!(body(chunks.as_bytes()), Some(b"hello".to_vec()));
}
