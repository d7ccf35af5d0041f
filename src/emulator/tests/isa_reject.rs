//! Text that must not load: each line differs from one that does by something the ISA lacks.

mod support;

use pacer_emulator::Module;
use support::program;

#[track_caller]
fn loads(code: &str) {
    if let Err(e) = Module::parse(&program(code)) {
        panic!("{code}: {e}");
    }
}

#[track_caller]
fn refuses(code: &str) {
    let text = program(code);
    let Err(e) = Module::parse(&text) else { panic!("{code} loads") };
    let line = text.lines().position(|l| l.contains(code)).map_or(0, |at| at as u32 + 1);
    assert_eq!(e.line, line, "{code}: {e}");
    assert!(!e.message.is_empty());
}

/// A right form, and changes that make it wrong.
const FORMS: &[(&str, &[(&str, &str)])] = &[
    (
        "add.u32 %r1, %r2, %r3;",
        &[
            ("add.u32", "add.u32.rn"),
            ("add.u32", "add.sat.u32"),
            ("add.u32", "addd.u32"),
            (", %r3", ""),
            ("u32", "b32"),
            ("u32", "u33"),
            ("%r3", "%nosuch"),
            ("%r3;", "%r3, %r4;"),
        ],
    ),
    (
        "add.f32 %f1, %f2, %f3;",
        &[("f32", "rna.f32"), ("f32", "wrap.f32"), ("f32", "lo.f32"), ("add", "add.approx")],
    ),
    (
        "mul.lo.u32 %r1, %r2, %r3;",
        &[
            ("lo", "low"),
            ("mul.lo.u32", "mul.u32"),
            ("mul.lo.u32", "mul.wide.u64"),
            ("mul.lo", "mul.lo.hi"),
        ],
    ),
    (
        "mad.lo.s32 %r1, %r2, %r3, %r4;",
        &[("mad.lo", "mad"), (", %r4", ""), ("mad.lo.s32", "mad.lo.sat.s32")],
    ),
    ("fma.rn.f32 %f1, %f2, %f3, %f4;", &[("fma.rn", "fma"), ("fma.rn", "fma.rni"), (", %f4", "")]),
    (
        "div.rn.f32 %f1, %f2, %f3;",
        &[("div.rn", "div"), ("div.rn", "div.rn.approx"), ("div.rn", "div.rna")],
    ),
    ("sqrt.rn.f32 %f1, %f2;", &[("sqrt.rn", "sqrt"), ("f32", "u32"), ("f32", "f16")]),
    ("rcp.approx.ftz.f32 %f1, %f2;", &[("rcp.approx.ftz", "rcp"), ("ftz.f32", "sat.f32")]),
    (
        "ex2.approx.f32 %f1, %f2;",
        &[("ex2.approx", "ex2"), ("ex2.approx", "ex2.rn"), ("f32", "f64")],
    ),
    ("tanh.approx.f32 %f1, %f2;", &[("tanh.approx", "tanh"), ("f32", "f64")]),
    ("lg2.approx.f32 %f1, %f2;", &[("lg2.approx", "lg2")]),
    ("rsqrt.approx.f32 %f1, %f2;", &[("rsqrt.approx", "rsqrt"), ("rsqrt.approx", "rsqrt.rn")]),
    ("min.f32 %f1, %f2, %f3;", &[("min", "min.rn"), ("min", "min.sat"), ("min", "min.xorsign")]),
    ("max.NaN.f16x2 %r1, %r2, %r3;", &[("NaN", "nan"), ("NaN", "NaN.approx")]),
    ("shl.b32 %r1, %r2, %r3;", &[("b32", "f32"), ("shl", "shl.wrap"), ("b32", "u32")]),
    ("shr.u32 %r1, %r2, 3;", &[("u32", "f32"), ("shr", "shr.clamp")]),
    (
        "shf.l.wrap.b32 %r1, %r2, %r3, %r4;",
        &[("wrap", "sat"), (".l", ""), (".wrap", ""), ("b32", "b64")],
    ),
    (
        "lop3.b32 %r1, %r2, %r3, %r4, 0x80;",
        &[("0x80", "%r5"), ("b32", "b64"), ("0x80", "256"), (", 0x80", "")],
    ),
    (
        "prmt.b32 %r1, %r2, %r3, 0x3210;",
        &[("b32", "b32.f5e"), ("prmt.b32", "prmt"), ("b32", "b64")],
    ),
    ("bfe.u32 %r1, %r2, %r3, %r4;", &[("u32", "b32"), (", %r4", "")]),
    ("bfi.b32 %r1, %r2, %r3, %r4, %r5;", &[("b32", "u32"), (", %r5", "")]),
    ("popc.b32 %r1, %r2;", &[("b32", "u32"), ("b32", "b16"), ("popc", "popcc")]),
    ("bfind.u32 %r1, %r2;", &[("u32", "b32"), ("bfind", "bfind.shift")]),
    ("and.b32 %r1, %r2, %r3;", &[("b32", "u32"), ("b32", "f32"), ("and", "and.cc")]),
    (
        "dp4a.u32.s32 %r1, %r2, %r3, %r4;",
        &[("u32.s32", "u32"), ("u32.s32", "b32.b32"), ("dp4a", "dp4a.lo")],
    ),
    (
        "setp.lt.u32 %p1, %r1, %r2;",
        &[
            ("lt", "less"),
            ("setp.lt", "setp"),
            ("%p1", "%r5"),
            ("lt.u32", "lt.and.u32"),
            ("lt", "lt.rn"),
            ("u32", "b32"),
        ],
    ),
    ("selp.b32 %r1, %r2, %r3, %p1;", &[("%p1", "%r4"), (", %p1", "")]),
    (
        "cvt.rn.f32.s32 %f1, %r2;",
        &[("cvt.rn", "cvt"), ("rn", "rni"), ("f32.s32", "f32"), ("rn", "rn.satfinite")],
    ),
    ("cvt.rzi.s32.f32 %r1, %f2;", &[("rzi", "rz"), ("cvt.rzi", "cvt"), ("rzi", "rxi")]),
    ("cvt.rn.f16x2.f32 %r1, %f2, %f3;", &[(", %f3", ""), ("rn", "rpi")]),
    (
        "cvt.rn.satfinite.e4m3x2.f32 %h1, %f1, %f2;",
        &[("rn.", ""), (".satfinite", ""), ("rn", "rz"), ("e4m3x2", "e4m3")],
    ),
    (
        "mov.b64 %rd1, {%r1, %r2};",
        &[("{%r1, %r2}", "{%r1, %r2, %r3}"), ("mov.b64", "mov.wide.b64")],
    ),
    (
        "ld.global.u32 %r1, [%out];",
        &[
            ("global", "globl"),
            ("u32", "v3.u32"),
            ("ld.global", "ld.global.wb"),
            ("[%out]", "%out"),
            ("u32", "v2.u32"),
            ("ld.global.u32", "ld.global"),
            ("u32", "pred"),
        ],
    ),
    (
        "st.global.u32 [%out], %r1;",
        &[
            ("st.global", "st.const"),
            ("st.global", "st.param"),
            ("st.global", "st.global.nc"),
            ("[%out], %r1", "%r1, [%out]"),
            ("st.global", "st.acquire.global"),
        ],
    ),
    (
        "atom.global.add.u32 %r1, [%out], %r2;",
        &[("add", "mul"), ("u32", "u16"), ("global", "const")],
    ),
    (
        "shfl.sync.idx.b32 %r1, %r2, 0, 31, -1;",
        &[(".sync", ""), ("idx", "any"), ("b32", "b64"), (", -1", ""), ("b32", "u32")],
    ),
    (
        "vote.sync.ballot.b32 %r1, %p1, -1;",
        &[(".sync", ""), ("ballot", "most"), ("%r1", "%p2"), ("b32", "pred")],
    ),
    ("match.any.sync.b32 %r1, %r2, -1;", &[("any", "some"), (".sync", "")]),
    (
        "redux.sync.add.u32 %r1, %r2, -1;",
        &[
            (".sync", ""),
            ("add", "cas"),
            ("add.u32", "add.b32"),
            ("add.u32", "and.u32"),
            ("u32", "u64"),
        ],
    ),
    ("elect.sync %r1|%p1, -1;", &[(".sync", ""), ("%p1", "%r2")]),
    (
        "bar.sync 0;",
        &[("bar.sync", "bar"), ("sync", "synch"), ("bar.sync 0", "bar.sync"), ("0", "0, 32, 32")],
    ),
    ("bra L; L: mov.u32 %r1, 0;", &[("bra L", "bra M"), ("bra L", "bra 5")]),
    (
        "cp.async.ca.shared.global [%r1], [%out], 16;",
        &[("16", "5"), ("ca.", ""), ("shared.global", "global.shared")],
    ),
    ("cp.async.wait_group 1;", &[("1", "%r1"), ("wait_group", "wait_groups")]),
    (
        "mbarrier.arrive.shared.b64 _, [%r1];",
        &[("arrive", "arive"), ("b64", "b32"), ("shared", "global")],
    ),
    ("mbarrier.try_wait.parity.shared.b64 %p1, [%r1], 0;", &[("%p1", "%r2"), (", 0", "")]),
    ("mapa.shared::cluster.u32 %r1, %r2, %r3;", &[(", %r3", ""), ("shared::cluster", "global")]),
    ("nanosleep.u32 100;", &[("u32", "f32"), (" 100", "")]),
    (
        "wgmma.commit_group.sync.aligned;",
        &[(".sync", ""), (".aligned", ""), ("commit_group", "commit")],
    ),
];

