//! Bit and byte instructions against the ISA's pseudocode, bit by bit.

mod support;

use support::vectors::{
    EDGES32, EDGES64, check32, check64, numbers, ones32, ones64, pairs32, table32,
};

#[test]
fn logic_of_every_width() {
    let cases = pairs32(EDGES32);
    check32("and.b32 %r0, %r1, %r2;", &cases, |a, b, _| a & b);
    check32("or.b32 %r0, %r1, %r2;", &cases, |a, b, _| a | b);
    check32("xor.b32 %r0, %r1, %r2;", &cases, |a, b, _| (a | b) & !(a & b));
    let half = |name: &str| format!("{name}.b16 %h0, %h1, %h2; cvt.u32.u16 %r0, %h0;");
    check32(&half("and"), &cases, |a, b, _| a & b & 0xffff);
    check32(&half("or"), &cases, |a, b, _| (a | b) & 0xffff);
    check32(&half("xor"), &cases, |a, b, _| (a ^ b) & 0xffff);
    let long: Vec<[u64; 3]> = numbers(1, 60).chunks(2).map(|c| [c[0], c[1], 0]).collect();
    check64("and.b64 %rd0, %rd1, %rd2;", &long, |a, b, _| a & b);
    check64("or.b64 %rd0, %rd1, %rd2;", &long, |a, b, _| a | b);
    check64("xor.b64 %rd0, %rd1, %rd2;", &long, |a, b, _| a ^ b);
}

/// Shift amounts above the register's width are clamped to it, whatever the width of the value;
/// the amount is always 32 bits, unsigned.
#[test]
fn shift_amounts_clamp() {
    let amounts = [0u32, 1, 4, 15, 16, 17, 31, 32, 33, 63, 64, 65, 255, 0x8000_0000, u32::MAX];
    let values = [1u32, 0x8000_0000, 0xffff_ffff, 0x8000, 0x7fff_1234];
    let cases: Vec<[u32; 3]> =
        values.iter().flat_map(|v| amounts.iter().map(|n| [*v, *n, 0])).collect();
    let by = |n: u32, width: u32| n.min(width);
    check32("shl.b32 %r0, %r1, %r2;", &cases, |a, n, _| (u64::from(a) << by(n, 32)) as u32);
    check32("shr.u32 %r0, %r1, %r2;", &cases, |a, n, _| (u64::from(a) >> by(n, 32)) as u32);
    check32("shr.b32 %r0, %r1, %r2;", &cases, |a, n, _| (u64::from(a) >> by(n, 32)) as u32);
    check32("shr.s32 %r0, %r1, %r2;", &cases, |a, n, _| (i64::from(a as i32) >> by(n, 32)) as u32);
    let half = |op: &str| format!("{op} %h0, %h1, %r2; cvt.u32.u16 %r0, %h0;");
    check32(&half("shl.b16"), &cases, |a, n, _| {
        (u64::from(a & 0xffff) << by(n, 16)) as u32 & 0xffff
    });
    check32(&half("shr.u16"), &cases, |a, n, _| (a & 0xffff) >> by(n, 16));
    check32(&half("shr.s16"), &cases, |a, n, _| {
        (i32::from(a as u16 as i16) >> by(n, 16)) as u32 & 0xffff
    });
    let long: Vec<[u64; 3]> = [1u64, 1 << 63, u64::MAX, 0x8000_0000, 0x1234_5678_9abc_def0]
        .iter()
        .flat_map(|v| amounts.iter().map(|n| [*v, u64::from(*n), 0]))
        .collect();
    let by = |n: u64| (n as u32).min(64);
    check64("shl.b64 %rd0, %rd1, %r2;", &long, |a, n, _| (u128::from(a) << by(n)) as u64);
    check64("shr.u64 %rd0, %rd1, %r2;", &long, |a, n, _| (u128::from(a) >> by(n)) as u64);
    check64("shr.s64 %rd0, %rd1, %r2;", &long, |a, n, _| (i128::from(a as i64) >> by(n)) as u64);
}

