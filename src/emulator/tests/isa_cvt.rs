//! `cvt`: every pair of types in use, every rounding mode, saturation, flushing, NaN.

mod support;

use support::exact::{BF16, E4M3, E5M2, F16, F32, Fmt, MODES, Mode, TF32, round_f64};
use support::vectors::{
    EDGES_F32, EDGES32, EDGES64, check32, check64, close_floats, numbers, ones32, ones64, table32,
};

/// Integer types: name, bits, signed.
const INTS: [(&str, u32, bool); 8] = [
    ("u8", 8, false),
    ("s8", 8, true),
    ("u16", 16, false),
    ("s16", 16, true),
    ("u32", 32, false),
    ("s32", 32, true),
    ("u64", 64, false),
    ("s64", 64, true),
];

fn value(v: u64, bits: u32, signed: bool) -> i128 {
    let cut = v & (u64::MAX >> (64 - bits));
    if signed && cut >> (bits - 1) == 1 { i128::from(cut) - (1 << bits) } else { cut.into() }
}

fn bounds(bits: u32, signed: bool) -> (i128, i128) {
    if signed { (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) }
}

/// Moves %rd1 into a register wide enough for `bits`, converts, and brings the destination, with
/// its extension, to %rd0.
fn between(modifiers: &str, to: (&str, u32), from: (&str, u32)) -> String {
    let source = match from.1 {
        64 => "%rd1",
        32 => "%r1",
        _ => "%h1",
    };
    let narrow = if from.1 < 32 { "cvt.u16.u32 %h1, %r1;" } else { "" };
    let (d, back) = match to.1 {
        64 => ("%rd4", "mov.b64 %rd0, %rd4;"),
        32 => ("%r4", "cvt.u64.u32 %rd0, %r4;"),
        _ => ("%r4", "cvt.u64.u32 %rd0, %r4;"),
    };
    format!("{narrow} cvt{modifiers}.{}.{} {d}, {source}; {back}", to.0, from.0)
}

/// ISA: a narrower integer is sign- or zero-extended to the register by the destination's type.
fn in_register(v: i128, bits: u32, signed: bool) -> u64 {
    let cut = value(v as u64, bits, signed);
    if bits == 64 { cut as u64 } else { u64::from(cut as u32) }
}

#[test]
fn between_integers() {
    for (to, to_bits, to_signed) in INTS {
        for (from, from_bits, from_signed) in INTS {
            let code = between("", (to, to_bits), (from, from_bits));
            check64(&code, &ones64(EDGES64), |a, _, _| {
                in_register(value(a, from_bits, from_signed), to_bits, to_signed)
            });
            let code = between(".sat", (to, to_bits), (from, from_bits));
            check64(&code, &ones64(EDGES64), |a, _, _| {
                let (low, high) = bounds(to_bits, to_signed);
                let v = value(a, from_bits, from_signed).clamp(low, high);
                in_register(v, to_bits, to_signed)
            });
        }
    }
}

fn rounded(x: f64, mode: Mode) -> f64 {
    let floor = x.floor();
    match mode {
        Mode::Rm => floor,
        Mode::Rp => x.ceil(),
        Mode::Rz => x.trunc(),
        Mode::Rn if x - floor == 0.5 => 2.0 * (x / 2.0).round_ties_even().min(f64::MAX) + 0.0 * x,
        Mode::Rn => (x + 0.5).floor(),
    }
}

/// Nearest integer with ties to even, worked out on the integer and its remainder.
fn nearest(x: f64) -> i128 {
    let floor = x.floor();
    let low = floor as i128;
    match (x - floor).partial_cmp(&0.5) {
        Some(std::cmp::Ordering::Greater) => low + 1,
        Some(std::cmp::Ordering::Equal) => low + (low & 1),
        _ => low,
    }
}

fn whole(x: f64, mode: Mode) -> i128 {
    if mode == Mode::Rn { nearest(x) } else { rounded(x, mode) as i128 }
}

/// ISA: clamped to the destination's range; NaN becomes zero, except for f64 sources and 64-bit
/// destinations, where it becomes the number whose only bit is the highest.
fn to_int(x: f64, mode: Mode, bits: u32, signed: bool, wide_source: bool) -> u64 {
    if x.is_nan() {
        let high = if wide_source || bits == 64 { 1i128 << (bits - 1) } else { 0 };
        return in_register(high, bits, signed);
    }
    let (low, high) = bounds(bits, signed);
    let v = if x.is_infinite() { if x > 0.0 { high } else { low } } else { whole(x, mode) };
    in_register(v.clamp(low, high), bits, signed)
}

