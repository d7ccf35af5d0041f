//! The reduced set that `cargo test` runs; that every variant has a case; that checks can fail.

use std::collections::BTreeSet;

use super::*;
use crate::device::gpu::registry;

#[test]
fn quick_cases_pass_under_two_schedules_and_reach_every_variant() {
    let mut machine = Emulated::default();
    let mut faults = Vec::new();
    let mut launched = BTreeSet::new();
    let all = cases();
    for case in all.iter().filter(|c| c.quick) {
        let outcome = run(case, &mut machine, 2);
        launched.extend(outcome.launched);
        if let Some(fault) = outcome.failure {
            faults.push(format!("{}: {fault}", case.name));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    let missed: Vec<&str> = registry::kernels()
        .map(|(_, kernel)| kernel.symbol)
        .filter(|symbol| !launched.contains(symbol))
        .collect();
    assert!(missed.is_empty(), "no quick case launches {missed:?}");
}

/// The case, the module, a text of its PTX and what takes its place.
const PLANTED: [(&str, &str, &str, &str); 12] = [
    ("rmsnorm bf16 block1 2x1x2048", "rmsnorm_sm80", "bar.sync", "// bar.sync"),
    ("rmsnorm bf16 warp1 3x5x64", "rmsnorm_sm80", "rsqrt.approx", "sqrt.approx"),
    ("rmsnorm bf16 warp1 2x3x80", "rmsnorm_sm80", "ld.global.v4.u32", "ld.global.v4.s8"),
    ("rope bf16 vec 4/2", "rope_sm80", "sub.f32", "add.f32"),
    ("rope angles", "rope_sm80", "neg.f32", "mov.f32"),
    ("rope bf16 norm 3/2", "rope_sm80", "shfl.sync.bfly", "shfl.sync.down"),
    ("embed bf16 3x576", "embed_sm80", "mul.f32", "add.f32"),
    ("gather f16 3x576", "gather_sm80", "setp.ge.u32", "setp.gt.u32"),
    ("moe_permute 131", "moe_permute_sm80", "bar.sync", "// bar.sync"),
    ("moe_topk 5x60", "moe_topk_sm80", "setp.lt.u32", "setp.gt.u32"),
    ("sample top_p of 3001", "sample_sm80", "bar.sync", "// bar.sync"),
    ("sample plain of 3001", "sample_sm80", "-766435501", "-766435503"),
];

#[test]
fn planted_faults_are_found() {
    for (name, module, from, to) in PLANTED {
        let all = cases();
        let case = all.iter().find(|c| c.name.starts_with(name)).expect(name);
        let mut machine = Emulated::default();
        let changed = machine.replace(module, from, to);
        assert!(changed, "{module} has no {from}");
        assert!(run(case, &mut machine, 2).failure.is_some(), "{name}: {from} -> {to} passed");
    }
}

#[test]
fn a_launch_that_the_registry_contradicts_is_refused() {
    let mut machine = Emulated::default();
    let mut bench = Bench::new(&mut machine, 0);
    let params = crate::device::gpu::abi::AddParams::default();
    let one = Geometry::new(1, 256);
    let refused = |e: Result<(), String>| e.expect_err("refused");
    assert!(refused(bench.launch("sm80_bf16_none", one, &params, None)).contains("no kernel"));
    let wrong = refused(bench.launch("sm80_bf16_embed_vec", one, &params, None));
    assert!(wrong.contains("EmbedParams"), "{wrong}");
    let wide = Geometry::new(1, 512);
    let wide = refused(bench.launch("sm80_bf16_add_vec", wide, &params, None));
    assert!(wide.contains("256 at most"), "{wide}");
}

/// The same cases through a driver's door, which knows nothing of what is written where.
#[test]
fn checks_run_on_a_driver_and_see_stray_writes_there() {
    use crate::device::gpu::driver::emulated;
    let driver = emulated::Emulated::new(pacer_emulator::host::Config::default());
    let mut machine = OnDriver::new(&driver);
    for case in cases().iter().filter(|c| c.name.starts_with("embed bf16")) {
        assert_eq!(run(case, &mut machine, 1).failure, None, "{}", case.name);
    }
    let at = machine.alloc(24).expect("memory");
    machine.write(at + 24, &[0]).expect("the guard is memory");
    assert!(machine.clear().expect_err("seen").contains("written outside of 24 bytes"));
}

/// Registers and shared memory, as ptxas reports them, leave room for the blocks that a grid counts
/// on: one of each kernel, two of decode attention, with whose splits a card is filled.
#[test]
fn kernels_are_as_resident_as_declared() {
    use pacer_emulator::card::{A100, H100_SXM};
    use pacer_emulator::timemodel::{BlockNeeds, occupancy};
    for (module, kernel) in registry::kernels() {
        for (card, arch) in [(&A100, "sm_80"), (&H100_SXM, "sm_90")] {
            if !module.target.runs_on(card.capability) {
                continue;
            }
            let uses = kernel.uses.iter().find(|u| u.0.starts_with(arch)).expect(kernel.symbol);
            let shared = uses.2 + kernel.shared;
            let needs = BlockNeeds { threads: kernel.block, registers: uses.1, shared };
            let blocks = occupancy(card, needs).blocks;
            // Two where shared memory has room for them, then registers must too.
            let two = kernel.symbol.contains("attention_decode")
                && 2 * (kernel.shared + 1024) <= card.shared_per_sm;
            let wanted = if two { 2 } else { 1 };
            assert!(blocks >= wanted, "{} on {}: {blocks} blocks", kernel.symbol, card.name);
        }
    }
}
