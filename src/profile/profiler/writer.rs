//! The thread of a capture: reads the rings and sorts records by file and time while it is on, and
//! writes the files once it is over.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::output::{Finished, Heading, Output};
use super::pace::Pace;
use super::{Answer, Shared, Source, captured, lock};
use crate::error::Result;
use crate::profile::clock::{self, Base};
use crate::profile::control::{FILES, Phase, Segment, Status};
use crate::profile::folder::Folder;
use crate::profile::gpu::{GpuSpan, Session, Times};
use crate::profile::merge;
use crate::profile::record::Record;
use crate::profile::request::ProfileRequest;
use crate::profile::ring::{Cursor, Ring};
use crate::profile::trace::names::stem;
use crate::profile::trace::rows::Setting;

/// A capture in progress.
pub struct Job {
    token: u64,
    id: String,
    label: String,
    cap: u64,
    outputs: [Option<Output>; FILES],
    done: Vec<Finished>,
    /// Where to merge the files of all ranks afterwards, if wanted of this rank.
    merge: Option<Arc<Folder>>,
    cursors: Vec<(Source, Arc<Ring>, Cursor)>,
    /// Segments with the rounds since they were handed out: records of a closed one may still
    /// come.
    segments: Vec<(u32, Segment)>,
    /// Records that others may still have to be put before.
    pending: Vec<(Source, Record)>,
    full: [bool; FILES],
    /// A ring was filled by more than an eighth between two looks at it.
    crowded: bool,
    stopping_since: Option<Instant>,
    records: Vec<Record>,
    /// What the GPU tells, and spans that the host's records have not caught up with.
    gpu: Option<Arc<Session>>,
    spans: Vec<GpuSpan>,
    /// Every segment so far: the GPU may tell late.
    past: VecDeque<Segment>,
    gpu_lost: (u64, u64),
    gpu_trouble: Option<String>,
}

/// How often rings are read, and how often if one fills up by more than an eighth meanwhile.
const POLL: Duration = Duration::from_millis(50);
const CROWDED_POLL: Duration = Duration::from_millis(5);
/// How much the thread steps aside (`nice`): while it copies, which must not come too late, and
/// while it formats, which may.
const COPYING: libc::c_int = 5;
pub(super) const FORMATTING: libc::c_int = 10;
/// A record may be in its ring so much later than the time it ended at.
const LATE_NS: u64 = 2_000_000;
/// Segments remembered for what a GPU tells late.
const SEGMENTS: usize = 1 << 16;
/// Rounds after which no record of a closed segment is waiting any more.
const OLD: u32 = 4;
/// A step that lasts longer than this after a stop is cut.
const PATIENCE: Duration = Duration::from_secs(2);

impl Job {
    pub fn new(
        shared: &Shared,
        request: &ProfileRequest,
        id: &str,
        (folder, gpu): (Arc<Folder>, Option<Arc<Session>>),
        status: &Status,
    ) -> Result<Job> {
        let options = &shared.options;
        let setting = shared.setting(request);
        let base = Base::read();
        let stages = request.wanted.by_stage;
        let mut outputs = [None, None];
        for (file, output) in outputs.iter_mut().enumerate() {
            let stage = stages.map(|_| ["EXTEND", "DECODE"][file]);
            if !stages.map_or(file == 0, |s| s[file]) || !request.activities.timeline() {
                continue;
            }
            let heading = Heading {
                base: base.clone(),
                label: options.label.clone(),
                ranks: options.ranks.suffix(),
                stage,
                gpu: gpu.as_ref().map(|g| g.times.clone()),
            };
            let named = || stem(request.prefix.as_deref(), id, &options.ranks, stage);
            let stem = request.stem.clone().unwrap_or_else(named);
            let limits = (options.cap_bytes, options.replace);
            *output = Some(Output::create(&folder, stem, limits, setting.clone(), &heading)?);
        }
        let sources = lock(&shared.rest).sources.clone();
        let cursors = sources.into_iter().map(|(source, ring)| {
            let cursor = ring.from_now();
            (source, ring, cursor)
        });
        Ok(Job {
            token: status.token,
            id: id.to_owned(),
            label: options.label.clone(),
            cap: options.cap_bytes,
            outputs,
            done: Vec::new(),
            merge: (request.merge && options.ranks.sort_index() == 0).then_some(folder),
            cursors: cursors.collect(),
            segments: Vec::new(),
            pending: Vec::new(),
            full: [false; FILES],
            crowded: false,
            stopping_since: None,
            records: Vec::new(),
            gpu,
            spans: Vec::new(),
            past: VecDeque::new(),
            gpu_lost: (0, 0),
            gpu_trouble: None,
        })
    }

