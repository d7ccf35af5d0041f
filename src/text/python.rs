//! Values as Python writes them: chat templates are written for Jinja2, where printing a value
//! is `str(value)` and `tojson` is `json.dumps`.

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind};

/// Values nest at most so deep: a template can build deeper ones, and writing them recurses.
const MAX_DEPTH: usize = 128;
/// Written values are no longer; a template can build values that share their parts.
const MAX_BYTES: usize = 16 << 20;
const MAX_INDENT: usize = 16;

/// `str(value)`: strings as they are, the rest as [`repr`].
pub(super) fn str_of(value: &Value) -> Result<String, Error> {
    match value.kind() {
        ValueKind::Undefined => Ok(String::new()),
        ValueKind::String => Ok(value.as_str().unwrap_or_default().to_owned()),
        _ => {
            let mut out = String::new();
            repr(value, &mut out, 0)?;
            Ok(out)
        }
    }
}

fn repr(value: &Value, out: &mut String, depth: usize) -> Result<(), Error> {
    check(out, depth)?;
    match value.kind() {
        ValueKind::None => out.push_str("None"),
        ValueKind::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::Number => out.push_str(&number(value)),
        ValueKind::String => quote(value.as_str().unwrap_or_default(), out),
        ValueKind::Seq | ValueKind::Iterable => {
            out.push('[');
            for (at, item) in value.try_iter()?.enumerate() {
                out.push_str(if at == 0 { "" } else { ", " });
                repr(&item, out, depth + 1)?;
            }
            out.push(']');
        }
        ValueKind::Map => {
            out.push('{');
            for (at, key) in value.try_iter()?.enumerate() {
                out.push_str(if at == 0 { "" } else { ", " });
                repr(&key, out, depth + 1)?;
                out.push_str(": ");
                repr(&value.get_item(&key)?, out, depth + 1)?;
            }
            out.push('}');
        }
        _ => out.push_str(&value.to_string()),
    }
    Ok(())
}

/// Python prefers single quotes, and takes double ones when only single ones are inside.
fn quote(text: &str, out: &mut String) {
    let mark = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(mark);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            c if c == mark => out.extend(['\\', c]),
            c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push(mark);
}

/// Integers as they are, floats as `repr(float)`.
fn number(value: &Value) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    f64::try_from(value.clone()).map_or_else(|_| value.to_string(), float)
}

/// Python's shortest form: with an exponent below 1e-4 and from 1e16.
fn float(x: f64) -> String {
    let size = x.abs();
    if !x.is_finite() {
        let name = if x.is_nan() { "nan" } else { "inf" };
        return format!("{}{name}", if x < 0.0 { "-" } else { "" });
    }
    if size != 0.0 && !(1e-4..1e16).contains(&size) {
        let text = format!("{x:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, digits) =
            exponent.strip_prefix('-').map_or(("+", exponent), |digits| ("-", digits));
        return format!("{mantissa}e{sign}{digits:0>2}");
    }
    format!("{x:?}")
}

/// The `tojson` filter: `json.dumps` with `ensure_ascii=False` unless asked otherwise, and
/// Python's separators. Nothing is escaped for HTML.
pub(super) fn tojson(value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    let style = JsonStyle {
        ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        sorted: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        indent: indent.map(|n| n.min(MAX_INDENT)),
        item: match &separators {
            Some(list) => list.first().cloned().unwrap_or_default(),
            None => if indent.is_some() { "," } else { ", " }.into(),
        },
        key: match &separators {
            Some(list) => list.get(1).cloned().unwrap_or_default(),
            None => ": ".into(),
        },
    };
    options.assert_all_used()?;
    let mut out = String::new();
    style.write(value, &mut out, 0)?;
    Ok(out)
}

struct JsonStyle {
    ascii: bool,
    sorted: bool,
    indent: Option<usize>,
    item: String,
    key: String,
}

impl JsonStyle {
    fn write(&self, value: &Value, out: &mut String, depth: usize) -> Result<(), Error> {
        check(out, depth)?;
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => out.push_str(&json_number(value)),
            ValueKind::String => self.string(value.as_str().unwrap_or_default(), out),
            ValueKind::Seq | ValueKind::Iterable => self.list(value, out, depth)?,
            ValueKind::Map => self.map(value, out, depth)?,
            other => {
                let message = format!("tojson: a value of type {other} has no JSON form");
                return Err(Error::new(ErrorKind::InvalidOperation, message));
            }
        }
        Ok(())
    }

    fn list(&self, value: &Value, out: &mut String, depth: usize) -> Result<(), Error> {
        out.push('[');
        let mut empty = true;
        for item in value.try_iter()? {
            self.before_item(&mut empty, out, depth + 1);
            self.write(&item, out, depth + 1)?;
        }
        self.before_end(empty, out, depth);
        out.push(']');
        Ok(())
    }

    fn map(&self, value: &Value, out: &mut String, depth: usize) -> Result<(), Error> {
        let mut keys: Vec<Value> = value.try_iter()?.collect();
        if self.sorted {
            keys.sort();
        }
        out.push('{');
        let mut empty = true;
        for key in keys {
            self.before_item(&mut empty, out, depth + 1);
            self.string(&json_key(&key), out);
            out.push_str(&self.key);
            self.write(&value.get_item(&key)?, out, depth + 1)?;
        }
        self.before_end(empty, out, depth);
        out.push('}');
        Ok(())
    }

    fn before_item(&self, empty: &mut bool, out: &mut String, depth: usize) {
        if !std::mem::replace(empty, false) {
            out.push_str(&self.item);
        }
        self.new_line(out, depth);
    }

    fn before_end(&self, empty: bool, out: &mut String, depth: usize) {
        if !empty {
            self.new_line(out, depth);
        }
    }

    fn new_line(&self, out: &mut String, depth: usize) {
        if let Some(width) = self.indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', width * depth));
        }
    }

    fn string(&self, text: &str, out: &mut String) {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                c if (c as u32) < 0x20 || (self.ascii && !c.is_ascii()) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        out.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
}

fn json_number(value: &Value) -> String {
    match number(value).as_str() {
        "nan" => "NaN".into(),
        "inf" => "Infinity".into(),
        "-inf" => "-Infinity".into(),
        other => other.into(),
    }
}

/// `json.dumps` writes keys that are no strings as their JSON text.
fn json_key(key: &Value) -> String {
    match key.kind() {
        ValueKind::None => "null".into(),
        ValueKind::Bool => key.is_true().to_string(),
        ValueKind::Number => json_number(key),
        _ => key.to_string(),
    }
}

fn check(out: &str, depth: usize) -> Result<(), Error> {
    if depth > MAX_DEPTH || out.len() > MAX_BYTES {
        let message = "a value is too deep or too long to be written";
        return Err(Error::new(ErrorKind::InvalidOperation, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_python_s() {
        for (x, text) in [
            (1.0, "1.0"),
            (0.1, "0.1"),
            (-2.5, "-2.5"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (0.0, "0.0"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(float(x), text);
        }
    }

    #[test]
    fn values_print_as_in_python() {
        let json = serde_json::json!({"a": [1, true, null, "it's", "x\n\"'"], "b": 2.0, "c": {}});
        let text = str_of(&Value::from_serialize(&json)).unwrap();
        assert_eq!(text, r#"{'a': [1, True, None, "it's", 'x\n"\''], 'b': 2.0, 'c': {}}"#);
        assert_eq!(str_of(&Value::UNDEFINED).unwrap(), "");
        assert_eq!(str_of(&Value::from("it's")).unwrap(), "it's");
    }
}
