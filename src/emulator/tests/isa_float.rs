//! Floating-point arithmetic and conversions, against values from the ISA's text and from f64.

mod support;

use pacer_emulator::Rule;
use support::{Setup, breaks, eval, eval64};

fn f(x: f32) -> u32 {
    x.to_bits()
}

/// Runs code on f32 registers: `%f0` from `%f1`, `%f2`, `%f3`.
#[track_caller]
fn float(code: &str, inputs: [u32; 3]) -> u32 {
    let full =
        format!("mov.b32 %f1, %r1; mov.b32 %f2, %r2; mov.b32 %f3, %r3; {code} mov.b32 %r0, %f0;");
    eval(&full, inputs)
}

#[test]
fn arithmetic_to_nearest() {
    assert_eq!(float("add.f32 %f0, %f1, %f2;", [f(1.5), f(2.25), 0]), f(3.75));
    assert_eq!(float("sub.rn.f32 %f0, %f1, %f2;", [f(1.0), f(1e-9), 0]), f(1.0));
    assert_eq!(float("mul.f32 %f0, %f1, %f2;", [f(3.0), f(-7.0), 0]), f(-21.0));
    assert_eq!(float("div.rn.f32 %f0, %f1, %f2;", [f(1.0), f(3.0), 0]), f(1.0 / 3.0));
    let x = 1.0 + f32::EPSILON;
    assert_eq!(float("fma.rn.f32 %f0, %f1, %f1, %f2;", [f(x), f(-1.0), 0]), f(x.mul_add(x, -1.0)));
    assert_eq!(float("neg.f32 %f0, %f1;", [f(0.0), 0, 0]), 0x8000_0000);
    assert_eq!(float("abs.f32 %f0, %f1;", [f(-4.0), 0, 0]), f(4.0));
    assert_eq!(float("copysign.f32 %f0, %f1, %f2;", [f(-1.0), f(4.0), 0]), f(-4.0));
}

#[test]
fn directed_rounding() {
    let tiny = f(1e-20);
    assert_eq!(float("add.rp.f32 %f0, %f1, %f2;", [f(1.0), tiny, 0]), f(1.0f32.next_up()));
    assert_eq!(float("add.rm.f32 %f0, %f1, %f2;", [f(1.0), tiny, 0]), f(1.0));
    assert_eq!(float("add.rz.f32 %f0, %f1, %f2;", [f(-1.0), tiny, 0]), f((-1.0f32).next_up()));
    assert_eq!(float("div.rp.f32 %f0, %f1, %f2;", [f(1.0), f(3.0), 0]), 0x3eaa_aaab);
    assert_eq!(float("div.rm.f32 %f0, %f1, %f2;", [f(1.0), f(3.0), 0]), 0x3eaa_aaaa);
    assert_eq!(float("sqrt.rm.f32 %f0, %f1;", [f(2.0), 0, 0]), 0x3fb5_04f3);
    assert_eq!(float("sqrt.rp.f32 %f0, %f1;", [f(2.0), 0, 0]), 0x3fb5_04f4);
    assert_eq!(
        float("fma.rz.f32 %f0, %f1, %f2, %f3;", [f(1.0), f(1.0), f(-1e-20)]),
        f(1.0f32.next_down())
    );
    assert_eq!(float("sub.rm.f32 %f0, %f1, %f1;", [f(1.0), 0, 0]), 0x8000_0000);
}

#[test]
fn flushing_saturation_and_nan() {
    let sub = 0x0000_0001;
    assert_eq!(float("add.ftz.f32 %f0, %f1, %f2;", [sub, 0, 0]), 0);
    assert_eq!(float("add.f32 %f0, %f1, %f2;", [sub, 0, 0]), sub);
    assert_eq!(
        float("mul.ftz.f32 %f0, %f1, %f2;", [f(f32::MIN_POSITIVE), f(-0.5), 0]),
        0x8000_0000
    );
    assert_eq!(float("add.sat.f32 %f0, %f1, %f2;", [f(1.0), f(5.0), 0]), f(1.0));
    assert_eq!(float("mul.sat.f32 %f0, %f1, %f2;", [f(f32::NAN), f(5.0), 0]), 0);
    assert_eq!(float("add.f32 %f0, %f1, %f2;", [0xffc0_0001, 0, 0]), 0x7fff_ffff);
    assert_eq!(float("sqrt.rn.f32 %f0, %f1;", [f(-1.0), 0, 0]), 0x7fff_ffff);
}

