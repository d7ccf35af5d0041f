//! What else happened on the machine while something was measured: other processes, time stolen
//! by the hypervisor, clock frequency, throttling; and this process's peak memory.
//!
//! Everything is read from `/proc` and `/sys`. What the system does not tell is `None`, and the
//! validity block then says "unknown" instead of "fine".

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Processor time of the whole machine since boot, in clock ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ticks {
    busy: u64,
    stolen: u64,
    total: u64,
}

/// One look at the machine.
#[derive(Debug, Clone, Default, PartialEq)]
struct Snapshot {
    ticks: Option<Ticks>,
    /// User and system time of this process, clock ticks.
    own: Option<u64>,
    load: Option<f64>,
    throttled: Option<u64>,
}

/// What a [`Watch`] saw between its start and its end.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Machine {
    /// Share of all processor time that other processes used, 0 to 1.
    pub other_share: Option<f64>,
    /// Share of all processor time that the hypervisor gave to other guests, 0 to 1.
    pub steal_share: Option<f64>,
    /// Clock ticks of all processors in the window: how fine the shares are.
    pub ticks: u64,
    /// One-minute load average at the start and at the end.
    pub load: (Option<f64>, Option<f64>),
    /// Lowest and highest clock of the fastest processor over all looks, MHz.
    pub mhz: Option<(f64, f64)>,
    /// Thermal throttle events in the window.
    pub throttled: Option<u64>,
}

/// Watches the machine from [`Watch::start`] to [`Watch::finish`].
#[derive(Debug)]
pub struct Watch {
    root: PathBuf,
    first: Snapshot,
    mhz: Vec<f64>,
}

impl Watch {
    /// Looks at the machine under `/`, or under `PACER_MACHINE_ROOT`, where a container may have
    /// its host's `/proc` and `/sys`.
    pub fn start() -> Self {
        let root = std::env::var_os("PACER_MACHINE_ROOT").filter(|root| !root.is_empty());
        Self::start_at(root.as_deref().map_or(Path::new("/"), Path::new))
    }

    /// The same with another root than `/`.
    fn start_at(root: &Path) -> Self {
        let mut watch =
            Watch { root: root.to_path_buf(), first: Snapshot::read(root), mhz: Vec::new() };
        watch.look();
        watch
    }

    /// Reads the clock frequency; called between repeats, while the processors are still busy.
    pub fn look(&mut self) {
        self.mhz.extend(highest_mhz(&self.root));
    }

    pub fn finish(mut self) -> Machine {
        self.look();
        let last = Snapshot::read(&self.root);
        let (mut machine, first) = (Machine::default(), &self.first);
        machine.load = (first.load, last.load);
        machine.throttled = first.throttled.zip(last.throttled).map(|(a, b)| b.saturating_sub(a));
        machine.mhz =
            self.mhz.iter().copied().map(|m| (m, m)).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
        if let Some((a, b)) = first.ticks.zip(last.ticks) {
            machine.ticks = b.total.saturating_sub(a.total);
            let own = first.own.zip(last.own).map(|(x, y)| y.saturating_sub(x));
            let busy = b.busy.saturating_sub(a.busy);
            machine.other_share =
                own.and_then(|own| share(busy.saturating_sub(own), machine.ticks));
            machine.steal_share = share(b.stolen.saturating_sub(a.stolen), machine.ticks);
        }
        machine
    }
}

impl Machine {
    /// Takes the processor time of a process that was measured on purpose off the other load.
    pub fn leave_out(&mut self, seconds: f64) {
        // USER_HZ is 100 on every Linux there is.
        let all = self.ticks as f64 / 100.0;
        if all > 0.0 {
            self.other_share = self.other_share.map(|share| (share - seconds / all).max(0.0));
        }
    }
}

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| (part as f64 / whole as f64).min(1.0))
}

impl Snapshot {
    fn read(root: &Path) -> Self {
        Snapshot {
            ticks: read(root, "proc/stat").and_then(|t| parse_ticks(&t)),
            own: read(root, "proc/self/stat").and_then(|t| parse_own(&t)),
            load: read(root, "proc/loadavg")
                .and_then(|t| t.split_whitespace().next()?.parse().ok()),
            throttled: throttle_events(root),
        }
    }
}

fn read(root: &Path, path: &str) -> Option<String> {
    std::fs::read_to_string(root.join(path)).ok()
}

