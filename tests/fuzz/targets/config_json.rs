//! Any bytes as config.json.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pacer::model::config_hf::fuzz_config_json(bytes));
