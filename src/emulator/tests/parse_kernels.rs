//! The PTX that nvcc wrote for the test kernels loads.

use std::path::Path;

use pacer_emulator::Module;

#[test]
fn every_test_kernel_loads() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernels");
    let mut count = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "ptx") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let module = Module::parse(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        for k in &module.kernels {
            println!(
                "{}: {} instructions, {}+{}+{} registers",
                k.name,
                k.code.len(),
                k.regs32,
                k.regs64,
                k.preds
            );
        }
        count += module.kernels.len();
    }
    assert!(count >= 12, "{count} kernels");
}

/// Damaged text is an error or loads; it never panics.
#[test]
fn damaged_text_never_panics() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernels");
    let mut state = 7u64;
    let mut random = move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize
    };
    for name in ["rmsnorm.ptx", "gemm_sm90.ptx", "sample.ptx"] {
        let text = std::fs::read_to_string(dir.join(name)).unwrap();
        for _ in 0..150 {
            let mut bytes = text.clone().into_bytes();
            for _ in 0..1 + random() % 4 {
                let at = random() % bytes.len();
                match random() % 3 {
                    0 => bytes[at] = b" ;,{}[]()%.0129azR<|!@-"[random() % 23],
                    1 => bytes.truncate(at.max(1)),
                    _ => {
                        let len = (random() % 60).min(bytes.len() - at);
                        bytes.drain(at..at + len);
                    }
                }
                if bytes.is_empty() {
                    break;
                }
            }
            let _ = Module::parse(&String::from_utf8_lossy(&bytes));
        }
    }
}
