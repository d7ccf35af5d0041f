//! The two GEMM kernels run end to end: right under many schedules, and wrong in a way that the
//! machine names when one line of their PTX is broken.

use std::path::Path;

use pacer_emulator::tensor::swizzle::Swizzle;
use pacer_emulator::tensor::tensormap::{MapType, TensorMap};
use pacer_emulator::{Checks, Fault, LaunchSpec, Memory, Module, Report, Rule, launch};

fn ptx(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernels").join(name);
    std::fs::read_to_string(path).unwrap()
}

/// Small whole numbers, exact in bf16.
fn value(i: usize) -> f32 {
    ((i * 7 + i / 5 * 3) % 9) as f32 - 4.0
}

fn upload(memory: &mut Memory, rows: usize, cols: usize, salt: usize) -> (u64, Vec<f32>) {
    let values: Vec<f32> = (0..rows * cols).map(|i| value(i + salt)).collect();
    let bytes: Vec<u8> =
        values.iter().flat_map(|v| ((v.to_bits() >> 16) as u16).to_le_bytes()).collect();
    let at = memory.alloc(bytes.len() as u64).unwrap();
    memory.write(at, &bytes).unwrap();
    (at, values)
}

struct Problem {
    m: usize,
    n: usize,
    k: usize,
    seed: u64,
}

/// Runs a GEMM and compares every element with the product in f64; `Ok` only if all agree.
fn gemm(module: &Module, hopper: bool, p: &Problem) -> Result<Report, Failure> {
    let (m, n, k) = (p.m, p.n, p.k);
    let mut memory = Memory::new();
    let (a, av) = upload(&mut memory, m, k, 0);
    let (b, bv) = upload(&mut memory, n, k, 3);
    let c = memory.alloc((m * n * 2) as u64).unwrap();
    let mut params = Vec::new();
    if hopper {
        for (at, rows, cols, box_rows) in [(a, m, k, 128), (b, n, k, 64), (c, m, n, 64)] {
            let map = TensorMap::tiled(
                MapType::Bf16,
                at,
                &[cols as u64, rows as u64],
                &[cols as u64 * 2],
                &[64, box_rows],
                Swizzle::B128,
            );
            params.extend(map.unwrap().encode());
        }
    } else {
        params.extend([a, b, c].iter().flat_map(|p| p.to_le_bytes()));
    }
    params.extend([m, n, k].iter().flat_map(|v| (*v as i32).to_le_bytes()));
    let kernel = &module.kernels[0];
    params.resize(kernel.param_bytes as usize, 0);
    let (grid, block, shared_bytes) = if hopper {
        ([2, 1, 1], [384, 1, 1], 3 * 24576 + 2 * 8192 + 1024)
    } else {
        ([n.div_ceil(64) as u32, m.div_ceil(64) as u32, 1], [128, 1, 1], 0)
    };
    let report = launch(
        module,
        &memory,
        &LaunchSpec {
            kernel: &kernel.name,
            grid,
            block,
            cluster: [1, 1, 1],
            shared_bytes,
            params: &params,
            symbols: &[],
            seed: p.seed,
            budget: 50_000_000,
            checks: Checks::ALL,
            threads: 1,
        },
    )
    .map_err(Failure::Fault)?;
    let mut out = vec![0; m * n * 2];
    memory.read(c, &mut out).unwrap();
    for row in 0..m {
        for col in 0..n {
            let want: f64 =
                (0..k).map(|i| f64::from(av[row * k + i]) * f64::from(bv[col * k + i])).sum();
            let at = (row * n + col) * 2;
            let bits = u32::from(u16::from_le_bytes([out[at], out[at + 1]])) << 16;
            let got = f64::from(f32::from_bits(bits));
            if (got - want).abs() > want.abs() / 256.0 {
                return Err(Failure::Wrong(format!("C[{row}][{col}] is {got}, not {want}")));
            }
        }
    }
    Ok(report)
}

#[derive(Debug)]
enum Failure {
    Fault(Box<Fault>),
    Wrong(String),
}