/// ISA: wrap takes the amount modulo 32, clamp its minimum with 32; left shifts take the upper
/// word of (hi:lo), right shifts the lower.
#[test]
fn funnel_shifts() {
    let amounts = [0u32, 1, 8, 16, 31, 32, 33, 40, 63, 64, u32::MAX];
    let cases: Vec<[u32; 3]> = [(0xdead_beefu32, 0x1234_5678u32), (u32::MAX, 0), (1, 0x8000_0000)]
        .iter()
        .flat_map(|(lo, hi)| amounts.iter().map(|n| [*lo, *hi, *n]))
        .collect();
    let join = |lo: u32, hi: u32| u128::from(hi) << 32 | u128::from(lo);
    for (mode, amount) in
        [("wrap", (|n| n & 31) as fn(u32) -> u32), ("clamp", |n| if n > 32 { 32 } else { n })]
    {
        check32(&format!("shf.l.{mode}.b32 %r0, %r1, %r2, %r3;"), &cases, |lo, hi, n| {
            (join(lo, hi) << amount(n) >> 32) as u32
        });
        check32(&format!("shf.r.{mode}.b32 %r0, %r1, %r2, %r3;"), &cases, |lo, hi, n| {
            (join(lo, hi) >> amount(n)) as u32
        });
    }
}

fn fields() -> Vec<(u32, u32)> {
    let edges = [0u32, 1, 4, 7, 8, 16, 28, 31, 32, 33, 40, 63, 64, 100, 255, 256, 257, 0x1_0004];
    edges.iter().flat_map(|p| edges.iter().map(move |n| (*p, *n))).collect()
}

/// The ISA's loop for bfe, for `msb` 31 or 63.
fn bfe(a: u64, b: u32, c: u32, msb: u32, signed: bool) -> u64 {
    let (pos, len) = (b & 0xff, c & 0xff);
    let bit = |i: u32| a >> i & 1;
    let sbit = if !signed || len == 0 { 0 } else { bit((pos + len - 1).min(msb)) };
    let mut d = 0;
    for i in 0..=msb {
        d |= (if i < len && pos + i <= msb { bit(pos + i) } else { sbit }) << i;
    }
    d
}

#[test]
fn bit_fields_are_extracted() {
    for value in [0xabcd_ef12u32, 0x8000_0001, 0x7fff_ffff] {
        let cases: Vec<[u32; 3]> = fields().iter().map(|(p, n)| [value, *p, *n]).collect();
        for (ty, signed) in [("u32", false), ("s32", true)] {
            check32(&format!("bfe.{ty} %r0, %r1, %r2, %r3;"), &cases, |a, b, c| {
                bfe(a.into(), b, c, 31, signed) as u32
            });
        }
    }
    for value in [0x89ab_cdef_0123_4567u64, 1 << 63] {
        let cases: Vec<[u64; 3]> =
            fields().iter().map(|(p, n)| [value, u64::from(*p), u64::from(*n)]).collect();
        for (ty, signed) in [("u64", false), ("s64", true)] {
            check64(&format!("bfe.{ty} %rd0, %rd1, %r2, %r3;"), &cases, |a, b, c| {
                bfe(a, b as u32, c as u32, 63, signed)
            });
        }
    }
}

/// The ISA's loop for bfi: bits of `a` into `b`.
fn bfi(a: u64, b: u64, c: u32, d: u32, msb: u32) -> u64 {
    let (pos, len) = (c & 0xff, d & 0xff);
    let mut f = b;
    for i in 0..len {
        if pos + i <= msb {
            f = f & !(1 << (pos + i)) | (a >> i & 1) << (pos + i);
        }
    }
    f
}