const INT_MODES: [(&str, Mode); 4] =
    [("rni", Mode::Rn), ("rzi", Mode::Rz), ("rmi", Mode::Rm), ("rpi", Mode::Rp)];

fn fractions() -> Vec<f64> {
    let near = [0.0, -0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.5, 3.5, 126.5, 127.5, 128.0, 254.5, 255.5];
    let far = [32767.5, 32768.0, 65535.5, 2147483647.5, 2147483648.0, 4294967295.5, 4294967296.0];
    let huge = [9.2e18, 9223372036854775808.0, 1.8e19, 18446744073709551616.0, 1e30, f64::INFINITY];
    let all = near.iter().chain(&far).chain(&huge).flat_map(|v| [*v, -*v]);
    all.chain([f64::NAN, 1e-40, -1e-40]).collect()
}

#[test]
fn floats_to_integers() {
    for (to, bits, signed) in INTS {
        for (name, mode) in INT_MODES {
            let cases: Vec<[u64; 3]> =
                fractions().iter().map(|v| [u64::from((*v as f32).to_bits()), 0, 0]).collect();
            let code = between(&format!(".{name}"), (to, bits), ("f32", 32))
                .replace("%r1;", "%f1;")
                .replacen("cvt.", "mov.b32 %f1, %r1; cvt.", 1);
            check64(&code, &cases, |a, _, _| {
                to_int(f32::from_bits(a as u32).into(), mode, bits, signed, false)
            });
            let cases: Vec<[u64; 3]> = fractions().iter().map(|v| [v.to_bits(), 0, 0]).collect();
            let code =
                between(&format!(".{name}"), (to, bits), ("f64", 64)).replace("%rd1;", "%fd1;");
            check64(&code, &cases, |a, _, _| to_int(f64::from_bits(a), mode, bits, signed, true));
        }
    }
}

#[test]
fn halves_to_integers() {
    let all: Vec<[u32; 3]> = (0..=0xffffu32).step_by(7).map(|v| [v, 0, 0]).collect();
    for (ty, fmt) in [("f16", F16), ("bf16", BF16)] {
        for (name, mode) in INT_MODES {
            for (to, signed) in [("s32", true), ("u32", false)] {
                check32(&format!("cvt.{name}.{to}.{ty} %r0, %h1;"), &all, |a, _, _| {
                    to_int(fmt.decode(a), mode, 32, signed, false) as u32
                });
            }
            let code = format!("cvt.{name}.s8.{ty} %h0, %h1; cvt.s32.s16 %r0, %h0;");
            check32(&code, &all, |a, _, _| to_int(fmt.decode(a), mode, 8, true, false) as u32);
        }
    }
}

#[test]
fn flushing_before_rounding_to_integers() {
    let code = "mov.b32 %f1, %r1; cvt.MODE.ftz.s32.f32 %r0, %f1;";
    for (mode, plain, flushed) in [("rpi", 1, 0), ("rmi", u32::MAX, 0)] {
        let tiny = if mode == "rpi" { 1 } else { 0x8000_0001 };
        table32(&code.replace("MODE", mode), &[([tiny, 0, 0], flushed)]);
        table32(&code.replace("MODE.ftz", mode), &[([tiny, 0, 0], plain)]);
    }
}

/// Rounds an integer of at most 64 bits: magnitudes compare exactly with an f64 candidate of at
/// most 25 significant bits.
fn int_to(fmt: Fmt, mode: Mode, v: i128) -> u32 {
    let size = v.unsigned_abs();
    support::exact::round(fmt, mode, v < 0, &|c| {
        // Candidates are whole or below one.
        if c > 3e38 {
            std::cmp::Ordering::Less
        } else {
            size.cmp(&(c as u128)).then(if c.fract() > 0.0 {
                std::cmp::Ordering::Less
            } else {
                std::cmp::Ordering::Equal
            })
        }
    })
}

