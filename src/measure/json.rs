//! Result rows: finite numbers only, and each row on disk before the next case begins.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::stats::{Interval, Summary};
use crate::error::{Error, Result};

/// A JSON number, or null for NaN and infinities, which JSON cannot hold.
pub fn number(x: f64) -> Value {
    serde_json::Number::from_f64(x).map_or(Value::Null, Value::Number)
}

/// A JSON number, or null for nothing and for what is not finite.
pub fn optional(x: Option<f64>) -> Value {
    x.map_or(Value::Null, number)
}

/// A list of numbers.
pub fn numbers(xs: &[f64]) -> Value {
    xs.iter().map(|&x| number(x)).collect()
}

/// `{"low", "high", "coverage"}`.
pub fn interval(i: &Interval) -> Value {
    serde_json::json!({
        "low": number(i.low), "high": number(i.high), "coverage": number(i.coverage),
    })
}

/// `{"n", "median", "ci95", "min", "max"}`, or null.
pub fn summary(s: Option<&Summary>) -> Value {
    s.map_or(Value::Null, |s| {
        serde_json::json!({
            "n": s.n,
            "median": number(s.median),
            "ci95": interval(&s.interval),
            "min": number(s.min),
            "max": number(s.max),
        })
    })
}

/// A JSON Lines file that is appended to.
#[derive(Debug)]
pub struct JsonLines {
    path: PathBuf,
    file: File,
}

impl JsonLines {
    /// Opens `path` for appending, creating it if needed, so that a bad path is found before
    /// anything is measured.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = OpenOptions::new().create(true).append(true).open(path);
        let file = file.map_err(|e| Error::io(path, &e))?;
        Ok(JsonLines { path: path.to_path_buf(), file })
    }

    /// Writes one row with one system call: after it returns, the row survives the end of this
    /// process, and rows of two processes do not mix.
    pub fn append(&mut self, row: &Value) -> Result<()> {
        let line = format!("{row}\n");
        self.file.write_all(line.as_bytes()).map_err(|e| Error::io(&self.path, &e))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_json_lacks_become_null() {
        assert_eq!(numbers(&[1.5, f64::NAN, f64::INFINITY]).to_string(), "[1.5,null,null]");
        assert_eq!(optional(None), Value::Null);
    }

    #[test]
    fn rows_are_appended() {
        let path = std::env::temp_dir().join(format!("pacer-jsonl-{}", std::process::id()));
        JsonLines::open(&path).unwrap().append(&serde_json::json!({"a": 1})).unwrap();
        let mut again = JsonLines::open(&path).unwrap();
        again.append(&serde_json::json!({"b": 2})).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"a\":1}\n{\"b\":2}\n");
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_bad_path_is_named() {
        let error = JsonLines::open("/nowhere/at/all.jsonl").unwrap_err();
        assert!(error.message.contains("/nowhere/at/all.jsonl"), "{error}");
    }
}
