//! Products: GEMM, GEMV, attention, quantised weights.

use super::Module;

pub fn modules() -> Vec<Module> {
    Vec::new()
}
