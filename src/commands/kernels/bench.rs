//! `pacer kernels bench`: kernels on their own, beside the card's measured ceilings.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

use argh::{ArgsInfo, FromArgs};
use serde_json::{Value, json};

use super::super::{Run, commit, out, values};
use super::check::On;
use crate::device::gpu::bench::ceiling::{self, Ceilings};
use crate::device::gpu::bench::{self, Job, Rig, Size, Timing};
use crate::device::gpu::driver::Driver;
use crate::device::gpu::driver::cuda::Cuda;
use crate::device::gpu::driver::emulated::Emulated;
use crate::error::{Error, Result};
use crate::measure::{date, stats};

/// Times the GPU kernels one by one on a card: with a cold L2 and back to back, as GB/s and
/// TFLOP/s, and as shares of what the card just reached in reading memory and in products of
/// registers. On the PTX machine every time is projected.
#[derive(FromArgs, ArgsInfo, Debug, Clone, PartialEq)]
#[argh(help_triggers("--help"))]
pub struct Bench {
    /// cuda or emulated (the PTX machine: projected times; default cuda)
    #[argh(option, arg_name = "DEVICE", default = "On::Cuda")]
    pub device: On,

    /// only subjects whose name has this in it, such as gemm or "attention prefill" (default: all)
    #[argh(option, arg_name = "NAME")]
    pub kernel: Option<String>,

    /// launches that each figure is taken from, cold and warm (default 20)
    #[argh(option, arg_name = "N", default = "20", from_str_fn(values::whole::<1, 10_000>))]
    pub repeat: usize,

    /// tiny shapes, to try the command where kernels are emulated
    #[argh(switch)]
    pub small: bool,

    /// JSON Lines file that each row is appended to (default: none)
    #[argh(option, arg_name = "PATH")]
    pub result_filename: Option<PathBuf>,

    /// one JSON object a subject instead of a table
    #[argh(switch)]
    pub json: bool,
}

impl Run for Bench {
    const NAME: &'static str = "kernels bench";

    fn run(self) -> Result<()> {
        match self.device {
            On::Cuda => self.all(&Cuda::open(0).map_err(|e| Error::device(e.to_string()))?),
            On::Emulated => self.all(&Emulated::new(pacer_emulator::host::Config::default())),
        }
    }
}

impl Bench {
    fn all(&self, driver: &dyn Driver) -> Result<()> {
        let size = if self.small { Size::Small } else { Size::Full };
        let card = bench::card(driver.card());
        let named = |name: &str| self.kernel.as_ref().is_none_or(|k| name.contains(k));
        let mut list = bench::subjects(size, &card);
        list.retain(|s| named(&s.name));
        if list.is_empty() {
            let name = self.kernel.as_deref().unwrap_or("");
            return Err(Error::usage(format!("--kernel {name}: no subject has this in its name")));
        }
        let flush = if self.small { 1 << 16 } else { 4 * driver.card().l2_bytes.max(32 << 20) };
        let mut rig = Rig::new(driver, flush)?;
        let ceilings = ceiling::measure(&mut rig, size)?;
        self.tell_ceilings(driver, &ceilings)?;
        let mut failed = Vec::new();
        for subject in list {
            let timed = (subject.make)(&mut rig)
                .and_then(|job| Ok((rig.time(&job, self.repeat)?, job)))
                .and_then(|(timing, job)| {
                    self.tell(driver, &subject.name, &job, &timing, &ceilings)
                });
            let cleared = rig.clear();
            match timed.and(cleared) {
                Ok(()) => {}
                // The card is lost: nothing more can be timed.
                Err(e) if e.kind == crate::error::Kind::DeviceLost => return Err(e),
                Err(e) => {
                    out::note(format_args!("{}: {e}", subject.name));
                    failed.push(subject.name);
                }
            }
        }
        if failed.is_empty() {
            return Ok(());
        }
        Err(Error::device(format!("{} subjects failed: {}", failed.len(), failed.join(", "))))
    }

    /// A row on standard output as text or JSON, and in the file as JSON.
    fn row(&self, row: &Value, text: &str) -> Result<()> {
        if let Some(path) = &self.result_filename {
            let file = OpenOptions::new().create(true).append(true).open(path);
            let written = file.and_then(|mut f| writeln!(f, "{row}"));
            written.map_err(|e| Error::io(path, &e))?;
        }
        if self.json { out::line(row) } else { out::line(text) }
    }

