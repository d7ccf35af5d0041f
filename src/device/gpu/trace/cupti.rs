//! CUPTI's records as spans of steps and ops.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{Node, Queued, lock};
use crate::device::gpu::driver::Result as DriverResult;
use crate::error::Result;
use crate::profile::cupti::api::Api;
use crate::profile::cupti::{Activity, Collector, Joined};
use crate::profile::gpu::{GRAPH, GpuSpan, GpuWork, Owner, Taken, UNKNOWN};

/// A step's records are asked for after at most so long.
const FLUSH: Duration = Duration::from_millis(250);

/// CUPTI in use.
pub struct Cupti {
    collector: Collector,
    graphs: Arc<Mutex<Vec<Vec<Node>>>>,
    names: Vec<Arc<str>>,
    flushed: Arc<Mutex<Instant>>,
    /// How many kernels of each graph launch have come, by correlation id.
    replayed: HashMap<u32, usize>,
}

impl Cupti {
    /// CUPTI, collecting, and what it is.
    ///
    /// # Errors
    /// Why it is not to be had.
    pub fn start(
        places: &[PathBuf],
        graphs: Arc<Mutex<Vec<Vec<Node>>>>,
    ) -> Result<(Cupti, String)> {
        let mut collector = Collector::start(places)?;
        for node in lock(&graphs).iter().flatten() {
            collector.graph_node(node.handle, node.owner.into());
        }
        let api = collector.api();
        let (major, minor) = (api.version / 10_000, api.version % 10_000);
        let source = format!("CUPTI {major}.{minor} ({})", api.path.display());
        let flushed = Arc::new(Mutex::new(Instant::now()));
        let replayed = HashMap::new();
        Ok((Cupti { collector, graphs, names: Vec::new(), flushed, replayed }, source))
    }

    pub fn step(&self, step: u32) -> Pushes {
        let (api, flushed) = (Arc::clone(self.collector.api()), Arc::clone(&self.flushed));
        Pushes { api, step, flushed }
    }

    pub fn take(&mut self, last: bool) -> Taken {
        let taken = match self.collector.take(last) {
            Ok(taken) => taken,
            Err(error) => {
                return Taken { trouble: Some(error.message), ..Taken::default() };
            }
        };
        let mut records = taken.records;
        // Kernels of a launch come in the order in which they end, which in a stream is that in
        // which they begin.
        records.sort_by_key(|r| begin(&r.activity));
        let spans = records.iter().filter_map(|r| self.span(r)).collect();
        Taken { spans, dropped: taken.dropped, unknown: taken.unknown, trouble: None }
    }

    fn span(&mut self, joined: &Joined) -> Option<GpuSpan> {
        let (span, work) = match joined.activity {
            Activity::Kernel(k) => {
                let name = self.name(joined.name);
                let (grid, block) = (k.grid, k.block);
                let (registers, shared) = (k.registers.into(), k.shared);
                (k.span, GpuWork::Kernel { name, grid, block, registers, shared })
            }
            Activity::Memory { set: true, bytes, span, .. } => (span, GpuWork::Set { bytes }),
            Activity::Memory { direction, bytes, span, .. } => {
                (span, GpuWork::Copy { bytes, to_host: direction == TO_HOST })
            }
            Activity::Sync { span } => (span, GpuWork::Wait),
            // Calls of others, and those that queue nothing, are not told.
            Activity::Call { span } if joined.launch.is_some() => (span, GpuWork::Launch),
            _ => return None,
        };
        let launch = joined.launch.unwrap_or(u64::from(UNKNOWN));
        let (step, mut owner) = ((launch >> 32) as u32, launch as Owner);
        if let (Activity::Kernel(k), true) = (&joined.activity, (GRAPH..UNKNOWN).contains(&owner)) {
            let index = (owner - GRAPH) as usize;
            let node = joined.node.map(|owner| owner as Owner);
            owner = self.of_graph(index, k.span.correlation, node, joined.name).unwrap_or(owner);
        }
        let (stream, correlation) = (span.stream, span.correlation);
        let (start_ns, end_ns) = (span.start_ns, span.end_ns.max(span.start_ns));
        Some(GpuSpan { work, step, owner, stream, correlation, start_ns, end_ns })
    }

    /// The owner of the next kernel of a launch of graph `index`: by its node, or, since a card
    /// may number the nodes of a launchable graph anew, by its place among the graph's kernels
    /// if it has the name that belongs there.
    fn of_graph(
        &mut self,
        index: usize,
        correlation: u32,
        node: Option<Owner>,
        name: u32,
    ) -> Option<Owner> {
        let place = self.replayed.entry(correlation).or_default();
        let at = *place;
        *place += 1;
        let graphs = lock(&self.graphs);
        let nodes = graphs.get(index)?;
        if at + 1 >= nodes.len() {
            self.replayed.remove(&correlation);
        }
        if node.is_some() {
            return node;
        }
        let known = self.collector.texts.get(name as usize)?;
        nodes.get(at).filter(|n| n.kernel == known).map(|n| n.owner)
    }

    fn name(&mut self, number: u32) -> Arc<str> {
        for text in self.collector.texts.get(self.names.len()..).unwrap_or_default() {
            self.names.push(text.as_str().into());
        }
        self.names.get(number as usize).cloned().unwrap_or_else(|| "unnamed kernel".into())
    }
}

/// `CUPTI_ACTIVITY_MEMCPY_KIND_DTOH`.
const TO_HOST: u8 = 2;

fn begin(activity: &Activity) -> u64 {
    match activity {
        Activity::Kernel(k) => k.span.start_ns,
        Activity::Memory { span, .. } | Activity::Sync { span } | Activity::Call { span } => {
            span.start_ns
        }
        Activity::External { .. } | Activity::Other(_) => 0,
    }
}

/// Tells CUPTI whose each launch of a step is.
pub struct Pushes {
    api: Arc<Api>,
    step: u32,
    flushed: Arc<Mutex<Instant>>,
}

impl Pushes {
    pub fn around(
        &self,
        owner: Owner,
        what: Queued<'_>,
        queue: &mut dyn FnMut() -> DriverResult<()>,
    ) -> DriverResult<()> {
        let owner = match what {
            Queued::Graph(index) => GRAPH + index as Owner,
            _ => owner,
        };
        self.api.push(u64::from(self.step) << 32 | u64::from(owner));
        let queued = queue();
        self.api.pop();
        queued
    }

    /// All is done, so that all records are complete: now and then they are asked for, and those
    /// of a long capture do not pile up.
    pub fn finish(self) {
        let mut flushed = lock(&self.flushed);
        if flushed.elapsed() > FLUSH {
            *flushed = Instant::now();
            self.api.flush(true);
        }
    }
}
