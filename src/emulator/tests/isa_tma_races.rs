//! Tensor and bulk copies as parties of races: against threads, against each other, and through
//! proxies. For each way to order them, the program that has it and the one that lacks it.

mod support;

use pacer_emulator::tensor::swizzle::Swizzle;
use pacer_emulator::tensor::tensormap::{MapType, TensorMap};
use pacer_emulator::{Fault, Rule};
use support::{Setup, program, run_text};

const WORDS: usize = 8192;
/// Bytes of the input before the tensor's own: its map.
const MAP: usize = 256;
/// Rows of 32 words, two of them a tile.
const ROWS: usize = 8;

/// A map and the tensor behind it: word `i` is `i`.
fn input() -> Vec<u32> {
    // Where the input lies: after the output and a gap (see `isa_tma`).
    let at = (0x7_0000_0000u64 + 4 * WORDS as u64 + 4096).next_multiple_of(256) + MAP as u64;
    let dims = [32, ROWS as u64];
    let map = TensorMap::tiled(MapType::U32, at, &dims, &[128], &[32, 2], Swizzle::None).unwrap();
    let bytes = map.encode();
    let mut words: Vec<u32> =
        bytes.chunks(4).map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect();
    words.resize(MAP / 4, 0);
    words.extend(0..32 * ROWS as u32);
    words
}

/// Names of what the programs below are made of; `#` is a number of the place.
const PARTS: [(&str, &str); 8] = [
    (
        "LOAD",
        "@!%p1 bra L#; mbarrier.arrive.expect_tx.shared.b64 _, [bar], 256; \
         cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes \
         [s], [%in, {0, 0}], [bar]; L#:",
    ),
    ("WAIT", "T#: mbarrier.try_wait.parity.shared.b64 %p3, [bar], PARITY; @!%p3 bra T#;"),
    ("FILL", "st.shared.u32 [%r8], %tid; fence.proxy.async.shared::cta; bar.sync 0;"),
    (
        "STORE_OWN",
        "@!%p1 bra S#; \
         cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%in, {0, %r12}], [s];",
    ),
    (
        "STORE",
        "@!%p1 bra S#; \
         cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%in, {0, 0}], [s];",
    ),
    (
        "REDUCE",
        "@!%p1 bra S#; \
         cp.reduce.async.bulk.tensor.2d.global.shared::cta.add.tile.bulk_group [%in, {0, 0}], [s];",
    ),
    ("DONE", "cp.async.bulk.commit_group; cp.async.bulk.wait_group 0; S#:"),
    ("SENT", "cp.async.bulk.commit_group; cp.async.bulk.wait_group.read 0; S#:"),
];

/// Two warps a block, a tile in `s`, an mbarrier, thread 0 in %p1 and thread 32 in %p2, the
/// tensor's first word at %rd9, the block in %p5 (true: the first) and %r12.
fn go(body: &str, setup: Setup<'_>) -> Result<(), Box<Fault>> {
    let start = "add.u64 %rd9, %in, 256; .shared .align 128 .b8 s[256]; .shared .align 8 .b8 bar[8]; \
        setp.eq.u32 %p1, %tid, 0; setp.eq.u32 %p2, %tid, 32; mov.u32 %r8, s; shl.b32 %r9, %tid, 2; \
        add.u32 %r8, %r8, %r9; mov.u32 %r12, %ctaid.x; setp.eq.u32 %p5, %r12, 0; shl.b32 %r12, %r12, 1; \
        @%p1 mbarrier.init.shared.b64 [bar], 1; @%p1 fence.mbarrier_init.release.cluster; bar.sync 0;";
    let named = PARTS.iter().fold(body.to_string(), |text, (name, part)| text.replace(name, part));
    // A copy's number goes up after its label, a wait's after its branch.
    let (mut text, mut copies, mut waits) = (String::new(), 0, 0);
    let mut rest = named.as_str();
    while let Some(at) = rest.find('#') {
        let (head, tail) = rest.split_at(at);
        let (head, tail) = (head.replace("PARITY", &(waits % 2).to_string()), &tail[1..]);
        let (wait, label) = (head.ends_with('T'), tail.starts_with(':'));
        text += &format!("{head}{}", if wait { waits } else { copies });
        waits += usize::from(wait && !label);
        copies += usize::from(!wait && label);
        rest = tail;
    }
    run_text(&program(&format!("{start} {text}{rest}")), setup).map(|_| ())
}

#[track_caller]
fn fine(body: &str) {
    each(body, 1, |got| assert!(got.is_ok(), "{}\n{body}", got.unwrap_err()));
}

#[track_caller]
fn breaks(rule: Rule, body: &str) {
    each(body, 1, |got| assert_eq!(got.as_ref().map_err(|f| f.rule), Err(rule), "{got:?}\n{body}"));
}

