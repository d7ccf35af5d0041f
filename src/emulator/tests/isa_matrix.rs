//! ldmatrix, stmatrix, movmatrix and mma.sync: which element each register of each lane holds,
//! as the figures of the ISA give it, and products against f64.

mod support;

use pacer_emulator::{Module, Rule};
use support::exact::{BF16, E4M3, E5M2, F16, F32, Fmt, Mode, round_f64};
use support::vectors::numbers;
use support::{Setup, breaks, program, run};

fn warp<'a>(input: &'a [u32]) -> Setup<'a> {
    Setup { input, words: 4096, ..Setup::default() }
}

/// Matrix `m`, row `r`, element `c` of the shared memory that these tests load from.
fn element(m: usize, r: usize, c: usize) -> u32 {
    (m << 8 | r << 4 | c) as u32 + 0x100
}

/// Rows in shared memory lie `pitch` bytes apart, in an order of their own: the lane whose turn a
/// row is names its address.
fn row_offset(m: usize, r: usize, pitch: usize) -> usize {
    (8 * m + (r * 3 + m) % 8) * pitch
}

fn image(pitch: usize) -> Vec<u32> {
    let mut words = vec![0u32; 32 * pitch / 4];
    for m in 0..4 {
        for r in 0..8 {
            for c in 0..8 {
                let at = row_offset(m, r, pitch) + 2 * c;
                words[at / 4] |= element(m, r, c) << (16 * (c % 2));
            }
        }
    }
    words
}

/// Copies the input's words to shared memory; each lane's row address, from the input after it,
/// comes to %r2.
fn staged(pitch: usize, body: &str) -> String {
    let words = 32 * pitch / 4;
    format!(
        ".shared .align 16 .b8 s[{}]; mov.u32 %r1, %tid; mov.u32 %r40, s; \
         F: mul.wide.u32 %rd1, %r1, 4; add.u64 %rd1, %rd1, %in; ld.global.u32 %r3, [%rd1]; \
         shl.b32 %r4, %r1, 2; add.u32 %r4, %r4, %r40; st.shared.u32 [%r4], %r3; add.u32 %r1, %r1, 32; \
         setp.lt.u32 %p1, %r1, {words}; @%p1 bra F; bar.sync 0; mul.wide.u32 %rd1, %tid, 4; \
         add.u64 %rd1, %rd1, %in; ld.global.u32 %r2, [%rd1+{}]; add.u32 %r2, %r2, %r40; {body}",
        32 * pitch,
        4 * words
    )
}

fn input(pitch: usize) -> Vec<u32> {
    let mut words = image(pitch);
    words.extend((0..32).map(|lane| row_offset(lane / 8, lane % 8, pitch) as u32));
    words
}

#[test]
fn ldmatrix_of_every_shape() {
    for pitch in [16, 32, 48, 144] {
        for (x, n) in [("x1", 1), ("x2", 2), ("x4", 4)] {
            for trans in [false, true] {
                let regs: Vec<String> = (0..n).map(|i| format!("%r{}", 10 + i)).collect();
                let stores: String = (0..n)
                    .map(|i| format!("st.global.u32 [%my+{}], %r{};", 128 * i, 10 + i))
                    .collect();
                let t = if trans { ".trans" } else { "" };
                let body = format!(
                    "ldmatrix.sync.aligned.m8n8.{x}{t}.shared.b16 {{{}}}, [%r2]; {stores}",
                    regs.join(", ")
                );
                let got = run(&staged(pitch, &body), warp(&input(pitch)));
                for lane in 0..32 {
                    for m in 0..n {
                        // Thread T holds elements 2·(T mod 4) and the next of row T div 4.
                        let (row, first) = (lane / 4, lane % 4 * 2);
                        let pair = if trans {
                            [element(m, first, row), element(m, first + 1, row)]
                        } else {
                            [element(m, row, first), element(m, row, first + 1)]
                        };
                        let want = pair[0] | pair[1] << 16;
                        assert_eq!(got[32 * m + lane], want, "{x}{t} matrix {m} lane {lane}");
                    }
                }
            }
        }
    }
}