/// The `cpu` line of `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal. Guest
/// time (fields nine and ten) is already part of user and nice.
fn parse_ticks(text: &str) -> Option<Ticks> {
    let line = text.lines().find_map(|l| l.strip_prefix("cpu "))?;
    let f: Vec<u64> = line.split_whitespace().map_while(|w| w.parse().ok()).take(8).collect();
    let [user, nice, system, idle, iowait, irq, softirq, stolen] = f.try_into().ok()?;
    let busy = user + nice + system + irq + softirq;
    Some(Ticks { busy, stolen, total: busy + idle + iowait + stolen })
}

/// User and system ticks from `/proc/self/stat`. The second field is the command in parentheses,
/// which may itself hold spaces and parentheses, so fields are counted from the last one.
fn parse_own(text: &str) -> Option<u64> {
    let mut fields = text.rsplit_once(')')?.1.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user + system)
}

/// The clock of the fastest processor now, MHz: from cpufreq, else as `/proc/cpuinfo` has it
/// (which in a guest is what the hypervisor tells).
fn highest_mhz(root: &Path) -> Option<f64> {
    let scaling = cpu_dirs(root)
        .filter_map(|d| read(&d, "cpufreq/scaling_cur_freq")?.trim().parse::<f64>().ok())
        .map(|khz| khz / 1000.0)
        .reduce(f64::max);
    scaling.or_else(|| {
        let text = read(root, "proc/cpuinfo")?;
        let lines = text.lines().filter(|l| l.starts_with("cpu MHz"));
        lines.filter_map(|l| l.rsplit(':').next()?.trim().parse::<f64>().ok()).reduce(f64::max)
    })
}

fn throttle_events(root: &Path) -> Option<u64> {
    cpu_dirs(root)
        .filter_map(|d| read(&d, "thermal_throttle/core_throttle_count")?.trim().parse().ok())
        .reduce(|a: u64, b: u64| a.saturating_add(b))
}

/// `/sys/devices/system/cpu/cpu0`, `cpu1`, …
fn cpu_dirs(root: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(root.join("sys/devices/system/cpu"));
    entries.into_iter().flatten().flatten().map(|e| e.path()).filter(|p| {
        let name = p.file_name().and_then(|n| n.to_str()).unwrap_or("");
        name.strip_prefix("cpu").is_some_and(|n| n.parse::<u32>().is_ok())
    })
}

/// Most memory that this process ever held resident, bytes (`VmHWM`).
pub fn peak_memory_bytes() -> Option<u64> {
    parse_peak(&read(Path::new("/"), "proc/self/status")?)
}

fn parse_peak(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}

/// What the kernel's scheduler says of a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThreadTimes {
    /// Time on a processor, nanoseconds.
    pub cpu_ns: u64,
    /// Time it could have run and another thread had the processor.
    pub waited_ns: u64,
}

/// Of the calling thread since it began; `None` where the kernel does not tell. The thread keeps
/// the file open, because it may ask at every turn of a loop.
pub fn thread_times() -> Option<ThreadTimes> {
    thread_local! {
        static FILE: Option<File> = File::open("/proc/thread-self/schedstat").ok();
    }
    let mut text = [0; 80];
    let length = FILE.with(|file| file.as_ref()?.read_at(&mut text, 0).ok())?;
    parse_schedstat(std::str::from_utf8(text.get(..length)?).ok()?)
}

fn parse_schedstat(text: &str) -> Option<ThreadTimes> {
    let mut words = text.split_whitespace().map_while(|w| w.parse().ok());
    let times = ThreadTimes { cpu_ns: words.next()?, waited_ns: words.next()? };
    // A thread that asks has run at least once; a kernel that does not count says 0 0 0.
    (words.next()? > 0).then_some(times)
}

