//! What has run: a list that profilers read, kept only while somebody asks for it.

use super::error::HostResult;
use super::machine::{Machine, State};
use super::stream::Work;

/// What a piece of work did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum RanWork {
    Kernel {
        name: String,
        grid: [u32; 3],
        block: [u32; 3],
        shared: u32,
    },
    /// To the host, from it, or within the device.
    Copy {
        bytes: u64,
        direction: Direction,
    },
    Fill {
        bytes: u64,
    },
}

/// Where a copy goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Direction {
    ToDevice,
    ToHost,
    Within,
}

/// A piece of work that has run.
#[derive(Debug, Clone, PartialEq)]
pub struct Ran {
    /// What it did.
    pub work: RanWork,
    /// What [`Machine::tag`] said when it was queued.
    pub tag: u64,
    /// The graph node it ran as; 0 outside graphs.
    pub node: u64,
    /// Its stream.
    pub stream: u64,
    /// Projected seconds on the stream's clock.
    pub from: f64,
    /// Its end on the same clock. Copies and fills have no projected duration.
    pub to: f64,
}

/// The list, and what it is written with.
#[derive(Default)]
pub(super) struct Log {
    pub on: bool,
    pub tag: u64,
    ran: Vec<Ran>,
}

/// Entries kept at most; later ones are forgotten.
const MOST: usize = 1 << 20;

impl Machine {
    /// Keeps a list of what runs from now on, or stops and forgets it.
    pub fn log(&self, on: bool) {
        let mut state = self.any_state();
        state.log.on = on;
        state.log.ran.clear();
    }

    /// Marks the work that is queued from now on.
    pub fn tag(&self, tag: u64) {
        self.any_state().log.tag = tag;
    }

    /// What has run since last asked.
    ///
    /// # Errors
    /// If the context is lost.
    pub fn ran(&self) -> HostResult<Vec<Ran>> {
        Ok(std::mem::take(&mut self.state()?.log.ran))
    }
}

impl State {
    /// Notes work that ran on `stream` from the clock's time `from` on.
    pub fn note(&mut self, stream: u64, work: &Work, (tag, node): (u64, u64), from: f64) {
        if !self.log.on || self.log.ran.len() >= MOST {
            return;
        }
        let copy = |bytes, direction| RanWork::Copy { bytes, direction };
        let work = match work {
            Work::Upload { data, .. } => copy(data.len() as u64, Direction::ToDevice),
            Work::UploadPinned { bytes, .. } => copy(*bytes as u64, Direction::ToDevice),
            Work::DownloadPinned { bytes, .. } => copy(*bytes as u64, Direction::ToHost),
            Work::Copy { bytes, .. } => copy(*bytes, Direction::Within),
            Work::Fill { width, count, .. } => RanWork::Fill { bytes: u64::from(*width) * count },
            Work::Launch(queued) => RanWork::Kernel {
                name: queued.name().to_owned(),
                grid: queued.launch.grid,
                block: queued.launch.block,
                shared: queued.launch.shared_bytes,
            },
            Work::Graph(_) | Work::Record { .. } | Work::Wait { .. } | Work::Fail(_) => return,
        };
        let to = self.stream(stream).map_or(from, |s| s.clock());
        self.log.ran.push(Ran { work, tag, node, stream, from, to });
    }
}
