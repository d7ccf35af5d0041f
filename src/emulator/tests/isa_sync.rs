//! Exchanges, barriers, mbarriers and asynchronous copies: what they do, and what the machine
//! reports when they are used wrongly. Each wrong program differs by one line from a right one.

mod support;

use pacer_emulator::Rule;
use support::{Setup, breaks, fault, run, run_text};

fn warp() -> Setup<'static> {
    Setup::default()
}

fn threads(threads: u32) -> Setup<'static> {
    Setup { threads, ..Setup::default() }
}

#[test]
fn shuffles_move_values_between_lanes() {
    let w = run("shfl.sync.bfly.b32 %r1, %tid, 1, 31, -1; st.global.u32 [%my], %r1;", warp());
    assert!((0..32).all(|i| w[i] == i as u32 ^ 1));
    let w = run(
        "shfl.sync.down.b32 %r1|%p1, %tid, 4, 31, -1; selp.u32 %r2, %r1, 99, %p1;\
                 st.global.u32 [%my], %r2;",
        warp(),
    );
    assert!((0..32).all(|i| w[i] == if i + 4 < 32 { i as u32 + 4 } else { 99 }));
    let w = run(
        "shfl.sync.up.b32 %r1|%p1, %tid, 3, 0, -1; selp.u32 %r2, %r1, 99, %p1;\
                 st.global.u32 [%my], %r2;",
        warp(),
    );
    assert!((0..32).all(|i| w[i] == if i >= 3 { i as u32 - 3 } else { 99 }));
    let w = run("shfl.sync.idx.b32 %r1, %tid, 2, 0x181f, -1; st.global.u32 [%my], %r1;", warp());
    assert!((0..32).all(|i| w[i] == (i as u32 & !7) + 2));
}

#[test]
fn votes_matches_and_reductions() {
    let odd = "and.b32 %r1, %tid, 1; setp.eq.u32 %p1, %r1, 1;";
    let w =
        run(&format!("{odd} vote.sync.ballot.b32 %r2, %p1, -1; st.global.u32 [%my], %r2;"), warp());
    assert!(w[..32].iter().all(|v| *v == 0xaaaa_aaaa));
    let w = run(
        "shr.u32 %r1, %tid, 2; match.any.sync.b32 %r2, %r1, -1; st.global.u32 [%my], %r2;",
        warp(),
    );
    assert!((0..32).all(|i| w[i] == 0xf << (i / 4 * 4)));
    let w = run("redux.sync.add.u32 %r2, %tid, -1; st.global.u32 [%my], %r2;", warp());
    assert!(w[..32].iter().all(|v| *v == 496));
    let w =
        run("elect.sync %r2|%p1, -1; selp.u32 %r3, 1, 0, %p1; st.global.u32 [%my], %r3;", warp());
    assert_eq!(w[..32].iter().sum::<u32>(), 1);
}

#[test]
fn lanes_meet_at_sync_instructions_after_divergence() {
    let body = "setp.lt.u32 %p1, %tid, 7; @%p1 bra A; mov.u32 %r1, 5; bra B; A: mov.u32 %r1, 3;\
                shfl.sync.idx.b32 %r1, %r1, 0, 31, 0x7f; B: bar.warp.sync -1;\
                redux.sync.add.u32 %r2, %r1, -1; st.global.u32 [%my], %r2;";
    for seed in 0..20 {
        let w = run(body, Setup { seed, ..warp() });
        assert!(w[..32].iter().all(|v| *v == 7 * 3 + 25 * 5));
    }
}

#[test]
fn a_lane_outside_its_own_mask_is_misuse() {
    breaks(Rule::BarrierMisuse, "bar.warp.sync 0x0fffffff;", warp());
    breaks(
        Rule::Deadlock,
        "setp.lt.u32 %p1, %tid, 16; @%p1 bra A; bar.sync 0; bra B;\
                            A: bar.warp.sync -1; B: mov.u32 %r1, 0;",
        warp(),
    );
}

