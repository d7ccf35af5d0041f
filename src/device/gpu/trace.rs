//! The GPU's own account of captured steps: CUPTI's records on CUDA, CUDA events where there is no
//! CUPTI, projected times on the emulator. Every launch says which op of which step it is; kernels
//! of a graph are known by their node, or by their place in the launch and their name.

mod cupti;
mod marks;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::cupti::Cupti;
use self::marks::Marks;
use super::driver::{Driver, Launch, Stream};
use crate::device::gpu::driver::Result as DriverResult;
use crate::error::Result;
use crate::profile::cupti::api::places;
use crate::profile::describe::Ceiling;
use crate::profile::gpu::{GpuTrace, Owner, Taken, Times};
use crate::profile::recorder::Recorder;
use crate::profile::stack;

/// A kernel node of a captured graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// The driver's handle.
    pub handle: u64,
    pub owner: Owner,
    pub kernel: &'static str,
}

/// Work about to be queued.
#[derive(Debug, Clone, Copy)]
pub enum Queued<'a> {
    Kernel(&'static str, &'a Launch<'a>),
    Copy {
        bytes: u64,
        to_host: bool,
    },
    /// A graph, by its number.
    Graph(usize),
}

/// What a session tells with.
enum Telling {
    Cupti(Box<Cupti>),
    Marks(Arc<Marks>),
}

/// One model's account.
pub struct Tracer {
    driver: Arc<dyn Driver>,
    fused: Vec<(usize, usize)>,
    graphs: Arc<Mutex<Vec<Vec<Node>>>>,
    telling: Mutex<Option<Telling>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tracer {
    /// `fused`: ops of the plan that run as one, first and number.
    pub fn new(driver: Arc<dyn Driver>, fused: Vec<(usize, usize)>) -> Tracer {
        Tracer { driver, fused, graphs: Arc::default(), telling: Mutex::default() }
    }

    /// The kernels of the next graph.
    pub fn graph(&self, nodes: Vec<Node>) {
        lock(&self.graphs).push(nodes);
    }

    /// The account of the step that begins, if a capture wants it.
    pub fn step(&self, recorder: &Recorder) -> Option<StepTrace> {
        if !recorder.wants.gpu {
            return None;
        }
        let step = recorder.step as u32;
        match lock(&self.telling).as_ref()? {
            Telling::Cupti(cupti) => Some(StepTrace::Cupti(cupti.step(step))),
            Telling::Marks(marks) => Some(StepTrace::Marks(marks.step(step))),
        }
    }

    /// As [`Tracer::step`], for the page copies before step `step`. Only CUPTI tells of them: who
    /// marks launches would have to wait for each.
    pub fn pages(&self, step: u32) -> Option<StepTrace> {
        match lock(&self.telling).as_ref()? {
            Telling::Cupti(cupti) => Some(StepTrace::Cupti(cupti.step(step))),
            Telling::Marks(_) => None,
        }
    }

    fn start(&self) -> (Telling, Times) {
        let marks = |events| {
            let (driver, graphs) = (Arc::clone(&self.driver), Arc::clone(&self.graphs));
            Telling::Marks(Arc::new(Marks::new(driver, graphs, events)))
        };
        if self.driver.kind() != "cuda" {
            let source = "projected by the emulator".into();
            return (marks(false), Times { source, fallback: None });
        }
        match Cupti::start(&places(), Arc::clone(&self.graphs)) {
            Ok((cupti, source)) => {
                (Telling::Cupti(Box::new(cupti)), Times { source, fallback: None })
            }
            Err(error) => {
                let source = "CUDA events, each kernel between two; graphs are not replayed".into();
                (marks(true), Times { source, fallback: Some(error.message) })
            }
        }
    }
}

impl GpuTrace for Tracer {
    fn begin(&self) -> Option<Times> {
        let mut telling = lock(&self.telling);
        if telling.is_some() {
            return None;
        }
        let (started, times) = self.start();
        *telling = Some(started);
        Some(times)
    }

    fn take(&self, last: bool) -> Taken {
        match lock(&self.telling).as_mut() {
            Some(Telling::Cupti(cupti)) => cupti.take(last),
            Some(Telling::Marks(marks)) => marks.take(),
            None => Taken::default(),
        }
    }

    fn end(&self) {
        *lock(&self.telling) = None;
    }

    fn fused(&self) -> Vec<(usize, usize)> {
        self.fused.clone()
    }

    fn ceiling(&self) -> Option<Ceiling> {
        let card = self.driver.card();
        // Dense 16-bit products with sums of 32 bits, per SM and clock (NVIDIA's tuning guides and
        // architecture papers: A100 312, RTX 3090 71, L40S 366, H100 SXM 989 TFLOP/s).
        let per_clock = match card.capability {
            (8, 0) => 2048.0,
            (8, 6 | 7) => 512.0,
            (8, 9) => 1024.0,
            (9, 0) => 4096.0,
            _ => return None,
        };
        let flops_per_s = f64::from(card.sms) * card.clock_hz * per_clock;
        let known = card.memory_bandwidth > 0.0 && flops_per_s > 0.0;
        known.then(|| Ceiling {
            bytes_per_s: card.memory_bandwidth,
            flops_per_s,
            source: format!("{}: bus and clock as the driver reports them", card.name),
        })
    }

    fn is_cuda(&self) -> bool {
        self.driver.kind() == "cuda"
    }

    fn profiler(&self, on: bool) -> Result<()> {
        Ok(self.driver.profiler(on)?)
    }
}

/// The account of one step, on the thread that launches it.
pub enum StepTrace {
    Cupti(cupti::Pushes),
    Marks(marks::StepMarks),
}

impl StepTrace {
    /// Whether graphs must be launched kernel by kernel to be told apart.
    pub fn splits_graphs(&self) -> bool {
        matches!(self, StepTrace::Marks(marks) if marks.events())
    }

    /// Queues work that belongs to `owner` with `queue`.
    ///
    /// # Errors
    /// What `queue` says.
    pub fn around(
        &mut self,
        stream: Stream,
        owner: Owner,
        what: Queued<'_>,
        queue: &mut dyn FnMut() -> DriverResult<()>,
    ) -> DriverResult<()> {
        match self {
            StepTrace::Cupti(pushes) => pushes.around(owner, what, queue),
            StepTrace::Marks(marks) => marks.around(stream, owner, what, queue),
        }
    }

    /// The step's work is done.
    pub fn finish(self) {
        match self {
            StepTrace::Cupti(pushes) => pushes.finish(),
            StepTrace::Marks(marks) => marks.finish(),
        }
    }
}

/// Queues work, told if anybody wants to know.
///
/// # Errors
/// What `queue` says.
pub fn around(
    trace: Option<&mut StepTrace>,
    stream: Stream,
    owner: Owner,
    what: Queued<'_>,
    queue: &mut dyn FnMut() -> DriverResult<()>,
) -> DriverResult<()> {
    stack::launch(owner);
    match trace {
        None => queue(),
        Some(trace) => trace.around(stream, owner, what, queue),
    }
}