#[test]
fn bit_fields_are_inserted() {
    for (pos, len) in fields() {
        let cases = [[0xf5u32, 0x1111_1111, 0], [u32::MAX, 0, 0], [0, u32::MAX, 0]];
        check32(&format!("bfi.b32 %r0, %r1, %r2, {pos}, {len};"), &cases, |a, b, _| {
            bfi(a.into(), b.into(), pos, len, 31) as u32
        });
        let cases = [[0x89ab_cdef_0123_4567u64, 0x5555_5555_5555_5555, 0], [u64::MAX, 0, 0]];
        check64(&format!("bfi.b64 %rd0, %rd1, %rd2, {pos}, {len};"), &cases, |a, b, _| {
            bfi(a, b, pos, len, 63)
        });
    }
}

#[test]
fn counting_bits() {
    let (short, long) = (ones32(EDGES32), ones64(EDGES64));
    let count = |v: u64| (0..64).filter(|i| v >> i & 1 == 1).count() as u32;
    let leading = |v: u64, width: u32| {
        (0..width).take_while(|i| v >> (width - 1 - i) & 1 == 0).count() as u32
    };
    let mirror =
        |v: u64, width: u32| (0..width).fold(0, |m, i| m | (v >> i & 1) << (width - 1 - i));
    check32("popc.b32 %r0, %r1;", &short, |a, _, _| count(a.into()));
    check32("clz.b32 %r0, %r1;", &short, |a, _, _| leading(a.into(), 32));
    check32("brev.b32 %r0, %r1;", &short, |a, _, _| mirror(a.into(), 32) as u32);
    check64("popc.b64 %r0, %rd1; cvt.u64.u32 %rd0, %r0;", &long, |a, _, _| count(a).into());
    check64("clz.b64 %r0, %rd1; cvt.u64.u32 %rd0, %r0;", &long, |a, _, _| leading(a, 64).into());
    check64("brev.b64 %rd0, %rd1;", &long, |a, _, _| mirror(a, 64));
    // bfind: the most significant bit that is not the sign; all ones if there is none.
    let find = |v: u64, width: u32, signed: bool, shift: bool| {
        let v =
            if signed && v >> (width - 1) & 1 == 1 { !v & (u64::MAX >> (64 - width)) } else { v };
        let top = (0..width).rev().find(|i| v >> i & 1 == 1);
        top.map_or(u32::MAX, |i| if shift { width - 1 - i } else { i })
    };
    for (ty, signed) in [("u", false), ("s", true)] {
        for (mode, shift) in [("", false), (".shiftamt", true)] {
            check32(&format!("bfind{mode}.{ty}32 %r0, %r1;"), &short, |a, _, _| {
                find(a.into(), 32, signed, shift)
            });
            let code = format!("bfind{mode}.{ty}64 %r0, %rd1; cvt.u64.u32 %rd0, %r0;");
            check64(&code, &long, |a, _, _| find(a, 64, signed, shift).into());
        }
    }
}

/// The ISA's loop for fns.
#[test]
fn the_nth_set_bit() {
    let mut cases = Vec::new();
    for mask in [0u32, 1, 0x8000_0001, 0xffff_ffff, 0x0000_a528] {
        for base in [0u32, 1, 5, 16, 31] {
            for offset in [-33i32, -3, -2, -1, 0, 1, 2, 3, 8, 33] {
                cases.push([mask, base, offset as u32]);
            }
        }
    }
    check32("fns.b32 %r0, %r1, %r2, %r3;", &cases, |mask, base, offset| {
        let offset = offset as i32;
        if offset == 0 {
            return if mask >> base & 1 == 1 { base } else { u32::MAX };
        }
        let mut pos = base as i32;
        let mut count = offset.abs() - 1;
        let step = offset.signum();
        while (0..32).contains(&pos) {
            if mask >> pos & 1 == 1 {
                if count == 0 {
                    return pos as u32;
                }
                count -= 1;
            }
            pos += step;
        }
        u32::MAX
    });
}

