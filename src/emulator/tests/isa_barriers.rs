//! Barriers of warps, blocks and clusters, mbarriers, fences, and the instructions of dependent
//! launches: what each orders, and what is reported when it is used against its rules.

mod support;

use pacer_emulator::{Module, Rule};
use support::{Setup, breaks, fault, program, run, run_text};

fn threads(threads: u32) -> Setup<'static> {
    Setup { threads, ..Setup::default() }
}

/// Warp 0 makes something, warp 1 uses it.
const HAND_OVER: &str = ".shared .align 4 .b8 s[128]; mov.u32 %r1, s; and.b32 %r2, %tid, 31; \
    shl.b32 %r3, %r2, 2; add.u32 %r3, %r3, %r1; setp.ge.u32 %p1, %tid, 32; @%p1 bra USE; \
    st.shared.u32 [%r3], %tid; MADE bra END; USE: READY ld.shared.u32 %r4, [%r3]; \
    st.global.u32 [%my], %r4; END: mov.u32 %r9, 0;";

fn hand_over(made: &str, ready: &str) -> String {
    HAND_OVER.replace("MADE", made).replace("READY", ready)
}

#[test]
fn barriers_between_producers_and_consumers() {
    let pairs = [
        ("bar.arrive 1, 64;", "bar.sync 1, 64;"),
        ("bar.sync 1, 64;", "bar.sync 1, 64;"),
        ("barrier.cta.arrive 2, 64;", "barrier.cta.sync 2, 64;"),
        ("barrier.sync.aligned 15, 64;", "barrier.sync.aligned 15, 64;"),
    ];
    for (made, ready) in pairs {
        for seed in 0..10 {
            let got = run(&hand_over(made, ready), Setup { seed, ..threads(64) });
            assert!((0..32).all(|i| got[32 + i] == i as u32), "{made} {seed}");
        }
    }
    // The other way round orders nothing: the reader arrives and goes on.
    for seed in 0..10 {
        let got = fault(
            &hand_over("bar.sync 1, 64;", "bar.arrive 1, 64;"),
            Setup { seed, ..threads(64) },
        );
        assert!(matches!(got.rule, Rule::Race | Rule::Uninitialised), "{got}");
    }
    breaks(Rule::Deadlock, &hand_over("", "bar.sync 1, 64;"), threads(64));
    breaks(Rule::Deadlock, &hand_over("bar.sync 1, 64;", "bar.sync 2, 64;"), threads(64));
    breaks(Rule::BarrierMisuse, &hand_over("bar.arrive 1, 96;", "bar.sync 1, 96;"), threads(64));
}

#[test]
fn counts_and_numbers_of_barriers() {
    breaks(Rule::BarrierMisuse, "bar.sync 1, 33;", threads(64));
    breaks(Rule::BarrierMisuse, "bar.sync 1, 0;", threads(64));
    breaks(Rule::BarrierMisuse, "bar.sync 1, 128;", threads(64));
    run("bar.sync 1, 64;", threads(64));
    run("bar.sync 15;", threads(64));
    breaks(Rule::BadOperand, "bar.sync 16;", threads(64));
    breaks(Rule::BadOperand, "mov.u32 %r1, 99; bar.sync %r1;", threads(64));
    // Different counts at one barrier.
    let differ = "setp.ge.u32 %p1, %tid, 32; @%p1 bra A; bar.sync 1, 64; bra B; A: bar.sync 1, 96; B: mov.u32 %r1, 0;";
    breaks(Rule::BarrierMisuse, differ, threads(96));
    // A warp that arrives twice in one phase.
    let twice = "setp.ge.u32 %p1, %tid, 32; @%p1 bra A; bar.arrive 1, 64; bar.arrive 1, 64; bra B; \
                 A: bar.sync 2, 32; B: mov.u32 %r1, 0;";
    breaks(Rule::BarrierMisuse, twice, threads(64));
    let parts = "setp.lt.u32 %p1, %tid, 16; @%p1 bra A; bar.sync 0; bra B; A: bar.sync 1; B: mov.u32 %r1, 0;";
    breaks(Rule::Deadlock, parts, threads(32));
}

