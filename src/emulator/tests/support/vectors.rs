//! Runs one instruction on many inputs at once, one case a lane, and holds each result against
//! what the caller worked out.

use super::{Setup, program, run_text};

/// Values that integer instructions treat specially, and a few that they do not.
pub const EDGES32: &[u32] = &[
    0,
    1,
    2,
    3,
    7,
    8,
    31,
    32,
    33,
    63,
    64,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x7fff,
    0x8000,
    0xffff,
    0x1_0000,
    0x00ff_ff00,
    0x7fff_fffe,
    0x7fff_ffff,
    0x8000_0000,
    0x8000_0001,
    0xaaaa_5555,
    0xdead_beef,
    0xffff_0000,
    0xffff_ff80,
    0xffff_fffe,
    0xffff_ffff,
];

pub const EDGES64: &[u64] = &[
    0,
    1,
    2,
    31,
    32,
    63,
    64,
    0xff,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0x1234_5678_9abc_def0,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    0x8000_0000_0000_0001,
    0xffff_ffff_0000_0000,
    0xffff_ffff_ffff_fffe,
    0xffff_ffff_ffff_ffff,
];

/// f32 numbers near every border: zeros, subnormals, the ends of the range, ties, NaNs.
pub const EDGES_F32: &[u32] = &[
    0x0000_0000,
    0x8000_0000,
    0x0000_0001,
    0x8000_0001,
    0x007f_ffff,
    0x807f_ffff,
    0x0080_0000,
    0x8080_0000,
    0x0080_0001,
    0x3380_0000,
    0x3f00_0000,
    0x3f7f_ffff,
    0x3f80_0000,
    0xbf80_0000,
    0x3f80_0001,
    0x3fc0_0000,
    0x4000_0000,
    0x4040_0000,
    0xc040_0000,
    0x40a0_0000,
    0x4b7f_ffff,
    0x4b80_0000,
    0x5f00_0000,
    0x7f7f_ffff,
    0xff7f_ffff,
    0x7f80_0000,
    0xff80_0000,
    0x7fc0_0000,
    0xffc1_2345,
    0x7f80_0001,
];

/// Every pair of a list.
pub fn pairs<T: Copy>(list: &[T]) -> Vec<[T; 2]> {
    list.iter().flat_map(|a| list.iter().map(move |b| [*a, *b])).collect()
}

/// Every triple of a list.
pub fn triples<T: Copy>(list: &[T]) -> Vec<[T; 3]> {
    pairs(list).into_iter().flat_map(|[a, b]| list.iter().map(move |c| [a, b, *c])).collect()
}

/// A repeatable stream of 64-bit numbers (SplitMix64).
pub fn numbers(seed: u64, n: usize) -> Vec<u64> {
    let mut state = seed;
    let next = |_| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    (0..n).map(next).collect()
}

/// Random f32 pairs whose exponents are close enough to interact.
pub fn close_floats(seed: u64, n: usize) -> Vec<[u32; 3]> {
    let float = |r: u64| {
        let exponent = 120 + (r >> 40) as u32 % 16;
        (r as u32 & 0x807f_ffff) | exponent << 23
    };
    numbers(seed, 3 * n).chunks(3).map(|c| [float(c[0]), float(c[1]), float(c[2])]).collect()
}

fn launch(body: &str, input: &[u32], cases: usize, words: usize) -> Vec<u32> {
    let setup = Setup { threads: 1024, words: words.max(1), input, ..Setup::default() };
    let blocks = (cases as u32).div_ceil(1024);
    match run_text(&program(body), Setup { blocks, ..setup }) {
        Ok(ran) => ran.words,
        Err(fault) => panic!("{fault}\n{body}"),
    }
}

/// The thread's number over the grid in %r60; threads beyond the cases leave.
fn numbered(cases: usize) -> String {
    format!(
        "mov.u32 %r60, %ctaid.x; mad.lo.u32 %r60, %r60, 1024, %tid; \
         setp.ge.u32 %p31, %r60, {cases}; @%p31 exit;\n"
    )
}

