//! Typed reading of a JSON object: a field that is absent or null is `None`, one of the wrong
//! type is an error that names it.

use serde_json::{Map, Value};

use crate::error::{Error, Result};

pub struct Fields<'a> {
    map: &'a Map<String, Value>,
    /// What the object is, for messages: `config.json` or `rope_scaling`.
    place: &'a str,
}

impl<'a> Fields<'a> {
    /// # Errors
    /// If `value` is not an object.
    pub fn new(value: &'a Value, place: &'a str) -> Result<Self> {
        match value {
            Value::Object(map) => Ok(Fields { map, place }),
            other => Err(Error::unsupported(format!(
                "{place}: expected a JSON object, found {}",
                shorten(other)
            ))),
        }
    }

    pub fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|v| !v.is_null())
    }

    /// Present, even if null: some defaults differ between absent and null.
    pub fn has(&self, name: &str) -> bool {
        self.map.contains_key(name)
    }

    fn wrong(&self, name: &str, value: &Value, wanted: &str) -> Error {
        let place = self.place;
        Error::unsupported(format!("{place}: {name} is {}, expected {wanted}", shorten(value)))
    }

    fn typed<T>(
        &self,
        name: &str,
        wanted: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| self.wrong(name, value, wanted))
    }

    pub fn usize(&self, name: &str) -> Result<Option<usize>> {
        self.typed(name, "a whole number", |v| v.as_u64().and_then(|n| usize::try_from(n).ok()))
    }

    pub fn f64(&self, name: &str) -> Result<Option<f64>> {
        self.typed(name, "a number", Value::as_f64)
    }

    pub fn bool(&self, name: &str) -> Result<Option<bool>> {
        self.typed(name, "true or false", Value::as_bool)
    }

    pub fn str(&self, name: &str) -> Result<Option<&'a str>> {
        self.typed(name, "a string", Value::as_str)
    }

    pub fn object(&self, name: &'a str) -> Result<Option<Fields<'a>>> {
        self.get(name).map(|v| Fields::new(v, name)).transpose()
    }

    pub fn f64s(&self, name: &str) -> Result<Option<Vec<f64>>> {
        self.typed(name, "a list of numbers", |v| v.as_array()?.iter().map(Value::as_f64).collect())
    }

    pub fn usizes(&self, name: &str) -> Result<Option<Vec<usize>>> {
        self.typed(name, "a list of whole numbers", |v| {
            v.as_array()?.iter().map(|n| n.as_u64().and_then(|n| usize::try_from(n).ok())).collect()
        })
    }

    pub fn strs(&self, name: &str) -> Result<Option<Vec<&'a str>>> {
        self.typed(name, "a list of strings", |v| v.as_array()?.iter().map(Value::as_str).collect())
    }

    /// A token id, or a list of them.
    pub fn ids(&self, name: &str) -> Result<Vec<u32>> {
        let id = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok());
        let ids = self.typed(name, "a token id or a list of them", |v| match v {
            Value::Array(list) => list.iter().map(id).collect(),
            one => id(one).map(|n| vec![n]),
        })?;
        Ok(ids.unwrap_or_default())
    }

    /// # Errors
    /// If the field is absent.
    pub fn required_usize(&self, name: &str) -> Result<usize> {
        self.usize(name)?.ok_or_else(|| {
            Error::unsupported(format!("{}: {name} is missing, expected a number", self.place))
        })
    }
}

/// A JSON value short enough for a message.
fn shorten(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 60 {
        return text;
    }
    text.chars().take(57).chain("...".chars()).collect()
}
