//! Every test kernel against its float64 reference, over shapes with remainders and many seeds.
//!
//! A seed draws the inputs and the schedule. `PACER_EMU_SEEDS=200` runs more of them.

mod kernel_cases;

use kernel_cases::{CASES, SHAPES};

fn seeds() -> u64 {
    std::env::var("PACER_EMU_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(20)
}

fn all_seeds(name: &str) {
    let case = kernel_cases::case(name);
    for seed in 0..seeds() {
        for shape in 0..SHAPES {
            if let Err(e) = (case.run)(case.ptx, shape, seed) {
                panic!("{name}, shape {shape}, seed {seed}: {e}");
            }
        }
    }
}

macro_rules! kernels {
    ($($name:ident),*) => {
        $(#[test] fn $name() { all_seeds(stringify!($name)); })*

        #[test]
        fn every_case_has_its_test() {
            let tested = [$(stringify!($name)),*];
            assert!(CASES.iter().all(|c| tested.contains(&c.name)));
        }
    };
}

kernels!(
    gemm_sm80,
    gemm_sm90,
    rmsnorm,
    softmax,
    rope,
    cluster_sum,
    paged_decode,
    topk,
    sample,
    fp8,
    int4_gemv,
    split_sum,
    scan,
    relay
);
