//! How long a body is (RFC 9112 §6), with every ambiguity refused.

use super::refused::Refused;

/// How a request's body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes; 0 without a body.
    Length(u64),
    Chunked,
}

/// Reads Content-Length and Transfer-Encoding; `minor` is the 1 of HTTP/1.1.
pub fn framing(fields: &[(String, String)], minor: u8) -> Result<Framing, Refused> {
    let mut length = None;
    let mut chunked = false;
    for (name, value) in fields {
        match name.as_str() {
            "content-length" if length.is_some() => {
                return Err(Refused::bad("Content-Length is given twice"));
            }
            "content-length" => length = Some(digits(value)?),
            "transfer-encoding" if chunked => {
                return Err(Refused::bad("Transfer-Encoding is given twice"));
            }
            "transfer-encoding" if minor == 0 => {
                return Err(Refused::bad("Transfer-Encoding is not for HTTP/1.0"));
            }
            "transfer-encoding" if value.eq_ignore_ascii_case("chunked") => chunked = true,
            "transfer-encoding" => {
                return Err(Refused::bad("Transfer-Encoding must be chunked"));
            }
            // A proxy may map these onto the real ones.
            "content_length" | "transfer_encoding" => {
                return Err(Refused::bad(format!("{name} is spelt with _")));
            }
            "content-encoding" if !value.eq_ignore_ascii_case("identity") => {
                return Err(Refused::bad("Content-Encoding: send the body uncompressed"));
            }
            _ => {}
        }
    }
    match (length, chunked) {
        (Some(_), true) => Err(Refused::bad("Content-Length and Transfer-Encoding are both given")),
        (_, true) => Ok(Framing::Chunked),
        (length, false) => Ok(Framing::Length(length.unwrap_or(0))),
    }
}

/// 1 to 19 digits and nothing else; `str::parse` alone would take a plus sign.
fn digits(value: &str) -> Result<u64, Refused> {
    let plain = (1..=19).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_digit());
    let number = if plain { value.parse().ok() } else { None };
    number.ok_or_else(|| Refused::bad("Content-Length must be 1 to 19 digits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_comes_as_it_is() {
        let with = |value: &str| {
            let fields = [("content-length", "3"), ("content-encoding", value)];
            let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned()));
            framing(&fields, 1).map_err(|e| e.status)
        };
        assert_eq!(with("Identity"), Ok(Framing::Length(3)));
        assert_eq!(with("gzip"), Err(400));
    }
}
