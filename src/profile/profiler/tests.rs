//! The profiler with steps that a test makes: windows, files, failures, races.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::steps::Which;
use super::*;
use crate::profile::folder::fuse;
use crate::profile::record::{Event, Record, two};
use crate::profile::step::StepFile;
use crate::profile::validate::validate;

/// A process that runs steps of its own making.
struct Bench {
    profiler: Profiler,
    engine: Recorder,
    http: Recorder,
    folder: PathBuf,
    steps: u32,
}

impl Bench {
    fn new(name: &str) -> Bench {
        let folder = std::env::temp_dir().join(format!("pacer-prof-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        Self::with_cap(folder, CAP_BYTES)
    }

    fn with_cap(folder: PathBuf, cap_bytes: u64) -> Bench {
        let options = Options {
            roots: vec![folder.clone()],
            cap_bytes,
            ranks: Ranks::default(),
            label: "test".into(),
            replace: false,
        };
        let profiler = Profiler::new(options).unwrap();
        let engine = profiler.recorder(Source::Engine, 1 << 12);
        let http = profiler.recorder(Source::Other, 1 << 10);
        Bench { profiler, engine, http, folder, steps: 0 }
    }

    /// A step of `bs` sequences with some ops.
    fn step(&mut self, stage: Stage, bs: usize) {
        let begun = clock::now_ns();
        self.steps += 1;
        let (id, tokens) = (self.steps, if stage == Stage::Decode { bs } else { bs * 7 });
        self.engine.step_begins(stage, begun);
        let (extra, arg) = (stage as u16, two(bs, tokens));
        let now = clock::now_ns();
        let record = |event, start_ns, end_ns| Record { event, extra, id, arg, start_ns, end_ns };
        self.engine.push(&record(Event::Batch, now, now));
        self.engine.push(&Record { id: 5, ..record(Event::Sequence, now, now) });
        let mut start = clock::now_ns();
        let first = start;
        for op in 0..10 {
            let end = clock::now_ns();
            self.engine.record(Event::Op, op, id as u64, start, end);
            start = end;
        }
        self.engine.record(Event::Step, id, tokens as u64, first, start);
        self.engine.push(&record(Event::EngineStep, begun, clock::now_ns()));
        self.engine.step_ends();
    }

    fn start(&self, body: Value) -> Answer {
        self.profiler.start(&ProfileRequest::from_json(&body).unwrap())
    }

    fn wait_idle(&self) -> Value {
        for _ in 0..2000 {
            let body = self.profiler.status().body;
            if body["state"] == "idle" {
                return body;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        panic!("never idle: {:?}", self.profiler.status());
    }

    fn root_has(&self, name: &str) -> bool {
        self.names().iter().any(|n| n == name)
    }

    fn names(&self) -> Vec<String> {
        Folder::open(&self.folder).unwrap().names().unwrap()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn trace(path: &Path) -> Value {
    let mut text = String::new();
    flate2::read::GzDecoder::new(File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn only_file(answer: &Value) -> PathBuf {
    assert_eq!(answer["files"].as_array().unwrap().len(), 1, "{answer}");
    PathBuf::from(answer["files"][0].as_str().unwrap())
}

#[test]
fn start_3_num_10_writes_steps_3_to_12_though_traffic_stops_there() {
    let mut bench = Bench::new("window");
    let answer = bench.start(json!({"start_step": 3, "num_steps": 10, "profile_id": "w"}));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.body["steps"], json!({"first": 3, "last": 12}));
    assert_eq!(answer.body["state"], "armed");
    (0..12).for_each(|i| bench.step(if i == 0 { Stage::Extend } else { Stage::Decode }, 8));
    let last = bench.wait_idle()["last"].clone();
    let path = only_file(&last);
    assert_eq!(path.file_name().unwrap(), "w-TP-0.trace.json.gz");
    let report = validate(&trace(&path)).unwrap();
    assert_eq!(report.steps, (3..=12).collect::<Vec<_>>());
    assert_eq!(report.spans["cpu_op"], 100);
    assert!(report.names.iter().all(|n| n == "step[DECODE bs=8]"), "{:?}", report.names);
    assert_eq!(last["captured"], json!([{"first": 3, "last": 12, "count": 10}]));
    assert_eq!(bench.names(), ["w-TP-0.summary.json", "w-TP-0.trace.json.gz"]);
    let again = bench.start(json!({"profile_id": "w"}));
    assert_eq!(again.status, 400, "{again:?}");
}

#[test]
fn manual_stop_and_conflicts() {
    let mut bench = Bench::new("manual");
    assert_eq!(bench.profiler.stop_and_wait().status, 409);
    assert_eq!(bench.start(json!({})).status, 200);
    let second = bench.start(json!({"num_steps": 5}));
    assert_eq!((second.status, &second.body["state"]), (409, &json!("recording")));
    let now = clock::now_ns();
    bench.http.record(Event::Submit, 5, 5, now, now + 10);
    bench.step(Stage::Extend, 2);
    bench.step(Stage::Decode, 2);
    let now = clock::now_ns();
    bench.http.record(Event::Respond, 5, 0, now, now + 10);
    let answer = bench.profiler.stop_and_wait();
    assert_eq!(answer.status, 200, "{answer:?}");
    let report = validate(&trace(&only_file(&answer.body))).unwrap();
    assert_eq!(report.names, ["step[EXTEND bs=2 toks=14]", "step[DECODE bs=2]"]);
    assert_eq!((report.spans["http"], report.arrows), (2, 2));
    // An armed capture that is stopped leaves nothing.
    let before = bench.names();
    assert_eq!(bench.start(json!({"start_step": 100})).status, 200);
    let answer = bench.profiler.stop_and_wait();
    assert_eq!((answer.status, &answer.body["files"]), (200, &json!([])));
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert_eq!(bench.names(), before);
}

#[test]
fn stages_get_files_of_their_own() {
    let mut bench = Bench::new("stages");
    bench.start(json!({"profile_by_stage": true, "num_steps": 2, "profile_id": "s",
        "profile_prefix": "pre"}));
    for stage in [Stage::Extend, Stage::Decode, Stage::Mixed, Stage::Decode, Stage::Extend] {
        bench.step(stage, 3);
    }
    let last = bench.wait_idle()["last"].clone();
    let names: Vec<&str> =
        last["files"].as_array().unwrap().iter().map(|f| f.as_str().unwrap()).collect();
    assert_eq!(names.len(), 2, "{last}");
    for (stage, steps) in [("EXTEND", [1, 3]), ("DECODE", [2, 4])] {
        let path = bench.folder.join(format!("pre-s-TP-0-{stage}.trace.json.gz"));
        assert!(names.contains(&path.to_str().unwrap()));
        let report = validate(&trace(&path)).unwrap();
        assert_eq!(report.steps, steps);
        assert_eq!(report.spans["cpu_op"], 20);
        assert_eq!(report.names.iter().any(|n| n.contains("DECODE")), stage == "DECODE");
    }
}

#[test]
fn the_flight_recorder_shows_what_already_happened() {
    let mut bench = Bench::new("flight");
    (0..5).for_each(|_| bench.step(Stage::Decode, 4));
    let (send, receive) = std::sync::mpsc::channel();
    let reply: Reply = Box::new(move |a| send.send(a).unwrap());
    bench.profiler.dump(&ProfileRequest::default(), 60.0, reply);
    let answer = receive.recv().unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(validate(&trace(&only_file(&answer.body))).unwrap().steps, [1, 2, 3, 4, 5]);
    let (send, receive) = std::sync::mpsc::channel();
    bench.profiler.dump(&ProfileRequest::default(), -1.0, Box::new(move |a| send.send(a).unwrap()));
    assert_eq!(receive.recv().unwrap().status, 400);
}

#[test]
fn a_capture_stays_within_its_cap_and_says_so() {
    let folder = std::env::temp_dir().join(format!("pacer-prof-cap-{}", std::process::id()));
    let cap = 200_000;
    let mut bench = Bench::with_cap(folder, cap);
    bench.start(json!({"num_steps": 1_000_000_000, "profile_id": "c"}));
    for _ in 0..6000 {
        bench.step(Stage::Decode, 4);
        if bench.steps % 100 == 0 {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
    let answer = bench.profiler.stop_and_wait();
    let path = only_file(&answer.body);
    let size = path.metadata().unwrap().len();
    assert!(size <= cap, "{size}");
    let details = &answer.body["details"][0];
    assert!(details["left_out_records"].as_u64().unwrap() > 0, "{details}");
    let end = &trace(&path)["pacerEnd"];
    let [all, left_out] = ["records", "left_out_records"].map(|key| end[key].as_u64().unwrap());
    assert!(left_out > 0);
    // Four words each, as many as fit. How well a file of them compresses depends on the clock.
    assert_eq!(all - left_out, cap / 32, "{end}");
}

#[test]
fn a_disk_that_is_full_ends_the_capture_with_an_error_and_nothing_else() {
    let mut bench = Bench::new("full");
    // The partial file's name is known, so a link to /dev/full can stand there; it is removed by
    // name and never written through.
    let partial = bench.folder.join(format!("f-TP-0.trace.json.gz.{}.tmp", std::process::id()));
    std::os::unix::fs::symlink("/dev/full", &partial).unwrap();
    assert_eq!(bench.start(json!({"profile_id": "f"})).status, 200);
    assert!(!partial.symlink_metadata().unwrap().file_type().is_symlink());
    bench.step(Stage::Decode, 1);
    assert_eq!(bench.profiler.stop_and_wait().status, 200);
    // A folder that goes away in the middle: the file cannot get its name.
    assert_eq!(bench.start(json!({"profile_id": "g", "output_dir": "sub"})).status, 200);
    bench.step(Stage::Decode, 1);
    std::fs::remove_dir_all(bench.folder.join("sub")).unwrap();
    let answer = bench.profiler.stop_and_wait();
    assert_eq!(answer.status, 500, "{answer:?}");
    assert!(answer.body["error"]["message"].as_str().unwrap().contains("sub"), "{answer:?}");
    // Idle again, and the next one works.
    assert_eq!(bench.start(json!({"profile_id": "h"})).status, 200);
    bench.step(Stage::Decode, 1);
    assert_eq!(bench.profiler.stop_and_wait().status, 200);
    assert!(!bench.names().iter().any(|n| n.ends_with(".tmp")), "{:?}", bench.names());
}

#[test]
fn a_folder_that_may_not_be_written_is_refused_at_the_start() {
    let bench = Bench::new("ro");
    std::fs::write(bench.folder.join("file"), "x").unwrap();
    let answer = bench.start(json!({"output_dir": "file"}));
    assert_eq!(answer.status, 400, "{answer:?}");
    assert_eq!(bench.profiler.status().body["state"], "idle");
}

/// Reliability R22: whichever call to the system is the first that fails, somebody is told, nothing
/// half-written stays, no descriptor does, and the next capture works.
#[test]
fn r22_the_disk_is_full_at_the_kth_call_for_every_k() {
    let mut bench = Bench::new("r22");
    let root = bench.folder.canonicalize().unwrap();
    let open_files = || {
        let entries = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
        entries
            .filter_map(|e| std::fs::read_link(e.path()).ok())
            .filter(|path| path.starts_with(&root))
            .count()
    };
    let (mut calls, mut failed) = (0, 0);
    loop {
        fuse::set(&root, Some(calls));
        let id = format!("k{calls}");
        let started = bench.start(json!({"profile_id": id}));
        let mut told = started.clone();
        if started.status == 200 {
            // More records than are kept in memory, so that the spool needs its file, too.
            for _ in 0..200 {
                bench.step(Stage::Decode, 4);
            }
            told = bench.profiler.stop_and_wait();
        }
        let blown = fuse::blown(&root);
        fuse::set(&root, None);
        assert!(!bench.names().iter().any(|n| n.ends_with(".tmp")), "{:?}", bench.names());
        assert_eq!((bench.wait_idle()["state"].clone(), open_files()), (json!("idle"), 0));
        for name in bench.names().iter().filter(|n| n.ends_with(".gz")) {
            validate(&trace(&root.join(name))).unwrap_or_else(|e| panic!("{calls}: {name}: {e}"));
        }
        assert_eq!(told.status != 200, blown, "{calls}: {told:?}");
        if !blown {
            break;
        }
        let message = told.body["error"]["message"].as_str().unwrap();
        assert!(told.status == 500 && message.contains("No space left"), "{calls}: {told:?}");
        assert!(!bench.root_has(&format!("{id}-TP-0.summary.json")));
        (calls, failed) = (calls + 1, failed + 1);
        assert!(calls < 1000);
    }
    // Its file, the spool's, their writes, synchronising and naming, and the summary's.
    assert!(failed >= 10, "{failed}");
}

/// Reliability R24: ten thousand calls of eight clients, of which one capture at most is ever
/// active; losers are told so, and every file that is named in an answer exists and is whole.
#[test]
fn r24_ten_thousand_starts_and_stops_under_load() {
    let mut bench = Bench::new("race");
    const CLIENTS: u64 = 8;
    const CALLS: u64 = 1250;
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let profiler = bench.profiler.clone();
            std::thread::spawn(move || {
                let (mut state, mut files, mut started) = (client + 1, Vec::new(), 0);
                for _ in 0..CALLS {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let body = match state >> 59 {
                        0..16 => json!({"start_step": 1_000_000_000}),
                        16 => json!({"num_steps": 1 + (state >> 40) % 3,
                            "profile_by_stage": state >> 50 & 1 == 1}),
                        _ => Value::Null,
                    };
                    let answer = match state >> 59 {
                        0..17 => profiler.start(&ProfileRequest::from_json(&body).unwrap()),
                        17..28 => profiler.stop_and_wait(),
                        _ => profiler.status(),
                    };
                    assert!([200, 409].contains(&answer.status), "{answer:?}");
                    started += u32::from(answer.body["message"] == "Start profiling.");
                    if answer.body["message"] == "Stop profiling." {
                        let list = answer.body["files"].as_array().unwrap();
                        files.extend(list.iter().map(|f| f.as_str().unwrap().to_owned()));
                    }
                }
                (files, started)
            })
        })
        .collect();
    let mut started = 0;
    for client in clients {
        while !client.is_finished() {
            bench.step(if bench.steps % 3 == 0 { Stage::Extend } else { Stage::Decode }, 2);
            std::thread::sleep(std::time::Duration::from_micros(200));
        }
        let (files, begun) = client.join().unwrap();
        started += begun;
        for file in files {
            validate(&trace(Path::new(&file))).unwrap_or_else(|e| panic!("{file}: {e}"));
        }
    }
    assert!(started > 100, "{started}");
    bench.profiler.stop_and_wait();
    bench.wait_idle();
    // The thread of a capture that was stopped before it began looks up a little later.
    for _ in 0..2000 {
        if !bench.names().iter().any(|n| n.ends_with(".tmp")) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert!(!bench.names().iter().any(|n| n.ends_with(".tmp")), "{:?}", bench.names());
}

/// The slowest and the numbered step come back with their batch and their ops' times.
#[test]
fn a_step_is_saved_from_the_flight_recorder() {
    let mut bench = Bench::new("step");
    (0..4).for_each(|_| bench.step(Stage::Decode, 1));
    let request = ProfileRequest { id: Some("x".into()), ..ProfileRequest::default() };
    let answer = bench.profiler.dump_step_and_wait(&request, Which::Number(3));
    assert_eq!((answer.status, &answer.body["step"]), (200, &json!(3)), "{answer:?}");
    let again = bench.profiler.dump_step_and_wait(&request, Which::Number(3));
    assert_eq!(again.status, 400, "{again:?}");
    let none = bench.profiler.dump_step_and_wait(&request, Which::Number(9));
    assert_eq!(none.status, 404, "{none:?}");
    let slowest = bench.profiler.dump_step_and_wait(
        &ProfileRequest { id: Some("y".into()), ..ProfileRequest::default() },
        Which::SlowestSince(0),
    );
    let text = std::fs::read_to_string(slowest.body["files"][0].as_str().unwrap()).unwrap();
    let file = StepFile::from_json(&serde_json::from_str(&text).unwrap()).unwrap();
    assert_eq!((file.tokens(), file.stage), (1, Stage::Decode));
    assert!(bench.names().iter().any(|n| n == "x-TP-0-STEP-3.step.json"), "{:?}", bench.names());
}
