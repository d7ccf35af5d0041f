//! Races: for each way to order two accesses, the program that has it and the one that lacks it.

mod support;

use pacer_emulator::Rule;
use support::{Setup, breaks, fault, run};

fn threads(threads: u32) -> Setup<'static> {
    Setup { threads, ..Setup::default() }
}

/// Two warps touch one word: FIRST by thread 0, SECOND by thread 32, with MIDDLE between.
fn two(space: &str, first: &str, middle: &str, second: &str) -> String {
    let (declare, at) = match space {
        "shared" => (".shared .align 8 .b8 s[8]; mov.u32 %r9, s;", "%r9"),
        _ => ("add.u64 %rd9, %out, 512;", "%rd9"),
    };
    let fill = |op: &str| op.replace("AT", at).replace("SPACE", space);
    format!(
        "{declare} setp.eq.u32 %p1, %tid, 0; setp.eq.u32 %p2, %tid, 32; setp.eq.u32 %p3, %tid, 64; \
         @%p3 {} bar.sync 0; @%p1 {} {middle} @%p2 {}",
        fill("st.SPACE.u64 [AT], 0;"),
        fill(first),
        fill(second)
    )
}

const WRITE: &str = "st.SPACE.u32 [AT], 1;";
const READ: &str = "ld.SPACE.u32 %r1, [AT];";
const ADD: &str = "red.SPACE.add.u32 [AT], 1;";
const STRONG_READ: &str = "ld.relaxed.gpu.SPACE.u32 %r1, [AT];";
const STRONG_WRITE: &str = "st.relaxed.gpu.SPACE.u32 [AT], 1;";

#[test]
fn conflicting_accesses_need_a_barrier() {
    for space in ["shared", "global"] {
        for (first, second) in
            [(WRITE, WRITE), (WRITE, READ), (READ, WRITE), (ADD, READ), (WRITE, ADD)]
        {
            run(&two(space, first, "bar.sync 0;", second), threads(96));
            for seed in 0..6 {
                let setup = Setup { seed, ..threads(96) };
                let got = fault(&two(space, first, "", second), setup);
                assert_eq!(got.rule, Rule::Race, "{space}: {first} {second}: {got}");
                let actor = got.actor.as_ref().and_then(|a| a.thread).unwrap()[0];
                let other = got.others[0].thread.unwrap()[0];
                assert_eq!((actor.min(other), actor.max(other)), (0, 32), "{got}");
                assert!(got.others[0].place.line > 0 && got.actor.as_ref().unwrap().place.line > 0);
            }
        }
    }
}

#[test]
fn what_is_no_conflict() {
    for space in ["shared", "global"] {
        for (first, second) in [
            (READ, READ),
            (ADD, ADD),
            (STRONG_WRITE, STRONG_READ),
            (STRONG_READ, ADD),
            // Different bytes of a word.
            ("st.SPACE.u16 [AT], 1;", "st.SPACE.u16 [AT+2], 1;"),
            ("st.SPACE.u8 [AT+1], 1;", "ld.SPACE.u16 %r1, [AT+2];"),
            ("st.SPACE.u32 [AT], 1;", "st.SPACE.u32 [AT+4], 1;"),
        ] {
            for seed in 0..6 {
                run(&two(space, first, "", second), Setup { seed, ..threads(96) });
            }
        }
        breaks(
            Rule::Race,
            &two(space, "st.SPACE.u16 [AT], 1;", "", "ld.SPACE.u32 %r1, [AT];"),
            threads(96),
        );
        breaks(
            Rule::Race,
            &two(space, "st.SPACE.u64 [AT], 1;", "", "st.SPACE.u32 [AT+4], 1;"),
            threads(96),
        );
    }
}

