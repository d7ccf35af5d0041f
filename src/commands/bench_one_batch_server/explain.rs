//! `--static-vs-served`: the served cases again, static and continuous, in processes of their own.

use argh::ArgsInfo;
use serde_json::Value;

use super::super::model_flags::SharedFlags;
use super::super::out;
use super::BenchOneBatchServer;
use crate::bench::served::gap::{self, Ways};
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

    /// Runs every served case the other ways, in processes of their own.
    pub fn explain(&self, rows: &[Value], file: &mut Option<JsonLines>) -> Result<()> {
        for served in rows {
            let number = |key: &str| served[key].to_string();
            let (bs, input, output) =
                (number("batch_size"), number("input_len"), number("output_len"));
            let one_batch = self.own(&[
                "bench-one-batch",
                "--json",
                "--result-filename",
                "",
                "--batch-size",
                &bs,
                "--input-len",
                &input,
                "--output-len",
                &output,
            ])?;
            let continuous = self.own(&[
                "bench-offline-throughput",
                "--json",
                "--num-prompts",
                &bs,
                "--random-input-len",
                &input,
                "--random-output-len",
                &output,
                "--random-range-ratio",
                "1",
            ])?;
            let (Some((synchronised, back_to_back)), Some(continuous), Some(served_s)) = (
                gap::of_static(&one_batch),
                continuous["total_latency"].as_f64(),
                served["latency"].as_f64(),
            ) else {
                return Err(Error::new(Kind::Io, "a row without its times"));
            };
            let ways = Ways { synchronised, back_to_back, continuous, served: served_s };
            let mut row = gap::to_json(&ways);
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
                gap::lines(&ways).iter().try_for_each(out::line)?;
            }
        }
        Ok(())
    }

    /// The last row that this program prints for `words`.
    fn own(&self, words: &[&str]) -> Result<Value> {
        let failed = |what: String| Error::new(Kind::Io, format!("pacer {}: {what}", words[0]));
        let program = std::env::current_exe().map_err(|e| failed(e.to_string()))?;
        let output = std::process::Command::new(program)
            .args(words)
            .args(self.own_flags().unwrap_or_default())
            .stdin(std::process::Stdio::null())
            .stderr(std::process::Stdio::inherit())
            .output()
            .map_err(|e| failed(e.to_string()))?;
        if !output.status.success() {
            return Err(failed(output.status.to_string()));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let row = text.lines().rev().find_map(|l| serde_json::from_str(l).ok());
        row.ok_or_else(|| failed("it printed no row".into()))
    }
}
