//! f32 arithmetic in every rounding mode, against an oracle that compares instead of rounding.

mod support;

use support::exact::{MODES, Mode, f32_of};
use support::vectors::{
    EDGES_F32, check32, close_floats, eval32, ones32, pairs32, table32, triples,
};

const NAN: u32 = 0x7fff_ffff;
const INF: u32 = 0x7f80_0000;

fn f(v: u32) -> f32 {
    f32::from_bits(v)
}

fn sign(v: u32) -> u32 {
    v & 0x8000_0000
}

/// Results that no rounding decides: NaN and infinities (IEEE 754 §6.1, §7.2). `None` otherwise.
fn special(op: &str, [a, b, c]: [u32; 3]) -> Option<u32> {
    let [x, y, z] = [f(a), f(b), f(c)];
    let inputs = match op {
        "fma" => vec![x, y, z],
        "sqrt" | "rcp" => vec![x],
        _ => vec![x, y],
    };
    if inputs.iter().any(|v| v.is_nan()) {
        return Some(NAN);
    }
    let crossed = sign(a) ^ sign(b);
    match op {
        "add" if x.is_infinite() && y.is_infinite() => {
            Some(if sign(a) == sign(b) { a } else { NAN })
        }
        "add" if x.is_infinite() => Some(a),
        "add" if y.is_infinite() => Some(b),
        "sub" => special("add", [a, b ^ 0x8000_0000, c]),
        "mul" if x.is_infinite() || y.is_infinite() => {
            Some(if x == 0.0 || y == 0.0 { NAN } else { INF | crossed })
        }
        "fma" if x.is_infinite() || y.is_infinite() => {
            let product = special("mul", [a, b, 0])?;
            special("add", [product, c, 0])
        }
        "fma" if z.is_infinite() => Some(c),
        "div" if x.is_infinite() => Some(if y.is_infinite() { NAN } else { INF | crossed }),
        "div" if y.is_infinite() => Some(crossed),
        "div" if y == 0.0 => Some(if x == 0.0 { NAN } else { INF | crossed }),
        "rcp" => special("div", [0x3f80_0000, a, 0]),
        "sqrt" if x == 0.0 => Some(a),
        "sqrt" if x < 0.0 => Some(NAN),
        "sqrt" if x.is_infinite() => Some(INF),
        _ => None,
    }
}

fn expected(op: &str, mode: Mode, given: [u32; 3]) -> u32 {
    special(op, given).unwrap_or_else(|| f32_of(op, mode, given))
}

fn flush(v: u32) -> u32 {
    if v & 0x7f80_0000 == 0 { sign(v) } else { v }
}

fn saturate(v: u32) -> u32 {
    let x = f(v);
    if x.is_nan() || x <= 0.0 { 0 } else { x.min(1.0).to_bits() }
}

fn two(op: &str, modifiers: &str) -> String {
    format!("{op}.{modifiers}f32 %f0, %f1, %f2; mov.b32 %r0, %f0;")
}

#[test]
fn sums_products_and_quotients_round_as_asked() {
    let cases = [pairs32(EDGES_F32), close_floats(1, 700)].concat();
    for op in ["add", "sub", "mul", "div"] {
        for (name, mode) in MODES {
            check32(&two(op, &format!("{name}.")), &cases, |a, b, _| expected(op, mode, [a, b, 0]));
        }
    }
    // Nearest even is what add, sub and mul do when nothing is said.
    for op in ["add", "sub", "mul"] {
        check32(&two(op, ""), &cases, |a, b, _| expected(op, Mode::Rn, [a, b, 0]));
    }
}

#[test]
fn fused_products_round_once() {
    let few = [
        0u32,
        0x8000_0000,
        1,
        0x807f_ffff,
        0x0080_0000,
        0x3380_0000,
        0x3f80_0000,
        0xbf80_0001,
        0x3fff_ffff,
        0x7f7f_ffff,
        INF,
        0xff80_0000,
        0x7fc0_0000,
    ];
    let cases = [triples(&few), close_floats(2, 600), cancelling()].concat();
    for (name, mode) in MODES {
        let code = format!("fma.{name}.f32 %f0, %f1, %f2, %f3; mov.b32 %r0, %f0;");
        check32(&code, &cases, |a, b, c| expected("fma", mode, [a, b, c]));
    }
}

