//! Traces of several ranks as one: rows say whose they are, clocks are aligned, arrows stay within
//! their file. Files are read and written as streams, so memory does not grow with them.

mod event;
mod scan;

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use flate2::read::MultiGzDecoder;
use serde_json::Value;

use self::event::Place;
use self::scan::{Scanner, Visitor};
use super::clock::Base;
use super::folder::Folder;
use super::trace::names::{self, Ranks, TRACE};
use super::trace::sink::Sink;
use crate::error::{Error, Result};

/// What was merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merged {
    pub path: PathBuf,
    pub bytes: u64,
    pub files: usize,
    pub events: u64,
    /// Events that the size cap kept out.
    pub left_out: u64,
}

/// Files of capture `id` in `folder`, those of any prefix included, in the order of their ranks.
/// An id that only begins like this one's is another capture.
pub fn find(folder: &Folder, id: &str) -> Result<Vec<String>> {
    let tail = format!("{id}-TP-");
    let of_capture = |name: &String| {
        let at = name.match_indices(&tail).any(|(at, _)| at == 0 || name[..at].ends_with('-'));
        at && name.ends_with(TRACE) && !name.starts_with("merged-")
    };
    let mut files: Vec<(_, String)> = folder
        .names()?
        .into_iter()
        .filter(of_capture)
        .filter_map(|name| Ranks::of_file(&name).map(|r| ((r.dp, r.ep, r.pp, r.tp), name)))
        .collect();
    files.sort();
    Ok(files.into_iter().map(|f| f.1).collect())
}

/// Merges the named files of `folder` into `merged-{id}.trace.json.gz` there.
///
/// # Errors
/// No files, a damaged one, or what the system says; nothing is left of the merged file then.
pub fn merge(folder: &Arc<Folder>, id: &str, files: &[String], cap: u64) -> Result<Merged> {
    if files.is_empty() {
        let what = format!("no trace of a capture {id} is in it");
        return Err(Error::file(folder.path(), what));
    }
    let mut headings = Vec::new();
    for name in files {
        let mut heading = Heading::default();
        scanner(folder, name)?.walk(&mut heading)?;
        headings.push(heading);
    }
    let places = places(files, &headings);
    let mut sink = Sink::create(Arc::clone(folder), &names::merged(id), cap, true)?;
    sink.end(&outer(&headings))?;
    let mut writer =
        Writer { sink, place: Place::default(), text: String::new(), events: 0, left_out: 0 };
    for (name, place) in files.iter().zip(places) {
        writer.place = place;
        scanner(folder, name)?.walk(&mut writer)?;
        writer.flush()?;
    }
    let Writer { mut sink, events, left_out, .. } = writer;
    sink.end(&format!(
        "\n],\n\"mergedFiles\": {},\n\"leftOutEvents\": {left_out}\n}}\n",
        files.len()
    ))?;
    let (path, bytes) = sink.finish()?;
    Ok(Merged { path, bytes, files: files.len(), events, left_out })
}

fn scanner(folder: &Folder, name: &str) -> Result<Scanner<Box<dyn Read>>> {
    let file: File = folder.read(name)?;
    let input: Box<dyn Read> = match name.ends_with(".gz") {
        true => Box::new(MultiGzDecoder::new(std::io::BufReader::with_capacity(1 << 16, file))),
        false => Box::new(file),
    };
    Ok(Scanner::new(input, &folder.path_of(name).display().to_string()))
}

/// The fields of a file beside its events.
#[derive(Default)]
struct Heading {
    fields: Vec<(String, String)>,
    base: Option<Base>,
}

/// Fields kept of a file, bytes.
const MOST_FIELDS: usize = 4 << 20;

