//! `pacer calibrate`: this machine's own ceilings, measured and stored.

use std::time::Duration;

use argh::{ArgsInfo, FromArgs};
use serde_json::json;

use super::{Run, out};
use crate::bench::ceilings::{self, Budget, Ceilings, store};
use crate::choice;
use crate::device::gpu::bench::{Rig, Size, ceiling};
use crate::device::gpu::driver::Driver;
use crate::device::gpu::driver::cuda::Cuda;
use crate::error::{Error, Result};
use crate::measure::date;
use crate::profile::recorder;

choice! {
    /// Whose ceilings.
    Whose { Cpu = "cpu", Cuda = "cuda" }
}

/// Measures this machine's ceilings (memory reads, float32 and int8 multiply-adds) and what a loop
/// on all threads costs, and stores them, so that benchmarks can say what share they reach.
#[derive(FromArgs, ArgsInfo, Debug, Clone, PartialEq)]
#[argh(help_triggers("--help"))]
pub struct Calibrate {
    /// cpu, or cuda: the card's reads of memory and its bf16 products (default cpu)
    #[argh(option, arg_name = "DEVICE", default = "Whose::Cpu")]
    device: Whose,

    /// with --device cuda, tiny work, to try the command where kernels are emulated
    #[argh(switch)]
    small: bool,

    /// threads to measure with (default: one per core)
    #[argh(option, arg_name = "N", from_str_fn(super::values::whole::<1, 4096>))]
    threads: Option<usize>,

    /// how long each of the three measurements runs, milliseconds (default 300)
    #[argh(option, arg_name = "N", default = "300", from_str_fn(super::values::whole::<1, 60_000>))]
    duration_ms: usize,

    /// memory that one pass reads, MiB; well beyond the caches (default 256)
    #[argh(option, arg_name = "N", default = "256", from_str_fn(super::values::whole::<1, 65_536>))]
    buffer_mib: usize,

    /// print the result as JSON
    #[argh(switch)]
    json: bool,

    /// do not store the result
    #[argh(switch)]
    dry_run: bool,
}

impl Run for Calibrate {
    const NAME: &'static str = "calibrate";

    fn run(self) -> Result<()> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let budget = Budget {
            each: Duration::from_millis(self.duration_ms as u64),
            buffer_bytes: self.buffer_mib << 20,
        };
        let found = match self.device {
            Whose::Cpu => ceilings::measure(self.threads.unwrap_or(cores), budget)?,
            Whose::Cuda => card(self.small)?,
        };
        if self.json {
            out::line(store::to_json(&found))?;
        } else if self.device == Whose::Cuda {
            out::line(card_table(&found))?;
        } else {
            out::line(table(&found))?;
        }
        if self.dry_run {
            return Ok(());
        }
        let path = store::default_path().ok_or_else(|| {
            Error::usage("neither XDG_CACHE_HOME nor HOME is set; use --dry-run to store nothing")
        })?;
        store::save(&path, &found)?;
        out::note(format_args!("stored in {}", path.display()));
        Ok(())
    }
}

/// The card's ceilings, stored under its name: the fastest instruction's products.
fn card(small: bool) -> Result<Ceilings> {
    let driver = Cuda::open(0).map_err(|e| Error::device(e.to_string()))?;
    let mut rig = Rig::new(&driver, 1 << 20)?;
    let size = if small { Size::Small } else { Size::Full };
    let found = ceiling::measure(&mut rig, size)?;
    let entry = json!({
        "cpu": driver.card().name,
        "threads": 0,
        "isa": if found.wgmma_flops_per_s.is_some() { "wgmma bf16" } else { "mma.sync bf16" },
        "bytes_per_s": found.read_bytes_per_s,
        "flops_per_s": found.flops_per_s(),
        "date": date::now_iso(),
    });
    store::parse(&entry).ok_or_else(|| Error::device("the card's clock did not move"))
}

fn card_table(c: &Ceilings) -> String {
    format!(
        "{}\n  memory read        {:10.2} GB/s\n  products, {:9}{:10.2} TFLOP/s",
        c.cpu,
        c.bytes_per_s * 1e-9,
        c.isa,
        c.flops_per_s * 1e-12
    )
}

fn table(c: &Ceilings) -> String {
    format!(
        "{}, {} threads, {}\n  memory read        {:10.2} GB/s\n  \
         float32 arithmetic {:10.2} GFLOP/s\n  int8 arithmetic    {:10.2} GOP/s\n  \
         empty loop         {:10.2} µs\n  record of an op    {:10.2} ns",
        c.cpu,
        c.threads,
        c.isa,
        c.bytes_per_s * 1e-9,
        c.flops_per_s * 1e-9,
        c.int8_ops_per_s.unwrap_or(0.0) * 1e-9,
        c.fork_join_s.unwrap_or(0.0) * 1e6,
        recorder::cost_ns()
    )
}
