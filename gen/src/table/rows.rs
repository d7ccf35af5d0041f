//! Kernels bound by memory: embedding, norms, rotary embedding, activations, sampling, routing.

use super::{HALVES, Module, Target, Variant};

pub fn modules() -> Vec<Module> {
    vec![Module::new("rmsnorm", Target::Sm80, rmsnorm())]
}

/// By width: a row to a warp in registers, a row to a block in registers, any width.
fn rmsnorm() -> Vec<Variant> {
    let mut all = Vec::new();
    for (name, ty) in HALVES {
        let mut add = |suffix: &str, call: String, block: u32, registers: u32, width: &str| {
            let about = format!("dtype={name} {width}");
            let variant = Variant::new(format!("{name}_rmsnorm_{suffix}"), call, "RmsNormParams");
            all.push(variant.block(block).registers(registers).about(about));
        };
        for (passes, most) in [(1, 256), (4, 1024)] {
            let call = format!("rms_norm_warp<{ty}, {passes}>");
            add(&format!("warp{passes}"), call, 128, 64, &format!("width<={most},%8"));
        }
        for (passes, most) in [(1, 8192), (2, 16384)] {
            let call = format!("rms_norm_block<{ty}, {passes}>");
            add(&format!("block{passes}"), call, 1024, 64, &format!("width<={most},%8"));
        }
        add("any", format!("rms_norm_any<{ty}>"), 256, 64, "width=any");
    }
    all
}
