//! Which group of lanes runs next, how groups part and meet again, and what happens when nobody
//! can go on.

use super::barrier::{settle, settle_cluster};
use super::cluster::{Cluster, Ctx, Env};
use super::fault::{Other, Run, Stop};
use super::meet::Gathered;
use super::step::{Meet, meets};
use super::warp::{Group, Warp};
use super::{Flow, Wait};
use crate::error::Rule;
use crate::isa::{Op, PSrc};

/// How a run of a cluster ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Done,
    /// Everyone polls memory that only another cluster could change.
    Stalled,
    /// Others get their turn; nothing is wrong.
    Paused,
}

/// Who broke a rule: slot of the warp, lane if known, instruction.
pub struct Broken {
    pub stop: Box<Stop>,
    pub warp: usize,
    pub pc: u32,
}

/// Backward branches after which other lanes of the warp get a turn.
const SPINS: u32 = 64;
/// Slices, on average, after which a cluster gives way to others that it may exchange flags with.
const PAUSE: u64 = 16;
/// Instructions without any change that others could see, per live warp, that count as livelock.
const LIVELOCK: u64 = 4_000_000;

impl Cluster {
    /// Runs until everything ended or nothing more can happen here.
    pub fn run(&mut self, env: &Env<'_>) -> Result<Status, Broken> {
        let mut quiet_since = (self.version, self.steps);
        loop {
            let Some(slot) = self.pick(env) else {
                if self.warps.iter().flatten().all(|w| w.groups.is_empty()) {
                    self.flush(env)?;
                    return Ok(Status::Done);
                }
                if self.perform_one(env)? {
                    continue;
                }
                if self.polls_memory {
                    return Ok(Status::Stalled);
                }
                return Err(self.deadlock(env));
            };
            self.slice(env, slot)?;
            self.after_slice(slot)?;
            if self.version != quiet_since.0 {
                quiet_since = (self.version, self.steps);
            } else if self.steps - quiet_since.1 > LIVELOCK {
                let message = format!("{LIVELOCK} instructions without any visible effect");
                return Err(self.broken(Rule::Livelock, message, slot));
            }
            if env.seed != 0 && env.k.orders_memory && self.random().is_multiple_of(PAUSE) {
                return Ok(Status::Paused);
            }
            if self.steps > env.budget {
                let message = format!("more than {} instructions of warps", env.budget);
                return Err(self.broken(Rule::Budget, message, slot));
            }
            if env.seed != 0 && self.random().is_multiple_of(16) {
                self.perform_one(env)?;
            }
        }
    }

    fn broken(&self, rule: Rule, message: String, slot: usize) -> Broken {
        let pc =
            self.warps[slot].as_ref().and_then(|w| w.groups.first().map(|g| g.pc)).unwrap_or(0);
        Broken {
            stop: Box::new(Stop { rule, message, lane: None, others: Vec::new() }),
            warp: slot,
            pc,
        }
    }

    /// A warp that can run; those that would only poll in vain come after the others, once.
    fn pick(&mut self, env: &Env<'_>) -> Option<usize> {
        let n = self.warps.len();
        let start = if env.seed == 0 { self.next_warp } else { self.random() as usize % n };
        for i in 0..n {
            let slot = (start + i) % n;
            let ready = |g: &Group| match g.wait {
                Wait::Ready => true,
                Wait::Poll(version) | Wait::Registers(version) => version < self.version,
                _ => false,
            };
            if self.warps[slot].as_ref().is_some_and(|w| w.groups.iter().any(ready)) {
                self.next_warp = (slot + 1) % n;
                return Some(slot);
            }
        }
        None
    }

    fn slice(&mut self, env: &Env<'_>, slot: usize) -> Result<(), Broken> {
        let Some(mut warp) = self.warps[slot].take() else { return Ok(()) };
        let steps = match env.seed {
            0 => 256,
            _ => 4 + (self.random() % 124) as u32,
        };
        let mut pc = 0;
        let done = run_warp(env, self, &mut warp, steps, &mut pc);
        self.warps[slot] = Some(warp);
        done.map_err(|stop| Broken { stop, warp: slot, pc })
    }

    fn after_slice(&mut self, slot: usize) -> Result<(), Broken> {
        let ranks = self.blocks.len();
        for rank in 0..ranks {
            for id in 0..16 {
                let settled = settle(self, rank, id);
                settled.map_err(|stop| {
                    let pc = self.waiting_pc(rank, id).unwrap_or(0);
                    Broken { stop, warp: slot, pc }
                })?;
            }
        }
        settle_cluster(self);
        Ok(())
    }

    fn waiting_pc(&self, rank: usize, id: u32) -> Option<u32> {
        let warps = self.warps.iter().flatten().filter(|w| w.rank == rank);
        warps.flat_map(|w| &w.groups).find(|g| g.wait == Wait::Barrier(id)).map(|g| g.pc)
    }

