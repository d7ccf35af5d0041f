//! One request's answer, from the first byte to the last: head, body, events, record. Pure: it is
//! fed bytes with their time, and told when the server closed.

use super::body::Body;
use super::head::{self, Framing, Head, Parsed};
use super::protocol::{Api, Reader};
use super::record::{Failure, Reason, Record};
use super::sse::{Events, TooLong};

/// An answer that is not streamed is no longer.
const MAX_WHOLE: usize = 64 << 20;
/// Of the body of an error, so much is kept for the message.
const MAX_ERROR: usize = 4 << 10;

impl From<TooLong> for Failure {
    fn from(_: TooLong) -> Self {
        let limit = super::sse::MAX_EVENT;
        Failure::new(Reason::TooLarge, format!("an event or line of more than {limit} bytes"))
    }
}

/// How far an answer has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Receiving,
    /// `[DONE]` came: the request is over, the body's end is still to come.
    Answered,
    /// The body ended.
    Ended {
        keep_alive: bool,
    },
}

/// An answer being read.
#[derive(Debug)]
pub struct Exchange {
    head_bytes: Vec<u8>,
    head: Option<Head>,
    body: Body,
    events: Events,
    whole: Vec<u8>,
    reader: Reader,
    pub record: Record,
}

impl Exchange {
    pub fn new(api: Api, keep_text: bool, record: Record) -> Self {
        Exchange {
            head_bytes: Vec::new(),
            head: None,
            body: Body::new(Framing::Empty),
            events: Events::default(),
            whole: Vec::new(),
            reader: Reader::new(api, keep_text),
            record,
        }
    }

    /// Nothing of the answer came yet.
    pub fn untouched(&self) -> bool {
        self.head.is_none() && self.head_bytes.is_empty()
    }

    /// Takes bytes that were read at `at`.
    ///
    /// # Errors
    /// Why the request failed.
    pub fn receive(&mut self, bytes: &[u8], at: u64) -> Result<State, Failure> {
        if self.head.is_some() {
            return self.content(bytes, at);
        }
        self.head_bytes.extend_from_slice(bytes);
        match head::parse(&self.head_bytes) {
            Parsed::Incomplete => Ok(State::Receiving),
            Parsed::Bad(what) => Err(Failure::new(Reason::Malformed, what)),
            Parsed::Head(head, used) => {
                self.body = Body::new(head.framing);
                self.head = Some(head);
                let bytes = std::mem::take(&mut self.head_bytes);
                self.content(&bytes[used..], at)
            }
        }
    }

    fn content(&mut self, bytes: &[u8], at: u64) -> Result<State, Failure> {
        let mut rest = bytes;
        while !rest.is_empty() && !self.body.done() {
            let piece =
                self.body.next(rest).map_err(|what| Failure::new(Reason::Malformed, what))?;
            rest = &rest[piece.used..];
            self.keep(piece.data, at)?;
        }
        if self.body.done() {
            self.end(at)?;
            let keep_alive = self.head.as_ref().is_some_and(|h| h.keep_alive) && rest.is_empty();
            return Ok(State::Ended { keep_alive });
        }
        Ok(if self.reader.done() { State::Answered } else { State::Receiving })
    }

    fn keep(&mut self, data: &[u8], at: u64) -> Result<(), Failure> {
        let Some(head) = &self.head else { return Ok(()) };
        if head.status != 200 {
            let room = MAX_ERROR.saturating_sub(self.whole.len()).min(data.len());
            self.whole.extend_from_slice(&data[..room]);
            return Ok(());
        }
        if head.events {
            let (reader, record) = (&mut self.reader, &mut self.record);
            return self.events.push(data, &mut |event| reader.event(event, at, record));
        }
        if self.whole.len() + data.len() > MAX_WHOLE {
            let message = format!("an answer of more than {MAX_WHOLE} bytes");
            return Err(Failure::new(Reason::TooLarge, message));
        }
        self.whole.extend_from_slice(data);
        Ok(())
    }

    fn end(&mut self, at: u64) -> Result<(), Failure> {
        let Some(head) = &self.head else { return Ok(()) };
        if head.status != 200 {
            return Err(self.refused(head.status));
        }
        let (reader, record) = (&mut self.reader, &mut self.record);
        if head.events {
            self.events.finish(&mut |event| reader.event(event, at, record))?;
        } else if !reader.done() {
            reader.whole(&self.whole, at, record)?;
        }
        self.reader.finish(&self.record)
    }

