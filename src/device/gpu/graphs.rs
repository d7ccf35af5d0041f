//! CUDA graphs of decode steps: one for each of a few batch sizes, captured when the model is
//! loaded. A step of another size is padded to the next one; padding rows read and write nothing
//! that another row sees.

use std::sync::Arc;

use super::driver::{Driver, GraphExec, Result as DriverResult, Stream};
use super::inputs::Counts;
use super::trace::Node;
use crate::error::Result;

/// A captured step.
pub struct Captured {
    /// Sequences of a step, and tokens that the longest may have.
    pub size: usize,
    pub depth: usize,
    exec: GraphExec,
    /// Each kernel node with the op of the plan that it belongs to.
    pub nodes: Vec<Node>,
}

/// All captured steps, by size.
pub struct Graphs {
    driver: Arc<dyn Driver>,
    pub list: Vec<Captured>,
}

/// Batch sizes to capture: powers of two up to 8, then every 8, up to `most`.
pub fn sizes(most: usize) -> Vec<usize> {
    let small = [1, 2, 4].into_iter().filter(|s| *s < most);
    let steps = (8..most).step_by(8);
    small.chain(steps).chain((most > 0).then_some(most)).collect()
}

/// What the kernels of a captured step of that size count with: every sequence of `depth` tokens,
/// so that enough splits are launched for any.
pub fn counts(size: usize, depth: usize) -> Counts {
    let size = size as u32;
    Counts {
        tokens: size,
        logits: size,
        spans: size,
        decodes: size,
        decode_deepest: depth as u32,
        tiles: 0,
        longest: 1,
        cached: u64::from(size) * depth as u64,
    }
}

impl Graphs {
    pub fn new(driver: Arc<dyn Driver>) -> Self {
        Graphs { driver, list: Vec::new() }
    }

    /// Captures what `launch` queues for a step of `size` sequences.
    ///
    /// # Errors
    /// If a launch is refused; the capture is ended then.
    pub fn capture(
        &mut self,
        (size, depth): (usize, usize),
        stream: Stream,
        launch: &mut dyn FnMut(&mut Vec<Node>) -> Result<()>,
    ) -> Result<()> {
        let mut nodes = Vec::new();
        self.driver.begin_capture(stream)?;
        let launched = launch(&mut nodes);
        let graph = self.driver.end_capture(stream);
        launched?;
        let graph = graph?;
        let exec = self.driver.instantiate(graph);
        self.driver.destroy_graph(graph)?;
        self.list.push(Captured { size, depth, exec: exec?, nodes });
        Ok(())
    }

    /// The smallest captured step that holds `sequences`, the longest of `deepest` tokens, and its
    /// number.
    pub fn find(&self, sequences: usize, deepest: usize) -> Option<(usize, &Captured)> {
        let holds = |c: &Captured| c.size >= sequences && c.depth >= deepest;
        self.list.iter().enumerate().find(|(_, c)| holds(c))
    }

    /// Queues a captured step.
    ///
    /// # Errors
    /// If the driver refuses it.
    pub fn launch(&self, captured: &Captured, stream: Stream) -> DriverResult<()> {
        self.driver.launch_graph(captured.exec, stream)
    }
}

impl Drop for Graphs {
    fn drop(&mut self) {
        for captured in &self.list {
            // A lost context fails here too; the driver frees it with the process.
            let _ = self.driver.destroy_exec(captured.exec);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_end_at_the_largest_batch() {
        assert_eq!(sizes(1), [1]);
        assert_eq!(sizes(4), [1, 2, 4]);
        assert_eq!(sizes(6), [1, 2, 4, 6]);
        assert_eq!(sizes(20), [1, 2, 4, 8, 16, 20]);
        assert_eq!(sizes(24), [1, 2, 4, 8, 16, 24]);
        assert!(sizes(0).is_empty());
    }
}
