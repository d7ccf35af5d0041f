//! Throughput on one core, in the thread's own CPU time, printed; ignored in ordinary runs because
//! it is a timing. `cargo test --release -p pacer-emulator --test throughput -- --ignored
//! --nocapture --test-threads 1`

mod kernel_cases;
mod support;

use kernel_cases::bench::{Arg, Bench, Grid};
use kernel_cases::data::{Bytes, Rng};
use support::{Setup, program, run_text};

/// CPU seconds of this thread so far (first field of Linux's schedstat, in nanoseconds).
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    let first = text.split(' ').next().and_then(|n| n.parse::<f64>().ok());
    first.expect("a number of nanoseconds") * 1e-9
}

/// Lane instructions, matrix operations and seconds of a body.
fn measure(body: &str, threads: u32) -> (f64, f64, f64) {
    let setup = Setup { threads, budget: u64::MAX, ..Setup::default() };
    let start = cpu_seconds();
    let ran = run_text(&program(body), setup).unwrap_or_else(|f| panic!("{f}"));
    let flops: u64 = ran.report.counters.tensor_flops.iter().map(|t| t.1).sum();
    (ran.report.lane_instructions as f64, flops as f64, cpu_seconds() - start)
}

#[test]
#[ignore = "a timing: run with --release -- --ignored --nocapture"]
fn lane_instructions_per_second() {
    let arithmetic = "mov.u32 %r1, 0; mov.b32 %f1, 0f3F800000; mov.b32 %f2, 0f3F000000;\
        L: fma.rn.f32 %f1, %f1, %f2, %f2; add.u32 %r2, %r1, %tid; xor.b32 %r3, %r2, 85;\
        mul.lo.u32 %r4, %r3, 7; add.f32 %f2, %f2, %f1; mul.f32 %f2, %f2, 0f3F000000;\
        add.u32 %r1, %r1, 1; setp.lt.u32 %p1, %r1, 20000; @%p1 bra L;\
        st.global.f32 [%my], %f1;";
    let loads = "mov.u32 %r1, 0; mov.b32 %f1, 0f00000000; L: ld.global.f32 %f2, [%my]; \
        fma.rn.f32 %f1, %f2, %f2, %f1; fma.rn.f32 %f1, %f1, 0f3F000000, %f2; \
        add.f32 %f3, %f1, %f2; mul.f32 %f3, %f3, %f1; add.u32 %r1, %r1, 1; \
        setp.lt.u32 %p1, %r1, 5000; @%p1 bra L; st.global.f32 [%my], %f3;";
    let shared = ".shared .align 16 .b8 s[512]; shl.b32 %r2, %tid, 2; mov.u32 %r3, s; \
        add.u32 %r2, %r2, %r3; mov.u32 %r1, 0; L: st.shared.u32 [%r2], %r1; \
        ld.shared.u32 %r4, [%r2]; add.u32 %r5, %r4, %r1; shl.b32 %r6, %r5, 2; xor.b32 %r7, %r6, %r5; \
        add.u32 %r1, %r1, 1; setp.lt.u32 %p1, %r1, 5000; @%p1 bra L; st.global.u32 [%my], %r7;";
    for (name, body) in [("arithmetic", arithmetic), ("global loads", loads), ("shared", shared)] {
        let (lanes, _, seconds) = measure(body, 128);
        let rate = lanes / seconds / 1e6;
        println!("{name:14} {rate:6.0} M lane-instructions/s on one core, all checks on");
        assert!(rate > 1.0);
    }
}

#[test]
#[ignore = "a timing: run with --release -- --ignored --nocapture"]
fn matrix_operations_per_second() {
    let mma = "mov.u32 %r1, 0; mov.u32 %r4, 0x3f803f80; mov.f32 %f1, 0f00000000; mov.f32 %f2, %f1; \
        mov.f32 %f3, %f1; mov.f32 %f4, %f1; \
        L: mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f1, %f2, %f3, %f4}, \
        {%r4, %r4, %r4, %r4}, {%r4, %r4}, {%f1, %f2, %f3, %f4}; add.u32 %r1, %r1, 1; \
        setp.lt.u32 %p1, %r1, 5000; @%p1 bra L; st.global.f32 [%my], %f1;";
    let names: Vec<String> = (0..64).map(|i| format!("%d{i}")).collect();
    let zero: String = names.iter().map(|d| format!("mov.b32 {d}, 0;")).collect();
    let wgmma = format!(
        ".reg .b32 %d<64>; .shared .align 1024 .b8 s[32768]; shl.b32 %r1, %tid, 4; mov.u32 %r2, s; \
         mov.u32 %r4, 0x3f803f80; F: add.u32 %r3, %r2, %r1; \
         st.shared.v4.b32 [%r3], {{%r4, %r4, %r4, %r4}}; add.u32 %r1, %r1, 2048; \
         setp.lt.u32 %p1, %r1, 32768; @%p1 bra F; {zero} fence.proxy.async.shared::cta; bar.sync 0; \
         mov.u32 %r1, 0; mov.b64 %rd6, {}; L: wgmma.fence.sync.aligned; \
         wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {{{}}}, %rd6, %rd6, 1, 1, 1, 0, 0; \
         wgmma.commit_group.sync.aligned; wgmma.wait_group.sync.aligned 0; add.u32 %r1, %r1, 1; \
         setp.lt.u32 %p1, %r1, 500; @%p1 bra L; st.global.b32 [%my], %d0;",
        1024u64 >> 4 | 1 << 16 | 64 << 32 | 1 << 62,
        names.join(", ")
    );
    for (name, body) in [("mma.sync", mma.to_string()), ("wgmma", wgmma)] {
        let (_, flops, seconds) = measure(&body, 128);
        println!(
            "{name:14} {:6.2} GFLOP/s of bf16 on one core, all checks on",
            flops / seconds / 1e9
        );
    }
}

