//! Blocks that order their memory through flags: for each way to do it right, under many schedules,
//! nothing is reported; for each part of it that is taken away, the race is, with both parties.

mod support;

use pacer_emulator::Rule;
use support::{Setup, breaks, fault, run};

/// Block 0 writes a word and raises a flag; block 1 waits for the flag and reads the word.
/// `raise` and `look` are the orders around the flag.
fn message(raise: &str, look: &str) -> String {
    format!(
        "add.u64 %rd1, %out, 256; mov.u32 %r1, %ctaid.x; setp.ne.u32 %p1, %r1, 0; @%p1 bra R; \
         st.global.u32 [%out+512], 7; {raise} bra E; \
         R: {look} setp.eq.u32 %p2, %r2, 0; @%p2 bra R; AFTER \
         ld.global.u32 %r3, [%out+512]; st.global.u32 [%out], %r3; E: mov.u32 %r4, 0;"
    )
}

fn blocks(blocks: u32, seed: u64) -> Setup<'static> {
    Setup { blocks, threads: 1, seed, ..Setup::default() }
}

const FENCE: &str = "fence.acq_rel.gpu;";
const RAISE: &str = "st.relaxed.gpu.global.u32 [%rd1], 1;";
const LOOK: &str = "ld.relaxed.gpu.global.u32 %r2, [%rd1];";

fn pair(raise: &str, look: &str, after: &str) -> String {
    message(raise, look).replace("AFTER", after)
}

#[test]
fn a_message_that_is_ordered() {
    let fenced = format!("{FENCE} {RAISE}");
    let released = "st.release.gpu.global.u32 [%rd1], 1;";
    let exchanged = "atom.release.gpu.global.exch.b32 %r9, [%rd1], 1;";
    let added = format!("{FENCE} red.global.add.u32 [%rd1], 1;");
    let volatile = "membar.gl; st.volatile.global.u32 [%rd1], 1;";
    let raises = [&fenced, released, exchanged, &added, volatile];
    let acquired = "ld.acquire.gpu.global.u32 %r2, [%rd1];";
    let looks = [
        (LOOK, FENCE),
        (acquired, ""),
        ("ld.acquire.sys.global.u32 %r2, [%rd1];", ""),
        ("atom.acquire.gpu.global.add.u32 %r2, [%rd1], 0;", ""),
        ("atom.global.or.b32 %r2, [%rd1], 0;", "membar.gl;"),
        ("ld.volatile.global.u32 %r2, [%rd1];", "fence.sc.gpu;"),
    ];
    for raise in raises {
        for (look, after) in looks {
            let body = pair(raise, look, after);
            for seed in 0..8 {
                assert_eq!(run(&body, blocks(2, seed))[0], 7);
            }
        }
    }
    for seed in 0..200 {
        run(&pair(&fenced, LOOK, FENCE), blocks(2, seed));
        run(&pair(released, acquired, ""), blocks(2, seed));
    }
}

#[test]
fn a_message_that_lacks_a_part() {
    let released = "st.release.gpu.global.u32 [%rd1], 1;";
    let acquired = "ld.acquire.gpu.global.u32 %r2, [%rd1];";
    let block_fence = format!("fence.acq_rel.cta; {RAISE}");
    let late = format!("{RAISE} {FENCE}");
    let wrong = [
        ("no fence before the flag", RAISE, LOOK, FENCE),
        ("no fence after the flag", released, LOOK, ""),
        ("neither", RAISE, LOOK, ""),
        ("a fence of the block", &block_fence, LOOK, FENCE),
        ("a fence too late", &late, LOOK, FENCE),
        ("a release of the block", "st.release.cta.global.u32 [%rd1], 1;", acquired, ""),
        ("an acquire of the block", released, "ld.acquire.cta.global.u32 %r2, [%rd1];", ""),
        ("a block's fence after it", released, LOOK, "membar.cta;"),
        (
            "another flag",
            "st.release.gpu.global.u32 [%rd1+4], 1; st.relaxed.gpu.global.u32 [%rd1], 1;",
            acquired,
            "",
        ),
    ];
    for (name, raise, look, after) in wrong {
        for seed in 0..6 {
            let got = fault(&pair(raise, look, after), blocks(2, seed));
            assert_eq!(got.rule, Rule::Race, "{name}: {got}");
            let parties = [got.actor.as_ref().unwrap(), &got.others[0]];
            let mut numbers = parties.map(|p| p.block[0]);
            numbers.sort_unstable();
            assert_eq!(numbers, [0, 1], "{name}: {got}");
            assert!(parties.iter().all(|p| p.place.line > 0 && p.thread == Some([0; 3])), "{got}");
        }
    }
}

