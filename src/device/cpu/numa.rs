//! Memory nodes of machines with several: where threads run, and where what they touch lies.
//!
//! A node's processors read its own memory faster than that of others, and each node has memory
//! channels of its own. Weights are read whole every step, so either all nodes' channels work
//! ([`Numa::Distribute`]) or one node keeps to itself and leaves the others to somebody else
//! ([`Numa::Isolate`]). The names are those of llama.cpp's `--numa`.

use std::path::Path;
use std::str::FromStr;

use super::affinity::{self, CpuSet};
use crate::error::{Error, Result};

/// Where the kernel tells of nodes.
const NODES: &str = "/sys/devices/system/node";
/// Nodes that can be named: one word of a mask.
const MOST: usize = 64;

/// What is done about memory nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numa {
    /// Threads on all nodes in turn, one processor each; memory over these nodes, page by page.
    Distribute,
    /// Threads and memory on the node that this process runs on.
    Isolate,
}

impl FromStr for Numa {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "distribute" => Ok(Numa::Distribute),
            "isolate" => Ok(Numa::Isolate),
            _ => Err("expected distribute or isolate".into()),
        }
    }
}

/// A node and those of its processors that this process may use.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Node {
    number: usize,
    cpus: Vec<usize>,
}

/// Processors of threads, and the nodes that their memory comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// One for each thread.
    pub cpus: Vec<usize>,
    nodes: Vec<usize>,
    numa: Numa,
}

impl Placement {
    /// For `threads` threads; `None`: one for each processor.
    ///
    /// # Errors
    /// If the system tells of no nodes, or there are fewer processors than threads.
    pub fn new(numa: Numa, threads: Option<usize>) -> Result<Placement> {
        let nodes = nodes(Path::new(NODES));
        let here = affinity::current();
        plan(numa, threads, &nodes, here)
    }

    /// Has what this thread touches from now on, and threads that it starts, taken from the nodes.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn apply(&self) -> Result<()> {
        let mask = self.nodes.iter().fold(0u64, |mask, node| mask | 1 << node);
        set_memory_policy(self.numa, mask)
            .map_err(|why| Error::device(format!("--numa: memory cannot be placed: {why}")))
    }
}

fn plan(
    numa: Numa,
    threads: Option<usize>,
    nodes: &[Node],
    here: Option<usize>,
) -> Result<Placement> {
    let all = nodes.iter().filter(|node| !node.cpus.is_empty());
    let nodes: Vec<&Node> = match numa {
        Numa::Distribute => all.collect(),
        Numa::Isolate => all.filter(|node| here.is_some_and(|h| node.cpus.contains(&h))).collect(),
    };
    if nodes.is_empty() {
        return Err(Error::usage("--numa: this system tells of no memory nodes; leave it out"));
    }
    let most = nodes.iter().map(|node| node.cpus.len()).max().unwrap_or(0);
    let in_turn = (0..most).flat_map(|i| nodes.iter().filter_map(move |node| node.cpus.get(i)));
    let mut cpus: Vec<usize> = in_turn.copied().collect();
    if let Some(threads) = threads {
        if cpus.len() < threads {
            return Err(Error::usage(format!(
                "--numa: {} processors for {threads} threads; lower --threads",
                cpus.len()
            )));
        }
        cpus.truncate(threads);
    }
    // A thread's neighbour shares its node: with neighbouring parts of a matrix.
    let of = |cpu: &usize| nodes.iter().position(|node| node.cpus.contains(cpu));
    cpus.sort_by_key(|cpu| (of(cpu), *cpu));
    let numbers = nodes.iter().map(|node| node.number).collect();
    Ok(Placement { cpus, nodes: numbers, numa })
}

/// The nodes with memory, in order; none where the system does not tell.
fn nodes(root: &Path) -> Vec<Node> {
    let list = |file: &str| {
        let text = std::fs::read_to_string(root.join(file)).ok()?;
        text.trim().parse::<CpuSet>().ok()
    };
    let with_memory = list("has_memory").unwrap_or_default();
    let allowed = affinity::allowed();
    let may = |cpu: &usize| allowed.is_none_or(|set| set.contains(*cpu));
    let node = |number: usize| {
        let cpus = list(&format!("node{number}/cpulist")).unwrap_or_default();
        Node { number, cpus: cpus.iter().filter(may).collect() }
    };
    with_memory.iter().filter(|number| *number < MOST).map(node).collect()
}