/// x·y − round(x·y): what is left is the product's own rounding error.
fn cancelling() -> Vec<[u32; 3]> {
    let cut = |[a, b, _]: [u32; 3]| [a, b, (-(f(a) * f(b))).to_bits()];
    close_floats(3, 200).into_iter().map(cut).collect()
}

#[test]
fn roots_and_reciprocals_round_as_asked() {
    let positive: Vec<u32> = close_floats(4, 300).iter().map(|c| c[0] & 0x7fff_ffff).collect();
    let cases = [ones32(EDGES_F32), ones32(&positive)].concat();
    for op in ["sqrt", "rcp"] {
        for (name, mode) in MODES {
            let code = format!("{op}.{name}.f32 %f0, %f1; mov.b32 %r0, %f0;");
            check32(&code, &cases, |a, _, _| expected(op, mode, [a, 0, 0]));
        }
    }
}

#[test]
fn flushing_of_inputs_and_results() {
    let cases = [pairs32(EDGES_F32), tiny_products()].concat();
    for op in ["add", "sub", "mul", "div"] {
        for (name, mode) in MODES {
            check32(&two(op, &format!("{name}.ftz.")), &cases, |a, b, _| {
                flush(expected(op, mode, [flush(a), flush(b), 0]))
            });
        }
    }
    let code = "fma.rn.ftz.f32 %f0, %f1, %f2, %f3; mov.b32 %r0, %f0;";
    check32(code, &triples(&EDGES_F32[..12]), |a, b, c| {
        flush(expected("fma", Mode::Rn, [flush(a), flush(b), flush(c)]))
    });
    for op in ["sqrt", "rcp"] {
        let code = format!("{op}.rn.ftz.f32 %f0, %f1; mov.b32 %r0, %f0;");
        check32(&code, &ones32(EDGES_F32), |a, _, _| {
            flush(expected(op, Mode::Rn, [flush(a), 0, 0]))
        });
    }
}

/// Products around the smallest normal number.
fn tiny_products() -> Vec<[u32; 3]> {
    let shift = |v: u32, by: u32| (v & 0x807f_ffff) | by << 23;
    close_floats(5, 200).iter().map(|c| [shift(c[0], 50 + c[2] % 8), shift(c[1], 74), 0]).collect()
}

#[test]
fn saturation_clamps_to_one_and_makes_nan_zero() {
    let cases = [pairs32(EDGES_F32), close_floats(6, 200)].concat();
    for op in ["add", "sub", "mul"] {
        check32(&two(op, "sat."), &cases, |a, b, _| saturate(expected(op, Mode::Rn, [a, b, 0])));
        check32(&two(op, "rz.ftz.sat."), &cases, |a, b, _| {
            saturate(flush(expected(op, Mode::Rz, [flush(a), flush(b), 0])))
        });
    }
    let code = "fma.rn.sat.f32 %f0, %f1, %f2, %f3; mov.b32 %r0, %f0;";
    check32(code, &triples(&EDGES_F32[8..20]), |a, b, c| {
        saturate(expected("fma", Mode::Rn, [a, b, c]))
    });
}

/// ISA: −0 < +0; a NaN loses against a number; `.NaN` makes it win; `.xorsign.abs` takes the
/// magnitudes and the product's sign; the result of NaN alone is canonical.
fn min_max(max: bool, nan: bool, a: u32, b: u32) -> u32 {
    let (x, y) = (f(a), f(b));
    if x.is_nan() && y.is_nan() || nan && (x.is_nan() || y.is_nan()) {
        return NAN;
    }
    if x.is_nan() {
        return b;
    }
    if y.is_nan() {
        return a;
    }
    // Order of the bits, sign and magnitude, is the order of the numbers with −0 below +0.
    let key = |v: u32| if sign(v) != 0 { -i64::from(v & 0x7fff_ffff) - 1 } else { v.into() };
    if (key(a) > key(b)) == max { a } else { b }
}

#[test]
fn least_and_greatest() {
    let cases = pairs32(EDGES_F32);
    for (op, max) in [("min", false), ("max", true)] {
        check32(&two(op, ""), &cases, |a, b, _| min_max(max, false, a, b));
        check32(&two(op, "NaN."), &cases, |a, b, _| min_max(max, true, a, b));
        check32(&two(op, "ftz."), &cases, |a, b, _| min_max(max, false, flush(a), flush(b)));
        check32(&two(op, "xorsign.abs."), &cases, |a, b, _| {
            let r = min_max(max, false, a & 0x7fff_ffff, b & 0x7fff_ffff);
            if f(r).is_nan() { NAN } else { r | sign(a ^ b) }
        });
        let three = format!("{op}.f32 %f0, %f1, %f2, %f3; mov.b32 %r0, %f0;");
        check32(&three, &triples(&EDGES_F32[20..]), |a, b, c| {
            min_max(max, false, min_max(max, false, a, b), c)
        });
    }
}

