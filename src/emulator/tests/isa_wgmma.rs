//! wgmma by construction: operands are laid out in shared memory element by element as the
//! canonical layouts say, and every accumulator is compared with f64.

#[path = "isa_wgmma/layout.rs"]
mod layout;
mod support;

use layout::{Kind, Layout, NONE, SWIZZLES, Swizzle, layout};
use pacer_emulator::{Fault, Module, Rule};
use support::exact::{BF16, E4M3, E5M2, F16, Fmt};
use support::vectors::numbers;
use support::{Setup, program, run_text};

struct Case {
    n: usize,
    a: (&'static str, Kind),
    b: (&'static str, Kind),
    d: &'static str,
    la: Layout,
    lb: Layout,
    /// A comes from registers.
    registers: bool,
    accumulate: bool,
    negate: (bool, bool),
}

impl Case {
    fn k(&self) -> usize {
        32 / self.a.1.bytes()
    }
}

/// First byte of B in shared memory; A begins at 0.
const B_AT: usize = 16384;
const SHARED: usize = 16384 + 65536;
/// Address of the block's first shared byte, which is where the only array begins.
const FIRST: usize = 1024;

struct Data {
    a: Vec<f64>,
    b: Vec<f64>,
    image: Vec<u8>,
    a_bits: Vec<u32>,
}

fn data(c: &Case, seed: u64) -> Data {
    let k = c.k();
    let random = numbers(seed, 64 * k + c.n * k);
    let mut d = Data {
        a: vec![0.0; 64 * k],
        b: vec![0.0; c.n * k],
        image: vec![0; SHARED],
        a_bits: vec![0; 64 * k],
    };
    for m in 0..64 {
        for x in 0..k {
            let (v, bits) = c.a.1.pick(random[m * k + x]);
            (d.a[m * k + x], d.a_bits[m * k + x]) = (v, bits);
            if !c.registers {
                put(&mut d.image, c.la.at(m, x, c.a.1.bytes()), bits, c.a.1.bytes());
            }
        }
    }
    for n in 0..c.n {
        for x in 0..k {
            let (v, bits) = c.b.1.pick(random[64 * k + n * k + x]);
            d.b[n * k + x] = v;
            put(&mut d.image, B_AT + c.lb.at(n, x, c.b.1.bytes()), bits, c.b.1.bytes());
        }
    }
    d
}

fn put(image: &mut [u8], at: usize, bits: u32, bytes: usize) {
    image[at..at + bytes].copy_from_slice(&bits.to_le_bytes()[..bytes]);
}

/// Registers of A for a lane of a warp: rows T div 4 and the one 8 below, 32 bits of K at
/// T mod 4, then the same in the second half of K.
fn a_registers(c: &Case, d: &Data, warp: usize, lane: usize) -> [u32; 4] {
    let (k, bytes) = (c.k(), c.a.1.bytes());
    let per = 4 / bytes;
    std::array::from_fn(|r| {
        let row = 16 * warp + lane / 4 + 8 * (r % 2);
        let col = lane % 4 * per + r / 2 * (k / 2);
        (0..per).fold(0, |w, i| w | d.a_bits[row * k + col + i] << (8 * bytes * i))
    })
}

fn body(c: &Case) -> String {
    let regs = if c.d == "f16" { c.n / 4 } else { c.n / 2 };
    let names: Vec<String> = (0..regs).map(|i| format!("%d{i}")).collect();
    let init: String =
        names.iter().map(|d| format!("mov.b32 {d}, 0;")).filter(|_| c.accumulate).collect();
    let stores: String = names
        .iter()
        .enumerate()
        .map(|(i, d)| format!("st.global.b32 [%rd8+{}], {d};", 512 * i))
        .collect();
    let scale = |on: bool| if on { -1 } else { 1 };
    let mut tail = String::new();
    if c.d != "s32" {
        tail += &format!(", {}, {}", scale(c.negate.0), scale(c.negate.1));
        if c.a.1.bytes() == 2 {
            if !c.registers {
                tail += &format!(", {}", u8::from(!c.la.k_major));
            }
            tail += &format!(", {}", u8::from(!c.lb.k_major));
        }
    }
    let (load_a, a) = match c.registers {
        true => (
            format!(
                "mul.wide.u32 %rd4, %tid, 16; add.u64 %rd4, %rd4, %in; \
                 ld.global.v4.b32 {{%r10, %r11, %r12, %r13}}, [%rd4+{SHARED}];"
            ),
            "{%r10, %r11, %r12, %r13}".to_string(),
        ),
        false => (format!("mov.b64 %rd5, {};", c.la.descriptor(FIRST)), "%rd5".into()),
    };
    format!(
        ".shared .align 1024 .b8 s[{SHARED}]; .reg .b32 %d<128>; shl.b32 %r1, %tid, 4; mov.u32 %r2, s; \
         F: cvt.u64.u32 %rd1, %r1; add.u64 %rd1, %rd1, %in; \
         ld.global.v4.b32 {{%r4, %r5, %r6, %r7}}, [%rd1]; add.u32 %r3, %r2, %r1; \
         st.shared.v4.b32 [%r3], {{%r4, %r5, %r6, %r7}}; add.u32 %r1, %r1, 2048; \
         setp.lt.u32 %p1, %r1, {SHARED}; @%p1 bra F; {load_a} {init} fence.proxy.async.shared::cta; \
         bar.sync 0; mov.b64 %rd6, {}; setp.eq.u32 %p2, {}, 1; wgmma.fence.sync.aligned; \
         wgmma.mma_async.sync.aligned.m64n{}k{}.{}.{}.{} {{{}}}, {a}, %rd6, %p2{tail}; \
         wgmma.commit_group.sync.aligned; wgmma.wait_group.sync.aligned 0; \
         mul.wide.u32 %rd8, %tid, 4; add.u64 %rd8, %rd8, %out; {stores}",
        c.lb.descriptor(FIRST + B_AT),
        u32::from(c.accumulate),
        c.n,
        c.k(),
        c.d,
        c.a.0,
        c.b.0,
        names.join(", "),
    )
}

fn execute(c: &Case, d: &Data, text: &str, seed: u64) -> Result<Vec<u32>, Box<Fault>> {
    execute_by(128, c, d, text, seed)
}

fn execute_by(
    threads: u32,
    c: &Case,
    d: &Data,
    text: &str,
    seed: u64,
) -> Result<Vec<u32>, Box<Fault>> {
    let mut input: Vec<u32> =
        d.image.chunks(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]])).collect();
    for t in 0..128 {
        input.extend(a_registers(c, d, t / 32, t % 32));
    }
    let setup = Setup {
        threads,
        words: 128 * 128 * threads as usize / 128,
        input: &input,
        seed,
        ..Setup::default()
    };
    run_text(&program(text), setup).map(|r| r.words)
}

