//! Loads and stores: types, vectors, spaces, addresses, cache operators, and what is refused.

mod support;

use pacer_emulator::{Module, Rule};
use support::{Setup, breaks, program, run, run_text};

fn one() -> Setup<'static> {
    Setup { threads: 1, ..Setup::default() }
}

fn warp() -> Setup<'static> {
    Setup::default()
}

/// A load extends to the register by its type; a store cuts.
#[test]
fn every_type_extends_as_it_says() {
    let input = [0x8899_aabbu32, 0xccdd_eeff];
    let setup = Setup { input: &input, ..one() };
    let cases: [(&str, &str, u32); 9] = [
        ("u8", "%r1", 0xbb),
        ("s8", "%r1", 0xffff_ffbb),
        ("b8", "%r1", 0xbb),
        ("u16", "%r1", 0xaabb),
        ("s16", "%r1", 0xffff_aabb),
        ("b16", "%r1", 0xaabb),
        ("u32", "%r1", 0x8899_aabb),
        ("s32", "%r1", 0x8899_aabb),
        ("b32", "%r1", 0x8899_aabb),
    ];
    for (ty, reg, want) in cases {
        let body = format!("ld.global.{ty} {reg}, [%in]; st.global.u32 [%out], {reg};");
        assert_eq!(run(&body, setup)[0], want, "{ty}");
    }
    for (ty, high) in
        [("u8", 0), ("s8", u32::MAX), ("u32", 0), ("s32", u32::MAX), ("u64", 0xccdd_eeff)]
    {
        let body = format!("ld.global.{ty} %rd1, [%in]; st.global.u64 [%out], %rd1;");
        assert_eq!(run(&body, setup)[1], high, "{ty} in 64 bits");
    }
    let body = "mov.u32 %r1, 0x12345678; st.global.u8 [%out+1], %r1; st.global.u16 [%out+6], %r1;";
    assert_eq!(run(body, setup)[..2], [0x7800, 0x5678_0000]);
    let body = "ld.global.f32 %f1, [%in]; st.global.f32 [%out], %f1; ld.global.f64 %fd1, [%in]; \
                st.global.f64 [%out+8], %fd1;";
    assert_eq!(run(body, setup)[..4], [0x8899_aabb, 0, 0x8899_aabb, 0xccdd_eeff]);
}

#[test]
fn vectors_of_every_shape() {
    let input: Vec<u32> = (1..=16).collect();
    let setup = Setup { input: &input, ..one() };
    let body = "ld.global.v4.u32 {%r1, %r2, %r3, %r4}, [%in+16]; \
                st.global.v4.u32 [%out], {%r4, %r3, %r2, %r1};";
    assert_eq!(run(body, setup)[..4], [8, 7, 6, 5]);
    let body = "ld.global.v2.u64 {%rd1, %rd2}, [%in]; st.global.v2.u64 [%out], {%rd2, %rd1};";
    assert_eq!(run(body, setup)[..4], [3, 4, 1, 2]);
    let body = "ld.global.v2.b32 {%r1, %r2}, [%in+8]; st.global.v2.b32 [%out+8], {%r1, %r2};";
    assert_eq!(run(body, setup)[..4], [0, 0, 3, 4]);
    let body = "ld.global.v4.u16 {%h1, %h2, %h3, %h4}, [%in]; \
                st.global.v4.u16 [%out], {%h3, %h1, %h3, %h1};";
    assert_eq!(run(body, setup)[..2], [0x0001_0002, 0x0001_0002]);
    let body = "ld.global.v4.u8 {%r1, %r2, %r3, %r4}, [%in+4]; st.global.u32 [%out], %r1;";
    assert_eq!(run(body, setup)[0], 2);
    let body = "ld.global.v2.f32 {%f1, %f2}, [%in]; st.global.v2.f32 [%out], {%f2, %f1};";
    assert_eq!(run(body, setup)[..2], [2, 1]);
    // An element that nobody wants.
    let body = "ld.global.v2.u32 {_, %r2}, [%in]; st.global.u32 [%out], %r2;";
    assert_eq!(run(body, setup)[0], 2);
}

