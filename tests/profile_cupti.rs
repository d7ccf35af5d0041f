//! CUPTI through the same dlopen path as with a real one: a stand-in library, built here by the C
//! compiler, delivers records of CUDA 13's layout. One test, because a process has one CUPTI.

use std::ffi::{CString, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;

use pacer::profile::clock;
use pacer::profile::cupti::api::{Api, places};
use pacer::profile::cupti::{Activity, Collector, Joined, layout};

/// The stand-in's own functions, to script what the "device" does.
struct Script(*mut c_void);

impl Script {
    fn open(library: &Path) -> Script {
        let name = CString::new(library.to_str().unwrap()).unwrap();
        // SAFETY: the library is the one that was just built; opening it again gives the same.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW) };
        assert!(!handle.is_null());
        Script(handle)
    }

    fn symbol(&self, name: &str) -> *mut c_void {
        let name = CString::new(name).unwrap();
        // SAFETY: the handle is open and the name ends with NUL.
        let found = unsafe { libc::dlsym(self.0, name.as_ptr()) };
        assert!(!found.is_null(), "{name:?}");
        found
    }

    fn call(&self, correlation: u32) {
        // SAFETY: `standin_call` has this signature.
        let f: extern "C" fn(u32) = unsafe { std::mem::transmute(self.symbol("standin_call")) };
        f(correlation);
    }

    fn kernel(&self, name: &'static [u8], at: (u64, u64), ids: (u32, u32, u32, u64)) {
        type Kernel = extern "C" fn(*const u8, u64, u64, u32, u32, u32, u64);
        assert_eq!(name.last(), Some(&0));
        // SAFETY: `standin_kernel` has this signature.
        let f: Kernel = unsafe { std::mem::transmute(self.symbol("standin_kernel")) };
        f(name.as_ptr(), at.0, at.1, ids.0, ids.1, ids.2, ids.3);
    }

    fn memory(&self, set: bool, bytes: u64, correlation: u32) {
        type Memory = extern "C" fn(i32, u64, u64, u64, u32, u32);
        // SAFETY: `standin_memory` has this signature.
        let f: Memory = unsafe { std::mem::transmute(self.symbol("standin_memory")) };
        f(set.into(), bytes, 50, 60, 7, correlation);
    }

    fn sync(&self) {
        // SAFETY: `standin_sync` has this signature.
        let f: extern "C" fn(u64, u64, u32, u32) =
            unsafe { std::mem::transmute(self.symbol("standin_sync")) };
        f(70, 90, 7, 9);
    }

    fn number(&self, name: &str, value: usize) {
        // SAFETY: these functions take one integer in a register.
        let f: extern "C" fn(usize) = unsafe { std::mem::transmute(self.symbol(name)) };
        f(value);
    }
}

fn build() -> PathBuf {
    let folder = std::env::temp_dir().join(format!("pacer-cupti-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let library = folder.join("libcupti.so.13");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cupti/standin.c");
    let cc = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    let built = Command::new(cc)
        .args(["-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(source)
        .status()
        .unwrap();
    assert!(built.success());
    library
}

fn kernels(records: &[Joined]) -> Vec<&Joined> {
    records.iter().filter(|r| matches!(r.activity, Activity::Kernel(_))).collect()
}

#[test]
fn records_come_through_the_real_door() {
    let missing = Collector::start(&["/nowhere/libcupti.so.13".into()]).err().unwrap();
    assert!(missing.message.contains("CUPTI was not found"), "{missing}");
    assert!(places().len() > 10);
    let library = build();
    let script = Script::open(&library);
    let at = [PathBuf::from("/nowhere/libcupti.so.13"), library.clone()];

    // Another profiler has the process; the driver refuses; an older library.
    for (status, why) in [
        (layout::ERROR_MULTIPLE_SUBSCRIBERS, "another profiler"),
        (layout::ERROR_INSUFFICIENT_PRIVILEGES, "administrators"),
        (21, "a status of the stand-in"),
    ] {
        script.number("standin_refuse", status);
        let error = Collector::start(&at).err().unwrap();
        assert!(error.message.contains(why), "{error}");
    }
    script.number("standin_refuse", 0);
    script.number("standin_version", 120_800);
    let error = Collector::start(&at).err().unwrap();
    assert!(error.message.contains("CUPTI 13 is needed"), "{error}");
    script.number("standin_version", layout::API_VERSION);
    assert_eq!(Api::open(&at).unwrap().path, library);

    let mut cupti = Collector::start(&at).unwrap();
    assert!(Collector::start(&at).is_err(), "one at a time");
    launches(&mut cupti, &script);
    graphs(&mut cupti, &script);
    oddities(&mut cupti, &script);
    many(&mut cupti, &script);
    drop(cupti);
    assert!(Collector::start(&at).is_ok(), "free again");
    std::fs::remove_dir_all(library.parent().unwrap()).unwrap();
}

/// A launch outside graphs is joined by its external id, on the monotonic clock.
fn launches(cupti: &mut Collector, script: &Script) {
    let before = clock::now_ns();
    cupti.push(0xABCD_0001);
    script.call(31);
    cupti.pop();
    cupti.push(0xABCD_0002);
    cupti.push(0xABCD_0003);
    script.call(32);
    cupti.pop();
    cupti.pop();
    script.call(33);
    script.kernel(b"gemm\0", (100, 140), (7, 31, 0, 0));
    script.kernel(b"attention\0", (140, 190), (7, 32, 0, 0));
    script.kernel(b"gemm2\0", (190, 200), (7, 33, 0, 0));
    script.memory(false, 4096, 31);
    script.memory(true, 512, 32);
    script.sync();
    assert!(kernels(&cupti.take(false).unwrap().records).is_empty(), "not complete yet");
    let taken = cupti.take(true).unwrap();
    assert_eq!((taken.dropped, taken.unknown), (0, 0));
    let own: Vec<_> = kernels(&taken.records).iter().map(|k| k.own).collect();
    assert_eq!(own, [Some(0xABCD_0001), Some(0xABCD_0003), None]);
    let names: Vec<&str> =
        kernels(&taken.records).iter().map(|k| cupti.texts[k.name as usize].as_str()).collect();
    assert_eq!(names, ["gemm", "attention", "gemm2"]);
    let Activity::Kernel(k) = kernels(&taken.records)[0].activity else { unreachable!() };
    assert_eq!(
        (k.span.start_ns, k.span.end_ns, k.span.stream, k.span.correlation),
        (100, 140, 7, 31)
    );
    assert_eq!((k.grid, k.block, k.registers, k.shared), ([10, 11, 12], [20, 21, 22], 168, 3072));
    let memory: Vec<_> = taken
        .records
        .iter()
        .filter_map(|r| match r.activity {
            Activity::Memory { set, bytes, direction, .. } => Some((set, bytes, direction, r.own)),
            _ => None,
        })
        .collect();
    let wanted = [(false, 4096, 1, Some(0xABCD_0001)), (true, 512, 0, Some(0xABCD_0003))];
    assert_eq!(memory, wanted);
    let calls: Vec<u64> = taken
        .records
        .iter()
        .filter_map(|r| match r.activity {
            Activity::Call { span } => Some(span.start_ns),
            _ => None,
        })
        .collect();
    assert_eq!(calls.len(), 3);
    assert!(calls.iter().all(|at| (before..=clock::now_ns()).contains(at)), "one clock");
    let sync = taken.records.iter().any(|r| {
        matches!(r.activity,
        Activity::Sync { span } if (span.start_ns, span.end_ns) == (70, 90))
    });
    assert!(sync);
}

/// All kernels of a graph share the launch's correlation id; their nodes tell them apart.
fn graphs(cupti: &mut Collector, script: &Script) {
    for node in 1..=3 {
        cupti.graph_node(0x9000 + node, 500 + node);
    }
    for replay in 0..2 {
        cupti.push(7);
        script.call(40 + replay);
        cupti.pop();
        for node in 1..=4_u64 {
            let ids = (7, 40 + replay, 3, 0x9000 + node);
            script.kernel(b"node\0", (node * 10, node * 10 + 5), ids);
        }
    }
    let taken = cupti.take(true).unwrap();
    let own: Vec<_> = kernels(&taken.records).iter().map(|k| k.own).collect();
    // The fourth node is not in the table: it belongs to the launch as a whole.
    let one = [Some(501), Some(502), Some(503), Some(7)];
    assert_eq!(own, [one, one].concat());
}

/// Unknown kinds, longer records, drops: read on, and said.
fn oddities(cupti: &mut Collector, script: &Script) {
    script.kernel(b"a\0", (1, 2), (7, 1, 0, 0));
    script.number("standin_longer", 48);
    script.number("standin_unknown", 0);
    script.kernel(b"b\0", (3, 4), (7, 2, 0, 0));
    script.number("standin_unknown", 0);
    script.kernel(b"c\0", (5, 6), (7, 3, 0, 0));
    script.number("standin_longer", 0);
    script.number("standin_drop", 12);
    let taken = cupti.take(true).unwrap();
    assert_eq!((taken.unknown, taken.dropped), (2, 12));
    let spans: Vec<u64> = kernels(&taken.records)
        .iter()
        .filter_map(|k| match k.activity {
            Activity::Kernel(k) => Some(k.span.start_ns),
            _ => None,
        })
        .collect();
    assert_eq!(spans, [1, 3, 5]);
    assert_eq!(cupti.take(true).unwrap().dropped, 0);
}

/// More than a buffer holds, and more than all buffers do.
fn many(cupti: &mut Collector, script: &Script) {
    for i in 0..20_000 {
        script.kernel(b"k\0", (i, i + 1), (7, 1000 + i as u32, 0, 0));
    }
    let taken = cupti.take(true).unwrap();
    let starts = kernels(&taken.records);
    assert_eq!((starts.len(), taken.dropped), (20_000, 0));
    // 64 buffers of 1 MiB: the rest is dropped and counted, none is lost in silence.
    for i in 0..400_000 {
        script.kernel(b"k\0", (i, i + 1), (7, 5, 0, 0));
    }
    let taken = cupti.take(true).unwrap();
    let kept = kernels(&taken.records).len() as u64;
    assert!(kept > 200_000 && kept < 400_000, "{kept}");
    assert_eq!(taken.dropped, 400_000 - kept);
    assert!(cupti.take(true).unwrap().records.is_empty());
}
