//! Times without CUPTI: of CUDA events around each kernel, or projected by the emulator.

use std::sync::{Arc, Mutex};

use super::{Node, Queued, lock};
use crate::device::gpu::driver::{Driver, Event, Ran, RanWork, Result as DriverResult, Stream};
use crate::profile::clock;
use crate::profile::gpu::{GpuSpan, GpuWork, Owner, Taken, UNKNOWN};

/// One session.
pub struct Marks {
    driver: Arc<dyn Driver>,
    graphs: Arc<Mutex<Vec<Vec<Node>>>>,
    events: bool,
    spans: Mutex<Vec<GpuSpan>>,
    /// Events to use again.
    spare: Mutex<Vec<Event>>,
    trouble: Mutex<Option<String>>,
    next: Mutex<u32>,
}

/// Spans kept for a reader at most.
const MOST: usize = 1 << 20;

impl Marks {
    pub fn new(driver: Arc<dyn Driver>, graphs: Arc<Mutex<Vec<Vec<Node>>>>, events: bool) -> Marks {
        if !events {
            driver.keep_ran(true);
        }
        Marks {
            driver,
            graphs,
            events,
            spans: Mutex::default(),
            spare: Mutex::default(),
            trouble: Mutex::default(),
            next: Mutex::new(1),
        }
    }

    pub fn step(self: &Arc<Marks>, step: u32) -> StepMarks {
        if !self.events {
            // What ran since the last captured step is nobody's.
            drop(self.driver.ran());
        }
        StepMarks { marks: Arc::clone(self), step, begun_ns: clock::now_ns(), list: Vec::new() }
    }

    pub fn take(&self) -> Taken {
        let spans = std::mem::take(&mut *lock(&self.spans));
        Taken { spans, trouble: lock(&self.trouble).take(), ..Taken::default() }
    }

    fn event(&self) -> DriverResult<Event> {
        match lock(&self.spare).pop() {
            Some(event) => Ok(event),
            None => self.driver.create_event(true),
        }
    }
}

impl Drop for Marks {
    fn drop(&mut self) {
        self.driver.keep_ran(false);
        for event in lock(&self.spare).drain(..) {
            // A lost context has no events.
            let _ = self.driver.destroy_event(event);
        }
    }
}

/// A launch of the step.
struct Mark {
    owner: Owner,
    work: Option<GpuWork>,
    graph: Option<usize>,
    stream: Stream,
    correlation: u32,
    called_ns: (u64, u64),
    events: Option<(Event, Event)>,
}

/// The launches of one step.
pub struct StepMarks {
    marks: Arc<Marks>,
    step: u32,
    begun_ns: u64,
    list: Vec<Mark>,
}

impl StepMarks {
    pub fn events(&self) -> bool {
        self.marks.events
    }

    pub fn around(
        &mut self,
        stream: Stream,
        owner: Owner,
        what: Queued<'_>,
        queue: &mut dyn FnMut() -> DriverResult<()>,
    ) -> DriverResult<()> {
        let driver = &*self.marks.driver;
        let mut next = lock(&self.marks.next);
        let correlation = *next;
        *next = next.wrapping_add(1).max(1);
        drop(next);
        let (work, graph) = match what {
            Queued::Kernel(name, launch) => {
                let (grid, block, shared) = (launch.grid, launch.block, launch.shared_bytes);
                let name = name.into();
                (Some(GpuWork::Kernel { name, grid, block, registers: 0, shared }), None)
            }
            Queued::Copy { bytes, to_host } => (Some(GpuWork::Copy { bytes, to_host }), None),
            Queued::Graph(index) => (None, Some(index)),
        };
        let mut events = None;
        if self.marks.events {
            let pair = (self.marks.event()?, self.marks.event()?);
            driver.record(pair.0, stream)?;
            events = Some(pair);
        } else {
            driver.tag(correlation.into());
        }
        let called = clock::now_ns();
        let queued = queue();
        let called_ns = (called, clock::now_ns());
        if let Some((_, after)) = events {
            driver.record(after, stream)?;
        }
        let mark = Mark { owner, work, graph, stream, correlation, called_ns, events };
        self.list.push(mark);
        queued
    }