#[test]
fn forms_of_the_table() {
    let mut wrong = Vec::new();
    for (good, changes) in FORMS {
        loads(good);
        for (from, to) in *changes {
            let bad = good.replacen(from, to, 1);
            assert_ne!(&bad, good, "{from} is not in {good}");
            if Module::parse(&program(&bad)).is_ok() {
                wrong.push(bad);
            }
        }
    }
    assert!(wrong.is_empty(), "these load: {wrong:#?}");
}

/// Opcodes that Pacer's kernels do not use are refused by name, with their line.
#[test]
fn opcodes_that_this_machine_lacks() {
    for code in [
        "tex.2d.v4.f32.s32 {%f1, %f2, %f3, %f4}, [%rd1, {%r1, %r2}];",
        "suld.b.1d.b32.trap {%r1}, [%rd1, {%r2}];",
        "vadd.s32.s32.s32 %r1, %r2, %r3;",
        "wmma.load.a.sync.aligned.row.m16n16k16.f16 {%r1}, [%out];",
        "tcgen05.alloc.cta_group::1.sync.aligned.b32 [%r1], 32;",
        "multimem.red.add.u32 [%out], %r1;",
        "st.async.shared::cluster.mbarrier::complete_tx::bytes.u32 [%r1], %r2, [%r3];",
        "nosuch.u32 %r1;",
        "stackrestore.u64 %rd1;",
        "alloca.u64 %rd1, 8;",
        "cp.async.bulk.tensor.2d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes [%r1], [%out, {%r2, %r3}], [%r4];",
    ] {
        refuses(code);
        let e = Module::parse(&program(code)).unwrap_err();
        let base = code.split(['.', ' ']).next().unwrap();
        assert!(e.message.contains(base), "{e}");
    }
}