#[test]
fn stmatrix_undoes_ldmatrix() {
    let pitch = 32;
    for (x, n) in [("x1", 1), ("x2", 2), ("x4", 4)] {
        for trans in [false, true] {
            let regs: Vec<String> = (0..n).map(|i| format!("%r{}", 10 + i)).collect();
            let list = regs.join(", ");
            let t = if trans { ".trans" } else { "" };
            // Loaded transposed and stored transposed is where it was; so is plain and plain.
            let body = format!(
                "ldmatrix.sync.aligned.m8n8.{x}{t}.shared.b16 {{{list}}}, [%r2]; \
                 .shared .align 16 .b8 o[{bytes}]; mov.u32 %r41, o; sub.u32 %r3, %r2, %r40; \
                 add.u32 %r3, %r3, %r41; stmatrix.sync.aligned.m8n8.{x}{t}.shared.b16 [%r3], {{{list}}}; \
                 bar.warp.sync -1; shr.u32 %r4, %tid, 3; setp.ge.u32 %p2, %r4, {n}; @%p2 exit; \
                 ld.shared.v4.u32 {{%r20, %r21, %r22, %r23}}, [%r3]; mul.wide.u32 %rd2, %tid, 16; \
                 add.u64 %rd2, %rd2, %out; st.global.v4.u32 [%rd2], {{%r20, %r21, %r22, %r23}};",
                bytes = 32 * pitch
            );
            let got = run(&staged(pitch, &body), warp(&input(pitch)));
            for lane in 0..8 * n {
                for c in 0..8 {
                    let word = got[4 * lane + c / 2] >> (16 * (c % 2)) & 0xffff;
                    assert_eq!(
                        word,
                        element(lane / 8, lane % 8, c),
                        "{x}{t} row {lane} column {c}"
                    );
                }
            }
        }
    }
}

#[test]
fn movmatrix_transposes() {
    let body = "shl.b32 %r1, %tid, 1; add.u32 %r2, %r1, 1; shl.b32 %r2, %r2, 16; or.b32 %r1, %r1, %r2; \
                movmatrix.sync.aligned.m8n8.trans.b16 %r3, %r1; st.global.u32 [%my], %r3;";
    let got = run(body, warp(&[0]));
    for lane in 0..32u32 {
        let (row, first) = (lane / 4, lane % 4 * 2);
        // Element (r, c) was 8·r + c.
        let want = (8 * first + row) | (8 * (first + 1) + row) << 16;
        assert_eq!(got[lane as usize], want);
    }
}

#[test]
fn matrix_moves_are_checked() {
    let base = "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r10}, [%r2];";
    let input = input(16);
    run(&staged(16, base), warp(&input));
    breaks(Rule::Misaligned, &staged(16, &base.replace("[%r2]", "[%r2+8]")), warp(&input));
    breaks(Rule::OutOfBounds, &staged(16, &base.replace("[%r2]", "[%r2+512]")), warp(&input));
    let unwritten = ".shared .align 16 .b8 u[128]; mov.u32 %r1, u; shl.b32 %r2, %tid, 4; \
                     and.b32 %r2, %r2, 127; add.u32 %r2, %r2, %r1; ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r10}, [%r2];";
    breaks(Rule::Uninitialised, unwritten, warp(&input));
    // Only the lanes whose rows are taken need an address.
    let few = "setp.lt.u32 %p2, %tid, 8; @%p2 mov.u32 %r30, %r2; ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r10}, [%r30];";
    run(&staged(16, few), warp(&input));
    for wrong in [
        "ldmatrix.sync.aligned.m8n8.x3.shared.b16 {%r1, %r2, %r3}, [%r4];",
        "ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%r1}, [%r4];",
        "ldmatrix.aligned.m8n8.x1.shared.b16 {%r1}, [%r4];",
        "ldmatrix.sync.aligned.m8n8.x1.shared.b32 {%r1}, [%r4];",
        "stmatrix.sync.aligned.m8n8.x2.shared.b16 [%r4], {%r1};",
        "movmatrix.sync.aligned.m8n8.b16 %r1, %r2;",
    ] {
        assert!(Module::parse(&program(wrong)).is_err(), "{wrong}");
    }
}

