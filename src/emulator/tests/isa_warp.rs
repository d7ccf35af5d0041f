//! Exchanges within a warp against the ISA's pseudocode, lane by lane, for every mode and mask.

mod support;

use pacer_emulator::Rule;
use support::{Setup, breaks, run};

fn warp() -> Setup<'static> {
    Setup::default()
}

/// The ISA's pseudocode for shfl.sync: source lane and predicate.
fn source(mode: &str, lane: i32, b: i32, c: i32) -> (i32, bool) {
    let (bval, cval, mask) = (b & 0x1f, c & 0x1f, c >> 8 & 0x1f);
    let max_lane = (lane & mask) | (cval & !mask);
    let min_lane = lane & mask;
    let (j, p) = match mode {
        "up" => (lane - bval, lane - bval >= max_lane),
        "down" => (lane + bval, lane + bval <= max_lane),
        "bfly" => (lane ^ bval, (lane ^ bval) <= max_lane),
        _ => {
            let j = min_lane | (bval & !mask);
            (j, j <= max_lane)
        }
    };
    if p { (j, true) } else { (lane, false) }
}

#[test]
fn shuffles_of_every_mode_and_segment() {
    // c: clamp in bits 0–4, segment mask in bits 8–12; __shfl_*_sync(width) makes these.
    let widths = [32, 16, 8, 4, 2, 1];
    for mode in ["up", "down", "bfly", "idx"] {
        for width in widths {
            let c = (32 - width) << 8 | if mode == "up" { 0 } else { 0x1f };
            for b in [0, 1, 2, 3, 5, 8, 15, 16, 31, 32, 33] {
                let body = format!(
                    "add.u32 %r2, %tid, 100; shfl.sync.{mode}.b32 %r1|%p1, %r2, {b}, {c}, -1; \
                     selp.u32 %r3, 1000, 0, %p1; add.u32 %r1, %r1, %r3; st.global.u32 [%my], %r1;"
                );
                let got = run(&body, warp());
                for lane in 0..32 {
                    let (from, inside) = source(mode, lane, b, c);
                    let want = from + 100 + if inside { 1000 } else { 0 };
                    assert_eq!(got[lane as usize] as i32, want, "{mode} {b} {c:#x}, lane {lane}");
                }
            }
        }
    }
}

#[test]
fn every_lane_may_ask_for_another() {
    let body = "mul.lo.u32 %r2, %tid, 7; and.b32 %r2, %r2, 31; \
                shfl.sync.idx.b32 %r1, %tid, %r2, 31, -1; st.global.u32 [%my], %r1;";
    let got = run(body, warp());
    assert!((0..32).all(|i| got[i] == i as u32 * 7 % 32));
}

#[test]
fn shuffles_among_some_lanes() {
    // Only the lower half takes part; the upper half does its own exchange.
    let body = "setp.lt.u32 %p1, %tid, 16; @%p1 bra LOW; \
                shfl.sync.bfly.b32 %r1, %tid, 8, 31, 0xffff0000; bra END; \
                LOW: shfl.sync.bfly.b32 %r1, %tid, 4, 31, 0x0000ffff; END: st.global.u32 [%my], %r1;";
    let got = run(body, warp());
    assert!((0..16).all(|i| got[i] == i as u32 ^ 4) && (16..32).all(|i| got[i] == i as u32 ^ 8));
    breaks(
        Rule::Undefined,
        "setp.lt.u32 %p1, %tid, 16; @!%p1 exit; \
        shfl.sync.bfly.b32 %r1, %tid, 16, 31, 0x0000ffff; st.global.u32 [%my], %r1;",
        warp(),
    );
    // The same exchange within the lanes that are there.
    run(
        "setp.lt.u32 %p1, %tid, 16; @!%p1 exit; \
         shfl.sync.bfly.b32 %r1, %tid, 8, 31, 0x0000ffff; st.global.u32 [%my], %r1;",
        warp(),
    );
}

#[test]
fn votes() {
    for limit in [0u32, 1, 17, 31, 32] {
        let code = |mode: &str, ty: &str, d: &str, back: &str| {
            format!(
                "setp.lt.u32 %p1, %tid, {limit}; vote.sync.{mode}.{ty} {d}, %p1, -1; {back} \
                 st.global.u32 [%my], %r1;"
            )
        };
        let truth = "selp.u32 %r1, 1, 0, %p2;";
        let all = |body: String| {
            let got = run(&body, warp());
            assert!(got[..32].iter().all(|v| *v == got[0]));
            got[0]
        };
        assert_eq!(all(code("all", "pred", "%p2", truth)), u32::from(limit == 32));
        assert_eq!(all(code("any", "pred", "%p2", truth)), u32::from(limit > 0));
        assert_eq!(all(code("uni", "pred", "%p2", truth)), u32::from(limit == 0 || limit == 32));
        assert_eq!(u64::from(all(code("ballot", "b32", "%r1", ""))), (1u64 << limit) - 1);
    }
    // Negated, and among the named lanes only: the others count as nothing.
    let body = "setp.lt.u32 %p1, %tid, 4; setp.lt.u32 %p3, %tid, 8; @!%p3 exit; \
                vote.sync.ballot.b32 %r1, !%p1, 0xff; st.global.u32 [%my], %r1;";
    assert_eq!(run(body, warp())[3], 0xf0);
    let body = "setp.lt.u32 %p1, %tid, 8; @!%p1 exit; vote.sync.all.pred %p2, %p1, 0xff; \
                selp.u32 %r1, 1, 0, %p2; st.global.u32 [%my], %r1;";
    assert_eq!(run(body, warp())[0], 1);
}

