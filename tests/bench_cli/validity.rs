//! Every fault that spoils a measurement, planted around the program itself: the row is kept, its
//! validity names the fault, and `--strict` exits with 4.

use std::path::PathBuf;
use std::process::{Child, Output, Stdio};
use std::time::Duration;

use super::mock::{Mock, Timing};
use super::{File, pacer, serving, text};

fn flagged(out: &Output, file: &File, check: &str) {
    assert_eq!(out.status.code(), Some(4), "{check}: {}", text(out));
    assert!(text(out).contains(&format!("{check} fail")), "{check}: {}", text(out));
    let rows = file.rows();
    assert_eq!(rows.len(), 1, "{check}: the row is kept");
    let checks = rows[0]["validity"]["checks"].as_array().expect("checks");
    let found = checks.iter().find(|c| c["name"] == check).expect(check);
    assert_eq!(found["status"], "fail", "{found}");
}

/// A server that stops early, has prompts in its prefix cache, slows down as if it grew hot, or
/// has answered more than the client has records of.
#[test]
fn faults_of_the_server() {
    let mock = Mock::start(Timing::default());
    for (fault, check) in [
        ("early", "achieved_output"),
        ("cached", "prefix_cache_hits"),
        ("heats", "warmup_drift"),
        ("overcounts", "server_counters"),
    ] {
        let file = File::new(&format!("strict-{fault}.jsonl"));
        let out = serving(&mock, fault, "--max-concurrency 1 --strict", &file);
        flagged(&out, &file, check);
    }
}

/// An open loop of 20 requests, one every 100 ms.
fn spawn(mock: &Mock, file: &File, root: Option<&PathBuf>) -> Child {
    let words = format!(
        "bench-serving --base-url {} --num-prompts 20 --request-rate 10 --burstiness inf \
         --random-input-len 5 --random-output-len 4 --random-range-ratio 1 --output-file {} \
         --disable-tqdm --strict",
        mock.url(""),
        file.0.display()
    );
    let mut command = pacer(&words);
    if let Some(root) = root {
        command.env("PACER_MACHINE_ROOT", root);
    }
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started")
}

fn wait_for_requests(mock: &Mock, n: usize) {
    while mock.seen.lock().unwrap().requests.len() < n {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A client that does not get to run sends late, and says so.
#[cfg(unix)]
#[test]
fn a_slow_client() {
    let mock = Mock::start(Timing::default());
    let file = File::new("strict-slow.jsonl");
    let child = spawn(&mock, &file, None);
    wait_for_requests(&mock, 5);
    // SAFETY: signals to our own child, which has not been waited for.
    unsafe { libc::kill(child.id() as i32, libc::SIGSTOP) };
    std::thread::sleep(Duration::from_millis(500));
    // SAFETY: as above.
    unsafe { libc::kill(child.id() as i32, libc::SIGCONT) };
    flagged(&child.wait_with_output().unwrap(), &file, "schedule_slip");
}

/// A machine made of files, as `/proc` and `/sys` tell of one.
struct Machine(PathBuf);

impl Machine {
    fn new(name: &str) -> Machine {
        let machine = Machine(File::new(name).0.clone());
        machine.write("proc/loadavg", "0.10 0.10 0.10 1/99 1");
        machine.write("proc/self/stat", "1 (pacer) S 1 1 1 0 -1 0 0 0 0 0 5 5 0 0 20 0 1 0 1 1 1");
        machine.now([1000, 0, 100, 9000, 0, 0, 0, 0], 3_000_000, 0);
        machine
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Ticks as in the first line of `/proc/stat`, the clock, throttle events.
    fn now(&self, ticks: [u64; 8], khz: u64, throttled: u64) {
        let ticks: Vec<String> = ticks.iter().map(u64::to_string).collect();
        self.write("proc/stat", &format!("cpu  {} 0 0\n", ticks.join(" ")));
        let cpu = "sys/devices/system/cpu/cpu0";
        self.write(&format!("{cpu}/cpufreq/scaling_cur_freq"), &khz.to_string());
        self.write(&format!("{cpu}/thermal_throttle/core_throttle_count"), &throttled.to_string());
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs on a machine of files that becomes `(ticks, kHz, throttled)` in the middle.
fn on_a_machine_that_becomes(name: &str, ticks: [u64; 8], khz: u64, throttled: u64, check: &str) {
    let mock = Mock::start(Timing::default());
    let (machine, file) = (Machine::new(name), File::new(&format!("{name}.jsonl")));
    let child = spawn(&mock, &file, Some(&machine.0));
    wait_for_requests(&mock, 5);
    machine.now(ticks, khz, throttled);
    flagged(&child.wait_with_output().unwrap(), &file, check);
}

#[test]
fn background_load() {
    let busy = [1800, 0, 100, 9200, 0, 0, 0, 0];
    on_a_machine_that_becomes("machine-load", busy, 3_000_000, 0, "other_load");
}

#[test]
fn a_clock_that_sinks() {
    let idle = [1000, 0, 100, 10_000, 0, 0, 0, 0];
    on_a_machine_that_becomes("machine-clock", idle, 2_000_000, 0, "clock_change");
}

#[test]
fn throttling() {
    let idle = [1000, 0, 100, 10_000, 0, 0, 0, 0];
    on_a_machine_that_becomes("machine-heat", idle, 3_000_000, 1, "clock_change");
}
