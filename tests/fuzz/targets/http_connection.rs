//! Any bytes as a connection's input: the outcome must not depend on how they were cut.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pacer::http::fuzz::connection(bytes));
