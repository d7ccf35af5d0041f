//! `atom` and `red`: every operation of every type, in global and shared memory.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use pacer_emulator::{Module, Rule};
use support::{Setup, breaks, program, run};

fn one() -> Setup<'static> {
    Setup { threads: 1, ..Setup::default() }
}

/// Old value and operands to the new value, in the low bits of a word.
type Update = fn(u64, u64, u64) -> u64;

struct Op {
    name: &'static str,
    bits: u32,
    new: Update,
}

fn s32(v: u64) -> i64 {
    i64::from(v as u32 as i32)
}

const OPS: &[Op] = &[
    Op {
        name: "add.u32",
        bits: 32,
        new: |old, b, _| u64::from((old as u32).wrapping_add(b as u32)),
    },
    Op {
        name: "add.s32",
        bits: 32,
        new: |old, b, _| u64::from((old as u32).wrapping_add(b as u32)),
    },
    Op { name: "add.u64", bits: 64, new: |old, b, _| old.wrapping_add(b) },
    Op { name: "min.u32", bits: 32, new: |old, b, _| if b < old { b } else { old } },
    Op { name: "max.u32", bits: 32, new: |old, b, _| if b > old { b } else { old } },
    Op { name: "min.s32", bits: 32, new: |old, b, _| if s32(b) < s32(old) { b } else { old } },
    Op { name: "max.s32", bits: 32, new: |old, b, _| if s32(b) > s32(old) { b } else { old } },
    Op { name: "min.u64", bits: 64, new: |old, b, _| if b < old { b } else { old } },
    Op { name: "max.u64", bits: 64, new: |old, b, _| if b > old { b } else { old } },
    Op {
        name: "min.s64",
        bits: 64,
        new: |old, b, _| if (b as i64) < old as i64 { b } else { old },
    },
    Op {
        name: "max.s64",
        bits: 64,
        new: |old, b, _| if (b as i64) > old as i64 { b } else { old },
    },
    Op { name: "and.b32", bits: 32, new: |old, b, _| old & b },
    Op { name: "or.b32", bits: 32, new: |old, b, _| old | b },
    Op { name: "xor.b32", bits: 32, new: |old, b, _| old ^ b },
    Op { name: "and.b64", bits: 64, new: |old, b, _| old & b },
    Op { name: "or.b64", bits: 64, new: |old, b, _| old | b },
    Op { name: "xor.b64", bits: 64, new: |old, b, _| old ^ b },
    Op { name: "exch.b32", bits: 32, new: |_, b, _| b },
    Op { name: "exch.b64", bits: 64, new: |_, b, _| b },
    Op { name: "cas.b32", bits: 32, new: |old, b, c| if old == b { c } else { old } },
    Op { name: "cas.b64", bits: 64, new: |old, b, c| if old == b { c } else { old } },
    // ISA: inc: ((old >= b) ? 0 : old + 1); dec: ((old == 0 || old > b) ? b : old - 1).
    Op { name: "inc.u32", bits: 32, new: |old, b, _| if old >= b { 0 } else { old + 1 } },
    Op {
        name: "dec.u32",
        bits: 32,
        new: |old, b, _| if old == 0 || old > b { b } else { old - 1 },
    },
];

const VALUES: [u64; 7] = [0, 1, 5, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 0x8000_0000_0000_0001];

fn cut(v: u64, bits: u32) -> u64 {
    if bits == 32 { v & 0xffff_ffff } else { v }
}

/// Loads the operands, sets memory, updates it, stores the old and the new value.
fn body(op: &Op, space: &str, atom: bool) -> String {
    let (ty, r) = if op.bits == 32 { ("u32", "%r") } else { ("u64", "%rd") };
    let (setup, at) = match space {
        "global" => (String::new(), "%out+32".to_string()),
        _ => (".shared .align 8 .b8 s[8];".to_string(), "s".to_string()),
    };
    let place =
        if space == "generic" { "cvta.shared.u64 %rd20, s;".to_string() } else { String::new() };
    let (suffix, at_atom) = match space {
        "generic" => ("", "%rd20".to_string()),
        other => (if other == "global" { ".global" } else { ".shared" }, at.clone()),
    };
    let plain = if space == "global" { "global" } else { "shared" };
    let cas = if op.name.starts_with("cas") { format!(", {r}3") } else { String::new() };
    let update = match atom {
        true => format!("atom{suffix}.{} {r}4, [{at_atom}], {r}2{cas};", op.name),
        false => format!("mov.{ty} {r}4, {r}1; red{suffix}.{} [{at_atom}], {r}2;", op.name),
    };
    format!(
        "{setup} ld.global.{ty} {r}1, [%in]; ld.global.{ty} {r}2, [%in+8]; \
         ld.global.{ty} {r}3, [%in+16]; {place} st.{plain}.{ty} [{at}], {r}1; {update} \
         ld.{plain}.{ty} {r}5, [{at}]; st.global.{ty} [%out], {r}4; st.global.{ty} [%out+8], {r}5;"
    )
}