/// Results of `code`, which computes `%r0` from `%r1`, `%r2`, `%r3` (also as `%f1` … `%f3` and as
/// `%h1` … `%h3`); `%f0` may be written instead through `mov.b32 %r0, %f0`.
pub fn eval32(code: &str, cases: &[[u32; 3]]) -> Vec<u32> {
    let input: Vec<u32> = cases.iter().flatten().copied().collect();
    let body = format!(
        "{}mad.wide.u32 %rd1, %r60, 12, %in; ld.global.u32 %r1, [%rd1]; \
         ld.global.u32 %r2, [%rd1+4]; ld.global.u32 %r3, [%rd1+8]; mov.b32 %f1, %r1; \
         mov.b32 %f2, %r2; mov.b32 %f3, %r3; cvt.u16.u32 %h1, %r1; cvt.u16.u32 %h2, %r2; \
         cvt.u16.u32 %h3, %r3;\n{code}\nmad.wide.u32 %rd1, %r60, 4, %out; st.global.u32 [%rd1], %r0;",
        numbered(cases.len())
    );
    launch(&body, &input, cases.len(), cases.len())
}

/// As [`eval32`] in 64 bits: `%rd0` from `%rd1`, `%rd2`, `%rd3` (also as `%fd1` …).
pub fn eval64(code: &str, cases: &[[u64; 3]]) -> Vec<u64> {
    let input: Vec<u32> =
        cases.iter().flatten().flat_map(|v| [*v as u32, (*v >> 32) as u32]).collect();
    let body = format!(
        "{}mad.wide.u32 %rd9, %r60, 24, %in; ld.global.u64 %rd1, [%rd9]; \
         ld.global.u64 %rd2, [%rd9+8]; ld.global.u64 %rd3, [%rd9+16]; mov.b64 %fd1, %rd1; \
         mov.b64 %fd2, %rd2; mov.b64 %fd3, %rd3; cvt.u32.u64 %r1, %rd1; cvt.u32.u64 %r2, %rd2; \
         cvt.u32.u64 %r3, %rd3;\n{code}\nmad.wide.u32 %rd9, %r60, 8, %out; \
         st.global.u64 [%rd9], %rd0;",
        numbered(cases.len())
    );
    let words = launch(&body, &input, cases.len(), 2 * cases.len());
    words.chunks(2).map(|c| u64::from(c[0]) | u64::from(c[1]) << 32).collect()
}

/// Holds every result of [`eval32`] against `want`.
#[track_caller]
pub fn check32(code: &str, cases: &[[u32; 3]], want: impl Fn(u32, u32, u32) -> u32) {
    for (got, [a, b, c]) in eval32(code, cases).into_iter().zip(cases) {
        let want = want(*a, *b, *c);
        assert_eq!(got, want, "{code} of {a:#x} {b:#x} {c:#x}: {got:#x}, not {want:#x}");
    }
}

/// Holds every result of [`eval64`] against `want`.
#[track_caller]
pub fn check64(code: &str, cases: &[[u64; 3]], want: impl Fn(u64, u64, u64) -> u64) {
    for (got, [a, b, c]) in eval64(code, cases).into_iter().zip(cases) {
        let want = want(*a, *b, *c);
        assert_eq!(got, want, "{code} of {a:#x} {b:#x} {c:#x}: {got:#x}, not {want:#x}");
    }
}

/// A table of cases with their results, as the ISA's text gives them.
#[track_caller]
pub fn table32(code: &str, rows: &[([u32; 3], u32)]) {
    let cases: Vec<[u32; 3]> = rows.iter().map(|r| r.0).collect();
    for (got, (given, want)) in eval32(code, &cases).into_iter().zip(rows) {
        assert_eq!(got, *want, "{code} of {given:#x?}: {got:#x}, not {want:#x}");
    }
}

pub fn pairs32(list: &[u32]) -> Vec<[u32; 3]> {
    pairs(list).into_iter().map(|[a, b]| [a, b, 0]).collect()
}

pub fn pairs64(list: &[u64]) -> Vec<[u64; 3]> {
    pairs(list).into_iter().map(|[a, b]| [a, b, 0]).collect()
}

pub fn ones32(list: &[u32]) -> Vec<[u32; 3]> {
    list.iter().map(|a| [*a, 0, 0]).collect()
}

pub fn ones64(list: &[u64]) -> Vec<[u64; 3]> {
    list.iter().map(|a| [*a, 0, 0]).collect()
}
