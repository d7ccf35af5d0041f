//! The flight recorder: what the rings still hold, as a trace.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::json;

use super::output::{Heading, Output};
use super::pace::Pace;
use super::writer::{FORMATTING, step_aside};
use super::{Answer, Reply, Shared, Source, lock, time_id};
use crate::error::{Error, Kind, Result};
use crate::profile::clock::{self, Base};
use crate::profile::record::Event;
use crate::profile::request::ProfileRequest;
use crate::profile::trace::names::stem;

/// Writes on a thread of its own and replies from there.
pub fn spawn(shared: &Arc<Shared>, request: &ProfileRequest, seconds: f64, reply: Reply) {
    let (inner, request) = (Arc::clone(shared), request.clone());
    let now = clock::now_ns();
    let work = move || {
        step_aside(FORMATTING);
        let answer = write(&inner, &request, seconds, now);
        inner.dumping.store(false, Ordering::Release);
        reply(answer.unwrap_or_else(|e| Answer::failed(&e)));
    };
    let spawned = std::thread::Builder::new().name("pacer-dump".into()).spawn(work);
    if spawned.is_err() {
        // The reply went down with the closure; its receiver sees that it is gone.
        shared.dumping.store(false, Ordering::Release);
    }
}

fn write(shared: &Arc<Shared>, request: &ProfileRequest, seconds: f64, now: u64) -> Result<Answer> {
    if !(seconds > 0.0 && seconds <= 86_400.0) {
        return Err(Error::new(Kind::Usage, "last_s: expected seconds above 0 and up to 86400"));
    }
    request.check()?;
    let folder = Arc::new(shared.roots.open(request.output_dir.as_deref())?);
    let id = request.id.clone().unwrap_or_else(time_id);
    let from = now.saturating_sub((seconds * 1e9) as u64);
    let real = Base::read();
    // Times count from the beginning of what is shown.
    let base = Base {
        monotonic_ns: from,
        realtime_ns: real.realtime_ns.saturating_sub(real.monotonic_ns.saturating_sub(from)),
        boot: real.boot,
    };
    let options = &shared.options;
    let (label, ranks) = (options.label.clone(), options.ranks.suffix());
    let heading = Heading { base, label, ranks, stage: Some("FLIGHT"), gpu: None };
    let name = stem(request.prefix.as_deref(), &id, &options.ranks, Some("FLIGHT"));
    let setting = shared.setting(request);
    let limits = (options.cap_bytes, options.replace);
    let mut output = Output::create(&folder, name, limits, setting, &heading)?;
    let sources = lock(&shared.rest).sources.clone();
    for (source, ring) in sources {
        let mut cursor = ring.from(0);
        // The engine's first whole step: before it, ops have no step to belong to.
        let mut begun = source != Source::Engine;
        for record in cursor.read_all() {
            let shown = record.start_ns >= from && record.start_ns <= now;
            begun |= shown && record.event == Event::Batch;
            if shown && begun {
                output.push(&record)?;
            }
        }
        output.source_lost += cursor.lost;
    }
    let finished = output.finish(&options.label, &mut Pace::behind(shared))?;
    Ok(Answer::new(
        200,
        json!({
            "state": lock(&shared.control).status().phase.name(),
            "profile_id": id,
            "files": [finished.trace.display().to_string()],
            "details": [finished.json()],
            "table": finished.table,
        }),
    ))
}
