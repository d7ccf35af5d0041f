//! Graphs: a stream's work collected instead of run, and run again and again.

use std::sync::Arc;

use super::error::{Code, HostError, HostResult};
use super::machine::{Machine, State};
use super::stream::Work;

/// A node as the machine keeps it.
#[derive(Clone)]
pub(super) struct NodeState {
    pub handle: u64,
    pub work: Work,
}

/// A graph, perhaps still being captured.
#[derive(Default)]
pub(super) struct GraphState {
    nodes: Vec<NodeState>,
    /// The stream whose capture began it, until that ends.
    origin: Option<u64>,
}

/// A graph that can be launched.
pub(super) type Exec = Arc<[NodeState]>;

/// What a node does.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum NodeWork {
    Kernel(String),
    Copy,
    Fill,
}

/// A node as callers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub handle: u64,
    pub work: NodeWork,
}

impl Machine {
    /// Starts collecting a stream's work.
    ///
    /// # Errors
    /// For the default stream, and one that captures already.
    pub fn begin_capture(&self, stream: u64) -> HostResult<()> {
        let mut state = self.state()?;
        let handle = state.handle();
        let s = state.stream(stream)?;
        if stream == 0 || s.capturing.is_some() {
            let message = "the default stream, or one that captures already, cannot capture";
            return Err(HostError::new(Code::CaptureUnsupported, message));
        }
        s.capturing = Some(handle);
        state.graphs.insert(handle, GraphState { nodes: Vec::new(), origin: Some(stream) });
        Ok(())
    }

    /// The graph that a stream is captured into.
    ///
    /// # Errors
    /// If there is no such stream.
    pub fn capturing(&self, stream: u64) -> HostResult<Option<u64>> {
        Ok(self.state()?.stream(stream)?.capturing)
    }

    /// Ends the capture that began at `stream`.
    ///
    /// # Errors
    /// If none began there.
    pub fn end_capture(&self, stream: u64) -> HostResult<u64> {
        let mut state = self.state()?;
        let Some(graph) = state.stream(stream)?.capturing else {
            return Err(HostError::new(Code::IllegalState, "the stream captures nothing"));
        };
        match state.graphs.get_mut(&graph) {
            Some(g) if g.origin == Some(stream) => g.origin = None,
            _ => {
                let message = "the capture began at another stream";
                return Err(HostError::new(Code::CaptureInvalidated, message));
            }
        }
        for s in state.streams.values_mut().filter(|s| s.capturing == Some(graph)) {
            s.capturing = None;
        }
        Ok(graph)
    }

    /// The nodes of a graph in the order that they run in.
    ///
    /// # Errors
    /// If there is no such graph.
    pub fn nodes(&self, graph: u64) -> HostResult<Vec<Node>> {
        let state = self.state()?;
        let graph = state.graphs.get(&graph).ok_or(HostError::handle("graph", graph))?;
        Ok(graph.nodes.iter().map(node).collect())
    }

    /// A node of any graph, with the function that a kernel node launches.
    ///
    /// # Errors
    /// If no graph has it.
    pub fn node(&self, handle: u64) -> HostResult<(Node, Option<u64>)> {
        let state = self.state()?;
        let all = state.graphs.values().flat_map(|g| &g.nodes);
        let found = all.into_iter().find(|n| n.handle == handle);
        let found = found.ok_or(HostError::handle("graph node", handle))?;
        let function = match &found.work {
            Work::Launch(queued) => Some(queued.launch.function),
            _ => None,
        };
        Ok((node(found), function))
    }

    /// Makes a graph launchable; later changes of the graph do not reach it.
    ///
    /// # Errors
    /// If there is no such graph, or its capture has not ended.
    pub fn instantiate(&self, graph: u64) -> HostResult<u64> {
        let mut state = self.state()?;
        let g = state.graphs.get(&graph).ok_or(HostError::handle("graph", graph))?;
        if g.origin.is_some() {
            return Err(HostError::invalid("the graph is still being captured"));
        }
        let exec: Exec = g.nodes.clone().into();
        let handle = state.handle();
        state.execs.insert(handle, exec);
        Ok(handle)
    }

    /// Queues all nodes of a graph.
    ///
    /// # Errors
    /// If there is no such graph or stream.
    pub fn launch_graph(&self, exec: u64, stream: u64) -> HostResult<()> {
        let mut state = self.state()?;
        let exec = state.execs.get(&exec).cloned().ok_or(HostError::handle("graph", exec))?;
        let kernels = exec.iter().filter(|n| matches!(n.work, Work::Launch(_))).count() as u64;
        let before = state.launches;
        state.launches += kernels;
        if let Some((count, code)) = self.config().faults.launch
            && (before + 1..=before + kernels).contains(&count)
        {
            let error = HostError::new(code, "a planted fault in a graph");
            return match code.is_sticky() {
                true => state.submit(stream, Work::Fail(error)),
                false => Err(error),
            };
        }
        state.submit(stream, Work::Graph(exec))
    }

    /// Destroys a graph; what was instantiated of it stays.
    ///
    /// # Errors
    /// If there is no such graph.
    pub fn destroy_graph(&self, graph: u64) -> HostResult<()> {
        let removed = self.state()?.graphs.remove(&graph);
        removed.map(|_| ()).ok_or(HostError::handle("graph", graph))
    }

    /// Destroys a launchable graph; launches of it that are queued still run.
    ///
    /// # Errors
    /// If there is no such graph.
    pub fn destroy_exec(&self, exec: u64) -> HostResult<()> {
        let removed = self.state()?.execs.remove(&exec);
        removed.map(|_| ()).ok_or(HostError::handle("graph", exec))
    }
}

impl State {
    /// Adds captured work to a graph.
    pub fn collect(&mut self, graph: u64, work: Work) -> HostResult<()> {
        let handle = self.handle();
        let g = self.graphs.get_mut(&graph).ok_or(HostError::handle("graph", graph))?;
        g.nodes.push(NodeState { handle, work });
        Ok(())
    }
}

fn node(state: &NodeState) -> Node {
    let work = match &state.work {
        Work::Launch(queued) => NodeWork::Kernel(queued.name().to_string()),
        Work::Fill { .. } => NodeWork::Fill,
        _ => NodeWork::Copy,
    };
    Node { handle: state.handle, work }
}
