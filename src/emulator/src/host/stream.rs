//! Streams and events: queues of work that runs when somebody waits for it.

use std::collections::VecDeque;
use std::sync::Arc;

use super::error::{Code, HostError, HostResult};
use super::graph::NodeState;
use super::kernel::Queued;
use super::machine::{Machine, State};
use crate::exec::Prior;

/// Work that is queued at most before some of it runs.
const LONGEST_QUEUE: usize = 1024;

/// One piece of queued work.
#[derive(Clone)]
pub(super) enum Work {
    /// Bytes taken when queued (from pageable memory).
    Upload {
        to: u64,
        data: Arc<[u8]>,
    },
    /// Bytes read from page-locked memory when it runs.
    UploadPinned {
        to: u64,
        from: usize,
        bytes: usize,
    },
    DownloadPinned {
        to: usize,
        from: u64,
        bytes: usize,
    },
    Copy {
        to: u64,
        from: u64,
        bytes: u64,
    },
    /// `count` elements of `width` bytes.
    Fill {
        to: u64,
        value: u32,
        width: u32,
        count: u64,
    },
    Launch(Arc<Queued>),
    Graph(Arc<[NodeState]>),
    Record {
        event: u64,
        version: u64,
    },
    Wait {
        event: u64,
        version: u64,
    },
    /// A planted fault.
    Fail(HostError),
}

/// A stream.
pub(super) struct StreamState {
    /// Each with the tag that it was queued under.
    queue: VecDeque<(u64, Work)>,
    /// Waits for the default stream and is waited for by it.
    blocking: bool,
    /// The graph that its work is collected into.
    pub capturing: Option<u64>,
    /// Projected seconds since the machine was made.
    clock: f64,
    /// What the last piece of work, if it was a kernel, leaves to a dependent launch.
    prior: Prior,
}

impl StreamState {
    pub fn new(blocking: bool) -> Self {
        Self {
            queue: VecDeque::new(),
            blocking,
            capturing: None,
            clock: 0.0,
            prior: Prior::default(),
        }
    }

    pub fn clock(&self) -> f64 {
        self.clock
    }
}

/// An event.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct EventState {
    /// Times recorded, and the last record whose work is done.
    recorded: u64,
    done: u64,
    /// Projected time of that.
    at: f64,
    /// The graph whose capture recorded it last.
    captured: Option<u64>,
}

impl Machine {
    /// A new stream; `blocking` ones keep order with the default stream.
    ///
    /// # Errors
    /// If the context is lost.
    pub fn create_stream(&self, blocking: bool) -> HostResult<u64> {
        let mut state = self.state()?;
        let handle = state.handle();
        state.streams.insert(handle, StreamState::new(blocking));
        Ok(handle)
    }

    /// Destroys a stream once its work is done.
    ///
    /// # Errors
    /// If there is none of this handle, or its work fails.
    pub fn destroy_stream(&self, stream: u64) -> HostResult<()> {
        let mut state = self.state()?;
        state.drain(stream)?;
        match stream == 0 || state.streams.remove(&stream).is_none() {
            true => Err(HostError::handle("stream", stream)),
            false => Ok(()),
        }
    }

    /// Waits for a stream's work.
    ///
    /// # Errors
    /// What the work failed with.
    pub fn synchronize_stream(&self, stream: u64) -> HostResult<()> {
        let mut state = self.state()?;
        state.stream(stream)?;
        if state.streams.get(&stream).is_some_and(|s| s.capturing.is_some()) {
            let message = "waiting for a stream that captures";
            return Err(HostError::new(Code::CaptureUnsupported, message));
        }
        state.drain(stream)
    }

    /// Whether a stream has nothing left to do.
    ///
    /// # Errors
    /// If there is none of this handle.
    pub fn stream_idle(&self, stream: u64) -> HostResult<bool> {
        let mut state = self.state()?;
        Ok(state.stream(stream)?.queue.is_empty())
    }

