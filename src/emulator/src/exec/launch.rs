//! Launching a kernel: checks of the geometry, blocks over host threads, the report.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::cluster::{Block, Cluster, Env, NamedBarrier};
use super::counters::{Counters, Site};
use super::dependents::Prior;
use super::fault::Stop;
use super::schedule::{Broken, Status};
use super::warp::Warp;
use crate::error::{Actor, Fault, Place, Rule};
use crate::isa::Kernel;
use crate::memory::Memory;
use crate::memory::reach::Flags;
use crate::memory::shadow::Clock;
use crate::memory::shared::Shared;
use crate::memory::touched::Touched;
use crate::module::Module;

/// Which checks run. All of them by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checks {
    /// Reads of memory that nothing has written.
    pub uninitialised: bool,
    /// Unordered accesses to shared memory.
    pub races: bool,
}

impl Checks {
    pub const ALL: Self = Self { uninitialised: true, races: true };
    /// Only what the machine needs to stay in bounds.
    pub const FAST: Self = Self { uninitialised: false, races: false };
}

/// What to launch, and how.
#[derive(Debug, Clone)]
pub struct LaunchSpec<'a> {
    pub kernel: &'a str,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Blocks of a cluster; [1, 1, 1] for none.
    pub cluster: [u32; 3],
    /// Dynamic shared memory in bytes.
    pub shared_bytes: u32,
    /// The kernel's parameters, laid out as its declaration says.
    pub params: &'a [u8],
    /// Addresses of the module's variables, by index; see [`Module::variables`].
    pub symbols: &'a [u64],
    /// 0: the plainest order, asynchronous work as late as possible. Others vary both.
    pub seed: u64,
    /// Most warp instructions of one cluster.
    pub budget: u64,
    pub checks: Checks,
    /// Host threads; 0 for as many as the host has.
    pub threads: usize,
}

/// What a launch did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    pub counters: Counters,
    /// Warp instructions, and the lane instructions in them.
    pub instructions: u64,
    pub lane_instructions: u64,
    pub blocks: u64,
}

/// Runs a kernel to its end.
///
/// # Errors
/// The first broken rule, with the threads and places that took part.
pub fn launch(
    module: &Module,
    memory: &Memory,
    spec: &LaunchSpec<'_>,
) -> Result<Report, Box<Fault>> {
    launch_after(module, memory, spec, &Prior::default()).map(|(report, _)| report)
}

/// Runs a kernel as a programmatic dependent launch: as if it began as early as the launches
/// before it allow. Also returns what it leaves to the launch after it.
///
/// # Errors
/// As [`launch`]; reading what an earlier launch wrote, without having waited, is a race.
pub fn launch_after(
    module: &Module,
    memory: &Memory,
    spec: &LaunchSpec<'_>,
    prior: &Prior,
) -> Result<(Report, Prior), Box<Fault>> {
    let Some(k) = module.kernel(spec.kernel) else {
        let message = "the module has no such kernel";
        return Err(Fault::launch(spec.kernel, Rule::BadLaunch, message));
    };
    check(k, spec).map_err(|message| Fault::launch(&k.name, Rule::BadLaunch, message))?;
    let base = if k.uses_dyn_shared { k.dyn_base } else { k.shared_bytes };
    let cluster = match k.cluster {
        Some(cluster) if spec.cluster == [1, 1, 1] => cluster,
        _ => spec.cluster,
    };
    let env = Env {
        k,
        memory,
        symbols: spec.symbols,
        params: spec.params.to_vec(),
        grid: spec.grid,
        block: spec.block,
        cluster,
        explicit_cluster: cluster != [1, 1, 1],
        dyn_shared: spec.shared_bytes,
        shared_bytes: base + spec.shared_bytes,
        checks: spec.checks,
        seed: spec.seed,
        budget: spec.budget,
        touched: Touched::new(memory),
        launch: memory.begin_launch(),
        global_races: spec.checks.races,
        prior: prior.clone(),
        flags: Flags::default(),
        wide: super::step::wide(),
    };
    let report = run_grid(module, &env, spec.threads)?;
    Ok((report, Prior::after(k, env.launch, prior)))
}

