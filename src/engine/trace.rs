//! What the engine tells the recorder of a step: the few places where the loop meets the profiler.

pub use crate::profile::recorder::Event as Kind;
use crate::profile::recorder::{Counter, Mark, Record, Recorder, Stage, two};
use crate::scheduler::{Metrics, Step};

/// A step was planned from `begun_ns` on and is about to run.
pub fn begin(recorder: &mut Recorder, step: &Step, begun_ns: u64) {
    if !recorder.is_on() {
        return;
    }
    let stage = stage(step);
    recorder.step_begins(stage, begun_ns);
    let (number, now) = (step.number as u32, recorder.now());
    let size = two(step.sequences.len(), step.tokens.len());
    let at = |event, extra, id, arg| Record { event, extra, id, arg, start_ns: now, end_ns: now };
    recorder.push(&at(Kind::Batch, stage as u16, number, size));
    for s in &step.sequences {
        let rows = s.logits.min(usize::from(u16::MAX)) as u16;
        recorder.push(&at(Kind::Sequence, rows, s.id as u32, two(s.past, s.len)));
    }
    recorder.record(Kind::Plan, number, 0, begun_ns, now);
}

/// The step has ended.
pub fn end(recorder: &mut Recorder, step: &Step, begun_ns: u64, well: bool) {
    if !recorder.is_on() {
        return;
    }
    if !well {
        recorder.mark(Mark::StepFailed, step.number);
    }
    recorder.push(&Record {
        event: Kind::EngineStep,
        extra: stage(step) as u16,
        id: step.number as u32,
        arg: two(step.sequences.len(), step.tokens.len()),
        start_ns: begun_ns,
        end_ns: recorder.now(),
    });
    recorder.step_ends();
}

/// `step[DECODE bs=8]`, `step[EXTEND bs=2 toks=512]`.
pub fn step_name(step: &Step) -> String {
    let (sequences, tokens) = (step.sequences.len(), step.tokens.len());
    match stage(step) {
        Stage::Decode => format!("step[DECODE bs={sequences}]"),
        stage => format!("step[{} bs={sequences} toks={tokens}]", stage.name()),
    }
}

fn stage(step: &Step) -> Stage {
    Stage::of_step(step.tokens.len(), step.prefill_tokens)
}

/// How full the cache is and how many requests there are, once a step.
pub fn count(recorder: &mut Recorder, m: &Metrics) {
    if recorder.is_on() {
        let counters = [
            (Counter::KvUsedPages, m.pages.held + m.pages.fenced),
            (Counter::KvCachedPages, m.pages.cached),
            (Counter::RunningRequests, m.running),
            (Counter::WaitingRequests, m.queued),
        ];
        let now = recorder.now();
        for (counter, value) in counters {
            recorder.push(&Record::instant(Kind::Memory, counter as u32, value as u64, now));
        }
    }
}

/// The engine has commands again, for which it waited since `start`, if it was `idle`. When it
/// begins to take them in.
pub fn waited(recorder: &mut Recorder, idle: bool, start_ns: u64) -> u64 {
    if idle {
        recorder.since(Kind::Idle, 0, 0, start_ns);
    }
    recorder.now()
}
