//! f16 and bf16 arithmetic, alone and in pairs, against the comparing oracle.

mod support;

use support::exact::{BF16, F16, Fmt, Mode, round_f64, round_sum};
use support::vectors::{check32, numbers, pairs32, triples};

/// A format with its PTX name and its canonical NaN.
const TYPES: [(&str, Fmt); 2] = [("f16", F16), ("bf16", BF16)];
const NAN: u32 = 0x7fff;

fn edges(fmt: Fmt) -> Vec<u32> {
    let one = (((1 << (fmt.exponent - 1)) - 1) as u32) << fmt.fraction;
    let smallest = 1 << fmt.fraction;
    let plus = [
        0,
        1,
        smallest - 1,
        smallest,
        smallest + 1,
        one - 1,
        one,
        one + 1,
        one + smallest / 2,
        one + smallest,
        fmt.top() - 1,
        fmt.top(),
        fmt.top() + 1,
        fmt.top() + 3,
    ];
    plus.iter().flat_map(|v| [*v, *v | 0x8000]).collect()
}

/// Random encodings near one, so that they interact.
fn random(fmt: Fmt, seed: u64, n: usize) -> Vec<[u32; 3]> {
    let bias = (1u32 << (fmt.exponent - 1)) - 1;
    let one = |r: u64| {
        let exponent = bias - 4 + (r >> 40) as u32 % 9;
        (r as u32 & (0x8000 | ((1 << fmt.fraction) - 1))) | exponent << fmt.fraction
    };
    numbers(seed, 3 * n).chunks(3).map(|c| [one(c[0]), one(c[1]), one(c[2])]).collect()
}

fn sign(v: u32) -> u32 {
    v & 0x8000
}

/// Result of one operation on encodings; special values as IEEE 754 says.
fn expected(fmt: Fmt, op: &str, [a, b, c]: [u32; 3]) -> u32 {
    let [x, y, z] = [a, b, c].map(|v| fmt.decode(v));
    let plain = match op {
        "add" => x + y,
        "sub" => x - y,
        "mul" => x * y,
        _ => x * y + z,
    };
    if plain.is_nan() {
        return NAN;
    }
    let inputs = if op == "fma" { vec![x, y, z] } else { vec![x, y] };
    if inputs.iter().any(|v| v.is_infinite()) {
        return (fmt.top() + 1) | if plain < 0.0 { 0x8000 } else { 0 };
    }
    match op {
        "add" => round_sum(fmt, Mode::Rn, x, y),
        "sub" => round_sum(fmt, Mode::Rn, x, -y),
        "mul" => round_f64(fmt, Mode::Rn, x * y),
        _ => round_sum(fmt, Mode::Rn, x * y, z),
    }
}

/// A scalar instruction in 16-bit registers.
fn scalar(op: &str, operands: usize) -> String {
    let list = ["%h1", "%h1, %h2", "%h1, %h2, %h3"][operands - 1];
    format!("{op} %h0, {list}; cvt.u32.u16 %r0, %h0;")
}

fn packed(op: &str, operands: usize) -> String {
    let list = ["%r1", "%r1, %r2", "%r1, %r2, %r3"][operands - 1];
    format!("{op} %r0, {list};")
}

/// Two neighbouring cases in one pair of halves each.
fn paired(cases: &[[u32; 3]]) -> Vec<[u32; 3]> {
    cases.chunks_exact(2).map(|c| [0, 1, 2].map(|i| c[0][i] | c[1][i] << 16)).collect()
}

fn halves(one: impl Fn([u32; 3]) -> u32) -> impl Fn(u32, u32, u32) -> u32 {
    move |a, b, c| {
        let low = one([a & 0xffff, b & 0xffff, c & 0xffff]);
        low | one([a >> 16, b >> 16, c >> 16]) << 16
    }
}

#[test]
fn sums_and_products() {
    for (ty, fmt) in TYPES {
        let cases = [pairs32(&edges(fmt)), random(fmt, 1, 400)].concat();
        for op in ["add", "sub", "mul"] {
            let one = |given| expected(fmt, op, given);
            for form in [format!("{op}.{ty}"), format!("{op}.rn.{ty}")] {
                check32(&scalar(&form, 2), &cases, |a, b, _| one([a, b, 0]));
            }
            check32(&packed(&format!("{op}.rn.{ty}x2"), 2), &paired(&cases), halves(one));
        }
    }
}

