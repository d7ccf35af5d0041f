//! One step out of the flight recorder, as a file that can be replayed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::json;

use super::output::write_json;
use super::{Answer, Profiler, Reply, Shared, Source, lock, time_id};
use crate::error::{Error, Kind, Result};
use crate::profile::clock;
use crate::profile::describe::layers_as_star;
use crate::profile::record::{Event, Record, Stage};
use crate::profile::request::ProfileRequest;
use crate::profile::step::{OpTotal, Sequence, StepFile};

/// Which step is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The one that took longest of those that began at this time or later.
    SlowestSince(u64),
    /// The one of that number.
    Number(u64),
}

/// A step as the ring tells it.
#[derive(Debug, Clone, Default)]
struct Seen {
    number: u32,
    stage: u16,
    begun_ns: u64,
    ended_ns: u64,
    forward_ns: u64,
    sequences: Vec<Sequence>,
    ops: BTreeMap<u32, u64>,
}

impl Seen {
    fn took(&self) -> u64 {
        self.ended_ns.saturating_sub(self.begun_ns)
    }
}

impl Profiler {
    /// Saves one step of those that the flight recorder still holds: `reply` gets 200 with the
    /// file, 404 if there is no such step.
    pub fn dump_step(&self, request: &ProfileRequest, which: Which, reply: Reply) {
        if self.shared.dumping.swap(true, Ordering::AcqRel) {
            return reply(self.conflict("the flight recorder is being written already"));
        }
        let outcome = save(&self.shared, request, which, "asked for");
        self.shared.dumping.store(false, Ordering::Release);
        reply(outcome.unwrap_or_else(|e| Answer::failed(&e)));
    }

    /// [`Profiler::dump_step`] for callers that may wait.
    pub fn dump_step_and_wait(&self, request: &ProfileRequest, which: Which) -> Answer {
        super::waited(|reply| self.dump_step(request, which, reply))
    }
}

/// Finds the step and writes its file.
pub(super) fn save(
    shared: &Arc<Shared>,
    request: &ProfileRequest,
    which: Which,
    why: &str,
) -> Result<Answer> {
    request.check()?;
    let folder = shared.roots.open(request.output_dir.as_deref())?;
    let sources = lock(&shared.rest).sources.clone();
    let engines = sources.into_iter().filter(|s| s.0 == Source::Engine);
    let best = engines.filter_map(|(_, ring)| find(ring.from(0).read_all(), which));
    let Some(seen) = best.max_by_key(Seen::took) else {
        let message = "no such step is in the flight recorder; run one and ask again";
        let mut answer = Answer::failed(&Error::new(Kind::Usage, message));
        answer.status = 404;
        return Ok(answer);
    };
    let file = file(shared, &seen, why);
    let id = request.id.clone().unwrap_or_else(time_id);
    let prefix = request.prefix.as_ref().map_or(String::new(), |p| format!("{p}-"));
    let ranks = shared.options.ranks.suffix();
    let name = format!("{prefix}{id}-{ranks}-STEP-{}.step.json", file.step);
    if folder.has(&name) && !shared.options.replace {
        let path = folder.path_of(&name);
        let what = format!("{} is there already; choose another profile_id", path.display());
        return Err(Error::usage(what));
    }
    write_json(&folder, &name, &file.to_json())?;
    let path: PathBuf = folder.path_of(&name);
    Ok(Answer::new(
        200,
        json!({
            "profile_id": id,
            "files": [path.display().to_string()],
            "step": file.step,
            "stage": file.stage.name(),
            "seconds": file.seconds,
            "sequences": file.sequences.len(),
            "tokens": file.tokens(),
        }),
    ))
}

/// The wanted step, if its records are all there.
fn find(records: Vec<Record>, which: Which) -> Option<Seen> {
    let (mut now, mut best) = (Seen::default(), None::<Seen>);
    for r in records {
        match r.event {
            Event::Batch => {
                now = Seen { number: r.id, stage: r.extra, ..Seen::default() };
            }
            Event::Sequence => {
                let (past, new) = r.halves();
                let (past, new, logits) = (past as usize, new as usize, usize::from(r.extra));
                now.sequences.push(Sequence { past, new, logits });
            }
            Event::Op => {
                *now.ops.entry(r.id).or_default() += r.end_ns.saturating_sub(r.start_ns);
            }
            Event::Step => now.forward_ns = r.end_ns.saturating_sub(r.start_ns),
            Event::EngineStep => {
                let mut seen = std::mem::take(&mut now);
                (seen.begun_ns, seen.ended_ns) = (r.start_ns, r.end_ns);
                let whole = seen.number == r.id && seen.sequences.len() == r.halves().0 as usize;
                let wanted = match which {
                    Which::SlowestSince(from) => seen.begun_ns >= from,
                    Which::Number(number) => u64::from(seen.number) == number,
                };
                let slower = best.as_ref().is_none_or(|b| seen.took() > b.took());
                if whole && wanted && slower {
                    best = Some(seen);
                }
            }
            _ => {}
        }
    }
    best
}

fn file(shared: &Shared, seen: &Seen, why: &str) -> StepFile {
    let model = lock(&shared.rest).model.clone();
    let mut ops: BTreeMap<(String, String), OpTotal> = BTreeMap::new();
    let infos = model.as_ref().map_or(&[][..], |m| m.ops());
    for (index, ns) in &seen.ops {
        let Some(info) = infos.get(*index as usize) else { continue };
        let (op, module) = (info.name.clone(), layers_as_star(&info.scope));
        let new = || OpTotal { op: op.clone(), module: module.clone(), count: 0, seconds: 0.0 };
        let total = ops.entry((op.clone(), module.clone())).or_insert_with(new);
        total.count += 1;
        total.seconds += *ns as f64 * 1e-9;
    }
    let mut ops: Vec<OpTotal> = ops.into_values().collect();
    ops.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    StepFile {
        step: u64::from(seen.number),
        stage: Stage::of(seen.stage),
        seconds: seen.took() as f64 * 1e-9,
        forward: seen.forward_ns as f64 * 1e-9,
        sequences: seen.sequences.clone(),
        ops,
        device: model.map_or(String::new(), |m| m.device().to_owned()),
        why: why.to_owned(),
    }
}

/// The beginning of the last `seconds`.
///
/// # Errors
/// Seconds out of range.
pub fn since(seconds: f64) -> Result<u64> {
    if !(seconds > 0.0 && seconds <= 86_400.0) {
        return Err(Error::usage("last_s: expected seconds above 0 and up to 86400"));
    }
    Ok(clock::now_ns().saturating_sub((seconds * 1e9) as u64))
}