    /// Reads the times of all launches; the stream has been waited for.
    pub fn finish(self) {
        let mut spans: Vec<GpuSpan> = self.list.iter().map(|m| self.launch(m)).collect();
        if self.marks.events {
            match self.measured(&mut spans) {
                Ok(()) => {}
                Err(error) => *lock(&self.marks.trouble) = Some(error.to_string()),
            }
            let pairs = self.list.iter().filter_map(|m| m.events);
            lock(&self.marks.spare).extend(pairs.flat_map(|(a, b)| [a, b]));
        } else {
            self.projected(&mut spans);
        }
        let mut all = lock(&self.marks.spans);
        if all.len() < MOST {
            all.append(&mut spans);
        }
    }

    fn launch(&self, mark: &Mark) -> GpuSpan {
        let (start_ns, end_ns) = mark.called_ns;
        self.span(mark, GpuWork::Launch, mark.owner, (start_ns, end_ns))
    }

    fn span(&self, m: &Mark, work: GpuWork, owner: Owner, (start, end): (u64, u64)) -> GpuSpan {
        GpuSpan {
            work,
            step: self.step,
            owner,
            stream: stream_number(m.stream.0),
            correlation: m.correlation,
            start_ns: start,
            end_ns: end,
        }
    }

    /// Times between events. Where they stand on the host's clock is not known: as early as they
    /// can, no kernel before its launch.
    fn measured(&self, spans: &mut Vec<GpuSpan>) -> DriverResult<()> {
        let driver = &*self.marks.driver;
        let Some(first) = self.list.iter().find_map(|m| m.events) else { return Ok(()) };
        let mut times = Vec::new();
        for mark in &self.list {
            let Some((before, after)) = mark.events else { continue };
            let at = |event| -> DriverResult<u64> {
                let ms = f64::from(driver.elapsed(first.0, event)?).max(0.0);
                Ok((ms * 1e6) as u64)
            };
            times.push((mark, at(before)?, at(after)?));
        }
        let earliest = |(m, from, _): &(&Mark, u64, u64)| m.called_ns.0.saturating_sub(*from);
        let zero = times.iter().map(earliest).max().unwrap_or(self.begun_ns);
        for (mark, from, to) in times {
            let Some(work) = &mark.work else { continue };
            let at = (zero + from, zero + to.max(from));
            spans.push(self.span(mark, work.clone(), mark.owner, at));
        }
        Ok(())
    }

    /// What the emulator ran, one after the other once all was queued: it runs nothing before it
    /// is waited for.
    fn projected(&self, spans: &mut Vec<GpuSpan>) {
        let ran = self.marks.driver.ran();
        let zero = ran.first().map_or(0.0, |r| r.from);
        let queued = self.list.iter().map(|m| m.called_ns.1).max().unwrap_or(self.begun_ns);
        let at = |seconds: f64| queued + ((seconds - zero).max(0.0) * 1e9) as u64;
        let graphs = lock(&self.marks.graphs);
        for r in &ran {
            let Some(mark) = self.list.iter().find(|m| u64::from(m.correlation) == r.tag) else {
                continue;
            };
            let owner = match mark.graph {
                None => mark.owner,
                Some(index) => {
                    let nodes = graphs.get(index).map(Vec::as_slice).unwrap_or_default();
                    let node = nodes.iter().find(|n| n.handle == r.node);
                    node.map_or(UNKNOWN, |n| n.owner)
                }
            };
            let (start, end) = (at(r.from), at(r.to));
            spans.push(self.span(mark, work_of(r), owner, (start, end)));
        }
    }
}

fn work_of(ran: &Ran) -> GpuWork {
    match &ran.work {
        RanWork::Kernel { name, grid, block, shared } => GpuWork::Kernel {
            name: name.as_str().into(),
            grid: *grid,
            block: *block,
            registers: 0,
            shared: *shared,
        },
        RanWork::Copy { bytes, to_host } => GpuWork::Copy { bytes: *bytes, to_host: *to_host },
        RanWork::Fill { bytes } => GpuWork::Set { bytes: *bytes },
    }
}

/// A stream's handle as the small number that rows are called by.
fn stream_number(handle: u64) -> u32 {
    (handle & 0xFFFF_FFFF) as u32
}
