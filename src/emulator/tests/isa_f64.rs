//! f64 arithmetic. The oracle works on integers: it scales finite inputs to exact 128-bit numbers.

mod support;

use support::vectors::{check64, numbers, pairs64};

const NAN_CLASS: u64 = 0x7ff0_0000_0000_0000;

fn d(v: u64) -> f64 {
    f64::from_bits(v)
}

/// Numbers with exponents within 40 of each other, so that every sum and product of fractions cut
/// to 24 bits is exact in 128 bits.
fn inputs(seed: u64) -> Vec<[u64; 3]> {
    let one = |r: u64| {
        let exponent = 1003 + (r >> 8) % 40;
        (r & 0x8000_0000_0000_0000) | exponent << 52 | (r & 0x000f_ffff_ffff_ffff)
    };
    numbers(seed, 900).chunks(3).map(|c| [one(c[0]), one(c[1]), one(c[2])]).collect()
}

/// Sign, fraction and exponent: value = ±fraction · 2^exponent.
fn parts(v: u64) -> (bool, u128, i32) {
    let exponent = (v >> 52 & 0x7ff) as i32;
    let fraction = v & 0x000f_ffff_ffff_ffff;
    (v >> 63 == 1, u128::from(fraction | 1 << 52), exponent - 1075)
}

/// Rounds ±`n`·2^`e` (exact; `sticky` says that a little more was cut off) to f64 in a mode.
fn round(mode: &str, negative: bool, n: u128, e: i32, sticky: bool) -> u64 {
    let sign = u64::from(negative) << 63;
    if n == 0 {
        return sign;
    }
    let length = 128 - n.leading_zeros() as i32;
    let shift = length - 53;
    let (mut kept, rest) =
        if shift > 0 { (n >> shift, n & ((1 << shift) - 1)) } else { (n << -shift, 0) };
    let half = if shift > 0 { 1u128 << (shift - 1) } else { u128::MAX };
    let exact = rest == 0 && !sticky;
    let up = match mode {
        "rn" => rest > half || rest == half && (sticky || kept & 1 == 1),
        "rm" => negative && !exact,
        "rp" => !negative && !exact,
        _ => false,
    };
    kept += u128::from(up);
    let value = kept as f64 * 2f64.powi(e + shift);
    sign | value.to_bits()
}

/// ±x·2^a + ±y·2^b, exact.
fn sum(mode: &str, (xs, x, a): (bool, u128, i32), (ys, y, b): (bool, u128, i32)) -> u64 {
    let low = a.min(b);
    let place = |s: bool, n: u128, e: i32| {
        let v = (n << (e - low)) as i128;
        if s { -v } else { v }
    };
    let total = place(xs, x, a) + place(ys, y, b);
    if total == 0 {
        return if mode == "rm" { 1 << 63 } else { 0 };
    }
    round(mode, total < 0, total.unsigned_abs(), low, false)
}

const MODES: [&str; 4] = ["rn", "rz", "rm", "rp"];

#[test]
fn sums_and_differences() {
    let cases = inputs(1);
    for mode in MODES {
        let code = format!("add.{mode}.f64 %fd0, %fd1, %fd2; mov.b64 %rd0, %fd0;");
        check64(&code, &cases, |a, b, _| sum(mode, parts(a), parts(b)));
        let code = format!("sub.{mode}.f64 %fd0, %fd1, %fd2; mov.b64 %rd0, %fd0;");
        check64(&code, &cases, |a, b, _| sum(mode, parts(a), parts(b ^ 1 << 63)));
        let code = format!("sub.{mode}.f64 %fd0, %fd1, %fd1; mov.b64 %rd0, %fd0;");
        check64(&code, &cases, |_, _, _| if mode == "rm" { 1 << 63 } else { 0 });
    }
}

#[test]
fn products() {
    for mode in MODES {
        let code = format!("mul.{mode}.f64 %fd0, %fd1, %fd2; mov.b64 %rd0, %fd0;");
        check64(&code, &inputs(2), |a, b, _| {
            let ((s, x, e), (t, y, g)) = (parts(a), parts(b));
            round(mode, s != t, x * y, e + g, false)
        });
    }
}

#[test]
fn quotients_and_reciprocals() {
    let quotient = |mode: &str, a: u64, b: u64| {
        let ((s, x, e), (t, y, g)) = (parts(a), parts(b));
        let (q, r) = ((x << 60) / y, (x << 60) % y);
        round(mode, s != t, q, e - g - 60, r != 0)
    };
    for mode in MODES {
        let code = format!("div.{mode}.f64 %fd0, %fd1, %fd2; mov.b64 %rd0, %fd0;");
        check64(&code, &inputs(3), |a, b, _| quotient(mode, a, b));
        let code = format!("rcp.{mode}.f64 %fd0, %fd1; mov.b64 %rd0, %fd0;");
        check64(&code, &inputs(4), |a, _, _| quotient(mode, 1f64.to_bits(), a));
    }
}

