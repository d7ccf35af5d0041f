//! Lanes that do not execute an instruction keep what they have, and lanes that do are not mixed
//! up, whatever way through the machine an access takes: a full warp at consecutive addresses, a
//! part of one, addresses apart, backwards, or one for all.

mod support;

use support::{Setup, run};

/// Runs `body` with 32 threads over 256 words that hold `1000 + i` at %in.
fn lanes(body: &str, seed: u64) -> Vec<u32> {
    let input: Vec<u32> = (0..256).map(|i| 1000 + i).collect();
    run(body, Setup { input: &input, words: 512, seed, ..Setup::default() })
}

/// Which lanes execute: the predicate that is true in them.
const MASKS: [(&str, fn(u32) -> bool); 6] = [
    ("setp.lt.u32 %p1, %tid, 32;", |_| true),
    ("setp.lt.u32 %p1, %tid, 7;", |lane| lane < 7),
    ("setp.ge.u32 %p1, %tid, 31;", |lane| lane == 31),
    ("and.b32 %r9, %tid, 1; setp.eq.u32 %p1, %r9, 1;", |lane| lane % 2 == 1),
    ("and.b32 %r9, %tid, 12; setp.ne.u32 %p1, %r9, 4;", |lane| lane & 12 != 4),
    ("setp.gt.u32 %p1, %tid, 99;", |_| false),
];

/// Word that each lane touches.
const PLACES: [(&str, fn(u32) -> u32); 6] = [
    ("mov.u32 %r8, %tid;", |lane| lane),
    ("add.u32 %r8, %tid, 16;", |lane| lane + 16),
    ("add.u32 %r8, %tid, 3;", |lane| lane + 3),
    ("mul.lo.u32 %r8, %tid, 5;", |lane| 5 * lane),
    ("sub.u32 %r8, 31, %tid;", |lane| 31 - lane),
    ("mov.u32 %r8, 9;", |_| 9),
];

#[test]
fn loads_of_some_lanes() {
    for (mask, active) in MASKS {
        for (place, word) in PLACES {
            let body = format!(
                "{mask} {place} mul.wide.u32 %rd1, %r8, 4; add.u64 %rd1, %rd1, %in; mov.u32 %r1, 77; \
                 mov.u64 %rd2, 78; mov.u32 %r2, 79; @%p1 ld.global.u32 %r1, [%rd1]; \
                 @%p1 ld.global.u32 %rd2, [%rd1]; @%p1 ld.global.u16 %r2, [%rd1]; \
                 cvt.u32.u64 %r3, %rd2; st.global.u32 [%my], %r1; st.global.u32 [%my+128], %r3; \
                 st.global.u32 [%my+256], %r2;"
            );
            let got = lanes(&body, 0);
            for lane in 0..32u32 {
                let want = if active(lane) { [1000 + word(lane); 3] } else { [77, 78, 79] };
                let own = [0, 32, 64].map(|n| got[(n + lane) as usize]);
                assert_eq!(own, want, "{mask} {place} lane {lane}");
            }
        }
    }
}

#[test]
fn stores_of_some_lanes() {
    for (mask, active) in MASKS {
        // The last place is one for all lanes: which of them wins is open.
        for (place, word) in &PLACES[..5] {
            for space in ["global", "shared"] {
                let fill = "mov.u32 %r5, %tid; F: mul.wide.u32 %rd3, %r5, 4; cvt.u32.u64 %r6, %rd3; \
                    add.u32 %r6, %r6, %r4; st.shared.u32 [%r6], 0; add.u32 %r5, %r5, 32; \
                    setp.lt.u32 %p2, %r5, 256; @%p2 bra F; bar.sync 0;";
                let copy = "bar.sync 0; mov.u32 %r5, %tid; C: mul.wide.u32 %rd3, %r5, 4; \
                    cvt.u32.u64 %r6, %rd3; add.u32 %r6, %r6, %r4; ld.shared.u32 %r7, [%r6]; \
                    add.u64 %rd4, %rd3, %out; st.global.u32 [%rd4], %r7; add.u32 %r5, %r5, 32; \
                    setp.lt.u32 %p2, %r5, 256; @%p2 bra C;";
                let at = "mul.wide.u32 %rd1, %r8, 4; add.u64 %rd2, %rd1, %out; cvt.u32.u64 %r3, %rd1; \
                    add.u32 %r3, %r3, %r4; add.u32 %r1, %tid, 500;";
                let store = match space {
                    "global" => "@%p1 st.global.u32 [%rd2], %r1;".to_string(),
                    _ => format!("{fill} @%p1 st.shared.u32 [%r3], %r1; {copy}"),
                };
                let got = lanes(
                    &format!(
                        ".shared .align 128 .b8 s[1024]; mov.u32 %r4, s; {mask} {place} {at} {store}"
                    ),
                    0,
                );
                let mut want = vec![0; 256];
                for lane in (0..32).filter(|lane| active(*lane)) {
                    want[word(lane) as usize] = 500 + lane;
                }
                assert_eq!(got[..256], want[..], "{space} {mask} {place}");
            }
        }
    }
}

/// Arithmetic, comparisons and selections of some lanes.
#[test]
fn results_of_some_lanes() {
    type Want = fn(u32) -> u32;
    let ops: [(&str, Want); 8] =
        [
            ("add.u32 %r1, %tid, 5;", |lane| lane + 5),
            ("mul.wide.u32 %rd1, %tid, 3; cvt.u32.u64 %r1, %rd1;", |lane| 3 * lane),
            ("setp.gt.s32 %p2, %tid, 12; selp.u32 %r1, 1, 2, %p2;", |l| if l > 12 { 1 } else { 2 }),
            ("setp.le.u64 %p2, %rd5, 9; selp.b64 %rd1, 3, 4, %p2; cvt.u32.u64 %r1, %rd1;", |l| {
                if l <= 9 { 3 } else { 4 }
            }),
            ("setp.lt.f32 %p2, %f5, 0f41200000; selp.u32 %r1, 5, 6, %p2;", |l| {
                if l < 10 { 5 } else { 6 }
            }),
            ("fma.rn.f32 %f1, %f5, %f5, %f5; cvt.rzi.u32.f32 %r1, %f1;", |l| l * l + l),
            ("ex2.approx.f32 %f1, %f6; cvt.rni.u32.f32 %r1, %f1;", |l| 1 << (l % 16)),
            ("set.ne.u32.u32 %r1, %r6, 3;", |l| if l % 16 == 3 { 0 } else { u32::MAX }),
        ];
    for (mask, active) in MASKS {
        for (op, want) in ops {
            let guarded: String = op.split_inclusive(';').map(|i| format!("@%p1 {i} ")).collect();
            let body = format!(
                "{mask} cvt.u64.u32 %rd5, %tid; cvt.rn.f32.u32 %f5, %tid; and.b32 %r6, %tid, 15; \
                 cvt.rn.f32.u32 %f6, %r6; mov.u32 %r1, 4242; {guarded} st.global.u32 [%my], %r1;"
            );
            let got = lanes(&body, 0);
            for lane in 0..32u32 {
                let want = if active(lane) { want(lane) } else { 4242 };
                assert_eq!(got[lane as usize], want, "{mask} {op} lane {lane}");
            }
        }
    }
}
