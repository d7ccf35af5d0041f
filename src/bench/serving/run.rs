//! One run against a server: warm-up, flush, counters, load, counters.

use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use serde_json::Value;

use super::body::{self, Common};
use super::counters::{self, Counters};
use super::process;
use super::ttft::{self, Decomposition};
use super::turns::{self, Conversations};
use crate::bench::data::{Prompt, Row};
use crate::bench::load::arrivals::{self, Arrivals};
use crate::bench::load::client::{self, Follow, Job, Options, Outcome};
use crate::bench::load::plain;
use crate::bench::load::target::Target;
use crate::error::{Error, Kind, Result};
use crate::measure::files;
use crate::measure::interrupt::Interrupt;
use crate::measure::machine::{self, Machine, Watch};
use crate::profile::clock::Base;

/// Everything that decides a run.
#[derive(Debug, Clone)]
pub struct Plan {
    pub target: Target,
    pub common: Common,
    pub rows: Vec<Row>,
    pub arrivals: Arrivals,
    pub seed: u64,
    pub concurrency: Option<usize>,
    pub timeout: Duration,
    pub keep_text: bool,
    /// Threads of the client, each with its share of requests and places.
    pub threads: usize,
    pub warmup: usize,
    /// The path that empties the server's prefix cache after the warm-up.
    pub flush: Option<String>,
    pub flush_timeout: Duration,
    /// Body of `/start_profile`, and whether to stop at the end.
    pub profile: Option<Profile>,
}

/// A profile to record during the run, on each of `targets` (the server itself if empty).
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    pub body: Value,
    pub stop: bool,
    pub targets: Vec<Target>,
}

/// Raw results of a run.
#[derive(Debug, Clone, Default)]
pub struct Measured {
    pub outcome: Outcome,
    pub machine: Machine,
    /// Other load was measured without the server under test, which runs on this machine.
    pub server_cpu_s: Option<f64>,
    pub local: bool,
    /// What the server counted during the run.
    pub counted: Option<Counters>,
    /// Where the time to the first token went, if the server tells.
    pub ttft: Option<Decomposition>,
    /// Lines for the user: what profiles answered, what flushing did.
    pub notes: Vec<String>,
}

/// A profile may take so long to be written.
const PROFILE_PATIENCE: Duration = Duration::from_secs(120);
/// Output tokens of warm-up requests, as SGLang.
const WARMUP_OUTPUT: usize = 32;

