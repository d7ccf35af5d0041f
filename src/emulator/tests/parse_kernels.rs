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
