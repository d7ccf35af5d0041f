//! Checks of every kernel against its formula in f64: remainders, strides, planted outliers,
//! poisoned outputs, declared traffic against counted, sectors against the least possible, and on
//! the PTX machine any finding under many schedules.
//!
//! A file a kernel, with `pub fn cases(list: &mut Vec<Case>)` and a line in [`cases`]. A case is
//! a shape: its function puts inputs on the machine through [`Bench`] ([`Bench::input`],
//! [`Bench::upload`]), launches one or more kernels ([`Bench::launch`], with the traffic that the
//! kernel's header declares), and compares ([`Bench::compare`]). It is run once a schedule; data
//! must come from a fixed seed ([`Rng`]), not from the schedule. Every variant in the registry
//! must be launched by some case: a test sees to that.

mod attention;
mod bench;
mod ceiling;
mod data;
mod elementwise;
mod gemm;
mod logprobs;
mod machine;
mod moe;
mod on_driver;
mod page_copy;
mod quant;
mod rmsnorm;
mod rope;
mod sample;

pub use bench::{Bench, Matrix, Traffic, words};
pub use data::{Rng, Store};
pub use machine::{Counted, Emulated, Geometry, Machine};
pub use on_driver::OnDriver;

use super::registry::Target;

/// One shape of one kernel.
pub struct Case {
    /// Kernel file and shape, e.g. `rmsnorm bf16 warp1 3x64`.
    pub name: String,
    /// Whether `cargo test` runs it too; the rest takes longer.
    pub quick: bool,
    /// What a card must be to run it.
    pub target: Target,
    pub run: Box<dyn Fn(&mut Bench) -> Result<(), String> + Send + Sync>,
}

impl Case {
    pub fn new(
        name: String,
        run: impl Fn(&mut Bench) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        Case { name, quick: true, target: Target::Sm80, run: Box::new(run) }
    }

    /// Keeps the case from cards that cannot run it.
    pub fn needs(mut self, target: Target) -> Self {
        self.target = target;
        self
    }

    /// Leaves the case to `pacer kernels check`.
    pub fn slow(mut self) -> Self {
        self.quick = false;
        self
    }
}

/// Every case, kernel by kernel.
pub fn cases() -> Vec<Case> {
    let mut list = Vec::new();
    elementwise::cases(&mut list);
    rmsnorm::cases(&mut list);
    rope::cases(&mut list);
    page_copy::cases(&mut list);
    moe::cases(&mut list);
    sample::cases(&mut list);
    logprobs::cases(&mut list);
    gemm::cases(&mut list);
    quant::cases(&mut list);
    attention::cases(&mut list);
    ceiling::cases(&mut list);
    list
}

/// What running a case on every schedule gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Symbols that it launched.
    pub launched: Vec<&'static str>,
    pub schedules: u64,
    pub failure: Option<String>,
}

/// Runs a case on schedules 0 .. `schedules`; stops at the first failure.
pub fn run(case: &Case, machine: &mut dyn Machine, schedules: u64) -> Outcome {
    let mut outcome = Outcome { launched: Vec::new(), schedules: 0, failure: None };
    for seed in 0..schedules {
        let mut bench = Bench::new(machine, seed);
        let result = (case.run)(&mut bench);
        outcome.launched = bench.launched;
        outcome.schedules = seed + 1;
        if let Err(e) = result.and(machine.clear()) {
            machine.clear().ok();
            outcome.failure = Some(format!("schedule {seed}: {e}"));
            break;
        }
    }
    outcome
}

#[cfg(test)]
mod tests;
