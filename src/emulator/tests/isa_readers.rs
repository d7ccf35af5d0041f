//! Races with one of many: a place that several warps or blocks have read, or written without
//! conflict, is free for a writer only when every one of them is ordered before it.

mod support;

use pacer_emulator::Rule;
use support::{Setup, breaks, fault, run};

/// Ways in which 32 lanes touch memory: all one word, a row, words apart.
const PLACES: [(&str, &str); 3] = [
    ("one word", "mov.u32 %r10, 0;"),
    ("a row", "shl.b32 %r10, %lane, 2;"),
    ("words apart", "mul.lo.u32 %r10, %lane, 12;"),
];

/// Warps 0 to 2 do `first`; those in `told` then arrive at a barrier; warp 3 waits for them
/// there and does `second`.
fn one_after_three(space: &str, place: &str, first: &str, told: &[u32], second: &str) -> String {
    let shared = space == "shared";
    let (declare, base) = match shared {
        true => (".shared .align 64 .b8 s[512]; mov.u32 %r11, s; add.u32 %r12, %r11, %r10;", ""),
        false => ("", "cvt.u64.u32 %rd1, %r10; add.u64 %rd1, %rd1, %out; add.u64 %rd1, %rd1, 512;"),
    };
    let at = if shared { "%r12" } else { "%rd1" };
    let fill = |op: &str| op.replace("SPACE", space).replace("AT", at);
    let clear = match shared {
        true => {
            "shl.b32 %r13, %tid, 2; add.u32 %r13, %r13, %r11; st.shared.u32 [%r13], 0; bar.sync 0;"
        }
        false => "",
    };
    let count = 32 * (1 + told.len());
    let arrive = |warp: u32| match told.contains(&warp) {
        true => format!("bar.arrive 1, {count};"),
        false => String::new(),
    };
    let warps: String = (0..3)
        .map(|w| {
            let next = w + 1;
            format!(
                "setp.ne.u32 %p1, %warp, {w}; @%p1 bra W{next}; {} {} bra END; W{next}: ",
                fill(first),
                arrive(w)
            )
        })
        .collect();
    format!(
        ".reg .b32 %lane, %warp; and.b32 %lane, %tid, 31; shr.u32 %warp, %tid, 5; {place} {declare} \
         {base} {clear} {warps} bar.sync 1, {count}; {} END: mov.u32 %r20, 0;",
        fill(second)
    )
}

const SPACES: [&str; 2] = ["global", "shared"];

fn warps(seed: u64) -> Setup<'static> {
    Setup { threads: 128, seed, ..Setup::default() }
}

const READ: &str = "ld.SPACE.u32 %r1, [AT];";
const WRITE: &str = "st.SPACE.u32 [AT], 1;";
const ADD: &str = "red.SPACE.add.u32 [AT], 1;";

#[track_caller]
fn all_three_count(space: &str, first: &str, second: &str) {
    for (name, place) in PLACES {
        for seed in 0..6 {
            run(&one_after_three(space, place, first, &[0, 1, 2], second), warps(seed));
            for told in [&[0u32, 1][..], &[0, 2], &[1, 2], &[0], &[1], &[2]] {
                let body = one_after_three(space, place, first, told, second);
                let got = fault(&body, warps(seed));
                assert_eq!(got.rule, Rule::Race, "{space}, {name}, {told:?}: {got}");
                let parties = [got.actor.as_ref().unwrap(), &got.others[0]];
                let mut rest = parties.map(|p| p.thread.unwrap()[0] / 32);
                rest.sort_unstable();
                assert!(rest[1] == 3 && !told.contains(&rest[0]), "{name}, {told:?}: {got}");
            }
        }
    }
}

#[test]
fn a_writer_after_three_readers() {
    for space in SPACES {
        all_three_count(space, READ, WRITE);
        all_three_count(space, READ, ADD);
    }
}