/// A barrier that does not include both, or that comes before, orders nothing.
#[test]
fn barriers_that_miss_the_point() {
    for space in ["shared", "global"] {
        breaks(Rule::Race, &two(space, WRITE, "bar.warp.sync -1;", READ), threads(96));
        let before = two(space, WRITE, "", READ).replace("bar.sync 0;", "bar.sync 0; bar.sync 0;");
        breaks(Rule::Race, &before, threads(96));
        let mine = "shr.u32 %r5, %tid, 5; add.u32 %r5, %r5, 1; bar.sync %r5, 32;";
        breaks(Rule::Race, &two(space, WRITE, mine, READ), threads(96));
        run(&two(space, WRITE, "bar.sync 1, 96;", READ), threads(96));
    }
}

/// Lanes of a warp that converge are not ordered by that alone.
#[test]
fn lanes_of_one_warp() {
    let exchange = |space: &str, between: &str| {
        let (declare, base) = match space {
            "shared" => {
                (".shared .align 4 .b8 s[128]; mov.u32 %r8, s; cvt.u64.u32 %rd8, %r8;", "%rd8")
            }
            _ => ("", "%out"),
        };
        let addr = |lane: &str, to: &str| match space {
            "shared" => format!("shl.b32 {to}, {lane}, 2; add.u32 {to}, {to}, %r8;"),
            _ => format!(
                "mul.wide.u32 %rd7, {lane}, 4; add.u64 {}, %rd7, {base};",
                to.replace("%r", "%rd")
            ),
        };
        let reg =
            |to: &str| if space == "shared" { to.to_string() } else { to.replace("%r", "%rd") };
        format!(
            "{declare} {} st.{space}.u32 [{}], %tid; {between} xor.b32 %r1, %tid, 1; {} ld.{space}.u32 %r4, [{}];",
            addr("%tid", "%r2"),
            reg("%r2"),
            addr("%r1", "%r3"),
            reg("%r3")
        )
    };
    for space in ["shared", "global"] {
        run(&exchange(space, "bar.warp.sync -1;"), threads(32));
        run(&exchange(space, "bar.sync 0;"), threads(32));
        breaks(Rule::Race, &exchange(space, ""), threads(32));
    }
}

/// All lanes of a warp write one place by one instruction: one of them wins, which is allowed.
/// By two instructions it is a race.
#[test]
fn one_instruction_of_a_warp() {
    for space in ["shared", "global"] {
        let (declare, at) = match space {
            "shared" => (".shared .align 4 .b8 s[4];", "s"),
            _ => ("", "%out"),
        };
        run(&format!("{declare} st.{space}.u32 [{at}], %tid;"), threads(32));
        let parts = format!(
            "{declare} setp.lt.u32 %p1, %tid, 16; @%p1 st.{space}.u32 [{at}], 1; @!%p1 st.{space}.u32 [{at}], 2;"
        );
        breaks(Rule::Race, &parts, threads(32));
        breaks(Rule::Race, &format!("{declare} st.{space}.u32 [{at}], %tid;"), threads(64));
    }
}

/// One instruction that a warp comes by twice is two: in a loop that one lane at a time stores
/// in, the lanes race with each other; the same lane, or all of them each time, do not.
#[test]
fn one_instruction_of_a_warp_twice() {
    for space in ["shared", "global"] {
        let (declare, at) = match space {
            "shared" => (".shared .align 4 .b8 s[4];", "s"),
            _ => ("", "%out"),
        };
        let turns = |who: &str, between: &str| {
            format!(
                "{declare} mov.u32 %r1, 0; L: {who} @%p1 st.{space}.u32 [{at}], %r1; {between} \
                 add.u32 %r1, %r1, 1; setp.lt.u32 %p2, %r1, 4; @%p2 bra L;"
            )
        };
        let next = "setp.eq.u32 %p1, %tid, %r1;";
        breaks(Rule::Race, &turns(next, ""), threads(32));
        run(&turns(next, "bar.warp.sync -1;"), threads(32));
        run(&turns("setp.eq.u32 %p1, %tid, 3;", ""), threads(32));
        run(&turns("setp.eq.u32 %p1, %tid, %tid;", ""), threads(1));
    }
}