impl Visitor for Heading {
    fn field(&mut self, name: &str, json: &[u8]) -> Result<()> {
        let value: Value = serde_json::from_slice(json)
            .map_err(|e| Error::new(crate::error::Kind::File, format!("field {name}: {e}")))?;
        if name == "pacer" {
            let clock = &value["clock"];
            let number = |key: &str| clock[key].as_u64();
            if let (Some(monotonic_ns), Some(realtime_ns)) =
                (number("monotonic_ns"), number("realtime_ns"))
            {
                let boot = clock["boot"].as_str().unwrap_or_default().to_owned();
                self.base = Some(Base { monotonic_ns, realtime_ns, boot });
            }
        }
        if let ("baseTimeNanoseconds", None, Some(realtime_ns)) = (name, &self.base, value.as_u64())
        {
            self.base = Some(Base { monotonic_ns: 0, realtime_ns, boot: String::new() });
        }
        let kept: usize = self.fields.iter().map(|f| f.1.len()).sum();
        if kept + json.len() < MOST_FIELDS {
            self.fields.push((name.to_owned(), value.to_string()));
        }
        Ok(())
    }

    fn wants_events(&self) -> bool {
        false
    }

    fn event(&mut self, _: &[u8]) -> Result<()> {
        Ok(())
    }
}

/// Where each file's events go: its label, and what to add to its times so that all count from
/// the earliest file's beginning. Files of one boot are put side by side by the monotonic clock;
/// boots, by the system clock of the first file of each.
fn places(files: &[String], headings: &[Heading]) -> Vec<Place> {
    let same_boot = |base: &Base| {
        let others = headings.iter().filter_map(|h| h.base.as_ref());
        let mut known = others.filter(|o| !base.boot.is_empty() && o.boot == base.boot);
        known.next().unwrap_or(base).clone()
    };
    // The system's time at the beginning of each file; without a clock it is the earliest's.
    let start = |heading: &Heading| {
        let base = heading.base.as_ref()?;
        let first = same_boot(base);
        Some(base.monotonic_ns as i64 + first.realtime_ns as i64 - first.monotonic_ns as i64)
    };
    let starts: Vec<Option<i64>> = headings.iter().map(start).collect();
    let earliest = starts.iter().flatten().copied().min().unwrap_or(0);
    let place = |(index, name): (usize, &String)| {
        let ranks = Ranks::of_file(name).unwrap_or_default();
        Place {
            index: index as u64,
            label: ranks.label(),
            sort_index: ranks.sort_index(),
            shift_ns: starts[index].map_or(0, |at| at - earliest),
        }
    };
    files.iter().enumerate().map(place).collect()
}

/// The beginning of the merged file: every field from the first file that has it, lists of device
/// properties one after the other.
fn outer(headings: &[Heading]) -> String {
    let mut text = String::from("{\n");
    let mut seen = HashSet::new();
    let mut devices: Vec<Value> = Vec::new();
    for (name, value) in headings.iter().flat_map(|h| &h.fields) {
        if name == "deviceProperties" {
            let list: Option<Vec<Value>> = serde_json::from_str(value).ok();
            devices.extend(list.unwrap_or_default());
        } else if !["mergedFiles", "leftOutEvents"].contains(&name.as_str())
            && seen.insert(name.clone())
        {
            text.push_str(&format!("{}: {value},\n", Value::from(name.as_str())));
        }
    }
    if !devices.is_empty() {
        text.push_str(&format!("\"deviceProperties\": {},\n", Value::from(devices)));
    }
    text + "\"traceEvents\": ["
}

/// Rewrites events and passes them on.
struct Writer {
    sink: Sink,
    place: Place,
    text: String,
    events: u64,
    left_out: u64,
}

impl Visitor for Writer {
    fn field(&mut self, _: &str, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn wants_events(&self) -> bool {
        true
    }

    fn event(&mut self, json: &[u8]) -> Result<()> {
        // What is no event is left out, as viewers do; the rest of the file still counts.
        let Ok(Value::Object(mut event)) = serde_json::from_slice(json) else {
            self.left_out += 1;
            return Ok(());
        };
        if self.sink.full() {
            self.left_out += 1;
            return Ok(());
        }
        self.place.rewrite(&mut event);
        self.text.push_str(if self.events == 0 { "\n" } else { ",\n" });
        self.events += 1;
        self.text.push_str(&Value::Object(event).to_string());
        if self.text.len() > 16 << 10 { self.flush() } else { Ok(()) }
    }
}

impl Writer {
    fn flush(&mut self) -> Result<()> {
        self.sink.end(&self.text)?;
        self.text.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