/// A plain store ends what a release began; an atomic goes on with it.
#[test]
fn release_sequences() {
    let raise = "st.release.gpu.global.u32 [%rd1], 0; BETWEEN";
    let acquired = "ld.acquire.gpu.global.u32 %r2, [%rd1];";
    let go = |between: &str| pair(&raise.replace("BETWEEN", between), acquired, "");
    run(&go("red.relaxed.gpu.global.add.u32 [%rd1], 1;"), blocks(2, 0));
    breaks(Rule::Race, &go("st.relaxed.gpu.global.u32 [%rd1], 1;"), blocks(2, 0));
}

/// What block 0 told block 1, block 1 tells block 2.
#[test]
fn order_is_handed_on() {
    let chain = "mov.u32 %r1, %ctaid.x; mul.wide.u32 %rd2, %r1, 4; add.u64 %rd3, %out, 256; \
        add.u64 %rd1, %rd3, %rd2; setp.eq.u32 %p1, %r1, 0; @%p1 bra FIRST; \
        R: ld.acquire.gpu.global.u32 %r2, [%rd1+-4]; setp.eq.u32 %p2, %r2, 0; @%p2 bra R; bra NEXT; \
        FIRST: st.global.u32 [%out+512], 7; \
        NEXT: ld.global.u32 %r3, [%out+512]; add.u32 %r3, %r3, 1; st.global.u32 [%out+512], %r3; \
        st.RELEASE.gpu.global.u32 [%rd1], 1;";
    for seed in 0..50 {
        let words = run(&chain.replace("RELEASE", "release"), blocks(6, seed));
        assert_eq!(words[128], 13);
    }
    breaks(Rule::Race, &chain.replace("RELEASE", "relaxed"), blocks(6, 3));
}

/// A barrier hands what a block's threads did to the one that fences, and what that one learnt back.
#[test]
fn one_thread_orders_for_its_block() {
    let body = ".shared .align 4 .b8 last[4]; mov.u32 %r1, %ctaid.x; shl.b32 %r1, %r1, 6; \
        add.u32 %r1, %r1, %tid; mul.wide.u32 %rd1, %r1, 4; add.u64 %rd1, %rd1, %out; \
        st.global.u32 [%rd1+1024], %tid; BEFORE setp.ne.u32 %p1, %tid, 0; @%p1 bra W; \
        OUT atom.global.add.u32 %r2, [%out], 1; IN st.shared.u32 [last], %r2; \
        W: bar.sync 0; ld.shared.u32 %r3, [last]; setp.ne.u32 %p2, %r3, 3; @%p2 exit; \
        ld.global.u32 %r4, [%my+1024]; ld.global.u32 %r5, [%my+1280]; add.u32 %r4, %r4, %r5; \
        ld.global.u32 %r5, [%my+1792]; add.u32 %r4, %r4, %r5; st.global.u32 [%my+256], %r4;";
    let go = |before: &str, out: &str, inward: &str| {
        body.replace("BEFORE", before).replace("OUT", out).replace("IN", inward)
    };
    let setup = |seed| Setup { blocks: 4, threads: 64, seed, ..Setup::default() };
    for seed in 0..200 {
        let words = run(&go("bar.sync 0;", "membar.gl;", "membar.gl;"), setup(seed));
        assert!((0..64).all(|t| words[64 + t] == 3 * t as u32));
    }
    for seed in 0..6 {
        breaks(Rule::Race, &go("", "membar.gl;", "membar.gl;"), setup(seed));
        breaks(Rule::Race, &go("bar.sync 0;", "", "membar.gl;"), setup(seed));
        breaks(Rule::Race, &go("bar.sync 0;", "membar.gl;", ""), setup(seed));
        breaks(Rule::Race, &go("bar.sync 0;", "membar.cta;", "membar.gl;"), setup(seed));
    }
}

/// The same within a block, and through a flag in shared memory.
#[test]
fn flags_within_a_block() {
    let body = ".shared .align 8 .b8 s[8]; mov.u32 %r8, s; setp.eq.u32 %p1, %tid, 0; \
        @%p1 st.shared.v2.u32 [%r8], {0, 0}; bar.sync 0; setp.ne.u32 %p2, %tid, 32; @%p1 bra A; \
        @%p2 bra E; R: ld.LOOK.cta.shared.u32 %r2, [%r8]; setp.eq.u32 %p3, %r2, 0; @%p3 bra R; \
        ld.shared.u32 %r3, [%r8+4]; st.global.u32 [%out], %r3; bra E; \
        A: st.shared.u32 [%r8+4], 5; st.RAISE.cta.shared.u32 [%r8], 1; E: mov.u32 %r4, 0;";
    let setup = |seed| Setup { threads: 64, seed, ..Setup::default() };
    for seed in 0..50 {
        let right = body.replace("LOOK", "acquire").replace("RAISE", "release");
        assert_eq!(run(&right, setup(seed))[0], 5);
    }
    breaks(Rule::Race, &body.replace("LOOK", "relaxed").replace("RAISE", "release"), setup(0));
    breaks(Rule::Race, &body.replace("LOOK", "acquire").replace("RAISE", "relaxed"), setup(0));
}