pub(crate) fn check(k: &Kernel, spec: &LaunchSpec<'_>) -> Result<(), String> {
    let threads = spec.block.iter().try_fold(1u32, |n, d| n.checked_mul(*d)).unwrap_or(u32::MAX);
    if threads == 0 || threads > 1024 {
        return Err(format!("a block of {:?} threads; 1 to 1024 fit", spec.block));
    }
    let blocks = spec.grid.iter().try_fold(1u64, |n, d| n.checked_mul(u64::from(*d)));
    if blocks.is_none_or(|n| n == 0 || n > 1 << 32) {
        return Err(format!("a grid of {:?} blocks", spec.grid));
    }
    if let Some(required) = k.required_threads
        && required != spec.block
    {
        return Err(format!("the kernel requires blocks of {required:?} threads"));
    }
    if let Some(most) = k.max_threads
        && threads > most.iter().product()
    {
        return Err(format!("{threads} threads; the kernel was compiled for {most:?}"));
    }
    let cluster = match k.cluster {
        Some(c) if spec.cluster == [1, 1, 1] => c,
        _ => spec.cluster,
    };
    let size = cluster.iter().try_fold(1u32, |n, d| n.checked_mul(*d)).unwrap_or(u32::MAX);
    let divides = (0..3).all(|i| cluster[i] > 0 && spec.grid[i].is_multiple_of(cluster[i]));
    if size == 0 || size > 16 || !divides {
        return Err(format!("clusters of {cluster:?} do not divide the grid {:?}", spec.grid));
    }
    let shared = u64::from(k.dyn_base) + u64::from(spec.shared_bytes);
    if shared > 227 << 10 {
        return Err(format!("{shared} bytes of shared memory; 232448 fit"));
    }
    if spec.params.len() != k.param_bytes as usize {
        let (got, want) = (spec.params.len(), k.param_bytes);
        return Err(format!("{got} bytes of parameters; the kernel has {want}"));
    }
    Ok(())
}

fn run_grid(module: &Module, env: &Env<'_>, threads: usize) -> Result<Report, Box<Fault>> {
    let per = [0, 1, 2].map(|i| env.grid[i] / env.cluster[i]);
    let total: u64 = per.iter().map(|d| u64::from(*d)).product();
    let host = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = if threads == 0 { host } else { threads }.min(total as usize).max(1);
    let next = AtomicU64::new(0);
    let stalled: Mutex<Vec<Cluster>> = Mutex::new(Vec::new());
    let result: Results = Mutex::new(Default::default());
    let finished = AtomicU64::new(0);
    let work = || worker(module, env, total, (&next, &finished), &stalled, &result);
    if workers == 1 {
        work();
    } else {
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(work);
            }
        });
    }
    let (mut report, fault) = result.into_inner().unwrap_or_else(|e| e.into_inner());
    if let Some((_, fault)) = fault {
        return Err(fault);
    }
    let counters = &mut report.counters;
    counters.sum_forms(env.k.forms.len(), |pc| env.k.code[pc].form);
    (counters.distinct_read, counters.distinct_written) = env.touched.bytes();
    report.instructions = report.counters.by_form.iter().map(|f| f.0).sum();
    report.lane_instructions = report.counters.by_form.iter().map(|f| f.1).sum();
    Ok(report)
}

type Results = Mutex<(Report, Option<(u64, Box<Fault>)>)>;

/// Clusters begun and not ended, beyond which a seeded schedule goes on with those first.
const ACTIVE: usize = 8;

/// The next cluster to run: a new one if there is any, else one that others may have something
/// for. A drawn number takes either, while somebody gets on.
fn take(
    env: &Env<'_>,
    total: u64,
    next: &AtomicU64,
    stalled: &Mutex<Vec<Cluster>>,
    draw: Option<u64>,
) -> Option<Cluster> {
    let mut waiting = stalled.lock().unwrap_or_else(|e| e.into_inner());
    if let Some(draw) = draw
        && !waiting.is_empty()
        && (waiting.len() >= ACTIVE || draw & 1 == 1)
    {
        let at = (draw >> 1) as usize % waiting.len();
        return Some(waiting.remove(at));
    }
    let n = next.fetch_add(1, Ordering::AcqRel);
    if n >= total {
        return waiting.pop();
    }
    drop(waiting);
    Some(make_cluster(env, n))
}