#[test]
fn fused_products_round_once() {
    for (ty, fmt) in TYPES {
        let few: Vec<u32> = edges(fmt).into_iter().step_by(3).collect();
        let cases = [triples(&few), random(fmt, 2, 1000)].concat();
        let one = |given| expected(fmt, "fma", given);
        check32(&scalar(&format!("fma.rn.{ty}"), 3), &cases, |a, b, c| one([a, b, c]));
        check32(&packed(&format!("fma.rn.{ty}x2"), 3), &paired(&cases), halves(one));
        // relu: a negative result becomes zero, NaN stays canonical.
        let relu = |given| match one(given) {
            NAN => NAN,
            v if sign(v) != 0 => 0,
            v => v,
        };
        check32(&scalar(&format!("fma.rn.relu.{ty}"), 3), &cases, |a, b, c| relu([a, b, c]));
        check32(&packed(&format!("fma.rn.relu.{ty}x2"), 3), &paired(&cases), halves(relu));
    }
}

#[test]
fn flushing_and_saturation_of_f16() {
    let cases = [pairs32(&edges(F16)), random(F16, 3, 300)].concat();
    let flush = |v: u32| if v & 0x7c00 == 0 { sign(v) } else { v };
    let saturate = |v: u32| match F16.decode(v) {
        x if x.is_nan() || x <= 0.0 => 0,
        x if x > 1.0 => 0x3c00,
        _ => v,
    };
    for op in ["add", "sub", "mul"] {
        check32(&scalar(&format!("{op}.ftz.f16"), 2), &cases, |a, b, _| {
            flush(expected(F16, op, [flush(a), flush(b), 0]))
        });
        check32(&scalar(&format!("{op}.sat.f16"), 2), &cases, |a, b, _| {
            saturate(expected(F16, op, [a, b, 0]))
        });
        let one = |[a, b, _]: [u32; 3]| saturate(flush(expected(F16, op, [flush(a), flush(b), 0])));
        check32(&packed(&format!("{op}.ftz.sat.f16x2"), 2), &paired(&cases), halves(one));
    }
    check32(&scalar("fma.rn.ftz.f16", 3), &random(F16, 4, 300), |a, b, c| {
        flush(expected(F16, "fma", [flush(a), flush(b), flush(c)]))
    });
}

/// The rules of min and max, on encodings ordered by sign and magnitude.
fn min_max(fmt: Fmt, max: bool, nan: bool, [a, b, _]: [u32; 3]) -> u32 {
    let is_nan = |v: u32| fmt.decode(v).is_nan();
    if is_nan(a) && is_nan(b) || nan && (is_nan(a) || is_nan(b)) {
        return NAN;
    }
    if is_nan(a) || is_nan(b) {
        return if is_nan(a) { b } else { a };
    }
    let key = |v: u32| if sign(v) != 0 { -i64::from(v & 0x7fff) - 1 } else { v.into() };
    if (key(a) > key(b)) == max { a } else { b }
}

#[test]
fn least_and_greatest() {
    for (ty, fmt) in TYPES {
        let cases = pairs32(&edges(fmt));
        for (op, max) in [("min", false), ("max", true)] {
            for (modifier, nan) in [("", false), (".NaN", true)] {
                let one = |given| min_max(fmt, max, nan, given);
                let form = format!("{op}{modifier}.{ty}");
                check32(&scalar(&form, 2), &cases, |a, b, _| one([a, b, 0]));
                check32(&packed(&format!("{form}x2"), 2), &paired(&cases), halves(one));
            }
            let form = format!("{op}.xorsign.abs.{ty}");
            check32(&scalar(&form, 2), &cases, |a, b, _| {
                match min_max(fmt, max, false, [a & 0x7fff, b & 0x7fff, 0]) {
                    NAN => NAN,
                    v => v | sign(a ^ b),
                }
            });
        }
    }
}

