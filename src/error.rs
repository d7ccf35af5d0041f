//! One error type: what was read, where, what was found, and what to do about it.

use std::fmt;

/// What went wrong, in the classes that decide the exit code and the HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A flag or argument is unknown, malformed or out of range. Exit 2, HTTP 400.
    Usage,
    /// A file (model, tokenizer, data set) is missing, damaged or inconsistent. Exit 1.
    File,
    /// The model, type or feature is not supported. Exit 1, HTTP 400.
    Unsupported,
    /// It is valid but can never fit: memory, context, cache. Exit 1, HTTP 400.
    Limit,
    /// It may be taken later: a queue is full. Exit 1, HTTP 429.
    Busy,
    /// Nothing is taken any more: starting, draining or faulted. Exit 1, HTTP 503.
    Unavailable,
    /// The device failed and may be used again (a launch was refused, memory ran out).
    Device,
    /// The device failed for good: nothing more may be run on it (reliability R31).
    DeviceLost,
    /// The operating system refused something. Exit 1.
    Io,
    /// A regression was found (`compare --fail-over`). Exit 3.
    Regression,
    /// A measurement is not valid (`--strict`). Exit 4.
    Invalid,
    /// The user pressed Ctrl-C; partial results were written. Exit 130.
    Interrupted,
}

/// An error with its class and one sentence for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    pub kind: Kind,
    pub message: String,
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Error { kind, message: message.into() }
    }

    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// A fault in a file: `what` says where in it, what was found and what was expected.
    pub fn file(path: impl AsRef<std::path::Path>, what: impl fmt::Display) -> Self {
        Self::new(Kind::File, format!("{}: {what}", path.as_ref().display()))
    }

    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(Kind::Unsupported, message)
    }

    pub fn limit(message: impl Into<String>) -> Self {
        Self::new(Kind::Limit, message)
    }

    pub fn busy(message: impl Into<String>) -> Self {
        Self::new(Kind::Busy, message)
    }

    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Kind::Unavailable, message)
    }

    pub fn device(message: impl Into<String>) -> Self {
        Self::new(Kind::Device, message)
    }

    /// An operating-system error on `path`.
    pub fn io(path: impl AsRef<std::path::Path>, error: &std::io::Error) -> Self {
        Self::new(Kind::Io, format!("{}: {error}", path.as_ref().display()))
    }

    /// Puts where it happened in front: `layer 3: …`.
    pub fn context(mut self, place: impl fmt::Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    /// The process exit code of contract.md §6.
    pub fn exit_code(&self) -> u8 {
        match self.kind {
            Kind::Usage => 2,
            Kind::Regression => 3,
            Kind::Invalid => 4,
            Kind::Interrupted => 130,
            _ => 1,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