#[test]
fn integers_to_floats() {
    let cases: Vec<u64> = EDGES64.iter().copied().chain(numbers(1, 300)).collect();
    for (from, bits, signed) in INTS {
        for (name, mode) in MODES {
            let code = between(&format!(".{name}"), ("f32", 32), (from, bits))
                .replace("%r4,", "%f4,")
                .replace("cvt.u64.u32 %rd0, %r4;", "mov.b32 %r4, %f4; cvt.u64.u32 %rd0, %r4;");
            check64(&code, &ones64(&cases), |a, _, _| {
                int_to(F32, mode, value(a, bits, signed)).into()
            });
        }
    }
    // f64 holds 53 bits: what is left is cut by the remainder.
    for (from, signed) in [("u64", false), ("s64", true)] {
        for (name, mode) in MODES {
            let code = format!("cvt.{name}.f64.{from} %fd0, %rd1; mov.b64 %rd0, %fd0;");
            check64(&code, &ones64(&cases), |a, _, _| {
                let v = value(a, 64, signed);
                let (size, negative) = (v.unsigned_abs(), v < 0);
                let shift = (128 - size.leading_zeros()).saturating_sub(53);
                let (kept, rest) = (size >> shift, size & ((1 << shift) - 1));
                let half = if shift == 0 { u128::MAX } else { 1 << (shift - 1) };
                let up = match mode {
                    Mode::Rn => rest > half || rest == half && kept & 1 == 1,
                    Mode::Rz => false,
                    Mode::Rm => negative && rest > 0,
                    Mode::Rp => !negative && rest > 0,
                };
                let x = (kept + u128::from(up)) as f64 * 2f64.powi(shift as i32);
                if negative { (-x).to_bits() } else { x.to_bits() }
            });
        }
    }
}

#[test]
fn integers_to_halves() {
    for (ty, fmt) in [("f16", F16), ("bf16", BF16)] {
        for (name, mode) in MODES {
            for (from, signed) in [("u32", false), ("s32", true)] {
                let code = format!("cvt.{name}.{ty}.{from} %h0, %r1; cvt.u32.u16 %r0, %h0;");
                check32(&code, &ones32(EDGES32), |a, _, _| {
                    int_to(fmt, mode, value(a.into(), 32, signed))
                });
            }
        }
    }
}

/// Rounds to a format; NaN is canonical, infinities stay.
fn narrow(fmt: Fmt, mode: Mode, x: f64, nan: u32) -> u32 {
    if x.is_nan() {
        nan
    } else if x.is_infinite() {
        (fmt.top() + 1) | if x < 0.0 { fmt.sign() } else { 0 }
    } else {
        round_f64(fmt, mode, x)
    }
}

fn float_cases() -> Vec<[u32; 3]> {
    let halfway = (0..64u32).flat_map(|i| [0x3f80_1000 + i * 0x1000, 0x3f80_8000 + i * 0x0800]);
    let small = (0..40u32).map(|i| 0x3300_0000 + i * 0x0020_0000);
    let big = (0..24u32).map(|i| 0x477f_d000 + i * 0x400);
    let listed: Vec<u32> =
        EDGES_F32.iter().copied().chain(halfway).chain(small).chain(big).collect();
    [ones32(&listed), close_floats(4, 200)].concat()
}

#[test]
fn f32_to_halves() {
    for (ty, fmt) in [("f16", F16), ("bf16", BF16)] {
        for (name, mode) in [("rn", Mode::Rn), ("rz", Mode::Rz)] {
            let want = |a: u32| narrow(fmt, mode, f32::from_bits(a).into(), 0x7fff);
            let code = format!("cvt.{name}.{ty}.f32 %h0, %f1; cvt.u32.u16 %r0, %h0;");
            check32(&code, &float_cases(), |a, _, _| want(a));
            let relu = |a: u32| match want(a) {
                0x7fff => 0x7fff,
                v if v & 0x8000 != 0 => 0,
                v => v,
            };
            let code = format!("cvt.{name}.relu.{ty}.f32 %h0, %f1; cvt.u32.u16 %r0, %h0;");
            check32(&code, &float_cases(), |a, _, _| relu(a));
            // In pairs the first operand becomes the upper half.
            let code = format!("cvt.{name}.{ty}x2.f32 %r0, %f1, %f2;");
            check32(&code, &close_floats(9, 200), |a, b, _| want(a) << 16 | want(b));
            let code = format!("cvt.{name}.relu.{ty}x2.f32 %r0, %f1, %f2;");
            check32(&code, &close_floats(10, 200), |a, b, _| relu(a) << 16 | relu(b));
        }
    }
    for (name, mode) in [("rm", Mode::Rm), ("rp", Mode::Rp)] {
        let code = format!("cvt.{name}.f16.f32 %h0, %f1; cvt.u32.u16 %r0, %h0;");
        check32(&code, &float_cases(), |a, _, _| {
            narrow(F16, mode, f32::from_bits(a).into(), 0x7fff)
        });
    }
}

