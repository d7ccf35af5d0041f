//! How lanes meet at an instruction that needs them together.

use super::Wait;
use super::cluster::Ctx;
use super::fault::{Run, Stop};
use super::step::Meet;
use crate::error::Rule;

pub enum Gathered {
    /// The group at the index has all lanes that have to meet.
    Here,
    /// Some are missing; the group waits.
    Waiting,
    /// Groups were joined or split: choose again.
    Regrouped,
}

impl Ctx<'_> {
    pub fn undefined_guard(&mut self) -> Box<Stop> {
        let (_, slot) = self.warp.bad_reg;
        let name = self.env.k.names[2].get(slot as usize).cloned().unwrap_or_default();
        let message = format!("predicate {name} is read before it has a value");
        let lane = Some(self.warp.bad.trailing_zeros());
        Box::new(Stop { rule: Rule::Uninitialised, message, lane, others: Vec::new() })
    }

    /// Brings together the lanes that an instruction needs.
    pub fn gather(&mut self, at: usize, mask: u32, meeting: Meet) -> Run<Gathered> {
        let group = self.warp.groups[at].mask;
        let pc = self.pc;
        if mask != group {
            // Lanes that the guard excludes go on alone.
            let rest = self.warp.groups[at].split(pc + 1, group & !mask);
            self.warp.groups[at].mask = mask;
            self.warp.groups.push(rest);
            return Ok(Gathered::Regrouped);
        }
        let live = self.warp.live;
        if let Meet::Named(src) = &meeting
            && mask == live
        {
            // The usual case: all lanes are here and name at least themselves, alike.
            self.warp.bad = 0;
            let masks = self.src32(src);
            let first = masks[mask.trailing_zeros() as usize % 32];
            let alike = (0..32).all(|i| mask >> i & 1 == 0 || masks[i] == first);
            if self.warp.bad == 0 && alike && first & mask == mask {
                self.warp.mask = mask;
                return Ok(Gathered::Here);
            }
        }
        let need = match meeting {
            Meet::Named(src) => {
                let first = self.named(&src)?;
                let masks = self.src32(&src);
                let alike = super::warp::lanes(mask)
                    .filter(|l| masks[*l as usize] == first)
                    .fold(0, |m, l| m | 1 << l);
                if alike != mask {
                    let rest = self.warp.groups[at].split(pc, mask & !alike);
                    self.warp.groups[at].mask = alike;
                    self.warp.groups.push(rest);
                    // The rest merges back when chosen, so it must wait for its own partners.
                    return self.meet(at, first & live);
                }
                first & live
            }
            _ => live,
        };
        self.meet(at, need)
    }

    fn meet(&mut self, at: usize, need: u32) -> Run<Gathered> {
        let pc = self.pc;
        let mask = self.warp.groups[at].mask;
        if mask & need == need {
            self.warp.mask = mask;
            return Ok(Gathered::Here);
        }
        let mut all = mask;
        for g in &self.warp.groups {
            if g.pc == pc && g.wait == Wait::Lanes && g.mask & need != 0 {
                all |= g.mask;
            }
        }
        if all & need == need {
            let merged = self.warp.groups[at].split(pc, all);
            self.warp.groups.retain(|g| g.mask & all == 0);
            self.warp.groups.push(merged);
            return Ok(Gathered::Regrouped);
        }
        self.warp.groups[at].wait = Wait::Lanes;
        Ok(Gathered::Waiting)
    }

    pub fn indexed(&mut self, at: usize, table: &[u32], index: &crate::isa::Src) -> Run<()> {
        let by = self.src32(index);
        let old = self.warp.groups[at].clone();
        let mut rest = self.warp.mask;
        let skipped = old.mask & !rest;
        self.warp.groups.remove(at);
        if skipped != 0 {
            self.warp.groups.push(old.split(self.pc + 1, skipped));
        }
        while rest != 0 {
            let lane = rest.trailing_zeros();
            let value = by[lane as usize];
            let same = super::warp::lanes(rest)
                .filter(|l| by[*l as usize] == value)
                .fold(0, |m, l| m | 1 << l);
            rest &= !same;
            let Some(target) = table.get(value as usize) else {
                let message = format!("brx.idx {value} of {} targets", table.len());
                return super::fault::stop_lane(Rule::OutOfBounds, lane, message);
            };
            self.warp.groups.push(old.split(*target, same));
        }
        Ok(())
    }

    /// cp.async.mbarrier.arrive: the lane's copies so far, then the arrival.
    pub fn late_arrival(&mut self, op: &super::bulk::AsyncOp) -> Run<()> {
        let lane = op.lane;
        let groups = std::mem::take(&mut self.warp.lane_copies(lane).groups);
        for group in &groups {
            self.perform(group, lane)?;
        }
        let open = std::mem::take(&mut self.warp.lane_copies(lane).open);
        self.perform(&open, lane)?;
        let known = self.warp.knowledge(1 << lane);
        self.warp.advance(1 << lane);
        for (rank, at, _) in &op.mbars {
            let bar = self.mbar_mut(*rank, *at, lane)?;
            bar.gathering.join(&known);
            if bar.pending == 0 {
                return super::fault::stop_lane(
                    Rule::BarrierMisuse,
                    lane,
                    "more arrivals than the phase expects",
                );
            }
            bar.pending -= 1;
            bar.settle();
        }
        self.changed();
        Ok(())
    }
}
