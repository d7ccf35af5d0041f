//! One trace file with its summary, from its first event to its name.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};

use super::pace::Pace;
use super::spool::{Entry, Spool};
use crate::error::Result;
use crate::profile::clock::Base;
use crate::profile::folder::Folder;
use crate::profile::gpu::{GpuSpan, Times};
use crate::profile::record::Record;
use crate::profile::trace::names::TRACE;
use crate::profile::trace::rows::{Rows, Setting};
use crate::profile::trace::sink::Sink;

/// A file that is recorded for, and then written.
pub struct Output {
    folder: Arc<Folder>,
    stem: String,
    sink: Sink,
    rows: Rows,
    text: String,
    spool: Spool,
    pub records: u64,
    pub source_lost: u64,
    /// Records that the GPU dropped, and such of kinds that are not read.
    pub gpu_lost: (u64, u64),
    times: Option<Times>,
}

/// What a finished file is.
pub struct Finished {
    pub trace: PathBuf,
    pub bytes: u64,
    pub summary: PathBuf,
    pub table: String,
    pub steps: Vec<u64>,
    pub lost: u64,
    /// Text left out because the file had reached its cap, bytes.
    pub left_out: u64,
    /// Records that were not kept because there were as many as the cap allows.
    pub unkept: u64,
}

/// What all files of a capture say of themselves.
#[derive(Debug, Clone)]
pub struct Heading {
    pub base: Base,
    pub label: String,
    pub ranks: String,
    pub stage: Option<&'static str>,
    pub gpu: Option<Times>,
}

/// Text is handed to the compressor in pieces of about this size.
const PIECE: usize = 16 << 10;

impl Output {
    pub fn create(
        folder: &Arc<Folder>,
        stem: String,
        limits: (u64, bool),
        setting: Setting,
        heading: &Heading,
    ) -> Result<Output> {
        let mut sink =
            Sink::create(Arc::clone(folder), &format!("{stem}{TRACE}"), limits.0, limits.1)?;
        let base = &heading.base;
        let device = setting.model.as_ref().map(|m| m.device().to_owned());
        let about = json!({
            "program": "pacer",
            "version": env!("CARGO_PKG_VERSION"),
            "command": heading.label,
            "ranks": heading.ranks,
            "stage": heading.stage,
            "device": device,
            "times": if device.as_deref() == Some("emulated") { "projected" } else { "measured" },
            "gpu": heading.gpu.as_ref().map(super::writer::gpu_json),
            "clock": {
                "name": "CLOCK_MONOTONIC",
                "monotonic_ns": base.monotonic_ns,
                "realtime_ns": base.realtime_ns,
                "boot": base.boot,
            },
        });
        sink.end(&format!(
            "{{\n\"schemaVersion\": 1,\n\"displayTimeUnit\": \"ms\",\n\
             \"baseTimeNanoseconds\": {},\n\"pacer\": {about},\n\"traceEvents\": [",
            base.realtime_ns
        ))?;
        let rows = Rows::new(setting, base.monotonic_ns);
        let name = format!("{stem}.{}.spool.tmp", std::process::id());
        Ok(Output {
            folder: Arc::clone(folder),
            stem,
            sink,
            rows,
            text: String::new(),
            spool: Spool::new(Arc::clone(folder), name, limits.0),
            records: 0,
            source_lost: 0,
            gpu_lost: (0, 0),
            times: heading.gpu.clone(),
        })
    }

    /// Keeps a record for later.
    pub fn push(&mut self, record: &Record) -> Result<()> {
        self.records += 1;
        self.spool.record(record)
    }

    /// Keeps what the GPU did for later.
    pub fn gpu(&mut self, span: &GpuSpan) -> Result<()> {
        self.spool.gpu(span)
    }

    /// Formats and compresses all that was kept, at `pace`.
    fn write(&mut self, spool: Spool, pace: &mut Pace) -> Result<()> {
        spool.replay(&mut |entry| {
            match entry {
                Entry::Record(record) => self.rows.record(record),
                Entry::Gpu(span) => self.rows.gpu(span),
            }
            if self.rows.out.len() >= PIECE {
                self.drain()?;
                pace.rest();
            }
            Ok(())
        })?;
        self.drain()
    }

    fn drain(&mut self) -> Result<()> {
        if self.rows.out.is_empty() {
            return Ok(());
        }
        let fits = !self.sink.full();
        self.rows.out.take(&mut self.text, fits);
        self.sink.push(&self.text).map(drop)
    }

    /// Writes the file, and the summary beside it.
    pub fn finish(mut self, label: &str, pace: &mut Pace) -> Result<Finished> {
        let folder = Arc::clone(&self.folder);
        let spool = std::mem::replace(&mut self.spool, Spool::new(folder, String::new(), 0));
        let unkept = spool.left_out;
        self.write(spool, pace)?;
        let left_out = self.sink.left_out();
        // Names of rows are few and go in even if the file is full.
        self.rows.end(label);
        self.rows.out.take(&mut self.text, true);
        self.sink.end(&self.text)?;
        let lost = self.source_lost;
        let end = json!({"records": self.records, "lost_records": lost,
                "left_out_bytes": left_out, "left_out_records": unkept,
                "gpu_dropped_records": self.gpu_lost.0, "gpu_unknown_records": self.gpu_lost.1});
        self.sink.end(&format!("\n],\n\"pacerEnd\": {end}\n}}\n"))?;
        let (trace, bytes) = self.sink.finish()?;
        let mut summary = self.rows.summary.json();
        summary["trace"] = json!(trace.file_name().and_then(|n| n.to_str()));
        summary["records"] = end;
        summary["gpu"] = self.times.as_ref().map_or(Value::Null, super::writer::gpu_json);
        let name = format!("{}.summary.json", self.stem);
        write_json(&self.folder, &name, &summary)?;
        Ok(Finished {
            trace,
            bytes,
            summary: self.folder.path_of(&name),
            table: self.rows.summary.text(),
            steps: self.rows.summary.steps().to_vec(),
            lost,
            left_out,
            unkept,
        })
    }
}

/// Writes a small file whole or not at all.
pub fn write_json(folder: &Folder, name: &str, value: &Value) -> Result<()> {
    use std::io::Write;
    let partial = format!("{name}.{}.tmp", std::process::id());
    folder.remove(&partial);
    let mut file = folder.create(&partial)?;
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync());
    if let Err(error) = written {
        folder.remove(&partial);
        return Err(crate::error::Error::io(folder.path_of(name), &error));
    }
    folder.rename(&partial, name).inspect_err(|_| folder.remove(&partial))
}

impl Finished {
    pub fn json(&self) -> Value {
        json!({
            "trace": self.trace.display().to_string(),
            "bytes": self.bytes,
            "summary": self.summary.display().to_string(),
            "steps": self.steps,
            "lost_records": self.lost,
            "left_out_bytes": self.left_out,
            "left_out_records": self.unkept,
        })
    }
}