/// Every encoding once: signs, absolute values, and the approximate functions.
#[test]
fn one_operand_over_all_encodings() {
    let all: Vec<[u32; 3]> = (0..=0xffff).map(|v| [v, 0, 0]).collect();
    for (ty, fmt) in TYPES {
        let numbers: Vec<_> = all.iter().copied().filter(|c| !fmt.decode(c[0]).is_nan()).collect();
        check32(&scalar(&format!("neg.{ty}"), 1), &numbers, |a, _, _| a ^ 0x8000);
        check32(&scalar(&format!("abs.{ty}"), 1), &numbers, |a, _, _| a & 0x7fff);
        let pairs: Vec<_> =
            numbers.chunks_exact(2).map(|c| [c[0][0] | c[1][0] << 16, 0, 0]).collect();
        check32(&packed(&format!("neg.{ty}x2"), 1), &pairs, |a, _, _| a ^ 0x8000_8000);
        check32(&packed(&format!("abs.{ty}x2"), 1), &pairs, |a, _, _| a & 0x7fff_7fff);
    }
}

/// ex2: 2^-9.9 relative for f16 and 2^-7 for bf16; tanh: 2^-10.987 absolute for f16, 2^-8 for
/// bf16 (both as documented; results are also rounded to their format).
#[test]
fn approximations_keep_their_bounds() {
    let cases: [(&str, Fmt, fn(f64) -> f64, f64, f64); 4] = [
        ("ex2.approx.f16", F16, f64::exp2, 2f64.powf(-9.9), 2f64.powi(-25)),
        ("ex2.approx.ftz.bf16", BF16, f64::exp2, 2f64.powi(-7), 1e-38),
        ("tanh.approx.f16", F16, f64::tanh, 2f64.powf(-10.987), 2f64.powi(-25)),
        ("tanh.approx.bf16", BF16, f64::tanh, 2f64.powi(-8), 1e-38),
    ];
    let all: Vec<[u32; 3]> = (0..=0xffff).map(|v| [v, 0, 0]).collect();
    for (op, fmt, truth, bound, floor) in cases {
        let largest = fmt.value(fmt.top());
        let got = support::vectors::eval32(&scalar(op, 1), &all);
        for (got, [a, ..]) in got.into_iter().zip(&all) {
            let (x, y) = (fmt.decode(*a), fmt.decode(got));
            let want = truth(x);
            if x.is_nan() {
                assert_eq!(got, NAN, "{op} of {a:#x}");
            } else if want > largest {
                assert!(y > largest * (1.0 - bound), "{op} of {a:#x}: {y}");
            } else {
                let allowed = bound * want.abs() + floor;
                assert!((y - want).abs() <= allowed, "{op} of {x}: {y}, not {want}");
            }
        }
    }
}

fn unordered(x: f64, y: f64) -> bool {
    x.is_nan() || y.is_nan()
}

#[test]
fn comparisons_of_halves() {
    type Test = (&'static str, fn(f64, f64) -> bool);
    let tests: [Test; 14] = [
        ("eq", |x, y| x == y),
        ("ne", |x, y| !unordered(x, y) && x != y),
        ("lt", |x, y| x < y),
        ("le", |x, y| x <= y),
        ("gt", |x, y| x > y),
        ("ge", |x, y| x >= y),
        ("equ", |x, y| unordered(x, y) || x == y),
        ("neu", |x, y| unordered(x, y) || x != y),
        ("ltu", |x, y| unordered(x, y) || x < y),
        ("leu", |x, y| unordered(x, y) || x <= y),
        ("gtu", |x, y| unordered(x, y) || x > y),
        ("geu", |x, y| unordered(x, y) || x >= y),
        ("num", |x, y| !unordered(x, y)),
        ("nan", unordered),
    ];
    for (ty, fmt) in TYPES {
        for (name, holds) in tests {
            let code = format!("setp.{name}.{ty} %p1, %h1, %h2; selp.u32 %r0, 1, 0, %p1;");
            check32(&code, &pairs32(&edges(fmt)), |a, b, _| {
                u32::from(holds(fmt.decode(a), fmt.decode(b)))
            });
        }
    }
}
