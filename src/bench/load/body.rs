//! The body of an HTTP/1.1 response as it arrives in pieces: fixed length, chunked, or until the
//! server closes. Pure; nothing is copied.

use super::head::{Framing, sample};

/// Chunk-size and trailer lines together are no longer.
const MAX_LINE: usize = 16 << 10;

/// Where in a body the reader stands.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Data(u64),
    UntilClose,
    SizeLine(Vec<u8>),
    ChunkData(u64),
    /// The line end after a chunk's data; `true`: the carriage return was seen.
    ChunkEnd(bool),
    /// Trailer lines; bytes of the current line, bytes of all.
    Trailer(usize, usize),
    Done,
}

/// Takes a body apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    state: State,
}

/// What was found at the start of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Content, possibly empty.
    pub data: &'a [u8],
    /// How much of the input it took.
    pub used: usize,
}

impl Body {
    pub fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::Empty | Framing::Length(0) => State::Done,
            Framing::Length(n) => State::Data(n),
            Framing::Chunked => State::SizeLine(Vec::new()),
            Framing::Close => State::UntilClose,
        };
        Body { state }
    }

    pub fn done(&self) -> bool {
        self.state == State::Done
    }

    /// Takes the next piece off `input`; called until the input is used up or the body is done.
    ///
    /// # Errors
    /// A chunk size that is no number, or a chunk without its line end.
    pub fn next<'a>(&mut self, input: &'a [u8]) -> Result<Piece<'a>, String> {
        match &mut self.state {
            State::Done => Ok(Piece { data: &[], used: 0 }),
            State::UntilClose => Ok(Piece { data: input, used: input.len() }),
            State::Data(left) => {
                let (piece, rest) = take(input, *left);
                self.state = if rest == 0 { State::Done } else { State::Data(rest) };
                Ok(piece)
            }
            State::ChunkData(left) => {
                let (piece, rest) = take(input, *left);
                self.state =
                    if rest == 0 { State::ChunkEnd(false) } else { State::ChunkData(rest) };
                Ok(piece)
            }
            State::SizeLine(line) => {
                let end = input.iter().position(|&b| b == b'\n');
                let used = end.map_or(input.len(), |e| e + 1);
                line.extend_from_slice(&input[..used.min(MAX_LINE + 1)]);
                if line.len() > MAX_LINE {
                    return Err("a chunk-size line that does not end".into());
                }
                if end.is_some() {
                    self.state = match chunk_size(line)? {
                        0 => State::Trailer(0, 0),
                        n => State::ChunkData(n),
                    };
                }
                Ok(Piece { data: &[], used })
            }
            State::ChunkEnd(returned) => {
                match input.first() {
                    Some(b'\r') if !*returned => self.state = State::ChunkEnd(true),
                    Some(b'\n') => self.state = State::SizeLine(Vec::new()),
                    Some(_) => return Err("a chunk longer than its size".into()),
                    None => return Ok(Piece { data: &[], used: 0 }),
                }
                Ok(Piece { data: &[], used: 1 })
            }
            State::Trailer(..) => self.trailer(input),
        }
    }

    fn trailer<'a>(&mut self, input: &'a [u8]) -> Result<Piece<'a>, String> {
        let State::Trailer(mut line, mut all) = self.state else {
            return Ok(Piece { data: &[], used: 0 });
        };
        for (i, &byte) in input.iter().enumerate() {
            all += 1;
            match byte {
                b'\n' if line == 0 => {
                    self.state = State::Done;
                    return Ok(Piece { data: &[], used: i + 1 });
                }
                b'\n' => line = 0,
                b'\r' => {}
                _ => line += 1,
            }
            if all > MAX_LINE {
                return Err("trailers that do not end".into());
            }
        }
        self.state = State::Trailer(line, all);
        Ok(Piece { data: &[], used: input.len() })
    }

    /// The server closed. Fine only where that is how the body ends.
    pub fn closed(&mut self) -> Result<(), String> {
        match self.state {
            State::UntilClose | State::Done => {
                self.state = State::Done;
                Ok(())
            }
            State::Data(left) => Err(format!("closed with {left} bytes of the body missing")),
            _ => Err("closed in the middle of a chunked body".into()),
        }
    }
}

fn take(input: &[u8], left: u64) -> (Piece<'_>, u64) {
    let n = input.len().min(usize::try_from(left).unwrap_or(usize::MAX));
    (Piece { data: &input[..n], used: n }, left - n as u64)
}

/// `1a3;extension` as a number.
fn chunk_size(line: &[u8]) -> Result<u64, String> {
    let text = std::str::from_utf8(line).unwrap_or("");
    let digits = text.split(';').next().unwrap_or("").trim();
    let plain = digits.bytes().all(|b| b.is_ascii_hexdigit());
    let size = if plain { u64::from_str_radix(digits, 16).ok() } else { None };
    size.ok_or_else(|| format!("a chunk size that is no number: {}", sample(line)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `input` in pieces of `step` bytes; content, leftover, state.
    fn read(framing: Framing, input: &[u8], step: usize) -> Result<(Vec<u8>, usize, Body), String> {
        let mut body = Body::new(framing);
        let (mut content, mut left) = (Vec::new(), input.len());
        for part in input.chunks(step) {
            let mut part = part;
            while !part.is_empty() && !body.done() {
                let piece = body.next(part)?;
                content.extend_from_slice(piece.data);
                part = &part[piece.used..];
                left -= piece.used;
            }
        }
        Ok((content, left, body))
    }

    #[test]
    fn chunked_in_pieces_of_any_size() {
        let input = b"5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\nTrailer: x\r\n\r\nNEXT";
        for step in 1..input.len() {
            let (content, left, body) = read(Framing::Chunked, input, step).unwrap();
            assert_eq!((content.as_slice(), left), (b"hello world".as_slice(), 4), "{step}");
            assert!(body.done());
        }
    }

    #[test]
    fn lengths_and_closing() {
        let (content, left, body) = read(Framing::Length(3), b"abcde", 2).unwrap();
        assert_eq!((content.as_slice(), left, body.done()), (b"abc".as_slice(), 2, true));
        let (_, _, mut body) = read(Framing::Length(9), b"abc", 2).unwrap();
        assert!(body.closed().unwrap_err().contains("6 bytes"));
        let (content, _, mut body) = read(Framing::Close, b"abc", 2).unwrap();
        assert!(body.closed().is_ok() && content == b"abc");
        let (_, _, mut body) = read(Framing::Chunked, b"5\r\nhel", 2).unwrap();
        assert!(body.closed().is_err());
        assert!(Body::new(Framing::Length(0)).done() && Body::new(Framing::Empty).done());
    }

    #[test]
    fn damage_is_said() {
        for bad in [&b"xyz\r\n"[..], b"-5\r\n", b"\r\n", b"3\r\nabcd\r\n", b"fffffffffffffffff\r\n"]
        {
            assert!(read(Framing::Chunked, bad, 64).is_err(), "{bad:?}");
        }
        let endless = vec![b'1'; MAX_LINE + 2];
        assert!(read(Framing::Chunked, &endless, 4096).is_err());
        let trailers = [b"0\r\n".as_slice(), &b"A: b\r\n".repeat(4000)].concat();
        assert!(read(Framing::Chunked, &trailers, 4096).is_err());
    }
}