    /// Queues a copy from host memory: the bytes are read when it runs if they are page-locked,
    /// else now.
    ///
    /// # Safety
    /// `from` must point to `bytes` readable bytes.
    ///
    /// # Errors
    /// If the stream captures and the memory is not page-locked.
    pub unsafe fn upload_async(
        &self,
        to: u64,
        from: *const u8,
        bytes: usize,
        stream: u64,
    ) -> HostResult<()> {
        let mut state = self.state()?;
        let address = from as usize;
        if state.is_pinned(address, bytes) {
            return state.submit(stream, Work::UploadPinned { to, from: address, bytes });
        }
        state.no_pageable(stream)?;
        // SAFETY: the caller's promise.
        let data: Arc<[u8]> = unsafe { std::slice::from_raw_parts(from, bytes) }.into();
        state.submit(stream, Work::Upload { to, data })
    }

    /// Queues a copy to page-locked host memory; a copy to other memory is done at once.
    ///
    /// # Safety
    /// `to` must point to `bytes` writable bytes.
    ///
    /// # Errors
    /// If the stream captures and the memory is not page-locked.
    pub unsafe fn download_async(
        &self,
        to: *mut u8,
        from: u64,
        bytes: usize,
        stream: u64,
    ) -> HostResult<()> {
        let mut state = self.state()?;
        let address = to as usize;
        if state.is_pinned(address, bytes) {
            return state.submit(stream, Work::DownloadPinned { to: address, from, bytes });
        }
        state.no_pageable(stream)?;
        state.drain(stream)?;
        // SAFETY: the caller's promise.
        let out = unsafe { std::slice::from_raw_parts_mut(to, bytes) };
        Ok(state.memory.read(from, out)?)
    }

    /// Queues a copy within device memory.
    ///
    /// # Errors
    /// If there is no such stream.
    pub fn copy_async(&self, to: u64, from: u64, bytes: u64, stream: u64) -> HostResult<()> {
        self.state()?.submit(stream, Work::Copy { to, from, bytes })
    }

    /// Queues filling `count` elements of 1, 2 or 4 bytes.
    ///
    /// # Errors
    /// If there is no such stream.
    pub fn fill_async(
        &self,
        to: u64,
        value: u32,
        width: u32,
        count: u64,
        stream: u64,
    ) -> HostResult<()> {
        self.state()?.submit(stream, Work::Fill { to, value, width, count })
    }

    /// A new event.
    ///
    /// # Errors
    /// If the context is lost.
    pub fn create_event(&self) -> HostResult<u64> {
        let mut state = self.state()?;
        let handle = state.handle();
        state.events.insert(handle, EventState::default());
        Ok(handle)
    }

    /// Destroys an event.
    ///
    /// # Errors
    /// If there is none of this handle.
    pub fn destroy_event(&self, event: u64) -> HostResult<()> {
        let removed = self.state()?.events.remove(&event);
        removed.map(|_| ()).ok_or(HostError::handle("event", event))
    }

    /// Marks the present end of a stream.
    ///
    /// # Errors
    /// If there is no such event or stream.
    pub fn record(&self, event: u64, stream: u64) -> HostResult<()> {
        let mut state = self.state()?;
        let capturing = state.stream(stream)?.capturing;
        let e = state.event(event)?;
        e.captured = capturing;
        if capturing.is_some() {
            return Ok(());
        }
        e.recorded += 1;
        let version = e.recorded;
        state.submit(stream, Work::Record { event, version })
    }

    /// Lets a stream's further work wait for the event's last record. Waiting for an event that a
    /// capture recorded draws the stream into that capture.
    ///
    /// # Errors
    /// If there is no such event or stream.
    pub fn wait(&self, stream: u64, event: u64) -> HostResult<()> {
        let mut state = self.state()?;
        let e = *state.event(event)?;
        let s = state.stream(stream)?;
        if e.captured.is_some() {
            s.capturing = e.captured;
            return Ok(());
        }
        if s.capturing.is_some() {
            let message = "a capturing stream waits for an event outside the capture";
            return Err(HostError::new(Code::CaptureUnsupported, message));
        }
        if e.recorded == 0 {
            return Ok(());
        }
        state.submit(stream, Work::Wait { event, version: e.recorded })
    }

