//! Any bytes as a chunked body, whole and byte by byte.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pacer::http::fuzz::chunked(bytes));
