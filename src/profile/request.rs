//! What a capture was asked for: SGLang's fields of `/start_profile`, and ours.

use serde_json::{Map, Value};

use super::control::Wanted;
use super::paths;
use crate::error::{Error, Result};

/// What to record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Activities {
    pub cpu: bool,
    pub gpu: bool,
    /// Memory over time.
    pub mem: bool,
    /// `cuProfilerStart` and `cuProfilerStop` around the window, for `nsys`.
    pub cuda_profiler: bool,
}

impl Default for Activities {
    fn default() -> Self {
        Activities { cpu: true, gpu: true, mem: false, cuda_profiler: false }
    }
}

impl Activities {
    /// From their names; none means the default.
    ///
    /// # Errors
    /// A name that is not known or not supported.
    pub fn named<S: AsRef<str>>(names: &[S]) -> Result<Activities> {
        if names.is_empty() {
            return Ok(Activities::default());
        }
        let mut found = Activities { cpu: false, gpu: false, mem: false, cuda_profiler: false };
        for name in names {
            match name.as_ref() {
                "CPU" => found.cpu = true,
                "GPU" | "CUDA" => found.gpu = true,
                "MEM" => found.mem = true,
                "CUDA_PROFILER" => found.cuda_profiler = true,
                other => {
                    let wanted = "expected CPU, GPU, MEM or CUDA_PROFILER";
                    return Err(Error::usage(format!("activities {other:?}: {wanted}")));
                }
            }
        }
        Ok(found)
    }

    /// Whether a timeline is recorded at all.
    pub fn timeline(&self) -> bool {
        self.cpu || self.gpu || self.mem
    }
}

/// One capture as asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProfileRequest {
    pub wanted: Wanted,
    pub activities: Activities,
    /// Where files go: an absolute path under an allowed root, or one relative to the first root.
    pub output_dir: Option<String>,
    pub prefix: Option<String>,
    pub id: Option<String>,
    pub with_stack: bool,
    /// Shapes of ops in the trace; on unless refused.
    pub no_shapes: bool,
    pub merge: bool,
    /// The whole name of the file without its end, for commands that have names of their own.
    pub stem: Option<String>,
}

/// Most steps that one capture may ask for.
const MOST_STEPS: u64 = 1_000_000_000_000;

impl ProfileRequest {
    /// From the JSON body of `/start_profile`; unknown fields are ignored, null means left out,
    /// numbers may come as strings.
    ///
    /// # Errors
    /// `Usage`, naming the field.
    pub fn from_json(body: &Value) -> Result<ProfileRequest> {
        let empty = Map::new();
        let fields = match body {
            Value::Null => &empty,
            Value::Object(fields) => fields,
            _ => return Err(Error::usage("the body: expected a JSON object")),
        };
        let fields = Fields(fields);
        let activities = match fields.strings("activities")? {
            Some(names) => Activities::named(&names)?,
            None => Activities::default(),
        };
        let stages = fields.strings("profile_stages")?;
        let by_stage = fields.flag("profile_by_stage")?.unwrap_or(stages.is_some());
        let request = ProfileRequest {
            wanted: Wanted {
                start_step: fields.whole("start_step", 0)?,
                skip_steps: fields.whole("skip_steps", 0)?,
                num_steps: fields.whole("num_steps", 1)?,
                by_stage: by_stage.then(|| stage_files(stages.as_deref())).transpose()?,
            },
            activities,
            output_dir: fields.text("output_dir")?,
            prefix: fields.text("profile_prefix")?,
            id: fields.text("profile_id")?,
            with_stack: fields.flag("with_stack")?.unwrap_or(false),
            no_shapes: !fields.flag("record_shapes")?.unwrap_or(true),
            merge: fields.flag("merge_profiles")?.unwrap_or(false),
            stem: None,
        };
        request.check()?;
        Ok(request)
    }

    /// Refuses names that could leave their folder.
    pub fn check(&self) -> Result<()> {
        if let Some(prefix) = &self.prefix {
            paths::check_name("profile_prefix", prefix)?;
        }
        self.id.as_ref().map_or(Ok(()), |id| paths::check_name("profile_id", id))
    }
}

/// Which stages get a file: prefill, decode.
pub fn stage_files(names: Option<&[String]>) -> Result<[bool; 2]> {
    let Some(names) = names.filter(|n| !n.is_empty()) else { return Ok([true, true]) };
    let mut files = [false, false];
    for name in names {
        match name.to_ascii_lowercase().as_str() {
            "prefill" | "extend" => files[0] = true,
            "decode" => files[1] = true,
            _ => {
                let what = format!("profile_stages {name:?}: expected prefill or decode");
                return Err(Error::usage(what));
            }
        }
    }
    Ok(files)
}

