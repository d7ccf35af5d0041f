//! Any bytes as a PTX module whose first kernel then runs: it ends, or stops with a named rule.
#![no_main]

use pacer_emulator::{Checks, LaunchSpec, Memory, Module, launch};

/// Sizes beyond which a kernel is not run here: they cost time and memory, not paths.
const LOCAL: u32 = 1 << 12;
const SHARED: u32 = 1 << 16;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(module) = Module::parse(&String::from_utf8_lossy(bytes)) else { return };
    let Some(kernel) = module.kernels.first() else { return };
    let registers = kernel.regs32 + kernel.regs64 + kernel.preds;
    if kernel.local_bytes > LOCAL || kernel.shared_bytes > SHARED || registers > 4096 {
        return;
    }
    let choice = bytes.iter().fold(0u32, |n, b| n.wrapping_mul(31).wrapping_add(u32::from(*b)));
    let mut memory = Memory::new();
    let buffer = memory.alloc(4096).expect("a small buffer");
    memory.write(buffer, &[1; 2048]).expect("inside the buffer");
    // Eight-byte parameters point to the buffer; others hold small numbers.
    let mut params = vec![0; kernel.param_bytes as usize];
    for p in &kernel.params {
        let value = if p.size == 8 { buffer.to_le_bytes() } else { 5u64.to_le_bytes() };
        let n = (p.size as usize).min(8);
        params[p.offset as usize..][..n].copy_from_slice(&value[..n]);
    }
    let symbols = vec![buffer; module.variables.len()];
    let threads = kernel.required_threads.unwrap_or([[32, 1, 1], [70, 1, 1]][(choice % 2) as usize]);
    let cluster = kernel.cluster.unwrap_or([1; 3]);
    let spec = LaunchSpec {
        kernel: &kernel.name,
        grid: cluster,
        block: threads,
        cluster: [1; 3],
        shared_bytes: 256,
        params: &params,
        symbols: &symbols,
        seed: u64::from(choice % 3),
        budget: 2_000,
        checks: if choice % 5 == 0 { Checks::FAST } else { Checks::ALL },
        threads: 1,
    };
    if let Err(fault) = launch(&module, &memory, &spec) {
        assert!(!fault.message.is_empty() && !fault.to_string().is_empty());
    }
});