    fn tell_ceilings(&self, driver: &dyn Driver, c: &Ceilings) -> Result<()> {
        let card = driver.card();
        let projected = driver.kind() != "cuda";
        let row = json!({
            "subject": "ceilings",
            "device": driver.kind(),
            "card": card.name,
            "projected": projected,
            "read_gb_per_s": c.read_bytes_per_s / 1e9,
            "mma_tflop_per_s": c.mma_flops_per_s / 1e12,
            "wgmma_tflop_per_s": c.wgmma_flops_per_s.map(|f| f / 1e12),
            "commit": commit(),
            "date": date::now_iso(),
        });
        let note = "every time below is projected by the PTX machine's time model\n";
        let head = format!(
            "{}{}: reads {:.0} GB/s, mma.sync {:.1} TFLOP/s{}\n\
             {:40} {:34} {:>9} {:>9} {:>8} {:>8} {:>8} {:>8}",
            if projected { note } else { "" },
            card.name,
            c.read_bytes_per_s / 1e9,
            c.mma_flops_per_s / 1e12,
            c.wgmma_flops_per_s.map_or(String::new(), |f| format!(", wgmma {:.1}", f / 1e12)),
            "subject",
            "kernel",
            "cold us",
            "warm us",
            "GB/s",
            "of read",
            "TFLOP/s",
            "of peak"
        );
        self.row(&row, &head)
    }

    fn tell(
        &self,
        driver: &dyn Driver,
        name: &str,
        job: &Job,
        timing: &Timing,
        ceilings: &Ceilings,
    ) -> Result<()> {
        let row = Row::of(job, timing, ceilings)
            .ok_or_else(|| Error::device("the card's clock did not move during a launch"))?;
        let text = format!(
            "{name:40} {:34} {:>9.2} {:>9.2} {:>8.0} {:>6.0} % {:>8.1} {:>6.0} %",
            job.symbol,
            row.cold * 1e6,
            row.warm * 1e6,
            row.bytes / 1e9,
            100.0 * row.of_read,
            row.flops / 1e12,
            100.0 * row.of_peak
        );
        self.row(&row.json(driver, name, job, timing), &text)
    }
}

/// The figures of a subject. Memory's are from the cold launches, arithmetic's from the warm ones.
struct Row {
    cold: f64,
    warm: f64,
    bytes: f64,
    of_read: f64,
    flops: f64,
    of_peak: f64,
}

impl Row {
    fn of(job: &Job, timing: &Timing, c: &Ceilings) -> Option<Row> {
        let (cold, warm) = (stats::median(&timing.cold)?, stats::median(&timing.warm)?);
        if cold <= 0.0 || warm <= 0.0 {
            return None;
        }
        let (bytes, flops) = (job.bytes / cold, job.flops / warm);
        let (of_read, of_peak) = (bytes / c.read_bytes_per_s, flops / c.flops_per_s());
        Some(Row { cold, warm, bytes, of_read, flops, of_peak })
    }

    fn json(&self, driver: &dyn Driver, name: &str, job: &Job, timing: &Timing) -> Value {
        let micros = |list: &[f64]| list.iter().map(|s| s * 1e6).collect::<Vec<f64>>();
        json!({
            "subject": name,
            "kernel": job.symbol,
            "device": driver.kind(),
            "projected": driver.kind() != "cuda",
            "grid": job.geometry.grid,
            "block": job.geometry.block,
            "least_bytes": job.bytes,
            "flops": job.flops,
            "cold_us": self.cold * 1e6,
            "warm_us": self.warm * 1e6,
            "cold_samples_us": micros(&timing.cold),
            "warm_samples_us": micros(&timing.warm),
            "gb_per_s": self.bytes / 1e9,
            "share_of_read_ceiling": self.of_read,
            "tflop_per_s": self.flops / 1e12,
            "share_of_product_ceiling": self.of_peak,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::gpu::choose::Geometry;

    #[test]
    fn shares_are_of_the_measured_ceilings() {
        let geometry = Geometry { grid: [1; 3], block: 32, shared: 0, cluster: 1, early: false };
        let job = Job { symbol: "k".into(), geometry, params: vec![], bytes: 1e6, flops: 4e6 };
        let ceilings = Ceilings {
            read_bytes_per_s: 2e12,
            mma_flops_per_s: 1e12,
            wgmma_flops_per_s: Some(4e12),
        };
        let timing = Timing { cold: vec![1e-6, 2e-6, 1e-6], warm: vec![2e-6] };
        let row = Row::of(&job, &timing, &ceilings).expect("times");
        assert!((row.of_read - 0.5).abs() < 1e-9 && (row.of_peak - 0.5).abs() < 1e-9);
        assert!(Row::of(&job, &Timing { warm: vec![0.0], ..timing }, &ceilings).is_none());
    }
}