#[test]
fn reductions_at_barriers() {
    let code = |op: &str, d: &str, back: &str| {
        format!(
            "setp.lt.u32 %p1, %tid, LIMIT; bar.red.{op} {d}, 0, %p1; {back} st.global.u32 [%my], %r1;"
        )
    };
    for limit in [0u32, 1, 40, 95, 96] {
        let all = |text: String| {
            let got = run(&text.replace("LIMIT", &limit.to_string()), threads(96));
            assert!(got[..96].iter().all(|v| *v == got[0]));
            got[0]
        };
        assert_eq!(all(code("popc.u32", "%r1", "")), limit);
        assert_eq!(
            all(code("and.pred", "%p2", "selp.u32 %r1, 1, 0, %p2;")),
            u32::from(limit == 96)
        );
        assert_eq!(all(code("or.pred", "%p2", "selp.u32 %r1, 1, 0, %p2;")), u32::from(limit > 0));
        let negated = code("popc.u32", "%r1", "").replace(", %p1;", ", !%p1;");
        assert_eq!(all(negated), 96 - limit);
    }
}

/// A loop through one barrier: phases do not mix, whichever warp is ahead.
#[test]
fn one_barrier_many_phases() {
    let body = ".shared .align 4 .b8 s[4]; mov.u32 %r1, 0; L: rem.u32 %r2, %r1, 3; shl.b32 %r2, %r2, 5; \
        setp.eq.u32 %p1, %tid, %r2; @%p1 st.shared.u32 [s], %r1; bar.sync 0; ld.shared.u32 %r3, [s]; \
        setp.ne.u32 %p2, %r3, %r1; @%p2 trap; bar.sync 0; add.u32 %r1, %r1, 1; \
        setp.lt.u32 %p3, %r1, 30; @%p3 bra L;";
    for seed in 0..20 {
        run(body, Setup { seed, ..threads(96) });
    }
    let missing = body.replacen("bar.sync 0; add", "add", 1);
    for seed in 0..20 {
        let got = fault(&missing, Setup { seed, ..threads(96) });
        assert!(matches!(got.rule, Rule::Race | Rule::Trap), "{got}");
    }
}

#[test]
fn clusters_arrive_and_wait() {
    // Each block writes its right neighbour's memory and reads its own afterwards.
    let body = ".shared .align 4 .b8 s[128]; mov.u32 %r1, %cluster_ctarank; mov.u32 %r2, %cluster_nctarank; \
        add.u32 %r3, %r1, 1; rem.u32 %r3, %r3, %r2; mov.u32 %r4, s; shl.b32 %r5, %tid, 2; add.u32 %r4, %r4, %r5; \
        mapa.shared::cluster.u32 %r6, %r4, %r3; mad.lo.u32 %r7, %r1, 100, %tid; BEFORE \
        st.shared::cluster.u32 [%r6], %r7; ARRIVE WAIT ld.shared.u32 %r8, [%r4]; mov.u32 %r9, %ctaid.x; \
        mad.lo.u32 %r9, %r9, 32, %tid; mul.wide.u32 %rd1, %r9, 4; add.u64 %rd1, %rd1, %out; \
        st.global.u32 [%rd1], %r8; barrier.cluster.arrive; barrier.cluster.wait;";
    let code = |arrive: &str, wait: &str| {
        body.replace("BEFORE", "barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;")
            .replace("ARRIVE", arrive)
            .replace("WAIT", wait)
    };
    let setup = Setup { blocks: 8, cluster: 4, ..threads(32) };
    for (arrive, wait) in [
        ("barrier.cluster.arrive.aligned;", "barrier.cluster.wait.aligned;"),
        ("barrier.cluster.arrive.release;", "barrier.cluster.wait.acquire;"),
        ("barrier.cluster.arrive.release.aligned;", "barrier.cluster.wait.acquire.aligned;"),
    ] {
        for seed in 0..8 {
            let got = run(&code(arrive, wait), Setup { seed, ..setup });
            for block in 0..8usize {
                let left = (block % 4 + 3) % 4;
                assert!((0..32).all(|i| got[32 * block + i] == (100 * left + i) as u32));
            }
        }
    }
    let relaxed = fault(&code("barrier.cluster.arrive.relaxed;", "barrier.cluster.wait;"), setup);
    assert_eq!(relaxed.rule, Rule::Race, "{relaxed}");
    let none = fault(&code("", ""), setup);
    assert!(matches!(none.rule, Rule::Race | Rule::Uninitialised), "{none}");
}