/// Cache operators, eviction priorities and prefetch sizes change nothing that a program sees.
#[test]
fn cache_operators_are_hints() {
    let input = [7u32; 8];
    let setup = Setup { input: &input, ..one() };
    for op in [
        "ca",
        "cg",
        "cs",
        "lu",
        "cv",
        "nc",
        "ca.nc",
        "L1::no_allocate",
        "nc.L1::no_allocate",
        "L1::evict_last",
        "L2::128B",
        "nc.L1::no_allocate.L2::256B",
        "L1::evict_first.L2::64B",
    ] {
        let op = if op == "ca.nc" { "nc" } else { op };
        let body = format!("ld.global.{op}.u32 %r1, [%in]; st.global.u32 [%out], %r1;");
        assert_eq!(run(&body, setup)[0], 7, "{op}");
    }
    for op in ["wb", "cg", "cs", "wt", "L1::no_allocate"] {
        let body = format!("st.global.{op}.u32 [%out], 7;");
        assert_eq!(run(&body, setup)[0], 7, "{op}");
    }
    for order in [
        "weak",
        "volatile",
        "relaxed.cta",
        "relaxed.gpu",
        "relaxed.sys",
        "acquire.gpu",
        "acquire.cta",
    ] {
        let body = format!("ld.{order}.global.u32 %r1, [%in]; st.global.u32 [%out], %r1;");
        assert_eq!(run(&body, setup)[0], 7, "{order}");
    }
    for order in ["weak", "volatile", "relaxed.gpu", "release.gpu", "release.cta", "release.sys"] {
        assert_eq!(run(&format!("st.{order}.global.u32 [%out], 7;"), setup)[0], 7, "{order}");
    }
    let body = "createpolicy.fractional.L2::evict_last.b64 %rd1, 1.0; \
                ld.global.L2::cache_hint.u32 %r1, [%in], %rd1; \
                st.global.L2::cache_hint.u32 [%out], %r1, %rd1; prefetch.global.L2 [%in]; \
                prefetch.global.L1 [%in]; prefetchu.L1 [%in];";
    assert_eq!(run(body, setup)[0], 7);
}

#[test]
fn addresses_of_every_form() {
    let input = [1u32, 2, 3, 4];
    let setup = Setup { input: &input, ..one() };
    assert_eq!(run("ld.global.u32 %r1, [%in+8]; st.global.u32 [%out], %r1;", setup)[0], 3);
    let back = "add.u64 %rd1, %in, 12; ld.global.u32 %r1, [%rd1+-4]; st.global.u32 [%out], %r1;";
    assert_eq!(run(back, setup)[0], 3);
    let generic = "cvta.global.u64 %rd1, %in; ld.u32 %r1, [%rd1+4]; cvta.to.global.u64 %rd2, %rd1; \
                   ld.global.u32 %r2, [%rd2]; add.u32 %r1, %r1, %r2; st.u32 [%out], %r1;";
    assert_eq!(run(generic, setup)[0], 3);
}

#[test]
fn shared_memory_by_name_register_and_generic_address() {
    let body = ".shared .align 16 .b8 s[64]; st.shared.u32 [s+4], 5; mov.u32 %r1, s; \
                ld.shared.u32 %r2, [%r1+4]; cvt.u64.u32 %rd1, %r1; cvta.shared.u64 %rd1, %rd1; \
                ld.u32 %r3, [%rd1+4]; st.u32 [%rd1+8], 7; ld.shared.u32 %r4, [s+8]; \
                cvta.to.shared.u64 %rd2, %rd1; cvt.u32.u64 %r5, %rd2; ld.shared.u32 %r6, [%r5+8]; \
                add.u32 %r2, %r2, %r3; add.u32 %r2, %r2, %r4; add.u32 %r2, %r2, %r6; \
                st.global.u32 [%out], %r2;";
    assert_eq!(run(body, one())[0], 5 + 5 + 7 + 7);
}

#[test]
fn spaces_know_their_addresses() {
    let body = ".shared .b32 s; .local .b32 l; cvta.shared.u64 %rd1, s; cvta.local.u64 %rd2, l; \
                mov.u32 %r1, 0; SPACES st.global.u32 [%out], %r1;";
    let mut spaces = String::new();
    for (bit, (space, reg)) in [
        ("shared", "%rd1"),
        ("global", "%rd1"),
        ("local", "%rd1"),
        ("shared", "%rd2"),
        ("local", "%rd2"),
        ("global", "%out"),
        ("shared", "%out"),
        ("const", "%rd1"),
    ]
    .iter()
    .enumerate()
    {
        spaces += &format!(
            "isspacep.{space} %p1, {reg}; selp.u32 %r2, {}, 0, %p1; or.b32 %r1, %r1, %r2;",
            1 << bit
        );
    }
    let got = run(
        &body
            .replace("SPACES", &spaces)
            .replace("isspacep.const %p1, %rd1", "isspacep.global %p1, %rd1"),
        one(),
    );
    assert_eq!(got[0], 1 | 1 << 4 | 1 << 5);
}