#[test]
fn min_and_max() {
    let nan = 0x7fc0_0000;
    assert_eq!(float("min.f32 %f0, %f1, %f2;", [nan, f(2.0), 0]), f(2.0));
    assert_eq!(float("max.NaN.f32 %f0, %f1, %f2;", [nan, f(2.0), 0]), 0x7fff_ffff);
    assert_eq!(float("max.f32 %f0, %f1, %f2;", [0x8000_0000, 0, 0]), 0);
    assert_eq!(float("min.f32 %f0, %f1, %f2;", [0, 0x8000_0000, 0]), 0x8000_0000);
    assert_eq!(float("max.xorsign.abs.f32 %f0, %f1, %f2;", [f(-3.0), f(2.0), 0]), f(-3.0));
}

#[test]
fn approximations_stay_within_their_bounds() {
    let value = |code, x: f32| f32::from_bits(float(code, [f(x), 0, 0]));
    for i in 1..200 {
        let x = i as f32 * 0.37 - 30.0;
        let close = |got: f32, want: f64, rel: f64| {
            assert!((f64::from(got) - want).abs() <= rel * want.abs() + 1e-38, "{x}: {got} {want}");
        };
        close(value("ex2.approx.f32 %f0, %f1;", x), f64::from(x).exp2(), 2f64.powi(-22));
        close(value("rcp.approx.f32 %f0, %f1;", x), 1.0 / f64::from(x), 2f64.powi(-23));
        close(value("tanh.approx.f32 %f0, %f1;", x), f64::from(x).tanh(), 2f64.powi(-11));
        let y = x.abs();
        close(value("rsqrt.approx.f32 %f0, %f1;", y), 1.0 / f64::from(y).sqrt(), 2f64.powi(-22));
    }
    assert_eq!(value("ex2.approx.f32 %f0, %f1;", f32::NEG_INFINITY), 0.0);
    assert_eq!(value("rcp.approx.f32 %f0, %f1;", 0.0), f32::INFINITY);
}

#[test]
fn comparisons_know_nan() {
    let nan = 0x7fc0_0000;
    let test = |cmp: &str, x, y| {
        float(
            &format!("setp.{cmp}.f32 %p1, %f1, %f2; selp.f32 %f0, 0f3F800000, 0f00000000, %p1;"),
            [x, y, 0],
        ) == f(1.0)
    };
    assert!(test("lt", f(1.0), f(2.0)) && !test("lt", nan, f(2.0)) && test("ltu", nan, f(2.0)));
    assert!(
        !test("ne", nan, nan) && test("neu", nan, nan) && test("nan", nan, 0) && test("num", 0, 0)
    );
    assert!(test("eq", 0, 0x8000_0000));
    let code = "setp.gt.and.s32 %p1|%p2, %r1, %r2, 1; selp.u32 %r4, 2, 0, %p1; \
                selp.u32 %r5, 1, 0, %p2; add.u32 %r0, %r4, %r5;";
    assert_eq!(eval(code, [5, 3, 0]), 2);
    assert_eq!(eval(code, [3, 5, 0]), 1);
}

#[test]
fn conversions_between_integers_and_floats() {
    assert_eq!(float("cvt.rzi.s32.f32 %r0, %f1; mov.b32 %f0, %r0;", [f(-2.7), 0, 0]), -2i32 as u32);
    assert_eq!(float("cvt.rni.s32.f32 %r0, %f1; mov.b32 %f0, %r0;", [f(2.5), 0, 0]), 2);
    assert_eq!(float("cvt.rpi.s32.f32 %r0, %f1; mov.b32 %f0, %r0;", [f(2.1), 0, 0]), 3);
    assert_eq!(float("cvt.rzi.u32.f32 %r0, %f1; mov.b32 %f0, %r0;", [f(-5.0), 0, 0]), 0);
    assert_eq!(
        float("cvt.rzi.s32.f32 %r0, %f1; mov.b32 %f0, %r0;", [f(1e30), 0, 0]),
        i32::MAX as u32
    );
    assert_eq!(float("cvt.rzi.s32.f32 %r0, %f1; mov.b32 %f0, %r0;", [f(f32::NAN), 0, 0]), 0);
    assert_eq!(eval("cvt.rn.f32.s32 %r0, %r1;", [-7i32 as u32, 0, 0]), f(-7.0));
    assert_eq!(eval("cvt.rz.f32.u32 %r0, %r1;", [0xffff_ffff, 0, 0]), f(4294967040.0));
    assert_eq!(eval("cvt.rn.f32.u32 %r0, %r1;", [0xffff_ffff, 0, 0]), f(4294967296.0));
    assert_eq!(float("cvt.rmi.f32.f32 %f0, %f1;", [f(-1.5), 0, 0]), f(-2.0));
    assert_eq!(eval64("cvt.rn.f64.s64 %rd0, %rd1;", [-3i64 as u64, 0, 0]), (-3f64).to_bits());
    assert_eq!(eval("cvt.s32.s8 %r0, %r1;", [0x180, 0, 0]), -128i32 as u32);
    assert_eq!(eval("cvt.sat.u8.s32 %r0, %r1;", [300, 0, 0]), 255);
}

