//! The state of one cluster of blocks, and the view of it that an instruction gets.

use std::sync::Arc;

use super::bulk::AsyncOp;
use super::counters::Counters;
use super::dependents::Prior;
use super::launch::Checks;
use super::warp::{LANES, V32, V64, Warp, each_lane};
use crate::isa::{Kernel, Special, Src};
use crate::memory::reach::Flags;
use crate::memory::shadow::{Access, Clock};
use crate::memory::shared::Shared;
use crate::memory::touched::Touched;
use crate::memory::{Memory, SHARED_START};

/// What a launch fixes for all of its blocks.
pub struct Env<'a> {
    pub k: &'a Kernel,
    pub memory: &'a Memory,
    /// Addresses of the module's variables.
    pub symbols: &'a [u64],
    pub params: Vec<u8>,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub cluster: [u32; 3],
    pub explicit_cluster: bool,
    pub dyn_shared: u32,
    pub shared_bytes: u32,
    pub checks: Checks,
    pub seed: u64,
    pub budget: u64,
    /// Sectors of global memory that the launch has touched.
    pub touched: Touched,
    /// Number of the launch for the records of global memory.
    pub launch: u8,
    /// Races in global memory are looked for.
    pub global_races: bool,
    /// Launches that may still run.
    pub prior: Prior,
    /// What strong writes have published.
    pub flags: Flags,
    /// The processor has wide vector registers; see [`super::step::wide`].
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "code for x86-64 only"))]
    pub wide: bool,
}

impl Env<'_> {
    /// Index of a block of a cluster, by rank.
    pub fn block_of(&self, cluster: u32, rank: u32) -> [u32; 3] {
        let per = [0, 1, 2].map(|i| self.grid[i] / self.cluster[i]);
        let at = [cluster % per[0], cluster / per[0] % per[1], cluster / per[0] / per[1]];
        let [cx, cy, _] = self.cluster;
        let inside = [rank % cx, rank / cx % cy, rank / (cx * cy)];
        [0, 1, 2].map(|i| at[i] * self.cluster[i] + inside[i])
    }
}

/// A block barrier.
#[derive(Debug, Clone, Default)]
pub struct NamedBarrier {
    /// Threads arrived in the current phase.
    pub arrived: u32,
    /// Threads that the phase needs; `None` before the first arrival or for all of the block.
    pub expected: Option<u32>,
    pub clock: Option<Clock>,
    /// Predicate results of the current phase: count of true, and of all.
    pub votes: (u32, u32),
    /// Warps that arrived in this phase.
    pub warps: u64,
    pub result: (u32, u32),
}

/// One block.
pub struct Block {
    pub rank: usize,
    pub index: [u32; 3],
    pub shared: Shared,
    pub bars: Vec<NamedBarrier>,
    pub threads: u32,
    pub live: u32,
    /// Registers that `setmaxnreg.dec` gave back and nobody has taken.
    pub free_registers: u32,
}

/// One cluster.
pub struct Cluster {
    /// Number in the launch.
    pub number: u32,
    pub blocks: Vec<Block>,
    /// `None` while a warp runs.
    pub warps: Vec<Option<Box<Warp>>>,
    pub async_ops: Vec<AsyncOp>,
    pub next_op: u64,
    /// Epoch of the asynchronous engine.
    pub engine_epoch: u32,
    /// Goes up whenever something changes that another thread may wait for.
    pub version: u64,
    /// Cluster barrier: threads arrived, phases passed, what arrivals made known.
    pub bar_arrived: u32,
    pub bar_phase: u64,
    pub bar_clock: Option<Clock>,
    pub bar_done: Option<Arc<Clock>>,
    pub steps: u64,
    /// Without sites until somebody runs it.
    pub counters: Counters,
    /// Instructions of the kernel.
    pub sites: usize,
    pub rng: u64,
    pub next_warp: usize,
    /// Someone polls memory that another cluster may change.
    pub polls_memory: bool,
}

fn warpgroups(threads: u32) -> u32 {
    threads.div_ceil(128)
}

impl Cluster {
    /// Lets groups that polled memory look again: another cluster may have run.
    pub fn recheck(&mut self) {
        self.version += 1;
        self.polls_memory = false;
    }

    /// Threads, asynchronous engines and warpgroups' engines of so many blocks, which is how
    /// actors are numbered: all threads, an engine a block for copies, one a warpgroup for wgmma.
    pub fn actors(ranks: u32, threads: u32) -> u32 {
        ranks * (threads + 1 + warpgroups(threads))
    }

    /// Rank of the block that a thread, or an asynchronous engine, belongs to.
    pub fn rank_of(&self, actor: u32) -> u32 {
        let (ranks, threads) = (self.blocks.len() as u32, self.blocks[0].threads);
        match actor.checked_sub(ranks * threads) {
            None => actor / threads,
            Some(engine) if engine < ranks => engine,
            Some(engine) => (engine - ranks) / warpgroups(threads),
        }
    }

