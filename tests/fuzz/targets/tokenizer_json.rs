//! Any bytes as tokenizer.json.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pacer::text::fuzz_tokenizer_json(bytes));
