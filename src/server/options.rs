//! What an operator sets.

use std::time::Duration;

use super::auth::Keys;
use crate::http::Limits;
use crate::profile::describe::Ceiling;
use crate::profile::profiler::Profiler;

/// Settings of a server.
#[derive(Debug, Clone)]
pub struct Options {
    pub host: String,
    /// 0: any free port.
    pub port: u16,
    pub keys: Keys,
    /// The name in answers and in `/v1/models`; `None`: the model's path.
    pub served_name: Option<String>,
    pub limits: Limits,
    pub deadlines: Deadlines,
    /// Connections beyond this get a ready-made 503.
    pub max_connections: usize,
    /// What runs may finish for so long after a signal to stop.
    pub shutdown_timeout: Duration,
    /// Without a step for so long, while there is work, the server is not healthy.
    pub watchdog: Duration,
    /// Threads for parsing, templates and tokenising.
    pub workers: usize,
    /// One line a request on standard error.
    pub log_requests: bool,
    /// Records timelines; without one the profile routes answer 503.
    pub profiler: Option<Profiler>,
    /// What the device reaches at most, for the tables of a profile.
    pub ceiling: Option<Ceiling>,
    /// What `/server_info` says of the settings; no secret is in it.
    pub public: serde_json::Map<String, serde_json::Value>,
}

/// How long a connection may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// Without a request.
    pub idle: Duration,
    /// From the first byte of a head to its last.
    pub head: Duration,
    /// Of a body, before [`BODY_RATE`] is asked for.
    pub body: Duration,
    /// Without the client taking anything of what waits for it.
    pub write: Duration,
}

/// Bytes a second that a body must come with, once its grace is over.
pub const BODY_RATE: u64 = 1024;
/// After an error, unread bytes are still taken for so long, so that the answer arrives.
pub const LINGER: Duration = Duration::from_secs(1);
/// Bytes waiting for one client beyond which nothing more is made for it.
pub const HIGH_WATER: usize = 64 << 10;

impl Default for Deadlines {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Deadlines { idle: seconds(75), head: seconds(10), body: seconds(10), write: seconds(30) }
    }
}

impl Default for Options {
    fn default() -> Self {
        Options {
            host: "127.0.0.1".into(),
            port: 30_000,
            keys: Keys::default(),
            served_name: None,
            limits: Limits::default(),
            deadlines: Deadlines::default(),
            max_connections: 16_384,
            shutdown_timeout: Duration::from_secs(30),
            watchdog: Duration::from_secs(30),
            workers: 2,
            log_requests: false,
            profiler: None,
            ceiling: None,
            public: serde_json::Map::new(),
        }
    }
}
