//! The heavy kernels on an H100, projected: counters of the PTX machine through its time model.
//!
//! `PACER_WRITE=1 cargo test --release --test kernel_table -- --ignored` writes the tables into
//! bench/README.md; without the variable it fails where they are stale. A kernel is run on a few
//! tiles of the real depth and its counters are scaled to the whole grid; nothing here was measured
//! on a card.

mod launches;
mod step;
mod work;

use launches::{HEADS, attention_decode, attention_prefill, gemm};
use work::{HEAD, Row};

const BEGIN: &str = "<!-- projected by tests/kernel_table: begin -->\n";
const END: &str = "<!-- projected by tests/kernel_table: end -->";

/// Products and attention on their own.
fn kernels() -> String {
    let mut rows: Vec<Row> = Vec::new();
    for (name, n, k, gated) in [
        ("8B qkv, 1 row", 6144, 4096, false),
        ("8B o, 1 row", 4096, 4096, false),
        ("8B gate·up, 1 row", 14336, 4096, true),
        ("8B down, 1 row", 4096, 14336, false),
        ("8B lm_head, 1 row", 128_256, 4096, false),
        ("1B o, 1 row", 2048, 2048, false),
        ("1B down, 1 row", 2048, 8192, false),
    ] {
        rows.push(gemm(name, (1, n, k, gated), None));
    }
    for (name, m) in [("8B qkv, 32 rows", 32), ("8B qkv, 128 rows", 128)] {
        rows.push(gemm(name, (m, 6144, 4096, false), None));
    }
    for (name, wgmma) in [("8B o, 4,096 rows", false), ("8B o, 4,096 rows", true)] {
        rows.push(gemm(name, (4096, 4096, 4096, false), Some(wgmma)));
    }
    rows.push(gemm("8B gate·up, 4,096 rows", (4096, 14336, 4096, true), Some(true)));
    for (name, spans, past) in [
        ("decode, 1 × 1,024", 1, 1023),
        ("decode, 1 × 4,096", 1, 4095),
        ("decode, 32 × 1,024", 32, 1023),
    ] {
        rows.push(attention_decode(name, HEADS, spans, past));
    }
    for (name, len, wgmma) in [
        ("prefill, 1 × 1,024", 1024, false),
        ("prefill, 1 × 1,024", 1024, true),
        ("prefill, 1 × 8,192", 8192, false),
        ("prefill, 1 × 8,192", 8192, true),
    ] {
        rows.push(attention_prefill(name, len, wgmma));
    }
    let lines: Vec<String> = rows.into_iter().map(|r| r.text).collect();
    format!("{HEAD}{}", lines.concat())
}

#[test]
#[ignore = "takes a minute: a step of .ci/run"]
fn tables_of_bench_readme_are_fresh() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/bench/README.md");
    let text = std::fs::read_to_string(path).expect("bench/README.md");
    let (head, rest) = text.split_once(BEGIN).expect("the tables' first line");
    let (stored, tail) = rest.split_once(END).expect("the tables' last line");
    let fresh = format!("\n{}\n{}\n", step::table(), kernels());
    if std::env::var_os("PACER_WRITE").is_some() {
        std::fs::write(path, format!("{head}{BEGIN}{fresh}{END}{tail}")).expect("a writable file");
        return;
    }
    assert!(stored == fresh, "stale tables; PACER_WRITE=1 writes these:\n{fresh}");
}
