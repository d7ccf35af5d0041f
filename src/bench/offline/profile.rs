//! `--profile`: one more run of the data set with a capture around it. No figure includes it.

use std::sync::Arc;

use serde_json::Value;

use super::engine::EngineSubject;
use crate::error::{Error, Kind, Result};
use crate::profile::describe::Ceiling;
use crate::profile::profiler::{Answer, Options, Profiler, Source};
use crate::profile::request::ProfileRequest;

/// Records kept: several steps of a large model.
const RECORDS: usize = 1 << 18;

/// Captures what `work` makes the engine do, from its first step until `request` is satisfied or
/// the work is done. The answer names the files; none if not a step was captured.
///
/// # Errors
/// A request that cannot be begun, files that cannot be written, what `work` fails with.
pub fn capture(
    subject: &mut EngineSubject,
    (options, ceiling): (&Options, Option<Ceiling>),
    request: &ProfileRequest,
    work: &mut dyn FnMut(&mut EngineSubject) -> Result<()>,
) -> Result<Value> {
    let profiler = Profiler::new(options.clone())?;
    profiler.describe(Arc::new(subject.engine().described()), ceiling);
    let usual = subject.swap_recorder(profiler.recorder(Source::Engine, RECORDS));
    let outcome = well(profiler.start(request)).and_then(|_| work(subject));
    // Also after a failure nothing is left recording.
    let answer = profiler.stop_and_wait();
    drop(subject.swap_recorder(usual));
    outcome?;
    well(answer)
}

/// The body of an answer that is no failure. A window that has closed by itself is in `last`.
fn well(answer: Answer) -> Result<Value> {
    match answer.status {
        200 => Ok(answer.body),
        409 if answer.body["last"]["files"].is_array() => Ok(answer.body["last"].clone()),
        status => {
            let message = answer.body["error"]["message"].as_str().unwrap_or("no reason given");
            let kind = if status == 400 { Kind::Usage } else { Kind::Io };
            Err(Error::new(kind, format!("--profile: {message}")))
        }
    }
}
