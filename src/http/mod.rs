//! HTTP/1.1 over bytes: no socket, no clock, no engine. The same code runs in the server, in unit
//! tests at every split of the input, and under a fuzzer.
//!
//! - [`connection`]: bytes in, requests out. [`scan`], [`head`], [`target`], [`framing`],
//!   [`chunked`] are its parts.
//! - [`response`]: what goes out, whole or as a stream of server-sent events.
//! - [`api`]: the JSON of the routes, read with every number in its range.
//!
//! Stricter than RFC 9112 wherever two readers of one message could disagree: CRLF only, one
//! Content-Length of plain digits, Transfer-Encoding only as one `chunked`, never both, exactly one
//! Host. After any error the connection is closed.

pub mod api;
pub mod chunked;
pub mod connection;
pub mod framing;
pub mod fuzz;
pub mod head;
pub mod limits;
pub mod refused;
pub mod response;
pub mod scan;
pub mod target;

pub use connection::{Connection, Event};
pub use head::Head;
pub use limits::Limits;
pub use refused::Refused;
pub use response::{Exchange, Response};