    /// Whether the work before the event's last record is done.
    ///
    /// # Errors
    /// If there is no such event.
    pub fn event_done(&self, event: u64) -> HostResult<bool> {
        let mut state = self.state()?;
        let e = state.event(event)?;
        Ok(e.done >= e.recorded)
    }

    /// Waits for the event's last record.
    ///
    /// # Errors
    /// What the work failed with.
    pub fn synchronize_event(&self, event: u64) -> HostResult<()> {
        let mut state = self.state()?;
        let version = state.event(event)?.recorded;
        state.reach(event, version)
    }

    /// Projected milliseconds between two events.
    ///
    /// # Errors
    /// [`Code::NotReady`] if one is not done, [`Code::InvalidHandle`] if one was never recorded.
    pub fn elapsed(&self, from: u64, to: u64) -> HostResult<f32> {
        let mut state = self.state()?;
        let (a, b) = (*state.event(from)?, *state.event(to)?);
        if a.recorded == 0 || b.recorded == 0 {
            return Err(HostError::new(Code::InvalidHandle, "an event was never recorded"));
        }
        if a.done < a.recorded || b.done < b.recorded {
            return Err(HostError::new(Code::NotReady, "an event is not done"));
        }
        Ok(((b.at - a.at) * 1e3) as f32)
    }
}

impl State {
    pub fn stream(&mut self, stream: u64) -> HostResult<&mut StreamState> {
        self.streams.get_mut(&stream).ok_or(HostError::handle("stream", stream))
    }

    fn event(&mut self, event: u64) -> HostResult<&mut EventState> {
        self.events.get_mut(&event).ok_or(HostError::handle("event", event))
    }

    fn is_pinned(&self, address: usize, bytes: usize) -> bool {
        let before = self.pinned.range(..=address).next_back();
        before.is_some_and(|(base, words)| address + bytes <= base + words.len() * 8)
    }

    fn no_pageable(&mut self, stream: u64) -> HostResult<()> {
        match self.stream(stream)?.capturing {
            None => Ok(()),
            Some(_) => Err(HostError::new(
                Code::CaptureUnsupported,
                "a captured copy needs page-locked host memory",
            )),
        }
    }

    /// Queues work, or adds it to the graph that the stream is captured into.
    pub fn submit(&mut self, stream: u64, work: Work) -> HostResult<()> {
        let s = self.stream(stream)?;
        let (blocking, capturing) = (s.blocking, s.capturing);
        if let Some(graph) = capturing {
            return self.collect(graph, work);
        }
        if stream == 0 {
            let others: Vec<u64> =
                self.streams.iter().filter(|(_, s)| s.blocking).map(id).collect();
            others.into_iter().filter(|s| *s != 0).try_for_each(|s| self.drain(s))?;
        } else if blocking {
            self.drain(0)?;
        }
        let tag = self.log.tag;
        let s = self.stream(stream)?;
        s.queue.push_back((tag, work));
        if s.queue.len() > LONGEST_QUEUE { self.drain(stream) } else { Ok(()) }
    }

    /// Runs all of a stream's work.
    pub fn drain(&mut self, stream: u64) -> HostResult<()> {
        while let Some((tag, work)) = self.stream(stream)?.queue.pop_front() {
            self.perform(stream, work, tag)?;
        }
        Ok(())
    }

    /// Runs the default stream's work, and that of streams that it waits for.
    pub fn drain_default(&mut self) -> HostResult<()> {
        let blocking: Vec<u64> = self.streams.iter().filter(|(_, s)| s.blocking).map(id).collect();
        blocking.into_iter().try_for_each(|stream| self.drain(stream))
    }

    /// Runs all work.
    pub fn drain_all(&mut self) -> HostResult<()> {
        let all: Vec<u64> = self.streams.iter().map(id).collect();
        all.into_iter().try_for_each(|stream| self.drain(stream))
    }

