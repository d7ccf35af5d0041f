//! Any bytes as a safetensors file: parsed or refused.
#![no_main]

use std::path::Path;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(specs) = pacer::weights::safetensors::parse(Path::new("f.safetensors"), bytes) {
        let covered: usize = specs.iter().map(|s| bytes[s.bytes.clone()].len()).sum();
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        assert_eq!(8 + header + covered, bytes.len());
    }
});
