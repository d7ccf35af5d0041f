//! One step as a file: what was in its batch, and how long it and its ops took, so that
//! `bench-one-batch --replay` can run it again. Token ids are not in it: what a step costs depends
//! on lengths, and what people asked is not written to disk.

use serde_json::{Map, Value, json};

use super::record::Stage;

/// A sequence of the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sequence {
    /// Tokens that were cached.
    pub past: usize,
    /// Tokens that were new, at least one.
    pub new: usize,
    /// Rows of logits that were asked for.
    pub logits: usize,
}

/// Like ops of all layers together.
#[derive(Debug, Clone, PartialEq)]
pub struct OpTotal {
    /// `linear`, `attention`, …
    pub op: String,
    /// `model.layers.*.mlp.down_proj`.
    pub module: String,
    pub count: u64,
    pub seconds: f64,
}

/// A step that was run.
#[derive(Debug, Clone, PartialEq)]
pub struct StepFile {
    pub step: u64,
    pub stage: Stage,
    /// From planning to the last update, and the device's part; 0 where it is not known.
    pub seconds: f64,
    pub forward: f64,
    pub sequences: Vec<Sequence>,
    pub ops: Vec<OpTotal>,
    /// `cpu`, `cuda:0`, `emulated`.
    pub device: String,
    /// Why it was saved.
    pub why: String,
}

/// Says which kind of file it is, and in which version.
const SCHEMA: &str = "pacer-step-1";
/// Sequences of a step at most.
const MOST: usize = 1 << 16;
/// Tokens of a sequence at most.
const LONGEST: u64 = 1 << 32;

impl StepFile {
    /// New tokens of all sequences.
    pub fn tokens(&self) -> usize {
        self.sequences.iter().map(|s| s.new).sum()
    }

    pub fn to_json(&self) -> Value {
        let sequence = |s: &Sequence| json!({"past": s.past, "new": s.new, "logits": s.logits});
        let op = |o: &OpTotal| {
            let (op, module, count, total) = (&o.op, &o.module, o.count, o.seconds);
            json!({"op": op, "module": module, "count": count, "total_s": total})
        };
        json!({
            "schema": SCHEMA,
            "why": self.why,
            "step": self.step,
            "stage": self.stage.name(),
            "device": self.device,
            "seconds": self.seconds,
            "forward_s": self.forward,
            "sequences": self.sequences.iter().map(sequence).collect::<Vec<_>>(),
            "ops": self.ops.iter().map(op).collect::<Vec<_>>(),
        })
    }

    /// # Errors
    /// The field that is missing or wrong, what was found and what is expected.
    pub fn from_json(value: &Value) -> Result<StepFile, String> {
        let Value::Object(fields) = value else {
            return Err("expected a JSON object, as /dump_step writes it".into());
        };
        if fields.get("schema") != Some(&Value::from(SCHEMA)) {
            let found = fields.get("schema").map_or("nothing".into(), Value::to_string);
            return Err(format!("schema: expected \"{SCHEMA}\", found {found}"));
        }
        let stage = text(fields, "stage");
        let stage = Stage::ALL.into_iter().find(|s| s.name() == stage);
        let list = |name: &str| fields.get(name).and_then(Value::as_array);
        let sequences = list("sequences").ok_or("sequences: expected a list")?;
        if sequences.is_empty() || sequences.len() > MOST {
            return Err(format!("sequences: {} of them, expected 1 to {MOST}", sequences.len()));
        }
        let sequences: Result<Vec<Sequence>, String> =
            sequences.iter().enumerate().map(|(i, s)| sequence(i, s)).collect();
        let op = |v: &Value| {
            let fields = v.as_object()?;
            let (op, module) = (text(fields, "op"), text(fields, "module"));
            let count = fields.get("count")?.as_u64()?;
            Some(OpTotal { op, module, count, seconds: real(fields, "total_s") })
        };
        Ok(StepFile {
            step: fields.get("step").and_then(Value::as_u64).unwrap_or(0),
            stage: stage.ok_or("stage: expected EXTEND, DECODE or MIXED")?,
            seconds: real(fields, "seconds"),
            forward: real(fields, "forward_s"),
            sequences: sequences?,
            ops: list("ops").into_iter().flatten().filter_map(op).collect(),
            device: text(fields, "device"),
            why: text(fields, "why"),
        })
    }
}

fn text(fields: &Map<String, Value>, name: &str) -> String {
    fields.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn real(fields: &Map<String, Value>, name: &str) -> f64 {
    fields.get(name).and_then(Value::as_f64).filter(|x| *x >= 0.0).unwrap_or(0.0)
}

fn sequence(index: usize, value: &Value) -> Result<Sequence, String> {
    let whole = |name: &str, least: u64| {
        let found = value.get(name).unwrap_or(&Value::Null);
        let number = found.as_u64().filter(|n| (least..=LONGEST).contains(n));
        let what = format!("expected a whole number from {least} to {LONGEST}");
        number.ok_or_else(|| format!("sequences[{index}].{name}: {what}, found {found}"))
    };
    let (past, new, logits) = (whole("past", 0)?, whole("new", 1)?, whole("logits", 0)?);
    if logits > new {
        return Err(format!("sequences[{index}].logits: {logits} rows of {new} new tokens"));
    }
    Ok(Sequence { past: past as usize, new: new as usize, logits: logits as usize })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> StepFile {
        StepFile {
            step: 12,
            stage: Stage::Mixed,
            seconds: 0.25,
            forward: 0.125,
            sequences: vec![
                Sequence { past: 100, new: 1, logits: 1 },
                Sequence { past: 0, new: 64, logits: 0 },
            ],
            ops: vec![OpTotal {
                op: "linear".into(),
                module: "model.layers.*.mlp".into(),
                count: 2,
                seconds: 0.0625,
            }],
            device: "cpu".into(),
            why: "asked for".into(),
        }
    }

    #[test]
    fn a_step_survives_its_file() {
        let text = file().to_json().to_string();
        let back = StepFile::from_json(&serde_json::from_str(&text).unwrap()).unwrap();
        assert_eq!(back, file());
        assert_eq!(back.tokens(), 65);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let wrong = |change: &dyn Fn(&mut Value)| {
            let mut value = file().to_json();
            change(&mut value);
            StepFile::from_json(&value).unwrap_err()
        };
        assert!(StepFile::from_json(&json!([])).is_err());
        for (name, value, found) in [
            ("schema", json!("pacer-step-9"), "schema: expected"),
            ("stage", json!("SLEEP"), "stage: expected"),
            ("sequences", json!([]), "sequences: 0 of them"),
            ("sequences", json!([{"past": 0, "new": 0, "logits": 0}]), "sequences[0].new"),
            ("sequences", json!([{"past": -1, "new": 1, "logits": 0}]), "sequences[0].past"),
            ("sequences", json!([{"past": 0, "new": 1, "logits": 2}]), "sequences[0].logits"),
            ("sequences", json!([{"past": 0, "new": 1e30, "logits": 0}]), "sequences[0].new"),
            ("sequences", json!("x"), "sequences: expected"),
        ] {
            let error = wrong(&|v| v[name] = value.clone());
            assert!(error.starts_with(found), "{error}");
        }
    }
}
