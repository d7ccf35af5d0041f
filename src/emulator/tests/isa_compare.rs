//! Comparisons, predicates and selections.

mod support;

use support::vectors::{
    EDGES_F32, EDGES32, EDGES64, check32, check64, pairs32, pairs64, table32, triples,
};

type IntTest = (&'static str, fn(std::cmp::Ordering) -> bool);

const ORDER: [IntTest; 6] = [
    ("eq", |o| o.is_eq()),
    ("ne", |o| o.is_ne()),
    ("lt", |o| o.is_lt()),
    ("le", |o| o.is_le()),
    ("gt", |o| o.is_gt()),
    ("ge", |o| o.is_ge()),
];

#[test]
fn integers_of_every_width() {
    for (name, holds) in ORDER {
        let code = |ty: &str, a: &str, b: &str| {
            format!("setp.{name}.{ty} %p1, {a}, {b}; selp.u32 %r0, 1, 0, %p1;")
        };
        let cases = pairs32(EDGES32);
        check32(&code("u32", "%r1", "%r2"), &cases, |a, b, _| holds(a.cmp(&b)).into());
        check32(&code("s32", "%r1", "%r2"), &cases, |a, b, _| {
            holds((a as i32).cmp(&(b as i32))).into()
        });
        check32(&code("u16", "%h1", "%h2"), &cases, |a, b, _| {
            holds((a as u16).cmp(&(b as u16))).into()
        });
        check32(&code("s16", "%h1", "%h2"), &cases, |a, b, _| {
            holds((a as i16).cmp(&(b as i16))).into()
        });
        let long =
            |ty: &str| format!("setp.{name}.{ty} %p1, %rd1, %rd2; selp.u64 %rd0, 1, 0, %p1;");
        let cases = pairs64(EDGES64);
        check64(&long("u64"), &cases, |a, b, _| holds(a.cmp(&b)).into());
        check64(&long("s64"), &cases, |a, b, _| holds((a as i64).cmp(&(b as i64))).into());
    }
    // Bit types know only equality; the unsigned names lo, ls, hi, hs are the ordered ones.
    for (name, holds) in &ORDER[..2] {
        let code = format!("setp.{name}.b32 %p1, %r1, %r2; selp.u32 %r0, 1, 0, %p1;");
        check32(&code, &pairs32(EDGES32), |a, b, _| holds(a.cmp(&b)).into());
    }
    for (name, holds) in
        [("lo", ORDER[2].1), ("ls", ORDER[3].1), ("hi", ORDER[4].1), ("hs", ORDER[5].1)]
    {
        let code = format!("setp.{name}.u32 %p1, %r1, %r2; selp.u32 %r0, 1, 0, %p1;");
        check32(&code, &pairs32(EDGES32), |a, b, _| holds(a.cmp(&b)).into());
    }
}

type FloatTest = (&'static str, bool, bool, bool, bool);

/// Name; result for less, equal, greater, unordered.
const FLOATS: [FloatTest; 14] = [
    ("eq", false, true, false, false),
    ("ne", true, false, true, false),
    ("lt", true, false, false, false),
    ("le", true, true, false, false),
    ("gt", false, false, true, false),
    ("ge", false, true, true, false),
    ("equ", false, true, false, true),
    ("neu", true, false, true, true),
    ("ltu", true, false, false, true),
    ("leu", true, true, false, true),
    ("gtu", false, false, true, true),
    ("geu", false, true, true, true),
    ("num", true, true, true, false),
    ("nan", false, false, false, true),
];

fn pick(row: &FloatTest, x: f64, y: f64) -> bool {
    match x.partial_cmp(&y) {
        Some(std::cmp::Ordering::Less) => row.1,
        Some(std::cmp::Ordering::Equal) => row.2,
        Some(std::cmp::Ordering::Greater) => row.3,
        None => row.4,
    }
}

#[test]
fn floats_and_nan() {
    let f = |v: u32| f64::from(f32::from_bits(v));
    let flush = |v: u32| if v & 0x7f80_0000 == 0 { v & 0x8000_0000 } else { v };
    for row in &FLOATS {
        let name = row.0;
        let code = format!("setp.{name}.f32 %p1, %f1, %f2; selp.u32 %r0, 1, 0, %p1;");
        check32(&code, &pairs32(EDGES_F32), |a, b, _| pick(row, f(a), f(b)).into());
        let code = format!("setp.{name}.ftz.f32 %p1, %f1, %f2; selp.u32 %r0, 1, 0, %p1;");
        check32(&code, &pairs32(EDGES_F32), |a, b, _| pick(row, f(flush(a)), f(flush(b))).into());
        let wide: Vec<u64> = EDGES_F32.iter().map(|v| f(*v).to_bits()).collect();
        let code = format!("setp.{name}.f64 %p1, %fd1, %fd2; selp.u64 %rd0, 1, 0, %p1;");
        check64(&code, &pairs64(&wide), |a, b, _| {
            pick(row, f64::from_bits(a), f64::from_bits(b)).into()
        });
    }
}

/// p is the result, q its complement, each joined with a third predicate.
#[test]
fn two_predicates_and_a_third() {
    for (op, join) in [
        ("and", (|a, b| a & b) as fn(bool, bool) -> bool),
        ("or", |a, b| a | b),
        ("xor", |a, b| a ^ b),
    ] {
        for negated in [false, true] {
            let not = if negated { "!" } else { "" };
            let code = format!(
                "setp.ne.u32 %p3, %r3, 0; setp.lt.{op}.u32 %p1|%p2, %r1, %r2, {not}%p3; \
                 selp.u32 %r4, 1, 0, %p1; selp.u32 %r5, 2, 0, %p2; or.b32 %r0, %r4, %r5;"
            );
            check32(&code, &triples(&[0, 1, 2]), |a, b, c| {
                let third = (c != 0) != negated;
                u32::from(join(a < b, third)) | u32::from(join(a >= b, third)) << 1
            });
        }
    }
    let code = "setp.lt.u32 %p1|%p2, %r1, %r2; selp.u32 %r0, 1, 0, %p2;";
    check32(code, &pairs32(EDGES32), |a, b, _| u32::from(a >= b));
    let code = "setp.lt.u32 _|%p2, %r1, %r2; selp.u32 %r0, 1, 0, %p2;";
    check32(code, &pairs32(EDGES32), |a, b, _| u32::from(a >= b));
}

#[test]
fn logic_on_predicates() {
    for (op, join) in [
        ("and", (|a, b| a & b) as fn(u32, u32) -> u32),
        ("or", |a, b| a | b),
        ("xor", |a, b| a ^ b),
    ] {
        let code = format!(
            "setp.ne.u32 %p1, %r1, 0; setp.ne.u32 %p2, %r2, 0; {op}.pred %p3, %p1, %p2; \
             selp.u32 %r0, 1, 0, %p3;"
        );
        check32(&code, &pairs32(&[0, 1]), |a, b, _| join(a, b));
    }
    let code =
        "setp.ne.u32 %p1, %r1, 0; not.pred %p2, %p1; mov.pred %p3, %p2; selp.u32 %r0, 1, 0, %p3;";
    check32(code, &pairs32(&[0, 1]), |a, _, _| 1 - a);
}

/// set: all ones or 1.0 where the comparison holds.
#[test]
fn comparisons_into_registers() {
    for (name, holds) in ORDER {
        check32(&format!("set.{name}.u32.s32 %r0, %r1, %r2;"), &pairs32(EDGES32), |a, b, _| {
            if holds((a as i32).cmp(&(b as i32))) { u32::MAX } else { 0 }
        });
        let code = format!("set.{name}.f32.u32 %f0, %r1, %r2; mov.b32 %r0, %f0;");
        check32(&code, &pairs32(EDGES32), |a, b, _| if holds(a.cmp(&b)) { 0x3f80_0000 } else { 0 });
    }
    for row in &FLOATS {
        check32(
            &format!("set.{}.u32.f32 %r0, %f1, %f2;", row.0),
            &pairs32(EDGES_F32),
            |a, b, _| {
                let f = |v: u32| f64::from(f32::from_bits(v));
                if pick(row, f(a), f(b)) { u32::MAX } else { 0 }
            },
        );
    }
    let code = "setp.ne.u32 %p1, %r3, 0; set.lt.and.u32.u32 %r0, %r1, %r2, %p1;";
    check32(code, &triples(&[0, 1, 2]), |a, b, c| if a < b && c != 0 { u32::MAX } else { 0 });
}

#[test]
fn selections() {
    let code = "setp.ne.u32 %p1, %r3, 0; selp.b32 %r0, %r1, %r2, %p1;";
    check32(code, &triples(&[0, 5, u32::MAX]), |a, b, c| if c != 0 { a } else { b });
    let code = "setp.ne.u32 %p1, %r3, 0; selp.b32 %r0, %r1, %r2, !%p1;";
    check32(code, &triples(&[0, 5, u32::MAX]), |a, b, c| if c == 0 { a } else { b });
    let code = "setp.ne.u32 %p1, %r3, 0; selp.f32 %f0, %f1, %f2, %p1; mov.b32 %r0, %f0;";
    check32(code, &triples(&[0, 0x7fc0_0001, 0x8000_0001]), |a, b, c| if c != 0 { a } else { b });
    let code = "setp.ne.u32 %p1, %r3, 0; selp.b16 %h0, %h1, %h2, %p1; cvt.u32.u16 %r0, %h0;";
    check32(code, &triples(&[0, 5, 0x1_0007]), |a, b, c| (if c != 0 { a } else { b }) & 0xffff);
    let code = "setp.ne.u64 %p1, %rd3, 0; selp.b64 %rd0, %rd1, %rd2, %p1;";
    check64(code, &triples(&[0, 5, 1 << 40]), |a, b, c| if c != 0 { a } else { b });
    // The side that is not chosen need not have a value.
    table32("setp.eq.u32 %p1, %r1, 1; selp.b32 %r0, %r1, %r50, %p1;", &[([1, 0, 0], 1)]);
}

/// slct: a where c ≥ 0; −0 counts as zero and NaN as negative.
#[test]
fn selections_by_sign() {
    check32("slct.b32.s32 %r0, %r1, %r2, %r3;", &triples(&EDGES32[..8]), |a, _, _| a);
    check32(
        "slct.u32.s32 %r0, %r1, %r2, %r3;",
        &triples(&[1, 0x8000_0000, u32::MAX]),
        |a, b, c| {
            if c >> 31 == 0 { a } else { b }
        },
    );
    let at_least = |c: u32| f32::from_bits(c) >= 0.0;
    let cases: Vec<[u32; 3]> = EDGES_F32.iter().map(|c| [7, 9, *c]).collect();
    check32("slct.b32.f32 %r0, %r1, %r2, %f3;", &cases, |a, b, c| if at_least(c) { a } else { b });
    check32("slct.ftz.b32.f32 %r0, %r1, %r2, %f3;", &cases, |a, b, c| {
        let c = if c & 0x7f80_0000 == 0 { 0 } else { c };
        if at_least(c) { a } else { b }
    });
    let code = "mov.b32 %r5, 0x80000000; slct.f32.s32 %f0, %f1, %f2, %r3; mov.b32 %r0, %f0;";
    check32(code, &[[1, 2, 0], [1, 2, 0x8000_0000]], |a, b, c| if c == 0 { a } else { b });
}

/// Guards decide by lane, and an instruction that no lane executes does nothing.
#[test]
fn guards() {
    let code =
        "mov.u32 %r0, 1; setp.gt.u32 %p1, %r1, 5; @%p1 mov.u32 %r0, 2; @!%p1 add.u32 %r0, %r0, 6;";
    check32(code, &pairs32(&[0, 5, 6, 9]), |a, _, _| if a > 5 { 2 } else { 7 });
    let code = "mov.u32 %r0, 1; setp.gt.u32 %p1, %r1, 100; @%p1 bra L; add.u32 %r0, %r0, 1; L:";
    check32(code, &pairs32(&[0, 101]), |a, _, _| if a > 100 { 1 } else { 2 });
}