#[test]
fn a_reader_or_writer_after_three_atomics() {
    for space in SPACES {
        all_three_count(space, ADD, READ);
        all_three_count(space, ADD, WRITE);
    }
}

/// Each of two warps writes one half of every word: both are kept.
#[test]
fn halves_of_words() {
    // The third warp takes no part.
    let halves = "setp.eq.u32 %p6, %warp, 2; @%p6 bra END; setp.eq.u32 %p5, %warp, 0; \
        @%p5 st.SPACE.u16 [AT], 1; @!%p5 st.SPACE.u16 [AT+2], 1;";
    let (low, high) = ("ld.SPACE.u16 %h1, [AT];", "ld.SPACE.u16 %h1, [AT+2];");
    for space in SPACES {
        for (_, place) in &PLACES[1..] {
            for seed in 0..6 {
                let go = |told: &[u32], second| one_after_three(space, place, halves, told, second);
                for (told, second) in [(&[0, 1][..], READ), (&[0], low), (&[1], high)] {
                    run(&go(told, second), warps(seed));
                }
                for (told, second) in [(0, READ), (1, READ), (0, high), (1, low)] {
                    breaks(Rule::Race, &go(&[told], second), warps(seed));
                }
            }
        }
    }
}

/// Blocks 0 to 2 read a word; those that then count themselves are known to block 3, which waits
/// for them and writes it.
fn blocks(told: &[u32], threads: u32) -> String {
    let count = |b: &u32| {
        format!("setp.eq.u32 %p2, %r1, {b}; @%p2 red.release.gpu.global.add.u32 [%out], 1;")
    };
    let counts: String = told.iter().map(count).collect();
    format!(
        "mov.u32 %r1, %ctaid.x; setp.eq.u32 %p1, %r1, 3; @%p1 bra W; ld.global.u32 %r2, [%my+512]; \
         {counts} bra E; W: ld.acquire.gpu.global.u32 %r3, [%out]; setp.lt.u32 %p3, %r3, {}; \
         @%p3 bra W; st.global.u32 [%my+512], 7; E: mov.u32 %r4, 0;",
        told.len() as u32 * threads
    )
}

#[test]
fn a_writer_after_readers_of_other_blocks() {
    for threads in [1, 32] {
        for seed in 0..12 {
            let setup = Setup { blocks: 4, threads, seed, ..Setup::default() };
            run(&blocks(&[0, 1, 2], threads), setup);
            for told in [&[0u32, 1][..], &[0, 2], &[1, 2], &[2]] {
                let got = fault(&blocks(told, threads), setup);
                assert_eq!(got.rule, Rule::Race, "{told:?}: {got}");
                let parties = [got.actor.as_ref().unwrap(), &got.others[0]];
                let mut both = parties.map(|p| p.block[0]);
                both.sort_unstable();
                assert!(both[1] == 3 && !told.contains(&both[0]), "{told:?}: {got}");
            }
        }
    }
}

/// Many read, all meet, one writes, all meet again: nothing to report, however often.
#[test]
fn readers_that_meet_a_writer() {
    let body = "shl.b32 %r2, %tid, 2; and.b32 %r3, %r2, 124; cvt.u64.u32 %rd1, %r3; \
        add.u64 %rd1, %rd1, %out; mov.u32 %r1, 0; L: ld.global.u32 %r4, [%rd1+512]; \
        ld.global.u32 %r5, [%out+512]; bar.sync 0; shr.u32 %r6, %tid, 5; and.b32 %r7, %r1, 3; \
        setp.eq.u32 %p1, %r6, %r7; @%p1 st.global.u32 [%rd1+512], %r1; bar.sync 0; \
        add.u32 %r1, %r1, 1; setp.lt.u32 %p2, %r1, 20; @%p2 bra L; st.global.u32 [%my+1024], %r4;";
    for seed in 0..20 {
        let words = run(body, warps(seed));
        assert!(words[256..384].iter().all(|w| *w == 18));
    }
}