#[test]
fn masks_and_sign_extension() {
    let amounts = [0u32, 1, 5, 16, 31, 32, 33, 64, u32::MAX];
    let cases: Vec<[u32; 3]> =
        amounts.iter().flat_map(|a| amounts.iter().map(|b| [*a, *b, 0])).collect();
    // ISA: clamp bounds both at 32, wrap takes them modulo 32; the mask starts at a, b bits wide.
    let mask = |start: u64, width: u64| (((1u128 << width) - 1) << start) as u32;
    check32("bmsk.clamp.b32 %r0, %r1, %r2;", &cases, |a, b, _| {
        mask(a.min(32).into(), b.min(32).into())
    });
    check32("bmsk.wrap.b32 %r0, %r1, %r2;", &cases, |a, b, _| {
        mask((a % 32).into(), (b % 32).into())
    });
    let cases: Vec<[u32; 3]> = [0x8765_4321u32, 0x7fff_ffff, 0xffff_ffff, 0x0000_8080]
        .iter()
        .flat_map(|a| [0u32, 1, 7, 8, 16, 31, 32, 40].map(|n| [*a, n, 0]))
        .collect();
    check32("szext.clamp.u32 %r0, %r1, %r2;", &cases, |a, n, _| {
        (u64::from(a) & ((1u64 << n.min(32)) - 1)) as u32
    });
    check32("szext.clamp.s32 %r0, %r1, %r2;", &cases, |a, n, _| match n.min(32) {
        0 => 0,
        n => ((i64::from(a) << (64 - n)) >> (64 - n)) as u32,
    });
    check32("szext.wrap.u32 %r0, %r1, %r2;", &cases, |a, n, _| {
        (u64::from(a) & ((1u64 << (n % 32)) - 1)) as u32
    });
    check32("szext.wrap.s32 %r0, %r1, %r2;", &cases, |a, n, _| match n % 32 {
        0 => 0,
        n => ((i64::from(a) << (64 - n)) >> (64 - n)) as u32,
    });
}

/// Every selector nibble in every place, with and without the sign bit.
#[test]
fn byte_permutes_by_index() {
    let (a, b) = (0x8381_7f01u32, 0x11ff_80a5u32);
    let selectors: Vec<[u32; 3]> = (0..16u32)
        .flat_map(|n| {
            (0..4).map(move |place| [a, b, 0x3210 & !(0xf << (4 * place)) | n << (4 * place)])
        })
        .chain(numbers(3, 50).iter().map(|r| [a, b, *r as u32]))
        .collect();
    check32("prmt.b32 %r0, %r1, %r2, %r3;", &selectors, |a, b, c| {
        let bytes = [a.to_le_bytes(), b.to_le_bytes()].concat();
        let mut out = [0u8; 4];
        for (i, byte) in out.iter_mut().enumerate() {
            let n = c >> (4 * i) & 0xf;
            let v = bytes[(n & 7) as usize];
            *byte = if n < 8 {
                v
            } else if v & 0x80 != 0 {
                0xff
            } else {
                0
            };
        }
        u32::from_le_bytes(out)
    });
}

/// The table of the ISA: bytes d[3] d[2] d[1] d[0] for selector 0 … 3.
#[test]
fn byte_permutes_by_mode() {
    let table: [(&str, [[u32; 4]; 4]); 6] = [
        ("f4e", [[3, 2, 1, 0], [4, 3, 2, 1], [5, 4, 3, 2], [6, 5, 4, 3]]),
        ("b4e", [[5, 6, 7, 0], [6, 7, 0, 1], [7, 0, 1, 2], [0, 1, 2, 3]]),
        ("rc8", [[0, 0, 0, 0], [1, 1, 1, 1], [2, 2, 2, 2], [3, 3, 3, 3]]),
        ("ecl", [[3, 2, 1, 0], [3, 2, 1, 1], [3, 2, 2, 2], [3, 3, 3, 3]]),
        ("ecr", [[0, 0, 0, 0], [1, 1, 1, 0], [2, 2, 1, 0], [3, 2, 1, 0]]),
        ("rc16", [[1, 0, 1, 0], [3, 2, 3, 2], [1, 0, 1, 0], [3, 2, 3, 2]]),
    ];
    let (a, b) = (0x3322_1100u32, 0x7766_5544u32);
    for (mode, rows) in table {
        for (selector, row) in rows.iter().enumerate() {
            let want = row.iter().fold(0u32, |v, n| (v << 8) | (n * 0x11));
            // Only the two low bits of the selector count.
            for c in [selector as u32, selector as u32 + 0x54] {
                table32(&format!("prmt.b32.{mode} %r0, %r1, %r2, %r3;"), &[([a, b, c], want)]);
            }
        }
    }
}