#[test]
fn memory_of_blocks_that_are_not_there() {
    let body = ".shared .align 4 .b8 s[4]; mov.u32 %r1, s; mov.u32 %r2, RANK; \
        mapa.shared::cluster.u32 %r3, %r1, %r2; st.shared::cluster.u32 [%r3], %tid; \
        barrier.cluster.arrive; barrier.cluster.wait;";
    let setup = Setup { blocks: 2, cluster: 2, ..threads(1) };
    breaks(Rule::BadOperand, &body.replace("RANK", "2"), setup);
    let rank =
        body.replace("mov.u32 %r2, RANK;", "mov.u32 %r2, %cluster_ctarank; xor.b32 %r2, %r2, 1;");
    run(&rank, setup);
    // .shared::cta names the own block only.
    breaks(Rule::OutOfBounds, &rank.replace("st.shared::cluster", "st.shared::cta"), setup);
    let which = ".shared .b32 s; mov.u32 %r1, s; mov.u32 %r2, 1; \
        mapa.shared::cluster.u32 %r3, %r1, %r2; getctarank.shared::cluster.u32 %r4, %r3; \
        mov.u32 %r5, %ctaid.x; setp.eq.u32 %p1, %r5, 0; @%p1 st.global.u32 [%my], %r4;";
    assert_eq!(run(which, setup)[0], 1);
}

/// Arrivals in every form, on a barrier of `count`.
fn phases(count: u32, arrive: &str) -> String {
    format!(
        ".shared .align 8 .b8 bar[8]; setp.ne.u32 %p1, %tid, 0; @%p1 bra W; \
         mbarrier.init.shared::cta.b64 [bar], {count}; W: bar.sync 0; {arrive}"
    )
}

#[test]
fn states_and_parities() {
    // Two phases: a token of the first is done after it, its parity alternates.
    let wait = "T1: mbarrier.test_wait.shared.b64 %p2, [bar], %rd1; @!%p2 bra T1;";
    let body = phases(
        32,
        &format!("mbarrier.arrive.shared.b64 %rd1, [bar]; {wait} st.global.u32 [%my], 1;"),
    );
    for seed in 0..5 {
        assert_eq!(run(&body, Setup { seed, ..threads(32) })[31], 1);
    }
    let parity = |p: u32| {
        format!(
            "mbarrier.arrive.shared.b64 _, [bar]; P{p}: mbarrier.try_wait.parity.shared.b64 %p3, [bar], {p}; @!%p3 bra P{p};"
        )
    };
    let both = phases(32, &format!("{} {} st.global.u32 [%my], 2;", parity(0), parity(1)));
    for seed in 0..10 {
        assert_eq!(run(&both, Setup { seed, ..threads(32) })[5], 2);
    }
    // The phase before the first counts as complete: parity 1 passes at once.
    let before = phases(
        32,
        "mbarrier.try_wait.parity.shared.b64 %p3, [bar], 1; selp.u32 %r1, 1, 0, %p3; \
        mbarrier.arrive.shared.b64 _, [bar]; st.global.u32 [%my], %r1;",
    );
    assert!(run(&before, threads(32))[..32].contains(&1));
    breaks(
        Rule::BadOperand,
        &phases(1, "mbarrier.try_wait.parity.shared.b64 %p3, [bar], 2;"),
        threads(1),
    );
    breaks(
        Rule::Deadlock,
        &phases(
            2,
            &wait
                .replace("%rd1;", "0;")
                .replace("T1: mbarrier.test_wait.shared", "T1: mbarrier.try_wait.parity.shared")
                .replace("%rd1", "0"),
        ),
        threads(1),
    );
}

#[test]
fn pending_counts_of_tokens() {
    let body = phases(
        9,
        "mbarrier.arrive.shared.b64 %rd1, [bar], 4; mbarrier.pending_count.b64 %r1, %rd1; \
        mbarrier.arrive.shared.b64 %rd2, [bar]; mbarrier.pending_count.b64 %r2, %rd2; \
        mbarrier.arrive.shared.b64 _, [bar], 4; st.global.v2.u32 [%out], {%r1, %r2};",
    );
    assert_eq!(run(&body, threads(1))[..2], [9, 5]);
}

