//! The validity block (contract.md §5): every result says whether it can be trusted, and why.

use serde_json::{Value, json};

use super::clock::ClockFacts;
use super::json::optional;
use super::machine::Machine;
use super::{stats, words};
use crate::error::{Error, Kind, Result};

/// How a check came out, worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    Pass,
    Warn,
    Fail,
}

impl Status {
    pub const fn name(self) -> &'static str {
        match self {
            Status::Pass => "pass",
            Status::Warn => "warn",
            Status::Fail => "fail",
        }
    }
}

/// One check with its figure. Shares are fractions: 0.05 is 5 %.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    pub name: &'static str,
    pub status: Status,
    /// What was found; `None` if it is unknown, and the note says why.
    pub figure: Option<f64>,
    /// Beyond this the check fails.
    pub limit: Option<f64>,
    pub note: String,
}

impl Check {
    /// A figure (smaller is better) against two bounds: above `warn` it warns, above `fail` it
    /// fails. An unknown figure warns: it is not known to be good.
    pub fn bounded(
        name: &'static str,
        figure: Option<f64>,
        warn: f64,
        fail: f64,
        note: impl Into<String>,
    ) -> Check {
        let status = match figure {
            Some(x) if x <= warn => Status::Pass,
            Some(x) if x > fail || x.is_nan() => Status::Fail,
            _ => Status::Warn,
        };
        Check { name, status, figure, limit: Some(fail), note: note.into() }
    }

    fn to_json(&self) -> Value {
        json!({
            "name": self.name,
            "status": self.status.name(),
            "figure": optional(self.figure),
            "limit": optional(self.limit),
            "note": self.note,
        })
    }
}

/// All checks of one result.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Validity {
    pub checks: Vec<Check>,
}

impl Validity {
    pub fn push(&mut self, check: Check) {
        self.checks.push(check);
    }

    /// The worst status; `Pass` without checks.
    pub fn status(&self) -> Status {
        self.checks.iter().map(|c| c.status).max().unwrap_or(Status::Pass)
    }

    pub fn to_json(&self) -> Value {
        let checks: Vec<Value> = self.checks.iter().map(Check::to_json).collect();
        json!({ "status": self.status().name(), "checks": checks })
    }

    /// One line: `validity: pass (8 checks)`, or the names and notes of those that did not pass.
    pub fn line(&self) -> String {
        let bad: Vec<String> = self
            .checks
            .iter()
            .filter(|c| c.status != Status::Pass)
            .map(|c| format!("{} {} ({})", c.name, c.status.name(), c.note))
            .collect();
        let counted = format!("{} checks", self.checks.len());
        let rest = if bad.is_empty() { String::new() } else { format!(": {}", bad.join("; ")) };
        format!("validity: {} ({counted}){rest}", self.status().name())
    }

    /// For `--strict`: an error (exit 4) that names the failed checks.
    pub fn require(&self) -> Result<()> {
        let failed: Vec<String> = self
            .checks
            .iter()
            .filter(|c| c.status == Status::Fail)
            .map(|c| format!("{} ({})", c.name, c.note))
            .collect();
        if failed.is_empty() {
            return Ok(());
        }
        let message = format!("the measurement is not valid: {}", failed.join("; "));
        Err(Error::new(Kind::Invalid, message))
    }
}

/// `12.3%`, or `unknown`.
fn percent(x: Option<f64>) -> String {
    x.map_or("unknown".into(), |x| format!("{:.1}%", x * 100.0))
}

/// Range over median of the repeats of one figure. Warns above 10 %, fails above 30 %.
pub fn spread(name: &'static str, repeats: &[f64]) -> Check {
    let figure = stats::spread(repeats);
    let n = repeats.len();
    let note = match figure {
        Some(_) => format!("range over median of {n} repeats {}", percent(figure)),
        None => format!("unknown with {n} repeat; give --repeat 3 or more"),
    };
    Check::bounded(name, figure, 0.10, 0.30, note)
}

/// Last third of a time-ordered series against the first. Warns beyond ±5 %, fails beyond ±15 %.
pub fn drift(what: &str, series: &[f64]) -> Check {
    let signed = stats::drift(series);
    let note = match signed {
        Some(d) => {
            format!("{what}: last third {}% against first third", words::signed(d * 100.0, 1))
        }
        None => format!("{what}: unknown with {} samples; three are needed", series.len()),
    };
    Check::bounded("warmup_drift", signed.map(f64::abs), 0.05, 0.15, note)
}

/// Is the clock fine enough for the shortest sample (`shortest_s`, seconds), and does it come
/// from a counter? Warns if a step of the clock is over 1 % of the shortest sample or the source
/// is slow, fails above 10 %.
pub fn clock(facts: &ClockFacts, shortest_s: f64) -> Check {
    let share = facts.resolution_ns as f64 * 1e-9 / shortest_s;
    let source = facts.source.as_deref().unwrap_or("unknown source");
    let note = format!(
        "{source}, step {} ns, shortest sample {:.0} ns",
        facts.resolution_ns,
        shortest_s * 1e9
    );
    let figure = if shortest_s > 0.0 { share } else { f64::INFINITY };
    let mut check = Check::bounded("clock", Some(figure), 0.01, 0.10, note);
    if matches!(source, "hpet" | "acpi_pm" | "jiffies" | "refined-jiffies") {
        check.status = check.status.max(Status::Warn);
        check.note.push_str("; this source is slow to read");
    }
    check
}

