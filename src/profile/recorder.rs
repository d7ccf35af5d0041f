//! What a thread records with: its ring (the flight recorder, always on), and the hook that opens
//! and closes captures around steps.
//!
//! Off costs a branch; on costs a clock reading and 32 bytes an op, and no allocation
//! (`bench/results/profile-overhead.md`). A full ring forgets its oldest records and counts them.

use std::fmt;
use std::sync::Arc;

use super::clock;
pub use super::record::{Counter, Event, Mark, Record, Stage, two};
use super::ring::{Ring, Writer};
use super::stack;

/// What a capture wants to know of a step beside its records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wants {
    /// What the GPU does.
    pub gpu: bool,
    /// From where each op is launched.
    pub stacks: bool,
}

/// Hears when steps begin and end, on the thread that runs them; must return at once.
pub trait StepHook: Send + Sync {
    fn step_begins(&self, stage: Stage, now_ns: u64) -> Wants;
    fn step_ends(&self, now_ns: u64);
}

/// Ranges that a tool outside of this process shows.
pub trait Ranges: Send {
    fn push(&mut self, text: &str);
    fn pop(&mut self);
    /// Begins the range of an op of the plan, inside that of its layer.
    fn op(&mut self, index: usize);
    /// The last op has ended.
    fn ops_end(&mut self);
    /// Begins the range of a replayed graph with the kernels of these ops.
    fn graph(&mut self, ops: &[usize]);
    fn as_any(&mut self) -> &mut dyn std::any::Any;
}

/// Whether recording is compiled in: only what measures its cost builds without.
pub const COMPILED_IN: bool = cfg!(feature = "recorder");

/// One thread's recorder. `Recorder::off()` records nothing.
pub struct Recorder {
    writer: Option<Writer>,
    hook: Option<Arc<dyn StepHook>>,
    /// Records before this one have been forgotten by [`Recorder::clear`].
    cleared: u64,
    pub step: u64,
    /// What a capture wants to know of this step.
    pub wants: Wants,
    /// Where layers and ops are told to NVIDIA's tools.
    pub ranges: Option<Box<dyn Ranges>>,
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let capacity = self.writer.as_ref().map_or(0, |w| w.ring().capacity());
        write!(f, "Recorder {{ capacity: {capacity}, step: {} }}", self.step)
    }
}

impl Recorder {
    /// A recorder that keeps nothing.
    pub fn off() -> Self {
        Recorder {
            writer: None,
            hook: None,
            cleared: 0,
            step: 0,
            wants: Wants::default(),
            ranges: None,
        }
    }

    /// A recorder that keeps the last `capacity` records.
    pub fn with_capacity(capacity: usize) -> Self {
        let writer = (capacity > 0).then(|| Writer::new(capacity));
        Recorder { writer, ..Self::off() }
    }

    /// The same, telling `hook` of every step.
    pub fn with_hook(capacity: usize, hook: Arc<dyn StepHook>) -> Self {
        Recorder { hook: Some(hook), ..Self::with_capacity(capacity) }
    }

    #[inline]
    pub fn is_on(&self) -> bool {
        COMPILED_IN && self.writer.is_some()
    }

    /// Its ring, for readers on other threads; `None` when off.
    pub fn ring(&self) -> Option<&Arc<Ring>> {
        self.writer.as_ref().map(Writer::ring)
    }

    /// Nanoseconds of the monotonic clock, or 0 when off.
    #[inline]
    pub fn now(&self) -> u64 {
        if self.is_on() { clock::now_ns() } else { 0 }
    }

    #[inline]
    pub fn record(&mut self, event: Event, id: u32, arg: u64, start_ns: u64, end_ns: u64) {
        self.push(&Record { event, extra: 0, id, arg, start_ns, end_ns });
    }

    /// Records a whole record, for events that have an `extra`.
    #[inline]
    pub fn push(&mut self, record: &Record) {
        if COMPILED_IN && let Some(writer) = &mut self.writer {
            writer.push(record);
        }
    }

    /// A span that began at `start_ns` and ends now.
    #[inline]
    pub fn since(&mut self, event: Event, id: u32, arg: u64, start_ns: u64) {
        if self.is_on() {
            self.record(event, id, arg, start_ns, clock::now_ns());
        }
    }

    /// A counter's value, now.
    #[inline]
    pub fn count(&mut self, counter: Counter, value: u64) {
        if self.is_on() {
            let now = clock::now_ns();
            self.push(&Record::instant(Event::Memory, counter as u32, value, now));
        }
    }

    /// Something worth a mark, now.
    pub fn mark(&mut self, mark: Mark, arg: u64) {
        if self.is_on() {
            let now = clock::now_ns();
            self.push(&Record::instant(Event::Marker, mark as u32, arg, now));
        }
    }

    /// A step of `stage` began at `begun_ns`: captures open here. Pair with
    /// [`Recorder::step_ends`].
    #[inline]
    pub fn step_begins(&mut self, stage: Stage, begun_ns: u64) {
        if COMPILED_IN && let Some(hook) = &self.hook {
            self.wants = hook.step_begins(stage, begun_ns);
        }
    }

    /// The step has ended, well or not: captures close here.
    #[inline]
    pub fn step_ends(&self) {
        if COMPILED_IN && let Some(hook) = &self.hook {
            hook.step_ends(clock::now_ns());
        }
    }

    /// Notes from where op `index`, begun at `start_ns`, was launched, if a capture wants to know
    /// it. Before the op's own record.
    #[inline]
    pub fn stack(&mut self, index: usize, start_ns: u64) {
        if COMPILED_IN && let Some(number) = stack::taken() {
            self.push(&Record::instant(Event::Stack, index as u32, u64::from(number), start_ns));
        }
    }

    /// Notes owners and stacks of what was queued in the step that began at `begun_ns`.
    pub fn stacks(&mut self, launches: &[(u32, u32)], begun_ns: u64) {
        for (owner, number) in launches {
            self.push(&Record::instant(Event::Stack, *owner, u64::from(*number), begun_ns));
        }
    }

    /// Records kept, oldest first.
    pub fn records(&self) -> std::vec::IntoIter<Record> {
        let read = |ring: &Arc<Ring>| ring.from(self.cleared).read_all();
        self.ring().map(read).unwrap_or_default().into_iter()
    }

    /// Records that the ring has forgotten.
    pub fn dropped(&self) -> u64 {
        self.ring().map_or(0, |ring| {
            ring.written().saturating_sub(self.cleared).saturating_sub(ring.capacity() as u64)
        })
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.cleared = self.ring().map_or(0, |r| r.written());
    }
}

/// Nanoseconds that recording an op costs on this machine, its clock reading included: the best of
/// a few rounds over a ring as large as a server's.
pub fn cost_ns() -> f64 {
    const OPS: u32 = 1 << 18;
    let mut recorder = Recorder::with_capacity(OPS as usize);
    let mut round = || {
        let begun = recorder.now();
        let mut start = begun;
        for op in 0..OPS {
            let end = recorder.now();
            recorder.record(Event::Op, op, 1, start, end);
            start = end;
        }
        (start - begun) as f64 / f64::from(OPS)
    };
    (0..6).map(|_| round()).fold(f64::INFINITY, f64::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The figure is in `bench/results/profile-overhead.md`; here it may be twenty times as much,
    /// for builds that are not optimised and machines that are busy.
    #[test]
    fn recording_an_op_costs_nanoseconds() {
        let ns = cost_ns();
        println!("{ns:.1} ns an op");
        assert!(ns > 1.0 && ns < 1000.0, "{ns}");
    }
}