const EXCHANGE: &str = ".shared .align 4 .b8 s[1024]; mov.u32 %r1, s; shl.b32 %r2, %tid, 2;\
    add.u32 %r3, %r1, %r2; st.shared.u32 [%r3], %tid; BARRIER\
    xor.b32 %r4, %r2, 128; add.u32 %r4, %r4, %r1; ld.shared.u32 %r5, [%r4];\
    st.global.u32 [%my], %r5;";

#[test]
fn block_barriers_order_shared_memory() {
    for seed in 0..10 {
        let body = EXCHANGE.replace("BARRIER", "bar.sync 0;");
        let w = run(&body, Setup { seed, ..threads(128) });
        assert!((0..128).all(|i| w[i] == i as u32 ^ 32));
    }
    // Without the barrier one order reads what is not there yet, another finds the race.
    for seed in 0..10 {
        let got = fault(&EXCHANGE.replace("BARRIER", ""), Setup { seed, ..threads(128) });
        assert!(matches!(got.rule, Rule::Race | Rule::Uninitialised), "{got}");
    }
}

#[test]
fn a_race_names_both_parties() {
    let body = ".shared .align 4 .b8 s[4]; setp.eq.u32 %p1, %tid, 0; @%p1 st.shared.u32 [s], %tid;\
                setp.eq.u32 %p2, %tid, 33; @%p2 st.shared.u32 [s], %tid;";
    let got = fault(body, threads(64));
    assert_eq!(got.rule, Rule::Race);
    let both = (got.actor.unwrap().thread.unwrap()[0], got.others[0].thread.unwrap()[0]);
    assert!(both == (33, 0) || both == (0, 33), "{both:?}");
}

#[test]
fn lanes_of_a_warp_race_too() {
    let body = ".shared .align 4 .b8 s[128]; mov.u32 %r1, s; shl.b32 %r2, %tid, 2;\
                add.u32 %r3, %r1, %r2; st.shared.u32 [%r3], %tid; SYNC xor.b32 %r4, %r2, 4;\
                add.u32 %r4, %r4, %r1; ld.shared.u32 %r5, [%r4]; st.global.u32 [%my], %r5;";
    run(&body.replace("SYNC", "bar.warp.sync -1;"), warp());
    breaks(Rule::Race, &body.replace("SYNC", ""), warp());
}

#[test]
fn barrier_counts_and_numbers() {
    breaks(Rule::BarrierMisuse, "bar.sync 1, 48;", threads(64));
    let one_warp = "setp.lt.u32 %p1, %tid, 32; @%p1 bar.sync 1, 64;";
    breaks(Rule::Deadlock, one_warp, threads(64));
    breaks(Rule::BadOperand, "bar.sync 16;", warp());
    let red = "setp.lt.u32 %p1, %tid, 40; bar.red.popc.u32 %r1, 0, %p1; st.global.u32 [%my], %r1;";
    assert!(run(red, threads(64))[..64].iter().all(|v| *v == 40));
    let named = "shr.u32 %r1, %tid, 6; add.u32 %r1, %r1, 1; bar.sync %r1, 64; \
                 st.global.u32 [%my], %r1;";
    assert_eq!(run(named, threads(128))[127], 2);
}

const PIPELINE: &str = ".shared .align 16 .b8 s[1024]; mov.u32 %r1, s; shl.b32 %r2, %tid, 4;\
    add.u32 %r3, %r1, %r2; cvt.u64.u32 %rd1, %r2; add.u64 %rd2, %in, %rd1;\
    cp.async.cg.shared.global [%r3], [%rd2], 16; cp.async.commit_group;\
    add.u32 %r4, %r3, 512;\
    cp.async.cg.shared.global [%r4], [%rd2], 16; cp.async.commit_group;\
    cp.async.wait_group WAIT; bar.sync 0; xor.b32 %r5, %r2, 16; add.u32 %r5, %r5, %r1;\
    ld.shared.u32 %r6, [%r5]; st.global.u32 [%my], %r6; cp.async.wait_group 0;";

