//! The test kernels: how each is launched and the float64 reference it is held against.

// Each test program uses a part of this.
#![allow(dead_code)]

pub mod attention;
pub mod bench;
pub mod data;
pub mod gemm;
pub mod order;
pub mod quant;
pub mod rows;
pub mod select;

use pacer_emulator::{Fault, LoadError};

/// Why a kernel does not pass.
#[derive(Debug)]
pub enum Failure {
    /// The PTX does not load.
    Load(LoadError),
    /// The machine reports a broken rule.
    Fault(Box<Fault>),
    /// The answer is wrong, or part of it was never written.
    Wrong(String),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Load(e) => write!(f, "does not load: {e}"),
            Failure::Fault(e) => write!(f, "{e}"),
            Failure::Wrong(what) => write!(f, "wrong answer: {what}"),
        }
    }
}

/// Runs a kernel's PTX on one of its shapes under a seed, and checks the answer.
pub type Run = fn(ptx: &str, shape: usize, seed: u64) -> Result<(), Failure>;

/// Shapes of every kernel; each list has remainders.
pub const SHAPES: usize = 4;

/// One file of kernels.
pub struct Case {
    pub name: &'static str,
    pub ptx: &'static str,
    pub run: Run,
}

macro_rules! case {
    ($name:literal, $run:expr) => {
        Case { name: $name, ptx: include_str!(concat!("../kernels/", $name, ".ptx")), run: $run }
    };
}

pub const CASES: [Case; 14] = [
    case!("gemm_sm80", gemm::sm80),
    case!("gemm_sm90", gemm::sm90),
    case!("rmsnorm", rows::rmsnorm),
    case!("softmax", rows::softmax),
    case!("rope", rows::rope),
    case!("cluster_sum", rows::cluster_sum),
    case!("paged_decode", attention::paged),
    case!("topk", select::topk),
    case!("sample", select::sample),
    case!("fp8", quant::fp8),
    case!("int4_gemv", quant::int4_gemv),
    case!("split_sum", order::split_sum),
    case!("scan", order::scan),
    case!("relay", order::relay),
];

pub fn case(name: &str) -> &'static Case {
    CASES.iter().find(|c| c.name == name).expect("a case of this name")
}

/// Every number within its error of the reference; `want(i)` gives both.
pub fn compare(got: &[f64], want: impl Fn(usize) -> (f64, f64)) -> Result<(), Failure> {
    for (i, &g) in got.iter().enumerate() {
        let (w, error) = want(i);
        // False for NaN, which therefore fails.
        let close = (g - w).abs() <= error;
        if !close {
            return Err(Failure::Wrong(format!("element {i} is {g}, not {w} ± {error:e}")));
        }
    }
    Ok(())
}