#[track_caller]
fn check(c: &Case) {
    let d = data(c, 7);
    let got = execute(c, &d, &body(c), 3).unwrap_or_else(|f| panic!("{f}"));
    let k = c.k();
    let sign = if c.negate.0 != c.negate.1 { -1.0 } else { 1.0 };
    for t in 0..128 {
        let (warp, lane) = (t / 32, t % 32);
        for i in 0..c.n / 2 {
            // Figure of the accumulator: pairs of columns at 8·j + 2·(T mod 4), rows 8 apart.
            let row = 16 * warp + lane / 4 + 8 * (i / 2 % 2);
            let col = 8 * (i / 4) + 2 * (lane % 4) + i % 2;
            let sum: f64 = (0..k).map(|x| d.a[row * k + x] * d.b[col * k + x]).sum();
            let value = match c.d {
                "f16" => F16.decode(got[128 * (i / 2) + t] >> (16 * (i % 2)) & 0xffff),
                "f32" => f32::from_bits(got[128 * i + t]).into(),
                _ => f64::from(got[128 * i + t] as i32),
            };
            assert_eq!(
                value,
                sign * sum,
                "n{} {} {} {:?} {:?} ({row},{col})",
                c.n,
                c.a.0,
                c.b.0,
                c.la,
                c.lb
            );
        }
    }
}

const F: fn(Fmt) -> Kind = Kind::Float;