/// What the machine did meanwhile: other load, stolen time, clock changes.
pub fn machine(m: &Machine) -> [Check; 3] {
    let load = |l: Option<f64>| l.map_or("?".into(), |x| format!("{x:.2}"));
    let coarse = if m.ticks < 50 { ", coarse: the window was short" } else { "" };
    let other = format!(
        "other processes used {} of all processor time{coarse}; load average {} to {}",
        percent(m.other_share),
        load(m.load.0),
        load(m.load.1)
    );
    let steal = format!("hypervisor took {} of processor time{coarse}", percent(m.steal_share));
    [
        Check::bounded("other_load", m.other_share, 0.05, 0.25, other),
        Check::bounded("cpu_steal", m.steal_share, 0.02, 0.10, steal),
        frequency(m),
    ]
}

fn frequency(m: &Machine) -> Check {
    let change = m.mhz.filter(|&(_, high)| high > 0.0).map(|(low, high)| (high - low) / high);
    let clocks = match m.mhz {
        Some((low, high)) => format!("clock {low:.0} to {high:.0} MHz"),
        None => "clock frequency unknown: neither cpufreq nor /proc/cpuinfo tells it".into(),
    };
    let throttle = match m.throttled {
        Some(n) => format!("{n} thermal throttle events"),
        None => "throttling unknown: no counter on this system".into(),
    };
    let note = format!("{clocks}; {throttle}");
    let mut check = Check::bounded("clock_change", change, 0.05, 0.20, note);
    if m.throttled.is_some_and(|n| n > 0) {
        check.status = Status::Fail;
    }
    check
}

/// Requested against achieved token counts. Any difference fails.
pub fn lengths(requested: (u64, u64), achieved: (u64, u64)) -> Check {
    let off = requested.0.abs_diff(achieved.0) + requested.1.abs_diff(achieved.1);
    let note = format!(
        "input {} of {} tokens, output {} of {} tokens",
        achieved.0, requested.0, achieved.1, requested.1
    );
    Check::bounded("achieved_lengths", Some(off as f64), 0.0, 0.0, note)
}

/// Records that the ring forgot: the table of slowest operations is then incomplete.
pub fn dropped(records: u64) -> Check {
    let note = format!("{records} trace records dropped; times are measured without them");
    Check::bounded("dropped_records", Some(records as f64), 0.0, f64::INFINITY, note)
}

/// Whether this program itself was compiled with optimisation.
pub fn build(optimised: bool) -> Check {
    let note = if optimised { "optimised build" } else { "debug build: use --release" };
    Check::bounded("build", Some(f64::from(u8::from(!optimised))), 0.0, 0.0, note)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(source: &str) -> ClockFacts {
        ClockFacts { source: Some(source.into()), resolution_ns: 20 }
    }

    #[test]
    fn every_injected_fault_is_flagged() {
        use Status::{Fail, Pass, Warn};
        let status = |c: Check| c.status;
        assert_eq!(status(spread("x", &[1.0, 1.02, 1.01])), Pass);
        assert_eq!(status(spread("x", &[1.0, 1.2, 1.1])), Warn);
        assert_eq!(status(spread("x", &[1.0, 1.5, 1.1])), Fail);
        assert_eq!(status(spread("x", &[1.0])), Warn);
        assert_eq!(status(drift("x", &[1.0, 1.0, 1.01])), Pass);
        assert_eq!(status(drift("x", &[1.0, 1.0, 0.9])), Warn);
        assert_eq!(status(drift("x", &[2.0, 1.0, 1.0])), Fail);
        assert_eq!(status(clock(&facts("tsc"), 1e-3)), Pass);
        assert_eq!(status(clock(&facts("hpet"), 1e-3)), Warn);
        assert_eq!(status(clock(&facts("tsc"), 1e-6)), Warn);
        assert_eq!(status(clock(&facts("tsc"), 1e-7)), Fail);
        assert_eq!(status(clock(&facts("tsc"), 0.0)), Fail);
        assert_eq!(status(lengths((8, 4), (8, 4))), Pass);
        assert_eq!(status(lengths((8, 4), (8, 3))), Fail);
        assert_eq!(status(dropped(0)), Pass);
        assert_eq!(status(dropped(1)), Warn);
        assert_eq!(status(build(true)), Pass);
        assert_eq!(status(build(false)), Fail);
    }

    #[test]
    fn the_machine() {
        let quiet = Machine {
            other_share: Some(0.01),
            steal_share: Some(0.0),
            ticks: 100,
            mhz: Some((3000.0, 3000.0)),
            throttled: Some(0),
            ..Machine::default()
        };
        let worst = |m: &Machine| machine(m).map(|c| c.status);
        assert_eq!(worst(&quiet), [Status::Pass; 3]);
        assert_eq!(worst(&Machine::default()), [Status::Warn; 3]);
        assert!(machine(&Machine::default())[2].note.contains("unknown"));
        let busy = Machine { other_share: Some(0.3), steal_share: Some(0.2), ..quiet.clone() };
        assert_eq!(worst(&busy)[..2], [Status::Fail; 2]);
        let hot = Machine { throttled: Some(1), ..quiet.clone() };
        assert_eq!(worst(&hot)[2], Status::Fail);
        let slowed = Machine { mhz: Some((2000.0, 3000.0)), ..quiet };
        assert_eq!(worst(&slowed)[2], Status::Fail);
    }

    #[test]
    fn strict_names_what_failed() {
        let mut v = Validity::default();
        v.push(dropped(3));
        assert_eq!(v.status(), Status::Warn);
        assert!(v.require().is_ok());
        v.push(lengths((8, 4), (8, 3)));
        let error = v.require().unwrap_err();
        assert_eq!(error.exit_code(), 4);
        assert!(error.message.contains("output 3 of 4"), "{error}");
        assert!(v.line().starts_with("validity: fail (2 checks): dropped_records warn"));
        assert_eq!(v.to_json()["checks"][0]["limit"], Value::Null);
    }
}