#[test]
fn matches() {
    let values = |i: u32| i / 3 % 4;
    let body = "div.u32 %r1, %tid, 3; and.b32 %r1, %r1, 3; match.any.sync.b32 %r2, %r1, -1; \
                st.global.u32 [%my], %r2;";
    let got = run(body, warp());
    for i in 0..32u32 {
        let want = (0..32).filter(|j| values(*j) == values(i)).fold(0, |m, j| m | 1 << j);
        assert_eq!(got[i as usize], want);
    }
    let wide = "cvt.u64.u32 %rd1, %tid; shl.b64 %rd1, %rd1, 31; and.b64 %rd1, %rd1, 0x100000000; \
                match.any.sync.b64 %r2, %rd1, -1; st.global.u32 [%my], %r2;";
    let got = run(wide, warp());
    assert!((0..32).all(|i| got[i] == if i % 4 >= 2 { 0xcccc_cccc } else { 0x3333_3333 }));
    let all = |value: &str| {
        let body = format!(
            "{value} match.all.sync.b32 %r2|%p1, %r1, -1; selp.u32 %r3, 1, 0, %p1; \
             mul.wide.u32 %rd1, %tid, 8; add.u64 %rd1, %rd1, %out; st.global.v2.u32 [%rd1], {{%r2, %r3}};"
        );
        run(&body, warp())[..2].to_vec()
    };
    assert_eq!(all("mov.u32 %r1, 9;"), [u32::MAX, 1]);
    assert_eq!(all("shr.u32 %r1, %tid, 4;"), [0, 0]);
}

#[test]
fn reductions_of_every_operation() {
    let value = |i: u32| i.wrapping_mul(0x9e37_79b9) ^ 0x8000_0000;
    let make = "mul.lo.u32 %r1, %tid, 0x9e3779b9; xor.b32 %r1, %r1, 0x80000000;";
    type Fold = fn(u32, u32) -> u32;
    let cases: [(&str, Fold); 9] = [
        ("add.u32", u32::wrapping_add),
        ("add.s32", u32::wrapping_add),
        ("min.u32", u32::min),
        ("max.u32", u32::max),
        ("min.s32", |a, b| (a as i32).min(b as i32) as u32),
        ("max.s32", |a, b| (a as i32).max(b as i32) as u32),
        ("and.b32", |a, b| a & b),
        ("or.b32", |a, b| a | b),
        ("xor.b32", |a, b| a ^ b),
    ];
    for (op, fold) in cases {
        let body = format!("{make} redux.sync.{op} %r2, %r1, -1; st.global.u32 [%my], %r2;");
        let want = (0..32).map(value).reduce(fold).unwrap();
        assert!(run(&body, warp())[..32].iter().all(|v| *v == want), "{op}");
        let part = format!(
            "{make} setp.lt.u32 %p1, %tid, 5; @!%p1 exit; redux.sync.{op} %r2, %r1, 0x1f; \
             st.global.u32 [%my], %r2;"
        );
        let want = (0..5).map(value).reduce(fold).unwrap();
        assert!(run(&part, warp())[..5].iter().all(|v| *v == want), "{op} of five lanes");
    }
}

#[test]
fn active_lanes_and_lane_masks() {
    let got = run("activemask.b32 %r1; st.global.u32 [%my], %r1;", warp());
    assert_eq!(got[31], u32::MAX);
    let half =
        "setp.lt.u32 %p1, %tid, 7; @!%p1 exit; activemask.b32 %r1; st.global.u32 [%my], %r1;";
    assert_eq!(run(half, warp())[6], 0x7f);
    type Mask = fn(u64) -> u64;
    let masks: [(&str, Mask); 5] = [
        ("eq", |i| 1 << i),
        ("lt", |i| (1 << i) - 1),
        ("le", |i| (2 << i) - 1),
        ("gt", |i| 0xffff_ffff & !((2 << i) - 1)),
        ("ge", |i| 0xffff_ffff & !((1 << i) - 1)),
    ];
    for (name, want) in masks {
        let got = run(&format!("mov.u32 %r1, %lanemask_{name}; st.global.u32 [%my], %r1;"), warp());
        assert!((0..32).all(|i| u64::from(got[i]) == want(i as u64)), "{name}");
    }
    let got = run(
        "mov.u32 %r1, %laneid; mov.u32 %r2, %warpid; shl.b32 %r2, %r2, 8; \
                   or.b32 %r1, %r1, %r2; st.global.u32 [%my], %r1;",
        Setup { threads: 70, ..warp() },
    );
    assert!((0..70).all(|i| got[i] == (i as u32 % 32) | (i as u32 / 32) << 8));
}

