//! cp.async and bulk copies: sizes, fills, groups, and when their bytes may be used.

mod support;

use pacer_emulator::{Module, Rule};
use support::{Setup, breaks, fault, program, run};

fn one<'a>(input: &'a [u32]) -> Setup<'a> {
    Setup { threads: 1, input, ..Setup::default() }
}

const INPUT: [u32; 16] =
    [0x1111_1101, 0x2222_2202, 0x3333_3303, 0x4444_4404, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];

/// Copies with `copy` and returns four words of shared memory.
fn copied(copy: &str) -> Vec<u32> {
    let body = format!(
        ".shared .align 16 .b8 s[16]; st.shared.v4.u32 [s], {{9, 9, 9, 9}}; mov.u32 %r1, s; {copy} \
         cp.async.wait_all; ld.shared.v4.u32 {{%r4, %r5, %r6, %r7}}, [s]; \
         st.global.v4.u32 [%out], {{%r4, %r5, %r6, %r7}};"
    );
    run(&body, one(&INPUT))[..4].to_vec()
}

#[test]
fn sizes() {
    assert_eq!(copied("cp.async.ca.shared.global [%r1], [%in], 4;"), [0x1111_1101, 9, 9, 9]);
    assert_eq!(
        copied("cp.async.ca.shared.global [%r1+8], [%in+8], 8;"),
        [9, 9, 0x3333_3303, 0x4444_4404]
    );
    assert_eq!(copied("cp.async.ca.shared.global [%r1], [%in+16], 16;"), [5, 6, 7, 8]);
    assert_eq!(copied("cp.async.cg.shared.global [%r1], [%in+16], 16;"), [5, 6, 7, 8]);
    assert_eq!(
        copied("cp.async.cg.shared::cta.global.L2::128B [%r1], [%in+16], 16;"),
        [5, 6, 7, 8]
    );
    for wrong in [
        "cp.async.cg.shared.global [%r1], [%in], 8;",
        "cp.async.ca.shared.global [%r1], [%in], 12;",
        "cp.async.ca.shared.global [%r1], [%in], 32;",
        "cp.async.shared.global [%r1], [%in], 16;",
        "cp.async.ca.global.shared [%r1], [%in], 16;",
        "cp.async.ca.shared.global [%r1], [%in];",
    ] {
        assert!(Module::parse(&program(&format!("mov.u32 %r1, 0; {wrong}"))).is_err(), "{wrong}");
    }
}

/// A source shorter than the copy: the rest is zero, and no byte beyond it is read.
#[test]
fn sources_shorter_than_the_copy() {
    for n in 0..=16u32 {
        let copy = format!("mov.u32 %r2, {n}; cp.async.ca.shared.global [%r1], [%in], 16, %r2;");
        let got = copied(&copy);
        let bytes: Vec<u8> = INPUT.iter().flat_map(|w| w.to_le_bytes()).collect();
        for (i, byte) in got.iter().flat_map(|w| w.to_le_bytes()).enumerate() {
            let want = if i < n as usize { bytes[i] } else { 0 };
            assert_eq!(byte, want, "{n} bytes, byte {i}");
        }
    }
    // At the very end of an allocation; a source of nothing may point anywhere.
    assert_eq!(
        copied("mov.u32 %r2, 4; cp.async.ca.shared.global [%r1], [%in+48], 16, %r2;"),
        [13, 0, 0, 0]
    );
    assert_eq!(
        copied(
            "mov.u32 %r2, 0; mov.u64 %rd5, 0; cp.async.ca.shared.global [%r1], [%rd5], 16, %r2;"
        ),
        [0; 4]
    );
    let beyond = "cp.async.ca.shared.global [s], [%in+64], 16, %r2; cp.async.wait_all;";
    let body = |n| format!(".shared .align 16 .b8 s[16]; mov.u32 %r2, {n}; {beyond}");
    run(&body(0), one(&INPUT));
    breaks(Rule::OutOfBounds, &body(4), one(&INPUT));
    breaks(Rule::BadOperand, &body(17).replace("+64", ""), one(&INPUT));
}

#[test]
fn ignored_sources_read_as_zero() {
    let copy = |p: u32, not: &str| {
        format!("setp.eq.u32 %p1, {p}, 1; cp.async.ca.shared.global [%r1], [%in], 16, {not}%p1;")
    };
    assert_eq!(copied(&copy(1, "")), [0; 4]);
    assert_eq!(copied(&copy(0, "")), INPUT[..4]);
    assert_eq!(copied(&copy(0, "!")), [0; 4]);
}

