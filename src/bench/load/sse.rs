//! Server-sent events (WHATWG HTML, section 9.2) as they arrive in pieces: bytes in, the data of
//! each event out. An event that lies whole in one piece is not copied.

/// An event's data is no longer: no server of tokens sends more, and a client that believed a
/// broken one would run out of memory.
pub const MAX_EVENT: usize = 32 << 20;

/// Splits a stream into events.
#[derive(Debug, Default)]
pub struct Events {
    /// A line that has not ended.
    line: Vec<u8>,
    /// Data lines of the current event, joined with line feeds.
    data: Vec<u8>,
    has_data: bool,
}

/// An event or a line longer than [`MAX_EVENT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong;

impl Events {
    /// Calls `event` with the data of each event that ends in `bytes`; events without data, such
    /// as comments that keep a connection alive, are passed over.
    pub fn push<E: From<TooLong>>(
        &mut self,
        bytes: &[u8],
        event: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut rest = bytes;
        while let Some(end) = memchr(rest) {
            let (line, after) = (&rest[..end], &rest[end + 1..]);
            rest = after;
            if self.line.is_empty() {
                // The usual case: one data line, then an empty one, both here.
                let whole = !self.has_data && blank(after);
                match data(trim(line)) {
                    Some(data) if whole => event(data)?,
                    _ => self.line(line, event)?,
                }
            } else {
                let mut joined = std::mem::take(&mut self.line);
                joined.extend_from_slice(line);
                self.line(&joined, event)?;
            }
        }
        if self.line.len() + rest.len() > MAX_EVENT {
            return Err(TooLong.into());
        }
        self.line.extend_from_slice(rest);
        Ok(())
    }

    /// The stream ended: an event that only lacks its empty line still counts.
    pub fn finish<E: From<TooLong>>(
        &mut self,
        event: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let line = std::mem::take(&mut self.line);
        self.line(&line, event)?;
        self.line(b"", event)
    }

    fn line<E: From<TooLong>>(
        &mut self,
        line: &[u8],
        event: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let line = trim(line);
        if let Some(data) = data(line) {
            if self.data.len() + data.len() > MAX_EVENT {
                return Err(TooLong.into());
            }
            if self.has_data {
                self.data.push(b'\n');
            }
            self.data.extend_from_slice(data);
            self.has_data = true;
        } else if line.is_empty() && self.has_data {
            let data = std::mem::take(&mut self.data);
            self.has_data = false;
            return event(&data);
        }
        Ok(())
    }
}

fn memchr(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|&b| b == b'\n')
}

fn trim(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// An empty line comes next.
fn blank(after: &[u8]) -> bool {
    after.starts_with(b"\n") || after.starts_with(b"\r\n")
}

/// The value of a `data` field.
fn data(line: &[u8]) -> Option<&[u8]> {
    let value = line.strip_prefix(b"data:")?;
    Some(value.strip_prefix(b" ").unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(input: &[u8], step: usize) -> Vec<String> {
        let mut events = Events::default();
        let mut found = Vec::new();
        let mut keep = |data: &[u8]| -> Result<(), TooLong> {
            found.push(String::from_utf8_lossy(data).into_owned());
            Ok(())
        };
        for part in input.chunks(step) {
            events.push(part, &mut keep).unwrap();
        }
        events.finish(&mut keep).unwrap();
        found
    }

    #[test]
    fn pieces_of_any_size() {
        let input = b": ping\n\ndata: {\"a\":1}\n\ndata:two\r\n\r\nevent: x\ndata: a\ndata: b\n\n\
                      id: 7\n\ndata: [DONE]\n\n";
        for step in 1..=input.len() {
            let want = ["{\"a\":1}", "two", "a\nb", "[DONE]"];
            assert_eq!(read(input, step), want, "step {step}");
        }
    }

    #[test]
    fn a_last_event_without_empty_line_counts() {
        assert_eq!(read(b"data: a\n\ndata: b", 3), ["a", "b"]);
        assert!(read(b"garbage\x00\xff\n\nmore", 2).is_empty());
    }

    #[test]
    fn endless_lines_are_cut_off() {
        let mut events = Events::default();
        let block = vec![b'x'; 1 << 20];
        let mut pushed = 0;
        let mut none = |_: &[u8]| -> Result<(), TooLong> { Ok(()) };
        while events.push(&block, &mut none).is_ok() {
            pushed += 1;
            assert!(pushed <= MAX_EVENT >> 20);
        }
        assert_eq!(pushed, MAX_EVENT >> 20);
        // The same as many data lines of one event.
        let mut events = Events::default();
        let line = [b"data: ".as_slice(), &block, b"\n"].concat();
        let cut = (0..64).any(|_| events.push(&line, &mut none).is_err());
        assert!(cut);
    }
}