/// Blocks of a grid are not ordered with each other.
#[test]
fn blocks_of_a_grid() {
    let two = Setup { blocks: 2, ..threads(32) };
    let own = "mov.u32 %r1, %ctaid.x; mad.lo.u32 %r1, %r1, STEP, %tid; mul.wide.u32 %rd1, %r1, 4; \
               add.u64 %rd1, %rd1, %out; st.global.u32 [%rd1], %tid;";
    run(&own.replace("STEP", "32"), two);
    let overlap = fault(&own.replace("STEP", "31"), two);
    assert_eq!(overlap.rule, Rule::Race);
    assert!(overlap.message.contains("block ("), "{overlap}");
    // Reading what another block writes, either order.
    let peer = "mov.u32 %r1, %ctaid.x; setp.eq.u32 %p1, %r1, 0; @%p1 st.global.u32 [%out], 1; \
                @!%p1 ld.global.u32 %r2, [%out];";
    breaks(Rule::Race, peer, two);
    run(
        &peer
            .replace("st.global", "st.relaxed.gpu.global")
            .replace("ld.global", "ld.relaxed.gpu.global"),
        two,
    );
    run("red.global.add.u32 [%out], 1;", two);
    let mixed = "red.global.add.u32 [%out], 1; ld.global.u32 %r1, [%out];";
    breaks(Rule::Race, mixed, two);
    // One block has no rival.
    run(mixed, threads(1));
    // Half words side by side, as rows of 16-bit results are.
    let halves =
        own.replace("STEP", "31").replace("4;", "2;").replace("st.global.u32", "st.global.u16");
    breaks(Rule::Race, &halves, two);
    let apart =
        own.replace("STEP", "33").replace("4;", "2;").replace("st.global.u32", "st.global.u16");
    run(&apart, two);
}

/// Blocks that order themselves by fences; see `isa_order` for what happens without them.
#[test]
fn the_last_block_may_read_all() {
    let body = ".shared .align 4 .b8 last[4]; mov.u32 %r1, %ctaid.x; mul.wide.u32 %rd1, %r1, 4; \
        add.u64 %rd1, %rd1, %out; setp.ne.u32 %p1, %tid, 0; @%p1 bra W; st.global.u32 [%rd1+64], %r1; \
        fence.acq_rel.gpu; atom.global.add.u32 %r2, [%out], 1; st.shared.u32 [last], %r2; fence.acq_rel.gpu; \
        W: bar.sync 0; ld.shared.u32 %r3, [last]; setp.ne.u32 %p2, %r3, 3; @%p2 exit; @%p1 exit; \
        ld.global.v4.u32 {%r4, %r5, %r6, %r7}, [%out+64]; add.u32 %r4, %r4, %r5; add.u32 %r4, %r4, %r6; \
        add.u32 %r4, %r4, %r7; st.global.u32 [%out+128], %r4;";
    for seed in 0..10 {
        assert_eq!(run(body, Setup { blocks: 4, seed, ..threads(64) })[32], 6);
    }
}

/// The order of launches orders their memory.
#[test]
fn launches_follow_each_other() {
    use pacer_emulator::{Checks, LaunchSpec, Memory, Module, launch};
    let module = Module::parse(&support::program("ld.global.u32 %r1, [%out]; add.u32 %r1, %r1, 1; \
        setp.eq.u32 %p1, %tid, 0; @%p1 bra A; bra B; A: st.global.u32 [%out+128], %r1; B: mov.u32 %r2, 0;")).unwrap();
    let mut memory = Memory::new();
    let out = memory.alloc(4096).unwrap();
    memory.write(out, &[0; 4096]).unwrap();
    let mut params = out.to_le_bytes().to_vec();
    params.extend(out.to_le_bytes());
    // More launches than there are numbers for them.
    for i in 0..600u64 {
        let spec = LaunchSpec {
            kernel: "k",
            grid: [1; 3],
            block: [64, 1, 1],
            cluster: [1; 3],
            shared_bytes: 0,
            params: &params,
            symbols: &[],
            seed: i % 3,
            budget: 10_000,
            checks: Checks::ALL,
            threads: 1,
        };
        launch(&module, &memory, &spec).unwrap_or_else(|f| panic!("launch {i}: {f}"));
    }
}

