//! The chunked coding (RFC 9112 §7.1), read strictly: 1 to 15 hex digits, short extensions of
//! tokens, CRLF only, trailers checked and dropped.

use super::head;
use super::limits::CHUNK_EXTENSION;
use super::refused::Refused;
use super::scan::{Scan, Scanned};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// So many digits of a size have been read.
    Size(u8),
    /// In the name or value of an extension; `some`: it has a character.
    Extension {
        value: bool,
        some: bool,
    },
    SizeLf,
    Data,
    DataCr,
    DataLf,
    Trailers,
}

/// Most digits of a size: with 15 no shift overflows.
const MAX_DIGITS: u8 = 15;

/// Takes a chunked body apart, whatever pieces it comes in.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    /// Size of the chunk, then what is left of it.
    left: u64,
    extension: usize,
    max: usize,
    scan: Scan,
    trailers: Vec<u8>,
}

impl Decoder {
    /// For a body of at most `max` bytes.
    pub fn new(max: usize) -> Self {
        let scan = Scan::trailers();
        let trailers = Vec::new();
        Decoder { state: State::Size(0), left: 0, extension: 0, max, scan, trailers }
    }

    /// Reads from `input`, appends data to `body`, and gives the bytes taken and whether the body
    /// has ended. Bytes after the end are not taken.
    pub fn decode(&mut self, input: &[u8], body: &mut Vec<u8>) -> Result<(usize, bool), Refused> {
        let mut at = 0;
        while let Some(&byte) = input.get(at) {
            if self.state == State::Data {
                let rest = &input[at..];
                let take = usize::try_from(self.left).unwrap_or(usize::MAX).min(rest.len());
                body.extend_from_slice(&rest[..take]);
                at += take;
                self.left -= take as u64;
                if self.left == 0 {
                    self.state = State::DataCr;
                }
                continue;
            }
            at += 1;
            if self.byte(byte, body.len())? {
                return Ok((at, true));
            }
        }
        Ok((at, false))
    }

    /// Takes a byte that is no data; true if it was the last one.
    fn byte(&mut self, byte: u8, received: usize) -> Result<bool, Refused> {
        self.state = match (self.state, byte) {
            (State::Trailers, _) => return self.trailer(byte),
            (State::Size(n), b) if b.is_ascii_hexdigit() => return self.digit(n, b),
            (State::Size(1..), b';') => {
                self.extend(State::Extension { value: false, some: false })?
            }
            (State::Size(1..) | State::Extension { some: true, .. }, b'\r') => State::SizeLf,
            (State::Extension { some: true, .. }, b';') => {
                self.extend(State::Extension { value: false, some: false })?
            }
            (State::Extension { value: false, some: true }, b'=') => {
                self.extend(State::Extension { value: true, some: false })?
            }
            (State::Extension { value, .. }, b) if head::is_token_byte(b) => {
                self.extend(State::Extension { value, some: true })?
            }
            (State::SizeLf, b'\n') => self.chunk(received)?,
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size(0),
            (State::DataCr | State::DataLf, _) => {
                return Err(Refused::bad("chunk data is not followed by CRLF"));
            }
            _ => return Err(Refused::bad("a chunk size line is malformed")),
        };
        Ok(false)
    }

    fn digit(&mut self, digits: u8, byte: u8) -> Result<bool, Refused> {
        if digits == MAX_DIGITS {
            return Err(Refused::bad("a chunk size has more than 15 digits"));
        }
        let value = (byte as char).to_digit(16).unwrap_or(0);
        self.left = self.left << 4 | u64::from(value);
        self.state = State::Size(digits + 1);
        Ok(false)
    }

    fn extend(&mut self, state: State) -> Result<State, Refused> {
        self.extension += 1;
        if self.extension > CHUNK_EXTENSION {
            return Err(Refused::bad("chunk extensions are over 256 bytes"));
        }
        Ok(state)
    }

    /// After a size line.
    fn chunk(&mut self, received: usize) -> Result<State, Refused> {
        self.extension = 0;
        if self.left > (self.max - received.min(self.max)) as u64 {
            return Err(too_large(self.max));
        }
        Ok(if self.left == 0 { State::Trailers } else { State::Data })
    }

    fn trailer(&mut self, byte: u8) -> Result<bool, Refused> {
        self.trailers.push(byte);
        if self.scan.push(byte)? != Scanned::End {
            return Ok(false);
        }
        head::check_trailers(&self.trailers)?;
        Ok(true)
    }
}

/// 413.
pub fn too_large(max: usize) -> Refused {
    Refused::new(413, format!("the body is over {max} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(input: &[u8]) -> Result<(usize, bool, Vec<u8>), u16> {
        let mut body = Vec::new();
        let (used, done) = Decoder::new(64).decode(input, &mut body).map_err(|e| e.status)?;
        Ok((used, done, body))
    }

    #[test]
    fn good_bodies() {
        assert_eq!(all(b"3\r\nabc\r\n0\r\n\r\nX"), Ok((13, true, b"abc".to_vec())));
        assert_eq!(all(b"1;a=b;c\r\nx\r\n00\r\nT: v\r\n\r\n"), Ok((24, true, b"x".to_vec())));
        assert_eq!(all(b"1;c;a=b\r\nx\r\n0\r\n\r\n"), Ok((17, true, b"x".to_vec())));
        assert_eq!(all(b"A\r\n01234"), Ok((8, false, b"01234".to_vec())));
    }

    #[test]
    fn bad_bodies() {
        for bad in [
            "\r\n",
            "g\r\n",
            "+1\r\nx",
            "0x1\r\n",
            "-1\r\n",
            " 1\r\n",
            "1 \r\n",
            "1\nx",
            "1;\r\n",
            "1;=a\r\n",
            "1; a\r\n",
            "1;a=\r\n",
            "1;a;\r\n",
            "1;a=b=c\r\n",
            "1;a=\"b\"\r\n",
            "1\r\nxy",
            "1\r\nx\nx",
            "1\r\nx\r\r",
            "1\rx",
            "0000000000000001\r\n",
            "ffffffffffffffff\r\n",
            "0\r\nbad trailer\r\n\r\n",
            "0\r\nContent-Length: 1\r\n\r\n",
            "0\r\n\n",
            "1;a\nx",
            "1_0\r\n",
        ] {
            assert_eq!(all(bad.as_bytes()), Err(400), "{bad:?}");
        }
        assert_eq!(all(b"fffffffffffffff\r\n"), Err(413));
        assert_eq!(all(b"41\r\n"), Err(413));
        assert_eq!(all(format!("1;{}\r\n", "a".repeat(256)).as_bytes()), Err(400));
        assert!(all(format!("1;{}\r\n", "a".repeat(255)).as_bytes()).is_ok());
        let sizes = |a: usize, b: usize| {
            let (x, y) = ("x".repeat(a), "y".repeat(b));
            all(format!("{a:x}\r\n{x}\r\n{b:x}\r\n{y}\r\n0\r\n\r\n").as_bytes())
                .map(|all| all.2.len())
        };
        assert_eq!(sizes(40, 24), Ok(64), "as much as is allowed");
        assert_eq!(sizes(40, 25), Err(413));
        // The limit is that of one chunk.
        let chunk = format!("1;{}\r\nx\r\n", "a".repeat(255));
        assert!(all(format!("{chunk}{chunk}0\r\n\r\n").as_bytes()).is_ok_and(|all| all.1));
    }
}