#[test]
fn cp_async_is_visible_only_after_its_wait() {
    let input: Vec<u32> = (0..128).collect();
    let setup = Setup { input: &input, ..warp() };
    let w = run(&PIPELINE.replace("WAIT", "1"), setup);
    assert!((0..32).all(|i| w[i] == (i as u32 ^ 1) * 4));
    breaks(Rule::AsyncInFlight, &PIPELINE.replace("WAIT", "2"), setup);
    let no_barrier = PIPELINE.replace("WAIT", "1").replace("bar.sync 0;", "");
    breaks(Rule::Race, &no_barrier, setup);
    let no_wait = PIPELINE.replace("WAIT", "1").replace("cp.async.wait_group 0;", "");
    breaks(Rule::Leak, &no_wait, setup);
}

/// Warp 0 loads 256 bytes by two bulk copies; warp 1 reads them after the mbarrier's phase.
const BULK: &str = ".shared .align 128 .b8 s[256]; .shared .align 8 .b8 bar[8];\
    mov.u32 %r1, s; mov.u32 %r2, bar; setp.eq.u32 %p1, %tid, 0;\
    @%p1 mbarrier.init.shared::cta.b64 [%r2], 1; bar.sync 0; shr.u32 %r3, %tid, 5;\
    setp.ne.u32 %p2, %r3, 0; @%p2 bra CONSUME; @!%p1 bra DONE;\
    mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r2], BYTES;\
    cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r1], [%in], 128, [%r2];\
    add.u32 %r4, %r1, 128; add.u64 %rd1, %in, 128;\
    cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r4], [%rd1], 128, [%r2];\
    bra DONE; CONSUME: mbarrier.try_wait.parity.shared::cta.b64 %p3, [%r2], PARITY;\
    @!%p3 bra CONSUME; sub.u32 %r5, %tid, 32; shl.b32 %r5, %r5, 3; add.u32 %r5, %r5, %r1;\
    ld.shared.u32 %r6, [%r5]; st.global.u32 [%my], %r6; DONE: mov.u32 %r9, 0;";

fn bulk(bytes: &str, parity: &str) -> String {
    BULK.replace("BYTES", bytes).replace("PARITY", parity)
}

#[test]
fn bulk_copies_complete_a_phase() {
    let input: Vec<u32> = (0..64).map(|i| i * 3).collect();
    for seed in 0..20 {
        let setup = Setup { input: &input, seed, ..threads(64) };
        let w = run(&bulk("256", "0"), setup);
        assert!((0..32).all(|i| w[32 + i] == i as u32 * 6), "seed {seed}");
    }
}

#[test]
fn half_the_bytes_or_the_wrong_parity_is_found() {
    for seed in 0..20 {
        let setup = Setup { seed, ..threads(64) };
        let got = fault(&bulk("128", "0"), setup);
        assert!(
            matches!(got.rule, Rule::AsyncInFlight | Rule::Uninitialised | Rule::Leak),
            "{got}"
        );
        // The phase before the first counts as complete, so parity 1 does not wait at all.
        let got = fault(&bulk("256", "1"), setup);
        assert!(
            matches!(got.rule, Rule::AsyncInFlight | Rule::Uninitialised | Rule::Race | Rule::Leak),
            "{got}"
        );
    }
    breaks(Rule::Deadlock, &bulk("512", "0"), threads(64));
}

#[test]
fn a_missing_initialisation_barrier_is_found() {
    let got = fault(&bulk("256", "0").replace("bar.sync 0;", ""), threads(64));
    assert!(matches!(got.rule, Rule::Race | Rule::BarrierMisuse), "{got}");
}

const STORE: &str = ".shared .align 128 .b8 s[128]; mov.u32 %r1, s; shl.b32 %r2, %tid, 2;\
    add.u32 %r3, %r1, %r2; st.shared.u32 [%r3], %tid; FENCE bar.warp.sync -1;\
    setp.eq.u32 %p1, %tid, 0; @!%p1 bra E;\
    cp.async.bulk.global.shared::cta.bulk_group [%out], [%r1], 128; cp.async.bulk.commit_group;\
    WAIT E: mov.u32 %r9, 0;";