#[test]
fn directives_and_structure() {
    let wrap = |text: &str| format!(".version 9.0\n.target sm_90a\n.address_size 64\n{text}");
    let good =
        wrap(".visible .entry k(.param .u64 p)\n{\n.reg .b32 %r<4>;\nmov.u32 %r1, 0;\nret;\n}\n");
    assert!(Module::parse(&good).is_ok());
    let broken: [(&str, &str); 11] = [
        (".visible .entry k(", ".visible .enter k("),
        ("}\n", ""),
        (".reg .b32 %r<4>;", ".reg .b99 %r<4>;"),
        ("%r<4>", "%r<-1>"),
        ("%r<4>", "%r<99999999999>"),
        ("mov.u32 %r1, 0;", "mov.u32 %r1, 0"),
        ("mov.u32 %r1, 0;", "mov.u32 %r9, 0;"),
        ("mov.u32 %r1, 0;", "mov.u32 1, 0;"),
        ("mov.u32 %r1, 0;", "@%r1 mov.u32 %r1, 0;"),
        ("mov.u32 %r1, 0;", "L: L: mov.u32 %r1, 0;"),
        ("ret;", "{ ret;"),
    ];
    for (from, to) in broken {
        let text = good.replacen(from, to, 1);
        assert_ne!(text, good);
        assert!(Module::parse(&text).is_err(), "{from} -> {to} loads");
    }
    for text in [
        "",
        "   ",
        "\0",
        ".version",
        ".version 9.0",
        "\u{fffd}\u{fffd}",
        ".entry",
        "/* never closed",
    ] {
        let _ = Module::parse(text);
    }
}

