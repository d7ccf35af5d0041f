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

/// The last write to a word of shared memory.
#[derive(Debug, Clone, Copy, Default)]
pub struct WriteRecord {
    pub actor: u32,
    /// 0: never written.
    pub epoch: u32,
    pub pc: u32,
    /// Bytes of the word.
    pub bytes: u8,
    pub atomic: bool,
    /// By the generic proxy.
    pub generic: bool,
}

/// A recent read of a word of shared memory by lanes of one warp at one epoch.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReadRecord {
    /// First thread of the warp.
    pub base: u32,
    pub lanes: u32,
    /// 0: never read.
    pub epoch: u32,
    pub pc: u32,
    pub bytes: u8,
    pub atomic: bool,
}

/// What is known of four bytes of shared memory.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cell {
    pub write: WriteRecord,
    pub reads: [ReadRecord; 2],
    /// Instruction plus one of the asynchronous copy that will write here; 0 for none.
    pub incoming: u32,
    /// Asynchronous operations that still read here.
    pub outgoing: u16,
    /// The last of them: its instruction.
    pub outgoing_pc: u32,
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
    pub atomic: bool,
    pub generic: bool,
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

impl Cell {
    #[inline]
    fn after_write(&self, a: &Access, bytes: u8, clock: &Clock) -> Result<(), Conflict> {
        let w = &self.write;
        let other = w.epoch != 0 && w.actor != a.actor && w.bytes & bytes != 0;
        if other && !(w.atomic && a.atomic) && clock.seen[w.actor as usize] < w.epoch {
            return Err(Conflict::Race { actor: w.actor, pc: w.pc, wrote: true });
        }
        Ok(())
    }

    #[inline]
    fn after_reads(&self, a: &Access, bytes: u8, clock: &Clock) -> Result<(), Conflict> {
        for r in &self.reads {
            let own = r.base == a.base && r.lanes == 1 << a.lane;
            if own || r.epoch == 0 || r.bytes & bytes == 0 || (r.atomic && a.atomic) {
                continue;
            }
            let mut lanes = r.lanes;
            while lanes != 0 {
                let actor = r.base + lanes.trailing_zeros();
                lanes &= lanes - 1;
                if actor != a.actor && clock.seen[actor as usize] < r.epoch {
                    return Err(Conflict::Race { actor, pc: r.pc, wrote: false });
                }
            }
        }
        Ok(())
    }

    /// Checks and records a read.
    #[inline]
    pub fn read(&mut self, a: &Access, bytes: u8, clock: &Clock) -> Result<(), Conflict> {
        if self.incoming != 0 {
            return Err(Conflict::Incoming { pc: self.incoming - 1 });
        }
        self.after_write(a, bytes, clock)?;
        self.record_read(a, bytes);
        Ok(())
    }

    /// Checks a read by an asynchronous operation that `a` starts.
    pub fn async_read(&self, a: &Access, bytes: u8, clock: &Clock) -> Result<(), Conflict> {
        if self.incoming != 0 {
            return Err(Conflict::Incoming { pc: self.incoming - 1 });
        }
        self.after_write(a, bytes, clock)?;
        self.proxied(bytes, clock)
    }

    fn proxied(&self, bytes: u8, clock: &Clock) -> Result<(), Conflict> {
        let w = &self.write;
        let touched = w.epoch != 0 && w.generic && w.bytes & bytes != 0;
        let covered = clock.proxied(Proxy::AsyncShared).get(w.actor as usize).copied();
        if touched && covered.unwrap_or(0) < w.epoch {
            return Err(Conflict::NotProxied { actor: w.actor, pc: w.pc });
        }
        Ok(())
    }

    /// Records a read without checking.
    #[inline]
    pub fn record_read(&mut self, a: &Access, bytes: u8) {
        let (lane, fresh) = (1 << a.lane, self.reads[0].base == a.base);
        let first = &mut self.reads[0];
        if fresh && first.epoch == a.epoch && first.atomic == a.atomic {
            first.lanes |= lane;
            first.bytes |= bytes;
            first.pc = a.pc;
            return;
        }
        if !fresh && first.epoch != 0 {
            self.reads[1] = self.reads[0];
        }
        let (base, epoch, pc, atomic) = (a.base, a.epoch, a.pc, a.atomic);
        self.reads[0] = ReadRecord { base, lanes: lane, epoch, pc, bytes, atomic };
    }

    /// Checks that a write may begin now.
    #[inline]
    pub fn may_write(&self, a: &Access, bytes: u8, clock: &Clock) -> Result<(), Conflict> {
        if self.incoming != 0 {
            return Err(Conflict::Incoming { pc: self.incoming - 1 });
        }
        if self.outgoing != 0 {
            return Err(Conflict::Outgoing { pc: self.outgoing_pc });
        }
        // Lanes of a warp that write one place by one instruction: one of them wins, which is no
        // race (CUDA programming guide, on simultaneous writes of a warp).
        let together = self.write.pc == a.pc && self.write.actor.wrapping_sub(a.base) < 32;
        if !together {
            self.after_write(a, bytes, clock)?;
        }
        self.after_reads(a, bytes, clock)
    }

    /// Records a write without checking.
    #[inline]
    pub fn record_write(&mut self, a: &Access, bytes: u8) {
        let w = &mut self.write;
        let same = w.actor == a.actor && w.epoch == a.epoch && w.generic == a.generic;
        let bytes = if same { w.bytes | bytes } else { bytes };
        *w = WriteRecord {
            actor: a.actor,
            epoch: a.epoch,
            pc: a.pc,
            bytes,
            atomic: a.atomic,
            generic: a.generic,
        };
    }
}