/// lop3 with a predicate: d|p, where p joins whether the result is nonzero with a predicate.
#[test]
fn lop3_with_a_predicate() {
    let code = |op: &str, q: u32| {
        format!(
            "setp.eq.u32 %p2, 1, {q}; lop3.{op}.b32 %r4|%p1, %r1, %r2, %r3, 0x80, %p2; \
             selp.u32 %r0, 1, 0, %p1;"
        )
    };
    for (given, nonzero) in [([6u32, 3, 2], true), ([4, 3, 2], false)] {
        for q in [0u32, 1] {
            let want = u32::from(nonzero || q == 1);
            table32(&code("or", q), &[(given, want)]);
            table32(&code("and", q), &[(given, u32::from(nonzero && q == 1))]);
        }
    }
}

#[test]
fn dot_products_of_every_sign() {
    let random = numbers(5, 120);
    let cases: Vec<[u32; 3]> = random
        .chunks(3)
        .map(|c| [c[0] as u32, c[1] as u32, c[2] as u32])
        .chain([
            [0x8080_8080, 0x8080_8080, 0],
            [0xffff_ffff, 0xffff_ffff, u32::MAX],
            [0x7f7f_7f7f, 0x8080_8080, 1],
        ])
        .collect();
    let byte = |v: u32, i: u32, signed: bool| match (v >> (8 * i)) as u8 {
        b if signed => i64::from(b as i8),
        b => i64::from(b),
    };
    let half = |v: u32, i: u32, signed: bool| match (v >> (16 * i)) as u16 {
        h if signed => i64::from(h as i16),
        h => i64::from(h),
    };
    for (at, a_signed) in [("u32", false), ("s32", true)] {
        for (bt, b_signed) in [("u32", false), ("s32", true)] {
            check32(&format!("dp4a.{at}.{bt} %r0, %r1, %r2, %r3;"), &cases, |a, b, c| {
                let sum: i64 = (0..4).map(|i| byte(a, i, a_signed) * byte(b, i, b_signed)).sum();
                (i64::from(c) + sum) as u32
            });
            for (mode, first) in [("lo", 0), ("hi", 2)] {
                check32(
                    &format!("dp2a.{mode}.{at}.{bt} %r0, %r1, %r2, %r3;"),
                    &cases,
                    |a, b, c| {
                        let term = |i| half(a, i, a_signed) * byte(b, first + i, b_signed);
                        (i64::from(c) + term(0) + term(1)) as u32
                    },
                );
            }
        }
    }
}

/// Vectors of registers: the first element is the least significant.
#[test]
fn packing_and_unpacking() {
    table32(
        "mov.b32 {%h4, %h5}, %r1; mov.b32 %r0, {%h5, %h4};",
        &[([0x1234_5678, 0, 0], 0x5678_1234)],
    );
    table32("mov.b64 %rd0, {%r1, %r2}; mov.b64 {%r4, %r0}, %rd0;", &[([1, 2, 0], 2)]);
    table32("mov.b64 %rd0, {%r1, %r2}; mov.b64 {%r0, %r4}, %rd0;", &[([1, 2, 0], 1)]);
    table32(
        "mov.b64 %rd0, {%r1, %r2}; mov.b64 {%h4, %h5, %h6, %h7}, %rd0; mov.b32 %r0, {%h7, %h5};",
        &[([0x0002_0001, 0x0004_0003, 0], 0x0002_0004)],
    );
    table32("mov.b64 %rd0, {%r1, %r2}; mov.b64 {_, %r0}, %rd0;", &[([1, 2, 0], 2)]);
}