#[test]
fn every_operation_returns_the_old_value_and_leaves_the_new() {
    for op in OPS {
        for space in ["global", "shared", "generic"] {
            for atom in [true, false] {
                let red = !op.name.starts_with("exch") && !op.name.starts_with("cas");
                if !atom && !red {
                    continue;
                }
                let text = body(op, space, atom);
                for old in VALUES {
                    for b in VALUES {
                        let [old, b, c] = [old, b, 77].map(|v| cut(v, op.bits));
                        let input: Vec<u32> = [old, b, c]
                            .iter()
                            .flat_map(|v| [*v as u32, (*v >> 32) as u32])
                            .collect();
                        let got = run(&text, Setup { input: &input, ..one() });
                        let word = |i: usize| u64::from(got[i]) | u64::from(got[i + 1]) << 32;
                        let want = cut((op.new)(old, b, c), op.bits);
                        let seen = [cut(word(0), op.bits), cut(word(2), op.bits)];
                        assert_eq!(seen, [old, want], "{} in {space} of {old:#x}, {b:#x}", op.name);
                    }
                }
            }
        }
    }
}

#[test]
fn sixteen_bit_exchange_and_compare() {
    let body = "mov.u16 %h1, 5; mov.u16 %h2, 9; st.global.u32 [%out+32], 0x00070005; \
                atom.global.cas.b16 %h3, [%out+32], %h1, %h2; atom.global.exch.b16 %h4, [%out+34], %h2; \
                cvt.u32.u16 %r1, %h3; cvt.u32.u16 %r2, %h4; st.global.u32 [%out], %r1; \
                st.global.u32 [%out+4], %r2;";
    let got = run(
        &body.replace("exch.b16 %h4, [%out+34], %h2", "cas.b16 %h4, [%out+34], %h1, %h2"),
        one(),
    );
    assert_eq!((got[0], got[1], got[8]), (5, 7, 0x0007_0009));
}

/// Sums of floats: to nearest; f32 in global memory flushes subnormal inputs and results, in
/// shared memory it does not (ISA, atom: semantics of .add).
#[test]
fn sums_of_floats() {
    let code = |space: &str, ty: &str, r: &str, b: &str| {
        let (setup, at) =
            if space == "global" { ("", "%out+32") } else { (".shared .align 8 .b8 s[8];", "s") };
        let plain = if ty == "f64" { "b64" } else { "b32" };
        format!(
            "{setup} ld.global.{plain} {r}1, [%in]; st.{space}.{plain} [{at}], {r}1; \
             ld.global.{plain} {r}2, [%in+8]; atom.{space}.add.{b} {r}3, [{at}], {r}2; \
             ld.{space}.{plain} {r}4, [{at}]; st.global.{plain} [%out], {r}4;"
        )
    };
    let f = f32::to_bits;
    for (a, b, want) in [
        (f(1.5), f(2.25), f(3.75)),
        (f(1.0), f(2f32.powi(-24)), f(1.0)),
        (f(f32::MAX), f(f32::MAX), f(f32::INFINITY)),
        (f(f32::INFINITY), f(f32::NEG_INFINITY), 0x7fff_ffff),
    ] {
        for space in ["global", "shared"] {
            let got =
                run(&code(space, "f32", "%f", "f32"), Setup { input: &[a, 0, b, 0], ..one() });
            assert_eq!(got[0], want, "{space} {a:#x} {b:#x}");
        }
    }
    let tiny = Setup { input: &[1, 0, 2, 0], ..one() };
    assert_eq!(run(&code("global", "f32", "%f", "f32"), tiny)[0], 0);
    assert_eq!(run(&code("shared", "f32", "%f", "f32"), tiny)[0], 3);
    let (a, b) = (1e300f64.to_bits(), 1f64.to_bits());
    let input = [a as u32, (a >> 32) as u32, b as u32, (b >> 32) as u32];
    let got = run(&code("global", "f64", "%fd", "f64"), Setup { input: &input, ..one() });
    assert_eq!(u64::from(got[0]) | u64::from(got[1]) << 32, a);
}