    /// One look at the rings. True if all is kept that will ever be.
    fn round(&mut self, shared: &Shared) -> Result<bool> {
        let now = clock::now_ns();
        let ends: Vec<u64> = self.cursors.iter().map(|c| c.1.written()).collect();
        let (segments, full, status) = {
            // After the rings' ends, so that every segment of a record read below is known.
            let mut control = lock(&shared.control);
            let (segments, full) = control.segments(self.token);
            (segments, full, control.status())
        };
        if status.token != self.token {
            return Ok(true);
        }
        self.segments.retain_mut(|s| {
            s.0 += 1;
            s.0 < OLD && s.1.to_ns != u64::MAX
        });
        self.remember(&segments);
        self.segments.extend(segments.into_iter().map(|s| (0, s)));
        self.crowded = false;
        for (index, end) in ends.into_iter().enumerate() {
            self.read(index, end);
        }
        let over = self.full == [true; FILES];
        let horizon = if over { u64::MAX } else { now.saturating_sub(LATE_NS) };
        self.sort_out(horizon)?;
        self.sort_gpu(horizon)?;
        self.full = full;
        self.watch_stop(shared, &status);
        Ok(over)
    }

    /// Reads the ring of cursor `index` up to record number `end`.
    fn read(&mut self, index: usize, end: u64) {
        let (source, _, cursor) = &mut self.cursors[index];
        let lost = cursor.lost;
        let left = end.saturating_sub(cursor.position());
        self.crowded |= left > cursor.ring().capacity() as u64 / 8;
        self.records.clear();
        cursor.read(left as usize, &mut self.records);
        self.pending.extend(self.records.iter().map(|r| (*source, *r)));
        let missed = cursor.lost - lost;
        if missed > 0 {
            self.outputs.iter_mut().flatten().for_each(|o| o.source_lost += missed);
        }
    }

    /// Puts records that ended by `horizon_ns` into their files, in the order in which they
    /// ended: what led to a step comes before it, whichever ring it was in.
    fn sort_out(&mut self, horizon_ns: u64) -> Result<()> {
        self.pending.sort_by_key(|(_, record)| record.end_ns);
        let ready = self.pending.partition_point(|(_, r)| r.end_ns <= horizon_ns);
        for (source, record) in self.pending.drain(..ready) {
            for (file, output) in self.outputs.iter_mut().enumerate() {
                if let Some(output) = output
                    && belongs(source, &record, &self.segments, file)
                {
                    output.push(&record)?;
                }
            }
        }
        Ok(())
    }

    /// Keeps what is known of segments; an open one is known again each round.
    fn remember(&mut self, segments: &[Segment]) {
        for segment in segments {
            match self.past.iter_mut().find(|s| s.file == segment.file && s.to_ns == u64::MAX) {
                Some(open) => *open = *segment,
                None => self.past.push_back(*segment),
            }
        }
        while self.past.len() > SEGMENTS {
            self.past.pop_front();
        }
    }

    /// Puts what the GPU did by `horizon_ns` into the files of the steps that it did it for.
    fn sort_gpu(&mut self, horizon_ns: u64) -> Result<()> {
        let Some(gpu) = &self.gpu else { return Ok(()) };
        let taken = gpu.take(horizon_ns == u64::MAX);
        self.gpu_lost.0 += taken.dropped;
        self.gpu_lost.1 += taken.unknown;
        self.gpu_trouble = self.gpu_trouble.take().or(taken.trouble);
        self.spans.extend(taken.spans);
        self.spans.sort_by_key(|s| (s.start_ns, s.end_ns));
        let mut later = Vec::new();
        for span in self.spans.drain(..) {
            if span.end_ns > horizon_ns {
                later.push(span);
                continue;
            }
            let of = |s: &&Segment| s.steps_from_ns <= span.start_ns && span.start_ns <= s.to_ns;
            let file = self.past.iter().rev().find(of).map(|s| s.file);
            if let Some(output) = file.and_then(|f| self.outputs[f].as_mut()) {
                output.gpu(&span)?;
            }
        }
        self.spans = later;
        Ok(())
    }

    /// Writes the files; one without any step or record leaves nothing behind.
    fn write(&mut self, shared: &Arc<Shared>) -> Result<()> {
        let mut pace = Pace::behind(shared);
        for file in 0..FILES {
            if let Some(mut output) = self.outputs[file].take().filter(|o| o.records > 0) {
                output.gpu_lost = self.gpu_lost;
                self.done.push(output.finish(&self.label, &mut pace)?);
            }
        }
        Ok(())
    }

    fn watch_stop(&mut self, shared: &Shared, status: &Status) {
        if status.phase != Phase::Stopping {
            return;
        }
        let since = *self.stopping_since.get_or_insert_with(Instant::now);
        if since.elapsed() > PATIENCE {
            lock(&shared.control).force(self.token, clock::now_ns());
        }
    }

