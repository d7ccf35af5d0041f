//! Integer arithmetic of every width against 128-bit arithmetic, over values at the borders.

mod support;

use support::vectors::{
    EDGES32, EDGES64, check32, check64, numbers, ones32, ones64, pairs32, pairs64, table32, triples,
};

/// A value of `bits` bits, sign-extended or not.
fn wide(v: u64, bits: u32, signed: bool) -> i128 {
    let cut = v & (u64::MAX >> (64 - bits));
    match signed && cut >> (bits - 1) & 1 != 0 {
        true => i128::from(cut) - (1 << bits),
        false => i128::from(cut),
    }
}

/// The low `bits` bits.
fn low(v: i128, bits: u32) -> u64 {
    v as u64 & (u64::MAX >> (64 - bits))
}

type Op2 = (&'static str, fn(i128, i128) -> i128);

const BOTH: &[Op2] = &[
    ("add", |x, y| x + y),
    ("sub", |x, y| x - y),
    ("mul.lo", |x, y| x.wrapping_mul(y)),
    ("min", |x, y| x.min(y)),
    ("max", |x, y| x.max(y)),
];

fn random_pairs32(seed: u64) -> Vec<[u32; 3]> {
    numbers(seed, 400).chunks(2).map(|c| [c[0] as u32, c[1] as u32, 0]).collect()
}

fn random_pairs64(seed: u64) -> Vec<[u64; 3]> {
    numbers(seed, 400).chunks(2).map(|c| [c[0], c[1], 0]).collect()
}

#[test]
fn two_operands_in_32_bits() {
    let cases = [pairs32(EDGES32), random_pairs32(1)].concat();
    for (name, op) in BOTH {
        for signed in [true, false] {
            let ty = if signed { "s32" } else { "u32" };
            check32(&format!("{name}.{ty} %r0, %r1, %r2;"), &cases, |a, b, _| {
                low(op(wide(a.into(), 32, signed), wide(b.into(), 32, signed)), 32) as u32
            });
        }
    }
}

#[test]
fn two_operands_in_64_bits() {
    let cases = [pairs64(EDGES64), random_pairs64(2)].concat();
    for (name, op) in BOTH {
        for signed in [true, false] {
            let ty = if signed { "s64" } else { "u64" };
            check64(&format!("{name}.{ty} %rd0, %rd1, %rd2;"), &cases, |a, b, _| {
                low(op(wide(a, 64, signed), wide(b, 64, signed)), 64)
            });
        }
    }
}

#[test]
fn two_operands_in_16_bits() {
    let cases = [pairs32(EDGES32), random_pairs32(3)].concat();
    for (name, op) in BOTH {
        for signed in [true, false] {
            let ty = if signed { "s16" } else { "u16" };
            let code = format!("{name}.{ty} %h0, %h1, %h2; cvt.u32.u16 %r0, %h0;");
            check32(&code, &cases, |a, b, _| {
                low(op(wide(a.into(), 16, signed), wide(b.into(), 16, signed)), 16) as u32
            });
        }
    }
}

#[test]
fn high_halves_and_wide_products() {
    let cases = [pairs32(EDGES32), random_pairs32(4)].concat();
    let long = [pairs64(EDGES64), random_pairs64(5)].concat();
    for signed in [true, false] {
        let s = if signed { "s" } else { "u" };
        let product = |a: u32, b: u32| wide(a.into(), 32, signed) * wide(b.into(), 32, signed);
        check32(&format!("mul.hi.{s}32 %r0, %r1, %r2;"), &cases, |a, b, _| {
            low(product(a, b) >> 32, 32) as u32
        });
        let lower = format!("mul.wide.{s}32 %rd0, %r1, %r2; cvt.u32.u64 %r0, %rd0;");
        check32(&lower, &cases, |a, b, _| low(product(a, b), 32) as u32);
        let upper = format!(
            "mul.wide.{s}32 %rd0, %r1, %r2; shr.u64 %rd0, %rd0, 32; cvt.u32.u64 %r0, %rd0;"
        );
        check32(&upper, &cases, |a, b, _| low(product(a, b) >> 32, 32) as u32);
        let half = |a: u32, b: u32| wide(a.into(), 16, signed) * wide(b.into(), 16, signed);
        let code = format!("mul.wide.{s}16 %r0, %h1, %h2;");
        check32(&code, &cases, |a, b, _| low(half(a, b), 32) as u32);
        let code = format!("mul.hi.{s}16 %h0, %h1, %h2; cvt.u32.u16 %r0, %h0;");
        check32(&code, &cases, |a, b, _| low(half(a, b) >> 16, 16) as u32);
        check64(&format!("mul.hi.{s}64 %rd0, %rd1, %rd2;"), &long, |a, b, _| {
            let high = |x: u64, y: u64| (u128::from(x) * u128::from(y)) >> 64;
            // The signed high half from the unsigned one (Hacker's Delight, §8-3).
            let mut h = high(a, b) as u64;
            if signed {
                h = h.wrapping_sub(if (a as i64) < 0 { b } else { 0 });
                h = h.wrapping_sub(if (b as i64) < 0 { a } else { 0 });
            }
            h
        });
    }
}

#[test]
fn twenty_four_bit_products() {
    let cases = [pairs32(EDGES32), random_pairs32(6)].concat();
    for signed in [true, false] {
        let s = if signed { "s" } else { "u" };
        let product = |a: u32, b: u32| wide(a.into(), 24, signed) * wide(b.into(), 24, signed);
        check32(&format!("mul24.lo.{s}32 %r0, %r1, %r2;"), &cases, |a, b, _| {
            low(product(a, b), 32) as u32
        });
    }
}

#[test]
fn multiply_add_of_every_width() {
    let few = [0u32, 1, 0x7fff, 0x8000, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 0x1234_5678];
    let cases = triples(&few);
    for signed in [true, false] {
        let s = if signed { "s" } else { "u" };
        let w = |v: u32| wide(v.into(), 32, signed);
        check32(&format!("mad.lo.{s}32 %r0, %r1, %r2, %r3;"), &cases, |a, b, c| {
            low(w(a) * w(b) + w(c), 32) as u32
        });
        check32(&format!("mad.hi.{s}32 %r0, %r1, %r2, %r3;"), &cases, |a, b, c| {
            low(((w(a) * w(b)) >> 32) + w(c), 32) as u32
        });
        let h = |v: u32| wide(v.into(), 16, signed);
        let code = format!("mad.lo.{s}16 %h0, %h1, %h2, %h3; cvt.u32.u16 %r0, %h0;");
        check32(&code, &cases, |a, b, c| low(h(a) * h(b) + h(c), 16) as u32);
        let code = format!("mad.hi.{s}16 %h0, %h1, %h2, %h3; cvt.u32.u16 %r0, %h0;");
        check32(&code, &cases, |a, b, c| low(((h(a) * h(b)) >> 16) + h(c), 16) as u32);
        let code = format!("mad.wide.{s}16 %r0, %h1, %h2, %r3;");
        check32(&code, &cases, |a, b, c| low(h(a) * h(b) + i128::from(c), 32) as u32);
        let cut = |v: u64| wide(v, 32, signed);
        let triple = triples(&[0u64, 1, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 1 << 63, u64::MAX]);
        check64(&format!("mad.wide.{s}32 %rd0, %r1, %r2, %rd3;"), &triple, |a, b, c| {
            low(cut(a) * cut(b) + i128::from(c), 64)
        });
        check64(&format!("mad.lo.{s}64 %rd0, %rd1, %rd2, %rd3;"), &triple, |a, b, c| {
            a.wrapping_mul(b).wrapping_add(c)
        });
    }
    check32("mad.hi.sat.s32 %r0, %r1, %r2, %r3;", &cases, |a, b, c| {
        let w = |v: u32| i128::from(v as i32);
        (((w(a) * w(b)) >> 32) + w(c)).clamp(i32::MIN.into(), i32::MAX.into()) as u32
    });
}

#[test]
fn saturation_only_where_asked() {
    let cases = pairs32(EDGES32);
    let clamp = |v: i128| v.clamp(i32::MIN.into(), i32::MAX.into()) as u32;
    let w = |v: u32| i128::from(v as i32);
    check32("add.sat.s32 %r0, %r1, %r2;", &cases, |a, b, _| clamp(w(a) + w(b)));
    check32("sub.sat.s32 %r0, %r1, %r2;", &cases, |a, b, _| clamp(w(a) - w(b)));
}

/// Quotients truncate toward zero and a remainder has the sign of the dividend. Division by zero
/// is left to the machine, so no case has it.
#[test]
fn division_truncates() {
    let cases: Vec<_> = pairs32(EDGES32).into_iter().filter(|c| c[1] != 0).collect();
    let long: Vec<_> = pairs64(EDGES64).into_iter().filter(|c| c[1] != 0).collect();
    for signed in [true, false] {
        let s = if signed { "s" } else { "u" };
        let w = |v: u32| wide(v.into(), 32, signed);
        check32(&format!("div.{s}32 %r0, %r1, %r2;"), &cases, |a, b, _| {
            low(w(a) / w(b), 32) as u32
        });
        check32(&format!("rem.{s}32 %r0, %r1, %r2;"), &cases, |a, b, _| {
            low(w(a) % w(b), 32) as u32
        });
        let w = |v: u64| wide(v, 64, signed);
        check64(&format!("div.{s}64 %rd0, %rd1, %rd2;"), &long, |a, b, _| low(w(a) / w(b), 64));
        check64(&format!("rem.{s}64 %rd0, %rd1, %rd2;"), &long, |a, b, _| low(w(a) % w(b), 64));
        let narrow: Vec<_> = cases.iter().copied().filter(|c| c[1] & 0xffff != 0).collect();
        let h = |v: u32| wide(v.into(), 16, signed);
        let code = format!("div.{s}16 %h0, %h1, %h2; cvt.u32.u16 %r0, %h0;");
        check32(&code, &narrow, |a, b, _| low(h(a) / h(b), 16) as u32);
        let code = format!("rem.{s}16 %h0, %h1, %h2; cvt.u32.u16 %r0, %h0;");
        check32(&code, &narrow, |a, b, _| low(h(a) % h(b), 16) as u32);
    }
}

#[test]
fn one_operand() {
    let (short, long) = (ones32(EDGES32), ones64(EDGES64));
    check32("neg.s32 %r0, %r1;", &short, |a, _, _| 0u32.wrapping_sub(a));
    check32(
        "abs.s32 %r0, %r1;",
        &short,
        |a, _, _| if a >> 31 == 1 { 0u32.wrapping_sub(a) } else { a },
    );
    check32("not.b32 %r0, %r1;", &short, |a, _, _| u32::MAX - a);
    check32("cnot.b32 %r0, %r1;", &short, |a, _, _| if a == 0 { 1 } else { 0 });
    check64("neg.s64 %rd0, %rd1;", &long, |a, _, _| 0u64.wrapping_sub(a));
    check64(
        "abs.s64 %rd0, %rd1;",
        &long,
        |a, _, _| if a >> 63 == 1 { 0u64.wrapping_sub(a) } else { a },
    );
    check64("not.b64 %rd0, %rd1;", &long, |a, _, _| u64::MAX - a);
    check64("cnot.b64 %rd0, %rd1;", &long, |a, _, _| if a == 0 { 1 } else { 0 });
    let code = "neg.s16 %h0, %h1; cvt.u32.u16 %r0, %h0;";
    check32(code, &short, |a, _, _| 0u32.wrapping_sub(a) & 0xffff);
    let code = "abs.s16 %h0, %h1; cvt.u32.u16 %r0, %h0;";
    check32(code, &short, |a, _, _| low(wide(a.into(), 16, true).abs(), 16) as u32);
    let code = "not.b16 %h0, %h1; cvt.u32.u16 %r0, %h0;";
    check32(code, &short, |a, _, _| 0xffff - (a & 0xffff));
}

#[test]
fn sums_of_absolute_differences() {
    let few = [0u32, 1, 2, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 1000];
    for signed in [true, false] {
        let s = if signed { "s" } else { "u" };
        let w = |v: u32| wide(v.into(), 32, signed);
        check32(&format!("sad.{s}32 %r0, %r1, %r2, %r3;"), &triples(&few), |a, b, c| {
            low(i128::from(c) + (w(a) - w(b)).abs(), 32) as u32
        });
    }
}

#[test]
fn packed_sixteen_bit_pairs() {
    let cases = pairs32(EDGES32);
    let both = |f: fn(u16, u16) -> u16| {
        move |a: u32, b: u32, _: u32| {
            u32::from(f(a as u16, b as u16))
                | u32::from(f((a >> 16) as u16, (b >> 16) as u16)) << 16
        }
    };
    check32("add.u16x2 %r0, %r1, %r2;", &cases, both(|a, b| (u32::from(a) + u32::from(b)) as u16));
    check32("add.s16x2 %r0, %r1, %r2;", &cases, both(|a, b| (u32::from(a) + u32::from(b)) as u16));
    check32("min.u16x2 %r0, %r1, %r2;", &cases, both(|a, b| if a < b { a } else { b }));
    check32("max.u16x2 %r0, %r1, %r2;", &cases, both(|a, b| if a > b { a } else { b }));
    let s = |v: u16| v as i16;
    let _ = s;
    check32(
        "min.s16x2 %r0, %r1, %r2;",
        &cases,
        both(|a, b| if (a as i16) < b as i16 { a } else { b }),
    );
    check32(
        "max.s16x2 %r0, %r1, %r2;",
        &cases,
        both(|a, b| if (a as i16) > b as i16 { a } else { b }),
    );
}

/// 128-bit sums, differences and products built from the carry flag.
#[test]
fn carries_make_wider_numbers() {
    let cases = [pairs64(EDGES64), random_pairs64(7)].concat();
    let sum = "cvt.u32.u64 %r1, %rd1; shr.u64 %rd4, %rd1, 32; cvt.u32.u64 %r2, %rd4; \
               cvt.u32.u64 %r3, %rd2; shr.u64 %rd4, %rd2, 32; cvt.u32.u64 %r4, %rd4; \
               OP.cc.u32 %r5, %r1, %r3; OPc.u32 %r6, %r2, %r4; mov.b64 %rd0, {%r5, %r6};";
    check64(&sum.replace("OP", "add"), &cases, |a, b, _| a.wrapping_add(b));
    check64(&sum.replace("OP", "sub"), &cases, |a, b, _| a.wrapping_sub(b));
    let high = "OP.cc.u64 %rd4, %rd1, %rd2; OPc.u64 %rd0, 0, 0;";
    check64(&high.replace("OP", "add"), &cases, |a, b, _| u64::from(a.checked_add(b).is_none()));
    check64(&high.replace("OP", "sub"), &cases, |a, b, _| if a < b { u64::MAX } else { 0 });
    // The low half of a 64-bit product plus a third number, in 32-bit steps.
    let product = "shr.u64 %rd4, %rd1, 32; cvt.u32.u64 %r4, %rd4; shr.u64 %rd4, %rd2, 32; \
                   cvt.u32.u64 %r5, %rd4; mul.lo.u32 %r10, %r1, %r2; mul.hi.u32 %r11, %r1, %r2; \
                   mad.lo.cc.u32 %r11, %r4, %r2, %r11; mad.lo.cc.u32 %r11, %r1, %r5, %r11; \
                   mov.b64 %rd0, {%r10, %r11};";
    check64(product, &cases, |a, b, _| a.wrapping_mul(b));
    let chain = "mad.lo.cc.u32 %r4, %r1, %r2, %r3; madc.hi.u32 %r5, %r1, %r2, 0; \
                 mov.b64 %rd0, {%r4, %r5};";
    let small = triples(&[0u64, 1, 0xffff_ffff, 0x8000_0000, 0x1234_5678]);
    check64(chain, &small, |a, b, c| a * b + c);
    // A carry that is read stays until the next instruction that writes it.
    table32(
        "add.cc.u32 %r4, %r1, %r2; addc.cc.u32 %r5, %r3, 0; addc.u32 %r0, 0, 0;",
        &[
            ([u32::MAX, 1, u32::MAX], 1),
            ([u32::MAX, 1, 0], 0),
            ([1, 1, u32::MAX], 0),
            ([u32::MAX, u32::MAX, u32::MAX], 1),
        ],
    );
}

#[test]
fn immediates_of_every_spelling() {
    table32("add.s32 %r0, %r1, -5;", &[([3, 0, 0], -2i32 as u32)]);
    table32("add.u32 %r0, %r1, 0x10;", &[([3, 0, 0], 0x13)]);
    table32("add.u32 %r0, %r1, 010;", &[([3, 0, 0], 11)]);
    table32("add.u32 %r0, %r1, 0b101;", &[([3, 0, 0], 8)]);
    table32("add.u32 %r0, %r1, 7U;", &[([3, 0, 0], 10)]);
    table32("mov.u32 %r0, 4294967295;", &[([0, 0, 0], u32::MAX)]);
    table32("mov.b32 %f0, 0f40490FDB; mov.b32 %r0, %f0;", &[([0, 0, 0], 0x4049_0fdb)]);
    table32(
        "mov.f64 %fd0, 0d4000000000000000; cvt.rn.f32.f64 %f0, %fd0; mov.b32 %r0, %f0;",
        &[([0, 0, 0], 0x4000_0000)],
    );
    table32("and.b32 %r0, %r1, 0xffffff00;", &[([0x1234_5678, 0, 0], 0x1234_5600)]);
}