/// An operand type: name, elements in a register, and its numbers.
#[derive(Clone, Copy)]
enum Kind {
    Float(Fmt),
    /// Bits 13 to 31 of an f32.
    Tf32,
    Int(bool),
}

impl Kind {
    fn per_register(self) -> usize {
        match self {
            Kind::Float(f) => 32 / (1 + f.exponent + f.fraction) as usize,
            Kind::Tf32 => 1,
            Kind::Int(_) => 4,
        }
    }

    /// A small number that the type holds exactly, and its bits.
    fn pick(self, r: u64) -> (f64, u32) {
        let small = (r % 17) as f64 - 8.0;
        match self {
            Kind::Float(f) => (small / 4.0, round_f64(f, Mode::Rn, small / 4.0)),
            Kind::Tf32 => (small / 4.0, round_f64(F32, Mode::Rn, small / 4.0)),
            Kind::Int(signed) => {
                let v = (r >> 8) as u8;
                (if signed { f64::from(v as i8) } else { f64::from(v) }, v.into())
            }
        }
    }
}

/// Row and column of A's `i`-th element in a lane (figures of the fragment layouts).
fn a_at(k: usize, per: usize, lane: usize, i: usize) -> (usize, usize) {
    let (group, tid) = (lane / 4, lane % 4);
    // Registers go: rows 0–7, rows 8–15, then the same in the second half of K.
    let (register, slot) = (i / per, i % per);
    let row = group + 8 * (register % 2);
    let half = k.min(4 * per * 2) / 2;
    let col = if register / 2 == 0 { tid * per + slot } else { tid * per + slot + half };
    (row, col)
}

/// Row (of K) and column of B's `i`-th element in a lane.
fn b_at(k: usize, per: usize, lane: usize, i: usize) -> (usize, usize) {
    let (group, tid) = (lane / 4, lane % 4);
    (tid * per + i % per + i / per * (k / 2).max(4 * per).min(4 * per), group)
}

/// Row and column of C's and D's `i`-th element in a lane.
fn c_at(lane: usize, i: usize) -> (usize, usize) {
    (lane / 4 + 8 * (i / 2), lane % 4 * 2 + i % 2)
}