    /// A pseudo-random number (SplitMix64).
    pub fn random(&mut self) -> u64 {
        self.rng = self.rng.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.rng;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// The view of one instruction: its warp is out of the cluster while it runs.
pub struct Ctx<'a> {
    pub env: &'a Env<'a>,
    pub warp: &'a mut Warp,
    pub cl: &'a mut Cluster,
    pub pc: u32,
}

impl Ctx<'_> {
    pub fn block(&mut self) -> &mut Block {
        &mut self.cl.blocks[self.warp.rank]
    }

    /// A source operand in 32 bits.
    #[inline(always)]
    pub fn src32(&mut self, s: &Src) -> V32 {
        match s {
            Src::Reg(reg) => self.warp.reg32(*reg),
            Src::Imm(v) => [*v as u32; LANES],
            _ => {
                let wide = self.src64(s);
                each_lane(|i| wide[i] as u32)
            }
        }
    }

    /// A source operand in 64 bits.
    #[inline(always)]
    pub fn src64(&mut self, s: &Src) -> V64 {
        match s {
            Src::Reg(reg) => self.warp.reg64(*reg),
            Src::Imm(v) => [*v; LANES],
            Src::Symbol(index, offset) => {
                let base = self.env.symbols.get(*index as usize).copied().unwrap_or(0);
                [base.wrapping_add(*offset as u64); LANES]
            }
            Src::DynShared(offset) => {
                let base = i64::from(self.env.k.dyn_base + SHARED_START);
                [base.wrapping_add(*offset) as u64; LANES]
            }
            Src::Special(special) => self.special(*special),
        }
    }

    fn special(&mut self, special: Special) -> V64 {
        let env = self.env;
        let block = &self.cl.blocks[self.warp.rank];
        let in_cluster =
            |axis: u8| u64::from(block.index[axis as usize] % env.cluster[axis as usize]);
        let same = match special {
            Special::Tid(axis) => {
                let tid = &self.warp.tid[axis as usize];
                return each_lane(|i| tid[i].into());
            }
            Special::LaneId => return each_lane(|i| i as u64),
            Special::LaneMaskEq => return each_lane(|i| 1 << i),
            Special::LaneMaskLt => return each_lane(|i| (1 << i) - 1),
            Special::LaneMaskLe => return each_lane(|i| (2 << i) - 1),
            Special::LaneMaskGt => return each_lane(|i| 0xffff_ffff & !((2 << i) - 1)),
            Special::LaneMaskGe => return each_lane(|i| 0xffff_ffff & !((1 << i) - 1)),
            Special::Ntid(axis) => env.block[axis as usize].into(),
            Special::Ctaid(axis) => block.index[axis as usize].into(),
            Special::Nctaid(axis) => env.grid[axis as usize].into(),
            Special::ClusterCtaid(axis) => in_cluster(axis),
            Special::ClusterNctaid(axis) => env.cluster[axis as usize].into(),
            Special::ClusterId(axis) => {
                (block.index[axis as usize] / env.cluster[axis as usize]).into()
            }
            Special::NclusterId(axis) => {
                (env.grid[axis as usize] / env.cluster[axis as usize]).into()
            }
            Special::ClusterCtarank => block.rank as u64,
            Special::ClusterNctarank => self.cl.blocks.len() as u64,
            Special::IsExplicitCluster => env.explicit_cluster.into(),
            Special::WarpId => self.warp.index as u64,
            Special::NwarpId => u64::from(block.threads.div_ceil(32)),
            Special::SmId => 0,
            Special::NsmId => 1,
            Special::GridId => 1,
            Special::Clock | Special::Clock64 | Special::GlobalTimer => self.cl.steps,
            Special::ClockHi => self.cl.steps >> 32,
            Special::DynamicSmem => env.dyn_shared.into(),
            Special::TotalSmem => env.shared_bytes.into(),
        };
        [same; LANES]
    }

    /// The shadow's view of an access by a lane.
    pub fn access(&self, lane: u32, atomic: bool) -> Access {
        Access {
            actor: self.warp.base + lane,
            base: self.warp.base,
            lane,
            epoch: self.warp.epochs[lane as usize],
            pc: self.pc,
            store: self.warp.stores,
            atomic,
            generic: true,
        }
    }

    /// Number of the asynchronous engine of a block among the actors.
    pub fn engine(&self, rank: usize) -> u32 {
        (self.cl.blocks.len() as u32 * self.cl.blocks[0].threads) + rank as u32
    }

    /// Number of the engine of the warp's warpgroup among the actors.
    pub fn wgmma_engine(&self) -> u32 {
        let groups = warpgroups(self.cl.blocks[0].threads);
        let own = self.warp.rank as u32 * groups + self.warp.index as u32 / 4;
        self.engine(self.cl.blocks.len()) + own
    }

    /// Something changed that others may wait for.
    pub fn changed(&mut self) {
        self.cl.version += 1;
    }
}