/// Bulk copies take part: they act when they are performed, and know what their thread knew when it
/// started them.
#[test]
fn bulk_copies_of_global_memory() {
    let fill = ".shared .align 128 .b8 s[128]; .shared .align 8 .b8 bar[8]; mov.u32 %r8, s; \
        shl.b32 %r2, %tid, 2; add.u32 %r2, %r2, %r8; setp.lt.u32 %p1, %tid, 32; \
        @%p1 st.shared.u32 [%r2], %tid; fence.proxy.async.shared::cta; bar.sync 0; \
        setp.eq.u32 %p2, %tid, 0;";
    let store = "@!%p2 bra J; cp.async.bulk.global.shared::cta.bulk_group [%out], [s], 128; \
        cp.async.bulk.commit_group; MIDDLE cp.async.bulk.wait_group 0; J: ";
    let go =
        |middle: &str, after: &str| format!("{fill} {} {after}", store.replace("MIDDLE", middle));
    let read = "setp.eq.u32 %p3, %tid, 40; @%p3 ld.global.u32 %r3, [%out+64];";
    let own = "ld.global.u32 %r3, [%out+64];";
    for seed in 0..10 {
        let setup = Setup { seed, ..threads(64) };
        run(&go("", &format!("bar.sync 0; {read}")), setup);
        run(&go("", &format!("@%p2 {own}")), setup);
        breaks(Rule::Race, &go("", read), setup);
        breaks(Rule::Race, &go(own, ""), setup);
        breaks(Rule::Race, &go("st.global.u32 [%out+124], %tid;", ""), setup);
        run(&go("st.global.u32 [%out+128], %tid;", ""), setup);
    }
    // The source has been read, but nothing is written yet.
    let early = go("", &format!("bar.sync 0; {read}")).replace("wait_group 0", "wait_group.read 0");
    breaks(Rule::Race, &early, threads(64));
    // Two blocks write one place.
    breaks(Rule::Race, &go("", ""), Setup { blocks: 2, ..threads(64) });
    // A load of what another thread writes.
    let load = |between: &str| {
        format!(
            "{fill} @%p2 mbarrier.init.shared.b64 [bar], 1; fence.proxy.async; bar.sync 0; \
             setp.eq.u32 %p3, %tid, 40; @%p3 st.global.u32 [%out+64], 1; {between} @!%p2 bra J; \
             mbarrier.arrive.expect_tx.shared.b64 _, [bar], 128; \
             cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [s], [%out], 128, [bar]; \
             T: mbarrier.try_wait.parity.shared.b64 %p4, [bar], 0; @!%p4 bra T; J: mov.u32 %r1, 0;"
        )
    };
    for seed in 0..10 {
        let setup = Setup { seed, ..threads(64) };
        run(&load("fence.proxy.async.global; bar.sync 0;"), setup);
        breaks(Rule::MissingProxyFence, &load("bar.sync 0;"), setup);
        breaks(Rule::Race, &load(""), setup);
    }
}

/// Allocations of any size are tracked, where they are touched.
#[test]
fn large_allocations() {
    let body = "mov.u32 %r1, %ctaid.x; mul.wide.u32 %rd1, %r1, STEP; add.u64 %rd1, %rd1, %my; \
                add.u64 %rd1, %rd1, 67108864; st.global.u32 [%rd1], %tid;";
    let setup = Setup { words: (65 << 20) / 4, blocks: 2, ..threads(32) };
    breaks(Rule::Race, &body.replace("STEP", "124"), setup);
    run(&body.replace("STEP", "128"), setup);
}
