//! Where calibrations are kept: one JSON file for the user, one entry per processor and number of
//! threads.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{Ceilings, kernels};
use crate::error::{Error, Result};
use crate::measure::json::number;

/// `$XDG_CACHE_HOME/pacer/calibration.json`, else under `$HOME/.cache`; `None` without either.
pub fn default_path() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let cache = folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|h| h.join(".cache")));
    cache.map(|c| c.join("pacer").join("calibration.json"))
}

/// The stored ceilings of `cpu` with `threads` threads; `None` if there are none, or memory was
/// measured in another way than now. (Until 2026-11 one place was read at a time: too little.)
///
/// # Errors
/// `File` if the file is there but is not what [`save`] writes.
pub fn load(path: &Path, cpu: &str, threads: usize) -> Result<Option<Ceilings>> {
    let entries = read(path)?;
    let as_now = |e: &Value| threads == 0 || e["read_streams"] == kernels::STREAMS;
    let entry = entries.iter().find(|e| is_entry(e, cpu, threads) && as_now(e));
    entry.map(|e| parse(e).ok_or_else(|| damaged(path))).transpose()
}

/// Stores `ceilings`, replacing an older entry of the same processor and threads. The file is
/// replaced as a whole, so a reader never sees half of it.
pub fn save(path: &Path, ceilings: &Ceilings) -> Result<()> {
    let mut entries = read(path)?;
    entries.retain(|e| !is_entry(e, &ceilings.cpu, ceilings.threads));
    entries.push(to_json(ceilings));
    let io = |e: std::io::Error| Error::io(path, &e);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(io)?;
    }
    let temporary = path.with_extension(format!("json.{}", std::process::id()));
    let text = format!("{:#}\n", json!({ "entries": entries }));
    std::fs::write(&temporary, text).map_err(|e| Error::io(&temporary, &e))?;
    std::fs::rename(&temporary, path).map_err(io)
}

/// One entry, also what `pacer calibrate --json` prints.
pub fn to_json(c: &Ceilings) -> Value {
    json!({
        "cpu": c.cpu,
        "threads": c.threads,
        "isa": c.isa,
        "bytes_per_s": number(c.bytes_per_s),
        "read_streams": if c.threads == 0 { 1 } else { kernels::STREAMS },
        "flops_per_s": number(c.flops_per_s),
        "int8_ops_per_s": c.int8_ops_per_s.map(number),
        "fork_join_s": c.fork_join_s.map(number),
        "date": c.date,
    })
}

fn is_entry(entry: &Value, cpu: &str, threads: usize) -> bool {
    entry["cpu"].as_str() == Some(cpu) && entry["threads"].as_u64() == Some(threads as u64)
}

/// Ceilings as [`to_json`] writes them; what is not given is not known. A card's are stored under
/// its name with no threads.
pub fn parse(e: &Value) -> Option<Ceilings> {
    let rate = |key: &str| e[key].as_f64().filter(|&x| x > 0.0);
    Some(Ceilings {
        cpu: e["cpu"].as_str()?.to_string(),
        threads: usize::try_from(e["threads"].as_u64()?).ok()?,
        isa: e["isa"].as_str()?.to_string(),
        bytes_per_s: rate("bytes_per_s")?,
        flops_per_s: rate("flops_per_s")?,
        int8_ops_per_s: rate("int8_ops_per_s"),
        fork_join_s: rate("fork_join_s"),
        date: e["date"].as_str()?.to_string(),
    })
}

/// The entries of the file; none if there is no file.
fn read(path: &Path) -> Result<Vec<Value>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io(path, &e)),
    };
    let value: Value = serde_json::from_str(&text).map_err(|_| damaged(path))?;
    value["entries"].as_array().cloned().ok_or_else(|| damaged(path))
}

fn damaged(path: &Path) -> Error {
    Error::file(path, "not a calibration file; delete it and run `pacer calibrate`")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ceilings(threads: usize, flops_per_s: f64) -> Ceilings {
        Ceilings {
            cpu: "Test CPU".into(),
            threads,
            isa: "portable".into(),
            bytes_per_s: 1.5e10,
            flops_per_s,
            int8_ops_per_s: (threads == 2).then_some(5e11),
            fork_join_s: (threads == 2).then_some(1e-6),
            date: "2026-01-01T00:00:00Z".into(),
        }
    }

    #[test]
    fn entries_are_kept_apart_and_replaced() {
        let folder = std::env::temp_dir().join(format!("pacer-calib-{}", std::process::id()));
        let path = folder.join("deep").join("calibration.json");
        assert_eq!(load(&path, "Test CPU", 2), Ok(None));
        save(&path, &ceilings(2, 1e9)).unwrap();
        save(&path, &ceilings(4, 2e9)).unwrap();
        save(&path, &ceilings(2, 3e9)).unwrap();
        assert_eq!(load(&path, "Test CPU", 2), Ok(Some(ceilings(2, 3e9))));
        assert_eq!(load(&path, "Test CPU", 4), Ok(Some(ceilings(4, 2e9))));
        assert_eq!(load(&path, "Other CPU", 4), Ok(None));
        let mut old = to_json(&ceilings(2, 1e9));
        old["read_streams"] = Value::Null;
        std::fs::write(&path, json!({ "entries": [old] }).to_string()).unwrap();
        assert_eq!(load(&path, "Test CPU", 2), Ok(None), "measured in another way");
        let damaged = json!({ "cpu": "Test CPU", "threads": 2, "read_streams": kernels::STREAMS });
        std::fs::write(&path, json!({ "entries": [damaged] }).to_string()).unwrap();
        assert!(load(&path, "Test CPU", 2).unwrap_err().message.contains("calibration.json"));
        std::fs::write(&path, "[").unwrap();
        assert!(save(&path, &ceilings(2, 1e9)).unwrap_err().message.contains("delete it"));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
