//! `pacer report`: one self-contained HTML page out of result files.

use std::path::Path;

use serde_json::Value;

use super::{Run, out};
use crate::bench::report;
use crate::error::{Error, Result};
use crate::measure::date;

/// One self-contained HTML page out of result files of any bench command: tables, latency
/// distributions, throughput and latency over time, load curves, heat maps, roofline, validity.
#[derive(argh::FromArgs, argh::ArgsInfo, Debug, Clone, PartialEq)]
#[argh(help_triggers("--help"))]
#[argh(
    note = "Files are JSON Lines; rows of SGLang's bench_serving are read too. The page needs no \
    network and no script, and follows the reader's choice of light or dark."
)]
pub struct Report {
    /// result files
    #[argh(positional, arg_name = "file")]
    pub files: Vec<String>,

    /// where to write the page (default report.html)
    #[argh(option, arg_name = "PATH", default = "String::from(\"report.html\")")]
    pub output: String,

    /// heading of the page (default: Pacer report)
    #[argh(option, arg_name = "TEXT", default = "String::from(\"Pacer report\")")]
    pub title: String,
}

impl Run for Report {
    const NAME: &'static str = "report";

    fn run(self) -> Result<()> {
        if self.files.is_empty() {
            return Err(Error::usage("report: name at least one result file"));
        }
        let mut rows = Vec::new();
        for file in &self.files {
            rows.extend(read_rows(file)?);
        }
        let shown = rows.len();
        if shown == 0 {
            return Err(Error::file(&self.files[0], "it holds no result rows"));
        }
        let about = format!(
            "{shown} rows from {}; {}, {}",
            self.files.join(", "),
            super::version(),
            date::now_iso()
        );
        let page = report::page(&self.title, &about, &rows);
        std::fs::write(&self.output, page).map_err(|e| Error::io(Path::new(&self.output), &e))?;
        out::line(format_args!("{}: {shown} rows", self.output))
    }
}

/// The rows of a JSON Lines file; `Infinity` and `NaN`, which Python writes, are read.
pub fn read_rows(path: &str) -> Result<Vec<Value>> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, &e))?;
    let lines = text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty());
    lines
        .map(|(i, line)| {
            let row = serde_json::from_str(line).or_else(|_| {
                let line = line.replace(": Infinity", ": \"inf\"").replace(": NaN", ": null");
                serde_json::from_str(&line)
            });
            row.map_err(|e| Error::file(path, format!("line {}: {e}", i + 1)))
        })
        .collect()
}
