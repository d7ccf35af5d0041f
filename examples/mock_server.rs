//! The mock server of the tests as a program, for comparing load clients:
//! `cargo run --release --example mock_server -- PORT FIRST_MS GAP_MS`.

#[path = "../tests/support/mock/mod.rs"]
mod mock;

use std::time::Duration;

fn main() {
    let mut words = std::env::args().skip(1).map(|w| w.parse::<f64>().unwrap_or(0.0));
    let port = words.next().unwrap_or(30000.0) as u16;
    let ms = |x: Option<f64>, default: f64| Duration::from_secs_f64(x.unwrap_or(default) / 1e3);
    let first = ms(words.next(), 20.0);
    let gap = ms(words.next(), 4.0);
    let timing = mock::Timing { first, gap, tokens_a_chunk: 1 };
    mock::Mock::start_at(([127, 0, 0, 1], port).into(), timing).join();
}
