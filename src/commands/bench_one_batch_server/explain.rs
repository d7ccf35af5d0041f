//! `--static-vs-served`: the served cases again as static batches, in processes of their own.

use std::path::PathBuf;

use argh::ArgsInfo;
use flate2::read::MultiGzDecoder;
use serde_json::Value;

use super::super::model_flags::SharedFlags;
use super::super::out;
use super::BenchOneBatchServer;
use crate::bench::served::gap::{self, Gap};
use crate::bench::served::parts::Parts;
use crate::error::{Error, Kind, Result};
use crate::measure::json::JsonLines;

impl BenchOneBatchServer {
    /// The model flags of `--launch "serve …"`: what the static commands can take too.
    pub fn own_flags(&self) -> Option<Vec<String>> {
        let words: Vec<&str> = self.launch.as_deref()?.split_whitespace().collect();
        let rest = match words.split_first() {
            Some((&("serve" | "launch-server"), rest)) => rest,
            Some((first, _)) if first.starts_with("--") => &words,
            _ => return None,
        };
        let shared = SharedFlags::get_args_info();
        let mut kept = Vec::new();
        let mut keep = false;
        for word in rest {
            if word.starts_with("--") {
                let name = word.split('=').next().unwrap_or(word);
                keep = shared.flags.iter().any(|f| f.long == name);
            }
            if keep {
                kept.push((*word).to_string());
            }
        }
        Some(kept)
    }

    /// Runs every served case statically too, in a process of its own, and prints and writes
    /// where the difference goes. `timelines` are of `rows`, one each.
    pub fn explain(
        &self,
        rows: &[Value],
        timelines: &[Option<Parts>],
        file: &mut Option<JsonLines>,
    ) -> Result<()> {
        for (served, server) in rows.iter().zip(timelines) {
            let failed = |what: &str| Error::new(Kind::Io, format!("--static-vs-served: {what}"));
            let server = server.clone().ok_or_else(|| {
                failed("the server's timeline of the batch is not whole; a smaller batch fits")
            })?;
            let folder = Folder::new()?;
            let row = self.fixed(served, &folder)?;
            let of = |stage: &str| Parts::of_trace(&folder.trace(stage)?);
            let prefill = of("prefill").ok_or_else(|| failed("no timeline of the static prefill"));
            let fixed = prefill?.and(&of("decode").unwrap_or_default());
            let times = gap::of_static(&row).zip(served["latency"].as_f64());
            let Some(((synchronised, back_to_back), served_s)) = times else {
                return Err(failed("a row without its times"));
            };
            let gap = Gap { synchronised, back_to_back, served: served_s, fixed, server };
            let mut row = gap::to_json(&gap);
            for key in ["batch_size", "input_len", "output_len", "model", "date", "machine"] {
                row[key] = served[key].clone();
            }
            row["kind"] = "static_vs_served".into();
            if let Some(file) = file {
                file.append(&row)?;
            }
            if self.json {
                out::line(&row)?;
            } else {
                gap::lines(&gap).iter().try_for_each(out::line)?;
            }
        }
        Ok(())
    }

    /// The same case with bench-one-batch: its row, and timelines of one more pass in `folder`.
    fn fixed(&self, served: &Value, folder: &Folder) -> Result<Value> {
        let number = |key: &str| served[key].to_string();
        let (bs, input, output) = (number("batch_size"), number("input_len"), number("output_len"));
        let steps = served["output_len"].as_u64().unwrap_or(1).saturating_sub(1).max(1).to_string();
        let flags: [[&str; 2]; 7] = [
            ["--batch-size", &bs],
            ["--input-len", &input],
            ["--output-len", &output],
            ["--result-filename", ""],
            ["--profile-prefix", PREFIX],
            ["--profile-start-step", "0"],
            ["--profile-steps", &steps],
        ];
        let mut words = vec!["bench-one-batch", "--json", "--profile"];
        words.extend(flags.concat());
        self.own(&words, folder)
    }

    /// The last row that this program prints for `words`.
    fn own(&self, words: &[&str], folder: &Folder) -> Result<Value> {
        let failed = |what: String| Error::new(Kind::Io, format!("pacer {}: {what}", words[0]));
        let program = std::env::current_exe().map_err(|e| failed(e.to_string()))?;
        let output = std::process::Command::new(program)
            .args(words)
            .args(self.own_flags().unwrap_or_default())
            .env("PACER_PROFILER_DIR", &folder.0)
            .stdin(std::process::Stdio::null())
            .output()
            .map_err(|e| failed(e.to_string()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(failed(format!("{}: {}", output.status, said.trim())));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let row = text.lines().rev().find_map(|l| serde_json::from_str(l).ok());
        row.ok_or_else(|| failed("it printed no row".into()))
    }
}

/// How the static pass's timelines are called.
const PREFIX: &str = "static";

/// A temporary folder, removed with everything in it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("pacer-static-{}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(|e| Error::io(&path, &e))?;
        Ok(Folder(path))
    }

    /// The events of the timeline of `stage`.
    fn trace(&self, stage: &str) -> Option<Vec<Value>> {
        let end = format!("_{stage}.trace.json.gz");
        let mut files = std::fs::read_dir(&self.0).ok()?.flatten().map(|e| e.path());
        events(&files.find(|f| f.to_string_lossy().ends_with(&end))?)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The events of a trace file.
pub fn events(path: &std::path::Path) -> Option<Vec<Value>> {
    let file = std::fs::File::open(path).ok()?;
    let read = std::io::BufReader::new(MultiGzDecoder::new(file));
    let mut trace: Value = serde_json::from_reader(read).ok()?;
    match trace["traceEvents"].take() {
        Value::Array(events) => Some(events),
        _ => None,
    }
}