#[test]
fn local_memory_is_each_threads_own() {
    let body = ".local .align 8 .b8 l[32]; st.local.u32 [l+8], %tid; st.local.v2.u32 [l+16], {%tid, %tid}; \
                mov.u64 %rd1, l; ld.local.u32 %r1, [%rd1+8]; ld.local.u32 %r2, [l+20]; \
                cvta.local.u64 %rd2, %rd1; ld.u32 %r3, [%rd2+16]; add.u32 %r1, %r1, %r2; \
                add.u32 %r1, %r1, %r3; st.global.u32 [%my], %r1;";
    let got = run(body, Setup { threads: 64, ..warp() });
    assert!((0..64).all(|i| got[i] == 3 * i as u32));
}

/// Parameters: by name with an offset, and as tables in constant and global memory.
#[test]
fn module_variables_and_parameters() {
    let text = ".version 9.0\n.target sm_90a\n.address_size 64\n\
        .visible .entry k(.param .u64 out, .param .align 8 .b8 pair[16])\n{\n.reg .b32 %r<4>; \
        .reg .b64 %rd<4>;\nld.param.u64 %rd1, [out]; ld.param.u64 %rd2, [pair]; \
        ld.param.u32 %r1, [pair+8]; ld.param.v2.u32 {%r2, %r3}, [pair+8]; add.u32 %r1, %r1, %r3; \
        st.global.u32 [%rd1], %r1;\n}\n";
    let module = Module::parse(text).unwrap();
    let kernel = module.kernel("k").unwrap();
    let offsets: Vec<_> = kernel.params.iter().map(|p| (p.offset, p.size, p.align)).collect();
    assert_eq!(offsets, [(0, 8, 8), (8, 16, 8)]);
    assert_eq!(kernel.param_bytes, 24);
}

#[test]
fn special_registers_of_position() {
    let body = "mov.u32 %r1, %ctaid.x; mov.u32 %r2, %nctaid.x; mov.u32 %r3, %ntid.x; \
                mad.lo.u32 %r4, %r1, %r3, %tid; mul.wide.u32 %rd1, %r4, 4; add.u64 %rd1, %rd1, %out; \
                mad.lo.u32 %r5, %r2, 1000, %r3; add.u32 %r5, %r5, %r4; st.global.u32 [%rd1], %r5;";
    let got = run(body, Setup { threads: 48, blocks: 3, ..warp() });
    assert!((0..144).all(|i| got[i] == 3048 + i as u32));
}

/// Each refusal beside the nearest access that is allowed.
#[test]
fn bounds() {
    let last = "st.global.u32 [%out+4092], 1;";
    run(last, one());
    breaks(Rule::OutOfBounds, "st.global.u32 [%out+4096], 1;", one());
    breaks(Rule::OutOfBounds, "ld.global.u32 %r1, [%out+-4];", one());
    breaks(Rule::OutOfBounds, "mov.u64 %rd1, 16; st.u32 [%rd1], 1;", one());
    let lane = "mul.wide.u32 %rd1, %tid, STEP; add.u64 %rd1, %rd1, %out; st.global.u32 [%rd1], 1;";
    run(&lane.replace("STEP", "132"), warp());
    breaks(Rule::OutOfBounds, &lane.replace("STEP", "136"), warp());
    let shared =
        ".shared .align 16 .b8 s[32]; mov.u32 %r1, s; st.shared.v4.u32 [%r1+AT], {0, 0, 0, 0};";
    run(&shared.replace("AT", "16"), one());
    breaks(Rule::OutOfBounds, &shared.replace("AT", "32"), one());
    breaks(Rule::OutOfBounds, "mov.u32 %r1, 0; st.shared.u32 [%r1], 1;", one());
    let local = ".local .align 4 .b8 l[8]; st.local.u32 [l+AT], 1;";
    run(&local.replace("AT", "4"), one());
    breaks(Rule::OutOfBounds, &local.replace("AT", "8"), one());
    let atomic = "atom.global.add.u32 %r1, [%out+AT], 1;";
    run(&atomic.replace("AT", "4092"), one());
    breaks(Rule::OutOfBounds, &atomic.replace("AT", "4096"), one());
}