struct Form {
    k: usize,
    a: (&'static str, Kind),
    b: (&'static str, Kind),
    d: &'static str,
}

const F: fn(Fmt) -> Kind = Kind::Float;

fn forms() -> Vec<Form> {
    let mut list = Vec::new();
    for k in [8, 16] {
        for d in ["f16", "f32"] {
            list.push(Form { k, a: ("f16", F(F16)), b: ("f16", F(F16)), d });
        }
        list.push(Form { k, a: ("bf16", F(BF16)), b: ("bf16", F(BF16)), d: "f32" });
    }
    for k in [4, 8] {
        list.push(Form { k, a: ("tf32", Kind::Tf32), b: ("tf32", Kind::Tf32), d: "f32" });
    }
    for k in [16, 32] {
        for a in [("s8", true), ("u8", false)] {
            for b in [("s8", true), ("u8", false)] {
                list.push(Form { k, a: (a.0, Kind::Int(a.1)), b: (b.0, Kind::Int(b.1)), d: "s32" });
            }
        }
    }
    for a in [("e4m3", E4M3), ("e5m2", E5M2)] {
        for b in [("e4m3", E4M3), ("e5m2", E5M2)] {
            list.push(Form { k: 32, a: (a.0, F(a.1)), b: (b.0, F(b.1)), d: "f32" });
        }
    }
    list
}

/// One warp's operands: matrices as numbers, and the registers of each lane.
struct Operands {
    a: Vec<f64>,
    b: Vec<f64>,
    c: Vec<f64>,
    words: Vec<Vec<u32>>,
    counts: [usize; 3],
}

fn operands(f: &Form, seed: u64) -> Operands {
    let random = numbers(seed, 2048);
    let (a_per, b_per) = (f.a.1.per_register(), f.b.1.per_register());
    let counts = [16 * f.k / 32 / a_per, f.k * 8 / 32 / b_per, if f.d == "f16" { 2 } else { 4 }];
    let mut o = Operands {
        a: vec![0.0; 16 * f.k],
        b: vec![0.0; 8 * f.k],
        c: vec![0.0; 128],
        words: vec![Vec::new(); 32],
        counts,
    };
    let (mut a_bits, mut b_bits) = (vec![0; 16 * f.k], vec![0; 8 * f.k]);
    for i in 0..16 * f.k {
        (o.a[i], a_bits[i]) = f.a.1.pick(random[i]);
    }
    for i in 0..8 * f.k {
        (o.b[i], b_bits[i]) = f.b.1.pick(random[700 + i]);
    }
    for i in 0..128 {
        o.c[i] = (random[1500 + i] % 33) as f64 - 16.0;
    }
    for lane in 0..32 {
        let mut regs = vec![0u32; counts.iter().sum()];
        for i in 0..counts[0] * a_per {
            let (r, c) = a_at(f.k, a_per, lane, i);
            regs[i / a_per] |= a_bits[r * f.k + c] << (32 / a_per * (i % a_per));
        }
        for i in 0..counts[1] * b_per {
            let (r, c) = b_at(f.k, b_per, lane, i);
            regs[counts[0] + i / b_per] |= b_bits[c * f.k + r] << (32 / b_per * (i % b_per));
        }
        for i in 0..4 {
            let (r, c) = c_at(lane, i);
            let v = o.c[8 * r + c];
            let at = counts[0] + counts[1];
            match f.d {
                "f16" => regs[at + i / 2] |= round_f64(F16, Mode::Rn, v) << (16 * (i % 2)),
                "f32" => regs[at + i] = (v as f32).to_bits(),
                _ => regs[at + i] = v as i32 as u32,
            }
        }
        o.words[lane] = regs;
    }
    o
}

fn mma_body(f: &Form, o: &Operands, suffix: &str) -> String {
    let total: usize = o.counts.iter().sum();
    let names = |from: usize, n: usize| {
        (from..from + n).map(|i| format!("%q{i}")).collect::<Vec<_>>().join(", ")
    };
    let loads: String =
        (0..total).map(|i| format!("ld.global.b32 %q{i}, [%rd1+{}];", 4 * i)).collect();
    let d = o.counts[2];
    let stores: String =
        (0..d).map(|i| format!("st.global.b32 [%rd2+{}], %q{};", 4 * i, 20 + i)).collect();
    let class = if f.d == "f32" { "f32" } else { "b32" };
    let class = if class == "f32" { "b32" } else { class };
    format!(
        ".reg .{class} %q<32>; mul.wide.u32 %rd1, %tid, {}; add.u64 %rd1, %rd1, %in; {loads} \
         mma.sync.aligned.m16n8k{}.row.col{suffix}.{}.{}.{}.{} {{{}}}, {{{}}}, {{{}}}, {{{}}}; \
         mul.wide.u32 %rd2, %tid, 16; add.u64 %rd2, %rd2, %out; {stores}",
        4 * total,
        f.k,
        f.d,
        f.a.0,
        f.b.0,
        f.d,
        names(20, d),
        names(0, o.counts[0]),
        names(o.counts[0], o.counts[1]),
        names(o.counts[0] + o.counts[1], d),
    )
}

/// Every number is small enough that the sums are exact, so the products must be too.
#[test]
fn every_form_against_f64_element_by_element() {
    for f in forms() {
        for seed in 1..4 {
            let o = operands(&f, seed);
            let input: Vec<u32> = o.words.concat();
            let got = run(&mma_body(&f, &o, ""), warp(&input));
            for lane in 0..32 {
                for i in 0..4 {
                    let (r, c) = c_at(lane, i);
                    let sum: f64 =
                        (0..f.k).map(|k| o.a[r * f.k + k] * o.b[c * f.k + k]).sum::<f64>();
                    let want = sum + o.c[8 * r + c];
                    let value = match f.d {
                        "f16" => F16.decode(got[4 * lane + i / 2] >> (16 * (i % 2)) & 0xffff),
                        "f32" => f32::from_bits(got[4 * lane + i]).into(),
                        _ => f64::from(got[4 * lane + i] as i32),
                    };
                    assert_eq!(value, want, "k{} {} {} {} ({r},{c})", f.k, f.a.0, f.b.0, f.d);
                }
            }
        }
    }
}

#[test]
fn integer_products_wrap_or_saturate() {
    let f = Form { k: 32, a: ("u8", Kind::Int(false)), b: ("u8", Kind::Int(false)), d: "s32" };
    let mut o = operands(&f, 1);
    let at = o.counts[0] + o.counts[1];
    for regs in &mut o.words {
        regs[..at].fill(0xffff_ffff);
        regs[at..].copy_from_slice(&[i32::MAX as u32, i32::MAX as u32 - 5, 0, i32::MIN as u32]);
    }
    let input = o.words.concat();
    let sum = 32 * 255 * 255i64;
    let old = [i64::from(i32::MAX), i64::from(i32::MAX) - 5, 0, i64::from(i32::MIN)];
    let plain = run(&mma_body(&f, &o, ""), warp(&input));
    let saturated = run(&mma_body(&f, &o, ".satfinite"), warp(&input));
    for i in 0..4 {
        assert_eq!(plain[i], (old[i] + sum) as u32);
        assert_eq!(saturated[i] as i32, (old[i] + sum).min(i32::MAX.into()) as i32);
    }
}

/// Infinities and NaN go through a product as IEEE arithmetic has it.
#[test]
fn special_values_in_products() {
    let f = Form { k: 16, a: ("bf16", F(BF16)), b: ("bf16", F(BF16)), d: "f32" };
    let o = operands(&f, 1);
    let go = |a: u32, b: u32, c: u32| {
        let mut words = o.words.clone();
        for regs in &mut words {
            regs.fill(0);
            // Element (row, 0) of A and (0, column) of B, where lane mod 4 is 0.
        }
        for lane in (0..32).step_by(4) {
            words[lane][0] = a;
            words[lane][o.counts[0]] = b;
        }
        words.iter_mut().for_each(|r| r[o.counts[0] + o.counts[1]] = c);
        run(&mma_body(&f, &o, ""), warp(&words.concat()))[0]
    };
    let (one, inf, nan) = (0x3f80, 0x7f80, 0x7fc0);
    assert_eq!(go(one, inf, 0), 0x7f80_0000);
    assert_eq!(go(inf, 0, 0), 0x7fff_ffff);
    assert_eq!(go(nan, one, 0), 0x7fff_ffff);
    assert_eq!(go(inf, one, 0xff80_0000), 0x7fff_ffff);
    assert_eq!(go(one, one, 0x7f80_0000), 0x7f80_0000);
}

#[test]
fn forms_that_do_not_exist() {
    let regs = "{%r1, %r2, %r3, %r4}, {%r5, %r6, %r7, %r8}, {%r9, %r10}, {%r11, %r12, %r13, %r14}";
    for form in [
        "m16n8k16.row.row.f32.bf16.bf16.f32",
        "m16n8k16.col.col.f32.bf16.bf16.f32",
        "m16n8k16.row.col.f16.bf16.bf16.f16",
        "m16n8k16.row.col.f32.bf16.f16.f32",
        "m16n8k32.row.col.f32.bf16.bf16.f32",
        "m8n8k16.row.col.f32.bf16.bf16.f32",
        "m16n8k16.row.col.f32.s8.s8.f32",
        "m16n8k16.row.col.s32.bf16.bf16.s32",
        "m16n8k16.row.col.f32.bf16.f32",
        "m16n8k16.row.col.relu.f32.bf16.bf16.f32",
    ] {
        let code = format!("mma.sync.aligned.{form} {regs};");
        assert!(Module::parse(&program(&code)).is_err(), "{form}");
    }
    let good = format!("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {regs};");
    assert!(Module::parse(&program(&good)).is_ok());
    let few = good.replace("{%r9, %r10}", "{%r9}");
    assert!(Module::parse(&program(&few)).is_err());
    let lonely = "setp.lt.u32 %p1, %tid, 16; @%p1 bra A; bar.sync 0; bra B; \
                  A: mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%r1, %r2, %r3, %r4}, \
                  {%r5, %r6, %r7, %r8}, {%r9, %r10}, {%r11, %r12, %r13, %r14}; B: mov.u32 %r1, 0;";
    breaks(Rule::Deadlock, lonely, warp(&[0]));
}