/// Takes clusters until none is left; clusters that poll global memory take turns.
fn worker(
    module: &Module,
    env: &Env<'_>,
    total: u64,
    (next, finished): (&AtomicU64, &AtomicU64),
    stalled: &Mutex<Vec<Cluster>>,
    result: &Results,
) {
    let (mut idle, mut turn, mut tally) = (0u32, env.seed, Tally::default());
    while finished.load(Ordering::Acquire) < total {
        turn = turn.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        let draw = (env.seed != 0 && idle == 0).then_some(turn >> 33);
        let Some(mut cluster) = take(env, total, next, stalled, draw) else {
            std::thread::yield_now();
            continue;
        };
        tally.lend(&mut cluster);
        cluster.recheck();
        let before = cluster.version;
        match cluster.run(env) {
            Ok(Status::Done) => {
                idle = 0;
                tally.take(cluster);
                finished.fetch_add(1, Ordering::AcqRel);
            }
            Ok(Status::Paused) => {
                idle = 0;
                stalled.lock().unwrap_or_else(|e| e.into_inner()).insert(0, cluster);
            }
            Ok(Status::Stalled) => {
                idle = if cluster.version > before + 1 { 0 } else { idle + 1 };
                if idle > 4096 {
                    let stop = Stop {
                        rule: Rule::Deadlock,
                        message: "every block polls memory that nobody changes".into(),
                        lane: None,
                        others: Vec::new(),
                    };
                    let broken = Broken { stop: Box::new(stop), warp: 0, pc: 0 };
                    fail(module, env, &cluster, broken, result);
                    finished.store(total, Ordering::Release);
                    return;
                }
                stalled.lock().unwrap_or_else(|e| e.into_inner()).insert(0, cluster);
            }
            Err(broken) => {
                fail(module, env, &cluster, broken, result);
                finished.store(total, Ordering::Release);
                return;
            }
        }
    }
    tally.report(result);
}

/// What a host thread's clusters have counted. Most run to their end one after the other, so the
/// next goes on with the counters of the one before.
#[derive(Default)]
struct Tally {
    counters: Option<Counters>,
    blocks: u64,
}

impl Tally {
    /// Gives a cluster that has none the counters to go on with.
    fn lend(&mut self, cluster: &mut Cluster) {
        if cluster.counters.sites.is_empty() {
            let fresh =
                || Counters { sites: vec![Site::default(); cluster.sites], ..Counters::default() };
            cluster.counters = self.counters.take().unwrap_or_else(fresh);
        }
    }

    /// Takes them back from one that has ended.
    fn take(&mut self, cluster: Cluster) {
        self.blocks += cluster.blocks.len() as u64;
        match &mut self.counters {
            Some(counters) => counters.add(&cluster.counters),
            None => self.counters = Some(cluster.counters),
        }
    }

    fn report(self, result: &Results) {
        let mut guard = result.lock().unwrap_or_else(|e| e.into_inner());
        let report = &mut guard.0;
        report.blocks += self.blocks;
        let Some(counters) = self.counters else { return };
        if report.counters.sites.is_empty() {
            report.counters = counters;
        } else {
            report.counters.add(&counters);
        }
    }
}

fn fail(module: &Module, env: &Env<'_>, cluster: &Cluster, broken: Broken, result: &Results) {
    let fault = Box::new(describe(module, env, cluster, &broken));
    let block = cluster.blocks[0].index;
    let order = block.iter().rev().fold(0u64, |n, i| n << 20 | u64::from(*i));
    let mut guard = result.lock().unwrap_or_else(|e| e.into_inner());
    if guard.1.as_ref().is_none_or(|(at, _)| order < *at) {
        guard.1 = Some((order, fault));
    }
}

