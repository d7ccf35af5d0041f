//! Typical one-line kernel bugs, planted in the PTX of the test kernels. Each must be reported by
//! name or give a wrong answer on some shape and seed; none may pass.
//!
//! A mutation edits lines that contain a pattern: all of them, when one source line was unrolled
//! into several, or the n-th.

mod kernel_cases;

use kernel_cases::{Case, Failure, SHAPES, case};

/// Which of the lines with the pattern change.
#[derive(Clone, Copy)]
enum Which {
    All,
    Nth(usize),
}
use Which::{All, Nth};

/// Name of the bug, kernel file, pattern of the line, which lines, text in them, its replacement
/// (an empty text: the whole line goes).
type Mutation = (&'static str, &'static str, &'static str, Which, &'static str, &'static str);

/// Constant part of gemm_sm90's descriptors: leading offset 16, stride 1024, 128-byte swizzle.
const DESCRIPTOR: &str = "4611686293305360384";

#[rustfmt::skip]
const MUTATIONS: &[Mutation] = &[
    // cp.async pipeline
    ("no barrier in the ring loop", "gemm_sm80", "bar.sync", All, "", ""),
    ("wait_group off by one", "gemm_sm80", "cp.async.wait_group 1", All, "1", "2"),
    ("no wait_group", "gemm_sm80", "cp.async.wait_group 1", All, "", ""),
    ("no commit in the loop", "gemm_sm80", "cp.async.commit_group", Nth(1), "", ""),
    ("ldmatrix transposed", "gemm_sm80", "ldmatrix", Nth(2), ".x4.", ".x4.trans."),
    ("wrong element type", "gemm_sm80", "mma.sync", All, ".bf16.bf16.", ".f16.f16."),
    ("swizzle without its xor", "gemm_sm80", "xor.b32", Nth(0), "xor.b32", "or.b32"),
    ("zero fill forgotten", "gemm_sm80", "selp.b32", All, ", 16, 0,", ", 16, 16,"),
    ("row bound > for >=", "gemm_sm80", ", %r162;", All, "setp.ge", "setp.gt"),
    ("column bound > for >=", "gemm_sm80", ", %r163;", All, "setp.ge", "setp.gt"),
    // TMA, mbarrier, wgmma
    ("half the expect_tx bytes", "gemm_sm90", "mov.u32", All, ", 24576", ", 12288"),
    ("twice the expect_tx bytes", "gemm_sm90", "mov.u32", All, ", 24576", ", 49152"),
    ("stages overlap", "gemm_sm90", "mul.lo.s32", All, ", 24576", ", 16384"),
    ("staging overlaps the ring", "gemm_sm90", "add.s32", All, ", 73728", ", 65536"),
    ("consumer parity never flips", "gemm_sm90", "xor.b32  \t%r494", All, "xor.b32", "or.b32"),
    ("no fence.proxy.async", "gemm_sm90", "fence.proxy.async", Nth(1), "", ""),
    ("no wgmma.fence", "gemm_sm90", "wgmma.fence", All, "", ""),
    ("no wgmma.commit_group", "gemm_sm90", "wgmma.commit_group", All, "", ""),
    ("no last wgmma wait", "gemm_sm90", "wgmma.wait_group.sync.aligned 0", All, "", ""),
    ("stage reused too early", "gemm_sm90", "wgmma.wait_group", All, "aligned 1", "aligned 2"),
    ("descriptor swizzle 64 B", "gemm_sm90", DESCRIPTOR, All, DESCRIPTOR, "9223372311732748288"),
    ("descriptor no swizzle", "gemm_sm90", DESCRIPTOR, All, DESCRIPTOR, "274877972480"),
    ("descriptor stride halved", "gemm_sm90", DESCRIPTOR, All, DESCRIPTOR, "4611686155866406912"),
    ("wrong k step", "gemm_sm90", "add.s32 \t%r161", All, ", 32", ", 64"),
    ("uninitialised accumulator", "gemm_sm90", "setp.ne.b32 p, %r145", All, ".ne.", ".eq."),
    ("accumulator overwritten", "gemm_sm90", "setp.ne.b32 p, %r148", Nth(0), ".ne.", ".eq."),
    ("no barrier before the store", "gemm_sm90", "bar.sync %r2", Nth(1), "", ""),
    ("no barrier before staging", "gemm_sm90", "bar.sync %r2", Nth(0), "", ""),
    ("store source not waited for", "gemm_sm90", "bulk.wait_group.read", All, "", ""),
    ("store never waited for", "gemm_sm90", "bulk.wait_group 0", All, "", ""),
    ("no bulk commit", "gemm_sm90", "bulk.commit_group", All, "", ""),
    ("stage never released", "gemm_sm90", "mbarrier.arrive.shared::cta.b64 _, [%r222]", All, "", ""),
    ("no barrier after initialising", "gemm_sm90", "bar.sync \t0", All, "", ""),
    // Block and warp exchange
    ("no barrier after partial sums", "rmsnorm", "bar.sync", Nth(0), "", ""),
    ("no barrier after the inverse", "rmsnorm", "bar.sync", Nth(1), "", ""),
    ("barrier for some lanes only", "rmsnorm", "bar.sync", Nth(0), "bar.sync", "@%p11 bar.sync"),
    ("shuffle with half a mask", "rmsnorm", "mov.u32", Nth(usize::MAX), ", -1;", ", 65535;"),
    ("misaligned vector load", "rmsnorm", "ld.global.nc.v4", Nth(0), "[%rd62]", "[%rd62+8]"),
    ("vector bound > for >=", "rmsnorm", "setp.ge.s32 \t%p1,", All, "setp.ge", "setp.gt"),
    ("no barrier before merging", "softmax", "bar.sync", All, "", ""),
    ("shuffle with half a mask", "softmax", "mov.u32", Nth(usize::MAX), ", -1;", ", 65535;"),
    ("element bound > for >=", "softmax", "setp.ge.s32 \t%p6,", All, "setp.ge", "setp.gt"),
    ("pair bound > for >=", "rope", "setp.ge.s64", All, "setp.ge", "setp.gt"),
    ("no barrier after partial sums", "cluster_sum", "bar.sync", All, "", ""),
    ("no first cluster arrive", "cluster_sum", "barrier.cluster.arrive", Nth(0), "", ""),
    ("no last cluster wait", "cluster_sum", "barrier.cluster.wait", Nth(1), "", ""),
    ("page waited for too late", "paged_decode", "cp.async.wait_group 1", All, "1", "2"),
    ("no barrier before a page", "paged_decode", "bar.sync", Nth(0), "", ""),
    ("page buffer reused too early", "paged_decode", "bar.sync", Nth(1), "", ""),
    ("no barrier after clearing", "topk", "bar.sync", Nth(0), "", ""),
    ("no barrier after counting", "topk", "bar.sync", Nth(1), "", ""),
    ("no barrier after the digit", "topk", "bar.sync", Nth(2), "", ""),
    ("no barrier before collecting", "topk", "bar.sync", Nth(3), "", ""),
    ("rank > for >=", "topk", "setp.ge.s32 \t%p45", All, "setp.ge", "setp.gt"),
    ("no barrier before the winner", "sample", "bar.sync", All, "", ""),
    ("wrong Philox multiplier", "sample", "-766435501", All, "-766435501", "-766435503"),
    ("reduction with half a mask", "fp8", "mov.u32", Nth(usize::MAX), ", -1;", ", 65535;"),
    ("group bound > for >=", "fp8", "setp.ge.s32 \t%p1, %r3", All, "setp.ge", "setp.gt"),
    ("row bound > for >=", "int4_gemv", "setp.ge.s32 \t%p1,", All, "setp.ge", "setp.gt"),
    ("shuffle with half a mask", "int4_gemv", "mov.u32", Nth(usize::MAX), ", -1;", ", 65535;"),
    // Global memory through the asynchronous proxy
    ("no fence before a bulk copy", "relay", "fence.proxy.async", All, "", ""),
    ("fence of shared memory only", "relay", "fence.proxy.async", All, ".global", ".shared::cta"),
    ("fence without a proxy", "relay", "fence.proxy.async", All, "fence.proxy.async.global", "fence.acq_rel.gpu"),
    ("no barrier before a bulk copy", "relay", "bar.sync", Nth(1), "", ""),
    ("bulk copy a row too far", "relay", "cp.async.bulk.shared", All, "[%rd13]", "[%rd13+128]"),
    // Order between blocks
    ("no fence before the ticket", "split_sum", "membar.gl", Nth(0), "", ""),
    ("no fence after the ticket", "split_sum", "membar.gl", Nth(1), "", ""),
    ("fence of the block only", "split_sum", "membar.gl", Nth(0), "membar.gl", "membar.cta"),
    ("no fence at all", "split_sum", "membar.gl", All, "", ""),
    ("no barrier before the ticket", "split_sum", "bar.sync", Nth(0), "", ""),
    ("no barrier after the ticket", "split_sum", "bar.sync", Nth(1), "", ""),
    ("ticket not atomic", "split_sum", "atom.global.add.u32", All, "atom.global.add.u32 \t%r39, [%rd53], 1", "ld.global.u32 %r39, [%rd53]"),
    ("sum published without release", "scan", "st.release.gpu", Nth(0), "release.gpu", "relaxed.gpu"),
    ("prefix published without release", "scan", "st.release.gpu", Nth(1), "release.gpu", "relaxed.gpu"),
    ("flag read without acquire", "scan", "ld.acquire.gpu", All, "acquire.gpu", "relaxed.gpu"),
    ("release of the block only", "scan", "st.release.gpu", All, "release.gpu", "release.cta"),
    ("acquire of the block only", "scan", "ld.acquire.gpu", All, "acquire.gpu", "acquire.cta"),
    ("no barrier before the prefix", "scan", "bar.sync", Nth(15), "", ""),
];

/// The PTX with the mutation in it, and how many lines changed. `Nth(MAX)` is the first line that
/// holds the text as well as the pattern.
fn mutate(ptx: &str, m: &Mutation) -> (String, usize) {
    let &(_, _, pattern, which, from, to) = m;
    let (mut seen, mut changed) = (0, 0);
    let mut out = String::with_capacity(ptx.len());
    for line in ptx.lines() {
        let fits = line.contains(pattern) && (from.is_empty() || line.contains(from));
        let chosen = match which {
            All => fits,
            Nth(usize::MAX) => fits && changed == 0,
            Nth(n) => fits && seen == n,
        };
        seen += usize::from(fits);
        changed += usize::from(chosen);
        match (chosen, from.is_empty()) {
            (true, true) => (),
            (true, false) => out += &line.replacen(from, to, 1),
            (false, _) => out += line,
        }
        out.push('\n');
    }
    (out, changed)
}

const SEEDS: u64 = 6;

/// The first failure over shapes and seeds.
fn verdict(case: &Case, ptx: &str) -> Option<Failure> {
    (0..SEEDS)
        .flat_map(|seed| (0..SHAPES).map(move |shape| (shape, seed)))
        .find_map(|(shape, seed)| (case.run)(ptx, shape, seed).err())
}

#[test]
fn every_mutation_changes_the_text() {
    assert!(MUTATIONS.len() >= 30);
    for m in MUTATIONS {
        let (_, changed) = mutate(case(m.1).ptx, m);
        assert!(changed > 0, "{} in {}: no line has '{}' and '{}'", m.0, m.1, m.2, m.4);
    }
}

#[test]
fn no_mutation_passes() {
    let mut passed = Vec::new();
    for m in MUTATIONS {
        let case = case(m.1);
        match verdict(case, &mutate(case.ptx, m).0) {
            Some(Failure::Load(e)) => panic!("{} in {} does not load: {e}", m.0, m.1),
            Some(f) => {
                let text = f.to_string();
                let line = text.lines().next().unwrap_or_default();
                println!("{:13} {:32} {line}", m.1, m.0);
            }
            None => passed.push(format!("{} in {}", m.0, m.1)),
        }
    }
    assert!(passed.is_empty(), "not noticed: {passed:#?}");
}