#[test]
fn sums_of_halves() {
    let pair = "ld.global.b32 %r1, [%in]; st.global.b32 [%out+32], %r1; ld.global.b32 %r2, [%in+4]; \
                atom.global.add.noftz.TY %r3, [%out+32], %r2; ld.global.b32 %r4, [%out+32]; \
                st.global.b32 [%out], %r4;";
    let f16 = Setup { input: &[0x3c00_4000, 0x3c00_0001], ..one() };
    assert_eq!(run(&pair.replace("TY", "f16x2"), f16)[0], 0x4000_4000);
    let bf16 = Setup { input: &[0x3f80_4000, 0x3f80_4040], ..one() };
    assert_eq!(run(&pair.replace("TY", "bf16x2"), bf16)[0], 0x4000_40a0);
    let one_half = "st.global.b32 [%out+32], 0x40003c00; mov.b16 %h1, 0x3c00; \
                    red.global.add.noftz.f16 [%out+34], %h1; ld.global.b32 %r1, [%out+32]; \
                    st.global.b32 [%out], %r1;";
    assert_eq!(run(one_half, one())[0], 0x4200_3c00);
}

/// Vector reductions of sm_90: each element by itself.
#[test]
fn vectors_of_floats() {
    let body = "st.global.v4.u32 [%out+32], {0, 0x3f800000, 0x40000000, 0}; mov.b32 %f1, 0f3F800000; \
                red.global.add.v4.f32 [%out+32], {%f1, %f1, %f1, %f1};";
    let got = run(body, one());
    assert_eq!(got[8..12], [0x3f80_0000, 0x4000_0000, 0x4040_0000, 0x3f80_0000]);
    let body = "st.global.v2.u32 [%out+32], {0, 0x3f800000}; mov.b32 %f1, 0f3F800000; \
                atom.global.v2.f32.add {%f2, %f3}, [%out+32], {%f1, %f1}; st.global.f32 [%out], %f3;";
    let got = run(body, one());
    assert_eq!((got[0], got[8], got[9]), (0x3f80_0000, 0x3f80_0000, 0x4000_0000));
    breaks(
        Rule::Misaligned,
        "mov.b32 %f1, 0f3F800000; red.global.add.v4.f32 [%out+8], {%f1, %f1, %f1, %f1};",
        one(),
    );
}

/// Many threads on one word: every update counts, and tickets are all different.
#[test]
fn contention() {
    for seed in 0..10 {
        let setup = Setup { threads: 128, blocks: 2, seed, ..Setup::default() };
        let body = "atom.global.add.u32 %r1, [%out+4000], 1; mul.wide.u32 %rd1, %r1, 4; \
                    add.u64 %rd1, %rd1, %out; red.global.add.u32 [%rd1], 1;";
        let got = run(body, setup);
        assert_eq!(got[1000], 256);
        assert!(got[..256].iter().all(|v| *v == 1));
        let shared = ".shared .align 4 .b8 s[4]; setp.eq.u32 %p1, %tid, 0; @%p1 st.shared.u32 [s], 0; \
                      bar.sync 0; atom.shared.max.u32 %r1, [s], %tid; red.shared.add.u32 [s], 1; \
                      bar.sync 0; ld.shared.u32 %r2, [s]; st.global.u32 [%my], %r2;";
        let got = run(shared, Setup { blocks: 1, ..setup });
        assert!(got[..128].iter().all(|v| *v == got[0]) && got[0] >= 128);
    }
}

/// Whether updates, each from an old value to a new one, can have come one after the other from
/// `first` to `last`: an Eulerian path with values as nodes and updates as edges.
fn in_some_order(updates: &[(u64, u64)], first: u64, last: u64) -> bool {
    let mut surplus = BTreeMap::from([(first, -1i32)]);
    *surplus.entry(last).or_insert(0) += 1;
    for (old, new) in updates {
        *surplus.entry(*old).or_insert(0) += 1;
        *surplus.entry(*new).or_insert(0) -= 1;
    }
    let mut reached = BTreeSet::from([first]);
    while let Some((_, new)) =
        updates.iter().find(|(old, new)| reached.contains(old) && !reached.contains(new))
    {
        reached.insert(*new);
    }
    surplus.values().all(|n| *n == 0) && updates.iter().all(|(old, _)| reached.contains(old))
}

