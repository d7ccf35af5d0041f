//! How large things may be. Nothing is allocated before its bytes are there.

/// Limits of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the request line.
    pub line: usize,
    /// Bytes of request line and header fields.
    pub head: usize,
    /// Header fields.
    pub fields: usize,
    /// Bytes of a decoded body.
    pub body: usize,
    /// Bytes that may wait while an answer is being made (pipelined requests).
    pub ahead: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { line: 8 << 10, head: 32 << 10, fields: 100, body: 32 << 20, ahead: 64 << 10 }
    }
}

/// Bytes of the extensions of one chunk.
pub const CHUNK_EXTENSION: usize = 256;
/// Bytes and fields of a trailer section.
pub const TRAILERS: usize = 4 << 10;
pub const TRAILER_FIELDS: usize = 32;
