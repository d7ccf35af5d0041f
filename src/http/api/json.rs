//! JSON that means one thing: objects with a key given twice are refused, which serde_json alone
//! would let pass; depth, numbers and UTF-8 it checks itself.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::http::refused::Refused;

/// The object in a request's body; nothing at all is an empty one.
pub fn parse(body: &[u8]) -> Result<Map<String, Value>, Refused> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Map::new());
    }
    let mut source = serde_json::Deserializer::from_slice(body);
    let value = Strict.deserialize(&mut source).and_then(|value| source.end().map(|()| value));
    match value {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(Refused::bad("the body must be a JSON object")),
        Err(error) => Err(Refused::bad(format!("the body is no valid JSON: {error}"))),
    }
}

struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<Value, D::Error> {
        source.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Strict)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let value = entries.next_value_seed(Strict)?;
            if let Some(key) = duplicate(&mut map, key, value) {
                return Err(A::Error::custom(format_args!("the key {key:?} is given twice")));
            }
        }
        Ok(Value::Object(map))
    }
}

/// Inserts, and gives the key back if it was there already.
fn duplicate(map: &mut Map<String, Value>, key: String, value: Value) -> Option<String> {
    if map.contains_key(&key) {
        return Some(key.chars().take(40).collect());
    }
    map.insert(key, value);
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused() {
        let deep = |n: usize| format!("{{\"a\":{}{}}}", "[".repeat(n), "]".repeat(n));
        assert!(parse(deep(100).as_bytes()).is_ok());
        let long = deep(100_000);
        let bad: &[&[u8]] = &[
            b"{",
            b"{}x",
            b"[]",
            b"1",
            b"null",
            b"{\"a\":1,\"a\":2}",
            b"{\"a\":{\"b\":1,\"b\":1}}",
            b"{\"a\":1e400}",
            b"{\"a\":NaN}",
            b"{\"a\":\"\\ud800\"}",
            b"\xef\xbb\xbf{}",
            b"{\"a\":\"\xff\"}",
            b"{\"a\":1,}",
            b"{'a':1}",
            b"{\"a\":\"\0\"}",
            long.as_bytes(),
        ];
        for body in bad {
            let status = parse(body).map_err(|e| e.status);
            assert_eq!(
                status,
                Err(400),
                "{}",
                String::from_utf8_lossy(&body[..body.len().min(40)])
            );
        }
        assert_eq!(parse(b" \r\n"), Ok(Map::new()));
        let big = parse(b"{\"a\":18446744073709551616,\"b\":-1,\"c\":\"\\u0000\"}").unwrap();
        assert_eq!((big["a"].as_u64(), big["b"].as_i64()), (None, Some(-1)));
    }
}
