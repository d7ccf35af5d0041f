//! The fuzz targets' own functions under a seeded mutator, so that every `cargo test` runs them a
//! little (`tests/fuzz` runs them with coverage feedback). `PACER_MUTATIONS` sets how often.

use pacer::http::fuzz;

/// Executions of each function unless asked otherwise.
const RUNS: usize = 20_000;

/// xorshift64* (Vigna, 2016): enough to pick bytes.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % n.max(1)
    }
}

/// Bytes that parsers stumble over.
const SHARP: &[&[u8]] = &[
    b"\r",
    b"\n",
    b"\r\n",
    b"\r\n\r\n",
    b" ",
    b"\t",
    b":",
    b";",
    b"0",
    b"ffffffffffffffff",
    b"\0",
    b"chunked",
    b"Content-Length: ",
    b"Transfer-Encoding: ",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"null",
    b"-1",
    b"1e400",
    b"\\ud800",
    b"\xff",
    b",",
];

fn mutate(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = seeds[random.below(seeds.len())].clone();
    bytes.truncate(2000);
    for _ in 0..1 + random.below(6) {
        let at = random.below(bytes.len() + 1);
        let end = (at + random.below(12)).min(bytes.len());
        match random.below(6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 => drop(bytes.drain(at..end)),
            2 => {
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
            3 => drop(bytes.splice(at..at, SHARP[random.below(SHARP.len())].iter().copied())),
            4 => drop(bytes.splice(at..end, SHARP[random.below(SHARP.len())].iter().copied())),
            _ => {
                let other = &seeds[random.below(seeds.len())];
                let from = random.below(other.len() + 1);
                let to = (from + random.below(40)).min(other.len());
                bytes.splice(at..end, other[from..to].iter().copied());
            }
        }
    }
    bytes
}

fn run(seeds: &[Vec<u8>], function: fn(&[u8])) {
    let runs = std::env::var("PACER_MUTATIONS").ok().map(|n| n.parse().expect("a number"));
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    for _ in 0..runs.unwrap_or(RUNS) {
        let bytes = mutate(seeds, &mut random);
        let outcome = std::panic::catch_unwind(|| function(&bytes));
        assert!(outcome.is_ok(), "{:?}", String::from_utf8_lossy(&bytes));
    }
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz/seeds/");
    let files = std::fs::read_dir(format!("{folder}{target}")).expect("seeds");
    files.map(|f| std::fs::read(f.expect("a file").path()).expect("a seed")).collect()
}

#[test]
fn connections() {
    let mut all = seeds("http_connection");
    let cases = super::cases::groups().into_iter().flatten().chain(super::probe::cases());
    all.extend(cases.map(|case| [b"abcd", case.bytes.as_slice()].concat()));
    run(&all, fuzz::connection);
}

#[test]
fn chunks() {
    run(&seeds("http_chunked"), fuzz::chunked);
}

#[test]
fn json_bodies() {
    run(&seeds("http_json"), fuzz::json_requests);
}