    /// Performs one asynchronous operation that nobody waits for by group; false if none is left.
    fn perform_one(&mut self, env: &Env<'_>) -> Result<bool, Broken> {
        let ready: Vec<usize> =
            (0..self.async_ops.len()).filter(|i| !self.async_ops[*i].group).collect();
        if ready.is_empty() {
            return Ok(false);
        }
        let n = if env.seed == 0 { 0 } else { self.random() as usize % ready.len() };
        let mut op = self.async_ops.remove(ready[n]);
        let (slot, pc) = (op.warp, op.pc);
        let Some(mut warp) = self.warps[slot].take() else { return Ok(false) };
        let mut ctx = Ctx { env, warp: &mut warp, cl: self, pc };
        let done = if op.arrives {
            ctx.late_arrival(&op)
        } else {
            ctx.take_data(&mut op).and_then(|()| ctx.deliver(&op))
        };
        self.warps[slot] = Some(warp);
        done.map_err(|stop| Broken { stop, warp: slot, pc })?;
        Ok(true)
    }

    /// At the end of the blocks: bulk stores whose source was read are written now; operations
    /// that nobody waited for are leaks.
    fn flush(&mut self, env: &Env<'_>) -> Result<(), Broken> {
        for op in std::mem::take(&mut self.async_ops) {
            let (slot, pc) = (op.warp, op.pc);
            let Some(mut warp) = self.warps[slot].take() else { continue };
            let mut ctx = Ctx { env, warp: &mut warp, cl: self, pc };
            let done = if op.group {
                ctx.deliver(&op)
            } else {
                let message = "an asynchronous copy was never waited for".to_string();
                let lane = Some(op.lane);
                Err(Box::new(Stop { rule: Rule::Leak, message, lane, others: Vec::new() }))
            };
            self.warps[slot] = Some(warp);
            done.map_err(|stop| Broken { stop, warp: slot, pc })?;
        }
        Ok(())
    }

    fn deadlock(&self, env: &Env<'_>) -> Broken {
        let mut others = Vec::new();
        let (mut warp, mut pc) = (0, 0);
        for (slot, w) in self.warps.iter().enumerate() {
            for g in w.iter().flat_map(|w| &w.groups) {
                let base = w.as_ref().map_or(0, |w| w.base);
                if others.is_empty() {
                    (warp, pc) = (slot, waited(g));
                }
                let actor = base + g.mask.trailing_zeros() % 32;
                others.push(Other::near(actor, waited(g)));
            }
        }
        others.truncate(16);
        let mut message = String::from("no thread can go on");
        for block in &self.blocks {
            message += &self.registers_wanted(block.rank);
            let mut bars: Vec<_> = block.shared.mbars.iter().collect();
            bars.sort_by_key(|(at, _)| **at);
            for (at, bar) in bars {
                if bar.pending != bar.expected || bar.tx != 0 {
                    message += &format!(
                        "; mbarrier {at:#x} of block {}: {} of {} arrivals and {} bytes missing in \
                         phase {}",
                        block.rank, bar.pending, bar.expected, bar.tx, bar.phase
                    );
                }
            }
            for (id, bar) in block.bars.iter().enumerate().filter(|(_, b)| b.arrived > 0) {
                let need = bar.expected.unwrap_or(block.live);
                message += &format!("; barrier {id}: {} of {need} threads", bar.arrived);
            }
        }
        let _ = env;
        let stop = Box::new(Stop { rule: Rule::Deadlock, message, lane: None, others });
        Broken { stop, warp, pc }
    }
}

/// The instruction that a group waits at.
fn waited(g: &Group) -> u32 {
    match g.wait {
        Wait::Cluster(_) | Wait::Poll(_) => g.pc.saturating_sub(1),
        _ => g.pc,
    }
}

/// Index of the group to run: the one with the fewest turns, then the lowest program counter.
fn choose(warp: &mut Warp, version: u64) -> Option<usize> {
    for g in &mut warp.groups {
        if matches!(g.wait, Wait::Poll(v) | Wait::Registers(v) if v < version) {
            g.wait = Wait::Ready;
        }
    }
    let ready = warp.groups.iter().enumerate().filter(|(_, g)| g.wait == Wait::Ready);
    let (at, _) = ready.min_by_key(|(_, g)| (g.turn, g.pc))?;
    merge(warp, at)
}

/// Joins ready groups at the same program counter into one.
fn merge(warp: &mut Warp, at: usize) -> Option<usize> {
    if warp.groups.len() == 1 {
        return Some(at);
    }
    let pc = warp.groups[at].pc;
    let done = warp.finished_bar;
    let same = |g: &Group| (g.mask & done != 0) == (warp.groups[at].mask & done != 0);
    let mut mask = 0;
    let mut turn = 0;
    for g in warp.groups.iter().filter(|g| g.wait == Wait::Ready && g.pc == pc && same(g)) {
        mask |= g.mask;
        turn = turn.max(g.turn);
    }
    if mask == warp.groups[at].mask {
        return Some(at);
    }
    warp.groups.retain(|g| g.mask & mask == 0);
    let mut merged = Group::new(pc, mask);
    merged.turn = if warp.groups.is_empty() { 0 } else { turn };
    warp.groups.push(merged);
    Some(warp.groups.len() - 1)
}

