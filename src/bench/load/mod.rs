//! The load client: sends requests by a schedule and records what comes back, when.
//!
//! Pure, bytes or numbers in, facts out:
//! - [`head`], [`body`], [`sse`]: an HTTP/1.1 response taken apart as it arrives.
//! - [`protocol`]: what each API's events mean. - [`exchange`]: one answer, whole.
//! - [`record`]: what is known of a request afterwards. - [`arrivals`]: the schedule.
//!
//! With sockets: [`target`] a server's address, [`plain`] single requests, [`client`] the loop
//! over many ([`conn`] a connection, [`timer`] its clock).

pub mod arrivals;
pub mod body;
pub mod client;
mod conn;
pub mod exchange;
pub mod head;
pub mod plain;
pub mod protocol;
pub mod record;
pub mod sse;
pub mod target;
pub mod timer;
