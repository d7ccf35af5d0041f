//! The overlapped loop: a step's results are handled while the device runs the next step.
//!
//! ```text
//! device thread   │ step 1           │ step 2           │ step 3           │
//! engine thread     settle 0 · wait   │pick 1 · plan 2   │ settle 1 · wait  │…
//! ```
//!
//! What the next step needs is done first: its tokens are picked, the next step is planned with
//! them still unknown to the scheduler, they are filled in, and it starts. Log-probabilities,
//! text, stop strings, grammars, commit and updates come after, beside it. A sequence that turns
//! out to have ended has run one row too many, whose result the scheduler drops.
//!
//! Every row is computed and sampled from the same numbers as in the plain loop
//! ([`Engine::step`]), so a request's tokens are the same, bit for bit.

use std::time::{Duration, Instant};

use crate::error::{Error, Kind, Result};
use crate::profile::recorder::Recorder;
use crate::types::TokenId;

use super::core::Engine;
use super::device_thread::{Away, DeviceThread, Flight};
use super::outcome::fill_pending;
use super::request::Update;
use super::step::{Buffers, StepStats};
use super::trace;

/// When steps are overlapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Never: the plain loop.
    Off,
    /// If the device takes longer than handing a step over does.
    #[default]
    Auto,
    Always,
}

/// Steps that take less are run in place: two threads cost more than they hide.
const QUICK: Duration = Duration::from_micros(200);

/// What [`Engine::advance`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// There was nothing to run.
    Nothing,
    /// A step was begun; none has ended.
    Begun,
    /// A step ended, see [`Engine::last_step`]; the next may have begun.
    Ended,
}

/// The device's thread, and the buffers of the step that is not on it.
pub(super) struct Overlap {
    thread: DeviceThread,
    mode: Mode,
    spare: Buffers,
    /// A step that could not be sent off.
    grounded: Option<Box<Flight>>,
    /// When the results of the step before were handled, while this one ran.
    settled: Option<(Instant, Instant)>,
}

impl Engine {
    /// From now on [`advance`](Engine::advance) overlaps steps. `landed` is called on the device's
    /// thread whenever a step is done.
    ///
    /// # Errors
    /// If the system refuses a thread.
    pub fn overlap(&mut self, mode: Mode, landed: impl Fn() + Send + 'static) -> Result<()> {
        self.overlap = match mode {
            Mode::Off => None,
            Mode::Auto | Mode::Always => {
                let (thread, spare) = (DeviceThread::new(landed)?, Buffers::default());
                Some(Overlap { thread, mode, spare, grounded: None, settled: None })
            }
        };
        Ok(())
    }

    /// A step runs on the device's thread.
    pub fn flying(&self) -> bool {
        self.overlap.as_ref().is_some_and(|o| o.thread.busy())
    }

    /// Ends the step that runs, waiting for it, begins the next one if `go`, and appends what
    /// happened to `updates`. Without [`overlap`](Engine::overlap) it is one plain step.
    ///
    /// # Errors
    /// As [`Engine::step`].
    pub fn advance(&mut self, go: bool, updates: &mut Vec<Update>) -> Result<Progress> {
        let landed = self.land();
        let Some(mut flight) = landed else {
            return self.begin_first(go, updates);
        };
        let outcome = std::mem::replace(&mut flight.outcome, Ok(()));
        self.last = StepStats { device: flight.device, ..flight.stats };
        let b = &mut flight.buffers;
        if let Err(error) = outcome {
            trace::end(&mut self.recorder, &b.step, flight.begun_ns, false);
            let error = self.failed(b, error, updates);
            self.put_back(flight.buffers);
            return Err(error);
        }
        let start = self.recorder.now();
        self.range("sample");
        self.pick(b);
        self.end_range();
        let (number, picks) = (b.step.number as u32, b.tokens.len() as u64);
        self.recorder.since(trace::Kind::Sample, number, picks, start);
        trace::end(&mut self.recorder, &b.step, flight.begun_ns, true);
        let go = go && !self.quick();
        let tokens = std::mem::take(&mut b.tokens);
        let flies = go && self.launch(&tokens);
        b.tokens = tokens;
        let (begin, start) = (Instant::now(), self.recorder.now());
        self.settle(b, updates)?;
        let number = b.step.number as u32;
        self.recorder.since(trace::Kind::Commit, number, 0, start);
        let end = Instant::now();
        self.last.settle = end - begin;
        self.last.total = flight.begun.elapsed();
        self.put_back(flight.buffers);
        if let Some(overlap) = &mut self.overlap {
            // The same interval: no more can be hidden than was settled.
            overlap.settled = flies.then_some((begin, end));
        }
        if go && !flies {
            // What waited for these results may run now.
            self.launch(&[]);
        }
        Ok(Progress::Ended)
    }