#[test]
fn signs_move_without_arithmetic() {
    let one = ones32(EDGES_F32);
    let number = |v: u32| !f(v).is_nan();
    let numbers: Vec<_> = one.iter().copied().filter(|c| number(c[0])).collect();
    check32("neg.f32 %f0, %f1; mov.b32 %r0, %f0;", &numbers, |a, _, _| a ^ 0x8000_0000);
    check32("abs.f32 %f0, %f1; mov.b32 %r0, %f0;", &numbers, |a, _, _| a & 0x7fff_ffff);
    check32("neg.ftz.f32 %f0, %f1; mov.b32 %r0, %f0;", &numbers, |a, _, _| flush(a) ^ 0x8000_0000);
    check32("abs.ftz.f32 %f0, %f1; mov.b32 %r0, %f0;", &numbers, |a, _, _| flush(a) & 0x7fff_ffff);
    // copysign d, a, b: the sign of a on the value of b.
    check32("copysign.f32 %f0, %f1, %f2; mov.b32 %r0, %f0;", &pairs32(EDGES_F32), |a, b, _| {
        sign(a) | b & 0x7fff_ffff
    });
}

#[test]
fn properties_of_numbers() {
    let tests: [(&str, fn(u32) -> bool); 6] = [
        ("finite", |v| v & INF != INF),
        ("infinite", |v| v & 0x7fff_ffff == INF),
        ("number", |v| v & 0x7fff_ffff <= INF),
        ("notanumber", |v| v & 0x7fff_ffff > INF),
        ("normal", |v| v & INF != INF && v & INF != 0),
        ("subnormal", |v| v & INF == 0 && v & 0x007f_ffff != 0),
    ];
    for (name, holds) in tests {
        let code = format!("testp.{name}.f32 %p1, %f1; selp.u32 %r0, 1, 0, %p1;");
        check32(&code, &ones32(EDGES_F32), |a, _, _| u32::from(holds(a)));
    }
}

/// The tables of special values that the ISA gives for each approximate function.
#[test]
fn special_values_of_approximations() {
    let one = |op: &str| format!("{op} %f0, %f1; mov.b32 %r0, %f0;");
    let (ninf, zero, nzero) = (0xff80_0000, 0, 0x8000_0000);
    table32(
        &one("rcp.approx.ftz.f32"),
        &[
            ([ninf, 0, 0], nzero),
            ([INF, 0, 0], zero),
            ([zero, 0, 0], INF),
            ([nzero, 0, 0], ninf),
            ([1, 0, 0], INF),
            ([0x8000_0001, 0, 0], ninf),
            ([NAN, 0, 0], NAN),
        ],
    );
    table32(
        &one("sqrt.approx.ftz.f32"),
        &[
            ([ninf, 0, 0], NAN),
            ([0xbf80_0000, 0, 0], NAN),
            ([nzero, 0, 0], nzero),
            ([zero, 0, 0], zero),
            ([INF, 0, 0], INF),
            ([NAN, 0, 0], NAN),
            ([1, 0, 0], zero),
        ],
    );
    table32(
        &one("rsqrt.approx.ftz.f32"),
        &[
            ([ninf, 0, 0], NAN),
            ([0xbf80_0000, 0, 0], NAN),
            ([nzero, 0, 0], ninf),
            ([zero, 0, 0], INF),
            ([INF, 0, 0], zero),
            ([NAN, 0, 0], NAN),
            ([1, 0, 0], INF),
        ],
    );
}