/// Fields of a JSON object; null is as good as absent.
struct Fields<'a>(&'a Map<String, Value>);

impl Fields<'_> {
    fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|v| !v.is_null())
    }

    fn wrong<T>(&self, name: &str, value: &Value, wanted: &str) -> Result<T> {
        let mut found = value.to_string();
        if found.len() > 60 {
            found = found.chars().take(60).collect::<String>() + "…";
        }
        Err(Error::usage(format!("{name} {found}: expected {wanted}")))
    }

    fn whole(&self, name: &str, least: u64) -> Result<Option<u64>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let number = match value {
            Value::Number(n) => n.as_u64().or_else(|| {
                n.as_f64().filter(|x| x.fract() == 0.0 && (0.0..1e15).contains(x)).map(|x| x as u64)
            }),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        match number.filter(|n| (least..=MOST_STEPS).contains(n)) {
            Some(n) => Ok(Some(n)),
            None => self.wrong(name, value, &format!("a whole number of at least {least}")),
        }
    }

    fn flag(&self, name: &str) -> Result<Option<bool>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match value {
            Value::Bool(b) => Ok(Some(*b)),
            Value::Number(n) if n.as_u64() == Some(0) => Ok(Some(false)),
            Value::Number(n) if n.as_u64() == Some(1) => Ok(Some(true)),
            Value::String(s) if s.eq_ignore_ascii_case("true") || s == "1" => Ok(Some(true)),
            Value::String(s) if s.eq_ignore_ascii_case("false") || s == "0" => Ok(Some(false)),
            _ => self.wrong(name, value, "true or false"),
        }
    }

    fn text(&self, name: &str) -> Result<Option<String>> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            // SGLang's tools use the time as id, which may come as a number.
            Some(Value::Number(n)) => Ok(Some(n.to_string())),
            Some(other) => self.wrong(name, other, "a string"),
        }
    }

    fn strings(&self, name: &str) -> Result<Option<Vec<String>>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let list = match value {
            Value::Array(list) => list.as_slice(),
            Value::String(_) => std::slice::from_ref(value),
            other => return self.wrong(name, other, "a list of strings"),
        };
        let texts: Option<Vec<String>> =
            list.iter().map(|v| v.as_str().map(String::from)).collect();
        match texts {
            Some(texts) => Ok(Some(texts)),
            None => self.wrong(name, value, "a list of strings"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(value: Value) -> ProfileRequest {
        ProfileRequest::from_json(&value).unwrap()
    }

    #[test]
    fn nothing_means_the_defaults() {
        for body in [Value::Null, json!({}), json!({"start_step": null, "unknown": [1]})] {
            assert_eq!(parse(body), ProfileRequest::default());
        }
    }

    #[test]
    fn numbers_may_be_strings_as_some_clients_send_them() {
        let r = parse(json!({"start_step": "3", "num_steps": "10", "activities": ["CPU", "CUDA"]}));
        assert_eq!((r.wanted.start_step, r.wanted.num_steps), (Some(3), Some(10)));
        assert_eq!(r.activities, Activities::default());
        let r = parse(json!({"profile_by_stage": "true", "profile_stages": ["decode"]}));
        assert_eq!(r.wanted.by_stage, Some([false, true]));
        assert_eq!(parse(json!({"profile_id": 1700000000.5})).id.as_deref(), Some("1700000000.5"));
    }

    #[test]
    fn every_error_names_the_field() {
        for (body, field) in [
            (json!({"num_steps": 0}), "num_steps"),
            (json!({"num_steps": -1}), "num_steps"),
            (json!({"num_steps": 1.5}), "num_steps"),
            (json!({"num_steps": [1]}), "num_steps"),
            (json!({"start_step": "x"}), "start_step"),
            (json!({"activities": ["RPD"]}), "activities"),
            (json!({"activities": 5}), "activities"),
            (json!({"profile_stages": ["middle"]}), "profile_stages"),
            (json!({"with_stack": "perhaps"}), "with_stack"),
            (json!({"output_dir": 5.5, "merge_profiles": {}}), "merge_profiles"),
            (json!({"profile_prefix": "../x"}), "profile_prefix"),
            (json!([1]), "the body"),
        ] {
            let error = ProfileRequest::from_json(&body).unwrap_err();
            assert!(error.message.starts_with(field), "{body}: {error}");
            assert_eq!(error.exit_code(), 2);
        }
    }
}