/// An access is aligned to its whole size, vectors included.
#[test]
fn alignment() {
    for (ty, size) in [("u16", 2), ("u32", 4), ("u64", 8), ("f64", 8)] {
        let reg = if size == 8 { "%rd1" } else { "%r1" };
        let reg = if ty == "f64" { "%fd1" } else { reg };
        let code = |at: u32| format!("ld.global.{ty} {reg}, [%out+{at}];");
        run(&code(size), one());
        breaks(Rule::Misaligned, &code(size / 2), one());
        breaks(Rule::Misaligned, &code(size + 1), one());
    }
    for (vector, regs, size) in [
        ("v2.u32", "{%r1, %r2}", 8),
        ("v4.u32", "{%r1, %r2, %r3, %r4}", 16),
        ("v2.u64", "{%rd1, %rd2}", 16),
        ("v4.u16", "{%h1, %h2, %h3, %h4}", 8),
    ] {
        run(&format!("ld.global.{vector} {regs}, [%out+{size}];"), one());
        breaks(
            Rule::Misaligned,
            &format!("ld.global.{vector} {regs}, [%out+{}];", size / 2),
            one(),
        );
    }
    let shared = ".shared .align 16 .b8 s[32]; st.shared.u64 [s+AT], 1;";
    run(&shared.replace("AT", "8"), one());
    breaks(Rule::Misaligned, &shared.replace("AT", "4"), one());
    breaks(Rule::Misaligned, "atom.global.add.u64 %rd1, [%out+4], 1;", one());
    run("atom.global.add.u64 %rd1, [%out+8], 1;", one());
}

/// Memory and registers must have been written, each byte of them.
#[test]
fn uninitialised_reads() {
    let shared = ".shared .align 8 .b8 s[8]; st.shared.u16 [s], 1; WRITE ld.shared.u32 %r1, [s];";
    breaks(Rule::Uninitialised, &shared.replace("WRITE", ""), one());
    run(&shared.replace("WRITE", "st.shared.u16 [s+2], 1;"), one());
    let local =
        ".local .align 8 .b8 l[8]; st.local.u32 [l], 1; WRITE ld.local.v2.u32 {%r1, %r2}, [l];";
    breaks(Rule::Uninitialised, &local.replace("WRITE", ""), one());
    run(&local.replace("WRITE", "st.local.u32 [l+4], 1;"), one());
    breaks(Rule::Uninitialised, "add.u32 %r1, %r2, 1;", one());
    breaks(Rule::Uninitialised, "st.global.u32 [%out], %r2;", one());
    breaks(Rule::Uninitialised, "ld.global.u32 %r1, [%rd2];", one());
    breaks(Rule::Uninitialised, "@%p1 mov.u32 %r1, 1;", one());
    // A copy alone is no use of the value; only lanes that use it matter.
    run("mov.u32 %r1, %r2; mov.b64 %rd1, %rd2;", one());
    run("setp.eq.u32 %p1, %tid, 0; @%p1 mov.u32 %r1, 3; @%p1 st.global.u32 [%out], %r1;", warp());
    let partly = "setp.eq.u32 %p1, %tid, 0; @%p1 mov.u32 %r1, 3; add.u32 %r2, %r1, 1;";
    breaks(Rule::Uninitialised, partly, warp());
    // The sink takes anything and a result nobody reads harms nobody.
    run("ld.global.u32 %r1, [%out]; mov.b64 {_, %r2}, %in;", one());
}

/// Constant memory cannot be written, not even through a generic address.
#[test]
fn faults_name_thread_and_lines() {
    let text = program(".file 1 \"a/b.cu\"\n.loc 1 42 0\n st.global.u32 [%my+4080], 1;");
    let text = text
        .replace(".file 1 \"a/b.cu\"\n", "")
        .replace(".address_size 64", ".address_size 64\n.file 1 \"a/b.cu\"");
    let fault = run_text(&text, warp()).err().expect("a fault");
    let line = text.lines().position(|l| l.contains("4080")).unwrap() as u32 + 1;
    let actor = fault.actor.as_ref().expect("a thread");
    assert_eq!((fault.rule, fault.kernel.as_str()), (Rule::OutOfBounds, "k"));
    assert_eq!((actor.thread, actor.block, actor.place.line), (Some([4, 0, 0]), [0, 0, 0], line));
    assert_eq!(actor.place.source.as_deref(), Some("a/b.cu:42"));
    let said = fault.to_string();
    for part in
        ["out-of-bounds", "kernel k", "block (0,0,0)", "thread (4,0,0)", "a/b.cu:42", "PTX line"]
    {
        assert!(said.contains(part), "{part} in {said}");
    }
}