#[test]
fn special_values_of_functions() {
    let one = |op: &str| format!("{op} %f0, %f1; mov.b32 %r0, %f0;");
    let (ninf, zero, nzero) = (0xff80_0000, 0, 0x8000_0000);
    table32(
        &one("sin.approx.ftz.f32"),
        &[
            ([ninf, 0, 0], NAN),
            ([nzero, 0, 0], nzero),
            ([zero, 0, 0], zero),
            ([INF, 0, 0], NAN),
            ([NAN, 0, 0], NAN),
            ([1, 0, 0], zero),
        ],
    );
    table32(
        &one("cos.approx.ftz.f32"),
        &[
            ([ninf, 0, 0], NAN),
            ([nzero, 0, 0], 0x3f80_0000),
            ([zero, 0, 0], 0x3f80_0000),
            ([INF, 0, 0], NAN),
            ([NAN, 0, 0], NAN),
        ],
    );
    table32(
        &one("lg2.approx.ftz.f32"),
        &[
            ([ninf, 0, 0], NAN),
            ([nzero, 0, 0], ninf),
            ([zero, 0, 0], ninf),
            ([INF, 0, 0], INF),
            ([NAN, 0, 0], NAN),
            ([1, 0, 0], ninf),
            ([0xbf80_0000, 0, 0], NAN),
        ],
    );
    table32(
        &one("ex2.approx.ftz.f32"),
        &[
            ([ninf, 0, 0], zero),
            ([nzero, 0, 0], 0x3f80_0000),
            ([zero, 0, 0], 0x3f80_0000),
            ([INF, 0, 0], INF),
            ([NAN, 0, 0], NAN),
            ([1, 0, 0], 0x3f80_0000),
            ([0xc300_0000, 0, 0], zero),
        ],
    );
    table32(
        &one("tanh.approx.f32"),
        &[
            ([ninf, 0, 0], 0xbf80_0000),
            ([nzero, 0, 0], nzero),
            ([zero, 0, 0], zero),
            ([INF, 0, 0], 0x3f80_0000),
            ([NAN, 0, 0], NAN),
        ],
    );
}

/// Maximum errors as documented: relative, in units of 2^-n, or absolute.
#[test]
fn approximations_keep_their_bounds() {
    type Case = (&'static str, fn(f64) -> f64, f64, f64, bool, f64);
    let cases: [Case; 9] = [
        ("rcp.approx.f32", |x| 1.0 / x, 1e-3, 1e3, true, 2f64.powi(-23)),
        ("sqrt.approx.f32", f64::sqrt, 1e-3, 1e3, true, 2f64.powi(-22)),
        ("rsqrt.approx.f32", |x| 1.0 / x.sqrt(), 1e-3, 1e3, true, 2f64.powf(-22.9)),
        ("sin.approx.f32", f64::sin, -3.1, 3.1, false, 2f64.powf(-20.5)),
        ("cos.approx.f32", f64::cos, -3.1, 3.1, false, 2f64.powf(-20.5)),
        ("lg2.approx.f32", f64::log2, 2.0, 4.0, true, 2f64.powi(-22)),
        ("lg2.approx.f32", f64::log2, 0.5, 2.0, false, 2f64.powi(-22)),
        ("ex2.approx.f32", f64::exp2, -20.0, 20.0, true, 2f64.powf(-22.5)),
        ("tanh.approx.f32", f64::tanh, -5.0, 5.0, true, 2f64.powi(-11)),
    ];
    for (op, truth, from, to, relative, bound) in cases {
        let xs: Vec<f32> =
            (0..999).map(|i| (from + (to - from) * f64::from(i) / 998.0) as f32).collect();
        let inputs: Vec<u32> = xs.iter().map(|x| x.to_bits()).collect();
        let got = eval32(&format!("{op} %f0, %f1; mov.b32 %r0, %f0;"), &ones32(&inputs));
        for (x, got) in xs.iter().zip(got) {
            let want = truth(f64::from(*x));
            // A result must at least be an f32, so half a unit of it is always allowed.
            let allowed = if relative { want.abs() * bound } else { bound };
            let error = (f64::from(f(got)) - want).abs();
            assert!(error <= allowed.max(want.abs() * 2f64.powi(-24)), "{op} of {x}: {error:e}");
        }
    }
}

/// div.full and div.approx: at most 2 units of error between 2^-126 and 2^126.
#[test]
fn approximate_quotients() {
    for op in ["div.approx.f32", "div.full.f32", "div.approx.ftz.f32"] {
        let cases = close_floats(8, 300);
        let got = eval32(&format!("{op} %f0, %f1, %f2; mov.b32 %r0, %f0;"), &cases);
        for (got, [a, b, _]) in got.into_iter().zip(&cases) {
            let want = f64::from(f(*a)) / f64::from(f(*b));
            let error = ((f64::from(f(got)) - want) / want).abs();
            assert!(error <= 2.0 * 2f64.powi(-23), "{op} of {a:#x} {b:#x}: {error:e}");
        }
    }
}