fn run_warp(
    env: &Env<'_>,
    cl: &mut Cluster,
    warp: &mut Warp,
    steps: u32,
    last_pc: &mut u32,
) -> Run<()> {
    let mut left = steps;
    while left > 0 {
        let Some(at) = choose(warp, cl.version) else { return Ok(()) };
        let more = run_group(env, cl, warp, at, &mut left, last_pc)?;
        if !more {
            return Ok(());
        }
    }
    Ok(())
}

/// The first place where a group gives way to another or joins it; 0 if that may be anywhere.
fn meeting_point(warp: &Warp, at: usize) -> u32 {
    let mut first = u32::MAX;
    for (_, g) in warp.groups.iter().enumerate().filter(|(i, _)| *i != at) {
        match g.wait {
            Wait::Ready if g.turn == warp.groups[at].turn => first = first.min(g.pc),
            Wait::Ready | Wait::Poll(_) | Wait::Registers(_) => return 0,
            _ => {}
        }
    }
    first
}

/// Runs a group until it waits, parts, ends or the slice is over; false if the warp yields.
fn run_group(
    env: &Env<'_>,
    cl: &mut Cluster,
    warp: &mut Warp,
    at: usize,
    left: &mut u32,
    last_pc: &mut u32,
) -> Run<bool> {
    let (groups, turn, end) = (warp.groups.len(), warp.groups[at].turn, meeting_point(warp, at));
    // Whether the scheduler would choose this group again, as it is.
    let goes_on = |warp: &Warp| {
        let first = |g: &Group| g.turn == turn && g.pc < end;
        warp.groups.len() == groups && (groups == 1 || warp.groups.get(at).is_some_and(first))
    };
    while *left > 0 {
        *left -= 1;
        cl.steps += 1;
        let pc = warp.groups[at].pc;
        *last_pc = pc;
        let group_mask = warp.groups[at].mask;
        let Some(instr) = env.k.code.get(pc as usize) else { return Ok(false) };
        warp.mask = group_mask;
        let mut mask = group_mask;
        if let Some(guard @ PSrc::Reg { .. }) = instr.guard {
            warp.bad = 0;
            mask &= warp.pred(guard);
            if warp.bad != 0 {
                let mut ctx = Ctx { env, warp, cl, pc };
                return Err(ctx.undefined_guard());
            }
        }
        cl.counters.instruction(pc, mask);
        if let Op::Bra { target } = instr.op {
            branch(warp, at, target, mask);
            if !goes_on(warp) {
                return Ok(true);
            }
            continue;
        }
        if mask == 0 {
            warp.groups[at].pc = pc + 1;
            if !goes_on(warp) {
                return Ok(true);
            }
            continue;
        }
        warp.mask = mask;
        let mut ctx = Ctx { env, warp, cl, pc };
        if let Op::Brx { table, index } = &instr.op {
            ctx.indexed(at, table, index)?;
            return Ok(true);
        }
        let meeting = meets(&instr.op);
        if !matches!(meeting, Meet::Alone) {
            match ctx.gather(at, mask, meeting)? {
                Gathered::Here => {}
                Gathered::Waiting => return Ok(true),
                Gathered::Regrouped => return Ok(true),
            }
        }
        let flow = ctx.step(&instr.op)?;
        if !after(warp, at, mask, flow) || !goes_on(warp) {
            return Ok(!matches!(flow, Flow::Pass(_)));
        }
    }
    Ok(true)
}

fn branch(warp: &mut Warp, at: usize, target: u32, taken: u32) {
    let g = &mut warp.groups[at];
    let stay = g.mask & !taken;
    if taken != 0 && target <= g.pc {
        g.spins += 1;
        if g.spins >= SPINS {
            g.spins = 0;
            g.turn += 1;
        }
    }
    if stay == 0 {
        g.pc = target;
    } else if taken == 0 {
        g.pc += 1;
    } else {
        let rest = g.split(g.pc + 1, stay);
        g.pc = target;
        g.mask = taken;
        warp.groups.push(rest);
    }
}

/// Applies what an instruction said; false if another group has to be chosen.
fn after(warp: &mut Warp, at: usize, mask: u32, flow: Flow) -> bool {
    let at = match warp.groups.get(at) {
        Some(g) if g.mask & mask != 0 => at,
        _ => match warp.groups.iter().position(|g| g.mask & mask != 0) {
            Some(at) => at,
            None => return false,
        },
    };
    let g = &mut warp.groups[at];
    match flow {
        Flow::Next => {
            g.pc += 1;
            true
        }
        Flow::Hold(wait) => {
            g.wait = wait;
            false
        }
        Flow::Pass(wait) => {
            g.pc += 1;
            g.wait = wait;
            g.turn += 1;
            false
        }
        Flow::Ended => {
            g.mask &= !mask;
            g.pc += 1;
            if g.mask == 0 {
                warp.groups.remove(at);
            }
            // Lanes that waited for the ended ones ask again.
            for g in warp.groups.iter_mut().filter(|g| g.wait == Wait::Lanes) {
                g.wait = Wait::Ready;
            }
            false
        }
    }
}