/// Gives memory that was freed, and that the allocator keeps for the next time, back to the
/// system; see malloc_trim(3). It takes about a millisecond: not for a loop that has work.
pub fn give_back_memory() {
    // SAFETY: the call has no precondition; allocations of other threads go on beside it.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Has all threads allocate from one arena; see mallopt(3). By default each thread gets its own,
/// whose free pieces no other can use: memory then creeps upwards for hours. Before threads start.
pub fn use_one_arena() {
    // SAFETY: the call has no precondition; a refusal changes nothing.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// User and system time of another process, seconds; `None` if it is gone.
pub fn process_seconds(pid: u32) -> Option<f64> {
    let ticks = parse_own(&read(Path::new("/"), &format!("proc/{pid}/stat"))?)?;
    // USER_HZ is 100 on every Linux there is.
    Some(ticks as f64 / 100.0)
}

/// The processor's marketing name, or the architecture where the system does not tell.
pub fn cpu_name() -> String {
    let text = read(Path::new("/"), "proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|l| l.starts_with("model name"));
    let name = line.and_then(|l| l.split_once(':')).map(|(_, n)| n.trim().to_string());
    name.filter(|n| !n.is_empty()).unwrap_or_else(|| std::env::consts::ARCH.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    struct Root(PathBuf);

    impl Root {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("pacer-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Root(path)
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.0.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    const CPU0: &str = "sys/devices/system/cpu/cpu0";

    #[test]
    fn shares_of_a_known_window() {
        let root = Root::new("machine");
        root.write("proc/stat", "cpu  100 0 50 800 10 0 0 40 0 0\ncpu0 1 2 3\n");
        root.write("proc/self/stat", "7 (a) b) R 1 1 1 0 -1 0 9 0 0 0 60 20 0 0 20 0 1 0\n");
        root.write("proc/loadavg", "0.50 0.1 0.1 1/2 3\n");
        root.write(&format!("{CPU0}/cpufreq/scaling_cur_freq"), "3000000\n");
        root.write(&format!("{CPU0}/thermal_throttle/core_throttle_count"), "4\n");
        let mut watch = Watch::start_at(&root.0);
        // 200 ticks pass: 90 busy (70 own, 20 other), 10 stolen, 100 idle.
        root.write("proc/stat", "cpu  170 10 60 900 10 0 0 50 0 0\n");
        root.write("proc/self/stat", "7 (a) b) R 1 1 1 0 -1 0 9 0 0 0 120 30 0 0 20 0 1 0\n");
        root.write("proc/loadavg", "1.75 0.1 0.1 1/2 3\n");
        root.write(&format!("{CPU0}/cpufreq/scaling_cur_freq"), "2400000\n");
        root.write(&format!("{CPU0}/thermal_throttle/core_throttle_count"), "6\n");
        watch.look();
        let m = watch.finish();
        assert_eq!(m.ticks, 200);
        assert_eq!(m.other_share, Some(0.1));
        assert_eq!(m.steal_share, Some(0.05));
        assert_eq!(m.load, (Some(0.5), Some(1.75)));
        assert_eq!(m.mhz, Some((2400.0, 3000.0)));
        assert_eq!(m.throttled, Some(2));
    }

    #[test]
    fn a_silent_system_is_unknown_not_idle() {
        let root = Root::new("silent");
        root.write("proc/stat", "cpu  0 0 0 0\n");
        assert_eq!(Watch::start_at(&root.0).finish(), Machine::default());
    }

    #[test]
    fn threads_know_their_time() {
        let want = ThreadTimes { cpu_ns: 1135931, waited_ns: 267551 };
        assert_eq!(parse_schedstat("1135931 267551 2\n"), Some(want));
        assert_eq!(parse_schedstat("0 0 0\n"), None);
        assert_eq!(parse_schedstat("x"), None);
    }

    #[test]
    fn cpuinfo_is_the_second_choice() {
        let root = Root::new("cpuinfo");
        root.write("proc/cpuinfo", "cpu MHz\t\t: 2000.5\nother\ncpu MHz\t\t: 2500.0\n");
        assert_eq!(highest_mhz(&root.0), Some(2500.0));
    }

    /// More threads than processors, each computing: they wait for their turns, and no time is
    /// both waited and computed.
    #[test]
    fn waiting_for_a_processor_is_told_from_computing() {
        let threads = 3 * std::thread::available_parallelism().map_or(1, usize::from);
        let compute = || {
            let (start, before) = (Instant::now(), thread_times());
            while start.elapsed() < Duration::from_millis(200) {
                std::hint::black_box(thread_times());
            }
            (before, thread_times(), start.elapsed())
        };
        let threads: Vec<_> = (0..threads).map(|_| std::thread::spawn(compute)).collect();
        let mut waited = 0;
        for thread in threads {
            let (Some(before), Some(after), time) = thread.join().unwrap() else { return };
            let cpu = after.cpu_ns - before.cpu_ns;
            let wait = after.waited_ns - before.waited_ns;
            let clocks_differ = Duration::from_millis(20);
            let both = Duration::from_nanos(cpu + wait);
            assert!(both < time + clocks_differ, "{time:?}: computed {cpu} ns, waited {wait} ns");
            waited += wait;
        }
        assert!(waited > 0);
    }

    #[test]
    fn peak_memory_of_this_process() {
        assert_eq!(parse_peak("Name: x\nVmHWM:\t    1956 kB\n"), Some(1956 * 1024));
        assert_eq!(parse_peak("VmHWM: lots kB"), None);
        if cfg!(target_os = "linux") {
            assert!(peak_memory_bytes().unwrap() > 100_000);
        }
    }
}
