//! Who touched memory last: the records that races are found by.
//!
//! Every thread counts epochs; the count goes up at each event by which others may learn of what
//! the thread did. An access is ordered before a thread's present if the thread's clock knows the
//! epoch of the access (the vector clocks of Flanagan and Freund, "FastTrack", 2009, with a
//! bounded number of readers kept).

use super::reach::Reach;

/// Ways to memory that see what threads wrote only after a fence of theirs (PTX ISA, proxies).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Proxy {
    /// Asynchronous copies, and wgmma, at shared memory.
    AsyncShared,
    /// Asynchronous copies at global memory.
    AsyncGlobal,
    /// Reads of tensor maps.
    TensorMap,
}

impl Proxy {
    pub const ALL: [Self; 3] = [Self::AsyncShared, Self::AsyncGlobal, Self::TensorMap];
}

/// What threads of a cluster know of each other: by thread, the last epoch known. After the
/// threads come the asynchronous engines, one a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clock {
    pub seen: Vec<u32>,
    /// The part of `seen` that a fence has made visible to each proxy; empty for nothing.
    proxied: [Vec<u32>; Proxy::ALL.len()],
    /// The grids before this one are known to have ended.
    pub waited: bool,
    /// What flags in memory told, in kernels that have such.
    pub reach: Option<Box<Reach>>,
}

impl Clock {
    /// Knows nothing.
    pub fn new(actors: usize) -> Self {
        Self { seen: vec![0; actors], proxied: Default::default(), waited: false, reach: None }
    }

    /// What a proxy's fences have covered.
    pub fn proxied(&self, proxy: Proxy) -> &[u32] {
        &self.proxied[proxy as usize]
    }

    /// Learns that a proxy's fences have covered these epochs.
    pub fn cover(&mut self, proxy: Proxy, epochs: &[u32]) {
        join_epochs(&mut self.proxied[proxy as usize], epochs);
    }

    /// A fence of the proxy: all that is known is covered.
    pub fn fence(&mut self, proxy: Proxy) {
        self.proxied[proxy as usize].clone_from(&self.seen);
        if let Some(reach) = &mut self.reach {
            reach.seen.cover(proxy);
        }
    }

    /// Forgets all but how many actors there are.
    pub fn empty(&self) -> Self {
        Self::new(self.seen.len())
    }

    /// Learns what `other` knows.
    pub fn join(&mut self, other: &Self) {
        join_epochs(&mut self.seen, &other.seen);
        for (mine, theirs) in self.proxied.iter_mut().zip(&other.proxied) {
            join_epochs(mine, theirs);
        }
        self.waited |= other.waited;
        if let Some(reach) = &other.reach {
            self.reach.get_or_insert_default().join(reach);
        }
    }

    /// Learns of an actor's accesses up to `epoch`.
    pub fn learn(&mut self, actor: usize, epoch: u32) {
        let known = &mut self.seen[actor];
        *known = (*known).max(epoch);
    }
}

/// The later of each two epochs; what one list lacks, it does not know.
pub fn join_epochs(mine: &mut Vec<u32>, theirs: &[u32]) {
    if mine.len() < theirs.len() {
        mine.resize(theirs.len(), 0);
    }
    for (a, b) in mine.iter_mut().zip(theirs) {
        *a = (*a).max(*b);
    }
}

/// One access of one thread, as the shadow sees it.
#[derive(Debug, Clone, Copy)]
pub struct Access {
    pub actor: u32,
    /// First thread of the actor's warp, and the lane in it.
    pub base: u32,
    pub lane: u32,
    pub epoch: u32,
    pub pc: u32,
    /// Number of the warp's store, so that one instruction is told from itself later on.
    pub store: u16,
    pub atomic: bool,
    pub generic: bool,
}

impl Access {
    /// By the asynchronous engine of a block.
    pub fn engine(actor: u32, epoch: u32, pc: u32) -> Self {
        let (base, lane, store) = (actor, 0, 0);
        Self { actor, base, lane, epoch, pc, store, atomic: false, generic: false }
    }
}

/// Why an access is refused: the other party.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conflict {
    /// Not ordered after a write, or a read, by this actor at this instruction.
    Race { actor: u32, pc: u32, wrote: bool },
    /// An asynchronous copy from this instruction will write here.
    Incoming { pc: u32 },
    /// An asynchronous operation from this instruction still reads here.
    Outgoing { pc: u32 },
    /// Written by the generic proxy with no proxy fence since.
    NotProxied { actor: u32, pc: u32 },
}