    fn refused(&self, status: u16) -> Failure {
        Failure::new(Reason::Status(status), head::sample(&self.whole))
    }

    /// The server closed at `at`.
    pub fn closed(&mut self, at: u64) -> Result<(), Failure> {
        let Some(head) = &self.head else {
            let sent =
                if self.untouched() { "before an answer" } else { "in the middle of a head" };
            return Err(Failure::new(Reason::Closed, format!("closed {sent}")));
        };
        if head.status != 200 {
            return Err(self.refused(head.status));
        }
        self.body.closed().map_err(|what| Failure::new(Reason::Closed, what))?;
        self.end(at)
    }

    /// The request's time is up.
    pub fn expired(&self, seconds: f64) -> Failure {
        match &self.head {
            Some(head) if head.status != 200 => self.refused(head.status),
            Some(_) => {
                let tokens = self.record.streamed_tokens();
                let detail = format!("no end after {seconds} s and {tokens} tokens");
                Failure::new(Reason::Timeout, detail)
            }
            None => Failure::new(Reason::Timeout, format!("no answer after {seconds} s")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                        Transfer-Encoding: chunked\r\n\r\n";

    fn chunk(event: &str) -> String {
        let data = format!("data: {event}\n\n");
        format!("{:x}\r\n{data}\r\n", data.len())
    }

    fn exchange(api: Api) -> Exchange {
        Exchange::new(api, false, Record::default())
    }

    #[test]
    fn a_stream_byte_by_byte() {
        let token = chunk(r#"{"choices":[{"text":"x"}]}"#);
        let answer = format!("{HEAD}{token}{token}{}0\r\n\r\n", chunk("[DONE]"));
        let mut e = exchange(Api::Completions);
        let mut states = Vec::new();
        for (i, byte) in answer.bytes().enumerate() {
            states.push(e.receive(&[byte], i as u64).unwrap());
        }
        assert_eq!(states.last(), Some(&State::Ended { keep_alive: true }));
        assert!(states.contains(&State::Answered));
        assert_eq!(e.record.chunks.len(), 2);
        let done = answer.find("[DONE]").unwrap() as u64 + 7;
        assert_eq!(e.record.end, done, "[DONE] ends it, not the last chunk of the body");
    }

    #[test]
    fn errors_keep_status_and_text() {
        let mut e = exchange(Api::Chat);
        let answer = "HTTP/1.1 503 X\r\nContent-Length: 9\r\n\r\nqueue ful";
        let failure = e.receive(answer.as_bytes(), 1).unwrap_err();
        assert_eq!(failure, Failure::new(Reason::Status(503), "queue ful"));
        let mut e = exchange(Api::Chat);
        e.receive(b"HTTP/1.1 500 X\r\nContent-Length: 9\r\n\r\nqueue", 1).unwrap();
        assert_eq!(e.expired(2.0).reason, Reason::Status(500));
        assert_eq!(e.closed(2).unwrap_err().reason, Reason::Status(500));
    }

    #[test]
    fn closing_counts_only_where_it_ends_the_body() {
        let mut e = exchange(Api::Completions);
        assert_eq!(e.closed(1).unwrap_err().reason, Reason::Closed);
        let mut e = exchange(Api::Completions);
        e.receive(HEAD.as_bytes(), 1).unwrap();
        e.receive(b"40\r\ndata: {\"choices\"", 2).unwrap();
        assert_eq!(e.closed(3).unwrap_err().reason, Reason::Closed);
        let mut e = exchange(Api::Completions);
        let close = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
        let answer = format!("{close}data: {{\"choices\":[{{\"text\":\"x\"}}]}}\n\n");
        e.receive(answer.as_bytes(), 1).unwrap();
        assert_eq!(e.closed(3).unwrap_err().reason, Reason::Closed, "neither [DONE] nor reason");
        let mut e = exchange(Api::Completions);
        e.receive(answer.as_bytes(), 1).unwrap();
        e.receive(b"data: [DONE]\n\n", 4).unwrap();
        assert_eq!(e.closed(5), Ok(()));
    }

    #[test]
    fn a_plain_answer() {
        let mut e = exchange(Api::Generate);
        let body = r#"{"text":"a","meta_info":{"prompt_tokens":1,"completion_tokens":2,"finish_reason":{"type":"length"}}}"#;
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        assert_eq!(e.receive(answer.as_bytes(), 7), Ok(State::Ended { keep_alive: true }));
        assert_eq!((e.record.output_tokens(), e.record.first()), (2, Some(7)));
    }
}
