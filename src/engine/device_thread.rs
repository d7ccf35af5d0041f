//! The thread that drives the device while the engine's own handles the step before.
//!
//! Model, recorder and batch travel there and back by value, so nothing is shared and nothing is
//! locked.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::device::{Batch, Loaded, MemoryUse};
use crate::error::{Error, Kind, Result};
use crate::model::cost::Storage;
use crate::profile::recorder::Recorder;
use crate::types::Dtype;

use super::step::{Buffers, StepStats, compute};

/// A step on its way to the device and back, with all that it needs.
pub(super) struct Flight {
    pub loaded: Box<dyn Loaded>,
    pub recorder: Recorder,
    pub buffers: Buffers,
    pub stats: StepStats,
    pub outcome: Result<()>,
    /// When its planning began, on both clocks, and when the device was done.
    pub begun: Instant,
    pub begun_ns: u64,
    pub done: Instant,
    /// How long the device took.
    pub device: Duration,
}

impl Flight {
    fn run(&mut self) {
        let (begin, b) = (Instant::now(), &mut self.buffers);
        let (loaded, recorder) = (self.loaded.as_mut(), &mut self.recorder);
        let step = AssertUnwindSafe(|| compute(loaded, recorder, b));
        self.outcome = catch_unwind(step).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            let what = format!("the device panicked: {}", text.unwrap_or("no message"));
            Err(Error::new(Kind::DeviceLost, what))
        });
        self.done = Instant::now();
        self.device = self.done - begin;
    }
}

/// Runs one step at a time.
pub(super) struct DeviceThread {
    to: Option<SyncSender<Box<Flight>>>,
    from: Receiver<Box<Flight>>,
    thread: Option<JoinHandle<()>>,
    away: bool,
}

impl DeviceThread {
    /// `landed` is called there after every step, and must not wait.
    ///
    /// # Errors
    /// If the system refuses a thread.
    pub fn new(landed: impl Fn() + Send + 'static) -> Result<Self> {
        let (to, jobs) = mpsc::sync_channel::<Box<Flight>>(1);
        let (results, from) = mpsc::sync_channel(1);
        let work = move || {
            while let Ok(mut flight) = jobs.recv() {
                flight.run();
                if results.send(flight).is_err() {
                    return;
                }
                landed();
            }
        };
        let thread = std::thread::Builder::new().name("device".into()).spawn(work);
        let thread = Some(thread.map_err(|e| Error::io("device thread", &e))?);
        Ok(DeviceThread { to: Some(to), from, thread, away: false })
    }

    /// A step is there.
    pub fn busy(&self) -> bool {
        self.away
    }

    /// Sends a step off; gives it back if the thread is gone.
    pub fn start(&mut self, flight: Box<Flight>) -> std::result::Result<(), Box<Flight>> {
        let Some(to) = &self.to else { return Err(flight) };
        to.send(flight).map_err(|e| e.0)?;
        self.away = true;
        Ok(())
    }

    /// Waits for the step that is there; `None` if there is none.
    pub fn finish(&mut self) -> Option<Box<Flight>> {
        if !std::mem::take(&mut self.away) {
            return None;
        }
        self.from.recv().ok()
    }
}

impl Drop for DeviceThread {
    fn drop(&mut self) {
        self.to = None;
        // A step that hangs must not hold up whoever gave up on it: its thread ends by itself.
        if let Some(thread) = self.thread.take().filter(|_| !self.away) {
            let _ = thread.join();
        }
    }
}

/// Stands in for the model while it is away.
pub(super) struct Away;

impl Loaded for Away {
    fn step(&mut self, _: &Batch, _: &mut Recorder) -> Result<()> {
        Err(Error::new(Kind::DeviceLost, "the model is in use elsewhere; this is a bug in Pacer"))
    }

    fn logits(&self) -> &[f32] {
        &[]
    }

    fn copy_page(&mut self, _: u32, _: u32, _: usize) -> Result<()> {
        self.step(
            &Batch { tokens: &[], spans: &[], pages: &[], logit_rows: &[] },
            &mut Recorder::off(),
        )
    }

    fn memory(&self) -> MemoryUse {
        MemoryUse::default()
    }

    fn storage(&self) -> Storage<'_> {
        Storage { matrix_bytes: &|_| 0, kv_element: 0, activation_element: 0 }
    }

    fn weight_dtype(&self) -> Dtype {
        Dtype::F32
    }
}