#[test]
fn roots() {
    let cases: Vec<[u64; 3]> = inputs(5).iter().map(|c| [c[0] & !(1 << 63), 0, 0]).collect();
    for mode in MODES {
        let code = format!("sqrt.{mode}.f64 %fd0, %fd1; mov.b64 %rd0, %fd0;");
        check64(&code, &cases, |a, _, _| {
            let (_, n, e) = parts(a);
            // An even exponent and 122 bits or so give a root of 61 bits.
            let (n, e) = if e % 2 == 0 { (n << 68, e - 68) } else { (n << 69, e - 69) };
            let root = n.isqrt();
            round(mode, false, root, e / 2, root * root != n)
        });
    }
}

#[test]
fn fused_products() {
    // Fractions of 24 bits keep the whole sum inside 128 bits.
    let cut = |v: u64| v & !((1 << 29) - 1);
    let cases: Vec<[u64; 3]> = inputs(6).iter().map(|c| [cut(c[0]), cut(c[1]), c[2]]).collect();
    for mode in MODES {
        let code = format!("fma.{mode}.f64 %fd0, %fd1, %fd2, %fd3; mov.b64 %rd0, %fd0;");
        check64(&code, &cases, |a, b, c| {
            let ((s, x, e), (t, y, g)) = (parts(a), parts(b));
            let product = (s != t, (x >> 29) * (y >> 29), e + g + 58);
            sum(mode, product, parts(c))
        });
    }
}

#[test]
fn zeros_infinities_and_nan() {
    let (inf, nan, one) = (NAN_CLASS, 0x7ff8_0000_0000_0000, 1f64.to_bits());
    let neg = 1u64 << 63;
    let list = [0, neg, one, one | neg, inf, inf | neg, nan, 1, neg | 1];
    let same = |got: u64, want: f64| got == want.to_bits() || d(got).is_nan() && want.is_nan();
    for (op, truth) in [
        ("add", (|a, b| a + b) as fn(f64, f64) -> f64),
        ("sub", |a, b| a - b),
        ("mul", |a, b| a * b),
        ("div.rn", |a, b| a / b),
    ] {
        let code = format!("{op}.f64 %fd0, %fd1, %fd2; mov.b64 %rd0, %fd0;");
        let cases = pairs64(&list);
        for (got, [a, b, _]) in support::vectors::eval64(&code, &cases).into_iter().zip(&cases) {
            assert!(same(got, truth(d(*a), d(*b))), "{op} of {a:#x} {b:#x}: {got:#x}");
        }
    }
    let number = |v: u64| !d(v).is_nan();
    let key = |v: u64| if v >> 63 == 1 { -i128::from(v & !neg) - 1 } else { i128::from(v) };
    for (op, max) in [("min", false), ("max", true)] {
        let code = format!("{op}.f64 %fd0, %fd1, %fd2; mov.b64 %rd0, %fd0;");
        let cases: Vec<_> =
            pairs64(&list).into_iter().filter(|c| number(c[0]) || number(c[1])).collect();
        check64(&code, &cases, |a, b, _| match (number(a), number(b)) {
            (false, _) => b,
            (_, false) => a,
            _ if (key(a) > key(b)) == max => a,
            _ => b,
        });
    }
    let cases: Vec<[u64; 3]> = list.iter().filter(|v| number(**v)).map(|v| [*v, 0, 0]).collect();
    check64("neg.f64 %fd0, %fd1; mov.b64 %rd0, %fd0;", &cases, |a, _, _| a ^ neg);
    check64("abs.f64 %fd0, %fd1; mov.b64 %rd0, %fd0;", &cases, |a, _, _| a & !neg);
    check64("copysign.f64 %fd0, %fd1, %fd2; mov.b64 %rd0, %fd0;", &pairs64(&list), |a, b, _| {
        a & neg | b & !neg
    });
}

#[test]
fn properties() {
    let list =
        [0u64, 1, 1 << 63, 0x000f_ffff_ffff_ffff, 0x0010_0000_0000_0000, NAN_CLASS, NAN_CLASS | 1];
    let tests: [(&str, fn(u64) -> bool); 6] = [
        ("finite", |v| v >> 52 & 0x7ff != 0x7ff),
        ("infinite", |v| v & !(1 << 63) == NAN_CLASS),
        ("number", |v| v & !(1 << 63) <= NAN_CLASS),
        ("notanumber", |v| v & !(1 << 63) > NAN_CLASS),
        ("normal", |v| !matches!(v >> 52 & 0x7ff, 0 | 0x7ff)),
        ("subnormal", |v| v >> 52 & 0x7ff == 0 && v & 0x000f_ffff_ffff_ffff != 0),
    ];
    for (name, holds) in tests {
        let code = format!("testp.{name}.f64 %p1, %fd1; selp.u64 %rd0, 1, 0, %p1;");
        let cases: Vec<[u64; 3]> = list.iter().map(|v| [*v, 0, 0]).collect();
        check64(&code, &cases, |a, _, _| u64::from(holds(a)));
    }
}