#[track_caller]
fn each(body: &str, blocks: u32, check: impl Fn(Result<(), Box<Fault>>)) {
    let input = input();
    for seed in 0..8 {
        let (threads, words) = (64, WORDS);
        check(go(body, Setup { threads, blocks, words, input: &input, seed, ..Setup::default() }));
    }
}

const READ_TILE: &str = "ld.shared.u32 %r1, [%r8];";

#[test]
fn a_load_into_a_stage_still_read() {
    fine(&format!("LOAD WAIT {READ_TILE} bar.sync 0; LOAD WAIT"));
    // Without a barrier, with one of the first warp alone: as the schedule has it, the other warp
    // has read, is about to, or has not seen the first phase before the second was over.
    let half = "setp.lt.u32 %p4, %tid, 32; @%p4 bar.sync 1, 32;";
    for between in ["", half, "bar.warp.sync -1;"] {
        each(&format!("LOAD WAIT {READ_TILE} {between} LOAD WAIT"), 1, |got| {
            let rule = got.unwrap_err().rule;
            let rules = [Rule::Race, Rule::AsyncInFlight, Rule::Deadlock];
            assert!(rules.contains(&rule), "{between}: {rule:?}");
        });
    }
    // A thread still writes there: as the schedule has it before the copy began or under way.
    each("@%p2 st.shared.u32 [s], 1; LOAD WAIT", 1, |got| {
        let rule = got.unwrap_err().rule;
        assert!([Rule::Race, Rule::AsyncInFlight].contains(&rule), "{rule:?}");
    });
    // It writes or reads there while the copy is under way.
    breaks(Rule::AsyncInFlight, "LOAD @%p1 st.shared.u32 [s], 1; WAIT");
    breaks(Rule::AsyncInFlight, "LOAD @%p1 ld.shared.u32 %r1, [s]; WAIT");
}

#[test]
fn a_load_into_a_stage_still_stored() {
    let elsewhere = "add.u32 %r12, %r12, 4; FILL STORE_OWN";
    fine(&format!("{elsewhere} SENT LOAD WAIT @%p1 cp.async.bulk.wait_group 0;"));
    fine(&format!("{elsewhere} DONE LOAD WAIT"));
    breaks(Rule::AsyncInFlight, "FILL STORE cp.async.bulk.commit_group; S#: LOAD WAIT");
}

#[test]
fn a_store_against_threads() {
    for other in ["st.global.u32 [%rd9+252], 1;", "ld.global.u32 %r1, [%rd9+252];"] {
        fine(&format!("FILL STORE DONE bar.sync 0; @%p2 {other}"));
        fine(&format!("@%p2 {other} fence.proxy.async; FILL STORE DONE"));
        breaks(Rule::Race, &format!("FILL STORE DONE @%p2 {other}"));
        breaks(Rule::Race, &format!("FILL STORE SENT bar.sync 0; @%p2 {other}"));
        breaks(Rule::Race, &format!("FILL @%p2 {other} STORE DONE"));
        // Beside the tile.
        fine(&format!("FILL @%p2 {} STORE DONE", other.replace("252", "256")));
    }
}

#[test]
fn a_store_against_copies() {
    // What was stored and waited for may be loaded: both are of one proxy.
    fine("FILL STORE DONE LOAD WAIT");
    breaks(Rule::Race, "FILL STORE SENT LOAD WAIT @%p1 cp.async.bulk.wait_group 0;");
    let two = |body: &str, rule: Option<Rule>| {
        each(body, 2, |got| assert_eq!(got.map_err(|f| f.rule).err(), rule, "{body}"));
    };
    two("FILL STORE DONE", Some(Rule::Race));
    two("FILL STORE_OWN DONE", None);
    two("FILL REDUCE DONE", None);
    two("FILL @%p5 bra A; REDUCE DONE bra E; A: STORE DONE E:", Some(Rule::Race));
    let with_thread =
        |other: &str| format!("FILL @%p5 bra A; REDUCE DONE bra E; A: @%p2 {other} E:");
    two(&with_thread("red.global.add.u32 [%rd9], 1;"), None);
    two(&with_thread("st.global.u32 [%rd9], 1;"), Some(Rule::Race));
    two(&with_thread("ld.global.u32 %r1, [%rd9];"), Some(Rule::Race));
    two(&with_thread("ld.global.u32 %r1, [%rd9+256];"), None);
}

