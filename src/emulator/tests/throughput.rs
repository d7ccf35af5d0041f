//! Throughput of plain SIMT code, printed; ignored in ordinary runs because it is a timing.

mod support;

use std::time::Instant;

use support::{Setup, program, run_text};

#[test]
#[ignore = "a timing: run with --release -- --ignored --nocapture"]
fn lane_instructions_per_second() {
    let body = "mov.u32 %r1, 0; mov.b32 %f1, 0f3F800000; mov.b32 %f2, 0f3F000000;\
        L: fma.rn.f32 %f1, %f1, %f2, %f2; add.u32 %r2, %r1, %tid; xor.b32 %r3, %r2, 85;\
        mul.lo.u32 %r4, %r3, 7; add.f32 %f2, %f2, %f1; mul.f32 %f2, %f2, 0f3F000000;\
        add.u32 %r1, %r1, 1; setp.lt.u32 %p1, %r1, 20000; @%p1 bra L;\
        st.global.f32 [%my], %f1;";
    let setup = Setup { threads: 128, ..Setup::default() };
    let start = Instant::now();
    let ran = run_text(&program(body), setup).unwrap_or_else(|f| panic!("{f}"));
    let seconds = start.elapsed().as_secs_f64();
    let rate = ran.report.lane_instructions as f64 / seconds / 1e6;
    println!("{rate:.0} M lane-instructions/s of arithmetic on one core, all checks on");
    assert!(rate > 1.0);
}
