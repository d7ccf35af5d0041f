//! One event moved to its place in a merged trace.

use serde_json::{Map, Value, json};

/// What changes in the events of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// Number of the file, from 0.
    pub index: u64,
    /// `[TP00-DP01]`.
    pub label: String,
    pub sort_index: u64,
    /// What to add to times.
    pub shift_ns: i64,
}

/// Ids below this are put beside the file's number so that no two files share one; larger ones
/// become text. Both together stay below 2⁵³, where numbers in JSON are exact.
const IDS: u64 = 1 << 40;

impl Place {
    pub fn rewrite(&self, event: &mut Map<String, Value>) {
        self.sort(event);
        self.process(event);
        self.time(event);
        for key in ["id", "bind_id"] {
            if let Some(id) = event.get_mut(key) {
                *id = self.id(id);
            }
        }
        if let Some(Value::Object(ids)) = event.get_mut("id2") {
            ids.values_mut().for_each(|id| *id = self.id(id));
        }
    }

    /// `[TP00] 1234`; an event without a process belongs to the file as a whole.
    fn process(&self, event: &mut Map<String, Value>) {
        let pid = match event.get("pid") {
            None | Some(Value::Null) => self.label.clone(),
            Some(Value::String(pid)) => format!("{} {pid}", self.label),
            Some(pid) => format!("{} {pid}", self.label),
        };
        event.insert("pid".into(), json!(pid));
    }

    /// Processes with small numbers, devices, are sorted by rank, as SGLang does it.
    fn sort(&self, event: &mut Map<String, Value>) {
        let is_sort = event.get("name").and_then(Value::as_str) == Some("process_sort_index");
        let pid = event.get("pid").and_then(Value::as_u64).filter(|p| *p < 1000);
        if let (true, Some(pid)) = (is_sort, pid)
            && let Some(Value::Object(args)) = event.get_mut("args")
        {
            args.insert("sort_index".into(), json!(pid + self.sort_index));
        }
    }

    fn time(&self, event: &mut Map<String, Value>) {
        let meta = event.get("ph").and_then(Value::as_str) == Some("M");
        let Some(micros) = event.get("ts").and_then(Value::as_f64).filter(|_| !meta) else {
            return;
        };
        if self.shift_ns != 0 {
            let ns = (micros * 1000.0).round() + self.shift_ns as f64;
            event.insert("ts".into(), json!(ns / 1000.0));
        }
    }

    fn id(&self, id: &Value) -> Value {
        let own = (self.index + 1) * IDS;
        match id {
            Value::Number(n) => match n.as_u64().filter(|n| *n < IDS) {
                Some(n) => json!(own + n),
                None => json!(format!("{}:{n}", self.index)),
            },
            Value::String(text) => {
                let hex = text.strip_prefix("0x").and_then(|t| u64::from_str_radix(t, 16).ok());
                match hex.filter(|n| *n < IDS) {
                    Some(n) => json!(format!("{:#x}", own + n)),
                    None => json!(format!("{}:{text}", self.index)),
                }
            }
            other => other.clone(),
        }
    }
}