    fn begin_first(&mut self, go: bool, updates: &mut Vec<Update>) -> Result<Progress> {
        if self.overlap.is_none() || self.quick() {
            let ran = go && self.step(updates)?;
            return Ok(if ran { Progress::Ended } else { Progress::Nothing });
        }
        Ok(if go && self.launch(&[]) { Progress::Begun } else { Progress::Nothing })
    }

    /// The last step was over sooner than another thread could have been told of it.
    fn quick(&self) -> bool {
        let auto = self.overlap.as_ref().is_none_or(|o| o.mode == Mode::Auto);
        auto && self.last.device < QUICK
    }

    /// Plans the next step, fills in the tokens of the one before and sends it off. `false` if
    /// there is nothing to run now.
    fn launch(&mut self, tokens: &[TokenId]) -> bool {
        let (begun, begun_ns) = (Instant::now(), self.recorder.now());
        let Some(overlap) = &mut self.overlap else { return false };
        let mut buffers = std::mem::take(&mut overlap.spare);
        self.range("scheduler.plan");
        let planned = self.scheduler.plan(&mut buffers.step);
        self.end_range();
        if !planned {
            self.put_back(buffers);
            return false;
        }
        fill_pending(&mut buffers.step, tokens);
        self.ask(&buffers.step, &mut buffers.asked);
        buffers.begun = Some(begun);
        trace::begin(&mut self.recorder, &buffers.step, begun_ns);
        let stats = StepStats::of(&buffers.step);
        self.step_range(&buffers.step);
        // Ranges go with the recorder: the engine's own are not told while a step runs.
        self.recorder.ranges = self.ranges.take();
        let aside = std::mem::replace(&mut self.aside, Recorder::off());
        let flight = Box::new(Flight {
            loaded: std::mem::replace(&mut self.loaded, Box::new(Away)),
            recorder: std::mem::replace(&mut self.recorder, aside),
            buffers,
            stats,
            outcome: Err(Error::new(Kind::DeviceLost, "the step was not run")),
            begun,
            begun_ns,
            done: begun,
            device: Duration::ZERO,
        });
        let Some(overlap) = &mut self.overlap else { return false };
        // A thread that is gone: the step comes back as it is, which is a lost device.
        overlap.grounded = overlap.thread.start(flight).err();
        true
    }

    /// Waits for the step that runs and takes model and recorder back.
    fn land(&mut self) -> Option<Box<Flight>> {
        let overlap = self.overlap.as_mut()?;
        let mut flight = overlap.grounded.take().or_else(|| overlap.thread.finish())?;
        if let Some((from, to)) = overlap.settled.take() {
            flight.stats.hidden = to.min(flight.done).saturating_duration_since(from);
        }
        std::mem::swap(&mut self.loaded, &mut flight.loaded);
        let home = std::mem::replace(&mut flight.recorder, Recorder::off());
        self.aside = std::mem::replace(&mut self.recorder, home);
        self.ranges = self.recorder.ranges.take();
        self.end_range();
        Some(flight)
    }

    fn put_back(&mut self, buffers: Buffers) {
        if let Some(overlap) = &mut self.overlap {
            overlap.spare = buffers;
        }
    }
}