fn describe(module: &Module, env: &Env<'_>, cluster: &Cluster, broken: &Broken) -> Fault {
    let base = cluster.warps[broken.warp].as_ref().map_or(0, |w| w.base);
    let lane = broken.stop.lane.unwrap_or(0);
    let actor = actor(module, env, cluster, base + lane, broken.pc);
    let others = broken.stop.others.iter().map(|o| {
        let from = if o.actor == u32::MAX { base + lane } else { o.actor };
        let mut other = self::actor(module, env, cluster, from, o.pc);
        if let Some(far) = o.cluster {
            let rank = cluster.rank_of(from);
            other.block = env.block_of(far, rank);
        }
        if o.actor == u32::MAX {
            other.thread = None;
        }
        other
    });
    Fault {
        rule: broken.stop.rule,
        message: broken.stop.message.clone(),
        kernel: env.k.name.clone(),
        others: others.collect(),
        actor: Some(actor),
    }
}

fn actor(module: &Module, env: &Env<'_>, cluster: &Cluster, id: u32, pc: u32) -> Actor {
    let threads = cluster.blocks[0].threads;
    let rank = cluster.rank_of(id);
    let thread = (id < threads * cluster.blocks.len() as u32).then_some(id % threads);
    let block = cluster.blocks.get(rank as usize).map_or([0; 3], |b| b.index);
    let [x, y, _] = env.block;
    let thread = thread.map(|t| [t % x, t / x % y, t / (x * y)]);
    Actor { block, thread, place: place(module, env.k, pc) }
}

fn place(module: &Module, k: &Kernel, pc: u32) -> Place {
    let Some(instr) = k.code.get(pc as usize) else { return Place::default() };
    let source = (instr.loc as usize).checked_sub(1).and_then(|i| k.locs.get(i)).map(|(f, l)| {
        let name = module.files.iter().find(|(n, _)| n == f).map_or("?", |(_, name)| name);
        format!("{name}:{l}")
    });
    Place { line: instr.line, source }
}

fn make_cluster(env: &Env<'_>, n: u64) -> Cluster {
    let number = n.min(u64::from(u32::MAX)) as u32;
    let threads: u32 = env.block.iter().product();
    let ranks: u32 = env.cluster.iter().product();
    let actors = Cluster::actors(ranks, threads) as usize;
    let (mut blocks, mut warps) = (Vec::new(), Vec::new());
    for rank in 0..ranks {
        let index = env.block_of(number, rank);
        blocks.push(Block {
            rank: rank as usize,
            index,
            shared: Shared::new(env.shared_bytes),
            bars: vec![NamedBarrier::default(); 16],
            threads,
            live: threads,
            free_registers: 0,
        });
        for w in 0..threads.div_ceil(32) {
            warps.push(Some(Box::new(make_warp(env, rank, w, threads, actors))));
        }
    }
    Cluster {
        number,
        blocks,
        warps,
        async_ops: Vec::new(),
        next_op: 0,
        engine_epoch: 0,
        version: 1,
        bar_arrived: 0,
        bar_phase: 0,
        bar_clock: None,
        bar_done: None,
        steps: 0,
        counters: Counters::default(),
        rng: env.seed ^ n.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        next_warp: 0,
        polls_memory: false,
        sites: env.k.code.len(),
    }
}

fn make_warp(env: &Env<'_>, rank: u32, w: u32, threads: u32, actors: usize) -> Warp {
    let live = (threads - w * 32).min(32);
    let mask = if live == 32 { u32::MAX } else { (1 << live) - 1 };
    let base = rank * threads + w * 32;
    let clock = Clock::new(actors);
    let mut warp = Warp::new(env.k, rank as usize, w as usize, base, mask, clock);
    warp.registers = super::registers::at_entry(env.k);
    let [x, y, _] = env.block;
    for lane in 0..32 {
        let t = w * 32 + lane;
        let tid = [t % x, t / x % y, t / (x * y)];
        for (axis, value) in tid.into_iter().enumerate() {
            warp.tid[axis][lane as usize] = value;
        }
    }
    warp
}
