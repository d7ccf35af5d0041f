//! Single events of the Chrome trace format (Google, "Trace Event Format") as JSON text.
//!
//! Times in a file are microseconds with three decimals, so nanoseconds are kept exactly.

use std::fmt::Write;

/// A row: process and thread as the viewer shows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Row {
    pub pid: u64,
    pub tid: u64,
}

/// What a span is called and belongs to.
#[derive(Debug, Clone, Copy)]
pub struct Label<'a> {
    pub name: &'a str,
    pub category: &'a str,
}

/// Collects the text of one event after the other.
#[derive(Debug, Default)]
pub struct Events {
    /// Nanoseconds that times count from.
    pub origin_ns: u64,
    text: String,
    first: bool,
}

/// `text` as a JSON string, quotes included.
pub fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Appends `"key": text` to the inside of an object.
pub fn put_text(args: &mut String, key: &str, text: &str) {
    comma(args);
    let _ = write!(args, "\"{key}\": {}", quoted(text));
}

/// Appends `"key": number`.
pub fn put_number(args: &mut String, key: &str, number: u64) {
    comma(args);
    let _ = write!(args, "\"{key}\": {number}");
}

/// Appends `"key": number` with six significant decimals; what is not finite is null.
pub fn put_real(args: &mut String, key: &str, number: f64) {
    comma(args);
    let _ = match number.is_finite() {
        true => write!(args, "\"{key}\": {number:.6}"),
        false => write!(args, "\"{key}\": null"),
    };
}

fn comma(args: &mut String) {
    if !args.is_empty() {
        args.push_str(", ");
    }
}

impl Events {
    pub fn new(origin_ns: u64) -> Events {
        Events { origin_ns, text: String::new(), first: true }
    }

    /// Moves the text so far to `to`. Unless it is `kept` the file goes on without it.
    pub fn take(&mut self, to: &mut String, kept: bool) {
        to.clear();
        std::mem::swap(to, &mut self.text);
        self.first &= !kept;
    }

    /// Bytes of text not yet taken.
    pub fn len(&self) -> usize {
        self.text.len()
    }

    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// The separator before an event, which the very first one has not.
    fn separate(&mut self) {
        let first = self.first && self.text.is_empty();
        self.text.push_str(if first { "\n" } else { ",\n" });
    }

    fn micros(&mut self, key: &str, ns: u64) {
        let _ = write!(self.text, ", \"{key}\": {}.{:03}", ns / 1000, ns % 1000);
    }

    fn open(&mut self, phase: char, row: Row, label: Label) {
        self.separate();
        let (name, Row { pid, tid }) = (quoted(label.name), row);
        let _ = write!(
            self.text,
            "{{\"ph\": \"{phase}\", \"pid\": {pid}, \"tid\": {tid}, \"cat\": \"{}\", \
             \"name\": {name}",
            label.category
        );
    }

    fn at(&mut self, ns: u64) {
        self.micros("ts", ns.saturating_sub(self.origin_ns));
    }

    fn close(&mut self, args: &str) {
        if !args.is_empty() {
            let _ = write!(self.text, ", \"args\": {{{args}}}");
        }
        self.text.push('}');
    }

    /// A span. `args` is the inside of an object.
    pub fn span(&mut self, row: Row, label: Label, from_ns: u64, to_ns: u64, args: &str) {
        self.open('X', row, label);
        self.at(from_ns);
        self.micros("dur", to_ns.saturating_sub(from_ns.max(self.origin_ns)));
        self.close(args);
    }

    /// A mark on the whole process.
    pub fn instant(&mut self, row: Row, label: Label, at_ns: u64, args: &str) {
        self.open('i', row, label);
        self.at(at_ns);
        self.text.push_str(", \"s\": \"p\"");
        self.close(args);
    }

    /// A counter's new value.
    pub fn counter(&mut self, row: Row, label: Label, at_ns: u64, value: u64) {
        self.open('C', row, label);
        self.at(at_ns);
        self.close(&format!("\"value\": {value}"));
    }

    /// A span that may overlap others of its row: one of a request.
    pub fn overlapping(&mut self, row: Row, label: Label, id: u64, times: (u64, u64), args: &str) {
        for (phase, at, args) in [('b', times.0, args), ('e', times.1, "")] {
            self.open(phase, row, label);
            self.at(at);
            let _ = write!(self.text, ", \"id\": \"{id:#x}\"");
            self.close(args);
        }
    }

    /// An arrow from one span to another. The times lie inside the spans.
    pub fn arrow(&mut self, label: Label, id: u64, from: (Row, u64), to: (Row, u64)) {
        self.open('s', from.0, label);
        self.at(from.1);
        let _ = write!(self.text, ", \"id\": {id}");
        self.close("");
        self.open('f', to.0, label);
        self.at(to.1);
        let _ = write!(self.text, ", \"id\": {id}, \"bp\": \"e\"");
        self.close("");
    }

    /// What a process or thread is called, and where it stands among others.
    pub fn name(&mut self, row: Row, what: &str, name: &str, sort_index: u64) {
        for (key, value) in [("name", quoted(name)), ("sort_index", sort_index.to_string())] {
            self.separate();
            let Row { pid, tid } = row;
            let _ = write!(
                self.text,
                "{{\"ph\": \"M\", \"pid\": {pid}, \"tid\": {tid}, \"name\": \"{what}_{key}\", \
                 \"ts\": 0, \"args\": {{\"{key}\": {value}}}}}"
            );
        }
    }
}