#[test]
fn arrivals_beyond_the_count() {
    let arrive = "mbarrier.arrive.shared.b64 _, [bar], N;";
    for (n, ok) in [(1, true), (2, true), (3, false)] {
        let body = phases(2, &arrive.replace('N', &n.to_string()));
        match ok {
            true => drop(run(&body, threads(1))),
            false => breaks(Rule::BarrierMisuse, &body, threads(1)),
        }
    }
    breaks(Rule::BarrierMisuse, &phases(2, &arrive.replace('N', "0")), threads(1));
    let no_complete = "mbarrier.arrive.noComplete.shared.b64 %rd1, [bar], N;";
    run(&phases(2, &no_complete.replace("N;", "1;").replace(" [bar], N", " [bar], 1")), threads(1));
    breaks(Rule::BarrierMisuse, &phases(1, &no_complete.replace("], N", "], 1")), threads(1));
}

#[test]
fn dropped_arrivals_shrink_the_next_phase() {
    let body = phases(
        3,
        "mbarrier.arrive_drop.shared.b64 _, [bar]; mbarrier.arrive.shared.b64 _, [bar], 2; \
        T: mbarrier.try_wait.parity.shared.b64 %p2, [bar], 0; @!%p2 bra T; \
        mbarrier.arrive.shared.b64 _, [bar], 2; \
        U: mbarrier.try_wait.parity.shared.b64 %p2, [bar], 1; @!%p2 bra U; st.global.u32 [%out], 7;",
    );
    assert_eq!(run(&body, threads(1))[0], 7);
}

#[test]
fn transaction_bytes_of_phases() {
    // expect_tx before or after, alone or with an arrival; complete_tx takes it away.
    let cases = [
        "mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [bar], 64; mbarrier.arrive.shared.b64 _, [bar]; \
         mbarrier.complete_tx.relaxed.cta.shared::cta.b64 [bar], 64;",
        "mbarrier.arrive.expect_tx.shared.b64 _, [bar], 64; mbarrier.complete_tx.shared::cta.b64 [bar], 16; \
         mbarrier.complete_tx.shared::cta.b64 [bar], 48;",
        "mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 %rd5, [bar], 64; \
         mbarrier.complete_tx.shared::cta.b64 [bar], 64;",
    ];
    let wait = "T: mbarrier.try_wait.parity.shared.b64 %p2, [bar], 0; @!%p2 bra T;";
    for case in cases {
        run(&phases(1, &format!("{case} {wait}")), threads(1));
        let short = case.replace(
            "complete_tx.shared::cta.b64 [bar], 48",
            "complete_tx.shared::cta.b64 [bar], 32",
        );
        let short = short.replace(
            "_tx.relaxed.cta.shared::cta.b64 [bar], 64; mb",
            "_tx.relaxed.cta.shared::cta.b64 [bar], 80; mb",
        );
        if short != case {
            breaks(Rule::Deadlock, &phases(1, &format!("{short} {wait}")), threads(1));
        }
    }
    breaks(
        Rule::BarrierMisuse,
        &phases(1, "mbarrier.expect_tx.shared::cta.b64 [bar], 1048576;"),
        threads(1),
    );
    run(&phases(1, "mbarrier.expect_tx.shared::cta.b64 [bar], 1048575;"), threads(1));
}

#[test]
fn life_of_an_mbarrier() {
    let init = "mbarrier.init.shared.b64 [bar], 1;";
    let inval = "mbarrier.inval.shared.b64 [bar];";
    let body = |code: &str| format!(".shared .align 8 .b8 bar[16]; {code}");
    run(&body(&format!("{init} {inval} {init}")), threads(1));
    run(
        &body(&format!("{init} {inval} st.shared.u64 [bar], 1; ld.shared.u64 %rd1, [bar];")),
        threads(1),
    );
    breaks(Rule::BarrierMisuse, &body(&format!("{init} {init}")), threads(1));
    breaks(Rule::BarrierMisuse, &body(inval), threads(1));
    breaks(
        Rule::BarrierMisuse,
        &body(&format!("{init} {inval} mbarrier.arrive.shared.b64 _, [bar];")),
        threads(1),
    );
    breaks(Rule::BarrierMisuse, &body("mbarrier.arrive.shared.b64 _, [bar];"), threads(1));
    breaks(
        Rule::BarrierMisuse,
        &body(&format!("{init} mbarrier.arrive.shared.b64 _, [bar+8];")),
        threads(1),
    );
    breaks(Rule::BarrierMisuse, &body(&format!("{init} st.shared.u32 [bar], 1;")), threads(1));
    breaks(Rule::BarrierMisuse, &body(&format!("{init} ld.shared.u32 %r1, [bar+4];")), threads(1));
    run(&body(&format!("{init} st.shared.u32 [bar+8], 1;")), threads(1));
    breaks(Rule::Misaligned, &body("mbarrier.init.shared.b64 [bar+4], 1;"), threads(1));
    breaks(Rule::BarrierMisuse, &body("mbarrier.init.shared.b64 [bar], 0;"), threads(1));
    breaks(Rule::BarrierMisuse, &body("mbarrier.init.shared.b64 [bar], 1048576;"), threads(1));
    run(&body("mbarrier.init.shared.b64 [bar], 1048575;"), threads(1));
}

