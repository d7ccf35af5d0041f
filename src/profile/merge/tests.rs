//! Merging small traces: names, clocks, ids, damage.

use std::io::Write;

use serde_json::json;

use super::*;
use crate::profile::validate::validate;

struct Place(Arc<Folder>);

impl Place {
    fn new(name: &str) -> Place {
        let path = std::env::temp_dir().join(format!("pacer-merge-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Place(Arc::new(Folder::open(&path).unwrap()))
    }

    fn write(&self, name: &str, value: &Value) {
        let file = self.0.create(name).unwrap();
        let mut gzip = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
        gzip.write_all(value.to_string().as_bytes()).unwrap();
        gzip.finish().unwrap();
    }

    fn read(&self, path: &std::path::Path) -> Value {
        let mut text = String::new();
        MultiGzDecoder::new(File::open(path).unwrap()).read_to_string(&mut text).unwrap();
        serde_json::from_str(&text).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.0.path());
    }
}

/// A trace whose clock began at `monotonic` on boot `boot`, at the system time `real`.
fn trace(monotonic: u64, real: u64, boot: &str) -> Value {
    json!({
        "schemaVersion": 1,
        "deviceProperties": [{"id": monotonic}],
        "pacer": {"clock": {"monotonic_ns": monotonic, "realtime_ns": real, "boot": boot}},
        "traceEvents": [
            {"ph": "X", "pid": 77, "tid": 1, "ts": 1.5, "dur": 10.25, "name": "a", "cat": "c"},
            {"ph": "X", "pid": 0, "tid": 7, "ts": 2, "dur": 3, "name": "k", "cat": "kernel"},
            {"ph": "s", "pid": 77, "tid": 1, "ts": 2, "name": "l", "cat": "flow", "id": 9},
            {"ph": "f", "pid": 0, "tid": 7, "ts": 3, "name": "l", "cat": "flow", "id": 9},
            {"ph": "b", "pid": 77, "tid": 1, "ts": 2, "name": "r", "cat": "r", "id": "0x5"},
            {"ph": "e", "pid": 77, "tid": 1, "ts": 4, "name": "r", "cat": "r", "id": "0x5"},
            {"ph": "M", "pid": 0, "tid": 0, "ts": 0, "name": "process_sort_index",
             "args": {"sort_index": 1}},
            {"ph": "M", "pid": 7777, "tid": 0, "ts": 0, "name": "process_sort_index",
             "args": {"sort_index": 4}},
            {"ph": "i", "tid": 0, "ts": 5, "name": "lost", "s": "g"},
        ],
        "traceName": "x",
    })
}

#[test]
fn ranks_keep_apart_and_clocks_meet() {
    let place = Place::new("ranks");
    place.write("p-1.5-TP-0-DP-1.trace.json.gz", &trace(1000, 900_000, "here"));
    place.write("p-1.5-TP-1-DP-0.trace.json.gz", &trace(51_000, 950_010, "here"));
    // Another machine: 950_000 on the system clock, which the machine before has at 50_990.
    place.write("p-1.5-TP-0-DP-0.trace.json.gz", &trace(7, 950_000, "there"));
    place.write("1.55-TP-0.trace.json.gz", &trace(1, 1, "x"));
    place.write("merged-1.5-TP-0.trace.json.gz", &trace(1, 1, "x"));
    let files = find(&place.0, "1.5").unwrap();
    let wanted = ["p-1.5-TP-0-DP-0", "p-1.5-TP-1-DP-0", "p-1.5-TP-0-DP-1"];
    assert_eq!(files, wanted.map(|n| format!("{n}.trace.json.gz")));
    let merged = merge(&place.0, "1.5", &files, 1 << 20).unwrap();
    assert_eq!((merged.files, merged.events, merged.left_out), (3, 27, 0));
    assert_eq!(merged.path.file_name().unwrap(), "merged-1.5.trace.json.gz");
    let trace = place.read(&merged.path);
    assert_eq!(trace["deviceProperties"].as_array().unwrap().len(), 3);
    assert_eq!(
        (trace["schemaVersion"].as_u64(), trace["traceName"].as_str()),
        (Some(1), Some("x"))
    );
    let events = trace["traceEvents"].as_array().unwrap();
    let starts: Vec<(&str, f64)> = events
        .iter()
        .filter(|e| e["name"] == "a")
        .map(|e| (e["pid"].as_str().unwrap(), e["ts"].as_f64().unwrap()))
        .collect();
    let (a, b, c) = ("[TP00-DP00] 77", "[TP01-DP00] 77", "[TP00-DP01] 77");
    assert_eq!(starts, [(a, 51.49), (b, 51.5), (c, 1.5)]);
    let sorts: Vec<u64> = events.iter().filter_map(|e| e["args"]["sort_index"].as_u64()).collect();
    assert_eq!(sorts, [0, 4, 100, 4, 100_000_000, 4]);
    let report = validate(&trace).unwrap();
    assert_eq!((report.arrows, report.spans["c"]), (3, 3));
    let lost = events.iter().find(|e| e["name"] == "lost").unwrap();
    assert_eq!(lost["pid"], "[TP00-DP00]");
}

#[test]
fn nothing_to_merge_and_damage_are_errors_that_leave_nothing() {
    let place = Place::new("damage");
    assert!(merge(&place.0, "1", &[], 1 << 20).unwrap_err().message.contains("no trace"));
    place.write("1-TP-0.trace.json.gz", &trace(1, 1, "a"));
    std::fs::write(place.0.path_of("1-TP-1.trace.json.gz"), b"\x1f\x8b\x08nonsense").unwrap();
    let files = find(&place.0, "1").unwrap();
    let error = merge(&place.0, "1", &files, 1 << 20).unwrap_err();
    assert!(error.message.contains("1-TP-1.trace.json.gz"), "{error}");
    let names = place.0.names().unwrap();
    assert_eq!(names, ["1-TP-0.trace.json.gz", "1-TP-1.trace.json.gz"]);
}