#[test]
fn halves_to_f32_and_f64_are_exact() {
    let all: Vec<[u32; 3]> = (0..=0xffff).map(|v| [v, 0, 0]).collect();
    for (ty, fmt) in [("f16", F16), ("bf16", BF16)] {
        check32(&format!("cvt.f32.{ty} %f0, %h1; mov.b32 %r0, %f0;"), &all, |a, _, _| {
            let x = fmt.decode(a);
            if x.is_nan() { 0x7fff_ffff } else { (x as f32).to_bits() }
        });
    }
    let few: Vec<[u64; 3]> = (0..0x7c00u64).step_by(97).map(|v| [v, 0, 0]).collect();
    let code = "cvt.u16.u32 %h1, %r1; cvt.f64.f16 %fd0, %h1; mov.b64 %rd0, %fd0;";
    check64(code, &few, |a, _, _| F16.decode(a as u32).to_bits());
}

#[test]
fn between_f32_and_f64() {
    let random = numbers(11, 300);
    let doubles: Vec<[u64; 3]> = random
        .iter()
        .map(|r| [(r & 0x800f_ffff_ffff_ffff) | (870 + (r >> 40) % 300) << 52, 0, 0])
        .chain(fractions().iter().map(|v| [v.to_bits(), 0, 0]))
        .collect();
    for (name, mode) in MODES {
        let code =
            format!("cvt.{name}.f32.f64 %f0, %fd1; mov.b32 %r0, %f0; cvt.u64.u32 %rd0, %r0;");
        check64(&code, &doubles, |a, _, _| {
            narrow(F32, mode, f64::from_bits(a), 0x7fff_ffff).into()
        });
        let code =
            format!("cvt.{name}.sat.f32.f64 %f0, %fd1; mov.b32 %r0, %f0; cvt.u64.u32 %rd0, %r0;");
        check64(&code, &doubles, |a, _, _| {
            let x = f64::from_bits(a);
            let x = if x.is_nan() { 0.0 } else { x.clamp(0.0, 1.0) + 0.0 };
            narrow(F32, mode, x, 0).into()
        });
    }
    let singles: Vec<u64> = EDGES_F32.iter().map(|v| u64::from(*v)).collect();
    let code = "mov.b32 %f1, %r1; cvt.f64.f32 %fd0, %f1; mov.b64 %rd0, %fd0;";
    let numbers: Vec<_> =
        ones64(&singles).into_iter().filter(|c| !f32::from_bits(c[0] as u32).is_nan()).collect();
    check64(code, &numbers, |a, _, _| f64::from(f32::from_bits(a as u32)).to_bits());
    let code = "mov.b32 %f1, %r1; cvt.ftz.f64.f32 %fd0, %f1; mov.b64 %rd0, %fd0;";
    check64(code, &numbers, |a, _, _| {
        let a = a as u32;
        let a = if a & 0x7f80_0000 == 0 { a & 0x8000_0000 } else { a };
        f64::from(f32::from_bits(a)).to_bits()
    });
}

#[test]
fn f32_to_whole_f32() {
    for (name, mode) in INT_MODES {
        let code = format!("cvt.{name}.f32.f32 %f0, %f1; mov.b32 %r0, %f0;");
        let cases: Vec<[u32; 3]> =
            fractions().iter().map(|v| [(*v as f32).to_bits(), 0, 0]).collect();
        check32(&code, &cases, |a, _, _| {
            let x = f32::from_bits(a);
            if x.is_nan() {
                return 0x7fff_ffff;
            }
            if x.abs() >= 8388608.0 {
                return a;
            }
            // A zero keeps the sign of what it came from.
            let r = whole(x.into(), mode) as f32;
            (r.abs().to_bits()) | (a & 0x8000_0000)
        });
    }
}