fn show(f: Failure) -> String {
    match f {
        Failure::Fault(fault) => fault.to_string(),
        Failure::Wrong(text) => text,
    }
}

fn shapes() -> [(usize, usize, usize); 3] {
    [(64, 64, 64), (200, 136, 104), (128, 128, 192)]
}

#[test]
fn sm80_gemm_is_right_under_every_schedule() {
    let module = Module::parse(&ptx("gemm_sm80.ptx")).unwrap();
    for (m, n, k) in shapes() {
        for seed in 0..4 {
            let r = gemm(&module, false, &Problem { m, n, k, seed });
            r.unwrap_or_else(|f| panic!("{m}×{n}×{k} seed {seed}: {}", show(f)));
        }
    }
}

#[test]
fn sm90_gemm_is_right_under_every_schedule() {
    let module = Module::parse(&ptx("gemm_sm90.ptx")).unwrap();
    for (m, n, k) in shapes() {
        for seed in 0..4 {
            let r = gemm(&module, true, &Problem { m, n, k, seed });
            r.unwrap_or_else(|f| panic!("{m}×{n}×{k} seed {seed}: {}", show(f)));
        }
    }
}

/// Replaces the text `n`-th from the start and runs; the mutant must not pass.
fn mutant(hopper: bool, from: &str, to: &str, nth: usize) -> Failure {
    let file = if hopper { "gemm_sm90.ptx" } else { "gemm_sm80.ptx" };
    let text = ptx(file);
    let at = text.match_indices(from).nth(nth).unwrap_or_else(|| panic!("no '{from}' #{nth}")).0;
    let broken = format!("{}{}{}", &text[..at], to, &text[at + from.len()..]);
    let module = Module::parse(&broken).unwrap();
    let problem = Problem { m: 256, n: 128, k: 448, seed: 0 };
    match gemm(&module, hopper, &problem) {
        Ok(_) => panic!("mutant '{from}' → '{to}' passes"),
        Err(failure) => failure,
    }
}

fn rule(f: &Failure) -> Option<Rule> {
    match f {
        Failure::Fault(fault) => Some(fault.rule),
        Failure::Wrong(_) => None,
    }
}

#[test]
fn pipeline_bugs_that_a_synchronous_machine_misses_are_named() {
    // wait_group one too many in flight.
    let f = mutant(false, "cp.async.wait_group 1", "cp.async.wait_group 2", 0);
    assert_eq!(rule(&f), Some(Rule::AsyncInFlight), "{}", show(f));
    // Half of the expected bytes, wherever the compiler keeps the number in a register.
    let text = ptx("gemm_sm90.ptx");
    let counts = text.lines().filter(|l| l.contains("mov.") && l.ends_with(", 24576;"));
    let counts: Vec<&str> = counts.collect();
    assert!(!counts.is_empty(), "the kernel expects 24576 bytes a stage");
    for line in counts {
        let f = mutant(true, line, &line.replace("24576", "12288"), 0);
        assert!(rule(&f).is_some(), "{}", show(f));
    }
}

#[test]
fn hopper_mutants_are_named() {
    let cases = [
        ("wgmma.wait_group.sync.aligned 0", "wgmma.wait_group.sync.aligned 1", 0),
        ("wgmma.fence.sync.aligned;", ";", 0),
        ("fence.proxy.async", "fence.proxy.alias; //", 1),
        ("wgmma.wait_group.sync.aligned 1", "wgmma.wait_group.sync.aligned 2", 1),
        ("cp.async.bulk.wait_group 0", "cp.async.bulk.wait_group 9", 0),
        ("cp.async.bulk.wait_group.read 0", "cp.async.bulk.wait_group.read 9", 0),
    ];
    let mut missed = Vec::new();
    for (from, to, nth) in cases {
        let caught = std::panic::catch_unwind(|| mutant(true, from, to, nth));
        match caught {
            Ok(f) => println!("{from} -> {to}: {}", show(f)),
            Err(_) => missed.push(from),
        }
    }
    assert!(missed.is_empty(), "these mutants pass: {missed:?}");
}