/// What an arrival made known, a wait learns; a relaxed arrival tells nothing.
#[test]
fn mbarriers_order_memory() {
    let body = ".shared .align 8 .b8 bar[8]; .shared .align 4 .b8 s[128]; setp.ne.u32 %p1, %tid, 0; @%p1 bra W; \
        mbarrier.init.shared.b64 [bar], 32; W: bar.sync 0; mov.u32 %r1, s; and.b32 %r2, %tid, 31; \
        shl.b32 %r2, %r2, 2; add.u32 %r3, %r1, %r2; setp.ge.u32 %p2, %tid, 32; @%p2 bra USE; \
        st.shared.u32 [%r3], %tid; mbarrier.arriveHOW.shared::cta.b64 _, [bar]; bra END; \
        USE: T: mbarrier.try_wait.parityWAIT.shared::cta.b64 %p3, [bar], 0; @!%p3 bra T; \
        ld.shared.u32 %r4, [%r3]; mov.u32 %r5, %ctaid.x; setp.eq.u32 %p1, %r5, 0; @%p1 st.global.u32 [%my], %r4; END: mov.u32 %r9, 0;";
    let code = |how: &str, wait: &str| body.replace("HOW", how).replace("WAIT", wait);
    for seed in 0..10 {
        let setup = Setup { seed, ..threads(64) };
        for (how, wait) in
            [("", ""), (".release.cta", ".acquire.cta"), (".release.cluster", ".acquire.cluster")]
        {
            assert!((0..32).all(|i| run(&code(how, wait), setup)[32 + i] == i as u32));
        }
        breaks(Rule::Race, &code(".relaxed.cta", ""), setup);
        breaks(Rule::Race, &code("", ".relaxed.cta"), setup);
    }
    // Without the loop a schedule in which the reader comes first shows the mistake.
    let early = code("", "").replace("@!%p3 bra T;", "");
    let seen = (0..20).filter_map(|seed| {
        let setup = Setup { seed, ..threads(64) };
        run_text(&program(&early), setup).err().map(|f| f.rule)
    });
    let seen: Vec<Rule> = seen.collect();
    assert!(!seen.is_empty());
    assert!(seen.iter().all(|r| matches!(r, Rule::Race | Rule::Uninitialised)), "{seen:?}");
}

#[test]
fn remote_arrivals() {
    let body = ".shared .align 8 .b8 bar[8]; .shared .align 4 .b8 s[4]; setp.ne.u32 %p1, %tid, 0; @%p1 exit; \
        mov.u32 %r1, %cluster_ctarank; mbarrier.init.shared.b64 [bar], 1; fence.mbarrier_init.release.cluster; \
        barrier.cluster.arrive; barrier.cluster.wait; xor.b32 %r2, %r1, 1; mov.u32 %r3, bar; \
        mapa.shared::cluster.u32 %r4, %r3, %r2; mov.u32 %r5, s; mapa.shared::cluster.u32 %r6, %r5, %r2; \
        add.u32 %r7, %r1, 50; st.shared::cluster.u32 [%r6], %r7; \
        mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r4]; \
        T: mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 %p2, [bar], 0; @!%p2 bra T; \
        ld.shared.u32 %r8, [s]; mul.wide.u32 %rd1, %r1, 4; add.u64 %rd1, %rd1, %out; \
        st.global.u32 [%rd1], %r8; barrier.cluster.arrive; barrier.cluster.wait;";
    for seed in 0..10 {
        let setup = Setup { blocks: 2, cluster: 2, seed, ..threads(32) };
        assert_eq!(run(body, setup)[..2], [51, 50]);
    }
}

