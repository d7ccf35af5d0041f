//! What a kernel's text says before it runs: how many registers it is likely to need, and where
//! it stops to wait for memory.

use crate::isa::{Kernel, Op, Reg, RegKind, Space};

/// Registers that the assembler keeps beside those that carry values.
const OVERHEAD: u32 = 8;

/// Slots of the 32-bit file first, then those of the 64-bit file; `None` for the others.
fn slot(k: &Kernel, reg: Reg) -> Option<usize> {
    match reg.kind {
        RegKind::B64 => Some((k.regs32 + reg.slot) as usize),
        RegKind::Pred | RegKind::Sink => None,
        _ => Some(reg.slot as usize),
    }
}

/// First and last instruction at which each register holds a value that is still needed, loops
/// taken into account.
fn lifetimes(k: &Kernel) -> Vec<Option<(usize, usize)>> {
    let mut lives = vec![None::<(usize, usize)>; (k.regs32 + k.regs64) as usize];
    for (pc, instr) in k.code.iter().enumerate() {
        let mut touch = |reg: Reg| {
            if let Some(life) = slot(k, reg).and_then(|s| lives.get_mut(s)) {
                let (start, end) = life.unwrap_or((pc, pc));
                *life = Some((start.min(pc), end.max(pc)));
            }
        };
        instr.op.reads(&mut touch);
        instr.op.writes(&mut touch);
    }
    let back = k.code.iter().enumerate().filter_map(|(pc, i)| match i.op {
        Op::Bra { target } if (target as usize) < pc => Some((target as usize, pc)),
        _ => None,
    });
    let loops: Vec<(usize, usize)> = back.collect();
    // What is alive when a loop begins and used in it lives to its end; twice for nested loops.
    for _ in 0..2 {
        for &(head, end) in &loops {
            for (start, last) in lives.iter_mut().flatten() {
                if *start < head && (head..end).contains(last) {
                    *last = end;
                }
            }
        }
    }
    lives
}

/// An estimate of the registers of a thread, for use where no assembler has said it: the most
/// 32-bit words alive at once in the order of the text, within the bounds that the kernel sets.
pub fn estimated_registers(k: &Kernel) -> u32 {
    let mut change = vec![0i64; k.code.len() + 1];
    for (s, life) in lifetimes(k).iter().enumerate() {
        if let Some((start, end)) = life {
            let words = if s < k.regs32 as usize { 1 } else { 2 };
            change[*start] += words;
            change[*end + 1] -= words;
        }
    }
    let (mut alive, mut most) = (0i64, 0);
    for step in change {
        alive += step;
        most = most.max(alive);
    }
    let threads = k.max_threads.or(k.required_threads).map_or(1, |t| t.iter().product::<u32>());
    let blocks = k.min_blocks.unwrap_or(1).max(1);
    let bound = (65536 / (threads.max(1).saturating_mul(blocks)).max(1)).clamp(16, 255) / 8 * 8;
    (most as u32 + OVERHEAD).next_multiple_of(8).clamp(16, bound)
}

/// Instructions at which a warp stops for data from global memory: the first use of a loaded
/// register, and waits for asynchronous copies.
pub fn memory_stalls(k: &Kernel) -> Vec<bool> {
    let mut loaded = vec![false; (k.regs32 + k.regs64) as usize];
    let mut copying = false;
    let mut stalls = vec![false; k.code.len()];
    for (pc, instr) in k.code.iter().enumerate() {
        let mut waits = false;
        instr.op.reads(&mut |reg| {
            waits |= slot(k, reg).is_some_and(|s| loaded.get(s).copied().unwrap_or(false));
        });
        let waits_for_copies = match &instr.op {
            Op::CpWait { .. } => copying,
            Op::Mbar(m) => matches!(m.kind, crate::isa::MbarKind::Test { .. }),
            _ => false,
        };
        if waits {
            loaded.fill(false);
        }
        copying &= !waits_for_copies;
        stalls[pc] = waits || waits_for_copies;
        match &instr.op {
            Op::Ld { space: Space::Global | Space::Generic, d, .. } | Op::Atom { d, .. } => {
                for s in d.iter().filter_map(|reg| slot(k, *reg)) {
                    loaded[s] = true;
                }
            }
            Op::CpAsync { .. } | Op::Bulk(_) => copying = true,
            _ => {}
        }
    }
    stalls
}
