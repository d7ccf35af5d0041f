//! Any bytes as a PTX module: an error with a line, or kernels that the analyses accept.
#![no_main]

use pacer_emulator::{Module, analysis};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    match Module::parse(&String::from_utf8_lossy(bytes)) {
        Ok(module) => {
            for kernel in &module.kernels {
                assert!((8..=255).contains(&analysis::estimated_registers(kernel)));
                assert_eq!(analysis::memory_stalls(kernel).len(), kernel.code.len());
                assert!(kernel.code.iter().all(|i| (i.form as usize) < kernel.forms.len()));
            }
        }
        Err(error) => {
            let lines = bytes.iter().filter(|b| **b == b'\n').count() as u32 + 1;
            assert!(error.line <= lines && !error.message.is_empty(), "{error}");
        }
    }
});
