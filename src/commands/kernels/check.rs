//! `pacer kernels check`: every GPU kernel against its formula in f64.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use argh::{ArgsInfo, FromArgs};
use serde_json::json;

use super::super::{Run, out, values};
use crate::choice;
use crate::device::gpu::check::{self, Case, Emulated, OnDriver, Outcome};
use crate::device::gpu::driver::Driver;
use crate::device::gpu::driver::cuda::Cuda;
use crate::device::gpu::registry::{self, Target};
use crate::error::{Error, Kind, Result};

choice! {
    /// What the kernels run on.
    On { Emulated = "emulated", Cuda = "cuda" }
}

/// Checks the GPU kernels against their formulas in f64: remainders, strides, planted outliers,
/// poisoned outputs; on the PTX machine also traffic, sectors and every finding under several
/// schedules. Exit 1 if a check fails or, without --kernel, if a kernel was never launched.
#[derive(FromArgs, ArgsInfo, Debug, Clone, PartialEq)]
#[argh(help_triggers("--help"))]
pub struct Check {
    /// emulated (the PTX machine, no GPU needed) or cuda (default emulated)
    #[argh(option, arg_name = "DEVICE", default = "On::Emulated")]
    pub device: On,

    /// only cases whose name has this in it, such as rmsnorm or "rope bf16" (default: all)
    #[argh(option, arg_name = "NAME")]
    pub kernel: Option<String>,

    /// leave out cases whose name has this in it (default: none)
    #[argh(option, arg_name = "NAME")]
    pub skip: Option<String>,

    /// orders of blocks and warps to try on the PTX machine (default 20)
    #[argh(option, arg_name = "N", default = "20", from_str_fn(values::whole::<1, 10_000>))]
    pub schedules: usize,

    /// one JSON object a case instead of text
    #[argh(switch)]
    pub json: bool,
}

impl Run for Check {
    const NAME: &'static str = "kernels check";

    fn run(self) -> Result<()> {
        match self.device {
            On::Emulated => {
                let cases = self.cases(|_| true)?;
                let mut report = Report::new(&self);
                on_threads(&cases, self.schedules as u64, &mut |case, outcome| {
                    report.add(case, outcome)
                })?;
                report.end(cases.len(), |_| true)
            }
            On::Cuda => {
                let card = Cuda::open(0).map_err(|e| Error::device(e.to_string()))?;
                let capability = card.card().capability;
                let runs = |t: Target| t.runs_on(capability);
                let cases = self.cases(runs)?;
                let (mut machine, mut report) = (OnDriver::new(&card), Report::new(&self));
                for case in &cases {
                    report.add(case, check::run(case, &mut machine, 1))?;
                }
                report.end(cases.len(), runs)
            }
        }
    }
}

/// Runs every case, as many at once as there are cores, each worker on a PTX machine of its own.
/// Outcomes arrive in the cases' order.
fn on_threads(
    cases: &[Case],
    schedules: u64,
    tell: &mut dyn FnMut(&Case, Outcome) -> Result<()>,
) -> Result<()> {
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    let (sender, outcomes) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..workers {
            let (next, sender) = (&next, sender.clone());
            scope.spawn(move || {
                let mut machine = Emulated::default();
                while let Some((n, case)) = {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    cases.get(n).map(|case| (n, case))
                } {
                    // Nobody listens any more once standard output is closed.
                    if sender.send((n, check::run(case, &mut machine, schedules))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut early = BTreeMap::new();
        let mut due = 0;
        for (n, outcome) in outcomes {
            early.insert(n, outcome);
            while let Some(outcome) = early.remove(&due) {
                if let Some(case) = cases.get(due) {
                    tell(case, outcome)?;
                }
                due += 1;
            }
        }
        Ok(())
    })
}

/// # Errors
/// No case launched some kernel of the registry that the machine runs.
fn all_ran(launched: &BTreeSet<&str>, runs: impl Fn(Target) -> bool) -> Result<()> {
    let missed: Vec<&str> = registry::kernels()
        .filter(|(module, kernel)| runs(module.target) && !launched.contains(kernel.symbol))
        .map(|(_, kernel)| kernel.symbol)
        .collect();
    if missed.is_empty() {
        return Ok(());
    }
    let what = format!("no case launched {} kernels: {}", missed.len(), missed.join(", "));
    Err(Error::new(Kind::Device, what))
}

impl Check {
    /// The cases that the flags name and the machine runs.
    fn cases(&self, runs: impl Fn(Target) -> bool) -> Result<Vec<Case>> {
        let has = |c: &Case, part: &Option<String>| part.as_ref().map(|p| c.name.contains(p));
        let named =
            |c: &Case| has(c, &self.kernel) != Some(false) && has(c, &self.skip) != Some(true);
        let wanted = |c: &Case| named(c) && runs(c.target);
        let cases: Vec<Case> = check::cases().into_iter().filter(wanted).collect();
        if cases.is_empty() {
            let name = self.kernel.as_deref().unwrap_or("");
            return Err(Error::usage(format!("--kernel {name}: no case has this in its name")));
        }
        Ok(cases)
    }

    fn tell(&self, case: &Case, outcome: &Outcome) -> Result<()> {
        if self.json {
            return out::line(json!({
                "case": case.name,
                "kernels": outcome.launched,
                "schedules": outcome.schedules,
                "passed": outcome.failure.is_none(),
                "failure": outcome.failure,
            }));
        }
        match &outcome.failure {
            None => out::line(format!("pass  {}", case.name)),
            Some(e) => out::line(format!("FAIL  {}: {e}", case.name)),
        }
    }
}

/// What has been found so far.
struct Report<'a> {
    flags: &'a Check,
    failed: usize,
    launched: BTreeSet<&'static str>,
}

impl<'a> Report<'a> {
    fn new(flags: &'a Check) -> Self {
        Report { flags, failed: 0, launched: BTreeSet::new() }
    }

    fn add(&mut self, case: &Case, outcome: Outcome) -> Result<()> {
        self.launched.extend(outcome.launched.iter().copied());
        self.failed += usize::from(outcome.failure.is_some());
        self.flags.tell(case, &outcome)
    }

    fn end(self, count: usize, runs: impl Fn(Target) -> bool) -> Result<()> {
        let Report { flags, failed, launched } = self;
        let total = registry::kernels().count();
        let schedules = if flags.device == On::Cuda { 1 } else { flags.schedules };
        if !flags.json {
            out::line(format!(
                "{} of {count} cases pass under {schedules} schedules; {} of {total} kernels ran",
                count - failed,
                launched.len()
            ))?;
        }
        if failed > 0 {
            let what = format!("{failed} of {count} kernel checks fail");
            return Err(Error::new(Kind::Device, what));
        }
        match flags.kernel {
            Some(_) => Ok(()),
            None => all_ran(&launched, runs),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_no_case_launches_is_named() {
        let mut launched: BTreeSet<&str> = registry::kernels().map(|(_, k)| k.symbol).collect();
        assert!(all_ran(&launched, |_| true).is_ok());
        let left = launched.pop_first().expect("kernels");
        let error = all_ran(&launched, |_| true).expect_err("one is missing").to_string();
        assert!(all_ran(&launched, |t| t != Target::Sm80).is_ok(), "{left} is of sm80");
        assert!(error.contains(&format!("no case launched 1 kernels: {left}")), "{error}");
    }
}
