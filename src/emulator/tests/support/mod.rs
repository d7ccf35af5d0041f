//! Runs small PTX programs for the instruction tests.
#![allow(dead_code)]

pub mod exact;
pub mod vectors;

use pacer_emulator::{Checks, Fault, LaunchSpec, Memory, Module, Report, Rule, launch};

/// A module around a body: `out` and `in0` are pointers to global memory in %out and %in.
pub fn program(body: &str) -> String {
    format!(
        ".version 9.0\n.target sm_90a\n.address_size 64\n\
         .visible .entry k(.param .u64 out, .param .u64 in0)\n{{\n\
         .reg .pred %p<32>; .reg .b16 %h<32>; .reg .b32 %r<64>; .reg .f32 %f<64>;\n\
         .reg .b64 %rd<32>; .reg .f64 %fd<32>; .reg .b64 %out, %in, %my;\n\
         .reg .b32 %tid;\n\
         ld.param.u64 %out, [out]; ld.param.u64 %in, [in0];\n\
         mov.u32 %tid, %tid.x; mul.wide.u32 %my, %tid, 4; add.u64 %my, %my, %out;\n\
         {body}\nret;\n}}\n"
    )
}

/// Result of a run: the words that the kernel left in `out`.
pub struct Ran {
    pub words: Vec<u32>,
    pub report: Report,
}

#[derive(Clone, Copy)]
pub struct Setup<'a> {
    pub threads: u32,
    pub blocks: u32,
    pub cluster: u32,
    pub shared: u32,
    pub seed: u64,
    /// Words of the output buffer, zeroed.
    pub words: usize,
    pub input: &'a [u32],
    pub budget: u64,
}

impl Default for Setup<'_> {
    fn default() -> Self {
        Self {
            threads: 32,
            blocks: 1,
            cluster: 1,
            shared: 0,
            seed: 0,
            words: 1024,
            input: &[0; 64],
            budget: 10_000_000,
        }
    }
}

/// Runs a whole module text whose kernel `k` takes `out` and `in0`.
pub fn run_text(text: &str, setup: Setup<'_>) -> Result<Ran, Box<Fault>> {
    let module = Module::parse(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let mut memory = Memory::new();
    let out = memory.alloc(setup.words as u64 * 4).unwrap();
    memory.write(out, &vec![0; setup.words * 4]).unwrap();
    let input = memory.alloc(setup.input.len() as u64 * 4).unwrap();
    let bytes: Vec<u8> = setup.input.iter().flat_map(|w| w.to_le_bytes()).collect();
    memory.write(input, &bytes).unwrap();
    let mut params = out.to_le_bytes().to_vec();
    params.extend(input.to_le_bytes());
    let report = launch(
        &module,
        &memory,
        &LaunchSpec {
            kernel: "k",
            grid: [setup.blocks, 1, 1],
            block: [setup.threads, 1, 1],
            cluster: [setup.cluster, 1, 1],
            shared_bytes: setup.shared,
            params: &params,
            symbols: &[],
            seed: setup.seed,
            budget: setup.budget,
            checks: Checks::ALL,
            threads: 1,
        },
    )?;
    let mut back = vec![0; setup.words * 4];
    memory.read(out, &mut back).unwrap();
    let words = back.chunks(4).map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect();
    Ok(Ran { words, report })
}

/// Runs a body and returns the output words; panics on a fault.
pub fn run(body: &str, setup: Setup<'_>) -> Vec<u32> {
    match run_text(&program(body), setup) {
        Ok(ran) => ran.words,
        Err(fault) => panic!("{fault}\n{body}"),
    }
}

/// The fault that a body must raise.
pub fn fault(body: &str, setup: Setup<'_>) -> Box<Fault> {
    match run_text(&program(body), setup) {
        Ok(_) => panic!("no fault in\n{body}"),
        Err(fault) => fault,
    }
}

/// Checks the rule that a body breaks.
#[track_caller]
pub fn breaks(rule: Rule, body: &str, setup: Setup<'_>) {
    let got = fault(body, setup);
    assert_eq!(got.rule, rule, "{got}");
}

/// Computes `%r0 = op(%r1, %r2, %r3)` in one thread: `code` reads and writes those registers.
#[track_caller]
pub fn eval(code: &str, inputs: [u32; 3]) -> u32 {
    let [a, b, c] = inputs;
    let body = format!(
        "mov.u32 %r1, {a}; mov.u32 %r2, {b}; mov.u32 %r3, {c};\n{code}\nst.global.u32 [%out], %r0;"
    );
    run(&body, Setup { threads: 1, ..Setup::default() })[0]
}

/// As [`eval`] in 64 bits: `%rd0` from `%rd1`, `%rd2`, `%rd3`.
#[track_caller]
pub fn eval64(code: &str, inputs: [u64; 3]) -> u64 {
    let [a, b, c] = inputs;
    let body = format!(
        "mov.u64 %rd1, {a}; mov.u64 %rd2, {b}; mov.u64 %rd3, {c};\n{code}\n\
         st.global.u64 [%out], %rd0;"
    );
    let words = run(&body, Setup { threads: 1, ..Setup::default() });
    u64::from(words[0]) | u64::from(words[1]) << 32
}
