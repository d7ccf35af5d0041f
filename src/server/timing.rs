//! The way of a request to its first token, as stamps of one clock, for a client that asks for it
//! (`X-Pacer-Timing: 1`): one event before `[DONE]`, which no other client ever sees.

use std::sync::OnceLock;

use serde_json::{Value, json};

use super::generate::{Generation, Made};
use crate::profile::clock::{self, Base};

/// Asks for the event.
pub const HEADER: &str = "x-pacer-timing";

/// When what happened, nanoseconds of `CLOCK_MONOTONIC`; 0 where it did not, or is not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timing {
    pub wanted: bool,
    /// The connection was taken; 0 if an earlier request had used it.
    pub accepted_ns: u64,
    /// The request's first bytes and its last were read.
    pub first_byte_ns: u64,
    pub received_ns: u64,
    pub made: Made,
    /// It was handed to the engine.
    pub submitted_ns: u64,
    /// News of its first token were taken from the engine, made an event, and written.
    pub taken_ns: u64,
    pub told_ns: u64,
    pub written_ns: u64,
}

impl Timing {
    /// Whether they are to be told and the first news have not been written.
    pub fn waits_for_write(&self) -> bool {
        self.wanted && self.written_ns == 0
    }

    /// The first news were written now, if that is still to be said.
    pub fn written(&mut self) {
        if self.told_ns > 0 && self.written_ns == 0 {
            self.written_ns = clock::now_ns();
        }
    }
}

/// The event of a generation: stamps in their order, of its first prompt's first choice.
pub fn event(generation: &Generation) -> Value {
    static BOOT: OnceLock<String> = OnceLock::new();
    let t = &generation.timing;
    let first = generation.running.first().and_then(|r| r.choices.first());
    let way = first.and_then(|c| c.started).map(|s| s.way).unwrap_or_default();
    let stamps = json!({
        "accepted": t.accepted_ns,
        "first_byte": t.first_byte_ns,
        "received": t.received_ns,
        "worker": t.made.begun_ns,
        "parsed": t.made.parsed_ns,
        "tokenised": t.made.tokenised_ns,
        "submitted": t.submitted_ns,
        "begun": way.begun_ns,
        "computed": way.computed_ns,
        "sampled": way.picked_ns,
        "detokenised": way.settled_ns,
        "taken": t.taken_ns,
        "formatted": t.told_ns,
        "written": t.written_ns,
    });
    json!({"pacer_timing": {
        "boot": BOOT.get_or_init(|| Base::read().boot),
        "prefill_steps": way.steps,
        "stamps_ns": stamps,
    }})
}