/// `set_mempolicy(2)`.
#[cfg(target_os = "linux")]
fn set_memory_policy(numa: Numa, mask: u64) -> std::io::Result<()> {
    let mode = match numa {
        Numa::Distribute => libc::MPOL_INTERLEAVE,
        Numa::Isolate => libc::MPOL_PREFERRED,
    };
    // SAFETY: the mask is a word that lives during the call, and as long as said; the kernel reads
    // one bit less than it is told.
    let done = unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, &raw const mask, MOST + 1) };
    if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

#[cfg(not(target_os = "linux"))]
fn set_memory_policy(_: Numa, _: u64) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> Vec<Node> {
        vec![Node { number: 0, cpus: vec![0, 1, 4, 5] }, Node { number: 2, cpus: vec![2, 3, 6] }]
    }

    fn cpus(numa: Numa, threads: Option<usize>, here: usize) -> Vec<usize> {
        plan(numa, threads, &two(), Some(here)).unwrap().cpus
    }

    #[test]
    fn threads_go_to_all_nodes_in_turn_or_to_one() {
        assert_eq!(cpus(Numa::Distribute, Some(4), 0), [0, 1, 2, 3]);
        assert_eq!(cpus(Numa::Distribute, Some(3), 0), [0, 1, 2], "two and one");
        assert_eq!(cpus(Numa::Distribute, None, 0), [0, 1, 4, 5, 2, 3, 6]);
        assert_eq!(cpus(Numa::Isolate, None, 3), [2, 3, 6]);
        assert_eq!(cpus(Numa::Isolate, Some(1), 5), [0]);
        assert_eq!(plan(Numa::Distribute, None, &two(), None).unwrap().nodes, [0, 2]);
        let few = plan(Numa::Isolate, Some(4), &two(), Some(2)).unwrap_err();
        assert!(few.message.contains("3 processors for 4 threads"), "{}", few.message);
        assert!(plan(Numa::Distribute, None, &[], Some(0)).is_err());
        assert!(plan(Numa::Isolate, None, &two(), None).is_err());
    }

    #[test]
    fn nodes_are_read_from_the_system_s_files() {
        let root = std::env::temp_dir().join(format!("pacer-nodes-{}", std::process::id()));
        let allowed: Vec<usize> = affinity::allowed().iter().flat_map(CpuSet::iter).collect();
        let Some(first) = allowed.first() else { return };
        std::fs::create_dir_all(root.join("node0")).unwrap();
        std::fs::create_dir_all(root.join("node3")).unwrap();
        std::fs::write(root.join("has_memory"), "0,3\n").unwrap();
        std::fs::write(root.join("node0/cpulist"), format!("{first}\n")).unwrap();
        std::fs::write(root.join("node3/cpulist"), "\n").unwrap();
        let found = nodes(&root);
        std::fs::remove_dir_all(&root).unwrap();
        let node = |number, cpus| Node { number, cpus };
        assert_eq!(found, [node(0, vec![*first]), node(3, vec![])], "a node may have memory only");
        assert_eq!(nodes(Path::new("/nowhere")), []);
    }

    /// What the kernel says of the memory policy of a thread's pages.
    #[test]
    #[cfg(target_os = "linux")]
    fn memory_is_interleaved_over_the_nodes() {
        let Ok(placement) = Placement::new(Numa::Distribute, Some(1)) else { return };
        let maps = std::thread::spawn(move || {
            // Some containers forbid it; then that must be said.
            if let Err(why) = placement.apply() {
                return Err(why.message);
            }
            let block = vec![1u8; 8 << 20];
            let maps = std::fs::read_to_string("/proc/thread-self/numa_maps");
            drop(block);
            maps.map_err(|why| why.to_string())
        });
        match maps.join().unwrap() {
            Ok(maps) => assert!(maps.contains(" interleave"), "{maps}"),
            Err(why) => assert!(!why.is_empty()),
        }
    }
}