#[test]
fn bulk_stores_need_a_proxy_fence_and_a_wait() {
    let right = STORE.replace("FENCE", "fence.proxy.async.shared::cta;");
    for wait in ["cp.async.bulk.wait_group 0;", "cp.async.bulk.wait_group.read 0;"] {
        let w = run(&right.replace("WAIT", wait), warp());
        assert!((0..32).all(|i| w[i] == i as u32));
    }
    let unfenced = STORE.replace("FENCE", "").replace("WAIT", "cp.async.bulk.wait_group 0;");
    breaks(Rule::MissingProxyFence, &unfenced, warp());
    breaks(Rule::Leak, &right.replace("WAIT", ""), warp());
    let reuse = right.replace("WAIT", "st.shared.u32 [%r1], 7; cp.async.bulk.wait_group 0;");
    breaks(Rule::AsyncInFlight, &reuse, warp());
}

#[test]
fn clusters_share_memory() {
    let body = ".shared .align 4 .b8 s[4]; mov.u32 %r1, %cluster_ctarank; add.u32 %r2, %r1, 100;\
        setp.eq.u32 %p1, %tid, 0; @%p1 st.shared.u32 [s], %r2; SYNC\
        xor.b32 %r3, %r1, 1; mov.u32 %r4, s; mapa.shared::cluster.u32 %r5, %r4, %r3;\
        ld.shared::cluster.u32 %r6, [%r5]; mov.u32 %r7, %ctaid.x; mul.wide.u32 %rd1, %r7, 4;\
        add.u64 %rd1, %rd1, %out; @%p1 st.global.u32 [%rd1], %r6;\
        barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;";
    let sync = "barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;";
    let setup = Setup { blocks: 4, cluster: 2, ..warp() };
    let w = run(&body.replace("SYNC", sync), setup);
    assert_eq!(w[..4], [101, 100, 101, 100]);
    let got = fault(&body.replace("SYNC", ""), setup);
    assert!(matches!(got.rule, Rule::Race | Rule::Uninitialised), "{got}");
}

#[test]
fn spinning_lanes_do_not_starve_their_warp() {
    // Lane 31 sets a flag that the others of the same warp wait for.
    let body = "setp.eq.u32 %p1, %tid, 31; @%p1 bra SET; SPIN: ld.volatile.global.u32 %r1, [%out+512];\
        setp.eq.u32 %p2, %r1, 0; @%p2 bra SPIN; bra END; SET: st.volatile.global.u32 [%out+512], 1;\
        END: st.global.u32 [%my], 9;";
    for seed in 0..10 {
        assert_eq!(run(body, Setup { seed, ..warp() })[..32], [9; 32]);
    }
}

#[test]
fn blocks_may_wait_for_each_other() {
    // Block 0 waits for block 1.
    let body = "mov.u32 %r1, %ctaid.x; setp.eq.u32 %p1, %r1, 1; @%p1 bra SET;\
        SPIN: ld.acquire.gpu.global.u32 %r2, [%out+512]; setp.eq.u32 %p2, %r2, 0; @%p2 bra SPIN;\
        bra END; SET: mov.u32 %r3, 1; atom.release.gpu.global.add.u32 %r4, [%out+512], %r3;\
        END: mov.u32 %r9, 0;";
    run(body, Setup { blocks: 2, ..warp() });
    breaks(Rule::Deadlock, body, Setup { blocks: 1, ..warp() });
}

#[test]
fn endless_kernels_stop() {
    breaks(Rule::Budget, "L: bra L;", Setup { budget: 10_000, ..warp() });
    let all_spin = "mov.u32 %r1, 0; L: add.u32 %r1, %r1, 1; bra L;";
    breaks(Rule::Livelock, all_spin, Setup { budget: u64::MAX, ..warp() });
}

#[test]
fn a_trap_and_a_missing_wgmma_wait_are_faults() {
    breaks(Rule::Trap, "trap;", warp());
    let text = support::program("mov.u32 %r1, %r2; st.global.u32 [%my], %r1;");
    let got = run_text(&text, warp()).err().unwrap();
    assert_eq!(got.rule, Rule::Uninitialised);
}