#[test]
fn half_formats() {
    assert_eq!(
        float(
            "cvt.rn.bf16.f32 %h1, %f1; cvt.u32.u16 %r0, %h1; mov.b32 %f0, %r0;",
            [0x3f80_8000, 0, 0]
        ),
        0x3f80
    );
    assert_eq!(
        float(
            "cvt.rn.bf16.f32 %h1, %f1; cvt.u32.u16 %r0, %h1; mov.b32 %f0, %r0;",
            [0x3f81_8000, 0, 0]
        ),
        0x3f82
    );
    assert_eq!(
        float("cvt.rz.f16.f32 %h1, %f1; cvt.u32.u16 %r0, %h1; mov.b32 %f0, %r0;", [f(1e9), 0, 0]),
        0x7bff
    );
    assert_eq!(
        float("cvt.rn.bf16x2.f32 %r0, %f1, %f2; mov.b32 %f0, %r0;", [f(1.0), f(2.0), 0]),
        0x3f80_4000
    );
    assert_eq!(
        float("cvt.rn.relu.f16x2.f32 %r0, %f1, %f2; mov.b32 %f0, %r0;", [f(-1.0), f(2.0), 0]),
        0x0000_4000
    );
    let e4m3 = "cvt.rn.satfinite.e4m3x2.f32 %h1, %f1, %f2; cvt.u32.u16 %r0, %h1; mov.b32 %f0, %r0;";
    assert_eq!(float(e4m3, [f(1000.0), f(1.0), 0]), 0x7e38);
    let back = "cvt.u16.u32 %h1, %r1; cvt.rn.f16x2.e4m3x2 %r0, %h1;";
    assert_eq!(eval(back, [0x7e38, 0, 0]), 0x5f00_3c00);
    let pair = |code: &str, a, b| eval(code, [a, b, 0x3c00_3c00]);
    assert_eq!(pair("add.f16x2 %r0, %r1, %r2;", 0x3c00_4000, 0x3c00_3c00), 0x4000_4200);
    assert_eq!(pair("fma.rn.f16x2 %r0, %r1, %r2, %r3;", 0x4000_4000, 0x4200_3c00), 0x4700_4200);
    assert_eq!(pair("mul.bf16x2 %r0, %r1, %r2;", 0x4000_3f80, 0x4040_bf80), 0x40c0_bf80);
    assert_eq!(pair("max.f16x2 %r0, %r1, %r2;", 0x7e00_bc00, 0x3c00_3c00), 0x3c00_3c00);
}

#[test]
fn doubles() {
    let d = |x: f64| x.to_bits();
    assert_eq!(eval64("fma.rn.f64 %rd0, %rd1, %rd2, %rd3;", [d(2.0), d(3.0), d(0.5)]), d(6.5));
    assert_eq!(eval64("add.rp.f64 %rd0, %rd1, %rd2;", [d(1.0), d(1e-30), 0]), d(1f64.next_up()));
    assert_eq!(eval64("div.rn.f64 %rd0, %rd1, %rd2;", [d(1.0), d(3.0), 0]), d(1.0 / 3.0));
}

#[test]
fn memory_errors_are_named() {
    let one = Setup { threads: 1, ..Setup::default() };
    breaks(Rule::OutOfBounds, "st.global.u32 [%out+4096], 1;", one);
    breaks(Rule::OutOfBounds, "mov.u64 %rd1, 0; ld.global.u32 %r1, [%rd1];", one);
    breaks(Rule::Misaligned, "ld.global.u32 %r1, [%out+2];", one);
    breaks(Rule::Misaligned, "ld.global.v4.u32 {%r1,%r2,%r3,%r4}, [%out+8];", one);
    breaks(Rule::Uninitialised, "add.u32 %r1, %r2, 1;", one);
    breaks(Rule::Uninitialised, ".shared .b32 s; ld.shared.u32 %r1, [s];", one);
    breaks(Rule::Uninitialised, ".local .b32 s; ld.local.u32 %r1, [s];", one);
    breaks(Rule::OutOfBounds, ".shared .b32 s; mov.u32 %r1, s; st.shared.u32 [%r1+4], 1;", one);
    breaks(Rule::OutOfBounds, ".local .b32 s; st.local.u32 [s+4], 1;", one);
    breaks(Rule::Uninitialised, "@%p1 add.u32 %r1, %tid, 1;", one);
}
