//! `pacer report`: one self-contained HTML page out of result files and traces.

use std::io::Read;
use std::path::Path;

use serde_json::Value;

use super::{Run, out};
use crate::bench::report;
use crate::error::{Error, Result};
use crate::measure::date;

/// One self-contained HTML page out of result files of any bench command: tables, latency
/// distributions, throughput and latency over time, load curves, heat maps, roofline, validity.
/// Of traces: where the time of a typical step went, its rows, memory over time.
#[derive(argh::FromArgs, argh::ArgsInfo, Debug, Clone, PartialEq)]
#[argh(help_triggers("--help"))]
#[argh(note = "Files are JSON Lines; rows of SGLang's bench_serving are read too. Traces end in \
    .trace.json or .trace.json.gz. The page needs no \
    network and no script, and follows the reader's choice of light or dark.")]
pub struct Report {
    /// result files and traces
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
        let (mut rows, mut traces) = (Vec::new(), Vec::new());
        for file in &self.files {
            match file.ends_with(".trace.json") || file.ends_with(".trace.json.gz") {
                true => traces.push((file.clone(), read_trace(file)?)),
                false => rows.extend(read_rows(file)?),
            }
        }
        let shown = rows.len();
        if shown == 0 && traces.is_empty() {
            return Err(Error::file(&self.files[0], "it holds no result rows"));
        }
        let about = format!(
            "{shown} rows and {} traces from {}; {}, {}",
            traces.len(),
            self.files.join(", "),
            super::version(),
            date::now_iso()
        );
        let page = report::page(&self.title, &about, &rows, &traces);
        std::fs::write(&self.output, page).map_err(|e| Error::io(Path::new(&self.output), &e))?;
        out::line(format_args!("{}: {shown} rows, {} traces", self.output, traces.len()))
    }
}

/// Bytes of JSON of a trace that a page may be made of.
const MOST: u64 = 256 << 20;

fn read_trace(path: &str) -> Result<Value> {
    let file = std::fs::File::open(path).map_err(|e| Error::io(path, &e))?;
    let mut text = String::new();
    let plain: Box<dyn Read> = match path.ends_with(".gz") {
        true => Box::new(flate2::read::MultiGzDecoder::new(file)),
        false => Box::new(file),
    };
    plain.take(MOST + 1).read_to_string(&mut text).map_err(|e| Error::io(path, &e))?;
    if text.len() as u64 > MOST {
        let what = "the trace has more than 256 MiB of JSON; capture fewer steps (num_steps)";
        return Err(Error::file(path, what));
    }
    serde_json::from_str(&text).map_err(|e| Error::file(path, format!("no trace: {e}")))
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