/// The proxy fence of each scope; one of global memory alone says nothing of shared memory.
#[test]
fn proxy_fences() {
    let body = ".shared .align 128 .b8 s[16]; st.shared.v4.u32 [s], {1, 2, 3, 4}; FENCE \
        cp.async.bulk.global.shared::cta.bulk_group [%out], [s], 16; cp.async.bulk.commit_group; \
        cp.async.bulk.wait_group 0;";
    for fence in [
        "fence.proxy.async;",
        "fence.proxy.async.shared::cta;",
        "fence.proxy.async.shared::cluster;",
    ] {
        assert_eq!(run(&body.replace("FENCE", fence), threads(1))[..4], [1, 2, 3, 4], "{fence}");
    }
    for fence in
        ["", "fence.acq_rel.cta;", "fence.sc.gpu;", "membar.cta;", "fence.proxy.async.global;"]
    {
        breaks(Rule::MissingProxyFence, &body.replace("FENCE", fence), threads(1));
    }
    // The writer's fence counts, before the barrier; the reader's after it counts as well, since
    // it covers what the barrier made known.
    let shared = ".shared .align 128 .b8 s[128]; shl.b32 %r1, %tid, 2; mov.u32 %r2, s; add.u32 %r1, %r1, %r2; \
        st.shared.u32 [%r1], %tid; BEFORE bar.sync 0; setp.ne.u32 %p1, %tid, 0; @%p1 exit; AFTER \
        cp.async.bulk.global.shared::cta.bulk_group [%out], [s], 128; cp.async.bulk.commit_group; \
        cp.async.bulk.wait_group 0;";
    let fence = "fence.proxy.async;";
    assert_eq!(run(&shared.replace("BEFORE", fence).replace("AFTER", ""), threads(32))[31], 31);
    breaks(
        Rule::MissingProxyFence,
        &shared.replace("BEFORE", "").replace("AFTER", ""),
        threads(32),
    );
}

#[test]
fn fences_of_every_form_load() {
    for fence in [
        "membar.cta;",
        "membar.gl;",
        "membar.sys;",
        "fence.sc.cta;",
        "fence.acq_rel.gpu;",
        "fence.acq_rel.sys;",
        "fence.sc.cluster;",
        "fence.proxy.alias;",
        "fence.proxy.tensormap::generic.release.gpu;",
        "fence.mbarrier_init.release.cluster;",
        "fence.acquire.gpu;",
        "fence.release.gpu;",
    ] {
        run(fence, threads(32));
    }
    for wrong in [
        "fence;x",
        "fence.rel.gpu;",
        "membar.warp;",
        "fence.proxy.none;",
        "fence.mbarrier_init.cta.x;",
    ] {
        assert!(Module::parse(&program(wrong)).is_err(), "{wrong}");
    }
}

#[test]
fn dependent_launches_and_register_counts() {
    run("griddepcontrol.wait; griddepcontrol.launch_dependents;", threads(32));
    for good in ["setmaxnreg.dec.sync.aligned.u32 40;", "setmaxnreg.inc.sync.aligned.u32 232;"] {
        run(good, threads(128));
    }
    for wrong in [
        "griddepcontrol;",
        "griddepcontrol.go;",
        "setmaxnreg.inc.sync.aligned.u32 20;",
        "setmaxnreg.inc.sync.aligned.u32 42;",
        "setmaxnreg.inc.sync.aligned.u32 264;",
        "setmaxnreg.sync.aligned.u32 40;",
        "setmaxnreg.inc.aligned.u32 40;",
    ] {
        assert!(Module::parse(&program(wrong)).is_err(), "{wrong}");
    }
}

/// A deadlock names every thread group that waits, and what its barrier lacks.
#[test]
fn deadlocks_tell_who_waits_for_what() {
    let body = phases(
        3,
        "mbarrier.arrive.shared.b64 _, [bar]; \
        T: mbarrier.try_wait.parity.shared.b64 %p2, [bar], 0; @!%p2 bra T;",
    );
    let got = run_text(&program(&body), threads(2)).err().expect("a deadlock");
    assert_eq!(got.rule, Rule::Deadlock);
    assert!(got.message.contains("1 of 3 arrivals"), "{got}");
    let block = "setp.lt.u32 %p1, %tid, 32; @%p1 bar.sync 3, 64;";
    let got = fault(block, threads(32));
    assert_eq!(got.rule, Rule::BarrierMisuse, "more threads than the block has: {got}");
    let got = fault(block, threads(64));
    assert!(got.message.contains("barrier 3: 32 of 64"), "{got}");
}