/// Launches that a kernel cannot be given.
#[test]
fn launches_are_checked() {
    use pacer_emulator::{Checks, LaunchSpec, Memory, Rule, launch};
    let text = program("mov.u32 %r1, 0;").replace(
        ".visible .entry k(.param .u64 out, .param .u64 in0)",
        ".visible .entry k(.param .u64 out, .param .u64 in0)\n.maxntid 64, 1, 1",
    );
    let module = Module::parse(&text).unwrap();
    let memory = Memory::new();
    let right = LaunchSpec {
        kernel: "k",
        grid: [4, 1, 1],
        block: [64, 1, 1],
        cluster: [1; 3],
        shared_bytes: 0,
        params: &[0; 16],
        symbols: &[],
        seed: 0,
        budget: 1000,
        checks: Checks::ALL,
        threads: 1,
    };
    // The parameters point nowhere, but nothing is read through them.
    assert!(launch(&module, &memory, &right).is_ok());
    let wrong = [
        LaunchSpec { kernel: "j", ..right.clone() },
        LaunchSpec { grid: [0, 1, 1], ..right.clone() },
        LaunchSpec { block: [65, 1, 1], ..right.clone() },
        LaunchSpec { block: [0, 1, 1], ..right.clone() },
        LaunchSpec { block: [2048, 1, 1], ..right.clone() },
        LaunchSpec { cluster: [3, 1, 1], ..right.clone() },
        LaunchSpec { cluster: [0, 1, 1], ..right.clone() },
        LaunchSpec { cluster: [32, 1, 1], grid: [32, 1, 1], ..right.clone() },
        LaunchSpec { shared_bytes: 233_000, ..right.clone() },
        LaunchSpec { params: &[0; 15], ..right.clone() },
        LaunchSpec { params: &[0; 24], ..right.clone() },
    ];
    for spec in wrong {
        let fault = launch(&module, &memory, &spec).expect_err("a launch that cannot be");
        assert_eq!(fault.rule, Rule::BadLaunch, "{fault}");
        assert!(!fault.message.is_empty());
    }
}

/// Forms that the machine leaves out are errors that name the line and the form.
#[test]
fn what_is_left_out_says_so() {
    for (form, rest) in [
        (
            "cp.async.bulk.tensor.3d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes",
            "[%r1], [%out, {%r2, %r3, %r4}], [%r5], {%h1};",
        ),
        (
            "cp.async.bulk.tensor.3d.global.shared::cta.im2col_no_offs.bulk_group",
            "[%out, {%r2, %r3, %r4}], [%r1];",
        ),
        ("st.async.shared::cluster.mbarrier::complete_tx::bytes.b32", "[%r1], %r2, [%r3];"),
        (
            "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.b32",
            "[%r1], {%r2, %r3, %r4, %r5}, [%r6];",
        ),
        (
            "red.async.relaxed.cluster.shared::cluster.mbarrier::complete_tx::bytes.add.u32",
            "[%r1], %r2, [%r3];",
        ),
        ("multimem.ld_reduce.relaxed.sys.global.add.f32", "%f1, [%out];"),
        ("multimem.st.relaxed.sys.global.f32", "[%out], %f1;"),
        ("multimem.red.relaxed.sys.global.add.f32", "[%out], %f1;"),
    ] {
        let text = program(&format!("mov.u32 %r1, 0;\n{form} {rest}"));
        let Err(e) = Module::parse(&text) else { panic!("{form} loads") };
        let line = text.lines().position(|l| l.contains(form)).map_or(0, |at| at as u32 + 1);
        assert_eq!(e.line, line, "{e}");
        let shown = form.get(..110).unwrap_or(form);
        assert!(e.message.contains(shown), "{e}");
    }
}