/// Groups complete oldest first: wait_group N leaves the N youngest pending.
#[test]
fn groups() {
    let stages = 4u32;
    let mut body = ".shared .align 16 .b8 s[64];".to_string();
    for i in 0..stages {
        body += &format!(
            "cp.async.ca.shared.global [s+{}], [%in+{}], 4; cp.async.commit_group;",
            16 * i,
            4 * i
        );
    }
    for pending in 0..stages {
        for read in 0..stages {
            let code = format!(
                "{body} cp.async.wait_group {pending}; ld.shared.u32 %r1, [s+{}]; \
                 st.global.u32 [%out], %r1; cp.async.wait_group 0;",
                16 * read
            );
            if read < stages - pending {
                assert_eq!(run(&code, one(&INPUT))[0], INPUT[read as usize]);
            } else {
                breaks(Rule::AsyncInFlight, &code, one(&INPUT));
            }
        }
    }
    // An empty group counts; copies outside a group are waited for by wait_all alone.
    let open = "cp.async.commit_group; cp.async.ca.shared.global [s], [%in], 4; WAIT ld.shared.u32 %r1, [s];";
    let open = format!(".shared .align 16 .b8 s[16]; {open}");
    run(&open.replace("WAIT", "cp.async.wait_all;"), one(&INPUT));
    breaks(Rule::AsyncInFlight, &open.replace("WAIT", "cp.async.wait_group 0;"), one(&INPUT));
}

/// Writes to a destination in flight, alignment, bounds.
#[test]
fn destinations_belong_to_the_copy() {
    let body = ".shared .align 16 .b8 s[32]; cp.async.ca.shared.global [s], [%in], 16; USE cp.async.wait_all;";
    run(&body.replace("USE", "st.shared.u32 [s+16], 1;"), one(&INPUT));
    breaks(Rule::AsyncInFlight, &body.replace("USE", "st.shared.u32 [s+12], 1;"), one(&INPUT));
    breaks(Rule::AsyncInFlight, &body.replace("USE", "ld.shared.u32 %r1, [s];"), one(&INPUT));
    breaks(
        Rule::AsyncInFlight,
        &body.replace("USE", "cp.async.ca.shared.global [s], [%in], 4;"),
        one(&INPUT),
    );
    let free = body.replace("USE", "");
    breaks(Rule::Misaligned, &free.replace("[s], [%in], 16", "[s+8], [%in], 16"), one(&INPUT));
    breaks(Rule::Misaligned, &free.replace("[s], [%in], 16", "[s], [%in+8], 16"), one(&INPUT));
    breaks(Rule::OutOfBounds, &free.replace("[s], [%in], 16", "[s+32], [%in], 16"), one(&INPUT));
    breaks(Rule::OutOfBounds, &free.replace("[s], [%in], 16", "[s], [%in+64], 16"), one(&INPUT));
    breaks(Rule::Leak, &body.replace("cp.async.wait_all;", "").replace("USE", ""), one(&INPUT));
}

/// A wait is the thread's own: others learn of the bytes by a barrier after it.
#[test]
fn waits_are_each_threads_own() {
    let body = ".shared .align 16 .b8 s[1024]; shl.b32 %r1, %tid, 4; mov.u32 %r2, s; \
        add.u32 %r3, %r2, %r1; cvt.u64.u32 %rd1, %r1; add.u64 %rd1, %rd1, %in; \
        cp.async.cg.shared.global [%r3], [%rd1], 16; cp.async.commit_group; FIRST SECOND \
        xor.b32 %r4, %r1, 512; add.u32 %r4, %r4, %r2; ld.shared.u32 %r5, [%r4]; \
        st.global.u32 [%my], %r5; cp.async.wait_all;";
    let input: Vec<u32> = (0..256).collect();
    let (wait, bar) = ("cp.async.wait_group 0;", "bar.sync 0;");
    for seed in 0..10 {
        let setup = Setup { threads: 64, input: &input, seed, ..Setup::default() };
        let got = run(&body.replace("FIRST", wait).replace("SECOND", bar), setup);
        assert!((0..64).all(|i| got[i] == 4 * (i as u32 ^ 32)));
        let swapped = fault(&body.replace("FIRST", bar).replace("SECOND", wait), setup);
        assert!(matches!(swapped.rule, Rule::Race | Rule::AsyncInFlight), "{swapped}");
    }
}