    /// Runs work until the event's record of that version is done.
    fn reach(&mut self, event: u64, version: u64) -> HostResult<()> {
        // A destroyed event's records are still carried out, but nobody can ask for them.
        while self.events.get(&event).is_some_and(|e| e.done < version) {
            let holds = |s: &StreamState| {
                let is = |w: &(u64, Work)| {
                    matches!(&w.1, Work::Record { event: e, version: v }
                    if *e == event && *v <= version)
                };
                s.queue.iter().any(is)
            };
            let found = self.streams.iter().find(|(_, s)| holds(s)).map(id);
            let Some(stream) = found else { return Ok(()) };
            if let Some((tag, work)) = self.stream(stream)?.queue.pop_front() {
                self.perform(stream, work, tag)?;
            }
        }
        Ok(())
    }

    /// Runs one piece of work; a sticky failure loses the context.
    fn perform(&mut self, stream: u64, work: Work, tag: u64) -> HostResult<()> {
        let done = self.run_noted(stream, work, (tag, 0));
        if let Err(error) = &done {
            // Work that fails after it was queued leaves what follows undefined, as on a card.
            self.lost = Some(error.clone());
        }
        done
    }

    /// Runs work that was queued under a tag, as a graph's node or on its own (0).
    fn run_noted(&mut self, stream: u64, work: Work, origin: (u64, u64)) -> HostResult<()> {
        if let Work::Graph(nodes) = work {
            let mut each = nodes.iter();
            return each
                .try_for_each(|n| self.run_noted(stream, n.work.clone(), (origin.0, n.handle)));
        }
        let noted = self.log.on.then(|| work.clone());
        let from = self.stream(stream)?.clock;
        self.run(stream, work)?;
        if let Some(work) = noted {
            self.note(stream, &work, origin, from);
        }
        Ok(())
    }

    fn run(&mut self, stream: u64, work: Work) -> HostResult<()> {
        // Whatever is no kernel waits for the kernel before it.
        let kernels = matches!(work, Work::Launch(_) | Work::Graph(_));
        let prior = std::mem::take(&mut self.stream(stream)?.prior);
        if kernels {
            self.stream(stream)?.prior = prior;
        }
        match work {
            Work::Upload { to, data } => self.memory.write(to, &data)?,
            Work::UploadPinned { to, from, bytes } => {
                if !self.is_pinned(from, bytes) {
                    return Err(HostError::invalid("page-locked memory was freed before its copy"));
                }
                // SAFETY: inside live page-locked memory, which the machine owns.
                let data = unsafe { std::slice::from_raw_parts(from as *const u8, bytes) };
                self.memory.write(to, data)?;
            }
            Work::DownloadPinned { to, from, bytes } => {
                if !self.is_pinned(to, bytes) {
                    return Err(HostError::invalid("page-locked memory was freed before its copy"));
                }
                // SAFETY: as above.
                let out = unsafe { std::slice::from_raw_parts_mut(to as *mut u8, bytes) };
                self.memory.read(from, out)?;
            }
            Work::Copy { to, from, bytes } => {
                let mut data = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX).min(1 << 40)];
                self.memory.read(from, &mut data)?;
                self.memory.write(to, &data)?;
            }
            Work::Fill { to, value, width, count } => {
                let element = &value.to_le_bytes()[..width.clamp(1, 4) as usize];
                self.memory.write(to, &element.repeat(count as usize))?;
            }
            Work::Launch(queued) => {
                let prior = std::mem::take(&mut self.stream(stream)?.prior);
                let (seconds, prior) = self.run_kernel(&queued, &prior)?;
                let s = self.stream(stream)?;
                (s.clock, s.prior) = (s.clock + seconds, prior);
            }
            Work::Graph(nodes) => {
                nodes.iter().try_for_each(|n| self.run(stream, n.work.clone()))?;
            }
            Work::Record { event, version } => {
                let at = self.stream(stream)?.clock;
                if let Some(e) = self.events.get_mut(&event) {
                    (e.done, e.at) = (version, at);
                }
            }
            Work::Wait { event, version } => {
                self.reach(event, version)?;
                let at = self.events.get(&event).map_or(0.0, |e| e.at);
                let s = self.stream(stream)?;
                s.clock = s.clock.max(at);
            }
            Work::Fail(error) => return Err(error),
        }
        Ok(())
    }
}

fn id<T>((handle, _): (&u64, &T)) -> u64 {
    *handle
}