/// Waits until `GET /v1/models` or `/health` answers 200, at most `patience`.
///
/// # Errors
/// `Io` with the last answer.
pub fn ready(target: &Target, patience: Duration, interrupt: &Interrupt) -> Result<()> {
    let begun = std::time::Instant::now();
    loop {
        let answer = plain::call(target, "GET", "/v1/models", b"", Duration::from_secs(5));
        let last = match answer {
            Ok(answer) if answer.ok() => return Ok(()),
            // A server that answers and has no such page is up.
            Ok(answer) if matches!(answer.status, 404 | 405) => return Ok(()),
            Ok(answer) => format!("status {}", answer.status),
            Err(error) => error.message,
        };
        if begun.elapsed() >= patience || interrupt.asked() {
            let seconds = patience.as_secs();
            let message = format!("the server was not ready within {seconds} s: {last}");
            return Err(Error::new(Kind::Io, message));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Runs `plan`. `ended` counts requests that have ended.
///
/// # Errors
/// No warm-up request succeeded, or the system refuses sockets or threads; failures of measured
/// requests are in their records.
pub fn run(plan: &Plan, interrupt: &Interrupt, ended: &AtomicUsize) -> Result<Measured> {
    let mut measured = Measured { local: plan.target.is_local(), ..Measured::default() };
    warm_up(plan, interrupt)?;
    flush(plan, &mut measured.notes)?;
    // Bodies and schedule are made before the clock starts.
    let jobs = jobs(plan)?;
    let flight = plan.concurrency.unwrap_or(jobs.len()).min(jobs.len()) as u64;
    let open = files::lift_limit(flight + 64).unwrap_or(0);
    files::make_room((flight + 64).min(open).saturating_sub(1));
    if open < flight + 16 {
        measured.notes.push(format!(
            "only {open} files may be open, {flight} requests may be in flight: raise `ulimit -n` \
             or give --max-concurrency"
        ));
    }
    start_profile(plan, &mut measured.notes);
    let before = counters::read(&plan.target);
    let server = process::of(&plan.target);
    let cpu = server.and_then(machine::process_seconds);
    let watch = Watch::start();
    measured.outcome = load(plan, jobs, interrupt, ended)?;
    measured.machine = watch.finish();
    measured.ttft = ttft::decompose(&measured.outcome.records, &Base::read().boot);
    let cpu_after = server.and_then(machine::process_seconds);
    measured.server_cpu_s = cpu.zip(cpu_after).map(|(a, b)| (b - a).max(0.0));
    measured.machine.leave_out(measured.server_cpu_s.unwrap_or(0.0));
    if let (Some(before), Some(after)) = (before, counters::read(&plan.target)) {
        measured.counted = Some(after.since(&before));
    }
    stop_profile(plan, &mut measured.notes);
    Ok(measured)
}

/// The jobs of a plan, in order of arrival; later turns of conversations are made as they come.
pub fn jobs(plan: &Plan) -> Result<Vec<Job>> {
    let rows = plan.rows.iter().enumerate().filter(|(_, row)| !row.follows);
    let times = arrivals::schedule(&plan.arrivals, rows.clone().count(), plan.seed);
    rows.zip(times)
        .map(|((index, row), scheduled)| {
            let bytes = request(plan, row, &body::body(&plan.common, row)?);
            let rest = turns::behind(&plan.rows, index).len();
            Ok(Job { index, scheduled, bytes, rest })
        })
        .collect()
}

/// Head and body of the request for `row`.
pub fn request(plan: &Plan, row: &Row, body: &[u8]) -> Vec<u8> {
    let key = row.routing_key.as_ref().map(|k| format!("X-SMG-Routing-Key: {k}"));
    plan.target.request_with("POST", plan.common.api.path(), body, key.as_deref())
}

fn options(plan: &Plan, concurrency: Option<usize>) -> Result<Options> {
    let none = || Error::new(Kind::Io, format!("{}: no address", plan.target.host));
    let stream = plain::connect(&plan.target, Duration::from_secs(5));
    let address = match stream.and_then(|s| s.peer_addr()) {
        Ok(address) => address,
        Err(_) => plan.target.addresses.first().copied().ok_or_else(none)?,
    };
    Ok(Options {
        address,
        api: plan.common.api,
        concurrency,
        timeout: plan.timeout,
        keep_text: plan.keep_text || plan.rows.iter().any(|r| r.follows),
    })
}

/// The first row, backwards, `warmup` times at once; at least one must succeed.
fn warm_up(plan: &Plan, interrupt: &Interrupt) -> Result<()> {
    let Some(first) = plan.rows.first().filter(|_| plan.warmup > 0) else { return Ok(()) };
    let mut row = first.clone();
    row.output_len = row.output_len.min(WARMUP_OUTPUT);
    if let Prompt::Ids(ids) = &mut row.prompt {
        // Other than any prompt of the run, which would find it in the prefix cache.
        ids.reverse();
    }
    let bytes =
        plan.target.request("POST", plan.common.api.path(), &body::body(&plan.common, &row)?);
    let job = |index| Job { index, scheduled: None, bytes: bytes.clone(), rest: 0 };
    let jobs: Vec<Job> = (0..plan.warmup).map(job).collect();
    let options = options(plan, plan.concurrency)?;
    let outcome = client::run(&jobs, &options, None, interrupt, &AtomicUsize::new(0))?;
    if outcome.records.iter().any(|r| r.ok()) || outcome.interrupted {
        return Ok(());
    }
    let why = outcome.records.iter().find_map(|r| r.failure.clone());
    let why = why.map_or(String::new(), |f| format!("{}: {}", f.reason.name(), f.detail));
    Err(Error::new(Kind::Io, format!("no warm-up request succeeded: {why}")))
}

fn flush(plan: &Plan, notes: &mut Vec<String>) -> Result<()> {
    let Some(path) = &plan.flush else { return Ok(()) };
    let patience = plan.flush_timeout + Duration::from_secs(5);
    let answer = plain::call(&plan.target, "POST", path, b"", patience)?;
    if answer.ok() {
        return Ok(());
    }
    notes.push(format!("{path} answered {}: {}", answer.status, answer.sample()));
    Ok(())
}

/// Runs the load on the plan's threads and joins what they found.
fn load(
    plan: &Plan,
    jobs: Vec<Job>,
    interrupt: &Interrupt,
    ended: &AtomicUsize,
) -> Result<Outcome> {
    let conversations = Conversations::of(plan);
    let follow = conversations.as_ref().map(|c| c as &dyn Follow);
    let threads = plan.threads.clamp(1, jobs.len().max(1));
    let mut shares: Vec<Vec<Job>> = vec![Vec::new(); threads];
    for (i, job) in jobs.into_iter().enumerate() {
        shares[i % threads].push(job);
    }
    let place =
        |i: usize| plan.concurrency.map(|c| (c / threads + usize::from(i < c % threads)).max(1));
    let options: Vec<Options> =
        (0..threads).map(|i| options(plan, place(i))).collect::<Result<_>>()?;
    let outcomes: Vec<Result<Outcome>> = std::thread::scope(|scope| {
        let started: Vec<_> = shares
            .iter()
            .zip(&options)
            .map(|(jobs, options)| {
                scope.spawn(move || client::run(jobs, options, follow, interrupt, ended))
            })
            .collect();
        let joined = started.into_iter().map(|t| t.join());
        joined
            .map(|r| r.unwrap_or_else(|_| Err(Error::new(Kind::Io, "a client thread failed"))))
            .collect()
    });
    let mut all = Outcome { cpu_ns: Some(0), starved_ns: Some(0), ..Outcome::default() };
    for outcome in outcomes {
        let one = outcome?;
        all.records.extend(one.records);
        all.unsent += one.unsent;
        all.wall_ns = all.wall_ns.max(one.wall_ns);
        all.cpu_ns = all.cpu_ns.zip(one.cpu_ns).map(|(a, b)| a.max(b));
        all.starved_ns = all.starved_ns.zip(one.starved_ns).map(|(a, b)| a.max(b));
        all.connections += one.connections;
        all.resent += one.resent;
        all.interrupted |= one.interrupted;
    }
    Ok(all)
}

fn profile_call(plan: &Plan, path: &str, body: &Value, notes: &mut Vec<String>) {
    let Some(profile) = &plan.profile else { return };
    let own = std::slice::from_ref(&plan.target);
    let targets = if profile.targets.is_empty() { own } else { &profile.targets };
    for target in targets {
        let bytes = body.to_string();
        let answer = plain::call(target, "POST", path, bytes.as_bytes(), PROFILE_PATIENCE);
        notes.push(match answer {
            Ok(a) => format!("{}{path}: {} {}", target.host, a.status, a.sample()),
            Err(e) => e.message,
        });
    }
}

fn start_profile(plan: &Plan, notes: &mut Vec<String>) {
    if let Some(profile) = &plan.profile {
        profile_call(plan, "/start_profile", &profile.body, notes);
    }
}

/// Ends a profile that goes on until it is stopped, and one of so many steps that the run had not
/// as many: left open it would record whatever comes next.
fn stop_profile(plan: &Plan, notes: &mut Vec<String>) {
    let Some(profile) = &plan.profile else { return };
    if profile.stop {
        return profile_call(plan, "/stop_profile", &serde_json::json!({}), notes);
    }
    let own = std::slice::from_ref(&plan.target);
    let targets = if profile.targets.is_empty() { own } else { &profile.targets };
    for target in targets {
        // Only Pacer tells; other servers are left as SGLang's client leaves them.
        let Some(status) = plain::get_json(target, "/profile_status") else { continue };
        let Some(state) = status["state"].as_str().filter(|s| *s != "idle") else { continue };
        if state != "writing" {
            let asked = "the run ended before the profile's last step; it is stopped";
            notes.push(format!("{}: {asked} ({state})", target.host));
        }
        let answer = plain::call(target, "POST", "/stop_profile", b"{}", PROFILE_PATIENCE);
        notes.push(match answer {
            Ok(a) => format!("{}/stop_profile: {} {}", target.host, a.status, a.sample()),
            Err(e) => e.message,
        });
    }
}
