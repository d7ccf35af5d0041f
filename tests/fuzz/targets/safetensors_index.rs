//! Any bytes as a shard index: every shard it names is a plain file name.
#![no_main]

use std::path::Path;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let path = Path::new("model.safetensors.index.json");
    if let Ok(index) = pacer::weights::safetensors_index::parse(path, bytes) {
        for file in &index.files {
            let parts: Vec<_> = Path::new(file).components().collect();
            assert!(matches!(parts.as_slice(), [std::path::Component::Normal(_)]), "{file}");
        }
        assert!(index.tensors.iter().all(|(_, file)| *file < index.files.len()));
    }
});