    /// The merged file of all ranks' files; the capture stands even if merging fails.
    fn merged(&self) -> Option<Result<String>> {
        let folder = self.merge.as_ref().filter(|_| !self.done.is_empty())?;
        let files = merge::find(folder, &self.id);
        let merged = files.and_then(|f| merge::merge(folder, &self.id, &f, self.cap));
        Some(merged.map(|m| m.path.display().to_string()))
    }

    /// The answer to whoever stops the capture.
    fn answer(&self, outcome: &Result<()>, status: &Status) -> Answer {
        if let Err(error) = outcome {
            let mut answer = Answer::failed(error);
            answer.status = 500;
            answer.body["state"] = json!("idle");
            answer.body["profile_id"] = json!(self.id);
            return answer;
        }
        let files: Vec<Value> =
            self.done.iter().map(|f| json!(f.trace.display().to_string())).collect();
        let tables: Vec<&str> = self.done.iter().map(|f| f.table.as_str()).collect();
        let (merged, merge_error) = match self.merged() {
            Some(Ok(path)) => (Some(path), None),
            Some(Err(error)) => (None, Some(error.message)),
            None => (None, None),
        };
        Answer::new(
            200,
            json!({
                "state": "idle",
                "gpu": self.gpu.as_ref().map(|g| gpu_json(&g.times)),
                "gpu_dropped_records": self.gpu_lost.0,
                "gpu_unknown_records": self.gpu_lost.1,
                "gpu_trouble": self.gpu_trouble,
                "merged": merged,
                "merge_error": merge_error,
                "message": "Stop profiling.",
                "profile_id": self.id,
                "files": files,
                "captured": captured(&status.captured),
                "details": self.done.iter().map(Finished::json).collect::<Vec<_>>(),
                "table": tables.join("\n"),
            }),
        )
    }
}

/// How a GPU's times are known, for answers and files.
pub fn gpu_json(times: &Times) -> Value {
    json!({"times": times.source, "fallback": times.fallback})
}

/// Whether a record belongs to `file`. What the engine records must be of its captured steps; what
/// other threads do may reach over the edges. Segments are in order of time and do not overlap.
fn belongs(source: Source, record: &Record, segments: &[(u32, Segment)], file: usize) -> bool {
    let (from, until): (fn(&Segment) -> u64, u64) = match source {
        Source::Engine | Source::Device => (|s| s.steps_from_ns, record.start_ns),
        Source::Other => (|s| s.from_ns, record.end_ns),
    };
    let begun = segments.partition_point(|s| from(&s.1) <= until);
    let reached = |s: &&(u32, Segment)| record.start_ns <= s.1.to_ns;
    segments[..begun].iter().rev().take_while(reached).any(|s| s.1.file == file)
}

impl Shared {
    /// What files are told about the program.
    pub fn setting(&self, request: &ProfileRequest) -> Setting {
        let rest = lock(&self.rest);
        Setting {
            pid: std::process::id() as u64,
            model: rest.model.clone(),
            ceiling: rest.ceiling.clone(),
            shapes: !request.no_shapes,
            projected: rest.model.as_ref().is_some_and(|m| m.device() == "emulated"),
        }
    }
}

/// Runs until the capture is written or has failed; either way the profiler is idle afterwards.
pub fn run(shared: &Arc<Shared>, mut job: Job) {
    step_aside(COPYING);
    let outcome = loop {
        match job.round(shared) {
            Ok(true) => break Ok(()),
            Ok(false) => {}
            Err(error) => break Err(error),
        }
        let rest = lock(&shared.rest);
        // A closed window is looked at twice at once, not after the usual pause.
        if job.full != [true; FILES] {
            let wait = if job.crowded { CROWDED_POLL } else { POLL };
            drop(shared.work.wait_timeout(rest, wait));
        }
    };
    if let Some(gpu) = &job.gpu {
        gpu.end();
    }
    step_aside(FORMATTING);
    let outcome = outcome.and_then(|()| job.write(shared));
    // Whatever was not finished is removed here, before anyone is told.
    job.outputs = [None, None];
    let status = lock(&shared.control).status();
    let own = status.token == job.token;
    let answer = job.answer(&outcome, &status);
    let mut rest = lock(&shared.rest);
    if own {
        shared.end_gpu(rest.session.take());
        lock(&shared.control).finished(job.token);
    }
    let told = rest.take_waiting(job.token);
    if own {
        rest.last = Some((answer.clone(), !told.is_empty()));
    }
    drop(rest);
    if own {
        shared.nvidia(super::NVIDIA_ON, super::NVIDIA_OFF);
        shared.nvidia(super::NVIDIA_WANTED, super::NVIDIA_OFF);
    }
    told.into_iter().for_each(|reply| reply(answer.clone()));
}

/// Lets the threads that serve go first: writing a trace can wait.
pub(super) fn step_aside(nice: libc::c_int) {
    #[cfg(target_os = "linux")]
    // SAFETY: 0 means the calling thread on Linux; the call changes its priority only.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, nice);
    }
}