#[test]
fn one_lane_is_elected() {
    for mask in [0xffff_ffffu32, 0x0000_00f0, 0x8000_0000] {
        let body = format!(
            "mov.u32 %r4, %lanemask_eq; and.b32 %r4, %r4, {mask}; setp.eq.u32 %p2, %r4, 0; \
             @%p2 exit; elect.sync %r2|%p1, {mask}; selp.u32 %r3, 100, 0, %p1; \
             add.u32 %r3, %r3, %r2; st.global.u32 [%my], %r3;"
        );
        let got = run(&body, warp());
        let members: Vec<usize> = (0..32).filter(|i| mask >> i & 1 == 1).collect();
        let chosen: Vec<usize> = members.iter().copied().filter(|i| got[*i] >= 100).collect();
        assert_eq!(chosen.len(), 1, "{mask:#x}");
        assert!(members.iter().all(|i| got[*i] as usize % 100 == chosen[0]));
    }
}

/// A lane outside its own mask, lanes that name different masks, and lanes that have left.
#[test]
fn member_masks_are_kept_to() {
    for op in [
        "shfl.sync.bfly.b32 %r1, %tid, 1, 31, 0xff;",
        "vote.sync.ballot.b32 %r1, %p1, 0xff;",
        "redux.sync.add.u32 %r1, %tid, 0xff;",
        "match.any.sync.b32 %r1, %tid, 0xff;",
        "elect.sync %r1|%p2, 0xff;",
        "bar.warp.sync 0xff;",
    ] {
        breaks(Rule::BarrierMisuse, &format!("setp.eq.u32 %p1, %tid, 0; {op}"), warp());
        let within =
            format!("setp.eq.u32 %p1, %tid, 0; setp.lt.u32 %p3, %tid, 8; @!%p3 exit; {op}");
        run(&within, warp());
    }
    // Half of the named lanes never come: they wait at another barrier.
    let stuck = "setp.lt.u32 %p1, %tid, 16; @%p1 bra A; bar.warp.sync 0xffff0000; bar.sync 0; bra B; \
                 A: redux.sync.add.u32 %r1, %tid, -1; B: mov.u32 %r2, 0;";
    breaks(Rule::Deadlock, stuck, warp());
}

/// A warp that is not full: its missing lanes are nobody.
#[test]
fn partial_warps() {
    let body = "mov.u32 %r9, 0x1ff; redux.sync.add.u32 %r1, %tid, %r9; st.global.u32 [%my], %r1;";
    assert_eq!(run(body, Setup { threads: 9, ..warp() })[8], 36);
    let body =
        "setp.lt.u32 %p1, %tid, 100; vote.sync.ballot.b32 %r1, %p1, -1; st.global.u32 [%my], %r1;";
    assert_eq!(run(body, Setup { threads: 9, ..warp() })[0], 0x1ff);
}

/// Lanes part and meet again; loops with different trip counts; calls of device functions.
#[test]
fn divergence_and_reconvergence() {
    let body = "mov.u32 %r1, 0; mov.u32 %r2, 0; L: add.u32 %r2, %r2, %r1; add.u32 %r1, %r1, 1; \
                setp.le.u32 %p1, %r1, %tid; @%p1 bra L; bar.warp.sync -1; \
                redux.sync.add.u32 %r3, %r2, -1; st.global.u32 [%my], %r3;";
    let want: u32 = (0..32u32).map(|t| (0..=t).sum::<u32>()).sum();
    for seed in 0..20 {
        assert!(run(body, Setup { seed, ..warp() })[..32].iter().all(|v| *v == want));
    }
    let nested = "and.b32 %r1, %tid, 1; and.b32 %r2, %tid, 2; setp.ne.u32 %p1, %r1, 0; \
                  setp.ne.u32 %p2, %r2, 0; @%p1 bra A; @%p2 bra B; mov.u32 %r3, 10; bra E; \
                  B: mov.u32 %r3, 12; bra E; A: @%p2 bra C; mov.u32 %r3, 11; bra E; \
                  C: mov.u32 %r3, 13; E: shfl.sync.bfly.b32 %r4, %r3, 3, 31, -1; \
                  st.global.u32 [%my], %r4;";
    for seed in 0..20 {
        let got = run(nested, Setup { seed, ..warp() });
        assert!((0..32).all(|i| got[i] == 10 + (i as u32 ^ 3) % 4));
    }
}

#[test]
fn branches_by_a_table() {
    let body = "and.b32 %r1, %tid, 3; T: .branchtargets A, B, C, D; brx.idx %r1, T; \
                A: mov.u32 %r2, 5; bra E; B: mov.u32 %r2, 6; bra E; C: mov.u32 %r2, 7; bra E; \
                D: mov.u32 %r2, 8; E: st.global.u32 [%my], %r2;";
    let got = run(body, warp());
    assert!((0..32).all(|i| got[i] == 5 + i as u32 % 4));
    breaks(Rule::OutOfBounds, &body.replace("%tid, 3", "%tid, 7"), warp());
}
