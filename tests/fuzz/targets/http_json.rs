//! Any bytes as the body of every JSON route: an answer, or a 400 that names a field.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pacer::http::fuzz::json_requests(bytes));