/// cp.async.mbarrier.arrive: the phase completes once the copies are there.
#[test]
fn arrivals_of_copies() {
    let body = ".shared .align 16 .b8 s[512]; .shared .align 8 .b8 bar[8]; setp.ne.u32 %p1, %tid, 0; \
        @%p1 bra W; mbarrier.init.shared.b64 [bar], COUNT; W: bar.sync 0; shl.b32 %r1, %tid, 4; \
        mov.u32 %r2, s; add.u32 %r3, %r2, %r1; cvt.u64.u32 %rd1, %r1; add.u64 %rd1, %rd1, %in; \
        cp.async.ca.shared.global [%r3], [%rd1], 16; cp.async.mbarrier.arrive.MODEshared.b64 [bar]; \
        ALSO T: mbarrier.try_wait.parity.shared.b64 %p2, [bar], 0; @!%p2 bra T; xor.b32 %r4, %r1, 256; \
        add.u32 %r4, %r4, %r2; ld.shared.u32 %r5, [%r4]; st.global.u32 [%my], %r5;";
    let input: Vec<u32> = (0..128).collect();
    for seed in 0..10 {
        let setup = Setup { threads: 32, input: &input, seed, ..Setup::default() };
        let counted = body.replace("COUNT", "32").replace("MODE", "noinc.").replace("ALSO", "");
        assert!((0..32).all(|i| run(&counted, setup)[i] == 4 * (i as u32 ^ 16)));
        // Without noinc the pending count goes up first, so somebody else must arrive.
        let plain = body.replace("COUNT", "1").replace("MODE", "");
        let also = plain.replace("ALSO", "bar.sync 0; @!%p1 mbarrier.arrive.shared.b64 _, [bar];");
        assert!((0..32).all(|i| run(&also, setup)[i] == 4 * (i as u32 ^ 16)));
        breaks(Rule::Deadlock, &plain.replace("ALSO", ""), setup);
    }
}

/// Bulk copies both ways and within a cluster; sizes and alignment of 16.
#[test]
fn bulk_copies_are_checked() {
    let body = ".shared .align 128 .b8 s[128]; .shared .align 8 .b8 bar[8]; \
        mbarrier.init.shared.b64 [bar], 1; mbarrier.arrive.expect_tx.shared.b64 _, [bar], 32; \
        cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [s+DST], [%in+SRC], BYTES, [bar]; \
        T: mbarrier.try_wait.parity.shared.b64 %p1, [bar], 0; @!%p1 bra T; ld.shared.u32 %r1, [s+DST]; \
        st.global.u32 [%out], %r1;";
    let code = |dst: &str, src: &str, bytes: &str| {
        body.replace("DST", dst).replace("SRC", src).replace("BYTES", bytes)
    };
    assert_eq!(run(&code("16", "16", "32"), one(&INPUT))[0], 5);
    breaks(Rule::Misaligned, &code("8", "16", "32"), one(&INPUT));
    breaks(Rule::Misaligned, &code("16", "8", "32"), one(&INPUT));
    breaks(Rule::BadOperand, &code("16", "16", "24"), one(&INPUT));
    breaks(Rule::BadOperand, &code("16", "16", "0"), one(&INPUT));
    breaks(Rule::OutOfBounds, &code("112", "16", "32"), one(&INPUT));
    breaks(Rule::OutOfBounds, &code("16", "48", "32"), one(&INPUT));
}

#[test]
fn bulk_copies_from_block_to_block() {
    let body = ".shared .align 128 .b8 s[256]; .shared .align 8 .b8 bar[8]; mov.u32 %r1, %cluster_ctarank; \
        xor.b32 %r2, %r1, 1; setp.ne.u32 %p1, %tid, 0; @%p1 bra W; mbarrier.init.shared.b64 [bar], 1; \
        mbarrier.arrive.expect_tx.shared.b64 _, [bar], 128; W: mov.u32 %r3, s; shl.b32 %r4, %tid, 2; \
        add.u32 %r5, %r3, %r4; shl.b32 %r6, %r1, 8; add.u32 %r6, %r6, %tid; st.shared.u32 [%r5], %r6; \
        fence.proxy.async.shared::cta; barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned; \
        @%p1 bra T; add.u32 %r7, %r3, 128; mapa.shared::cluster.u32 %r8, %r7, %r2; mov.u32 %r9, bar; \
        mapa.shared::cluster.u32 %r10, %r9, %r2; \
        cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [%r8], [%r3], 128, [%r10]; \
        T: mbarrier.try_wait.parity.shared.b64 %p2, [bar], 0; @!%p2 bra T; ld.shared.u32 %r11, [%r5+128]; \
        shl.b32 %r12, %r1, 7; add.u32 %r12, %r12, %r4; cvt.u64.u32 %rd1, %r12; add.u64 %rd1, %rd1, %out; \
        st.global.u32 [%rd1], %r11; barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;";
    for seed in 0..10 {
        let setup = Setup { blocks: 2, cluster: 2, seed, ..Setup::default() };
        let got = run(body, setup);
        for rank in 0..2 {
            assert!(
                (0..32).all(|i| got[32 * rank + i] == ((rank ^ 1) << 8 | i) as u32),
                "seed {seed}"
            );
        }
    }
}

