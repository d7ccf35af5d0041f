//! What a kernel's launch has to do with its instructions: register pools, dependent launches.

mod support;

use pacer_emulator::host::{Config, Launch, Machine};
use pacer_emulator::{Checks, LaunchSpec, Memory, Module, Prior, Rule, launch_after};
use support::{Setup, program, run_text};

/// A kernel of two warpgroups with 128 registers a thread: one does FIRST, the other SECOND.
fn warpgroups(first: &str, second: &str) -> String {
    let body = format!(
        "setp.ge.u32 %p1, %tid, 128; @%p1 bra C; {first} bra E; C: {second} E: bar.sync 0; \
         st.global.u32 [%my], %tid;"
    );
    program(&body).replace(")\n{", ")\n.maxnreg 128\n{")
}

fn threads(seed: u64) -> Setup<'static> {
    Setup { threads: 256, seed, ..Setup::default() }
}

const DEC: &str = "setmaxnreg.dec.sync.aligned.u32 40;";
const INC: &str = "setmaxnreg.inc.sync.aligned.u32 216;";

#[test]
fn registers_move_from_one_warpgroup_to_another() {
    for seed in 0..40 {
        // The increase waits for the decrease, whichever runs first: 88 · 128 registers.
        let ran = run_text(&warpgroups(DEC, INC), threads(seed)).unwrap();
        assert_eq!(ran.words[200], 200);
        let back = format!("{INC} setmaxnreg.dec.sync.aligned.u32 128; bar.sync 1, 256;");
        let again = format!("{DEC} bar.sync 1, 256; setmaxnreg.inc.sync.aligned.u32 128;");
        run_text(&warpgroups(&again, &back), threads(seed)).unwrap();
    }
}

#[test]
fn a_pool_that_is_too_small() {
    let more = INC.replace("216", "224");
    let (late, never) = (format!("bar.sync 1, 256; {DEC}"), format!("{INC} bar.sync 1, 256;"));
    for (first, second) in [(DEC, &*more), ("", INC), (&*late, &*never), (INC, INC)] {
        for seed in 0..4 {
            let Err(got) = run_text(&warpgroups(first, second), threads(seed)) else {
                panic!("{first} {second} ends")
            };
            assert_eq!(got.rule, Rule::Deadlock, "{got}");
            assert!(got.message.contains("wait for registers"), "{got}");
            assert!(!got.others.is_empty());
        }
    }
    // 64 registers a thread too few: eight warps hold what two could not share.
    let got = run_text(&warpgroups(DEC, &more), threads(0)).err().unwrap();
    assert!(got.message.contains("of block 0"), "{got}");
}

#[test]
fn counts_in_the_wrong_direction() {
    for wrong in ["setmaxnreg.dec.sync.aligned.u32 136;", "setmaxnreg.inc.sync.aligned.u32 120;"] {
        let got = run_text(&warpgroups(wrong, ""), threads(0)).err().unwrap();
        assert_eq!(got.rule, Rule::Undefined, "{got}");
    }
    // Launch bounds say how many there are: 65536 / 256.
    let bounds = warpgroups(DEC, INC).replace(".maxnreg 128", ".maxntid 256, 1, 1");
    let got = run_text(&bounds, threads(0)).err().unwrap();
    assert!(got.message.contains("from 256 registers"), "{got}");
    run_text(&bounds.replace("216", "256"), threads(0)).unwrap();
    // Without either the assembler ignores the instruction.
    run_text(&bounds.replace(".maxntid 256, 1, 1", ""), threads(0)).unwrap();
}