fn case(n: usize, ty: (&'static str, Kind), d: &'static str, swizzle: Swizzle) -> Case {
    let bytes = ty.1.bytes();
    Case {
        n,
        a: ty,
        b: ty,
        d,
        la: layout(swizzle, true, 64, bytes),
        lb: layout(swizzle, true, n, bytes),
        registers: false,
        accumulate: false,
        negate: (false, false),
    }
}

#[test]
fn every_swizzle_and_type_with_k_contiguous() {
    let types = [
        ("bf16", F(BF16), "f32"),
        ("f16", F(F16), "f32"),
        ("f16", F(F16), "f16"),
        ("tf32", Kind::Tf32, "f32"),
        ("e4m3", F(E4M3), "f32"),
        ("e5m2", F(E5M2), "f32"),
        ("e4m3", F(E4M3), "f16"),
        ("s8", Kind::Int(true), "s32"),
        ("u8", Kind::Int(false), "s32"),
    ];
    for (name, kind, d) in types {
        for swizzle in SWIZZLES {
            check(&case(64, (name, kind), d, swizzle));
        }
    }
}

#[test]
fn every_number_of_columns() {
    for n in (8..=256).step_by(8) {
        check(&case(n, ("bf16", F(BF16)), "f32", SWIZZLES[1]));
    }
}

/// Transposed operands of 16 bits: M or N contiguous.
#[test]
fn every_swizzle_with_m_and_n_contiguous() {
    for swizzle in SWIZZLES {
        for (a_k, b_k) in [(false, true), (true, false), (false, false)] {
            let mut c = case(128, ("bf16", F(BF16)), "f32", swizzle);
            c.la = layout(swizzle, a_k, 64, 2);
            c.lb = layout(swizzle, b_k, 128, 2);
            check(&c);
        }
    }
}

#[test]
fn operands_of_different_types() {
    let mut c = case(32, ("e4m3", F(E4M3)), "f32", SWIZZLES[1]);
    c.b = ("e5m2", F(E5M2));
    check(&c);
    let mut c = case(32, ("s8", Kind::Int(true)), "s32", SWIZZLES[2]);
    c.b = ("u8", Kind::Int(false));
    check(&c);
}

#[test]
fn a_in_registers() {
    for (name, kind, d) in [
        ("bf16", F(BF16), "f32"),
        ("f16", F(F16), "f16"),
        ("tf32", Kind::Tf32, "f32"),
        ("e4m3", F(E4M3), "f32"),
        ("s8", Kind::Int(true), "s32"),
    ] {
        let mut c = case(64, (name, kind), d, SWIZZLES[1]);
        c.registers = true;
        check(&c);
    }
}

#[test]
fn signs_and_accumulation() {
    for negate in [(true, false), (false, true), (true, true)] {
        check(&Case { negate, ..case(16, ("bf16", F(BF16)), "f32", NONE) });
    }
    check(&Case { accumulate: true, ..case(16, ("bf16", F(BF16)), "f32", NONE) });
    // Two products on the same accumulators.
    let c = case(16, ("bf16", F(BF16)), "f32", SWIZZLES[1]);
    let d = data(&c, 9);
    let once = body(&c);
    let at = once.find("wgmma.mma_async").unwrap();
    let end = at + once[at..].find(';').unwrap() + 1;
    let again = once[at..end].replace("%p2", "1");
    let twice = format!("{} {again} {}", &once[..end], &once[end..]);
    let (one, two) = (execute(&c, &d, &once, 0).unwrap(), execute(&c, &d, &twice, 0).unwrap());
    for i in 0..8 * 128 {
        assert_eq!(2.0 * f32::from_bits(one[i]), f32::from_bits(two[i]));
    }
}

/// Each rule with the program that breaks it; the whole program is right, as the tests above show.
#[test]
fn rules() {
    let c = Case { accumulate: true, ..case(16, ("bf16", F(BF16)), "f32", SWIZZLES[1]) };
    let d = data(&c, 1);
    let right = body(&c);
    let wait = "wgmma.wait_group.sync.aligned 0;";
    let commit = "wgmma.commit_group.sync.aligned;";
    let go = |text: &str, seed| execute(&c, &d, text, seed).map(|_| ()).map_err(|f| f.rule);
    for seed in 0..4 {
        assert_eq!(go(&right, seed), Ok(()));
        let cases = [
            (right.replace("wgmma.fence.sync.aligned;", ""), Rule::MissingWgmmaFence),
            (right.replace(wait, ""), Rule::AsyncInFlight),
            (right.replace(commit, ""), Rule::AsyncInFlight),
            (right.replace("fence.proxy.async.shared::cta;", ""), Rule::MissingProxyFence),
            (
                right.replace(wait, &format!("st.shared.u32 [s+16384], 0; {wait}")),
                Rule::AsyncInFlight,
            ),
            (
                right.replace(wait, &format!("mov.b32 %r9, %d0; add.u32 %r9, %r9, 1; {wait}")),
                Rule::AsyncInFlight,
            ),
            (right.replace("bar.sync 0;", ""), Rule::Race),
            (right.replace(commit, &format!("{commit} exit;")), Rule::Leak),
        ];
        for (n, (text, rule)) in cases.iter().enumerate() {
            let got = go(text, seed);
            let other = n == 6 && matches!(got, Err(Rule::Uninitialised | Rule::MissingProxyFence));
            assert!(got == Err(*rule) || other, "case {n}, seed {seed}: {got:?}, not {rule:?}");
        }
    }
    // Reading the operands while they are being read is no conflict.
    let reads = right.replace(wait, &format!("ld.shared.u32 %r9, [s+16384]; {wait}"));
    assert_eq!(go(&reads, 0), Ok(()));
    let ragged = right.replace("setp.eq.u32 %p2, 1, 1;", "setp.eq.u32 %p2, %tid, 1;");
    assert_eq!(go(&ragged, 0), Err(Rule::Undefined));
}

/// A wait tells of the own warpgroup's reads, not of another's.
#[test]
fn each_warpgroup_waits_for_itself() {
    let c = case(16, ("bf16", F(BF16)), "f32", SWIZZLES[1]);
    let d = data(&c, 1);
    let fill = "setp.ge.u32 %p3, %tid, 128; @%p3 bra G; F:";
    let one = body(&c);
    let (one, _stores) = one.split_once("mul.wide.u32 %rd8").expect("stores at the end");
    let both = one.replacen("F:", fill, 1).replace("@%p1 bra F;", "@%p1 bra F; G:");
    let wait = "wgmma.wait_group.sync.aligned 0;";
    let write = "setp.eq.u32 %p4, %tid, 128; @%p4 st.shared.u32 [s+16384], 0;";
    let told = both.replace(wait, &format!("{wait} bar.sync 0; {write}"));
    let untold = both.replace(wait, &format!("{wait} {write}"));
    for seed in 0..20 {
        let go = |text: &str| execute_by(256, &c, &d, text, seed).map(|_| ()).map_err(|f| f.rule);
        assert_eq!(go(&told), Ok(()));
        let got = go(&untold);
        assert!(matches!(got, Err(Rule::Race | Rule::AsyncInFlight)), "seed {seed}: {got:?}");
    }
}

/// The mistakes of hand-written descriptors: each gives a wrong answer or a finding.
#[test]
fn wrong_descriptors_are_noticed() {
    let transposed = || {
        let mut c = case(128, ("bf16", F(BF16)), "f32", SWIZZLES[1]);
        c.lb = layout(SWIZZLES[1], false, 128, 2);
        c
    };
    let cases: [(&str, Case); 3] = [
        ("no swizzle", case(64, ("bf16", F(BF16)), "f32", NONE)),
        ("128 bytes", case(64, ("bf16", F(BF16)), "f32", SWIZZLES[1])),
        ("N contiguous", transposed()),
    ];
    for (name, c) in &cases {
        let d = data(c, 5);
        let right = body(c);
        let good = execute(c, &d, &right, 0).unwrap_or_else(|f| panic!("{f}"));
        let descriptor = c.lb.descriptor(FIRST + B_AT);
        // Leading and stride offsets, the swizzle, the address; a K-major swizzled layout has no
        // use for the leading offset.
        let leading = if name == &"128 bytes" { None } else { Some(descriptor ^ 3 << 19) };
        let wrong =
            [leading, Some(descriptor ^ 1 << 37), Some(descriptor ^ 3 << 62), Some(descriptor + 2)];
        for bad in wrong.into_iter().flatten() {
            let text = right.replace(&format!("%rd6, {descriptor};"), &format!("%rd6, {bad};"));
            assert_ne!(text, right);
            if let Ok(got) = execute(c, &d, &text, 0) {
                assert_ne!(got, good, "{name}: descriptor {bad:#x} for {descriptor:#x}");
            }
        }
    }
}

#[test]
fn forms_that_do_not_exist() {
    let good = body(&case(16, ("bf16", F(BF16)), "f32", NONE));
    assert!(Module::parse(&program(&good)).is_ok());
    for (from, to) in [
        ("m64n16k16", "m64n12k16"),
        ("m64n16k16", "m64n264k16"),
        ("m64n16k16", "m64n16k8"),
        ("m64n16k16", "m32n16k16"),
        ("f32.bf16.bf16", "f16.bf16.bf16"),
        ("f32.bf16.bf16", "f32.bf16.f16"),
        ("f32.bf16.bf16", "s32.bf16.bf16"),
        (", 1, 1, 0, 0;", ", 2, 1, 0, 0;"),
        (", 1, 1, 0, 0;", ", 1, 1, 0;"),
        (", 1, 1, 0, 0;", ", 1, 1, 2, 0;"),
        ("%d6, %d7}", "%d6}"),
        ("mma_async.sync.aligned", "mma_async.aligned"),
        ("wgmma.fence.sync", "wgmma.fence"),
    ] {
        let text = good.replace(from, to);
        assert_ne!(text, good, "{from}");
        assert!(Module::parse(&program(&text)).is_err(), "{from} -> {to}");
    }
}