/// tf32: 10 explicit fraction bits in the upper 19 of the register.
#[test]
fn f32_to_tf32() {
    let numbers: Vec<_> =
        float_cases().into_iter().filter(|c| f32::from_bits(c[0]).is_finite()).collect();
    for (name, mode) in [("rn", Mode::Rn), ("rz", Mode::Rz)] {
        check32(&format!("cvt.{name}.tf32.f32 %r0, %f1;"), &numbers, |a, _, _| {
            round_f64(TF32, mode, f32::from_bits(a).into()) << 13
        });
    }
    // rna: ties away from zero, that is half a unit added to the magnitude and the rest cut.
    check32("cvt.rna.tf32.f32 %r0, %f1;", &numbers, |a, _, _| (a + 0x1000) & 0xffff_e000);
}

/// ISA: satfinite gives the largest finite number for what lies above it, infinities included;
/// NaN becomes 0x7f.
#[test]
fn f32_to_eight_bits() {
    let cases: Vec<[u32; 3]> = (0..700u32)
        .map(|i| 0x3a80_0000 + i * 0x0002_8000)
        .chain(EDGES_F32.iter().copied())
        .chain([0x43e0_0000, 0x43e8_0000, 0x43e8_0001, 0x43f0_0000, 0x4760_0000, 0x4770_0000])
        .flat_map(|v| [[v, v ^ 0x8000_0000, 0], [v ^ 0x8000_0000, 0x3f80_0000, 0]])
        .collect();
    for (ty, fmt) in [("e4m3", E4M3), ("e5m2", E5M2)] {
        let want = |a: u32| {
            let x = f64::from(f32::from_bits(a));
            if x.is_nan() {
                return 0x7f;
            }
            let top = fmt.value(fmt.top());
            let sign = if x.is_sign_negative() { fmt.sign() } else { 0 };
            if x.abs() >= top { fmt.top() | sign } else { round_f64(fmt, Mode::Rn, x) }
        };
        let code = |relu: &str| {
            format!("cvt.rn.satfinite{relu}.{ty}x2.f32 %h0, %f1, %f2; cvt.u32.u16 %r0, %h0;")
        };
        check32(&code(""), &cases, |a, b, _| want(a) << 8 | want(b));
        let relu = |a: u32| match want(a) {
            0x7f => 0x7f,
            v if v & fmt.sign() != 0 => 0,
            v => v,
        };
        check32(&code(".relu"), &cases, |a, b, _| relu(a) << 8 | relu(b));
    }
}

#[test]
fn eight_bits_to_f16_are_exact() {
    let all: Vec<[u32; 3]> = (0..=255u32).map(|v| [v << 8 | (255 - v), 0, 0]).collect();
    for (ty, fmt) in [("e4m3", E4M3), ("e5m2", E5M2)] {
        let one = |v: u32| narrow(F16, Mode::Rn, fmt.decode(v), 0x7fff);
        check32(&format!("cvt.rn.f16x2.{ty}x2 %r0, %h1;"), &all, |a, _, _| {
            one(a >> 8) << 16 | one(a & 0xff)
        });
        check32(&format!("cvt.rn.relu.f16x2.{ty}x2 %r0, %h1;"), &all, |a, _, _| {
            let relu = |v: u32| match one(v) {
                0x7fff => 0x7fff,
                v if v & 0x8000 != 0 => 0,
                v => v,
            };
            relu(a >> 8) << 16 | relu(a & 0xff)
        });
    }
}

#[test]
fn f16_pairs_to_eight_bits() {
    let all: Vec<[u32; 3]> = (0..=0xffffu32).step_by(5).map(|v| [v | 0x3c00_0000, 0, 0]).collect();
    for (ty, fmt, one) in [("e4m3", E4M3, 0x38u32), ("e5m2", E5M2, 0x3c)] {
        let code = format!("cvt.rn.satfinite.{ty}x2.f16x2 %h0, %r1; cvt.u32.u16 %r0, %h0;");
        check32(&code, &all, |a, _, _| {
            let x = F16.decode(a & 0xffff);
            let sign = if x.is_sign_negative() { fmt.sign() } else { 0 };
            let low = match x {
                x if x.is_nan() => 0x7f,
                x if x.abs() >= fmt.value(fmt.top()) => fmt.top() | sign,
                x => round_f64(fmt, Mode::Rn, x),
            };
            one << 8 | low
        });
    }
}