/// Kernels that hand a buffer on, with `griddepcontrol` where the text says.
fn module(producer: &str, consumer: &str) -> Module {
    let one = program(producer);
    let (head, body) = one.split_at(one.find(".visible").unwrap());
    let two = program(consumer).replace(" k(", " second(");
    let text = format!("{head}{body}{}", &two[two.find(".visible").unwrap()..]);
    Module::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

/// Runs `k`, then `second` as a dependent launch; the words of the buffer, or the broken rule.
fn dependent(module: &Module, rounds: u32) -> Result<Vec<u32>, Box<pacer_emulator::Fault>> {
    let mut memory = Memory::new();
    let out = memory.alloc(4096).unwrap();
    memory.write(out, &[0; 4096]).unwrap();
    let mut params = out.to_le_bytes().to_vec();
    params.extend(out.to_le_bytes());
    let spec = |kernel| LaunchSpec {
        kernel,
        grid: [2, 1, 1],
        block: [64, 1, 1],
        cluster: [1; 3],
        shared_bytes: 0,
        params: &params,
        symbols: &[],
        seed: 1,
        budget: 100_000,
        checks: Checks::ALL,
        threads: 1,
    };
    let mut prior = Prior::default();
    for _ in 0..rounds {
        prior = launch_after(module, &memory, &spec("k"), &prior)?.1;
        prior = launch_after(module, &memory, &spec("second"), &prior)?.1;
    }
    let mut bytes = [0; 4096];
    memory.read(out, &mut bytes).unwrap();
    Ok(bytes.chunks(4).map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect())
}

const PLACE: &str = "mov.u32 %r1, %ctaid.x; shl.b32 %r1, %r1, 6; add.u32 %r1, %r1, %tid; \
    mul.wide.u32 %rd1, %r1, 4; add.u64 %rd1, %rd1, %out;";
const TRIGGER: &str = "griddepcontrol.launch_dependents;";
const WAIT: &str = "griddepcontrol.wait;";

#[test]
fn a_dependent_grid_waits() {
    let write = format!("{PLACE} {WAIT} {TRIGGER} st.global.u32 [%rd1], %tid;");
    let read = |wait: &str| {
        format!(
            "{PLACE} {TRIGGER} {wait} ld.global.u32 %r2, [%rd1]; add.u32 %r2, %r2, 1; \
             st.global.u32 [%rd1+1024], %r2;"
        )
    };
    let words = dependent(&module(&write, &read(WAIT)), 3).unwrap();
    assert!((0..128).all(|i| words[256 + i] == i as u32 % 64 + 1));
    // One thread waits, and a barrier tells the others.
    let one = format!("setp.ne.u32 %p1, %tid, 0; @%p1 bra B; {WAIT} B: bar.sync 0;");
    dependent(&module(&write, &read(&one)), 3).unwrap();
    let untold = format!("setp.ne.u32 %p1, %tid, 0; @%p1 bra B; {WAIT} B: bar.warp.sync -1;");
    for missing in ["", &untold] {
        let got = dependent(&module(&write, &read(missing)), 3).unwrap_err();
        assert_eq!(got.rule, Rule::Race, "{got}");
        assert!(got.message.contains("no griddepcontrol.wait"), "{got}");
        assert_eq!(got.kernel, "second");
        assert!(got.actor.as_ref().unwrap().place.line > 0);
    }
    // A grid that lets nobody begin early has ended when the next one begins.
    let plain = format!("{PLACE} {WAIT} st.global.u32 [%rd1], %tid;");
    dependent(&module(&plain, &read("").replace(TRIGGER, "")), 3).unwrap();
}

/// Writing what the grid before still reads or writes is as wrong as reading what it writes.
#[test]
fn a_dependent_grid_that_writes_too_early() {
    let first =
        format!("{PLACE} {TRIGGER} ld.global.u32 %r2, [%rd1]; st.global.u32 [%rd1+1024], %r2;");
    for (at, wrong) in [("%rd1", true), ("%rd1+1024", true), ("%rd1+2048", false)] {
        for (wait, wrong) in [("", wrong), (WAIT, false)] {
            let second = format!("{PLACE} {wait} st.global.u32 [{at}], %tid;");
            let got = dependent(&module(&first, &second), 1);
            assert_eq!(got.is_err(), wrong, "{at} {wait}");
        }
    }
}

/// A grid that begins early and never waits leaves the one before it open to the one after it.
#[test]
fn dependence_is_not_handed_on() {
    let write = format!("{PLACE} {TRIGGER} st.global.u32 [%rd1], %tid;");
    let read = format!("{PLACE} {WAIT} ld.global.u32 %r2, [%rd1]; st.global.u32 [%rd1+1024], %r2;");
    let idle = |waits: &str| format!("{TRIGGER} {waits}");
    for (between, right) in [(idle(WAIT), true), (idle(""), false)] {
        let memory_of = module(&write, &between);
        let last = module(&read, "");
        let mut memory = Memory::new();
        let out = memory.alloc(4096).unwrap();
        memory.write(out, &[0; 4096]).unwrap();
        let params: Vec<u8> = [out, out].iter().flat_map(|p| p.to_le_bytes()).collect();
        let mut prior = Prior::default();
        let mut go = |module: &Module, kernel| {
            let spec = LaunchSpec {
                kernel,
                grid: [1; 3],
                block: [32, 1, 1],
                cluster: [1; 3],
                shared_bytes: 0,
                params: &params,
                symbols: &[],
                seed: 0,
                budget: 10_000,
                checks: Checks::ALL,
                threads: 1,
            };
            launch_after(module, &memory, &spec, &prior).map(|(_, next)| prior = next)
        };
        go(&memory_of, "k").unwrap();
        go(&memory_of, "second").unwrap();
        assert_eq!(go(&last, "k").is_ok(), right);
    }
}

/// The same through streams, where other work in between ends the overlap.
#[test]
fn dependent_launches_in_a_stream() {
    let write = format!("{PLACE} {TRIGGER} st.global.u32 [%rd1], %tid;");
    let read = |wait: &str| {
        let text = program(&format!("{PLACE} {wait} ld.global.u32 %r2, [%rd1];"));
        text.replace(" k(", " second(")
    };
    let go = |wait: &str, programmatic: bool, copy: bool| {
        let machine = Machine::new(Config { memory: 1 << 20, threads: 1, ..Config::default() });
        let out = machine.alloc(4096).unwrap();
        machine.fill(out, 0, 4, 1024).unwrap();
        let function = |text: &str, name| {
            let module = machine.load(text).unwrap();
            machine.function(module, name).unwrap()
        };
        let params: Vec<u8> = [out, out].iter().flat_map(|p| p.to_le_bytes()).collect();
        let launch = |function, programmatic| Launch {
            function,
            grid: [2, 1, 1],
            block: [64, 1, 1],
            cluster: [1; 3],
            shared_bytes: 0,
            params: params.clone(),
            programmatic,
        };
        let stream = machine.create_stream(false).unwrap();
        let (k, second) = (function(&program(&write), "k"), function(&read(wait), "second"));
        machine.launch(&launch(k, false), stream).unwrap();
        if copy {
            machine.copy_async(out + 2048, out + 3072, 64, stream).unwrap();
        }
        machine.launch(&launch(second, programmatic), stream).unwrap();
        machine.synchronize_stream(stream)
    };
    go(WAIT, true, false).unwrap();
    go("", false, false).unwrap();
    go("", true, true).unwrap();
    let error = go("", true, false).unwrap_err();
    assert!(error.to_string().contains("no griddepcontrol.wait"), "{error}");
}
