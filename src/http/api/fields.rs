//! Typed reading of a JSON object's fields.

use serde_json::{Map, Value};

use crate::http::refused::Refused;
use crate::types::TokenId;

/// An object whose fields are read one by one; null is the same as absent.
#[derive(Clone, Copy)]
pub struct Fields<'a>(pub &'a Map<String, Value>);

type Read<T> = Result<T, Refused>;

impl<'a> Fields<'a> {
    pub fn get(self, name: &str) -> Option<&'a Value> {
        self.0.get(name).filter(|v| !v.is_null())
    }

    pub fn text(self, name: &str) -> Read<Option<&'a str>> {
        let text = |v: &'a Value| v.as_str().ok_or_else(|| wrong(name, v, "a string"));
        self.get(name).map(text).transpose()
    }

    /// true or false, or what Python's validators take for them.
    pub fn flag(self, name: &str) -> Read<Option<bool>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let text = value.as_str().map(str::to_ascii_lowercase);
        let flag = match (value, text.as_deref()) {
            (Value::Bool(flag), _) => Some(*flag),
            (_, Some("true" | "1" | "yes" | "on")) => Some(true),
            (_, Some("false" | "0" | "no" | "off")) => Some(false),
            _ => value.as_i64().filter(|n| matches!(n, 0 | 1)).map(|n| n == 1),
        };
        flag.map(Some).ok_or_else(|| wrong(name, value, "true or false"))
    }

    /// A whole number in a range; a string of digits counts.
    pub fn whole(self, name: &str, low: i64, high: i64) -> Read<Option<i64>> {
        let whole = |v: &Value| whole(name, v, low, high);
        self.get(name).map(whole).transpose()
    }

    pub fn list(self, name: &str) -> Read<Option<&'a Vec<Value>>> {
        let list = |v: &'a Value| v.as_array().ok_or_else(|| wrong(name, v, "a list"));
        self.get(name).map(list).transpose()
    }

    pub fn object(self, name: &str) -> Read<Option<&'a Map<String, Value>>> {
        let object = |v: &'a Value| v.as_object().ok_or_else(|| wrong(name, v, "an object"));
        self.get(name).map(object).transpose()
    }

    /// Refuses fields whose effect is not available, unless they say "off".
    pub fn unavailable(self, names: &[&str]) -> Read<()> {
        for name in names {
            let Some(value) = self.get(name) else { continue };
            let off = match value {
                Value::Bool(on) => !on,
                Value::String(text) => text.is_empty(),
                Value::Array(list) => list.is_empty(),
                Value::Object(map) => map.is_empty(),
                Value::Number(n) => n.as_f64() == Some(0.0),
                Value::Null => true,
            };
            if !off {
                return Err(Refused::field(*name, format!("{name} is not available")));
            }
        }
        Ok(())
    }
}

/// A whole number from `low` to `high`, as a number or as its digits.
pub fn whole(name: &str, value: &Value, low: i64, high: i64) -> Read<i64> {
    let number = match value {
        Value::String(text) => text.trim().parse().ok(),
        // 3.0 is whole, too, and some clients write it so.
        Value::Number(n) => n.as_i64().or_else(|| {
            n.as_f64().filter(|x| x.fract() == 0.0 && x.abs() < 9e15).map(|x| x as i64)
        }),
        _ => None,
    };
    let number = number.filter(|n| (low..=high).contains(n));
    number.ok_or_else(|| wrong(name, value, &format!("a whole number from {low} to {high}")))
}

/// A list of token ids. Whether they lie in the vocabulary only the engine knows.
pub fn token_ids(name: &str, list: &[Value]) -> Read<Vec<TokenId>> {
    let id = |v: &Value| v.as_u64().and_then(|n| TokenId::try_from(n).ok());
    let read = |v: &Value| id(v).ok_or_else(|| wrong(name, v, "a token id from 0 to 4294967295"));
    list.iter().map(read).collect()
}

/// 400: the field, what it holds, and what was expected.
pub fn wrong(name: &str, value: &Value, wanted: &str) -> Refused {
    let found: String = match value {
        Value::Array(list) => format!("a list of {}", list.len()),
        Value::Object(map) => format!("an object of {}", map.len()),
        Value::String(text) => format!("{:?}", text.chars().take(40).collect::<String>()),
        other => other.to_string(),
    };
    Refused::field(name, format!("{name} is {found}, expected {wanted}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_come_as_strings_and_have_ranges() {
        let value = json!({"a": "7", "b": 3.0, "c": 1u64 << 63, "d": 1.5, "e": true, "f": "x"});
        let fields = Fields(value.as_object().unwrap());
        assert_eq!(fields.whole("a", 0, 9), Ok(Some(7)));
        assert_eq!(fields.whole("b", 0, 9), Ok(Some(3)));
        assert_eq!(fields.whole("missing", 0, 9), Ok(None));
        for bad in ["c", "d", "e", "f"] {
            let error = fields.whole(bad, 0, i64::MAX).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(bad));
        }
        assert_eq!(fields.whole("a", 8, 9).unwrap_err().status, 400);
    }

    #[test]
    fn flags_and_ids() {
        let value = json!({"a": "True", "b": 0, "c": 2, "ids": [1, -1], "big": [4294967296u64]});
        let fields = Fields(value.as_object().unwrap());
        assert_eq!((fields.flag("a"), fields.flag("b")), (Ok(Some(true)), Ok(Some(false))));
        assert!(fields.flag("c").is_err());
        for list in ["ids", "big"] {
            assert!(token_ids(list, fields.list(list).unwrap().unwrap()).is_err());
        }
        assert!(fields.unavailable(&["a"]).is_err() && fields.unavailable(&["b", "x"]).is_ok());
    }
}