/// What a thread wrote, a copy reads only after an order and a fence of the proxy for the space,
/// on either side of the order.
#[test]
fn a_load_of_what_threads_write() {
    let write = "@%p2 st.global.u32 [%rd9+128], 5;";
    breaks(Rule::Race, &format!("{write} LOAD WAIT"));
    breaks(Rule::Race, &format!("{write} fence.proxy.async; LOAD WAIT"));
    breaks(Rule::MissingProxyFence, &format!("{write} bar.sync 0; LOAD WAIT"));
    for fence in ["fence.proxy.async;", "fence.proxy.async.global;"] {
        fine(&format!("{write} {fence} bar.sync 0; LOAD WAIT"));
        fine(&format!("{write} bar.sync 0; {fence} LOAD WAIT"));
        // Before the write it covers nothing.
        breaks(Rule::MissingProxyFence, &format!("{fence} {write} bar.sync 0; LOAD WAIT"));
    }
    for fence in [
        "fence.proxy.async.shared::cta;",
        "fence.acq_rel.gpu;",
        "fence.proxy.alias;",
        "fence.mbarrier_init.release.cluster;",
        "fence.proxy.tensormap::generic.release.gpu;",
    ] {
        breaks(Rule::MissingProxyFence, &format!("{write} {fence} bar.sync 0; {fence} LOAD WAIT"));
    }
    // The thread that starts the copy is no exception.
    let own = write.replace("%p2", "%p1");
    breaks(Rule::MissingProxyFence, &format!("{own} LOAD WAIT"));
    fine(&format!("{own} fence.proxy.async.global; LOAD WAIT"));
    // Nor are stores, and reductions, of what it then covers.
    breaks(Rule::MissingProxyFence, &format!("{write} FILL STORE DONE"));
    breaks(Rule::MissingProxyFence, &format!("{write} FILL REDUCE DONE"));
    fine(&format!("{write} fence.proxy.async.global; FILL REDUCE DONE"));
}

/// A message to another block carries the fence of either side.
#[test]
fn a_load_of_what_another_block_wrote() {
    let body = |before: &str, after: &str| {
        format!(
            "@!%p5 bra R; @%p1 st.global.u32 [%rd9], 9; {before} \
             @%p1 st.release.gpu.global.u32 [%out], 1; bra E; \
             R: ld.acquire.gpu.global.u32 %r13, [%out]; setp.eq.u32 %p6, %r13, 0; @%p6 bra R; {after} \
             LOAD WAIT E:"
        )
    };
    let two = |body: &str, rule: Option<Rule>| {
        each(body, 2, |got| assert_eq!(got.map_err(|f| f.rule).err(), rule, "{body}"));
    };
    two(&body("fence.proxy.async;", ""), None);
    two(&body("", "fence.proxy.async.global;"), None);
    two(&body("", ""), Some(Rule::MissingProxyFence));
    let relaxed = body("fence.proxy.async;", "").replace("st.release", "st.relaxed");
    two(&relaxed, Some(Rule::Race));
}

/// A map that the kernel writes is read by a proxy of its own.
#[test]
fn a_map_that_threads_write() {
    let copy = "setp.lt.u32 %p4, %tid, 16; mul.wide.u32 %rd1, %tid, 8; add.u64 %rd2, %rd1, %in; \
        add.u64 %rd3, %rd1, %out; @%p4 ld.global.u64 %rd4, [%rd2]; @%p4 st.global.u64 [%rd3], %rd4;";
    let load = "@!%p1 bra L; mbarrier.arrive.expect_tx.shared.b64 _, [bar], 256; \
        cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes \
        [s], [%out, {0, 0}], [bar]; L: WAIT";
    let acquire = "fence.proxy.tensormap::generic.acquire.gpu [%out], 128;";
    let release = "fence.proxy.tensormap::generic.release.gpu;";
    fine(&format!("{copy} bar.sync 0; {acquire} {load}"));
    fine(&format!("{copy} {release} bar.sync 0; {load}"));
    breaks(Rule::MissingProxyFence, &format!("{copy} bar.sync 0; {load}"));
    breaks(Rule::MissingProxyFence, &format!("{copy} fence.proxy.async; bar.sync 0; {load}"));
    breaks(Rule::Race, &format!("{copy} {release} {load}"));
}

/// A multicast load into a block of the cluster that still reads its tile.
#[test]
fn a_load_into_another_blocks_stage() {
    let body = |between: &str| {
        format!(
            "st.shared.u32 [%r8], 1; bar.sync 0; {READ_TILE} @%p1 mbarrier.arrive.expect_tx.shared.b64 _, [bar], 256; {between} \
             @!%p5 bra J; @!%p1 bra J; mov.u16 %h1, 3; \
             cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster \
             [s], [%in, {{0, 0}}], [bar], %h1; J: WAIT barrier.cluster.arrive.aligned; \
             barrier.cluster.wait.aligned;"
        )
    };
    let input = input();
    for seed in 0..8 {
        let (threads, blocks, cluster) = (64, 2, 2);
        let setup = Setup {
            threads,
            blocks,
            cluster,
            words: WORDS,
            input: &input,
            seed,
            ..Setup::default()
        };
        let met = "barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;";
        assert!(go(&body(met), setup).is_ok());
        let got = go(&body("bar.sync 0;"), setup).unwrap_err();
        // As the schedule has it, the other block reads, is about to write, or has no barrier yet.
        let rules = [Rule::Race, Rule::AsyncInFlight, Rule::BarrierMisuse];
        assert!(rules.contains(&got.rule), "{got}");
    }
}
