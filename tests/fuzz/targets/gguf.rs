//! Any bytes as a GGUF file: header, metadata, vocabulary, names, the numbers of its vectors.
#![no_main]

use std::path::Path;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let path = Path::new("f.gguf");
    if let Ok(header) = pacer::weights::gguf::parse(path, bytes) {
        let tensors: usize = header.tensors.iter().map(|s| bytes[s.bytes.clone()].len()).sum();
        assert!(tensors <= bytes.len());
    }
    if let Ok(gguf) = pacer::weights::gguf_open::inspect(path, bytes) {
        if let Some(vocab) = gguf.vocab {
            assert!(vocab.eos_id.is_none_or(|id| (id as usize) < vocab.tokens.len()));
        }
    }
});