/// Seconds of launches that a rate is taken from.
const LONG_ENOUGH: f64 = 0.5;

/// Runs a kernel again and again and prints the rate of the launches after the first, which makes
/// the records of the memory that it touches.
fn rate(name: &str, bench: &mut Bench, grid: Grid, args: &[Arg]) {
    let mut go = || bench.launch(name, grid, args).unwrap_or_else(|f| panic!("{f}"));
    go();
    let (start, mut lanes, mut slots, mut seconds) = (cpu_seconds(), 0.0, 0.0, 0.0);
    while seconds < LONG_ENOUGH {
        let report = go();
        lanes += report.lane_instructions as f64;
        slots += report.instructions as f64 * 32.0;
        seconds = cpu_seconds() - start;
    }
    println!(
        "{name:14} {:6.0} M lane-instructions/s ({:.1} M of them, {:.0} % of lanes active)",
        lanes / seconds / 1e6,
        lanes / 1e6,
        100.0 * lanes / slots
    );
}

fn case(name: &str) -> (Bench, Rng) {
    let bench = Bench::new(kernel_cases::case(name).ptx, 0).unwrap_or_else(|f| panic!("{f}"));
    (bench, Rng::new(1))
}

#[test]
#[ignore = "a timing: run with --release -- --ignored --nocapture"]
fn simt_kernels_per_second() {
    let (rows, n) = (16, 4096);
    let (mut b, mut rng) = case("rmsnorm");
    let (x, w) = (b.upload(&rng.bf16s(rows * n).bytes()), b.upload(&rng.bf16s(n).bytes()));
    let y = b.alloc(rows * n * 2);
    let args = [Arg::Ptr(x), Arg::Ptr(w), Arg::Ptr(y), Arg::I32(n as i32), Arg::F32(1e-5)];
    rate("rmsnorm", &mut b, Grid::new(rows, 256), &args);

    let (mut b, mut rng) = case("softmax");
    let (x, y) = (b.upload(&rng.f32s(rows * n).bytes()), b.alloc(rows * n * 4));
    let args = [Arg::Ptr(x), Arg::Ptr(y), Arg::I32(n as i32)];
    rate("softmax", &mut b, Grid::new(rows, 128), &args);

    let (tokens, heads, dim) = (64, 32, 128);
    let (mut b, mut rng) = case("rope");
    let x = b.upload(&rng.bf16s(tokens * heads * dim).bytes());
    let positions: Vec<i32> = (0..tokens as i32).collect();
    let table = vec![0.5f32; tokens * dim / 2];
    let args = [
        Arg::Ptr(x),
        Arg::Ptr(b.upload(&positions.bytes())),
        Arg::Ptr(b.upload(&table.bytes())),
        Arg::Ptr(b.upload(&table.bytes())),
        Arg::I32(tokens as i32),
        Arg::I32(heads as i32),
        Arg::I32(dim as i32),
    ];
    rate("rope", &mut b, Grid::new((tokens * heads * dim / 2).div_ceil(128), 128), &args);
}

#[test]
#[ignore = "a timing: run with --release -- --ignored --nocapture"]
fn choosing_kernels_per_second() {
    let (rows, n, k) = (4, 32000, 50);
    let (mut b, mut rng) = case("topk");
    let x = b.upload(&rng.f32s(rows * n).bytes());
    let (values, indices) = (b.alloc(rows * k * 4), b.alloc(rows * k * 4));
    let (pointers, sizes) =
        ([x, values, indices].map(Arg::Ptr), [n, k].map(|v| Arg::I32(v as i32)));
    let args: Vec<Arg> = pointers.into_iter().chain(sizes).collect();
    rate("topk", &mut b, Grid::new(rows, 256), &args);
}

#[test]
#[ignore = "a timing: run with --release -- --ignored --nocapture"]
fn sampling_kernels_per_second() {
    let (rows, n) = (4, 32000);
    let (mut b, mut rng) = case("sample");
    let (x, out) = (b.upload(&rng.f32s(rows * n).bytes()), b.alloc(rows * 4));
    let [x, out, key] = [x, out, 0x1234_5678_9abc].map(Arg::Ptr);
    let args = [x, out, Arg::I32(n as i32), Arg::F32(0.7), key, Arg::I32(3)];
    rate("sample", &mut b, Grid::new(rows, 128), &args);
}