/// ISA: an atomic of a warp is performed once for each executing thread, in no particular order.
#[test]
fn lanes_at_two_words_go_in_some_order() {
    let input: Vec<u32> = (0..64u32).map(|i| i.wrapping_mul(0x9e37_79b9) >> (i % 29)).collect();
    for op in OPS.iter().filter(|op| op.bits == 32) {
        let cas = if op.name.starts_with("cas") { ", %r1" } else { "" };
        for (space, place) in
            [("shared", "mov.u64 %rd2, s;"), ("global", "add.u64 %rd2, %out, 512;")]
        {
            let body = format!(
                ".shared .align 8 .b8 s[8]; {place} and.b32 %r1, %tid, 1; mul.wide.u32 %rd1, %r1, 4; \
                 add.u64 %rd2, %rd2, %rd1; setp.lt.u32 %p1, %tid, 2; @%p1 st.{space}.u32 [%rd2], 5; \
                 bar.sync 0; mul.wide.u32 %rd3, %tid, 4; add.u64 %rd3, %rd3, %in; \
                 ld.global.u32 %r2, [%rd3]; and.b32 %r3, %tid, 3; setp.ne.u32 %p2, %r3, 3; \
                 @%p2 atom.{space}.{} %r4, [%rd2], %r2{cas}; @%p2 st.global.u32 [%my], %r4; \
                 bar.sync 0; @%p1 ld.{space}.u32 %r5, [%rd2]; @%p1 st.global.u32 [%my+256], %r5;",
                op.name
            );
            for seed in 0..4 {
                let got = run(&body, Setup { threads: 64, seed, input: &input, ..one() });
                for word in [0, 1] {
                    let mine = (0..64usize).filter(|tid| tid % 2 == word && tid % 4 != 3);
                    let updates: Vec<_> = mine
                        .map(|tid| {
                            let old = u64::from(got[tid]);
                            (old, cut((op.new)(old, input[tid].into(), word as u64), 32))
                        })
                        .collect();
                    let last = u64::from(got[64 + word]);
                    assert!(in_some_order(&updates, 5, last), "{} in {space}: {got:?}", op.name);
                }
            }
        }
    }
}

#[test]
fn a_lock_made_of_exchanges() {
    let body = "setp.ne.u32 %p1, %tid, 0; @%p1 exit; \
                L: atom.acquire.gpu.global.cas.b32 %r1, [%out+400], 0, 1; setp.ne.u32 %p2, %r1, 0; \
                @%p2 bra L; ld.relaxed.gpu.global.u32 %r2, [%out+404]; add.u32 %r2, %r2, 1; \
                st.relaxed.gpu.global.u32 [%out+404], %r2; \
                atom.release.gpu.global.exch.b32 %r3, [%out+400], 0;";
    for seed in 0..20 {
        let got = run(body, Setup { threads: 32, blocks: 8, seed, ..Setup::default() });
        assert_eq!(got[101], 8, "seed {seed}");
    }
}

/// Forms that the ISA does not have.
#[test]
fn operations_that_do_not_exist() {
    for form in [
        "atom.global.and.u32 %r1, [%out], 1;",
        "atom.global.inc.s32 %r1, [%out], 1;",
        "atom.global.min.f32 %f1, [%out], %f2;",
        "atom.global.sub.u32 %r1, [%out], 1;",
        "atom.global.exch.u32 %r1, [%out], 1;",
        "atom.global.add.b32 %r1, [%out], 1;",
        "atom.global.xor.f32 %f1, [%out], %f2;",
        "red.global.exch.b32 [%out], 1;",
        "red.global.cas.b32 [%out], 1, 2;",
        "atom.global.dec.u64 %rd1, [%out], 1;",
        "atom.global.add.u32.ftz %r1, [%out], 1;",
        "atom.param.add.u32 %r1, [out], 1;",
        "atom.global.add.u32 %r1, [%out];",
        "atom.global.cas.b32 %r1, [%out], 1;",
        "atom.const.add.u32 %r1, [%out], 1;",
        "atom.local.add.u32 %r1, [%out], 1;",
    ] {
        assert!(Module::parse(&program(form)).is_err(), "{form}");
    }
}