/// Reducing bulk copies of every operation and type, element by element.
#[test]
fn bulk_reductions() {
    let body = ".shared .align 128 .b8 s[16]; st.shared.v4.u32 [s], {VALUES}; \
        st.global.v4.u32 [%out], {OLD}; fence.proxy.async; \
        cp.reduce.async.bulk.global.shared::cta.bulk_group.OP [%out], [s], 16; \
        cp.async.bulk.commit_group; cp.async.bulk.wait_group 0;";
    let f = |x: f32| x.to_bits();
    let cases: [(&str, [u32; 4], [u32; 4], [u32; 4]); 14] = [
        ("add.u32", [1, 2, u32::MAX, 4], [10, 20, 2, 40], [11, 22, 1, 44]),
        ("add.s32", [u32::MAX, 2, 3, 4], [10, 20, 30, 40], [9, 22, 33, 44]),
        ("add.u64", [u32::MAX, 0, 1, 1], [1, 0, 2, 2], [0, 1, 3, 3]),
        ("min.u32", [5, 50, 0, u32::MAX], [10, 10, 10, 10], [5, 10, 0, 10]),
        ("max.u32", [5, 50, 0, u32::MAX], [10, 10, 10, 10], [10, 50, 10, u32::MAX]),
        ("min.s32", [5, 50, 0, u32::MAX], [10, 10, 10, 10], [5, 10, 0, u32::MAX]),
        ("max.s32", [5, 50, 0, u32::MAX], [10, 10, 10, 10], [10, 50, 10, 10]),
        ("and.b32", [12, 10, 6, 0], [10, 12, 3, 7], [8, 8, 2, 0]),
        ("or.b32", [12, 10, 6, 0], [10, 12, 3, 7], [14, 14, 7, 7]),
        ("xor.b32", [12, 10, 6, 0], [10, 12, 3, 7], [6, 6, 5, 7]),
        ("inc.u32", [5, 5, 5, 0], [4, 5, 9, 0], [5, 0, 0, 0]),
        ("dec.u32", [5, 5, 5, 5], [0, 3, 9, 5], [5, 2, 5, 4]),
        (
            "add.noftz.f16",
            [0x3c00_3c00; 4],
            [0x3c00_4000, 0, 0x3c00, 1],
            [0x4000_4200, 0x3c00_3c00, 0x3c00_4000, 0x3c00_3c00],
        ),
        (
            "add.f32",
            [f(1.0), f(-2.0), 0, f(0.5)],
            [f(2.0), f(2.0), f(3.0), f(0.25)],
            [f(3.0), 0, f(3.0), f(0.75)],
        ),
    ];
    let text = |v: [u32; 4]| v.map(|w| w.to_string()).join(", ");
    for (op, values, old, want) in cases {
        let code =
            body.replace("VALUES", &text(values)).replace("OLD", &text(old)).replace("OP", op);
        assert_eq!(run(&code, one(&INPUT))[..4], want, "{op}");
    }
}

/// The source of a bulk store may be written again after wait_group.read, its destination read
/// after wait_group.
#[test]
fn bulk_groups() {
    let body = ".shared .align 128 .b8 s[64]; st.shared.v4.u32 [s], {1, 2, 3, 4}; \
        st.shared.v4.u32 [s+16], {5, 6, 7, 8}; fence.proxy.async.shared::cta; \
        cp.async.bulk.global.shared::cta.bulk_group [%out], [s], 16; cp.async.bulk.commit_group; \
        cp.async.bulk.global.shared::cta.bulk_group [%out+16], [s+16], 16; cp.async.bulk.commit_group; \
        WAIT st.shared.u32 [s+AT], 9; cp.async.bulk.wait_group 0;";
    let code = |wait: &str, at: &str| body.replace("WAIT", wait).replace("AT", at);
    for wait in ["cp.async.bulk.wait_group.read 1;", "cp.async.bulk.wait_group 1;"] {
        assert_eq!(run(&code(wait, "0"), one(&INPUT))[..8], [1, 2, 3, 4, 5, 6, 7, 8]);
        breaks(Rule::AsyncInFlight, &code(wait, "16"), one(&INPUT));
    }
    run(&code("cp.async.bulk.wait_group.read 0;", "16"), one(&INPUT));
    breaks(Rule::AsyncInFlight, &code("", "0"), one(&INPUT));
}
