//! `setmaxnreg`: warps give registers back to their block's pool and take them from it.

use super::cluster::{Cluster, Ctx};
use super::fault::{Run, stop};
use super::{Flow, Wait};
use crate::error::Rule;
use crate::isa::{Kernel, Op};

/// Registers of an SM.
const FILE: u32 = 65_536;

/// Registers that a thread starts with: `.maxnreg`, or what launch bounds leave each, in steps of
/// eight. `None` where neither is given; the assembler then ignores `setmaxnreg`.
pub fn at_entry(k: &Kernel) -> Option<u32> {
    let uses = k.code.iter().any(|i| matches!(i.op, Op::SetMaxNReg { .. }));
    if !uses || k.max_registers.is_some() {
        return k.max_registers.filter(|_| uses);
    }
    let threads: u32 = k.required_threads.or(k.max_threads)?.iter().product();
    let resident = threads.next_multiple_of(32).max(32) * k.min_blocks.unwrap_or(1).max(1);
    Some((FILE / resident / 8 * 8).min(256))
}

impl Ctx<'_> {
    /// The warp's threads will have `count` registers each. An increase waits until the pool has
    /// enough.
    pub fn set_max_registers(&mut self, increase: bool, count: u32) -> Run<Flow> {
        let Some(now) = self.warp.registers else { return Ok(Flow::Next) };
        if (increase && count < now) || (!increase && count > now) {
            let way = if increase { "inc" } else { "dec" };
            let message = format!("setmaxnreg.{way} to {count} from {now} registers a thread");
            return stop(Rule::Undefined, message);
        }
        let difference = 32 * now.abs_diff(count);
        let version = self.cl.version;
        let free = self.block().free_registers;
        if increase && free < difference {
            self.cl.counters.waited(self.pc);
            return Ok(Flow::Hold(Wait::Registers(version)));
        }
        self.block().free_registers = if increase { free - difference } else { free + difference };
        self.warp.registers = Some(count);
        self.changed();
        Ok(Flow::Next)
    }
}

impl Cluster {
    /// Says what the pool lacks, if warps of a block wait for registers.
    pub fn registers_wanted(&self, rank: usize) -> String {
        let warps = self.warps.iter().flatten().filter(|w| w.rank == rank);
        let waiting =
            warps.filter(|w| w.groups.iter().any(|g| matches!(g.wait, Wait::Registers(_)))).count();
        if waiting == 0 {
            return String::new();
        }
        let free = self.blocks[rank].free_registers;
        format!("; {waiting} warps of block {rank} wait for registers, {free} are free")
    }
}
